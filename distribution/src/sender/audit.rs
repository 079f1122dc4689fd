//! Questions and reports of audits; it reads no table.
//!
//! Before a node whose content differs is answered, the master confers: if most nodes agree with each other
//! against it, it may itself be wrong, and nothing is repaired (rules 3.2).

use std::collections::HashMap;

use locus_proto::v1::{
    AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport, AuditScope, AuditSums,
};
use locus_proto::{Change, Level, Message, NodeId, Position, Root, Timestamp};

use super::connection::{Connection, Phase};
use super::{
    AuditOrderError, CONFER, Disagreement, HEADS_MAX, Peer, RETURN_MAX, REUNION, Sender,
    SenderEvent,
};
use crate::audit::{AUDIT_PART_BYTES, PARTITION_BYTES_MAX, record_bytes};
use crate::roster::Doubt;

/// A question that is not answered yet; a connection has one at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Others may say the same until then.
    Conferring { scope: AuditScope, until: Timestamp },
    /// The table's owner reads.
    Reading,
}

impl Sender {
    /// Takes the answer to [`SenderEvent::ReadAudit`] about groups or partitions.
    pub fn handle_audit_sums(&mut self, now: Timestamp, peer: Peer, sums: AuditSums) {
        if self.take_reading(peer) {
            self.counters.audit_answers_total += 1;
            self.send(now, peer, &Message::AuditSums(sums));
        }
    }

    /// Takes the answer to [`SenderEvent::ReadAudit`] about a partition: all its records at `level`.
    ///
    /// More than [`PARTITION_BYTES_MAX`] are not sent: no table has so many in one partition by chance.
    pub fn handle_audit_records(
        &mut self,
        now: Timestamp,
        peer: Peer,
        level: Level,
        partition: u16,
        records: Vec<Change>,
    ) {
        if records.iter().map(record_bytes).sum::<usize>() > PARTITION_BYTES_MAX {
            self.counters.partitions_too_large_total += 1;
            self.handle_audit_refused(now, peer, AuditRefusal::Corrupt);
            return;
        }
        if !self.take_reading(peer) {
            return;
        }
        self.counters.audit_answers_total += 1;
        let mut rest = records.into_iter();
        loop {
            let mut bytes = 0;
            let within = |record: &Change| {
                let fits = bytes < AUDIT_PART_BYTES;
                bytes += record_bytes(record);
                fits
            };
            let records: Vec<Change> = take_while(&mut rest, within);
            let last = rest.as_slice().is_empty();
            let part = AuditRecords {
                level,
                partition,
                last,
                records,
            };
            self.send(now, peer, &Message::AuditRecords(part));
            if last {
                return;
            }
        }
    }

    /// Takes the word that [`SenderEvent::ReadAudit`] cannot be answered.
    pub fn handle_audit_refused(&mut self, now: Timestamp, peer: Peer, refusal: AuditRefusal) {
        if self.take_reading(peer) {
            self.refuse(now, peer, refusal);
        }
    }

    /// Takes an operator's order: the node reads its memory again and compares it with the master's content.
    /// [`SenderEvent::AuditReported`] follows, or the node goes away.
    ///
    /// # Errors
    /// [`AuditOrderError`] if the node is not connected, or has an order already.
    pub fn handle_audit_order(
        &mut self,
        now: Timestamp,
        node: NodeId,
        order: AuditOrder,
    ) -> Result<(), AuditOrderError> {
        let peer = (self.peer_of(node)).ok_or(AuditOrderError::NotConnected(node))?;
        if let Some(connection) = self.peers.get_mut(&peer) {
            if connection.ordered.is_some() {
                return Err(AuditOrderError::Busy(node));
            }
            connection.ordered = Some(order.ticket);
        }
        self.send(now, peer, &Message::AuditOrder(order));
        Ok(())
    }

    /// Returns whether [`SenderEvent::Alarm`] was said and is not over: no question is answered.
    pub fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Takes a node's question; returns whether it may ask.
    pub(super) fn handle_ask(
        &mut self,
        now: Timestamp,
        peer: Peer,
        node: NodeId,
        ask: AuditAsk,
    ) -> bool {
        let Some(connection) = self.peers.get_mut(&peer) else {
            return true;
        };
        if connection.phase != Phase::Streaming || connection.question.is_some() {
            return false;
        }
        let of =
            |at: Position| move |head: &&Position| (head.epoch, head.level) == (at.epoch, at.level);
        let doubt: Option<Doubt> = (ask.doubt)
            .map(|at| {
                let ours = self.heads.iter().rev().find(of(at));
                // What is no more remembered is nobody else's.
                at.root.minus(ours.map_or(Root::EMPTY, |head| head.root))
            })
            .filter(|doubt| *doubt != Root::EMPTY); // the heartbeat was at fault
        self.roster.doubt(node, doubt);
        self.doubted_at = ask.doubt.map_or(self.doubted_at, |at| at.level);
        let conferred = std::mem::replace(&mut connection.conferred, doubt);
        if doubt.is_some() && conferred != doubt {
            connection.question = Some(Question::Conferring {
                scope: ask.scope,
                until: now.plus(CONFER).max(self.begun_at.plus(REUNION)),
            });
        } else {
            self.answer(now, peer, ask.scope);
        }
        true
    }

    pub(super) fn handle_report(&mut self, peer: Peer, node: NodeId, report: AuditReport) {
        let asked = |connection: &mut Connection| {
            (connection.ordered)
                .take_if(|ticket| *ticket == report.ticket)
                .is_some()
        };
        if self.peers.get_mut(&peer).is_some_and(asked) {
            self.events
                .push_back(SenderEvent::AuditReported { node, report });
        } else {
            self.counters.reports_ignored_total += 1;
        }
    }

    /// Answers the questions about which it has conferred long enough.
    pub(super) fn end_conferring(&mut self, now: Timestamp) {
        let due: Vec<(Peer, AuditScope)> = (self.peers.iter())
            .filter_map(|(peer, connection)| match connection.question {
                Some(Question::Conferring { scope, until }) if until <= now => Some((*peer, scope)),
                Some(Question::Conferring { .. } | Question::Reading) | None => None,
            })
            .collect();
        for (peer, scope) in due {
            self.answer(now, peer, scope);
        }
    }

    /// Returns when the next question is due.
    pub(super) fn next_answer(&self) -> Option<Timestamp> {
        let until = |question| match question {
            Question::Conferring { until, .. } => Some(until),
            Question::Reading => None,
        };
        let questions = self.peers.values().filter_map(|c| c.question);
        questions.filter_map(until).min()
    }

    /// Ends the alarm once no more than half of the nodes are in doubt of any kind. They need not agree until
    /// then: each says what it holds at its own time.
    pub(super) fn end_alarm(&mut self, now: Timestamp) {
        if self.alarmed {
            let (doubts, of) = self.doubts(now);
            self.alarmed = doubts.len() > of / 2;
        }
    }

    /// Remembers what the master holds at the head that a heartbeat names.
    pub(super) fn remember_head(&mut self) {
        if self.heads.back() == Some(&self.head) {
            return;
        }
        if self.heads.len() == HEADS_MAX {
            self.heads.pop_front();
        }
        self.heads.push_back(self.head);
    }

    fn answer(&mut self, now: Timestamp, peer: Peer, scope: AuditScope) {
        self.end_alarm(now);
        if let Some(disagreement) = self.disagreement(now).filter(|_| !self.alarmed) {
            self.alarmed = true;
            self.counters.disagreements_total += 1;
            self.events.push_back(SenderEvent::Alarm(disagreement));
        }
        if self.alarmed {
            self.refuse(now, peer, AuditRefusal::Majority);
        } else if let Some(connection) = self.peers.get_mut(&peer) {
            connection.question = Some(Question::Reading);
            self.events
                .push_back(SenderEvent::ReadAudit { peer, scope });
        }
    }

    fn refuse(&mut self, now: Timestamp, peer: Peer, refusal: AuditRefusal) {
        self.counters.audits_refused_total += 1;
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.question = None;
        }
        self.send(now, peer, &Message::AuditRefused(refusal));
    }

    /// Returns whether most nodes agree with each other against the master: two at least, and more than half of
    /// those that follow the log.
    fn disagreement(&self, now: Timestamp) -> Option<Disagreement> {
        let (doubts, of) = self.doubts(now);
        let mut votes: HashMap<Doubt, usize> = HashMap::new();
        for doubt in doubts {
            *votes.entry(doubt).or_default() += 1;
        }
        let nodes = votes.into_values().max()?;
        let most = nodes >= 2 && nodes > of / 2;
        most.then_some(Disagreement {
            level: self.doubted_at,
            nodes,
            of: of.max(nodes),
        })
    }

    /// Returns the doubts of all nodes that follow the log, and of those that are likely to be back soon; and
    /// how many follow the log.
    fn doubts(&self, now: Timestamp) -> (Vec<Doubt>, usize) {
        let following = (self.peers.values()).filter(|c| c.phase == Phase::Streaming);
        let nodes: Vec<NodeId> = following
            .filter_map(|c| c.node.as_ref().map(|(node, _)| *node))
            .collect();
        let doubts = nodes.iter().filter_map(|node| self.roster.doubt_of(*node));
        let away = self.roster.doubts_away(now, RETURN_MAX);
        (doubts.chain(away).collect(), nodes.len())
    }

    fn take_reading(&mut self, peer: Peer) -> bool {
        let reading = |question: &mut Question| *question == Question::Reading;
        let connection = self.peers.get_mut(&peer);
        connection.is_some_and(|c| c.question.take_if(reading).is_some())
    }

    fn send(&mut self, now: Timestamp, peer: Peer, message: &Message) {
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.send(now, message);
            let outgoing = connection.window.take_outgoing();
            self.transmits.extend(outgoing.map(|bytes| (peer, bytes)));
        }
    }
}

/// Returns the items up to the first that is not `wanted`, which stays.
fn take_while(
    items: &mut std::vec::IntoIter<Change>,
    mut wanted: impl FnMut(&Change) -> bool,
) -> Vec<Change> {
    let count = items.as_slice().iter().take_while(|i| wanted(i)).count();
    items.take(count).collect()
}
