//! Cuts a byte stream into messages; it reads no socket.

use super::envelope::Envelope;
use super::{ENVELOPE_BYTES, Message};
use crate::{DecodeError, Decoder};

/// Collects the bytes of a stream and returns the messages in it, of every version up to
/// [`WireVersion::NEWEST`](super::WireVersion::NEWEST).
///
/// Holds at most one body and what one read brought. After an error the stream cannot be trusted
/// further: every later [`Self::poll`] returns the same error.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    taken: usize,
    failed: Option<DecodeError>,
}

impl Deframer {
    /// Takes the bytes of one read.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Returns the next whole message, or `None` until more bytes come. Call until `None`.
    ///
    /// # Errors
    /// [`DecodeError`]: close the connection.
    pub fn poll(&mut self) -> Result<Option<Message>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.next().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.taken = 0;
        })
    }

    fn next(&mut self) -> Result<Option<Message>, DecodeError> {
        let rest = &self.buffer[self.taken..];
        if rest.len() < ENVELOPE_BYTES {
            return Ok(None);
        }
        let mut from = Decoder::new(rest);
        let envelope = Envelope::decode(&mut from)?;
        let Some(body) = from.rest().get(..envelope.body_len) else {
            return Ok(None);
        };
        let message = Message::decode_body(envelope.version, envelope.kind, body)?;
        self.taken += ENVELOPE_BYTES + envelope.body_len;
        Ok(Some(message))
    }
}
