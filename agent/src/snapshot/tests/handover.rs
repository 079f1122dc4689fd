//! The core's half and the thread's half, without thread and disk.

use std::time::Duration;

use locus_proto::NodeState::{self, Coherent, Draining, Inconsistent, Loading, Resync, Stale};

use super::*;

fn moment() -> Moment {
    Moment {
        position: header().position,
        table_key: [7; 16],
        records: 2,
        bytes: 60,
        time: MasterTime(2),
        complete_until: MasterTime(1),
    }
}

fn next(taker: &Taker) -> Taken {
    taker.take(Duration::ZERO)
}

/// Both halves, with a snapshot under way.
fn under_way() -> (Handover, Taker) {
    let (mut core, taker) = handover();
    taker.ask_begin(None);
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Begin(moment())));
    (core, taker)
}

#[test]
fn frames_come_between_begin_and_end_alone() {
    let (mut core, taker) = handover();
    core.applied(&frame());
    core.turn(Coherent, || panic!("nobody asks"));
    taker.ask_begin(None);
    core.applied(&frame());
    core.turn(Coherent, || Some(moment()));
    core.applied(&frame());
    taker.ask_end();
    // The request has not been seen yet: the frame belongs to it.
    core.applied(&frame());
    core.turn(Coherent, || Some(moment()));
    core.applied(&frame());
    core.turn(Coherent, || panic!("nobody asks"));
    let bytes = || Handed::Frame(encoded(&frame()));
    let handed = [
        Handed::Begin(moment()),
        bytes(),
        bytes(),
        Handed::End(moment()),
    ];
    for handed in handed {
        assert_eq!(next(&taker), Taken::Handed(handed));
    }
    assert_eq!(next(&taker), Taken::Nothing);
    drop(core);
    assert_eq!(next(&taker), Taken::Ended);
    assert_eq!(taker.take(Duration::MAX), Taken::Ended);
}

#[test]
fn begins_only_where_the_content_is_the_masters() {
    let (mut core, taker) = handover();
    taker.ask_begin(None);
    for state in [Loading, Resync, Inconsistent, Draining] {
        core.turn(state, || Some(moment()));
        assert_eq!(next(&taker), Taken::Nothing, "{state}");
    }
    for state in [Coherent, Stale] {
        core.turn(state, || None); // a doubted partition
        assert_eq!(next(&taker), Taken::Nothing, "{state}");
    }
    core.turn(Stale, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Begin(moment())));
}

#[test]
fn goes_on_while_it_catches_up_and_ends_with_the_first_doubt() {
    for (state, look, goes_on) in [
        (Coherent, Some(moment()), true),
        (Stale, Some(moment()), true),
        (Resync, Some(moment()), true),
        (Draining, Some(moment()), true),
        (Inconsistent, Some(moment()), false),
        (Loading, Some(moment()), false),
        (Coherent, None, false),
    ] {
        let state: NodeState = state;
        for asks in [false, true] {
            let (mut core, taker) = under_way();
            if asks {
                taker.ask_end();
            }
            core.turn(state, || look);
            let handed = next(&taker);
            match (goes_on, asks) {
                (true, false) => assert_eq!(handed, Taken::Nothing, "{state}"),
                (true, true) => assert_eq!(handed, Taken::Handed(Handed::End(moment()))),
                (false, _) => assert!(matches!(handed, Taken::Handed(Handed::Void(_))), "{state}"),
            }
        }
    }
}

#[test]
fn a_table_that_has_not_moved_is_not_written_again() {
    let (mut core, taker) = handover();
    taker.ask_begin(Some(moment().position));
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Same));
    core.applied(&frame());
    assert_eq!(next(&taker), Taken::Nothing);
    // The same level with other content is another table.
    taker.ask_begin(Some(position(5, 51)));
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Begin(moment())));
}

#[test]
fn a_void_snapshot_is_over_once_and_the_next_one_begins() {
    let (mut core, taker) = under_way();
    core.void("one");
    core.void("two");
    core.applied(&frame());
    taker.ask_end(); // crossed it
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Void("one")));
    assert_eq!(next(&taker), Taken::Nothing);
    core.void("nothing is under way");
    taker.ask_begin(None);
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Begin(moment())));
}

#[test]
fn too_many_frames_end_the_snapshot_not_the_core() {
    let (mut core, taker) = under_way();
    for _ in 0..QUEUE_FRAMES_MAX + 5 {
        core.applied(&frame());
    }
    // The word that it is over found no room either, and follows.
    for _ in 0..QUEUE_FRAMES_MAX {
        assert!(matches!(next(&taker), Taken::Handed(Handed::Frame(_))));
    }
    assert_eq!(next(&taker), Taken::Nothing);
    core.turn(Coherent, || Some(moment()));
    assert_eq!(next(&taker), Taken::Handed(Handed::Void(OVERFLOW)));
}

#[test]
fn too_many_bytes_end_the_snapshot_too() {
    let (mut core, taker) = under_way();
    let value = vec![0; 32_000];
    let mut large = frame();
    large.changes = vec![put("alice", 6, &value)];
    let fit = QUEUE_BYTES_MAX / encoded(&large).len();
    for _ in 0..fit + 1 {
        core.applied(&large);
    }
    for _ in 0..fit {
        assert!(matches!(next(&taker), Taken::Handed(Handed::Frame(_))));
    }
    assert_eq!(next(&taker), Taken::Handed(Handed::Void(OVERFLOW)));
    // What was taken has given its room back.
    taker.ask_begin(None);
    core.turn(Coherent, || Some(moment()));
    for _ in 0..3 {
        core.applied(&large);
    }
    assert_eq!(next(&taker), Taken::Handed(Handed::Begin(moment())));
    for _ in 0..3 {
        assert!(matches!(next(&taker), Taken::Handed(Handed::Frame(_))));
    }
}

#[test]
fn a_thread_that_stops_learns_why_the_core_had() {
    for void in [None, Some("flipped")] {
        let (mut core, taker) = under_way();
        for _ in 0..QUEUE_FRAMES_MAX {
            core.applied(&frame());
        }
        if let Some(why) = void {
            assert!(matches!(next(&taker), Taken::Handed(Handed::Frame(_))));
            core.void(why);
        }
        let stopped = std::thread::scope(|scope| {
            let stopped = scope.spawn(|| taker.stop());
            while !stopped.is_finished() {
                core.turn(Coherent, || Some(moment()));
                std::thread::yield_now();
            }
            stopped.join().unwrap()
        });
        assert_eq!(stopped, void);
        assert_eq!(next(&taker), Taken::Nothing);
    }
}
