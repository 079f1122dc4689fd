//! Datagrams: what the network loses, delays and brings to whom; it opens none.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use locus_distribution::{GroupConfig, GroupDatagram, GroupSetup, GroupTarget};
use locus_proto::NodeId;

use crate::world::{Event, World};

/// 200 Mbit/s.
const RATE: u64 = 25_000_000;

impl World {
    /// Returns the group of a master that starts: new keys, a new stream.
    pub(crate) fn group_setup(&mut self, master: usize) -> GroupSetup {
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&self.random.next().to_le_bytes());
        }
        let last = u8::try_from(master + 1).unwrap();
        GroupSetup {
            address: SocketAddr::from((Ipv4Addr::new(239, 192, 0, last), 5000)),
            reply_port: 5001,
            config: GroupConfig {
                stream: self.random.next(),
                seed,
                datagram_bytes: 1400,
                rate_bytes_per_s: RATE,
                rate_floor_bytes_per_s: RATE / 100,
            },
        }
    }

    /// A node joins the group of the master that it is connected to.
    pub(crate) fn join(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.cannot_join {
            let now = self.now;
            n.receiver.as_mut().unwrap().handle_group_failed(now);
            return;
        }
        n.joined = n.link.map(|link| self.links[link].master);
    }

    /// Lets a node's process stand still, or run again.
    pub(crate) fn stop(&mut self, node: usize, stopped: bool) {
        self.nodes[node].stopped = stopped;
        self.hold(node, stopped);
    }

    /// A node's certificate does not count any more.
    pub(crate) fn revoke(&mut self, master: usize, node: NodeId) {
        let now = self.now;
        if let Some(sender) = &mut self.masters[master].sender {
            sender.handle_removed(now, node);
        }
        self.drive_master(master);
    }

    pub(crate) fn send_datagram(&mut self, master: usize, datagram: &GroupDatagram) {
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            let (joined, deaf) = (n.joined == Some(master), n.deaf);
            let goes = match datagram.to {
                GroupTarget::Group => joined && !deaf,
                GroupTarget::Node(to) => joined && to == address(node),
            };
            if goes && !self.random.chance(self.loss_percent) {
                let (boot, at) = (self.nodes[node].boot, self.later());
                let bytes = Arc::clone(&datagram.bytes);
                self.post_at(at, Event::Datagram { node, boot, bytes });
            }
        }
    }

    pub(crate) fn deliver_datagram(&mut self, node: usize, boot: u64, bytes: &Arc<[u8]>) {
        let now = self.now;
        let n = &mut self.nodes[node];
        // One that stands still takes none, and its socket's buffer is small.
        let Some(receiver) = n.receiver.as_mut().filter(|_| n.boot == boot && !n.stopped) else {
            return;
        };
        receiver.handle_datagrams(now, vec![bytes.to_vec()]);
        self.drive_node(node);
        if let Some(master) = self.nodes[node].joined {
            self.check_completeness(master, node);
        }
    }

    /// A node sends a datagram to the reply port.
    pub(crate) fn reply(&mut self, node: usize, bytes: Vec<u8>) {
        let Some(master) = self.nodes[node].joined else {
            return;
        };
        if self.random.chance(self.loss_percent) {
            return;
        }
        let (life, at) = (self.masters[master].life, self.later());
        self.post_at(
            at,
            Event::Reply {
                master,
                life,
                node,
                bytes,
            },
        );
    }

    pub(crate) fn deliver_reply(&mut self, master: usize, life: u64, node: usize, bytes: Vec<u8>) {
        let now = self.now;
        let m = &mut self.masters[master];
        if let Some(sender) = m.sender.as_mut().filter(|_| m.life == life) {
            sender.handle_datagram(now, address(node), bytes);
            self.drive_master(master);
        }
    }
}

fn address(node: usize) -> SocketAddr {
    let last = u8::try_from(node + 1).unwrap();
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), 5000))
}
