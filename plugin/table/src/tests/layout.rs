//! The bytes of format 2: whoever changes one of these numbers changes `FORMAT`.

use super::support::{EPOCH, SMALL, TABLE_KEY, aor_key, live_in, put};
use crate::arena::CLASS_MAX;
use crate::layout::{
    AT_ACCOUNTS, AT_BEGIN, AT_DONE, AT_INDEX, AT_JOURNAL, AT_LENGTHS, AT_MARKS, AT_STATE,
};
use crate::{FORMAT, Geometry, HeapMemory, PROBE, Word};

#[test]
fn golden_offsets() {
    assert_eq!(FORMAT, 2);
    assert_eq!(
        [
            AT_STATE,
            AT_BEGIN,
            AT_DONE,
            AT_MARKS,
            AT_ACCOUNTS,
            AT_LENGTHS,
            AT_JOURNAL,
            AT_INDEX
        ],
        [8, 16, 17, 32, 512, 197_120, 198_144, 262_144]
    );
    assert_eq!((PROBE, CLASS_MAX), (40, 105));
    assert_eq!(SMALL.file_bytes(), 3 * (2 << 20));
    let million = Geometry::for_records(1_000_000, 280);
    assert_eq!(million.buckets, 219_781);
    assert_eq!(million.file_bytes(), 377_487_360);
    assert_eq!(million.file_bytes() % (2 << 20), 0);
}

#[test]
fn golden_words() {
    let memory = HeapMemory::zeroed(SMALL.file_bytes());
    let mut writer = live_in(memory.clone(), SMALL);
    let change = put(aor_key(1), 9, 3);
    let prepared = writer.prepare(std::slice::from_ref(&change)).unwrap();
    let to = locus_proto::Position {
        epoch: EPOCH,
        level: locus_proto::Level(9),
        root: prepared.root_after(),
    };
    writer.commit(prepared, std::slice::from_ref(&change), to);
    let words: Vec<u64> = memory.as_ref().iter().map(Word::load).collect();
    assert_eq!(words[0].to_le_bytes(), *b"LOCUSTBL");
    assert_eq!(words[1..4], [2, 4, 262_144]);
    assert_eq!(words[4].to_le_bytes(), TABLE_KEY.0[..8]);
    assert_eq!(words[5].to_le_bytes(), TABLE_KEY.0[8..]);
    assert_eq!((words[8], words[16], words[17]), (2, 1, 1));
    // The mark of batch 1: level, epoch counter, epoch id, root, count, bytes.
    let id = 0x0707_0707_0707_0707;
    assert_eq!(words[40..44], [9, 3, id, id]);
    assert_eq!(words[44..46], to.root.0);
    assert_eq!(words[46..48], [1, 18]);
    // One record: 'a' and "u1@example.net" (15 bytes), value of 3 bytes, in a block of 48 bytes.
    let slots: Vec<u64> = words[262_144..524_288]
        .chunks(8)
        .flat_map(|bucket| &bucket[1..])
        .copied()
        .filter(|word| *word != 0)
        .collect();
    assert_eq!(slots.len(), 1);
    assert_eq!((slots[0] >> 40) & 0xff, 3);
    assert_eq!(slots[0] & 0xff_ffff_ffff, 0);
    let block = &words[524_288..524_294];
    // Lengths and check word: the low bits of the hash, which is the root of the one record.
    assert_eq!(block[..2], [15 | 3 << 16 | to.root.0[0] << 32, 9]);
    assert_eq!(block[2].to_le_bytes(), *b"au1@exam");
    assert_eq!(block[3].to_le_bytes(), *b"ple.net\0");
    // The hash functions: a change of either makes every stored table and sum void.
    assert_eq!(slots[0] >> 48, 0x4c93);
    assert_eq!(to.root.to_string(), "6c94c6475d2ea007578f87d9b25614f8");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for geometry in [
        Geometry {
            buckets: 0,
            arena_bytes: 1,
        },
        Geometry {
            buckets: 1,
            arena_bytes: 0,
        },
        Geometry {
            buckets: u64::MAX,
            arena_bytes: 1,
        },
        Geometry {
            buckets: 1,
            arena_bytes: u64::MAX,
        },
    ] {
        let memory = HeapMemory::zeroed(SMALL.file_bytes());
        assert!(
            crate::Writer::create(memory, geometry, TABLE_KEY).is_err(),
            "{geometry:?}"
        );
    }
    let memory = HeapMemory::zeroed(SMALL.file_bytes() - 8);
    assert!(crate::Writer::create(memory, SMALL, TABLE_KEY).is_err());
}
