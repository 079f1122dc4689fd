//! What a batch will do to a table, worked out before anything is written; it writes nothing.

use std::collections::HashSet;

use locus_proto::{Change, ChangeOp, FRAME_CHANGES_MAX, Root};

use crate::arena::{Arena, CLASS_MAX, Head, VALUE_BYTES_MAX, class_for};
use crate::journal::{JOURNAL_BYTES, change_words};
use crate::layout::PROBE;
use crate::view::{Place, Probe, View};
use crate::{PrepareError, Word};

/// A batch that fits, and the content it leads to; see [`crate::Writer::prepare`].
#[derive(Debug)]
#[must_use = "nothing is written before it is committed"]
pub struct Prepared {
    /// Number of the last batch when it was prepared.
    pub(crate) sequence: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) root_after: Root,
    pub(crate) records_after: u64,
    pub(crate) bytes_after: u64,
}

impl Prepared {
    /// Returns the content of the table after the batch.
    pub fn root_after(&self) -> Root {
        self.root_after
    }

    /// Returns the number of records after the batch.
    pub fn records_after(&self) -> u64 {
        self.records_after
    }
}

/// What one change does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) hash: u64,
    pub(crate) what: What,
    /// Hash of the record that goes.
    pub(crate) minus: Root,
    /// Hash of the record that comes.
    pub(crate) plus: Root,
    /// Bytes of key and value that go and come.
    pub(crate) bytes: (u64, u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// The record is already what it shall be.
    Nothing,
    /// A record gives way to another.
    Replace { place: Place, class: u8 },
    /// A new record.
    Insert {
        place: Place,
        distance: u64,
        class: u8,
    },
    /// A record goes.
    Remove { place: Place },
}

/// Works out steps against one state of a table.
pub(crate) struct Planner<'a, W> {
    pub(crate) view: View<'a, W>,
    /// Slots that inserts planned before will take; none are remembered for a single step.
    taken: Option<HashSet<(u64, usize)>>,
    scratch: &'a mut [u8],
    records: u64,
}

impl<'a, W: Word> Planner<'a, W> {
    /// Returns a planner for the steps of one batch, which are done after all are planned.
    pub(crate) fn of_batch(view: View<'a, W>, scratch: &'a mut [u8], records: u64) -> Self {
        Self {
            taken: Some(HashSet::new()),
            ..Self::of_one(view, scratch, records)
        }
    }

    /// Returns a planner for one step, which is done at once.
    pub(crate) fn of_one(view: View<'a, W>, scratch: &'a mut [u8], records: u64) -> Self {
        Self {
            view,
            taken: None,
            scratch,
            records,
        }
    }

    /// Works out one change, and remembers the slot it takes.
    pub(crate) fn step(&mut self, change: &Change) -> Result<Step, PrepareError> {
        let key = change.key.as_bytes();
        let hash = self.view.hashes.key(key);
        let (place, minus, gone) = match self.view.probe(key, self.scratch) {
            Probe::Found(hit, place) => {
                let value = hit.value(self.scratch).unwrap_or_default();
                let record = self.view.hashes.record(key, hit.level, hit.flags, value);
                (Some(place), record, len(key.len() + value.len()))
            }
            Probe::Absent => (None, Root::EMPTY, 0),
            Probe::Unavailable(_) => return Err(PrepareError::Corrupt(change.key.clone())),
        };
        let (what, plus, come) = match &change.op {
            ChangeOp::Put(value) => self.put(change, value, hash, place)?,
            ChangeOp::Delete => match place {
                Some(place) => (What::Remove { place }, Root::EMPTY, 0),
                None => (What::Nothing, Root::EMPTY, 0),
            },
        };
        // The same hash means the same record: a redo finds what it has already done.
        let what = if place.is_some() && minus == plus {
            What::Nothing
        } else {
            what
        };
        Ok(Step {
            hash,
            what,
            minus,
            plus,
            bytes: (gone, come),
        })
    }

    fn put(
        &mut self,
        change: &Change,
        value: &[u8],
        hash: u64,
        place: Option<Place>,
    ) -> Result<(What, Root, u64), PrepareError> {
        let key = change.key.as_bytes();
        let class = class_for(head_of(change, value).record_words())
            .filter(|_| value.len() <= VALUE_BYTES_MAX)
            .ok_or_else(|| PrepareError::ValueTooLong {
                key: change.key.clone(),
                len: value.len(),
                max: VALUE_BYTES_MAX,
            })?;
        let record = self.view.hashes.record(key, change.level, 0, value);
        let what = match place {
            Some(place) => What::Replace { place, class },
            None => {
                let (place, distance) = self.free_slot(hash).ok_or(PrepareError::IndexFull {
                    records: self.records,
                    buckets: self.view.buckets,
                })?;
                What::Insert {
                    place,
                    distance,
                    class,
                }
            }
        };
        Ok((what, record, len(key.len() + value.len())))
    }

    /// Returns the free slot nearest to the home of a key, and how many buckets behind it.
    fn free_slot(&mut self, hash: u64) -> Option<(Place, u64)> {
        let home = self.view.home(hash);
        for distance in 0..=PROBE {
            let bucket = home + distance;
            let Some([_, slots @ ..]) = self.view.bucket(bucket) else {
                break; // behind the last bucket
            };
            for (slot, word) in slots.iter().enumerate() {
                let at = (bucket, slot);
                if word.load() == 0 && self.taken.as_mut().is_none_or(|taken| taken.insert(at)) {
                    let word = 0;
                    return Some((Place { bucket, slot, word }, distance));
                }
            }
        }
        None
    }
}

/// Returns the head of the record that a put makes.
pub(crate) fn head_of(change: &Change, value: &[u8]) -> Head {
    Head {
        key_len: change.key.as_bytes().len(),
        value_len: value.len(),
        flags: 0,
        level: change.level,
    }
}

/// Checks what a batch may be, whatever the table.
pub(crate) fn check_batch(changes: &[Change]) -> Result<(), PrepareError> {
    if changes.len() > FRAME_CHANGES_MAX {
        return Err(PrepareError::TooManyChanges {
            changes: changes.len(),
            max: FRAME_CHANGES_MAX,
        });
    }
    let bytes = changes.iter().map(change_words).sum::<usize>() * 8;
    if bytes > JOURNAL_BYTES {
        let max = JOURNAL_BYTES;
        return Err(PrepareError::TooLarge { bytes, max });
    }
    let mut keys = HashSet::with_capacity(changes.len());
    match changes.iter().find(|change| !keys.insert(&change.key)) {
        Some(twice) => Err(PrepareError::KeyTwice(twice.key.clone())),
        None => Ok(()),
    }
}

/// Checks that the arena holds all new records even if no old one gave its block back first.
pub(crate) fn check_arena(arena: &Arena, steps: &[Step]) -> Result<(), PrepareError> {
    let mut blocks = [0_u64; CLASS_MAX as usize + 1];
    for step in steps {
        match step.what {
            What::Replace { class, .. } | What::Insert { class, .. } => {
                blocks[usize::from(class)] += 1;
            }
            What::Nothing | What::Remove { .. } => {}
        }
    }
    let needed = (0..=CLASS_MAX)
        .zip(blocks)
        .filter(|(_, blocks)| *blocks > 0);
    let need_slabs = needed.map(|(class, n)| arena.slabs_needed(class, n)).sum();
    let free_slabs = arena.free_slabs();
    if need_slabs > free_slabs {
        return Err(PrepareError::ArenaFull {
            need_slabs,
            free_slabs,
        });
    }
    Ok(())
}

fn len(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
