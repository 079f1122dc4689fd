//! The format byte by byte, hostile files, and the model: a snapshot that was written beside changes.

mod handover;
mod hostile;
mod model;

use std::io::Cursor;
use std::ops::ControlFlow;

use locus_proto::{
    Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, MasterTime,
    Position, Root,
};

use super::*;

const EPOCH: Epoch = Epoch {
    counter: 2,
    id: EpochId([9; 16]),
};

fn position(level: u64, root: u64) -> Position {
    Position {
        epoch: EPOCH,
        level: Level(level),
        root: Root([root, 7]),
    }
}

fn header() -> Header {
    Header {
        cluster: "lab".parse().unwrap(),
        table_key: [7; 16],
        position: position(5, 50),
        records: 2,
        bytes: 60,
        time: MasterTime(1_700_000_000_500),
        complete_until: MasterTime(1_700_000_000_000),
    }
}

fn end() -> End {
    End {
        position: position(6, 60),
        records: 1,
        bytes: 30,
        time: MasterTime(1_700_000_002_500),
        complete_until: MasterTime(1_700_000_002_000),
    }
}

fn key(name: &str) -> Key {
    Key::aor(&format!("{name}@example.net").parse().unwrap())
}

fn put(name: &str, level: u64, value: &[u8]) -> Change {
    Change {
        key: key(name),
        level: Level(level),
        op: ChangeOp::Put(value.to_vec()),
    }
}

/// The frame from level 5 to 6 of [`header`] and [`end`].
fn frame() -> Frame {
    Frame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: EPOCH,
            from: Level(5),
            to: Level(6),
            root_before: Root([50, 7]),
            root_after: Root([60, 7]),
            time: MasterTime(1_700_000_001_000),
        },
        changes: vec![Change {
            key: key("bob"),
            level: Level(6),
            op: ChangeOp::Delete,
        }],
    }
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// Two records, a frame, and their end.
fn small() -> Vec<u8> {
    let mut writer = SnapshotWriter::new(Vec::new(), &header()).unwrap();
    let mut records = Records::default();
    records.push(Level(3), key("alice").as_bytes(), b"one");
    records.push(Level(5), key("bob").as_bytes(), b"two");
    writer.records(&mut records).unwrap();
    writer.frame(&encoded(&frame())).unwrap();
    writer.finish(&end()).unwrap()
}

/// Returns all that a snapshot hands out, or why it is refused.
fn load(bytes: &[u8]) -> Result<Vec<Change>, ReadSnapshotError> {
    let mut reader = SnapshotReader::open(Cursor::new(bytes))?;
    let mut changes = Vec::new();
    let outcome = reader.load(|part| {
        changes.extend_from_slice(part);
        ControlFlow::<()>::Continue(())
    })?;
    assert_eq!(outcome, ControlFlow::Continue(()));
    Ok(changes)
}

#[test]
fn comes_back_as_it_was_written() {
    let bytes = small();
    let mut changes = vec![put("alice", 3, b"one"), put("bob", 5, b"two")];
    changes.extend(frame().changes);
    assert_eq!(load(&bytes).unwrap(), changes);
    let reader = SnapshotReader::open(Cursor::new(&bytes)).unwrap();
    assert_eq!((reader.header(), reader.end()), (&header(), &end()));
    let text = format!("{reader:?}");
    assert!(!text.contains("table_key"), "{text}");
}

#[test]
fn frames_may_lie_between_records() {
    let mut writer = SnapshotWriter::new(Vec::new(), &header()).unwrap();
    let mut records = Records::default();
    let value = vec![1; 32_000];
    let mut expected = Vec::new();
    let mut frames = Vec::new();
    let (mut level, mut root) = (5, 50);
    for n in 0..60_u64 {
        let name = format!("u{n}");
        records.push(Level(n), key(&name).as_bytes(), &value);
        expected.push(put(&name, n, &value));
        if records.fill_a_chunk() {
            writer.records(&mut records).unwrap();
        }
        let mut frame = frame();
        frame.header.from = Level(level);
        frame.header.to = Level(level + 1);
        frame.header.root_before = Root([root, 7]);
        frame.header.root_after = Root([root + 1, 7]);
        frame.changes = vec![put(&name, level + 1, &value)];
        (level, root) = (level + 1, root + 1);
        writer.frame(&encoded(&frame)).unwrap();
        frames.extend(frame.changes);
    }
    writer.records(&mut records).unwrap();
    let end = End {
        position: position(level, root),
        ..end()
    };
    let bytes = writer.finish(&end).unwrap();
    let kinds = chunk_kinds(&bytes);
    let first = kinds.iter().position(|kind| *kind == 2).unwrap();
    assert!(
        kinds[first..].contains(&1),
        "frames come between: {kinds:?}"
    );
    expected.extend(frames);
    assert_eq!(load(&bytes).unwrap(), expected);
}

/// The kinds of a snapshot's chunks.
fn chunk_kinds(bytes: &[u8]) -> Vec<u32> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let size = |len: u32| usize::try_from(len).unwrap();
    let mut at = 16 + size(u32_at(12)) + 4;
    let mut kinds = Vec::new();
    while at < bytes.len() {
        kinds.push(u32_at(at));
        at += 8 + size(u32_at(at + 4)) + 4;
    }
    kinds
}

#[test]
fn a_load_can_be_broken_off() {
    let bytes = small();
    for parts in 0..2 {
        let mut reader = SnapshotReader::open(Cursor::new(&bytes)).unwrap();
        let mut left = parts;
        let outcome = reader.load(|_| {
            if left == 0 {
                return ControlFlow::Break(parts);
            }
            left -= 1;
            ControlFlow::Continue(())
        });
        assert_eq!(outcome.unwrap(), ControlFlow::Break(parts));
    }
}

/// The format is a promise to the next version: these bytes change only with `VERSION` and the CHANGELOG.
#[test]
fn golden_bytes() {
    let golden: String = include_str!("tests/golden.hex")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_whitespace())
        .collect();
    let written: String = small().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, golden);
}
