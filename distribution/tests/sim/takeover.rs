//! Criterion 6 and the lineage: masters that die, standbys that take over, disks that were copied.

use std::time::Duration;

use locus_distribution::Path;
use locus_proto::v1::Plan;
use locus_proto::{EpochId, Level, ReloadReason, Verdict};

use crate::log::Log;
use crate::network::Network;
use crate::parts::{Happening, Load};
use crate::size;
use crate::statistics::Figures;
use crate::world::{World, key, table_of};

/// How the standby's log compares with what the nodes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standby {
    /// It has everything.
    Equal,
    /// The newest frames had not reached it.
    Shorter,
    /// It has written changes of its own instead.
    Diverged,
}

fn load() -> Load {
    Load {
        every: Duration::from_millis(size::pick(100, 200)),
        records: 2,
        value_bytes: 200,
        keys: 60,
    }
}

#[test]
fn criterion_06_a_standby_takes_over_with_a_new_epoch() {
    let seed = size::seed();
    let nodes = size::pick(8, 1_000);
    let mut figures = Figures::new("criterion_06_takeover", seed);
    figures.add("nodes", nodes as f64, "");
    for (standby, silently) in [
        (Standby::Equal, false),
        (Standby::Equal, true),
        (Standby::Shorter, true),
        (Standby::Diverged, true),
    ] {
        let outcome = take_over(seed, nodes, standby, silently);
        let name = format!("{standby:?}_{}", if silently { "power" } else { "crash" });
        figures.add(
            format!("{name}_coherent_after"),
            outcome.coherent.as_secs_f64(),
            "s",
        );
        figures.add(
            format!("{name}_in_the_group_after"),
            outcome.gathered.as_secs_f64(),
            "s",
        );
        figures.add(
            format!("{name}_nodes_that_went_on"),
            outcome.went_on as f64,
            "",
        );
        figures.add(
            format!("{name}_nodes_that_reloaded"),
            outcome.reloaded as f64,
            "",
        );
        match standby {
            Standby::Equal => assert_eq!(outcome.reloaded, 0, "SEED={seed}"),
            Standby::Shorter | Standby::Diverged => {
                assert_eq!(
                    outcome.reloaded, nodes,
                    "SEED={seed}: all held what the standby does not"
                );
            }
        }
    }
    figures.publish();
}

struct Outcome {
    coherent: Duration,
    gathered: Duration,
    went_on: usize,
    reloaded: usize,
}

fn take_over(seed: u64, nodes: usize, standby: Standby, silently: bool) -> Outcome {
    let mut world = World::cluster(seed, Network::sound(), nodes);
    for node in &mut world.nodes {
        node.dials = vec![0, 1];
    }
    world.set_load(0, Some(load()));
    world.advance(Duration::from_secs(2));
    world.gather(0, Duration::from_secs(20));
    world.advance(Duration::from_secs(2));
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(10));
    let mut log = world.masters[0].log.clone();
    match standby {
        Standby::Equal => {}
        Standby::Shorter | Standby::Diverged => log.lose_tail(5),
    }
    let other = world.add_master("b", log);
    world.captured = Some(Vec::new());
    world.set_load(0, Some(load()));
    world.advance(Duration::from_millis(400));
    world.set_load(0, None);
    if standby == Standby::Equal {
        let log = world.masters[0].log.clone();
        world.masters[other].log = log;
    }
    world.advance(Duration::from_secs(1));
    world.kill_master(0, silently);
    let (from, happened) = (world.now, world.happenings.len());
    world.start_master(other);
    if standby == Standby::Diverged {
        // As many changes as were lost, and others.
        for n in 0..10 {
            world.commit(other, vec![(key(n), Some(b"of the standby".to_vec()))]);
        }
    }
    world.set_load(other, Some(load()));
    world.settle_under_load(other, Duration::from_secs(60));
    let coherent = world.now.since(from);
    world.gather(other, Duration::from_secs(60));
    let gathered = world.now.since(from);
    // What the old master said is of no interest to anybody.
    for bytes in world.captured.take().unwrap() {
        world.inject(bytes);
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(world.on_path(other, Path::Multicast), nodes);
    let ups = |plan: &dyn Fn(Plan) -> bool| {
        let up = |h: &&(_, _, Happening)| matches!(h.2, Happening::Up(p) if plan(p));
        world.happenings[happened..].iter().filter(up).count()
    };
    let went_on = ups(&|plan| plan == Plan::Continue);
    let reloaded = ups(&|plan| matches!(plan, Plan::Reload(_)));
    // The old master comes back from its own disk, unaware: no node listens to it.
    let before = world.masters_refused_total;
    world.start_master(0);
    for node in 0..nodes.min(20) {
        world.nodes[node].dials = vec![0, other];
        world.reset(node);
    }
    world.advance(Duration::from_secs(15));
    assert!(
        world.masters_refused_total > before,
        "nobody met the old master"
    );
    world.set_load(other, None);
    world.settle(other, Duration::from_secs(30));
    let epoch = world.masters[other].log.head().epoch;
    assert!(
        world
            .nodes
            .iter()
            .all(|n| n.table.as_ref().unwrap().position.epoch == epoch)
    );
    Outcome {
        coherent,
        gathered,
        went_on,
        reloaded,
    }
}

#[test]
fn criterion_06_a_restart_with_the_same_epoch_is_impossible() {
    let seed = size::seed();
    let mut world = World::cluster(seed, Network::sound(), 4);
    world.gather(0, Duration::from_secs(10));
    let mut seen = vec![(world.masters[0].log.head().epoch, world.masters[0].stream)];
    for _ in 0..5 {
        world.kill_master(0, false);
        world.start_master(0);
        world.settle(0, Duration::from_secs(30));
        seen.push((world.masters[0].log.head().epoch, world.masters[0].stream));
    }
    for pair in seen.windows(2) {
        let [(before, stream), (after, other)] = pair else {
            unreachable!("windows of two");
        };
        assert_eq!(after.counter, before.counter + 1);
        assert_ne!((after.id, stream), (before.id, other));
    }
    // The log itself refuses it.
    let mut lineage = world.masters[0].log.lineage.clone();
    let newest = lineage.newest().unwrap();
    assert!(lineage.push(newest.epoch, newest.start).is_err());
    // And a disk from before the last start that is started with the same number is another epoch by its id: the
    // nodes have followed the first and refuse the second.
    let mut log = world.masters[0].log.clone();
    log.lose_tail(1);
    let before = world.masters_refused_total;
    let restored = world.add_master("b", log);
    world.start_master_as(restored, EpochId([9; 16]));
    let (ours, theirs) = (&world.masters[0], &world.masters[restored]);
    assert_eq!(
        ours.log.head().epoch.counter,
        theirs.log.head().epoch.counter
    );
    world.kill_master(0, false);
    for node in &mut world.nodes {
        node.dials = vec![restored];
    }
    world.commit(restored, vec![(key(1), Some(b"second".to_vec()))]);
    world.advance(Duration::from_secs(60));
    let id = world.masters[0].log.head().epoch.id;
    assert!(
        world
            .nodes
            .iter()
            .all(|n| n.table.as_ref().unwrap().position.epoch.id == id)
    );
    assert!(world.masters_refused_total >= before + 4);
}

/// Rules 1.2: comparing with the newest start level only would let it go on.
#[test]
fn lineage_a_node_two_epochs_behind_with_a_lost_tail_reloads() {
    let seed = size::seed();
    let mut world = World::cluster(seed, Network::sound(), 3);
    let write = |world: &mut World, from: usize, few: usize| {
        for n in from..from + few {
            world.commit(0, vec![(key(n), Some(vec![5; 50]))]);
        }
    };
    write(&mut world, 0, 20);
    world.settle(0, Duration::from_secs(10));
    // Ten more reach the first node alone; then the disk forgets five of them.
    world.kill_node(1, false);
    world.kill_node(2, false);
    write(&mut world, 20, 10);
    world.settle(0, Duration::from_secs(10));
    world.kill_node(0, true);
    world.kill_master(0, false);
    world.masters[0].log.lose_tail(5);
    world.start_master(0);
    // Another epoch, and another, both beyond where the first node stands.
    write(&mut world, 40, 3);
    world.kill_master(0, false);
    world.start_master(0);
    write(&mut world, 50, 20);
    let (node, log) = (&world.nodes[0], &world.masters[0].log);
    let at = node.table.as_ref().unwrap().position;
    assert!(at.level < log.head().level && at.epoch.counter + 2 == log.head().epoch.counter);
    let verdict = log.lineage.judge(at.epoch, at.level, log.head().level);
    assert_eq!(verdict, Verdict::Reload(ReloadReason::LostTail));
    let happened = world.happenings.len();
    (0..3).for_each(|node| world.start_node(node));
    world.settle(0, Duration::from_secs(30));
    let plan_of = |node: usize| {
        let mut these = world.happenings[happened..].iter();
        these.find_map(|h| match h.2 {
            Happening::Up(plan) if h.1 == node => Some(plan),
            _ => None,
        })
    };
    assert_eq!(plan_of(0), Some(Plan::Reload(ReloadReason::LostTail)));
    // The others were below the tail that was lost: what they lack suffices.
    assert_eq!(plan_of(1), Some(Plan::Continue));
    assert_eq!(plan_of(2), Some(Plan::Continue));
    world.gather(0, Duration::from_secs(20));
}

/// Rules 7.1: nodes follow one of them and refuse the other; their datagrams mean nothing to each other's nodes.
#[test]
fn lineage_of_two_masters_from_one_cloned_disk_nodes_follow_one() {
    let seed = size::seed();
    let nodes = size::pick(8, 100);
    let mut world = World::cluster(seed, Network::sound(), nodes);
    world.set_load(0, Some(load()));
    world.advance(Duration::from_secs(1));
    world.settle_under_load(0, Duration::from_secs(10));
    world.set_load(0, None);
    world.kill_master(0, false);
    let clone = world.masters[0].log.clone();
    let other = world.add_master("b", clone);
    // Both start from the same disk: the same number of epoch, another id, other keys, another stream.
    world.start_master(0);
    world.start_master(other);
    let (a, b) = (world.masters[0].log.head(), world.masters[other].log.head());
    assert_eq!((a.epoch.counter, a.level), (b.epoch.counter, b.level));
    assert_ne!(a.epoch.id, b.epoch.id);
    assert_ne!(world.masters[0].stream, world.masters[other].stream);
    for (n, node) in world.nodes.iter_mut().enumerate() {
        node.dials = if n % 2 == 0 {
            vec![0, other]
        } else {
            vec![other, 0]
        };
    }
    world.set_load(0, Some(load()));
    world.set_load(other, Some(load()));
    world.advance(Duration::from_secs(8));
    let followed: Vec<EpochId> = (world.nodes.iter())
        .map(|n| n.table.as_ref().unwrap().position.epoch.id)
        .collect();
    // Nobody changes sides, whatever it hears: also not when its own master is gone.
    for node in &mut world.nodes {
        node.dials = vec![0, other];
    }
    let before = world.masters_refused_total;
    world.kill_master(other, false);
    world.advance(Duration::from_secs(10));
    for (node, id) in world.nodes.iter().zip(&followed) {
        assert_eq!(node.table.as_ref().unwrap().position.epoch.id, *id);
    }
    assert!(world.masters_refused_total > before);
    let of_a = followed.iter().filter(|id| **id == a.epoch.id).count();
    let of_b = followed.iter().filter(|id| **id == b.epoch.id).count();
    assert_eq!(of_a + of_b, nodes);
    assert!(of_a > 0 && of_b > 0, "{of_a} and {of_b}");
    // A newer epoch of one of them ends it.
    world.kill_master(0, false);
    world.start_master(0);
    world.set_load(0, None);
    world.settle(0, Duration::from_secs(120));
    world.gather(0, Duration::from_secs(60));
}

/// A node that was given the whole log by hand stands where the log says.
#[test]
fn lineage_a_table_made_from_the_log_goes_on() {
    let mut world = World::new(size::seed(), Network::sound());
    // Beyond 32 bits: nothing counts in fewer than 64.
    let beyond = u64::from(u32::MAX);
    let log = Log::beginning(beyond, Level(beyond - 5));
    let master = world.add_master("a", log);
    world.start_master(master);
    for n in 0..20 {
        world.commit(master, vec![(key(n), Some(vec![1; 10]))]);
    }
    let node = world.add_node(vec![master]);
    world.nodes[node].table = Some(table_of(&world.masters[master].log));
    world.start_node(node);
    world.settle(master, Duration::from_secs(10));
    assert_eq!(world.nodes[node].loads_total, 0);
    assert!(world.masters[master].log.head().level.0 > beyond);
}
