//! Data under loss and overload: latency, bytes, NACKs.

use std::collections::BTreeMap;

use super::world::{Load, MS, Network, S, World, seq_of};

/// 10,000 updates of 200 bytes a second, as locsvc commits them: 20 each 2 ms.
const UPDATES: Load = Load {
    every: 2 * MS,
    bytes: 4_300,
    until: u64::MAX,
};

fn ratio(part: u64, whole: u64) -> f64 {
    let f = |count: u64| f64::from(u32::try_from(count).unwrap());
    f(part) / f(whole)
}

/// Returns the mean number of transmissions until `n` receivers with independent loss `p` have a datagram:
/// the sum over m of 1 − (1 − p^m)^n.
fn theory(n: i32, p: f64) -> f64 {
    (0..60).map(|m| 1.0 - (1.0 - p.powi(m)).powi(n)).sum()
}

#[test]
fn the_theory_is_the_documents() {
    for (n, p, expected) in [(8, 0.05, 1.357), (32, 0.01, 1.28), (1000, 0.2, 5.15)] {
        assert!((theory(n, p) - expected).abs() < 0.01, "{n} {p}");
    }
}

/// Repairs are not sent twice while they are on their way, nor both to one and to all.
#[test]
fn repair_bytes_are_those_of_the_theory() {
    for (loss, p99_ms_max) in [(0.01, 10), (0.05, 30), (0.2, 120)] {
        let network = Network {
            loss,
            ..Network::default()
        };
        let mut world = World::new(8, network, 1);
        world.load = Some(UPDATES);
        world.run(S);
        world.load = None;
        world.run_until_all_have_all(2 * S);
        world.all_in_order(1);
        let counters = world.sender.counters();
        let sent = counters.data_bytes_total + counters.repair_bytes_total;
        let found = ratio(sent, counters.data_bytes_total);
        let expected = theory(8, loss);
        let p99 = world.delay_us(0.99);
        println!("loss {loss}: {found:.3} transmissions of {expected:.3}, p99 {p99} µs");
        assert!(
            (found / expected - 1.0).abs() < 0.05,
            "{found:.3} of {expected:.3}"
        );
        assert!(p99 < p99_ms_max * 1000, "p99 {p99} µs at loss {loss}");
        assert_eq!(counters.slowed_total + counters.lagging_total, 0);
    }
}

/// Without loss a message leaves at once, or within two milliseconds.
#[test]
fn without_loss_nothing_waits() {
    let mut world = World::new(2, Network::default(), 1);
    world.load = Some(Load {
        every: 500_000,
        bytes: 240,
        until: 2 * S,
    });
    world.run(S / 2);
    world.load = None;
    world.run(10 * MS);
    world.all_in_order(1);
    assert!(world.delay_us(1.0) <= 2_100, "{} µs", world.delay_us(1.0));
    let counters = world.sender.counters();
    // A signature each 2 ms covers four messages, or five; all of it fits one datagram.
    assert!((249..=252).contains(&counters.frames_total), "{counters:?}");
    assert_eq!(counters.data_total, counters.frames_total);
    assert_eq!(world.nacks, 0);
    // A beat each 100 ms while data flows, and one soon after it: beats are a small part of all.
    assert!(counters.control_total < 20, "{}", counters.control_total);
}

/// The uplink loses a burst of 50 datagrams, so that all lack the same: few ask, and all have it soon.
#[test]
fn few_of_a_thousand_ask_for_what_all_have_lost() {
    let nodes = 1000;
    let mut world = World::new(nodes, Network::default(), 3);
    for _ in 0..12 {
        world.send(300);
        world.run(20 * MS); // beats tell all how many they are
    }
    let mut sent: BTreeMap<u64, usize> = BTreeMap::new();
    world.lose = Some(Box::new(move |_, _, bytes| {
        let Some(seq) = seq_of(bytes) else {
            return false;
        };
        let copies = sent.entry(seq).or_default();
        *copies += 1;
        (13..63).contains(&seq) && *copies <= nodes
    }));
    for _ in 0..3 {
        world.send(25_000); // 19 datagrams
        world.settle();
        world.run(2 * MS);
    }
    let burst_at = world.now;
    world.run_until_all_have_all(S);
    let took = world.now - burst_at;
    println!("{} NACKs, all have all after {} ms", world.nacks, took / MS);
    assert!(world.nacks <= 30, "{} NACKs", world.nacks);
    assert!(took <= 50 * MS, "{took} ns");
    let counters = world.sender.counters();
    assert_eq!(
        counters.repairs_group_total + counters.repairs_node_total,
        50
    );
    assert_eq!(counters.repairs_node_total, 0);
}

/// Receivers drain at half of what is offered, with queues of 1,000 datagrams: the rate settles below what
/// they can take; no storm, no collapse, nobody is put out.
#[test]
fn overload_settles() {
    for (nodes, drain, bytes) in [(8, 1_000_000, 4_300), (4, 12_500_000, 51_600)] {
        let network = Network {
            drain: Some((drain, 1000)),
            ..Network::default()
        };
        let mut world = World::new(nodes, network, 1);
        world.load = Some(Load {
            every: 2 * MS,
            bytes,
            until: u64::MAX,
        });
        world.run(3 * S);
        let least = |world: &World| world.nodes.iter().map(|n| n.levels.len()).min().unwrap();
        let (before, counted) = (least(&world), world.sender.counters());
        world.run(2 * S);
        let goodput = u64::try_from((least(&world) - before) * bytes / 2).unwrap();
        let counters = world.sender.counters();
        let repairs = counters.repair_bytes_total - counted.repair_bytes_total;
        let data = counters.data_bytes_total - counted.data_bytes_total;
        let share = ratio(repairs, repairs + data);
        println!(
            "{nodes} receivers of {drain} B/s: goodput {goodput} B/s, repair share {share:.2}"
        );
        assert!(goodput > drain * 4 / 10, "goodput {goodput} of {drain}");
        assert!(share <= 0.5, "repair share {share}");
        assert!(world.nacks < 1000, "{} NACKs", world.nacks);
        assert_eq!(counters.lagging_total, 0);
        assert!(counters.slowed_total > 0);
    }
}
