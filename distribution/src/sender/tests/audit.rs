//! Audits: who is answered when, what is sent, and when most nodes are believed more than the master.

use locus_proto::v1::{
    AuditAsk, AuditOrder, AuditRefusal, AuditReport, AuditScope, AuditSums, AuditVerdict,
};

use super::*;
use crate::PARTITION_BYTES_MAX;

const LATER: Timestamp = Timestamp(60_000_000_000);

fn ms(ms: u64) -> Timestamp {
    LATER.plus(Duration::from_millis(ms))
}

fn ask(doubt: Option<Position>) -> Message {
    let scope = AuditScope::Groups;
    Message::AuditAsk(AuditAsk { scope, doubt })
}

/// What a node holds at the head if `rot` is wrong with it.
fn rotten(rot: u64) -> Option<Position> {
    let Position { epoch, level, root } = at(2, 100);
    let root = root.plus(Root([rot, rot]));
    Some(Position { epoch, level, root })
}

/// A sender that began a minute ago, with these nodes at its head; each has been told so.
fn with_nodes(nodes: std::ops::RangeInclusive<u64>) -> Sender {
    let mut s = sender();
    for peer in nodes {
        connect(&mut s, LATER, peer, Some(at(2, 100)));
    }
    events(&mut s);
    sent(&mut s);
    s
}

fn say(s: &mut Sender, now: Timestamp, peer: u64, message: Message) {
    s.handle_message(now, Peer(peer), message, &CHEAP).unwrap();
}

fn events(s: &mut Sender) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(event) = s.poll_event() {
        match event {
            SenderEvent::ReadAudit { peer, .. } => words.push(format!("read for {}", peer.0)),
            SenderEvent::Alarm(d) => words.push(format!("alarm {} of {}", d.nodes, d.of)),
            SenderEvent::AuditReported { node, report } => {
                words.push(format!("{node} reports {}", report.ticket));
            }
            SenderEvent::ReadLog { .. }
            | SenderEvent::ReadTable { .. }
            | SenderEvent::SplitScan { .. }
            | SenderEvent::EndScan { .. }
            | SenderEvent::PathChanged { .. }
            | SenderEvent::MulticastLost { .. }
            | SenderEvent::MulticastBack { .. }
            | SenderEvent::Close { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::NodeDown { .. } => {}
        }
    }
    words
}

const NOTHING: [String; 0] = [];

#[test]
fn a_question_is_answered_at_once_unless_content_is_in_doubt() {
    let mut s = with_nodes(1..=3);
    say(&mut s, ms(0), 1, ask(None));
    assert_eq!(events(&mut s), ["read for 1"]);
    let sums = AuditSums {
        level: Level(100),
        group: None,
        sums: vec![Root::EMPTY; 256],
    };
    s.handle_audit_sums(ms(0), Peer(1), sums.clone());
    assert_eq!(sent(&mut s), ["audit sums"]);
    s.handle_audit_sums(ms(0), Peer(1), sums.clone());
    assert_eq!(sent(&mut s), [""; 0], "answered already");
    // In doubt: a second before the first answer, then at once, until the doubt is another.
    for (rot, first) in [(1, 100), (2, 2_000)] {
        say(&mut s, ms(first), 1, ask(rotten(rot)));
        assert_eq!(events(&mut s), NOTHING);
        s.handle_timeout(ms(first + 999), MasterTime(0));
        assert_eq!(events(&mut s), NOTHING);
        assert!(s.poll_timeout().unwrap() <= ms(first + 1_000));
        s.handle_timeout(ms(first + 1_000), MasterTime(0));
        assert_eq!(events(&mut s), ["read for 1"]);
        s.handle_audit_sums(ms(first + 1_000), Peer(1), sums.clone());
        say(&mut s, ms(first + 1_001), 1, ask(rotten(rot)));
        assert_eq!(events(&mut s), ["read for 1"]);
        s.handle_audit_sums(ms(first + 1_001), Peer(1), sums.clone());
    }
    // A heartbeat that was tampered with: it holds what the master holds.
    say(&mut s, ms(4_000), 1, ask(Some(at(2, 100))));
    assert_eq!(events(&mut s), ["read for 1"]);
    assert_eq!(s.counters().audit_answers_total, 5);
}

#[test]
fn a_master_that_has_just_begun_waits_for_the_others() {
    let mut s = sender();
    connect(&mut s, seconds(0), 1, Some(at(2, 100)));
    say(&mut s, seconds(1), 1, ask(rotten(1)));
    for second in 1..6 {
        s.handle_timeout(seconds(second), MasterTime(0));
        assert_eq!(events(&mut s), NOTHING, "at {second} s");
    }
    s.handle_timeout(seconds(6), MasterTime(0));
    assert_eq!(events(&mut s), ["read for 1"]);
}

#[test]
fn who_asks_twice_or_too_early_is_dropped() {
    let mut s = with_nodes(1..=2);
    say(&mut s, ms(0), 1, ask(None));
    let outcome = s.handle_message(ms(0), Peer(1), ask(None), &CHEAP);
    assert!(matches!(outcome, Err(PeerError::Unexpected { .. })));
    assert_eq!(closes(&mut s), [(1, CloseReason::Violation)]);
    s.handle_connected(ms(0), Peer(8), arrived());
    assert!(s.handle_message(ms(0), Peer(8), ask(None), &CHEAP).is_err());
    connect(&mut s, ms(0), 9, None);
    assert!(s.handle_message(ms(0), Peer(9), ask(None), &CHEAP).is_err());
    assert_eq!(s.counters().unexpected_total, 3);
    // What it asked before is not read any more.
    assert_eq!(events(&mut s), NOTHING);
}

#[test]
fn most_nodes_against_the_master_are_not_repaired() {
    // (what is wrong with each node, whether they are most of all)
    for (rots, most) in [
        (vec![7], false), // one alone is no majority
        (vec![7, 0, 0], false),
        (vec![7, 7], true),
        (vec![7, 7, 0], true),
        (vec![7, 7, 0, 0], false), // half
        (vec![7, 8, 9], false),    // they do not agree
        (vec![7, 7, 8], true),
    ] {
        let nodes = u64::try_from(rots.len()).unwrap();
        let mut s = with_nodes(1..=nodes);
        let asking = (1..).zip(&rots).filter(|(_, rot)| **rot != 0);
        for (peer, rot) in asking.clone() {
            say(&mut s, ms(0), peer, ask(rotten(*rot)));
        }
        s.handle_timeout(ms(1_000), MasterTime(0));
        let mut sent = sent(&mut s);
        sent.retain(|word| *word != "heartbeat");
        let reads: Vec<String> = asking.map(|(peer, _)| format!("read for {peer}")).collect();
        if most {
            let of = rots.iter().filter(|rot| **rot == 7).count();
            assert_eq!(events(&mut s), [format!("alarm {of} of {nodes}")]);
            assert_eq!(sent, vec!["audit refusal"; reads.len()]);
        } else {
            assert_eq!(events(&mut s), reads, "{rots:?}");
            assert_eq!(sent, [""; 0]);
        }
    }
}

#[test]
fn nodes_agree_though_they_stand_at_different_levels() {
    let mut s = with_nodes(1..=3);
    say(&mut s, ms(0), 1, ask(rotten(7)));
    s.handle_committed(ms(0), at(2, 105), MasterTime(0));
    s.handle_timeout(ms(600), MasterTime(0)); // a heartbeat names level 105
    let Position { epoch, level, root } = at(2, 105);
    let root = root.plus(Root([7, 7]));
    say(
        &mut s,
        ms(700),
        2,
        ask(Some(Position { epoch, level, root })),
    );
    s.handle_timeout(ms(1_000), MasterTime(0));
    assert_eq!(events(&mut s), ["alarm 2 of 3"]);
    // A new epoch at the same level, and a master that holds something else since: the newer one counts.
    let mut s = with_nodes(1..=2);
    let third = Position {
        epoch: self::epoch(3),
        ..rotten(3).unwrap()
    };
    s.handle_epoch(ms(0), lineage(), third, MasterTime(0));
    s.handle_timeout(ms(600), MasterTime(0));
    for peer in [1, 2] {
        let mine = Position {
            epoch: third.epoch,
            ..at(2, 100)
        };
        say(&mut s, ms(600), peer, ask(Some(mine)));
    }
    s.handle_timeout(ms(1_600), MasterTime(0));
    assert_eq!(events(&mut s), ["alarm 2 of 2"]);
    // A level that no heartbeat has named says nothing.
    let mut s = with_nodes(1..=2);
    say(&mut s, ms(0), 1, ask(rotten(7)));
    let unknown = Position {
        epoch,
        level: Level(99),
        root: Root([106, 106]),
    };
    say(&mut s, ms(0), 2, ask(Some(unknown)));
    s.handle_timeout(ms(1_000), MasterTime(0));
    assert_eq!(events(&mut s), ["read for 1", "read for 2"]);
}

#[test]
fn an_alarm_is_said_once_and_lasts_while_most_are_in_doubt() {
    let mut s = with_nodes(1..=3);
    for peer in [1, 2] {
        say(&mut s, ms(0), peer, ask(rotten(7)));
    }
    assert!(!s.is_alarmed());
    s.handle_timeout(ms(1_000), MasterTime(0));
    assert_eq!(events(&mut s), ["alarm 2 of 3"]);
    assert!(s.is_alarmed());
    sent(&mut s);
    // Even those whose content is not in doubt are not answered, nor others that hold something else now.
    say(&mut s, ms(1_100), 3, ask(None));
    say(&mut s, ms(1_100), 2, ask(rotten(9)));
    s.handle_timeout(ms(2_100), MasterTime(0));
    assert_eq!(events(&mut s), NOTHING);
    assert_eq!(s.counters().audits_refused_total, 4);
    // The network fails, and they come back one by one: nobody is answered because he is the first.
    for peer in 1..=3 {
        s.handle_closed(ms(3_000), Peer(peer));
    }
    s.handle_timeout(ms(3_100), MasterTime(0));
    s.handle_connected(ms(4_000), Peer(11), arrived());
    say(&mut s, ms(4_000), 11, hello(1, rotten(7)));
    say(&mut s, ms(4_000), 11, ask(rotten(7)));
    s.handle_timeout(ms(5_000), MasterTime(0));
    assert_eq!(events(&mut s), NOTHING);
    assert!(s.is_alarmed());
    assert_eq!(s.counters().disagreements_total, 1);
    // It matches: the alarm is over. If it doubts again, that is a new matter, and the other one, who stays
    // away, does not count any more.
    say(&mut s, ms(12_000), 11, status(100));
    s.handle_timeout(ms(12_500), MasterTime(0));
    assert!(!s.is_alarmed());
    say(&mut s, ms(13_000), 11, ask(rotten(7)));
    assert_eq!(events(&mut s), NOTHING);
    s.handle_timeout(ms(14_000), MasterTime(0));
    assert_eq!(events(&mut s), ["read for 11"]);
    assert_eq!(s.counters().disagreements_total, 1);
}

#[test]
fn records_are_cut_into_messages() {
    let record = |bytes: usize| Change {
        key: Key::from_bytes(b"aalice@example.net").unwrap(),
        level: Level(1),
        op: ChangeOp::Put(vec![7; bytes]),
    };
    // (records, bytes of each, messages)
    for (count, bytes, messages) in [
        (0, 0, 1),
        (1, 30_000, 1),
        (4, 32_000, 1), // 128 kB: just below the limit
        (5, 32_000, 1), // the one that passes it closes the message
        (6, 32_000, 2),
        (100, 30_000, 20),
    ] {
        let mut s = with_nodes(1..=1);
        say(&mut s, ms(0), 1, ask(None));
        events(&mut s);
        let records = vec![record(bytes); count];
        s.handle_audit_records(ms(0), Peer(1), Level(100), 5, records.clone());
        let mut came = Vec::new();
        let mut lasts = Vec::new();
        while let Some((_, message)) = s.poll_transmit() {
            assert!(message.len() < 200_000);
            let Ok(Message::AuditRecords(part)) = Message::from_bytes(&message) else {
                panic!("it is sent records");
            };
            assert_eq!((part.level, part.partition), (Level(100), 5));
            lasts.push(part.last);
            came.extend(part.records);
        }
        assert_eq!(came, records);
        assert_eq!(lasts.len(), messages, "{count} of {bytes}");
        assert_eq!(lasts.iter().filter(|last| **last).count(), 1);
        assert_eq!(lasts.last(), Some(&true));
    }
    // More than any partition holds is not sent.
    let mut s = with_nodes(1..=1);
    say(&mut s, ms(0), 1, ask(None));
    let records = vec![record(30_000); PARTITION_BYTES_MAX / 30_000 + 1];
    s.handle_audit_records(ms(0), Peer(1), Level(100), 5, records);
    assert_eq!(sent(&mut s), ["audit refusal"]);
    assert_eq!(s.counters().partitions_too_large_total, 1);
}

#[test]
fn a_master_whose_table_contradicts_itself_refuses() {
    let mut s = with_nodes(1..=1);
    say(&mut s, ms(0), 1, ask(None));
    s.handle_audit_refused(ms(0), Peer(1), AuditRefusal::Corrupt);
    let (_, bytes) = s.poll_transmit().unwrap();
    let refused = Message::AuditRefused(AuditRefusal::Corrupt);
    assert_eq!(Message::from_bytes(&bytes), Ok(refused));
    // The node may ask again.
    events(&mut s);
    say(&mut s, ms(0), 1, ask(None));
    assert_eq!(events(&mut s), ["read for 1"]);
}

#[test]
fn one_order_brings_one_report() {
    let order = |ticket| AuditOrder {
        ticket,
        repair: false,
    };
    let report = |ticket| {
        Message::AuditReport(AuditReport {
            ticket,
            verdict: AuditVerdict::Equal,
            level: Level(100),
            records: 1,
            partitions: 0,
            ranges: Vec::new(),
            differing: 0,
            repaired: 0,
        })
    };
    let mut s = with_nodes(1..=1);
    let unknown = s.handle_audit_order(ms(0), NodeId(9), order(5));
    assert_eq!(unknown, Err(AuditOrderError::NotConnected(NodeId(9))));
    assert_eq!(s.handle_audit_order(ms(0), NodeId(1), order(5)), Ok(()));
    assert_eq!(sent(&mut s), ["audit order"]);
    let second = s.handle_audit_order(ms(0), NodeId(1), order(6));
    assert_eq!(second, Err(AuditOrderError::Busy(NodeId(1))));
    assert_eq!(sent(&mut s), [""; 0]);
    for ticket in [6, 5, 5] {
        say(&mut s, ms(0), 1, report(ticket));
    }
    assert_eq!(events(&mut s), ["1 reports 5"]);
    assert_eq!(s.counters().reports_ignored_total, 2);
    assert_eq!(s.handle_audit_order(ms(0), NodeId(1), order(7)), Ok(()));
    // An order ends with its connection.
    s.handle_closed(ms(0), Peer(1));
    connect(&mut s, ms(0), 2, Some(at(2, 100)));
    assert_eq!(s.handle_audit_order(ms(0), NodeId(2), order(8)), Ok(()));
}
