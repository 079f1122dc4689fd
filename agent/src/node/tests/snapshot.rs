//! What of the table's life goes into a snapshot, and what ends one.

use std::time::Duration;

use locus_proto::MasterTime;

use super::*;
use crate::edge::Snapshots;
use crate::snapshot::{Handed, Taken, Taker};

const PULSE: locus_distribution::Pulse = locus_distribution::Pulse {
    state: NodeState::Coherent,
    master_time: Some(MasterTime(7)),
    complete_until: MasterTime(6),
    master_level: Level(10),
};

/// A node with a snapshot under way.
fn under_way() -> (Bench, Taker) {
    let mut bench = Bench::new(300, 1000);
    let (snapshots, taker) = Snapshots::played();
    bench.node.set_snapshots(snapshots);
    taker.ask_begin(None);
    bench.node.turn_snapshots(&PULSE);
    let Some(Handed::Begin(moment)) = next(&taker) else {
        panic!("no beginning")
    };
    assert_eq!(moment.position, bench.master.position());
    assert_eq!((moment.table_key, moment.records), (KEY, 300));
    assert_eq!(
        (moment.time, moment.complete_until),
        (MasterTime(7), MasterTime(6))
    );
    (bench, taker)
}

fn next(taker: &Taker) -> Option<Handed> {
    match taker.take(Duration::ZERO) {
        Taken::Handed(handed) => Some(handed),
        Taken::Nothing => None,
        Taken::Ended => panic!("the node has ended"),
    }
}

fn is_void(taker: &Taker) -> bool {
    let void = matches!(next(taker), Some(Handed::Void(_)));
    void && next(taker).is_none()
}

#[test]
fn a_checked_frame_is_handed_over_as_it_was_applied() {
    let (mut bench, taker) = under_way();
    let frame = bench.puts(5..15, &uri(1));
    bench.apply(&frame).unwrap();
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(next(&taker), Some(Handed::Frame(bytes)));
    // One that was refused is not.
    assert!(bench.apply(&frame).is_err());
    assert_eq!(next(&taker), None);
    taker.ask_end();
    bench.node.turn_snapshots(&PULSE);
    let Some(Handed::End(moment)) = next(&taker) else {
        panic!("no end")
    };
    assert_eq!(moment.position, bench.master.position());
}

#[test]
fn what_no_frame_says_ends_it() {
    let (mut bench, taker) = under_way();
    let frame = bench.puts(5..15, &uri(1));
    bench.node.apply(NOW, &frame, false).unwrap();
    assert!(is_void(&taker), "a frame whose roots were not compared");

    let (mut bench, taker) = under_way();
    let partition = bench.ruin(77);
    bench.mend(partition, false);
    assert_eq!(next(&taker), None, "counting changes nothing");
    bench.mend(partition, true);
    assert!(is_void(&taker), "a repair");

    let (mut bench, taker) = under_way();
    bench.node.doubt(NOW, 5);
    bench.node.turn_snapshots(&PULSE);
    assert!(is_void(&taker), "memory in doubt");
    taker.ask_begin(None);
    bench.node.turn_snapshots(&PULSE);
    assert_eq!(next(&taker), None, "nor does one begin");

    let (mut bench, taker) = under_way();
    bench.node.begin_load(KEY, 0, 0).unwrap();
    assert_eq!(next(&taker), None, "the old table goes on");
    let mut empty = bench.master.position();
    empty.root = Root::EMPTY;
    bench.node.finish_load(empty).unwrap();
    assert!(is_void(&taker), "another table");
}

#[test]
fn a_growth_ends_it() {
    let (mut bench, taker) = under_way();
    let frame = bench.puts(1000..1800, &uri(1));
    bench.apply(&frame).unwrap();
    assert!(matches!(next(&taker), Some(Handed::Frame(_))));
    assert!(bench.work() > 0, "it grows");
    assert!(is_void(&taker));
    bench.assert_equal();
}
