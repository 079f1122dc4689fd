//! Longest-prefix match by one probe per length; it knows digits, not what a route holds.
//!
//! A map of one word for each leading three digits says which lengths are in use there: bit n for n
//! digits. Bits are only set while a table lives; a bit too many costs a probe, one too few would lose a
//! route, so they are set before the route appears.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use locus_proto::{DIGITS_MAX, Digits, Key};

use crate::Word;
use crate::layout::{AT_LENGTHS, LENGTHS_WORDS};
use crate::view::{Probe, RETRIES_MAX, Reason, View};

fn lengths<W: Word>(words: &[W]) -> &[W] {
    let end = AT_LENGTHS.saturating_add(LENGTHS_WORDS);
    words.get(AT_LENGTHS..end).unwrap_or(&[])
}

/// Looks up the longest prefix of `digits`.
///
/// A batch may move a route from one prefix to another between two probes. It puts before it deletes, so
/// whoever missed the new one, and then finds the old one gone, sees at the end that the bucket of the
/// first miss has changed, or that a length has come into use, and looks again: it answers neither
/// "absent" nor with a shorter prefix that both have.
pub(crate) fn probe<W: Word>(
    words: &[W],
    view: &View<'_, W>,
    digits: Digits,
    out: &mut [u8],
) -> Probe {
    let Some(head) = lengths(words).get(usize::from(digits.head())) else {
        return Probe::Unavailable(Reason::Corrupt);
    };
    for _ in 0..RETRIES_MAX {
        let in_use = head.load();
        W::fence_acquire();
        let mut misses = [None; DIGITS_MAX];
        let probe = longest(view, digits, in_use, &mut misses, out);
        W::fence_acquire();
        let mut missed = misses.iter().flatten();
        if missed.all(|miss| view.versions(miss.hash) == miss.versions) && head.load() == in_use {
            return probe;
        }
    }
    Probe::Unavailable(Reason::Busy)
}

/// A prefix that was not there, and the versions of where it could have been.
#[derive(Clone, Copy)]
struct Miss {
    hash: u64,
    versions: u64,
}

fn longest<W: Word>(
    view: &View<'_, W>,
    digits: Digits,
    in_use: u64,
    misses: &mut [Option<Miss>; DIGITS_MAX],
    out: &mut [u8],
) -> Probe {
    let lengths = (1..=digits.len()).rev();
    for (len, miss) in lengths.filter(|len| in_use & bit(*len) != 0).zip(misses) {
        let Some(prefix) = digits.prefix(len) else {
            continue;
        };
        let key = Key::route_bytes(prefix);
        let hash = view.hashes.key(&key);
        let versions = view.versions(hash);
        W::fence_acquire();
        match view.probe_hashed(hash, &key, out) {
            Probe::Absent => *miss = Some(Miss { hash, versions }),
            found @ (Probe::Found(..) | Probe::Unavailable(_)) => return found,
        }
    }
    Probe::Absent
}

fn bit(len: u8) -> u64 {
    1_u64.wrapping_shl(len.into())
}

/// Lets look-ups probe for this prefix, if `key` is that of a route; before its record appears.
pub(crate) fn note<W: Word>(words: &[W], key: &[u8]) {
    let Some(prefix) = Key::route_digits(key) else {
        return;
    };
    // A prefix of one or two digits lies under a hundred or ten heads.
    let heads = match prefix.len() {
        1 => 100,
        2 => 10,
        _ => 1,
    };
    let under = lengths(words).iter().skip(prefix.head().into()).take(heads);
    for word in under {
        let in_use = word.load();
        if in_use & bit(prefix.len()) == 0 {
            word.store(in_use | bit(prefix.len()));
        }
    }
}
