//! What moves at a node: its process, its table, its port; the product's receiver decides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{MasterError, Receiver, ReceiverConfig, ReceiverEvent};
use locus_proto::{BootId, Message, Position, Timestamp};

use crate::parts::{Happening, Item};
use crate::table::Table;
use crate::world::{Event, GROUP_ADDRESS, World};

impl World {
    /// Returns the time of a node's host.
    pub(crate) fn node_now(&self, node: usize) -> Timestamp {
        self.now.plus(self.nodes[node].ahead)
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let now = self.node_now(node);
        let boot = self.random.next();
        let n = &mut self.nodes[node];
        n.boot = boot;
        n.stopped = false;
        n.armed = None;
        let config = ReceiverConfig {
            cluster: "lab".parse().unwrap(),
            node: n.id,
            name: format!("n{}", n.id).parse().unwrap(),
            boot: BootId(boot),
            sip: String::new(),
            transport: n.transport,
        };
        let standing = n.table.as_ref().map(Table::standing);
        n.receiver = Some(Receiver::new(now, config, standing, None));
        self.drive_node(node);
    }

    /// Kills the agent; with `silently`, the master is not told, as when the machine loses its power.
    pub(crate) fn kill_node(&mut self, node: usize, silently: bool) {
        self.bury_receiver(node);
        let n = &mut self.nodes[node];
        n.loading = None;
        n.joined = None;
        n.stopped = false;
        n.port.queue.clear();
        n.boot = 0;
        if let Some(connection) = n.connection.take() {
            let c = &mut self.connections[connection];
            c.node_open = false;
            c.held[0].clear();
            c.buffered = 0;
            if !silently {
                self.pass(connection, 1, Item::Closed, Duration::ZERO);
            }
        }
    }

    /// Stops the process where it is: SIGSTOP.
    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = true;
    }

    /// Lets it go on: first its timers, or first what waits for it.
    pub(crate) fn resume(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if !std::mem::replace(&mut n.stopped, false) || n.receiver.is_none() {
            return;
        }
        n.armed = None;
        n.port.woken = true;
        if self.random.chance(0.5) {
            self.node_timer(node);
        }
        self.queue.post(self.now, Event::Wake(node));
        self.release(node);
        self.arm_node(node);
    }

    /// Cuts the node's cable, or mends it.
    pub(crate) fn cut(&mut self, node: usize, cut: bool) {
        self.nodes[node].port.cut = cut;
        if !cut {
            self.release(node);
        }
    }

    pub(crate) fn stall(&mut self, node: usize, stalled: bool) {
        self.nodes[node].stalled = stalled;
        if !stalled {
            self.release(node);
        }
    }

    /// A datagram to the group comes out of the switch.
    pub(crate) fn deliver_group(&mut self, bytes: &Arc<[u8]>) {
        let mut lost = false;
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            if n.joined != Some(GROUP_ADDRESS) || !n.port.hears() {
                continue;
            }
            if !self.reaches(node) {
                lost = true;
                continue;
            }
            if self.random.chance(self.network.reorder) {
                let late = self.random.time(self.network.reorder_by);
                let event = Event::Datagram(node, Arc::clone(bytes));
                self.queue.post(self.now.plus(late), event);
                continue;
            }
            if self.random.chance(self.network.duplicate) {
                self.enqueue(node, Arc::clone(bytes));
            }
            self.enqueue(node, Arc::clone(bytes));
        }
        self.network.count_first(bytes, lost);
    }

    /// Returns whether a datagram comes as far as a node.
    pub(crate) fn reaches(&mut self, node: usize) -> bool {
        let port = &mut self.nodes[node].port;
        let loss = port.loss.unwrap_or(self.network.loss);
        let lost = port.cut || self.random.chance(loss);
        port.lost_total += u64::from(lost);
        !lost
    }

    pub(crate) fn enqueue(&mut self, node: usize, bytes: Arc<[u8]>) {
        let n = &mut self.nodes[node];
        if n.receiver.is_none() || n.port.cut {
            return;
        }
        if n.port.queue.len() >= n.port.queue_max {
            n.port.overflow_total += 1;
            return;
        }
        n.port.queue.push_back(bytes);
        if !n.stopped && !std::mem::replace(&mut n.port.woken, true) {
            let at = self.now.plus(self.network.wake).max(n.port.busy_until);
            self.queue.post(at, Event::Wake(node));
        }
    }

    pub(crate) fn wake(&mut self, node: usize) {
        let now = self.node_now(node);
        let n = &mut self.nodes[node];
        n.port.woken = false;
        if n.stopped {
            return;
        }
        let (taken, free) = n.port.take(self.now);
        if let Some(receiver) = n.receiver.as_mut().filter(|_| !taken.is_empty()) {
            if !n.port.queue.is_empty() {
                n.port.woken = true;
                self.queue.post(free, Event::Wake(node));
            }
            receiver.handle_datagrams(now, taken);
            self.drive_node(node);
        }
    }

    pub(crate) fn node_timer(&mut self, node: usize) {
        let now = self.node_now(node);
        let n = &mut self.nodes[node];
        n.armed = None;
        if n.stopped {
            return;
        }
        let Some(receiver) = &mut n.receiver else {
            return;
        };
        if receiver.poll_timeout().is_some_and(|at| at <= now) {
            receiver.handle_timeout(now);
            self.drive_node(node);
        } else {
            self.arm_node(node);
        }
    }

    fn arm_node(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(at) = n.receiver.as_ref().and_then(Receiver::poll_timeout) else {
            return;
        };
        let ahead = u64::try_from(n.ahead.as_nanos()).unwrap();
        let at = Timestamp(at.0.saturating_sub(ahead)).max(self.now);
        if n.armed.is_none_or(|armed| at < armed) {
            n.armed = Some(at);
            self.queue.post(at, Event::NodeTimer(node));
        }
    }

    pub(crate) fn deliver_to_node(&mut self, node: usize, message: Message) {
        if self.spy == Some(node) {
            match &message {
                Message::GroupOffer(offer) => {
                    self.stolen_keys.push(offer.key.clone());
                    self.stolen_offer = Some(offer.clone());
                }
                Message::GroupKey(key) => self.stolen_keys.push(key.clone()),
                _ => {}
            }
        }
        let now = self.node_now(node);
        let Some(receiver) = &mut self.nodes[node].receiver else {
            return;
        };
        match receiver.handle_message(now, message) {
            Ok(()) => {}
            Err(MasterError::OtherMaster { .. }) => self.masters_refused_total += 1,
            Err(MasterError::Rejected(_)) => {}
            Err(error) => {
                println!("{:?}: node {node} refuses: {error}", self.now); // shown if the run fails
                self.refused_total += 1;
            }
        }
        self.drive_node(node);
        self.check_completeness(node);
    }

    /// Whatever the master committed before `complete_until` is in the table (rules 2.2).
    fn check_completeness(&self, node: usize) {
        let n = &self.nodes[node];
        let (Some(receiver), Some(table), Some(connection)) = (&n.receiver, &n.table, n.connection)
        else {
            return;
        };
        let Position { epoch, level, .. } = table.position;
        let log = &self.masters[self.connections[connection].master].log;
        let until = receiver.pulse(self.node_now(node)).complete_until;
        if receiver.welcomed() && epoch == log.head().epoch {
            assert!(
                log.level_before(until) <= level,
                "node {} is not complete",
                n.id
            );
        }
    }

    pub(crate) fn drive_node(&mut self, node: usize) {
        loop {
            let n = &mut self.nodes[node];
            let Some(receiver) = &mut n.receiver else {
                return;
            };
            if let Some(message) = receiver.poll_transmit() {
                if let Some(connection) = n.connection {
                    let item = Item::ToMaster(Box::new(message));
                    self.pass(connection, 1, item, Duration::ZERO);
                }
            } else if let Some(datagram) = receiver.poll_datagram() {
                self.reply(node, datagram);
            } else if let Some(event) = receiver.poll_event() {
                self.take_receiver_event(node, event);
            } else {
                break;
            }
        }
        self.arm_node(node);
    }

    fn take_receiver_event(&mut self, node: usize, event: ReceiverEvent) {
        let now = self.node_now(node);
        let n = &mut self.nodes[node];
        let Some(receiver) = &mut n.receiver else {
            return;
        };
        match event {
            ReceiverEvent::Connect => self.dial(node),
            ReceiverEvent::Disconnect(_) => {
                if let Some(connection) = n.connection {
                    self.close_by_node(connection);
                }
            }
            ReceiverEvent::Apply { frame, checked } => {
                let outcome = n.table.as_mut().unwrap().apply(&frame, checked);
                receiver.handle_applied(now, outcome);
                self.check(node);
            }
            ReceiverEvent::BeginLoad { .. } => n.loading = Some(Table::default()),
            ReceiverEvent::LoadRecords(records) => n.loading.as_mut().unwrap().load(&records),
            ReceiverEvent::LoadFrame(frame) => n.loading.as_mut().unwrap().load(&frame.changes),
            ReceiverEvent::FinishLoad(position) => {
                let mut table = n.loading.take().unwrap();
                let outcome = table.finish(position);
                n.table = Some(table);
                receiver.handle_loaded(now, outcome);
                n.loads_total += 1;
                self.check(node);
            }
            ReceiverEvent::AbortLoad => n.loading = None,
            ReceiverEvent::Scrub
            | ReceiverEvent::Compare { .. }
            | ReceiverEvent::Mend { .. }
            | ReceiverEvent::Audited { .. } => {
                panic!("an audit, though no memory fails here: {event:?}")
            }
            ReceiverEvent::JoinGroup { group, reply_port } => {
                n.joined = Some(group);
                n.reply_to = usize::from(reply_port - 6_000);
            }
            ReceiverEvent::LeaveGroup => n.joined = None,
            ReceiverEvent::RejoinGroup => {
                n.port.forgotten = false;
                let now = self.now;
                self.happenings.push((now, node, Happening::Rejoin));
            }
            ReceiverEvent::Registered { .. } | ReceiverEvent::StateChanged { .. } => {}
        }
    }

    fn reply(&mut self, node: usize, datagram: Vec<u8>) {
        if self.nodes[node].port.cut || self.random.chance(self.network.loss_back) {
            return;
        }
        if let Some(captured) = self.captured.as_mut().filter(|c| c.len() < 4_096) {
            captured.push(datagram.as_slice().into());
        }
        let delay = self.network.latency + self.random.time(self.network.jitter);
        let at = self.now.plus(delay);
        let master = self.nodes[node].reply_to;
        let event = Event::Reply(master, address_of(node), datagram);
        self.queue.post(at, event);
    }

    /// Takes a node's totals before it goes.
    pub(crate) fn bury_receiver(&mut self, node: usize) {
        if let Some(receiver) = self.nodes[node].receiver.take() {
            let counters = serde_json::to_value(receiver.counters()).unwrap();
            self.count("receiver", &counters);
        }
    }
}

/// Returns where a node's datagrams come from.
pub(crate) fn address_of(node: usize) -> SocketAddr {
    let port = u16::try_from(node + 1).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port)
}
