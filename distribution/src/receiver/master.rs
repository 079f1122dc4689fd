//! What the messages of a master do to the receiver; it decides neither when to connect nor the state.

use locus_proto::{
    Frame, FrameKind, MasterTime, Message, Position, Timestamp, Verdict,
    v1::{Heartbeat, Plan, SnapshotBegin, SnapshotEnd, SnapshotPart, Welcome},
};

use super::follow::{self, Ruling};
use super::load::Load;
use super::membership::Way;
use super::state::millis;
use super::timer::Timer;
use super::{
    BEHIND_AFTER, Content, MasterError, Owed, Phase, RELOAD_PROVEN, Receiver, ReceiverEvent,
    Standing,
};
use crate::message::noun;

impl Receiver {
    pub(super) fn handle(&mut self, now: Timestamp, message: Message) -> Result<(), MasterError> {
        if self.welcomed() {
            self.heard(now); // a master that has not taken the node in is none
        }
        match (message, &mut self.phase) {
            (Message::Rejection(rejection), _) => Err(MasterError::Rejected(rejection.reason)),
            (Message::Welcome(welcome), Phase::Greeting) => self.handle_welcome(now, welcome),
            (
                Message::Heartbeat(heartbeat),
                Phase::Following | Phase::Awaiting | Phase::Loading(_),
            ) => self.handle_heartbeat(now, heartbeat, Way::Connection),
            (Message::Frame(frame), Phase::Following) => self.handle_frame(frame, Way::Connection),
            (Message::GroupOffer(offer), Phase::Following) => {
                self.handle_offer(now, &offer);
                Ok(())
            }
            (Message::GroupKey(key), Phase::Following) => {
                self.handle_group_key(key);
                Ok(())
            }
            (Message::GroupCut(cut), Phase::Following) => {
                self.handle_group_cut(now, cut);
                Ok(())
            }
            (Message::GroupEnd(end), Phase::Following) => {
                self.handle_group_end(now, end);
                Ok(())
            }
            (Message::AuditSums(sums), Phase::Following) => self.handle_sums(now, sums),
            (Message::AuditRecords(part), Phase::Following) => self.handle_records(now, part),
            (Message::AuditRefused(refusal), Phase::Following) => self.handle_refused(now, refusal),
            (
                Message::AuditOrder(order),
                Phase::Following | Phase::Awaiting | Phase::Loading(_),
            ) => {
                self.handle_order(order);
                Ok(())
            }
            (Message::Frame(frame), Phase::Loading(load)) => {
                if load.handle_frame(&frame, &mut self.lineage)? && !frame.changes.is_empty() {
                    self.events.push_back(ReceiverEvent::LoadFrame(frame));
                }
                self.finish_if_whole();
                Ok(())
            }
            (Message::SnapshotBegin(begin), Phase::Awaiting) => self.handle_begin(begin),
            (Message::SnapshotPart(part), Phase::Loading(load)) => {
                load.handle_part(&part)?;
                let SnapshotPart { records } = part;
                self.events.push_back(ReceiverEvent::LoadRecords(records));
                Ok(())
            }
            (Message::SnapshotEnd(end), Phase::Loading(load)) => {
                let end: SnapshotEnd = end;
                load.handle_end(end)?;
                self.finish_if_whole();
                Ok(())
            }
            (
                Message::Registered { ticket, reply },
                Phase::Following | Phase::Awaiting | Phase::Loading(_),
            ) => {
                self.events
                    .push_back(ReceiverEvent::Registered { ticket, reply });
                Ok(())
            }
            (other, _) => Err(MasterError::Unexpected {
                message: noun(&other),
            }),
        }
    }

    fn handle_welcome(&mut self, now: Timestamp, welcome: Welcome) -> Result<(), MasterError> {
        let newest = welcome.lineage.newest().ok_or(MasterError::Welcome)?;
        if newest.epoch != welcome.head.epoch || welcome.head.level < newest.start {
            return Err(MasterError::Welcome);
        }
        // Rules 7.1: of two masters from one cloned disk, one is accepted and the other refused.
        if let Some(ours) = self.followed
            && ours != newest.epoch
            && ours.counter >= newest.epoch.counter
        {
            return Err(MasterError::OtherMaster {
                theirs: newest.epoch,
                ours,
            });
        }
        match welcome.plan {
            Plan::Continue => {
                let mine = self.presentable().ok_or(MasterError::Welcome)?;
                let head = welcome.head;
                let verdict = welcome.lineage.judge(mine.epoch, mine.level, head.level);
                if verdict != Verdict::Continue {
                    return Err(MasterError::Welcome);
                }
                self.phase = Phase::Following;
                let behind = mine.level < head.level || mine.epoch != head.epoch;
                self.progress.since = behind.then_some(now);
            }
            Plan::Reload(_) => {
                self.phase = Phase::Awaiting;
                self.matched_at = None;
                self.progress.since = Some(now);
            }
        }
        self.plan = welcome.plan;
        self.followed = Some(newest.epoch);
        self.lineage = welcome.lineage;
        self.table_key = welcome.table_key;
        self.version = welcome.version;
        self.master_level = welcome.head.level;
        self.clock.handle_time(now, welcome.time);
        self.complete_until = self.complete_until.min(welcome.time); // another clock, if it is earlier
        self.timers.stop(Timer::Welcome);
        self.heard(now);
        self.report(now);
        Ok(())
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        now: Timestamp,
        heartbeat: Heartbeat,
        way: Way,
    ) -> Result<(), MasterError> {
        let Heartbeat { time, head } = heartbeat;
        self.clock.handle_time(now, time);
        self.master_level = self.master_level.max(head.level); // a log does not shrink
        let (Phase::Following, Some(mine)) = (&self.phase, self.position()) else {
            return Ok(()); // no level counts before the table is whole
        };
        let (theirs, ours) = (
            (head.epoch.counter, head.level),
            (mine.epoch.counter, mine.level),
        );
        if theirs <= ours {
            self.note_progress();
        }
        if theirs < ours {
            self.counters.duplicates_total += u64::from(self.is_in_order(way));
            return Ok(());
        }
        if theirs > ours && !self.is_in_order(way) && self.awaits_progress(now, mine) {
            return Ok(()); // what leads there is on its way
        }
        if theirs > ours || head.epoch != mine.epoch {
            return Err(self.gap(mine, head.level)); // it comes behind every frame up to its position
        }
        let matches = head.root == mine.root;
        if matches {
            self.matched(now, time);
        } else {
            self.counters.root_mismatches_total += u64::from(self.doubted().is_none());
            self.doubt(mine);
        }
        self.settle_audit(now, matches);
        Ok(())
    }

    /// Rules 2.2: at this level and with this content the table is complete until `time`.
    fn matched(&mut self, now: Timestamp, time: MasterTime) {
        self.complete_until = self.complete_until.max(time); // those of the two ways overtake each other
        self.matched_at = Some(now);
        self.last_match = now;
        self.content = Content::Good;
        self.timers.set(Timer::Behind, now.plus(BEHIND_AFTER));
        self.backoff.handle_success();
        if self
            .loaded_at
            .is_none_or(|at| now.since(at) >= RELOAD_PROVEN)
        {
            self.backoff.handle_proven();
        }
        if let Some(since) = self.progress.since.take() {
            self.progress.last_ms = millis(now, since);
            self.progress.catch_ups_total += u64::from(self.plan == Plan::Continue);
        }
    }

    pub(super) fn handle_frame(&mut self, frame: Frame, way: Way) -> Result<(), MasterError> {
        let Some(mine) = self.position() else {
            return Err(MasterError::Unexpected { message: "frame" });
        };
        self.note_frame(way);
        self.rule(mine, frame, way)?;
        let applied = u64::from(self.owed.is_some());
        match way {
            Way::Group => self.counters.group_frames_total += applied,
            Way::Connection => self.counters.connection_frames_total += applied,
        }
        Ok(())
    }

    /// Applies a frame, ignores it, or refuses it.
    fn rule(&mut self, mine: Position, frame: Frame, way: Way) -> Result<(), MasterError> {
        let doubted = self.doubted().is_some();
        match follow::judge(mine, &mut self.lineage, &frame) {
            // The node's own root says nothing. Nor need the master's stay as it is where an epoch begins: its
            // last life may have named a wrong one.
            Ruling::RootMismatch if doubted => {
                self.apply(frame, false, None, way);
                Ok(())
            }
            Ruling::Apply => {
                let again = !doubted && self.is_suspect_at(mine.level);
                let again = again.then(|| frame.clone());
                self.apply(frame, !doubted, again, way);
                Ok(())
            }
            Ruling::Ignore => {
                self.counters.duplicates_total += 1;
                Ok(())
            }
            Ruling::Gap => Err(self.gap(mine, frame.header.from)),
            Ruling::RootMismatch if self.suspect() => {
                self.counters.root_mismatches_total += 1;
                self.apply_in_doubt(frame, way);
                Ok(())
            }
            Ruling::RootMismatch => Err(MasterError::RootMismatch { level: mine.level }),
        }
    }

    /// Applies a frame as it is: its content has not fitted twice at this level.
    pub(super) fn apply_in_doubt(&mut self, frame: Frame, way: Way) {
        if let Some(mine) = self.position() {
            self.doubt(mine);
        }
        self.apply(frame, false, None, way);
    }

    fn apply(&mut self, frame: Frame, checked: bool, again: Option<Frame>, way: Way) {
        if frame.header.kind == FrameKind::Epoch {
            // Another writer's clock may have resumed earlier than its predecessor's ended: what it wrote
            // since is not here yet.
            self.complete_until = self.complete_until.min(frame.header.time);
        }
        let at = frame.header.after();
        self.owed = Some(Owed::Applied {
            at,
            checked,
            again,
            way,
        });
        self.events
            .push_back(ReceiverEvent::Apply { frame, checked });
    }

    fn handle_begin(&mut self, begin: SnapshotBegin) -> Result<(), MasterError> {
        let load = Load::new(begin, self.master_level, &mut self.lineage)?;
        self.phase = Phase::Loading(load);
        self.backoff.handle_reload();
        self.events.push_back(ReceiverEvent::BeginLoad {
            table_key: self.table_key,
            begin,
        });
        Ok(())
    }

    /// Takes in where the table stands now.
    pub(super) fn stand(&mut self, standing: Standing) {
        self.standing = Some(standing);
        if let Content::Suspect(_) = self.content {
            self.content = Content::Good; // what followed has fitted
        }
        let Position { epoch, level, .. } = standing.position;
        self.master_level = self.master_level.max(level); // the master was there before
        if self
            .followed
            .is_none_or(|followed| followed.counter < epoch.counter)
        {
            self.followed = Some(epoch); // it began on this connection
        }
    }

    fn finish_if_whole(&mut self) {
        if let Phase::Loading(load) = &self.phase
            && let Some(position) = load.whole()
        {
            self.owed = Some(Owed::Loaded(position));
            self.events.push_back(ReceiverEvent::FinishLoad(position));
        }
    }
}
