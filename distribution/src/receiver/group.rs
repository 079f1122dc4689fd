//! The node's way into the group and out of it; it opens no datagram itself.
//!
//! The connection always stands beside the group. While the node is cut, heartbeats of the connection name heads
//! whose frames may be on their way by the group.

use locus_proto::v1::{
    GroupCut, GroupEnd, GroupHeard, GroupKey, GroupLeft, GroupLeftReason, GroupOffer,
};
use locus_proto::{GroupHealth, Message, Position, Timestamp, Transport};

use super::membership::{Joined, Way};
use super::place::{Stage, Step, Turn};
use super::timer::Timer;
use super::{GROUP_BEHIND_MAX, MasterError, REJOIN_EVERY, Receiver, ReceiverEvent, STOOD_STILL};
use crate::message::noun;
use crate::multicast::{GroupReceiver, GroupReceiverEvent};

impl Receiver {
    /// Takes datagrams that came by the group, in the order in which they came.
    pub fn handle_datagrams(&mut self, now: Timestamp, datagrams: Vec<Vec<u8>>) {
        let Some(joined) = &mut self.group.joined else {
            return; // it was left
        };
        for mut datagram in datagrams {
            joined.receiver.handle_datagram(now, &mut datagram);
        }
        self.settle(now);
    }

    /// Returns the next datagram for the master's reply port.
    pub fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        self.group.joined.as_mut()?.receiver.poll_datagram()
    }

    /// Takes the word that [`ReceiverEvent::JoinGroup`] or a later attempt cannot be done: the master serves the
    /// node over its connection, and does not offer the group again on it.
    pub fn handle_group_failed(&mut self, now: Timestamp) {
        if let Some(stream) = self.group.end() {
            self.say_left(stream, GroupLeftReason::Unable);
            self.timers.stop(Timer::Hear);
            self.timers.stop(Timer::Rejoin);
        }
        self.settle(now);
    }

    pub(super) fn handle_offer(&mut self, now: Timestamp, offer: &GroupOffer) {
        match self.config.transport {
            Transport::Auto | Transport::Multicast => {}
            // It has said so, and is offered the group all the same.
            Transport::Unicast | Transport::Bus => {
                self.say_left(offer.stream, GroupLeftReason::Unable);
                return;
            }
        }
        self.group.end(); // none, if the master keeps to one offer
        let seed =
            self.config.boot.0 ^ offer.stream.rotate_left(u32::from(self.config.node.0) % 64);
        self.group.joined = Some(Joined {
            stream: offer.stream,
            stage: Stage::Offered,
            key: offer.key.id,
            heard_total: 0,
            receiver: GroupReceiver::new(now, offer, self.config.node, seed),
        });
        self.listen(now);
        self.events.push_back(ReceiverEvent::JoinGroup {
            group: offer.group,
            reply_port: offer.reply_port,
        });
    }

    pub(super) fn handle_group_key(&mut self, key: GroupKey) {
        let (stream, id) = (key.stream, key.id);
        let Some(joined) = self.group.of(stream) else {
            return;
        };
        joined.receiver.handle_key(key);
        joined.key = id;
        match joined.stage {
            // A node that does not hear the group must not say that it does.
            Stage::Offered | Stage::Left | Stage::Silent => {}
            Stage::Heard | Stage::Cut => {
                let heard = GroupHeard { stream, key: id };
                self.transmits.push_back(Message::GroupHeard(heard));
            }
        }
    }

    pub(super) fn handle_group_cut(&mut self, now: Timestamp, cut: GroupCut) {
        if self.group.of(cut.stream).is_none() {
            return;
        }
        self.group.out_of_order = Some(None);
        if self.take_turn(now, Turn::Cut) == Step::Deliver
            && let Some(joined) = self.group.of(cut.stream)
        {
            self.counters.group_cuts_total += 1;
            joined.receiver.handle_cut(now, cut.seq);
        }
    }

    pub(super) fn handle_group_end(&mut self, now: Timestamp, end: GroupEnd) {
        if self.group.of(end.stream).is_some() {
            self.take_turn(now, Turn::Ended);
        }
    }

    /// Takes the time.
    pub(super) fn keep_group(&mut self, now: Timestamp) {
        let Some(joined) = &mut self.group.joined else {
            return;
        };
        let Some(due) = joined.receiver.poll_timeout().filter(|due| *due <= now) else {
            self.group.waking_until = None;
            return;
        };
        if now.since(due) >= STOOD_STILL && self.group.waking_until.is_none() {
            self.group.waking_until = Some(now.plus(STOOD_STILL));
        }
        if self.group.waking_until.is_none_or(|until| until <= now) {
            self.group.waking_until = None;
            joined.receiver.handle_timeout(now);
        }
    }

    /// The time is over in which something of the group must have been heard.
    pub(super) fn check_hearing(&mut self, now: Timestamp) {
        let Some(joined) = &mut self.group.joined else {
            return;
        };
        let heard = joined.receiver.counters().datagrams_total;
        let silent = std::mem::replace(&mut joined.heard_total, heard) == heard;
        match joined.stage {
            // In the group it sees for itself.
            Stage::Cut | Stage::Silent => {}
            Stage::Offered | Stage::Heard | Stage::Left if silent => {
                self.take_turn(now, Turn::Lost(GroupLeftReason::Silent));
            }
            Stage::Offered | Stage::Heard | Stage::Left => self.listen(now),
        }
    }

    fn listen(&mut self, now: Timestamp) {
        self.timers.set(Timer::Hear, now.plus(GROUP_BEHIND_MAX));
    }

    /// Listens for less: it was deaf for half a second already when the master called it lagging.
    fn listen_sooner(&mut self, now: Timestamp) {
        self.timers
            .set(Timer::Hear, now.plus(GROUP_BEHIND_MAX * 4 / 5));
    }

    pub(super) fn rejoin(&mut self, now: Timestamp) {
        let silent = |joined: &Joined| joined.stage == Stage::Silent;
        if self.group.joined.as_ref().is_some_and(silent) {
            self.events.push_back(ReceiverEvent::RejoinGroup);
            self.timers.set(Timer::Rejoin, now.plus(REJOIN_EVERY));
        }
    }

    /// Ends it all with the connection.
    pub(super) fn drop_group(&mut self) {
        self.group.out_of_order = None;
        if self.group.end().is_some() {
            self.events.push_back(ReceiverEvent::LeaveGroup);
        }
    }

    /// Takes what has come by the group, one message after the other, as far as the table takes it.
    pub(super) fn take_from_group(&mut self, now: Timestamp) {
        while let Some(event) = (self.group.joined.as_mut()).and_then(|j| j.receiver.poll_event()) {
            match event {
                // Under whichever of its keys: the master waits for the newest.
                GroupReceiverEvent::Heard { .. } => {
                    self.take_turn(now, Turn::Heard);
                }
                GroupReceiverEvent::Lost(reason) => {
                    self.take_turn(now, Turn::Lost(reason));
                }
            }
        }
        if self.group.overruns() {
            self.take_turn(now, Turn::Lost(GroupLeftReason::Overrun));
        }
        while self.owed.is_none() {
            let Some(message) = self.group.next_message() else {
                return;
            };
            if let Err(error) = self.handle_from_group(now, message) {
                // Over the connection it may be right; if it is not, that is the end of the connection.
                self.count(&error);
                self.mistrust_group(now);
            }
        }
    }

    /// The table takes nothing, until it is released.
    pub(super) fn hold_group(&mut self) {
        self.group.held = true;
    }

    pub(super) fn release_group(&mut self) {
        self.group.held = false;
    }

    /// What came by the group did not fit.
    pub(super) fn mistrust_group(&mut self, now: Timestamp) {
        self.take_turn(now, Turn::Lost(GroupLeftReason::Mistrusted));
    }

    fn handle_from_group(&mut self, now: Timestamp, message: Message) -> Result<(), MasterError> {
        if let Message::Frame(frame) = message {
            self.handle_frame(frame, Way::Group)
        } else if let Message::Heartbeat(heartbeat) = message {
            self.handle_heartbeat(now, heartbeat, Way::Group)
        } else {
            let message = noun(&message);
            Err(MasterError::Unexpected { message })
        }
    }

    /// Takes note of which way a frame came.
    pub(super) fn note_frame(&mut self, way: Way) {
        if way == Way::Connection && !self.group.is_cut() {
            // The master has gone back to the connection: its heartbeats are in order again.
            self.group.out_of_order = None;
        }
    }

    /// Returns whether heartbeats that come this way stand behind every frame up to their position.
    pub(super) fn is_in_order(&self, way: Way) -> bool {
        way == Way::Group || self.group.out_of_order.is_none()
    }

    /// The connection has named a head that is above `mine`; returns whether what leads there may still come.
    pub(super) fn awaits_progress(&mut self, now: Timestamp, mine: Position) -> bool {
        let held = self.group.held;
        let Some(behind) = &mut self.group.out_of_order else {
            return false;
        };
        let (since, level) = *behind.get_or_insert((now, mine.level));
        if level != mine.level || held {
            *behind = Some((now, mine.level));
            return true;
        }
        if now.since(since) < GROUP_BEHIND_MAX {
            return true;
        }
        *behind = Some((now, mine.level));
        if !self.group.is_cut() {
            return false; // it has left, and the connection does not serve it either
        }
        self.take_turn(now, Turn::Lost(GroupLeftReason::Silent));
        true
    }

    /// The connection has named the head at which the node stands.
    pub(super) fn note_progress(&mut self) {
        if let Some(behind) = &mut self.group.out_of_order {
            *behind = None;
        }
    }

    pub(super) fn group_health(&self) -> GroupHealth {
        let counters = self.group.counters();
        GroupHealth {
            datagrams_total: counters.datagrams_total,
            lost_total: counters.lost_total,
            nacks_total: counters.nacks_total,
            refused_total: counters.refused_total(),
            frames_total: self.counters.group_frames_total,
            connection_frames_total: self.counters.connection_frames_total,
        }
    }

    /// Takes a turn and does what follows from it.
    fn take_turn(&mut self, now: Timestamp, turn: Turn) -> Step {
        let Some(joined) = &mut self.group.joined else {
            return Step::Stay;
        };
        let (next, step) = joined.stage.judge(turn);
        joined.stage = next;
        let stream = joined.stream;
        match step {
            Step::Stay | Step::Deliver => {}
            Step::Hear => {
                let heard = GroupHeard {
                    stream,
                    key: joined.key,
                };
                self.transmits.push_back(Message::GroupHeard(heard));
                self.timers.stop(Timer::Rejoin);
                self.listen(now);
            }
            Step::Leave(reason) => {
                joined.receiver.handle_left(now);
                self.counters.group_left_total += 1;
                if reason == GroupLeftReason::Silent {
                    self.counters.group_silent_total += 1;
                    self.timers.stop(Timer::Hear);
                    self.timers.set(Timer::Rejoin, now.plus(REJOIN_EVERY));
                } else {
                    joined.heard_total = joined.receiver.counters().datagrams_total;
                    self.listen_sooner(now);
                }
                self.group.forget_waiting();
                self.say_left(stream, reason);
            }
            Step::LeaveAgain => self.say_left(stream, GroupLeftReason::Asked),
        }
        step
    }

    fn say_left(&mut self, stream: u64, reason: GroupLeftReason) {
        self.transmits.push_back(Message::GroupLeft(GroupLeft {
            stream,
            reason,
            position: self.position().unwrap_or_default(),
        }));
    }
}
