//! Death at every store of a batch, and at every store of the recovery after it.
//!
//! The words of the table record what is stored. Each prefix of the stores of a batch is a state in which
//! a writer may have died: readers must find every key whole, old or new, and the next writer must arrive
//! at exactly the level before or after.

use std::cell::{Cell, RefCell};

use locus_proto::{Change, Digits, Key};

use super::support::{Dice, Model, SMALL, aor_key, check, commit, delete, get, live_in, put};
use crate::layout::{AT_BEGIN, AT_DONE};
use crate::{Geometry, Lookup, Reader, RecordBuffer, Word, Words, Writer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) at: usize,
    old: u64,
    new: u64,
}

thread_local! {
    static LOG: RefCell<Vec<(usize, u64, u64)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
pub(super) struct Traced(pub(super) Cell<u64>);

impl Word for Traced {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn store(&self, value: u64) {
        let address = std::ptr::from_ref(self).addr();
        LOG.with_borrow_mut(|log| log.push((address, self.0.get(), value)));
        self.0.set(value);
    }

    fn store_release(&self, value: u64) {
        self.store(value);
    }

    fn fence_acquire() {}

    fn fence_release() {}
}

/// The memory of a table that dies.
pub(super) struct Image(pub(super) Vec<Traced>);

impl Image {
    pub(super) fn new(geometry: Geometry) -> Self {
        let words = usize::try_from(geometry.file_bytes() / 8).unwrap();
        LOG.take(); // the stores to an earlier one are none to this
        Self((0..words).map(|_| Traced::default()).collect())
    }

    pub(super) fn words(&self) -> Words<'_, Traced> {
        Words(&self.0)
    }

    /// Returns the stores since the last call; those that change nothing are no new state.
    pub(super) fn take_log(&self) -> Vec<Store> {
        let base = self.0.as_ptr().addr();
        LOG.take()
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(address, old, new)| Store {
                at: (address - base) / 8,
                old,
                new,
            })
            .collect()
    }

    pub(super) fn undo(&self, stores: &[Store]) {
        stores
            .iter()
            .rev()
            .for_each(|store| self.0[store.at].0.set(store.old));
    }

    pub(super) fn redo(&self, store: Store) {
        self.0[store.at].0.set(store.new);
    }
}

/// A batch and the models before and after it.
struct Story {
    /// Its number.
    last: u64,
    before: Model,
    after: Model,
    keys: Vec<Key>,
}

impl Story {
    /// Checks what a reader sees in the middle: every key whole, and old or new.
    fn check_reader(&self, image: &Image) -> Result<(), String> {
        let reader = Reader::open(image.words()).map_err(|error| error.to_string())?;
        let position = reader.position();
        let done = position == self.after.position();
        if !done && position != self.before.position() {
            return Err(format!("{position:?}"));
        }
        let mut buffer = RecordBuffer::new();
        for key in &self.keys {
            let found = get(&reader, key, &mut buffer)?;
            let is = |model: &Model| found.as_ref() == model.records.get(key);
            if !is(&self.after) && (done || !is(&self.before)) {
                return Err(format!("{key} at {position}: {found:?}"));
            }
        }
        // The batch moves a route from one prefix to another: some prefix always matches.
        let digits = Digits::parse("493012345").unwrap();
        match reader.route(digits, &mut buffer) {
            Lookup::Found(_) => Ok(()),
            other @ (Lookup::Absent | Lookup::Unavailable(_)) => Err(format!("route: {other:?}")),
        }
    }

    /// Checks that the next writer arrives at one of the two levels, and takes its stores back.
    fn check_recovery(&self, image: &Image) -> Result<Vec<Store>, String> {
        let begun = image.0[AT_BEGIN].0.get() != image.0[AT_DONE].0.get();
        let after = image.0[AT_BEGIN].0.get() == self.last;
        let opened = Writer::open(image.words());
        let stores = image.take_log();
        let (writer, recovered) = opened.map_err(|error| error.to_string())?;
        let model = if after { &self.after } else { &self.before };
        let result = if recovered.redone == begun {
            check(&writer, model, &self.keys)
        } else {
            Err("redone or not".to_owned())
        };
        drop(writer);
        image.undo(&stores);
        result.map(|()| stores)
    }

    /// Replays the stores one by one and checks each state; returns the first failure.
    ///
    /// At each so many stores the recovery dies too, at every store of its own.
    fn check_all(
        &self,
        image: &Image,
        stores: &[Store],
        nested_each: Option<usize>,
    ) -> Result<(), String> {
        for (at, store) in stores.iter().enumerate() {
            let step = |error| format!("store {at} of {}: {error}", stores.len());
            image.redo(*store);
            self.check_reader(image).map_err(step)?;
            let recovery = self.check_recovery(image).map_err(step)?;
            if nested_each.is_some_and(|each| at.is_multiple_of(each)) && !recovery.is_empty() {
                self.check_all(image, &recovery, None).map_err(step)?;
                image.undo(&recovery);
            }
        }
        Ok(())
    }
}

fn route_key(digits: &str) -> Key {
    Key::route(Digits::parse(digits).unwrap())
}

/// Returns a table after two batches, and the third to come: replaced, new and deleted keys of all sizes.
fn prepare(image: &Image) -> (Writer<Words<'_, Traced>>, Model, Vec<Change>) {
    let mut writer = live_in(image.words(), SMALL);
    let mut model = Model::default();
    let mut dice = Dice(5);
    for _ in 0..2 {
        let level = model.level.0;
        let mut batch: Vec<Change> = (1..=24)
            .map(|i| {
                put(
                    aor_key(i),
                    level + i,
                    usize::try_from(dice.roll(90)).unwrap(),
                )
            })
            .collect();
        batch.push(put(route_key("49"), level + 25, 20));
        commit(&mut writer, &mut model, &batch);
    }
    let level = model.level.0;
    let batch = vec![
        delete(aor_key(1), level + 1),
        put(aor_key(2), level + 2, 10),
        put(aor_key(3), level + 3, 70),
        put(aor_key(30), level + 4, 5),
        delete(route_key("49"), level + 5),
        put(route_key("4930"), level + 6, 24),
        delete(aor_key(99), level + 7),
        put(aor_key(31), level + 8, 33),
    ];
    (writer, model, batch)
}

/// Returns a batch's stores with the table as it was before, and what is to be checked.
fn stores_of_a_batch(image: &Image) -> (Vec<Store>, Story) {
    let (mut writer, before, batch) = prepare(image);
    image.take_log();
    let mut after = before.clone();
    commit(&mut writer, &mut after, &batch);
    drop(writer);
    let stores = image.take_log();
    image.undo(&stores);
    let keys = before
        .records
        .keys()
        .chain(after.records.keys())
        .cloned()
        .collect();
    let story = Story {
        last: 3,
        before,
        after,
        keys,
    };
    (stores, story)
}

#[test]
fn death_at_every_store() {
    let image = Image::new(SMALL);
    let (stores, story) = stores_of_a_batch(&image);
    assert!(
        stores.len() > 100,
        "{} stores are too few to be a batch",
        stores.len()
    );
    story.check_all(&image, &stores, Some(41)).unwrap();
    assert_eq!(image.0[AT_DONE].0.get(), 3);
}

/// The check itself must be able to fail: three ways to break the order of stores are all noticed.
#[test]
fn broken_orders_are_noticed() {
    let image = Image::new(SMALL);
    let (stores, story) = stores_of_a_batch(&image);
    let find = |at| stores.iter().position(|store| store.at == at).unwrap();
    let (begin, done) = (find(AT_BEGIN), find(AT_DONE));
    let moved = |from: usize, to: usize| {
        let mut stores = stores.clone();
        let store = stores.remove(from);
        stores.insert(to, store);
        stores
    };
    let broken = [
        ("done before the changes", moved(done, begin + 1)),
        ("begin behind the changes", moved(begin, done - 1)),
        ("begin before the journal", moved(begin, 0)),
    ];
    for (what, stores) in broken {
        let result = story.check_all(&image, &stores, None);
        assert!(result.is_err(), "{what} went unnoticed");
        // Back to the beginning, whatever was stored so far.
        for store in stores.iter().rev() {
            let first = stores.iter().find(|other| other.at == store.at).unwrap();
            image.0[store.at].0.set(first.old);
        }
    }
}

/// A redo needs no more room than the batch did, even where all of it was used.
#[test]
fn a_full_table_recovers() {
    let image = Image::new(SMALL);
    let (mut writer, mut before) = (live_in(image.words(), SMALL), Model::default());
    let batch_behind = |model: &Model| -> Vec<Change> {
        let level = model.level.0;
        (level + 1..=level + 2)
            .map(|number| put(aor_key(number), number, 30_000))
            .collect()
    };
    // Each slab takes one batch; the last slab is left.
    while writer.fill().free_slabs > 1 {
        let batch = batch_behind(&before);
        commit(&mut writer, &mut before, &batch);
    }
    image.take_log();
    let mut after = before.clone();
    commit(&mut writer, &mut after, &batch_behind(&before));
    assert_eq!(writer.fill().free_slabs, 0);
    assert!(writer.prepare(&batch_behind(&after)).is_err());
    drop(writer);
    let stores = image.take_log();
    image.undo(&stores);
    let keys = after.records.keys().cloned().collect();
    let story = Story {
        last: after.level.0 / 2,
        before,
        after,
        keys,
    };
    let begun = stores
        .iter()
        .position(|store| store.at == AT_BEGIN)
        .unwrap();
    for (at, store) in stores.iter().enumerate() {
        image.redo(*store);
        // The journal and each record are thousands of stores: a few moments of each will do.
        if at > begun && (at.is_multiple_of(2500) || at + 3 > stores.len()) {
            story.check_recovery(&image).unwrap();
        }
    }
}
