//! Nodes: their connections, the sender's wishes, who has reached a level. It changes no record.

use std::time::Duration;

use locus_distribution::{
    Costs, Peer, RosterEntry, Sender, SenderConfig, SenderEvent, WINDOW_BYTES,
};
use locus_proto::v1::{SNAPSHOT_PART_BYTES, SnapshotEnd, SnapshotPart};
use locus_proto::{Frame, Level, Lineage, Message, NodeName, Timestamp, Verdict};

use super::batch::Work;
use super::input::{Output, Transmit};
use super::{Core, Place};
use crate::event::Event;
use crate::log::Index;
use crate::master::{Master, RecoverError};
use crate::provision::{AlarmView, Answer, NodeView, RequestError};

/// Most requests that wait for a level at once.
pub(super) const WAITING_MAX: usize = 1024;
/// Most steps through the table for one input; each is some 0.2 ms, however empty the table.
const TABLE_STEPS_MAX: usize = 4;
/// Time until the next steps, if nothing else happens before.
const TABLE_PAUSE: Duration = Duration::from_millis(1);
/// A node that was heard within this time is waited for though it is not connected: its agent may be
/// restarting. One that is away for longer holds nobody up.
const RECENT: Duration = Duration::from_secs(60);

/// A request that waits until all nodes have a level.
#[derive(Debug)]
pub(super) struct Waiting {
    ticket: u64,
    level: Level,
    pub(super) deadline: Timestamp,
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

    pub(super) fn connected(&mut self, now: Timestamp, peer: Peer, address: String) {
        if let Some(sender) = &mut self.sender {
            self.addresses.insert(peer, address.clone());
            sender.handle_connected(now, peer, address);
        } else {
            self.outputs.push_back(Output::Close { peer });
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
        self.scans.remove(&peer);
        self.reads.retain(|(reader, _)| *reader != peer);
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
        // at its next Hello, from the table, which is whole.
        if let Some(sender) = &mut self.sender {
            sender.handle_frames(now, peer, Vec::new());
        }
    }

    /// Does what the sender asks for until it asks for nothing more, or for more of the table than one
    /// input may read.
    pub(super) fn pump(&mut self, now: Timestamp) {
        for _ in 0..TABLE_STEPS_MAX {
            self.pump_events(now);
            let Some((peer, first)) = self.reads.pop_front() else {
                return;
            };
            self.read_table(now, peer, first);
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
            SenderEvent::ReadTable { peer, first } => self.reads.push_back((peer, first)),
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
                self.say_node(now, Event::NodeDown { node, name, reason });
                self.audit_lost(now, node);
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

    fn read_table(&mut self, now: Timestamp, peer: Peer, first: bool) {
        let cursor = if first {
            None
        } else {
            self.scans.remove(&peer)
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
                self.outputs.push_back(Output::Close { peer });
                self.closed(now, peer);
                return;
            }
        };
        let head = self.master.position();
        let end = next.is_none().then_some(SnapshotEnd {
            level: head.level,
            root: head.root,
        });
        if let Some(next) = next {
            self.scans.insert(peer, next);
        }
        if let Some(sender) = &mut self.sender {
            sender.handle_records(now, peer, SnapshotPart { records }, end);
        }
    }

    pub(super) fn nodes(&self) -> Answer {
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
            nodes: roster.into_iter().map(view).collect(),
        }
    }

    pub(super) fn wait(&mut self, now: Timestamp, ticket: u64, level: Level, deadline: Timestamp) {
        if self.waiting.len() >= WAITING_MAX {
            self.answer(ticket, Answer::Refused(RequestError::Busy));
            return;
        }
        self.waiting.push(Waiting {
            ticket,
            level,
            deadline,
        });
        self.check_waiting(now);
    }

    /// Answers the waiting requests whose level is reached or whose time is up.
    pub(super) fn check_waiting(&mut self, now: Timestamp) {
        if self.waiting.is_empty() {
            return;
        }
        let head = self.master.position().level;
        let roster = self.sender.as_ref().map(Sender::roster).unwrap_or_default();
        let lineage = self.master.lineage().clone();
        for waiting in std::mem::take(&mut self.waiting) {
            let behind: Vec<NodeName> = roster
                .iter()
                .filter(|node| node.connected || now.since(node.heard_at) < RECENT)
                .filter(|node| !has_applied(node, waiting.level, head, &lineage))
                .map(|node| node.name.clone())
                .collect();
            let reached = head >= waiting.level && behind.is_empty();
            if reached || now >= waiting.deadline {
                let level = head;
                self.answer(
                    waiting.ticket,
                    Answer::Waited {
                        level,
                        behind,
                        reached,
                    },
                );
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}

/// Whether the last report of `node` says that it holds everything up to `level` of this log.
fn has_applied(node: &RosterEntry, level: Level, head: Level, lineage: &Lineage) -> bool {
    node.status.as_ref().is_some_and(|status| {
        let at = status.position;
        at.level >= level && lineage.judge(at.epoch, at.level, head) == Verdict::Continue
    })
}

fn view(entry: RosterEntry) -> NodeView {
    NodeView {
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
