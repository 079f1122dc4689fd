//! A table as plain as can be, with sums that can be wrong and memory that can rot; nothing is distributed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use locus_distribution::{Failure, Mended, Standing};
use locus_proto::{Change, ChangeOp, Frame, Key, Level, Position, Root};

/// Records, what their owner believes of them, and which partitions it doubts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) records: BTreeMap<Key, (Level, Vec<u8>)>,
    /// Its root is the sum of all sums.
    pub(crate) position: Position,
    /// Sums as they were kept up change by change; those of empty partitions are absent.
    sums: BTreeMap<u16, Root>,
    /// Partitions that are summed from memory instead.
    doubted: BTreeSet<u16>,
    /// What is repaired is wrong again at once.
    stuck: bool,
}

/// How memory fails. Only [`Self::Content`] changes the sums too, as a bug would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A record's value has changed.
    Rot,
    /// A record is gone.
    Loss,
    /// A partition's sum has changed.
    Sum,
    /// The sums of so many partitions have changed.
    Sums(u16),
    /// A record is another one, and its sum fits.
    Content,
    /// The same, and no repair lasts.
    Stuck,
}

impl Table {
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            position: self.position,
            records: u64::try_from(self.records.len()).unwrap(),
        }
    }

    /// Returns whether both hold, and believe, the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.records == other.records && self.position == other.position && self.sums == other.sums
    }

    /// Applies a frame as the real table does: all or nothing; if `checked`, roots are compared before
    /// anything is written, and otherwise the root becomes whatever it becomes.
    pub(crate) fn apply(&mut self, frame: &Frame, checked: bool) -> Result<Standing, Failure> {
        let header = &frame.header;
        assert_eq!(header.from, self.position.level, "asked to apply a gap");
        let before = self.clone();
        self.load(&frame.changes);
        let fits =
            before.position.root == header.root_before && self.position.root == header.root_after;
        if checked && !fits {
            *self = before;
            let touched = frame.changes.iter().map(|change| partition(&change.key));
            self.doubted.extend(touched);
            return Err(Failure::RootMismatch);
        }
        self.position = Position {
            root: self.position.root,
            ..header.after()
        };
        Ok(self.standing())
    }

    /// Puts and deletes without any check, as a load does.
    pub(crate) fn load(&mut self, changes: &[Change]) {
        for change in changes {
            let mut sum = self.stored(partition(&change.key));
            let old = match &change.op {
                ChangeOp::Put(value) => {
                    sum = sum.plus(record_hash(&change.key, change.level, value));
                    let record = (change.level, value.clone());
                    self.records.insert(change.key.clone(), record)
                }
                ChangeOp::Delete => self.records.remove(&change.key),
            };
            if let Some((level, value)) = old {
                sum = sum.minus(record_hash(&change.key, level, &value));
            }
            self.set_sum(partition(&change.key), sum);
        }
    }

    /// Ends a load: the root must be the announced one.
    pub(crate) fn finish(&mut self, position: Position) -> Result<Standing, Failure> {
        if self.position.root != position.root {
            return Err(Failure::RootMismatch);
        }
        self.position = position;
        Ok(self.standing())
    }

    /// Returns the sums of the groups, or of the partitions of a group, as they are believed.
    pub(crate) fn sums(&self, group: Option<u8>) -> Vec<Root> {
        self.sums_by(group, |partition| self.stored(partition))
    }

    /// Returns which sums differ from the master's: those that are believed, or what memory gives where that
    /// is in doubt.
    pub(crate) fn compare(&self, group: Option<u8>, sums: &[Root]) -> Vec<u8> {
        let stored = self.sums(group);
        let found = self.sums_by(group, |partition| match self.doubted.contains(&partition) {
            true => self.found(partition),
            false => self.stored(partition),
        });
        let differs = |at: &u8| {
            let at = usize::from(*at);
            stored[at] != sums[at] || found[at] != sums[at]
        };
        (0..=255).filter(differs).collect()
    }

    fn sums_by(&self, group: Option<u8>, sum: impl Fn(u16) -> Root) -> Vec<Root> {
        let mut sums = vec![Root::EMPTY; 256];
        let known = self.sums.keys().chain(&self.doubted).copied();
        for partition in known.collect::<BTreeSet<u16>>() {
            let [of, index] = partition.to_be_bytes();
            let at = match group {
                None => of,
                Some(group) if group == of => index,
                Some(_) => continue,
            };
            let at = &mut sums[usize::from(at)];
            *at = at.plus(sum(partition));
        }
        sums
    }

    /// Compares a partition with all that the master holds in it, and makes it that if it is to `repair`.
    pub(crate) fn mend(&mut self, number: u16, records: &[Change], repair: bool) -> Mended {
        let theirs: BTreeMap<Key, (Level, Vec<u8>)> = (records.iter().cloned())
            .map(|record| match record.op {
                ChangeOp::Put(value) => (record.key, (record.level, value)),
                ChangeOp::Delete => unreachable!("a delete among the records"),
            })
            .collect();
        assert!(theirs.keys().all(|key| partition(key) == number));
        let ours: BTreeMap<Key, (Level, Vec<u8>)> = self
            .partition(number)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        let keys: BTreeSet<&Key> = ours.keys().chain(theirs.keys()).collect();
        let differing = keys.iter().filter(|key| ours.get(key) != theirs.get(key));
        let differing = u64::try_from(differing.count()).unwrap();
        if repair {
            self.records.retain(|key, _| partition(key) != number);
            self.records.extend(theirs);
            if self.stuck
                && let Some((_, record)) =
                    (self.records.iter_mut()).find(|(key, _)| partition(key) == number)
            {
                record.1.push(13);
            }
            let sum = self.found(number);
            self.set_sum(number, sum);
            self.doubted.remove(&number);
        }
        Mended {
            differing,
            repaired: if repair { differing } else { 0 },
            standing: self.standing(),
        }
    }

    /// Reads all memory again; returns whether a partition contradicts its sum.
    pub(crate) fn scrub(&mut self) -> bool {
        let known = self.sums.keys().copied();
        let all: BTreeSet<u16> = known.chain(self.records.keys().map(partition)).collect();
        let contradicts = |number: &u16| self.found(*number) != self.stored(*number);
        self.doubted = all.into_iter().filter(contradicts).collect();
        !self.doubted.is_empty()
    }

    /// Returns all records of a partition, or nothing if they contradict its sum.
    pub(crate) fn partition_records(&self, number: u16) -> Option<Vec<Change>> {
        (self.found(number) == self.stored(number)).then(|| {
            let record = |(key, (level, value)): (&Key, &(Level, Vec<u8>))| Change {
                key: key.clone(),
                level: *level,
                op: ChangeOp::Put(value.clone()),
            };
            self.partition(number).map(record).collect()
        })
    }

    /// Fails without a word, at the record or partition that `chance` picks.
    pub(crate) fn fail(&mut self, fault: Fault, chance: u64) {
        let picked = |len: usize| usize::try_from(chance).unwrap() % len;
        let key = (!self.records.is_empty())
            .then(|| self.records.keys().nth(picked(self.records.len())).unwrap())
            .cloned();
        let junk = Root([chance | 1, chance]);
        match (fault, key) {
            (Fault::Rot, Some(key)) => {
                self.records.get_mut(&key).unwrap().1.push(13);
            }
            (Fault::Loss, Some(key)) => {
                self.records.remove(&key);
            }
            (Fault::Content | Fault::Stuck, Some(key)) => {
                self.stuck = fault == Fault::Stuck;
                let (level, _) = self.records[&key];
                let op = ChangeOp::Put(format!("rotten {chance}").into_bytes());
                self.load(&[Change { key, level, op }]);
            }
            (Fault::Sum, _) => {
                let partition = u16::try_from(chance & 0xffff).unwrap();
                self.set_sum(partition, self.stored(partition).plus(junk));
            }
            (Fault::Sums(count), _) => {
                for partition in (0..count).map(|n| n.wrapping_mul(19)) {
                    self.set_sum(partition, self.stored(partition).plus(junk));
                }
            }
            (Fault::Rot | Fault::Loss | Fault::Content | Fault::Stuck, None) => {}
        }
    }

    fn partition(&self, number: u16) -> impl Iterator<Item = (&Key, &(Level, Vec<u8>))> {
        let of = move |(key, _): &(&Key, &(Level, Vec<u8>))| partition(key) == number;
        self.records.iter().filter(of)
    }

    /// Returns what a partition's sum is believed to be.
    fn stored(&self, partition: u16) -> Root {
        self.sums.get(&partition).copied().unwrap_or(Root::EMPTY)
    }

    /// Returns what memory gives.
    fn found(&self, number: u16) -> Root {
        let hash =
            |(key, (level, value)): (&Key, &(Level, Vec<u8>))| record_hash(key, *level, value);
        self.partition(number)
            .map(hash)
            .fold(Root::EMPTY, Root::plus)
    }

    fn set_sum(&mut self, partition: u16, sum: Root) {
        let root = self.position.root.minus(self.stored(partition));
        self.position.root = root.plus(sum);
        match sum == Root::EMPTY {
            true => self.sums.remove(&partition),
            false => self.sums.insert(partition, sum),
        };
    }
}

/// Returns the partition of a key: the first 16 bits of its hash.
fn partition(key: &Key) -> u16 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    u16::try_from(hasher.finish() >> 48).unwrap()
}

fn record_hash(key: &Key, level: Level, value: &[u8]) -> Root {
    let lane = |lane: u8| {
        let mut hasher = DefaultHasher::new(); // the same in each run
        (lane, key, level, value).hash(&mut hasher);
        hasher.finish()
    };
    Root([lane(0), lane(1)])
}
