//! The node's table: applies, loads and flips what the core orders; it follows no master itself.
//!
//! What it answers goes back into the core as inputs, so that a replay needs no table.

use std::io;
use std::path::PathBuf;

use locus_distribution::{Failure, Recalled, Standing};
use locus_proto::v1::SnapshotBegin;
use locus_proto::{AddressOfRecord, AorRecord, Change, Frame, Key, NodeId, NodeState, Position};
use locus_table::{
    ApplyError, Folder, FolderError, Generation, Geometry, Lookup, PrepareError, Pulse,
    RecordBuffer, TableKey, Writer,
};

use crate::config::Config;
use crate::core::{Input, Order};
use crate::edge::{LockFolderError, Mapping, OwnedFolder, room};
use crate::event::{Event, with_causes};

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
pub(crate) struct Node {
    folder: Folder<OwnedFolder>,
    path: PathBuf,
    table: Option<Writer<Mapping>>,
    loading: Option<(Generation, Writer<Mapping>)>,
    records_max: u64,
    record_bytes_mean: u64,
    node: NodeId,
    max_grace_ms: u64,
    buffer: RecordBuffer,
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
        let folder = Folder::open(OwnedFolder::lock(&config.folder)?).map_err(refused)?;
        let mut events = Vec::new();
        let table = match folder.open_table() {
            Ok(None) => None,
            Ok(Some((table, recovered))) => {
                if recovered.redone {
                    let position = recovered.position;
                    events.push(Event::Recovered { position });
                }
                Some(table)
            }
            Err(error) => {
                let reason = with_causes(&error);
                events.push(Event::TableRefused { reason });
                None
            }
        };
        let node = Self {
            folder,
            path: config.folder.clone(),
            table,
            loading: None,
            records_max: config.records_max,
            record_bytes_mean: config.record_bytes_mean,
            node: config.node_id,
            max_grace_ms: u64::from(config.max_grace_s) * 1000,
            buffer: RecordBuffer::new(),
            said: Vec::new(),
        };
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

    /// Returns where the table stands; `None` if there is none.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.table.as_ref().map(standing)
    }

    /// Returns what an earlier agent of this boot knew of the master's clock.
    pub(crate) fn recalled(&self, monotonic_ms: u64) -> Option<Recalled> {
        self.table.as_ref()?;
        let pulse = self.folder.pulse()?;
        // Written later than now: by the clock of another boot, which says nothing today.
        let of_this_boot = pulse.updated_monotonic_ms <= monotonic_ms;
        (of_this_boot && pulse.complete_until.0 > 0).then(|| Recalled {
            time: pulse.master_now(monotonic_ms),
            complete_until: pulse.complete_until,
        })
    }

    /// Carries out an order of the core that concerns the table; returns its answer, if it has one.
    pub(crate) fn carry_out(&mut self, order: Order) -> Option<Input> {
        match order {
            Order::Apply(frame) => Some(Input::Applied(self.apply(&frame))),
            Order::BeginLoad { table_key, begin } => self.begin_load(table_key, begin),
            Order::LoadRecords(records) => self.load(&records),
            Order::LoadFrame(frame) => self.load(&frame.changes),
            Order::FinishLoad(position) => Some(Input::Loaded(self.finish_load(position))),
            Order::AbortLoad => {
                self.abort_load();
                None
            }
            Order::Find { ticket, aor } => {
                let record = self.find(&aor);
                Some(Input::Found { ticket, record })
            }
            Order::Connect { .. } | Order::Disconnect { .. } => None,
        }
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

    /// Tells the workers that nobody follows the master any more; they go on answering.
    pub(crate) fn end(&self, pulse: &locus_distribution::Pulse, monotonic_ms: u64) {
        let state = match pulse.state {
            NodeState::Coherent | NodeState::Resync => NodeState::Stale,
            NodeState::Loading
            | NodeState::Stale
            | NodeState::Inconsistent
            | NodeState::Draining => pulse.state,
        };
        self.beat(&locus_distribution::Pulse { state, ..*pulse }, monotonic_ms);
    }

    fn apply(&mut self, frame: &Frame) -> Result<Standing, Failure> {
        let Some(table) = &mut self.table else {
            return Err(Failure::Broken);
        };
        match table.apply(frame) {
            Ok(_) => {
                self.said.clear();
                Ok(standing(table))
            }
            Err(error) => {
                let failure = match &error {
                    ApplyError::LevelGap { .. }
                    | ApplyError::RootBefore { .. }
                    | ApplyError::RootAfter { .. } => Failure::RootMismatch,
                    ApplyError::Loading => Failure::Broken,
                    ApplyError::Prepare(error) => failure_of(error),
                };
                self.say("a batch", failure, with_causes(&error));
                Err(failure)
            }
        }
    }

    fn begin_load(&mut self, table_key: [u8; 16], begin: SnapshotBegin) -> Option<Input> {
        self.abort_load();
        // A quarter more than the master has now, if that is above what the operator foresaw.
        let records = self
            .records_max
            .max(begin.records.saturating_add(begin.records / 4));
        let mean = begin.bytes.checked_div(begin.records).unwrap_or(0);
        let mean = self.record_bytes_mean.max(mean);
        let geometry = Geometry::for_records(records, mean);
        match self.folder.begin_load(geometry, TableKey(table_key)) {
            Ok(loading) => {
                self.loading = Some(loading);
                None
            }
            Err(error) => {
                let cause = with_causes(&error);
                let reason = match error {
                    FolderError::Region { source, .. }
                        if source.kind() == io::ErrorKind::StorageFull =>
                    {
                        let advice = self.advice(geometry.file_bytes(), records, mean);
                        format!("{cause}: {advice}")
                    }
                    FolderError::Region { .. }
                    | FolderError::Format { .. }
                    | FolderError::Control
                    | FolderError::Table { .. } => cause,
                };
                self.say("a load", Failure::Full, reason);
                Some(Input::Loaded(Err(Failure::Full)))
            }
        }
    }

    /// Puts changes into the new table; speaks only if it fails.
    fn load(&mut self, changes: &[Change]) -> Option<Input> {
        // Without one the load has failed, and the core knows.
        let (_, table) = self.loading.as_mut()?;
        let error = table.load(changes).err()?;
        let failure = failure_of(&error);
        self.abort_load();
        self.say("a load", failure, with_causes(&error));
        Some(Input::Loaded(Err(failure)))
    }

    fn finish_load(&mut self, position: Position) -> Result<Standing, Failure> {
        let Some((_, table)) = &mut self.loading else {
            return Err(Failure::Broken);
        };
        if let Err(error) = table.finish_load(position) {
            self.abort_load();
            self.say("a load", Failure::RootMismatch, with_causes(&error));
            return Err(Failure::RootMismatch);
        }
        let Some(loaded) = self.loading.take() else {
            return Err(Failure::Broken);
        };
        // The table is whole, so an error means that it answers and the old one could not be removed.
        if let Err(error) = self.folder.flip(&loaded) {
            let reason = with_causes(&error);
            Event::NotRemoved { reason }.log();
        }
        self.said.clear();
        let (_, table) = loaded;
        let standing = standing(&table);
        self.table = Some(table);
        Ok(standing)
    }

    fn abort_load(&mut self) {
        if self.loading.take().is_some()
            && let Err(error) = self.folder.discard_others()
        {
            let reason = with_causes(&error);
            Event::NotRemoved { reason }.log();
        }
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

    /// Returns what room a table needs, what there is, and what to change.
    fn advice(&self, bytes: u64, records: u64, mean: u64) -> String {
        let (total, free) = match room(&self.path) {
            Ok(Some(room)) => (room.total_bytes, room.free_bytes),
            Ok(None) | Err(_) => (u64::MAX, u64::MAX),
        };
        format!(
            "a table for {records} records of {mean} bytes takes {bytes} bytes, and a reload as many \
             beside it; of {total} bytes in {} are {free} free. Mount a tmpfs with size={} or more there, \
             or lower records_max (now {}) or record_bytes_mean (now {}), if the master's data allows it",
            self.path.display(),
            mount_bytes(bytes),
            self.records_max,
            self.record_bytes_mean,
        )
    }

    /// Logs a failure unless it was logged since the last success; an attempt follows each 5 to 60 s.
    fn say(&mut self, what: &'static str, failure: Failure, reason: String) {
        if !self.said.contains(&(what, failure)) {
            self.said.push((what, failure));
            Event::TableFailed { what, reason }.log();
        }
    }
}

/// Returns the bytes that a file system needs for tables of `bytes`: two during a reload, and a tenth.
fn mount_bytes(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(bytes / 10)
}

fn refused(error: FolderError) -> OpenNodeError {
    match error {
        FolderError::Region { .. } => OpenNodeError::System(error),
        FolderError::Format { .. } | FolderError::Control | FolderError::Table { .. } => {
            OpenNodeError::Folder(error)
        }
    }
}

fn standing(table: &Writer<Mapping>) -> Standing {
    Standing {
        position: table.position(),
        records: table.records(),
    }
}

fn failure_of(error: &PrepareError) -> Failure {
    match error {
        PrepareError::IndexFull { .. } | PrepareError::ArenaFull { .. } => Failure::Full,
        PrepareError::Corrupt(_) => Failure::Broken,
        // The master made a batch that no table takes; nothing is wrong with this one.
        PrepareError::TooManyChanges { .. }
        | PrepareError::TooLarge { .. }
        | PrepareError::KeyTwice(_)
        | PrepareError::ValueTooLong { .. } => Failure::RootMismatch,
    }
}
