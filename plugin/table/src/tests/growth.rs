//! Growth: whatever happens to the live table meanwhile, the bigger one has the same content, and readers
//! miss nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use locus_proto::{Change, ChangeOp, Key, Level};

use super::support::{
    Dice, Model, SMALL, TABLE_KEY, aor_key, check, commit, delete, put, value_of,
};
use crate::{
    Fill, Folder, FolderReader, Generation, Geometry, GrowError, Growth, HeapMemory, HeapRegions,
    Lookup, OwnRegions, PrepareError, RecordBuffer, RegionName, Word, Writer,
};

const BIGGER: Geometry = Geometry {
    buckets: 60,
    arena_bytes: 4 << 20,
};

/// Returns a folder whose table answers and is empty.
fn folder() -> (HeapRegions, Folder<HeapRegions>, Writer<HeapMemory>) {
    let regions = HeapRegions::new();
    let folder = Folder::open(regions.clone()).unwrap();
    let mut table = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    table.1.finish_load(Model::default().position()).unwrap();
    folder.flip(&table).unwrap();
    (regions, folder, table.1)
}

fn random_batch(dice: &mut Dice, level: u64) -> Vec<Change> {
    let mut batch: Vec<Change> = Vec::new();
    for _ in 0..dice.roll(12) {
        let key = aor_key(dice.roll(150));
        if batch.iter().any(|change| change.key == key) {
            continue;
        }
        let level = level + 1 + u64::try_from(batch.len()).unwrap();
        batch.push(match dice.roll(3) {
            0 => delete(key, level),
            _ => put(key, level, usize::try_from(dice.roll(300)).unwrap()),
        });
    }
    batch
}

/// Repairs the partition of a key to other content than the live table has, and returns that.
fn random_repair(
    dice: &mut Dice,
    live: &mut Writer<HeapMemory>,
    model: &mut Model,
) -> (u16, Vec<Change>) {
    let key = aor_key(dice.roll(150));
    let partition = live.partition_of(key.as_bytes());
    let level = Level(dice.roll(model.level.0 + 1));
    let value = value_of(&key, level, usize::try_from(dice.roll(99)).unwrap());
    model.records.remove(&key);
    if dice.roll(3) > 0 {
        model.records.insert(key, (level, value));
    }
    let of_partition =
        |(key, _): &(&Key, &(Level, Vec<u8>))| live.partition_of(key.as_bytes()) == partition;
    let content: Vec<Change> = model
        .records
        .iter()
        .filter(of_partition)
        .map(|(key, (level, value))| Change {
            key: key.clone(),
            level: *level,
            op: ChangeOp::Put(value.clone()),
        })
        .collect();
    live.repair(partition, &content).unwrap();
    (partition, content)
}

#[test]
fn grows_beside_batches_and_repairs() {
    let mut dice = Dice(2);
    let keys: Vec<Key> = (0..150).map(aor_key).collect();
    for round in 0..30 {
        let (_, folder, mut live) = folder();
        let mut model = Model::default();
        let mut growth: Option<Growth<HeapMemory>> = None;
        let mut copied = false;
        let mut events = 0;
        while !copied || events < 60 {
            events += 1;
            match (&mut growth, dice.roll(5)) {
                (None, 0) if events > 10 => growth = Some(folder.grow(&live, BIGGER).unwrap()),
                (Some(growth), 0 | 1) => {
                    let records_max = usize::try_from(1 + dice.roll(12)).unwrap();
                    copied = growth.step(&live, records_max).unwrap();
                }
                (growth, 2) => {
                    let (partition, content) = random_repair(&mut dice, &mut live, &mut model);
                    if let Some(growth) = growth {
                        growth.follow_repair(partition, &content).unwrap();
                    }
                }
                (growth, _) => {
                    let batch = random_batch(&mut dice, model.level.0);
                    commit(&mut live, &mut model, &batch);
                    if let Some(growth) = growth {
                        growth.follow(&batch).unwrap();
                    }
                }
            }
        }
        let table = growth.take().unwrap().finish(&live).unwrap();
        folder.flip(&table).unwrap();
        check(&table.1, &model, &keys).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(table.1.fill().geometry(), BIGGER);
        let (reopened, _) = folder.open_table().unwrap().unwrap();
        check(&reopened, &model, &[]).unwrap();
    }
}

#[test]
fn what_is_short_is_doubled() {
    let fill = Fill {
        records: 6_999,
        slots: 9_996,
        free_slabs: 10,
        slabs: 160,
    };
    assert_eq!(
        fill.grown(),
        Some(Geometry {
            buckets: 1428 * 2,
            arena_bytes: 160 << 16
        })
    );
    let roomy = Fill {
        records: 6_990,
        ..fill
    };
    assert_eq!(roomy.grown(), None);
    let low = Fill {
        free_slabs: 9,
        ..roomy
    };
    assert_eq!(
        low.grown(),
        Some(Geometry {
            buckets: 1428,
            arena_bytes: 320 << 16
        })
    );
    let both = Fill {
        free_slabs: 9,
        ..fill
    };
    assert_eq!(
        both.grown(),
        Some(Geometry {
            buckets: 1428 * 2,
            arena_bytes: 320 << 16
        })
    );
    let (_, _, live) = folder();
    assert_eq!(live.fill().geometry().buckets, SMALL.buckets);
}

/// A table that no batch fits any more takes it after its growth.
#[test]
fn a_full_table_grows() {
    let (_, folder, mut live) = folder();
    let mut model = Model::default();
    let more = loop {
        let level = model.level.0;
        let more = [put(aor_key(level), level + 1, 30_000)];
        match live.prepare(&more) {
            Ok(_) => commit(&mut live, &mut model, &more),
            Err(PrepareError::ArenaFull { .. }) => break more,
            Err(error) => panic!("{error}"),
        }
    };
    let geometry = live.fill().grown().unwrap();
    assert_eq!(
        geometry,
        Geometry {
            buckets: 8,
            arena_bytes: 4 << 20
        }
    );
    // One that is too small is given up and leaves the table as it is.
    let mut small = folder.grow(&live, SMALL).unwrap();
    small.follow(&[put(aor_key(999), 1, 30_000)]).unwrap();
    let refused = loop {
        match small.step(&live, 5) {
            Ok(done) => assert!(!done, "it does not fit"),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        refused,
        GrowError::Prepare(PrepareError::ArenaFull { .. })
    ));
    drop(small);
    folder.discard_others().unwrap();
    check(&live, &model, &[]).unwrap();

    let mut growth = folder.grow(&live, geometry).unwrap();
    while !growth.step(&live, 5).unwrap() {}
    let mut table = growth.finish(&live).unwrap();
    folder.flip(&table).unwrap();
    commit(&mut table.1, &mut model, &more);
    check(&table.1, &model, &[]).unwrap();
}

#[test]
fn what_is_not_the_same_is_not_flipped() {
    let (regions, folder, mut live) = folder();
    let mut model = Model::default();
    let batch: Vec<_> = (1..60).map(|n| put(aor_key(n), n, 50)).collect();
    commit(&mut live, &mut model, &batch);
    // Not all is copied.
    let mut growth = folder.grow(&live, BIGGER).unwrap();
    assert!(!growth.step(&live, 5).unwrap());
    growth.finish(&live).unwrap_err();
    assert!(regions.discard(RegionName::Table(Generation(2))).is_ok());
    // A value rots before it is copied.
    let mut growth = folder.grow(&live, BIGGER).unwrap();
    let word = live.layout.arena.0 + 6;
    let value = Word::load(&live.memory().as_ref()[word]);
    Word::store(&live.memory().as_ref()[word], !value);
    while !growth.step(&live, 5).unwrap() {}
    growth.finish(&live).unwrap_err();
    // A slot that cannot be read stops it.
    let mut growth = folder.grow(&live, BIGGER).unwrap();
    let word = live.layout.index.0 + 1;
    Word::store(&live.memory().as_ref()[word], u64::MAX);
    let stopped = growth.step(&live, 5);
    assert!(matches!(stopped, Err(GrowError::Scan(_))), "{stopped:?}");
}

const KEYS: u64 = 40;

fn read_until(regions: HeapRegions, stop: &AtomicBool, reads: &AtomicU64) {
    let (mut reader, mut buffer) = (FolderReader::new(regions), RecordBuffer::new());
    let mut seen = [0; 40];
    while !stop.load(Ordering::Relaxed) {
        for (number, seen) in (0..KEYS).zip(&mut seen) {
            let key = aor_key(number);
            match reader.lookup(key.as_bytes(), &mut buffer) {
                Lookup::Found(record) => {
                    let expected = value_of(&key, record.level, record.value.len());
                    assert_eq!(record.value, expected, "{key} is torn");
                    assert!(record.level.0 >= *seen, "{key} went back");
                    *seen = record.level.0;
                }
                other @ (Lookup::Absent | Lookup::Unavailable(_)) => panic!("{key}: {other:?}"),
            }
            reader.refresh();
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn grows_under_readers() {
    let (regions, folder, mut live) = folder();
    let mut model = Model::default();
    let batch = |model: &Model| -> Vec<Change> {
        let level = model.level.0;
        let len = |i: u64| usize::try_from((level + i) % 300).unwrap();
        (0..KEYS)
            .map(|i| put(aor_key(i), level + 1 + i, len(i)))
            .collect()
    };
    let first = batch(&model);
    commit(&mut live, &mut model, &first);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_until(regions.clone(), &stop, &reads));
        }
        let grown = scope.spawn(|| {
            let mut rounds = 0;
            while rounds < 30 || reads.load(Ordering::Relaxed) < 20 {
                rounds += 1;
                let geometry = Geometry {
                    buckets: 4 + rounds % 7,
                    ..SMALL
                };
                let mut growth = folder.grow(&live, geometry).unwrap();
                while !growth.step(&live, 4).unwrap() {
                    let batch = batch(&model);
                    commit(&mut live, &mut model, &batch);
                    growth.follow(&batch).unwrap();
                }
                let table = growth.finish(&live).unwrap();
                folder.flip(&table).unwrap();
                live = table.1;
            }
        });
        let grown = grown.join();
        stop.store(true, Ordering::Relaxed);
        grown.unwrap();
    });
    assert!(reads.into_inner() >= 20);
}
