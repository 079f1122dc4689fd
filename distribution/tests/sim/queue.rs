//! What happens when, in order of virtual time and then of posting; it knows no meaning.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use locus_proto::Timestamp;

/// Events that wait for their time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    posted: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Timestamp,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            posted: 0,
        }
    }

    pub(crate) fn post(&mut self, at: Timestamp, event: E) {
        self.posted += 1;
        let order = self.posted;
        self.heap.push(Reverse(Entry { at, order, event }));
    }

    /// Returns the first event up to `end`, and its time.
    pub(crate) fn pop(&mut self, end: Timestamp) -> Option<(Timestamp, E)> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at > end) {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.at, entry.event))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
