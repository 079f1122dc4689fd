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

use locus_proto::{Digits, Key};

use crate::layout::{AT_LENGTHS, LENGTHS_WORDS};
use crate::view::{Probe, View};
use crate::{Word, header};

/// Tries for a match beside a writer; see [`probe`].
const TRIES_MAX: usize = 3;

fn lengths<W: Word>(words: &[W]) -> &[W] {
    let end = AT_LENGTHS.saturating_add(LENGTHS_WORDS);
    words.get(AT_LENGTHS..end).unwrap_or(&[])
}

/// Looks up the longest prefix of `digits`.
///
/// A batch may move a route from one prefix to another between two probes. It puts before it deletes, so
/// whoever missed both sees a batch under way, and finds the new prefix at the next try.
pub(crate) fn probe<W: Word>(
    words: &[W],
    view: &View<'_, W>,
    digits: Digits,
    out: &mut [u8],
) -> Probe {
    let mut last = Probe::Absent;
    for _ in 0..TRIES_MAX {
        let sequence = header::quiet(words);
        last = probe_once(words, view, digits, out);
        W::fence_acquire();
        let quiet = sequence.is_some_and(|sequence| header::begin(words) == sequence);
        if quiet || last != Probe::Absent {
            break;
        }
    }
    last
}

fn probe_once<W: Word>(words: &[W], view: &View<'_, W>, digits: Digits, out: &mut [u8]) -> Probe {
    let in_use = lengths(words)
        .get(usize::from(digits.head()))
        .map_or(0, Word::load);
    W::fence_acquire();
    for len in (1..=digits.len()).rev() {
        if in_use & bit(len) == 0 {
            continue;
        }
        let Some(prefix) = digits.prefix(len) else {
            continue;
        };
        match view.probe(&Key::route_bytes(prefix), out) {
            Probe::Absent => {}
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
