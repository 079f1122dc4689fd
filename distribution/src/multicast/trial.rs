//! Whether a node that listens hears the group well enough to be in it; it opens and orders nothing.

use std::time::Duration;

use locus_proto::Timestamp;

/// How long the group must be heard well before a node that has left says so …
pub(super) const TRIAL_MIN: Duration = Duration::from_secs(5);
/// … doubling to this with each time that it leaves again soon.
pub(super) const TRIAL_MAX: Duration = Duration::from_mins(1);
/// A stay in the group of at least this begins anew with [`TRIAL_MIN`].
pub(super) const TRIAL_STAY: Duration = Duration::from_mins(1);
/// Longest silence while the group is heard well: two beats.
pub(super) const TRIAL_SILENCE_MAX: Duration = Duration::from_millis(2500);
/// Of so many datagrams at least three must come: with a loss above a quarter, repair is no use.
pub(super) const TRIAL_LOSS_PART: u64 = 4;

/// The trial of a listener.
#[derive(Debug)]
pub(super) struct Trial {
    /// How long it must last; zero at first: the first datagram will do.
    wait: Duration,
    /// How long the next one must last if the next stay is short.
    next_wait: Duration,
    since: Option<Timestamp>,
    last: Timestamp,
    /// First and highest seq, and how many came.
    seqs: Option<(u64, u64)>,
    came: u64,
    /// It was passed and said.
    passed: bool,
    cut_at: Option<Timestamp>,
}

impl Trial {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            wait: Duration::ZERO,
            next_wait: TRIAL_MIN,
            since: None,
            last: now,
            seqs: None,
            came: 0,
            passed: false,
            cut_at: None,
        }
    }

    /// Takes that the node is in the group.
    pub(super) fn handle_cut(&mut self, now: Timestamp) {
        self.cut_at = Some(now);
        self.passed = true;
    }

    /// Takes that the node is out of the group, or is not wanted there.
    pub(super) fn handle_left(&mut self, now: Timestamp) {
        if !self.passed {
            return; // the trial is on already
        }
        if let Some(at) = self.cut_at.take() {
            if now.since(at) >= TRIAL_STAY {
                self.next_wait = TRIAL_MIN;
            }
            self.wait = self.next_wait;
            self.next_wait = (self.wait * 2).min(TRIAL_MAX);
        }
        self.wait = self.wait.max(TRIAL_MIN);
        self.passed = false;
        self.since = None;
    }

    /// Takes something heard, data with its seq; returns whether the trial is passed by it.
    pub(super) fn hear(&mut self, now: Timestamp, seq: Option<u64>) -> bool {
        if self.passed {
            return false;
        }
        let silent = now.since(std::mem::replace(&mut self.last, now)) > TRIAL_SILENCE_MAX;
        if silent || self.since.is_none() {
            self.begin(now);
        }
        if let Some(seq) = seq {
            let (first, highest) = self.seqs.get_or_insert((seq, seq));
            *highest = seq.max(*highest);
            *first = seq.min(*first);
            self.came += 1;
        }
        if self.since.is_none_or(|since| now.since(since) < self.wait) {
            return false;
        }
        let all = self
            .seqs
            .map_or(0, |(first, highest)| (highest - first).saturating_add(1));
        if all.saturating_sub(self.came) > all / TRIAL_LOSS_PART {
            self.begin(now);
            return false;
        }
        self.passed = true;
        true
    }

    fn begin(&mut self, now: Timestamp) {
        self.since = Some(now);
        self.seqs = None;
        self.came = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    /// Hears a datagram each second from `from` until the trial is passed; returns when.
    fn pass(trial: &mut Trial, from: u64, step: u64) -> u64 {
        (from..)
            .find(|t| trial.hear(s(*t), Some(t * step)))
            .unwrap()
    }

    #[test]
    fn first_at_once_then_after_five_seconds_doubling_to_a_minute() {
        let mut trial = Trial::new(s(0));
        assert_eq!(pass(&mut trial, 1, 1), 1);
        assert!(!trial.hear(s(2), None), "said once");
        let mut now = 10;
        for wait in [5, 10, 20, 40, 60, 60] {
            trial.handle_cut(s(now));
            trial.handle_left(s(now + 10));
            trial.handle_left(s(now + 10));
            assert_eq!(pass(&mut trial, now + 11, 1), now + 11 + wait);
            now += 100 + wait;
        }
        // A long stay, and all begins anew.
        trial.handle_cut(s(now));
        trial.handle_left(s(now + 60));
        assert_eq!(pass(&mut trial, now + 61, 1), now + 66);
    }

    #[test]
    fn silence_and_loss_begin_it_anew() {
        let mut trial = Trial::new(s(0));
        assert!(trial.hear(s(1), None));
        trial.handle_left(s(2)); // it was not wanted
        for t in [3, 4, 5] {
            assert!(!trial.hear(s(t), None));
        }
        assert!(
            !trial.hear(s(8), None),
            "five seconds, but silent for three"
        );
        assert_eq!(pass(&mut trial, 9, 1), 13);
        trial.handle_left(s(14));
        // Every second one is lost: never.
        assert!((15..100).all(|t| !trial.hear(s(t), Some(2 * t))));
        // Three of four come: passed.
        let mut came = (100..200).filter(|t| t % 4 != 0);
        assert!(came.any(|t| trial.hear(s(t), Some(2000 + t))));
    }
}
