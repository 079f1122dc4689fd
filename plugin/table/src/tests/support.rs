//! A model of the table and the checks that compare the two.

use std::collections::BTreeMap;

use locus_proto::{AddressOfRecord, Change, ChangeOp, Epoch, EpochId, Key, Level, Position, Root};

use crate::audit::Hashes;
use crate::{
    Geometry, HeapMemory, Lookup, Memory, Reader, RecordBuffer, ScanCursor, TableKey, Writer,
};

pub(super) const TABLE_KEY: TableKey = TableKey(*b"0123456789abcdef");

pub(super) const EPOCH: Epoch = Epoch {
    counter: 3,
    id: EpochId([7; 16]),
};

/// Few buckets, so that keys are displaced and lines are shared.
pub(super) const SMALL: Geometry = Geometry {
    buckets: 4,
    arena_bytes: 1 << 20,
};

/// A generator of numbers that is the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        // Knuth's multiplier for 64 bits; the high half is random enough for a test.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

pub(super) fn aor_key(number: u64) -> Key {
    Key::aor(&AddressOfRecord::parse(&format!("u{number}@example.net")).unwrap())
}

/// Returns a value that tells the key and level it belongs to, in every byte.
pub(super) fn value_of(key: &Key, level: Level, len: usize) -> Vec<u8> {
    let mark = key.as_bytes().iter().map(|b| u64::from(*b)).sum::<u64>() + level.0;
    (0..len)
        .map(|at| u8::try_from((mark + u64::try_from(at).unwrap()) % 251).unwrap())
        .collect()
}

pub(super) fn put(key: Key, level: u64, len: usize) -> Change {
    let level = Level(level);
    let op = ChangeOp::Put(value_of(&key, level, len));
    Change { key, level, op }
}

pub(super) fn delete(key: Key, level: u64) -> Change {
    Change {
        key,
        level: Level(level),
        op: ChangeOp::Delete,
    }
}

/// What the table shall hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Model {
    pub(super) level: Level,
    pub(super) records: BTreeMap<Key, (Level, Vec<u8>)>,
}

impl Model {
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.level = self.level.max(change.level);
            match &change.op {
                ChangeOp::Put(value) => {
                    let record = (change.level, value.clone());
                    self.records.insert(change.key.clone(), record);
                }
                ChangeOp::Delete => {
                    self.records.remove(&change.key);
                }
            }
        }
    }

    /// Returns the content as it is defined, not as the table keeps it.
    pub(super) fn root(&self) -> Root {
        let hashes = Hashes::new(TABLE_KEY.to_words());
        let records = self.records.iter();
        records.fold(Root::EMPTY, |root, (key, (level, value))| {
            root.plus(hashes.record(key.as_bytes(), *level, value))
        })
    }

    pub(super) fn position(&self) -> Position {
        Position {
            epoch: EPOCH,
            level: self.level,
            root: self.root(),
        }
    }
}

/// Returns what the table says of a key: its level and value, or that there is none.
pub(super) fn get<M: Memory>(
    reader: &Reader<M>,
    key: &Key,
    buffer: &mut RecordBuffer,
) -> Result<Option<(Level, Vec<u8>)>, String> {
    match reader.lookup(key.as_bytes(), buffer) {
        Lookup::Found(record) => Ok(Some((record.level, record.value.to_vec()))),
        Lookup::Absent => Ok(None),
        Lookup::Unavailable(reason) => Err(format!("{key}: {reason}")),
    }
}

/// Checks everything a table promises of a model, of `keys` besides those in it.
pub(super) fn check<M: Memory>(
    writer: &Writer<M>,
    model: &Model,
    keys: &[Key],
) -> Result<(), String> {
    let reader = writer.reader();
    let mut buffer = RecordBuffer::new();
    if writer.position() != model.position() || reader.position() != model.position() {
        return Err(format!(
            "position {:?} and {:?}, expected {:?}",
            writer.position(),
            reader.position(),
            model.position()
        ));
    }
    let bytes = model
        .records
        .iter()
        .map(|(key, (_, value))| key.as_bytes().len() + value.len());
    let expected = (model.records.len(), bytes.sum::<usize>());
    for (records, bytes) in [
        (writer.records(), writer.payload_bytes()),
        (reader.records(), reader.payload_bytes()),
    ] {
        let found = (
            usize::try_from(records).unwrap(),
            usize::try_from(bytes).unwrap(),
        );
        if found != expected {
            return Err(format!(
                "{found:?} records and bytes, expected {expected:?}"
            ));
        }
    }
    for key in keys.iter().chain(model.records.keys()) {
        let found = get(&reader, key, &mut buffer)?;
        if found.as_ref() != model.records.get(key) {
            return Err(format!("{key}: {found:?}"));
        }
    }
    let scanned = scan(&reader, 1000)?;
    if scanned != model.records {
        return Err(format!("{} records scanned", scanned.len()));
    }
    check_sums(&reader, model)
}

/// Checks each partition's stored sum, and some against their records, read anew: in a small table each
/// partition lies in all buckets.
fn check_sums<M: Memory>(reader: &Reader<M>, model: &Model) -> Result<(), String> {
    let hashes = Hashes::new(TABLE_KEY.to_words());
    let mut expected: BTreeMap<usize, Root> = BTreeMap::new();
    for (key, (level, value)) in &model.records {
        let key = key.as_bytes();
        let sum = expected
            .entry(crate::audit::partition_of(hashes.key(key)))
            .or_default();
        *sum = sum.plus(hashes.record(key, *level, value));
    }
    let mut buffer = RecordBuffer::new();
    for (number, (partition, sum)) in expected.iter().enumerate() {
        let stored = reader.partition_sum(*partition);
        let read = if number.is_multiple_of(16) {
            reader.scrub(*partition, &mut buffer)
        } else {
            Ok(stored)
        };
        let read = read.map_err(|reason| reason.to_string())?;
        if stored != *sum || read != *sum {
            return Err(format!(
                "partition {partition}: {stored} stored, {read} read, {sum} expected"
            ));
        }
    }
    let total = crate::audit::total(reader.accounts());
    if total.sum == model.root() {
        Ok(())
    } else {
        Err("the sums do not add up to the root".to_owned())
    }
}

/// Reads the whole table in steps of so many bytes.
pub(super) fn scan<M: Memory>(
    reader: &Reader<M>,
    bytes_max: usize,
) -> Result<BTreeMap<Key, (Level, Vec<u8>)>, String> {
    let (mut buffer, mut out) = (RecordBuffer::new(), Vec::new());
    let mut cursor = Some(ScanCursor::START);
    while let Some(at) = cursor {
        cursor = reader
            .scan(at, bytes_max, &mut buffer, &mut out)
            .map_err(|error| error.to_string())?;
    }
    let count = out.len();
    let records: BTreeMap<_, _> = out
        .into_iter()
        .map(|change| match change.op {
            ChangeOp::Put(value) => (change.key, (change.level, value)),
            ChangeOp::Delete => (change.key, (change.level, Vec::new())),
        })
        .collect();
    if records.len() == count {
        Ok(records)
    } else {
        Err("a record was scanned twice".to_owned())
    }
}

/// Returns an empty live table.
pub(super) fn live(geometry: Geometry) -> Writer<HeapMemory> {
    let memory = HeapMemory::zeroed(geometry.file_bytes());
    live_in(memory, geometry)
}

pub(super) fn live_in<M: Memory>(memory: M, geometry: Geometry) -> Writer<M> {
    let mut writer = Writer::create(memory, geometry, TABLE_KEY).unwrap();
    writer.finish_load(Model::default().position()).unwrap();
    writer
}

/// Applies a batch to the table and to the model.
pub(super) fn commit<M: Memory>(writer: &mut Writer<M>, model: &mut Model, changes: &[Change]) {
    let prepared = writer.prepare(changes).unwrap();
    model.apply(changes);
    assert_eq!(prepared.root_after(), model.root());
    writer.commit(prepared, changes, model.position());
}
