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
        let mut candidates = [Candidate::default(); DIGITS_MAX];
        let candidates = prepare(view, digits, in_use, &mut candidates);
        let (probe, missed) = longest(view, candidates, out);
        W::fence_acquire();
        let same = |miss: &Candidate| view.versions(miss.hash) == miss.versions;
        if missed.iter().all(same) && head.load() == in_use {
            return probe;
        }
    }
    Probe::Unavailable(Reason::Busy)
}

/// A prefix that may have a route.
#[derive(Clone, Copy, Default)]
struct Candidate {
    key: [u8; 10],
    hash: u64,
    /// Versions of the buckets in which it can be, before it was looked up.
    versions: u64,
}

/// Returns the prefixes of `digits` whose lengths are in use, longest first.
///
/// First all hashes, then all versions: the processor looks no further ahead than two or three hashes, and
/// would wait for one line of the index after the other; so it waits once for all of them.
fn prepare<'c, W: Word>(
    view: &View<'_, W>,
    digits: Digits,
    in_use: u64,
    candidates: &'c mut [Candidate; DIGITS_MAX],
) -> &'c [Candidate] {
    let mut left = in_use & bits_to(digits.len());
    let mut count: usize = 0;
    for candidate in &mut *candidates {
        let len = left.checked_ilog2().and_then(|len| u8::try_from(len).ok());
        let Some(prefix) = len.and_then(|len| digits.prefix(len)) else {
            break;
        };
        left &= !bit(prefix.len());
        let (first, rest) = Key::route_words(prefix);
        candidate.key = Key::route_bytes(prefix);
        candidate.hash = view.hashes.ten_bytes(first, rest);
        count = count.wrapping_add(1);
    }
    let candidates = candidates.get_mut(..count).unwrap_or_default();
    for candidate in &mut *candidates {
        candidate.versions = view.versions(candidate.hash);
    }
    W::fence_acquire();
    candidates
}

/// Looks the candidates up in turn; returns the outcome and those that were not there.
fn longest<'c, W: Word>(
    view: &View<'_, W>,
    candidates: &'c [Candidate],
    out: &mut [u8],
) -> (Probe, &'c [Candidate]) {
    for (at, candidate) in candidates.iter().enumerate() {
        match view.probe_hashed(candidate.hash, &candidate.key, out) {
            Probe::Absent => {}
            found @ (Probe::Found(..) | Probe::Unavailable(_)) => {
                return (found, candidates.get(..at).unwrap_or_default());
            }
        }
    }
    (Probe::Absent, candidates)
}

fn bit(len: u8) -> u64 {
    1_u64.wrapping_shl(len.into())
}

/// Returns the bits of all lengths up to `len`, at most [`DIGITS_MAX`].
fn bits_to(len: u8) -> u64 {
    bit(len).wrapping_shl(1).wrapping_sub(1) & !bit(0)
}

/// Returns the words of the leading digits under which a prefix lies.
fn under<W: Word>(words: &[W], prefix: Digits) -> impl Iterator<Item = &W> {
    // A prefix of one or two digits lies under a hundred or ten heads.
    let heads = match prefix.len() {
        1 => 100,
        2 => 10,
        _ => 1,
    };
    lengths(words).iter().skip(prefix.head().into()).take(heads)
}

/// Returns whether look-ups probe for this prefix; true for a key that is not that of a route.
pub(crate) fn is_noted<W: Word>(words: &[W], key: &[u8]) -> bool {
    Key::route_digits(key)
        .is_none_or(|prefix| under(words, prefix).all(|word| word.load() & bit(prefix.len()) != 0))
}

/// Lets look-ups probe for this prefix, if `key` is that of a route; before its record appears.
pub(crate) fn note<W: Word>(words: &[W], key: &[u8]) {
    let Some(prefix) = Key::route_digits(key) else {
        return;
    };
    for word in under(words, prefix) {
        let in_use = word.load();
        if in_use & bit(prefix.len()) == 0 {
            word.store(in_use | bit(prefix.len()));
        }
    }
}
