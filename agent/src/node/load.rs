//! A whole table that comes from the master, beside the one that answers; it knows no message.

use std::collections::VecDeque;

use locus_distribution::{Failure, Standing};
use locus_proto::{Change, Position};
use locus_table::{Folder, FolderError, Generation, Geometry, OwnRegions, TableKey, Writer};

use super::apply::failure_of;
use super::growth::Attempts;
use super::room::is_full;
use super::{Node, SLICE_BYTES, standing};
use crate::core::Input;
use crate::edge::Populate;
use crate::event::{Event, with_causes};

/// Most lots of records that wait for memory; a lot is a message, of at most 512 KiB.
const WAITING_MAX: usize = 64;

/// A table that is being loaded.
#[derive(Debug)]
pub(super) struct Loading<Region> {
    pub(super) table: (Generation, Writer<Region>),
    /// Whether all its memory is there: before, not one record may be put in.
    is_there: bool,
    /// Records that wait for that, in their order.
    waiting: VecDeque<Vec<Change>>,
}

impl<Region: AsRef<[std::sync::atomic::AtomicU64]> + Populate> Loading<Region> {
    /// Makes an empty table; its memory is still to come.
    fn begin<R: OwnRegions<Region = Region>>(
        folder: &Folder<R>,
        geometry: Geometry,
        key: TableKey,
    ) -> Result<Self, FolderError> {
        let table = folder.begin_load(geometry, key)?;
        Ok(Self {
            table,
            is_there: false,
            waiting: VecDeque::new(),
        })
    }

    /// Brings `bytes` more of its memory.
    fn bring(&mut self, bytes: usize) -> std::io::Result<()> {
        self.is_there = self.is_there || self.table.1.memory().populate(bytes)?;
        Ok(())
    }
}

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Returns whether the memory for a new table is still coming, or records wait that waited for it.
    pub(super) fn lacks_memory(&self) -> bool {
        let lacks = |load: &Loading<_>| !load.is_there || !load.waiting.is_empty();
        self.loading.as_ref().is_some_and(lacks)
    }

    /// Returns whether a few records may come though they must wait.
    pub(crate) fn can_wait(&self) -> bool {
        let can_wait = |load: &Loading<_>| !load.is_there && load.waiting.len() < WAITING_MAX;
        self.loading.as_ref().is_some_and(can_wait)
    }

    /// Brings a slice of memory for the new table, or loads what has waited for it; speaks only if it fails.
    pub(super) fn bring_memory(&mut self) -> Option<Input> {
        let loading = self.loading.as_mut()?;
        let outcome = if loading.is_there {
            let records = loading.waiting.pop_front()?;
            self.load_now(&records)
        } else {
            self.bring(SLICE_BYTES)
        };
        failed(outcome)
    }

    fn bring(&mut self, bytes: usize) -> Result<(), Failure> {
        let Some(loading) = &mut self.loading else {
            return Ok(()); // the load has failed, and the core knows
        };
        let Err(error) = loading.bring(bytes) else {
            return Ok(());
        };
        let bytes = loading.table.1.fill().geometry().file_bytes();
        self.abort_load();
        // Somebody else took what was free when the table was begun.
        let advice = self.advice(bytes, self.records_max, self.record_bytes_mean);
        self.say("a load", Failure::Full, format!("{error}: {advice}"));
        Err(Failure::Full)
    }

    /// Makes an empty table for so many records, whose keys and values take so many bytes.
    pub(crate) fn begin_load(
        &mut self,
        table_key: [u8; 16],
        records: u64,
        bytes: u64,
    ) -> Result<(), Failure> {
        self.abort_load();
        self.give_up_growing();
        // A quarter more than the master has now, if that is above what the operator foresaw.
        let mean = bytes.checked_div(records).unwrap_or(0);
        let records = self.records_max.max(records.saturating_add(records / 4));
        let mean = self.record_bytes_mean.max(mean);
        let geometry = Geometry::for_records(records, mean);
        match Loading::begin(&self.folder, geometry, TableKey(table_key)) {
            Ok(loading) => {
                self.loading = Some(loading);
                Ok(())
            }
            Err(error) => {
                let mut reason = with_causes(&error);
                if is_full(&error) {
                    let advice = self.advice(geometry.file_bytes(), records, mean);
                    reason = format!("{reason}: {advice}");
                }
                // What was announced is not to come.
                self.discard_others();
                self.say("a load", Failure::Full, reason);
                Err(Failure::Full)
            }
        }
    }

    /// Puts changes into the new table, as soon as its memory is there; speaks only if it fails.
    pub(crate) fn load(&mut self, changes: &[Change]) -> Option<Input> {
        if self.can_wait() {
            let loading = self.loading.as_mut()?;
            loading.waiting.push_back(changes.to_vec());
            return None;
        }
        failed(self.bring_all().and_then(|()| self.load_now(changes)))
    }

    /// Brings all memory at once and loads what waits for it.
    fn bring_all(&mut self) -> Result<(), Failure> {
        self.bring(usize::MAX)?;
        let next = |node: &mut Self| node.loading.as_mut()?.waiting.pop_front();
        while let Some(records) = next(self) {
            self.load_now(&records)?;
        }
        Ok(())
    }

    fn load_now(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let Some(loading) = &mut self.loading else {
            return Ok(()); // the load has failed, and the core knows
        };
        let Err(error) = loading.table.1.load(changes) else {
            return Ok(());
        };
        let failure = failure_of(&error);
        self.abort_load();
        self.say("a load", failure, with_causes(&error));
        Err(failure)
    }

    /// Lets the new table answer, if it has this content.
    pub(crate) fn finish_load(&mut self, position: Position) -> Result<Standing, Failure> {
        // Whoever lets messages through while memory comes does not get here before it is there.
        self.bring_all()?;
        let Some(loading) = &mut self.loading else {
            return Err(Failure::Broken);
        };
        if let Err(error) = loading.table.1.finish_load(position) {
            self.abort_load();
            self.say("a load", Failure::RootMismatch, with_causes(&error));
            return Err(Failure::RootMismatch);
        }
        let Some(loaded) = self.loading.take() else {
            return Err(Failure::Broken);
        };
        self.growths = Attempts::default(); // those were of the table that goes
        Ok(self.flip(loaded.table))
    }

    /// Lets a whole table answer from now on.
    pub(super) fn flip(&mut self, loaded: (Generation, Writer<R::Region>)) -> Standing {
        // The table is whole, so an error means that it answers and the old one could not be removed.
        if let Err(error) = self.folder.flip(&loaded) {
            let reason = with_causes(&error);
            Event::NotRemoved { reason }.log();
        }
        // Only now: if this life ends before, the table that answers is still the one of another boot.
        if let Err(error) = self.boot.write() {
            let reason = error.to_string();
            Event::BootNotNoted { reason }.log();
        }
        self.said.clear();
        self.snapshots.handover.void("another table took its place");
        // Its sums were made from what is in it.
        self.doubted.clear();
        self.unproved.clear();
        let (_, table) = loaded;
        let standing = standing(&table);
        self.table = Some(table);
        standing
    }

    /// Drops the new table, if there is one.
    pub(crate) fn abort_load(&mut self) {
        if self.loading.take().is_some() {
            self.discard_others();
        }
    }
}

fn failed(outcome: Result<(), Failure>) -> Option<Input> {
    outcome.err().map(|failure| Input::Loaded(Err(failure)))
}
