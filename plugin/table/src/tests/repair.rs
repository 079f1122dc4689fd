//! Repair of a partition: clean differences, wrong sums and every way in which memory can rot.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use locus_proto::{Change, ChangeOp, Digits, Key, Level, Root};

use super::support::{
    EPOCH, Model, SMALL, TABLE_KEY, aor_key, check, commit, delete, live, live_in, put,
};
use crate::arena::class_words;
use crate::layout::{ACCOUNT_WORDS, AT_ACCOUNTS, BUCKET_WORDS};
use crate::view::{Probe, block_of};
use crate::{
    Geometry, HeapMemory, Lookup, Memory, PrepareError, RecordBuffer, RepairError, Repaired,
    Scrubbed, Word, Writer,
};

/// Numbers whose keys all lie in one partition under [`TABLE_KEY`]; found by trying a million.
pub(super) const SAME: [u64; 20] = [
    35_628, 84_728, 110_400, 128_920, 147_713, 153_785, 169_866, 197_233, 229_656, 244_303,
    294_755, 312_547, 317_390, 327_556, 333_328, 343_498, 347_047, 409_173, 410_010, 418_657,
];
pub(super) const PARTITION: u16 = 54_245;

/// Keys in other partitions, in the same few buckets.
const OTHERS: u64 = 24;

pub(super) fn same(number: usize) -> Key {
    aor_key(SAME[number])
}

/// Returns a model with the first `count` keys of the partition, and others.
pub(super) fn model_with(count: usize) -> Model {
    let mut model = Model::default();
    let others = (0..OTHERS).map(aor_key);
    let keys = (0..count).map(same).chain(others);
    let changes: Vec<Change> = keys
        .zip(1..)
        .map(|(key, level)| put(key, level, 40 + usize::try_from(level % 30).unwrap()))
        .collect();
    model.apply(&changes);
    model
}

/// Returns the records of a model as puts.
fn records(model: &Model) -> Vec<Change> {
    let put = |(key, (level, value)): (&Key, &(Level, Vec<u8>))| Change {
        key: key.clone(),
        level: *level,
        op: ChangeOp::Put(value.clone()),
    };
    model.records.iter().map(put).collect()
}

/// Returns the records of a partition of a model, as the master sends them.
pub(super) fn content<M: Memory>(writer: &Writer<M>, model: &Model, partition: u16) -> Vec<Change> {
    let mut content = records(model);
    content.retain(|change| writer.partition_of(change.key.as_bytes()) == partition);
    content
}

/// Fills an empty live table with the records of a model.
pub(super) fn fill<M: Memory>(writer: &mut Writer<M>, model: &Model) {
    let changes = records(model);
    let prepared = writer.prepare(&changes).unwrap();
    writer.commit(prepared, &changes, model.position());
}

/// Repairs the partition to what the model says and checks the whole table.
fn repair_and_check<M: Memory>(writer: &mut Writer<M>, model: &Model) -> Repaired {
    let content = content(writer, model, PARTITION);
    let counted = writer.differences(PARTITION, &content).unwrap();
    let repaired = writer.repair(PARTITION, &content).unwrap();
    assert_eq!(counted, repaired.differed);
    assert_eq!(writer.differences(PARTITION, &content), Ok(0));
    let again = writer.repair(PARTITION, &content).unwrap();
    assert_eq!(again, Repaired::default(), "what is right is not touched");
    check(writer, model, &SAME.map(aor_key)).unwrap();
    repaired
}

#[test]
fn only_what_differs_is_written() {
    let (mut writer, model) = (live(SMALL), model_with(6));
    // A record that is older here, one that is missing, and one that the master has not.
    let mut ours = model.clone();
    ours.records.insert(same(0), (Level(1), vec![7; 20]));
    ours.records.remove(&same(1));
    ours.apply(&[put(same(9), 5, 30)]);
    fill(&mut writer, &ours);
    let slots = |writer: &Writer<HeapMemory>| -> Vec<Option<usize>> {
        (2..6).map(|n| slot_at(writer, &same(n))).collect()
    };
    let untouched = slots(&writer);
    let repaired = repair_and_check(&mut writer, &model);
    assert_eq!((repaired.differed, repaired.batches), (3, 1));
    assert_eq!(slots(&writer), untouched);
    assert_eq!(writer.position().epoch, EPOCH);
    let (reopened, recovered) = Writer::open(writer.memory().clone()).unwrap();
    assert!(!recovered.redone);
    check(&reopened, &model, &[]).unwrap();
}

/// Returns the word of the slot that names the record of a key.
fn slot_at<M: Memory>(writer: &Writer<M>, key: &Key) -> Option<usize> {
    let mut buffer = RecordBuffer::new();
    match writer.reader().probe(key.as_bytes(), buffer.bytes()) {
        Probe::Found(_, place) => {
            let bucket = usize::try_from(place.bucket).unwrap();
            Some(writer.layout.index.0 + bucket * BUCKET_WORDS + 1 + place.slot)
        }
        Probe::Absent | Probe::Unavailable(_) => None,
    }
}

/// A table to be spoilt.
pub(super) struct Spoilt<'a, W> {
    words: &'a [W],
    /// The arena's first word.
    arena: usize,
    /// The words of the slots of the partition's records.
    pub(super) slots: Vec<usize>,
    /// Slots of other records.
    others: Vec<usize>,
    /// The first word of the bucket in which the partition is at home.
    home: usize,
}

impl<'a, W: Word> Spoilt<'a, W> {
    pub(super) fn of<M: Memory<Word = W>>(writer: &'a Writer<M>, model: &Model) -> Self {
        let at = |key: &Key| slot_at(writer, key).unwrap();
        let keys = model.records.keys();
        let (ours, others): (Vec<&Key>, Vec<&Key>) =
            keys.partition(|key| writer.partition_of(key.as_bytes()) == PARTITION);
        let view = writer.reader();
        let home = view.view().home(u64::from(PARTITION) << 48);
        Self {
            words: writer.memory().words(),
            arena: writer.layout.arena.0,
            slots: ours.into_iter().map(at).collect(),
            others: others.into_iter().map(at).collect(),
            home: writer.layout.index.0 + usize::try_from(home).unwrap() * BUCKET_WORDS,
        }
    }

    pub(super) fn set(&self, at: usize, change: impl Fn(u64) -> u64) {
        self.words[at].store(change(self.words[at].load()));
    }

    /// Changes a word of the block that a slot names.
    pub(super) fn block(&self, slot: usize, word: usize, change: impl Fn(u64) -> u64) {
        let (class, offset) = block_of(self.words[slot].load());
        assert!(word < class_words(class));
        let start = self.arena + usize::try_from(offset).unwrap() * 2;
        self.set(start + word, change);
    }
}

pub(super) type Spoil<W> = (&'static str, fn(&Spoilt<'_, W>));

/// Each way in which memory of the partition's own records can rot.
pub(super) fn ways<W: Word>() -> Vec<Spoil<W>> {
    vec![
        ("a value", |at| {
            at.block(at.slots[0], 6, |word| word ^ 1 << 40)
        }),
        ("a level", |at| at.block(at.slots[0], 1, |word| word + 1)),
        ("a check word", |at| {
            at.block(at.slots[0], 0, |word| word | 1 << 33)
        }),
        ("a value's length", |at| {
            at.block(at.slots[0], 0, |word| word - (1 << 16));
        }),
        ("a value's length, beyond its block", |at| {
            at.block(at.slots[0], 0, |word| word | 0x7000 << 16);
        }),
        ("a key", |at| {
            at.block(at.slots[0], 2, |word| word ^ 1 << 20)
        }),
        ("what fills up a key's last word", |at| {
            at.block(at.slots[0], 4, |word| word ^ 1 << 60);
        }),
        ("a key's kind", |at| {
            at.block(at.slots[0], 2, |word| word ^ 1)
        }),
        ("a key's length", |at| {
            at.block(at.slots[0], 0, |word| word ^ 2)
        }),
        ("a key's length, beyond its block", |at| {
            at.block(at.slots[0], 0, |word| word | 0xf000);
        }),
        ("a slot, to zero", |at| at.set(at.slots[0], |_| 0)),
        ("a slot's tag", |at| {
            at.set(at.slots[0], |word| word ^ 1 << 50)
        }),
        ("a slot's class, to none", |at| {
            at.set(at.slots[0], |word| word | 0xff << 40);
        }),
        ("a slot's class, to a larger one", |at| {
            at.set(at.slots[0], |word| word + (1 << 40));
        }),
        ("a slot's offset, beyond the arena", |at| {
            at.set(at.slots[0], |word| word | 0xff_ffff_0000);
        }),
        ("a slot's offset, into a block", |at| {
            at.set(at.slots[0], |word| word + 1)
        }),
        ("a slot, to another's block", |at| {
            let other = at.words[at.others[0]].load();
            at.set(at.slots[0], |word| {
                word & (0xffff << 48) | other & ((1 << 48) - 1)
            });
        }),
        ("a slot, to another's block with its tag", |at| {
            let other = at.words[at.others[0]].load();
            at.set(at.slots[0], |_| other);
        }),
        ("a slot, to the block of another of the partition", |at| {
            let other = at.words[at.slots[1]].load();
            at.set(at.slots[0], |_| other);
        }),
        ("everything at once", |at| {
            at.block(at.slots[0], 6, |word| !word);
            at.block(at.slots[1], 2, |word| !word);
            at.set(at.slots[2], |_| 0);
            at.set(at.slots[3], |word| word | 0xff << 40);
            at.set(at.slots[4], |_| u64::MAX);
        }),
    ]
}

/// How the partition's stored account is spoilt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Not at all.
    True,
    /// In memory.
    Rotten,
    /// The writer believes it: the root is that of the wrong ones.
    Wrong,
}

pub(super) fn spoil_account<M: Memory>(writer: &mut Writer<M>, stored: Stored) {
    if stored == Stored::True {
        return;
    }
    let at = AT_ACCOUNTS + usize::from(PARTITION) * ACCOUNT_WORDS;
    for word in &writer.memory().words()[at..at + ACCOUNT_WORDS] {
        word.store(word.load() ^ 0x55 << 7);
    }
    if stored == Stored::Wrong {
        let total = crate::audit::total(writer.accounts());
        writer.mark = writer.mark.with(total);
    }
}

/// Returns the keys of the partition in the order in which [`Spoilt`] has their slots.
pub(super) fn before_keys(model: &Model) -> Vec<Key> {
    let ours: Vec<Key> = SAME.map(aor_key).to_vec();
    let keys = model.records.keys();
    keys.filter(|key| ours.contains(key)).cloned().collect()
}

#[test]
fn rot_of_every_kind_is_mended() {
    for (what, spoil) in ways::<AtomicU64>() {
        for account in [Stored::True, Stored::Rotten, Stored::Wrong] {
            let (mut writer, model) = (live(SMALL), model_with(8));
            fill(&mut writer, &model);
            let at = Spoilt::of(&writer, &model);
            spoil(&at);
            let mut buffer = RecordBuffer::new();
            let scrubbed = writer
                .reader()
                .scrub_consistent(PARTITION.into(), &mut buffer);
            assert!(
                matches!(scrubbed, Scrubbed::Differs { .. } | Scrubbed::Unreadable(_)),
                "{what}: {scrubbed:?}"
            );
            spoil_account(&mut writer, account);
            let repaired = repair_and_check(&mut writer, &model);
            let differed = if what == "everything at once" { 5 } else { 1 };
            assert_eq!(
                (repaired.differed, repaired.batches),
                (differed, 1),
                "{what}"
            );
            let (mut reopened, _) = Writer::open(writer.memory().clone()).unwrap();
            let mut after = model.clone();
            commit(
                &mut reopened,
                &mut after,
                &[put(same(0), 90, 300), delete(same(1), 91)],
            );
            check(&reopened, &after, &[]).unwrap();
        }
    }
}

#[test]
fn a_wrong_sum_alone_is_mended() {
    for stored in [Stored::Rotten, Stored::Wrong] {
        let (mut writer, model) = (live(SMALL), model_with(3));
        fill(&mut writer, &model);
        spoil_account(&mut writer, stored);
        let repaired = repair_and_check(&mut writer, &model);
        assert_eq!((repaired.differed, repaired.batches), (0, 1));
    }
}

/// A slot that rotted back to an older block of its own record is as good as its content, until the block
/// is given to another: it must be replaced although it reads well.
#[test]
fn a_block_that_is_not_in_use_is_no_record() {
    let (mut writer, mut model) = (live(SMALL), model_with(3));
    fill(&mut writer, &model);
    let slot = slot_at(&writer, &same(0)).unwrap();
    let old = writer.memory().as_ref()[slot].load(std::sync::atomic::Ordering::Relaxed);
    let before = model.records[&same(0)].clone();
    commit(&mut writer, &mut model, &[put(same(0), 60, 41)]);
    // The master took it back to the old record, and so did the rot.
    Word::store(&writer.memory().as_ref()[slot], old);
    model.records.insert(same(0), before);
    repair_and_check(&mut writer, &model);
    let batch: Vec<_> = (100..140).map(|n| put(aor_key(n), n, 41)).collect();
    commit(&mut writer, &mut model, &batch);
    check(&writer, &model, &[]).unwrap();
}

/// A bucket that rotted hides every key that lies behind it, of whatever partition: each is mended by the
/// repair of its own.
#[test]
fn a_rotten_reach_is_mended_partition_by_partition() {
    let (mut writer, model) = (live(SMALL), model_with(20));
    fill(&mut writer, &model);
    let at = Spoilt::of(&writer, &model);
    at.set(at.home, |word| word & !0xff);
    let partitions: Vec<u16> = model
        .records
        .keys()
        .map(|key| writer.partition_of(key.as_bytes()))
        .collect();
    let mut buffer = RecordBuffer::new();
    let mut differed = 0;
    for partition in partitions {
        let scrubbed = writer
            .reader()
            .scrub_consistent(partition.into(), &mut buffer);
        if scrubbed != Scrubbed::Agrees {
            let content = content(&writer, &model, partition);
            differed += writer.repair(partition, &content).unwrap().differed;
        }
    }
    assert!(differed > 10);
    check(&writer, &model, &[]).unwrap();
}

/// A record that nobody has any more goes, though it rotted.
#[test]
fn a_rotten_record_that_is_extra_goes() {
    let (mut writer, mut model) = (live(SMALL), model_with(4));
    fill(&mut writer, &model);
    let at = Spoilt::of(&writer, &model);
    at.block(at.slots[1], 6, |word| word ^ 1);
    let extra = before_keys(&model).remove(1);
    model.records.remove(&extra);
    let repaired = repair_and_check(&mut writer, &model);
    assert_eq!((repaired.differed, repaired.batches), (1, 1));
    let (reopened, _) = Writer::open(writer.memory().clone()).unwrap();
    check(&reopened, &model, &[]).unwrap();
}

/// A slot that cannot be read speaks against every partition in its bucket; one record was lost.
#[test]
fn a_rotten_record_counts_once() {
    let (mut writer, model) = (live(SMALL), model_with(4));
    fill(&mut writer, &model);
    let at = Spoilt::of(&writer, &model);
    at.set(at.slots[1], |word| word | 0xff << 40);
    let mut buffer = RecordBuffer::new();
    let (mut suspects, mut differed) = (0, 0);
    for key in model.records.keys().rev() {
        let partition = writer.partition_of(key.as_bytes());
        let reader = writer.reader();
        if reader.scrub_consistent(partition.into(), &mut buffer) != Scrubbed::Agrees {
            suspects += 1;
            let content = content(&writer, &model, partition);
            differed += writer.repair(partition, &content).unwrap().differed;
        }
    }
    assert!(suspects > 0);
    assert_eq!(differed, 1);
    check(&writer, &model, &[]).unwrap();
}

/// A number prefix whose length is no longer known to be in use is found again.
#[test]
fn rotten_prefix_lengths_are_mended() {
    let (mut writer, mut model) = (live(SMALL), Model::default());
    let digits = Digits::parse("4930").unwrap();
    let key = Key::route(digits);
    commit(&mut writer, &mut model, &[put(key.clone(), 1, 20)]);
    for word in &writer.memory().as_ref()[crate::layout::AT_LENGTHS..][..1000] {
        Word::store(word, 0);
    }
    let mut buffer = RecordBuffer::new();
    assert_eq!(writer.reader().route(digits, &mut buffer), Lookup::Absent);
    let partition = writer.partition_of(key.as_bytes());
    let scrub = |writer: &Writer<HeapMemory>| {
        let mut buffer = RecordBuffer::new();
        let reader = writer.reader();
        reader.scrub_consistent(partition.into(), &mut buffer) == Scrubbed::Agrees
    };
    assert!(!scrub(&writer));
    writer.repair(partition, &records(&model)).unwrap();
    assert!(scrub(&writer));
    let found = writer
        .reader()
        .route(digits, &mut buffer)
        .eq(&Lookup::Absent);
    assert!(!found);
}

#[test]
fn more_than_a_batch_takes_several() {
    let geometry = Geometry {
        buckets: 40,
        arena_bytes: 4 << 20,
    };
    let (mut writer, mut model) = (live(geometry), model_with(0));
    fill(&mut writer, &model);
    let large: Vec<_> = (0..20).map(|n| put(same(n), 10, 30_000)).collect();
    model.apply(&large);
    let repaired = repair_and_check(&mut writer, &model);
    assert_eq!((repaired.differed, repaired.batches), (20, 2));
}

#[test]
fn content_that_cannot_be_is_refused() {
    let (mut writer, model) = (live(SMALL), model_with(3));
    fill(&mut writer, &model);
    let good = content(&writer, &model, PARTITION);
    let with = |change: Change| {
        let mut content = good.clone();
        content.push(change);
        content
    };
    for (what, content) in [
        ("is a deletion", with(delete(same(7), 3))),
        ("belongs to another partition", with(put(aor_key(1), 3, 9))),
        ("is newer than the table", with(put(same(7), 1000, 9))),
        ("comes twice", with(put(same(0), 3, 9))),
        (
            "has a value above the limit",
            with(put(same(7), 3, crate::VALUE_BYTES_MAX + 1)),
        ),
    ] {
        for result in [
            writer.repair(PARTITION, &content).map(|_| ()),
            writer.differences(PARTITION, &content).map(|_| ()),
        ] {
            let Err(RepairError::Content { what: found, .. }) = result else {
                panic!("{what}: {result:?}");
            };
            assert_eq!(found, what);
        }
    }
    check(&writer, &model, &[]).unwrap();
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let mut loading = Writer::create(memory, SMALL, TABLE_KEY).unwrap();
    assert_eq!(loading.repair(PARTITION, &[]), Err(RepairError::Loading));
}

/// What does not fit leaves the table as it was; what it holds is true afterwards as before.
#[test]
fn a_repair_that_does_not_fit_is_refused() {
    let (mut writer, mut model) = (live(SMALL), model_with(2));
    fill(&mut writer, &model);
    // A slab takes two of these, and there are 32.
    let large: Vec<_> = (0..50).map(|n| put(aor_key(200 + n), 50, 30_000)).collect();
    for batch in large.chunks(10) {
        commit(&mut writer, &mut model, batch);
    }
    let mut theirs = model.clone();
    let more: Vec<_> = (0..12).map(|n| put(same(n), 50, 30_000)).collect();
    theirs.apply(&more);
    let content = content(&writer, &theirs, PARTITION);
    let refused = writer.repair(PARTITION, &content);
    assert!(
        matches!(
            refused,
            Err(RepairError::Prepare(PrepareError::ArenaFull { .. }))
        ),
        "{refused:?}"
    );
    check(&writer, &model, &[]).unwrap();
}

/// Memory in which one word does not change any more.
#[derive(Debug, Default)]
struct Worn {
    value: Cell<u64>,
    stuck: Cell<bool>,
}

impl Word for Worn {
    fn load(&self) -> u64 {
        self.value.get()
    }

    fn store(&self, value: u64) {
        if !self.stuck.get() {
            self.value.set(value);
        }
    }

    fn store_release(&self, value: u64) {
        self.store(value);
    }

    fn fence_acquire() {}

    fn fence_release() {}
}

#[test]
fn memory_that_keeps_nothing_is_reported() {
    let words = usize::try_from(SMALL.file_bytes() / 8).unwrap();
    let memory: Vec<Worn> = (0..words).map(|_| Worn::default()).collect();
    let (mut writer, model) = (live_in(crate::Words(&memory), SMALL), model_with(3));
    fill(&mut writer, &model);
    let at = Spoilt::of(&writer, &model);
    let slot = at.slots[0];
    at.set(slot, |word| word | 0xff << 40);
    memory[slot].stuck.set(true);
    let content = content(&writer, &model, PARTITION);
    let partition = PARTITION;
    assert_eq!(
        writer.repair(PARTITION, &content),
        Err(RepairError::Rotten { partition })
    );
    memory[slot].stuck.set(false);
    repair_and_check(&mut writer, &model);
    // A stored sum that stays wrong.
    let account = AT_ACCOUNTS + usize::from(PARTITION) * ACCOUNT_WORDS;
    memory[account].store(1);
    memory[account].stuck.set(true);
    assert_eq!(
        writer.repair(PARTITION, &content),
        Err(RepairError::Rotten { partition })
    );
}

/// What a frame leads to is not compared, and what cannot be read is passed by; the audit comes later.
#[test]
fn a_doubted_table_follows() {
    use locus_proto::{Frame, FrameHeader, FrameKind, MasterTime};
    let (mut writer, mut model) = (live(SMALL), model_with(8));
    fill(&mut writer, &model);
    let at = Spoilt::of(&writer, &model);
    let keys = before_keys(&model);
    at.set(at.slots[0], |word| word | 0xff << 40); // unreadable, with its tag
    at.block(at.slots[1], 6, |word| !word);
    let changes = vec![
        put(keys[0].clone(), 101, 50),
        put(keys[1].clone(), 102, 50),
        delete(keys[2].clone(), 103),
    ];
    let before = model.position();
    model.apply(&changes);
    let frame = Frame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: EPOCH,
            from: before.level,
            to: Level(103),
            root_before: before.root,
            root_after: model.root(),
            time: MasterTime(1),
        },
        changes,
    };
    // Neither what cannot be read nor what is not what was written is taken for the record that goes.
    for (at, change) in frame.changes.iter().enumerate() {
        let prepared = writer.prepare(std::slice::from_ref(change));
        let is_rotten = matches!(prepared, Err(PrepareError::Corrupt(_)));
        assert_eq!(is_rotten, at < 2, "{change:?}");
    }
    assert!(matches!(
        writer.apply(&frame),
        Err(crate::ApplyError::Prepare(PrepareError::Corrupt(_)))
    ));
    let mut elsewhere = frame.clone();
    elsewhere.header.from = Level(1);
    assert!(matches!(
        writer.follow(&elsewhere),
        Err(crate::ApplyError::LevelGap { .. })
    ));
    let position = writer.follow(&frame).unwrap();
    assert_eq!((position.epoch, position.level), (EPOCH, Level(103)));
    assert_ne!(position.root, model.root());
    assert_ne!(position.root, Root::EMPTY);
    assert_eq!(writer.position(), position);
    repair_and_check(&mut writer, &model);
    assert_eq!(writer.position(), model.position());
}
