//! Brings the log to every node: cursors, windows, snapshots, heartbeats; it reads no log and no table.

mod audit;
mod closing;
mod connection;
mod event;
mod plan;
#[cfg(test)]
mod tests;

pub use event::{
    AuditOrderError, CONFER, CloseReason, Costs, Disagreement, GREETING_MAX, HEADS_MAX,
    HEARTBEAT_EVERY, LogFrame, PEER_SILENCE_MAX, PEERS_MAX, Peer, PeerError, RELOAD_COST_MIN,
    RETURN_MAX, REUNION, SNAPSHOTS_MAX, STALL_MAX, SenderConfig, SenderEvent, Sending,
    WINDOW_BYTES,
};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use connection::{Beat, Connection, Phase, ReadOf};
use locus_proto::{
    Level, Lineage, MasterTime, Message, NodeId, NodeState, Position, ReloadReason, Timestamp,
    v1::{Heartbeat, Hello, Plan, SnapshotBegin, SnapshotEnd, SnapshotPart, Welcome},
};

use crate::message::noun;
use crate::roster::Roster;
use crate::{RosterEntry, SenderCounters};

/// The master's end of distribution: one per log.
///
/// Each node has a cursor into the log and a window of bytes in flight. The log is read for a node only
/// when its window has room, one read at a time; a slow node's cursor stays behind, and nothing is kept
/// for it. Calling contract: see the crate.
///
/// A heartbeat says "at this time the log ended here". It is sent to a node behind every frame up to
/// there, so a node that has applied them all may count its table as complete until that time
/// (rules 2.2). A node that still waits for a table gets it at once, for the time alone.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    lineage: Lineage,
    head: Position,
    time: MasterTime,
    peers: BTreeMap<Peer, Connection>,
    /// Snapshots not begun yet, in order of greeting, and what to announce.
    waiting: VecDeque<(Peer, Announcement)>,
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

#[derive(Debug, Clone, Copy)]
struct Announcement {
    records: u64,
    bytes: u64,
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
        Self {
            config,
            lineage,
            head,
            time,
            peers: BTreeMap::new(),
            waiting: VecDeque::new(),
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

    /// Takes a new connection from `address`, a text for people.
    pub fn handle_connected(&mut self, now: Timestamp, peer: Peer, address: String) {
        if self.peers.len() >= PEERS_MAX {
            self.drop_peer(peer, CloseReason::Full);
            return;
        }
        self.peers.insert(peer, Connection::new(now, address));
    }

    /// Takes a message of a node: Hello, Status, questions and reports of audits. Register is the caller's
    /// affair, see [`Self::node`].
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
        match (message, &connection.node) {
            (Message::Hello(hello), None) => self.greet(now, peer, hello, costs),
            (Message::Status(status), Some((node, _))) => {
                if status.state == NodeState::Coherent {
                    connection.conferred = None; // a new doubt is another matter
                }
                self.roster.handle_status(now, *node, status);
                Ok(())
            }
            (Message::AuditAsk(ask), Some((node, _))) => {
                let (node, sending) = (*node, connection.sending());
                match self.handle_ask(now, peer, node, ask) {
                    true => Ok(()),
                    false => Err(self.unexpected(peer, &Message::AuditAsk(ask), sending)),
                }
            }
            (Message::AuditReport(report), Some((node, _))) => {
                let node = *node;
                self.handle_report(peer, node, report);
                Ok(())
            }
            (other, _) => {
                let sending = connection.sending();
                Err(self.unexpected(peer, &other, sending))
            }
        }
    }

    fn unexpected(&mut self, peer: Peer, message: &Message, sending: Sending) -> PeerError {
        self.drop_peer(peer, CloseReason::Violation);
        let message = noun(message);
        PeerError::Unexpected { message, sending }
    }

    /// Takes the word that `bytes` of what [`Self::poll_transmit`] returned for `peer` were written.
    pub fn handle_sent(&mut self, now: Timestamp, peer: Peer, bytes: usize) {
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.handle_sent(now, bytes);
            self.pump(peer);
        }
    }

    /// Takes the end of a connection that the other side or the network has closed.
    pub fn handle_closed(&mut self, now: Timestamp, peer: Peer) {
        self.forget(peer, CloseReason::Lost);
        self.admit(now); // its place may be free now
    }

    /// Takes the word that the log has grown to `head`, at service time `time`.
    pub fn handle_committed(&mut self, _now: Timestamp, head: Position, time: MasterTime) {
        self.head = head;
        self.time = time;
        self.pump_all();
    }

    /// Takes a new epoch: its lineage, and the log's end at its first frame.
    pub fn handle_epoch(
        &mut self,
        now: Timestamp,
        lineage: Lineage,
        head: Position,
        time: MasterTime,
    ) {
        self.lineage = lineage;
        self.handle_committed(now, head, time);
    }

    /// Takes the answer to [`SenderEvent::ReadLog`]: frames in log order.
    ///
    /// None at all, or frames that do not follow the node's position, mean that the log does not reach
    /// back that far: the node is closed, and reloads when it comes again.
    pub fn handle_frames(&mut self, now: Timestamp, peer: Peer, frames: Vec<LogFrame>) {
        let Some(connection) = self.peers.get_mut(&peer) else {
            return; // gone meanwhile
        };
        if !connection.take_read(ReadOf::Log) {
            return; // nothing was asked
        }
        let node = connection.node.as_ref().map(|(node, _)| *node);
        if connection.handle_frames(now, frames).is_err() {
            if let Some(node) = node {
                self.roster.demand_reload(node, ReloadReason::TooFar);
            }
            self.drop_peer(peer, CloseReason::LogUnreadable);
            return;
        }
        self.settle(now, peer);
        self.admit(now); // its place may be free now
    }

    /// Takes the answer to [`SenderEvent::ReadTable`]; `end` with the last part.
    ///
    /// The sender's head when [`SnapshotBegin`] left is the level at which reading began: `end` may not
    /// be below it.
    pub fn handle_records(
        &mut self,
        now: Timestamp,
        peer: Peer,
        part: SnapshotPart,
        end: Option<SnapshotEnd>,
    ) {
        let Some(connection) = self.peers.get_mut(&peer) else {
            return; // gone meanwhile
        };
        if !connection.take_read(ReadOf::Table) {
            return; // nothing was asked
        }
        if !part.records.is_empty() {
            connection.send(now, Message::SnapshotPart(part).to_bytes().into());
        }
        if let Some(end) = end {
            connection.send(now, Message::SnapshotEnd(end).to_bytes().into());
            if let Some((node, _)) = &connection.node {
                self.roster.fulfil_demand(*node);
            }
            connection.phase = match connection.cursor.level < end.level {
                true => Phase::Replaying { end: end.level },
                false => Phase::Streaming,
            };
        }
        self.settle(now, peer);
        self.admit(now);
    }

    /// Takes the operator's wish that a node loads the table anew; returns whether the node is known.
    pub fn handle_reload_asked(&mut self, _now: Timestamp, node: NodeId) -> bool {
        let known = self.roster.demand_reload(node, ReloadReason::Asked);
        if let Some(peer) = self.peer_of(node) {
            self.drop_peer(peer, CloseReason::ReloadAsked);
        }
        known
    }

    /// Takes the time, and service time. Call it when [`Self::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Timestamp, time: MasterTime) {
        self.time = time;
        self.end_conferring(now);
        if now < self.beat_at {
            return;
        }
        self.beat_at = now.plus(HEARTBEAT_EVERY);
        self.end_alarm(now);
        let beat = self.beat();
        let mut overdue = Vec::new();
        for (peer, connection) in &mut self.peers {
            if let Some(reason) = connection.overdue(now) {
                overdue.push((*peer, reason));
                continue;
            }
            connection.handle_beat(now, &beat, self.config.window_bytes);
            self.transmits
                .extend(connection.take_outgoing().map(|bytes| (*peer, bytes)));
        }
        for (peer, reason) in overdue {
            self.drop_peer(peer, reason);
        }
        self.admit(now);
    }

    /// Returns what the caller has to do next.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// Returns the next bytes to write, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(Peer, Arc<[u8]>)> {
        self.transmits.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let answer = self.next_answer();
        Some(answer.map_or(self.beat_at, |at| at.min(self.beat_at)))
    }

    /// Returns the node behind a connection, once it has greeted.
    pub fn node(&self, peer: Peer) -> Option<NodeId> {
        let (node, _) = self.peers.get(&peer)?.node.as_ref()?;
        Some(*node)
    }

    /// Returns what is known of each node, by number; at most [`crate::ROSTER_MAX`].
    pub fn roster(&self) -> Vec<RosterEntry> {
        let sending: BTreeMap<NodeId, Sending> = (self.peers.values())
            .filter_map(|c| c.node.as_ref().map(|(node, _)| (*node, c.sending())))
            .collect();
        self.roster
            .entries(self.head.level, |node| sending.get(&node).copied())
    }

    /// Returns the totals.
    pub fn counters(&self) -> SenderCounters {
        self.counters
    }

    fn greet(
        &mut self,
        now: Timestamp,
        peer: Peer,
        hello: Hello,
        costs: &dyn Costs,
    ) -> Result<(), PeerError> {
        if hello.cluster != self.config.cluster {
            self.drop_peer(peer, CloseReason::WrongCluster);
            return Err(PeerError::Cluster {
                node: hello.node,
                theirs: hello.cluster,
                ours: self.config.cluster.clone(),
            });
        }
        if let Some(older) = self.peer_of(hello.node) {
            self.drop_peer(older, CloseReason::Replaced);
        }
        let Some(connection) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        let forgot = self.roster.handle_hello(now, &hello, &connection.address);
        self.counters.roster_dropped_total += u64::from(forgot);
        let plan = match self.roster.demand(hello.node) {
            Some(reason) => Plan::Reload(reason),
            None => plan::decide(
                hello.position,
                &self.lineage,
                self.head,
                self.config.reload_above,
                costs,
            ),
        };
        connection.node = Some((hello.node, hello.name.clone()));
        let welcome = Message::Welcome(Welcome {
            lineage: self.lineage.clone(),
            head: self.head,
            time: self.time,
            table_key: self.config.table_key,
            plan,
        });
        connection.send(now, welcome.to_bytes().into());
        self.events.push_back(SenderEvent::NodeUp {
            peer,
            node: hello.node,
            name: hello.name,
            address: connection.address.clone(),
            plan,
        });
        match (plan, hello.position) {
            (Plan::Continue, Some(position)) => {
                self.counters.catch_ups_total += u64::from(position.level < self.head.level);
                connection.phase = Phase::Streaming;
                connection.cursor = position;
            }
            (Plan::Continue | Plan::Reload(_), _) => {
                connection.phase = Phase::Waiting;
                let announcement = Announcement {
                    records: costs.table_records(),
                    bytes: costs.table_bytes(),
                };
                self.waiting.push_back((peer, announcement));
                self.admit(now);
                let waits = self.waiting.iter().any(|(other, _)| *other == peer);
                self.counters.snapshots_waited_total += u64::from(waits);
            }
        }
        self.settle(now, peer);
        Ok(())
    }

    /// Begins snapshots while there are places.
    fn admit(&mut self, now: Timestamp) {
        let busy = |peers: &BTreeMap<Peer, Connection>| {
            peers.values().filter(|c| c.holds_place()).count() >= SNAPSHOTS_MAX
        };
        while !self.waiting.is_empty() && !busy(&self.peers) {
            let Some((peer, Announcement { records, bytes })) = self.waiting.pop_front() else {
                return;
            };
            let Some(connection) = self.peers.get_mut(&peer) else {
                continue;
            };
            self.counters.snapshots_total += 1;
            connection.phase = Phase::Snapshotting { begun: false };
            connection.cursor = self.head;
            let begin = SnapshotBegin {
                position: self.head,
                records,
                bytes,
            };
            connection.send(now, Message::SnapshotBegin(begin).to_bytes().into());
            self.settle(now, peer);
        }
    }

    /// Tells a node that has reached the head, hands out what is queued, and reads on.
    fn settle(&mut self, now: Timestamp, peer: Peer) {
        let at_head = |c: &Connection| c.to_be_told(self.head);
        let told = self.peers.get(&peer).is_some_and(at_head);
        let beat = told.then(|| self.beat());
        if let Some(connection) = self.peers.get_mut(&peer) {
            if let Some(beat) = beat {
                connection.tell_head(now, beat);
            }
            self.transmits
                .extend(connection.take_outgoing().map(|bytes| (peer, bytes)));
        }
        self.pump(peer);
    }

    fn pump(&mut self, peer: Peer) {
        if let Some(connection) = self.peers.get_mut(&peer) {
            let window = self.config.window_bytes;
            let read = connection.next_read(peer, self.head, window, &mut self.counters);
            self.events.extend(read);
        }
    }

    fn pump_all(&mut self) {
        let window = self.config.window_bytes;
        for (peer, connection) in &mut self.peers {
            let read = connection.next_read(*peer, self.head, window, &mut self.counters);
            self.events.extend(read);
        }
    }

    fn beat(&mut self) -> Beat {
        self.remember_head();
        let heartbeat = Heartbeat {
            time: self.time,
            head: self.head,
        };
        Beat {
            head: self.head,
            message: Message::Heartbeat(heartbeat).to_bytes().into(),
        }
    }

    fn peer_of(&self, node: NodeId) -> Option<Peer> {
        let of = |c: &Connection| c.node.as_ref().is_some_and(|(other, _)| *other == node);
        self.peers
            .iter()
            .find(|(_, c)| of(c))
            .map(|(peer, _)| *peer)
    }
}
