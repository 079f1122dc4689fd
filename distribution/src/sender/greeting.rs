//! A node's first word: who it is, which version both speak, how it is brought up to date; it sends no record.

use locus_proto::{
    Message, Timestamp,
    v1::{Hello, Plan, Welcome, WireVersion},
};

use super::connection::Phase;
use super::snapshots::Announcement;
use super::{CloseReason, Costs, NodeIdentity, Peer, PeerError, Sender, SenderEvent, plan};

impl Sender {
    pub(super) fn greet(
        &mut self,
        now: Timestamp,
        peer: Peer,
        hello: Hello,
        costs: &dyn Costs,
    ) -> Result<(), PeerError> {
        self.judge_identity(now, peer, &hello)?;
        if let Some(older) = self.peer_of(hello.node) {
            self.drop_peer(now, older, CloseReason::Replaced);
        }
        let Some(connection) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        let address = &connection.arrived.address;
        let forgot = self.roster.handle_hello(now, &hello, address);
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
        let version = WireVersion::agree(hello.newest);
        connection.node = Some((hello.node, hello.name.clone()));
        connection.transport = hello.transport;
        connection.send(
            now,
            &Message::Welcome(Welcome {
                lineage: self.lineage.clone(),
                head: self.head,
                time: self.time,
                table_key: self.config.table_key,
                plan,
                version,
            }),
        );
        connection.window.agree(version); // from the next message on
        self.events.push_back(SenderEvent::NodeUp {
            peer,
            node: hello.node,
            name: hello.name,
            address: connection.arrived.address.clone(),
            plan,
        });
        match (plan, hello.position) {
            (Plan::Continue, Some(position)) => {
                self.counters.catch_ups_total += u64::from(position.level < self.head.level);
                connection.phase = Phase::Streaming;
                connection.follower.go_to(position);
            }
            (Plan::Continue | Plan::Reload(_), _) => {
                connection.phase = Phase::Waiting;
                let announcement = Announcement {
                    records: costs.table_records(),
                    bytes: costs.table_bytes(),
                };
                self.snapshots.wait(peer, announcement);
                self.admit(now);
                let waits = self.snapshots.waits(peer);
                self.counters.snapshots_waited_total += u64::from(waits);
            }
        }
        self.settle(now, peer);
        Ok(())
    }

    /// A node is of this cluster, and what its certificate says: nothing speaks for another.
    fn judge_identity(
        &mut self,
        now: Timestamp,
        peer: Peer,
        hello: &Hello,
    ) -> Result<(), PeerError> {
        let says = NodeIdentity {
            cluster: hello.cluster.clone(),
            node: hello.node,
            name: hello.name.clone(),
        };
        if says.cluster != self.config.cluster {
            self.drop_peer(now, peer, CloseReason::WrongCluster);
            return Err(PeerError::Cluster {
                node: says.node,
                theirs: says.cluster,
                ours: self.config.cluster.clone(),
            });
        }
        let certified = (self.peers.get(&peer)).and_then(|c| c.arrived.identity.as_ref());
        let Some(certified) = certified.filter(|certified| **certified != says) else {
            return Ok(());
        };
        let certified = Box::new(certified.clone());
        self.drop_peer(now, peer, CloseReason::WrongIdentity);
        Err(PeerError::Identity {
            node: says.node,
            name: says.name,
            cluster: says.cluster,
            certified,
        })
    }
}
