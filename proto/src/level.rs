//! Database levels, epochs and positions; it knows no record.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder};

/// Database level: the number of the last change applied; rises by one per change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Level(pub u64);

impl Level {
    /// Level of an empty database.
    pub const ZERO: Self = Self(0);

    /// Returns the level `changes` later.
    #[must_use]
    pub fn plus(self, changes: u64) -> Self {
        Self(self.0.saturating_add(changes))
    }

    /// Returns how many changes lie between `earlier` and this level; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random 128-bit identity of an epoch: two masters from one cloned disk differ in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EpochId(pub [u8; 16]);

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight hex digits tell epochs apart for a reader; all sixteen bytes are compared.
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One life of the log under one active master. A new writer always starts a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Rises by one with each new writer; zero before the first.
    pub counter: u64,
    /// Random identity.
    pub id: EpochId,
}

impl Epoch {
    /// Encoded size in bytes.
    pub const BYTES: usize = 24;

    /// Appends `counter u64, id [u8; 16]`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.counter).bytes(&self.id.0);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            counter: from.u64("epoch counter")?,
            id: EpochId(from.array("epoch id")?),
        })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.counter, self.id)
    }
}

/// Content of a table as one number: the sum of its records' keyed 128-bit hashes, in two 64-bit lanes.
///
/// An addition, never XOR: XOR is linear over GF(2), and double entries would cancel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Root(pub [u64; 2]);

impl Root {
    /// Content of an empty table.
    pub const EMPTY: Self = Self([0; 2]);

    /// Returns the content with one more record.
    #[must_use]
    pub fn plus(self, record: Self) -> Self {
        Self([
            self.0[0].wrapping_add(record.0[0]),
            self.0[1].wrapping_add(record.0[1]),
        ])
    }

    /// Returns the content without that record.
    #[must_use]
    pub fn minus(self, record: Self) -> Self {
        Self([
            self.0[0].wrapping_sub(record.0[0]),
            self.0[1].wrapping_sub(record.0[1]),
        ])
    }

    /// Appends both lanes.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.0[0]).u64(self.0[1]);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self([from.u64("root")?, from.u64("root")?]))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[1], self.0[0])
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a replica stands: which epoch, which level, which content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the last change.
    pub epoch: Epoch,
    /// The last change.
    pub level: Level,
    /// The content at that level.
    pub root: Root,
}

impl Position {
    /// Appends epoch, level, root.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        self.epoch.encode(out);
        out.u64(self.level.0);
        self.root.encode(out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch::decode(from)?,
            level: Level(from.u64("level")?),
            root: Root::decode(from)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {} of epoch {}", self.level, self.epoch)
    }
}
