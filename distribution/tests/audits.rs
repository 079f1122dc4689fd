//! What audits need of the world: masters that answer from their tables, tables that fail, and an observer
//! that knows by itself when a master must not be trusted.

use std::collections::HashMap;
use std::time::Duration;

use locus_distribution::{Peer, ReceiverEvent, Sending};
use locus_proto::v1::{AuditOrder, AuditRefusal, AuditScope, AuditSums};
use locus_proto::{Epoch, Level, Message, NodeId, NodeState, Position, Root};

use crate::table::{Fault, Table};
use crate::world::World;

/// What the observer has heard of the nodes' doubts, by master and node.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    doubts: HashMap<(usize, NodeId), Root>,
    pub(crate) asks: u64,
    pub(crate) alarms: u64,
    pub(crate) reports: u64,
}

impl Observer {
    /// Hears what a node says to a master, whose log had these contents.
    pub(crate) fn hear(
        &mut self,
        master: usize,
        node: NodeId,
        message: &Message,
        history: &HashMap<(Epoch, Level), Root>,
    ) {
        let at = (master, node);
        let coherent = matches!(message, Message::Status(s) if s.state == NodeState::Coherent);
        let anew = matches!(message, Message::Hello(hello) if hello.position.is_none());
        let heard = if let Message::AuditAsk(ask) = message {
            self.asks += 1;
            ask.doubt.map(|Position { epoch, level, root }| {
                root.minus(history[&(epoch, level)]) // nothing, if a heartbeat was at fault
            })
        } else if coherent || anew {
            None
        } else {
            return; // it says nothing of its content
        };
        match heard.filter(|differs| *differs != Root::EMPTY) {
            Some(differs) => self.doubts.insert(at, differs),
            None => self.doubts.remove(&at),
        };
    }

    /// Forgets what was said to a master that has ended.
    pub(crate) fn forget(&mut self, master: usize) {
        self.doubts.retain(|(of, _), _| *of != master);
    }
}

impl World {
    /// A node's memory fails.
    pub(crate) fn fail(&mut self, node: usize, fault: Fault) {
        let chance = self.random.next() >> 32;
        let n = &mut self.nodes[node];
        if let Some(table) = &mut n.table {
            table.fail(fault, chance);
            n.faulted = true;
        }
    }

    /// A master's memory fails; its disk does not.
    pub(crate) fn fail_master(&mut self, master: usize, fault: Fault) {
        let chance = self.random.next() >> 32;
        self.masters[master].log.table.fail(fault, chance);
        self.masters_failed = true;
    }

    /// A node's agent has read all memory again.
    pub(crate) fn scrub(&mut self, node: usize) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if let (Some(table), Some(receiver)) = (&mut n.table, &mut n.receiver)
            && table.scrub()
        {
            receiver.handle_doubted(now);
            self.drive_node(node);
        }
    }

    /// A node's agent has read all memory again because it was asked to.
    pub(crate) fn scrubbed(&mut self, node: usize, boot: u64) {
        let now = self.now;
        let n = &mut self.nodes[node];
        if n.boot != boot {
            return; // another agent by now
        }
        if let Some(table) = &mut n.table {
            table.scrub();
        }
        if let Some(receiver) = &mut n.receiver {
            receiver.handle_scrubbed(now, Ok(()));
            self.drive_node(node);
        }
    }

    /// An operator orders an audit; returns why that cannot be.
    pub(crate) fn order_audit(
        &mut self,
        master: usize,
        node: usize,
        order: AuditOrder,
    ) -> Option<String> {
        let (now, id) = (self.now, self.nodes[node].id);
        let sender = self.masters[master].sender.as_mut()?;
        let outcome = sender.handle_audit_order(now, id, order);
        self.drive_master(master);
        outcome.err().map(|error| error.to_string())
    }

    /// A master reads what a node has asked for.
    pub(crate) fn read_audit(&mut self, master: usize, peer: Peer, scope: AuditScope) {
        let now = self.now;
        self.check_trust(master);
        let m = &mut self.masters[master];
        let level = m.log.head().level;
        let table = &m.log.table;
        let Some(sender) = &mut m.sender else {
            return;
        };
        let group = match scope {
            AuditScope::Groups => None,
            AuditScope::Group(group) => Some(group),
            AuditScope::Partition(partition) => {
                match table.partition_records(partition) {
                    Some(records) => {
                        sender.handle_audit_records(now, peer, level, partition, records);
                    }
                    None => sender.handle_audit_refused(now, peer, AuditRefusal::Corrupt),
                }
                return;
            }
        };
        let sums = table.sums(group);
        sender.handle_audit_sums(now, peer, AuditSums { level, group, sums });
    }

    /// Carries out what an audit wants of a node's table.
    pub(crate) fn audit(&mut self, node: usize, event: ReceiverEvent) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let (Some(receiver), Some(table)) = (&mut n.receiver, &mut n.table) else {
            return;
        };
        if let ReceiverEvent::Compare { group, sums } = event {
            let differ = table.compare(group, &sums);
            receiver.handle_compared(now, Ok(differ));
        } else if let ReceiverEvent::Mend {
            partition,
            records,
            repair,
        } = event
        {
            let before = table.clone();
            let level = table.position.level;
            assert!(
                records.iter().all(|record| record.level <= level),
                "records of another level than {level}"
            );
            let mended = table.mend(partition, &records, repair);
            assert!(repair || table.same(&before), "counting changed something");
            receiver.handle_mended(now, Ok(mended));
            let name = &n.name;
            let line = match repair {
                true => format!(
                    "{name} repairs {} of partition {partition}",
                    mended.repaired
                ),
                false => format!("{name} finds {} in partition {partition}", mended.differing),
            };
            self.say(|_| line);
        } else if let ReceiverEvent::Audited {
            cause,
            verdict,
            partitions,
            differing,
            ..
        } = event
        {
            let name = &n.name;
            let line = format!(
                "{name} has audited its table ({cause}): {verdict}; {partitions} partitions, \
                 {differing} records differed"
            );
            self.say(|_| line);
            *self.seen.entry(format!("verdict.{verdict:?}")).or_default() += 1;
        }
    }

    /// No node is answered while most agree with each other against the master (rules 3.2).
    fn check_trust(&self, master: usize) {
        let Some(sender) = &self.masters[master].sender else {
            return;
        };
        let mut of = 0;
        let mut doubts: HashMap<Root, usize> = HashMap::new();
        for entry in sender.roster() {
            if entry.connected && entry.sending == Sending::Streaming {
                of += 1;
                let doubt = self.observer.doubts.get(&(master, entry.node));
                if let Some(doubt) = doubt {
                    *doubts.entry(*doubt).or_default() += 1;
                }
            }
        }
        for (doubt, nodes) in doubts {
            assert!(
                nodes < 2 || nodes * 2 <= of,
                "{nodes} of {of} nodes agree on {doubt:?} against {}",
                self.masters[master].name
            );
        }
    }

    /// Every agent reads all memory again within so long.
    pub(crate) fn scrub_all(&mut self, within: Duration) {
        for node in 0..self.nodes.len() {
            self.scrub(node);
            let nodes = u32::try_from(self.nodes.len()).unwrap();
            self.advance(within / nodes);
        }
    }
}

/// Returns whether a node's table is the master's.
pub(crate) fn same(node: Option<&Table>, master: &Table) -> bool {
    node.is_some_and(|table| table.same(master))
}
