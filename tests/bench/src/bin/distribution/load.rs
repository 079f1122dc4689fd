//! An open loop of provisioning: so many updates a second in small batches, whatever the answers take.
//! Knows levels and times, nothing of how a change travels.

use std::thread;
use std::time::{Duration, Instant};

use locus_bench::{Client, Subscriber, float};
use locus_lab::{Namespace, wait};
use serde_json::{Value, json};

/// Updates of one request, at every rate that 500 requests a second can carry; beyond, requests are longer.
const BATCH: usize = 20;
/// Most requests a second.
const REQUESTS_MAX: usize = 500;
/// Kept-alive connections that take turns: a slow answer delays only its own.
const CLIENTS: usize = 8;
/// A request that began this much after its time: the rate was not kept.
const LATE: Duration = Duration::from_millis(2);

/// Subscribers that are updated in turn.
pub(crate) const RECORDS: usize = 100_000;

/// More than the turns that the bench tells apart.
const PASS: usize = 1_000;

/// Updates of a run of time, by request.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Level after the request, the updates in it, when it was written.
    pub(crate) requests: Vec<(u64, usize, Instant)>,
    /// Requests that began late.
    pub(crate) late: usize,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Sent {
    /// Updates sent.
    pub(crate) fn updates(&self) -> usize {
        self.requests.iter().map(|(_, updates, _)| updates).sum()
    }

    /// The highest level.
    pub(crate) fn level(&self) -> u64 {
        self.requests
            .iter()
            .map(|(level, _, _)| *level)
            .max()
            .unwrap_or(0)
    }
}

/// Sends `per_second` updates a second for `length` to the API at `api`; `turn` makes the contacts of one
/// run differ from those of another.
pub(crate) fn run(
    namespace: &Namespace,
    api: &str,
    per_second: usize,
    length: Duration,
    turn: usize,
) -> Sent {
    let batch = BATCH.max(per_second / REQUESTS_MAX);
    let every = Duration::from_secs_f64(float(batch) / float(per_second));
    let seconds = usize::try_from(length.as_secs()).unwrap_or(0);
    let requests = seconds * per_second / batch;
    let begun = wait::now();
    let mut sent = Sent::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|first| {
                scope.spawn(move || {
                    let mut client = Client::connect(namespace, api);
                    let mut sent = Sent::default();
                    for request in (first..requests).step_by(CLIENTS) {
                        let body = batch_of(request * batch..(request + 1) * batch, turn);
                        let due = every * u32::try_from(request).unwrap_or(u32::MAX);
                        wait::pause(due.saturating_sub(begun.elapsed()));
                        sent.late += usize::from(begun.elapsed() > due + LATE);
                        let (at, level) = client.post("/v1/batch", &body);
                        sent.requests.push((level, batch, at.begun));
                    }
                    sent
                })
            })
            .collect();
        for thread in threads {
            let part = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.requests.extend(part.requests);
            sent.late += part.late;
        }
    });
    sent.took = begun.elapsed();
    sent.requests.sort_unstable_by_key(|(level, _, _)| *level);
    sent
}

fn batch_of(subscribers: std::ops::Range<usize>, turn: usize) -> Value {
    let changes: Vec<Value> = subscribers
        .map(|number| {
            let one = Subscriber(number % RECORDS);
            // An update that changes nothing is none: each pass over all of them has contacts of its own.
            let turn = turn + number / RECORDS * PASS;
            let contacts = [json!({ "uri": one.contact(turn) })];
            json!({ "op": "put_aor", "aor": one.aor(), "contacts": contacts })
        })
        .collect();
    json!({ "changes": changes })
}
