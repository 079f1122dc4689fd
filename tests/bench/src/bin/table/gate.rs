//! Where threads wait for each other, unless one of them has failed. Knows nothing of what they do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// The gate; it opens when all have come, again and again.
#[derive(Debug)]
pub(crate) struct Gate {
    parties: usize,
    arrived: AtomicUsize,
    failed: AtomicBool,
}

/// One of those who come.
#[derive(Debug)]
pub(crate) struct Party<'g>(&'g Gate);

impl Gate {
    /// A gate for so many.
    pub(crate) fn new(parties: usize) -> Self {
        Self {
            parties,
            arrived: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// One of them, to live in its thread.
    pub(crate) fn party(&self) -> Party<'_> {
        Party(self)
    }
}

impl Party<'_> {
    /// Waits for the others.
    ///
    /// # Panics
    /// When one of them has failed.
    pub(crate) fn wait(&self) {
        let Gate {
            parties,
            arrived,
            failed,
        } = self.0;
        let mine = arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let all = mine.next_multiple_of(*parties);
        while arrived.load(Ordering::Acquire) < all {
            assert!(!failed.load(Ordering::Relaxed), "another reader failed");
            thread::yield_now();
        }
    }
}

impl Drop for Party<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lets_nobody_wait_for_ever() {
        let gate = Gate::new(2);
        let run = |fails_at: usize| {
            let party = gate.party();
            (0..100).for_each(|turn| {
                assert!(turn < fails_at, "as wanted");
                party.wait();
            });
        };
        let failures = |fails_at: usize| {
            thread::scope(|scope| {
                let threads = [usize::MAX, fails_at].map(|at| scope.spawn(move || run(at)));
                let results = threads.map(|thread| thread.join());
                results.iter().filter(|result| result.is_err()).count()
            })
        };
        assert_eq!(failures(usize::MAX), 0);
        assert_eq!(failures(50), 2);
    }
}
