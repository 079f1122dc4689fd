//! Looks up, again and again, what has been sent but not been seen yet in one node's table.
//! Knows the product's reader, nothing of how a change gets there.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use locus_agent::MappedFolder;
use locus_lab::{Durations, wait};
use locus_proto::{BindingRefs, Key};
use locus_table::{FolderReader, Lookup, RecordBuffer};

/// Pause between two looks. Two watchers then take a few per cent of a core; without a pause they would
/// take both from the processes they watch. How long a look really came after the one before is measured.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// How long after the last update something unseen is looked for before it counts as missing.
const MISSING_AFTER: Duration = Duration::from_secs(5);

/// An update that shall become visible.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// Its number.
    pub update: usize,
    /// The key it changes.
    pub key: Key,
    /// The contact that the first binding shall have then.
    pub contact: String,
}

/// What a watcher saw.
#[derive(Debug)]
pub struct Sightings {
    /// Update and the moment a look-up had found its content.
    pub seen: Vec<(usize, Instant)>,
    /// Updates that never came.
    pub missing: Vec<usize>,
    /// Times from look to look: how late a sighting can be.
    pub gaps: Durations,
}

/// A thread that watches one node's table.
#[derive(Debug)]
pub struct Watcher {
    orders: Sender<Awaited>,
    worker: JoinHandle<Sightings>,
}

impl Watcher {
    /// Begins to watch the table in `folder`.
    pub fn start(folder: &Path) -> Self {
        let (orders, inbox) = mpsc::channel();
        let reader = MappedFolder::open_ro(folder);
        let worker = thread::spawn(move || watch(reader, &inbox));
        Self { orders, worker }
    }

    /// Where to say what is awaited; to be said before it is sent. The watcher ends after the last of
    /// these.
    pub fn orders(&self) -> Sender<Awaited> {
        self.orders.clone()
    }

    /// Waits until everything awaited was seen, or is missing.
    ///
    /// # Panics
    /// When the table could not be read.
    pub fn finish(self) -> Sightings {
        drop(self.orders);
        self.worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn watch(mut reader: FolderReader<MappedFolder>, inbox: &Receiver<Awaited>) -> Sightings {
    let mut buffer = RecordBuffer::new();
    let mut awaited: Vec<Awaited> = Vec::new();
    let (mut seen, mut gaps) = (Vec::new(), Vec::new());
    let mut last: Option<Instant> = None;
    let mut closed: Option<Instant> = None;
    loop {
        loop {
            match inbox.try_recv() {
                Ok(order) => awaited.push(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    closed.get_or_insert_with(wait::now);
                    break;
                }
            }
        }
        let look = wait::now();
        gaps.extend(last.map(|last| look - last));
        awaited.retain(|one| {
            let found = holds(&mut reader, &mut buffer, one);
            if found {
                seen.push((one.update, wait::now()));
            }
            !found
        });
        last = Some(look);
        let done = closed.is_some_and(|at| awaited.is_empty() || at.elapsed() > MISSING_AFTER);
        if done {
            return Sightings {
                seen,
                missing: awaited.iter().map(|one| one.update).collect(),
                gaps: gaps.into_iter().collect(),
            };
        }
        wait::pause(LOOK_EVERY);
    }
}

fn holds(
    reader: &mut FolderReader<MappedFolder>,
    buffer: &mut RecordBuffer,
    awaited: &Awaited,
) -> bool {
    match reader.lookup(awaited.key.as_bytes(), buffer) {
        Lookup::Found(record) => BindingRefs::new(record.value)
            .ok()
            .and_then(|mut bindings| bindings.next()?.ok())
            .is_some_and(|first| first.uri == awaited.contact),
        // A collision with the writer; the next look settles it.
        Lookup::Absent | Lookup::Unavailable(_) => false,
    }
}
