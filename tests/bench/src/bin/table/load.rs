//! Loads the table as an agent does, and says what that costs in time and memory; then opens it again.
//! Knows the product's writer, no look-up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_agent::{Mapping, OwnedFolder};
use locus_bench::{Rounds, float};
use locus_lab::wait;
use locus_proto::{Change, Epoch, EpochId, Level, Position};
use locus_table::{Fill, Folder, Geometry, PROBE, TableKey, Writer};

use crate::clock::timed;

/// Changes handed over at once, as they come in a message of a full load.
const CHUNK: usize = 1_000;
/// Bytes of the file before the index: header, sums, lengths, journal.
const HEAD_BYTES: u64 = 2 * 1024 * 1024;
const BUCKET_BYTES: u64 = 64;
const SLAB_BYTES: u64 = 64 * 1024;

/// A loaded table and its owner.
pub(crate) struct Loaded {
    /// Holds the lock.
    _folder: Folder<OwnedFolder>,
    /// The writer of the table that answers.
    pub writer: Writer<Mapping>,
    path: PathBuf,
    /// Bytes of the table's file.
    pub file_bytes: u64,
}

/// The epoch of all changes.
pub(crate) const EPOCH: Epoch = Epoch {
    counter: 1,
    id: EpochId([7; 16]),
};

impl Loaded {
    /// Loads `count` records, `change(n, level)` for each, into a new table made for as many records of
    /// `record_bytes` bytes. Also returns the CPU time of that, the first touch of the memory and the flip
    /// included, the making of the changes not.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn load(
        path: &Path,
        count: usize,
        record_bytes: u64,
        mut change: impl FnMut(usize, Level) -> Change,
    ) -> (Self, Duration) {
        let folder = open(path);
        let records = u64::try_from(count).unwrap_or(u64::MAX);
        let geometry = Geometry::for_records(records, record_bytes);
        let key = TableKey(*b"bench-table, key");
        let (begun, mut cpu) = timed(|| folder.begin_load(geometry, key));
        let mut table = begun.unwrap_or_else(|error| panic!("no table: {error}"));
        let mut levels = (1..=records).map(Level);
        for start in (0..count).step_by(CHUNK) {
            assert!(!wait::interrupted(), "interrupted");
            let chunk: Vec<Change> = (start..count.min(start + CHUNK))
                .zip(&mut levels)
                .map(|(n, level)| change(n, level))
                .collect();
            let (loaded, took) = timed(|| table.1.load(&chunk));
            loaded.unwrap_or_else(|error| panic!("the load: {error}"));
            cpu += took;
        }
        let (_, took) = timed(|| {
            let to = Position {
                epoch: EPOCH,
                level: Level(records),
                root: table.1.position().root,
            };
            table
                .1
                .finish_load(to)
                .unwrap_or_else(|error| panic!("the load: {error}"));
            folder
                .flip(&table)
                .unwrap_or_else(|error| panic!("the flip: {error}"));
        });
        let loaded = Self {
            _folder: folder,
            writer: table.1,
            path: path.to_owned(),
            file_bytes: geometry.file_bytes(),
        };
        (loaded, cpu + took)
    }

    /// Opens the table in the folder at `path`, as an agent does after the death of the one before.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn open(path: &Path) -> Self {
        let folder = open(path);
        let opened = folder
            .open_table()
            .unwrap_or_else(|error| panic!("the table: {error}"));
        let (writer, _) = opened.unwrap_or_else(|| panic!("no table in {}", path.display()));
        let file_bytes = writer.fill().geometry().file_bytes();
        Self {
            _folder: folder,
            writer,
            path: path.to_owned(),
            file_bytes,
        }
    }

    /// Memory in use for each record beyond its key and value: the index as full as it is, heads, the ends
    /// of words, blocks and slabs, what is free between blocks, and the table's head.
    pub(crate) fn overhead_bytes(&self) -> f64 {
        let Fill {
            records,
            slots,
            free_slabs,
            slabs,
        } = self.writer.fill();
        let index = (slots / 7 + PROBE) * BUCKET_BYTES;
        let used = HEAD_BYTES + index + (slabs - free_slabs) * SLAB_BYTES;
        let count = |bytes: u64| float(usize::try_from(bytes / 1024).unwrap_or(0)) * 1024.0;
        let records = float(usize::try_from(records).unwrap_or(0));
        (count(used) - count(self.writer.payload_bytes())) / records
    }

    /// How full the index is.
    pub(crate) fn index_fill(&self) -> f64 {
        let fill = self.writer.fill();
        let count = |number: u64| float(usize::try_from(number).unwrap_or(0));
        count(fill.records) / count(fill.slots)
    }

    /// Bytes of key and value of a record, on average.
    pub(crate) fn record_bytes(&self) -> f64 {
        let count = |number: u64| float(usize::try_from(number / 1024).unwrap_or(0)) * 1024.0;
        let records = float(usize::try_from(self.writer.records()).unwrap_or(0));
        count(self.writer.payload_bytes()) / records
    }

    /// Gives the table up and opens it again, `times` times; returns the milliseconds that each took, the
    /// mapping and the allocator's rebuild included.
    ///
    /// # Panics
    /// When it cannot be opened, or is not what it was.
    pub(crate) fn reopen(mut self, times: usize) -> (Self, Rounds) {
        let (path, position) = (self.path.clone(), self.writer.position());
        let mut took = Rounds::default();
        for _ in 0..times {
            drop(self);
            let start = wait::now();
            self = Self::open(&path);
            took.push(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(self.writer.position(), position, "the table is another");
        }
        (self, took)
    }

    /// Where the table lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> Folder<OwnedFolder> {
    let own = OwnedFolder::lock(path).unwrap_or_else(|error| panic!("{error}"));
    Folder::open(own).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
