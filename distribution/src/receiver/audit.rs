//! Audits of the table against the master's; the table's owner compares and mends.
//!
//! An audit walks from groups to partitions to records, one question at a time. An answer is true at the
//! master's level, so it is held until the table stands there: frames go on being applied meanwhile. Whether
//! a repair has helped is shown by the next heartbeat at the node's level.

use locus_proto::v1::{
    AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport, AuditScope, AuditSums,
    AuditVerdict,
};
use locus_proto::{Level, Message, Position, TableHealth, Timestamp};

use super::timer::Timer;
use super::walk::{Answer, Stage, Walk};
use super::{
    AUDIT_ANSWER_MAX, AuditCause, Content, DisconnectReason, Failure, MasterError, Mended, Owed,
    Phase, Receiver, ReceiverEvent, StateReason,
};

impl Receiver {
    /// Takes the answer to [`ReceiverEvent::Compare`]: the indexes of the sums that differ, ascending.
    pub fn handle_compared(&mut self, now: Timestamp, outcome: Result<Vec<u8>, Failure>) {
        if self.owed.take_if(|owed| *owed == Owed::Compared).is_none() {
            return; // nothing was asked
        }
        let level = self.level();
        if let Some(walk) = &mut self.audit {
            match outcome {
                Ok(differ) => {
                    walk.handle_compared(&differ, level);
                    self.walk_on(now);
                }
                Err(failure) => self.fail_audit(now, failure),
            }
        }
        self.settle(now);
    }

    /// Takes the answer to [`ReceiverEvent::Mend`].
    pub fn handle_mended(&mut self, now: Timestamp, outcome: Result<Mended, Failure>) {
        if self.owed.take_if(|owed| *owed == Owed::Mended).is_none() {
            return; // nothing was asked
        }
        let outcome = outcome.and_then(|mended| self.stand_mended(mended));
        let level = self.level();
        if let Some(walk) = &mut self.audit {
            match outcome {
                Ok(mended) => {
                    self.counters.repaired_total += mended.repaired;
                    walk.handle_mended(mended.differing, mended.repaired, level);
                    self.walk_on(now);
                }
                Err(failure) => self.fail_audit(now, failure),
            }
        }
        self.settle(now);
    }

    /// Takes the answer to [`ReceiverEvent::Scrub`].
    pub fn handle_scrubbed(&mut self, now: Timestamp, outcome: Result<(), Failure>) {
        self.scrub_owed = false;
        let scrubbing = |walk: &&mut Walk| matches!(walk.stage, Stage::Scrubbing);
        if let Some(walk) = self.audit.as_mut().filter(scrubbing) {
            if walk.repairs() {
                // What the reading has found, this audit mends.
                walk.memory_doubted = std::mem::take(&mut self.memory_doubted);
            }
            match outcome {
                Ok(()) => self.ask(now, AuditScope::Groups),
                Err(failure) => self.fail_audit(now, failure),
            }
        }
        self.settle(now);
    }

    /// Takes the word that memory somewhere contradicts its sums. An audit that repairs it begins once the
    /// table is at the master's level, unless one is under way: then after that.
    pub fn handle_doubted(&mut self, now: Timestamp) {
        self.memory_doubted = true;
        if self.matched_at.is_some() {
            self.consider_audit(now);
        }
        self.settle(now);
    }

    /// Takes what the table's owner says of its memory; it goes into each report.
    pub fn set_health(&mut self, health: TableHealth) {
        self.health = health;
    }

    /// Begins the audit that the content or memory calls for, if there is none.
    pub(super) fn consider_audit(&mut self, now: Timestamp) {
        let following = matches!(self.phase, Phase::Following);
        if !following || self.audit.is_some() || self.timers.runs(Timer::AskAgain) {
            return;
        }
        let cause = match self.doubted() {
            Some(_) => AuditCause::Divergence,
            None if self.memory_doubted => AuditCause::Memory,
            None => return,
        };
        self.renew_doubt();
        self.counters.audits_total += 1;
        let mut walk = Walk::new(cause, None);
        // What is found from now on, the walk may have passed.
        walk.memory_doubted = std::mem::take(&mut self.memory_doubted);
        self.audit = Some(walk);
        self.ask(now, AuditScope::Groups);
    }

    /// Takes an operator's order.
    pub(super) fn handle_order(&mut self, order: AuditOrder) {
        let following = matches!(self.phase, Phase::Following);
        if !following || self.audit.is_some() || self.scrub_owed {
            self.counters.audits_busy_total += 1;
            self.transmits.push_back(Message::AuditReport(AuditReport {
                ticket: order.ticket,
                verdict: AuditVerdict::Busy,
                level: self.level(),
                records: self.records(),
                partitions: 0,
                ranges: Vec::new(),
                differing: 0,
                repaired: 0,
            }));
            return;
        }
        self.counters.audits_total += 1;
        self.audit = Some(Walk::new(AuditCause::Order, Some(order)));
        self.scrub_owed = true;
        self.events.push_back(ReceiverEvent::Scrub);
    }

    pub(super) fn handle_sums(
        &mut self,
        now: Timestamp,
        sums: AuditSums,
    ) -> Result<(), MasterError> {
        let message = "audit sums";
        let walk = (self.audit.as_mut()).ok_or(MasterError::Unexpected { message })?;
        walk.handle_sums(sums)?;
        self.take_answer(now);
        Ok(())
    }

    pub(super) fn handle_records(
        &mut self,
        now: Timestamp,
        part: AuditRecords,
    ) -> Result<(), MasterError> {
        let message = "audit records";
        let walk = (self.audit.as_mut()).ok_or(MasterError::Unexpected { message })?;
        walk.handle_records(part)?;
        self.timers.set(Timer::Answer, now.plus(AUDIT_ANSWER_MAX));
        self.take_answer(now);
        Ok(())
    }

    pub(super) fn handle_refused(
        &mut self,
        now: Timestamp,
        _refusal: AuditRefusal, // the master has told its operator which
    ) -> Result<(), MasterError> {
        if !self.audit.as_ref().is_some_and(Walk::is_asked) {
            let message = "audit refusal";
            return Err(MasterError::Unexpected { message });
        }
        self.counters.audits_refused_total += 1;
        self.end_audit(now, AuditVerdict::Refused);
        Ok(())
    }

    fn take_answer(&mut self, now: Timestamp) {
        self.use_answer(now);
        let held = |walk: &Walk| matches!(walk.stage, Stage::Held(_));
        let waits = self.audit.as_ref().is_some_and(held);
        self.counters.audit_answers_held_total += u64::from(waits);
    }

    /// Uses the answer that is held if the table stands at its level.
    pub(super) fn use_answer(&mut self, now: Timestamp) {
        let level = self.level();
        let Some(walk) = &mut self.audit else {
            return;
        };
        let Stage::Held(answer) = &walk.stage else {
            return;
        };
        if answer.level() > level {
            // Frames bring the table there; as long as they come, there is no hurry.
            self.timers.set(Timer::Answer, now.plus(AUDIT_ANSWER_MAX));
            return;
        }
        if answer.level() < level {
            self.counters.audit_misses_total += 1;
            match walk.missed() {
                Some(scope) => self.ask(now, scope),
                None => self.give_up(now),
            }
            return;
        }
        self.timers.stop(Timer::Answer);
        let repair = walk.repairs();
        let event = match std::mem::replace(&mut walk.stage, Stage::Owed) {
            Stage::Held(Answer::Sums(AuditSums { group, sums, .. })) => {
                self.owed = Some(Owed::Compared);
                ReceiverEvent::Compare { group, sums }
            }
            Stage::Held(Answer::Records {
                partition, records, ..
            }) => {
                self.owed = Some(Owed::Mended);
                ReceiverEvent::Mend {
                    partition,
                    records,
                    repair,
                }
            }
            Stage::Scrubbing | Stage::Asked(_) | Stage::Owed | Stage::Settling => return,
        };
        self.events.push_back(event);
    }

    /// Takes a heartbeat at the node's level into the audit.
    pub(super) fn settle_audit(&mut self, now: Timestamp, matches: bool) {
        let settling = |walk: &Walk| matches!(walk.stage, Stage::Settling);
        let Some(walk) = self.audit.as_mut().filter(|walk| settling(walk)) else {
            self.consider_audit(now);
            return;
        };
        if matches && walk.found.nothing() {
            self.end_audit(now, AuditVerdict::Equal);
        } else if matches {
            self.end_audit(now, AuditVerdict::Repaired);
        } else if walk.again() {
            self.counters.audit_rounds_total += 1;
            self.renew_doubt();
            self.ask(now, AuditScope::Groups);
        } else {
            self.give_up(now);
        }
    }

    /// Drops an audit whose connection has ended. What it was to repair is not forgotten.
    pub(super) fn cut_audit(&mut self) {
        if let Some(walk) = self.audit.take() {
            self.counters.audits_cut_total += 1;
            self.memory_doubted |= walk.memory_doubted;
        }
    }

    fn ask(&mut self, now: Timestamp, scope: AuditScope) {
        let doubt = self.doubted().map(|doubt| doubt.at);
        if let Some(walk) = &mut self.audit {
            walk.ask(scope);
            self.transmits
                .push_back(Message::AuditAsk(AuditAsk { scope, doubt }));
            self.timers.set(Timer::Answer, now.plus(AUDIT_ANSWER_MAX));
        }
    }

    /// Asks the next question, or ends the walk.
    fn walk_on(&mut self, now: Timestamp) {
        let doubted = self.doubted().is_some();
        let Some(walk) = &mut self.audit else {
            return;
        };
        let (repairs, nothing) = (walk.repairs(), walk.found.nothing());
        if walk.too_many() {
            match repairs {
                true => self.give_up(now),
                false => self.end_audit(now, AuditVerdict::Differs),
            }
        } else if let Some(scope) = walk.next() {
            self.ask(now, scope);
        } else if repairs && (doubted || !nothing) {
            walk.stage = Stage::Settling;
        } else {
            let verdict = match nothing {
                true => AuditVerdict::Equal,
                false => AuditVerdict::Differs,
            };
            self.end_audit(now, verdict);
        }
    }

    fn stand_mended(&mut self, mended: Mended) -> Result<Mended, Failure> {
        let Position { epoch, level, .. } = mended.standing.position;
        let before = self.position();
        self.standing = Some(mended.standing);
        match before.is_some_and(|mine| (mine.epoch, mine.level) == (epoch, level)) {
            true => Ok(mended),
            false => Err(Failure::Broken), // it did what it was not asked to do
        }
    }

    /// The table could not be compared or mended.
    fn fail_audit(&mut self, now: Timestamp, failure: Failure) {
        self.counters.audits_failed_total += 1;
        match failure {
            // The master's records are of no use here, and will not be the next time.
            Failure::RootMismatch => return self.give_up(now),
            Failure::Full => self.content = Content::Stuck,
            Failure::Broken => self.content = Content::Wrong(StateReason::Broken),
        }
        self.end_audit(now, AuditVerdict::Failed);
        self.disconnect(DisconnectReason::Audit(failure));
    }

    /// Leaves it to a reload, unless nothing is known to differ or nothing is to be repaired.
    fn give_up(&mut self, now: Timestamp) {
        self.counters.audits_given_up_total += 1;
        let doubted = self.doubted().is_some();
        let hopeless = |walk: &Walk| walk.repairs() && (doubted || walk.too_many());
        if !self.audit.as_ref().is_some_and(hopeless) {
            self.end_audit(now, AuditVerdict::Failed);
            return;
        }
        self.content = Content::Wrong(StateReason::RootMismatch);
        self.end_audit(now, AuditVerdict::Reloading);
        self.disconnect(DisconnectReason::Unrepairable);
    }

    /// Ends the audit: says so, reports to the operator, and sees to another one if this one did not help.
    fn end_audit(&mut self, now: Timestamp, verdict: AuditVerdict) {
        self.timers.stop(Timer::Answer);
        let Some(walk) = self.audit.take() else {
            return;
        };
        self.events.push_back(ReceiverEvent::Audited {
            cause: walk.cause,
            verdict,
            level: walk.found.level,
            partitions: walk.found.count(),
            differing: walk.found.differing,
            repaired: walk.found.repaired,
        });
        let report = walk.report(verdict, self.records());
        self.transmits.extend(report.map(Message::AuditReport));
        let in_vain = match verdict {
            AuditVerdict::Refused | AuditVerdict::Failed => true,
            AuditVerdict::Equal
            | AuditVerdict::Differs
            | AuditVerdict::Repaired
            | AuditVerdict::Reloading
            | AuditVerdict::Busy => false,
        };
        if in_vain {
            self.memory_doubted |= walk.memory_doubted;
            let wait = self.backoff.handle_refused_audit();
            self.timers.set(Timer::AskAgain, now.plus(wait));
        }
    }

    fn records(&self) -> u64 {
        self.standing.map_or(0, |standing| standing.records)
    }

    pub(super) fn level(&self) -> Level {
        self.position().map_or(Level::ZERO, |mine| mine.level)
    }
}
