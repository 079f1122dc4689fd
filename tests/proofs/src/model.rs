//! What a table shall hold, worked out apart from it: keys, values that check themselves, sums.
//!
//! The hashes are written down here a second time, as they are defined; nothing is taken from the table.

use std::hash::Hasher;

use locus_proto::{AddressOfRecord, Change, ChangeOp, Epoch, EpochId, Key, Level, Root};
use locus_table::{Lookup, Memory, Reader, Reason, RecordBuffer, TableKey};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as RecordHasher};

/// Key of all tables here.
pub const TABLE_KEY: TableKey = TableKey(*b"0123456789abcdef");
/// Epoch of all tables here.
pub const EPOCH: Epoch = Epoch {
    counter: 3,
    id: EpochId([7; 16]),
};
/// The partition that rots and is repaired.
pub const PARTITION: u16 = 54_245;
/// Numbers whose keys all lie in [`PARTITION`] under [`TABLE_KEY`]; found by trying a million.
pub(crate) const SAME: [u64; 20] = [
    35_628, 84_728, 110_400, 128_920, 147_713, 153_785, 169_866, 197_233, 229_656, 244_303,
    294_755, 312_547, 317_390, 327_556, 333_328, 343_498, 347_047, 409_173, 410_010, 418_657,
];
/// Levels that a batch takes; more than it has changes.
pub const LEVELS_PER_BATCH: u64 = 100;
/// The word of a value that rots.
pub(crate) const ROTTEN_WORD: usize = 2;

const VALUE_BYTES_MIN: u64 = 24;
/// Keeps the hash of records apart from that of keys.
const RECORD_DOMAIN: u64 = 0x7265_636f_7264_2d31;

/// A generator of numbers that is the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Returns a number below `below`.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % below.max(1)
    }
}

/// Stirs a number: the last step of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(seed: u64) -> u64 {
    let once = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let twice = (once ^ once >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    twice ^ twice >> 31
}

/// Returns the key of address-of-record `number`.
pub(crate) fn aor_key(number: u64) -> Key {
    let aor = AddressOfRecord::parse(&format!("u{number}@example.net"));
    Key::aor(&aor.expect("the text is an address-of-record"))
}

/// All keys of a test, by number, and where they belong.
#[derive(Debug)]
pub struct Universe {
    keys: Vec<Key>,
    partitions: Vec<u16>,
    records: RecordHasher,
    /// Values are longer than the shortest by less than this.
    value_bytes: u64,
}

impl Universe {
    /// Returns the universe of these keys, with values whose lengths differ by up to `value_bytes`.
    pub fn new(keys: Vec<Key>, value_bytes: u64) -> Self {
        let [k0, k1] = halves(TABLE_KEY.0);
        let hasher = SipHasher13::new_with_keys(k0, k1);
        let partition = |key: &Key| {
            let [.., low, high] = hasher.hash(key.as_bytes()).to_le_bytes();
            u16::from_le_bytes([low, high])
        };
        let partitions = keys.iter().map(partition).collect();
        Self {
            keys,
            partitions,
            records: RecordHasher::new_with_keys(k0 ^ RECORD_DOMAIN, k1),
            value_bytes,
        }
    }

    /// Returns the keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns the partition of key `number`.
    pub(crate) fn partition(&self, number: usize) -> u16 {
        self.partitions[number]
    }

    /// Returns the change that an operation is.
    pub fn change(&self, op: Op) -> Change {
        Change {
            key: self.keys[op.key].clone(),
            level: Level(op.level),
            op: if op.delete {
                ChangeOp::Delete
            } else {
                ChangeOp::Put(self.value(op.key, op.level))
            },
        }
    }

    /// Returns the hash of a record, and the bytes of its key and value.
    pub(crate) fn record(&self, number: usize, level: u64) -> (Root, u64) {
        let (key, value) = (self.keys[number].as_bytes(), self.value(number, level));
        let mut hasher = self.records;
        let head = wide(key.len()) | u128::from(level) << 64;
        hasher.write(&head.to_le_bytes());
        hasher.write(key);
        hasher.write(&value);
        let hash = hasher.finish128();
        (Root([hash.h1, hash.h2]), count(key.len() + value.len()))
    }

    fn value_len(&self, key: usize, level: u64) -> usize {
        index(VALUE_BYTES_MIN + mix(count(key) ^ level << 20) % self.value_bytes)
    }

    /// Returns the value of a key at a level.
    fn value(&self, key: usize, level: u64) -> Vec<u8> {
        let mut value = vec![0; self.value_len(key, level)];
        for (chunk, word) in value.chunks_mut(8).zip(value_words(key, level)) {
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        value
    }

    /// Returns whether these bytes are the value, but for one word that is inverted if `rotten`.
    pub(crate) fn is_value(&self, key: usize, level: u64, bytes: &[u8], rotten: bool) -> bool {
        bytes.len() == self.value_len(key, level)
            && bytes
                .chunks(8)
                .zip(value_words(key, level))
                .enumerate()
                .all(|(at, (have, want))| {
                    let want = if rotten && at == ROTTEN_WORD {
                        want.map(|byte| !byte)
                    } else {
                        want
                    };
                    have == &want[..have.len()]
                })
    }
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [low(both), low(both >> 64)]
}

fn low(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0)
}

fn wide(len: usize) -> u128 {
    u128::from(count(len))
}

/// Returns a length as a number of the table's.
pub fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Returns a number as an index.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The words of a value: key, level, then what follows from both.
fn value_words(key: usize, level: u64) -> impl Iterator<Item = [u8; 8]> {
    let pattern = mix(count(key).wrapping_mul(0x1_0001) ^ level.rotate_left(32));
    let rest = (1..).map(move |at: u64| pattern.wrapping_mul(2 * at + 1));
    [count(key), level]
        .into_iter()
        .chain(rest)
        .map(u64::to_le_bytes)
}

/// One operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Number of the key.
    pub key: usize,
    /// Level of the change.
    pub(crate) level: u64,
    /// The record goes.
    pub delete: bool,
}

/// What holds for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// The batch that changed it last.
    pub(crate) batch: u64,
    /// Level of its record; zero if there is none.
    pub(crate) level: u64,
}

/// What a look-up says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A whole record of this level.
    Record(u64),
    /// The same with [`ROTTEN_WORD`] inverted.
    Rotten(u64),
    /// None.
    Absent,
    /// A record whose value belongs to no such key and level.
    Torn(u64),
    /// It cannot be said.
    Unavailable(Reason),
}

impl Seen {
    /// Looks up key `number`.
    pub(crate) fn look<M: Memory>(
        reader: &Reader<M>,
        universe: &Universe,
        number: usize,
        buffer: &mut RecordBuffer,
    ) -> Self {
        match reader.lookup(universe.keys[number].as_bytes(), buffer) {
            Lookup::Found(record) => {
                let level = record.level.0;
                if universe.is_value(number, level, record.value, false) {
                    Self::Record(level)
                } else if universe.is_value(number, level, record.value, true) {
                    Self::Rotten(level)
                } else {
                    Self::Torn(level)
                }
            }
            Lookup::Absent => Self::Absent,
            Lookup::Unavailable(reason) => Self::Unavailable(reason),
        }
    }

    /// Returns whether it is what a state says.
    pub(crate) fn is(self, state: State) -> bool {
        match self {
            Self::Record(level) => level == state.level,
            Self::Absent => state.level == 0,
            Self::Rotten(_) | Self::Torn(_) | Self::Unavailable(_) => false,
        }
    }
}
