//! What does not fit is refused whole, and says what to do.

use locus_proto::{
    Change, ChangeOp, FRAME_CHANGES_MAX, Frame, FrameHeader, FrameKind, Level, MasterTime, Root,
};

use super::support::{Dice, EPOCH, Model, SMALL, aor_key, check, commit, delete, live, put};
use crate::{ApplyError, Geometry, PrepareError, VALUE_BYTES_MAX};

#[test]
fn a_full_arena_refuses_the_whole_batch() {
    let (mut writer, mut model) = (live(SMALL), Model::default());
    let batch = |level: u64| -> Vec<Change> {
        let numbers = (level / 3) * 3;
        (1..=3)
            .map(|i| put(aor_key(numbers + i), level + i, 30_000))
            .collect()
    };
    let refused = loop {
        let changes = batch(model.level.0);
        match writer.prepare(&changes) {
            Ok(prepared) => {
                model.apply(&changes);
                writer.commit(prepared, &changes, model.position());
            }
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refused,
            PrepareError::ArenaFull {
                need_slabs: 1,
                free_slabs: 0
            }
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("raise records_max"));
    check(&writer, &model, &[]).unwrap();
    // Even a replacement needs room for both; after a delete there is some again.
    let level = model.level.0;
    commit(
        &mut writer,
        &mut model,
        &[delete(aor_key(1), level + 1), delete(aor_key(2), level + 2)],
    );
    commit(&mut writer, &mut model, &[put(aor_key(3), level + 3, 20)]);
    check(&writer, &model, &[]).unwrap();
}

#[test]
fn a_full_index_refuses_the_whole_batch() {
    let geometry = Geometry {
        buckets: 1,
        arena_bytes: 1 << 20,
    };
    let (mut writer, mut model) = (live(geometry), Model::default());
    let all: Vec<_> = (1..=287).map(|i| put(aor_key(i), i, 8)).collect();
    commit(&mut writer, &mut model, &all);
    let more = [put(aor_key(1), 288, 9), put(aor_key(288), 289, 8)];
    let refused = writer.prepare(&more).unwrap_err();
    assert_eq!(
        refused,
        PrepareError::IndexFull {
            records: 287,
            buckets: 1
        }
    );
    check(&writer, &model, &[]).unwrap();
    // Two at once do not take the same last slot.
    commit(&mut writer, &mut model, &[delete(aor_key(5), 288)]);
    let two = [put(aor_key(288), 289, 8), put(aor_key(289), 290, 8)];
    assert!(matches!(
        writer.prepare(&two),
        Err(PrepareError::IndexFull { .. })
    ));
    commit(&mut writer, &mut model, &two[..1]);
    check(&writer, &model, &[aor_key(289)]).unwrap();
}

#[test]
fn batches_have_limits() {
    let writer = live(SMALL);
    let many: Vec<_> = (1..=1025).map(|i| delete(aor_key(i), i)).collect();
    assert!(writer.prepare(&many[..FRAME_CHANGES_MAX]).is_ok());
    assert!(matches!(
        writer.prepare(&many),
        Err(PrepareError::TooManyChanges {
            changes: 1025,
            max: 1024
        })
    ));
    let twice = [put(aor_key(1), 1, 1), delete(aor_key(1), 2)];
    assert_eq!(
        writer.prepare(&twice).unwrap_err(),
        PrepareError::KeyTwice(aor_key(1))
    );
    let long = put(aor_key(1), 1, VALUE_BYTES_MAX + 1);
    assert!(matches!(
        writer.prepare(&[long]),
        Err(PrepareError::ValueTooLong { .. })
    ));
    let large: Vec<_> = (1..=17).map(|i| put(aor_key(i), i, 31_000)).collect();
    assert!(matches!(
        writer.prepare(&large),
        Err(PrepareError::TooLarge { .. })
    ));
}

#[test]
fn the_largest_record_and_the_empty_one() {
    let (mut writer, mut model) = (live(SMALL), Model::default());
    let name = "x".repeat(locus_proto::AOR_BYTES_MAX);
    let longest = locus_proto::Key::aor(&locus_proto::AddressOfRecord::parse(&name).unwrap());
    let batch = [put(longest, 1, VALUE_BYTES_MAX), put(aor_key(1), 2, 0)];
    commit(&mut writer, &mut model, &batch);
    check(&writer, &model, &[]).unwrap();
}

/// The journal holds any frame that can be sent.
#[test]
fn the_largest_frame_fits_the_journal() {
    let heads = 88 + FRAME_CHANGES_MAX * 16;
    let payload = locus_proto::FRAME_BYTES_MAX - heads;
    // Padding is worst where each key and value ends one byte into a word.
    let words = FRAME_CHANGES_MAX * (2 + 2) + payload / 8;
    assert!(words * 8 <= crate::journal::JOURNAL_BYTES);
}

fn frame(model: &Model, changes: Vec<Change>) -> (Frame, Model) {
    let mut after = model.clone();
    after.apply(&changes);
    let header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch: EPOCH,
        from: model.level,
        to: after.level,
        root_before: model.root(),
        root_after: after.root(),
        time: MasterTime(1),
    };
    (Frame { header, changes }, after)
}

#[test]
fn frames_apply_exactly_where_they_belong() {
    let (mut writer, model) = (live(SMALL), Model::default());
    let (first, model) = frame(&model, vec![put(aor_key(1), 1, 10)]);
    assert_eq!(writer.apply(&first), Ok(model.root()));
    let gap = ApplyError::LevelGap {
        have: Level(1),
        got: Level(0),
    };
    assert_eq!(writer.apply(&first), Err(gap));

    let (good, after) = frame(&model, vec![put(aor_key(2), 2, 10), delete(aor_key(1), 3)]);
    let mut bad = good.clone();
    bad.header.root_before = Root::EMPTY;
    assert!(matches!(
        writer.apply(&bad),
        Err(ApplyError::RootBefore { .. })
    ));
    let mut bad = good.clone();
    bad.changes[0].op = ChangeOp::Put(vec![1]);
    assert!(matches!(
        writer.apply(&bad),
        Err(ApplyError::RootAfter { .. })
    ));
    check(&writer, &model, &[aor_key(2)]).unwrap();
    assert_eq!(writer.apply(&good), Ok(after.root()));
    check(&writer, &after, &[aor_key(1)]).unwrap();

    // A frame of a new epoch moves the position alone.
    let mut epoch = good.header;
    (epoch.kind, epoch.from, epoch.root_before) = (FrameKind::Epoch, Level(3), epoch.root_after);
    epoch.epoch.counter += 1;
    let frame = Frame {
        header: epoch,
        changes: Vec::new(),
    };
    assert_eq!(writer.apply(&frame), Ok(after.root()));
    assert_eq!(writer.reader().position(), epoch.after());

    // A repair: the same level again, with other content.
    let repair = [put(aor_key(3), 2, 5)];
    let prepared = writer.prepare(&repair).unwrap();
    let to = locus_proto::Position {
        root: prepared.root_after(),
        ..epoch.after()
    };
    writer.commit(prepared, &repair, to);
    assert_eq!(writer.reader().position(), to);
}

/// A frame of which one change does not fit changes nothing, whether its content is compared or not.
#[test]
fn frames_that_do_not_fit_are_refused_whole() {
    let geometry = Geometry {
        buckets: 1,
        arena_bytes: 1 << 20,
    };
    let (mut writer, mut model) = (live(geometry), Model::default());
    // 57 of these take 29 of the 32 slabs, and short ones one slab more.
    let large: Vec<_> = (1..=57).map(|n| put(aor_key(n), n, 30_000)).collect();
    for batch in large.chunks(10) {
        commit(&mut writer, &mut model, batch);
    }
    let fitting = put(aor_key(1), 58, 20);
    let no_room: Vec<_> = (59..=66).map(|n| put(aor_key(n), n, 30_000)).collect();
    let no_class = vec![put(aor_key(2), 59, VALUE_BYTES_MAX + 1)];
    let no_slot: Vec<_> = (59..=300).map(|n| put(aor_key(n), n, 8)).collect();
    type Expected = fn(&PrepareError) -> bool;
    let cases: [(Vec<Change>, Expected); 3] = [
        (no_room, |e| matches!(e, PrepareError::ArenaFull { .. })),
        (no_class, |e| matches!(e, PrepareError::ValueTooLong { .. })),
        (no_slot, |e| matches!(e, PrepareError::IndexFull { .. })),
    ];
    for (more, expected) in cases {
        let mut changes = vec![fitting.clone()];
        changes.extend(more);
        let (frame, _) = frame(&model, changes);
        let before = writer.position();
        for refused in [
            writer.apply(&frame),
            writer.follow(&frame).map(|to| to.root),
        ] {
            let fits = matches!(&refused, Err(ApplyError::Prepare(e)) if expected(e));
            assert!(fits, "{refused:?}");
        }
        assert_eq!(writer.position(), before);
        check(&writer, &model, &[aor_key(59)]).unwrap();
    }
}

/// What [`crate::Writer::prepare`] admits, a commit has room for: however few slabs are left, and
/// whichever classes give theirs up on the way.
#[test]
fn what_is_admitted_fits() {
    let (mut writer, mut model) = (
        live(Geometry {
            buckets: 40,
            ..SMALL
        }),
        Model::default(),
    );
    let mut dice = Dice(11);
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..600 {
        let mut level = model.level.0;
        let mut batch: Vec<Change> = Vec::new();
        for _ in 0..=dice.roll(24) {
            let key = aor_key(dice.roll(150));
            if batch.iter().any(|change| change.key == key) {
                continue;
            }
            level += 1;
            // Blocks of which a slab holds one, a few, or very many.
            let len = [40, 900, 9000, 17_000, 31_000][usize::try_from(dice.roll(5)).unwrap()];
            let len = usize::try_from(len - dice.roll(40)).unwrap();
            batch.push(match dice.roll(8) {
                0 => delete(key, level),
                _ => put(key, level, len),
            });
        }
        match writer.prepare(&batch) {
            Ok(prepared) => {
                model.apply(&batch);
                writer.commit(prepared, &batch, model.position());
                admitted += 1;
            }
            Err(PrepareError::ArenaFull { .. } | PrepareError::TooLarge { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(admitted > 100 && refused > 100, "{admitted} {refused}");
    check(&writer, &model, &[]).unwrap();
}
