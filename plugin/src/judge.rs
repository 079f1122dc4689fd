//! Whether a binding has expired, by the master's time alone; it removes nothing.

use locus_proto::{BindingRef, MasterTime};
use locus_table::Pulse;

/// The moment by which the bindings of one look-up are judged; see [`BindingRef::is_expired`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judge {
    now: MasterTime,
    lag_ms: u64,
    max_grace_ms: u64,
}

impl Judge {
    /// Returns the judge at `monotonic_ms` of CLOCK_MONOTONIC, by what the agent last reported.
    pub fn new(pulse: &Pulse, monotonic_ms: u64) -> Self {
        let now = pulse.master_now(monotonic_ms);
        Self {
            now,
            lag_ms: now.ms_since(pulse.complete_until),
            max_grace_ms: pulse.max_grace_ms,
        }
    }

    /// Returns the service time.
    pub fn now(&self) -> MasterTime {
        self.now
    }

    /// Returns the milliseconds since the table was last known to be complete.
    pub fn lag_ms(&self) -> u64 {
        self.lag_ms
    }

    /// Returns whether `binding` is reached no more, all grace included.
    pub fn is_expired(&self, binding: &BindingRef<'_>) -> bool {
        binding.is_expired(self.now, self.lag_ms, self.max_grace_ms)
    }
}

#[cfg(test)]
mod tests {
    use locus_proto::{Binding, Level, NodeId, NodeState};

    use super::*;

    /// Master time 1,000,000 ms at monotonic 0.
    fn pulse(complete_until: u64, max_grace_ms: u64) -> Pulse {
        Pulse {
            state: NodeState::Coherent,
            master_offset_ms: 1_000_000,
            complete_until: MasterTime(complete_until),
            master_level: Level(1),
            updated_monotonic_ms: 0,
            max_grace_ms,
            node: NodeId(1),
            epoch_counter: 1,
        }
    }

    #[test]
    fn expiry_and_grace() {
        const HOUR: u64 = 3_600_000;
        // (complete until, max grace, expires, granted s, monotonic now) -> expired
        for (complete, max_grace, expires, granted_s, monotonic, expired, why) in [
            (1_000_000, HOUR, 1_000_001, 60, 0, false, "not yet"),
            (
                1_000_000,
                HOUR,
                1_000_000,
                60,
                0,
                true,
                "expiry is the first moment at which it is gone",
            ),
            (1_000_000, HOUR, 0, 0, 99_000_000, false, "permanent"),
            (
                1_000_000,
                HOUR,
                1_010_000,
                60,
                20_000,
                false,
                "cut off for 20 s: judged at complete_until",
            ),
            (
                1_000_000,
                HOUR,
                1_010_000,
                60,
                69_999,
                false,
                "as long as the expiry granted",
            ),
            (
                1_000_000,
                HOUR,
                1_010_000,
                60,
                70_000,
                true,
                "and not a moment longer",
            ),
            (
                1_000_000,
                5_000,
                1_010_000,
                60,
                14_999,
                false,
                "max_grace bounds it, too",
            ),
            (
                1_000_000,
                5_000,
                1_010_000,
                60,
                15_000,
                true,
                "max_grace bounds it, too",
            ),
            (
                0,
                HOUR,
                1_010_000,
                60,
                20_000,
                false,
                "no heartbeat matched yet: full grace",
            ),
            (
                1_030_000,
                HOUR,
                1_010_000,
                60,
                20_000,
                true,
                "complete beyond now: no grace",
            ),
        ] {
            let owned = Binding {
                expires: MasterTime(expires),
                granted_s,
                ..Binding::permanent("sip:a@x")
            };
            let judge = Judge::new(&pulse(complete, max_grace), monotonic);
            assert_eq!(judge.is_expired(&owned.view()), expired, "{why}");
        }
    }
}
