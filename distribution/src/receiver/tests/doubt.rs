//! Content in doubt: gaps, wrong tables, snapshots that do not end; what is presented and what is trusted.

use super::*;

/// Returns what the receiver presents when it connects anew.
fn presented(r: &mut Receiver) -> Option<Position> {
    r.handle_closed(NOW);
    while r.poll_transmit().is_some() {}
    r.handle_connected(NOW);
    match r.poll_transmit() {
        Some(Message::Hello(hello)) => hello.position,
        other => panic!("it says {other:?} first"),
    }
}

#[test]
fn presents_no_table_that_is_wrong_or_too_small() {
    let ten = frame(epoch(2, 2), 10, 12);
    for (failure, presents) in [
        (Failure::RootMismatch, Some(mine())), // once
        (Failure::Full, None),
        (Failure::Broken, None),
    ] {
        let mut r = in_state(NodeState::Coherent);
        r.handle_message(NOW, ten.clone()).unwrap();
        r.handle_applied(NOW, Err(failure));
        assert_eq!(presented(&mut r), presents, "{failure}");
    }
    // A second mismatch counts only at the same level.
    let mut r = in_state(NodeState::Coherent);
    assert!(r.handle_message(NOW, tampered(ten.clone())).is_err());
    again(&mut r, Plan::Continue, mine());
    r.handle_message(NOW, ten).unwrap();
    r.handle_applied(NOW, Ok(standing(at(epoch(2, 2), 12))));
    let next = tampered(frame(epoch(2, 2), 12, 13));
    assert!(r.handle_message(NOW, next.clone()).is_err());
    assert_eq!(presented(&mut r), Some(at(epoch(2, 2), 12)));
    let head = at(epoch(2, 2), 12);
    r.handle_message(NOW, welcome(head, Plan::Continue))
        .unwrap();
    assert!(r.handle_message(NOW, next).is_err());
    assert_eq!(presented(&mut r), None);
}

#[test]
fn gaps_in_a_row_end_in_a_reload_and_it_answers_meanwhile() {
    let gap = frame(epoch(2, 2), 11, 12);
    let beyond = heartbeat(at(epoch(2, 2), 12));
    // Whether a frame or a heartbeat shows it.
    for [first, second] in [
        [&gap, &gap],
        [&gap, &beyond],
        [&beyond, &gap],
        [&beyond, &beyond],
    ] {
        let mut r = in_state(NodeState::Coherent);
        assert!(r.handle_message(NOW, first.clone()).is_err());
        assert_eq!(presented(&mut r), Some(mine()), "once");
        let head = at(epoch(2, 2), 12);
        r.handle_message(NOW, welcome(head, Plan::Continue))
            .unwrap();
        assert!(r.handle_message(NOW, second.clone()).is_err());
        assert_eq!(r.state(), NodeState::Coherent);
        assert_eq!(presented(&mut r), None, "twice");
    }
    // Not in a row: a heartbeat has matched in between.
    let mut r = in_state(NodeState::Coherent);
    for _ in 0..3 {
        assert!(r.handle_message(NOW, gap.clone()).is_err());
        assert_eq!(presented(&mut r), Some(mine()));
        r.handle_message(NOW, welcome(mine(), Plan::Continue))
            .unwrap();
        r.handle_message(NOW, heartbeat(mine())).unwrap();
    }
}

#[test]
fn what_it_did_not_present_cannot_be_continued() {
    let mut r = in_state(NodeState::Inconsistent);
    assert_eq!(presented(&mut r), None);
    let outcome = r.handle_message(NOW, welcome(mine(), Plan::Continue));
    assert_eq!(outcome, Err(MasterError::Welcome));
    assert_eq!(r.state(), NodeState::Inconsistent);
}

#[test]
fn a_heartbeat_does_not_lower_what_the_welcome_announced() {
    let mut r = in_phase("awaiting");
    r.handle_message(NOW, heartbeat(at(epoch(2, 2), 8)))
        .unwrap();
    assert_eq!(r.pulse(NOW).master_level, Level(20));
    assert!(r.handle_message(NOW, begin(8)).is_err());
}

#[test]
fn a_table_that_did_something_else_is_not_trusted() {
    let mut r = in_state(NodeState::Coherent);
    r.handle_message(NOW, frame(epoch(2, 2), 10, 12)).unwrap();
    let early = r.handle_message(NOW, frame(epoch(2, 2), 12, 13));
    assert_eq!(early, Err(MasterError::Busy));
    r.handle_applied(NOW, Ok(standing(other_content(at(epoch(2, 2), 12)))));
    assert_eq!(r.state(), NodeState::Inconsistent);
    assert_eq!(presented(&mut r), None);

    let mut r = in_phase("records");
    r.handle_message(NOW, end(20)).unwrap();
    r.handle_loaded(NOW, Ok(standing(at(epoch(2, 2), 21))));
    assert_eq!(r.state(), NodeState::Inconsistent);
}

#[test]
fn a_snapshot_without_end_is_refused() {
    let record = Change {
        key: Key::from_bytes(b"aalice@example.net").unwrap(),
        level: Level(1),
        op: ChangeOp::Put(Vec::new()),
    };
    let part = Message::SnapshotPart(SnapshotPart {
        records: vec![record; 1 << 16],
    });
    let mut r = in_phase("records");
    for _ in 0..16 {
        r.handle_message(NOW, part.clone()).unwrap();
        assert_eq!(drain(&mut r), ["load-records"]);
    }
    assert!(r.handle_message(NOW, part).is_err());
    assert_eq!(r.counters().snapshots_refused_total, 1);
}
