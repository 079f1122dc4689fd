//! Why a table could not be opened or changed; each says what to do about it where somebody can.

use std::io;

use locus_proto::{Key, Level, Root};

use crate::view::Reason;
use crate::{Generation, Geometry, RegionName};

/// Returned when memory cannot be used as a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenTableError {
    /// Less memory than the table says it takes.
    #[error("the table needs {need} words, its memory has {words}")]
    TooSmall {
        /// Words there.
        words: usize,
        /// Words needed.
        need: usize,
    },
    /// It is not a table.
    #[error("not a table (starts with {0:#018x})")]
    Magic(u64),
    /// A layout this build does not read; refused, never guessed.
    #[error("table format {found} is not read here, this build reads format {spoken}")]
    Format {
        /// The format found.
        found: u64,
        /// The format of this build.
        spoken: u64,
    },
    /// A size that no table can have.
    #[error("a table cannot have {} buckets and {} bytes of records", geometry.buckets, geometry.arena_bytes)]
    Geometry {
        /// The size.
        geometry: Geometry,
    },
    /// A full load was begun and not finished.
    #[error("the table is not completely loaded")]
    Loading,
    /// Its parts contradict each other; only a full reload helps.
    #[error("the table is corrupt: {what}")]
    Corrupt {
        /// What contradicts.
        what: &'static str,
    },
}

/// Returned when a batch cannot be applied; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// More changes than a batch may have.
    #[error("a batch has at most {max} changes, this one has {changes}")]
    TooManyChanges {
        /// Changes in it.
        changes: usize,
        /// The limit.
        max: usize,
    },
    /// More bytes than the journal holds.
    #[error("a batch takes at most {max} bytes of journal, this one takes {bytes}")]
    TooLarge {
        /// Bytes it takes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Two changes of one key.
    #[error("{0} is changed twice in one batch")]
    KeyTwice(Key),
    /// A value above the limit.
    #[error("a value has at most {max} bytes, that of {key} has {len}")]
    ValueTooLong {
        /// Its key.
        key: Key,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// No free slot near the home of a key.
    #[error(
        "the index is full at {records} records in {buckets} buckets: raise records_max and reload"
    )]
    IndexFull {
        /// Records in the table.
        records: u64,
        /// Buckets of the index.
        buckets: u64,
    },
    /// Not enough free memory for the new records.
    #[error(
        "the table is full: {need_slabs} more slabs of 64 KiB are needed, {free_slabs} are free: raise records_max and reload"
    )]
    ArenaFull {
        /// Slabs that the batch may need.
        need_slabs: u64,
        /// Slabs that are free.
        free_slabs: u64,
    },
    /// The memory of its record, or of a slot in which that may lie, has rotted; a repair of its partition
    /// or a full reload helps.
    #[error("the table is corrupt near {0}")]
    Corrupt(Key),
}

/// Returned when a frame does not fit the table; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It begins at another level.
    #[error("the frame applies to level {got}, the table is at level {have}")]
    LevelGap {
        /// Level of the table.
        have: Level,
        /// Level at which the frame begins.
        got: Level,
    },
    /// It applies to other content.
    #[error("the frame applies to content {got}, the table at level {level} has {have}")]
    RootBefore {
        /// Level of the table.
        level: Level,
        /// Content of the table.
        have: Root,
        /// Content that the frame applies to.
        got: Root,
    },
    /// It would not lead to the content that it says.
    #[error("the frame leads to content {have}, it says {got}")]
    RootAfter {
        /// Content that it would lead to.
        have: Root,
        /// Content that it says.
        got: Root,
    },
    /// The table is still being loaded.
    #[error("the table is not completely loaded")]
    Loading,
    /// It does not fit.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Returned when a partition could not be repaired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// What was said to be its content cannot be; nothing was changed.
    #[error("the partition cannot hold what the master says: {key} {what}")]
    Content {
        /// The record.
        key: Key,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What differs does not fit.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The table is still being loaded.
    #[error("the table is not completely loaded")]
    Loading,
    /// Memory does not keep what is written to it; only a full reload helps.
    #[error(
        "partition {partition} is not what was written to it: its memory is broken, reload the table"
    )]
    Rotten {
        /// Which.
        partition: u16,
    },
}

/// Returned when a table could not be copied into a bigger one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrowError {
    /// A record of the live table could not be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The bigger one is not big enough.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Returned when a full load did not lead to the master's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{records} loaded records have content {have}, the master at level {level} has {got}")]
pub struct FinishLoadError {
    /// Records loaded.
    pub records: u64,
    /// Level that was to be reached.
    pub level: Level,
    /// Content loaded.
    pub have: Root,
    /// Content of the master.
    pub got: Root,
}

/// Returned when a scan cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A slot could not be read.
    #[error("bucket {bucket} could not be read: {reason}")]
    Unavailable {
        /// Where.
        bucket: u64,
        /// Why.
        reason: Reason,
    },
    /// A record whose key is none.
    #[error("bucket {bucket} holds a record with a malformed key")]
    Key {
        /// Where.
        bucket: u64,
    },
}

/// Returned when a table's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A region could not be created, mapped or removed.
    #[error("{name} cannot be used")]
    Region {
        /// Which.
        name: RegionName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ctl` is of another format; the folder belongs to another version.
    #[error("the control region has format {found}, this build reads format {spoken}")]
    Format {
        /// The format found.
        found: u64,
        /// The format of this build.
        spoken: u64,
    },
    /// `ctl` is too small or not one.
    #[error("the control region is not one")]
    Control,
    /// A table in the folder cannot be used.
    #[error("table generation {generation} cannot be used")]
    Table {
        /// Which.
        generation: Generation,
        /// Why.
        #[source]
        source: OpenTableError,
    },
}
