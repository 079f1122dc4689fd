//! The stores of an operation as a script, in the writer's order or in one that breaks the protocol; so
//! that whoever watches the writer can be seen to notice.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use locus_table::{Word, Words, Writer};

use crate::case::Case;
use crate::layout::{self, AT_BEGIN, AT_DONE, AT_INDEX, BUCKET_WORDS};

/// An order of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The writer's own.
    Own,
    /// `done` before the changes.
    DoneFirst,
    /// `begin` behind the changes.
    BeginLast,
    /// A slot before the record that it names.
    SlotFirst,
}

impl Order {
    /// All of them, with the names by which the writer's program knows them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("own", Self::Own),
        ("done-first", Self::DoneFirst),
        ("begin-last", Self::BeginLast),
        ("slot-first", Self::SlotFirst),
    ];
}

thread_local! {
    static LOG: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A word that writes down what is stored.
#[derive(Debug)]
struct Logged(Cell<u64>);

impl Word for Logged {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn store(&self, value: u64) {
        let address = std::ptr::from_ref(self).addr();
        LOG.with_borrow_mut(|log| log.push((address, value)));
        self.0.set(value);
    }

    fn store_release(&self, value: u64) {
        self.store(value);
    }

    fn fence_acquire() {}

    fn fence_release() {}
}

/// Returns the stores of a case's operation on the table in `words`, in this order.
///
/// # Errors
/// If the table refuses.
pub fn script(case: &Case, words: &[AtomicU64], order: Order) -> Result<Vec<(usize, u64)>, String> {
    let load = |word: &AtomicU64| Logged(Cell::new(word.load(Ordering::Relaxed)));
    let image: Vec<Logged> = words.iter().map(load).collect();
    let (mut writer, _) = Writer::open(Words(&image)).map_err(|error| error.to_string())?;
    LOG.take();
    case.operate(&mut writer)?;
    let base = image.as_ptr().addr();
    let store = |(address, value): (usize, u64)| ((address - base) / size_of::<Logged>(), value);
    let mut stores: Vec<(usize, u64)> = LOG.take().into_iter().map(store).collect();
    let find = |at| stores.iter().position(|store| store.0 == at);
    let (begin, done) = (find(AT_BEGIN), find(AT_DONE));
    let (begin, done) = begin.zip(done).ok_or("no batch was begun and done")?;
    let (from, to) = match order {
        Order::Own => return Ok(stores),
        Order::DoneFirst => (done, begin + 1),
        Order::BeginLast => (begin, done - 1),
        Order::SlotFirst => slot_and_block(&stores, begin, words).ok_or("no slot is stored")?,
    };
    let store = stores.remove(from);
    stores.insert(to, store);
    Ok(stores)
}

/// Returns the store of the first slot that named a record and names another, and that record's first.
fn slot_and_block(
    stores: &[(usize, u64)],
    begin: usize,
    words: &[AtomicU64],
) -> Option<(usize, usize)> {
    let index = AT_INDEX..layout::index_end(Case::GEOMETRY);
    let behind = stores.iter().enumerate().skip(begin);
    let mut slots = behind.filter(|(_, (at, value))| {
        index.contains(at) && at % BUCKET_WORDS != 0 && *value != 0 && layout::load(words, *at) != 0
    });
    let (slot, (_, value)) = slots.next()?;
    let block = layout::block_of(Case::GEOMETRY, *value);
    let record = stores
        .iter()
        .skip(begin)
        .position(|store| store.0 == block)?;
    Some((slot, begin + record))
}
