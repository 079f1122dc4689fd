//! Strangers, members that were taken over, and a network that plays datagrams again.

use locus_proto::v1::{
    DATAGRAM_HEADER_BYTES, DatagramHeader, DatagramKind, FragmentFlags, GroupBeat, GroupLeftReason,
    Nack, SEAL_BYTES, SeqRange,
};
use locus_proto::{NodeId, Timestamp};

use super::world::{MS, Network, S, World, address, config, seq_of};
use crate::multicast::draw::Draw;
use crate::multicast::receiver::UNPOLLED_BYTES_MAX;
use crate::multicast::{GroupReceiver, GroupReceiverEvent, WINDOW_DATAGRAMS};
use crate::seal::{Purpose, Seal, derive};

/// The group's key, as every member has it.
fn group_seal() -> Seal {
    Seal::new(&derive(&config(99).seed, 99, Purpose::Group(1)))
}

fn header(kind: DatagramKind, seq: u64) -> DatagramHeader {
    DatagramHeader {
        kind,
        key: 1,
        flags: FragmentFlags::NONE,
        node: NodeId(0),
        stream: 99,
        seq,
        low: 1,
    }
}

fn sealed(seal: &Seal, header: &DatagramHeader, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; DATAGRAM_HEADER_BYTES];
    datagram.extend_from_slice(payload);
    datagram.resize(datagram.len() + SEAL_BYTES, 0);
    seal.seal(header, &mut datagram);
    datagram
}

fn forged_data(seq: u64, first: bool, last: bool) -> Vec<u8> {
    let mut header = header(DatagramKind::Data, seq);
    header.flags = FragmentFlags { first, last };
    sealed(&group_seal(), &header, &[0x5a; 200])
}

fn give(world: &mut World, mut datagram: Vec<u8>) {
    let now = Timestamp(world.now);
    world.nodes[0].receiver.handle_datagram(now, &mut datagram);
    world.drain_node(0);
}

/// The most that a receiver may hold.
fn is_bounded(receiver: &GroupReceiver) -> bool {
    let window = usize::try_from(WINDOW_DATAGRAMS).unwrap() * 1400;
    receiver.held_bytes() <= window + 557_132 && receiver.unpolled_bytes() <= UNPOLLED_BYTES_MAX
}

#[test]
fn a_hundred_thousand_hostile_datagrams_change_nothing() {
    let mut world = World::new(1, Network::default(), 1);
    world.tap = Some(Vec::new());
    for _ in 0..20 {
        world.send(3_000);
        world.run(3 * MS);
    }
    world.all_in_order(1);
    let true_ones: Vec<Vec<u8>> = world
        .tap
        .take()
        .unwrap()
        .iter()
        .map(|d| d.bytes.to_vec())
        .collect();
    let stranger = Seal::new(&[1; 32]);
    let mut draw = Draw::new(3);
    let mut pick = |max: usize| {
        (0..max)
            .rev()
            .find(|i| draw.unit() * 100.0 > f64::from(u32::try_from(i % 100).unwrap()))
            .unwrap_or(0)
    };
    let before = world.nodes[0].receiver.counters();
    for round in 0..100_000_u64 {
        let original = &true_ones[usize::try_from(round).unwrap() % true_ones.len()];
        let mut datagram = original.clone();
        match round % 8 {
            0 => {}                                                                   // played again
            1 => datagram.truncate(pick(datagram.len())),                             // cut
            2 => datagram[usize::try_from(round / 8).unwrap() % original.len()] ^= 1, // one bit
            3 => datagram[16..24].copy_from_slice(&(100 + round).to_le_bytes()),      // moved ahead
            4 => datagram[8] ^= 0xff, // another stream
            5 => datagram[4] = 9,     // another key
            6 => {
                // A stranger's, well formed, in the window.
                let kind = if round % 16 < 8 {
                    DatagramKind::Data
                } else {
                    DatagramKind::Beat
                };
                datagram = sealed(&stranger, &header(kind, 60 + round % 4000), &[0; 100]);
            }
            _ => datagram = vec![0xa5; pick(1600)],
        }
        give(&mut world, datagram);
    }
    let node = &world.nodes[0];
    let after = node.receiver.counters();
    assert_eq!(after.datagrams_total, before.datagrams_total, "{after:?}");
    assert_eq!(after.messages_total, before.messages_total);
    assert_eq!(node.levels.len(), 20);
    assert_eq!(node.events, []);
    assert_eq!(node.receiver.held_bytes(), 0);
    let refused = after.refused_total() + after.duplicates_total - before.duplicates_total;
    assert_eq!(refused, 100_000);
    // And the stream goes on.
    world.send(3_000);
    world.run(10 * MS);
    world.all_in_order(1);
}

#[test]
fn the_sender_refuses_what_no_member_sealed() {
    let mut world = World::new(2, Network::default(), 1);
    world.send(3_000);
    world.run(200 * MS);
    let nack = |node: u16, seal: &Seal, seq: u64| {
        let mut header = header(DatagramKind::Nack, seq);
        (header.node, header.key) = (NodeId(node), 0);
        let mut payload = Vec::new();
        let range = SeqRange { first: 1, count: 3 };
        Nack {
            ranges: vec![range],
        }
        .encode(&mut payload);
        sealed(seal, &header, &payload)
    };
    let own = |node: u16, offer: u64| {
        Seal::new(&derive(&[7; 32], 99, Purpose::Node(NodeId(node), offer)))
    };
    let first_offer = world.offer_of(0);
    let seal = own(1, first_offer);
    let now = Timestamp(world.now);
    let give = |world: &mut World, mut datagram: Vec<u8>| {
        world.sender.handle_datagram(now, address(0), &mut datagram);
    };
    give(&mut world, nack(9, &own(9, 0), 1)); // no member
    give(&mut world, nack(2, &seal, 50)); // speaks for another
    give(&mut world, nack(1, &group_seal(), 50)); // with the group's key
    let counters = world.sender.counters();
    assert_eq!((counters.strangers_total, counters.unsealed_total), (1, 2));
    assert_eq!(counters.nacks_total, 0);
    give(&mut world, nack(1, &seal, 50));
    give(&mut world, nack(1, &seal, 50)); // played again
    give(&mut world, nack(1, &seal, 49));
    let counters = world.sender.counters();
    assert_eq!((counters.nacks_total, counters.replayed_total), (1, 2));
    // A node that is offered the group anew has another key; the old one is void.
    let offer = super::world::offer(&mut world.sender, NodeId(1), 99);
    world.sender.add(now, NodeId(1));
    give(&mut world, nack(1, &seal, 51));
    assert_eq!(world.sender.counters().unsealed_total, 3);
    give(&mut world, nack(1, &Seal::new(&offer.node_key), 1));
    assert_eq!(world.sender.counters().nacks_total, 2);
    // Of the master's own kinds it takes none, nor noise.
    give(&mut world, forged_data(1, true, true));
    give(&mut world, vec![0; 3]);
    assert_eq!(world.sender.counters().malformed_total, 2);
}

/// A member seals data in the place of what is to come. It is never delivered, and blocks nothing for ever.
#[test]
fn forged_data_is_thrown_away_and_the_true_data_asked_for() {
    for (first, last) in [(true, true), (true, false), (false, false), (false, true)] {
        let mut world = World::new(1, Network::default(), 1);
        world.send(300);
        world.run(10 * MS);
        give(&mut world, forged_data(2, first, last)); // where the next frame begins
        give(&mut world, forged_data(4, first, last)); // and in the middle of it
        world.send(5_000);
        world.send(300);
        world.run(100 * MS);
        world.all_in_order(1);
        let receiver = &world.nodes[0].receiver;
        assert!(receiver.counters().frames_refused_total > 0);
        assert_eq!(world.nodes[0].events, []);
        assert!(is_bounded(receiver));
    }
}

#[test]
fn who_forges_on_drives_the_node_to_its_connection() {
    let mut world = World::new(1, Network::default(), 1);
    for round in 0..200 {
        let next = world.sender.counters().data_total + 1;
        for seq in next..next + 8 {
            give(&mut world, forged_data(seq, true, seq % 2 == 0));
        }
        world.send(5_000);
        world.run(3 * MS);
        if !world.nodes[0].events.is_empty() {
            println!("left after {round} rounds");
            break;
        }
    }
    world.run(20 * MS);
    let lost = GroupReceiverEvent::Lost(GroupLeftReason::Mistrusted);
    assert_eq!(world.nodes[0].events, [lost]);
    let levels = &world.nodes[0].levels;
    let last = u64::try_from(levels.len()).unwrap();
    assert!(
        levels.iter().copied().eq(1..=last),
        "only true ones, in order"
    );
}

/// A member fills the whole window with its own, which has neither beginning nor end: bounded, and thrown
/// away when it is longer than any frame.
#[test]
fn a_window_full_of_forgeries_is_bounded() {
    let mut world = World::new(1, Network::default(), 1);
    for seq in 2..10_000 {
        give(&mut world, forged_data(seq, false, false));
    }
    assert!(world.nodes[0].receiver.held_bytes() > 700_000);
    assert!(is_bounded(&world.nodes[0].receiver));
    for _ in 0..40 {
        world.send(3_000);
        world.run(10 * MS);
    }
    assert!(is_bounded(&world.nodes[0].receiver));
    assert!(world.nodes[0].receiver.counters().frames_refused_total > 0);
    world.all_in_order(1);
}

/// Control that a member forged: at most one farewell comes of it, never a message.
#[test]
fn forged_control_moves_no_message() {
    let beat = |seq: u64, highest: u64, low: u64| {
        let mut payload = Vec::new();
        GroupBeat {
            highest,
            level: u64::MAX,
            members: u16::MAX,
            rtt_us: u32::MAX,
            back_off: u8::MAX,
            sent_us: u64::MAX,
        }
        .encode(&mut payload);
        let mut header = header(DatagramKind::Beat, seq);
        header.low = low;
        sealed(&group_seal(), &header, &payload)
    };
    // It names data that does not exist: asked for, seldom, and what exists comes through.
    let mut world = World::new(1, Network::default(), 1);
    give(&mut world, beat(1000, u64::MAX - 1, 1));
    for _ in 0..20 {
        world.send(3_000);
        world.run(20 * MS);
    }
    world.run(500 * MS);
    world.all_in_order(1);
    assert!(world.nacks < 20, "{}", world.nacks);
    // With a group that large it would speak seldom: the sender may take it for lagging, once.
    assert!(world.sender.counters().lagging_total <= 1);
    assert_eq!(world.nodes[0].events, []);
    // It says that all is gone: one farewell.
    give(&mut world, beat(u64::MAX, 1, u64::MAX));
    for seq in 1..100 {
        give(&mut world, beat(u64::MAX - seq, 1, u64::MAX));
    }
    let lost = GroupReceiverEvent::Lost(GroupLeftReason::Gone);
    assert_eq!(world.nodes[0].events, [lost]);
    world.run(3 * S);
    assert_eq!(world.nodes[0].levels.len(), 20);
}

/// Anything that a member can seal, drawn at random, to a node that listens and to one that follows: no message,
/// bounded memory, at most one farewell for each time in the group.
#[test]
fn nothing_that_a_member_seals_becomes_a_message() {
    let group = group_seal();
    for follows in [false, true] {
        let mut world = World::new(1, Network::default(), 1);
        if !follows {
            world.nodes[0].receiver.handle_left(Timestamp(world.now));
        }
        let mut draw = Draw::new(17);
        let mut word = |edge: bool| {
            let any = draw.unit().to_bits().rotate_left(20) ^ draw.unit().to_bits();
            match any % 8 {
                0 if edge => u64::MAX,
                1 if edge => u64::MAX - 1,
                2 if edge => 1 << 40,
                _ => 1 + any % 6000,
            }
        };
        for _ in 0..50_000 {
            let kinds = [
                DatagramKind::Data,
                DatagramKind::Beat,
                DatagramKind::Confirm,
                DatagramKind::Gone,
            ];
            let kind = kinds[usize::try_from(word(false) % 4).unwrap()];
            let mut header = header(kind, word(true));
            if kind == DatagramKind::Data {
                header.flags.first = word(false) % 5 == 0;
                header.flags.last = word(false) % 5 == 0;
            }
            header.low = if follows { 1 } else { word(true) };
            let mut payload = Vec::new();
            match word(false) % 3 {
                0 => payload.resize(usize::try_from(word(false) % 1300).unwrap(), 0x5a),
                1 => GroupBeat {
                    highest: word(true),
                    level: word(true),
                    members: u16::MAX,
                    rtt_us: u32::MAX,
                    back_off: u8::MAX,
                    sent_us: word(true),
                }
                .encode(&mut payload),
                _ => {
                    let ranges = vec![SeqRange {
                        first: word(false),
                        count: u16::MAX,
                    }];
                    Nack { ranges }.encode(&mut payload);
                }
            }
            give(&mut world, sealed(&group, &header, &payload));
            world.now += MS / 20;
            let now = Timestamp(world.now);
            world.nodes[0].receiver.handle_timeout(now);
            world.drain_node(0);
        }
        let node = &world.nodes[0];
        assert!(node.levels.is_empty());
        assert!(is_bounded(&node.receiver));
        let lost = |event: &&GroupReceiverEvent| matches!(event, GroupReceiverEvent::Lost(_));
        assert!(node.events.iter().filter(lost).count() <= usize::from(follows));
    }
}

/// A member that asks for everything again and again gets no more than the repairs' share.
#[test]
fn a_greedy_member_is_held_to_the_share_of_repairs() {
    let mut world = World::new(8, Network::default(), 1);
    for _ in 0..200 {
        world.send(4_300);
        world.run(2 * MS);
    }
    let seal = Seal::new(&derive(
        &[7; 32],
        99,
        Purpose::Node(NodeId(1), world.offer_of(0)),
    ));
    for round in 0..500_u64 {
        let mut header = header(DatagramKind::Nack, 1000 + round);
        (header.node, header.key) = (NodeId(1), 0);
        let mut payload = Vec::new();
        let range = SeqRange {
            first: 1,
            count: u16::MAX,
        };
        Nack {
            ranges: vec![range],
        }
        .encode(&mut payload);
        let mut datagram = sealed(&seal, &header, &payload);
        world
            .sender
            .handle_datagram(Timestamp(world.now), address(0), &mut datagram);
        world.send(4_300);
        world.run(2 * MS);
    }
    world.run(20 * MS);
    world.all_in_order(1);
    let counters = world.sender.counters();
    assert!(counters.repair_bytes_total < 13_000_000, "{counters:?}");
    assert!(world.delay_us(0.99) < 10_000, "{} µs", world.delay_us(0.99));
    assert!(seq_of(&[]).is_none());
}
