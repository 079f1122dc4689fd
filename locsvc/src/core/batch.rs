//! Gathers requests into one batch: each sees the effect of those before it. It writes nothing.

use std::collections::HashMap;

use locus_distribution::Peer;
use locus_proto::{Binding, Change, ChangeOp, FRAME_CHANGES_MAX, Key, Level, Registration};

use crate::provision::{Outcome, ProvisionChange};

/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// A request that may change records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Of the API.
    Change {
        ticket: u64,
        changes: Vec<ProvisionChange>,
    },
    /// Of a node.
    Register {
        peer: Peer,
        ticket: u64,
        registration: Box<Registration>,
    },
    /// Of the expiry queue.
    Expire(Key),
}

/// What to answer when the batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Changed {
        ticket: u64,
        level: Level,
        outcomes: Vec<Outcome>,
    },
    Registered {
        peer: Peer,
        ticket: u64,
        level: Level,
        bindings: Vec<Binding>,
    },
    Expired,
}

/// Changes on top of the table that are not durable yet, each key once.
#[derive(Debug)]
pub(super) struct Batch {
    from: Level,
    to: Level,
    changes: HashMap<Key, Pending>,
    bytes: usize,
    jobs: Vec<(Work, Reply)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    level: Level,
    value: Option<Vec<u8>>,
}

impl Pending {
    fn bytes(&self, key: &Key) -> usize {
        key.as_bytes().len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The changes of one request on top of a batch.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    batch: &'a Batch,
    to: Level,
    changes: HashMap<Key, Pending>,
}

/// The changes of one request, cut loose from the batch to which they will be added.
#[derive(Debug)]
pub(super) struct Drafted {
    to: Level,
    changes: HashMap<Key, Pending>,
}

/// What a batch says of a record: nothing, or its state.
pub(super) type Known<'a> = Option<Option<(Level, &'a [u8])>>;

impl Batch {
    pub(super) fn new(from: Level) -> Self {
        Self {
            from,
            to: from,
            changes: HashMap::new(),
            bytes: 0,
            jobs: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Requests in it, those that change nothing included.
    pub(super) fn requests(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= FRAME_CHANGES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// The level after every change so far.
    pub(super) fn to(&self) -> Level {
        self.to
    }

    pub(super) fn draft(&self) -> Draft<'_> {
        Draft {
            batch: self,
            to: self.to,
            changes: HashMap::new(),
        }
    }

    /// Adds the changes of one request; gives them back if they do not fit.
    pub(super) fn add(&mut self, drafted: Drafted, work: Work, reply: Reply) -> Result<(), Work> {
        let mut bytes = self.bytes;
        let mut new = 0;
        for (key, pending) in &drafted.changes {
            bytes += pending.bytes(key);
            match self.changes.get(key) {
                Some(earlier) => bytes -= earlier.bytes(key),
                None => new += 1,
            }
        }
        if self.changes.len() + new > FRAME_CHANGES_MAX || bytes > BATCH_BYTES_MAX {
            return Err(work);
        }
        self.changes.extend(drafted.changes);
        self.bytes = bytes;
        self.to = drafted.to;
        self.jobs.push((work, reply));
        Ok(())
    }

    /// Returns the changes in order of their levels, and the requests in order of their coming.
    ///
    /// Of several changes of one key the last is left: its level is the highest.
    pub(super) fn close(self) -> (Vec<Change>, Vec<(Work, Reply)>) {
        let change = |(key, pending): (Key, Pending)| Change {
            key,
            level: pending.level,
            op: pending.value.map_or(ChangeOp::Delete, ChangeOp::Put),
        };
        let mut changes: Vec<Change> = self.changes.into_iter().map(change).collect();
        changes.sort_unstable_by_key(|change| change.level);
        debug_assert!(
            changes
                .first()
                .is_none_or(|change| change.level > self.from)
        );
        (changes, self.jobs)
    }
}

impl Draft<'_> {
    /// Returns the state of a record, if it is another than the table's.
    pub(super) fn get(&self, key: &Key) -> Known<'_> {
        let mine = self.changes.get(key);
        let pending = mine.or_else(|| self.batch.changes.get(key))?;
        let value = pending.value.as_deref();
        Some(value.map(|value| (pending.level, value)))
    }

    /// Sets the state of a record, at a level of its own; `None` deletes it.
    pub(super) fn set(&mut self, key: Key, value: Option<Vec<u8>>) -> Level {
        self.to = self.to.plus(1);
        let pending = Pending {
            level: self.to,
            value,
        };
        self.changes.insert(key, pending);
        self.to
    }

    /// The level after every change so far.
    pub(super) fn to(&self) -> Level {
        self.to
    }

    pub(super) fn finish(self) -> Drafted {
        Drafted {
            to: self.to,
            changes: self.changes,
        }
    }
}

impl Drafted {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
