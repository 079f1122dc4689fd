//! The node's table: applies, looks up and tells the workers what the core orders; it follows no master.
//!
//! What it answers goes back into the core as inputs, so that a replay needs no table. Loading, the audit
//! and growth are in the files beside this one.

mod apply;
mod audit;
mod growth;
mod load;
mod room;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use locus_distribution::{Failure, Recalled, Standing};
use locus_proto::{AddressOfRecord, AorRecord, Key, MasterTime, NodeId, NodeState, Timestamp};
use locus_table::{Folder, FolderError, Geometry, Lookup, OwnRegions, Pulse, RecordBuffer, Writer};

use crate::config::Config;
use crate::core::{Input, Order};
use crate::edge::{BootMark, LockFolderError, Made, OwnedFolder, Populate, Snapshots, room};
use crate::event::{Complaints, Event, with_causes};
pub use growth::GROWTH_RETRY;

use growth::Growing;
use load::Loading;
use room::mount_bytes;

/// Memory that one slice of work gives to a new table: a few milliseconds, also in pages of 4 KiB.
pub const SLICE_BYTES: usize = 4 * 1024 * 1024;

/// Why the table's folder cannot be used; all for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    /// It cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockFolderError),
    /// Its control file is none, or of another version.
    #[error("the table folder cannot be used; if it is not an agent's, set another, else empty it")]
    Folder(#[source] FolderError),
    /// The system refuses one of its files.
    #[error("the table folder cannot be used")]
    System(#[source] FolderError),
}

/// The owner and only writer of a table's folder.
#[derive(Debug)]
pub(crate) struct Node<R: OwnRegions = OwnedFolder> {
    folder: Folder<R>,
    path: PathBuf,
    boot: BootMark,
    table: Option<Writer<R::Region>>,
    /// A whole table that comes from the master.
    loading: Option<Loading<R::Region>>,
    /// A bigger copy of the table.
    growing: Option<Growing<R::Region>>,
    growths: growth::Attempts,
    /// What was copied from memory was not what its sums say.
    suspicious: bool,
    /// Partitions whose memory may hold something else than their sums say: they are compared by memory.
    doubted: BTreeSet<u16>,
    /// Those of them whose memory was not read since: the doubt may be without reason.
    unproved: BTreeSet<u16>,
    doubts: Complaints,
    mends: Complaints,
    records_max: u64,
    record_bytes_mean: u64,
    node: NodeId,
    max_grace_ms: u64,
    buffer: RecordBuffer,
    /// Where snapshots for the disk are made of what happens here.
    snapshots: Snapshots,
    /// The failures that were logged since the last success, so that each is logged once.
    said: Vec<(&'static str, Failure)>,
}

impl Node {
    /// Opens the folder that `config` names, and completes a batch that an earlier agent left half done.
    ///
    /// Returns also what is to be logged. A table that cannot be used is left alone, for the workers
    /// that map it, until a whole one takes its place.
    ///
    /// # Errors
    /// [`OpenNodeError`] if another agent owns the folder, or the system refuses it.
    pub(crate) fn open(config: &Config) -> Result<(Self, Vec<Event>), OpenNodeError> {
        let regions = OwnedFolder::lock(&config.folder)?.in_slices();
        let (node, mut events) = Self::over(regions, config)?;
        let bytes =
            Geometry::for_records(config.records_max, config.record_bytes_mean).file_bytes();
        if let Ok(Some(room)) = room(&config.folder)
            && room.total_bytes < mount_bytes(bytes)
        {
            let reason = node.advice(bytes, config.records_max, config.record_bytes_mean);
            events.push(Event::SmallFolder { reason });
        }
        Ok((node, events))
    }
}

impl<R: OwnRegions<Region: Populate>> Node<R> {
    fn over(regions: R, config: &Config) -> Result<(Self, Vec<Event>), OpenNodeError> {
        let folder = Folder::open(regions).map_err(refused)?;
        let boot = BootMark::read(&config.folder);
        let mut events = Vec::new();
        let mut table = None;
        match (folder.current(), boot.made()) {
            (None, _) => {}
            (Some(_), Made::BeforeBoot) => {
                let folder = config.folder.clone();
                events.push(Event::TableOfAnotherBoot { folder });
            }
            (Some(_), Made::SinceBoot) => match folder.open_table() {
                Ok(None) => {}
                Ok(Some((found, recovered))) => {
                    if recovered.redone {
                        let position = recovered.position;
                        events.push(Event::Recovered { position });
                    }
                    table = Some(found);
                }
                Err(error) => {
                    let reason = with_causes(&error);
                    events.push(Event::TableRefused { reason });
                }
            },
        }
        let node = Self {
            folder,
            path: config.folder.clone(),
            boot,
            table,
            loading: None,
            growing: None,
            growths: growth::Attempts::default(),
            suspicious: false,
            doubted: BTreeSet::new(),
            unproved: BTreeSet::new(),
            doubts: Complaints::default(),
            mends: Complaints::default(),
            records_max: config.records_max,
            record_bytes_mean: config.record_bytes_mean,
            node: config.node_id,
            max_grace_ms: u64::from(config.max_grace_s) * 1000,
            buffer: RecordBuffer::new(),
            snapshots: Snapshots::off(),
            said: Vec::new(),
        };
        Ok((node, events))
    }

    /// Returns where the table stands; `None` if there is none.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.table.as_ref().map(standing)
    }

    /// Returns what an earlier agent of this boot knew of the master's clock.
    pub(crate) fn recalled(&self, monotonic_ms: u64) -> Option<Recalled> {
        self.table.as_ref()?;
        Some(Recalled {
            time: self.master_time(monotonic_ms)?,
            complete_until: self.folder.pulse()?.complete_until,
        })
    }

    /// Returns service time now as an earlier agent of this boot knew it, with a table or without.
    pub(crate) fn master_time(&self, monotonic_ms: u64) -> Option<MasterTime> {
        let pulse = self.folder.pulse()?;
        // Written later than now: by the clock of another boot, which says nothing today.
        let of_this_boot =
            self.boot.made() == Made::SinceBoot && pulse.updated_monotonic_ms <= monotonic_ms;
        (of_this_boot && pulse.complete_until.0 > 0).then(|| pulse.master_now(monotonic_ms))
    }

    /// Carries out an order of the core that concerns the table; returns its answer, if it has one.
    pub(crate) fn carry_out(&mut self, now: Timestamp, order: Order) -> Option<Input> {
        match order {
            Order::Apply { frame, checked } => {
                Some(Input::Applied(self.apply(now, &frame, checked)))
            }
            Order::BeginLoad { table_key, begin } => {
                let outcome = self.begin_load(table_key, begin.records, begin.bytes);
                outcome.err().map(|failure| Input::Loaded(Err(failure)))
            }
            Order::LoadRecords(records) => self.load(&records),
            Order::LoadFrame(frame) => self.load(&frame.changes),
            Order::FinishLoad(position) => Some(Input::Loaded(self.finish_load(position))),
            Order::AbortLoad => {
                self.abort_load();
                None
            }
            Order::Doubt { partition } => {
                self.doubt(now, partition);
                None
            }
            Order::Compare { group, sums } => Some(Input::Compared(self.compare(group, &sums))),
            Order::Mend {
                partition,
                records,
                repair,
            } => Some(Input::Mended(self.mend(now, partition, &records, repair))),
            Order::Find { ticket, aor } => {
                let record = self.find(&aor);
                Some(Input::Found { ticket, record })
            }
            Order::Connect { .. }
            | Order::Disconnect { .. }
            | Order::Probe { .. }
            | Order::JoinGroup { .. }
            | Order::RejoinGroup
            | Order::LeaveGroup
            | Order::Scrub => None,
        }
    }

    /// Returns whether the master's messages must wait for [`Self::work`]: the table cannot take them.
    pub(crate) fn holds(&self) -> bool {
        self.lacks_memory() || self.is_overtaken()
    }

    /// Returns whether [`Self::work`] has something to do.
    pub(crate) fn has_work(&self, now: Timestamp) -> bool {
        let proves = !self.unproved.is_empty();
        self.lacks_memory() || proves || self.growing.is_some() || self.wants_growth(now)
    }

    /// Does one slice, of about five milliseconds, of what need not be done at once: memory for a new
    /// table, a look at what is in doubt, growth. Returns what the core must know of it.
    pub(crate) fn work(&mut self, now: Timestamp) -> Option<Input> {
        if self.lacks_memory() {
            return self.bring_memory();
        }
        if !self.unproved.is_empty() {
            return self.prove();
        }
        self.grow(now);
        None
    }

    /// Tells the workers how the node stands.
    pub(crate) fn beat(&self, pulse: &locus_distribution::Pulse, monotonic_ms: u64) {
        let offset = |time: u64| time.cast_signed().wrapping_sub(monotonic_ms.cast_signed());
        let position = self.standing().map(|standing| standing.position);
        self.folder.beat(&Pulse {
            state: pulse.state,
            master_offset_ms: pulse.master_time.map_or(0, |time| offset(time.0)),
            complete_until: pulse.complete_until,
            master_level: pulse.master_level,
            updated_monotonic_ms: monotonic_ms,
            max_grace_ms: self.max_grace_ms,
            node: self.node,
            epoch_counter: position.map_or(0, |position| position.epoch.counter),
        });
    }

    /// Tells the workers that nobody follows the master any more; they go on answering. What is half made
    /// takes no memory from now on.
    pub(crate) fn end(&mut self, pulse: &locus_distribution::Pulse, monotonic_ms: u64) {
        self.abort_load();
        self.give_up_growing();
        let state = match pulse.state {
            NodeState::Coherent | NodeState::Resync => NodeState::Stale,
            NodeState::Loading
            | NodeState::Stale
            | NodeState::Inconsistent
            | NodeState::Draining => pulse.state,
        };
        self.beat(&locus_distribution::Pulse { state, ..*pulse }, monotonic_ms);
    }

    /// Returns the bindings that the table holds; `None` also if it cannot say.
    fn find(&mut self, aor: &AddressOfRecord) -> Option<AorRecord> {
        let table = self.table.as_ref()?;
        let key = Key::aor(aor);
        match table.reader().lookup(key.as_bytes(), &mut self.buffer) {
            Lookup::Found(record) => AorRecord::decode(record.value).ok(),
            Lookup::Absent | Lookup::Unavailable(_) => None,
        }
    }

    /// Logs a failure unless it was logged since the last success; an attempt follows each 5 to 60 s.
    fn say(&mut self, what: &'static str, failure: Failure, reason: String) {
        if !self.said.contains(&(what, failure)) {
            self.said.push((what, failure));
            Event::TableFailed { what, reason }.log();
        }
    }

    /// Removes every table that does not answer.
    fn discard_others(&self) {
        if let Err(error) = self.folder.discard_others() {
            let reason = with_causes(&error);
            Event::NotRemoved { reason }.log();
        }
    }
}

fn refused(error: FolderError) -> OpenNodeError {
    match error {
        FolderError::Region { .. } => OpenNodeError::System(error),
        FolderError::Format { .. } | FolderError::Control | FolderError::Table { .. } => {
            OpenNodeError::Folder(error)
        }
    }
}

fn standing<Region: AsRef<[std::sync::atomic::AtomicU64]>>(table: &Writer<Region>) -> Standing {
    Standing {
        position: table.position(),
        records: table.records(),
    }
}
