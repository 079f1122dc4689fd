//! The receiver's reorder buffer: what is here, what is missing, what was asked for; it opens nothing.

use std::collections::VecDeque;

use locus_proto::Timestamp;
use locus_proto::v1::{FragmentFlags, RANGES_MAX, SeqRange};

use super::config::WINDOW_DATAGRAMS;

/// Confirms that put off asking for a datagram; after that it is asked for in any case, so that a
/// member that forges them silences nobody.
pub(super) const CONFIRMS_MAX: u8 = 4;

/// The opened payload of a data datagram.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) flags: FragmentFlags,
    pub(super) payload: Box<[u8]>,
}

/// A datagram that is known to exist and is not here.
#[derive(Debug, Clone, Copy)]
struct Hole {
    /// Not to be asked for before this: it was asked for, or somebody else is likely to.
    quiet_until: Timestamp,
    /// Confirms that have put it off.
    confirms: u8,
}

#[derive(Debug)]
enum Slot {
    Hole(Hole),
    Held(Fragment),
}

/// Where a seq stands, before its datagram is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It was taken before.
    Old,
    /// It is held.
    Held,
    /// It is missing, or the next ones after the highest known.
    Free,
    /// It is further ahead than the window is long.
    Ahead,
}

/// A range of seqs that begins at the first not taken yet: holes and what is held behind them.
#[derive(Debug)]
pub(super) struct Window {
    next: u64,
    slots: VecDeque<Slot>,
    holes: usize,
}

impl Window {
    pub(super) fn new(next: u64) -> Self {
        Self {
            next,
            slots: VecDeque::new(),
            holes: 0,
        }
    }

    /// Returns the first seq that was not taken yet.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the seq behind the highest that is known to exist.
    pub(super) fn end(&self) -> u64 {
        self.next.saturating_add(as_u64(self.slots.len()))
    }

    /// Returns how many are missing.
    pub(super) fn holes(&self) -> usize {
        self.holes
    }

    /// Returns where `seq` stands.
    pub(super) fn place(&self, seq: u64) -> Place {
        let Some(distance) = seq.checked_sub(self.next) else {
            return Place::Old;
        };
        if distance >= WINDOW_DATAGRAMS {
            return Place::Ahead;
        }
        match self.slots.get(index(distance)) {
            Some(Slot::Held(_)) => Place::Held,
            Some(Slot::Hole(_)) | None => Place::Free,
        }
    }

    /// Takes that everything up to `highest` exists; returns how many holes that adds.
    ///
    /// What is further ahead than the window is long is not believed.
    pub(super) fn reach(&mut self, highest: u64, quiet_until: Timestamp) -> u64 {
        let end = highest
            .saturating_add(1)
            .min(self.next.saturating_add(WINDOW_DATAGRAMS));
        let mut new = 0;
        while self.end() < end {
            self.push_hole(quiet_until);
            new += 1;
        }
        new
    }

    fn push_hole(&mut self, quiet_until: Timestamp) {
        self.holes += 1;
        self.slots.push_back(Slot::Hole(Hole {
            quiet_until,
            confirms: 0,
        }));
    }

    /// Holds a fragment whose place is [`Place::Free`]; returns whether it was known to be missing, and how
    /// many holes it shows.
    pub(super) fn hold(
        &mut self,
        seq: u64,
        fragment: Fragment,
        quiet_until: Timestamp,
    ) -> (bool, u64) {
        let new = self.reach(seq.saturating_sub(1), quiet_until);
        let Some(distance) = seq.checked_sub(self.next) else {
            return (false, new);
        };
        let index = index(distance);
        if index == self.slots.len() {
            self.slots.push_back(Slot::Held(fragment));
            return (false, new);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::Held(fragment);
            self.holes -= 1;
        }
        (true, new)
    }

    /// Takes the next seq itself, which came and is not held; returns whether it was known to be missing.
    pub(super) fn advance(&mut self) -> bool {
        self.next += 1;
        match self.slots.pop_front() {
            Some(Slot::Hole(_)) => {
                self.holes -= 1;
                true
            }
            Some(Slot::Held(_)) | None => false,
        }
    }

    /// Takes the next fragment out if it is held.
    pub(super) fn take(&mut self) -> Option<(u64, Fragment)> {
        match self.slots.pop_front()? {
            Slot::Held(fragment) => {
                self.next += 1;
                Some((self.next - 1, fragment))
            }
            hole @ Slot::Hole(_) => {
                self.slots.push_front(hole);
                None
            }
        }
    }

    /// Goes back to `first`: everything from there to what was taken last is missing again.
    pub(super) fn rewind(&mut self, first: u64, quiet_until: Timestamp) {
        while self.next > first {
            self.next -= 1;
            self.holes += 1;
            self.slots.push_front(Slot::Hole(Hole {
                quiet_until,
                confirms: 0,
            }));
        }
        self.cut_end();
    }

    /// Begins at `first`: what is held from there on stays, what is before is dropped.
    pub(super) fn begin(&mut self, first: u64, quiet_until: Timestamp) {
        let far = first.abs_diff(self.next) > WINDOW_DATAGRAMS;
        if far || first > self.end() {
            *self = Self::new(first);
            return;
        }
        while self.next < first {
            self.advance();
        }
        self.rewind(first, quiet_until);
        for slot in &mut self.slots {
            if let Slot::Hole(hole) = slot {
                hole.quiet_until = quiet_until;
            }
        }
    }

    /// Drops the first ones, so that at most `len` are held and `seq` is among them.
    pub(super) fn slide(&mut self, seq: u64, len: u64) {
        let first = seq.saturating_add(1).saturating_sub(len);
        if first > self.end() {
            *self = Self::new(seq);
        }
        while self.next < first {
            self.advance();
        }
    }

    /// Forgets what is further ahead than the window is long.
    fn cut_end(&mut self) {
        while as_u64(self.slots.len()) > WINDOW_DATAGRAMS {
            if let Some(Slot::Hole(_)) = self.slots.pop_back() {
                self.holes -= 1;
            }
        }
    }

    /// Takes that all in these ranges is asked for and will come again: not to be asked for before `until`.
    pub(super) fn confirm(&mut self, ranges: &[SeqRange], until: Timestamp) {
        let end = self.end();
        for range in ranges.iter().take(RANGES_MAX) {
            for seq in range.first.max(self.next)..range.end().min(end) {
                if let Some(Slot::Hole(hole)) = self.slots.get_mut(index(seq - self.next))
                    && hole.confirms < CONFIRMS_MAX
                {
                    hole.confirms += 1;
                    hole.quiet_until = hole.quiet_until.max(until);
                }
            }
        }
    }

    /// Returns the ranges to ask for now, at most [`RANGES_MAX`], lowest first, and keeps quiet about them
    /// until `until`.
    ///
    /// `awaited` is a seq above which repairs are arriving in order, so that they are not asked for yet.
    pub(super) fn ask(
        &mut self,
        now: Timestamp,
        until: Timestamp,
        awaited: Option<u64>,
    ) -> Vec<SeqRange> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        let end = awaited.map_or(u64::MAX, |seq| seq.saturating_add(1));
        for (seq, slot) in (self.next..end).zip(&mut self.slots) {
            let Slot::Hole(hole) = slot else {
                continue;
            };
            if hole.quiet_until > now {
                continue;
            }
            let full = ranges.len() == RANGES_MAX;
            match ranges.last_mut() {
                // A window is shorter than a range can be.
                Some(range) if range.end() == seq => range.count += 1,
                Some(_) if full => break,
                Some(_) | None => ranges.push(SeqRange {
                    first: seq,
                    count: 1,
                }),
            }
            hole.quiet_until = until;
        }
        ranges
    }

    /// Returns when the first hole may be asked for; `None` without one.
    pub(super) fn quiet_until(&self) -> Option<Timestamp> {
        let holes = self.slots.iter().filter_map(|slot| match slot {
            Slot::Hole(hole) => Some(hole.quiet_until),
            Slot::Held(_) => None,
        });
        holes.min()
    }

    /// Returns the bytes that are held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let held = self.slots.iter().map(|slot| match slot {
            Slot::Held(fragment) => fragment.payload.len(),
            Slot::Hole(_) => 0,
        });
        held.sum()
    }
}

fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100);
    const SOON: Timestamp = Timestamp(200);

    fn fragment() -> Fragment {
        Fragment {
            flags: FragmentFlags::NONE,
            payload: Box::from([0; 4]),
        }
    }

    fn range(first: u64, count: u16) -> SeqRange {
        SeqRange { first, count }
    }

    /// (next, end, holes, held bytes)
    fn state(window: &Window) -> (u64, u64, usize, usize) {
        (
            window.next(),
            window.end(),
            window.holes(),
            window.held_bytes(),
        )
    }

    /// Each input from each kind of window, and the window after it.
    #[test]
    fn transitions() {
        let mut w = Window::new(10);
        // Where seqs stand, in an empty window.
        let places =
            [9, 10, 14, 10 + WINDOW_DATAGRAMS - 1, 10 + WINDOW_DATAGRAMS].map(|s| w.place(s));
        use Place::{Ahead, Free, Held, Old};
        assert_eq!(places, [Old, Free, Free, Free, Ahead]);
        // The next one, in order: nothing is held.
        assert!(!w.advance());
        assert_eq!(state(&w), (11, 11, 0, 0));
        // One further on shows two holes.
        assert_eq!(w.hold(13, fragment(), SOON), (false, 2));
        assert_eq!(state(&w), (11, 14, 2, 4));
        assert_eq!(
            [11, 12, 13, 14].map(|s| w.place(s)),
            [Free, Free, Held, Free]
        );
        // The one behind it shows none.
        assert_eq!(w.hold(14, fragment(), SOON), (false, 0));
        // A beat shows one more; what is known or too far is no news.
        assert_eq!(
            (w.reach(15, SOON), w.reach(15, SOON), w.reach(3, SOON)),
            (1, 0, 0)
        );
        assert_eq!(state(&w), (11, 16, 3, 8));
        // A hole is filled out of order.
        assert_eq!(w.hold(12, fragment(), SOON), (true, 0));
        assert_eq!(state(&w), (11, 16, 2, 12));
        // Nothing can be taken yet; the first comes, and three follow it.
        assert!(w.take().is_none());
        assert!(w.advance());
        let taken: Vec<u64> = std::iter::from_fn(|| w.take())
            .map(|(seq, _)| seq)
            .collect();
        assert_eq!(taken, [12, 13, 14]);
        assert_eq!(state(&w), (15, 16, 1, 0));
        // Back: what was taken is missing again.
        w.rewind(13, NOW);
        assert_eq!(state(&w), (13, 16, 3, 0));
        // Begin within, before, and far away.
        w.begin(14, NOW);
        assert_eq!(state(&w), (14, 16, 2, 0));
        w.begin(12, NOW);
        assert_eq!(state(&w), (12, 16, 4, 0));
        w.begin(1_000_000, NOW);
        assert_eq!(state(&w), (1_000_000, 1_000_000, 0, 0));
        // A window is never longer than its limit, whatever it is told exists, and seqs do not wrap.
        assert_eq!(w.reach(u64::MAX, NOW), WINDOW_DATAGRAMS);
        w.rewind(999_000, NOW);
        assert_eq!(w.end() - w.next(), WINDOW_DATAGRAMS);
        let mut w = Window::new(u64::MAX - 1);
        assert_eq!(w.place(u64::MAX), Free);
        assert_eq!(w.reach(u64::MAX, NOW), 1);
    }

    #[test]
    fn sliding_keeps_the_last_ones() {
        let mut w = Window::new(1);
        for seq in 1..=10 {
            w.slide(seq, 4);
            w.hold(seq, fragment(), NOW);
        }
        assert_eq!(state(&w), (7, 11, 0, 16));
        w.slide(1000, 4);
        w.hold(1000, fragment(), NOW);
        assert_eq!(state(&w), (1000, 1001, 0, 4));
    }

    #[test]
    fn a_hole_is_asked_for_when_its_time_has_come_and_then_kept_quiet_about() {
        let mut w = Window::new(1);
        w.hold(4, fragment(), NOW);
        w.hold(6, fragment(), SOON);
        assert_eq!(w.ask(NOW, SOON, None), [range(1, 3)]);
        assert_eq!(w.ask(NOW, SOON, None), []);
        assert_eq!(w.quiet_until(), Some(SOON));
        // Above a repair that has just come the next are awaited.
        assert_eq!(w.ask(SOON, Timestamp(300), Some(2)), [range(1, 2)]);
        assert_eq!(
            w.ask(SOON, Timestamp(300), None),
            [range(3, 1), range(5, 1)]
        );
    }

    #[test]
    fn at_most_forty_ranges_are_asked_for_lowest_first() {
        let mut w = Window::new(1);
        for seq in (2..=200).step_by(2) {
            w.hold(seq, fragment(), NOW);
        }
        let ranges = w.ask(NOW, SOON, None);
        assert_eq!(
            (ranges.len(), ranges[0], ranges[39]),
            (40, range(1, 1), range(79, 1))
        );
        assert_eq!(w.ask(NOW, SOON, None)[0], range(81, 1));
    }

    #[test]
    fn a_confirm_puts_off_asking_but_not_for_ever() {
        let mut w = Window::new(1);
        w.reach(5, NOW);
        for later in 1..=10 {
            w.confirm(
                &[range(2, 2), range(900, u16::MAX)],
                Timestamp(1000 * later),
            );
        }
        assert_eq!(w.ask(NOW, SOON, None), [range(1, 1), range(4, 2)]);
        let last = Timestamp(1000 * u64::from(CONFIRMS_MAX));
        assert_eq!(w.ask(last, Timestamp(9999), None), [range(1, 5)]);
    }
}
