//! The state of the table, and the reports of it; it hears no message.

use locus_proto::{Message, NodeState, NodeStatus, Timestamp, v1::Plan};

use super::timer::Timer;
use super::{
    BEHIND_AFTER, Content, Phase, Receiver, ReceiverEvent, STALE_AFTER, STATUS_EVERY, STATUS_SOON,
    StateReason,
};

impl Receiver {
    /// Ends each input: takes what the group has for the table, judges the state anew and reports what has changed.
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.take_from_group(now);
        let state = self.judge(now);
        if state != self.state {
            self.events.push_back(ReceiverEvent::StateChanged {
                from: self.state,
                to: state,
                reason: self.reason(state),
            });
            self.state = state;
        }
        let (at, level, reported) = self.reported;
        let changed = level != self.level() || reported != state;
        if self.welcomed() && changed {
            if now.since(at) >= STATUS_SOON {
                self.report(now);
            } else {
                self.timers.set(Timer::Status, at.plus(STATUS_SOON));
            }
        }
    }

    /// Returns the state of the table (rules section 8).
    fn judge(&self, now: Timestamp) -> NodeState {
        let recent = |at: Timestamp, limit| now.since(at) < limit;
        match (self.standing, self.content) {
            (None, _) => NodeState::Loading,
            (Some(_), Content::Wrong(_)) => NodeState::Inconsistent,
            // In doubt there is no match, and hence no coherence.
            (
                Some(_),
                Content::Good | Content::Suspect(_) | Content::Doubted(_) | Content::Stuck,
            ) => {
                let matched = self.matched_at.is_some_and(|at| recent(at, BEHIND_AFTER));
                match (recent(self.heard_at, STALE_AFTER), matched) {
                    (false, _) => NodeState::Stale,
                    (true, true) => NodeState::Coherent,
                    (true, false) => NodeState::Resync,
                }
            }
        }
    }

    fn reason(&self, to: NodeState) -> StateReason {
        match (to, self.content, self.plan) {
            (NodeState::Stale, _, _) => StateReason::Silent,
            (NodeState::Coherent, _, _) => StateReason::Matched,
            (_, Content::Wrong(reason), _) => reason,
            (_, _, _) if self.state == NodeState::Coherent && self.matched_at.is_some() => {
                StateReason::Behind
            }
            (_, content, Plan::Reload(why)) => match (&self.phase, content) {
                (Phase::Awaiting | Phase::Loading(_), _) => StateReason::Reloading(why),
                (_, Content::Doubted(_)) => StateReason::Doubted,
                (_, _) => StateReason::Loaded,
            },
            (_, Content::Doubted(_), Plan::Continue) => StateReason::Doubted,
            (_, _, Plan::Continue) => StateReason::CatchingUp,
        }
    }

    pub(super) fn report(&mut self, now: Timestamp) {
        let status = NodeStatus {
            position: self.position().unwrap_or_default(),
            state: self.state,
            lag_ms: millis(now, self.last_match),
            records: self.standing.map_or(0, |standing| standing.records),
            catch_ups_total: self.progress.catch_ups_total,
            reloads_total: self.progress.reloads_total,
            last_sync_ms: self.progress.last_ms,
            refused_total: self.counters.refused_total(),
            audits_total: self.counters.audits_total,
            repaired_total: self.counters.repaired_total,
            health: self.health,
            group: self.group_health(),
        };
        self.transmits.push_back(Message::Status(status));
        self.reported = (now, self.level(), self.state);
        self.timers.set(Timer::Status, now.plus(STATUS_EVERY));
    }
}

pub(super) fn millis(now: Timestamp, since: Timestamp) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}
