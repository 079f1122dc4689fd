//! A whole table in parts, taken while it changes; it does not load or store one.
//!
//! The records of a snapshot are read while the master goes on writing: each is true at some level
//! between `begin.level` and `end.level`. The frames after `begin.level` follow the snapshot; once they
//! are applied up to `end.level`, the table's root must equal `end.root`.

use serde::{Deserialize, Serialize};

use crate::frame::{decode_records, encode_records};
use crate::{Change, DecodeError, Decoder, Encoder, Level, Position, Root};

/// A part is closed when it has grown to this many bytes; the largest record fits behind it.
pub const SNAPSHOT_PART_BYTES: usize = 128 * 1024;

/// Head of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    /// Where the master stood when it began to read.
    pub position: Position,
    /// Records in its table then; for sizing and progress only.
    pub records: u64,
    /// Bytes of their keys and values then; likewise.
    pub bytes: u64,
}

impl SnapshotBegin {
    /// Appends position, `records u64, bytes u64`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        self.position.encode(out);
        out.u64(self.records).u64(self.bytes);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            position: Position::decode(from)?,
            records: from.u64("records")?,
            bytes: from.u64("bytes")?,
        })
    }
}

/// Some records, each a put at its own level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// The records.
    pub records: Vec<Change>,
}

impl SnapshotPart {
    /// Appends `count u32` and the records as changes of a frame.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        encode_records(&self.records, out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// A delete among the records, malformed records, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            records: decode_records(from, "snapshot record")?,
        })
    }
}

/// Tail of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// Level of the master after it read the last record.
    pub level: Level,
    /// Its content at that level.
    pub root: Root,
}

impl SnapshotEnd {
    /// Appends `level u64`, root.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.level.0);
        self.root.encode(out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            level: Level(from.u64("level")?),
            root: Root::decode(from)?,
        })
    }
}
