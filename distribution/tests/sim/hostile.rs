//! Criterion 9: forged, replayed, reordered, duplicated and truncated datagrams, and a member that has turned: no
//! level, epoch or content changes, and memory is bounded.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::Position;

use crate::attack::Inside;
use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::Figures;
use crate::world::World;

/// What the process may grow by while it is attacked, all nodes together.
const GROWTH_MAX: f64 = 64.0 * 1024.0 * 1024.0;

fn cluster(seed: u64, nodes: usize) -> World {
    let mut network = Network::sound();
    network.reorder = 0.2;
    network.duplicate = 0.2;
    let mut world = World::new(seed, network);
    world.captured = Some(Vec::new());
    world.spy = Some(0);
    let master = world.add_master("a", Default::default());
    world.start_master(master);
    for _ in 0..nodes {
        let node = world.add_node(vec![master]);
        world.start_node(node);
    }
    world.gather(master, Duration::from_secs(20));
    world.set_load(master, Some(LOAD));
    world.advance(Duration::from_secs(2));
    world.set_load(master, None);
    world.settle(master, Duration::from_secs(10));
    world
}

const LOAD: Load = Load {
    every: Duration::from_millis(10),
    records: 2,
    value_bytes: 900,
    keys: 40,
};

fn positions(world: &World) -> Vec<Position> {
    let at = |n: &crate::parts::Node| n.receiver.as_ref().unwrap().position().unwrap();
    world.nodes.iter().map(at).collect()
}

#[test]
fn criterion_09_outsiders_change_nothing() {
    let seed = size::seed();
    let nodes = size::pick(6, 100);
    let datagrams = size::pick(3_000, 100_000);
    let mut world = cluster(seed, nodes);
    let (before, happened) = (positions(&world), world.happenings.len());
    let resident = resident();
    let mut grown = 0.0_f64;
    for _ in 0..datagrams / 100 {
        world.attack_from_outside(0, 100);
        world.advance(Duration::from_millis(5));
        grown = grown.max(self::resident() - resident);
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(
        positions(&world),
        before,
        "SEED={seed}: a level, epoch or content has changed"
    );
    let these = &world.happenings[happened..];
    assert!(these.is_empty(), "SEED={seed}: {these:?}");
    let refused: u64 = (world.nodes.iter())
        .map(|n| {
            n.receiver
                .as_ref()
                .unwrap()
                .counters()
                .group
                .refused_total()
        })
        .sum();
    let counters = world.masters[0].sender.as_ref().unwrap().counters().group;
    let at_master = counters.malformed_total
        + counters.strangers_total
        + counters.replayed_total
        + counters.unsealed_total;
    // And while the log grows.
    world.set_load(0, Some(LOAD));
    for _ in 0..20 {
        world.attack_from_outside(0, 50);
        world.advance(Duration::from_millis(50));
    }
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(10));
    let these = &world.happenings[happened..];
    assert!(these.is_empty(), "SEED={seed}: {these:?}");
    let mut figures = Figures::new("criterion_09_outsiders", seed);
    figures.add("nodes", nodes as f64, "");
    figures.add("forged_datagrams_to_each", datagrams as f64, "");
    figures.add("refused_by_nodes", refused as f64, "");
    figures.add("refused_by_master", at_master as f64, "");
    figures.beside("memory_growth_of_all", grown, "bytes", GROWTH_MAX);
    figures.publish();
    assert!(refused > 0 && at_master > 0);
    if size::is_full() {
        assert!(grown < GROWTH_MAX, "SEED={seed}: grown by {grown} bytes");
    }
}

#[test]
fn criterion_09_a_member_that_turned_changes_nothing() {
    let seed = size::seed();
    let nodes = size::pick(6, 100);
    let rounds = size::pick(4, 100);
    let mut world = cluster(seed, nodes);
    let before = positions(&world);
    let resident = resident();
    let mut grown = 0.0_f64;
    let mut sent = 0;
    for round in 0..rounds {
        let head = world.masters[0].log.head();
        let next = 1 + world.masters[0]
            .sender
            .as_ref()
            .unwrap()
            .counters()
            .group
            .data_total;
        for what in [
            Inside::Beats(next + 5_000),
            Inside::Confirms(next),
            Inside::Frames(next, head),
            Inside::Fragments(next),
            Inside::Fragments(next + 2_000),
            Inside::Gone(next + round),
        ] {
            world.attack_from_inside(what, 200);
            world.attack_master(0, 0, 20);
            sent += 220;
            world.advance(Duration::from_millis(30));
            assert_eq!(
                positions(&world),
                before,
                "SEED={seed}: {what:?} has changed something"
            );
            grown = grown.max(self::resident() - resident);
        }
    }
    // What is asked of the master because of it is little: a node leaves the group and says so, once in 5 s at most.
    let left =
        |h: &&(_, usize, Happening)| h.1 != 0 && matches!(h.2, Happening::Path(Path::Tcp, _));
    let left = world.happenings.iter().filter(left).count() as f64 / (nodes - 1) as f64;
    let lasted = 0.03 * 6.0 * rounds as f64;
    assert!(
        left <= 1.0 + lasted / 5.0,
        "SEED={seed}: {left} times per node in {lasted} s"
    );
    // It goes on over the connections meanwhile, and by the group when it is over.
    world.set_load(0, Some(LOAD));
    for _ in 0..10 {
        let next = 1 + world.masters[0]
            .sender
            .as_ref()
            .unwrap()
            .counters()
            .group
            .data_total;
        let head = world.masters[0].log.head();
        world.attack_from_inside(Inside::Frames(next, head), 20);
        world.attack_from_inside(Inside::Gone(next + 10), 5);
        world.advance(Duration::from_millis(100));
    }
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(30));
    // The operator revokes the member's certificate: another key, and peace.
    let (id, now) = (world.nodes[0].id, world.master_now(0));
    world.kill_node(0, false);
    world.masters[0]
        .sender
        .as_mut()
        .unwrap()
        .handle_removed(now, id);
    world.drive_master(0);
    world.advance(Duration::from_secs(15));
    let happened = world.happenings.len();
    world.gather(0, Duration::from_secs(180));
    let back = world.happenings.len() - happened;
    let happened = world.happenings.len();
    for _ in 0..20 {
        world.attack_from_inside(Inside::Beats(1 << 30), 20);
        world.attack_from_inside(Inside::Gone(1 << 30), 20);
        let next = 1 + world.masters[0]
            .sender
            .as_ref()
            .unwrap()
            .counters()
            .group
            .data_total;
        let head = world.masters[0].log.head();
        world.attack_from_inside(Inside::Frames(next, head), 20);
        world.advance(Duration::from_millis(50));
    }
    let these = &world.happenings[happened..];
    assert!(
        these.is_empty(),
        "SEED={seed}: after the rotation: {these:?}"
    );
    let mut figures = Figures::new("criterion_09_insider", seed);
    figures.add("nodes", nodes as f64, "");
    figures.add("sealed_datagrams", f64::from(sent), "");
    figures.beside("times_that_a_node_left", left, "", 1.0 + lasted / 5.0);
    figures.add("returns_after_the_rotation", back as f64, "");
    figures.beside("memory_growth_of_all", grown, "bytes", GROWTH_MAX);
    figures.publish();
    if size::is_full() {
        assert!(grown < GROWTH_MAX, "SEED={seed}: grown by {grown} bytes");
    }
}

/// Returns the bytes of memory that this process holds.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096.0
}
