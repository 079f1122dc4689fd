//! The distribution frame: a run of messages under one signature, cut into DATA datagrams; it signs and
//! verifies none.

use crate::v1::envelope::Envelope;
use crate::v1::{BODY_BYTES_MAX, ENVELOPE_BYTES, FRAME_KIND, HEARTBEAT_KIND, WireVersion};
use crate::{DecodeError, Decoder, Message};

/// Bytes of the Ed25519 signature at the front.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest distribution frame: what was gathered (32 KiB) and the longest message behind it.
pub const GROUP_FRAME_BYTES_MAX: usize =
    SIGNATURE_BYTES + 32 * 1024 + ENVELOPE_BYTES + BODY_BYTES_MAX;
/// What the text that is signed begins with: a signature for this says nothing anywhere else.
///
/// Behind it stand `stream u64`, the `seq u64` of the frame's first datagram, and the messages. Stream and
/// seq bind a frame to its place: it can be neither played again nor moved.
pub const GROUP_FRAME_CONTEXT: &[u8] = b"locus group frame 1";

/// A distribution frame, not verified yet.
///
/// ```text
/// 0  signature | 64  messages of wire version 1, one behind the other: Frame and Heartbeat only
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupFrame<'a> {
    /// Over [`GROUP_FRAME_CONTEXT`], the frame's place and the messages.
    pub signature: &'a [u8; SIGNATURE_BYTES],
    /// The messages' bytes.
    pub messages: &'a [u8],
}

impl<'a> GroupFrame<'a> {
    /// Splits the payloads of all its datagrams, put together.
    ///
    /// # Errors
    /// Truncation, a frame without messages, more than [`GROUP_FRAME_BYTES_MAX`] bytes.
    pub fn split(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let len = bytes.len();
        if len > GROUP_FRAME_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "distribution frame",
                len,
                max: GROUP_FRAME_BYTES_MAX,
            });
        }
        let Some((signature, messages)) = bytes.split_first_chunk() else {
            return Err(DecodeError::Truncated {
                what: "signature",
                need: SIGNATURE_BYTES,
                have: len,
            });
        };
        if messages.is_empty() {
            return Err(DecodeError::Malformed {
                what: "distribution frame",
            });
        }
        Ok(Self {
            signature,
            messages,
        })
    }

    /// Reads the messages, in order. Verify the signature first.
    ///
    /// # Errors
    /// Bytes that are no message, a message that is neither Frame nor Heartbeat, another version than 1:
    /// the group speaks to nodes of every age.
    pub fn messages(&self) -> Result<Vec<Message>, DecodeError> {
        let mut from = Decoder::new(self.messages);
        let mut messages = Vec::new();
        while !from.rest().is_empty() {
            let envelope = Envelope::decode(&mut from)?;
            if envelope.version != WireVersion::V1 {
                return Err(DecodeError::Version {
                    found: envelope.version.get(),
                    spoken: WireVersion::V1.get(),
                });
            }
            if !matches!(envelope.kind, FRAME_KIND | HEARTBEAT_KIND) {
                return Err(DecodeError::Unknown {
                    what: "message kind in a distribution frame",
                    value: envelope.kind.into(),
                });
            }
            let body = from.bytes("body", envelope.body_len)?;
            messages.push(Message::decode_body(WireVersion::V1, envelope.kind, body)?);
        }
        Ok(messages)
    }
}
