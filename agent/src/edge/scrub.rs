//! Reads the whole table again and again, beside its writer; it mends nothing and decides nothing.
//!
//! A table's sums move with its records, so they see neither memory that rots nor a stray store. A thread with a
//! mapping of its own, without write permission, compares one partition after the other with its sum. What
//! contradicts goes to the core. It waits for nobody but the core, and nobody waits for it.

mod schedule;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use locus_distribution::Failure;
use locus_table::{FolderReader, Generation, Reader, RecordBuffer, RegionName, Scrubbed};

use super::folder::MappedFolder;
use super::map::Mapping;
use super::pages::Pages;
use crate::clock::Clock;
use crate::core::Input;
use crate::event::Event;
use schedule::Schedule;

/// Most tries of a partition between which batches came, and the time between two of them: most of a
/// batch's.
const TRIES_MAX: u32 = 16;
const TRY_EVERY: Duration = Duration::from_millis(1);
/// Rounds in which an ordered pass comes back to what could not be read.
const ROUNDS_MAX: u32 = 3;
/// Partitions of an ordered pass between two offers of the processor to others.
const YIELD_EVERY: u16 = 256;
/// Of a table's bytes, those that must lie in 2 MiB pages, in hundredths: the ends of its parts may not.
const HUGE_PERCENT_MIN: u64 = 90;
/// Most orders that wait: the core has one under way at a time.
const ORDERS_MAX: usize = 4;

/// What the thread has found, for the node's health.
#[derive(Debug, Default)]
struct Found {
    passes: AtomicU64,
    bytes: AtomicU64,
    huge_bytes: AtomicU64,
    /// The agent ends, and so does the thread.
    ends: AtomicBool,
}

/// Whether a pass is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Scrubbed,
    None,
}

/// The thread that reads the table again; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Scrub {
    orders: Option<Sender<Answer>>,
    found: Arc<Found>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts to read the table in `folder`, the whole of it within `every`; zero: only when ordered.
    ///
    /// # Errors
    /// The system has no thread.
    pub(crate) fn start(
        folder: &Path,
        every: Duration,
        clock: Clock,
        inputs: Sender<Input>,
    ) -> std::io::Result<Self> {
        let (orders, ordered) = bounded(ORDERS_MAX);
        let found = Arc::new(Found::default());
        let pass = Pass {
            // As the kernel names it, where /var/run is a link to /run.
            path: folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
            reader: MappedFolder::open_ro(folder),
            buffer: RecordBuffer::new(),
            inputs,
            found: Arc::clone(&found),
            seen: None,
            warned: false,
        };
        let thread = thread::Builder::new()
            .name("scrub".into())
            .spawn(move || pass.run(every, clock, &ordered))?;
        Ok(Self {
            orders: Some(orders),
            found,
            thread: Some(thread),
        })
    }

    /// Reads all memory again, at once; answered by [`Input::Scrubbed`].
    ///
    /// Returns that answer if it can be given at once.
    pub(crate) fn order(&self) -> Option<Input> {
        let taken = self.send(Answer::Scrubbed);
        (!taken).then_some(Input::Scrubbed(Err(Failure::Broken)))
    }

    /// Reads all memory again, at once, without an answer but for what contradicts.
    pub(crate) fn suspect(&self) {
        // Where a pass is ordered already, that will find it.
        if self.orders.as_ref().is_some_and(Sender::is_empty) {
            self.send(Answer::None);
        }
    }

    fn send(&self, answer: Answer) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.try_send(answer).is_ok())
    }

    /// Returns how often the whole table was read again.
    pub(crate) fn passes(&self) -> u64 {
        self.found.passes.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the table that answers, and those of them in 2 MiB pages, as last counted.
    pub(crate) fn pages(&self) -> Pages {
        Pages {
            bytes: self.found.bytes.load(Ordering::Relaxed),
            huge_bytes: self.found.huge_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.orders = None;
        // It notices at its next partition; whoever takes its inputs is gone before, so it waits for none.
        self.found.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// What ends the thread: the agent does.
struct Ended;

struct Pass {
    path: PathBuf,
    reader: FolderReader<MappedFolder>,
    buffer: RecordBuffer,
    inputs: Sender<Input>,
    found: Arc<Found>,
    /// The generation whose pages were counted.
    seen: Option<Generation>,
    warned: bool,
}

impl Pass {
    fn run(mut self, every: Duration, clock: Clock, ordered: &Receiver<Answer>) {
        let mut at = Schedule::new(clock.now(), every);
        self.count_pages();
        loop {
            let now = clock.now();
            let outcome = match ordered.recv_timeout(at.rest(now)) {
                Ok(answer) => self.whole(answer),
                Err(RecvTimeoutError::Timeout) => self.some(at.due(clock.now())),
                Err(RecvTimeoutError::Disconnected) => Err(Ended),
            };
            if let Err(Ended) = outcome {
                return;
            }
            self.reader.refresh();
            self.count_pages();
        }
    }

    /// Reads partitions that are due, and counts a pass behind the last.
    fn some(&mut self, partitions: impl Iterator<Item = u16>) -> Result<(), Ended> {
        for partition in partitions {
            // What cannot be read now comes again with the next pass.
            self.read(partition)?;
            if partition == u16::MAX && self.reader.current().is_some() {
                self.passed();
            }
        }
        Ok(())
    }

    /// Reads the whole table, and answers.
    fn whole(&mut self, answer: Answer) -> Result<(), Ended> {
        let mut unread: Vec<u16> = (0..=u16::MAX).collect();
        for _ in 0..ROUNDS_MAX {
            let mut again = Vec::new();
            for partition in unread {
                if !self.read(partition)? {
                    again.push(partition);
                }
                if partition % YIELD_EVERY == 0 {
                    thread::yield_now();
                }
            }
            unread = again;
        }
        let outcome = if unread.is_empty() {
            self.passed();
            Ok(())
        } else {
            Err(Failure::Broken)
        };
        match answer {
            Answer::Scrubbed => self.tell(Input::Scrubbed(outcome)),
            Answer::None => Ok(()),
        }
    }

    fn passed(&mut self) {
        self.found.passes.fetch_add(1, Ordering::Relaxed);
        self.seen = None; // its pages are counted again
    }

    /// Compares one partition with its sum, and tells the core if it contradicts; returns whether it could
    /// be read.
    fn read(&mut self, partition: u16) -> Result<bool, Ended> {
        for _ in 0..TRIES_MAX {
            if self.found.ends.load(Ordering::Relaxed) {
                return Err(Ended);
            }
            let buffer = &mut self.buffer;
            let scrub = |table: &Reader<Mapping>| table.scrub_consistent(partition.into(), buffer);
            match self.reader.with(scrub) {
                Ok(Scrubbed::Agrees) => return Ok(true),
                Ok(Scrubbed::Differs { .. } | Scrubbed::Unreadable(_)) => {
                    self.tell(Input::Doubted { partition })?;
                    return Ok(true);
                }
                // Batches without a pause.
                Ok(Scrubbed::Busy) => thread::park_timeout(TRY_EVERY),
                // No table, as before the first load, or none that can be mapped.
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Hands an input to the core; waits where many wait, which costs nobody but this thread.
    fn tell(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).map_err(|_| Ended)
    }

    /// Counts the pages of the table that answers, if it is a new one or a pass has ended.
    fn count_pages(&mut self) {
        let current = self.reader.current();
        if current == self.seen {
            return;
        }
        self.seen = current;
        let Some(generation) = current else { return };
        let file = self.path.join(RegionName::Table(generation).to_string());
        let Ok(pages) = Pages::of(&file) else { return };
        if pages.bytes == 0 {
            return; // flipped again since
        }
        self.found.bytes.store(pages.bytes, Ordering::Relaxed);
        self.found
            .huge_bytes
            .store(pages.huge_bytes, Ordering::Relaxed);
        let wanted = pages.bytes / 100 * HUGE_PERCENT_MIN;
        if pages.huge_bytes < wanted && !self.warned {
            self.warned = true;
            let Pages { bytes, huge_bytes } = pages;
            let folder = self.path.clone();
            Event::SmallPages {
                file,
                folder,
                bytes,
                huge_bytes,
            }
            .log();
        }
    }
}
