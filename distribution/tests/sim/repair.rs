//! Criteria 2 and 3: what repairs cost when each node loses by itself, and when all lose the same.

use std::time::Duration;

use locus_distribution::{GroupSenderCounters, Path};

use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::{Figures, ms};
use crate::theory::transmissions;
use crate::world::World;

/// Commits that fill whole distribution frames: a signature is verified once for 24 datagrams.
const BULK: Load = Load {
    every: Duration::from_micros(3_200),
    records: 2,
    value_bytes: 16_200,
    keys: 16,
};

/// One cell of section 4's table.
#[derive(Debug, Clone, Copy)]
struct Cell {
    nodes: usize,
    loss: f64,
    /// Repairs after which there is enough to judge.
    repairs: u64,
}

/// What a cell gave.
#[derive(Debug, Clone, Copy)]
struct Measured {
    data: u64,
    repairs: u64,
    /// Bytes of repairs over bytes of data.
    ratio: f64,
    /// Share of data that some node lost when it was sent first.
    lost: f64,
    nacks: u64,
    left: u64,
}

#[test]
fn criterion_02_repair_bytes_are_what_theory_says() {
    let seed = size::seed();
    let cells: Vec<Cell> = match size::is_full() {
        false => vec![cell(8, 0.05, 1_200), cell(16, 0.02, 1_200)],
        true => {
            let losses = [0.0001, 0.001, 0.01, 0.05];
            let nodes = [8, 64, 256, 1_000];
            let repairs = |p: f64| {
                if p < 0.001 {
                    200
                } else if p < 0.01 {
                    1_000
                } else {
                    5_000
                }
            };
            let all = nodes.into_iter().flat_map(|n| losses.map(|p| (n, p)));
            all.map(|(n, p)| cell(n, p, repairs(p))).collect()
        }
    };
    let mut figures = Figures::new("criterion_02_repair_bytes", seed);
    let mut wrong = Vec::new();
    for (cell, measured) in run_all(seed, &cells) {
        let theory = transmissions(cell.loss, cell.nodes) - 1.0;
        let name = format!("n{}_loss{}", cell.nodes, cell.loss * 100.0);
        // Chance has lost a little more or less than p at the first sending: that much is not the protocol's.
        let luck = measured.lost / -(cell.nodes as f64 * (-cell.loss).ln_1p()).exp_m1();
        let ratio = measured.ratio / theory / luck;
        figures.beside(
            format!("{name}_repair_bytes_per_data_byte"),
            measured.ratio,
            "",
            theory,
        );
        figures.beside(
            format!("{name}_less_chance"),
            measured.ratio / luck,
            "",
            theory,
        );
        figures.add(format!("{name}_datagrams"), measured.data as f64, "");
        figures.add(format!("{name}_repairs"), measured.repairs as f64, "");
        figures.add(format!("{name}_nacks"), measured.nacks as f64, "");
        // One part in `repairs` is chance: 5 % of theory, and twice what chance makes of so few.
        let chance = match size::is_full() {
            true => 0.0,
            false => 2.0 / (measured.repairs as f64).sqrt(),
        };
        if (ratio - 1.0).abs() > 0.05 + chance {
            wrong.push(format!("{name}: {ratio:.3} of theory"));
        }
        if measured.left > 0 {
            wrong.push(format!("{name}: {} left the group", measured.left));
        }
    }
    figures.publish();
    assert!(wrong.is_empty(), "SEED={seed}: {wrong:?}");
}

fn cell(nodes: usize, loss: f64, repairs: u64) -> Cell {
    Cell {
        nodes,
        loss,
        repairs,
    }
}

/// Runs the cells on two threads; each is a world of its own, so the order does not matter.
fn run_all(seed: u64, cells: &[Cell]) -> Vec<(Cell, Measured)> {
    let (even, odd): (Vec<_>, Vec<_>) = cells.iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let run_some = |some: Vec<(usize, &Cell)>| -> Vec<(usize, Measured)> {
        let run = |(n, cell): (usize, &Cell)| {
            let measured = run_cell(seed, *cell);
            println!("{cell:?}: {measured:?}"); // a cell may take a minute
            (n, measured)
        };
        some.into_iter().map(run).collect()
    };
    let mut measured = std::thread::scope(|scope| {
        let other = scope.spawn(|| run_some(odd));
        let mut all = run_some(even);
        all.extend(other.join().unwrap());
        all
    });
    measured.sort_by_key(|(n, _)| *n);
    measured.into_iter().map(|(n, m)| (cells[n], m)).collect()
}

fn run_cell(seed: u64, cell: Cell) -> Measured {
    let mut network = Network::sound();
    network.wake = Duration::from_micros(100);
    let mut world = World::cluster(seed, network, cell.nodes);
    world.masters[0].group.rate_bytes_per_s = 50_000_000;
    world.kill_master(0, false);
    world.start_master(0);
    world.gather(0, Duration::from_secs(20));
    world.network.loss = cell.loss;
    world.set_load(0, Some(BULK));
    // Until the sender knows how much is lost. Then from rest to rest: no repair is of data that is not counted.
    world.advance(Duration::from_millis(300));
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(60));
    let before = counters(&world);
    let first = (world.network.first_total, world.network.first_lost_total);
    world.set_load(0, Some(BULK));
    while repairs(&counters(&world)) - repairs(&before) < cell.repairs {
        world.advance(Duration::from_millis(20));
    }
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(60));
    let now = counters(&world);
    let data_bytes = now.data_bytes_total - before.data_bytes_total;
    let repair_bytes = now.repair_bytes_total - before.repair_bytes_total;
    let network = &world.network;
    let firsts = (
        network.first_total - first.0,
        network.first_lost_total - first.1,
    );
    let left =
        |h: &&(_, _, Happening)| matches!(h.2, Happening::Path(to, _) if to != Path::Multicast);
    Measured {
        data: now.data_total - before.data_total,
        repairs: repairs(&now) - repairs(&before),
        ratio: repair_bytes as f64 / data_bytes as f64,
        lost: firsts.1 as f64 / firsts.0 as f64,
        nacks: now.nacks_total - before.nacks_total,
        left: u64::try_from(world.happenings.iter().filter(left).count()).unwrap(),
    }
}

fn counters(world: &World) -> GroupSenderCounters {
    world.masters[0].sender.as_ref().unwrap().counters().group
}

fn repairs(counters: &GroupSenderCounters) -> u64 {
    counters.repairs_group_total + counters.repairs_node_total
}

#[test]
fn criterion_03_a_burst_lost_by_all_brings_few_nacks() {
    const BURST: u32 = 50;
    let seed = size::seed();
    let nodes = size::pick(16, 1_000);
    let bursts = size::pick(4, 12);
    let mut world = World::cluster(seed, Network::sound(), nodes);
    world.gather(0, Duration::from_secs(20));
    world.set_load(
        0,
        Some(Load {
            every: Duration::from_millis(10),
            ..BULK
        }),
    );
    world.advance(Duration::from_millis(500));
    let (mut nacks, mut longest, mut most) = (0, Duration::ZERO, 0);
    for _ in 0..bursts {
        let heard = world.masters[0].nacks_heard;
        let pause = Duration::from_millis(150) + world.random.time(Duration::from_millis(10));
        world.network.burst = BURST;
        while world.network.burst > 0 {
            world.advance(Duration::from_micros(100));
        }
        let (from, head) = (world.now, world.masters[0].log.head());
        let behind = |world: &World| {
            let level = |n: &crate::parts::Node| n.table.as_ref().unwrap().position.level;
            world.nodes.iter().any(|n| level(n) < head.level)
        };
        while behind(&world) {
            assert!(
                world.now.since(from) < Duration::from_secs(2),
                "{}",
                world.disagreement(0)
            );
            world.advance(Duration::from_micros(100));
        }
        longest = longest.max(world.now.since(from));
        world.advance(pause);
        let these = world.masters[0].nacks_heard - heard;
        nacks += these;
        most = most.max(these);
    }
    let mean = nacks as f64 / f64::from(bursts);
    let mut figures = Figures::new("criterion_03_correlated_loss", seed);
    figures.add("nodes", nodes as f64, "");
    figures.beside("nacks_per_burst", mean, "", 30.0);
    figures.beside("nacks_per_burst_max", most as f64, "", 30.0);
    figures.beside("repaired_after_max_ms", ms(longest), "ms", 50.0);
    figures.publish();
    assert!(world.network.burst_total >= u64::from(BURST) * u64::try_from(bursts).unwrap());
    assert!(mean <= 30.0, "SEED={seed}: {mean} NACKs per burst");
    assert!(
        longest <= Duration::from_millis(50),
        "SEED={seed}: {longest:?}"
    );
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(10));
}
