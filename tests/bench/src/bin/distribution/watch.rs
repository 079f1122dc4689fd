//! When each level became visible in each node's table: one thread looks at all of them in turn.
//! Knows levels, not what brought them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use locus_lab::{View, wait};

/// Pause between two rounds of looks. It is the resolution of what is reported; without it the thread would
/// take a core from those it watches.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Levels of one table with the moments at which a reader had them.
pub(crate) type Seen = Vec<(u64, Instant)>;

/// The thread.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<Vec<Seen>>,
}

impl Watch {
    /// Begins to watch the tables in `folders`.
    pub(crate) fn start(folders: Vec<PathBuf>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&stop);
        let worker = thread::spawn(move || {
            let mut views: Vec<View> = folders
                .iter()
                .map(|folder| {
                    View::try_open(folder)
                        .unwrap_or_else(|| panic!("no table in {}", folder.display()))
                })
                .collect();
            let mut seen: Vec<Seen> = vec![Seen::new(); views.len()];
            loop {
                // Asked before the look: what was visible when it was told to stop is seen.
                let stopped = flag.load(Ordering::Relaxed);
                for (view, seen) in views.iter_mut().zip(&mut seen) {
                    let level = view.level();
                    if seen.last().is_none_or(|(last, _)| *last < level) {
                        seen.push((level, wait::now()));
                    }
                }
                if stopped {
                    return seen;
                }
                wait::pause(LOOK_EVERY);
            }
        });
        Self { stop, worker }
    }

    /// Stops watching.
    pub(crate) fn finish(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Returns when `level` was first covered.
pub(crate) fn when(seen: &Seen, level: u64) -> Option<Instant> {
    let at = seen.partition_point(|(seen, _)| *seen < level);
    seen.get(at).map(|(_, when)| *when)
}
