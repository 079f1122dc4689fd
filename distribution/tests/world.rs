//! Masters, nodes and the links between them on one virtual clock; it decides nothing itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{
    Peer, Receiver, ReceiverConfig, ReceiverEvent, Sender, SenderConfig, SenderEvent, WINDOW_BYTES,
};
use locus_proto::{
    BootId, Epoch, EpochId, Level, MasterTime, Message, NodeId, Position, Root, Timestamp,
    v1::SnapshotEnd,
};

use crate::audits::Observer;
use crate::machines::{Master, Node, Random};
use crate::model::{Log, Op};
use crate::table::Table;
use crate::words;

#[derive(Debug)]
struct Link {
    master: usize,
    node: usize,
    master_open: bool,
    node_open: bool,
    /// Nothing is taken towards the node: its messages stay here, and no credit is given for them.
    held: Option<VecDeque<Arc<[u8]>>>,
    /// So many messages are taken before it is held.
    takes: Option<usize>,
    /// Last delivery in each direction: a connection keeps the order.
    last: [Timestamp; 2],
}

#[derive(Debug)]
enum Event {
    Connected { link: usize },
    DialFailed { node: usize, boot: u64 },
    ToNode { link: usize, bytes: Arc<[u8]> },
    ToMaster { link: usize, message: Message },
    ClosedToNode { link: usize },
    ClosedToMaster { link: usize },
    Read { master: usize, read: SenderEvent },
    Scrubbed { node: usize, boot: u64 },
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
    history: HashMap<(Epoch, Level), Root>,
    /// Some master's memory has failed: what it says of its content may not be so.
    pub(crate) masters_failed: bool,
    pub(crate) observer: Observer,
    /// Totals of senders and receivers that are gone, by name.
    pub(crate) seen: BTreeMap<String, u64>,
    links: Vec<Link>,
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
            part_records: 3,
            during_snapshot: VecDeque::new(),
            time_at: self.now,
            parts_read: 0,
            cursors: HashMap::new(),
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
        let m = &mut self.masters[master];
        m.time_at = now; // its clock stood still meanwhile
        m.log.reread();
        m.log.open_epoch(id, m.time);
        let config = SenderConfig {
            cluster: "lab".parse().unwrap(),
            table_key: [7; 16],
            reload_above: m.reload_above,
            window_bytes: m.window_bytes,
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
        };
        let standing = n.table.as_ref().map(Table::standing);
        n.receiver = Some(Receiver::new(now, config, standing, None));
    }

    /// Kills the agent; with `silently`, the master is not told, as when the machine loses its power.
    pub(crate) fn kill_node(&mut self, node: usize, silently: bool) {
        self.bury_receiver(node);
        let n = &mut self.nodes[node];
        n.loading = None;
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

    /// Cuts the node's connection; both ends learn of it.
    pub(crate) fn cut(&mut self, node: usize) {
        if let Some(link) = self.nodes[node].link {
            self.close_at_master(link);
            self.close_at_node(link);
        }
    }

    /// Lets the node's connection take nothing, or take all again.
    pub(crate) fn hold(&mut self, node: usize, held: bool) {
        let Some(link) = self.nodes[node].link else {
            return;
        };
        self.links[link].takes = None;
        let before = std::mem::replace(&mut self.links[link].held, held.then(VecDeque::new));
        for bytes in before.into_iter().flatten() {
            self.transmit(link, bytes);
        }
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

    fn bury_sender(&mut self, master: usize) {
        if let Some(sender) = self.masters[master].sender.take() {
            self.see("sender", &serde_json::to_value(sender.counters()).unwrap());
        }
    }

    fn bury_receiver(&mut self, node: usize) {
        if let Some(receiver) = self.nodes[node].receiver.take() {
            self.see(
                "receiver",
                &serde_json::to_value(receiver.counters()).unwrap(),
            );
        }
    }

    fn see(&mut self, whose: &str, counters: &serde_json::Value) {
        for (name, total) in counters.as_object().unwrap() {
            *self.seen.entry(format!("{whose}.{name}")).or_default() += total.as_u64().unwrap();
        }
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        let masters = self.masters.iter().filter_map(|m| m.sender.as_ref());
        let nodes = self.nodes.iter().filter_map(|n| n.receiver.as_ref());
        let masters = masters.filter_map(Sender::poll_timeout);
        masters
            .chain(nodes.filter_map(Receiver::poll_timeout))
            .min()
    }

    fn handle_timeouts(&mut self) {
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
            if let Some(receiver) = &mut self.nodes[node].receiver
                && receiver.poll_timeout().is_some_and(|at| at <= now)
            {
                receiver.handle_timeout(now);
                self.drive_node(node);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Connected { link } => {
                let Link { master, node, .. } = self.links[link];
                if !self.links[link].node_open || self.nodes[node].link != Some(link) {
                    return;
                }
                let address = self.nodes[node].name.clone();
                if let Some(sender) = &mut self.masters[master].sender {
                    self.links[link].master_open = true;
                    sender.handle_connected(now, peer(link), address);
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
            Event::ToMaster { link, message } => self.deliver_to_master(link, message),
            Event::ClosedToNode { link } => self.close_at_node(link),
            Event::ClosedToMaster { link } => self.close_at_master(link),
            Event::Read { master, read } => self.read(master, read),
            Event::Scrubbed { node, boot } => self.scrubbed(node, boot),
        }
    }

    fn deliver_to_node(&mut self, link: usize, bytes: &Arc<[u8]>) {
        let Link { master, node, .. } = self.links[link];
        let now = self.now;
        if let Some(sender) = &mut self.masters[master].sender
            && self.links[link].master_open
        {
            sender.handle_sent(now, peer(link), bytes.len());
            self.drive_master(master);
        }
        if !self.links[link].node_open {
            return;
        }
        let mut message = Message::from_bytes(bytes).unwrap();
        if !self.play(node, &mut message) {
            return;
        }
        if let Some(text) = words::message(&message) {
            let [from, to] = [&self.masters[master].name, &self.nodes[node].name];
            let line = format!("{from} → {to}: {text}");
            self.say(|_| line);
        }
        if let Some(receiver) = &mut self.nodes[node].receiver {
            if let Err(error) = receiver.handle_message(now, message) {
                self.say(|w| format!("{} refuses it: {error}", w.nodes[node].name));
            }
            self.drive_node(node);
            self.check_completeness(master, node);
        }
    }

    /// Whatever the master committed before `complete_until` is in the table (rules 2.2).
    fn check_completeness(&self, master: usize, node: usize) {
        let n = &self.nodes[node];
        let (Some(receiver), Some(table)) = (&n.receiver, &n.table) else {
            return;
        };
        let Position { epoch, level, .. } = table.position;
        let log = &self.masters[master].log;
        let until = receiver.pulse(self.now).complete_until;
        if receiver.welcomed() && epoch == log.head().epoch {
            assert!(
                log.level_before(until) <= level,
                "{} is not complete",
                n.name
            );
        }
    }

    fn deliver_to_master(&mut self, link: usize, message: Message) {
        let Link { master, node, .. } = self.links[link];
        let now = self.now;
        if !self.links[link].master_open {
            return;
        }
        if let Some(text) = words::message(&message) {
            let [from, to] = [&self.nodes[node].name, &self.masters[master].name];
            let line = format!("{from} → {to}: {text}");
            self.say(|_| line);
        }
        let id = self.nodes[node].id;
        self.observer.hear(master, id, &message, &self.history);
        let m = &mut self.masters[master];
        if let Some(sender) = &mut m.sender {
            if let Err(error) = sender.handle_message(now, peer(link), message, &m.log) {
                self.say(|w| format!("{} refuses it: {error}", w.masters[master].name));
            }
            self.drive_master(master);
        }
    }

    /// Does to a message what the test ordered; returns whether anything is left of it.
    fn play(&mut self, node: usize, message: &mut Message) -> bool {
        let Some(orders) = self.mischief.get_mut(&node) else {
            return true;
        };
        let other = Root([13, 13]);
        match (orders.front(), message) {
            (Some(Mischief::DropFrame), Message::Frame(_)) => {
                orders.pop_front();
                return false;
            }
            (Some(Mischief::TamperFrame), Message::Frame(frame)) => {
                frame.header.root_before = other;
                orders.pop_front();
            }
            (Some(Mischief::TamperHeartbeat), Message::Heartbeat(heartbeat)) => {
                heartbeat.head.root = other;
                orders.pop_front();
            }
            _ => {}
        }
        true
    }

    pub(crate) fn drive_master(&mut self, master: usize) {
        loop {
            let Some(sender) = &mut self.masters[master].sender else {
                return;
            };
            if let Some((Peer(link), bytes)) = sender.poll_transmit() {
                self.transmit(usize::try_from(link).unwrap(), bytes);
                continue;
            }
            let Some(event) = sender.poll_event() else {
                return;
            };
            if let Some(text) = words::event(&event) {
                self.say(|w| format!("{} {text}", w.masters[master].name));
            }
            match event {
                SenderEvent::ReadLog { peer: of, .. } | SenderEvent::ReadTable { peer: of, .. } => {
                    let link = usize::try_from(of.0).unwrap();
                    let read = Event::Read {
                        master,
                        read: event,
                    };
                    let at = self.later();
                    let at = at.max(self.links[link].last[0]);
                    self.post_at(at, read);
                }
                SenderEvent::Close { peer: of, .. } => {
                    let link = usize::try_from(of.0).unwrap();
                    self.links[link].master_open = false;
                    self.links[link].held = None;
                    self.post(link, 0, Event::ClosedToNode { link });
                }
                SenderEvent::ReadAudit { peer, scope } => self.read_audit(master, peer, scope),
                SenderEvent::Alarm(_) => self.observer.alarms += 1,
                SenderEvent::AuditReported { .. } => self.observer.reports += 1,
                SenderEvent::NodeUp { plan, .. } => {
                    *self.seen.entry(format!("plan.{plan:?}")).or_default() += 1;
                }
                SenderEvent::NodeDown { .. } => {}
            }
        }
    }

    fn transmit(&mut self, link: usize, bytes: Arc<[u8]>) {
        let l = &mut self.links[link];
        match &mut l.takes {
            Some(0) if l.held.is_none() => l.held = Some(VecDeque::new()),
            Some(0) | None => {}
            Some(more) => *more -= 1,
        }
        match &mut l.held {
            Some(held) => held.push_back(bytes),
            None => self.post(link, 0, Event::ToNode { link, bytes }),
        }
    }

    fn read(&mut self, master: usize, read: SenderEvent) {
        let now = self.now;
        let m = &mut self.masters[master];
        if m.sender.is_none() {
            return;
        }
        match read {
            SenderEvent::ReadLog {
                peer: of,
                after,
                bytes_max,
            } => {
                let frames = m.log.frames_after(after, bytes_max);
                if let Some(sender) = &mut m.sender {
                    sender.handle_frames(now, of, frames);
                }
            }
            SenderEvent::ReadTable { peer: of, first } => {
                if first {
                    m.cursors.remove(&of);
                }
                let cursor = m.cursors.remove(&of);
                let (part, next) = m.log.records_after(cursor.as_ref(), m.part_records);
                let head = m.log.head();
                let end = next.is_none().then_some(SnapshotEnd {
                    level: head.level,
                    root: head.root,
                });
                m.cursors.extend(next.map(|key| (of, key)));
                m.parts_read += 1;
                let parts_read = m.parts_read;
                if let Some(sender) = &mut m.sender {
                    sender.handle_records(now, of, part, end);
                }
                let due = |(after, _): &(usize, Vec<Op>)| *after == parts_read;
                while self.masters[master]
                    .during_snapshot
                    .front()
                    .is_some_and(due)
                {
                    let writes = self.masters[master].during_snapshot.pop_front();
                    self.say(|_| "(the master writes while it reads)".into());
                    self.commit(master, &writes.unwrap().1);
                }
            }
            SenderEvent::ReadAudit { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. }
            | SenderEvent::Close { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::NodeDown { .. } => {}
        }
        self.drive_master(master);
    }

    pub(crate) fn drive_node(&mut self, node: usize) {
        let now = self.now;
        loop {
            let n = &mut self.nodes[node];
            let Some(receiver) = &mut n.receiver else {
                return;
            };
            if let Some(message) = receiver.poll_transmit() {
                if let Some(link) = n.link {
                    self.post(link, 1, Event::ToMaster { link, message });
                }
                continue;
            }
            let Some(event) = receiver.poll_event() else {
                return;
            };
            match event {
                ReceiverEvent::Connect => self.dial(node),
                ReceiverEvent::Disconnect(reason) => {
                    self.say(|w| format!("{} closes: {reason}", w.nodes[node].name));
                    let link = self.nodes[node].link.unwrap();
                    self.post(link, 1, Event::ClosedToMaster { link });
                    self.close_at_node(link);
                }
                ReceiverEvent::Apply { frame, checked } => {
                    let outcome = n.table.as_mut().unwrap().apply(&frame, checked);
                    n.faulted |= !checked;
                    receiver.handle_applied(now, outcome);
                    self.check(node);
                }
                ReceiverEvent::BeginLoad { .. } => n.loading = Some(Table::default()),
                ReceiverEvent::LoadRecords(records) => n.loading.as_mut().unwrap().load(&records),
                ReceiverEvent::LoadFrame(frame) => n.loading.as_mut().unwrap().load(&frame.changes),
                ReceiverEvent::FinishLoad(position) => {
                    let mut table = n.loading.take().unwrap();
                    let outcome = match n.load_fails.take() {
                        Some(failure) => Err(failure),
                        None => table.finish(position),
                    };
                    if let Ok(standing) = outcome {
                        n.table = Some(table);
                        n.faulted = false;
                        self.say(|w| {
                            format!("{} has loaded {}", w.nodes[node].name, standing.position)
                        });
                    }
                    let receiver = self.nodes[node].receiver.as_mut().unwrap();
                    receiver.handle_loaded(now, outcome);
                    self.check(node);
                }
                ReceiverEvent::AbortLoad => {
                    n.loading = None;
                    self.say(|w| format!("{} drops what it has loaded", w.nodes[node].name));
                }
                ReceiverEvent::Scrub => {
                    let at = self.later();
                    let boot = self.nodes[node].boot;
                    self.post_at(at, Event::Scrubbed { node, boot });
                }
                ReceiverEvent::Compare { .. }
                | ReceiverEvent::Mend { .. }
                | ReceiverEvent::Audited { .. } => self.audit(node, event),
                ReceiverEvent::Registered { .. } => {}
                ReceiverEvent::StateChanged { from, to, reason } => {
                    self.say(|w| format!("{} is {to}, was {from}: {reason}", w.nodes[node].name));
                }
            }
        }
    }

    fn dial(&mut self, node: usize) {
        let master = self.nodes[node].dials;
        let at = self.later();
        if self.masters[master].sender.is_none() {
            let boot = self.nodes[node].boot;
            self.post_at(at, Event::DialFailed { node, boot });
            return;
        }
        let link = self.links.len();
        self.links.push(Link {
            master,
            node,
            master_open: false,
            node_open: true,
            held: None,
            takes: self.nodes[node].takes.take(),
            last: [at; 2],
        });
        self.nodes[node].link = Some(link);
        self.post_at(at, Event::Connected { link });
    }

    fn close_at_node(&mut self, link: usize) {
        let node = self.links[link].node;
        if !std::mem::replace(&mut self.links[link].node_open, false) {
            return;
        }
        self.nodes[node].link = None;
        let now = self.now;
        if let Some(receiver) = &mut self.nodes[node].receiver {
            receiver.handle_closed(now);
            self.drive_node(node);
        }
    }

    fn close_at_master(&mut self, link: usize) {
        let master = self.links[link].master;
        if !std::mem::replace(&mut self.links[link].master_open, false) {
            return;
        }
        self.links[link].held = None;
        let now = self.now;
        if let Some(sender) = &mut self.masters[master].sender {
            sender.handle_closed(now, peer(link));
            self.drive_master(master);
        }
    }

    /// Posts an event on a link, behind all that travels in its direction.
    fn post(&mut self, link: usize, direction: usize, event: Event) {
        let at = self.later().max(self.links[link].last[direction]);
        self.links[link].last[direction] = at;
        self.post_at(at, event);
    }

    fn post_at(&mut self, at: Timestamp, event: Event) {
        self.events_total += 1;
        self.events.insert((at, self.events_total), event);
    }

    fn later(&mut self) -> Timestamp {
        let delay = match self.delay_ms_max {
            0 => 0,
            max => self.random.next() % max,
        };
        self.now.plus(Duration::from_millis(delay))
    }

    fn advance_clock(&mut self, master: usize) {
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
    fn remember(&mut self, master: usize) {
        let Position { epoch, level, root } = self.masters[master].log.head();
        let known = *self.history.entry((epoch, level)).or_insert(root);
        assert_eq!(
            known, root,
            "two contents at level {level} of epoch {epoch}"
        );
    }

    /// The node's table is the log's prefix at its epoch and level, by what it really holds, unless memory has
    /// failed somewhere.
    fn check(&mut self, node: usize) {
        let n = &self.nodes[node];
        if let Some(table) = &n.table
            && !n.faulted
            && !self.masters_failed
        {
            let Position { epoch, level, root } = table.position;
            assert_eq!(
                self.history.get(&(epoch, level)),
                Some(&root),
                "{} is no prefix of any log at level {level} of epoch {epoch}",
                n.name
            );
        }
    }
}

fn peer(link: usize) -> Peer {
    Peer(u64::try_from(link).unwrap())
}
