//! Connections: what they delay, hold back, lose and change; nothing is decided here.

use std::collections::VecDeque;
use std::sync::Arc;

use locus_proto::{Message, Root};

use crate::words;
use crate::world::{Event, Link, Mischief, World, peer};

impl World {
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

    pub(crate) fn deliver_to_node(&mut self, link: usize, bytes: &Arc<[u8]>) {
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

    pub(crate) fn deliver_to_master(&mut self, link: usize, bytes: &[u8]) {
        let Link { master, node, .. } = self.links[link];
        let now = self.now;
        if !self.links[link].master_open {
            return;
        }
        let message = Message::from_bytes(bytes).unwrap();
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
    pub(crate) fn play(&mut self, node: usize, message: &mut Message) -> bool {
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

    pub(crate) fn transmit(&mut self, link: usize, bytes: Arc<[u8]>) {
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

    pub(crate) fn dial(&mut self, node: usize) {
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

    pub(crate) fn close_at_node(&mut self, link: usize) {
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

    pub(crate) fn close_at_master(&mut self, link: usize) {
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
}
