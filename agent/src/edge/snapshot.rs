//! The thread that writes the table to disk, and what is found there after a reboot; it decides by time alone,
//! and holds up neither the core nor a look-up.

mod folder;
mod restore;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use locus_distribution::Recalled;
use locus_proto::{Level, MasterTime, Position};

use crate::clock::Clock;
use crate::config::Config;
use crate::event::{Event, with_causes};
use crate::node::Node;
use crate::snapshot::{End, Handover, handover};
use folder::SnapshotFolder;
use thread::Writing;

/// Longest wait at the agent's end for the thread to remove what it has not written to the end. It is removed
/// at the next start in any case.
const END_WAIT: Duration = Duration::from_secs(1);

/// The core's side of snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// Where the core hands over what the thread needs.
    pub(crate) handover: Handover,
    report: Arc<Report>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

/// What the thread tells of itself.
#[derive(Debug, Default)]
struct Report {
    level: AtomicU64,
    failed_total: AtomicU64,
}

impl Snapshots {
    /// Returns the side of a thread that does not exist.
    pub(crate) fn off() -> Self {
        let (handover, _) = handover();
        let (_, ended) = bounded(0);
        Self {
            handover,
            report: Arc::default(),
            ended,
        }
    }

    /// Returns the core's side of a thread that a test plays.
    #[cfg(test)]
    pub(crate) fn played() -> (Self, crate::snapshot::Taker) {
        let (handover, taker) = handover();
        let snapshots = Self {
            handover,
            ..Self::off()
        };
        (snapshots, taker)
    }

    /// Returns the level of the newest snapshot on disk; zero if there is none.
    pub(crate) fn level(&self) -> Level {
        Level(self.report.level.load(Ordering::Relaxed))
    }

    /// Returns how many snapshots could not be written since the start.
    pub(crate) fn failed_total(&self) -> u64 {
        self.report.failed_total.load(Ordering::Relaxed)
    }

    /// Ends the thread, and waits for it a little.
    pub(crate) fn end(self) {
        let Self {
            handover, ended, ..
        } = self;
        drop(handover);
        ended.recv_timeout(END_WAIT).ok();
    }
}

/// The snapshots of an agent before it is up.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    /// `None` if it cannot be used; that was logged.
    folder: Option<SnapshotFolder>,
    /// Where the newest whole snapshot ends, as far as is known.
    newest: Option<Position>,
}

impl Disk {
    /// Opens the folder that `config` names; `None` if it names none.
    ///
    /// A folder that cannot be used is logged, and tried again for each snapshot: a node serves without.
    pub(crate) fn open(config: &Config) -> Option<Self> {
        let path = config.snapshots()?.to_owned();
        let folder = match SnapshotFolder::open(&path) {
            Ok(folder) => Some(folder),
            Err(error) => {
                let reason = with_causes(&error);
                Event::SnapshotsFailed { reason }.log();
                None
            }
        };
        Some(Self {
            path,
            folder,
            newest: None,
        })
    }

    /// Loads the newest whole snapshot into a node without a table, and returns what is known of the master's
    /// clock then. `tick` is called each few milliseconds and says whether the agent is still to come up.
    pub(crate) fn restore(
        &mut self,
        config: &Config,
        node: &mut Node,
        clock: Clock,
        tick: impl FnMut(&Node) -> bool,
    ) -> Option<Recalled> {
        let folder = self.folder.as_mut()?;
        if node.standing().is_some() {
            self.newest = folder.newest(&config.cluster);
            return None;
        }
        let began = clock.monotonic_ms(clock.now());
        let known = node.master_time(began);
        let now = || clock.now();
        let end = restore::restore(folder, &config.cluster, node, now, tick)?;
        self.newest = Some(end.position);
        let took = clock.monotonic_ms(clock.now()).saturating_sub(began);
        Some(recalled(&end, known.map(|time| time.plus_ms(took))))
    }

    /// Starts the thread that writes snapshots of the table in `config.folder`.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(crate) fn write(self, config: &Config, clock: Clock) -> io::Result<Snapshots> {
        let (handover, taker) = handover();
        let report = Arc::new(Report::default());
        let level = self.newest.map_or(0, |position| position.level.0);
        report.level.store(level, Ordering::Relaxed);
        if self.folder.is_none() {
            report.failed_total.store(1, Ordering::Relaxed);
        }
        let (alive, ended) = bounded(0);
        let writing = Writing {
            failing: self.folder.is_none(),
            path: self.path,
            folder: self.folder,
            newest: self.newest,
            table: config.folder.clone(),
            cluster: config.cluster.clone(),
            every: Duration::from_secs(config.snapshot_every_s.into()),
            bytes_per_s: config.snapshot_bytes_per_s,
            clock,
            taker,
            report: Arc::clone(&report),
        };
        writing.start(alive)?;
        Ok(Snapshots {
            handover,
            report,
            ended,
        })
    }
}

/// Returns what a node knows of the master's clock that has just loaded a snapshot.
///
/// How long the machine was off nobody knows: the host's clock is none to judge by (rules 2.1). So service time
/// goes on from where the snapshot ends, and the node can answer, as stale, even if the master is dead too.
/// Nobody is forgotten: what was bound then is bound now, and has its grace. And nobody is called for ever:
/// from the boot on time runs, the lag with it, and each binding ends with what was left of it and its grace
/// (rules 2.2: at most what it was granted, and `max_grace_s`). As soon as a master is heard, its clock stands.
///
/// `known` is service time now, if an earlier agent of this boot has left it.
fn recalled(end: &End, known: Option<MasterTime>) -> Recalled {
    Recalled {
        time: known.unwrap_or(end.time).max(end.complete_until),
        complete_until: end.complete_until,
    }
}
