//! Audits: questions of nodes, and orders of operators from the request to its answer.

use locus_proto::v1::{AuditAsk, AuditOrder, AuditReport, AuditScope, AuditVerdict};
use locus_proto::{Level, NodeName, Root};

use super::*;
use crate::provision::{Audited, NodeAudit, NodeRef};

fn report(ticket: u64, verdict: AuditVerdict) -> AuditReport {
    AuditReport {
        ticket,
        verdict,
        level: Level(3),
        records: 7,
        partitions: 1,
        ranges: vec![(5, 5)],
        differing: 2,
        repaired: 2,
    }
}

/// Orders an audit with a minute's time; returns the ticket of the request.
fn order(bench: &mut Bench, node: Option<NodeRef>, repair: bool) -> u64 {
    let deadline = bench.now.plus(Duration::from_secs(60));
    bench.ask(Request::Audit {
        node,
        repair,
        deadline,
    })
}

/// Takes the order that a node was given.
#[track_caller]
fn ordered(bench: &mut Bench, peer: Peer) -> AuditOrder {
    let messages = bench.messages(peer);
    let orders: Vec<_> = messages
        .iter()
        .filter_map(|message| {
            if let Message::AuditOrder(order) = message {
                Some(*order)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(orders.len(), 1, "{messages:?}");
    orders[0]
}

#[track_caller]
fn outcomes(answer: &Answer) -> Vec<(u16, &Audited)> {
    let Answer::Audited { nodes, .. } = answer else {
        panic!("{answer:?}");
    };
    nodes
        .iter()
        .map(|node| (node.node.0, &node.outcome))
        .collect()
}

fn name(text: &str) -> Option<NodeRef> {
    Some(NodeRef::Name(text.parse::<NodeName>().unwrap()))
}

#[test]
fn questions_are_answered_from_coarse_to_fine_at_the_present_level() {
    let mut bench = Bench::new(1000);
    for number in 0..200 {
        bench.ask(Request::Change(vec![put(number, "sip:a@h")]));
    }
    bench.flush();
    let peer = bench.following(1);
    let head = bench.drive.core().position();
    let mut ask = |scope| {
        bench.message(peer, Message::AuditAsk(AuditAsk { scope, doubt: None }));
        bench.messages(peer)
    };
    let sums = |message: &Message, group| {
        let Message::AuditSums(sums) = message else {
            panic!("{message:?}");
        };
        assert_eq!(
            (sums.level, sums.group, sums.sums.len()),
            (head.level, group, 256)
        );
        sums.sums.clone()
    };
    let total = |sums: &[Root]| sums.iter().copied().fold(Root::EMPTY, Root::plus);
    let groups = sums(&ask(AuditScope::Groups)[0], None);
    assert_eq!(total(&groups), head.root);
    let mut records = 0;
    for group in 0..=u8::MAX {
        let partitions = sums(&ask(AuditScope::Group(group))[0], Some(group));
        assert_eq!(total(&partitions), groups[usize::from(group)], "{group}");
        for (low, sum) in (0_u16..).zip(&partitions) {
            if *sum == Root::EMPTY {
                continue;
            }
            let partition = u16::from(group) << 8 | low;
            for message in ask(AuditScope::Partition(partition)) {
                let Message::AuditRecords(part) = message else {
                    panic!("{message:?}");
                };
                assert_eq!(
                    (part.level, part.partition, part.last),
                    (head.level, partition, true)
                );
                records += part.records.len();
            }
        }
    }
    assert_eq!(records, 200);
    let [Message::AuditRecords(empty)] = &ask(AuditScope::Partition(0))[..] else {
        panic!("an answer");
    };
    assert!(empty.last && empty.records.is_empty(), "{empty:?}");
}

#[test]
fn an_order_goes_to_every_node_and_is_answered_when_all_have_reported() {
    let mut bench = Bench::new(1000);
    bench.change(vec![put(1, "sip:a@h")]);
    let (first, second) = (bench.following(1), bench.following(2));
    let away = bench.following(3);
    bench.feed(Input::Closed { peer: away });
    let ticket = order(&mut bench, None, true);
    let [one, two] = [first, second].map(|peer| ordered(&mut bench, peer));
    assert!(one.repair && one == two, "{one:?} {two:?}");
    let (equal, repaired) = (
        report(one.ticket, AuditVerdict::Equal),
        report(one.ticket, AuditVerdict::Repaired),
    );
    bench.message(second, Message::AuditReport(repaired.clone()));
    assert_eq!(bench.said.answers.len(), 0);
    bench.message(first, Message::AuditReport(equal.clone()));
    let expected = Answer::Audited {
        level: Level(1),
        nodes: [
            (1, Audited::Reported(equal)),
            (2, Audited::Reported(repaired)),
            (3, Audited::NotConnected),
        ]
        .map(|(number, outcome)| NodeAudit {
            node: NodeId(number),
            name: format!("n{number}").parse().unwrap(),
            outcome,
        })
        .to_vec(),
    };
    assert_eq!(bench.answer(ticket), expected);
    let lines: Vec<_> = bench.said.events.iter().map(ToString::to_string).collect();
    let line = "node 2 (n2) was audited at level 3: repaired; 2 records in 1 partition differed, repaired: 2";
    assert!(lines.iter().any(|said| said == line), "{lines:?}");
}

#[test]
fn one_node_is_found_by_name_number_or_digits() {
    let mut bench = Bench::new(1000);
    let (first, second) = (bench.following(1), bench.following(2));
    for node in [name("n2"), name("2"), Some(NodeRef::Number(NodeId(2)))] {
        let ticket = order(&mut bench, node, false);
        let order = ordered(&mut bench, second);
        assert!(!order.repair);
        let found = report(order.ticket, AuditVerdict::Differs);
        bench.message(second, Message::AuditReport(found.clone()));
        let answer = bench.answer(ticket);
        assert_eq!(outcomes(&answer), [(2, &Audited::Reported(found))]);
    }
    let asked = |message: &Message| matches!(message, Message::AuditOrder(_));
    assert!(!bench.messages(first).iter().any(asked));
    for node in [name("n3"), name("3"), Some(NodeRef::Number(NodeId(3)))] {
        let node = node.unwrap();
        let ticket = order(&mut bench, Some(node.clone()), false);
        let refused = Answer::Refused(RequestError::NoSuchNode(node));
        assert_eq!(bench.answer(ticket), refused);
    }
}

#[test]
fn a_node_that_goes_away_or_says_nothing_holds_nobody_up() {
    let mut bench = Bench::new(1000);
    let (first, second) = (bench.following(1), bench.following(2));
    let ticket = order(&mut bench, None, false);
    bench.feed(Input::Closed { peer: first });
    assert_eq!(bench.said.answers.len(), 0);
    let order_of_second = ordered(&mut bench, second);
    for _ in 0..59 {
        bench.message(second, nodes::status(bench.drive.core().position()));
        bench.advance(Duration::from_secs(1));
        bench.write();
    }
    assert_eq!(bench.said.answers.len(), 0);
    bench.advance(Duration::from_secs(1));
    let answer = bench.answer(ticket);
    let expected = [(1, &Audited::NoAnswer), (2, &Audited::NoAnswer)];
    assert_eq!(outcomes(&answer), expected);
    // It is still at it: the next order finds it busy, and its late report is nobody's answer.
    let ticket = order(&mut bench, name("n2"), false);
    let answer = bench.answer(ticket);
    assert_eq!(outcomes(&answer), [(2, &Audited::Busy)]);
    let late = report(order_of_second.ticket, AuditVerdict::Equal);
    bench.message(second, Message::AuditReport(late));
    let ticket = order(&mut bench, name("n2"), false);
    assert_eq!(bench.said.answers.len(), 0);
    let fresh = report(ordered(&mut bench, second).ticket, AuditVerdict::Equal);
    bench.message(second, Message::AuditReport(fresh.clone()));
    let answer = bench.answer(ticket);
    assert_eq!(outcomes(&answer), [(2, &Audited::Reported(fresh))]);
}

#[test]
fn two_audits_at_once_are_one_too_many() {
    let mut bench = Bench::new(1000);
    let peer = bench.following(1);
    let first = order(&mut bench, None, false);
    bench.advance(Duration::from_secs(5));
    let second = order(&mut bench, None, true);
    let left = Duration::from_secs(55);
    let refused = Answer::Refused(RequestError::AuditUnderWay { left });
    assert_eq!(bench.answer(second), refused);
    let found = report(ordered(&mut bench, peer).ticket, AuditVerdict::Equal);
    bench.message(peer, Message::AuditReport(found));
    assert_eq!(outcomes(&bench.answer(first)).len(), 1);
    let third = order(&mut bench, None, true);
    assert!(ordered(&mut bench, peer).repair);
    bench.advance(Duration::from_secs(60));
    assert_eq!(outcomes(&bench.answer(third)).len(), 1);
}

#[test]
fn with_no_node_there_is_nothing_to_wait_for() {
    let mut bench = Bench::new(1000);
    let ticket = order(&mut bench, None, false);
    assert_eq!(outcomes(&bench.answer(ticket)), []);
}

#[test]
fn reports_that_nobody_ordered_change_nothing() {
    let mut bench = Bench::new(1000);
    let (first, second) = (bench.following(1), bench.following(2));
    let ticket = order(&mut bench, name("n1"), false);
    let order_of_first = ordered(&mut bench, first);
    for (peer, ticket) in [
        (second, order_of_first.ticket),
        (first, order_of_first.ticket + 1),
        (first, 0),
    ] {
        bench.message(
            peer,
            Message::AuditReport(report(ticket, AuditVerdict::Equal)),
        );
    }
    assert_eq!(bench.said.answers.len(), 0);
    let found = report(order_of_first.ticket, AuditVerdict::Failed);
    bench.message(first, Message::AuditReport(found.clone()));
    assert_eq!(
        outcomes(&bench.answer(ticket)),
        [(1, &Audited::Reported(found))]
    );
}
