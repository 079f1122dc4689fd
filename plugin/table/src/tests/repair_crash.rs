//! Death at every store of a repair, and at every store of the recovery after it.
//!
//! As for a batch: see `crash.rs`. Until the repair has begun, the table is what it was, rot included.

use locus_proto::{Key, Level};

use super::crash::{Image, Store, Traced};
use super::repair::{
    PARTITION, SAME, Spoilt, Stored, before_keys, content, fill, model_with, same, spoil_account,
    ways,
};
use super::support::{Model, SMALL, aor_key, check, get, live_in, put};
use crate::layout::{AT_BEGIN, AT_DONE};
use crate::{Reader, RecordBuffer, Word, Writer};

/// A repair, its stores, and what is true before and after it.
struct Story {
    stores: Vec<Store>,
    before: Model,
    after: Model,
    /// Keys of which "absent" would be wrong at any moment: their rot can be seen.
    never_absent: Vec<Key>,
    /// Rot of the index itself is met by whoever opens the table before the repair began.
    opens_before: bool,
}

impl Story {
    /// Checks that look-ups find every key that was right all the time, and the others old, new or not.
    fn check_reader(&self, image: &Image) -> Result<(), String> {
        let reader = Reader::open(image.words()).map_err(|error| error.to_string())?;
        let mut buffer = RecordBuffer::new();
        for (key, record) in &self.after.records {
            let found = get(&reader, key, &mut buffer);
            let was_right = self.before.records.get(key) == Some(record);
            match found {
                Ok(Some(found)) if found == *record => {}
                Ok(None) if self.never_absent.contains(key) => {
                    return Err(format!("{key} is absent"));
                }
                Ok(found) if !was_right && found.as_ref() == self.before.records.get(key) => {}
                Err(_) if !self.before.records.contains_key(key) => {}
                other @ (Ok(_) | Err(_)) => return Err(format!("{key}: {other:?}")),
            }
        }
        Ok(())
    }

    fn check_recovery(&self, image: &Image) -> Result<Vec<Store>, String> {
        let (begin, done) = (image.0[AT_BEGIN].load(), image.0[AT_DONE].load());
        let opened = Writer::open(image.words());
        let recovery = image.take_log();
        let result = match opened {
            Err(_) if begin == 1 && !self.opens_before => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok((_, recovered)) if recovered.redone != (begin != done) => {
                Err("redone or not".to_owned())
            }
            Ok((writer, _)) if begin == 2 => check(&writer, &self.after, &SAME.map(aor_key)),
            Ok((writer, _)) if self.opens_before => check(&writer, &self.before, &[]),
            Ok(_) => Ok(()), // the rot is still there
        };
        image.undo(&recovery);
        result.map(|()| recovery)
    }

    fn check_all(&self, image: &Image, stores: &[Store], nested_each: usize) -> Result<(), String> {
        for (at, store) in stores.iter().enumerate() {
            let step = |error| format!("store {at} of {}: {error}", stores.len());
            image.redo(*store);
            self.check_reader(image).map_err(step)?;
            let recovery = self.check_recovery(image).map_err(step)?;
            if nested_each != 0 && at.is_multiple_of(nested_each) && !recovery.is_empty() {
                self.check_all(image, &recovery, 0).map_err(step)?;
                image.undo(&recovery);
            }
        }
        Ok(())
    }
}

/// Repairs in a traced image and takes all stores of the repair back.
fn story(image: &Image, spoil: impl Fn(&Spoilt<'_, Traced>, &mut Model)) -> Story {
    let mut writer = live_in(image.words(), SMALL);
    let after = model_with(8);
    fill(&mut writer, &after);
    let mut before = after.clone();
    spoil(&Spoilt::of(&writer, &after), &mut before);
    spoil_account(&mut writer, Stored::Rotten);
    image.take_log();
    let content = content(&writer, &after, PARTITION);
    writer.repair(PARTITION, &content).unwrap();
    drop(writer);
    let stores = image.take_log();
    image.undo(&stores);
    Story {
        stores,
        before,
        after,
        never_absent: Vec::new(),
        opens_before: false,
    }
}

#[test]
fn death_at_every_store_of_a_repair_of_rot() {
    let image = Image::new(SMALL);
    let mut story = story(&image, |at, before| {
        at.block(at.slots[0], 2, |word| !word); // a key
        at.set(at.slots[1], |_| 0);
        at.set(at.slots[2], |word| word | 0xff << 40); // a slot that names no block
        at.block(at.slots[3], 0, |word| word | 0x7000 << 16); // a length
        at.block(at.slots[4], 6, |word| !word); // a value: found, and wrong, until it is replaced
        at.block(at.slots[5], 0, |word| word ^ 1 << 40); // a check word: nothing else
        let keys = before_keys(before);
        for key in &keys[..4] {
            before.records.remove(key);
        }
        let (_, value) = before.records.get_mut(&keys[4]).unwrap();
        for byte in &mut value[8..16] {
            *byte = !*byte;
        }
    });
    story.never_absent = before_keys(&story.after)[2..4].to_vec();
    assert!(story.stores.len() > 60, "{} stores", story.stores.len());
    story.check_all(&image, &story.stores, 37).unwrap();
}

#[test]
fn death_at_every_store_of_a_clean_repair() {
    let image = Image::new(SMALL);
    let after = model_with(8);
    let mut before = after.clone();
    before.records.remove(&same(1));
    before.records.insert(same(2), (Level(2), vec![9; 77]));
    before.apply(&[put(same(12), 3, 30)]);
    let mut writer = live_in(image.words(), SMALL);
    fill(&mut writer, &before);
    image.take_log();
    let content = content(&writer, &after, PARTITION);
    let repaired = writer.repair(PARTITION, &content).unwrap();
    assert_eq!((repaired.differed, repaired.batches), (3, 1));
    drop(writer);
    let stores = image.take_log();
    image.undo(&stores);
    let story = Story {
        stores,
        before,
        after,
        never_absent: Vec::new(),
        opens_before: true,
    };
    story.check_all(&image, &story.stores, 19).unwrap();
}

/// Whatever the rot, a recovery arrives at what the repair would have: it surveys what is left of it anew.
#[test]
fn death_within_a_repair_of_every_rot() {
    for (what, spoil) in ways::<Traced>() {
        let image = Image::new(SMALL);
        let story = story(&image, |at, _| spoil(at));
        let begun = story.stores.iter().position(|s| s.at == AT_BEGIN).unwrap();
        for (at, store) in story.stores.iter().enumerate() {
            image.redo(*store);
            if at >= begun && (at - begun).is_multiple_of(5) || at + 3 > story.stores.len() {
                let recovery = story.check_recovery(&image);
                recovery.unwrap_or_else(|error| panic!("{what}, store {at}: {error}"));
            }
        }
    }
}

/// The check itself must be able to fail.
#[test]
fn a_repair_that_is_done_too_early_is_noticed() {
    let image = Image::new(SMALL);
    let mut story = story(&image, |at, before| {
        at.set(at.slots[0], |_| 0);
        let first = before_keys(before).remove(0);
        before.records.remove(&first);
    });
    let find = |at| story.stores.iter().position(|s| s.at == at).unwrap();
    let (begin, done) = (find(AT_BEGIN), find(AT_DONE));
    let store = story.stores.remove(done);
    story.stores.insert(begin + 1, store);
    assert!(story.check_all(&image, &story.stores, 0).is_err());
}
