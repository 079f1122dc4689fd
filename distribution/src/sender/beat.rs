//! What happens each half second: heartbeats, and who is overdue; it sends no record.

use locus_proto::{MasterTime, Timestamp, v1::Heartbeat};

use super::{HEARTBEAT_EVERY, Peer, Sender};

impl Sender {
    /// Takes the time, and service time. Call it when [`Self::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Timestamp, time: MasterTime) {
        self.time = time;
        self.end_conferring(now);
        if let Some(group) = &mut self.group {
            group.sender.handle_timeout(now);
        }
        if now >= self.beat_at {
            self.beat_at = now.plus(HEARTBEAT_EVERY);
            self.beat_all(now);
        }
        self.settle_group(now);
        self.admit(now);
    }

    fn beat_all(&mut self, now: Timestamp) {
        self.end_alarm(now);
        let beat = self.beat();
        let mut overdue = Vec::new();
        for (peer, connection) in &mut self.peers {
            match connection.overdue(now) {
                Some(reason) => overdue.push((*peer, reason)),
                None => connection.handle_beat(now, beat),
            }
        }
        for (peer, reason) in overdue {
            self.drop_peer(now, peer, reason);
        }
        self.beat_group(now, beat);
        let peers: Vec<Peer> = self.peers.keys().copied().collect();
        for peer in peers {
            self.settle(now, peer);
        }
    }

    /// Returns a heartbeat of this moment.
    pub(super) fn beat(&mut self) -> Heartbeat {
        self.remember_head();
        Heartbeat {
            time: self.time,
            head: self.head,
        }
    }
}
