//! Criterion 8: a whole cluster starts with nothing at once.

use std::time::Duration;

use locus_distribution::{Path, SNAPSHOTS_MAX};

use crate::network::Network;
use crate::parts::Load;
use crate::size;
use crate::statistics::Figures;
use crate::world::{World, key};

#[test]
fn criterion_08_a_cold_start_does_not_stampede_the_master() {
    let seed = size::seed();
    let nodes = size::pick(24, 1_000);
    let records = size::pick(400, 4_000);
    let mut world = World::new(seed, Network::sound());
    let master = world.add_master("a", Default::default());
    world.start_master(master);
    for n in 0..records / 100 {
        let op = |m: usize| (key(n * 100 + m), Some(vec![1; 200]));
        world.commit(master, (0..100).map(op).collect());
    }
    world.set_load(
        master,
        Some(Load {
            every: Duration::from_millis(20),
            records: 1,
            value_bytes: 200,
            keys: records,
        }),
    );
    for _ in 0..nodes {
        let node = world.add_node(vec![master]);
        world.start_node(node);
    }
    let full = |world: &World| world.nodes.iter().all(|n| n.table.is_some());
    let mut boats = 0;
    while !full(&world) {
        assert!(world.now.since(locus_proto::Timestamp(0)) < Duration::from_secs(120));
        world.advance(Duration::from_millis(1));
        boats = boats.max(world.masters[master].boats);
    }
    let time_to_full = world.now.since(locus_proto::Timestamp(0));
    world.set_load(master, None);
    let time_to_coherent = time_to_full + world.settle(master, Duration::from_secs(30));
    world.gather(master, Duration::from_secs(30));
    let counters = world.masters[master].sender.as_ref().unwrap().counters();
    let parts = records * 220 / (32 * 1024) + 1;
    let parts_one_by_one = parts * nodes;
    let bytes = records * 220 * nodes;
    let on_the_wire = bytes as f64 / world.network.rate as f64;
    let mut figures = Figures::new("criterion_08_cold_start", seed);
    figures.add("nodes", nodes as f64, "");
    figures.add("records", records as f64, "");
    figures.beside("time_to_full", time_to_full.as_secs_f64(), "s", on_the_wire);
    figures.add("time_to_coherent", time_to_coherent.as_secs_f64(), "s");
    figures.beside(
        "readings_at_once_max",
        boats as f64,
        "",
        SNAPSHOTS_MAX as f64,
    );
    figures.add("readings", counters.boats_total as f64, "");
    figures.add("readings_split", counters.boats_split_total as f64, "");
    let read = counters.snapshot_parts_total as f64;
    figures.beside("parts_read", read, "", parts_one_by_one as f64);
    figures.publish();
    assert!(
        boats <= SNAPSHOTS_MAX,
        "SEED={seed}: {boats} readings at once"
    );
    assert_eq!(
        counters.snapshots_total,
        u64::try_from(nodes).unwrap(),
        "each loaded once"
    );
    assert!(
        read < parts_one_by_one as f64 / 2.0,
        "SEED={seed}: {read} parts read"
    );
    assert!(
        time_to_full.as_secs_f64() < on_the_wire * 2.0 + 3.0,
        "SEED={seed}: {time_to_full:?} for what takes {on_the_wire:.2} s on the wire"
    );
    assert_eq!(world.on_path(master, Path::Multicast), nodes);
}
