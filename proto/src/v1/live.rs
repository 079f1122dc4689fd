//! The heartbeat that tells a node the time and whether it is up to date; it carries no record.

use serde::{Deserialize, Serialize};

use super::{WireVersion, synthetic};
use crate::{DecodeError, Decoder, Encoder, MasterTime, Position};

/// Service time and end of the log, each half second.
///
/// Sent behind every frame up to its position: a node that has applied them all compares level and
/// root at once, and may then count its table as complete until `time` (rules 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Service time.
    pub time: MasterTime,
    /// The end of the log.
    pub head: Position,
}

impl Heartbeat {
    /// Appends `time u64`, head.
    pub(super) fn encode_in(&self, version: WireVersion, out: &mut Encoder<'_>) {
        out.u64(self.time.0);
        self.head.encode(out);
        synthetic::encode(version, &self.head, out);
    }

    /// Reads what [`Self::encode_in`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub(super) fn decode_in(
        version: WireVersion,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let heartbeat = Self {
            time: MasterTime(from.u64("time")?),
            head: Position::decode(from)?,
        };
        synthetic::decode(version, &heartbeat.head, from)?;
        Ok(heartbeat)
    }
}
