//! The functions that publish and read records, under a model checker: every order that the memory model
//! of the language allows, up to a bound of preemptions.
//!
//! One bucket, three blocks. The writer replaces a record and takes the freed block for the next version
//! at once; the reader must find a whole version, never a mixture, never nothing. Then the same with one
//! of the writer's or reader's orders taken away: the checker must notice.

use std::panic;

use locus_proto::Level;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use crate::Word;
use crate::arena::{Head, class_words};
use crate::audit::Hashes;
use crate::publish::{bump, publish, write_record};
use crate::view::{Probe, View, slot_word};

const SOUND: u8 = 0;
const NO_ACQUIRE_FENCES: u8 = 1;
const NO_RELEASE_FENCES: u8 = 2;
const NO_RELEASE_STORES: u8 = 3;

/// A word that may lack one kind of order.
struct Modelled<const BROKEN: u8>(AtomicU64);

impl<const BROKEN: u8> Word for Modelled<BROKEN> {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u64) {
        let order = if BROKEN == NO_RELEASE_STORES {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.0.store(value, order);
    }

    fn fence_acquire() {
        if BROKEN != NO_ACQUIRE_FENCES {
            fence(Ordering::Acquire);
        }
    }

    fn fence_release() {
        if BROKEN != NO_RELEASE_FENCES {
            fence(Ordering::Release);
        }
    }
}

/// 32 bytes: head, level, key, value; the value repeats the level.
const CLASS: u8 = 2;
const KEY: &[u8] = b"alice";
const OTHER_KEY: &[u8] = b"bobby";

struct Table<const BROKEN: u8> {
    bucket: [Modelled<BROKEN>; 8],
    arena: Vec<Modelled<BROKEN>>,
    hashes: Hashes,
}

impl<const BROKEN: u8> Table<BROKEN> {
    fn new() -> Self {
        let word = || Modelled(AtomicU64::new(0));
        Self {
            bucket: std::array::from_fn(|_| word()),
            arena: (0..class_words(CLASS) * 2).map(|_| word()).collect(),
            hashes: Hashes::new([1, 2]),
        }
    }

    fn view(&self) -> View<'_, Modelled<BROKEN>> {
        View {
            index: &self.bucket,
            arena: &self.arena,
            buckets: 1,
            hashes: &self.hashes,
        }
    }

    fn slot_word(&self, block: u64) -> u64 {
        let units = u64::try_from(class_words(CLASS) / 2).unwrap();
        slot_word(self.view().hashes.key(KEY), CLASS, block * units)
    }

    /// Writes a version of a key into a block, as the writer does.
    fn write(&self, block: u64, key: &[u8], version: u64) -> u64 {
        let head = Head {
            key_len: key.len(),
            value_len: 8,
            flags: 0,
            level: Level(version),
        };
        let word = self.slot_word(block);
        write_record(
            self.view().block(word).unwrap(),
            head,
            key,
            &version.to_le_bytes(),
        );
        word
    }

    fn put(&self, block: u64, version: u64) {
        let word = self.write(block, KEY, version);
        publish(&self.bucket, 0, word);
    }

    fn check_reader(&self) {
        let mut out = [0; class_words(CLASS) * 8];
        let Probe::Found(hit, _) = self.view().probe(KEY, &mut out) else {
            panic!("the record is not found");
        };
        let value = hit.value(&out).unwrap();
        assert_eq!(value, hit.level.0.to_le_bytes(), "a torn read");
    }
}

/// What the writer does with the block that its first replacement freed.
#[derive(Clone, Copy)]
enum Story {
    /// The next version of the same key: slot and block are the same again, but for the version.
    SameKey,
    /// A record of another bucket: this one does not change any more.
    OtherKey,
    /// It died between slot and version of the first replacement; its successor bumps, then re-uses.
    Death,
    /// Likewise, but twice, and no successor bumps: what recovery must not leave out.
    DeathWithoutBump,
}

/// Returns whether the reader found a whole record in every order that was tried.
fn holds<const BROKEN: u8>(story: Story) -> bool {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    let run = move || {
        let table = Arc::new(Table::<BROKEN>::new());
        table.put(0, 10);
        let writing = Arc::clone(&table);
        let writer = thread::spawn(move || match story {
            Story::SameKey => {
                writing.put(1, 20);
                writing.put(0, 30);
            }
            Story::OtherKey => {
                writing.put(1, 20);
                writing.write(0, OTHER_KEY, 30);
            }
            Story::DeathWithoutBump => {
                for (block, version) in [(1, 20), (0, 30)] {
                    let word = writing.write(block, KEY, version);
                    writing.bucket[1].store_release(word);
                }
            }
            Story::Death => {
                let word = writing.write(1, KEY, 20);
                writing.bucket[1].store_release(word);
                bump(&writing.bucket);
                Modelled::<BROKEN>::fence_release();
                writing.put(0, 30);
            }
        });
        table.check_reader();
        writer.join().unwrap();
    };
    panic::catch_unwind(panic::AssertUnwindSafe(|| model.check(run))).is_ok()
}

#[test]
fn no_order_tears_a_read() {
    assert!(holds::<SOUND>(Story::SameKey), "same key");
    assert!(holds::<SOUND>(Story::OtherKey), "other key");
    assert!(holds::<SOUND>(Story::Death), "death");
}

#[test]
fn each_missing_order_is_noticed() {
    assert!(
        !holds::<NO_ACQUIRE_FENCES>(Story::SameKey),
        "acquire fences"
    );
    assert!(
        !holds::<NO_RELEASE_FENCES>(Story::SameKey),
        "release fences"
    );
    assert!(
        !holds::<NO_RELEASE_STORES>(Story::SameKey),
        "release stores"
    );
    assert!(!holds::<SOUND>(Story::DeathWithoutBump), "bump of recovery");
}
