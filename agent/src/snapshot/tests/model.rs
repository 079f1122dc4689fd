//! A snapshot that is written while the table changes, loaded again, beside the table itself.

use std::collections::BTreeMap;

use locus_table::{
    Geometry, HeapMemory, Reader, RecordBuffer, ScanCursor, TableKey, Words, Writer,
};

use super::*;
use crate::random::Random;

const KEY: TableKey = TableKey([7; 16]);

fn table(position: Option<Position>) -> Writer<HeapMemory> {
    let geometry = Geometry::for_records(3000, 128);
    let memory = HeapMemory::zeroed(geometry.file_bytes());
    let mut table = Writer::create(memory, geometry, KEY).unwrap();
    if let Some(position) = position {
        table.finish_load(position).unwrap();
    }
    table
}

/// Applies a random batch and returns its frame; now and then the beginning of an epoch.
fn change(table: &mut Writer<HeapMemory>, random: &mut Random) -> Frame {
    let from = table.position();
    if random.between(0, 20) == 0 {
        let mut epoch = from.epoch;
        epoch.counter += 1;
        let header = FrameHeader {
            kind: FrameKind::Epoch,
            shard: 0,
            epoch,
            from: from.level,
            to: from.level,
            root_before: from.root,
            root_after: from.root,
            time: MasterTime(1),
        };
        let changes = Vec::new();
        let frame = Frame { header, changes };
        table.apply(&frame).unwrap();
        return frame;
    }
    let mut batch = BTreeMap::new();
    for _ in 0..random.between(1, 30) {
        let name = format!("u{}", random.between(0, 999));
        let value = vec![b'x'; usize::try_from(random.between(0, 200)).unwrap()];
        batch.insert(name, (random.between(0, 3) > 0).then_some(value));
    }
    let changes: Vec<Change> = (1..)
        .zip(batch)
        .map(|(n, (name, value))| Change {
            key: key(&name),
            level: from.level.plus(n),
            op: value.map_or(ChangeOp::Delete, ChangeOp::Put),
        })
        .collect();
    let root_after = table.prepare(&changes).unwrap().root_after();
    let header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch: from.epoch,
        from: from.level,
        to: changes.last().unwrap().level,
        root_before: from.root,
        root_after,
        time: MasterTime(1),
    };
    let frame = Frame { header, changes };
    table.apply(&frame).unwrap();
    frame
}

fn records(reader: &Reader<Words<'_, std::sync::atomic::AtomicU64>>) -> BTreeMap<Vec<u8>, Change> {
    let (mut out, mut buffer) = (Vec::new(), RecordBuffer::new());
    let mut cursor = Some(ScanCursor::START);
    while let Some(at) = cursor {
        cursor = reader.scan(at, 1 << 20, &mut buffer, &mut out).unwrap();
    }
    out.into_iter()
        .map(|change| (change.key.as_bytes().to_vec(), change))
        .collect()
}

#[test]
fn what_is_loaded_is_what_the_table_holds_at_the_end() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut table = table(Some(Position {
            epoch: EPOCH,
            ..Position::default()
        }));
        for _ in 0..random.between(0, 60) {
            change(&mut table, &mut random);
        }
        let begin = Header {
            position: table.position(),
            records: table.records(),
            bytes: table.payload_bytes(),
            ..header()
        };
        let mut writer = SnapshotWriter::new(Vec::new(), &begin).unwrap();
        let (mut out, mut buffer) = (Records::default(), RecordBuffer::new());
        let mut cursor = Some(ScanCursor::START);
        let mut frames = 0;
        while let Some(at) = cursor {
            cursor = table
                .reader()
                .for_each(at, 16, &mut buffer, |level, key, value| {
                    out.push(level, key, value);
                })
                .unwrap();
            if random.between(0, 3) == 0 {
                writer.records(&mut out).unwrap();
            }
            if random.between(0, 2) == 0 {
                let frame = change(&mut table, &mut random);
                writer.frame(&encoded(&frame)).unwrap();
                frames += 1;
            }
        }
        writer.records(&mut out).unwrap();
        assert!(frames > 5, "seed {seed}: changes came meanwhile");
        let end = End {
            position: table.position(),
            records: table.records(),
            bytes: table.payload_bytes(),
            ..end()
        };
        let bytes = writer.finish(&end).unwrap();

        let mut loaded = model::table(None);
        let mut reader = SnapshotReader::open(Cursor::new(&bytes)).unwrap();
        let outcome = reader.load(|part| match loaded.load(part) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        assert_eq!(outcome.unwrap(), ControlFlow::Continue(()), "seed {seed}");
        loaded.finish_load(end.position).unwrap();
        assert_eq!(
            (loaded.position(), loaded.records(), loaded.payload_bytes()),
            (end.position, end.records, end.bytes),
            "seed {seed}"
        );
        assert_eq!(
            records(&loaded.reader()),
            records(&table.reader()),
            "seed {seed}"
        );
    }
}
