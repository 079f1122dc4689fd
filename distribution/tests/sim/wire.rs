//! Connections: ordered streams with a window, that stall, are cut and are reset; they decide nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{Arrived, Medium};
use locus_proto::Message;

use crate::master::peer;
use crate::parts::{Connection, Item};
use crate::world::{Event, World};

/// What a node's kernel takes of a connection that nobody reads.
const BUFFER_BYTES: usize = 256 * 1024;
/// Time that a connection's handshake takes beside its round trips.
const HANDSHAKE: Duration = Duration::from_millis(1);
/// Time after which an attempt to connect is given up when nothing answers.
const DIAL_MAX: Duration = Duration::from_secs(3);

impl World {
    pub(crate) fn dial(&mut self, node: usize) {
        let n = &self.nodes[node];
        let master = n.dials[n.dialled % n.dials.len()];
        let boot = n.boot;
        if n.port.cut {
            let at = self.now.plus(DIAL_MAX);
            self.queue.post(at, Event::DialFailed(node, boot));
            return;
        }
        let at = self.now.plus(self.network.latency * 2);
        if self.masters[master].sender.is_none() {
            self.queue.post(at, Event::DialFailed(node, boot));
            return;
        }
        let at = at.plus(HANDSHAKE + self.random.time(HANDSHAKE));
        let connection = self.connections.len();
        self.connections.push(Connection {
            master,
            node,
            master_open: false,
            node_open: true,
            outbox: VecDeque::new(),
            closing: false,
            held: [VecDeque::new(), VecDeque::new()],
            buffered: 0,
            last: [at; 2],
        });
        self.nodes[node].connection = Some(connection);
        self.queue.post(at, Event::Connected(connection));
    }

    pub(crate) fn dial_failed(&mut self, node: usize, boot: u64) {
        let now = self.node_now(node);
        let n = &mut self.nodes[node];
        if n.boot != boot {
            return;
        }
        n.dialled += 1;
        if let Some(receiver) = &mut n.receiver {
            receiver.handle_closed(now);
            self.drive_node(node);
        }
    }

    pub(crate) fn connected(&mut self, connection: usize) {
        let Connection {
            master,
            node,
            node_open,
            ..
        } = self.connections[connection];
        if !node_open || self.nodes[node].connection != Some(connection) {
            return;
        }
        if self.nodes[node].stopped {
            let at = self.now.plus(Duration::from_millis(100));
            self.queue.post(at, Event::Connected(connection));
            return;
        }
        let now = self.master_now(master);
        let arrived = Arrived {
            address: format!("10.0.0.{node}"),
            medium: Medium::Tcp,
            identity: None,
        };
        let cut = self.nodes[node].port.cut;
        let Some(sender) = self.masters[master].sender.as_mut().filter(|_| !cut) else {
            self.end_at_node(connection);
            return;
        };
        self.connections[connection].master_open = true;
        sender.handle_connected(now, peer(connection), arrived);
        let now = self.node_now(node);
        if let Some(receiver) = &mut self.nodes[node].receiver {
            receiver.handle_connected(now);
        }
        self.drive_master(master);
        self.drive_node(node);
    }

    /// Writes to a node's connection; the uplink serves the connections in turn.
    pub(crate) fn write(&mut self, connection: usize, bytes: Arc<[u8]>) {
        let c = &mut self.connections[connection];
        if c.outbox.is_empty() {
            let m = &mut self.masters[c.master];
            m.turn.push_back(connection);
            if !std::mem::replace(&mut m.sending, true) {
                self.queue.post(self.now, Event::Uplink(c.master));
            }
        }
        c.outbox.push_back(bytes);
    }

    pub(crate) fn send_next(&mut self, master: usize) {
        let Some(connection) = self.masters[master].turn.pop_front() else {
            self.masters[master].sending = false;
            return;
        };
        let c = &mut self.connections[connection];
        let mut busy = Duration::ZERO;
        if let Some(bytes) = c.outbox.pop_front() {
            if !c.outbox.is_empty() {
                self.masters[master].turn.push_back(connection);
            }
            busy = self.network.serialise(bytes.len());
            self.pass(connection, 0, Item::ToNode(bytes, false), busy);
        }
        let c = &mut self.connections[connection];
        if c.closing && c.outbox.is_empty() {
            c.closing = false;
            self.pass(connection, 0, Item::Closed, busy);
        }
        self.queue.post(self.now.plus(busy), Event::Uplink(master));
    }

    /// Sends something to an end of a connection, behind all that travels in its direction.
    pub(crate) fn pass(&mut self, connection: usize, end: usize, item: Item, busy: Duration) {
        let mut delay = busy + self.network.latency + self.random.time(self.network.jitter);
        if self.random.chance(self.network.loss.min(0.5)) {
            delay += Duration::from_millis(1) + self.random.time(Duration::from_millis(3));
        }
        let c = &mut self.connections[connection];
        let at = self.now.plus(delay).max(c.last[end]);
        c.last[end] = at;
        self.queue.post(at, Event::Arrives(connection, end, item));
    }

    pub(crate) fn arrive(&mut self, connection: usize, end: usize, item: Item) {
        let c = &mut self.connections[connection];
        let n = &self.nodes[c.node];
        let waits = !c.held[end].is_empty();
        if n.port.cut || end == 0 && (n.stopped || n.stalled || waits) || waits {
            let cut = n.port.cut;
            self.hold(connection, end, item, cut);
            return;
        }
        self.take_item(connection, end, item);
    }

    fn hold(&mut self, connection: usize, end: usize, item: Item, cut: bool) {
        let c = &mut self.connections[connection];
        let item = match item {
            Item::ToNode(bytes, false)
                if !cut && c.node_open && c.buffered + bytes.len() <= BUFFER_BYTES =>
            {
                let len = bytes.len();
                c.buffered += len;
                c.held[end].push_back(Item::ToNode(bytes, true));
                self.written(connection, len);
                return;
            }
            other => other,
        };
        c.held[end].push_back(item);
    }

    /// Hands out what was held up, as far as it may pass now.
    pub(crate) fn release(&mut self, node: usize) {
        for connection in 0..self.connections.len() {
            if self.connections[connection].node != node {
                continue;
            }
            for end in [1, 0] {
                loop {
                    let n = &self.nodes[node];
                    if n.port.cut || end == 0 && (n.stopped || n.stalled) {
                        break;
                    }
                    let c = &mut self.connections[connection];
                    let Some(item) = c.held[end].pop_front() else {
                        break;
                    };
                    self.take_item(connection, end, item);
                }
            }
            self.connections[connection].buffered = 0;
        }
    }

    /// Tells the master that the node's kernel has taken bytes.
    fn written(&mut self, connection: usize, len: usize) {
        let Connection {
            master,
            master_open,
            ..
        } = self.connections[connection];
        let now = self.master_now(master);
        if let Some(sender) = self.masters[master].sender.as_mut().filter(|_| master_open) {
            sender.handle_sent(now, peer(connection), len);
            self.drive_master(master);
        }
    }

    fn take_item(&mut self, connection: usize, end: usize, item: Item) {
        let c = &self.connections[connection];
        let (master, node) = (c.master, c.node);
        let open = [c.node_open, c.master_open];
        match item {
            Item::ToNode(bytes, written) => {
                if !written {
                    self.written(connection, bytes.len());
                }
                if open[0] {
                    let message = Message::from_bytes(&bytes).unwrap();
                    self.deliver_to_node(node, message);
                } else if open[1] && self.nodes[node].receiver.is_some() {
                    self.pass(connection, 1, Item::Closed, Duration::ZERO); // reset by its kernel
                }
            }
            Item::ToMaster(message) => {
                let now = self.master_now(master);
                let m = &mut self.masters[master];
                let Some(sender) = &mut m.sender else {
                    return;
                };
                if open[1] {
                    let refused = sender.handle_message(now, peer(connection), *message, &m.log);
                    self.refused_total += u64::from(refused.is_err());
                    self.drive_master(master);
                } else if open[0] {
                    self.pass(connection, 0, Item::Closed, Duration::ZERO);
                }
            }
            Item::Closed if end == 0 => self.end_at_node(connection),
            Item::Closed => self.end_at_master(connection),
        }
    }

    /// The master closes, behind what it has written.
    pub(crate) fn close_by_master(&mut self, connection: usize) {
        let c = &mut self.connections[connection];
        c.master_open = false;
        if c.outbox.is_empty() {
            self.pass(connection, 0, Item::Closed, Duration::ZERO);
        } else {
            c.closing = true;
        }
    }

    pub(crate) fn close_by_node(&mut self, connection: usize) {
        self.pass(connection, 1, Item::Closed, Duration::ZERO);
        self.end_at_node(connection);
    }

    /// Cuts a node's connection; both ends learn of it.
    pub(crate) fn reset(&mut self, node: usize) {
        if let Some(connection) = self.nodes[node].connection {
            self.end_at_master(connection);
            self.end_at_node(connection);
        }
    }

    fn end_at_node(&mut self, connection: usize) {
        let c = &mut self.connections[connection];
        if !std::mem::replace(&mut c.node_open, false) {
            return;
        }
        let node = c.node;
        let now = self.node_now(node);
        let n = &mut self.nodes[node];
        n.connection = None;
        n.dialled += 1;
        if let Some(receiver) = &mut n.receiver {
            receiver.handle_closed(now);
            self.drive_node(node);
        }
    }

    fn end_at_master(&mut self, connection: usize) {
        let c = &mut self.connections[connection];
        if !std::mem::replace(&mut c.master_open, false) {
            return;
        }
        c.outbox.clear();
        let master = c.master;
        let now = self.master_now(master);
        if let Some(sender) = &mut self.masters[master].sender {
            sender.handle_closed(now, peer(connection));
            self.drive_master(master);
        }
    }
}
