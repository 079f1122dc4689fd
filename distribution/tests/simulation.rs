//! A cluster under random trouble, from a seed: every table is a prefix of a log at all times, unless its
//! memory fails, and all are the master's in the end. `SEED=n` runs one seed and tells what happens (with
//! `--nocapture`).

use std::collections::BTreeMap;
use std::time::Duration;

use locus_proto::{AddressOfRecord, Key, NodeState, Transport, v1::AuditOrder};

use crate::audits::same;
use crate::model::Op;
use crate::table::Fault;
use crate::world::{Mischief, World};

const NODES: usize = 20;
/// Seeds run without `SEEDS=n`, which runs more.
const SEEDS: u64 = 100;
/// Random steps of each run, and the longest time between two.
const STEPS: usize = 100;
const STEP_MS_MAX: usize = 400;
/// Longest time in which a healed cluster must agree: a node may have to wait 60 s for its next reload.
const QUIET: Duration = Duration::from_secs(180);

/// Time after which a cluster that agrees must keep quiet, and for how long nobody may ask then: longer than
/// any node waits after a refusal.
const PEACE: Duration = Duration::from_secs(46);
/// Most questions of one audit: each round all groups, and once each partition that differs.
const ASKS_MAX: u64 = 3 * (1 + 256) + 3 * 3_276;

/// What must have happened in all seeds together, or the simulation proves nothing.
const MUST_HAPPEN: [&str; 39] = [
    "plan.Continue",
    "plan.Reload(Empty)",
    "plan.Reload(LostTail)",
    "plan.Reload(TooFar)",
    "plan.Reload(UnknownEpoch)",
    "receiver.audit_answers_held_total",
    "receiver.audit_rounds_total",
    "receiver.audits_cut_total",
    "receiver.audits_given_up_total",
    "receiver.audits_refused_total",
    "receiver.gaps_total",
    "receiver.loads_failed_total",
    "receiver.masters_refused_total",
    "receiver.repaired_total",
    "receiver.root_mismatches_total",
    "receiver.silent_total",
    "sender.catch_ups_total",
    "sender.disagreements_total",
    "sender.replaced_total",
    "sender.silent_total",
    "sender.snapshots_total",
    "sender.snapshots_waited_total",
    "sender.window_full_total",
    "verdict.Differs",
    "verdict.Equal",
    "verdict.Repaired",
    "reports",
    "path.multicast",
    "path.tcp",
    "receiver.connection_frames_total",
    "receiver.group.lost_total",
    "receiver.group_frames_total",
    "receiver.group_left_total",
    "receiver.group_silent_total",
    "sender.boats_split_total",
    "sender.group.lagging_total",
    "sender.group.rotations_total",
    "sender.group_ends_total",
    "sender.multicast_lost_total",
];
/// What may happen only where a link loses or changes messages: otherwise one side broke the protocol.
const MUST_NOT_HAPPEN: [&str; 13] = [
    "receiver.group.frames_refused_total",
    "receiver.group.malformed_total",
    "receiver.group.unexpected_total",
    "receiver.group.unsealed_total",
    "sender.group.impossible_total",
    "sender.group.unsealed_total",
    "receiver.audit_answers_refused_total",
    "receiver.audit_misses_total",
    "receiver.busy_total",
    "receiver.unexpected_total",
    "sender.log_unreadable_total",
    "sender.reports_ignored_total",
    "sender.unexpected_total",
];
/// What may happen only where a link loses or changes messages, or memory fails.
const MUST_NOT_HAPPEN_TO_SOUND_MEMORY: [&str; 5] = [
    "receiver.applies_failed_total",
    "receiver.gaps_total",
    "receiver.root_mismatches_total",
    "receiver.snapshots_refused_total",
    "verdict.Repaired",
];

#[test]
fn all_tables_become_the_masters() {
    if let Ok(seed) = std::env::var("SEED") {
        run(seed.parse().unwrap(), true);
        return;
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        for (name, total) in run(seed, false) {
            let name_is_of = |names: &[&str]| names.contains(&name.as_str());
            let forbidden = honest(seed)
                && (name_is_of(&MUST_NOT_HAPPEN)
                    || sound(seed) && name_is_of(&MUST_NOT_HAPPEN_TO_SOUND_MEMORY));
            assert!(!forbidden || total == 0, "seed {seed}: {name} is {total}");
            *seen.entry(name).or_default() += total;
        }
    }
    println!("{seen:#?}");
    for name in MUST_HAPPEN {
        assert!(
            seen.get(name).is_some_and(|n| *n > 0),
            "{name} never happened"
        );
    }
}

/// Returns whether the links of this seed neither lose nor change messages.
fn honest(seed: u64) -> bool {
    seed % 2 == 1
}

/// Returns whether nobody's memory fails in this seed.
fn sound(seed: u64) -> bool {
    seed % 4 < 2
}

/// Returns whether some nodes go by the group: fewer seeds, since signatures cost.
fn grouped(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

fn run(seed: u64, told: bool) -> BTreeMap<String, u64> {
    // Printed by the test harness if the run fails.
    println!("seed {seed}: run again with SEED={seed} cargo test -p locus-distribution simulation");
    let mut cluster = Cluster::new(seed);
    if told {
        cluster.world.trace = Some(Vec::new());
    }
    for _ in 0..STEPS {
        cluster.trouble();
        let ms = cluster.world.random.below(STEP_MS_MAX);
        cluster
            .world
            .advance(Duration::from_millis(ms.try_into().unwrap()));
        cluster.tell();
    }
    cluster.heal();
    let mut waited = Duration::ZERO;
    while !cluster.agrees() {
        assert!(waited < QUIET, "seed {seed}: {}", cluster.disagreement());
        let step = Duration::from_secs(5);
        waited += step;
        cluster.world.scrub_all(step);
        cluster.tell();
    }
    cluster.world.advance(PEACE);
    let asks = cluster.world.observer.asks;
    cluster.world.advance(PEACE);
    cluster.tell();
    assert!(cluster.agrees(), "seed {seed}: it agrees no more");
    assert_eq!(cluster.world.observer.asks, asks, "seed {seed}: no peace");
    let observed = [
        ("asks", asks),
        ("alarms", cluster.world.observer.alarms),
        ("reports", cluster.world.observer.reports),
    ];
    let mut seen = cluster.world.seen();
    seen.extend(observed.map(|(name, total)| (name.to_owned(), total)));
    let audits = seen["receiver.audits_total"];
    assert!(asks <= audits * ASKS_MAX, "seed {seed}: {asks} questions");
    assert_eq!(seen["alarms"], seen["sender.disagreements_total"]);
    seen
}

struct Cluster {
    world: World,
    honest: bool,
    sound: bool,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.delay_ms_max = 20;
        let first = world.add_master("a", crate::model::Log::default());
        // Small enough that windows fill, reloads happen, and snapshots take several reads.
        world.masters[first].window_bytes = 2_000;
        world.masters[first].reload_above = world.random.chance(50).then_some(15);
        world.masters[first].group = grouped(seed);
        world.loss_percent = [0, 1, 5, 20][usize::try_from(seed / 12 % 4).unwrap()];
        world.start_master(first);
        for n in 1..=NODES {
            let node = world.add_node(&format!("n{n}"), first);
            if world.random.chance(40) {
                world.nodes[node].transport = Transport::Multicast;
            }
            world.start_node(node);
        }
        Self {
            world,
            honest: honest(seed),
            sound: sound(seed),
        }
    }

    /// One random event; writes are the most frequent.
    fn trouble(&mut self) {
        let world = &mut self.world;
        let node = world.random.below(NODES);
        let master = world.random.below(world.masters.len());
        // Where memory fails there is less other trouble, so that audits get far.
        let calm = !self.sound && world.random.chance(60);
        let event = world.random.below(if calm { 52 } else { 100 });
        match event {
            0..20 if !self.sound => self.fail(master, node),
            0..46 => self.write(master),
            46..50 if self.honest => self.write(master),
            46..50 => {
                let what = [
                    Mischief::DropFrame,
                    Mischief::TamperFrame,
                    Mischief::TamperHeartbeat,
                ];
                let what = what[world.random.below(3)];
                world.mischief.entry(node).or_default().push_back(what);
            }
            50..58 => world.cut(node),
            58..62 => world.hold(node, true),
            62..66 => world.hold(node, false),
            66 | 67 => world.stop(node, true),
            68 | 69 => world.nodes[node].deaf ^= true,
            70 if world.random.chance(50) => self.lose_power(),
            // It is removed, and comes back as another would: its keys are void.
            70 => {
                let id = world.nodes[node].id;
                world.revoke(master, id);
            }
            71..76 => {
                let silently = world.random.chance(50);
                world.kill_node(node, silently);
                if world.random.chance(30) {
                    world.nodes[node].table = None;
                    // It may take only the beginning of the next one for a while.
                    world.nodes[node].takes = world.random.chance(50).then_some(4);
                }
            }
            76..84 => {
                self.start_nodes();
                for node in 0..NODES {
                    if self.world.nodes[node].stopped {
                        self.world.stop(node, false);
                    }
                }
            }
            84..88 => {
                world.stop_master(master);
                if world.random.chance(50) {
                    let frames = world.random.below(4);
                    world.masters[master].log.lose_tail(frames); // it had not reached the disk
                }
            }
            88..92 => self.start_masters(),
            92..95 => self.clone_disk(master),
            95..98 => {
                for n in 0..NODES {
                    if world.random.chance(50) {
                        world.nodes[n].dials = master;
                    }
                }
            }
            98 if world.masters[master].sender.is_some() => {
                let id = world.epoch_id();
                world.begin_epoch(master, id);
            }
            _ => world.masters[master].clock_runs ^= true,
        }
    }

    /// Memory fails, or somebody looks for where it has.
    fn fail(&mut self, master: usize, node: usize) {
        let world = &mut self.world;
        match world.random.below(20) {
            0..3 => world.fail(node, Fault::Rot),
            3..5 => world.fail(node, Fault::Loss),
            5..7 => world.fail(node, Fault::Sum),
            7 => world.fail(node, Fault::Content),
            8 => world.fail(node, Fault::Stuck),
            9 if world.random.chance(20) => world.fail(node, Fault::Sums(3_277)),
            10 => world.fail_master(master, Fault::Rot),
            11 if world.random.chance(50) => world.fail_master(master, Fault::Sum),
            9..12 => self.write(master),
            12..17 => world.scrub(node),
            _ => {
                if world.random.chance(50) {
                    world.fail(node, Fault::Rot);
                }
                let order = AuditOrder {
                    ticket: world.random.next(),
                    repair: world.random.chance(50),
                };
                world.order_audit(master, node, order);
            }
        }
    }

    fn write(&mut self, master: usize) {
        let world = &mut self.world;
        if world.masters[master].sender.is_none() {
            return;
        }
        let mut keys: Vec<usize> = (0..30).collect();
        let ops = (0..=world.random.below(4)).map(|_| {
            let n = keys.swap_remove(world.random.below(keys.len())); // each key once in a batch
            let key = Key::aor(&AddressOfRecord::parse(&format!("u{n}@lab")).unwrap());
            match world.random.chance(25) {
                true => Op::Delete(key),
                false => Op::Put(key, vec![7; world.random.below(200)]),
            }
        });
        let ops: Vec<Op> = ops.collect();
        world.commit(master, &ops);
    }

    /// A second master from a copy of the first one's disk, older by a few frames perhaps.
    fn clone_disk(&mut self, master: usize) {
        let world = &mut self.world;
        if world.masters.len() == 3 {
            return;
        }
        let mut log = world.masters[master].log.clone();
        log.lose_tail(world.random.below(4));
        let name = ["b", "c"][world.masters.len() - 1];
        let clone = world.add_master(name, log);
        world.masters[clone].window_bytes = 2_000;
        world.masters[clone].group = world.masters[master].group;
        world.masters[clone].time = world.masters[master].time;
        world.start_master(clone);
    }

    fn start_nodes(&mut self) {
        for node in 0..NODES {
            if self.world.nodes[node].receiver.is_none() {
                self.world.start_node(node);
            }
        }
    }

    /// All nodes lose their tables and start at once; one of them is slow.
    fn lose_power(&mut self) {
        for node in 0..NODES {
            self.world.kill_node(node, true);
            self.world.nodes[node].table = None;
        }
        self.start_nodes();
        let slow = self.world.random.below(NODES);
        self.world.hold(slow, true);
    }

    fn start_masters(&mut self) {
        for master in 0..self.world.masters.len() {
            if self.world.masters[master].sender.is_none() {
                self.world.start_master(master);
            }
        }
    }

    /// Ends all trouble: one master, whose epoch is the newest, and everything runs.
    fn heal(&mut self) {
        let world = &mut self.world;
        let newest = world.newest_epoch(); // also of epochs that no disk remembers
        for master in 0..world.masters.len() {
            world.stop_master(master);
        }
        while world.masters[0].log.head().epoch.counter <= newest {
            world.start_master(0);
        }
        world.mischief.clear();
        world.masters[0].clock_runs = true;
        for node in 0..NODES {
            world.nodes[node].dials = 0;
            world.nodes[node].deaf = false;
            world.stop(node, false);
        }
        self.start_nodes();
        self.write(0);
    }

    fn agrees(&self) -> bool {
        let table = &self.world.masters[0].log.table;
        let nodes = &self.world.nodes;
        nodes.iter().all(|node| {
            let state = node.receiver.as_ref().map(|r| r.state());
            state == Some(NodeState::Coherent) && same(node.table.as_ref(), table)
        })
    }

    fn disagreement(&self) -> String {
        let head = self.world.masters[0].log.head();
        let nodes = self.world.nodes.iter().filter_map(|node| {
            let receiver = node.receiver.as_ref()?;
            let at = receiver
                .position()
                .map_or_else(|| "nothing".into(), |p| p.to_string());
            let state = receiver.state();
            let same = same(node.table.as_ref(), &self.world.masters[0].log.table);
            (state != NodeState::Coherent || !same).then(|| {
                let name = &node.name;
                let content = if same { "the same" } else { "another content" };
                let counters = receiver.counters();
                format!("\n{name} at {at}, {state}, {content}, {counters:?}")
            })
        });
        format!("the master is at {head}{}", nodes.collect::<String>())
    }

    fn tell(&mut self) {
        let now = self.world.now;
        for line in self
            .world
            .trace
            .iter_mut()
            .flat_map(|trace| trace.drain(..))
        {
            println!(
                "{:9.3} s  {line}",
                Duration::from_nanos(now.0).as_secs_f64()
            );
        }
    }
}
