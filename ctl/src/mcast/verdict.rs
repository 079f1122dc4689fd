//! What was heard, and what it says about the network; it opens no socket and reads no clock.

use std::time::Duration;

use serde::Serialize;

use super::{MEMBERSHIP, SILENCE};

/// What one listener has heard; times since it joined.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    received: u64,
    lost: u64,
    repeated: u64,
    first_at: Option<Duration>,
    last_at: Option<Duration>,
    run: Option<u64>,
    next: u64,
    runs: u32,
    /// Longest silence after the first datagram, and when it began.
    longest: Option<(Duration, Duration)>,
    pub(super) queries: Option<u32>,
}

impl Heard {
    pub(super) fn handle_datagram(&mut self, at: Duration, run: u64, number: u64) {
        if self.run != Some(run) {
            self.run = Some(run);
            self.runs += 1;
            self.next = number;
        }
        if number < self.next {
            self.repeated += 1;
            return;
        }
        // Anybody may send anything to the group, the last number too.
        self.lost = self.lost.saturating_add(number - self.next);
        self.next = number.saturating_add(1);
        self.received += 1;
        self.first_at.get_or_insert(at);
        self.note_silence(at);
        self.last_at = Some(at);
    }

    fn note_silence(&mut self, now: Duration) {
        let Some(last) = self.last_at else { return };
        let silence = now.saturating_sub(last);
        if silence >= SILENCE && self.longest.is_none_or(|(longest, _)| longest < silence) {
            self.longest = Some((silence, last));
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.first_at.is_some()
    }

    /// Returns how long nothing has come, from the first datagram on.
    pub(super) fn silence(&self, now: Duration) -> Duration {
        self.last_at
            .map_or(Duration::ZERO, |last| now.saturating_sub(last))
    }

    /// Ends the test at `now`.
    pub(super) fn judge(mut self, now: Duration) -> Verdict {
        self.note_silence(now);
        let tested = self
            .first_at
            .map_or(Duration::ZERO, |first| now.saturating_sub(first));
        let finding = match (self.first_at, self.longest) {
            (None, _) => Finding::Nothing,
            (Some(first), Some((_, began))) => Finding::Cut {
                after_s: began.saturating_sub(first).as_secs(),
            },
            (Some(_), None) if self.runs > 1 => Finding::Senders,
            (Some(_), None) if self.lost > self.received / 100 => Finding::Lossy,
            (Some(_), None) if tested < MEMBERSHIP => Finding::TooShort,
            (Some(_), None) => match self.queries {
                Some(0) => Finding::NoQuerier,
                Some(_) | None => Finding::Good,
            },
        };
        Verdict {
            finding,
            tested_s: tested.as_secs(),
            received: self.received,
            lost: self.lost,
            repeated: self.repeated,
            queries: self.queries,
        }
    }
}

/// What the network does with the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Finding {
    /// It came to the end, for longer than any membership lasts.
    Good,
    /// It came to the end; but nobody asks for members.
    NoQuerier,
    /// It came, but the test was too short to tell.
    TooShort,
    /// More than one in a hundred was lost.
    Lossy,
    /// Two tests run in one group.
    Senders,
    /// It came, and stopped.
    Cut {
        /// So long after it had begun.
        after_s: u64,
    },
    /// It never came.
    Nothing,
}

/// The result of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) finding: Finding,
    tested_s: u64,
    received: u64,
    lost: u64,
    repeated: u64,
    /// General queries seen; `None` if they could not be watched for.
    queries: Option<u32>,
}

impl Verdict {
    /// Whether multicast may be used.
    pub(super) fn is_good(&self) -> bool {
        match self.finding {
            Finding::Good | Finding::NoQuerier => true,
            Finding::TooShort
            | Finding::Lossy
            | Finding::Senders
            | Finding::Cut { .. }
            | Finding::Nothing => false,
        }
    }

    /// Returns what was counted, for people.
    pub(super) fn counts(&self) -> String {
        let Self {
            tested_s,
            received,
            lost,
            repeated,
            ..
        } = self;
        let queries = match self.queries {
            None => "membership queries not watched (needs root)".to_owned(),
            Some(count) => format!("{count} membership queries"),
        };
        format!("{received} datagrams in {tested_s} s, {lost} lost, {repeated} repeated; {queries}")
    }

    /// Returns what it means and what to do, for people.
    pub(super) fn meaning(&self) -> String {
        match self.finding {
            Finding::Good => "good: the group came to the end of the test".to_owned(),
            Finding::NoQuerier => "good, with one doubt: the group came to the end of the test, but no \
                 switch or router asked for members (no IGMP/MLD querier). That is well as long as snooping \
                 is off on this network; where it is on, enable a querier too"
                .to_owned(),
            Finding::TooShort => format!(
                "too short to tell: a switch forgets a member after {} s as a rule. Run the test for six \
                 minutes",
                MEMBERSHIP.as_secs()
            ),
            Finding::Lossy => "lossy: more than one datagram in a hundred was lost. Look for a port at its \
                 limit, a duplex mismatch, or too small a net.core.rmem_max, before multicast is used"
                .to_owned(),
            Finding::Senders => "two senders: another mcast-test runs in this group; end it and repeat"
                .to_owned(),
            Finding::Cut { after_s } => format!(
                "cut off after {after_s} s: the group came and then stopped. A switch on the way has \
                 forgotten this member: its IGMP/MLD snooping is on, and the querier is missing or asks less \
                 often than the membership time. Enable a querier on this network (query interval 125 s, \
                 membership time 260 s), or switch snooping off there. Until then the nodes use unicast"
            ),
            Finding::Nothing => format!(
                "nothing came: the sender does not run, sends on another interface or network, a firewall \
                 drops UDP to the group, or the path carries less than {} bytes",
                super::datagram::DATAGRAM_BYTES + 28
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EVERY;
    use super::*;

    fn heard(numbers: impl IntoIterator<Item = u64>) -> Heard {
        let mut heard = Heard::default();
        for number in numbers {
            let at = EVERY * u32::try_from(number).unwrap();
            heard.handle_datagram(at, 1, number);
        }
        heard
    }

    #[test]
    fn each_network_gets_its_word() {
        let six_minutes = Duration::from_secs(360);
        let all = || 0..3_600;
        let queried = |mut heard: Heard, queries| {
            heard.queries = queries;
            heard
        };
        let two = {
            let mut two = heard(all());
            two.handle_datagram(six_minutes, 2, 0);
            two
        };
        for (heard, end, expected, good) in [
            (
                queried(heard(all()), Some(3)),
                six_minutes,
                Finding::Good,
                true,
            ),
            (heard(all()), six_minutes, Finding::Good, true),
            (
                queried(heard(all()), Some(0)),
                six_minutes,
                Finding::NoQuerier,
                true,
            ),
            (
                heard(0..100),
                Duration::from_secs(10),
                Finding::TooShort,
                false,
            ),
            (
                heard((0..3_600).step_by(2)),
                six_minutes,
                Finding::Lossy,
                false,
            ),
            (
                heard(0..2_600),
                six_minutes,
                Finding::Cut { after_s: 259 },
                false,
            ),
            // Also if it came back: whoever queried late does so again.
            (
                heard((0..900).chain(1_000..3_600)),
                six_minutes,
                Finding::Cut { after_s: 89 },
                false,
            ),
            (heard([]), six_minutes, Finding::Nothing, false),
            (two, six_minutes, Finding::Senders, false),
        ] {
            let verdict = heard.judge(end);
            assert_eq!(
                (verdict.finding, verdict.is_good()),
                (expected, good),
                "{}",
                verdict.meaning()
            );
        }
    }

    #[test]
    fn a_forged_number_is_a_loss_and_no_more() {
        let mut heard = heard(0..10);
        for number in [u64::MAX, u64::MAX, 0] {
            heard.handle_datagram(EVERY * 11, 1, number);
        }
        let verdict = heard.judge(EVERY * 12);
        assert_eq!(verdict.finding, Finding::Lossy);
        assert_eq!((verdict.lost, verdict.repeated), (u64::MAX - 10, 1));
    }

    #[test]
    fn lost_and_repeated_are_counted_apart() {
        let verdict = heard([0, 1, 1, 4, 3, 5]).judge(Duration::from_secs(1));
        assert_eq!(
            (verdict.received, verdict.lost, verdict.repeated),
            (4, 2, 2)
        );
    }
}
