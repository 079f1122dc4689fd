//! Writes one snapshot after the other: reads as workers do, paced, and gives up rather than wait for the core.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Sender;
use locus_proto::{KEY_BYTES_MAX, NodeName, Position, VALUE_BYTES_MAX};
use locus_table::{FolderReader, Reason, RecordBuffer, ScanCursor, ScanError};
use rustix::fs::{Advice, fadvise};

use super::Report;
use super::folder::{Name, OpenSnapshotsError, SnapshotFolder};
use crate::clock::Clock;
use crate::edge::MappedFolder;
use crate::event::{Event, with_causes};
use crate::snapshot::{
    CHUNK_BYTES, CHUNK_BYTES_MAX, End, Handed, Header, Moment, OVERFLOW, RECORD_HEAD_BYTES,
    Records, SnapshotWriter, Taken, Taker,
};

/// Records that are read in a row.
const STEP_RECORDS: usize = 16;
/// A step ends with a bucket, so it may find six more.
const STEP_RECORDS_MAX: usize = STEP_RECORDS + 6;
const RECORD_BYTES_MAX: usize = RECORD_HEAD_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX;
const _: () = assert!(CHUNK_BYTES + STEP_RECORDS_MAX * RECORD_BYTES_MAX <= CHUNK_BYTES_MAX);
/// Bytes that are written before they are synced: so much of memory is dirty at most, and no later write of
/// anybody waits for more.
const SYNC_BYTES: u64 = 16 * 1024 * 1024;

/// The thread that writes snapshots.
#[derive(Debug)]
pub(super) struct Writing {
    pub path: PathBuf,
    /// `None` as long as it could not be opened.
    pub folder: Option<SnapshotFolder>,
    /// Where the newest whole snapshot ends.
    pub newest: Option<Position>,
    /// Folder of the table.
    pub table: PathBuf,
    pub cluster: NodeName,
    pub every: Duration,
    pub bytes_per_s: u64,
    pub clock: Clock,
    pub taker: Taker,
    pub report: Arc<Report>,
    /// The last attempt has failed, and that was logged.
    pub failing: bool,
}

/// Why a snapshot could not be written.
#[derive(Debug, thiserror::Error)]
enum WriteSnapshotError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] OpenSnapshotsError),
    /// The disk does not take it.
    #[error("cannot write into {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record cannot be read.
    #[error("the table cannot be read")]
    Scan(#[from] ScanError),
    /// The table cannot be read.
    #[error("the table cannot be read")]
    Table(#[source] Reason),
    /// The core gave it up.
    #[error("{OVERFLOW}")]
    Overflow,
}

/// How an attempt ended that did not fail.
enum Outcome {
    /// There is a new snapshot.
    Written {
        /// Its bytes.
        bytes: u64,
    },
    /// The table has not changed since the last one.
    Same,
    /// The core gave it up; there will be another.
    GivenUp(&'static str),
    /// The agent ends.
    Ended,
}

impl Writing {
    /// Runs it; `alive` is dropped when it ends.
    pub(super) fn start(self, alive: Sender<()>) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("snapshot".into());
        thread.spawn(move || {
            self.run();
            drop(alive);
        })?;
        Ok(())
    }

    fn run(mut self) {
        while self.rest() {
            let began = self.clock.now();
            match self.attempt() {
                Ok(Outcome::Written { bytes }) => {
                    if std::mem::take(&mut self.failing) {
                        let failed = self.report.failed_total.load(Ordering::Relaxed);
                        Event::SnapshotsResumed { failed }.log();
                    }
                    if let Some(position) = self.newest {
                        let took = self.clock.now().since(began);
                        Event::SnapshotWritten {
                            position,
                            bytes,
                            took,
                        }
                        .log();
                    }
                }
                Ok(Outcome::Same) => {}
                Ok(Outcome::GivenUp(reason)) => Event::SnapshotGivenUp { reason }.log(),
                Ok(Outcome::Ended) => return,
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Waits until the next snapshot is due; `false` at the agent's end.
    fn rest(&self) -> bool {
        let due = self.clock.now().plus(self.every);
        loop {
            let left = due.since(self.clock.now());
            if left.is_zero() {
                return true;
            }
            match self.taker.take(left) {
                Taken::Ended => return false,
                // A late word about the last one.
                Taken::Handed(_) | Taken::Nothing => {}
            }
        }
    }

    fn failed(&mut self, error: &WriteSnapshotError) {
        self.report.failed_total.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let reason = with_causes(error);
            Event::SnapshotsFailed { reason }.log();
        }
    }

    /// Writes a snapshot as soon as the core allows one.
    fn attempt(&mut self) -> Result<Outcome, WriteSnapshotError> {
        let mut folder = match self.folder.take() {
            Some(folder) => folder,
            None => SnapshotFolder::open(&self.path)?,
        };
        let outcome = self.attempt_in(&mut folder);
        // Somebody has removed it: the next attempt makes it anew.
        let is_gone = matches!(&outcome, Err(WriteSnapshotError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound);
        self.folder = (!is_gone).then_some(folder);
        outcome
    }

    fn attempt_in(&mut self, folder: &mut SnapshotFolder) -> Result<Outcome, WriteSnapshotError> {
        let is_there = |newest: &Position| folder.path(Name::of(*newest)).exists();
        self.taker.ask_begin(self.newest.filter(is_there));
        let begin = loop {
            match self.taker.take(Duration::MAX) {
                Taken::Handed(Handed::Begin(moment)) => break moment,
                Taken::Handed(Handed::Same) => return Ok(Outcome::Same),
                Taken::Ended => return Ok(Outcome::Ended),
                Taken::Handed(
                    Handed::Frame(_) | Handed::End(_) | Handed::Void(_) | Handed::Stopped,
                )
                | Taken::Nothing => {}
            }
        };
        let outcome = self.write(folder, begin);
        let Err(error) = outcome else {
            return outcome;
        };
        let void = self.taker.stop();
        let is_full = matches!(&error, WriteSnapshotError::Io { source, .. }
            if source.kind() == io::ErrorKind::StorageFull);
        // Whatever fails here will fail, and be told, at the next attempt.
        folder.discard_temporary().ok();
        if is_full {
            // Where there is room for two snapshots but not for three, the next one finds it.
            folder.keep_newest(&self.cluster).ok();
        }
        match (&error, void) {
            // It was another table before the core could say so.
            (WriteSnapshotError::Scan(_) | WriteSnapshotError::Table(_), Some(why)) => {
                Ok(Outcome::GivenUp(why))
            }
            _ => Err(error),
        }
    }

    fn write(
        &mut self,
        folder: &mut SnapshotFolder,
        begin: Moment,
    ) -> Result<Outcome, WriteSnapshotError> {
        let path = self.path.clone();
        let failed = move |source| WriteSnapshotError::Io {
            path: path.clone(),
            source,
        };
        let header = Header {
            cluster: self.cluster.clone(),
            table_key: begin.table_key,
            position: begin.position,
            records: begin.records,
            bytes: begin.bytes,
            time: begin.time,
            complete_until: begin.complete_until,
        };
        let file = folder.create().map_err(&failed)?;
        let out = SnapshotWriter::new(file, &header).map_err(&failed)?;
        let mut run = Run {
            out,
            synced: 0,
            taker: &self.taker,
        };
        let ended = match self.stream(&mut run, &failed)? {
            Streamed::Whole(moment) => moment,
            Streamed::Void(OVERFLOW) => {
                folder.discard_temporary().map_err(&failed)?;
                return Err(WriteSnapshotError::Overflow);
            }
            Streamed::Void(why) => {
                folder.discard_temporary().map_err(&failed)?;
                return Ok(Outcome::GivenUp(why));
            }
            Streamed::AgentEnded => {
                folder.discard_temporary().map_err(&failed)?;
                return Ok(Outcome::Ended);
            }
        };
        let end = End {
            position: ended.position,
            records: ended.records,
            bytes: ended.bytes,
            time: ended.time,
            complete_until: ended.complete_until,
        };
        let file = run.out.finish(&end).map_err(&failed)?;
        file.sync_all().map_err(&failed)?;
        let bytes = file.metadata().map_err(&failed)?.len();
        drop_from_cache(&file);
        folder
            .keep(Name::of(end.position), &self.cluster)
            .map_err(&failed)?;
        self.newest = Some(end.position);
        self.report
            .level
            .store(end.position.level.0, Ordering::Relaxed);
        Ok(Outcome::Written { bytes })
    }

    /// Writes all records, and all frames of that time.
    fn stream(
        &self,
        run: &mut Run<'_>,
        failed: &impl Fn(io::Error) -> WriteSnapshotError,
    ) -> Result<Streamed, WriteSnapshotError> {
        // A mapping of its own, given back at the end: a table that was replaced keeps no memory through it.
        let mut table = MappedFolder::open_ro(&self.table);
        let (mut records, mut buffer) = (Records::default(), RecordBuffer::new());
        let mut due = self.clock.now();
        let mut cursor = Some(ScanCursor::START);
        while let Some(at) = cursor {
            cursor = step(&mut table, at, &mut buffer, &mut records)?;
            if !records.fill_a_chunk() && cursor.is_some() {
                continue;
            }
            due = due.plus(self.time_for(records.bytes()));
            run.out.records(&mut records).map_err(failed)?;
            // Behind its time after a slow disk, it does not make up for that at once.
            due = due.max(self.clock.now());
            if let Some(ended) = run.follow(|| due.since(self.clock.now())).map_err(failed)? {
                return Ok(ended);
            }
        }
        self.taker.ask_end();
        loop {
            if let Some(ended) = run.follow(|| Duration::MAX).map_err(failed)? {
                return Ok(ended);
            }
        }
    }

    /// Returns the time that so many bytes shall take.
    fn time_for(&self, bytes: u64) -> Duration {
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// How the streaming of a table ended.
enum Streamed {
    /// All is written but the end, which is here.
    Whole(Moment),
    /// What is written makes no table.
    Void(&'static str),
    /// The agent ends.
    AgentEnded,
}

/// A snapshot that is being written.
struct Run<'t> {
    out: SnapshotWriter<File>,
    /// Bytes of it that are on the disk.
    synced: u64,
    taker: &'t Taker,
}

impl Run<'_> {
    /// Writes the frames that were handed over, until `left` says that no time is left; returns how the
    /// streaming has ended, if it has.
    fn follow(&mut self, left: impl Fn() -> Duration) -> io::Result<Option<Streamed>> {
        loop {
            self.sync()?;
            let left = left();
            match self.taker.take(left) {
                Taken::Handed(Handed::Frame(bytes)) => self.out.frame(&bytes)?,
                Taken::Handed(Handed::End(moment)) => return Ok(Some(Streamed::Whole(moment))),
                Taken::Handed(Handed::Void(why)) => return Ok(Some(Streamed::Void(why))),
                Taken::Ended => return Ok(Some(Streamed::AgentEnded)),
                Taken::Nothing if left.is_zero() => return Ok(None),
                Taken::Handed(Handed::Same | Handed::Begin(_) | Handed::Stopped)
                | Taken::Nothing => {}
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.out.written() - self.synced >= SYNC_BYTES {
            self.out.output().sync_data()?;
            drop_from_cache(self.out.output());
            self.synced = self.out.written();
        }
        Ok(())
    }
}

/// Lets the kernel forget what it has written: nobody reads it before the next boot.
fn drop_from_cache(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).ok();
}

/// Reads some records; returns where to go on.
fn step(
    table: &mut FolderReader<MappedFolder>,
    at: ScanCursor,
    buffer: &mut RecordBuffer,
    records: &mut Records,
) -> Result<Option<ScanCursor>, WriteSnapshotError> {
    let mark = records.mark();
    let read = table.with(|table| {
        records.rewind(mark);
        table.for_each(at, STEP_RECORDS, buffer, |level, key, value| {
            records.push(level, key, value);
        })
    });
    Ok(read.map_err(WriteSnapshotError::Table)??)
}
