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

use crate::layout::{ACCOUNT_WORDS, PROBE};
use crate::publish::REACH_MASK;
use crate::view::{Reason, View};
use crate::{Word, prefix};

/// Number of partitions: the top sixteen bits of a key's hash.
pub const PARTITIONS: usize = 65_536;

/// Number of groups of partitions: the top eight bits of a key's hash.
pub const GROUPS: usize = 256;

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

    /// Returns what [`Self::key`] returns for a key of ten bytes: these eight, then these two, little-endian.
    ///
    /// In registers: a key that was just put together byte by byte in memory could be read as words only
    /// when its bytes have left the processor, which is behind every load under way.
    #[inline]
    pub(crate) fn ten_bytes(&self, first: u64, rest: u16) -> u64 {
        let mut hasher = self.keys;
        hasher.write_u64(first);
        hasher.write_u16(rest);
        hasher.finish()
    }

    /// Returns the hash of a whole record: SipHash-1-3-128 of key length, level, key, value.
    pub(crate) fn record(&self, key: &[u8], level: Level, value: &[u8]) -> Root {
        let mut hasher = self.records;
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let head = u128::from(len) | u128::from(level.0) << 64;
        hasher.write(&head.to_le_bytes());
        hasher.write(key);
        hasher.write(value);
        let hash = hasher.finish128();
        Root([hash.h1, hash.h2])
    }

    /// Returns what a record comes to.
    pub(crate) fn account(&self, key: &[u8], level: Level, value: &[u8]) -> Account {
        let bytes = key.len().saturating_add(value.len());
        Account {
            sum: self.record(key, level, value),
            records: 1,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }
}

/// Returns the partition of a key with this hash.
#[inline]
pub(crate) fn partition_of(hash: u64) -> usize {
    usize::from(u16::try_from(hash >> PARTITION_SHIFT).unwrap_or(u16::MAX))
}

/// What some records come to: kept for each partition, so that it can be set right where memory rotted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Account {
    pub(crate) sum: Root,
    pub(crate) records: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

/// Bits of an account's last word that hold bytes: a terabyte, with sixteen million records above it.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

impl Account {
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sum: self.sum.plus(other.sum),
            records: self.records.wrapping_add(other.records),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    #[must_use]
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            sum: self.sum.minus(other.sum),
            records: self.records.wrapping_sub(other.records),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }

    /// Returns the check word of the one record that comes to this.
    ///
    /// Beside a record it tells whether its memory has rotted, whenever the record is hashed anyway.
    pub(crate) fn check_word(self) -> u32 {
        u32::try_from(self.sum.0[0] & u64::from(u32::MAX)).unwrap_or(0)
    }

    #[inline]
    fn from_words([low, high, counts]: [u64; ACCOUNT_WORDS]) -> Self {
        Self {
            sum: Root([low, high]),
            records: counts >> BYTES_BITS,
            bytes: counts & BYTES_MASK,
        }
    }
}

/// Returns the account of a partition from the words of all.
#[inline]
pub(crate) fn account<W: Word>(accounts: &[W], partition: usize) -> Account {
    let of = accounts.as_chunks::<ACCOUNT_WORDS>().0.get(partition);
    let words = of.map(|words| words.each_ref().map(W::load));
    words.map_or_else(Account::default, Account::from_words)
}

/// Stores the account of a partition.
#[inline]
pub(crate) fn set_account<W: Word>(accounts: &[W], partition: usize, account: Account) {
    let of = accounts.as_chunks::<ACCOUNT_WORDS>().0.get(partition);
    if let Some([low, high, counts]) = of {
        low.store(account.sum.0[0]);
        high.store(account.sum.0[1]);
        counts.store(account.records << BYTES_BITS | (account.bytes & BYTES_MASK));
    }
}

/// Returns the account of all partitions together; its sum is the root.
pub(crate) fn total<W: Word>(accounts: &[W]) -> Account {
    let mut total = Account::default();
    for [low, high, counts] in accounts.as_chunks::<ACCOUNT_WORDS>().0 {
        let (low, high, counts) = (low.load(), high.load(), counts.load());
        if low | high | counts != 0 {
            total = total.plus(Account::from_words([low, high, counts]));
        }
    }
    total
}

/// Returns the first bucket in which a record of the partition may lie, and the one behind the last.
///
/// Buckets rise with hashes, so the partition is one range of them, whatever the table's size.
pub(crate) fn range<W: Word>(view: &View<'_, W>, partition: usize) -> (u64, u64) {
    let first = u64::try_from(partition)
        .unwrap_or(u64::MAX)
        .wrapping_shl(PARTITION_SHIFT);
    let last = first | ((1 << PARTITION_SHIFT) - 1);
    let end = view.home(last).saturating_add(PROBE).saturating_add(1);
    (view.home(first), end.min(view.buckets_all()))
}

/// Returns the same for the records that look-ups can find: these lie within the reach of their homes, a
/// few buckets of the forty, and those behind are other partitions' to read; at the table's end nobody's.
fn reachable<W: Word>(view: &View<'_, W>, partition: usize) -> (u64, u64) {
    let (start, all) = range(view, partition);
    if all == view.buckets_all() {
        return (start, all);
    }
    let homes = start..=all.saturating_sub(PROBE.saturating_add(1));
    let last = homes.filter_map(|home| {
        let reach = view.bucket(home)?.first()?.load() & REACH_MASK;
        Some(home.saturating_add(reach.min(PROBE)))
    });
    let end = last.max().map_or(all, |last| last.saturating_add(1));
    (start, end.min(all))
}

/// Calls `each` with the records of a partition that look-ups can find and that are what was written:
/// bucket, level, key, value and what it comes to.
pub(crate) fn each_record<W: Word>(
    words: &[W],
    view: &View<'_, W>,
    partition: usize,
    out: &mut [u8],
    mut each: impl FnMut(u64, Level, &[u8], &[u8], Account),
) -> Result<(), (u64, Reason)> {
    let (start, end) = reachable(view, partition);
    view.scan_buckets(start, end, out, |place, head, key, value| {
        let hash = view.hashes.key(key);
        if partition_of(hash) == partition && view.is_in_place(hash, place, head) {
            let record = view.hashes.account(key, head.level, value);
            if record.check_word() == head.check && prefix::is_noted(words, key) {
                each(place.bucket, head.level, key, value, record);
            }
        }
    })
}

/// Reads a partition's records and returns what they come to.
pub(crate) fn rehash<W: Word>(
    words: &[W],
    view: &View<'_, W>,
    partition: usize,
    out: &mut [u8],
) -> Result<Account, Reason> {
    let mut account = Account::default();
    each_record(words, view, partition, out, |_, _, _, _, record| {
        account = account.plus(record);
    })
    .map_err(|(_, reason)| reason)?;
    Ok(account)
}
