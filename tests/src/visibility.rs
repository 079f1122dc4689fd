//! Watches when a reader of a node's table first sees each level.
//! Knows nothing of how a change travels.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::view::View;
use crate::wait;

/// How often the table is looked at: the resolution of what is reported. Two watchers at 100 µs take
/// about 2 % of a core; without a pause they would take both from the processes they watch.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// A thread that reads one node's table until it is told to stop.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Vec<(u64, Instant)>>,
}

impl Watcher {
    /// Begins to watch the table in `folder`.
    pub fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (folder, flag) = (folder.to_owned(), Arc::clone(&stop));
        let worker = thread::spawn(move || {
            let mut view = View::try_open(&folder).expect("the table is readable");
            let mut seen: Vec<(u64, Instant)> = Vec::new();
            loop {
                // Asked before the look: what was visible when it was told to stop is seen.
                let stopped = flag.load(Ordering::Relaxed);
                let level = view.level();
                if seen.last().is_none_or(|(last, _)| *last < level) {
                    seen.push((level, wait::now()));
                }
                if stopped {
                    return seen;
                }
                wait::pause(LOOK_EVERY);
            }
        });
        Self { stop, worker }
    }

    /// Stops watching and returns what was seen.
    ///
    /// # Panics
    /// When the watcher could not read the table.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        Seen(
            self.worker
                .join()
                .expect("the watcher could read the table"),
        )
    }
}

/// Levels in the order in which they became visible.
#[derive(Debug)]
pub struct Seen(Vec<(u64, Instant)>);

impl Seen {
    /// When `level` was first covered by what a reader saw.
    pub fn when(&self, level: u64) -> Option<Instant> {
        let at = self.0.partition_point(|(seen, _)| *seen < level);
        self.0.get(at).map(|(_, when)| *when)
    }
}
