//! The log to each node over its own connection, one read after the other; it reads nothing itself.

use locus_proto::{Lineage, MasterTime, Position, ReloadReason, Timestamp};

use super::connection::Phase;
use super::{CloseReason, GROUP, LogFrame, Peer, Sender};

impl Sender {
    /// Takes the word that the log has grown to `head`, at service time `time`.
    pub fn handle_committed(&mut self, now: Timestamp, head: Position, time: MasterTime) {
        self.head = head;
        self.time = time;
        self.settle_group(now);
        for (peer, connection) in &mut self.peers {
            if self.group.as_ref().is_some_and(|g| g.awaits(connection)) {
                continue; // the group is on its way to where it is
            }
            let read = connection.next_read(*peer, self.head, &mut self.counters);
            self.events.extend(read);
        }
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

    /// Takes the answer to [`super::SenderEvent::ReadLog`]: frames in log order.
    ///
    /// None at all, or frames that do not follow the node's position, mean that the log does not reach
    /// back that far: the node is closed, and reloads when it comes again. For [`GROUP`] they mean that each
    /// node in it is served over its connection again.
    pub fn handle_frames(&mut self, now: Timestamp, peer: Peer, frames: Vec<LogFrame>) {
        if peer == GROUP {
            self.handle_group_frames(now, frames);
            return;
        }
        let Some(connection) = self.peers.get_mut(&peer) else {
            return; // gone meanwhile
        };
        let meeting = (self.group.as_ref()).and_then(|group| group.meeting(connection));
        let node = connection.node.as_ref().map(|(node, _)| *node);
        match connection.handle_frames(now, frames, meeting) {
            Ok(bytes) => self.counters.connection_frame_bytes_total += bytes,
            Err(_) => {
                if let Some(node) = node {
                    self.roster.demand_reload(node, ReloadReason::TooFar);
                }
                self.drop_peer(now, peer, CloseReason::LogUnreadable);
                return;
            }
        }
        self.settle(now, peer);
    }

    /// Sees to a node's path, tells it if it has reached the head, hands out what is queued, and reads on.
    pub(super) fn settle(&mut self, now: Timestamp, peer: Peer) {
        self.consider_path(now, peer);
        let told = (self.peers.get(&peer)).is_some_and(|c| c.to_be_told(self.head));
        let beat = told.then(|| self.beat());
        if let Some(connection) = self.peers.get_mut(&peer) {
            if let Some(beat) = beat {
                connection.tell_head(now, beat);
            }
            let outgoing = connection.window.take_outgoing();
            self.transmits.extend(outgoing.map(|bytes| (peer, bytes)));
        }
        self.pump(now, peer);
    }

    /// Reads on for a connection.
    pub(super) fn pump(&mut self, now: Timestamp, peer: Peer) {
        let Some(connection) = self.peers.get_mut(&peer) else {
            return;
        };
        match connection.phase {
            Phase::Snapshotting { boat } => self.handle_room(now, peer, boat),
            Phase::Greeting | Phase::Waiting | Phase::Replaying { .. } | Phase::Streaming => {
                if self.group.as_ref().is_some_and(|g| g.awaits(connection)) {
                    return;
                }
                let read = connection.next_read(peer, self.head, &mut self.counters);
                self.events.extend(read);
            }
        }
    }
}
