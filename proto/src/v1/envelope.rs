//! What stands before each message; it knows no body.

use super::{ENVELOPE_BYTES, WireVersion};
use crate::{DecodeError, Decoder, Encoder};

/// First four bytes of each message: `LOCU`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LOCU");
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = 512 * 1024;

/// The envelope of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    /// Version of the body's layout, spoken here.
    pub(super) version: WireVersion,
    /// Kind of the body.
    pub(super) kind: u8,
    /// Bytes of the body, at most [`BODY_BYTES_MAX`].
    pub(super) body_len: usize,
}

impl Envelope {
    /// Appends `magic "LOCU", version u8, kind u8, flags u16 (0), body length u32`.
    pub(super) fn encode(self, out: &mut Encoder<'_>) {
        out.u32(MAGIC)
            .u8(self.version.get())
            .u8(self.kind)
            .u16(0)
            .len32(self.body_len);
    }

    /// Writes the length of the body that follows the envelope at `start`.
    pub(super) fn close(out: &mut [u8], start: usize) {
        let body = u32::try_from(out.len() - start - ENVELOPE_BYTES).unwrap_or(u32::MAX);
        out[start + 8..start + ENVELOPE_BYTES].copy_from_slice(&body.to_le_bytes());
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Another magic, a version that is not spoken or that gave this kind no layout, flags, a body
    /// above its limit, truncation.
    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let magic = from.u32("magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Magic(magic));
        }
        let version = WireVersion::try_from(from.u8("version")?)?;
        let kind = from.u8("kind")?;
        if version.of_kind(kind) != version {
            // One message has one form: what an older version can carry does not come in a newer one.
            return Err(DecodeError::Unknown {
                what: "message kind of that version",
                value: kind.into(),
            });
        }
        if from.u16("flags")? != 0 {
            return Err(DecodeError::Malformed { what: "flags" });
        }
        let body_len = usize::try_from(from.u32("body length")?).unwrap_or(usize::MAX);
        if body_len > BODY_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "body",
                len: body_len,
                max: BODY_BYTES_MAX,
            });
        }
        Ok(Self {
            version,
            kind,
            body_len,
        })
    }
}
