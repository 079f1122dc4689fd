//! Criterion 5: nodes that stand still; the others do not notice, and each returns by the right rung of the ladder.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::ReloadReason;
use locus_proto::v1::Plan;

use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::{Figures, ms};
use crate::world::{World, key};

/// How a node came back to the log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// From the sender's ring: it never left the group.
    Ring,
    /// What it lacked came over its connection.
    Delta,
    /// The same, over a new connection.
    Greeting,
    /// The whole table.
    Snapshot,
}

/// One case.
#[derive(Debug, Clone, Copy)]
struct Case {
    nodes: usize,
    stopped: usize,
    lasts: Duration,
    load: Load,
}

#[derive(Debug)]
struct Outcome {
    p99: Duration,
    rungs: Vec<Rung>,
    /// Until the last of them was at the log's end again.
    back: Duration,
    /// Until all were in the group again.
    gathered: Duration,
}

/// So long a message may wait to be gathered anyhow: a p99 below it disturbs nobody, whatever the ratio. At the small
/// size three updates of 250 are the p99, and those that leave while three nodes are sent what they missed share the
/// master's link with that.
const GATHERED: Duration = Duration::from_millis(2);

#[test]
fn criterion_05_stopped_nodes_disturb_nobody_and_return() {
    let seed = size::seed();
    let fast = load(Duration::from_millis(20), 1, 200);
    let slow = load(Duration::from_millis(size::pick(200, 500)), 1, 200);
    let hourly = load(Duration::from_secs(10), 16, 1_000);
    let hasty = load(Duration::from_millis(400), 16, 1_000);
    let s = Duration::from_secs;
    let short = Duration::from_millis(300);
    let cases: Vec<(usize, Duration, Load, &[usize], Rung)> = size::pick(
        vec![
            (8, short, fast, &[1, 3], Rung::Ring),
            (8, s(5), fast, &[3], Rung::Delta),
            (6, s(20), slow, &[2], Rung::Greeting),
            // In 40 s as much as in an hour at full size.
            (4, s(40), hasty, &[2], Rung::Snapshot),
        ],
        vec![
            (1_000, short, fast, &[1, 10, 100], Rung::Ring),
            // In a group of 1,000 a status is due each 2 s only: who closes no window is given five of them.
            (1_000, s(5), fast, &[1, 10, 100], Rung::Ring),
            (100, s(5), fast, &[1, 10], Rung::Delta),
            (1_000, s(60), slow, &[1, 10, 100], Rung::Greeting),
            (20, s(3_600), hourly, &[1, 10], Rung::Snapshot),
            (110, s(3_600), hourly, &[100], Rung::Snapshot),
        ],
    );
    let mut figures = Figures::new("criterion_05_stopped_nodes", seed);
    let mut wrong = Vec::new();
    for (nodes, lasts, load, stops, rung) in cases {
        let case = |stopped| Case {
            nodes,
            stopped,
            lasts,
            load,
        };
        let outcomes = std::thread::scope(|scope| {
            let others = scope.spawn(|| run(seed, case(0)));
            let outcomes: Vec<Outcome> = stops.iter().map(|k| run(seed, case(*k))).collect();
            (others.join().unwrap(), outcomes)
        });
        let quiet = outcomes.0;
        for (stopped, outcome) in stops.iter().zip(outcomes.1) {
            let name = format!("n{nodes}_{stopped}_stopped_{}s", lasts.as_secs_f64());
            let (p99, before) = (ms(outcome.p99), ms(quiet.p99));
            figures.beside(format!("{name}_p99_of_others_ms"), p99, "ms", before);
            figures.add(format!("{name}_back_ms"), ms(outcome.back), "ms");
            figures.add(
                format!("{name}_gathered_s"),
                outcome.gathered.as_secs_f64(),
                "s",
            );
            let right = outcome.rungs.iter().filter(|r| **r == rung).count();
            figures.beside(
                format!("{name}_by_{rung:?}"),
                right as f64,
                "nodes",
                *stopped as f64,
            );
            if p99 >= (before * 2.0).max(ms(GATHERED)) {
                wrong.push(format!("{name}: p99 {p99} ms, was {before} ms"));
            }
            if right < *stopped {
                wrong.push(format!("{name}: {:?}", outcome.rungs));
            }
        }
    }
    figures.publish();
    assert!(wrong.is_empty(), "SEED={seed}: {wrong:#?}");
}

fn load(every: Duration, records: usize, value_bytes: usize) -> Load {
    Load {
        every,
        records,
        value_bytes,
        keys: 200,
    }
}

fn run(seed: u64, case: Case) -> Outcome {
    let mut world = World::cluster(seed, Network::sound(), case.nodes);
    // A table of a megabyte: a minute's changes cost less, an hour's cost more.
    for n in 0..100 {
        world.commit(0, vec![(key(1_000 + n), Some(vec![1; 10_000]))]);
    }
    world.settle(0, Duration::from_secs(30));
    world.gather(0, Duration::from_secs(30));
    let stopped = world.random.pick(case.stopped, case.nodes);
    for node in &stopped {
        world.nodes[*node].class = 1;
    }
    world
        .latency
        .iter_mut()
        .for_each(|l| *l = Default::default());
    world.set_load(0, Some(case.load));
    world.advance(Duration::from_secs(1).max(case.load.every));
    let loads = |world: &World| -> Vec<u64> {
        stopped
            .iter()
            .map(|n| world.nodes[*n].loads_total)
            .collect()
    };
    let before = loads(&world);
    let happened = world.happenings.len();
    stopped.iter().for_each(|node| world.stop(*node));
    world.advance(case.lasts);
    stopped.iter().for_each(|node| world.resume(*node));
    let from = world.now;
    let head = world.masters[0].log.head().level;
    let behind = |world: &World| {
        let at = |node: &usize| world.nodes[*node].table.as_ref().unwrap().position.level;
        stopped.iter().any(|node| at(node) < head)
    };
    while behind(&world) {
        assert!(
            world.now.since(from) < Duration::from_secs(90),
            "{}",
            world.disagreement(0)
        );
        world.advance(Duration::from_millis(1));
    }
    let back = world.now.since(from);
    world.advance(Duration::from_secs(2));
    world.set_load(0, None);
    let after = loads(&world);
    let rungs = stopped
        .iter()
        .zip(before.iter().zip(&after))
        .map(|(node, loads)| {
            let mut these = world.happenings[happened..].iter().filter(|h| h.1 == *node);
            let greeted = these
                .clone()
                .any(|h| matches!(h.2, Happening::Up(Plan::Continue)));
            let snapshot = these
                .clone()
                .any(|h| h.2 == Happening::Up(Plan::Reload(ReloadReason::TooFar)));
            match (loads.0 == loads.1, snapshot, greeted) {
                (false, true, _) => Rung::Snapshot,
                (true, false, true) => Rung::Greeting,
                (true, false, false)
                    if these.any(|h| matches!(h.2, Happening::Path(Path::Tcp, _))) =>
                {
                    Rung::Delta
                }
                (true, false, false) => Rung::Ring,
                other => panic!("node {node} came back by {other:?}"),
            }
        });
    let rungs = rungs.collect();
    world.settle(0, Duration::from_secs(90));
    let gathered = world.gather(0, Duration::from_secs(180));
    Outcome {
        p99: world.latency[0].quantile(99),
        rungs,
        back,
        gathered,
    }
}
