//! The first prototype of the group's protocol, as section 3.4 tells of it: receivers that ask again without limit each
//! 6 to 12 ms, a sender that repairs first. It is here to show that a test can fail; nothing of it is product.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use locus_proto::Timestamp;

use crate::overload::{Overload, Scene};
use crate::queue::Queue;
use crate::random::Random;

/// How far the sender may be ahead of the slowest receiver.
const WINDOW: u64 = 4_096;
/// A datagram is not repaired twice within this.
const HOLD: Duration = Duration::from_millis(2);
/// A receiver that makes no progress for so long does not count any more.
const EVICT: Duration = Duration::from_millis(500);
const LATENCY: Duration = Duration::from_micros(100);

#[derive(Debug)]
enum Event {
    Arrives(u64),
    Serve(usize),
    Ask(usize),
    Nack(Vec<u64>),
    Status(usize),
    Send,
    Sample,
}

#[derive(Debug, Default)]
struct Receiver {
    queue: VecDeque<u64>,
    busy: bool,
    /// It has everything below.
    next: u64,
    held: BTreeSet<u64>,
    asks: bool,
}

#[derive(Debug)]
struct Known {
    next: u64,
    progress_at: Timestamp,
}

/// Runs the prototype in a scene.
pub(crate) fn run(seed: u64, scene: &Scene) -> Overload {
    let mut random = Random::new(seed);
    let mut queue = Queue::new();
    let mut receivers: Vec<Receiver> = (0..scene.nodes).map(|_| Receiver::default()).collect();
    let new = |_| Known {
        next: 0,
        progress_at: Timestamp(0),
    };
    let mut known: Vec<Known> = (0..scene.nodes).map(new).collect();
    let mut repairs: VecDeque<u64> = VecDeque::new();
    // When each was repaired last, and whether it waits to be.
    let mut repaired_at: Vec<(Timestamp, bool)> = Vec::new();
    let mut out = Overload::default();
    let (mut data, mut repaired) = (0_u64, 0_u64);
    let (mut last_data, mut last_repaired, mut last_next) = (0, 0, 0);
    let spacing = Duration::from_secs_f64(1.0 / scene.datagrams_per_s);
    let service = spacing * 2;
    queue.post(Timestamp(0), Event::Send);
    queue.post(Timestamp(0).plus(scene.sample), Event::Sample);
    for node in 0..scene.nodes {
        let at = Timestamp(0).plus(random.time(Duration::from_millis(20)));
        queue.post(at, Event::Status(node));
    }
    let end = Timestamp(0).plus(scene.lasts);
    while let Some((now, event)) = queue.pop(end) {
        match event {
            Event::Send => {
                let live = known.iter().filter(|k| now.since(k.progress_at) < EVICT);
                let slowest = live.map(|k| k.next).min();
                if let Some(seq) = repairs.pop_front() {
                    repaired += 1;
                    repaired_at[usize::try_from(seq).unwrap()] = (now, false);
                    queue.post(now.plus(LATENCY), Event::Arrives(seq));
                } else if slowest.is_none_or(|slowest| data < slowest + WINDOW) {
                    queue.post(now.plus(LATENCY), Event::Arrives(data));
                    repaired_at.push((Timestamp(0), false));
                    data += 1;
                }
                queue.post(now.plus(spacing), Event::Send);
            }
            Event::Arrives(seq) => {
                for (node, receiver) in receivers.iter_mut().enumerate() {
                    if receiver.queue.len() >= scene.queue {
                        continue;
                    }
                    receiver.queue.push_back(seq);
                    if !std::mem::replace(&mut receiver.busy, true) {
                        queue.post(now.plus(service), Event::Serve(node));
                    }
                }
            }
            Event::Serve(node) => {
                let receiver = &mut receivers[node];
                if let Some(seq) = receiver.queue.pop_front() {
                    receiver.take(seq);
                    if !receiver.held.is_empty() && !std::mem::replace(&mut receiver.asks, true) {
                        let wait = random.time(Duration::from_millis(1));
                        queue.post(now.plus(wait), Event::Ask(node));
                    }
                }
                receiver.busy = !receiver.queue.is_empty();
                if receiver.busy {
                    queue.post(now.plus(service), Event::Serve(node));
                }
            }
            Event::Ask(node) => {
                let receiver = &mut receivers[node];
                receiver.asks = !receiver.held.is_empty();
                if receiver.asks {
                    out.nacks += 1;
                    queue.post(now.plus(LATENCY), Event::Nack(receiver.missing()));
                    let again = Duration::from_millis(6) + random.time(Duration::from_millis(6));
                    queue.post(now.plus(again), Event::Ask(node));
                }
            }
            Event::Nack(missing) => {
                for seq in missing {
                    let (at, waits) = &mut repaired_at[usize::try_from(seq).unwrap()];
                    let held = *at > Timestamp(0) && now.since(*at) < HOLD;
                    if !held && !std::mem::replace(waits, true) {
                        repairs.push_back(seq);
                    }
                }
            }
            Event::Status(node) => {
                let next = receivers[node].next;
                if next > known[node].next || next == data {
                    known[node].progress_at = now;
                }
                known[node].next = next;
                queue.post(now.plus(Duration::from_millis(20)), Event::Status(node));
            }
            Event::Sample => {
                let next = receivers.iter().map(|r| r.next).min().unwrap();
                out.sample(
                    (next - last_next) as f64 / scene.sample.as_secs_f64(),
                    (data - last_data) as f64,
                    (repaired - last_repaired) as f64,
                );
                (last_data, last_repaired, last_next) = (data, repaired, next);
                queue.post(now.plus(scene.sample), Event::Sample);
            }
        }
    }
    out
}

impl Receiver {
    fn take(&mut self, seq: u64) {
        if seq < self.next {
            return;
        }
        self.held.insert(seq);
        while self.held.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Returns everything that is missing below the highest held.
    fn missing(&self) -> Vec<u64> {
        let end = self.held.last().copied().unwrap_or(self.next);
        (self.next..end)
            .filter(|seq| !self.held.contains(seq))
            .collect()
    }
}
