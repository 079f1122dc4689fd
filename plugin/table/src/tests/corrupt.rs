//! Any bytes in the memory: readers and the next writer refuse or answer, but never panic or hang.

use std::sync::atomic::AtomicU64;

use locus_proto::{Digits, Key};

use super::support::{Dice, Model, SMALL, aor_key, commit, delete, live_in, put, scan};
use crate::layout::{AT_BEGIN, AT_DONE, AT_INDEX, AT_JOURNAL, AT_MARKS};
use crate::{HeapMemory, OpenTableError, Reader, RecordBuffer, Word, Writer};

/// Calls everything a reader can do, and then what the next writer does.
fn use_all(memory: &HeapMemory, buffer: &mut RecordBuffer) {
    if let Ok(reader) = Reader::open(memory.clone()) {
        for number in 0..12 {
            let key = aor_key(number);
            reader.prefetch(key.as_bytes());
            reader.lookup(key.as_bytes(), buffer);
        }
        reader.route(Digits::parse("493012").unwrap(), buffer);
        reader.consistent(|reader| reader.lookup(b"", buffer).eq(&crate::Lookup::Absent));
        let _whatever = (reader.position(), reader.records(), scan(&reader, 500));
        let _sum = reader.scrub(7, buffer);
    }
    if let Ok((mut writer, recovered)) = Writer::open(memory.clone()) {
        let level = recovered.position.level.0;
        let changes = [
            put(aor_key(1), level + 1, 50),
            delete(aor_key(2), level + 2),
        ];
        if let Ok(prepared) = writer.prepare(&changes) {
            let to = locus_proto::Position {
                root: prepared.root_after(),
                ..recovered.position
            };
            writer.commit(prepared, &changes, to);
        }
    }
}

#[test]
fn no_bytes_panic_or_loop() {
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let (mut writer, mut model) = (live_in(memory.clone(), SMALL), Model::default());
    let mut batch: Vec<_> = (1..=12).map(|i| put(aor_key(i), i, 60)).collect();
    batch.push(put(Key::route(Digits::parse("4930").unwrap()), 13, 9));
    commit(&mut writer, &mut model, &batch);
    drop(writer);
    let words: &[AtomicU64] = memory.as_ref();
    let arena = words.len() - (1 << 17) * 2;
    // Header, a few sums, journal, the four buckets and those behind, the first blocks.
    let places: Vec<usize> = (0..64)
        .chain(AT_JOURNAL..AT_JOURNAL + 40)
        .chain(AT_INDEX..AT_INDEX + 8 * 12)
        .chain(arena..arena + 200)
        .collect();
    let image: Vec<(usize, u64)> = (0..words.len())
        .map(|at| (at, Word::load(&words[at])))
        .filter(|(_, word)| *word != 0)
        .collect();
    let mut buffer = RecordBuffer::new();
    let mut dice = Dice(99);
    for round in 0..1500 {
        for _ in 0..=dice.roll(3) {
            let pick = dice.roll(u64::try_from(places.len()).unwrap());
            let at = places[usize::try_from(pick).unwrap()];
            let bit = 1 << dice.roll(64);
            let word = match dice.roll(4) {
                0 => Word::load(&words[at]) ^ bit,
                1 => u64::MAX,
                2 => Word::load(&words[places[usize::try_from(pick / 2).unwrap()]]),
                _ => dice.roll(1 << 31) << dice.roll(33),
            };
            Word::store(&words[at], word);
        }
        use_all(&memory, &mut buffer);
        if round % 4 == 3 {
            // Start anew from the whole image.
            for at in places.iter().chain(image.iter().map(|(at, _)| at)) {
                Word::store(&words[*at], 0);
            }
            image
                .iter()
                .for_each(|(at, word)| Word::store(&words[*at], *word));
        }
    }
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
        found: 2,
        spoken: 1,
    };
    let spoil: &dyn Fn(&[AtomicU64]) = &|words| Word::store(&words[1], 2);
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
