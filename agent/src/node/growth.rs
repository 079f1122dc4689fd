//! A bigger copy of the table, made in slices while the table answers; it copies no record itself.
//!
//! First the copy gets its memory, then the records, a slice between two inputs each; from then on changes go
//! into both. When all is copied the contents must be equal, and the copy answers.

use std::time::Duration;

use locus_proto::Timestamp;
use locus_table::{ApplyError, Geometry, Growth, OwnRegions, PrepareError, RepairError, Writer};

use super::room::is_full;
use super::{Node, SLICE_BYTES};
use crate::edge::Populate;
use crate::event::{Event, with_causes};

/// Time after a growth that came to nothing before the next attempt.
pub const GROWTH_RETRY: Duration = Duration::from_secs(60);
/// Most growths in a row for one change: eight double the table to 256 times its size.
pub(super) const AT_ONCE_MAX: u32 = 8;
/// Bytes of records that one slice copies: some milliseconds.
const COPY_BYTES: u64 = 1024 * 1024;
/// Most records that one slice copies, however small they are.
const COPY_RECORDS_MAX: u64 = 2048;
/// While a table grows, changes wait as soon as more hundredths of its index are in use: it begins at 70, and
/// behind 85 a key may find no slot near its home.
const INDEX_PERCENT_MAX: u64 = 85;
/// They wait, too, when less than this part of its arena is free: it begins at a sixteenth, and a
/// sixty-fourth of a large arena is more than a frame takes.
const FREE_PART_MIN: u64 = 64;
/// What is added where there is no room for all of it: a half, a quarter.
const PARTS: [u64; 3] = [1, 2, 4];
/// Bytes of a slab of the arena.
const SLAB_BYTES: u64 = 64 * 1024;

/// A growth that is under way.
#[derive(Debug)]
pub(super) struct Growing<Region> {
    growth: Growth<Region>,
    bytes: u64,
    began: Timestamp,
    /// Whether all the copy's memory is there.
    is_there: bool,
}

/// What became of growths since the last that was needed and done.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u64,
    not_before: Timestamp,
}

/// What a change found too small.
#[derive(Debug, Clone, Copy)]
pub(super) enum Short {
    /// The index.
    Index,
    /// The arena, by so many slabs.
    Arena(u64),
}

/// Returns what a frame found too small; `None` if it failed otherwise.
pub(super) fn short(error: &ApplyError) -> Option<Short> {
    match error {
        ApplyError::Prepare(error) => short_of(error),
        ApplyError::LevelGap { .. }
        | ApplyError::RootBefore { .. }
        | ApplyError::RootAfter { .. }
        | ApplyError::Loading => None,
    }
}

/// Returns what a repair found too small; `None` if it failed otherwise.
pub(super) fn short_of_repair(error: &RepairError) -> Option<Short> {
    match error {
        RepairError::Prepare(error) => short_of(error),
        RepairError::Content { .. } | RepairError::Loading | RepairError::Rotten { .. } => None,
    }
}

fn short_of(error: &PrepareError) -> Option<Short> {
    match error {
        PrepareError::IndexFull { .. } => Some(Short::Index),
        PrepareError::ArenaFull { need_slabs, .. } => Some(Short::Arena(*need_slabs)),
        PrepareError::TooManyChanges { .. }
        | PrepareError::TooLarge { .. }
        | PrepareError::KeyTwice(_)
        | PrepareError::ValueTooLong { .. }
        | PrepareError::Corrupt(_) => None,
    }
}

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Returns whether the table is getting full, and nothing speaks against an attempt to let it grow.
    pub(super) fn wants_growth(&self, now: Timestamp) -> bool {
        let grown = || self.table.as_ref()?.fill().grown();
        self.loading.is_none() && now >= self.growths.not_before && grown().is_some()
    }

    /// Returns whether changes that go on would overtake the growth that is under way: there is hardly room.
    pub(super) fn is_overtaken(&self) -> bool {
        let is_nearly_full = |table: &Writer<_>| {
            let fill = table.fill();
            let in_index =
                fill.records.saturating_mul(100) > fill.slots.saturating_mul(INDEX_PERCENT_MAX);
            in_index || fill.free_slabs.saturating_mul(FREE_PART_MIN) < fill.slabs
        };
        self.growing.is_some() && self.table.as_ref().is_some_and(is_nearly_full)
    }

    /// Does one slice of a growth, or begins one.
    pub(super) fn grow(&mut self, now: Timestamp) {
        if self.growing.is_some() {
            self.step(now);
        } else if let Some(table) = &self.table
            && let Some(geometry) = table.fill().grown()
        {
            self.begin_growing(now, geometry);
        }
    }

    /// Lets the table grow to the end before anything else, for a change that found no room; returns
    /// whether it has.
    ///
    /// The core does not answer meanwhile. It comes to this only if one change takes all that was free, so
    /// that the table is a small one: before changes overtake the growth of a large one, they wait.
    pub(super) fn grow_at_once(&mut self, now: Timestamp, short: Short) -> bool {
        let before = self.folder.current();
        if self.growing.is_none()
            && let Some(table) = &self.table
        {
            let mut geometry = table.fill().geometry();
            match short {
                Short::Index => geometry.buckets = geometry.buckets.saturating_mul(2),
                Short::Arena(slabs) => {
                    let need = slabs.saturating_mul(2).saturating_mul(SLAB_BYTES);
                    let more = geometry.arena_bytes.max(need);
                    geometry.arena_bytes = geometry.arena_bytes.saturating_add(more);
                }
            }
            self.begin_growing(now, geometry);
        }
        while self.growing.is_some() {
            self.step(now);
        }
        self.folder.current() != before
    }

    /// Puts into the copy, if there is one, what has just been done to the table.
    pub(super) fn follow_growing<E: std::error::Error + 'static>(
        &mut self,
        follow: impl FnOnce(&mut Growth<R::Region>) -> Result<(), E>,
    ) {
        // Before its memory is there nothing is in it, and all of the table is still to be copied.
        if let Some(growing) = self.growing.as_mut().filter(|growing| growing.is_there)
            && let Err(error) = follow(&mut growing.growth)
        {
            let began = growing.began;
            self.failed(began, with_causes(&error));
        }
    }

    /// Drops the copy, if there is one: a whole table comes from the master.
    pub(super) fn give_up_growing(&mut self) {
        if self.growing.take().is_some() {
            self.discard_others();
        }
    }

    /// Returns whether somebody should read all memory again, and forgets it.
    pub(crate) fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicious)
    }

    fn begin_growing(&mut self, now: Timestamp, to: Geometry) {
        let Some(table) = &self.table else { return };
        let from = table.fill().geometry();
        let mut why = None;
        for part in PARTS {
            let more = |from: u64, to: u64| from + to.saturating_sub(from) / part;
            let geometry = Geometry {
                buckets: more(from.buckets, to.buckets),
                arena_bytes: more(from.arena_bytes, to.arena_bytes),
            };
            let bytes = geometry.file_bytes();
            match self.folder.grow(table, geometry) {
                Ok(growth) => {
                    let (records, from_bytes) = (table.records(), from.file_bytes());
                    Event::GrowthBegun {
                        records,
                        from_bytes,
                        bytes,
                    }
                    .log();
                    self.growing = Some(Growing {
                        growth,
                        bytes,
                        began: now,
                        is_there: false,
                    });
                    return;
                }
                Err(error) if is_full(&error) => {
                    why.get_or_insert_with(|| self.remount_advice(bytes));
                }
                Err(error) => {
                    why = Some(with_causes(&error));
                    break;
                }
            }
        }
        self.failed(now, why.unwrap_or_default());
    }

    fn step(&mut self, now: Timestamp) {
        let (Some(growing), Some(table)) = (&mut self.growing, &self.table) else {
            return;
        };
        if !growing.is_there {
            match growing.growth.memory().populate(SLICE_BYTES) {
                Ok(is_there) => growing.is_there = is_there,
                Err(error) => {
                    // Somebody else took what was free when it was begun.
                    let bytes = growing.bytes;
                    let advice = self.remount_advice(bytes);
                    self.failed(now, format!("{error}: {advice}"));
                }
            }
            return;
        }
        let mean = table.payload_bytes().checked_div(table.records());
        let records = COPY_BYTES / mean.unwrap_or(0).max(COPY_BYTES / COPY_RECORDS_MAX);
        let records = usize::try_from(records.max(1)).unwrap_or(1);
        match growing.growth.step(table, records) {
            Ok(false) => {}
            Ok(true) => self.finish_growing(now),
            Err(error) => {
                self.suspicious = true;
                self.failed(now, with_causes(&error));
            }
        }
    }

    fn finish_growing(&mut self, now: Timestamp) {
        let (Some(growing), Some(table)) = (self.growing.take(), &self.table) else {
            return;
        };
        match growing.growth.finish(table) {
            Ok(grown) => {
                self.flip(grown);
                let Attempts { failed, .. } = std::mem::take(&mut self.growths);
                let (bytes, took) = (growing.bytes, now.since(growing.began));
                Event::GrowthDone {
                    bytes,
                    took,
                    failed,
                }
                .log();
            }
            Err(error) => {
                // What was read from memory is not what the sums say.
                self.suspicious = true;
                self.failed(now, with_causes(&error));
            }
        }
    }

    /// Drops a growth that came to nothing; the next attempt follows after [`GROWTH_RETRY`].
    fn failed(&mut self, now: Timestamp, reason: String) {
        self.growing = None;
        self.discard_others();
        self.growths.failed += 1;
        self.growths.not_before = now.plus(GROWTH_RETRY);
        if self.growths.failed == 1 {
            Event::GrowthFailed { reason }.log();
        }
    }
}
