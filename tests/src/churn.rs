//! Changes that flow beside a test until it says stop. Knows records, not who follows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Method;

use crate::api::Api;
use crate::locsvc::provisioned_aor;
use crate::wait;

/// Addresses-of-record that change over and over.
const AORS: usize = 500;
/// Changes of one batch.
const BATCH: usize = 20;
/// Pause after a batch that locsvc could not take, as a provisioning system makes.
const RETRY: Duration = Duration::from_millis(50);

/// A thread that changes records without pause.
#[derive(Debug)]
pub struct Churn {
    stop: Arc<AtomicBool>,
    level: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
    worker: Option<JoinHandle<Churned>>,
}

/// What a churn did.
#[derive(Debug, Clone, Copy)]
pub struct Churned {
    /// Changes that were accepted.
    pub changes: u64,
    /// Level of the last one.
    pub level: u64,
}

impl Churn {
    /// Begins to change records through `api`, about `per_second` of them a second.
    pub fn start(api: Api, per_second: u32) -> Self {
        let (stop, level) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let changes = Arc::<AtomicU64>::default();
        let (flag, reached) = (Arc::clone(&stop), Arc::clone(&level));
        let done = Arc::clone(&changes);
        let batch = u32::try_from(BATCH).unwrap_or(1);
        let every = Duration::from_secs(1) * batch / per_second;
        let worker = thread::spawn(move || {
            let begun = wait::now();
            let mut churned = Churned {
                changes: 0,
                level: 0,
            };
            let mut round = 0;
            while !flag.load(Ordering::Relaxed) {
                let body = batch_of(round).to_string();
                // While locsvc is down there is no answer; a batch sent again changes the same records.
                match api.call(Method::POST, "/v1/batch", body.as_bytes()) {
                    Ok(answer) if answer.status == 200 => {
                        churned.level = answer.level();
                        churned.changes += u64::from(batch);
                        reached.store(churned.level, Ordering::Relaxed);
                        done.store(churned.changes, Ordering::Relaxed);
                        round += 1;
                    }
                    Ok(_) | Err(_) => wait::pause(RETRY),
                }
                let due = every * u32::try_from(round).unwrap_or(u32::MAX);
                wait::pause(due.saturating_sub(begun.elapsed()));
            }
            churned
        });
        Self {
            stop,
            level,
            changes,
            worker: Some(worker),
        }
    }

    /// The level of the last change accepted so far.
    pub fn level(&self) -> u64 {
        self.level.load(Ordering::Relaxed)
    }

    /// Changes that were accepted so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Stops and returns what was done.
    ///
    /// # Panics
    /// When nothing was accepted.
    pub fn finish(mut self) -> Churned {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().expect("a churn is finished once");
        let churned = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(churned.changes > 0, "no change was accepted");
        churned
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        // The thread of a test that has failed ends by itself.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn batch_of(round: usize) -> Value {
    let changes: Vec<Value> = (0..BATCH)
        .map(|n| {
            let number = (round * BATCH + n) % AORS;
            // Sizes change, so that records move; now and then one goes and comes back.
            if (round + n).is_multiple_of(17) {
                return json!({ "op": "delete_aor", "aor": provisioned_aor(number) });
            }
            let padding = "x".repeat((round * 7 + n * 31) % 150);
            json!({ "op": "put_aor", "aor": provisioned_aor(number),
                "contacts": [{ "uri": format!("sip:r{round}-{padding}@10.77.0.22:7001") }] })
        })
        .collect();
    json!({ "changes": changes })
}
