//! Criterion 7: the switch cuts the group off, and only the group; each node finds it, is served, and returns.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::Timestamp;
use locus_proto::v1::GroupLeftReason;

use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::Figures;
use crate::world::World;

/// A node calls the group silent 3 s after it heard it last; a message and a timer more.
const FOUND_MAX: Duration = Duration::from_millis(3_100);
const LAG_MAX: Duration = Duration::from_secs(5);

#[test]
fn criterion_07_igmp_silence_is_found_and_left_and_returned_from() {
    let seed = size::seed();
    let mut figures = Figures::new("criterion_07_igmp_silence", seed);
    // The switch hears the querier again by itself; or it must be told by a join.
    for (name, forgotten) in [("deaf", false), ("forgotten", true)] {
        let outcome = run(seed, forgotten);
        let limit = FOUND_MAX.as_secs_f64();
        figures.add(format!("{name}_nodes"), outcome.nodes as f64, "");
        figures.add(format!("{name}_nodes_cut_off"), outcome.silent as f64, "");
        figures.beside(
            format!("{name}_found_max"),
            outcome.found.as_secs_f64(),
            "s",
            limit,
        );
        figures.beside(
            format!("{name}_level_lag_max"),
            outcome.lag.as_secs_f64(),
            "s",
            5.0,
        );
        figures.add(format!("{name}_alarms"), outcome.alarms as f64, "");
        figures.add(
            format!("{name}_returned_after_max"),
            outcome.returned.as_secs_f64(),
            "s",
        );
    }
    figures.publish();
}

struct Outcome {
    nodes: usize,
    silent: usize,
    found: Duration,
    lag: Duration,
    alarms: usize,
    returned: Duration,
}

fn run(seed: u64, forgotten: bool) -> Outcome {
    let nodes = size::pick(8, 1_000);
    let mut world = World::cluster(seed, Network::sound(), nodes);
    world.gather(0, Duration::from_secs(20));
    let load = Load {
        every: Duration::from_millis(250),
        records: 1,
        value_bytes: 200,
        keys: 50,
    };
    world.set_load(0, Some(load));
    world.advance(Duration::from_secs(1));
    let silent = world.random.pick(nodes / 2, nodes);
    for node in &silent {
        world.nodes[*node].class = 1;
        match forgotten {
            true => world.nodes[*node].port.forgotten = true,
            false => world.nodes[*node].port.deaf = true,
        }
    }
    world
        .latency
        .iter_mut()
        .for_each(|l| *l = Default::default());
    let (from, happened) = (world.now, world.happenings.len());
    let first = |world: &World, node: usize, what: &dyn Fn(Happening) -> bool| {
        let mut since = world.happenings[happened..].iter();
        let found = since.find(|h| h.1 == node && what(h.2));
        found.map(|h| h.0)
    };
    let lost = |what| what == Happening::Lost(GroupLeftReason::Silent);
    let left = |what| matches!(what, Happening::Path(Path::Tcp, _));
    world.advance(Duration::from_secs(8));
    let mut found = Duration::ZERO;
    for node in &silent {
        let at = first(&world, *node, &left).expect("found at all");
        found = found.max(at.since(from));
        assert!(
            first(&world, *node, &lost).is_some(),
            "no alarm for node {node}"
        );
    }
    let alarms = world.happenings.iter().filter(|h| lost(h.2)).count();
    assert_eq!(alarms, silent.len(), "SEED={seed}: alarms");
    assert!(found <= FOUND_MAX, "SEED={seed}: found after {found:?}");
    let lag = world.latency[1].max();
    assert!(lag < LAG_MAX, "SEED={seed}: {lag:?} behind");
    assert!(
        world.latency[0].max() < Duration::from_millis(50),
        "SEED={seed}: the others noticed: {:?}",
        world.latency[0].max()
    );
    // Nothing changes while it lasts: no node goes to and fro.
    world.advance(Duration::from_secs(20));
    assert_eq!(world.on_path(0, Path::Multicast), nodes - silent.len());
    let mended: Timestamp = world.now;
    for node in &silent {
        world.nodes[*node].port.deaf = false;
    }
    world.gather(0, Duration::from_secs(90));
    let returned = world.now.since(mended);
    for node in &silent {
        let back = |what| what == Happening::Back;
        assert!(
            first(&world, *node, &back).is_some(),
            "node {node} is back and nobody was told"
        );
        let rejoined = first(&world, *node, &|what| what == Happening::Rejoin);
        assert!(rejoined.is_some() || !forgotten);
    }
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(10));
    Outcome {
        nodes,
        silent: silent.len(),
        found,
        lag,
        alarms,
        returned,
    }
}
