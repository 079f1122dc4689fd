//! Random batches against a map, with re-opens and reloads in between.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use locus_proto::{Change, Key};

use super::support::{Model, TABLE_KEY, aor_key, check, commit, delete, live_in, put, scan};
use crate::{Geometry, HeapMemory, Writer};

const KEYS: u64 = 120;

/// Few buckets, and room for a slab of each size class.
const GEOMETRY: Geometry = Geometry {
    buckets: 4,
    arena_bytes: 8 << 20,
};

/// One change: a key, and the length of its new value or its end.
#[derive(Debug, Clone)]
struct Op {
    key: u64,
    len: Option<usize>,
}

#[derive(Debug, Clone)]
enum Event {
    Batch(Vec<Op>),
    Reopen,
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![
        3 => (0..300_usize).prop_map(Some),
        1 => (900..9000_usize).prop_map(Some),
        2 => Just(None),
    ];
    (0..KEYS, len).prop_map(|(key, len)| Op { key, len })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => vec(op(), 0..40).prop_map(Event::Batch),
        1 => Just(Event::Reopen),
        1 => Just(Event::Reload),
    ]
}

fn changes(ops: Vec<Op>, mut level: u64) -> Vec<Change> {
    let mut batch: Vec<Change> = Vec::new();
    for op in ops {
        let key = aor_key(op.key);
        if batch.iter().any(|change| change.key == key) {
            continue;
        }
        level += 1;
        batch.push(match op.len {
            Some(len) => put(key, level, len),
            None => delete(key, level),
        });
    }
    batch
}

/// Loads the table's own scan into a new one, as a node does with a snapshot.
fn reload(writer: &Writer<HeapMemory>, model: &Model) -> Writer<HeapMemory> {
    let records = scan(&writer.reader(), 4096).unwrap();
    let records: Vec<Change> = records
        .into_iter()
        .map(|(key, (level, value))| Change {
            key,
            level,
            op: locus_proto::ChangeOp::Put(value),
        })
        .collect();
    let memory = HeapMemory::zeroed(GEOMETRY.file_bytes());
    let mut loaded = Writer::create(memory, GEOMETRY, TABLE_KEY).unwrap();
    for part in records.chunks(7) {
        loaded.load(part).unwrap();
        loaded.load(part).unwrap(); // a snapshot beside a writer may hold a record twice
    }
    let mut elsewhere = model.position();
    elsewhere.root.0[1] ^= 1;
    assert!(loaded.finish_load(elsewhere).is_err());
    loaded.finish_load(model.position()).unwrap();
    loaded
}

#[test]
fn equals_a_map() {
    let config = ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(20_261_124),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let keys: Vec<Key> = (0..KEYS).map(aor_key).collect();
    let story = vec(event(), 1..40);
    let result = TestRunner::new(config).run(&story, |events| {
        let memory = HeapMemory::zeroed(GEOMETRY.file_bytes());
        let (mut writer, mut model) = (live_in(memory, GEOMETRY), Model::default());
        for event in events {
            match event {
                Event::Batch(ops) => {
                    let batch = changes(ops, model.level.0);
                    commit(&mut writer, &mut model, &batch);
                }
                Event::Reopen => {
                    let memory = writer.memory().clone();
                    let (opened, recovered) = Writer::open(memory).unwrap();
                    prop_assert!(!recovered.redone);
                    prop_assert_eq!(recovered.position, model.position());
                    prop_assert_eq!(opened.fill().free_slabs, writer.fill().free_slabs);
                    writer = opened;
                }
                Event::Reload => writer = reload(&writer, &model),
            }
        }
        check(&writer, &model, &keys).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
