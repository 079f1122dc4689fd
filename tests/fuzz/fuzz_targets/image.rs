//! Any harm to a table's memory: readers, the next writer and its repairs refuse or answer, but never
//! panic and never loop without an end. The input is a list of words and what is done to them.
#![no_main]

use std::cell::{Cell, RefCell};

use libfuzzer_sys::fuzz_target;
use locus_proto::{
    AddressOfRecord, Change, ChangeOp, Digits, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key,
    Level, MasterTime, Position, Root,
};
use locus_table::{
    Geometry, Memory, Reader, RecordBuffer, ScanCursor, TableKey, Word, Words, Writer,
};

const GEOMETRY: Geometry = Geometry {
    buckets: 4,
    arena_bytes: 1 << 20,
};
const KEYS: u64 = 24;
/// More than any one call may load from so small a table.
const LOADS_MAX: u64 = 40_000_000;

// From the layout's description; a change of it makes this target aim elsewhere, not fail.
const MARKS: usize = 32;
const ACCOUNTS: std::ops::Range<usize> = 512..197_120;

thread_local! {
    static LOADS: Cell<u64> = const { Cell::new(0) };
    static STORED: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
    static IMAGE: Image = Image::new();
}

/// A word that counts its loads and remembers what it held.
#[derive(Default)]
struct Watched(Cell<u64>);

impl Word for Watched {
    fn load(&self) -> u64 {
        let loads = LOADS.get() + 1;
        LOADS.set(loads);
        assert!(loads < LOADS_MAX, "a loop without an end");
        self.0.get()
    }

    fn store(&self, value: u64) {
        let address = std::ptr::from_ref(self).addr();
        STORED.with_borrow_mut(|stored| stored.push((address, self.0.get())));
        self.0.set(value);
    }

    fn store_release(&self, value: u64) {
        self.store(value);
    }

    fn fence_acquire() {}

    fn fence_release() {}
}

struct Image {
    words: Vec<Watched>,
    /// Words that are used; most are not.
    places: Vec<usize>,
}

impl Image {
    fn new() -> Self {
        let words = usize::try_from(GEOMETRY.file_bytes() / 8).unwrap();
        let words: Vec<Watched> = (0..words).map(|_| Watched::default()).collect();
        let mut writer =
            Writer::create(Words(&words), GEOMETRY, TableKey(*b"0123456789abcdef")).unwrap();
        let mut to = Position {
            epoch: Epoch {
                counter: 3,
                id: EpochId([7; 16]),
            },
            level: Level(0),
            root: Root::EMPTY,
        };
        writer.finish_load(to).unwrap();
        // Twice, so that blocks are free and versions high; the second one left half done below.
        for round in 1..=2 {
            let mut changes: Vec<Change> =
                (0..KEYS).map(|n| put(aor(n), round * 100 + n)).collect();
            changes.push(put(route("4930"), round * 100 + KEYS));
            let prepared = writer.prepare(&changes).unwrap();
            to.level = Level(round * 100 + KEYS);
            to.root = prepared.root_after();
            writer.commit(prepared, &changes, to);
        }
        drop(writer);
        STORED.take();
        let used = |at: &usize| words[*at].0.get() != 0;
        let places = (0..words.len()).filter(|at| *at < 64 || used(at)).collect();
        Self { words, places }
    }

    fn undo(&self) {
        let base = self.words.as_ptr().addr();
        for (address, old) in STORED.take().into_iter().rev() {
            self.words[(address - base) / 8].0.set(old);
        }
    }

    /// Makes the header say what the accounts add up to, so that harm to records is not refused before
    /// it is met.
    fn balance(&self) {
        let (mut root, mut records, mut bytes) = (Root::EMPTY, 0_u64, 0_u64);
        for [low, high, counts] in self.words[ACCOUNTS].as_chunks::<3>().0 {
            root = root.plus(Root([low.0.get(), high.0.get()]));
            records = records.wrapping_add(counts.0.get() >> 40);
            bytes = bytes.wrapping_add(counts.0.get() & ((1 << 40) - 1));
        }
        for line in [MARKS, MARKS + 8] {
            for (at, value) in [(4, root.0[0]), (5, root.0[1]), (6, records), (7, bytes)] {
                self.words[line + at].store(value);
            }
        }
    }
}

fn aor(number: u64) -> Key {
    Key::aor(&AddressOfRecord::parse(&format!("u{number}@example.net")).unwrap())
}

fn route(digits: &str) -> Key {
    Key::route(Digits::parse(digits).unwrap())
}

fn put(key: Key, level: u64) -> Change {
    let len = usize::try_from(level % 90).unwrap();
    Change {
        key,
        level: Level(level),
        op: ChangeOp::Put(vec![u8::try_from(level % 251).unwrap(); len]),
    }
}

fn bounded<T>(call: impl FnOnce() -> T) -> T {
    LOADS.set(0);
    call()
}

fn read_all<M: Memory>(reader: &Reader<M>, buffer: &mut RecordBuffer) {
    for number in 0..=KEYS {
        let key = aor(number);
        bounded(|| _ = reader.lookup(key.as_bytes(), buffer));
    }
    bounded(|| _ = reader.route(Digits::parse("493012").unwrap(), buffer));
    bounded(|| _ = reader.for_each(ScanCursor::START, usize::MAX, buffer, |_, _, _| {}));
    bounded(|| _ = reader.scan(ScanCursor::START, 500, buffer, &mut Vec::new()));
    for number in 0..3 {
        let partition = reader.partition_of(aor(number).as_bytes());
        bounded(|| _ = reader.partition_records(partition, buffer, &mut Vec::new()));
        bounded(|| _ = reader.scrub_consistent(partition.into(), buffer));
    }
    bounded(|| _ = reader.consistent(Reader::position));
}

fn write_all<M: Memory>(writer: &mut Writer<M>) {
    let at = writer.position();
    let level = at.level.0.min(u64::MAX / 2);
    let mut changes: Vec<Change> = (0..6).map(|n| put(aor(n * 3), level + 1 + n)).collect();
    changes[2].op = ChangeOp::Delete;
    if let Ok(prepared) = bounded(|| writer.prepare(&changes)) {
        let to = Position {
            level: Level(level + 6),
            root: prepared.root_after(),
            ..at
        };
        bounded(|| writer.commit(prepared, &changes, to));
    }
    let at = writer.position();
    let frame = Frame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: at.epoch,
            from: at.level,
            to: Level(at.level.0.saturating_add(6)),
            root_before: at.root,
            root_after: at.root,
            time: MasterTime(0),
        },
        changes,
    };
    bounded(|| _ = writer.follow(&frame));
    for number in [1, 5] {
        let content = [put(aor(number), 200 + number)];
        let partition = writer.partition_of(content[0].key.as_bytes());
        bounded(|| _ = writer.differences(partition, &content));
        bounded(|| _ = writer.repair(partition, &content));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((options, harms)) = input.split_first() else {
        return;
    };
    IMAGE.with(|image| {
        // Eleven bytes each: which word, what is done, with which value.
        for [p0, p1, kind, value @ ..] in harms.as_chunks::<11>().0 {
            let place = usize::from(u16::from_le_bytes([*p0, *p1])) % image.places.len();
            let word = &image.words[image.places[place]];
            let (held, value) = (word.0.get(), u64::from_le_bytes(*value));
            word.store(match kind % 5 {
                0 => held ^ value,
                1 => value,
                2 => held ^ 1 << (value % 64),
                3 => held.wrapping_add(value),
                _ => {
                    let from = usize::try_from(value % 65_536).unwrap() % image.places.len();
                    image.words[image.places[from]].0.get()
                }
            });
        }
        if options & 1 != 0 {
            image.balance();
        }
        if options & 2 != 0 {
            // A batch that died: `begin` is one ahead of `done`.
            image.words[17].store(image.words[16].0.get().wrapping_sub(1));
        }
        let mut buffer = RecordBuffer::new();
        if let Ok(reader) = bounded(|| Reader::open(Words(image.words.as_slice()))) {
            read_all(&reader, &mut buffer);
        }
        if let Ok((mut writer, _)) = bounded(|| Writer::open(Words(image.words.as_slice()))) {
            write_all(&mut writer);
            read_all(&writer.reader(), &mut buffer);
        }
        image.undo();
    });
});
