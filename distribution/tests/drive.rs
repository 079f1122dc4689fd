//! Does what senders and receivers ask for, with logs and tables as plain as can be; it decides nothing.

use locus_distribution::{ReceiverEvent, SenderEvent};
use locus_proto::{Message, Position, v1::SnapshotEnd};

use crate::model::Op;
use crate::table::Table;
use crate::words;
use crate::world::{Event, World, link_of};

impl World {
    pub(crate) fn drive_master(&mut self, master: usize) {
        loop {
            let Some(sender) = &mut self.masters[master].sender else {
                return;
            };
            if let Some(datagram) = sender.poll_datagram() {
                self.send_datagram(master, &datagram);
                continue;
            }
            if let Some((peer, bytes)) = sender.poll_transmit() {
                self.transmit(link_of(peer), bytes);
                continue;
            }
            let Some(event) = sender.poll_event() else {
                return;
            };
            if let Some(text) = words::event(&event) {
                self.say(|w| format!("{} {text}", w.masters[master].name));
            }
            match event {
                SenderEvent::ReadLog { .. } | SenderEvent::ReadTable { .. } => {
                    let at = self.later();
                    let read = event;
                    let life = self.masters[master].life;
                    self.post_at(at, Event::Read { master, life, read });
                }
                SenderEvent::SplitScan { from, to } => {
                    let cursors = &mut self.masters[master].cursors;
                    let cursor = cursors[&from].clone();
                    cursors.insert(to, cursor);
                }
                SenderEvent::EndScan { boat } => {
                    self.masters[master].cursors.remove(&boat);
                }
                SenderEvent::PathChanged { to, .. } => {
                    *self
                        .seen
                        .entry(format!("path.{}", to.as_str()))
                        .or_default() += 1;
                }
                SenderEvent::MulticastLost { .. } | SenderEvent::MulticastBack { .. } => {}
                SenderEvent::Close { peer: of, .. } => {
                    let link = link_of(of);
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

    pub(crate) fn read(&mut self, master: usize, read: SenderEvent) {
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
                m.reads += 1;
                let frames = m.log.frames_after(after, bytes_max);
                if let Some(sender) = &mut m.sender {
                    sender.handle_frames(now, of, frames);
                }
            }
            SenderEvent::ReadTable { boat, first } => {
                if first {
                    m.cursors.remove(&boat);
                }
                let cursor = m.cursors.remove(&boat);
                let (part, next) = m.log.records_after(cursor.as_ref(), m.part_records);
                let head = m.log.head();
                let end = next.is_none().then_some(SnapshotEnd {
                    level: head.level,
                    root: head.root,
                });
                m.cursors.extend(next.map(|key| (boat, key)));
                m.parts_read += 1;
                let parts_read = m.parts_read;
                if let Some(sender) = &mut m.sender {
                    sender.handle_records(now, boat, part, end);
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
            | SenderEvent::SplitScan { .. }
            | SenderEvent::EndScan { .. }
            | SenderEvent::PathChanged { .. }
            | SenderEvent::MulticastLost { .. }
            | SenderEvent::MulticastBack { .. }
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
            if let Some(bytes) = receiver.poll_datagram() {
                self.reply(node, bytes);
                continue;
            }
            if let Some(mut message) = receiver.poll_transmit() {
                if let (Message::Hello(hello), Some(newest)) = (&mut message, n.newest) {
                    hello.newest = newest;
                }
                let bytes = message.to_bytes_in(receiver.version());
                if let Some(link) = n.link {
                    self.post(link, 1, Event::ToMaster { link, bytes });
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
                    let by_group = receiver.counters().group_frames_total;
                    if std::mem::replace(&mut n.group_frames, by_group) < by_group {
                        let text = words::frame(&frame.header);
                        self.say(|w| format!("a group brings {}: {text}", w.nodes[node].name));
                    }
                    let n = &mut self.nodes[node];
                    let receiver = n.receiver.as_mut().unwrap();
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
                ReceiverEvent::JoinGroup { .. } => self.join(node),
                ReceiverEvent::LeaveGroup => self.nodes[node].joined = None,
                ReceiverEvent::RejoinGroup => {
                    self.say(|w| format!("{} joins anew", w.nodes[node].name));
                }
                ReceiverEvent::Registered { .. } => {}
                ReceiverEvent::StateChanged { from, to, reason } => {
                    self.say(|w| format!("{} is {to}, was {from}: {reason}", w.nodes[node].name));
                }
            }
        }
    }

    /// The node's table is the log's prefix at its epoch and level, by what it really holds, unless memory has
    /// failed somewhere.
    pub(crate) fn check(&mut self, node: usize) {
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

    /// Whatever the master committed before `complete_until` is in the table (rules 2.2).
    pub(crate) fn check_completeness(&self, master: usize, node: usize) {
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
}
