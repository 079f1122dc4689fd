//! How nodes come into the group and out of it: what they say, what is said to them; it seals nothing.

use locus_proto::v1::{GroupCut, GroupEnd, GroupEndReason, GroupHeard, GroupLeft};
use locus_proto::{Message, Position, Timestamp, Verdict};

use super::connection::Phase;
use super::path::{Path, PathReason, Stage, Step, Turn, is_alarming};
use super::{BACK_AFTER, CloseReason, Peer, Sender, SenderEvent};

impl Sender {
    /// Takes the word that a node hears the group, or holds its newest key.
    pub(super) fn handle_group_heard(&mut self, now: Timestamp, peer: Peer, heard: &GroupHeard) {
        let (Some(group), Some(connection)) = (&mut self.group, self.peers.get_mut(&peer)) else {
            return;
        };
        let Some((node, _)) = connection
            .node
            .as_ref()
            .filter(|_| heard.stream == group.stream())
        else {
            return;
        };
        connection.key = heard.key;
        if connection.stage == Stage::Group {
            group.sender.handle_key_held(now, *node, heard.key);
        }
        if now < connection.back_at {
            connection.heard_early = true; // no node that keeps the protocol is so quick
        } else {
            connection.stage.take(Turn::Heard);
        }
        self.settle(now, peer);
        self.settle_group(now);
    }

    /// Takes the word that a node takes nothing from the group any more.
    pub(super) fn handle_group_left(&mut self, now: Timestamp, peer: Peer, left: &GroupLeft) {
        let (Some(group), Some(connection)) = (&mut self.group, self.peers.get_mut(&peer)) else {
            return;
        };
        let Some((node, name)) = connection
            .node
            .clone()
            .filter(|_| left.stream == group.stream())
        else {
            return;
        };
        let from = connection.path();
        let step = connection.stage.take(Turn::Left(left.reason));
        connection.heard_early = false;
        if is_alarming(left.reason) && !std::mem::replace(&mut connection.lost, true) {
            self.counters.multicast_lost_total += 1;
            let (name, reason) = (name.clone(), left.reason);
            self.events
                .push_back(SenderEvent::MulticastLost { node, name, reason });
        }
        match step {
            Step::Serve(reason) => {
                group.sender.remove(now, node);
                connection.back_at = now.plus(BACK_AFTER);
                connection.follower.go_to(left.position);
                self.counters.group_left_total += 1;
                self.change_path(peer, from, PathReason::Left(reason), false);
                let Position { epoch, level, .. } = left.position;
                match self.lineage.judge(epoch, level, self.head.level) {
                    Verdict::Continue => {}
                    Verdict::Reload(reason) => {
                        self.roster.demand_reload(node, reason);
                        self.drop_peer(now, peer, CloseReason::LogUnreadable);
                    }
                }
            }
            Step::Stay | Step::Offer | Step::Cut | Step::End(_) => {}
        }
        self.settle(now, peer);
        self.settle_group(now);
    }

    /// Brings a node's path nearer to what is wished: offers the group, cuts the node where its place and the
    /// group's meet, or takes it out.
    pub(super) fn consider_path(&mut self, now: Timestamp, peer: Peer) {
        self.bring_near(now, peer);
        let empty = self.group.as_ref().is_some_and(|g| g.sender.members() == 0);
        let leads = empty && self.leads(peer);
        let (Some(group), Some(connection)) = (&mut self.group, self.peers.get_mut(&peer)) else {
            return;
        };
        let wanted = connection.phase == Phase::Streaming && group.is_wanted(connection);
        let Some((node, _)) = connection.node.clone().filter(|_| wanted) else {
            return;
        };
        let from = connection.path();
        if !group.meets(connection, leads) || connection.stage.take(Turn::Met) != Step::Cut {
            return;
        }
        let seq = group.take_in(now, node, connection);
        let stream = group.stream();
        connection.send(now, &Message::GroupCut(GroupCut { stream, seq }));
        let back = std::mem::take(&mut connection.lost);
        self.counters.group_cuts_total += 1;
        self.change_path(peer, from, PathReason::Heard, back);
    }

    /// Offers a node the group, takes it out, or takes what it has said too early.
    fn bring_near(&mut self, now: Timestamp, peer: Peer) {
        let (Some(group), Some(connection)) = (&mut self.group, self.peers.get_mut(&peer)) else {
            return;
        };
        let streaming = connection.phase == Phase::Streaming;
        let Some((node, _)) = connection.node.clone().filter(|_| streaming) else {
            return;
        };
        if !group.is_wanted(connection) {
            self.end_membership(now, peer, GroupEndReason::Unicast);
            return;
        }
        if connection.stage.take(Turn::Wanted) == Step::Offer {
            let offer = group.offer(node);
            connection.key = offer.key.id;
            connection.send(now, &Message::GroupOffer(offer));
        }
        if now >= connection.back_at && std::mem::take(&mut connection.heard_early) {
            connection.stage.take(Turn::Heard);
        }
    }

    /// Takes a node out of the group, if it is in; it says where it stands.
    pub(super) fn end_membership(&mut self, now: Timestamp, peer: Peer, reason: GroupEndReason) {
        let (Some(group), Some(connection)) = (&mut self.group, self.peers.get_mut(&peer)) else {
            return;
        };
        let from = connection.path();
        match connection.stage.take(Turn::Ended(reason)) {
            Step::End(reason) => {
                if let Some((node, _)) = &connection.node {
                    group.sender.remove(now, *node);
                }
                let stream = group.stream();
                connection.send(now, &Message::GroupEnd(GroupEnd { stream, reason }));
                let outgoing = connection.window.take_outgoing();
                self.transmits.extend(outgoing.map(|bytes| (peer, bytes)));
                self.counters.group_ends_total += 1;
                self.change_path(peer, from, PathReason::Ended(reason), false);
            }
            Step::Stay | Step::Offer | Step::Cut | Step::Serve(_) => {}
        }
    }

    /// Says that a node's path was `from`, if it is another one now; `back`: it was lost to the group.
    fn change_path(&mut self, peer: Peer, from: Path, reason: PathReason, back: bool) {
        let Some(connection) = self.peers.get(&peer) else {
            return;
        };
        let (to, Some((node, name))) = (connection.path(), &connection.node) else {
            return;
        };
        if from != to {
            self.events.push_back(SenderEvent::PathChanged {
                node: *node,
                name: name.clone(),
                from,
                to,
                reason,
            });
        }
        if back {
            let (node, name) = (*node, name.clone());
            self.events
                .push_back(SenderEvent::MulticastBack { node, name });
        }
    }
}
