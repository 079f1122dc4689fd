//! Both ends of the group under a network that the input is in command of: it loses, repeats, reorders, spoils
//! and forges, from outside and as a member that knows the group's key. Whatever it does, what a node is given
//! are the master's messages, in order, each once.
#![no_main]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use locus_distribution::{
    GroupConfig, GroupReceiver, GroupReceiverEvent, GroupSender, GroupSenderEvent,
};
use locus_proto::v1::{DATAGRAM_HEADER_BYTES, GroupKey, GroupOffer, Heartbeat};
use locus_proto::{Level, MasterTime, Message, NodeId, Position, Timestamp};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const NODE: NodeId = NodeId(7);
/// Datagrams that the network keeps to deliver again.
const KEPT_MAX: usize = 64;

struct World {
    now: Timestamp,
    sender: GroupSender,
    receiver: GroupReceiver,
    key: GroupKey,
    to_node: VecDeque<Arc<[u8]>>,
    to_master: VecDeque<Vec<u8>>,
    kept: VecDeque<Arc<[u8]>>,
    sent: u64,
    given: u64,
    lost: bool,
}

impl World {
    fn new() -> Self {
        let now = Timestamp(1_000_000);
        let config = GroupConfig {
            stream: 0x5150,
            seed: [9; 32],
            datagram_bytes: 1_400,
            rate_bytes_per_s: 25_000_000,
            rate_floor_bytes_per_s: 1_000_000,
        };
        let mut sender = GroupSender::new(now, config);
        let (key, node_key, verify_key) = sender.offer(NODE);
        let offer = GroupOffer {
            stream: 0x5150,
            group: SocketAddr::from(([239, 192, 0, 1], 5801)),
            reply_port: 5801,
            key: key.clone(),
            node_key,
            verify_key,
        };
        let mut receiver = GroupReceiver::new(now, &offer, NODE, 1);
        let seq = sender.add(now, NODE);
        receiver.handle_cut(now, seq);
        Self {
            now,
            sender,
            receiver,
            key,
            to_node: VecDeque::new(),
            to_master: VecDeque::new(),
            kept: VecDeque::new(),
            sent: 0,
            given: 0,
            lost: false,
        }
    }

    fn step(&mut self, op: u8, argument: u8, input: &mut &[u8]) {
        match op % 12 {
            0 => self.send(argument),
            1 => self.wait(u64::from(argument) * 200_000),
            2 => self.wait(u64::from(argument) * 20_000_000),
            3 => {
                if let Some(datagram) = self.to_node.pop_front() {
                    self.give(&datagram);
                }
            }
            4 => drop(self.to_node.pop_front()),
            5 => {
                let number = usize::from(argument) % self.kept.len().max(1);
                if let Some(datagram) = self.kept.get(number).cloned() {
                    self.give(&datagram);
                }
            }
            6 => {
                if let Some(datagram) = self.to_node.pop_front() {
                    let mut spoilt = datagram.to_vec();
                    let at = usize::from(argument) * 7 % spoilt.len();
                    spoilt[at] ^= 1 << (argument % 8);
                    self.receiver.handle_datagram(self.now, &mut spoilt);
                }
            }
            7 => {
                let mut bytes = take(input, argument).to_vec();
                self.receiver.handle_datagram(self.now, &mut bytes);
            }
            8 => {
                let mut bytes = take(input, argument).to_vec();
                let from = SocketAddr::from(([10, 0, 0, 7], 4000));
                self.sender.handle_datagram(self.now, from, &mut bytes);
            }
            9 => self.forge(argument, take(input, argument)),
            10 => {
                if let Some(mut bytes) = self.to_master.pop_front() {
                    let from = SocketAddr::from(([10, 0, 0, 7], 4000));
                    self.sender.handle_datagram(self.now, from, &mut bytes);
                }
            }
            _ => self.sender.rotate(self.now),
        }
        self.drain();
    }

    fn send(&mut self, argument: u8) {
        for _ in 0..=argument % 32 {
            if self.sender.room() < 4_096 {
                return;
            }
            let heartbeat = Heartbeat {
                time: MasterTime(self.sent),
                head: Position::default(),
            };
            let message = Message::Heartbeat(heartbeat).to_bytes();
            self.sender.send(self.now, message.into(), Level(self.sent));
            self.sent += 1;
        }
    }

    fn wait(&mut self, nanoseconds: u64) {
        self.now = Timestamp(self.now.0 + nanoseconds);
        if self.sender.poll_timeout().is_some_and(|at| at <= self.now) {
            self.sender.handle_timeout(self.now);
        }
        if self.receiver.poll_timeout().is_some_and(|at| at <= self.now) {
            self.receiver.handle_timeout(self.now);
        }
    }

    fn give(&mut self, datagram: &Arc<[u8]>) {
        self.kept.push_back(Arc::clone(datagram));
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
        self.receiver.handle_datagram(self.now, &mut datagram.to_vec());
    }

    /// Seals what a member may seal: anything under the group's key.
    fn forge(&mut self, kind: u8, payload: &[u8]) {
        let mut header = [0_u8; DATAGRAM_HEADER_BYTES];
        header[..2].copy_from_slice(b"LM");
        header[2] = 1;
        header[3] = 1 + kind % 4;
        header[4] = self.key.id;
        header[5] = if header[3] == 1 { kind % 4 } else { 0 };
        header[8..16].copy_from_slice(&0x5150_u64.to_le_bytes());
        let seq = u64::from(payload.first().copied().unwrap_or(1)).max(1);
        header[16..24].copy_from_slice(&seq.to_le_bytes());
        header[24..32].copy_from_slice(&1_u64.to_le_bytes());
        let Ok(decoded) = locus_proto::v1::DatagramHeader::decode(&header) else {
            return;
        };
        let Ok(key) = UnboundKey::new(&AES_256_GCM, &self.key.secret) else {
            return;
        };
        let nonce = Nonce::assume_unique_for_key(decoded.nonce());
        let mut body = payload.to_vec();
        let sealed = LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(header), &mut body);
        if sealed.is_ok() {
            let mut datagram = header.to_vec();
            datagram.extend(body);
            self.receiver.handle_datagram(self.now, &mut datagram);
        }
    }

    fn drain(&mut self) {
        while let Some(datagram) = self.sender.poll_datagram() {
            self.to_node.push_back(datagram.bytes);
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                GroupSenderEvent::NewKey(key) => {
                    self.receiver.handle_key(key.clone());
                    self.key = key;
                }
                GroupSenderEvent::Lagging(_) | GroupSenderEvent::Unrotated(_) => self.leave(),
            }
        }
        while let Some(datagram) = self.receiver.poll_datagram() {
            self.to_master.push_back(datagram);
        }
        while let Some(message) = self.receiver.poll_message() {
            let Message::Heartbeat(heartbeat) = message else {
                panic!("the master has sent no {message:?}");
            };
            assert!(!self.lost, "nothing is given once the group was left");
            assert_eq!(heartbeat.time, MasterTime(self.given), "in order, each once");
            self.given += 1;
            assert!(self.given <= self.sent, "only what was sent");
        }
        while let Some(event) = self.receiver.poll_event() {
            match event {
                GroupReceiverEvent::Heard { key } => {
                    self.sender.handle_key_held(self.now, NODE, key);
                }
                GroupReceiverEvent::Lost(_) => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        self.lost = true;
        self.receiver.handle_left(self.now);
        self.sender.remove(self.now, NODE);
    }
}

fn take<'i>(input: &mut &'i [u8], length: u8) -> &'i [u8] {
    let length = usize::from(length).min(input.len());
    let (head, rest) = input.split_at(length);
    *input = rest;
    head
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut rest = input;
    while let [op, argument, tail @ ..] = rest {
        rest = tail;
        world.step(*op, *argument, &mut rest);
    }
});
