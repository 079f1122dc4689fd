//! Nodes: their connections, the sender's wishes, the roster. It changes no record.

use std::net::SocketAddr;
use std::time::Duration;

use locus_distribution::{
    Arrived, Boat, Costs, Peer, RosterEntry, Sender, SenderConfig, SenderEvent, WINDOW_BYTES,
};
use locus_proto::v1::{GroupLeftReason, SNAPSHOT_PART_BYTES, SnapshotEnd, SnapshotPart};
use locus_proto::{Frame, Level, Message, NodeId, Timestamp};

use super::batch::Work;
use super::input::{Output, Transmit};
use super::{Core, Place};
use crate::event::Event;
use crate::log::Index;
use crate::master::{Master, RecoverError};
use crate::provision::{AlarmView, Answer, LostView, NodeRef, NodeView, RequestError};

/// Most steps through the table for one input; each is some 0.2 ms, however empty the table.
const TABLE_STEPS_MAX: usize = 4;
/// Time until the next steps, if nothing else happens before.
const TABLE_PAUSE: Duration = Duration::from_millis(1);
/// A node that the group does not reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    since: Timestamp,
    reason: GroupLeftReason,
}

struct CoreCosts<'a> {
    index: &'a Index,
    master: &'a Master,
}

impl Costs for CoreCosts<'_> {
    fn log_bytes_after(&self, level: Level) -> Option<u64> {
        // The log reaches back to its beginning: nothing of it is thrown away yet.
        Some(self.index.bytes_after(level))
    }

    fn table_bytes(&self) -> u64 {
        self.master.payload_bytes()
    }

    fn table_records(&self) -> u64 {
        self.master.records()
    }
}

impl Core {
    /// The epoch's frame is durable: requests and nodes are served from now on.
    pub(super) fn epoch_begun(
        &mut self,
        now: Timestamp,
        frame: &Frame,
        bytes: u64,
    ) -> Result<(), RecoverError> {
        self.master.begin_epoch(frame)?;
        self.index.push(Place::after(&frame.header), bytes);
        let config = SenderConfig {
            cluster: self.config.cluster.clone(),
            table_key: self.config.table_key,
            reload_above: self.config.reload_above,
            window_bytes: WINDOW_BYTES,
            transport: self.config.transport,
            group: self.config.group.clone(),
        };
        let (lineage, head) = (self.master.lineage().clone(), self.master.position());
        let time = self.time(now);
        self.sender = Some(Sender::new(now, config, lineage, head, time));
        if let Some(clock) = &self.clock {
            let (outage, hold) = (clock.outage(), clock.hold(now));
            if outage >= Duration::from_secs(1) {
                self.say(Event::Resumed { outage, hold });
            }
        }
        self.say(Event::EpochOpened(head));
        (self.alive_at, self.expire_at, self.scrub.due) = (now, now, now);
        Ok(())
    }

    pub(super) fn connected(&mut self, now: Timestamp, peer: Peer, arrived: Arrived) {
        if let Some(sender) = &mut self.sender {
            self.addresses.insert(peer, arrived.address.clone());
            sender.handle_connected(now, peer, arrived);
        } else {
            self.outputs.push_back(Output::Close { peer });
        }
    }

    pub(super) fn datagrams(&mut self, now: Timestamp, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        let Some(sender) = &mut self.sender else {
            return;
        };
        for (from, bytes) in datagrams {
            sender.handle_datagram(now, from, bytes);
        }
    }

    pub(super) fn removed(&mut self, now: Timestamp, node: NodeId) {
        if let Some(sender) = &mut self.sender {
            sender.handle_removed(now, node);
        }
    }

    pub(super) fn closed(&mut self, now: Timestamp, peer: Peer) {
        self.forget(peer);
        if let Some(sender) = &mut self.sender {
            sender.handle_closed(now, peer);
        }
        self.check_waiting(now);
    }

    fn forget(&mut self, peer: Peer) {
        self.addresses.remove(&peer);
    }

    pub(super) fn message(&mut self, now: Timestamp, peer: Peer, message: Message) {
        let Some(sender) = &mut self.sender else {
            return;
        };
        // Only a node that has greeted, and so named its cluster, may register.
        if sender.node(peer).is_some()
            && let Message::Register {
                ticket,
                registration,
            } = message
        {
            let registration = Box::new(registration);
            let work = Work::Register {
                peer,
                ticket,
                registration,
            };
            self.enqueue(now, work);
            return;
        }
        let costs = CoreCosts {
            index: &self.index,
            master: &self.master,
        };
        if let Err(error) = sender.handle_message(now, peer, message, &costs) {
            self.counters.peer_errors_total += 1;
            if let Some(suppressed) = self.limits.peers.permit(now) {
                let address = self.addresses.get(&peer).cloned().unwrap_or_default();
                self.say(Event::PeerRefused {
                    address,
                    reason: error.to_string(),
                    suppressed,
                });
            }
        }
        self.check_waiting(now);
    }

    pub(super) fn log_unreadable(&mut self, now: Timestamp, peer: Peer, reason: String) {
        if let Some(suppressed) = self.limits.log.permit(now) {
            self.say(Event::LogUnreadable { reason, suppressed });
        }
        // No frames where some were asked for: the sender closes the connection and has the node reload
        // at its next Hello, from the table, which is whole. Those in the group fall back to their
        // connections first.
        if let Some(sender) = &mut self.sender {
            sender.handle_frames(now, peer, Vec::new());
        }
    }

    /// Does what the sender asks for until it asks for nothing more, or for more of the table than one
    /// input may read.
    pub(super) fn pump(&mut self, now: Timestamp) {
        for _ in 0..TABLE_STEPS_MAX {
            self.pump_events(now);
            let Some((boat, first)) = self.reads.pop_front() else {
                return;
            };
            self.read_table(now, boat, first);
        }
        self.pump_events(now);
        if !self.reads.is_empty() {
            self.read_at = now.plus(TABLE_PAUSE);
        }
    }

    fn pump_events(&mut self, now: Timestamp) {
        loop {
            while let Some((peer, bytes)) = self.sender.as_mut().and_then(Sender::poll_transmit) {
                let counted = true;
                self.transmits.push_back(Transmit {
                    peer,
                    bytes,
                    counted,
                });
            }
            while let Some(datagram) = self.sender.as_mut().and_then(Sender::poll_datagram) {
                self.datagrams.push_back(datagram);
            }
            let Some(event) = self.sender.as_mut().and_then(Sender::poll_event) else {
                return;
            };
            self.sender_event(now, event);
        }
    }

    fn sender_event(&mut self, now: Timestamp, event: SenderEvent) {
        match event {
            SenderEvent::ReadLog {
                peer,
                after,
                bytes_max,
            } => self.outputs.push_back(Output::ReadLog {
                peer,
                after,
                bytes_max,
            }),
            SenderEvent::ReadTable { boat, first } => self.reads.push_back((boat, first)),
            SenderEvent::SplitScan { from, to } => {
                if let Some(cursor) = self.scans.get(&from).copied() {
                    self.scans.insert(to, cursor);
                }
            }
            SenderEvent::EndScan { boat } => {
                self.scans.remove(&boat);
                self.reads.retain(|(reader, _)| *reader != boat);
            }
            SenderEvent::ReadAudit { peer, scope } => self.read_audit(now, peer, scope),
            SenderEvent::Alarm(disagreement) => self.alarm(now, disagreement),
            SenderEvent::AuditReported { node, report } => self.audit_reported(now, node, report),
            SenderEvent::Close { peer, reason: _ } => {
                self.forget(peer);
                self.outputs.push_back(Output::Close { peer });
            }
            SenderEvent::NodeUp {
                peer: _,
                node,
                name,
                address,
                plan,
            } => {
                self.lost.remove(&node); // said anew where it is so still
                let up = Event::NodeUp {
                    node,
                    name,
                    address,
                    plan,
                };
                self.say_node(now, up);
            }
            SenderEvent::NodeDown {
                peer: _,
                node,
                name,
                reason,
            } => {
                self.lost.remove(&node);
                self.say_node(now, Event::NodeDown { node, name, reason });
                self.audit_lost(now, node);
            }
            SenderEvent::PathChanged {
                node,
                name,
                from,
                to,
                reason,
            } => {
                let changed = Event::PathChanged {
                    node,
                    name,
                    from,
                    to,
                    reason,
                };
                self.say_node(now, changed);
            }
            SenderEvent::MulticastLost { node, name, reason } => {
                self.counters.multicast_lost_total += 1;
                let since = now;
                self.lost
                    .entry(node)
                    .or_insert(Lost { since, reason })
                    .reason = reason;
                self.say_node(now, Event::MulticastLost { node, name, reason });
            }
            SenderEvent::MulticastBack { node, name } => {
                if let Some(lost) = self.lost.remove(&node) {
                    let after = now.since(lost.since);
                    self.say_node(now, Event::MulticastBack { node, name, after });
                }
            }
        }
    }

    pub(super) fn say_node(&mut self, now: Timestamp, event: Event) {
        match self.limits.nodes.permit(now) {
            None => return,
            Some(0) => {}
            Some(suppressed) => self.say(Event::NodesSuppressed { suppressed }),
        }
        self.say(event);
    }

    fn read_table(&mut self, now: Timestamp, boat: Boat, first: bool) {
        let cursor = if first {
            None
        } else {
            self.scans.remove(&boat)
        };
        let mut records = Vec::new();
        let scanned = self.master.scan(
            cursor.unwrap_or_default(),
            SNAPSHOT_PART_BYTES,
            &mut records,
        );
        let next = match scanned {
            Ok(next) => next,
            Err(error) => {
                let reason = error.to_string();
                self.say_inconsistent(now, reason);
                self.verify_all(now);
                if let Some(sender) = &mut self.sender {
                    sender.handle_unreadable(now, boat);
                }
                self.check_waiting(now);
                return;
            }
        };
        let head = self.master.position();
        let end = next.is_none().then_some(SnapshotEnd {
            level: head.level,
            root: head.root,
        });
        if let Some(next) = next {
            self.scans.insert(boat, next);
        }
        if let Some(sender) = &mut self.sender {
            sender.handle_records(now, boat, SnapshotPart { records }, end);
        }
    }

    /// Has one node load the whole table anew.
    pub(super) fn reload(&mut self, now: Timestamp, wanted: &NodeRef) -> Answer {
        let Some(sender) = &mut self.sender else {
            return Answer::Refused(RequestError::Busy);
        };
        let roster = sender.roster();
        let Some(entry) = find(&roster, wanted) else {
            return Answer::Refused(RequestError::NoSuchNode(wanted.clone()));
        };
        let asked = Answer::ReloadAsked {
            node: entry.node,
            name: entry.name.clone(),
            connected: entry.connected,
        };
        if !sender.handle_reload_asked(now, entry.node) {
            return Answer::Refused(RequestError::NoSuchNode(wanted.clone())); // forgotten meanwhile
        }
        self.counters.reloads_asked_total += 1;
        asked
    }

    pub(super) fn nodes(&self, now: Timestamp) -> Answer {
        let roster = self.sender.as_ref().map(Sender::roster).unwrap_or_default();
        let alarm = self.alarm.map(|alarm| AlarmView {
            level: alarm.disagreement.level,
            nodes: alarm.disagreement.nodes,
            of: alarm.disagreement.of,
            verified: alarm.verified,
        });
        Answer::Nodes {
            position: self.master.position(),
            alarm,
            nodes: roster
                .into_iter()
                .map(|entry| {
                    let lost = self.lost.get(&entry.node).map(|lost| LostView {
                        lasts: now.since(lost.since),
                        reason: lost.reason,
                    });
                    view(entry, lost)
                })
                .collect(),
        }
    }
}

/// Returns the node that is meant. A name may be made of digits only; a number in a text is tried after it.
pub(super) fn find<'a>(roster: &'a [RosterEntry], wanted: &NodeRef) -> Option<&'a RosterEntry> {
    let by_number = |id: NodeId| roster.iter().find(|node| node.node == id);
    match wanted {
        NodeRef::Number(id) => by_number(*id),
        NodeRef::Name(name) => roster
            .iter()
            .find(|node| node.name == *name)
            .or_else(|| by_number(NodeId(name.as_str().parse().ok()?))),
    }
}

fn view(entry: RosterEntry, multicast_lost: Option<LostView>) -> NodeView {
    NodeView {
        path: entry.path.as_str(),
        version: entry.version,
        connection_frame_bytes_total: entry.connection_frame_bytes_total,
        multicast_lost,
        sending: if entry.connected {
            entry.sending.as_str()
        } else {
            "disconnected"
        },
        behind: entry.levels_behind.unwrap_or_default(),
        node: entry.node,
        name: entry.name,
        address: entry.address,
        sip: entry.sip,
        connected: entry.connected,
        status: entry.status,
    }
}
