//! Harm at random: what a scrub passes is right, and repairs make the table what the master says it holds,
//! also where a writer died in the middle of one and the next could open the table.

use locus_proto::{Change, Key};

use super::crash::Image;
use super::repair::{PARTITION, content, fill, model_with, same};
use super::support::{
    Dice, Model, SMALL, aor_key, check, commit, delete, get, live, live_in, put, scan,
};
use crate::layout::{AT_ACCOUNTS, AT_LENGTHS, BUCKET_WORDS};
use crate::{Memory, RecordBuffer, Scrubbed, Word, Writer};

/// Rounds of an audit, as a node's.
const ROUNDS_MAX: usize = 3;

fn roll(dice: &mut Dice, below: usize) -> usize {
    usize::try_from(dice.roll(u64::try_from(below).unwrap())).unwrap()
}

fn batch(dice: &mut Dice, level: u64) -> Vec<Change> {
    let mut batch = Vec::new();
    for number in 0..8_usize {
        let key = if number < 4 {
            same(roll(dice, 3) + number * 3)
        } else {
            aor_key(u64::try_from(number * 5).unwrap() + dice.roll(5))
        };
        let level = level + 1 + u64::try_from(number).unwrap();
        batch.push(match dice.roll(3) {
            0 => delete(key, level),
            _ => put(key, level, roll(dice, 90)),
        });
    }
    batch
}

/// The words of all slots, with the first words of their buckets.
fn index<M: Memory>(writer: &Writer<M>) -> std::ops::Range<usize> {
    let start = writer.layout.index.0;
    start..start + 44 * BUCKET_WORDS
}

/// Fills a table so that it has a past: blocks that were given back hold what was in them, and what their
/// slots were is returned.
fn age<M: Memory>(writer: &mut Writer<M>, dice: &mut Dice) -> (Model, Vec<u64>) {
    let mut model = model_with(10);
    fill(writer, &model);
    let mut slots = Vec::new();
    for _ in 0..3 {
        slots.extend(
            writer.memory().words()[index(writer)]
                .iter()
                .map(Word::load),
        );
        let batch = batch(dice, model.level.0);
        commit(writer, &mut model, &batch);
    }
    slots.retain(|word| *word != 0);
    (model, slots)
}

/// Changes a word that is in use, or makes a slot of nothing.
fn harm<M: Memory>(writer: &Writer<M>, dice: &mut Dice, slots: &[u64]) {
    let words = writer.memory().words();
    let (index, arena) = (index(writer), writer.layout.arena.0);
    let mut at = match dice.roll(8) {
        0 => AT_ACCOUNTS..AT_LENGTHS,
        1..4 => arena..arena + 20_000,
        4..6 => index,
        _ => index.start..index.start + 8 * BUCKET_WORDS,
    };
    let used: Vec<usize> = at.clone().filter(|at| words[*at].load() != 0).collect();
    let at = match dice.roll(4) {
        0 if at.len() < 100 => at.nth(roll(dice, 60)).unwrap(),
        _ => used[roll(dice, used.len())],
    };
    let word = words[at].load();
    words[at].store(match dice.roll(6) {
        0 => 0,
        1 => u64::MAX,
        2 => dice.roll(1 << 30) << 34 | dice.roll(1 << 30),
        3 => word ^ 1 << dice.roll(64),
        _ => slots[roll(dice, slots.len())],
    });
}

/// Repairs all partitions as an audit does, and checks the table and what is done to it afterwards.
fn mend<M: Memory>(writer: &mut Writer<M>, model: &Model) -> Result<(), String> {
    let keys = model.records.keys().map(Key::as_bytes);
    let mut partitions: Vec<u16> = keys.map(|key| writer.partition_of(key)).collect();
    partitions.extend([0, PARTITION, u16::MAX]);
    partitions.dedup();
    for _ in 0..ROUNDS_MAX {
        let mut differed = 0;
        for partition in &partitions {
            let content = content(writer, model, *partition);
            let repaired = writer.repair(*partition, &content);
            differed += repaired.map_err(|error| format!("{error:?}"))?.differed;
        }
        if differed == 0 {
            return check(writer, model, &[]);
        }
    }
    Err("differs in the last round".to_owned())
}

#[test]
fn harm_at_random_is_mended() {
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut writer = live(SMALL);
        let (mut model, slots) = age(&mut writer, &mut dice);
        for _ in 0..=dice.roll(4) {
            harm(&writer, &mut dice, &slots);
        }
        let failed = |error| -> ! { panic!("seed {seed}: {error}") };
        mend(&mut writer, &model).unwrap_or_else(|error| failed(error));
        let batch = batch(&mut dice, model.level.0);
        commit(&mut writer, &mut model, &batch);
        let opened = Writer::open(writer.memory().clone());
        let (reopened, _) = opened.unwrap_or_else(|error| failed(error.to_string()));
        check(&reopened, &model, &[]).unwrap_or_else(|error| failed(error));
    }
}

/// What no scrub sees neither look-ups nor scans may meet.
#[test]
fn what_a_scrub_passes_is_right() {
    let keys: Vec<Key> = (0..12).map(same).chain((20..45).map(aor_key)).collect();
    let (mut passed, mut buffer) = (0, RecordBuffer::new());
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut writer = live(SMALL);
        let (model, slots) = age(&mut writer, &mut dice);
        harm(&writer, &mut dice, &slots);
        let reader = writer.reader();
        let of_keys = keys.iter().chain(model.records.keys());
        let mut partitions: Vec<u16> = of_keys
            .map(|key| reader.partition_of(key.as_bytes()))
            .collect();
        partitions.extend([0, 1 << 14, 1 << 15, u16::MAX]); // each bucket is home of one of them
        let agrees = |partition| {
            reader.scrub_consistent(usize::from(partition), &mut buffer) == Scrubbed::Agrees
        };
        if partitions.into_iter().all(agrees) {
            passed += 1;
            for key in keys.iter().chain(model.records.keys()) {
                let found = get(&reader, key, &mut buffer);
                let expected = Ok(model.records.get(key).cloned());
                assert_eq!(found, expected, "seed {seed}: {key}");
            }
            let scanned = scan(&reader, 1000);
            assert_eq!(scanned.as_ref(), Ok(&model.records), "seed {seed}");
        }
    }
    assert!(passed > 50, "{passed} harms that are none");
}

#[test]
fn a_death_within_the_repair_of_random_harm_is_survived_or_refused() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let image = Image::new(SMALL);
        let mut writer = live_in(image.words(), SMALL);
        let (model, slots) = age(&mut writer, &mut dice);
        for _ in 0..=dice.roll(2) {
            harm(&writer, &mut dice, &slots);
        }
        let key = model
            .records
            .keys()
            .nth(roll(&mut dice, model.records.len()))
            .unwrap();
        let partition = writer.partition_of(key.as_bytes());
        let content = content(&writer, &model, partition);
        image.take_log();
        let repaired = writer.repair(partition, &content);
        drop(writer);
        repaired.unwrap();
        let stores = image.take_log();
        image.undo(&stores);
        let ends = roll(&mut dice, stores.len() + 1);
        stores[..ends].iter().for_each(|store| image.redo(*store));
        match Writer::open(image.words()) {
            // Rot elsewhere: the table is loaded anew.
            Err(_) => refused += 1,
            Ok((mut writer, _)) => {
                opened += 1;
                mend(&mut writer, &model).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
        }
    }
    assert!(
        opened > 40 && refused > 20,
        "{opened} opened, {refused} refused"
    );
}
