//! Keyed hashes of keys and records, and the sums by which two tables compare; it moves no record.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fmt;
use std::hash::Hasher;

use locus_proto::{Level, Root};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as RecordHasher};

use crate::Word;
use crate::layout::{PROBE, SUM_WORDS};
use crate::view::{Reason, View};

/// Number of partitions: the top sixteen bits of a key's hash.
pub const PARTITIONS: usize = 65_536;

/// Low bits of a key's hash below the partition.
pub(crate) const PARTITION_SHIFT: u32 = 48;

/// Keeps the hash of records apart from that of keys.
const RECORD_DOMAIN: u64 = 0x7265_636f_7264_2d31;

/// Secret of a cluster, the same on master and nodes: seeds the index hash and the record hash.
///
/// Whoever knows it can make keys that fall into one bucket, or records that do not change a sum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableKey(pub [u8; 16]);

impl fmt::Debug for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableKey(secret)")
    }
}

impl TableKey {
    pub(crate) fn to_words(self) -> [u64; 2] {
        let key = u128::from_le_bytes(self.0).to_le_bytes();
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

/// The hash functions of one table, keyed and ready to be fed.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    keys: SipHasher13,
    records: RecordHasher,
}

impl Hashes {
    pub(crate) fn new([k0, k1]: [u64; 2]) -> Self {
        Self {
            keys: SipHasher13::new_with_keys(k0, k1),
            records: RecordHasher::new_with_keys(k0 ^ RECORD_DOMAIN, k1),
        }
    }

    /// Returns the hash that places `key`: its top bits choose bucket and partition, its low bits the tag.
    #[inline]
    pub(crate) fn key(&self, key: &[u8]) -> u64 {
        self.keys.hash(key)
    }

    /// Returns the hash of a whole record: SipHash-1-3-128 of key length, flags, level, key, value.
    pub(crate) fn record(&self, key: &[u8], level: Level, flags: u32, value: &[u8]) -> Root {
        let mut hasher = self.records;
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let head = u128::from(len) | u128::from(flags) << 32 | u128::from(level.0) << 64;
        hasher.write(&head.to_le_bytes());
        hasher.write(key);
        hasher.write(value);
        let hash = hasher.finish128();
        Root([hash.h1, hash.h2])
    }
}

/// Returns the partition of a key with this hash.
pub(crate) fn partition_of(hash: u64) -> usize {
    usize::from(u16::try_from(hash >> PARTITION_SHIFT).unwrap_or(u16::MAX))
}

/// Returns the sum of a partition from the words of all sums.
pub(crate) fn sum<W: Word>(sums: &[W], partition: usize) -> Root {
    match sums.as_chunks::<SUM_WORDS>().0.get(partition) {
        Some([low, high]) => Root([low.load(), high.load()]),
        None => Root::EMPTY,
    }
}

/// Stores the sum of a partition.
pub(crate) fn set_sum<W: Word>(sums: &[W], partition: usize, sum: Root) {
    if let Some([low, high]) = sums.as_chunks::<SUM_WORDS>().0.get(partition) {
        low.store(sum.0[0]);
        high.store(sum.0[1]);
    }
}

/// Returns the sum over all partitions: the root.
pub(crate) fn total<W: Word>(sums: &[W]) -> Root {
    sums.as_chunks::<SUM_WORDS>()
        .0
        .iter()
        .fold(Root::EMPTY, |root, [low, high]| {
            root.plus(Root([low.load(), high.load()]))
        })
}

/// Reads a partition's records and returns their sum.
///
/// Buckets rise with hashes, so the partition is one range of them, whatever the table's size.
pub(crate) fn rehash<W: Word>(
    view: &View<'_, W>,
    partition: usize,
    out: &mut [u8],
) -> Result<Root, Reason> {
    let first = u64::try_from(partition)
        .unwrap_or(u64::MAX)
        .wrapping_shl(PARTITION_SHIFT);
    let last = first | ((1 << PARTITION_SHIFT) - 1);
    let end = view.home(last).saturating_add(PROBE).saturating_add(1);
    let mut sum = Root::EMPTY;
    view.scan_buckets(
        view.home(first),
        end.min(view.buckets_all()),
        out,
        |_, head, key, value| {
            if partition_of(view.hashes.key(key)) == partition {
                sum = sum.plus(view.hashes.record(key, head.level, head.flags, value));
            }
            Ok(())
        },
    )
    .map_err(|(_, reason)| reason)?;
    Ok(sum)
}
