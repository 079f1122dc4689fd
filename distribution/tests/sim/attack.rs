//! What an attacker sends: from outside, without any key, and from inside, with what a member knows; it receives
//! nothing but what a spy tells it.

use std::sync::Arc;

use locus_proto::v1::{
    Confirm, DATAGRAM_HEADER_BYTES, DatagramHeader, DatagramKind, FragmentFlags, Gone, GroupBeat,
    GroupStatus, Nack, SeqRange,
};
use locus_proto::{
    Change, ChangeOp, Frame, FrameHeader, FrameKind, MasterTime, Message, NodeId, Position, Root,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::node::address_of;
use crate::random::Random;
use crate::world::{Event, World, key};

/// How an outsider makes a datagram of one that he has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgery {
    Replayed,
    Truncated,
    Flipped,
    Renumbered,
    Lengthened,
    Noise,
}

const FORGERIES: [Forgery; 6] = [
    Forgery::Replayed,
    Forgery::Truncated,
    Forgery::Flipped,
    Forgery::Renumbered,
    Forgery::Lengthened,
    Forgery::Noise,
];

impl World {
    /// Sends forged datagrams to the group and to the reply port, `count` of each.
    pub(crate) fn attack_from_outside(&mut self, master: usize, count: usize) {
        let captured = self.captured.clone().unwrap_or_default();
        for _ in 0..count {
            let forged = forge(&mut self.random, &captured);
            self.queue
                .post(self.now, Event::Group(forged.clone().into()));
            let from = address_of(self.random.below(self.nodes.len() + 5));
            self.queue
                .post(self.now, Event::Reply(master, from, forged));
        }
    }

    /// Sends what a member with all its keys can seal: to the group `count` of one kind, with these numbers.
    pub(crate) fn attack_from_inside(&mut self, what: Inside, count: usize) {
        let offer = self
            .stolen_offer
            .clone()
            .expect("a member was offered the group");
        let newest = self.stolen_keys.last().expect("it holds a key").clone();
        for n in 0..count {
            let more = u64::try_from(n).unwrap();
            let (kind, seq, low, payload) = what.make(&mut self.random, more);
            let header = DatagramHeader {
                kind,
                key: newest.id,
                flags: what.flags(),
                node: NodeId(0),
                stream: offer.stream,
                seq,
                low,
            };
            let sealed = seal(&header, &payload, &newest.secret);
            self.queue.post(self.now, Event::Group(sealed.into()));
        }
    }

    /// Sends, sealed with a member's own key, NACKs and statuses that make no sense; also in others' names.
    pub(crate) fn attack_master(&mut self, master: usize, spy: usize, count: usize) {
        let offer = self
            .stolen_offer
            .clone()
            .expect("a member was offered the group");
        for n in 0..count {
            let seq = 1_000_000 + u64::try_from(n).unwrap();
            let node = match self.random.chance(0.5) {
                true => spy,
                false => self.random.below(self.nodes.len()),
            };
            let mut payload = Vec::new();
            let kind = match self.random.chance(0.5) {
                true => {
                    let first = 1 + self.random.next() % 5_000_000;
                    let count = u16::MAX;
                    let ranges = vec![SeqRange { first, count }];
                    Nack { ranges }.encode(&mut payload);
                    DatagramKind::Nack
                }
                false => {
                    let status = GroupStatus {
                        contiguous: self.random.next(),
                        highest: self.random.next(),
                        lost_total: self.random.next(),
                        nacks_total: 0,
                        beat_us: self.random.next(),
                        held_us: 0,
                    };
                    status.encode(&mut payload);
                    DatagramKind::Status
                }
            };
            let header = DatagramHeader {
                kind,
                key: 0,
                flags: FragmentFlags::NONE,
                node: self.nodes[node].id,
                stream: offer.stream,
                seq,
                low: 0,
            };
            let sealed = seal(&header, &payload, &offer.node_key);
            let event = Event::Reply(master, address_of(node), sealed);
            self.queue.post(self.now, event);
        }
    }
}

/// What an insider sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Inside {
    /// Beats that promise data which is not there.
    Beats(u64),
    /// Confirms for everything.
    Confirms(u64),
    /// Data that are gone, it says.
    Gone(u64),
    /// Whole frames of changes, with a signature of its own, from this datagram on.
    Frames(u64, Position),
    /// Fragments without end.
    Fragments(u64),
}

impl Inside {
    fn make(self, random: &mut Random, n: u64) -> (DatagramKind, u64, u64, Vec<u8>) {
        let mut payload = Vec::new();
        // Control has a sequence of its own: far ahead of the master's.
        let ahead = (1 << 40) + n;
        match self {
            Self::Beats(highest) => {
                let beat = GroupBeat {
                    highest: highest + n * 1_000,
                    level: u64::MAX / 2,
                    members: u16::MAX,
                    rtt_us: u32::MAX,
                    back_off: u8::MAX,
                    sent_us: random.next(),
                };
                beat.encode(&mut payload);
                (DatagramKind::Beat, ahead, 1, payload)
            }
            Self::Confirms(first) => {
                let count = u16::MAX;
                let ranges = vec![SeqRange { first, count }];
                Confirm { ranges }.encode(&mut payload);
                (DatagramKind::Confirm, ahead, 1, payload)
            }
            Self::Gone(low) => {
                Gone { low: low + n }.encode(&mut payload);
                (DatagramKind::Gone, ahead, low + n, payload)
            }
            Self::Frames(seq, at) => {
                payload.resize(64, 0);
                random.fill(&mut payload);
                payload.extend(forged_frame(at).to_bytes());
                (DatagramKind::Data, seq + n, 1, payload)
            }
            Self::Fragments(seq) => {
                payload.resize(1_300, 7);
                (DatagramKind::Data, seq + n * 3, 1, payload)
            }
        }
    }

    fn flags(self) -> FragmentFlags {
        match self {
            Self::Frames(..) => FragmentFlags {
                first: true,
                last: true,
            },
            Self::Beats(_) | Self::Confirms(_) | Self::Gone(_) | Self::Fragments(_) => {
                FragmentFlags::NONE
            }
        }
    }
}

/// Returns a frame that would follow `at`, and that the master never made.
fn forged_frame(at: Position) -> Message {
    let level = at.level.plus(1);
    let header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch: at.epoch,
        from: at.level,
        to: level,
        root_before: at.root,
        root_after: Root([13, 13]),
        time: MasterTime(0),
    };
    let op = ChangeOp::Put(b"forged".to_vec());
    let changes = vec![Change {
        key: key(1),
        level,
        op,
    }];
    Message::Frame(Frame { header, changes })
}

fn forge(random: &mut Random, captured: &[Arc<[u8]>]) -> Vec<u8> {
    let mut bytes = match captured.len() {
        0 => Vec::new(),
        len => captured[random.below(len)].to_vec(),
    };
    match FORGERIES[random.below(FORGERIES.len())] {
        _ if bytes.is_empty() => noise(random, &mut bytes),
        Forgery::Replayed => {}
        Forgery::Truncated => bytes.truncate(random.below(bytes.len())),
        Forgery::Flipped => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        Forgery::Renumbered if bytes.len() >= DATAGRAM_HEADER_BYTES => {
            let seq = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
            let other = seq.wrapping_add(1 + random.next() % 5_000);
            bytes[16..24].copy_from_slice(&other.to_le_bytes());
        }
        Forgery::Lengthened | Forgery::Renumbered => {
            bytes.resize(bytes.len() + 1 + random.below(3_000), 0);
        }
        Forgery::Noise => noise(random, &mut bytes),
    }
    bytes
}

fn noise(random: &mut Random, bytes: &mut Vec<u8>) {
    bytes.resize(random.below(1_500), 0);
    random.fill(bytes);
    // Most of it looks like ours at first sight.
    if bytes.len() >= 4 && random.chance(0.8) {
        bytes[..3].copy_from_slice(&[b'L', b'M', 1]);
        bytes[3] = 1 + u8::try_from(random.below(7)).unwrap();
    }
}

/// Seals as every member can.
fn seal(header: &DatagramHeader, payload: &[u8], secret: &[u8; 32]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).unwrap());
    let head = header.encode();
    let mut sealed = payload.to_vec();
    let nonce = Nonce::assume_unique_for_key(header.nonce());
    key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut sealed)
        .unwrap();
    let mut datagram = head.to_vec();
    datagram.extend(sealed);
    datagram
}
