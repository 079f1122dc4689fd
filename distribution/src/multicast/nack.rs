//! When a receiver asks for what is missing: late enough that one voice speaks for all; it knows no seq but
//! the last that was repaired.

use std::time::Duration;

use locus_proto::Timestamp;

use super::draw::Draw;
use super::members::RTT_UNKNOWN;
use super::nacks::BACK_OFF_MAX;

/// Shortest time over which the first voices of a group spread.
pub(super) const NACK_SPREAD_MIN: Duration = Duration::from_millis(1);
/// Up to this many members the spread is a round trip; beyond, it grows with the logarithm.
pub(super) const NACK_SPREAD_MEMBERS: u16 = 16;
/// Shortest time between two NACKs of one receiver, before it is drawn from one to two times that.
pub(super) const NACK_AGAIN_MIN: Duration = Duration::from_millis(3);
/// Longest time between two NACKs of one receiver, and over which first ones spread.
pub(super) const NACK_AGAIN_MAX: Duration = Duration::from_millis(400);
/// How long after one repair the next is awaited, at least.
pub(super) const REPAIR_FLOW: Duration = Duration::from_millis(2);

/// What the receiver knows of the group, from its beats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) members: u16,
    pub(super) rtt: Duration,
    back_off: u8,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            members: 1,
            rtt: RTT_UNKNOWN,
            back_off: 0,
        }
    }

    /// Takes what a beat says, as far as it can be true.
    pub(super) fn hear(&mut self, members: u16, rtt: Duration, back_off: u8) {
        self.members = members;
        self.rtt = rtt.min(NACK_AGAIN_MAX / 2);
        self.back_off = back_off.min(BACK_OFF_MAX);
    }

    /// Returns T, the time over which first NACKs spread: T_maxBackoff of RFC 5401 §3.2.2.
    pub(super) fn spread(&self) -> Duration {
        let beyond = f64::from(self.members) / f64::from(NACK_SPREAD_MEMBERS);
        let growth = 1.0 + beyond.max(1.0).ln();
        let spread = self.rtt.max(NACK_SPREAD_MIN).mul_f64(growth);
        (spread * (1 << self.back_off)).min(NACK_AGAIN_MAX)
    }
}

/// The timer of NACKs: one outstanding, doubling while nothing comes.
///
/// ```text
///            hole            due, asked              repair
///   idle ─────────► waiting ────────────► outstanding ──────► waiting, or idle without a hole
///                      ▲                   │ due: ask again, twice as late
///                      └───────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct NackTimer {
    draw: Draw,
    /// When to look at the holes; `None` while there is none.
    due_at: Option<Timestamp>,
    /// The last NACK is outstanding until then.
    again_at: Timestamp,
    /// NACKs more than repairs: how often the wait was doubled.
    tries: u32,
    /// The last repair that came.
    repaired: Option<(u64, Timestamp)>,
}

impl NackTimer {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            draw: Draw::new(seed),
            due_at: None,
            again_at: Timestamp(0),
            tries: 0,
            repaired: None,
        }
    }

    /// Returns until when new holes are kept quiet about: others may ask.
    pub(super) fn backoff(&mut self, now: Timestamp, group: &Group) -> Timestamp {
        now.plus(self.draw.backoff(group.spread(), group.members))
    }

    /// Takes that holes may be asked for from `at` on.
    pub(super) fn handle_holes(&mut self, at: Timestamp) {
        let at = at.max(self.again_at);
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// Takes a repair; `left` is how many holes are left.
    pub(super) fn handle_repair(&mut self, now: Timestamp, seq: u64, left: usize) {
        self.tries = self.tries.saturating_sub(1);
        self.repaired = Some((seq, now));
        if left == 0 {
            self.due_at = None;
            self.tries = 0;
        }
    }

    /// Returns when to look at the holes.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }

    /// Returns until when nothing is asked again after a NACK or a confirm that comes now.
    pub(super) fn again(&mut self, now: Timestamp, group: &Group) -> Timestamp {
        let base = NACK_AGAIN_MIN.max(group.rtt * 2);
        let doubled = base * (1 << (self.tries.min(8) + u32::from(group.back_off)));
        now.plus(self.draw.one_to_two(doubled).min(NACK_AGAIN_MAX))
    }

    /// Returns the seq above which repairs are on their way: they come lowest first, so what is above
    /// the last one is not overdue while they flow.
    pub(super) fn awaited(&self, now: Timestamp, group: &Group) -> Option<u64> {
        let (seq, at) = self.repaired?;
        (now.since(at) < REPAIR_FLOW.max(group.rtt)).then_some(seq)
    }

    /// Takes that a NACK was sent which is outstanding until `again`.
    pub(super) fn handle_sent(&mut self, again: Timestamp) {
        self.tries = self.tries.saturating_add(1);
        self.again_at = again;
        self.due_at = Some(again);
    }

    /// Takes that nothing was to be asked; `at` is when it may be, `None` without a hole.
    pub(super) fn handle_nothing(&mut self, at: Option<Timestamp>) {
        self.due_at = at.map(|at| at.max(self.again_at));
    }

    /// Takes that the receiver asks for nothing any more.
    pub(super) fn stop(&mut self) {
        self.due_at = None;
        self.tries = 0;
        self.repaired = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * MS)
    }

    fn group(members: u16, rtt_us: u64, back_off: u8) -> Group {
        let mut group = Group::new();
        group.hear(members, Duration::from_micros(rtt_us), back_off);
        group
    }

    #[test]
    fn the_spread_is_a_round_trip_then_grows_with_the_logarithm() {
        let ms = |members, rtt_us, back_off| {
            group(members, rtt_us, back_off).spread().as_secs_f64() * 1000.0
        };
        assert_eq!(ms(1, 200, 0), 1.0);
        assert_eq!(ms(16, 200, 0), 1.0);
        assert_eq!(ms(16, 5_000, 0), 5.0);
        assert!((ms(1000, 200, 0) - 5.135).abs() < 0.01);
        assert!((ms(1000, 200, 2) - 4.0 * 5.135).abs() < 0.01);
        // What a member forges is limited.
        assert_eq!(ms(u16::MAX, 4_000_000_000, 255), 400.0);
    }

    /// The state diagram, edge by edge.
    #[test]
    fn transitions() {
        let group = group(8, 200, 0);
        let mut timer = NackTimer::new(1);
        assert_eq!(timer.due_at(), None); // idle
        // idle → waiting
        timer.handle_holes(at(5));
        assert_eq!(timer.due_at(), Some(at(5)));
        timer.handle_holes(at(4));
        assert_eq!(
            timer.due_at(),
            Some(at(4)),
            "an earlier hole is asked for earlier"
        );
        timer.handle_holes(at(9));
        assert_eq!(timer.due_at(), Some(at(4)));
        // waiting → outstanding, one to two times three milliseconds
        let again = timer.again(at(4), &group);
        assert!((at(7)..=at(10)).contains(&again));
        timer.handle_sent(again);
        assert_eq!(timer.due_at(), Some(again));
        // A new hole waits for the outstanding one.
        timer.handle_holes(at(5));
        assert_eq!(timer.due_at(), Some(again));
        // outstanding → outstanding, twice as late each time, up to the limit
        let mut now = again;
        for wait in [6, 12, 24, 48, 96, 192, 384, 400, 400] {
            let again = timer.again(now, &group);
            let (min, max) = (now.0 + wait * MS, now.0 + (2 * wait).min(400) * MS);
            assert!((min..=max).contains(&again.0), "{wait} ms");
            timer.handle_sent(again);
            now = again;
        }
        // outstanding → waiting: a repair came, others are awaited above it for a moment.
        timer.handle_repair(now, 17, 3);
        assert_eq!(timer.due_at(), Some(now));
        assert_eq!(timer.awaited(now, &group), Some(17));
        assert_eq!(timer.awaited(now.plus(REPAIR_FLOW), &group), None);
        // waiting → idle: the last hole is filled, and the next one begins with the short wait.
        timer.handle_repair(now, 20, 0);
        assert_eq!(timer.due_at(), None);
        assert!(timer.again(now, &group) <= now.plus(NACK_AGAIN_MIN * 2));
        // Nothing to ask for now: looked at again when it may be, not before the outstanding one.
        timer.handle_nothing(Some(at(0)));
        assert_eq!(timer.due_at(), Some(now));
        timer.handle_nothing(None);
        assert_eq!(timer.due_at(), None);
    }
}
