//! What moves at a master: its process, its reads, its uplink; the product's sender decides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_distribution::{
    GroupConfig, GroupDatagram, GroupSetup, GroupTarget, Peer, Sender, SenderConfig, SenderEvent,
};
use locus_proto::v1::{DatagramHeader, DatagramKind, SnapshotEnd};
use locus_proto::{EpochId, MasterTime, Timestamp};

use crate::parts::{Happening, Item};
use crate::world::{Event, GROUP_ADDRESS, World};

/// Time that a read of log or table takes.
const READ: Duration = Duration::from_micros(50);

impl World {
    /// Returns the time of a master's host.
    pub(crate) fn master_now(&self, master: usize) -> Timestamp {
        self.now.plus(self.masters[master].ahead)
    }

    /// Returns the service time of a master.
    pub(crate) fn master_time(&self, master: usize) -> MasterTime {
        let ms = self.now.since(Timestamp(0)).as_millis();
        let base = self.masters[master].time_base;
        base.plus_ms(u64::try_from(ms).unwrap())
    }

    /// Starts the service: always a new epoch, and new keys.
    pub(crate) fn start_master(&mut self, master: usize) {
        let id = self.epoch_id();
        self.start_master_as(master, id);
    }

    pub(crate) fn start_master_as(&mut self, master: usize, id: EpochId) {
        let now = self.master_now(master);
        let time = self.master_time(master);
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        let stream = self.random.next();
        let port = reply_port(master);
        let m = &mut self.masters[master];
        m.life += 1;
        m.stream = stream;
        m.cursors.clear();
        m.boats = 0;
        m.turn.clear();
        m.armed = None;
        m.log.open_epoch(id, time);
        let config = SenderConfig {
            cluster: "lab".parse().unwrap(),
            table_key: [7; 16],
            reload_above: m.reload_above,
            window_bytes: m.window_bytes,
            transport: m.transport,
            group: Some(GroupSetup {
                address: GROUP_ADDRESS,
                reply_port: port,
                config: GroupConfig {
                    stream,
                    seed,
                    datagram_bytes: m.group.datagram_bytes,
                    rate_bytes_per_s: m.group.rate_bytes_per_s,
                    rate_floor_bytes_per_s: m.group.rate_floor_bytes_per_s,
                },
            }),
        };
        let lineage = m.log.lineage.clone();
        m.sender = Some(Sender::new(now, config, lineage, m.log.head(), time));
        self.remember(master);
        self.drive_master(master);
    }

    /// Kills the service. If `silently`, nobody is told, as when the machine loses its power.
    pub(crate) fn kill_master(&mut self, master: usize, silently: bool) {
        self.bury_sender(master);
        for connection in 0..self.connections.len() {
            let c = &mut self.connections[connection];
            if c.master == master && c.master_open {
                c.master_open = false;
                c.outbox.clear();
                if !silently {
                    self.pass(connection, 0, Item::Closed, Duration::ZERO);
                }
            }
        }
    }

    pub(crate) fn master_timer(&mut self, master: usize) {
        let now = self.master_now(master);
        let time = self.master_time(master);
        let m = &mut self.masters[master];
        m.armed = None;
        let Some(sender) = &mut m.sender else {
            return;
        };
        if sender.poll_timeout().is_some_and(|at| at <= now) {
            sender.handle_timeout(now, time);
            self.drive_master(master);
        } else {
            self.arm_master(master);
        }
    }

    fn arm_master(&mut self, master: usize) {
        let m = &mut self.masters[master];
        let Some(at) = m.sender.as_ref().and_then(Sender::poll_timeout) else {
            return;
        };
        let ahead = u64::try_from(m.ahead.as_nanos()).unwrap();
        let at = Timestamp(at.0.saturating_sub(ahead)).max(self.now);
        if m.armed.is_none_or(|armed| at < armed) {
            m.armed = Some(at);
            self.queue.post(at, Event::MasterTimer(master));
        }
    }

    pub(crate) fn drive_master(&mut self, master: usize) {
        loop {
            let Some(sender) = &mut self.masters[master].sender else {
                return;
            };
            if let Some((peer, bytes)) = sender.poll_transmit() {
                self.write(connection_of(peer), bytes);
            } else if let Some(datagram) = sender.poll_datagram() {
                self.send_datagram(master, datagram);
            } else if let Some(event) = sender.poll_event() {
                self.take_sender_event(master, event);
            } else {
                break;
            }
        }
        self.arm_master(master);
    }

    fn take_sender_event(&mut self, master: usize, event: SenderEvent) {
        let m = &mut self.masters[master];
        match event {
            SenderEvent::ReadLog { .. } | SenderEvent::ReadTable { .. } => {
                if let SenderEvent::ReadTable { first: true, .. } = event {
                    m.boats += 1;
                    m.boats_max = m.boats_max.max(m.boats);
                }
                let life = m.life;
                let at = self.now.plus(READ + self.random.time(READ));
                let read = Event::Read(master, life, Box::new(event));
                self.queue.post(at, read);
            }
            SenderEvent::SplitScan { from, to } => {
                m.boats += 1;
                m.boats_max = m.boats_max.max(m.boats);
                let cursor = m.cursors.get(&from).cloned();
                m.cursors.extend(cursor.map(|cursor| (to, cursor)));
            }
            SenderEvent::EndScan { boat } => {
                m.boats = m.boats.saturating_sub(1);
                m.cursors.remove(&boat);
            }
            SenderEvent::Close { peer, .. } => self.close_by_master(connection_of(peer)),
            SenderEvent::ReadAudit { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. } => {
                panic!("an audit, though no memory fails here: {event:?}")
            }
            SenderEvent::NodeUp { node, plan, .. } => self.note(node, Happening::Up(plan)),
            SenderEvent::NodeDown { node, .. } => self.note(node, Happening::Down),
            SenderEvent::PathChanged {
                node, to, reason, ..
            } => self.note(node, Happening::Path(to, reason)),
            SenderEvent::MulticastLost { node, reason, .. } => {
                self.note(node, Happening::Lost(reason));
            }
            SenderEvent::MulticastBack { node, .. } => self.note(node, Happening::Back),
        }
    }

    fn note(&mut self, node: locus_proto::NodeId, what: Happening) {
        let at = usize::from(node.0) - 1;
        self.happenings.push((self.now, at, what));
    }

    pub(crate) fn read(&mut self, master: usize, read: SenderEvent) {
        let now = self.master_now(master);
        let m = &mut self.masters[master];
        let Some(sender) = &mut m.sender else {
            return;
        };
        match read {
            SenderEvent::ReadLog {
                peer,
                after,
                bytes_max,
            } => sender.handle_frames(now, peer, m.log.frames_after(after, bytes_max)),
            SenderEvent::ReadTable { boat, first } => {
                if first {
                    m.cursors.remove(&boat);
                }
                let (part, next) = m.log.records_after(m.cursors.get(&boat));
                let head = m.log.head();
                let end = next.is_none().then_some(SnapshotEnd {
                    level: head.level,
                    root: head.root,
                });
                m.cursors.remove(&boat);
                match next {
                    Some(key) => drop(m.cursors.insert(boat, key)),
                    None => m.boats = m.boats.saturating_sub(1),
                }
                m.parts_read += 1;
                sender.handle_records(now, boat, part, end);
                if let Some(ops) = m.during_snapshot.pop_front() {
                    self.commit(master, ops);
                }
            }
            other => unreachable!("no read: {other:?}"),
        }
        self.drive_master(master);
    }

    fn send_datagram(&mut self, master: usize, datagram: GroupDatagram) {
        let GroupDatagram { to, bytes } = datagram;
        if let Some(captured) = self.captured.as_mut().filter(|c| c.len() < 4_096) {
            captured.push(Arc::clone(&bytes));
        }
        if bytes.len() > self.network.datagram_max {
            self.network.too_long_total += 1;
            return;
        }
        let m = &mut self.masters[master];
        let begins = m.uplink_free.max(self.now);
        if begins.since(self.now) > self.network.uplink_wait_max {
            self.network.burst_total += 1;
            return;
        }
        let leaves = begins.plus(self.network.serialise(bytes.len()));
        m.uplink_free = leaves;
        let arrives = leaves.plus(self.network.latency);
        match to {
            GroupTarget::Group => {
                self.network.group_total += 1;
                if self.network.burst > 0 {
                    self.network.burst -= 1;
                    self.network.burst_total += 1;
                    return;
                }
                self.queue.post(arrives, Event::Group(bytes));
            }
            GroupTarget::Node(address) => {
                let node = node_of(address);
                if self.reaches(node) {
                    self.queue.post(arrives, Event::Datagram(node, bytes));
                }
            }
        }
    }

    pub(crate) fn deliver_reply(&mut self, master: usize, from: SocketAddr, bytes: Vec<u8>) {
        let now = self.master_now(master);
        let m = &mut self.masters[master];
        if DatagramHeader::decode(&bytes).is_ok_and(|h| h.kind == DatagramKind::Nack) {
            m.nacks_heard += 1;
        }
        if let Some(sender) = &mut m.sender {
            sender.handle_datagram(now, from, bytes);
            self.drive_master(master);
        }
    }

    /// Takes a master's totals before it goes.
    pub(crate) fn bury_sender(&mut self, master: usize) {
        if let Some(sender) = self.masters[master].sender.take() {
            let counters = serde_json::to_value(sender.counters()).unwrap();
            self.count("sender", &counters);
        }
    }

    pub(crate) fn count(&mut self, whose: &str, counters: &serde_json::Value) {
        for (name, total) in counters.as_object().unwrap() {
            let name = format!("{whose}.{name}");
            match total.as_u64() {
                Some(total) => *self.totals.entry(name).or_default() += total,
                None => self.count(&name, total),
            }
        }
    }
}

/// Returns the port at which a master takes what nodes send.
pub(crate) fn reply_port(master: usize) -> u16 {
    6_000 + u16::try_from(master).unwrap()
}

pub(crate) fn peer(connection: usize) -> Peer {
    Peer(u64::try_from(connection + 1).unwrap()) // 0 is the group
}

pub(crate) fn connection_of(peer: Peer) -> usize {
    usize::try_from(peer.0 - 1).unwrap()
}

fn node_of(address: SocketAddr) -> usize {
    usize::from(address.port()) - 1
}
