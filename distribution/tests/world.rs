//! Masters, nodes and the links between them on one virtual clock; it decides nothing itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{
    Arrived, Medium, Peer, Receiver, ReceiverConfig, Sender, SenderConfig, SenderEvent,
    WINDOW_BYTES,
};
use locus_proto::{
    BootId, Epoch, EpochId, Level, MasterTime, NodeId, Position, Root, Timestamp, Transport,
};

use crate::audits::Observer;
use crate::machines::{Master, Node, Random};
use crate::model::{Log, Op};
use crate::table::Table;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) master: usize,
    pub(crate) node: usize,
    pub(crate) master_open: bool,
    pub(crate) node_open: bool,
    /// Nothing is taken towards the node: its messages stay here, and no credit is given for them.
    pub(crate) held: Option<VecDeque<Arc<[u8]>>>,
    /// So many messages are taken before it is held.
    pub(crate) takes: Option<usize>,
    /// Last delivery in each direction: a connection keeps the order.
    pub(crate) last: [Timestamp; 2],
}

#[derive(Debug)]
pub(crate) enum Event {
    Connected {
        link: usize,
    },
    DialFailed {
        node: usize,
        boot: u64,
    },
    ToNode {
        link: usize,
        bytes: Arc<[u8]>,
    },
    ToMaster {
        link: usize,
        bytes: Vec<u8>,
    },
    Datagram {
        node: usize,
        boot: u64,
        bytes: Arc<[u8]>,
    },
    Reply {
        master: usize,
        life: u64,
        node: usize,
        bytes: Vec<u8>,
    },
    ClosedToNode {
        link: usize,
    },
    ClosedToMaster {
        link: usize,
    },
    Read {
        master: usize,
        life: u64,
        read: SenderEvent,
    },
    Scrubbed {
        node: usize,
        boot: u64,
    },
}

/// What a link does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Loses the next frame, as no TCP connection would.
    DropFrame,
    /// Gives the next frame another `root_before`.
    TamperFrame,
    /// Gives the next heartbeat another root.
    TamperHeartbeat,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) masters: Vec<Master>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) random: Random,
    /// Longest delay of a message and of a read, in milliseconds; zero in transcripts.
    pub(crate) delay_ms_max: u64,
    pub(crate) mischief: BTreeMap<usize, VecDeque<Mischief>>,
    /// What happened, as sentences; kept only if wanted.
    pub(crate) trace: Option<Vec<String>>,
    /// The content of every point of every log that ever was.
    pub(crate) history: HashMap<(Epoch, Level), Root>,
    /// Some master's memory has failed: what it says of its content may not be so.
    pub(crate) masters_failed: bool,
    pub(crate) observer: Observer,
    /// Totals of senders and receivers that are gone, by name.
    pub(crate) seen: BTreeMap<String, u64>,
    /// Of a hundred datagrams so many are lost on their way to each node, and back.
    pub(crate) loss_percent: usize,
    pub(crate) links: Vec<Link>,
    events: BTreeMap<(Timestamp, u64), Event>,
    events_total: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Timestamp(0),
            masters: Vec::new(),
            nodes: Vec::new(),
            random: Random(seed),
            delay_ms_max: 0,
            mischief: BTreeMap::new(),
            trace: None,
            history: HashMap::new(),
            masters_failed: false,
            observer: Observer::default(),
            seen: BTreeMap::new(),
            loss_percent: 0,
            links: Vec::new(),
            events: BTreeMap::new(),
            events_total: 0,
        }
    }

    pub(crate) fn add_master(&mut self, name: &str, log: Log) -> usize {
        self.masters.push(Master {
            name: name.into(),
            log,
            sender: None,
            time: MasterTime(1_000_000),
            clock_runs: true,
            reload_above: None,
            window_bytes: WINDOW_BYTES,
            transport: Transport::Auto,
            group: false,
            part_records: 3,
            during_snapshot: VecDeque::new(),
            time_at: self.now,
            parts_read: 0,
            cursors: HashMap::new(),
            reads: 0,
            life: 0,
        });
        self.masters.len() - 1
    }

    pub(crate) fn add_node(&mut self, name: &str, dials: usize) -> usize {
        let id = u16::try_from(self.nodes.len() + 1).unwrap();
        self.nodes.push(Node {
            name: name.into(),
            id: NodeId(id),
            receiver: None,
            table: None,
            cluster: "lab".into(),
            dials,
            load_fails: None,
            takes: None,
            loading: None,
            transport: Transport::Auto,
            identity: None,
            newest: None,
            joined: None,
            cannot_join: false,
            deaf: false,
            stopped: false,
            group_frames: 0,
            link: None,
            boot: 0,
            faulted: false,
        });
        self.nodes.len() - 1
    }

    /// Starts the service: always a new epoch.
    pub(crate) fn start_master(&mut self, master: usize) {
        let id = self.epoch_id();
        self.start_master_as(master, id);
    }

    pub(crate) fn epoch_id(&mut self) -> EpochId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.random.next().to_le_bytes());
        EpochId(id)
    }

    pub(crate) fn start_master_as(&mut self, master: usize, id: EpochId) {
        let now = self.now;
        let group = self.masters[master].group.then(|| self.group_setup(master));
        let m = &mut self.masters[master];
        m.time_at = now; // its clock stood still meanwhile
        m.life += 1;
        m.cursors.clear();
        m.log.reread();
        m.log.open_epoch(id, m.time);
        let config = SenderConfig {
            cluster: "lab".parse().unwrap(),
            table_key: [7; 16],
            reload_above: m.reload_above,
            window_bytes: m.window_bytes,
            transport: m.transport,
            group,
        };
        let lineage = m.log.lineage.clone();
        m.sender = Some(Sender::new(now, config, lineage, m.log.head(), m.time));
        self.remember(master);
    }

    /// Begins a new epoch while the service runs: a take-over in place.
    pub(crate) fn begin_epoch(&mut self, master: usize, id: EpochId) {
        self.advance_clock(master);
        let now = self.now;
        let m = &mut self.masters[master];
        m.log.open_epoch(id, m.time);
        if let Some(sender) = &mut m.sender {
            sender.handle_epoch(now, m.log.lineage.clone(), m.log.head(), m.time);
        }
        self.remember(master);
        self.drive_master(master);
    }

    pub(crate) fn stop_master(&mut self, master: usize) {
        self.advance_clock(master);
        self.bury_sender(master);
        self.observer.forget(master);
        for link in 0..self.links.len() {
            if self.links[link].master == master && self.links[link].master_open {
                self.links[link].master_open = false;
                self.post(link, 0, Event::ClosedToNode { link });
            }
        }
    }

    pub(crate) fn commit(&mut self, master: usize, ops: &[Op]) {
        self.advance_clock(master);
        let now = self.now;
        let m = &mut self.masters[master];
        m.log.commit(ops, m.time);
        if let Some(sender) = &mut m.sender {
            sender.handle_committed(now, m.log.head(), m.time);
        }
        self.remember(master);
        self.drive_master(master);
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let now = self.now;
        let n = &mut self.nodes[node];
        n.boot += 1;
        let config = ReceiverConfig {
            cluster: n.cluster.parse().unwrap(),
            node: n.id,
            name: n.name.parse().unwrap(),
            boot: BootId(n.boot),
            sip: String::new(),
            transport: n.transport,
        };
        n.group_frames = 0;
        let standing = n.table.as_ref().map(Table::standing);
        n.receiver = Some(Receiver::new(now, config, standing, None));
    }

    /// Kills the agent; with `silently`, the master is not told, as when the machine loses its power.
    pub(crate) fn kill_node(&mut self, node: usize, silently: bool) {
        self.bury_receiver(node);
        let n = &mut self.nodes[node];
        n.loading = None;
        n.joined = None;
        n.stopped = false;
        if let Some(link) = n.link.take() {
            self.links[link].node_open = false;
            if !silently {
                self.post(link, 1, Event::ClosedToMaster { link });
            }
        }
    }

    /// The operator asks that a node loads its table anew.
    pub(crate) fn ask_reload(&mut self, master: usize, node: NodeId) -> bool {
        let now = self.now;
        let sender = self.masters[master].sender.as_mut();
        let known = sender.is_some_and(|sender| sender.handle_reload_asked(now, node));
        self.drive_master(master);
        known
    }

    /// Runs until `later` has passed.
    pub(crate) fn advance(&mut self, later: Duration) {
        let end = self.now.plus(later);
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timeout = self.next_timeout();
            let Some(next) = event.into_iter().chain(timeout).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().unwrap();
                self.handle(event);
            } else {
                self.handle_timeouts();
            }
        }
        self.now = end;
        for master in 0..self.masters.len() {
            self.advance_clock(master);
        }
    }

    pub(crate) fn say(&mut self, sentence: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let sentence = sentence(self);
            self.trace.iter_mut().for_each(|t| t.push(sentence.clone()));
        }
    }

    /// Puts off what comes to a node that stands still; datagrams are lost there.
    fn waits_for_node(&mut self, event: Event) -> Option<Event> {
        let (node, link) = match &event {
            Event::Connected { link }
            | Event::ToNode { link, .. }
            | Event::ClosedToNode { link } => (self.links[*link].node, Some(*link)),
            Event::DialFailed { node, .. } | Event::Scrubbed { node, .. } => (*node, None),
            Event::Datagram { .. }
            | Event::Reply { .. }
            | Event::ToMaster { .. }
            | Event::ClosedToMaster { .. }
            | Event::Read { .. } => return Some(event),
        };
        if !self.nodes[node].stopped {
            return Some(event);
        }
        let at = self.now.plus(Duration::from_millis(50));
        if let Some(link) = link {
            let last = &mut self.links[link].last[0];
            *last = at.max(*last);
        }
        self.post_at(at, event);
        None
    }

    /// Returns the counter of the newest epoch that any node may have followed.
    pub(crate) fn newest_epoch(&self) -> u64 {
        let counters = self.history.keys().map(|(epoch, _)| epoch.counter);
        counters.max().unwrap()
    }

    /// Returns how often each thing was counted, by senders and receivers alive and gone.
    pub(crate) fn seen(&mut self) -> BTreeMap<String, u64> {
        for master in 0..self.masters.len() {
            self.bury_sender(master);
        }
        for node in 0..self.nodes.len() {
            self.bury_receiver(node);
        }
        std::mem::take(&mut self.seen)
    }

    pub(crate) fn bury_sender(&mut self, master: usize) {
        if let Some(sender) = self.masters[master].sender.take() {
            self.see("sender", &serde_json::to_value(sender.counters()).unwrap());
        }
    }

    pub(crate) fn bury_receiver(&mut self, node: usize) {
        if let Some(receiver) = self.nodes[node].receiver.take() {
            self.see(
                "receiver",
                &serde_json::to_value(receiver.counters()).unwrap(),
            );
        }
    }

    pub(crate) fn see(&mut self, whose: &str, counters: &serde_json::Value) {
        for (name, total) in counters.as_object().unwrap() {
            let name = format!("{whose}.{name}");
            match total.as_u64() {
                Some(total) => *self.seen.entry(name).or_default() += total,
                None => self.see(&name, total),
            }
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let masters = self.masters.iter().filter_map(|m| m.sender.as_ref());
        let runs = self.nodes.iter().filter(|n| !n.stopped);
        let nodes = runs.filter_map(|n| n.receiver.as_ref());
        let masters = masters.filter_map(Sender::poll_timeout);
        masters
            .chain(nodes.filter_map(Receiver::poll_timeout))
            .min()
    }

    pub(crate) fn handle_timeouts(&mut self) {
        let now = self.now;
        for master in 0..self.masters.len() {
            self.advance_clock(master);
            let m = &mut self.masters[master];
            if let Some(sender) = &mut m.sender
                && sender.poll_timeout().is_some_and(|at| at <= now)
            {
                sender.handle_timeout(now, m.time);
                self.drive_master(master);
            }
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].stopped
                && let Some(receiver) = &mut self.nodes[node].receiver
                && receiver.poll_timeout().is_some_and(|at| at <= now)
            {
                receiver.handle_timeout(now);
                self.drive_node(node);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let Some(event) = self.waits_for_node(event) else {
            return;
        };
        let now = self.now;
        match event {
            Event::Connected { link } => {
                let Link { master, node, .. } = self.links[link];
                if !self.links[link].node_open || self.nodes[node].link != Some(link) {
                    return;
                }
                let arrived = Arrived {
                    address: self.nodes[node].name.clone(),
                    medium: Medium::Tcp,
                    identity: self.nodes[node].identity.clone(),
                };
                if let Some(sender) = &mut self.masters[master].sender {
                    self.links[link].master_open = true;
                    sender.handle_connected(now, peer(link), arrived);
                }
                if let Some(receiver) = &mut self.nodes[node].receiver {
                    receiver.handle_connected(now);
                }
                self.drive_master(master);
                self.drive_node(node);
                if !self.links[link].master_open {
                    self.close_at_node(link);
                }
            }
            Event::DialFailed { node, boot } => {
                if self.nodes[node].boot == boot
                    && let Some(receiver) = &mut self.nodes[node].receiver
                {
                    receiver.handle_closed(now);
                    self.drive_node(node);
                }
            }
            Event::ToNode { link, bytes } => self.deliver_to_node(link, &bytes),
            Event::ToMaster { link, bytes } => self.deliver_to_master(link, &bytes),
            Event::Datagram { node, boot, bytes } => self.deliver_datagram(node, boot, &bytes),
            Event::Reply {
                master,
                life,
                node,
                bytes,
            } => self.deliver_reply(master, life, node, bytes),
            Event::ClosedToNode { link } => self.close_at_node(link),
            Event::ClosedToMaster { link } => self.close_at_master(link),
            Event::Read { master, life, read } if self.masters[master].life == life => {
                self.read(master, read);
            }
            Event::Read { .. } => {} // of a process that is gone
            Event::Scrubbed { node, boot } => self.scrubbed(node, boot),
        }
    }

    /// Posts an event on a link, behind all that travels in its direction.
    pub(crate) fn post(&mut self, link: usize, direction: usize, event: Event) {
        let at = self.later().max(self.links[link].last[direction]);
        self.links[link].last[direction] = at;
        self.post_at(at, event);
    }

    pub(crate) fn post_at(&mut self, at: Timestamp, event: Event) {
        self.events_total += 1;
        self.events.insert((at, self.events_total), event);
    }

    pub(crate) fn later(&mut self) -> Timestamp {
        let delay = match self.delay_ms_max {
            0 => 0,
            max => self.random.next() % max,
        };
        self.now.plus(Duration::from_millis(delay))
    }

    pub(crate) fn advance_clock(&mut self, master: usize) {
        let now = self.now;
        let m = &mut self.masters[master];
        if m.sender.is_some() && m.clock_runs {
            let ms = now.since(m.time_at).as_millis();
            m.time = m.time.plus_ms(u64::try_from(ms).unwrap());
            m.time_at = m
                .time_at
                .plus(Duration::from_millis(u64::try_from(ms).unwrap()));
        } else {
            m.time_at = now;
        }
    }

    /// Enters a point of a log: there are never two contents at one epoch and level.
    pub(crate) fn remember(&mut self, master: usize) {
        let Position { epoch, level, root } = self.masters[master].log.head();
        let known = *self.history.entry((epoch, level)).or_insert(root);
        assert_eq!(
            known, root,
            "two contents at level {level} of epoch {epoch}"
        );
    }
}

pub(crate) fn peer(link: usize) -> Peer {
    Peer(u64::try_from(link + 1).unwrap()) // 0 is the group
}

pub(crate) fn link_of(peer: Peer) -> usize {
    usize::try_from(peer.0 - 1).unwrap()
}
