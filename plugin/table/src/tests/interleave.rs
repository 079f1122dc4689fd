//! Whole batches between any two loads of a reader.
//!
//! The words of the table count loads; before each load of a reader, in turn, a batch is committed. What
//! real threads meet once in a million times is met each time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use locus_proto::{Change, ChangeOp, Digits, Key};

use super::support::{Dice, Model, SMALL, TABLE_KEY, aor_key, commit, delete, live_in, put};
use crate::{HeapMemory, Lookup, Memory, Reader, RecordBuffer, ScanCursor, Word, Writer};

/// What happens before some of the next loads.
struct Hook {
    /// Numbers of these loads, from 1, in order.
    before: Vec<u32>,
    seen: u32,
    act: Box<dyn FnMut()>,
}

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Hooked(Cell<u64>);

impl Word for Hooked {
    fn load(&self) -> u64 {
        // Taken away meanwhile: the loads of the writer do not count.
        if let Some(mut hook) = HOOK.take() {
            hook.seen += 1;
            if hook.before.contains(&hook.seen) {
                (hook.act)();
            }
            HOOK.set(Some(hook));
        }
        self.0.get()
    }

    fn store(&self, value: u64) {
        self.0.set(value);
    }

    fn store_release(&self, value: u64) {
        self.0.set(value);
    }

    fn fence_acquire() {}

    fn fence_release() {}
}

#[derive(Clone)]
struct Shared(Rc<Vec<Hooked>>);

impl Memory for Shared {
    type Word = Hooked;

    fn words(&self) -> &[Hooked] {
        &self.0
    }
}

/// Calls `read` with `act` before each of these loads of it; returns also how many loads there were.
fn read_beside<R>(
    before: Vec<u32>,
    act: impl FnMut() + 'static,
    read: impl FnOnce() -> R,
) -> (R, u32) {
    let act = Box::new(act);
    HOOK.set(Some(Hook {
        before,
        seen: 0,
        act,
    }));
    let result = read();
    let hook = HOOK.take();
    (result, hook.map_or(0, |hook| hook.seen))
}

/// A table and what it holds.
struct Table {
    writer: Writer<Shared>,
    model: Model,
}

impl Table {
    fn new() -> Self {
        let words = usize::try_from(SMALL.file_bytes() / 8).unwrap();
        let memory = Shared(Rc::new((0..words).map(|_| Hooked::default()).collect()));
        Self {
            writer: live_in(memory, SMALL),
            model: Model::default(),
        }
    }

    fn commit(&mut self, batch: &[Change]) {
        commit(&mut self.writer, &mut self.model, batch);
    }

    /// Moves the route from the one prefix to the other, in one batch.
    fn move_route(&mut self) {
        let (short, long) = (route_key("493"), route_key("4930"));
        let level = self.model.level.0;
        let (old, new) = if self.model.records.contains_key(&short) {
            (short, long)
        } else {
            (long, short)
        };
        let batch: [Change; 2] = [delete(old, level + 1), put(new, level + 2, 20)];
        self.commit(&batch);
    }
}

fn route_key(digits: &str) -> Key {
    Key::route(Digits::parse(digits).unwrap())
}

/// A route that moves from one prefix to another is followed; the call never goes where a shorter prefix
/// of both leads, and never nowhere.
#[test]
fn a_moved_route_is_never_missed() {
    let mut table = Table::new();
    table.commit(&[put(route_key("4"), 1, 20), put(route_key("493"), 2, 20)]);
    let reader = Reader::open(table.writer.memory().clone()).unwrap();
    let table = Rc::new(RefCell::new(table));
    let mut buffer = RecordBuffer::new();
    let digits = Digits::parse("493012345").unwrap();
    let mut route = |before: Vec<u32>| {
        let moving = Rc::clone(&table);
        let act = move || moving.borrow_mut().move_route();
        let read = || match reader.route(digits, &mut buffer) {
            Lookup::Found(record) => record.level.0,
            other @ (Lookup::Absent | Lookup::Unavailable(_)) => {
                panic!("{other:?} with moves before {before:?}")
            }
        };
        let (level, loads) = read_beside(before.clone(), act, read);
        assert!(level > 1, "the default with moves before {before:?}");
        loads
    };
    let loads = route(Vec::new());
    assert!(loads > 20, "{loads} loads are too few for a route");
    for first in 1..=loads {
        route(vec![first]);
        // And back again, so that both directions are met; the second move may hit the second try.
        for second in first + 1..=loads * 2 {
            route(vec![first, second]);
        }
        route(vec![first]);
    }
}

/// A scan with batches in the middle of it, loaded and followed by these batches, is the table: also where
/// a key left its slot in one batch and came back elsewhere in the next.
#[test]
fn a_scan_and_what_came_meanwhile_is_the_table() {
    let mut table = Table::new();
    let first: Vec<Change> = (1..=40).map(|i| put(aor_key(i), i, 30)).collect();
    table.commit(&first);
    let reader = Reader::open(table.writer.memory().clone()).unwrap();
    let table = Rc::new(RefCell::new(table));
    let log = Rc::new(RefCell::new(Vec::new()));
    let scan = |before: Vec<u32>| {
        log.borrow_mut().clear();
        let (writing, logging) = (Rc::clone(&table), Rc::clone(&log));
        let mut dice = Dice(before.iter().map(|at| u64::from(*at)).sum());
        let act = move || {
            let mut table = writing.borrow_mut();
            let level = table.model.level.0;
            let numbers: Vec<u64> = (1..=40).filter(|_| dice.roll(3) > 0).collect();
            let batch: Vec<Change> = numbers
                .into_iter()
                .map(|i| {
                    if dice.roll(4) == 0 {
                        delete(aor_key(i), level + i)
                    } else {
                        put(aor_key(i), level + i, 40)
                    }
                })
                .collect();
            table.commit(&batch);
            logging.borrow_mut().extend(batch);
        };
        let mut out = Vec::new();
        let read = || {
            let mut cursor = Some(ScanCursor::START);
            let mut buffer = RecordBuffer::new();
            while let Some(at) = cursor {
                cursor = reader.scan(at, 100, &mut buffer, &mut out).unwrap();
            }
        };
        let ((), loads) = read_beside(before.clone(), act, read);
        let memory = HeapMemory::zeroed(SMALL.file_bytes());
        let mut loaded = Writer::create(memory, SMALL, TABLE_KEY).unwrap();
        loaded.load(&out).unwrap();
        loaded.load(&log.borrow()).unwrap();
        let finished = loaded.finish_load(table.borrow().model.position());
        assert_eq!(finished, Ok(()), "batches before {before:?}");
        loads
    };
    let loads = scan(Vec::new());
    assert!(loads > 300, "{loads} loads are too few for a scan");
    for first in (1..loads).step_by(5) {
        scan(vec![first, first + 3, first + 40]);
    }
}

/// A record that rotted is repaired before any load of a look-up: of itself, which then finds what was
/// there or what is right and never nothing, and of one beside it, which is never touched.
#[test]
fn a_repair_hides_no_record() {
    const LEN: usize = 40;
    let mut table = Table::new();
    let first: Vec<Change> = (1..=24).map(|i| put(aor_key(i), i, LEN)).collect();
    table.commit(&first);
    let reader = Reader::open(table.writer.memory().clone()).unwrap();
    let memory = table.writer.memory().clone();
    let table = Rc::new(RefCell::new(table));
    let (rotten, beside) = (&first[3], &first[4]);
    let value = |change: &Change| match &change.op {
        ChangeOp::Put(value) => value.clone(),
        ChangeOp::Delete => unreachable!("all are puts"),
    };
    let start = u64::from_le_bytes(*value(rotten).first_chunk().unwrap());
    let mut buffer = RecordBuffer::new();
    let mut lookup = |change: &Change| match reader.lookup(change.key.as_bytes(), &mut buffer) {
        Lookup::Found(record) => record.value.to_vec(),
        other @ (Lookup::Absent | Lookup::Unavailable(_)) => panic!("{}: {other:?}", change.key),
    };
    let mut look = |change: &Change, before: Vec<u32>| {
        // The last place that holds it: earlier ones are in the journal, or were given up.
        let at = memory.0.iter().rposition(|word| word.0.get() == start);
        memory.0[at.unwrap()].0.set(start ^ 1 << 17);
        let mut wrong = value(rotten);
        wrong[2] ^= 2;
        assert_eq!(lookup(rotten), wrong, "it has not rotted");
        let (repairing, content) = (Rc::clone(&table), [rotten.clone()]);
        let act = move || {
            let writer = &mut repairing.borrow_mut().writer;
            let partition = writer.partition_of(content[0].key.as_bytes());
            let repaired = writer.repair(partition, &content).unwrap();
            assert_eq!(repaired.differed, 1);
        };
        let repairs = before.len();
        let (found, loads) = read_beside(before, act, || lookup(change));
        let right = value(change);
        assert!(found == right || found == wrong && change.key == rotten.key);
        if repairs > 0 {
            assert_eq!(lookup(rotten), value(rotten), "it was not repaired");
        } else {
            memory.0[at.unwrap()].0.set(start);
        }
        loads
    };
    for change in [rotten, beside] {
        let loads = look(change, Vec::new());
        assert!(loads > 15, "{loads} loads are too few for a look-up");
        for before in 1..=loads {
            look(change, vec![before]);
        }
    }
}
