//! The group under load, and nodes of two wire versions beside each other.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::{AddressOfRecord, Key, NodeState, Transport, WireVersion};

use crate::audits::same;
use crate::model::{Log, Op};
use crate::world::World;

/// Updates of one frame, and milliseconds between frames: 10,000 updates a second.
const FRAME: usize = 20;
const FRAME_MS: u64 = 2;

/// Returns a master with a group, and so many nodes in it.
fn cluster(nodes: usize, old: impl Fn(usize) -> bool) -> World {
    let mut world = World::new(1);
    let master = world.add_master("a", Log::default());
    world.masters[master].group = true;
    world.masters[master].transport = Transport::Multicast;
    world.start_master(master);
    for n in 0..nodes {
        let node = world.add_node(&format!("n{}", n + 1), master);
        world.nodes[node].newest = old(n).then_some(1);
        world.start_node(node);
    }
    world.advance(Duration::from_secs(1));
    world
}

fn write(world: &mut World, n: usize) {
    let put = |i: usize| {
        let name = format!("u{}@lab", (n * FRAME + i) % 60);
        let key = Key::aor(&AddressOfRecord::parse(&name).unwrap());
        Op::Put(key, vec![7; 200])
    };
    let ops: Vec<Op> = (0..FRAME).map(put).collect();
    world.commit(0, &ops);
}

#[test]
fn at_10_000_updates_a_second_nodes_in_the_group_stay_coherent() {
    let mut world = cluster(3, |_| false);
    let reads = world.masters[0].reads;
    for n in 0..2_000 {
        write(&mut world, n);
        world.advance(Duration::from_millis(FRAME_MS));
        for node in &world.nodes {
            let state = node.receiver.as_ref().unwrap().state();
            assert_eq!(state, NodeState::Coherent, "{} after {n} frames", node.name);
        }
    }
    world.advance(Duration::from_millis(100));
    let sender = world.masters[0].sender.as_ref().unwrap();
    for entry in sender.roster() {
        assert_eq!(entry.path, Path::Multicast);
        assert_eq!(entry.connection_frame_bytes_total, 0);
    }
    // Read once for all three, whatever was committed between two reads.
    assert!(world.masters[0].reads - reads <= 2_000);
    for node in &world.nodes {
        assert!(same(node.table.as_ref(), &world.masters[0].log.table));
        assert_eq!(node.group_frames, 2_000);
    }
}

/// With the feature `synthetic-v2` there is a second version, and one of three nodes does not speak it.
#[test]
fn nodes_of_two_versions_follow_one_master_by_one_group() {
    let mut world = cluster(3, |n| n == 1);
    for n in 0..10 {
        write(&mut world, n);
        world.advance(Duration::from_millis(300));
    }
    let sender = world.masters[0].sender.as_ref().unwrap();
    let newest = WireVersion::NEWEST.get();
    let versions: Vec<u8> = sender.roster().iter().map(|entry| entry.version).collect();
    assert_eq!(versions, [newest, 1, newest]);
    for node in &world.nodes {
        let receiver = node.receiver.as_ref().unwrap();
        assert_eq!(receiver.state(), NodeState::Coherent);
        assert!(same(node.table.as_ref(), &world.masters[0].log.table));
        assert_eq!(receiver.counters().unexpected_total, 0);
    }
    // Over their connections they follow as well.
    for node in &mut world.nodes {
        node.deaf = true;
    }
    world.advance(Duration::from_secs(4));
    for n in 0..10 {
        write(&mut world, n);
        world.advance(Duration::from_millis(300));
    }
    for node in &world.nodes {
        let receiver = node.receiver.as_ref().unwrap();
        assert_eq!(receiver.state(), NodeState::Coherent);
        assert!(receiver.counters().connection_frames_total > 0);
        assert!(same(node.table.as_ref(), &world.masters[0].log.table));
    }
}
