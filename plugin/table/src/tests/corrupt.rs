//! Any bytes in the memory: readers and the next writer refuse or answer, but never panic or hang.
//!
//! The words count what is loaded, so that an endless loop is a failure and no wait.

use std::cell::{Cell, RefCell};
use std::sync::atomic::AtomicU64;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use locus_proto::{Change, Digits, Frame, FrameHeader, FrameKind, Key, MasterTime, Position};

use super::support::{Model, SMALL, aor_key, commit, delete, live_in, put, scan};
use crate::layout::{
    AT_ACCOUNTS, AT_BEGIN, AT_DONE, AT_INDEX, AT_JOURNAL, AT_LENGTHS, AT_MARKS, HEADER_WORDS,
};
use crate::{
    FORMAT, HeapMemory, Memory, OpenTableError, Reader, RecordBuffer, ScanCursor, Word, Words,
    Writer,
};

/// More than any one call may load from a table of two million words without a writer beside it.
const LOADS_MAX: u64 = 10_000_000;
const KEYS: u64 = 12;

thread_local! {
    static LOADS: Cell<u64> = const { Cell::new(0) };
    /// Addresses of words and what they held before they were stored to.
    static STORED: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
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

/// The words of a table that was well before they were spoiled.
struct Image(Vec<Watched>);

impl Image {
    fn new() -> Self {
        let words = usize::try_from(SMALL.file_bytes() / 8).unwrap();
        let image = Self((0..words).map(|_| Watched::default()).collect());
        let (mut writer, mut model) = (live_in(Words(&image.0), SMALL), Model::default());
        let mut batch: Vec<_> = (1..=KEYS).map(|i| put(aor_key(i), i, 60)).collect();
        batch.push(put(route_key("4930"), KEYS + 1, 9));
        commit(&mut writer, &mut model, &batch);
        drop(writer);
        STORED.take();
        image
    }

    /// Takes back whatever was stored since the image was whole.
    fn undo(&self) {
        let base = self.0.as_ptr().addr();
        for (address, old) in STORED.take().into_iter().rev() {
            self.0[(address - base) / 8].0.set(old);
        }
    }

    /// Words that are used: most of a table are not.
    fn places(&self) -> Vec<usize> {
        let used = |at: &usize| self.0[*at].0.get() != 0;
        let arena = self.0.len() - (1 << 17);
        let mut places: Vec<usize> = (0..64)
            .chain((AT_ACCOUNTS..AT_LENGTHS + 1024).filter(used))
            .chain(AT_JOURNAL..AT_JOURNAL + 60)
            .chain(AT_INDEX..AT_INDEX + 8 * 12)
            .chain((arena - (1 << 17)..arena + (1 << 17)).filter(used))
            .collect();
        places.dedup();
        places
    }
}

fn route_key(digits: &str) -> Key {
    Key::route(Digits::parse(digits).unwrap())
}

/// Calls `run`, which may load so much and no more.
fn bounded<T>(run: impl FnOnce() -> T) -> T {
    LOADS.set(0);
    run()
}

fn read_all<M: Memory>(reader: &Reader<M>, buffer: &mut RecordBuffer) {
    for number in 0..=KEYS {
        let key = aor_key(number);
        reader.prefetch(key.as_bytes(), |_| {});
        bounded(|| {
            reader
                .lookup(key.as_bytes(), buffer)
                .eq(&crate::Lookup::Absent)
        });
    }
    bounded(|| {
        reader
            .route(Digits::parse("493012").unwrap(), buffer)
            .eq(&crate::Lookup::Absent)
    });
    bounded(|| reader.consistent(|reader| reader.lookup(b"", buffer).eq(&crate::Lookup::Absent)));
    let _position = bounded(|| (reader.position(), reader.records(), reader.payload_bytes()));
    let _scanned = bounded(|| scan(reader, 500));
    let _each = bounded(|| reader.for_each(ScanCursor::START, usize::MAX, buffer, |_, _, _| {}));
    for partition in [7, reader.partition_of(aor_key(1).as_bytes())] {
        let _records = bounded(|| reader.partition_records(partition, buffer, &mut Vec::new()));
        let _sum = bounded(|| reader.scrub(partition.into(), buffer));
        let _scrubbed = bounded(|| reader.scrub_consistent(partition.into(), buffer));
    }
    let _sums = bounded(|| (reader.group_sums(), reader.partition_sums(u8::MAX)));
}

/// What the next writer does with a table that it could open: a batch, a frame, repairs.
fn write_all<M: Memory>(writer: &mut Writer<M>) {
    let position = writer.position();
    let level = position.level.0;
    let changes = |at: u64| {
        let at = at.min(u64::MAX / 2);
        [put(aor_key(1), at + 1, 50), delete(aor_key(2), at + 2)]
    };
    let batch = changes(level);
    if let Ok(prepared) = bounded(|| writer.prepare(&batch)) {
        let to = Position {
            root: prepared.root_after(),
            ..position
        };
        bounded(|| writer.commit(prepared, &batch, to));
    }
    let before = writer.position();
    let frame = Frame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: before.epoch,
            from: before.level,
            to: locus_proto::Level(before.level.0.saturating_add(2)),
            root_before: before.root,
            root_after: before.root,
            time: MasterTime(0),
        },
        changes: changes(before.level.0).to_vec(),
    };
    let _refused = bounded(|| writer.apply(&frame).is_err());
    let _followed = bounded(|| writer.follow(&frame).is_err());
    for number in [1, 3] {
        let key = aor_key(number);
        let partition = writer.partition_of(key.as_bytes());
        let content: [Change; 1] = [put(key, number, 60)];
        let _differs = bounded(|| writer.differences(partition, &content).is_err());
        let _repaired = bounded(|| writer.repair(partition, &content).is_err());
    }
}

/// Calls everything a reader can do, and then what the next writer does.
fn use_all(words: &[Watched]) {
    let mut buffer = RecordBuffer::new();
    if let Ok(reader) = bounded(|| Reader::open(Words(words))) {
        read_all(&reader, &mut buffer);
    }
    if let Ok((mut writer, _)) = bounded(|| Writer::open(Words(words))) {
        write_all(&mut writer);
        read_all(&writer.reader(), &mut buffer);
    }
}

/// One harm to the memory, at one of the words that are used.
#[derive(Debug, Clone)]
enum Harm {
    Bit {
        place: usize,
        bit: u32,
    },
    Byte {
        place: usize,
        byte: u32,
        value: u8,
    },
    Word {
        place: usize,
        value: u64,
    },
    /// What stands elsewhere.
    Copy {
        place: usize,
        from: usize,
    },
    /// So many words of nothing.
    Rub {
        place: usize,
        words: usize,
    },
}

fn harm(places: usize) -> impl Strategy<Value = Harm> {
    let place = move || 0..places;
    prop_oneof![
        (place(), 0..64_u32).prop_map(|(place, bit)| Harm::Bit { place, bit }),
        (place(), 0..8_u32, any::<u8>()).prop_map(|(place, byte, value)| Harm::Byte {
            place,
            byte,
            value
        }),
        (
            place(),
            prop_oneof![Just(u64::MAX), Just(0), any::<u64>(), 0..5000_u64]
        )
            .prop_map(|(place, value)| Harm::Word { place, value }),
        (place(), place()).prop_map(|(place, from)| Harm::Copy { place, from }),
        (place(), 1..40_usize).prop_map(|(place, words)| Harm::Rub { place, words }),
    ]
}

impl Harm {
    fn cause(&self, words: &[Watched], places: &[usize]) {
        let word = |place: usize| &words[places[place]];
        match *self {
            Self::Bit { place, bit } => word(place).store(word(place).0.get() ^ 1 << bit),
            Self::Byte { place, byte, value } => {
                let shift = byte * 8;
                let kept = word(place).0.get() & !(0xff << shift);
                word(place).store(kept | u64::from(value) << shift);
            }
            Self::Word { place, value } => word(place).store(value),
            Self::Copy { place, from } => word(place).store(word(from).0.get()),
            Self::Rub {
                place,
                words: count,
            } => {
                let from = places[place];
                words[from..]
                    .iter()
                    .take(count)
                    .for_each(|word| word.store(0));
            }
        }
    }
}

#[test]
fn no_harm_to_the_memory_panics_or_loops() {
    let image = Image::new();
    let places = image.places();
    let config = ProptestConfig {
        cases: 100,
        rng_seed: RngSeed::Fixed(20_261_124),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let harms = vec(harm(places.len()), 1..4);
    let result = TestRunner::new(config).run(&harms, |harms| {
        image.undo();
        for harm in harms {
            harm.cause(&image.0, &places);
        }
        use_all(&image.0);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Each word of the header, with each value that is worth a try.
#[test]
fn no_header_panics_or_loops() {
    let image = Image::new();
    let len = u64::try_from(image.0.len()).unwrap();
    // Constants, state, sequence, journal, marks; the rest of the header is not used.
    let words = [0..6, 8..9, 16..18, 24..27, AT_MARKS..AT_MARKS + 16];
    for at in words.into_iter().flatten() {
        let held = image.0[at].0.get();
        let values = [0, 1, held ^ 1 << 63, len, u64::MAX];
        for value in values.into_iter().filter(|value| *value != held) {
            image.0[at].store(value);
            use_all(&image.0);
            image.undo();
        }
    }
}

/// A table that is cut short is refused whole, wherever the cut is.
#[test]
fn no_cut_panics_or_opens() {
    let image = Image::new();
    let len = image.0.len();
    let cuts = (0..=HEADER_WORDS)
        .chain([
            AT_ACCOUNTS + 1,
            AT_LENGTHS,
            AT_JOURNAL,
            AT_INDEX - 1,
            AT_INDEX,
            AT_INDEX + 9,
        ])
        .chain((1..64).map(|part| len / 64 * part))
        .chain([len - 1]);
    for cut in cuts {
        let words = &image.0[..cut];
        assert!(Reader::open(Words(words)).is_err(), "{cut} of {len} words");
        assert!(Writer::open(Words(words)).is_err(), "{cut} of {len} words");
    }
    assert!(Reader::open(Words(&image.0)).is_ok());
}

/// The watch itself must be able to fail.
#[test]
#[should_panic(expected = "a loop without an end")]
fn a_loop_is_noticed() {
    let word = Watched::default();
    bounded(|| while word.load() == 0 {});
}

#[test]
fn what_contradicts_itself_is_refused() {
    let open = |spoil: &dyn Fn(&[AtomicU64])| {
        let memory = HeapMemory::zeroed(SMALL.file_bytes());
        let (mut writer, mut model) = (live_in(memory.clone(), SMALL), Model::default());
        commit(&mut writer, &mut model, &[put(aor_key(1), 1, 60)]);
        drop(writer);
        spoil(memory.as_ref());
        let reader = Reader::open(memory.clone()).map(|_| ());
        (
            reader,
            Writer::open(memory).map(|(_, recovered)| recovered.redone),
        )
    };
    assert_eq!(open(&|_| {}), (Ok(()), Ok(false)));
    let magic = OpenTableError::Magic(0);
    let spoil: &dyn Fn(&[AtomicU64]) = &|words| Word::store(&words[0], 0);
    assert_eq!(open(spoil), (Err(magic.clone()), Err(magic)));
    let format = OpenTableError::Format {
        found: FORMAT + 1,
        spoken: FORMAT,
    };
    let spoil: &dyn Fn(&[AtomicU64]) = &|words| Word::store(&words[1], FORMAT + 1);
    assert_eq!(open(spoil), (Err(format.clone()), Err(format)));
    let spoil: &dyn Fn(&[AtomicU64]) = &|words| Word::store(&words[8], 1);
    assert_eq!(
        open(spoil),
        (Err(OpenTableError::Loading), Err(OpenTableError::Loading))
    );
    let spoil: &dyn Fn(&[AtomicU64]) = &|words| Word::store(&words[3], 1 << 40);
    assert!(matches!(
        open(spoil),
        (Err(OpenTableError::TooSmall { .. }), Err(_))
    ));
    let corrupt: [(&'static str, usize, u64); 4] = [
        ("sequence", 16, 9),
        ("count", 46, 2),
        ("root", 44, 1),
        ("journal", 17, 0),
    ];
    for (what, at, word) in corrupt {
        let spoil: &dyn Fn(&[AtomicU64]) = &|words| {
            Word::store(&words[AT_JOURNAL], 7);
            Word::store(&words[at], word);
        };
        let expected = OpenTableError::Corrupt { what };
        assert_eq!(open(spoil), (Ok(()), Err(expected)), "{what}");
    }
}

/// A batch number at the end of its range is a number like any other.
#[test]
fn the_last_batch_number_is_no_end() {
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let (writer, mut model) = (live_in(memory.clone(), SMALL), Model::default());
    drop(writer);
    let words: &[AtomicU64] = memory.as_ref();
    for line in 0..8 {
        Word::store(
            &words[AT_MARKS + 8 + line],
            Word::load(&words[AT_MARKS + line]),
        );
    }
    for at in [AT_BEGIN, AT_DONE] {
        Word::store(&words[at], u64::MAX);
    }
    let (mut writer, recovered) = Writer::open(memory.clone()).unwrap();
    assert!(!recovered.redone);
    commit(&mut writer, &mut model, &[put(aor_key(1), 1, 9)]);
    assert_eq!(Writer::open(memory).unwrap().1.position, model.position());
}
