//! How fast datagrams leave: one rate for all, half of it at most for repairs, halved when that is not enough.
//!
//! It knows no datagram, only lengths. The lesson behind it: without it, 32 receivers that lost because
//! they were overloaded were sent four times the bytes, and lost more. RFC 5740 §5.5.2 leaves the
//! rate to the application or to congestion control; this is the smallest one that settles.

use std::time::Duration;

use locus_proto::Timestamp;

/// What may leave at once after a pause, in time at the current rate.
const BURST: Duration = Duration::from_millis(2);
/// What may leave at once after a pause, at least: some ten datagrams.
const BURST_BYTES_MIN: u64 = 16 * 1024;
/// The share of the rate that repairs may take is one part of this.
const REPAIR_PART: u64 = 2;
/// Time over which it is judged whether repairs want more than their share; also how often the rate rises.
pub(super) const REPAIR_PATIENCE: Duration = Duration::from_millis(100);
/// Each time the rate rises by this part of itself …
const RISE_PART: u64 = 32;
/// … or by this part of the configured rate, whichever is more.
const RISE_PART_OF_MAX: u64 = 1024;
/// The rate that is halved is what was in use, but at least this part of what might have been.
const USED_PART: u64 = 4;

/// A token bucket as a virtual clock (GCRA): one number, exact, no tick.
#[derive(Debug)]
struct Bucket {
    /// When all that was taken would have left at exactly the rate.
    clock: Timestamp,
}

impl Bucket {
    /// Returns when `rate` next lets something leave.
    fn free_at(&self, rate: u64) -> Timestamp {
        Timestamp(self.clock.0.saturating_sub(nanos(burst(rate), rate)))
    }

    fn take(&mut self, now: Timestamp, bytes: usize, rate: u64) {
        let bytes = as_u64(bytes);
        self.clock = Timestamp(self.clock.0.max(now.0).saturating_add(nanos(bytes, rate)));
    }
}

/// Returns how many bytes may leave at once.
fn burst(rate: u64) -> u64 {
    let ms = u64::try_from(BURST.as_millis()).unwrap_or(0);
    (rate / 1000).saturating_mul(ms).max(BURST_BYTES_MIN)
}

/// Returns the time that `bytes` take at `rate`.
fn nanos(bytes: u64, rate: u64) -> u64 {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn nonzero(passed: Duration) -> u64 {
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// What the pacer is told at a tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    /// Most receivers have queues before them.
    pub(super) delayed: bool,
    /// Data waits to be sent.
    pub(super) waits: bool,
    /// Round-trip time of the group.
    pub(super) rtt: Duration,
}

/// What the pacer did at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paced {
    /// The rate is what it was, or a little more.
    Steady,
    /// The rate was halved.
    Slowed,
}

/// Lets datagrams leave at a rate that repairs adapt: additive increase, multiplicative decrease.
#[derive(Debug)]
pub(super) struct Pacer {
    max: u64,
    min: u64,
    rate: u64,
    all: Bucket,
    repairs: Bucket,
    /// Bytes of all that left since the last tick, and of repairs that were asked for.
    all_bytes: u64,
    asked_bytes: u64,
    ticked_at: Timestamp,
    /// The last halving has not shown its effect before this.
    patient_until: Timestamp,
}

impl Pacer {
    /// Returns a pacer of at most `max` bytes per second that leaves new data at least `floor`.
    pub(super) fn new(now: Timestamp, max: u64, floor: u64) -> Self {
        let max = max.max(1);
        Self {
            max,
            min: floor.saturating_mul(REPAIR_PART).clamp(1, max),
            rate: max,
            all: Bucket { clock: now },
            repairs: Bucket { clock: now },
            all_bytes: 0,
            asked_bytes: 0,
            ticked_at: now,
            patient_until: now,
        }
    }

    /// Returns the bytes per second that may leave now.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Returns when the next datagram of data may leave.
    pub(super) fn data_at(&self) -> Timestamp {
        self.all.free_at(self.rate)
    }

    /// Returns when the next repair may leave.
    pub(super) fn repair_at(&self) -> Timestamp {
        let share = self.repairs.free_at(self.rate / REPAIR_PART);
        share.max(self.data_at())
    }

    /// Takes a datagram of data that leaves.
    pub(super) fn take_data(&mut self, now: Timestamp, bytes: usize) {
        self.all.take(now, bytes, self.rate);
        self.all_bytes += as_u64(bytes);
    }

    /// Takes a repair that leaves.
    pub(super) fn take_repair(&mut self, now: Timestamp, bytes: usize) {
        self.all.take(now, bytes, self.rate);
        self.repairs.take(now, bytes, self.rate / REPAIR_PART);
        self.all_bytes += as_u64(bytes);
    }

    /// Takes a datagram that does not wait: beats and confirms, which are few.
    pub(super) fn take_control(&mut self, now: Timestamp, bytes: usize) {
        self.all.take(now, bytes, self.rate);
    }

    /// Returns when the last halving has shown its effect.
    pub(super) fn patient_until(&self) -> Timestamp {
        self.patient_until
    }

    /// Takes that datagrams of so many bytes were asked for which several members may lack.
    pub(super) fn note_asked(&mut self, bytes: u64) {
        self.asked_bytes = self.asked_bytes.saturating_add(bytes);
    }

    /// Judges the last [`REPAIR_PATIENCE`] and moves the rate.
    ///
    /// It is halved when more repairs were asked for than their share lets leave, or when most receivers are
    /// `delayed`: they are offered more than they can take. Repairs that merely wait are no such sign. If no
    /// data `waits`, the rate was not in use, and what was in use is halved. After that nothing is judged until the queues of old, `rtt`
    /// long, are gone.
    pub(super) fn tick(&mut self, now: Timestamp, sign: Sign) -> Paced {
        let Sign {
            delayed,
            waits,
            rtt,
        } = sign;
        let passed = now.since(self.ticked_at);
        let half = u64::try_from(passed.as_nanos() / 2).unwrap_or(u64::MAX);
        let all = self.all_bytes;
        let beyond_share = nanos(self.asked_bytes, self.rate) > half;
        let rate_used = all.saturating_mul(1_000_000_000) / nonzero(passed);
        (self.all_bytes, self.asked_bytes) = (0, 0);
        self.ticked_at = now;
        let too_fast = beyond_share || delayed;
        if too_fast && now >= self.patient_until {
            let in_use = match waits {
                true => self.rate,
                false => rate_used.max(self.rate / USED_PART).min(self.rate),
            };
            let slower = (in_use / 2).max(self.min);
            let halved = slower < self.rate;
            self.rate = slower;
            self.patient_until = now.plus(REPAIR_PATIENCE * 2 + rtt);
            return match halved {
                true => Paced::Slowed,
                false => Paced::Steady,
            };
        }
        if !too_fast {
            let rise = (self.rate / RISE_PART).max(self.max / RISE_PART_OF_MAX);
            self.rate = self.rate.saturating_add(rise.max(1)).min(self.max);
        }
        Paced::Steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const RATE: u64 = 10_000_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * MS)
    }

    /// Lets leave what may, for `ms` milliseconds from `from`; returns bytes of (data, repairs).
    fn run(pacer: &mut Pacer, from: u64, ms: u64, data: bool, repairs: bool) -> (u64, u64) {
        let mut left = (0, 0);
        for step in 0..ms * 20 {
            let now = Timestamp(from * MS + step * MS / 20);
            while repairs && pacer.repair_at() <= now {
                pacer.take_repair(now, 1000);
                left.1 += 1000;
            }
            while data && pacer.data_at() <= now {
                pacer.take_data(now, 1000);
                left.0 += 1000;
            }
        }
        left
    }

    #[test]
    fn the_rate_is_kept_and_repairs_take_half_of_it() {
        let mut pacer = Pacer::new(at(0), RATE, 100_000);
        let (data, _) = run(&mut pacer, 0, 1000, true, false);
        assert!((RATE..RATE + 40_000).contains(&data), "{data}");
        let mut pacer = Pacer::new(at(0), RATE, 100_000);
        let (data, repairs) = run(&mut pacer, 0, 1000, true, true);
        assert!(
            (RATE / 2..RATE / 2 + 40_000).contains(&repairs),
            "{repairs}"
        );
        assert!((RATE..RATE + 40_000).contains(&(data + repairs)), "{data}");
        // Alone they take no more.
        let mut pacer = Pacer::new(at(0), RATE, 100_000);
        let (_, repairs) = run(&mut pacer, 0, 1000, false, true);
        assert!(repairs < RATE / 2 + 40_000, "{repairs}");
    }

    #[test]
    fn a_slow_rate_lets_single_datagrams_leave() {
        let mut pacer = Pacer::new(at(0), 10_000, 1);
        let (data, _) = run(&mut pacer, 0, 10_000, true, false);
        assert!((100_000..120_000).contains(&data), "{data}");
    }

    /// Everything that moves the rate, and what becomes of it.
    #[test]
    fn transitions_of_the_rate() {
        let mut pacer = Pacer::new(at(0), RATE, 500_000);
        let mut ms = 0;
        let mut tick = |pacer: &mut Pacer, data: usize, asked: u64, delayed: bool| {
            pacer.take_data(at(ms), data);
            pacer.note_asked(asked);
            ms += 100;
            let sign = Sign {
                delayed,
                waits: data >= 400_000,
                rtt: Duration::ZERO,
            };
            let paced = pacer.tick(at(ms), sign);
            (paced, pacer.rate())
        };
        let all = 1_000_000; // what may leave in a tick at the limit
        // Idle; repairs of just their share: steady, at the limit.
        assert_eq!(tick(&mut pacer, 0, 0, false), (Paced::Steady, RATE));
        assert_eq!(tick(&mut pacer, all, 500_000, false), (Paced::Steady, RATE));
        // Above it: half. Its effect is waited for.
        assert_eq!(
            tick(&mut pacer, all, 600_000, false),
            (Paced::Slowed, RATE / 2)
        );
        assert_eq!(
            tick(&mut pacer, all / 2, 600_000, false),
            (Paced::Steady, RATE / 2)
        );
        assert_eq!(
            tick(&mut pacer, all / 2, 600_000, false),
            (Paced::Slowed, RATE / 4)
        );
        // Nothing is asked for any more: it rises, and stops at the limit.
        let risen = RATE / 4 + RATE / 4 / 32;
        assert_eq!(tick(&mut pacer, 0, 0, false), (Paced::Steady, risen));
        let mut ticks = 0;
        while pacer.rate() < RATE {
            assert_eq!(tick(&mut pacer, 0, 0, false).0, Paced::Steady);
            ticks += 1;
        }
        assert!(ticks < 60, "back at the limit after {ticks} ticks");
        // Few bytes, most of them repairs: the loss of a quiet sender is not congestion.
        assert_eq!(
            tick(&mut pacer, 10_000, 20_000, false),
            (Paced::Steady, RATE)
        );
        // Receivers with queues before them, though little is sent: a quarter of the rate is halved.
        assert_eq!(tick(&mut pacer, 1_000, 0, true), (Paced::Slowed, RATE / 8));
        // Down to the floor of new data and its share of repairs, and no further.
        for _ in 0..10 {
            tick(&mut pacer, 0, 4_000_000, true);
        }
        assert_eq!(
            tick(&mut pacer, 0, 4_000_000, true),
            (Paced::Steady, 1_000_000)
        );
    }
}
