//! Whether a node is to be in the group: wishes of both sides and, for `auto`, the load; it sends nothing.

use std::time::Duration;

use locus_proto::{Level, Timestamp, Transport};

use super::Medium;

/// Up to so many nodes are cheaper to serve one by one (measured: the sender's CPU wins or ties up to 32).
pub const AUTO_NODES_MAX: usize = 8;
/// Bits that an update takes on the way to one node, as measured with 200-byte records.
const UPDATE_BITS: u64 = 1_700;
/// Time for which the load must be low before `auto` gives the group up.
pub const AUTO_CALM: Duration = Duration::from_secs(60);

/// What `auto` makes of the load.
#[derive(Debug, Default)]
pub(super) struct Choice {
    in_use: bool,
    calm_since: Option<Timestamp>,
    /// When, and at which level, the load was measured last.
    measured: Option<(Timestamp, Level)>,
    /// Updates in 1,000 seconds, as the last seconds were.
    per_1000_s: u64,
}

impl Choice {
    /// Returns whether the load calls for the group.
    pub(super) fn in_use(&self) -> bool {
        self.in_use
    }

    /// Measures the load; `rate` is what the group may send, in bytes per second.
    pub(super) fn measure(&mut self, now: Timestamp, head: Level, nodes: usize, rate: u64) {
        let Some((at, level)) = self.measured.replace((now, head)) else {
            return;
        };
        let ms = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        if ms == 0 {
            self.measured = Some((at, level)); // too short to tell
            return;
        }
        let sample = head.since(level).saturating_mul(1_000_000) / ms;
        // The last eight samples count most: four seconds of half-second heartbeats.
        self.per_1000_s = self.per_1000_s / 8 * 7 + sample / 8;
        let bits = (self.per_1000_s / 1_000)
            .saturating_mul(u64::try_from(nodes).unwrap_or(u64::MAX))
            .saturating_mul(UPDATE_BITS);
        let tenth = rate.saturating_mul(8) / 10;
        let many = nodes > AUTO_NODES_MAX;
        if many && bits >= tenth {
            self.in_use = true;
        }
        let calm = !many || bits < tenth / 2;
        let since = self.calm_since.filter(|_| calm);
        self.calm_since = calm.then(|| since.unwrap_or(now));
        if self
            .calm_since
            .is_some_and(|since| now.since(since) >= AUTO_CALM)
        {
            self.in_use = false;
        }
    }
}

/// Returns whether a node is to be in the group: what one side rules out counts first, then what one asks for.
pub(super) fn wants_group(
    ours: Transport,
    theirs: Transport,
    medium: Medium,
    auto: &Choice,
) -> bool {
    match (ours, theirs) {
        (Transport::Unicast | Transport::Bus, _) | (_, Transport::Unicast | Transport::Bus) => {
            false
        }
        (Transport::Multicast, _) | (_, Transport::Multicast) => true,
        // The bus carries no load of the network.
        (Transport::Auto, Transport::Auto) => medium == Medium::Tcp && auto.in_use(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::BusSide;
    use super::*;

    /// 200 Mbit/s.
    const RATE: u64 = 25_000_000;

    fn seconds(s: u64) -> Timestamp {
        Timestamp(s * 1_000_000_000)
    }

    #[test]
    fn wishes_of_both_sides_combine() {
        use Transport::{Auto, Bus, Multicast, Unicast};
        let busy = Choice {
            in_use: true,
            ..Choice::default()
        };
        let idle = Choice::default();
        for (ours, theirs, medium, loaded, expected) in [
            (Auto, Auto, Medium::Tcp, &idle, false),
            (Auto, Auto, Medium::Tcp, &busy, true),
            (Auto, Auto, Medium::Bus(BusSide::A), &busy, false),
            (Multicast, Auto, Medium::Tcp, &idle, true),
            (Auto, Multicast, Medium::Bus(BusSide::B), &idle, true),
            (Multicast, Unicast, Medium::Tcp, &busy, false),
            (Unicast, Multicast, Medium::Tcp, &busy, false),
            (Multicast, Bus, Medium::Bus(BusSide::A), &busy, false),
            (Bus, Auto, Medium::Bus(BusSide::A), &busy, false),
        ] {
            let wants = wants_group(ours, theirs, medium, loaded);
            assert_eq!(wants, expected, "{ours:?} {theirs:?} {medium:?}");
        }
    }

    #[test]
    fn the_load_is_judged_with_hysteresis() {
        // A tenth of 200 Mbit/s is 11,764 updates to one node: 735 a second to 16.
        let mut choice = Choice::default();
        let mut level = 0;
        let mut at = 0;
        let mut run = |choice: &mut Choice, s: u64, rate: u64, nodes: usize| {
            for _ in 0..s {
                level += rate;
                at += 1;
                choice.measure(seconds(at), Level(level), nodes, RATE);
            }
            choice.in_use()
        };
        assert!(!run(&mut choice, 100, 700, 16), "below a tenth");
        assert!(!run(&mut choice, 100, 5_000, 8), "few nodes");
        assert!(run(&mut choice, 100, 800, 16), "above a tenth");
        assert!(run(&mut choice, 300, 400, 16), "still above a half of it");
        assert!(run(&mut choice, 50, 0, 16), "not for long yet");
        assert!(!run(&mut choice, 100, 0, 16), "calm for a minute");
        assert!(run(&mut choice, 100, 800, 16));
        assert!(!run(&mut choice, 61, 800, 8), "the nodes are few now");
    }
}
