//! A table's memory under a model checker, and how its protocol can be broken; it checks nothing.
//!
//! The table runs as it is, over words of which a few are the checker's atomics: those that a story is
//! about. All others are plain memory, whole at once; what they hold is either never read by the other
//! side or the same in all states. A way to break the protocol is a wrong word: one that drops, delays or
//! weakens what the table asks of it. No function of the table is written a second time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::AtomicU64 as PlainWord;
use std::sync::{Arc, LazyLock};

use loom::sync::atomic::{AtomicU64, Ordering, fence};

use crate::layout::{
    AT_BEGIN, AT_DONE, AT_INDEX, AT_LENGTHS, AT_MARKS, BUCKET_WORDS, LENGTHS_WORDS,
};
use crate::{Geometry, Memory, Word};

/// Two homes, so that keys of different buckets share the arena.
pub(super) const TINY: Geometry = Geometry {
    buckets: 2,
    arena_bytes: 1 << 20,
};

/// What a word is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Begin,
    Done,
    Mark,
    Length,
    Version,
    Slot,
    Block,
    Other,
}

const INDEX_END: usize = AT_INDEX + 256 * 1024;

fn role(at: usize) -> Role {
    match at {
        AT_BEGIN => Role::Begin,
        AT_DONE => Role::Done,
        _ if (AT_MARKS..AT_MARKS + 16).contains(&at) => Role::Mark,
        _ if (AT_LENGTHS..AT_LENGTHS + LENGTHS_WORDS).contains(&at) => Role::Length,
        _ if at >= INDEX_END => Role::Block,
        _ if at >= AT_INDEX && at.is_multiple_of(BUCKET_WORDS) => Role::Version,
        _ if at >= AT_INDEX => Role::Slot,
        _ => Role::Other,
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Nothing.
    Sound,
    /// No version is ever stored.
    NoVersion,
    /// The version is stored before the slot.
    VersionFirst,
    /// The reader does not compare the version, only the slot.
    SlotOnly,
    /// No release fence before a store to words of this role.
    NoReleaseBefore(Role),
    /// No acquire fence after a load of words of this role.
    NoAcquireAfter(Role),
    /// Release stores to words of this role are relaxed.
    RelaxedStore(Role),
    /// Recovery raises no version.
    NoBumpInRecovery,
    /// Both marks are one line.
    OneMark,
    /// `begin` is stored just before `done`.
    BeginLate,
    /// `done` is stored together with `begin`.
    DoneEarly,
    /// A prefix's length is noted only when the batch is done.
    LengthLate,
    /// The reader compares a head's lengths with what it saw first.
    LengthSeenOnce,
}

/// The memory of the story that is being told on this thread.
struct Stage {
    broken: Broken,
    /// For each word of the table: zero, or one more than its place in `words`.
    numbers: Arc<[u16]>,
    words: Vec<AtomicU64>,
    /// What the writer knows: all words as they were stored last.
    plain: Box<[PlainWord]>,
    /// The process that writes dies before its next store to a word of this role.
    dies_before: Cell<Option<Role>>,
    dead: Cell<bool>,
    recovering: Cell<bool>,
}

// The checker runs all its threads on the one that called it, so they share this.
thread_local! {
    static STAGE: RefCell<Option<Rc<Stage>>> = const { RefCell::new(None) };
    static FOUND: Cell<Option<&'static str>> = const { Cell::new(None) };
    static ORDERS: Cell<u64> = const { Cell::new(0) };
}

fn stage() -> Rc<Stage> {
    STAGE.with_borrow(|stage| Rc::clone(stage.as_ref().expect("a story is being told")))
}

/// Returns a word that the checker need not know of. (Opening a table sums up a hundred thousand.)
fn plain(at: usize) -> Option<u64> {
    STAGE.with_borrow(|stage| {
        let stage = stage.as_ref()?;
        let is_plain = stage.numbers[at] == 0 && !matches!(stage.broken, Broken::NoAcquireAfter(_));
        is_plain.then(|| Word::load(&stage.plain[at]))
    })
}

/// What a thread of the checker has in hand.
#[derive(Default)]
struct Hand {
    /// It is the reader. The writer, alone in storing, always loads what it stored last, and its loads
    /// are none for the checker: that looks only at the last access to a word when it chooses what else
    /// to try, so a load by the writer before its store would hide the reader's load before both.
    reads: Cell<bool>,
    loaded: Cell<Option<Role>>,
    /// A release fence that waits for its store.
    fence: Cell<bool>,
    /// Stores that are held back.
    held: RefCell<Vec<(usize, u64)>>,
    seen: RefCell<HashMap<usize, u64>>,
}

loom::thread_local! {
    static HAND: Hand = Hand::default();
}

impl Stage {
    fn modelled(&self, at: usize) -> Option<&AtomicU64> {
        let number = usize::from(self.numbers[at]).checked_sub(1)?;
        Some(&self.words[number])
    }

    fn load(&self, at: usize) -> u64 {
        match self.modelled(at) {
            Some(word) if HAND.with(|hand| hand.reads.get()) => word.load(Ordering::Relaxed),
            _ => Word::load(&self.plain[at]),
        }
    }

    fn store(&self, at: usize, value: u64, order: Ordering) {
        Word::store(&self.plain[at], value);
        if let Some(word) = self.modelled(at) {
            word.store(value, order);
        }
    }

    /// Where a word really lies.
    fn place(&self, at: usize) -> usize {
        let second_mark = AT_MARKS + 8..AT_MARKS + 16;
        if self.broken == Broken::OneMark && second_mark.contains(&at) {
            at - 8
        } else {
            at
        }
    }

    fn put(&self, at: usize, value: u64, order: Ordering) {
        let (at, role) = (self.place(at), role(at));
        if self.dies_before.get() == Some(role) {
            self.dies_before.set(None);
            self.dead.set(true);
        }
        if self.dead.get() {
            return;
        }
        HAND.with(|hand| {
            if hand.fence.take() && self.broken != Broken::NoReleaseBefore(role) {
                fence(Ordering::Release);
            }
            let hold = || hand.held.borrow_mut().push((at, value));
            let let_go = || {
                for (at, value) in hand.held.take() {
                    self.store(at, value, Ordering::Release);
                }
            };
            match (self.broken, role) {
                (Broken::NoVersion, Role::Version) => return,
                (Broken::NoBumpInRecovery, Role::Version) if self.recovering.get() => return,
                (Broken::VersionFirst, Role::Slot)
                | (Broken::LengthLate, Role::Length)
                | (Broken::BeginLate, Role::Begin) => return hold(),
                (Broken::BeginLate, Role::Done) => let_go(),
                _ => {}
            }
            let order = if self.broken == Broken::RelaxedStore(role) {
                Ordering::Relaxed
            } else {
                order
            };
            self.store(at, value, order);
            match (self.broken, role) {
                (Broken::VersionFirst, Role::Version) | (Broken::LengthLate, Role::Done) => {
                    let_go();
                }
                (Broken::DoneEarly, Role::Begin) => self.store(AT_DONE, value, order),
                _ => {}
            }
        });
    }

    fn get(&self, at: usize) -> u64 {
        let (at, role) = (self.place(at), role(at));
        HAND.with(|hand| {
            hand.loaded.set(Some(role));
            match (self.broken, role) {
                (Broken::SlotOnly, Role::Version) => 0,
                (Broken::LengthSeenOnce, Role::Length) => {
                    let seen = hand.seen.borrow().get(&at).copied();
                    seen.unwrap_or_else(|| {
                        let value = self.load(at);
                        hand.seen.borrow_mut().insert(at, value);
                        value
                    })
                }
                _ => self.load(at),
            }
        })
    }
}

/// A word, by its number in the table.
pub(super) struct Place(usize);

impl Word for Place {
    fn load(&self) -> u64 {
        plain(self.0).unwrap_or_else(|| stage().get(self.0))
    }

    fn store(&self, value: u64) {
        stage().put(self.0, value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u64) {
        stage().put(self.0, value, Ordering::Release);
    }

    fn fence_acquire() {
        let after = HAND.with(|hand| hand.loaded.get());
        let left_out = after.map(Broken::NoAcquireAfter);
        if left_out != Some(stage().broken) {
            fence(Ordering::Acquire);
        }
    }

    fn fence_release() {
        if matches!(stage().broken, Broken::NoReleaseBefore(_)) {
            // Which store it stands before is known only then.
            HAND.with(|hand| hand.fence.set(true));
        } else {
            fence(Ordering::Release);
        }
    }
}

static PLACES: LazyLock<Vec<Place>> = LazyLock::new(|| {
    let words = usize::try_from(TINY.file_bytes() / 8).unwrap();
    (0..words).map(Place).collect()
});

/// The table's memory, for readers and writers of all threads.
#[derive(Clone, Copy)]
pub(super) struct Modelled;

impl Memory for Modelled {
    type Word = Place;

    fn words(&self) -> &[Place] {
        &PLACES
    }
}

impl Modelled {
    /// From now on this thread is the reader.
    pub(super) fn reads(self) {
        HAND.with(|hand| hand.reads.set(true));
    }

    /// Lets the writer's process die before its next store to a word of this role: it and all later
    /// ones are never made.
    pub(super) fn die_before(self, role: Role) {
        stage().dies_before.set(Some(role));
    }

    /// Starts the next process, which opens the table by `open`.
    pub(super) fn recover<T>(self, open: impl FnOnce() -> T) -> T {
        let stage = stage();
        assert!(stage.dead.take(), "nobody has died");
        stage.recovering.set(true);
        let opened = open();
        stage.recovering.set(false);
        opened
    }
}

/// Ends a story in which the promise of this name was broken.
pub(super) fn broken_promise(what: &'static str) -> ! {
    FOUND.set(Some(what));
    panic!("{what}");
}

/// Tells a story in every order that the memory model of the language allows, with at most `preemptions`
/// interruptions of a thread that could go on. `modelled` are the words that the checker watches.
///
/// Returns how many orders there were, or the promise that was broken in one of them.
pub(super) fn in_all_orders(
    broken: Broken,
    preemptions: usize,
    modelled: &[Range<usize>],
    story: impl Fn() + Send + Sync + 'static,
) -> Result<u64, &'static str> {
    let mut numbers = vec![0; PLACES.len()];
    let mut count = 0;
    for at in modelled.iter().cloned().flatten() {
        count += 1;
        numbers[at] = count;
    }
    let numbers: Arc<[u16]> = numbers.into();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    let run = move || {
        STAGE.set(Some(Rc::new(Stage {
            broken,
            numbers: Arc::clone(&numbers),
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
            plain: bytemuck::allocation::zeroed_slice_box(PLACES.len()),
            dies_before: Cell::new(None),
            dead: Cell::new(false),
            recovering: Cell::new(false),
        })));
        story();
        STAGE.set(None);
        ORDERS.set(ORDERS.get() + 1);
    };
    FOUND.set(None);
    ORDERS.set(0);
    let result = panic::catch_unwind(AssertUnwindSafe(|| model.check(run)));
    STAGE.set(None);
    match result {
        Ok(()) => Ok(ORDERS.get()),
        // What is no broken promise is a mistake of the story, and no finding.
        Err(payload) => Err(FOUND
            .take()
            .unwrap_or_else(|| panic::resume_unwind(payload))),
    }
}
