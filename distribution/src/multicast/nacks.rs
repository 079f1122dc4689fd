//! How many NACKs the sender judges, and the back-off it asks for when more come; it opens none.

use std::time::Duration;

use locus_proto::Timestamp;

/// NACKs per second that are judged; more are dropped, and all nodes are told to back off.
pub(super) const NACKS_PER_S: u32 = 2000;
/// NACKs that may come at once after a pause.
const NACKS_BURST: u32 = 200;
/// Receivers wait at most two to this power as long.
pub(super) const BACK_OFF_MAX: u8 = 3;

/// The budget of NACKs and how far the group backs off.
#[derive(Debug)]
pub(super) struct NackBudget {
    /// When all that were taken would have come at exactly the rate.
    clock: Timestamp,
    /// NACKs refused since the last tick.
    refused: u32,
    back_off: u8,
}

impl NackBudget {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            clock: now,
            refused: 0,
            back_off: 0,
        }
    }

    /// Takes one NACK; false if the budget is spent.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        let each = Duration::from_secs(1) / NACKS_PER_S;
        if self.clock > now.plus(each * NACKS_BURST) {
            self.refused += 1;
            return false;
        }
        self.clock = self.clock.max(now).plus(each);
        true
    }

    /// Returns the power of two by which nodes multiply their waits.
    pub(super) fn back_off(&self) -> u8 {
        self.back_off
    }

    /// Moves the back-off by at most one; returns whether it rose.
    pub(super) fn tick(&mut self, now: Timestamp) -> bool {
        let refused = std::mem::take(&mut self.refused);
        if refused > 0 {
            let before = self.back_off;
            self.back_off = (before + 1).min(BACK_OFF_MAX);
            return self.back_off > before;
        }
        if self.clock <= now {
            self.back_off = self.back_off.saturating_sub(1);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_budget_the_group_backs_off_and_comes_back() {
        let ms = |ms: u64| Timestamp(ms * 1_000_000);
        let mut budget = NackBudget::new(ms(0));
        let taken = (0..1000).filter(|_| budget.take(ms(0))).count();
        assert_eq!(taken, 201);
        assert!(budget.tick(ms(100)));
        for step in 1..=4 {
            for _ in 0..300 {
                budget.take(ms(100 * step));
            }
            budget.tick(ms(100 + 100 * step));
        }
        assert_eq!(budget.back_off(), BACK_OFF_MAX);
        // At the rate itself nothing is refused.
        let refused = (0..2000).filter(|i| !budget.take(Timestamp(2_000_000_000 + i * 500_000)));
        assert_eq!(refused.count(), 0);
        for step in 0..3 {
            assert_eq!(budget.back_off(), BACK_OFF_MAX - step);
            assert!(!budget.tick(ms(10_000)));
        }
        assert_eq!(budget.back_off(), 0);
    }
}
