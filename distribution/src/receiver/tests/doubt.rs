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
}

#[test]
fn what_does_not_fit_twice_at_one_level_is_followed_in_doubt() {
    let twelve = at(epoch(2, 2), 12);
    let mut r = in_state(NodeState::Coherent);
    let ten = frame(epoch(2, 2), 10, 12);
    assert!(r.handle_message(NOW, tampered(ten.clone())).is_err());
    again(&mut r, Plan::Continue, mine());
    r.handle_message(NOW, ten).unwrap();
    r.handle_applied(NOW, Ok(standing(twelve)));
    // Once at 10 and once at 12: the connection may be at fault each time.
    let next = frame(epoch(2, 2), 12, 13);
    assert!(r.handle_message(NOW, tampered(next.clone())).is_err());
    assert_eq!(presented(&mut r), Some(twelve));
    r.handle_message(NOW, welcome(twelve, Plan::Continue))
        .unwrap();
    drain(&mut r);
    r.handle_message(NOW, tampered(next)).unwrap();
    assert_eq!(drain(&mut r), ["apply-unchecked"]);
    assert_eq!(r.state(), NodeState::Resync);
    assert!(r.state().answers());
    // Whatever it holds then, it stands at that level, follows on, and presents it.
    let thirteen = other_content(at(epoch(2, 2), 13));
    r.handle_applied(NOW, Ok(standing(thirteen)));
    r.handle_message(NOW, frame(epoch(2, 2), 13, 14)).unwrap();
    assert_eq!(drain(&mut r), ["apply-unchecked"]);
    let fourteen = at(epoch(2, 2), 14);
    r.handle_applied(NOW, Ok(standing(other_content(fourteen))));
    assert_eq!(presented(&mut r), Some(other_content(fourteen)));
    // Only a heartbeat with its content ends the doubt, and until then nothing counts as complete.
    r.handle_message(NOW, welcome(fourteen, Plan::Continue))
        .unwrap();
    let complete = r.pulse(NOW).complete_until;
    r.handle_message(NOW, heartbeat(fourteen)).unwrap();
    assert_eq!(r.pulse(NOW).complete_until, complete);
    assert_eq!(r.state(), NodeState::Resync);
    r.handle_message(NOW, heartbeat(other_content(fourteen)))
        .unwrap();
    assert_eq!(r.pulse(NOW).complete_until, MasterTime(6_000));
    assert_eq!(r.state(), NodeState::Coherent);
}

#[test]
fn a_frame_that_the_table_refuses_twice_is_applied_in_doubt_at_once() {
    let mut r = in_state(NodeState::Coherent);
    let ten = frame(epoch(2, 2), 10, 12);
    r.handle_message(NOW, ten.clone()).unwrap();
    r.handle_applied(NOW, Err(Failure::RootMismatch));
    again(&mut r, Plan::Continue, mine());
    drain(&mut r);
    r.handle_message(NOW, ten.clone()).unwrap();
    assert_eq!(drain(&mut r), ["apply"]);
    r.handle_applied(NOW, Err(Failure::RootMismatch));
    assert_eq!(drain(&mut r), ["apply-unchecked"]);
    assert!(r.welcomed());
    // If even that is refused, the master sends what no table takes.
    r.handle_applied(NOW, Err(Failure::RootMismatch));
    assert_eq!(presented(&mut r), Some(mine()), "once");
    r.handle_message(NOW, welcome(mine(), Plan::Continue))
        .unwrap();
    r.handle_message(NOW, ten).unwrap();
    r.handle_applied(NOW, Err(Failure::RootMismatch));
    assert_eq!(presented(&mut r), None, "twice");
    assert_eq!(r.state(), NodeState::Inconsistent);
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
    // In doubt too.
    let mut r = in_state(NodeState::Coherent);
    r.handle_message(NOW, heartbeat(other_content(mine())))
        .unwrap();
    for presents in [Some(mine()), None] {
        assert!(r.handle_message(NOW, gap.clone()).is_err());
        assert_eq!(presented(&mut r), presents);
        let head = at(epoch(2, 2), 12);
        drop(r.handle_message(NOW, welcome(head, Plan::Continue)));
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

/// A master whose memory was wrong has logged another content than follows from the changes. Its next life
/// begins an epoch with what is true: all nodes are in doubt by then, and none may stop answering for it.
#[test]
fn an_epoch_that_begins_with_what_is_true_ends_the_doubt() {
    let mut r = in_state(NodeState::Coherent);
    r.handle_message(NOW, heartbeat(other_content(mine())))
        .unwrap();
    drain(&mut r);
    let healing = tampered(frame(epoch(3, 3), 10, 10));
    r.handle_message(NOW, healing.clone()).unwrap();
    assert_eq!(drain(&mut r), ["apply-unchecked"]);
    let healed = at(epoch(3, 3), 10);
    r.handle_applied(NOW, Ok(standing(healed)));
    assert_eq!(r.state(), NodeState::Resync);
    r.handle_message(NOW, heartbeat(healed)).unwrap();
    assert_eq!(r.state(), NodeState::Coherent);
    // A node that was not in doubt, because it was restarted, asks once more whether that is meant.
    let mut r = in_state(NodeState::Coherent);
    assert!(r.handle_message(NOW, healing.clone()).is_err());
    again(&mut r, Plan::Continue, mine());
    r.handle_message(NOW, healing).unwrap();
    r.handle_applied(NOW, Ok(standing(healed)));
    r.handle_message(NOW, heartbeat(healed)).unwrap();
    assert_eq!(r.state(), NodeState::Coherent);
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
