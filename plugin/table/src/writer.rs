//! The side of a table that changes it: one at a time, a batch whole or not at all; it decides nothing.
//!
//! The order of its stores stands in the crate's documentation.

use std::cell::Cell;
use std::fmt;

use locus_proto::{Change, ChangeOp, Frame, Position, Root};

use crate::arena::{Arena, RECORD_BYTES_MAX};
use crate::audit::{account, partition_of, set_account};
use crate::header::{self, Mark};
use crate::layout::{
    ACCOUNTS_WORDS, AT_ACCOUNTS, AT_ARENA_WORDS, AT_BUCKETS, AT_FORMAT, AT_KEY, AT_MAGIC, AT_STATE,
    BUCKET_WORDS, FORMAT, Layout, MAGIC,
};
use crate::plan::{
    AT_ONCE, Planner, Prepared, Rot, Step, What, check_arena, check_batch, check_once, head_of,
};
use crate::view::{View, block_of, slot_word};
use crate::{
    ApplyError, Fill, Geometry, Memory, OpenTableError, PrepareError, Reader, TableKey, Word,
    Words, journal, prefix, publish,
};

/// States of a table, in its header.
pub(crate) const STATE_LOADING: u64 = 1;
pub(crate) const STATE_LIVE: u64 = 2;

/// Changes one table; there is at most one for a table at any time (its owner holds a lock on `ctl`).
pub struct Writer<M> {
    pub(crate) memory: M,
    pub(crate) layout: Layout,
    pub(crate) arena: Arena,
    /// Where the table stands.
    pub(crate) mark: Mark,
    /// Number of the last batch.
    pub(crate) sequence: u64,
    /// Where records are read to.
    pub(crate) scratch: Cell<Box<[u8]>>,
    /// It is being loaded: no journal, no position before the end.
    pub(crate) loading: bool,
}

impl<M: Memory> Writer<M> {
    /// Makes an empty table in zeroed memory, to be loaded; readers cannot open it before
    /// [`Self::finish_load`].
    ///
    /// # Errors
    /// [`OpenTableError::Geometry`], or memory smaller than [`Geometry::file_bytes`].
    pub fn create(memory: M, geometry: Geometry, key: TableKey) -> Result<Self, OpenTableError> {
        let layout = Layout::new(geometry, key)?;
        let words = memory.words();
        layout.check(words.len())?;
        let arena_words = layout.arena_words();
        let [k0, k1] = key.to_words();
        for (at, value) in [
            (AT_FORMAT, FORMAT),
            (AT_BUCKETS, geometry.buckets),
            (AT_ARENA_WORDS, u64::try_from(arena_words).unwrap_or(0)),
            (AT_KEY, k0),
            (AT_KEY + 1, k1),
            (AT_STATE, STATE_LOADING),
        ] {
            words[at].store(value);
        }
        words[AT_MAGIC].store_release(MAGIC);
        Ok(Self {
            memory,
            layout,
            arena: Arena::new(arena_words),
            mark: Mark::default(),
            sequence: 0,
            scratch: scratch(),
            loading: true,
        })
    }

    /// Works out whether a batch fits and to which content it leads; writes nothing.
    ///
    /// Each key at most once. Memory is counted as if no record gave its place up before the end.
    ///
    /// # Errors
    /// [`PrepareError`] says what to do about it.
    pub fn prepare(&self, changes: &[Change]) -> Result<Prepared, PrepareError> {
        self.prepare_past(changes, Rot::Refuse)
    }

    fn prepare_past(&self, changes: &[Change], rot: Rot) -> Result<Prepared, PrepareError> {
        check_batch(changes)?;
        // Taken out for the moment; nothing in between takes it too.
        let mut scratch = self.scratch.take();
        let view = View::new(&self.memory, &self.layout);
        let mut planner = Planner::of_batch(view, &mut scratch, self.mark.records, rot);
        let steps = self.plan_all(&mut planner, changes);
        self.scratch.set(scratch);
        let steps = steps?;
        check_once(changes, &steps)?;
        check_arena(&self.arena, &steps)?;
        let after = steps.iter().fold(self.mark.account(), |account, step| {
            account.plus(step.come).minus(step.gone)
        });
        Ok(Prepared {
            sequence: self.sequence,
            steps,
            after,
        })
    }

    fn plan_all(
        &self,
        planner: &mut Planner<'_, M::Word>,
        changes: &[Change],
    ) -> Result<Vec<Step>, PrepareError> {
        let mut steps = Vec::with_capacity(changes.len());
        for some in changes.chunks(AT_ONCE) {
            for (change, hash) in some.iter().zip(self.hash_all(some)) {
                steps.push(planner.step(change, hash)?);
            }
        }
        Ok(steps)
    }

    /// Returns the hashes of all keys; what planning and applying will read is then at hand.
    ///
    /// One change after the other would wait for its bucket, then its block, then what is free beside it;
    /// so the processor has many of them under way at once.
    pub(crate) fn hash_all(&self, changes: &[Change]) -> Vec<u64> {
        let view = View::new(&self.memory, &self.layout);
        let mut touched = 0;
        let hash = |change: &Change| {
            let hash = view.hashes.key(change.key.as_bytes());
            touched |= view.touch_bucket(hash);
            touched |= account(self.accounts(), partition_of(hash)).records;
            hash
        };
        let hashes: Vec<u64> = changes.iter().map(hash).collect();
        for word in hashes.iter().filter_map(|hash| view.likely_slot(*hash)) {
            let (class, offset) = block_of(word);
            touched |= view.touch_block(word) | u64::from(self.arena.is_used(class, offset));
        }
        std::hint::black_box(touched);
        hashes
    }

    /// Applies a batch that was prepared from these changes; the table then stands at `to`.
    ///
    /// # Panics
    /// If the table has changed since, if `changes` are not those that were prepared, if `to` names
    /// other content, or while the table is being loaded: mistakes of the caller.
    pub fn commit(&mut self, prepared: Prepared, changes: &[Change], to: Position) {
        assert!(
            !self.loading,
            "a table that is being loaded takes no batches"
        );
        assert!(
            prepared.sequence == self.sequence && prepared.steps.len() == changes.len(),
            "a batch is committed to the table for which it was prepared"
        );
        assert_eq!(
            prepared.after.sum, to.root,
            "a batch leads to the content it was prepared for"
        );
        let mark = Mark {
            position: to,
            ..Mark::default()
        };
        let mark = mark.with(prepared.after);
        let sequence = self.begin(changes, None, mark);
        self.execute_all(changes, &prepared.steps);
        self.done(sequence);
    }

    /// Writes the journal of a batch, where the table will stand, and that it has begun.
    pub(crate) fn begin(&mut self, changes: &[Change], repairs: Option<u16>, mark: Mark) -> u64 {
        let sequence = self.sequence.wrapping_add(1);
        self.mark = mark;
        let words = self.memory.words();
        journal::write(words, changes, repairs);
        header::store_mark(words, sequence, mark);
        header::store_begin(words, sequence);
        sequence
    }

    /// Ends the batch: the position switches.
    pub(crate) fn done(&mut self, sequence: u64) {
        header::store_done(self.memory.words(), sequence);
        self.sequence = sequence;
    }

    /// Does all steps of a batch, puts first: one that moves something from one key to another never
    /// hides both.
    pub(crate) fn execute_all(&mut self, changes: &[Change], steps: &[Step]) {
        for deletes in [false, true] {
            for (change, step) in changes.iter().zip(steps) {
                if (change.op == ChangeOp::Delete) == deletes {
                    self.execute(change, step);
                }
            }
        }
    }

    /// Applies a frame whose epoch the caller has approved, and returns the content it led to.
    ///
    /// # Errors
    /// [`ApplyError`] if it begins elsewhere, leads elsewhere or does not fit; nothing was changed then.
    pub fn apply(&mut self, frame: &Frame) -> Result<Root, ApplyError> {
        let (header, have) = (&frame.header, self.mark.position);
        self.check_level(frame)?;
        if header.root_before != have.root {
            return Err(ApplyError::RootBefore {
                level: have.level,
                have: have.root,
                got: header.root_before,
            });
        }
        let prepared = self.prepare(&frame.changes)?;
        if prepared.after.sum != header.root_after {
            return Err(ApplyError::RootAfter {
                have: prepared.after.sum,
                got: header.root_after,
            });
        }
        self.commit(prepared, &frame.changes, header.after());
        Ok(header.root_after)
    }

    /// Applies a frame as [`Self::apply`] does, whatever content it says, and returns where the table
    /// stands then: at the frame's level, with the content that its own sums say.
    ///
    /// For a table that is known to differ from the master's until an audit has mended it.
    ///
    /// # Errors
    /// [`ApplyError`] if it begins at another level or does not fit; nothing was changed then.
    pub fn follow(&mut self, frame: &Frame) -> Result<Position, ApplyError> {
        self.check_level(frame)?;
        let prepared = self.prepare_past(&frame.changes, Rot::LookPast)?;
        let to = Position {
            root: prepared.after.sum,
            ..frame.header.after()
        };
        self.commit(prepared, &frame.changes, to);
        Ok(to)
    }

    /// Checks that a frame begins where the table stands.
    fn check_level(&self, frame: &Frame) -> Result<(), ApplyError> {
        if self.loading {
            return Err(ApplyError::Loading);
        }
        let (have, got) = (self.mark.position.level, frame.header.from);
        if got == have {
            Ok(())
        } else {
            Err(ApplyError::LevelGap { have, got })
        }
    }

    /// Works out one change of a key with this hash, to be done before the next is planned.
    pub(crate) fn plan_one(&mut self, change: &Change, hash: u64) -> Result<Step, PrepareError> {
        let view = View::new(&self.memory, &self.layout);
        let scratch = self.scratch.get_mut();
        let step = Planner::of_one(view, scratch, self.mark.records).step(change, hash)?;
        check_arena(&self.arena, std::slice::from_ref(&step))?;
        Ok(step)
    }

    /// Does one step that was planned for the state the table is in.
    pub(crate) fn execute(&mut self, change: &Change, step: &Step) {
        let view = View::new(&self.memory, &self.layout);
        let old = match step.what {
            What::Nothing => return,
            What::Insert {
                place,
                distance,
                class,
            } => {
                prefix::note(self.memory.words(), change.key.as_bytes());
                let word = write(&view, &mut self.arena, change, step, class);
                publish::raise_reach(bucket(&view, view.home(step.hash)), distance);
                publish::publish(bucket(&view, place.bucket), place.slot, word);
                None
            }
            What::Replace { place, class } => {
                let word = write(&view, &mut self.arena, change, step, class);
                publish::publish(bucket(&view, place.bucket), place.slot, word);
                Some(place)
            }
            What::Remove { place } => {
                publish::publish(bucket(&view, place.bucket), place.slot, 0);
                Some(place)
            }
        };
        if let Some(old) = old {
            let (class, offset) = block_of(old.word);
            self.arena.release(class, offset);
        }
        let partition = partition_of(step.hash);
        let accounts = self.accounts();
        let now = account(accounts, partition)
            .plus(step.come)
            .minus(step.gone);
        set_account(accounts, partition, now);
    }

    /// Returns where the table stands.
    pub fn position(&self) -> Position {
        self.mark.position
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.mark.records
    }

    /// Returns the bytes of all keys and values.
    pub fn payload_bytes(&self) -> u64 {
        self.mark.bytes
    }

    /// Returns how full it is.
    pub fn fill(&self) -> Fill {
        Fill {
            records: self.mark.records,
            slots: self.layout.slots(),
            free_slabs: self.arena.free_slabs(),
            slabs: self.arena.slabs(),
        }
    }

    /// Returns the partition of a key.
    pub fn partition_of(&self, key: &[u8]) -> u16 {
        self.reader().partition_of(key)
    }

    /// Returns a reader of the same table, also while it is being loaded.
    pub fn reader(&self) -> Reader<Words<'_, M::Word>> {
        Reader {
            memory: Words(self.memory.words()),
            layout: self.layout,
        }
    }

    /// Returns the key with which it was created.
    pub fn key(&self) -> TableKey {
        let words = &self.memory.words()[AT_KEY..AT_KEY + 2];
        let mut key = [0; 16];
        for (bytes, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.load().to_le_bytes();
        }
        TableKey(key)
    }

    /// Returns the memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn accounts(&self) -> &[M::Word] {
        &self.memory.words()[AT_ACCOUNTS..AT_ACCOUNTS + ACCOUNTS_WORDS]
    }
}

/// Writes the record that a put makes into a block of the class, and returns the slot that names it.
fn write<W: Word>(
    view: &View<'_, W>,
    arena: &mut Arena,
    change: &Change,
    step: &Step,
    class: u8,
) -> u64 {
    let value = match &change.op {
        ChangeOp::Put(value) => value.as_slice(),
        ChangeOp::Delete => &[],
    };
    let word = arena
        .allocate(class)
        .map(|offset| slot_word(step.hash, class, offset))
        .expect("the batch was checked to fit");
    let block = view.block(word).expect("the arena allocates within itself");
    let head = head_of(change, value, step.come.check_word());
    publish::write_record(block, head, change.key.as_bytes(), value);
    word
}

fn bucket<'a, W: Word>(view: &View<'a, W>, at: u64) -> &'a [W; BUCKET_WORDS] {
    view.bucket(at).expect("steps are planned within the index")
}

/// Returns room to read records to.
pub(crate) fn scratch() -> Cell<Box<[u8]>> {
    Cell::new(vec![0; RECORD_BYTES_MAX].into_boxed_slice())
}

impl<M> fmt::Debug for Writer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("mark", &self.mark)
            .field("sequence", &self.sequence)
            .field("loading", &self.loading)
            .finish_non_exhaustive()
    }
}
