//! Criterion 10: keys change while datagrams are lost, clocks jump, links are narrow, numbers are beyond 32 bits.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::{Level, MasterTime};

use crate::log::Log;
use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::{Figures, ms};
use crate::world::World;

fn load() -> Load {
    Load {
        every: Duration::from_millis(size::pick(50, 20)),
        records: 2,
        value_bytes: 700,
        keys: 40,
    }
}
/// Longest datagram of a link with an MTU of 1,280: less the headers of IPv6 and UDP.
const NARROW: usize = 1_280 - 40 - 8;

fn cluster(seed: u64, network: Network, nodes: usize, log: Log) -> World {
    let mut world = World::new(seed, network);
    let master = world.add_master("a", log);
    world.masters[master].group.datagram_bytes = NARROW;
    world.start_master(master);
    for _ in 0..nodes {
        let node = world.add_node(vec![master]);
        world.start_node(node);
    }
    world.gather(master, Duration::from_secs(20));
    world
}

#[test]
fn criterion_10_keys_change_under_loss_and_nothing_is_lost() {
    let seed = size::seed();
    let nodes = size::pick(8, 100);
    let losses = size::pick(vec![0.05], vec![0.01, 0.05, 0.2]);
    let mut figures = Figures::new("criterion_10_rotation", seed);
    figures.add("nodes", nodes as f64, "");
    for loss in losses {
        let mut network = Network::sound();
        network.datagram_max = NARROW;
        network.loss = loss;
        network.loss_back = loss.min(0.05);
        network.reorder = 0.1;
        let beyond = u64::from(u32::MAX);
        let log = Log::beginning(beyond - 1, Level(beyond - 3));
        let mut world = cluster(seed, network, nodes, log);
        world.set_load(0, Some(load()));
        world.advance(Duration::from_secs(1));
        world
            .latency
            .iter_mut()
            .for_each(|l| *l = Default::default());
        let happened = world.happenings.len();
        let by_connection = frames_by_connection(&world);
        let rotations = 2;
        // Each time another member is revoked.
        for revoked in 0..rotations {
            let (id, now) = (world.nodes[revoked].id, world.master_now(0));
            world.kill_node(revoked, false);
            world.masters[0]
                .sender
                .as_mut()
                .unwrap()
                .handle_removed(now, id);
            world.drive_master(0);
            world.advance(Duration::from_secs(11));
        }
        let these = world.happenings[happened..].iter();
        let left: Vec<_> = these
            .filter(|h| matches!(h.2, Happening::Path(Path::Tcp, _)))
            .collect();
        let counters = world.masters[0].sender.as_ref().unwrap().counters();
        let name = format!("loss{}", loss * 100.0);
        let rotated = counters.group.rotations_total as f64;
        figures.beside(format!("{name}_rotations"), rotated, "", rotations as f64);
        figures.add(format!("{name}_nodes_that_left"), left.len() as f64, "");
        let (p99, max) = (world.latency[0].quantile(99), world.latency[0].max());
        figures.add(format!("{name}_visible_p99_ms"), ms(p99), "ms");
        figures.add(format!("{name}_visible_max_ms"), ms(max), "ms");
        assert!(left.is_empty(), "SEED={seed}: {name}: {left:?}");
        assert_eq!(
            by_connection,
            frames_by_connection(&world),
            "all by the group"
        );
        assert!(
            rotated >= rotations as f64,
            "SEED={seed}: {rotated} rotations"
        );
        assert_eq!(world.network.too_long_total, 0, "an MTU of 1,280");
        world.set_load(0, None);
        world.network.loss = 0.0;
        world.settle(0, Duration::from_secs(10));
    }
    figures.publish();
}

fn frames_by_connection(world: &World) -> u64 {
    let sender = world.masters[0].sender.as_ref().unwrap();
    sender.counters().connection_frame_bytes_total
}

#[test]
fn criterion_10_clocks_jump_and_the_hosts_clock_does_not_matter() {
    let seed = size::seed();
    let nodes = size::pick(8, 100);
    let hour = Duration::from_secs(3_600);
    let run = || {
        let mut world = cluster(seed, Network::sound(), nodes, Log::default());
        world.network.loss = 0.01;
        world.set_load(0, Some(load()));
        world.advance(Duration::from_secs(1));
        // A node's clock: its timers are overdue, all at once.
        world.nodes[0].ahead += hour;
        world.advance(Duration::from_secs(5));
        // The master's host, and the service's own time.
        world.masters[0].ahead += hour;
        world.advance(Duration::from_secs(5));
        world.masters[0].time_base = MasterTime(world.masters[0].time_base.0 + 3_600_000);
        world.advance(Duration::from_secs(5));
        world.set_load(0, None);
        let settled = world.settle(0, Duration::from_secs(60));
        let gathered = world.gather(0, Duration::from_secs(120));
        (world.digest, settled, gathered)
    };
    // The same numbers, though the clock on the wall is another: no core reads one.
    let (first, second) = (run(), run());
    assert_eq!(first, second, "SEED={seed}: the same seed has two outcomes");
    let mut figures = Figures::new("criterion_10_clocks", seed);
    figures.add("nodes", nodes as f64, "");
    figures.add("coherent_after", first.1.as_secs_f64(), "s");
    figures.add("in_the_group_after", first.2.as_secs_f64(), "s");
    figures.publish();
}
