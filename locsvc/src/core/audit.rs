//! Audits: answers to nodes that compare their content with the master's, and audits that operators order.
//! It compares nothing itself.

use std::collections::BTreeMap;

use locus_distribution::{AuditOrderError, Peer};
use locus_proto::v1::{AuditOrder, AuditRefusal, AuditReport, AuditScope};
use locus_proto::{NodeId, NodeName, Timestamp};

use super::Core;
use super::distribute::find;
use crate::event::Event;
use crate::provision::{Answer, Audited, NodeAudit, NodeRef, RequestError};

/// Bits of an order's ticket below the epoch: a report on an order of an earlier life is known by it.
const ORDER_BITS: u32 = 32;

/// The audit that an operator waits for.
#[derive(Debug)]
pub(super) struct Ordered {
    /// Of the API.
    ticket: u64,
    /// Of the orders to the nodes.
    order: u64,
    pub(super) deadline: Timestamp,
    /// Everyone who is asked; `None` until it is known what became of it.
    nodes: BTreeMap<NodeId, (NodeName, Option<Audited>)>,
}

impl Core {
    /// Answers a question of a node's audit at once, at the present level.
    pub(super) fn read_audit(&mut self, now: Timestamp, peer: Peer, scope: AuditScope) {
        let level = self.master.position().level;
        let Some(sender) = &mut self.sender else {
            return;
        };
        match scope {
            AuditScope::Groups => {
                sender.handle_audit_sums(now, peer, self.master.audit_sums(None));
            }
            AuditScope::Group(group) => {
                sender.handle_audit_sums(now, peer, self.master.audit_sums(Some(group)));
            }
            AuditScope::Partition(partition) => match self.master.audit_records(partition) {
                Ok(records) => sender.handle_audit_records(now, peer, level, partition, records),
                Err(fault) => {
                    sender.handle_audit_refused(now, peer, AuditRefusal::Corrupt);
                    self.fault = Some(fault);
                }
            },
        }
    }

    /// Orders an audit of one node, or of all, for the request with this ticket.
    pub(super) fn order_audit(
        &mut self,
        now: Timestamp,
        ticket: u64,
        node: Option<&NodeRef>,
        repair: bool,
        deadline: Timestamp,
    ) {
        match self.begin_audit(now, ticket, node, repair, deadline) {
            Ok(()) => self.check_audit(now),
            Err(error) => self.answer(ticket, Answer::Refused(error)),
        }
    }

    fn begin_audit(
        &mut self,
        now: Timestamp,
        ticket: u64,
        node: Option<&NodeRef>,
        repair: bool,
        deadline: Timestamp,
    ) -> Result<(), RequestError> {
        if let Some(ordered) = &self.ordered {
            let left = ordered.deadline.since(now);
            return Err(RequestError::AuditUnderWay { left });
        }
        let Some(sender) = &mut self.sender else {
            return Err(RequestError::Busy);
        };
        let mut roster = sender.roster();
        if let Some(wanted) = node {
            let found = find(&roster, wanted).cloned();
            roster = vec![found.ok_or_else(|| RequestError::NoSuchNode(wanted.clone()))?];
        }
        self.orders += 1;
        let epoch = self.master.position().epoch.counter;
        let order = epoch << ORDER_BITS | self.orders;
        let mut nodes = BTreeMap::new();
        for entry in roster {
            let asked = AuditOrder {
                ticket: order,
                repair,
            };
            let outcome = match sender.handle_audit_order(now, entry.node, asked) {
                Ok(()) => None,
                Err(AuditOrderError::NotConnected(_)) => Some(Audited::NotConnected),
                Err(AuditOrderError::Busy(_)) => Some(Audited::Busy),
            };
            nodes.insert(entry.node, (entry.name, outcome));
        }
        self.counters.audits_total += 1;
        self.ordered = Some(Ordered {
            ticket,
            order,
            deadline,
            nodes,
        });
        Ok(())
    }

    /// Takes a node's report; one on an order that nobody waits for any more is only said.
    pub(super) fn audit_reported(&mut self, now: Timestamp, node: NodeId, report: AuditReport) {
        let ordered = self.ordered.as_mut();
        let asked = ordered
            .filter(|ordered| ordered.order == report.ticket)
            .and_then(|ordered| ordered.nodes.get_mut(&node));
        let name = asked.map(|(name, outcome)| {
            outcome.get_or_insert_with(|| Audited::Reported(report.clone()));
            name.clone()
        });
        self.say_node(now, Event::Audited { node, name, report });
        self.check_audit(now);
    }

    /// A node has gone: it will not report.
    pub(super) fn audit_lost(&mut self, now: Timestamp, node: NodeId) {
        let ordered = self.ordered.as_mut();
        if let Some((_, outcome @ None)) = ordered.and_then(|ordered| ordered.nodes.get_mut(&node))
        {
            *outcome = Some(Audited::NoAnswer);
        }
        self.check_audit(now);
    }

    /// Answers the operator when every node has reported, or its time is up.
    pub(super) fn check_audit(&mut self, now: Timestamp) {
        let over = self.ordered.take_if(|ordered| {
            let mut outcomes = ordered.nodes.values().map(|(_, outcome)| outcome);
            now >= ordered.deadline || outcomes.all(Option::is_some)
        });
        let Some(over) = over else {
            return;
        };
        let nodes = over.nodes.into_iter().map(|(node, (name, outcome))| {
            let outcome = outcome.unwrap_or(Audited::NoAnswer);
            NodeAudit {
                node,
                name,
                outcome,
            }
        });
        let answer = Answer::Audited {
            level: self.master.position().level,
            nodes: nodes.collect(),
        };
        self.answer(over.ticket, answer);
    }
}
