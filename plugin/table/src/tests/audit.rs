//! What a master and a node compare: sums of partitions and groups, a partition's records, memory read anew;
//! and scans whose steps have an end.

use std::sync::atomic::AtomicU64;

use locus_proto::{Change, Root};

use super::support::{Model, SMALL, aor_key, commit, delete, live, live_in, put};
use crate::layout::AT_BEGIN;
use crate::{
    GROUPS, Geometry, HeapMemory, Memory, PARTITIONS, Reader, RecordBuffer, ScanCursor, ScanError,
    Scrubbed, Word, Writer,
};

fn word(writer: &Writer<HeapMemory>, at: usize) -> &AtomicU64 {
    &writer.memory().words()[at]
}

#[test]
fn sums_and_records_agree_at_every_depth() {
    let (mut writer, mut model) = (live(SMALL), Model::default());
    let batch: Vec<Change> = (1..=100).map(|n| put(aor_key(n), n, 30)).collect();
    commit(&mut writer, &mut model, &batch);
    commit(&mut writer, &mut model, &[delete(aor_key(7), 101)]);
    let (reader, mut buffer) = (writer.reader(), RecordBuffer::new());
    let groups = reader.group_sums();
    assert_eq!(groups.len(), GROUPS);
    let all = groups.iter().copied().fold(Root::EMPTY, Root::plus);
    assert_eq!(all, model.root());
    let mut records = 0;
    for (group, sum) in (0..=u8::MAX).zip(groups) {
        let partitions = reader.partition_sums(group);
        assert_eq!(partitions.len(), PARTITIONS / GROUPS);
        let all = partitions.iter().copied().fold(Root::EMPTY, Root::plus);
        assert_eq!(all, sum, "group {group}");
        for (number, sum) in (0..=u8::MAX).zip(partitions) {
            let partition = u16::from_be_bytes([group, number]);
            assert_eq!(reader.partition_sum(partition.into()), sum);
            if sum == Root::EMPTY {
                continue;
            }
            let mut found = Vec::new();
            let read = reader.partition_records(partition, &mut buffer, &mut found);
            assert_eq!(read, Ok(sum));
            assert_eq!(reader.scrub(partition.into(), &mut buffer), Ok(sum));
            for change in found {
                assert_eq!(reader.partition_of(change.key.as_bytes()), partition);
                assert!(batch.contains(&change) && change.key != aor_key(7));
                records += 1;
            }
        }
    }
    assert_eq!(records, 99);
}

#[test]
fn a_scrub_tells_rot_from_a_batch() {
    let (mut writer, mut model) = (live(SMALL), Model::default());
    commit(&mut writer, &mut model, &[put(aor_key(1), 1, 60)]);
    let partition = usize::from(writer.partition_of(aor_key(1).as_bytes()));
    let mut buffer = RecordBuffer::new();
    let mut scrub = || writer.reader().scrub_consistent(partition, &mut buffer);
    assert_eq!(scrub(), Scrubbed::Agrees);
    // A batch that has begun, and nobody who ends it.
    Word::store(word(&writer, AT_BEGIN), 2);
    assert_eq!(scrub(), Scrubbed::Busy);
    Word::store(word(&writer, AT_BEGIN), 1);
    // A value.
    let value = word(&writer, writer.layout.arena.0 + 6);
    let stored = model.root();
    Word::store(value, !Word::load(value));
    let found = Root::EMPTY;
    assert_eq!(scrub(), Scrubbed::Differs { stored, found });
    // A length that cannot be.
    Word::store(word(&writer, writer.layout.arena.0), u64::MAX);
    assert_eq!(scrub(), Scrubbed::Unreadable(crate::Reason::Corrupt));
    let read = writer.reader().partition_records(
        u16::try_from(partition).unwrap(),
        &mut RecordBuffer::new(),
        &mut Vec::new(),
    );
    assert!(matches!(read, Err(ScanError::Unavailable { .. })));
}

/// Counts the steps of a scan, and the records that they meet.
fn steps<M: Memory>(
    reader: &Reader<M>,
    mut step: impl FnMut(&Reader<M>, ScanCursor) -> Option<ScanCursor>,
) -> usize {
    let (mut steps, mut cursor) = (0, Some(ScanCursor::START));
    while let Some(at) = cursor {
        cursor = step(reader, at);
        steps += 1;
    }
    steps
}

#[test]
fn a_step_through_an_empty_table_has_an_end() {
    let geometry = Geometry {
        buckets: 10_000,
        arena_bytes: 1 << 20,
    };
    let memory = HeapMemory::zeroed(geometry.file_bytes());
    let (mut writer, mut model) = (live_in(memory, geometry), Model::default());
    let batch: Vec<Change> = (1..=20).map(|n| put(aor_key(n), n, 30)).collect();
    commit(&mut writer, &mut model, &batch);
    let (reader, mut buffer) = (writer.reader(), RecordBuffer::new());
    let mut met = 0;
    let in_records = steps(&reader, |reader, at| {
        let each = |_, _: &[u8], _: &[u8]| met += 1;
        reader.for_each(at, 100, &mut buffer, each).unwrap()
    });
    let mut out = Vec::new();
    let in_bytes = steps(&reader, |reader, at| {
        reader.scan(at, 100 * 64, &mut buffer, &mut out).unwrap()
    });
    // 10,040 buckets; the twenty records count for a few more.
    assert_eq!((met, out.len()), (20, 20));
    assert!((101..=102).contains(&in_records), "{in_records}");
    assert!((101..=102).contains(&in_bytes), "{in_bytes}");
    // A step of nothing is a bucket; one without limit is everything.
    let all = steps(&reader, |reader, at| {
        reader.for_each(at, 0, &mut buffer, |_, _, _| ()).unwrap()
    });
    assert_eq!(all, 10_040);
    let one = steps(&reader, |reader, at| {
        reader
            .scan(at, usize::MAX, &mut buffer, &mut Vec::new())
            .unwrap()
    });
    assert_eq!(one, 1);
}

#[test]
fn prefetch_brings_the_bucket_of_the_key() {
    let mut writer = live(SMALL);
    commit(&mut writer, &mut Model::default(), &[put(aor_key(1), 1, 9)]);
    let reader = writer.reader();
    let mut fetched = None;
    reader.prefetch(aor_key(1).as_bytes(), |first| {
        fetched = Some(std::ptr::from_ref(first));
    });
    let start = writer.layout.index.0;
    let buckets = writer.memory().words()[start..].chunks(8).take(44);
    let of_key = buckets.filter(|bucket| bucket[1..].iter().any(|slot| Word::load(slot) != 0));
    let firsts: Vec<_> = of_key
        .map(|bucket| Some(std::ptr::from_ref(&bucket[0])))
        .collect();
    assert_eq!(firsts, [fetched]);
}
