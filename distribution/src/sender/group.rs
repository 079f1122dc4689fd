//! The group: who is in it, where its own reader of the log stands, and its keys; it seals nothing itself.

use std::collections::BTreeMap;

use locus_proto::v1::{GroupEndReason, GroupOffer, Heartbeat};
use locus_proto::{Message, NodeId, Position, Timestamp, Transport};

use super::choice::{Choice, wants_group};
use super::connection::{Connection, Phase};
use super::follower::{Answer, Follower};
use super::path::Stage;
use super::{GROUP, GroupSetup, LogFrame, Peer, ROTATION_WAIT, Sender};
use crate::ROSTER_MAX;
use crate::multicast::{GroupSender, GroupSenderEvent};

/// The group and its reader of the log.
#[derive(Debug)]
pub(super) struct Group {
    setup: GroupSetup,
    /// What the master wishes.
    transport: Transport,
    pub(super) sender: GroupSender,
    follower: Follower,
    pub(super) choice: Choice,
    rotated_at: Option<Timestamp>,
    /// Nodes that hold the keys and are gone, and when the keys are changed for that; at most [`ROSTER_MAX`].
    departed: BTreeMap<NodeId, Timestamp>,
}

impl Group {
    pub(super) fn new(
        now: Timestamp,
        setup: GroupSetup,
        transport: Transport,
        head: Position,
    ) -> Self {
        let mut follower = Follower::default();
        follower.rest_at(head);
        Self {
            sender: GroupSender::new(now, setup.config.clone()),
            setup,
            transport,
            follower,
            choice: Choice::default(),
            rotated_at: None,
            departed: BTreeMap::new(),
        }
    }

    /// Returns whether it has caught up with `head` and was not told.
    fn is_to_be_told(&self, head: Position) -> bool {
        !self.follower.is_told() && self.follower.stands_at(head)
    }

    pub(super) fn stream(&self) -> u64 {
        self.setup.config.stream
    }

    /// Returns whether a node is to be in the group.
    pub(super) fn is_wanted(&self, connection: &Connection) -> bool {
        let (theirs, medium) = (connection.transport, connection.arrived.medium);
        wants_group(self.transport, theirs, medium, &self.choice)
    }

    /// Returns what a node needs to hear the group. Whether it was gone meanwhile counts no more; to be connected
    /// again is not enough for that: it may never be offered the group again, and it knows the keys.
    pub(super) fn offer(&mut self, node: NodeId) -> GroupOffer {
        self.departed.remove(&node);
        let (key, node_key, verify_key) = self.sender.offer(node);
        GroupOffer {
            stream: self.stream(),
            group: self.setup.address,
            reply_port: self.setup.reply_port,
            key,
            node_key,
            verify_key,
        }
    }

    /// Returns whether the node stands where the group does; `leads`: an empty group may begin where it stands.
    pub(super) fn meets(&self, connection: &Connection, leads: bool) -> bool {
        match self.sender.members() {
            0 => leads,
            _ => self.follower.stands_at(connection.follower.cursor()),
        }
    }

    /// Takes a node in, where [`Self::meets`] is true; returns the datagram from which on it needs everything.
    pub(super) fn take_in(&mut self, now: Timestamp, node: NodeId, connection: &Connection) -> u64 {
        if self.sender.members() == 0 {
            self.follower.go_to(connection.follower.cursor());
        }
        if !connection.follower.is_told() {
            self.follower.forget_told();
        }
        let seq = self.sender.add(now, node);
        self.sender.handle_key_held(now, node, connection.key);
        seq
    }

    /// Returns where the connection's stream ends and the group's goes on, if it is to be cut.
    pub(super) fn meeting(&self, connection: &Connection) -> Option<Position> {
        let heard = connection.stage == Stage::Heard && connection.phase == Phase::Streaming;
        let to_be_cut = heard && self.sender.members() > 0 && self.is_wanted(connection);
        to_be_cut.then(|| self.follower.cursor())
    }

    /// Returns whether the connection is ahead of the group and waits until it is there.
    pub(super) fn awaits(&self, connection: &Connection) -> bool {
        let order = |p: Position| (p.epoch.counter, p.level);
        let ahead = |at: Position| order(connection.follower.cursor()) >= order(at);
        self.meeting(connection).is_some_and(ahead)
    }

    /// A node is gone: what it knows of the keys is to be worthless soon, unless it is offered the group again.
    pub(super) fn handle_gone(&mut self, now: Timestamp, node: NodeId) {
        self.sender.remove(now, node);
        if self.departed.len() < ROSTER_MAX {
            self.departed.insert(node, now.plus(ROTATION_WAIT));
        }
    }

    /// A node's certificate was revoked: if it may know the keys, they are changed as soon as they may be.
    pub(super) fn revoke(&mut self, now: Timestamp, node: NodeId) {
        if let Some(due) = self.departed.get_mut(&node) {
            *due = now;
        }
        self.rotate_if_due(now);
    }

    /// Changes the keys if somebody is gone that holds them, and the last change is not too recent.
    fn rotate_if_due(&mut self, now: Timestamp) {
        let recent = |at: Timestamp| now.since(at) < ROTATION_WAIT;
        let due = self.departed.values().any(|due| *due <= now);
        if due && !self.rotated_at.is_some_and(recent) {
            self.departed.clear(); // none of them is given the next ones
            self.rotated_at = Some(now);
            self.sender.rotate(now);
        }
    }
}

impl Sender {
    /// Takes the log's answer for the group. Each node that stands where the group comes by is cut there.
    pub(super) fn handle_group_frames(&mut self, now: Timestamp, frames: Vec<LogFrame>) {
        let Some(group) = &mut self.group else {
            return;
        };
        match group.follower.take_answer() {
            Answer::Wanted if group.sender.members() > 0 => {}
            Answer::Wanted | Answer::Stale | Answer::Unasked => {
                self.settle_group(now);
                return;
            }
        }
        let mut readable = !frames.is_empty();
        for frame in frames {
            let Some(group) = &mut self.group else {
                return;
            };
            let bytes = u64::try_from(frame.message.len()).unwrap_or(u64::MAX);
            readable = (group.follower)
                .handle_frame(now, frame, &mut group.sender)
                .is_ok();
            if !readable {
                break;
            }
            self.counters.group_frame_bytes_total += bytes;
            self.cut_who_waits(now);
        }
        if !readable {
            // Whoever cannot be served from the log over its connection either reloads.
            for peer in self.in_stage(Stage::Group) {
                self.end_membership(now, peer, GroupEndReason::Lagging);
            }
        }
        self.settle_group(now);
    }

    /// Returns whether nobody who may come into the group stands ahead of the node: whoever does would have to wait
    /// for a group that begins there.
    pub(super) fn leads(&self, peer: Peer) -> bool {
        let place = |connection: &Connection| {
            let at = connection.follower.cursor();
            (at.epoch.counter, at.level)
        };
        let (Some(group), Some(first)) = (&self.group, self.peers.get(&peer)) else {
            return false;
        };
        let may_come = |c: &&Connection| {
            c.phase == Phase::Streaming && c.stage.streams() && !c.lost && group.is_wanted(c)
        };
        let mut others = self.peers.values().filter(may_come);
        first.stage == Stage::Heard && others.all(|other| place(other) <= place(first))
    }

    fn cut_who_waits(&mut self, now: Timestamp) {
        for peer in self.in_stage(Stage::Heard) {
            self.settle(now, peer);
        }
    }

    fn in_stage(&self, stage: Stage) -> Vec<Peer> {
        let in_stage = |(peer, c): (&Peer, &Connection)| (c.stage == stage).then_some(*peer);
        self.peers.iter().filter_map(in_stage).collect()
    }

    /// Takes the half-second heartbeat.
    pub(super) fn beat_group(&mut self, now: Timestamp, beat: Heartbeat) {
        let Some(group) = &mut self.group else {
            return;
        };
        if group.sender.members() > 0 {
            let carrier = &mut group.sender;
            group.follower.handle_beat(now, beat, carrier);
        }
        let nodes = self.peers.values().filter(|c| c.node.is_some()).count();
        let rate = group.setup.config.rate_bytes_per_s;
        group.choice.measure(now, self.head.level, nodes, rate);
        group.rotate_if_due(now);
    }

    /// Does what the group's sender asks for, tells the group if it has reached the head, and reads on for it.
    pub(super) fn settle_group(&mut self, now: Timestamp) {
        while let Some(event) = self.group.as_mut().and_then(|g| g.sender.poll_event()) {
            match event {
                GroupSenderEvent::NewKey(key) => {
                    let message = Message::GroupKey(key);
                    for (peer, connection) in &mut self.peers {
                        if connection.stage.holds_keys() {
                            connection.send(now, &message);
                            let outgoing = connection.window.take_outgoing();
                            self.transmits.extend(outgoing.map(|bytes| (*peer, bytes)));
                        }
                    }
                }
                GroupSenderEvent::Lagging(node) => {
                    self.end_member(now, node, GroupEndReason::Lagging)
                }
                GroupSenderEvent::Unrotated(node) => {
                    self.end_member(now, node, GroupEndReason::Rotated);
                }
            }
        }
        let beat = (self.group.as_ref())
            .is_some_and(|g| g.sender.members() > 0 && g.is_to_be_told(self.head))
            .then(|| self.beat());
        let Some(group) = &mut self.group else {
            return;
        };
        if group.sender.members() == 0 {
            group.follower.rest_at(self.head);
            return;
        }
        if let Some(beat) = beat {
            group.follower.tell_head(now, beat, &mut group.sender);
        }
        let read = (group.follower).next_read(GROUP, self.head, &group.sender, &mut self.counters);
        self.events.extend(read);
    }

    fn end_member(&mut self, now: Timestamp, node: NodeId, reason: GroupEndReason) {
        if let Some(peer) = self.peer_of(node) {
            self.end_membership(now, peer, reason);
        }
    }
}
