//! The table's own reader and writer under a model checker: every order that the memory model of the
//! language allows, up to a bound of preemptions.
//!
//! Each story has one writer, one reader and few words in common. It is told first with the table as it
//! is: no order breaks a promise. Then one thing at a time is taken away from the protocol, and the
//! checker must find an order that breaks the promise: a check that cannot fail would prove nothing.
//! With optimisation (`make proofs`) more preemptions are tried than without.

mod modelled;

use std::ops::Range;
use std::sync::LazyLock;

use locus_proto::{Change, ChangeOp, Digits, Key, Level, Position};
use loom::thread;

use super::support::{Model, TABLE_KEY, aor_key, commit, delete, put, value_of};
use crate::arena::{class_for, class_words};
use crate::layout::{AT_BEGIN, AT_DONE, AT_INDEX, AT_LENGTHS, AT_MARKS, BUCKET_WORDS, Layout};
use crate::plan::head_of;
use crate::{Lookup, Reader, RecordBuffer, ScanCursor, Writer};
use modelled::{Broken, Modelled, Role, TINY, broken_promise, in_all_orders};

const VALUE_LEN: usize = 8;

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Layout::new(TINY, TABLE_KEY).unwrap());

/// Returns the first address-of-record at home in a bucket, from number `from` on.
fn key_in(bucket: u64, from: u64) -> Key {
    (from..)
        .map(aor_key)
        .find(|key| home(key) == bucket)
        .unwrap()
}

fn home(key: &Key) -> u64 {
    Layout::home(LAYOUT.buckets, LAYOUT.hashes.key(key.as_bytes()))
}

fn route_key(digits: &str) -> Key {
    Key::route(Digits::parse(digits).unwrap())
}

/// A live table that holds these records, and its model.
fn table(records: &[Change]) -> (Writer<Modelled>, Model) {
    let mut writer = Writer::create(Modelled, TINY, TABLE_KEY).unwrap();
    let mut model = Model::default();
    writer.load(records).unwrap();
    model.apply(records);
    writer.finish_load(model.position()).unwrap();
    (writer, model)
}

/// The words of a bucket: its version and its first slots.
fn bucket(at: u64, slots: usize) -> Range<usize> {
    let first = AT_INDEX + usize::try_from(at).unwrap() * BUCKET_WORDS;
    first..first + 1 + slots
}

/// Words of the first blocks of a key's size class: so many from the level on (the key stands behind it),
/// and the value.
fn blocks(key: &Key, blocks: usize, words: usize) -> impl Iterator<Item = Range<usize>> {
    let change = put(key.clone(), 1, VALUE_LEN);
    let ChangeOp::Put(value) = &change.op else {
        unreachable!("a put")
    };
    let class = class_for(head_of(&change, value, 0).record_words()).unwrap();
    let value = 2 + key.as_bytes().len().div_ceil(8);
    (0..blocks).flat_map(move |block| {
        let start = LAYOUT.arena.0 + block * class_words(class);
        [
            start + 1..start + 1 + words,
            start + value..start + value + 1,
        ]
    })
}

/// Returns the level of a record that is whole.
fn level_of(key: &Key, level: Level, value: &[u8]) -> u64 {
    if value != value_of(key, level, value.len()) {
        broken_promise("torn");
    }
    level.0
}

fn lookup(reader: &Reader<Modelled>, key: &Key) -> Option<u64> {
    match reader.lookup(key.as_bytes(), &mut RecordBuffer::new()) {
        Lookup::Found(record) => Some(level_of(key, record.level, record.value)),
        Lookup::Absent => None,
        Lookup::Unavailable(_) => broken_promise("unavailable"),
    }
}

/// How the reader finds the record.
#[derive(Debug, Clone, Copy)]
enum By {
    Lookup,
    Scan,
}

fn read(by: By, reader: &Reader<Modelled>, key: &Key) -> Option<u64> {
    match by {
        By::Lookup => lookup(reader, key),
        By::Scan => {
            let mut out = Vec::new();
            let mut buffer = RecordBuffer::new();
            let scanned = reader.scan(ScanCursor::START, usize::MAX, &mut buffer, &mut out);
            if scanned.is_err() {
                broken_promise("unavailable");
            }
            let found = out.iter().find(|change| change.key == *key)?;
            match &found.op {
                ChangeOp::Put(value) => Some(level_of(key, found.level, value)),
                ChangeOp::Delete => None,
            }
        }
    }
}

/// What the writer does with the block that its first replacement freed.
#[derive(Debug, Clone, Copy)]
enum ReUse {
    /// A record of another bucket, in the same batch: this bucket does not change any more.
    OtherKey,
    /// The next version of the same key: slot and block are the same again, but for the version.
    SameKey,
    /// Likewise, by the process that comes after one which died between slot and version.
    AfterDeath,
}

/// Enough for each of the broken protocols.
const FEW: usize = 2;

/// Returns how many preemptions are tried where nothing is broken.
fn preemptions(debug: usize, release: usize) -> usize {
    if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}

/// How the reader reads where one thing is broken.
const KINDS: &[By] = if cfg!(debug_assertions) {
    &[By::Lookup]
} else {
    &[By::Lookup, By::Scan]
};

/// A record is replaced, and the block it had is taken at once for the next one.
///
/// Promise: the record is found, and whole.
fn replaced(
    broken: Broken,
    preemptions: usize,
    by: By,
    re_use: ReUse,
) -> Result<u64, &'static str> {
    let key = key_in(0, 1);
    let other = key_in(1, 1);
    // The second block is written once, before any slot names it, and a key stands where it stood.
    let (count, words) = match re_use {
        ReUse::OtherKey => (2, 2),
        ReUse::SameKey => (2, 1),
        ReUse::AfterDeath => (1, 1),
    };
    let mut modelled: Vec<_> = blocks(&key, count, words).collect();
    modelled.push(bucket(0, 1));
    in_all_orders(broken, preemptions, &modelled, move || {
        let (mut writer, mut model) = table(&[put(key.clone(), 1, VALUE_LEN)]);
        let reader = Reader::open(Modelled).unwrap();
        let (first, other) = (key.clone(), other.clone());
        let writing = thread::spawn(move || {
            let mut batch = vec![put(first.clone(), 2, VALUE_LEN)];
            match re_use {
                ReUse::OtherKey => batch.push(put(other, 3, VALUE_LEN)),
                ReUse::SameKey => commit(&mut writer, &mut model, &batch),
                ReUse::AfterDeath => {
                    Modelled.die_before(Role::Version);
                    commit(&mut writer, &mut model, &batch);
                    let (opened, recovered) = Modelled.recover(|| Writer::open(Modelled).unwrap());
                    assert!(recovered.redone);
                    writer = opened;
                }
            }
            let last = match re_use {
                ReUse::OtherKey => batch,
                ReUse::SameKey | ReUse::AfterDeath => vec![put(first, 3, VALUE_LEN)],
            };
            commit(&mut writer, &mut model, &last);
        });
        Modelled.reads();
        if read(by, &reader, &key).is_none() {
            broken_promise("missing");
        }
        writing.join().unwrap();
    })
}

/// Returns the two words of a position that are watched: level and half of the root.
fn seen(position: Position) -> (u64, u64) {
    (position.level.0, position.root.0[0])
}

/// Three batches, each of them with a position of its own.
///
/// Promise: a position is read whole.
fn moved(broken: Broken, preemptions: usize) -> Result<u64, &'static str> {
    let modelled = [
        AT_DONE..AT_DONE + 1,
        AT_MARKS..AT_MARKS + 1,
        AT_MARKS + 4..AT_MARKS + 5,
        AT_MARKS + 8..AT_MARKS + 9,
        AT_MARKS + 12..AT_MARKS + 13,
    ];
    in_all_orders(broken, preemptions, &modelled, move || {
        let key = key_in(0, 1);
        let changes: Vec<Change> = (1..=4)
            .map(|level| put(key.clone(), level, VALUE_LEN))
            .collect();
        let (mut writer, mut model) = table(&changes[..1]);
        let mut positions = vec![model.position()];
        let mut later = model.clone();
        for change in &changes[1..] {
            later.apply(std::slice::from_ref(change));
            positions.push(later.position());
        }
        let reader = Reader::open(Modelled).unwrap();
        let writing = thread::spawn(move || {
            for change in &changes[1..] {
                commit(&mut writer, &mut model, std::slice::from_ref(change));
            }
        });
        Modelled.reads();
        let found = seen(reader.position());
        if !positions.iter().any(|position| seen(*position) == found) {
            broken_promise("torn");
        }
        writing.join().unwrap();
    })
}

/// A batch that changes two keys.
///
/// Promise: what is read consistently is of one batch.
fn changed_together(broken: Broken, preemptions: usize) -> Result<u64, &'static str> {
    let keys = [key_in(0, 1), key_in(1, 1)];
    let modelled = [
        AT_BEGIN..AT_BEGIN + 1,
        AT_DONE..AT_DONE + 1,
        bucket(0, 1),
        bucket(1, 1),
    ];
    in_all_orders(broken, preemptions, &modelled, move || {
        // Of another size, so that no block is used again: each is written before a slot names it.
        let at = |level, len| keys.clone().map(|key| put(key, level, len));
        let (mut writer, mut model) = table(&at(1, VALUE_LEN));
        let reader = Reader::open(Modelled).unwrap();
        let batch = at(2, 5 * VALUE_LEN);
        let writing = thread::spawn(move || commit(&mut writer, &mut model, &batch));
        Modelled.reads();
        let (levels, same) =
            reader.consistent(|reader| keys.each_ref().map(|key| lookup(reader, key)));
        if same && levels[0] != levels[1] {
            broken_promise("mixed");
        }
        writing.join().unwrap();
    })
}

/// A number's only route moves, in one batch, to a longer prefix whose length was not in use before.
///
/// Promise: it is found.
fn rerouted(broken: Broken, preemptions: usize) -> Result<u64, &'static str> {
    let (short, long) = (route_key("4"), route_key("493"));
    let digits = Digits::parse("4930").unwrap();
    let head = AT_LENGTHS + usize::from(digits.head());
    let mut modelled = vec![head..head + 1, bucket(home(&short), 2)];
    if home(&short) != home(&long) {
        modelled.push(bucket(home(&long), 2));
    }
    in_all_orders(broken, preemptions, &modelled, move || {
        let (mut writer, mut model) = table(&[put(short.clone(), 1, VALUE_LEN)]);
        let reader = Reader::open(Modelled).unwrap();
        let batch = [delete(short.clone(), 2), put(long.clone(), 3, VALUE_LEN)];
        let writing = thread::spawn(move || commit(&mut writer, &mut model, &batch));
        Modelled.reads();
        match reader.route(digits, &mut RecordBuffer::new()) {
            Lookup::Found(_) => {}
            Lookup::Absent => broken_promise("missing"),
            Lookup::Unavailable(_) => broken_promise("unavailable"),
        }
        writing.join().unwrap();
    })
}

/// Fewer orders than this are no exploration: reader and writer never met.
const ORDERS_MIN: u64 = 50;

/// Asserts that no order broke the promise, and that there were orders.
fn holds(what: &str, result: Result<u64, &'static str>) {
    println!("{what}: {result:?} orders");
    match result {
        Ok(orders) => assert!(orders >= ORDERS_MIN, "{what}: {orders} orders"),
        Err(broken) => panic!("{what}: {broken}"),
    }
}

#[test]
fn no_order_tears_a_replaced_record() {
    for re_use in [ReUse::OtherKey, ReUse::SameKey] {
        let result = replaced(Broken::Sound, preemptions(2, 4), By::Lookup, re_use);
        holds(&format!("look-up, {re_use:?}"), result);
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "slow without optimisation: `make proofs` runs it"
)]
fn no_order_tears_a_scanned_record() {
    for re_use in [ReUse::OtherKey, ReUse::SameKey] {
        let result = replaced(Broken::Sound, FEW, By::Scan, re_use);
        holds(&format!("scan, {re_use:?}"), result);
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "slow without optimisation: `make proofs` runs it"
)]
fn no_order_tears_a_record_that_a_death_left() {
    let result = replaced(Broken::Sound, FEW, By::Lookup, ReUse::AfterDeath);
    holds("look-up, after a death", result);
}

#[test]
fn no_order_tears_a_position() {
    holds("position", moved(Broken::Sound, preemptions(2, 3)));
}

#[test]
fn no_order_mixes_batches() {
    let result = changed_together(Broken::Sound, preemptions(1, 2));
    holds("two keys", result);
}

#[test]
fn no_order_hides_a_route() {
    holds("route", rerouted(Broken::Sound, preemptions(1, 2)));
}

/// Asserts that a reader takes a torn record for whole.
fn tears(broken: Broken, re_use: ReUse) {
    for by in KINDS {
        assert_eq!(replaced(broken, FEW, *by, re_use), Err("torn"), "{by:?}");
    }
}

#[test]
fn found_without_a_version() {
    tears(Broken::NoVersion, ReUse::SameKey);
}

#[test]
fn found_with_the_version_first() {
    tears(Broken::VersionFirst, ReUse::SameKey);
}

#[test]
fn found_when_only_slots_are_compared() {
    tears(Broken::SlotOnly, ReUse::SameKey);
}

#[test]
fn found_without_the_fence_before_a_block_is_written() {
    tears(Broken::NoReleaseBefore(Role::Block), ReUse::OtherKey);
}

#[test]
fn found_without_the_fence_after_a_block_is_copied() {
    tears(Broken::NoAcquireAfter(Role::Block), ReUse::SameKey);
}

#[test]
fn found_without_the_fence_after_a_slot_is_read() {
    tears(Broken::NoAcquireAfter(Role::Slot), ReUse::SameKey);
}

#[test]
fn found_without_the_fence_after_a_version_is_read() {
    tears(Broken::NoAcquireAfter(Role::Version), ReUse::SameKey);
}

#[test]
fn found_when_a_slot_is_stored_relaxed() {
    tears(Broken::RelaxedStore(Role::Slot), ReUse::SameKey);
}

#[test]
fn found_when_a_version_is_stored_relaxed() {
    tears(Broken::RelaxedStore(Role::Version), ReUse::SameKey);
}

#[test]
fn found_when_recovery_raises_no_version() {
    let result = replaced(Broken::NoBumpInRecovery, FEW, By::Lookup, ReUse::AfterDeath);
    assert_eq!(result, Err("torn"));
}

#[test]
fn found_when_both_marks_are_one() {
    assert_eq!(moved(Broken::OneMark, FEW), Err("torn"));
}

#[test]
fn found_without_the_fences_around_a_mark() {
    assert_eq!(moved(Broken::NoReleaseBefore(Role::Mark), FEW), Err("torn"));
    assert_eq!(moved(Broken::NoAcquireAfter(Role::Done), FEW), Err("torn"));
    assert_eq!(moved(Broken::NoAcquireAfter(Role::Mark), FEW), Err("torn"));
}

#[test]
fn found_when_a_batch_begins_late_or_is_done_early() {
    assert_eq!(changed_together(Broken::BeginLate, FEW), Err("mixed"));
    assert_eq!(changed_together(Broken::DoneEarly, FEW), Err("mixed"));
}

#[test]
fn found_when_done_is_stored_relaxed() {
    assert_eq!(
        changed_together(Broken::RelaxedStore(Role::Done), FEW),
        Err("mixed")
    );
}

#[test]
fn found_when_a_length_is_noted_late() {
    assert_eq!(rerouted(Broken::LengthLate, FEW), Err("missing"));
}

#[test]
fn found_when_lengths_are_not_compared_again() {
    assert_eq!(rerouted(Broken::LengthSeenOnce, FEW), Err("missing"));
}
