//! The receiver's timers; it reads no clock.

use locus_proto::Timestamp;

/// What the receiver waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// When to connect to a master again.
    Connect,
    /// When to give up a master that does not say Welcome.
    Welcome,
    /// When to give up a connection on which nothing is heard.
    Silence,
    /// When to call the table stale, because nothing was heard.
    Stale,
    /// When to call the table no longer coherent, because no heartbeat has matched.
    Behind,
    /// When to send the next report.
    Status,
    /// When to give up a master that does not answer an audit's question.
    Answer,
    /// When the master may be asked again after an audit that was in vain.
    AskAgain,
    /// When something of the group must have been heard.
    Hear,
    /// When to join a group anew that is not heard.
    Rejoin,
}

impl Timer {
    /// All, in the order in which those due at one time fire.
    pub(super) const ALL: [Self; 10] = [
        Self::Connect,
        Self::Welcome,
        Self::Silence,
        Self::Stale,
        Self::Behind,
        Self::Status,
        Self::Answer,
        Self::AskAgain,
        Self::Hear,
        Self::Rejoin,
    ];
}

/// When each timer fires; `None` if it is stopped.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Timestamp>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        *self.slot(timer) = Some(at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        *self.slot(timer) = None;
    }

    /// Returns whether the timer is set.
    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.0[Self::index(timer)].is_some()
    }

    /// Stops the next timer that is due by `now` and returns it, and when it was due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(Timer, Timestamp)> {
        let due = |timer: Timer| {
            let at = self.0[Self::index(timer)].filter(|at| *at <= now)?;
            Some((timer, at))
        };
        let (timer, at) = Timer::ALL.into_iter().find_map(due)?;
        self.stop(timer);
        Some((timer, at))
    }

    /// Returns when the next timer fires.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.iter().flatten().min().copied()
    }

    fn slot(&mut self, timer: Timer) -> &mut Option<Timestamp> {
        &mut self.0[Self::index(timer)]
    }

    fn index(timer: Timer) -> usize {
        match timer {
            Timer::Connect => 0,
            Timer::Welcome => 1,
            Timer::Silence => 2,
            Timer::Stale => 3,
            Timer::Behind => 4,
            Timer::Status => 5,
            Timer::Answer => 6,
            Timer::AskAgain => 7,
            Timer::Hear => 8,
            Timer::Rejoin => 9,
        }
    }
}
