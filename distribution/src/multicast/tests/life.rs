//! Members come and go, keys change, messages are large: nothing is lost and nobody waits for another.

use std::time::Duration;

use locus_proto::v1::GroupLeftReason;
use locus_proto::{NodeId, Timestamp};

use super::world::{Load, MS, Network, S, World, config, seq_of};
use crate::multicast::receiver::UNPOLLED_BYTES_MAX;
use crate::multicast::{GroupReceiverEvent, WINDOW_DATAGRAMS};

fn lossy(loss: f64) -> Network {
    Network {
        loss,
        ..Network::default()
    }
}

fn load(bytes: usize) -> Option<Load> {
    Some(Load {
        every: 2 * MS,
        bytes,
        until: u64::MAX,
    })
}

#[test]
fn a_frame_of_hundreds_of_small_datagrams_arrives_whole() {
    let mut config = config(99);
    config.datagram_bytes = 1;
    let mut world = World::with(3, lossy(0.02), 5, config);
    world.tap = Some(Vec::new());
    world.send(300);
    world.send(520_000);
    world.send(300);
    world.run_until_all_have_all(S);
    world.all_in_order(1);
    let counters = world.sender.counters();
    assert!(counters.data_total > 430, "{}", counters.data_total);
    let tap = world.tap.unwrap();
    assert_eq!(tap.iter().map(|d| d.bytes.len()).max(), Some(1232));
}

#[test]
fn a_member_added_in_the_stream_gets_exactly_what_follows() {
    let mut world = World::new(2, lossy(0.05), 9);
    for _ in 0..50 {
        world.send(2000);
        world.run(MS);
    }
    let index = world.add_node(77);
    for _ in 0..50 {
        world.send(2000);
        world.run(MS);
    }
    assert!(world.nodes[index].levels.is_empty());
    world.send(2000); // gathered, not closed: the cut comes behind it
    world.join(index);
    for _ in 0..50 {
        world.send(2000);
        world.run(MS);
    }
    world.settle();
    world.run(200 * MS);
    assert!(world.nodes[index].levels.iter().copied().eq(102..=151));
    assert!(world.nodes[0].levels.iter().copied().eq(1..=151));
}

#[test]
fn rotation_under_loss_loses_nothing() {
    let mut world = World::new(4, lossy(0.1), 11);
    for _ in 0..3 {
        world.load = load(4_300);
        world.run(50 * MS);
        world.sender.rotate(Timestamp(world.now));
        world.settle();
        world.run(200 * MS);
        world.load = None;
        world.run(10 * S);
    }
    world.run_until_all_have_all(2 * S);
    world.all_in_order(1);
    assert_eq!(world.sender.counters().rotations_total, 3);
    assert_eq!((world.unrotated.len(), world.lagging.len()), (0, 0));
    world.run(S);
    // Wishes in between are one rotation, ten seconds after the last.
    let now = Timestamp(world.now);
    for _ in 0..5 {
        world.sender.rotate(now);
    }
    world.settle();
    assert_eq!(world.sender.counters().rotations_total, 4);
    world.sender.rotate(now);
    world.run(9 * S);
    assert_eq!(world.sender.counters().rotations_total, 4);
    world.run(2 * S);
    assert_eq!(world.sender.counters().rotations_total, 5);
}

#[test]
fn who_does_not_take_the_new_key_is_out_after_a_second() {
    let mut world = World::new(2, Network::default(), 1);
    world.load = load(500);
    world.run(100 * MS);
    world.answer_keys = false;
    world.sender.rotate(Timestamp(world.now));
    world.settle();
    let (id, now) = (world.nodes[0].id, Timestamp(world.now));
    let key = world.pending_key();
    world.nodes[0].receiver.handle_key(key.clone());
    world.sender.handle_key_held(now, id, key.id);
    world.run(900 * MS);
    assert_eq!((world.unrotated.len(), world.sender.members()), (0, 2));
    world.run(200 * MS);
    assert_eq!(world.unrotated, [NodeId(2)]);
    assert_eq!(world.sender.members(), 1);
    world.run(3500 * MS);
    let sent = world.sent.len();
    assert!(world.nodes[0].levels.len() >= sent - 2);
    assert!(world.nodes[1].levels.len() < sent);
    assert_eq!(
        world.nodes[1].events.last(),
        Some(&GroupReceiverEvent::Lost(GroupLeftReason::Silent))
    );
}

#[test]
fn a_stopped_member_is_out_after_half_a_second_and_holds_up_nobody() {
    let mut world = World::new(8, Network::default(), 1);
    world.load = load(4_300);
    world.run(300 * MS);
    world.nodes[3].stopped = true;
    world.run(400 * MS);
    assert_eq!(world.lagging, []);
    world.run(400 * MS);
    assert_eq!(world.lagging, [NodeId(4)]);
    world.load = None;
    world.run(100 * MS);
    let sent = world.sent.len();
    for node in world.nodes.iter().filter(|node| !node.stopped) {
        assert_eq!(node.levels.len(), sent);
    }
    assert!(world.delay_us(0.99) < 3_000);
    // What it sends now is refused.
    let refused = world.sender.counters().strangers_total;
    world.nodes[3].stopped = false;
    world.nodes[3].receiver.handle_timeout(Timestamp(world.now));
    world.drain_node(3);
    world.run(10 * MS);
    assert!(world.sender.counters().strangers_total > refused);
}

#[test]
fn a_member_that_stops_for_a_moment_is_repaired_alone() {
    let mut world = World::new(8, Network::default(), 1);
    world.load = load(4_300);
    world.run(300 * MS);
    world.nodes[3].stopped = true;
    world.run(350 * MS);
    world.nodes[3].stopped = false;
    world.run(100 * MS);
    world.load = None;
    world.run(200 * MS);
    world.all_in_order(1);
    let counters = world.sender.counters();
    assert_eq!((counters.lagging_total, counters.slowed_total), (0, 0));
    // All but the last status interval's is known to be the others': it goes to this one only.
    assert!(
        counters.repairs_node_total > counters.repairs_group_total,
        "{counters:?}"
    );
}

#[test]
fn silence_for_three_seconds_is_the_end_and_hearing_for_five_the_return() {
    let mut world = World::new(2, Network::default(), 1);
    world.run(S);
    assert_eq!(
        world.nodes[0].events,
        [GroupReceiverEvent::Heard { key: 1 }][..0]
    );
    world.lose = Some(Box::new(|_, node, _| node == 0));
    world.run(3900 * MS);
    assert_eq!(
        world.nodes[0].events,
        [GroupReceiverEvent::Lost(GroupLeftReason::Silent)]
    );
    world.lose = None;
    let at = world.now;
    while world.nodes[0].events.len() < 2 {
        world.run(100 * MS);
    }
    assert_eq!(
        world.nodes[0].events[1],
        GroupReceiverEvent::Heard { key: 1 }
    );
    assert!((5 * S..7 * S).contains(&(world.now - at)));
    assert_eq!(world.nodes[1].events, []);
}

#[test]
fn a_new_receiver_says_at_once_that_it_hears() {
    let mut world = World::new(1, Network::default(), 1);
    let index = world.add_node(5);
    world.run(2 * S);
    assert_eq!(
        world.nodes[index].events,
        [GroupReceiverEvent::Heard { key: 1 }]
    );
    assert_eq!(world.nodes[index].receiver.poll_timeout(), None);
}

#[test]
fn what_is_gone_from_the_ring_is_told() {
    let mut world = World::new(1, Network::default(), 1);
    world.run(10 * MS);
    world.sender.remove(Timestamp(world.now), NodeId(1));
    world.lose = Some(Box::new(|_, _, _| true));
    for _ in 0..45 {
        world.send(310_000);
        world.settle();
        world.run(20 * MS);
    }
    for _ in 0..40 {
        world.send(310_000);
        world.settle();
        world.run(20 * MS);
    }
    assert!(world.sender.counters().data_total > 16_384);
    world.lose = None;
    // It still believes that it is in the group: the next datagram says what is not kept any more.
    world.run(1200 * MS);
    assert_eq!(
        world.nodes[0].events,
        [GroupReceiverEvent::Lost(GroupLeftReason::Gone)]
    );
}

#[test]
fn a_group_a_whole_window_ahead_is_an_overrun() {
    let mut world = World::new(1, Network::default(), 1);
    world.run(10 * MS);
    world.sender.remove(Timestamp(world.now), NodeId(1));
    world.lose = Some(Box::new(|_, _, bytes| seq_of(bytes).is_some()));
    for _ in 0..20 {
        world.send(310_000);
        world.settle();
        world.run(20 * MS);
    }
    assert!(world.sender.counters().data_total > WINDOW_DATAGRAMS);
    assert_eq!(world.nodes[0].events, []);
    world.run(3 * S);
    assert_eq!(
        world.nodes[0].events,
        [GroupReceiverEvent::Lost(GroupLeftReason::Overrun)]
    );
}

/// A table that takes nothing: the receiver holds a bounded number of bytes, and the window waits.
#[test]
fn messages_that_are_not_polled_close_the_window() {
    let mut world = World::new(1, Network::default(), 1);
    world.nodes[0].polled = false;
    for _ in 0..20 {
        world.send(100_000);
        world.settle();
        world.run(10 * MS);
    }
    let receiver = &world.nodes[0].receiver;
    assert!(receiver.unpolled_bytes() < UNPOLLED_BYTES_MAX + 110_000);
    assert!(receiver.unpolled_bytes() >= UNPOLLED_BYTES_MAX);
    world.nodes[0].polled = true;
    world.drain_node(0);
    world.run(S / 10);
    world.all_in_order(1);
}

#[test]
fn room_ends_with_the_backlog_and_comes_back() {
    let mut world = World::new(1, Network::default(), 1);
    let mut sent = 0;
    while world.sender.room() > 0 {
        world.send(30_000);
        sent += 1;
    }
    assert_eq!(sent, 9);
    world.settle();
    world.run(Duration::from_millis(20).as_nanos().try_into().unwrap());
    assert!(world.sender.room() > 200_000);
    world.all_in_order(1);
}
