//! Repair of one partition from what the master says it holds; it knows not how the difference was found.
//!
//! What is in memory is surveyed first. A *stray* is a slot that no look-up can find a record by: its
//! block cannot be read or is not in use, its key belongs elsewhere, an earlier slot holds the same key. It
//! goes by its slot, and its block is free again only when the table is opened anew: what it names may be
//! another's. A record whose check word does not fit is found, but comes to nothing, and is replaced.
//!
//! The order of its stores stands in the crate's documentation.

use std::collections::{HashMap, HashSet};

use locus_proto::{Change, ChangeOp, FRAME_CHANGES_MAX, Key};

use crate::arena::VALUE_BYTES_MAX;
use crate::audit::{self, Account, account, partition_of, set_account, total};
use crate::journal::{JOURNAL_BYTES, change_words};
use crate::layout::BUCKET_SLOTS;
use crate::plan::{Planner, Rot, Step, check_arena};
use crate::view::{Place, View, block_of};
use crate::{Memory, PrepareError, RepairError, Word, Writer, prefix, publish};

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Records that differed. Zero with a batch: only the stored sum was wrong, or what rotted is of a
    /// neighbouring partition, and is missing there.
    pub differed: u64,
    /// Journalled batches that it took.
    pub batches: u64,
}

/// What a partition holds in memory.
pub(crate) struct Survey {
    /// What the records come to.
    account: Account,
    /// Records that look-ups find, by key: where, and what it comes to; nothing if it rotted.
    records: HashMap<Vec<u8>, (Place, Account)>,
    /// Slots in its buckets by which no look-up finds a record, whosever they were.
    pub(crate) strays: Vec<Place>,
}

impl Survey {
    /// Surveys a partition, strays of its neighbours included where their buckets are shared.
    pub(crate) fn of<M: Memory>(writer: &Writer<M>, partition: u16) -> Self {
        Self::with_owner(writer, partition, |place| {
            let (class, offset) = block_of(place.word);
            writer.arena.is_used(class, offset)
        })
    }

    /// Surveys a partition while it is not known which blocks are in use.
    pub(crate) fn before_arena<M: Memory>(writer: &Writer<M>, partition: u16) -> Self {
        Self::with_owner(writer, partition, |_| true)
    }

    fn with_owner<M: Memory>(
        writer: &Writer<M>,
        partition: u16,
        owns: impl Fn(Place) -> bool,
    ) -> Self {
        let mut scratch = writer.scratch.take();
        let survey = Self::read(writer, partition.into(), &mut scratch, owns);
        writer.scratch.set(scratch);
        survey
    }

    fn read<M: Memory>(
        writer: &Writer<M>,
        partition: usize,
        scratch: &mut [u8],
        owns: impl Fn(Place) -> bool,
    ) -> Self {
        let view = View::new(&writer.memory, &writer.layout);
        let mut survey = Self {
            account: Account::default(),
            records: HashMap::new(),
            strays: Vec::new(),
        };
        let mut seen = HashSet::new();
        let (start, end) = audit::range(&view, partition);
        let slots =
            (start..end).flat_map(|bucket| (0..BUCKET_SLOTS).map(move |slot| (bucket, slot)));
        for (bucket, slot) in slots {
            let scanned = match view.scan_slot(bucket, slot, scratch) {
                Ok(None) => continue,
                Ok(Some(scanned)) => scanned,
                // Also one that changes under its only writer.
                Err(_) => {
                    let word = view
                        .bucket(bucket)
                        .map_or(0, |words| words[slot + 1].load());
                    survey.strays.push(Place { bucket, slot, word });
                    continue;
                }
            };
            let place = Place {
                bucket,
                slot,
                word: scanned.word,
            };
            let Some((key, value)) = scanned.split(scratch) else {
                continue; // it was split before
            };
            let hash = view.hashes.key(key);
            let is_of_partition = partition_of(hash) == partition;
            let is_stray = !view.is_in_place(hash, place, scanned.head)
                || !owns(place)
                || !seen.insert(hash)
                || is_of_partition && Key::from_bytes(key).is_err();
            if is_stray {
                survey.strays.push(place);
            } else if is_of_partition {
                let record = view.hashes.account(key, scanned.head.level, value);
                let is_true = record.check_word() == scanned.head.check;
                // One that rotted gives its place to another, or goes, but has never come to anything.
                let record = if is_true { record } else { Account::default() };
                survey.account = survey.account.plus(record);
                survey.records.insert(key.to_vec(), (place, record));
            }
        }
        survey
    }
}

impl<M: Memory> Writer<M> {
    /// Makes a partition what the master says it holds at this table's level: all its records, each as a
    /// put at the master's level.
    ///
    /// Only what differs is written, in journalled batches that leave level and epoch as they are. The
    /// partition's stored sum is then that of what is in memory, and the root follows; so a stored sum
    /// that was wrong is mended too, and memory that rotted is replaced. A record that is right is never
    /// touched; look-ups go on, and a death at any store of it leaves a table that opens.
    ///
    /// # Errors
    /// [`RepairError`]; batches before the one that failed are applied.
    pub fn repair(&mut self, partition: u16, content: &[Change]) -> Result<Repaired, RepairError> {
        if self.loading {
            return Err(RepairError::Loading);
        }
        self.check_content(partition, content)?;
        for change in content {
            prefix::note(self.memory.words(), change.key.as_bytes());
        }
        let mut survey = Survey::of(self, partition);
        let changes = self.changes_from(&survey, content);
        let mut repaired = Repaired {
            differed: differed(&changes),
            batches: 0,
        };
        let mut rest = changes.as_slice();
        let mut is_right = rest.is_empty()
            && survey.strays.is_empty()
            && account(self.accounts(), partition.into()) == survey.account;
        while !is_right {
            let (batch, behind) = rest.split_at(batch_len(rest));
            self.repair_batch(partition, &mut survey, batch)?;
            rest = behind;
            is_right = rest.is_empty();
            repaired.batches += 1;
        }
        self.check_repaired(partition, content)?;
        Ok(repaired)
    }

    /// Returns in how many records a partition differs from what the master says it holds.
    ///
    /// # Errors
    /// [`RepairError`], as [`Self::repair`] before it begins.
    pub fn differences(&self, partition: u16, content: &[Change]) -> Result<u64, RepairError> {
        Ok(differed(&self.changes_to(partition, content)?))
    }

    /// Returns the changes by which a partition becomes `content`.
    pub(crate) fn changes_to(
        &self,
        partition: u16,
        content: &[Change],
    ) -> Result<Vec<Change>, RepairError> {
        self.check_content(partition, content)?;
        Ok(self.changes_from(&Survey::of(self, partition), content))
    }

    /// Checks that `content` can be that of the partition.
    fn check_content(&self, partition: u16, content: &[Change]) -> Result<(), RepairError> {
        let mut keys = HashSet::with_capacity(content.len());
        for change in content {
            let refuse = |what| {
                let key = change.key.clone();
                Err(RepairError::Content { key, what })
            };
            let ChangeOp::Put(value) = &change.op else {
                return refuse("is a deletion");
            };
            if value.len() > VALUE_BYTES_MAX {
                return refuse("has a value above the limit");
            }
            if self.partition_of(change.key.as_bytes()) != partition {
                return refuse("belongs to another partition");
            }
            if !self.loading && change.level > self.mark.position.level {
                return refuse("is newer than the table");
            }
            if !keys.insert(&change.key) {
                return refuse("comes twice");
            }
        }
        Ok(())
    }

    /// Returns what a record comes to that a put makes.
    fn record_of(&self, change: &Change) -> Account {
        let value = match &change.op {
            ChangeOp::Put(value) => value.as_slice(),
            ChangeOp::Delete => &[],
        };
        let hashes = &self.layout.hashes;
        hashes.account(change.key.as_bytes(), change.level, value)
    }

    /// Returns the changes from what was surveyed to `content`, deletions last.
    fn changes_from(&self, survey: &Survey, content: &[Change]) -> Vec<Change> {
        let level = self.mark.position.level;
        let mut extra: HashSet<&[u8]> = survey.records.keys().map(Vec::as_slice).collect();
        let mut changes = Vec::new();
        for change in content {
            let key = change.key.as_bytes();
            extra.remove(key);
            let have = survey.records.get(key).map(|(_, account)| *account);
            if have != Some(self.record_of(change)) {
                changes.push(change.clone());
            }
        }
        changes.extend(extra.into_iter().filter_map(|key| {
            let key = Key::from_bytes(key).ok()?; // surveyed as one
            let op = ChangeOp::Delete;
            Some(Change { key, level, op })
        }));
        changes
    }

    /// Works out a batch of a repair from what was surveyed, not by look-ups: they meet the rot.
    pub(crate) fn plan_from(
        &self,
        survey: &Survey,
        changes: &[Change],
    ) -> Result<Vec<Step>, PrepareError> {
        let view = View::new(&self.memory, &self.layout);
        let mut planner = Planner::of_batch(view, &mut [], self.mark.records, Rot::Refuse);
        let steps: Vec<Step> = changes
            .iter()
            .map(|change| {
                let key = change.key.as_bytes();
                let have = survey.records.get(key).copied();
                planner.step_from(change, view.hashes.key(key), have)
            })
            .collect::<Result<_, _>>()?;
        check_arena(&self.arena, &steps)?;
        Ok(steps)
    }

    /// Applies one batch of a repair and brings the survey up to it.
    fn repair_batch(
        &mut self,
        partition: u16,
        survey: &mut Survey,
        changes: &[Change],
    ) -> Result<(), RepairError> {
        let steps = self.plan_from(survey, changes)?;
        let repaired = steps.iter().fold(survey.account, |account, step| {
            account.plus(step.come).minus(step.gone)
        });
        // What all partitions come to, not what the mark said: the stored account itself may have rotted.
        let stored = account(self.accounts(), partition.into());
        let table = total(self.accounts()).minus(stored).plus(repaired);
        let sequence = self.begin(changes, Some(partition), self.mark.with(table));
        set_account(self.accounts(), partition.into(), survey.account);
        self.execute_all(changes, &steps);
        self.purge(&survey.strays);
        self.done(sequence);
        survey.strays.clear();
        survey.account = repaired;
        Ok(())
    }

    /// Empties slots; what they name stays out of use until the table is opened anew.
    pub(crate) fn purge(&mut self, strays: &[Place]) {
        let view = View::new(&self.memory, &self.layout);
        for stray in strays {
            if let Some(bucket) = view.bucket(stray.bucket) {
                publish::publish(bucket, stray.slot, 0);
            }
        }
    }

    /// Checks that the repair held: memory that does not keep what is written cannot be repaired.
    fn check_repaired(&self, partition: u16, content: &[Change]) -> Result<(), RepairError> {
        let survey = Survey::of(self, partition);
        let expected = content.iter().fold(Account::default(), |account, change| {
            account.plus(self.record_of(change))
        });
        if survey.strays.is_empty()
            && survey.account == expected
            && account(self.accounts(), partition.into()) == expected
        {
            Ok(())
        } else {
            Err(RepairError::Rotten { partition })
        }
    }
}

fn differed(changes: &[Change]) -> u64 {
    u64::try_from(changes.len()).unwrap_or(u64::MAX)
}

/// Returns how many of the changes, one at least, fit one batch.
fn batch_len(changes: &[Change]) -> usize {
    let mut bytes = 0;
    changes
        .iter()
        .take(FRAME_CHANGES_MAX)
        .take_while(|change| {
            bytes += change_words(change) * 8;
            bytes <= JOURNAL_BYTES
        })
        .count()
}
