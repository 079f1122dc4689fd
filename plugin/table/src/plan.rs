//! What a batch will do to a table, worked out before anything is written; it writes nothing.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use locus_proto::{Change, ChangeOp, FRAME_CHANGES_MAX, Root};

use crate::arena::{Arena, CLASS_MAX, Head, VALUE_BYTES_MAX, class_for};
use crate::audit::Account;
use crate::journal::{JOURNAL_BYTES, change_words};
use crate::layout::{BUCKET_SLOTS, PROBE};
use crate::view::{Place, Probe, Reason, View};
use crate::{PrepareError, Word};

/// A batch that fits, and the content it leads to; see [`crate::Writer::prepare`].
#[derive(Debug)]
#[must_use = "nothing is written before it is committed"]
pub struct Prepared {
    /// Number of the last batch when it was prepared.
    pub(crate) sequence: u64,
    pub(crate) steps: Vec<Step>,
    /// What the table holds afterwards.
    pub(crate) after: Account,
}

impl Prepared {
    /// Returns the content of the table after the batch.
    pub fn root_after(&self) -> Root {
        self.after.sum
    }
}

/// What one change does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) hash: u64,
    pub(crate) what: What,
    /// The record that goes.
    pub(crate) gone: Account,
    /// The record that comes.
    pub(crate) come: Account,
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

/// What to do where the memory of a record, or of a slot in which the key may lie, contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rot {
    /// Refuse the change.
    Refuse,
    /// Look past it, as if the slot held another key and the record were true: the partition is to be
    /// repaired anyway.
    LookPast,
}

/// Works out steps against one state of a table.
pub(crate) struct Planner<'a, W> {
    view: View<'a, W>,
    /// Slots that inserts planned before will take; none are remembered for a single step.
    taken: Option<Taken>,
    scratch: &'a mut [u8],
    records: u64,
    rot: Rot,
}

impl<'a, W: Word> Planner<'a, W> {
    /// Returns a planner for the steps of one batch, which are done after all are planned.
    pub(crate) fn of_batch(
        view: View<'a, W>,
        scratch: &'a mut [u8],
        records: u64,
        rot: Rot,
    ) -> Self {
        Self {
            taken: Some(Taken::default()),
            rot,
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
            rot: Rot::Refuse,
        }
    }

    /// Works out one change of a key with this hash, and remembers the slot it takes.
    pub(crate) fn step(&mut self, change: &Change, hash: u64) -> Result<Step, PrepareError> {
        let key = change.key.as_bytes();
        let have = match self.view.probe_hashed(hash, key, self.scratch) {
            Probe::Found(hit, place) => {
                let value = hit.value(self.scratch).unwrap_or_default();
                let account = self.view.hashes.account(key, hit.level, value);
                if account.check_word() != hit.check && self.rot == Rot::Refuse {
                    return Err(PrepareError::Corrupt(change.key.clone()));
                }
                Some((place, account))
            }
            Probe::Absent => None,
            Probe::Unavailable(Reason::Corrupt) if self.rot == Rot::LookPast => {
                self.find_past_rot(hash, key)
            }
            Probe::Unavailable(_) => return Err(PrepareError::Corrupt(change.key.clone())),
        };
        self.step_from(change, hash, have)
    }

    /// Works out one change of a key that is where `have` says.
    pub(crate) fn step_from(
        &mut self,
        change: &Change,
        hash: u64,
        have: Option<(Place, Account)>,
    ) -> Result<Step, PrepareError> {
        let gone = have.map_or_else(Account::default, |(_, account)| account);
        let place = have.map(|(place, _)| place);
        let (what, come) = match &change.op {
            ChangeOp::Put(value) => match self.put(change, value, hash, place)? {
                // The same hash means the same record: a redo finds what it has already done.
                (What::Replace { .. }, come) if come == gone => (What::Nothing, come),
                other => other,
            },
            ChangeOp::Delete => match place {
                Some(place) => (What::Remove { place }, Account::default()),
                None => (What::Nothing, Account::default()),
            },
        };
        Ok(Step {
            hash,
            what,
            gone,
            come,
        })
    }

    fn put(
        &mut self,
        change: &Change,
        value: &[u8],
        hash: u64,
        place: Option<Place>,
    ) -> Result<(What, Account), PrepareError> {
        let class = class_for(head_of(change, value, 0).record_words())
            .filter(|_| value.len() <= VALUE_BYTES_MAX)
            .ok_or_else(|| PrepareError::ValueTooLong {
                key: change.key.clone(),
                len: value.len(),
                max: VALUE_BYTES_MAX,
            })?;
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
        let key = change.key.as_bytes();
        Ok((what, self.view.hashes.account(key, change.level, value)))
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
                let is_free = word.load() == 0;
                if is_free && self.taken.as_mut().is_none_or(|t| t.take(bucket, slot)) {
                    let word = 0;
                    return Some((Place { bucket, slot, word }, distance));
                }
            }
        }
        None
    }

    /// Finds a record as a look-up does, but goes on behind what cannot be read.
    fn find_past_rot(&mut self, hash: u64, key: &[u8]) -> Option<(Place, Account)> {
        let home = self.view.home(hash);
        (home..=home + PROBE)
            .flat_map(|bucket| (0..BUCKET_SLOTS).map(move |slot| (bucket, slot)))
            .find_map(|(bucket, slot)| {
                let scanned = self.view.scan_slot(bucket, slot, self.scratch).ok()??;
                let (word, head) = (scanned.word, scanned.head);
                let place = Place { bucket, slot, word };
                let (found, value) = scanned.split(self.scratch)?;
                let is_it = found == key && self.view.is_in_place(hash, place, head);
                is_it.then(|| (place, self.view.hashes.account(key, head.level, value)))
            })
    }
}

/// Changes whose lines are fetched together: few enough to stay in the nearest cache.
pub(crate) const AT_ONCE: usize = 32;

/// Slots that a batch will take.
#[derive(Debug, Default)]
struct Taken(HashSet<u64, BuildHasherDefault<Spread>>);

impl Taken {
    /// Returns whether the slot was still free.
    fn take(&mut self, bucket: u64, slot: usize) -> bool {
        let slot = u64::try_from(slot).unwrap_or(u64::MAX);
        self.0.insert(bucket << 3 | (slot & 7))
    }
}

/// Spreads numbers that nobody outside chooses over a hash set: buckets follow a keyed hash.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Knuth's golden ratio; the set looks at the top bits too.
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// Returns the head of the record that a put makes, whose hash has this check word.
pub(crate) fn head_of(change: &Change, value: &[u8], check: u32) -> Head {
    Head {
        key_len: change.key.as_bytes().len(),
        value_len: value.len(),
        check,
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
    Ok(())
}

/// Checks that each key comes once.
pub(crate) fn check_once(changes: &[Change], steps: &[Step]) -> Result<(), PrepareError> {
    let mut hashes: Vec<(u64, usize)> = steps.iter().map(|step| step.hash).zip(0..).collect();
    hashes.sort_unstable();
    // Keys with one hash are one key, but for a chance that nobody will see.
    let same_hash = hashes.chunk_by(|(a, _), (b, _)| a == b);
    let mut twice = same_hash.filter(|same| same.len() > 1).flat_map(|same| {
        let mut keys = HashSet::new();
        let all = same.iter().map(|(_, at)| &changes[*at].key);
        all.filter(move |key| !keys.insert(*key))
    });
    match twice.next() {
        Some(key) => Err(PrepareError::KeyTwice(key.clone())),
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
