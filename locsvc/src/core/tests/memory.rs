//! Memory that rots: what finds it, and that nothing is committed afterwards.

use locus_proto::v1::{AuditAsk, AuditRefusal, AuditScope};
use locus_proto::{Frame, FrameKind, Key, Level, Root};

use super::*;
use crate::AlarmView;
use crate::master::MemoryFault;

/// Words of a record counted from its key, and a bit: the length of the value, level, key, value.
const LENGTH: (isize, u32) = (-2, 30);
const LEVEL: (isize, u32) = (-1, 3);
const KEY: (isize, u32) = (0, 9);
const VALUE: (isize, u32) = (4, 17);

fn bench() -> Bench {
    let mut bench = Bench::new(1000);
    for number in 0..40 {
        bench.change(vec![put(number, "sip:a@10.0.0.1:5060;transport=tcp")]);
    }
    bench
}

fn rot(bench: &Bench, number: usize, at: (isize, u32)) {
    bench.drive.core().master.rot(&Key::aor(&aor(number)), at);
}

/// Checks what the fault is and that nothing follows it into the log.
#[track_caller]
fn stopped(bench: &mut Bench, fault: DriveError) -> MemoryFault {
    let DriveError::Memory(fault) = fault else {
        panic!("{fault:?}");
    };
    assert!(!bench.drive.core().wants_flush());
    // Whatever was asked for in the same step is not appended: the driver ends instead.
    bench.drive.discard();
    let end = bench.drive.log().end();
    let ticket = bench.ticket + 1;
    let request = Request::Change(vec![put(500, "sip:late@h")]);
    for input in [Input::Api { ticket, request }, Input::Flush, Input::Tick] {
        bench.try_feed(input).unwrap_err();
        assert!(!bench.drive.discard(), "nothing is to be appended");
    }
    assert_eq!(bench.drive.log().end(), end);
    fault
}

#[test]
fn the_background_reads_everything_within_ten_minutes_and_finds_nothing_wrong() {
    let mut bench = bench();
    let scrubs = |bench: &Bench| bench.drive.core().end_state().counters.scrubs_total;
    bench.advance(Duration::from_secs(590));
    assert_eq!(scrubs(&bench), 0);
    bench.advance(Duration::from_secs(11));
    assert_eq!(scrubs(&bench), 1);
    bench.change(vec![put(1, "sip:b@h"), put(77, "sip:b@h")]);
    bench.change(vec![ProvisionChange::DeleteAor(aor(2))]);
    bench.advance(Duration::from_secs(601));
    assert_eq!(scrubs(&bench), 2);
}

#[test]
fn a_record_that_rots_stops_the_service_within_ten_minutes() {
    for at in [LENGTH, LEVEL, KEY, VALUE] {
        let mut bench = bench();
        rot(&bench, 7, at);
        let fault = bench.until_fault(Duration::from_secs(601));
        let text = crate::drive::chain(&fault);
        assert!(text.contains("Start locsvc again"), "{text}");
        let fault = stopped(&mut bench, fault);
        assert!(
            matches!(
                fault,
                MemoryFault::Partition { .. } | MemoryFault::Unreadable { .. }
            ),
            "{at:?}: {fault:?}"
        );
    }
}

/// What a rotten record says would be subtracted from the content, and merged into the next: it is never used.
#[test]
fn a_change_of_a_record_that_has_rotted_is_never_logged() {
    for at in [LENGTH, LEVEL, VALUE] {
        let changes = [put(7, "sip:b@h"), ProvisionChange::DeleteAor(aor(7))];
        for change in changes {
            let mut bench = bench();
            rot(&bench, 7, at);
            // Neither are those that came with it.
            bench.ask(Request::Change(vec![put(80, "sip:c@h")]));
            let (ticket, request) = (900, Request::Change(vec![put(81, "sip:c@h"), change]));
            let fault = bench
                .try_feed(Input::Api { ticket, request })
                .and_then(|()| bench.try_feed(Input::Flush));
            let end = bench.drive.log().end();
            stopped(&mut bench, fault.unwrap_err());
            assert_eq!((end, end.level), (bench.drive.core().position(), Level(40)));
        }
        // A registration is merged with what the record holds.
        let mut bench = bench();
        let node = bench.following(1);
        rot(&bench, 7, at);
        bench.ticket += 1;
        let message = Box::new(Message::Register {
            ticket: bench.ticket,
            registration: registration(7, 1, 600),
        });
        let fault = bench
            .try_feed(Input::Message {
                peer: node,
                message,
            })
            .and_then(|()| bench.try_feed(Input::Flush));
        stopped(&mut bench, fault.unwrap_err());
        assert_eq!(bench.drive.log().end().level, Level(40));
    }
}

#[test]
fn whoever_meets_a_record_that_cannot_be_read_stops_the_service_at_once() {
    let requests = [
        Request::GetAor(aor(7)),
        Request::Change(vec![put(7, "sip:b@h")]),
        Request::Change(vec![ProvisionChange::DeleteAor(aor(7))]),
    ];
    for request in requests {
        let mut bench = bench();
        rot(&bench, 7, LENGTH);
        let ticket = 900;
        let input = Input::Api { ticket, request };
        let mut fault = bench.try_feed(input);
        if fault.is_ok() {
            fault = bench.try_feed(Input::Flush);
        }
        stopped(&mut bench, fault.unwrap_err());
    }
    // A node that loads the table: the scan knows only that something is wrong; all is read at once.
    let mut bench = bench();
    rot(&bench, 7, LENGTH);
    let peer = Peer(1);
    let arrived = tcp("10.0.0.1:1");
    bench.feed(Input::Connected { peer, arrived });
    bench.message(peer, Message::Hello(hello(1, None)));
    assert_eq!(bench.said.closed, [peer]);
    let fault = bench.until_fault(Duration::from_secs(60));
    stopped(&mut bench, fault);
}

/// Values that no build can read are a matter of the log, not of memory: restarting would change nothing.
#[test]
fn a_value_that_makes_no_sense_but_is_as_written_stops_nothing() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    bench.change(vec![put(1, "sip:a@h")]);
    append(&mut bench, |_, _| {}, b"no bindings");
    drop(bench);
    let mut bench = Bench::open(folder, 1000, WALL, None, None);
    let ticket = bench.ask(Request::GetAor(aor(3)));
    let refused = Answer::Refused(RequestError::Inconsistent);
    assert_eq!(bench.answer(ticket), refused);
    bench.change(vec![put(3, "sip:mended@h")]);
    assert_eq!(bench.contacts(3), 1);
}

#[test]
fn a_partition_that_has_rotted_is_never_sent() {
    let mut bench = bench();
    let peer = bench.following(1);
    let key = Key::aor(&aor(7));
    let partition = bench.drive.core().master.partition_of(&key);
    rot(&bench, 7, VALUE);
    let ask = AuditAsk {
        scope: AuditScope::Partition(partition),
        doubt: None,
    };
    let message = Box::new(Message::AuditAsk(ask));
    let fault = bench.try_feed(Input::Message { peer, message });
    let fault = stopped(&mut bench, fault.unwrap_err());
    assert_eq!(fault, MemoryFault::Partition { partition });
    let said = bench.messages(peer);
    let refused = Message::AuditRefused(AuditRefusal::Corrupt);
    assert!(said.contains(&refused), "{said:?}");
    let records = said
        .iter()
        .any(|message| matches!(message, Message::AuditRecords(_)));
    assert!(!records, "{said:?}");
}

/// Three nodes that hold, and say, the same other content.
fn disagree(bench: &mut Bench) -> [Peer; 3] {
    let peers = [1, 2, 3].map(|number| bench.following(number));
    bench.advance(Duration::from_secs(3));
    let doubt = Some(Position {
        root: Root([6, 6]),
        ..bench.drive.core().position()
    });
    for peer in peers {
        let scope = AuditScope::Groups;
        bench.message(peer, Message::AuditAsk(AuditAsk { scope, doubt }));
    }
    peers
}

fn keep_alive(bench: &mut Bench, peers: &[Peer], seconds: u64) {
    for _ in 0..seconds {
        let position = bench.drive.core().position();
        for peer in peers {
            bench.message(*peer, nodes::doubting(position));
        }
        bench.advance(Duration::from_secs(1));
        bench.write();
    }
}

fn alarm(bench: &mut Bench) -> Option<AlarmView> {
    let ticket = bench.ask(Request::Nodes);
    let Answer::Nodes { alarm, .. } = bench.answer(ticket) else {
        panic!("nodes");
    };
    alarm
}

#[test]
fn most_nodes_against_the_master_are_an_alarm_and_the_master_reads_itself() {
    let mut bench = bench();
    let peers = disagree(&mut bench);
    assert_eq!(alarm(&mut bench), None);
    keep_alive(&mut bench, &peers, 12);
    let expected = AlarmView {
        level: Level(40),
        nodes: 3,
        of: 3,
        verified: true,
    };
    assert_eq!(alarm(&mut bench), Some(expected));
    let said = |bench: &Bench, wanted: &str| {
        let lines = bench.said.events.iter().map(ToString::to_string);
        lines.filter(|line| line.contains(wanted)).count()
    };
    assert_eq!(said(&bench, "ALARM: 3 of 3 nodes"), 1);
    assert_eq!(said(&bench, "the nodes are wrong together"), 1);
    // They are loaded anew, and the alarm is over.
    let position = bench.drive.core().position();
    for peer in peers {
        bench.message(peer, nodes::status(position));
    }
    bench.advance(Duration::from_secs(1));
    assert_eq!(alarm(&mut bench), None);
    assert_eq!(said(&bench, "the alarm is over"), 1);
    assert_eq!(bench.drive.core().end_state().counters.alarms_total, 1);
}

#[test]
fn a_master_that_is_wrong_is_found_by_its_nodes() {
    let mut bench = bench();
    disagree(&mut bench);
    rot(&bench, 39, VALUE);
    // The background would take up to ten minutes.
    let fault = bench.until_fault(Duration::from_secs(9));
    stopped(&mut bench, fault);
    let alarms = bench.drive.core().end_state().counters.alarms_total;
    assert_eq!(alarms, 1);
}

#[test]
fn the_table_is_compared_with_the_log_on_disk() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    for number in 0..10 {
        bench.change(vec![put(number, "sip:a@h")]);
    }
    let verify = |bench: &mut Bench| bench.drive.parts().0.verify_all(bench.now);
    verify(&mut bench);
    bench.advance(Duration::from_secs(1));
    let verified = |event: &Event| matches!(event, Event::TableVerified { alarm: false, .. });
    assert!(bench.said.events.iter().any(verified));
    // A disk that cannot be read is no fault of memory.
    let name = folder.names().unwrap().pop().unwrap();
    let file = folder.open(&name).unwrap();
    let flip = || file.bytes().iter_mut().for_each(|byte| *byte ^= 0xff);
    flip();
    bench.said.events.clear();
    verify(&mut bench);
    bench.advance(Duration::from_secs(1));
    let unreadable = |event: &Event| matches!(event, Event::LogEndUnreadable { .. });
    assert!(bench.said.events.iter().any(unreadable));
    flip();
    // A log that ends elsewhere is one: here, one of another life.
    let mut other = Bench::open(MemoryFolder::default(), 1000, WALL, None, None);
    other.change(vec![put(1, "sip:a@h")]);
    std::mem::swap(bench.drive.parts().1, other.drive.parts().1);
    verify(&mut bench);
    let fault = bench.until_fault(Duration::from_secs(1));
    let fault = stopped(&mut bench, fault);
    assert!(matches!(fault, MemoryFault::Log { .. }), "{fault:?}");
}

/// Appends a put of `u3` by hand, as a master with other memory would have.
fn append(bench: &mut Bench, poison: impl FnOnce(&mut Root, &mut Root), value: &[u8]) {
    let changes = vec![Change {
        key: Key::aor(&aor(3)),
        level: bench.drive.log().end().level.plus(1),
        op: locus_proto::ChangeOp::Put(value.to_vec()),
    }];
    let prepared = bench.drive.core().master.prepare(&changes).unwrap();
    let before = bench.drive.log().end();
    let mut header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch: before.epoch,
        from: before.level,
        to: before.level.plus(1),
        root_before: before.root,
        root_after: prepared.root_after(),
        time: MasterTime(WALL),
    };
    poison(&mut header.root_before, &mut header.root_after);
    let message = frame_message(&Frame { header, changes }).into();
    bench
        .drive
        .append_recovered(LogFrame { header, message })
        .unwrap();
}

/// A frame whose `root_after` was worked out from rotten memory must not keep the service down: its changes
/// count, and the next epoch begins with what follows from them.
#[test]
fn a_log_with_a_poisoned_frame_is_recovered_and_healed() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    for number in 0..5 {
        bench.change(vec![put(number, "sip:a@h")]);
    }
    let value = AorRecord {
        bindings: vec![locus_proto::Binding::permanent("sip:b@h")],
    };
    append(
        &mut bench,
        |_, after| *after = after.plus(Root([1, 1])),
        &value.encode(),
    );
    drop(bench);
    let mut roots = Vec::new();
    for life in 0..3 {
        let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
        let lines: Vec<_> = bench.said.events.iter().map(ToString::to_string).collect();
        // Said once: the epoch that began then is behind it in the log, and starts from what is true.
        let said = lines
            .iter()
            .any(|line| line.contains("1 frame of the log, from level 6 on"));
        assert_eq!(said, life == 0, "life {life}: {lines:?}");
        let counters = bench.drive.core().end_state().counters;
        assert_eq!(counters.frames_contradicted_total, 1, "life {life}");
        assert_eq!(bench.contacts(3), 1);
        let position = bench.drive.core().position();
        assert_eq!(position, bench.drive.log().end());
        roots.push(position.root);
        bench.advance(Duration::from_secs(601));
        bench.drive.parts().0.verify_all(bench.now);
        bench.advance(Duration::from_secs(1));
    }
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    // The frames in between lead from the poison to what is true.
    let bench = Bench::open(folder, 1000, WALL, None, None);
    let frames = bench.frames();
    let healing = frames.iter().find(|frame| {
        frame.header.kind == FrameKind::Epoch && frame.header.root_before != frame.header.root_after
    });
    let healing = healing
        .expect("an epoch that begins with what is true")
        .header;
    assert_eq!(healing.root_after, roots[0]);
    assert_eq!(healing.root_before, roots[0].plus(Root([1, 1])));
}

/// What is poisoned again after it was healed is said again, and counted from there.
#[test]
fn a_log_that_is_poisoned_twice_is_healed_twice() {
    let folder = MemoryFolder::default();
    let value = AorRecord {
        bindings: vec![locus_proto::Binding::permanent("sip:b@h")],
    };
    for expected in [
        "2 frames of the log, from level 2 on",
        "2 frames of the log, from level 4 on",
    ] {
        let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
        if expected.contains("level 2") {
            bench.change(vec![put(1, "sip:a@h")]);
        }
        let poison = Root([1, 1]);
        append(
            &mut bench,
            |_, after| *after = after.plus(poison),
            &value.encode(),
        );
        append(&mut bench, |_, after| *after = after.plus(poison), b"other");
        drop(bench);
        let bench = Bench::open(folder.clone(), 1000, WALL, None, None);
        let lines: Vec<_> = bench.said.events.iter().map(ToString::to_string).collect();
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{lines:?}"
        );
        assert_eq!(bench.drive.core().position(), bench.drive.log().end());
    }
}

/// An empty table cannot have rotted: a log whose first changes lead elsewhere is of another `meta`.
#[test]
fn a_log_of_another_table_key_is_refused() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    bench.change(vec![put(1, "sip:a@h")]);
    bench.change(vec![put(2, "sip:a@h")]);
    drop(bench);
    let table_key = [4; 16];
    let mut core = Core::new(CoreConfig {
        table_key,
        ..config(1000)
    })
    .unwrap();
    let opened = Log::open(folder, LogConfig::default(), |frame: Frame| {
        core.handle_input(Timestamp(7), Input::Recovered(frame))
    });
    let text = crate::drive::chain(&opened.unwrap_err());
    assert!(text.contains("`meta` is of another log"), "{text}");
}

/// Nodes that come for the table again and again do not keep the master from reading all of it.
#[test]
fn a_reading_that_is_under_way_is_not_begun_anew() {
    let mut bench = bench();
    rot(&bench, 7, LENGTH);
    let mut fault = None;
    for number in 1..=1000 {
        let peer = Peer(number);
        let arrived = tcp("10.0.0.1:1");
        bench.feed(Input::Connected { peer, arrived });
        bench.message(peer, Message::Hello(hello(1, None)));
        bench.now = bench.now.plus(Duration::from_millis(1));
        if let Err(found) = bench.try_feed(Input::Tick) {
            fault = Some(found);
            break;
        }
    }
    stopped(&mut bench, fault.expect("it is found"));
}

/// Nodes that are against the master now and with it the next moment cannot fill the disk with lines.
#[test]
fn alarms_that_come_and_go_are_said_a_few_times_a_second() {
    let mut bench = bench();
    let peers = [1, 2].map(|number| bench.following(number));
    bench.advance(Duration::from_secs(7));
    let mine = bench.drive.core().position();
    let ask = |doubt| {
        let scope = AuditScope::Groups;
        Message::AuditAsk(AuditAsk { scope, doubt })
    };
    let other = Some(Position {
        root: Root([6, 6]),
        ..mine
    });
    for peer in peers {
        bench.message(peer, ask(other));
    }
    bench.advance(Duration::from_secs(1));
    bench.said.events.clear();
    for _ in 0..1000 {
        bench.message(peers[0], ask(None));
        bench.feed(Input::Tick);
        bench.message(peers[0], ask(other));
        bench.feed(Input::Tick);
    }
    let lines = bench.said.events.len();
    assert!(lines <= 20, "{lines} lines");
}
