//! Masters, nodes and the network between them on one virtual clock; it decides nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::SenderEvent;
use locus_proto::v1::{GroupKey, GroupOffer};
use locus_proto::{
    AddressOfRecord, Epoch, EpochId, Key, Level, MasterTime, Message, NodeId, NodeState, Position,
    Root, Timestamp, Transport,
};

use crate::log::{Log, Op};
use crate::network::{Network, Port};
use crate::parts::{Connection, GroupPlan, Happening, Load, Master, Node};
use crate::queue::Queue;
use crate::random::Random;
use crate::statistics::Durations;
use crate::table::Table;

/// The group's address.
pub(crate) const GROUP_ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 192, 0, 1)), 5_005);
/// Events at one instant of virtual time after which somebody turns in circles.
const INSTANT_EVENTS_MAX: u32 = 2_000_000;

/// What will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A datagram to the group has passed the uplink.
    Group(Arc<[u8]>),
    /// A datagram comes to a node's port.
    Datagram(usize, Arc<[u8]>),
    /// A node takes from its port.
    Wake(usize),
    /// A datagram comes to the reply port of whatever master has this address.
    Reply(usize, SocketAddr, Vec<u8>),
    NodeTimer(usize),
    MasterTimer(usize),
    /// Something comes to an end of a connection: 0 the node's, 1 the master's.
    Arrives(usize, usize, crate::parts::Item),
    /// The uplink is free for the next connection.
    Uplink(usize),
    Connected(usize),
    DialFailed(usize, u64),
    Read(usize, u64, Box<SenderEvent>),
    Commit(usize, u64),
}

/// The whole cluster.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) network: Network,
    pub(crate) masters: Vec<Master>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) random: Random,
    pub(crate) queue: Queue<Event>,
    pub(crate) connections: Vec<Connection>,
    /// Content and time of commit of every point of every log that ever was.
    pub(crate) history: HashMap<(Epoch, Level), (Root, Timestamp)>,
    /// Commit to visible, by class of node.
    pub(crate) latency: Vec<Durations>,
    pub(crate) happenings: Vec<(Timestamp, usize, Happening)>,
    /// Totals of senders and receivers that are gone, by name.
    pub(crate) totals: BTreeMap<String, u64>,
    /// Group datagrams and replies as they were sent; kept only if wanted.
    pub(crate) captured: Option<Vec<Arc<[u8]>>>,
    /// A node whose secrets an attacker reads, and what he has read.
    pub(crate) spy: Option<usize>,
    pub(crate) stolen_offer: Option<GroupOffer>,
    pub(crate) stolen_keys: Vec<GroupKey>,
    /// Everything that was applied, when and by whom, as one number.
    pub(crate) digest: u64,
    /// Messages that a sender or a receiver refused.
    pub(crate) refused_total: u64,
    /// Masters that a node has refused.
    pub(crate) masters_refused_total: u64,
    same_instant: u32,
}

impl World {
    pub(crate) fn new(seed: u64, network: Network) -> Self {
        Self {
            now: Timestamp(0),
            network,
            masters: Vec::new(),
            nodes: Vec::new(),
            random: Random::new(seed),
            queue: Queue::new(),
            connections: Vec::new(),
            history: HashMap::new(),
            latency: vec![Durations::default(); 2],
            happenings: Vec::new(),
            totals: BTreeMap::new(),
            captured: None,
            spy: None,
            stolen_offer: None,
            stolen_keys: Vec::new(),
            digest: 0,
            refused_total: 0,
            masters_refused_total: 0,
            same_instant: 0,
        }
    }

    /// Returns a running cluster: one master, and so many nodes that have yet to connect.
    pub(crate) fn cluster(seed: u64, network: Network, nodes: usize) -> Self {
        let mut world = Self::new(seed, network);
        let master = world.add_master("a", Log::default());
        world.start_master(master);
        for _ in 0..nodes {
            let node = world.add_node(vec![master]);
            world.start_node(node);
        }
        world
    }

    pub(crate) fn add_master(&mut self, name: &'static str, log: Log) -> usize {
        self.masters.push(Master {
            name,
            log,
            sender: None,
            group: GroupPlan::default(),
            transport: Transport::Multicast,
            reload_above: None,
            window_bytes: locus_distribution::WINDOW_BYTES,
            load: None,
            load_number: 0,
            time_base: MasterTime(1_000_000),
            ahead: Duration::ZERO,
            life: 0,
            stream: 0,
            cursors: HashMap::new(),
            parts_read: 0,
            boats: 0,
            boats_max: 0,
            uplink_free: self.now,
            turn: std::collections::VecDeque::new(),
            sending: false,
            armed: None,
            nacks_heard: 0,
            during_snapshot: std::collections::VecDeque::new(),
        });
        self.masters.len() - 1
    }

    pub(crate) fn add_node(&mut self, dials: Vec<usize>) -> usize {
        let id = u16::try_from(self.nodes.len() + 1).unwrap();
        self.nodes.push(Node {
            id: NodeId(id),
            receiver: None,
            table: None,
            loading: None,
            transport: Transport::Auto,
            dials,
            dialled: 0,
            connection: None,
            boot: 0,
            loads_total: 0,
            stopped: false,
            stalled: false,
            ahead: Duration::ZERO,
            armed: None,
            joined: None,
            reply_to: 0,
            port: Port::new(),
            class: 0,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn epoch_id(&mut self) -> EpochId {
        let mut id = [0; 16];
        self.random.fill(&mut id);
        EpochId(id)
    }

    /// Runs until `later` has passed.
    pub(crate) fn advance(&mut self, later: Duration) {
        let end = self.now.plus(later);
        while let Some((at, event)) = self.queue.pop(end) {
            self.same_instant = match at > self.now {
                true => 0,
                false => self.same_instant + 1,
            };
            assert!(
                self.same_instant < INSTANT_EVENTS_MAX,
                "time stands still at {event:?}"
            );
            self.now = self.now.max(at);
            self.handle(event);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Group(bytes) => self.deliver_group(&bytes),
            Event::Datagram(node, bytes) => self.enqueue(node, bytes),
            Event::Wake(node) => self.wake(node),
            Event::Reply(master, from, bytes) => self.deliver_reply(master, from, bytes),
            Event::NodeTimer(node) => self.node_timer(node),
            Event::MasterTimer(master) => self.master_timer(master),
            Event::Arrives(connection, end, item) => self.arrive(connection, end, item),
            Event::Uplink(master) => self.send_next(master),
            Event::Connected(connection) => self.connected(connection),
            Event::DialFailed(node, boot) => self.dial_failed(node, boot),
            Event::Read(master, life, read) if self.masters[master].life == life => {
                self.read(master, *read);
            }
            Event::Read(..) => {} // of a process that is gone
            Event::Commit(master, number) => self.commit_load(master, number),
        }
    }

    /// Lets commits come by themselves, or no more.
    pub(crate) fn set_load(&mut self, master: usize, load: Option<Load>) {
        let m = &mut self.masters[master];
        m.load = load;
        m.load_number += 1;
        if load.is_some() {
            let number = m.load_number;
            self.queue.post(self.now, Event::Commit(master, number));
        }
    }

    fn commit_load(&mut self, master: usize, number: u64) {
        let m = &self.masters[master];
        let Some(load) = m.load.filter(|_| m.load_number == number) else {
            return;
        };
        if m.sender.is_some() {
            let ops = self.random_ops(load);
            self.commit(master, ops);
        }
        let next = load.every / 2 + self.random.time(load.every);
        let at = self.now.plus(next);
        self.queue.post(at, Event::Commit(master, number));
    }

    fn random_ops(&mut self, load: Load) -> Vec<Op> {
        let first = self.random.below(load.keys);
        let op = |n: usize| {
            let mut value = vec![0; load.value_bytes];
            let filled = value.len().min(32); // the rest compresses well, and nobody minds
            self.random.fill(&mut value[..filled]);
            (key((first + n) % load.keys), Some(value))
        };
        (0..load.records.min(load.keys)).map(op).collect()
    }

    pub(crate) fn commit(&mut self, master: usize, ops: Vec<Op>) {
        let time = self.master_time(master);
        let now = self.master_now(master);
        let m = &mut self.masters[master];
        m.log.commit(ops, time);
        if let Some(sender) = &mut m.sender {
            sender.handle_committed(now, m.log.head(), time);
        }
        self.remember(master);
        self.drive_master(master);
    }

    /// Enters a point of a log: there are never two contents at one epoch and level.
    pub(crate) fn remember(&mut self, master: usize) {
        let Position { epoch, level, root } = self.masters[master].log.head();
        let now = self.now;
        let (known, _) = *self.history.entry((epoch, level)).or_insert((root, now));
        assert_eq!(
            known, root,
            "two contents at level {level} of epoch {epoch}"
        );
    }

    /// The node's table is the log's prefix at its epoch and level, by what it really holds.
    pub(crate) fn check(&mut self, node: usize) {
        let n = &self.nodes[node];
        let Some(table) = &n.table else {
            return;
        };
        let Position { epoch, level, root } = table.position;
        let Some((known, committed)) = self.history.get(&(epoch, level)) else {
            panic!(
                "node {} is at level {level} of {epoch}, where no log ever was",
                n.id
            );
        };
        assert_eq!(
            *known, root,
            "node {} is no prefix at level {level} of {epoch}",
            n.id
        );
        self.latency[n.class].add(self.now.since(*committed));
        let seen = self.now.0 ^ level.0.rotate_left(20) ^ u64::from(n.id.0).rotate_left(50);
        self.digest = (self.digest ^ seen)
            .wrapping_mul(0x9fb2_1c65_1e98_df25)
            .rotate_left(29);
    }

    /// Returns whether every running node stands where this master does, holds the same and says so.
    pub(crate) fn agrees(&self, master: usize) -> bool {
        (0..self.nodes.len()).all(|node| self.node_agrees(node, master))
    }

    pub(crate) fn node_agrees(&self, node: usize, master: usize) -> bool {
        let head = self.masters[master].log.head();
        let n = &self.nodes[node];
        let Some(receiver) = n.receiver.as_ref().filter(|_| !n.stopped) else {
            return true;
        };
        receiver.state() == NodeState::Coherent
            && n.table.as_ref().is_some_and(|t| t.position == head)
    }

    /// Runs until all nodes agree with the master, at most so long; returns how long it took.
    pub(crate) fn settle(&mut self, master: usize, most: Duration) -> Duration {
        let from = self.now;
        let step = Duration::from_millis(5).max(most / 4_000);
        while !self.agrees(master) {
            let waited = self.now.since(from);
            assert!(waited < most, "{}", self.disagreement(master));
            self.advance(step);
        }
        self.check_all(master);
        self.now.since(from)
    }

    /// As [`Self::settle`], while commits go on: each node is coherent and no more than a second behind.
    pub(crate) fn settle_under_load(&mut self, master: usize, most: Duration) {
        let from = self.now;
        let near = |world: &Self, node: &Node| {
            let at = node
                .table
                .as_ref()
                .map(|t| (t.position.epoch, t.position.level));
            let committed = at.and_then(|at| world.history.get(&at));
            let epoch = world.masters[master].log.head().epoch;
            at.is_some_and(|(of, _)| of == epoch)
                && committed.is_some_and(|(_, at)| world.now.since(*at) < Duration::from_secs(1))
                && node
                    .receiver
                    .as_ref()
                    .is_some_and(|r| r.state() == NodeState::Coherent)
        };
        while !self.nodes.iter().all(|node| near(self, node)) {
            let waited = self.now.since(from);
            assert!(waited < most, "{}", self.disagreement(master));
            self.advance(Duration::from_millis(10));
        }
    }

    /// Sends a datagram to the group that no master has sent.
    pub(crate) fn inject(&mut self, bytes: Arc<[u8]>) {
        self.queue.post(self.now, Event::Group(bytes));
    }

    /// Each node's records, added up anew, are what its position says, and as many as the master's.
    pub(crate) fn check_all(&self, master: usize) {
        let log = &self.masters[master].log;
        for n in &self.nodes {
            if let Some(table) = &n.table {
                assert_eq!(table.found(), table.position.root, "node {}", n.id);
                if table.position == log.head() {
                    let records = table.standing().records;
                    assert_eq!(records, u64::try_from(log.records()).unwrap());
                }
            }
        }
    }

    pub(crate) fn disagreement(&self, master: usize) -> String {
        let head = self.masters[master].log.head();
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.node_agrees(*node, master))
            .collect();
        let mut text = format!(
            "after {:.3} s the master {} is at {head}, and {} of {} nodes are not",
            self.now.since(Timestamp(0)).as_secs_f64(),
            self.masters[master].name,
            others.len(),
            self.nodes.len(),
        );
        for node in others.into_iter().take(3) {
            let n = &self.nodes[node];
            let receiver = n.receiver.as_ref().unwrap();
            let at = receiver.position();
            let state = receiver.state();
            let happened = self.happenings.iter().filter(|(_, of, _)| *of == node);
            let happened: Vec<_> = happened.rev().take(5).collect();
            let counters = receiver.counters();
            text += &format!(
                "\nnode {} at {at:?}, {state}, connection {:?}, joined {:?}, latest first {happened:?}, {counters:?}",
                n.id, n.connection, n.joined
            );
        }
        if let Some(sender) = &self.masters[master].sender {
            text += &format!("\nthe master: {:?}", sender.counters());
        }
        text
    }

    /// Returns how many nodes the master serves this way.
    pub(crate) fn on_path(&self, master: usize, path: locus_distribution::Path) -> usize {
        let roster = self.masters[master].sender.as_ref().map(|s| s.roster());
        let entries = roster.into_iter().flatten();
        entries.filter(|e| e.connected && e.path == path).count()
    }

    /// Runs until all running nodes are in the group, at most so long; returns how long it took.
    pub(crate) fn gather(&mut self, master: usize, most: Duration) -> Duration {
        let from = self.now;
        let running = self
            .nodes
            .iter()
            .filter(|n| n.receiver.is_some() && !n.stopped)
            .count();
        loop {
            let members = self.on_path(master, locus_distribution::Path::Multicast);
            if members >= running {
                return self.now.since(from);
            }
            let waited = self.now.since(from);
            assert!(
                waited < most,
                "{members} of {running} nodes are in the group; {}",
                self.disagreement(master)
            );
            self.advance(Duration::from_millis(20));
        }
    }
}

/// Returns the key of the n-th record.
pub(crate) fn key(n: usize) -> Key {
    Key::aor(&AddressOfRecord::parse(&format!("u{n}@sim")).unwrap())
}

/// Returns the table of a node that has applied all of `log`.
pub(crate) fn table_of(log: &Log) -> Table {
    let mut table = Table::default();
    for frame in log.frames_after(log.origin(), usize::MAX) {
        let Message::Frame(frame) = Message::from_bytes(&frame.message).unwrap() else {
            unreachable!("only frames are logged");
        };
        table.load(&frame.changes);
        table.position = frame.header.after();
    }
    table
}
