//! Brings the log to every node: cursors, windows, snapshots, heartbeats; it reads no log and no table.

mod arrival;
mod audit;
mod beat;
mod boat;
mod carrier;
mod choice;
mod closing;
mod connection;
mod event;
mod follower;
mod greeting;
mod group;
mod membership;
mod path;
mod plan;
mod reason;
mod snapshots;
mod stream;
#[cfg(test)]
mod tests;

pub use arrival::{Arrived, BusSide, Medium, NodeIdentity};
pub use boat::Boat;
pub use choice::{AUTO_CALM, AUTO_NODES_MAX};
pub use event::{
    BACK_AFTER, BOARDING, CONFER, Costs, Disagreement, GREETING_MAX, GROUP, GroupSetup, HEADS_MAX,
    HEARTBEAT_EVERY, HOLD_UP_MAX, LogFrame, PEER_SILENCE_MAX, PEERS_MAX, Peer, RELOAD_COST_MIN,
    RETURN_MAX, REUNION, ROTATION_WAIT, SLOW_SNAPSHOTS_MAX, SNAPSHOTS_MAX, STALL_MAX, SenderConfig,
    SenderEvent, Sending, WINDOW_BYTES,
};
pub use path::{Path, PathReason};
pub use reason::{AuditOrderError, CloseReason, PeerError};

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use connection::Connection;
use group::Group;
use locus_proto::{
    Level, Lineage, MasterTime, Message, NodeId, NodeState, Position, ReloadReason, Timestamp,
};
use snapshots::Snapshots;

use crate::message::noun;
use crate::multicast::GroupDatagram;
use crate::roster::{Live, Roster};
use crate::{RosterEntry, SenderCounters};

/// The master's end of distribution: one per log.
///
/// Each node has a cursor into the log and a window of bytes in flight. The log is read for a node only
/// when its window has room, one read at a time; a slow node's cursor stays behind, and nothing is kept
/// for it. All nodes in the group share one cursor. Calling contract: see the crate.
///
/// A heartbeat says "at this time the log ended here". It is sent to a node behind every frame up to
/// there, so a node that has applied them all may count its table as complete until that time
/// (rules 2.2). A node that still waits for a table gets it at once, for the time alone; so does, over its
/// connection, a node in the group, which finds the heartbeats in order there.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    lineage: Lineage,
    head: Position,
    time: MasterTime,
    peers: BTreeMap<Peer, Connection>,
    group: Option<Group>,
    snapshots: Snapshots,
    roster: Roster,
    /// When it began to serve nodes.
    begun_at: Timestamp,
    /// Most nodes agree with each other against the master, and that was said.
    alarmed: bool,
    /// Heads that heartbeats have named, each once; at most [`HEADS_MAX`].
    heads: VecDeque<Position>,
    /// Level of the last doubt that a node has told.
    doubted_at: Level,
    beat_at: Timestamp,
    events: VecDeque<SenderEvent>,
    transmits: VecDeque<(Peer, Arc<[u8]>)>,
    counters: SenderCounters,
}

impl Sender {
    /// Returns a sender for a log with this lineage that ends at `head`, at service time `time`.
    pub fn new(
        now: Timestamp,
        config: SenderConfig,
        lineage: Lineage,
        head: Position,
        time: MasterTime,
    ) -> Self {
        let group =
            (config.group.clone()).map(|setup| Group::new(now, setup, config.transport, head));
        Self {
            config,
            lineage,
            head,
            time,
            peers: BTreeMap::new(),
            group,
            snapshots: Snapshots::default(),
            roster: Roster::default(),
            begun_at: now,
            alarmed: false,
            heads: VecDeque::new(),
            doubted_at: Level::ZERO,
            beat_at: now.plus(HEARTBEAT_EVERY),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: SenderCounters::default(),
        }
    }

    /// Takes a new connection.
    pub fn handle_connected(&mut self, now: Timestamp, peer: Peer, arrived: Arrived) {
        if self.peers.len() >= PEERS_MAX {
            self.drop_peer(now, peer, CloseReason::Full);
            return;
        }
        let connection = Connection::new(now, arrived, self.config.window_bytes);
        self.peers.insert(peer, connection);
    }

    /// Takes a message of a node: Hello, Status, questions and reports of audits, words about the group. Register
    /// is the caller's affair, see [`Self::node`].
    ///
    /// `costs` is asked at Hello only.
    ///
    /// # Errors
    /// [`PeerError`]: the sender has dropped the peer and asks to close it.
    pub fn handle_message(
        &mut self,
        now: Timestamp,
        peer: Peer,
        message: Message,
        costs: &dyn Costs,
    ) -> Result<(), PeerError> {
        let Some(connection) = self.peers.get_mut(&peer) else {
            return Ok(()); // dropped: these bytes were on their way
        };
        connection.heard_at = now;
        let sending = connection.sending();
        let taken = match (message, &connection.node) {
            (Message::Hello(hello), None) => return self.greet(now, peer, hello, costs),
            (Message::Status(status), Some((node, _))) => {
                if status.state == NodeState::Coherent {
                    connection.conferred = None; // a new doubt is another matter
                }
                self.roster.handle_status(now, *node, status);
                Ok(())
            }
            (Message::AuditAsk(ask), Some((node, _))) => {
                let node = *node;
                match self.handle_ask(now, peer, node, ask) {
                    true => Ok(()),
                    false => Err(Message::AuditAsk(ask)),
                }
            }
            (Message::AuditReport(report), Some((node, _))) => {
                let node = *node;
                self.handle_report(peer, node, report);
                Ok(())
            }
            (Message::GroupHeard(heard), Some(_)) if connection.stage.was_offered() => {
                self.handle_group_heard(now, peer, &heard);
                Ok(())
            }
            (Message::GroupLeft(left), Some(_)) if connection.stage.was_offered() => {
                self.handle_group_left(now, peer, &left);
                Ok(())
            }
            (other, _) => Err(other),
        };
        taken.map_err(|message| {
            self.drop_peer(now, peer, CloseReason::Violation);
            let message = noun(&message);
            PeerError::Unexpected { message, sending }
        })
    }

    /// Takes the word that `bytes` of what [`Self::poll_transmit`] returned for `peer` were written.
    pub fn handle_sent(&mut self, now: Timestamp, peer: Peer, bytes: usize) {
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.window.handle_sent(now, bytes);
            self.pump(now, peer);
        }
    }

    /// Takes a datagram that came to the reply port.
    pub fn handle_datagram(&mut self, now: Timestamp, from: SocketAddr, mut bytes: Vec<u8>) {
        if let Some(group) = &mut self.group {
            group.sender.handle_datagram(now, from, &mut bytes);
            self.settle_group(now);
        }
    }

    /// Takes the end of a connection that the other side or the network has closed.
    pub fn handle_closed(&mut self, now: Timestamp, peer: Peer) {
        self.forget(now, peer, CloseReason::Lost);
        self.admit(now); // its place may be free now
        self.settle_group(now);
    }

    /// Takes the word that a node's certificate does not count any more: it is closed, and the group's keys are
    /// changed.
    pub fn handle_removed(&mut self, now: Timestamp, node: NodeId) {
        if let Some(peer) = self.peer_of(node) {
            self.drop_peer(now, peer, CloseReason::Revoked);
        }
        if let Some(group) = &mut self.group {
            group.revoke(now, node);
        }
        self.admit(now);
        self.settle_group(now);
    }

    /// Takes the operator's wish that a node loads the table anew; returns whether the node is known.
    pub fn handle_reload_asked(&mut self, now: Timestamp, node: NodeId) -> bool {
        let known = self.roster.demand_reload(node, ReloadReason::Asked);
        if let Some(peer) = self.peer_of(node) {
            self.drop_peer(now, peer, CloseReason::ReloadAsked);
        }
        known
    }

    /// Returns what the caller has to do next.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// Returns the next bytes to write, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(Peer, Arc<[u8]>)> {
        self.transmits.pop_front()
    }

    /// Returns the next datagram to send from the reply port.
    pub fn poll_datagram(&mut self) -> Option<GroupDatagram> {
        self.group.as_mut()?.sender.poll_datagram()
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let group = self.group.as_ref().and_then(|g| g.sender.poll_timeout());
        [self.next_answer(), self.snapshots.departure(), group]
            .into_iter()
            .flatten()
            .chain([self.beat_at])
            .min()
    }

    /// Returns the node behind a connection, once it has greeted.
    pub fn node(&self, peer: Peer) -> Option<NodeId> {
        let (node, _) = self.peers.get(&peer)?.node.as_ref()?;
        Some(*node)
    }

    /// Returns what is known of each node, by number; at most [`crate::ROSTER_MAX`].
    pub fn roster(&self) -> Vec<RosterEntry> {
        let live: BTreeMap<NodeId, Live> = (self.peers.values())
            .filter_map(|c| c.node.as_ref().map(|(node, _)| (*node, c.live())))
            .collect();
        self.roster
            .entries(self.head.level, |node| live.get(&node).copied())
    }

    /// Returns the totals.
    pub fn counters(&self) -> SenderCounters {
        let mut counters = self.counters;
        if let Some(group) = &self.group {
            counters.group = group.sender.counters();
        }
        counters
    }

    fn peer_of(&self, node: NodeId) -> Option<Peer> {
        let of = |c: &Connection| c.node.as_ref().is_some_and(|(other, _)| *other == node);
        self.peers
            .iter()
            .find(|(_, c)| of(c))
            .map(|(peer, _)| *peer)
    }
}
