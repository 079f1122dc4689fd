//! Criterion 4: receivers that take half of what is offered; the prototype must fail it, the product must not.

use std::time::Duration;

use crate::network::Network;
use crate::parts::Load;
use crate::size;
use crate::statistics::Figures;
use crate::v1;
use crate::world::World;

/// Payload of a full datagram of 1,400 bytes.
const PAYLOAD: f64 = 1_352.0;
const RECORD: usize = 16_200;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) nodes: usize,
    /// What the pacer lets leave; each receiver takes half of it.
    pub(crate) datagrams_per_s: f64,
    /// Datagrams that wait at a receiver at most.
    pub(crate) queue: usize,
    pub(crate) lasts: Duration,
    pub(crate) sample: Duration,
}

/// What was seen, sample by sample.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// Datagrams per second that the slowest receiver got in order.
    goodput: Vec<f64>,
    /// Repairs among all that was sent.
    repair_share: Vec<f64>,
    pub(crate) nacks: u64,
}

impl Overload {
    pub(crate) fn sample(&mut self, goodput: f64, data: f64, repairs: f64) {
        self.goodput.push(goodput);
        self.repair_share.push(repairs / (data + repairs).max(1.0));
    }

    /// Returns the mean goodput and the mean share of repairs in the second half.
    fn settled(&self) -> (f64, f64) {
        let half = self.goodput.len() / 2;
        let mean = |all: &[f64]| all[half..].iter().sum::<f64>() / (all.len() - half) as f64;
        (mean(&self.goodput), mean(&self.repair_share))
    }

    /// Returns the goodput of the worst second of the second half.
    fn worst(&self) -> f64 {
        let half = self.goodput.len() / 2;
        self.goodput[half..]
            .iter()
            .copied()
            .fold(f64::MAX, f64::min)
    }

    /// The criterion itself: goodput settles at no less than half of what receivers can take, in no second below an
    /// eighth of it (a rate that is halved twice must rise again), and repairs are no more than half of what is sent.
    fn judge(&self, scene: &Scene) -> Result<(), String> {
        let (goodput, share) = self.settled();
        let takes = scene.datagrams_per_s / 2.0;
        if share > 0.5 {
            return Err(format!("repairs are {share:.2} of what is sent"));
        }
        if goodput < takes / 2.0 {
            return Err(format!("goodput is {goodput:.0} of {takes:.0} datagrams/s"));
        }
        let half = self.goodput.len() / 2;
        let worst = self.goodput[half..]
            .iter()
            .copied()
            .fold(f64::MAX, f64::min);
        if worst < takes / 8.0 {
            return Err(format!("goodput falls to {worst:.0} of {takes:.0}"));
        }
        Ok(())
    }
}

#[test]
fn criterion_04_overload_settles_and_the_prototype_did_not() {
    let seed = size::seed();
    let scene = Scene {
        nodes: size::pick(6, 100),
        datagrams_per_s: size::pick(4_000.0, 17_857.0), // 200 Mbit/s at full size
        queue: 1_000,
        lasts: Duration::from_secs(8),
        sample: Duration::from_secs(1),
    };
    let (product, left) = run(seed, &scene);
    let prototype_scene = Scene {
        nodes: scene.nodes.min(64), // as measured in section 3.4
        ..scene
    };
    let prototype = v1::run(seed, &prototype_scene);
    let mut figures = Figures::new("criterion_04_overload", seed);
    let takes = scene.datagrams_per_s / 2.0;
    for (name, of, nodes) in [
        ("product", &product, scene.nodes),
        ("v1", &prototype, prototype_scene.nodes),
    ] {
        let (goodput, share) = of.settled();
        figures.add(format!("{name}_nodes"), nodes as f64, "");
        figures.beside(format!("{name}_goodput"), goodput, "datagrams/s", takes);
        figures.beside(
            format!("{name}_goodput_of_the_worst_second"),
            of.worst(),
            "datagrams/s",
            takes,
        );
        figures.beside(format!("{name}_repair_share"), share, "", 0.5);
        figures.add(format!("{name}_nacks"), of.nacks as f64, "");
    }
    figures.add("product_nodes_that_left", left as f64, "");
    figures.publish();
    let verdict = product.judge(&scene);
    assert_eq!(verdict, Ok(()), "SEED={seed}: {product:?}");
    let verdict = prototype.judge(&prototype_scene);
    assert!(verdict.is_err(), "SEED={seed}: v1 passes: {prototype:?}");
}

/// Runs the product; returns also how often a node left the group.
fn run(seed: u64, scene: &Scene) -> (Overload, usize) {
    let mut world = World::cluster(seed, Network::sound(), scene.nodes);
    let rate = scene.datagrams_per_s * 1_400.0;
    let group = &mut world.masters[0].group;
    group.rate_bytes_per_s = format!("{rate:.0}").parse().unwrap();
    group.rate_floor_bytes_per_s = group.rate_bytes_per_s / 100;
    world.kill_master(0, false);
    world.start_master(0);
    world.gather(0, Duration::from_secs(20));
    for node in &mut world.nodes {
        node.port.service = Duration::from_secs_f64(2.0 / scene.datagrams_per_s);
        node.port.queue_max = scene.queue;
    }
    // More is committed than can leave.
    let per_commit = 2.0 * RECORD as f64 / PAYLOAD;
    world.set_load(
        0,
        Some(Load {
            every: Duration::from_secs_f64(per_commit / scene.datagrams_per_s),
            records: 2,
            value_bytes: RECORD,
            keys: 16,
        }),
    );
    let happened = world.happenings.len();
    let begun = counters(&world).nacks_total;
    let mut out = Overload::default();
    let mut before = (counters(&world), slowest(&world));
    let samples = scene.lasts.as_secs_f64() / scene.sample.as_secs_f64();
    for _ in 0..format!("{samples:.0}").parse::<u32>().unwrap() {
        world.advance(scene.sample);
        let now = (counters(&world), slowest(&world));
        // Two records, and so two levels, in a commit.
        let levels = now.1 - before.1;
        let goodput = levels as f64 / 2.0 * per_commit / scene.sample.as_secs_f64();
        let data = now.0.data_bytes_total - before.0.data_bytes_total;
        let repairs = now.0.repair_bytes_total - before.0.repair_bytes_total;
        out.sample(goodput, data as f64, repairs as f64);
        before = now;
    }
    out.nacks = counters(&world).nacks_total - begun;
    let left = world.happenings.len() - happened;
    // And all comes to its end.
    world.set_load(0, None);
    for node in &mut world.nodes {
        node.port.service = Duration::ZERO;
    }
    world.settle(0, Duration::from_secs(120));
    (out, left)
}

fn counters(world: &World) -> locus_distribution::GroupSenderCounters {
    world.masters[0].sender.as_ref().unwrap().counters().group
}

fn slowest(world: &World) -> u64 {
    let level = |n: &crate::parts::Node| n.table.as_ref().unwrap().position.level.0;
    world.nodes.iter().map(level).min().unwrap()
}
