//! One batch of changes with everything that guards its application; payload of the log and of the wire.
//!
//! It does not know whether it lies on disk or travels.

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder, Epoch, Key, Level, MasterTime, Position, Root};

/// Most changes in one frame.
pub const FRAME_CHANGES_MAX: usize = 1024;
/// Most bytes of one encoded frame: 256 KiB of keys and values, and their heads.
pub const FRAME_BYTES_MAX: usize = 320 * 1024;
/// Longest value in bytes; the largest address-of-record record fits.
pub const VALUE_BYTES_MAX: usize = 32 * 1024 - 1;

/// What a change does to its key; absolute, so that applying it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeOp {
    /// The record is now this value.
    Put(Vec<u8>),
    /// There is no record any more.
    Delete,
}

/// One accepted change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// Its number.
    pub level: Level,
    /// What happened.
    pub op: ChangeOp,
}

impl Change {
    /// Returns the bytes that key and value take.
    pub fn payload_bytes(&self) -> usize {
        let value = match &self.op {
            ChangeOp::Put(value) => value.len(),
            ChangeOp::Delete => 0,
        };
        self.key.as_bytes().len() + value
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameKind {
    /// Changes of its epoch.
    Changes,
    /// The first frame of a new epoch: no change, from = to.
    Epoch,
}

/// Everything of a frame but its changes (rules 1.1 to 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// What it is for.
    pub kind: FrameKind,
    /// Shard of the log; zero until there are several.
    pub shard: u16,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// It applies to a table at exactly this level …
    pub from: Level,
    /// … and brings it to this one. May hold fewer changes than levels: the last per key suffices.
    pub to: Level,
    /// It applies to a table with exactly this content …
    pub root_before: Root,
    /// … and brings it to this one.
    pub root_after: Root,
    /// Service time of the commit.
    pub time: MasterTime,
}

impl FrameHeader {
    /// Returns where a table stands after the frame.
    pub fn after(&self) -> Position {
        Position {
            epoch: self.epoch,
            level: self.to,
            root: self.root_after,
        }
    }
}

/// A batch: a header and its changes, level ascending, each key once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The guards.
    pub header: FrameHeader,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Frame {
    /// Appends the frame.
    ///
    /// ```text
    ///   0  kind u8 (1 changes, 2 epoch) | reserved u8 (0) | shard u16 | count u32
    ///   8  epoch counter u64 | epoch id 16 bytes
    ///  32  from u64 | to u64
    ///  48  root_before 16 bytes | root_after 16 bytes
    ///  80  time u64
    ///  88  per change: op u8 (1 put, 2 delete) | reserved u8 (0) | key length u16 | value length u32
    ///                | level u64 | key | value
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        let header = &self.header;
        let mut out = Encoder::new(out);
        let kind = match header.kind {
            FrameKind::Changes => 1,
            FrameKind::Epoch => 2,
        };
        out.u8(kind)
            .u8(0)
            .u16(header.shard)
            .len32(self.changes.len());
        header.epoch.encode(&mut out);
        out.u64(header.from.0).u64(header.to.0);
        header.root_before.encode(&mut out);
        header.root_after.encode(&mut out);
        out.u64(header.time.0);
        for change in &self.changes {
            encode_change(change, &mut out);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Unknown kinds, counts and lengths above their limits, levels out of order, truncation, trailing
    /// bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let (header, count) = Self::decode_header(&mut from)?;
        let mut changes = Vec::with_capacity(count);
        let mut last = header.from;
        for _ in 0..count {
            let change = decode_change(&mut from)?;
            if change.level <= last || change.level > header.to {
                return Err(DecodeError::Malformed {
                    what: "level of a change",
                });
            }
            last = change.level;
            changes.push(change);
        }
        from.end()?;
        Ok(Self { header, changes })
    }

    /// Reads the header alone and returns it with the number of changes that follow.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_header(from: &mut Decoder<'_>) -> Result<(FrameHeader, usize), DecodeError> {
        let kind = match from.u8("frame kind")? {
            1 => FrameKind::Changes,
            2 => FrameKind::Epoch,
            other => {
                return Err(DecodeError::Unknown {
                    what: "frame kind",
                    value: other.into(),
                });
            }
        };
        reserved(from)?;
        let shard = from.u16("shard")?;
        let count = usize::try_from(from.u32("change count")?).unwrap_or(usize::MAX);
        if count > FRAME_CHANGES_MAX {
            let max = FRAME_CHANGES_MAX;
            return Err(DecodeError::TooLong {
                what: "changes",
                len: count,
                max,
            });
        }
        let header = FrameHeader {
            kind,
            shard,
            epoch: Epoch::decode(from)?,
            from: Level(from.u64("from level")?),
            to: Level(from.u64("to level")?),
            root_before: Root::decode(from)?,
            root_after: Root::decode(from)?,
            time: MasterTime(from.u64("time")?),
        };
        let span_fits = match kind {
            FrameKind::Changes => count >= 1 && header.to > header.from,
            FrameKind::Epoch => count == 0 && header.to == header.from,
        };
        if !span_fits {
            return Err(DecodeError::Malformed { what: "level span" });
        }
        Ok((header, count))
    }
}

/// Appends one change, also a record of a snapshot (a put at its own level).
fn encode_change(change: &Change, out: &mut Encoder<'_>) {
    let (op, value): (u8, &[u8]) = match &change.op {
        ChangeOp::Put(value) => (1, value),
        ChangeOp::Delete => (2, &[]),
    };
    let key = change.key.as_bytes();
    out.u8(op)
        .u8(0)
        .u16(u16::try_from(key.len()).unwrap_or(u16::MAX))
        .len32(value.len());
    out.u64(change.level.0).bytes(key).bytes(value);
}

fn decode_change(from: &mut Decoder<'_>) -> Result<Change, DecodeError> {
    let op = from.u8("operation")?;
    reserved(from)?;
    let key_len = usize::from(from.u16("key length")?);
    let len = usize::try_from(from.u32("value length")?).unwrap_or(usize::MAX);
    if len > VALUE_BYTES_MAX {
        return Err(DecodeError::TooLong {
            what: "value",
            len,
            max: VALUE_BYTES_MAX,
        });
    }
    let level = Level(from.u64("level")?);
    let key = Key::from_bytes(from.bytes("key", key_len)?)?;
    let value = from.bytes("value", len)?;
    let op = match op {
        1 => ChangeOp::Put(value.to_vec()),
        2 if len == 0 => ChangeOp::Delete,
        other => {
            return Err(DecodeError::Unknown {
                what: "operation",
                value: other.into(),
            });
        }
    };
    Ok(Change { key, level, op })
}

/// Appends `count u32` and records: changes of a frame, each a put at its own level.
pub(crate) fn encode_records(records: &[Change], out: &mut Encoder<'_>) {
    out.len32(records.len());
    for record in records {
        encode_change(record, out);
    }
}

/// Reads what [`encode_records`] wrote; a delete among them is malformed, `what` says of which message.
pub(crate) fn decode_records(
    from: &mut Decoder<'_>,
    what: &'static str,
) -> Result<Vec<Change>, DecodeError> {
    let count = from.u32("record count")?;
    // No capacity ahead of the bytes: the count is a stranger's word.
    let mut records = Vec::new();
    for _ in 0..count {
        let record = decode_change(from)?;
        if record.op == ChangeOp::Delete {
            return Err(DecodeError::Malformed { what });
        }
        records.push(record);
    }
    Ok(records)
}

/// Reads a byte that this version keeps at zero: another value is a later version's and means something.
fn reserved(from: &mut Decoder<'_>) -> Result<(), DecodeError> {
    match from.u8("reserved")? {
        0 => Ok(()),
        value => Err(DecodeError::Unknown {
            what: "reserved byte",
            value: value.into(),
        }),
    }
}
