//! A sender, its receivers and the network between them, in virtual time, from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_proto::v1::{DatagramHeader, DatagramKind, GroupKey, GroupOffer};
use locus_proto::{
    Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, MasterTime,
    Message, NodeId, Root, Timestamp,
};

use crate::multicast::draw::Draw;
use crate::multicast::{
    GroupConfig, GroupDatagram, GroupReceiver, GroupReceiverEvent, GroupSender, GroupSenderEvent,
    GroupTarget,
};

pub(super) const MS: u64 = 1_000_000;
/// Levels per message.
const CHANGES: u64 = 100;
pub(super) const S: u64 = 1_000_000_000;

/// What the network does to datagrams.
pub(super) struct Network {
    pub(super) latency: Duration,
    /// Each datagram to or from a node is lost with this probability.
    pub(super) loss: f64,
    /// Arrival is up to this much later: datagrams overtake each other.
    pub(super) jitter: Duration,
    /// A datagram arrives twice with this probability.
    pub(super) twice: f64,
    /// A node takes this many bytes per second, and this many datagrams wait.
    pub(super) drain: Option<(u64, usize)>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            loss: 0.0,
            jitter: Duration::ZERO,
            twice: 0.0,
            drain: None,
        }
    }
}

/// Decides whether a datagram is lost; takes time, node and its bytes.
pub(super) type Drop = Box<dyn FnMut(u64, usize, &[u8]) -> bool>;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    ToNode(usize, Vec<u8>),
    ToMaster(usize, Vec<u8>),
    WakeNode(usize),
    WakeMaster,
    Message,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) receiver: GroupReceiver,
    /// Levels delivered.
    pub(super) levels: Vec<u64>,
    /// Time from the sending of a message to its delivery.
    pub(super) delays: Vec<u64>,
    pub(super) events: Vec<GroupReceiverEvent>,
    pub(super) stopped: bool,
    /// Its messages are taken out.
    pub(super) polled: bool,
    /// Number of its offer.
    offer: u64,
    wake_at: Option<u64>,
    busy_until: u64,
    queue: VecDeque<u64>,
}

/// A load of messages: one of this length each so often, while it lasts and the sender has room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) every: u64,
    pub(super) bytes: usize,
    pub(super) until: u64,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) sender: GroupSender,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) lose: Option<Drop>,
    pub(super) load: Option<Load>,
    pub(super) sent: Vec<u64>,
    pub(super) lagging: Vec<NodeId>,
    pub(super) unrotated: Vec<NodeId>,
    pub(super) nacks: u64,
    /// Nodes answer a new key.
    pub(super) answer_keys: bool,
    /// What left, if it is kept.
    pub(super) tap: Option<Vec<GroupDatagram>>,
    draw: Draw,
    heap: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    count: u64,
    wake_at: Option<u64>,
    loaded: bool,
    new_key: Option<GroupKey>,
}

pub(super) fn config(stream: u64) -> GroupConfig {
    GroupConfig {
        stream,
        seed: [7; 32],
        datagram_bytes: 1400,
        rate_bytes_per_s: 25_000_000,
        rate_floor_bytes_per_s: 100_000,
    }
}

pub(super) fn offer(sender: &mut GroupSender, node: NodeId, stream: u64) -> GroupOffer {
    let (key, node_key, verify_key) = sender.offer(node);
    GroupOffer {
        stream,
        group: "239.192.0.1:5000".parse().unwrap(),
        reply_port: 5001,
        key,
        node_key,
        verify_key,
    }
}

pub(super) fn address(node: usize) -> SocketAddr {
    let port = u16::try_from(10_000 + node).unwrap();
    SocketAddr::new("192.0.2.1".parse().unwrap(), port)
}

/// Returns the seq of a datagram of data.
pub(super) fn seq_of(bytes: &[u8]) -> Option<u64> {
    let header = DatagramHeader::decode(bytes).ok()?;
    (header.kind == DatagramKind::Data).then_some(header.seq)
}

/// A message of about `bytes` bytes that brings a table to `level`.
pub(super) fn message(level: u64, bytes: usize) -> Arc<[u8]> {
    let epoch = Epoch {
        counter: 1,
        id: EpochId([1; 16]),
    };
    let header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch,
        from: Level((level - 1) * CHANGES),
        to: Level(level * CHANGES),
        root_before: Root::default(),
        root_after: Root::default(),
        time: MasterTime(1),
    };
    let mut changes = Vec::new();
    let mut left = bytes.saturating_sub(120);
    while left > 0 || changes.is_empty() {
        let len = left.min(30_000);
        left -= len;
        let name = format!("u{}@example.org", changes.len());
        changes.push(Change {
            key: Key::aor(&name.parse().unwrap()),
            level: Level((level - 1) * CHANGES + as_u64(changes.len()) + 1),
            op: ChangeOp::Put(vec![7; len]),
        });
    }
    Arc::from(Message::Frame(Frame { header, changes }).to_bytes())
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

impl World {
    pub(super) fn new(nodes: usize, network: Network, seed: u64) -> Self {
        Self::with(nodes, network, seed, config(99))
    }

    pub(super) fn with(nodes: usize, network: Network, seed: u64, config: GroupConfig) -> Self {
        let mut world = Self {
            now: S,
            sender: GroupSender::new(Timestamp(S), config),
            nodes: Vec::new(),
            network,
            lose: None,
            load: None,
            sent: Vec::new(),
            lagging: Vec::new(),
            unrotated: Vec::new(),
            nacks: 0,
            answer_keys: true,
            tap: None,
            draw: Draw::new(seed),
            heap: BinaryHeap::new(),
            count: 0,
            wake_at: None,
            loaded: false,
            new_key: None,
        };
        for index in 0..nodes {
            world.add_node(seed.wrapping_mul(1000) + u64::try_from(index).unwrap());
        }
        for index in 0..nodes {
            world.join(index);
        }
        world.settle();
        world
    }

    pub(super) fn add_node(&mut self, seed: u64) -> usize {
        let index = self.nodes.len();
        let id = NodeId(u16::try_from(index + 1).unwrap());
        let number = self.sender.members.next_offer();
        let offer = offer(&mut self.sender, id, 99);
        self.nodes.push(Node {
            id,
            receiver: GroupReceiver::new(Timestamp(self.now), &offer, id, seed),
            levels: Vec::new(),
            delays: Vec::new(),
            events: Vec::new(),
            stopped: false,
            polled: true,
            offer: number,
            wake_at: None,
            busy_until: 0,
            queue: VecDeque::new(),
        });
        index
    }

    /// Cuts a node over, its own stream being at the end.
    pub(super) fn join(&mut self, index: usize) -> u64 {
        let now = Timestamp(self.now);
        let seq = self.sender.add(now, self.nodes[index].id);
        self.nodes[index].receiver.handle_cut(now, seq);
        self.drain_node(index);
        seq
    }

    pub(super) fn send(&mut self, bytes: usize) {
        self.sent.push(self.now);
        let level = u64::try_from(self.sent.len()).unwrap();
        let message = message(level, bytes);
        self.sender.send(Timestamp(self.now), message, Level(level));
    }

    /// Returns the number of a node's offer, with which its key was drawn.
    pub(super) fn offer_of(&self, index: usize) -> u64 {
        self.nodes[index].offer
    }

    /// Returns the key that was handed out last.
    pub(super) fn pending_key(&self) -> GroupKey {
        self.new_key.clone().unwrap()
    }

    /// Runs for so many nanoseconds.
    pub(super) fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        if let Some(load) = self
            .load
            .filter(|_| !std::mem::replace(&mut self.loaded, true))
        {
            self.at(self.now.max(S) + load.every, Happens::Message);
        }
        self.settle();
        while let Some(Reverse((at, _, _))) = self.heap.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, happens))) = self.heap.pop() else {
                break;
            };
            self.now = at;
            self.happen(happens);
        }
        self.now = end;
    }

    /// Runs until all nodes have all messages; fails after so many nanoseconds.
    pub(super) fn run_until_all_have_all(&mut self, ns_max: u64) {
        let end = self.now + ns_max;
        while self.nodes.iter().any(|n| n.levels.len() < self.sent.len()) {
            assert!(self.now < end, "not all have all after {ns_max} ns");
            self.run(MS);
        }
    }

    fn at(&mut self, at: u64, happens: Happens) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count, happens)));
    }

    fn happen(&mut self, happens: Happens) {
        let now = Timestamp(self.now);
        match happens {
            Happens::ToNode(index, mut bytes) => {
                if !self.nodes[index].stopped {
                    self.nodes[index].receiver.handle_datagram(now, &mut bytes);
                    self.drain_node(index);
                }
            }
            Happens::ToMaster(index, mut bytes) => {
                if bytes[3] == 5 {
                    self.nacks += 1;
                }
                self.sender.handle_datagram(now, address(index), &mut bytes);
                self.settle();
            }
            Happens::WakeNode(index) => {
                let node = &mut self.nodes[index];
                if node.wake_at == Some(self.now) {
                    node.wake_at = None;
                    if !node.stopped {
                        node.receiver.handle_timeout(now);
                        self.drain_node(index);
                    }
                }
            }
            Happens::WakeMaster => {
                if self.wake_at == Some(self.now) {
                    self.wake_at = None;
                    self.sender.handle_timeout(now);
                    self.settle();
                }
            }
            Happens::Message => {
                self.loaded = self.load.is_some();
                if let Some(load) = self.load.filter(|load| self.now < load.until) {
                    if self.sender.room() > 0 {
                        self.send(load.bytes);
                        self.settle();
                    }
                    self.at(self.now + load.every, Happens::Message);
                }
            }
        }
    }

    /// Drains the sender.
    pub(super) fn settle(&mut self) {
        while let Some(datagram) = self.sender.poll_datagram() {
            match datagram.to {
                GroupTarget::Group => {
                    for index in 0..self.nodes.len() {
                        self.carry_to_node(index, &datagram.bytes);
                    }
                }
                GroupTarget::Node(to) => {
                    self.carry_to_node(usize::from(to.port()) - 10_000, &datagram.bytes);
                }
            }
            if let Some(tap) = &mut self.tap {
                tap.push(datagram);
            }
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                GroupSenderEvent::NewKey(key) => {
                    self.new_key = Some(key.clone());
                    for index in 0..self.nodes.len() {
                        if self.nodes[index].stopped || !self.answer_keys {
                            continue;
                        }
                        let node = &mut self.nodes[index];
                        node.receiver.handle_key(key.clone());
                        let id = node.id;
                        self.sender.handle_key_held(Timestamp(self.now), id, key.id);
                    }
                }
                GroupSenderEvent::Lagging(node) => self.lagging.push(node),
                GroupSenderEvent::Unrotated(node) => self.unrotated.push(node),
            }
        }
        let wake = self.sender.poll_timeout().map(|at| at.0.max(self.now + 1));
        if let Some(at) = wake
            && self.wake_at.is_none_or(|set| at < set || set <= self.now)
        {
            self.wake_at = Some(at);
            self.at(at, Happens::WakeMaster);
        }
    }

    fn carry_to_node(&mut self, index: usize, bytes: &[u8]) {
        if let Some(lose) = &mut self.lose
            && lose(self.now, index, bytes)
        {
            return;
        }
        let copies =
            1 + u64::from(self.network.twice > 0.0 && self.draw.unit() < self.network.twice);
        for _ in 0..copies {
            if self.network.loss > 0.0 && self.draw.unit() < self.network.loss {
                continue;
            }
            let mut at = self.now + self.transit();
            if let Some((rate, queue_max)) = self.network.drain {
                let node = &mut self.nodes[index];
                while node.queue.front().is_some_and(|left| *left <= at) {
                    node.queue.pop_front();
                }
                if node.queue.len() >= queue_max {
                    continue;
                }
                let takes = u64::try_from(bytes.len()).unwrap() * S / rate;
                node.busy_until = node.busy_until.max(at) + takes;
                at = node.busy_until;
                node.queue.push_back(at);
            }
            self.at(at, Happens::ToNode(index, bytes.to_vec()));
        }
    }

    fn transit(&mut self) -> u64 {
        let latency = u64::try_from(self.network.latency.as_nanos()).unwrap();
        if self.network.jitter.is_zero() {
            return latency;
        }
        let jitter = self.network.jitter.mul_f64(self.draw.unit());
        latency + u64::try_from(jitter.as_nanos()).unwrap()
    }

    pub(super) fn drain_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let mut out = Vec::new();
        while let Some(bytes) = node.receiver.poll_datagram() {
            out.push(bytes);
        }
        while let Some(message) = node.polled.then(|| node.receiver.poll_message()).flatten() {
            if let Message::Frame(frame) = message {
                let level = frame.header.to.0 / CHANGES;
                node.levels.push(level);
                let sent = usize::try_from(level - 1).unwrap();
                if let Some(sent) = self.sent.get(sent) {
                    node.delays.push(self.now - sent);
                }
            }
        }
        while let Some(event) = node.receiver.poll_event() {
            node.events.push(event);
        }
        if let Some(at) = node.receiver.poll_timeout() {
            let at = at.0.max(self.now + 1);
            if node.wake_at.is_none_or(|set| at < set || set <= self.now) {
                node.wake_at = Some(at);
                self.at(at, Happens::WakeNode(index));
            }
        }
        for bytes in out {
            if self.network.loss > 0.0 && self.draw.unit() < self.network.loss {
                continue;
            }
            let at = self.now + self.transit();
            self.at(at, Happens::ToMaster(index, bytes));
        }
    }

    /// Fails unless every node has exactly the levels from `first` to the last, in order.
    pub(super) fn all_in_order(&self, first: u64) {
        let last = u64::try_from(self.sent.len()).unwrap();
        for node in &self.nodes {
            assert!(
                node.levels.iter().copied().eq(first..=last),
                "node {}: {} levels, the last {:?} of {last}",
                node.id,
                node.levels.len(),
                node.levels.last()
            );
        }
    }

    /// Returns the delay below which `share` of all deliveries stay, in microseconds.
    pub(super) fn delay_us(&self, share: f64) -> u64 {
        let mut all: Vec<u64> = self.nodes.iter().flat_map(|n| n.delays.clone()).collect();
        all.sort_unstable();
        let len = f64::from(u32::try_from(all.len()).unwrap());
        let index = (0..all.len()).rfind(|i| f64::from(u32::try_from(*i).unwrap()) <= len * share);
        index.map_or(0, |index| all[index]) / 1000
    }
}
