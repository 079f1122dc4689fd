//! Readers beside a writer: nothing torn, nothing lost, nothing that goes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use locus_proto::{Digits, Key};

use super::support::{Dice, Model, SMALL, aor_key, commit, delete, live_in, put, value_of};
use crate::{HeapMemory, Lookup, Reader, RecordBuffer, Writer};

const KEYS: u64 = 40;
const ROUNDS: u64 = 400;

/// Looks up all keys over and over: each is there, whole, and never older than before.
fn read_until(memory: HeapMemory, stop: &AtomicBool, reads: &AtomicU64) {
    let (reader, mut buffer) = (Reader::open(memory).unwrap(), RecordBuffer::new());
    let keys: Vec<Key> = (0..KEYS).map(aor_key).collect();
    let mut seen = vec![0; keys.len()];
    let digits = Digits::parse("493012345").unwrap();
    while !stop.load(Ordering::Relaxed) {
        let level = reader.position().level.0;
        for (key, seen) in keys.iter().zip(&mut seen) {
            let Lookup::Found(record) = reader.lookup(key.as_bytes(), &mut buffer) else {
                panic!("{key} is not found");
            };
            let expected = value_of(key, record.level, record.value.len());
            assert_eq!(record.value, expected, "{key} is torn");
            assert!(record.level.0 >= *seen, "{key} went back");
            assert!(
                record.level.0 + KEYS + 2 > level,
                "{key} is behind the position"
            );
            *seen = record.level.0;
        }
        let route = reader.route(digits, &mut buffer);
        assert!(matches!(route, Lookup::Found(_)), "{route:?}");
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn write(mut writer: Writer<HeapMemory>, mut model: Model, reads: &AtomicU64) {
    let mut dice = Dice(1);
    let prefixes = ["49", "4930", "493"].map(|p| Key::route(Digits::parse(p).unwrap()));
    let mut round = 0;
    // At least so many rounds, and until each reader has come round a few times.
    while round < ROUNDS || reads.load(Ordering::Relaxed) < 20 {
        let level = model.level.0;
        let mut batch: Vec<_> = (0..KEYS)
            .map(|i| {
                put(
                    aor_key(i),
                    level + 1 + i,
                    usize::try_from(dice.roll(400)).unwrap(),
                )
            })
            .collect();
        let (old, new) = (usize::try_from(round % 3), usize::try_from((round + 1) % 3));
        batch.push(put(prefixes[new.unwrap()].clone(), level + KEYS + 1, 16));
        batch.push(delete(prefixes[old.unwrap()].clone(), level + KEYS + 2));
        commit(&mut writer, &mut model, &batch);
        round += 1;
    }
}

#[test]
fn readers_beside_a_writer() {
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let (mut writer, mut model) = (live_in(memory.clone(), SMALL), Model::default());
    let mut first: Vec<_> = (0..KEYS).map(|i| put(aor_key(i), i + 1, 9)).collect();
    first.push(put(Key::route(Digits::parse("49").unwrap()), KEYS + 1, 16));
    commit(&mut writer, &mut model, &first);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_until(memory.clone(), &stop, &reads));
        }
        let written = scope.spawn(|| write(writer, model, &reads)).join();
        stop.store(true, Ordering::Relaxed);
        written.unwrap();
    });
    assert!(reads.into_inner() >= 20);
}

#[test]
fn consistent_notices_a_batch() {
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let mut writer = live_in(memory.clone(), SMALL);
    let mut model = Model::default();
    let reader = Reader::open(memory).unwrap();
    assert_eq!(reader.consistent(|_| 5), (5, true));
    // A batch between two look-ups, the first time only: repeated, then consistent.
    let mut calls = 0;
    let result = reader.consistent(|_| {
        calls += 1;
        if calls == 1 {
            commit(&mut writer, &mut model, &[put(aor_key(1), 1, 1)]);
        }
        calls
    });
    assert_eq!(result, (2, true));
    // A batch every time: what was read last, marked.
    let mut level = 1;
    let (_, same) = reader.consistent(|_| {
        level += 1;
        commit(&mut writer, &mut model, &[put(aor_key(1), level, 1)]);
    });
    assert!(!same);
}
