//! Nodes: greeting, catching up from the log, loading the table, registering, waiting for a level.

use locus_proto::v1::Plan;
use locus_proto::{Level, NodeState, NodeStatus, TableHealth};

use super::*;

pub(super) fn status(position: Position) -> Message {
    reporting(position, NodeState::Coherent)
}

fn reporting(position: Position, state: NodeState) -> Message {
    Message::Status(NodeStatus {
        position,
        state,
        lag_ms: 0,
        records: 0,
        catch_ups_total: 0,
        reloads_total: 0,
        last_sync_ms: 0,
        refused_total: 0,
        audits_total: 0,
        repaired_total: 0,
        health: TableHealth::default(),
        group: locus_proto::GroupHealth::default(),
    })
}

/// The report of a node whose content differs.
pub(super) fn doubting(position: Position) -> Message {
    reporting(position, NodeState::Resync)
}

/// Reports everything as written, until nothing more comes; returns what came.
fn receive(bench: &mut Bench) -> Vec<Message> {
    bench.write_all();
    let messages = std::mem::take(&mut bench.said.messages);
    messages.into_iter().map(|(_, message)| message).collect()
}

#[test]
fn a_node_with_nothing_loads_the_table_and_goes_on_with_the_log() {
    let mut bench = Bench::new(10_000);
    for number in 0..2000 {
        bench.ask(Request::Change(vec![put(number, "sip:a@h")]));
    }
    bench.flush();
    let peer = Peer(1);
    let arrived = tcp("10.0.0.1:1");
    bench.feed(Input::Connected { peer, arrived });
    bench.message(peer, Message::Hello(hello(1, None)));
    let received = receive(&mut bench);
    let head = bench.drive.core().position();
    let Message::Welcome(welcome) = &received[0] else {
        panic!("{:?}", received[0]);
    };
    assert!(matches!(welcome.plan, Plan::Reload(_)), "{welcome:?}");
    assert_eq!((welcome.head, welcome.table_key), (head, [3; 16]));
    let mut records = 0;
    let mut end = None;
    for message in &received {
        if let Message::SnapshotPart(part) = message {
            assert_eq!(end, None);
            records += part.records.len();
        } else if let Message::SnapshotEnd(snapshot_end) = message {
            end = Some(*snapshot_end);
        }
    }
    let end = end.expect("the snapshot ends");
    assert_eq!(
        (records, end.level, end.root),
        (2000, head.level, head.root)
    );
    bench.change(vec![put(1, "sip:b@h")]);
    let received = receive(&mut bench);
    let frame = received.iter().find_map(|message| {
        if let Message::Frame(frame) = message {
            Some(frame)
        } else {
            None
        }
    });
    assert_eq!(frame.expect("the change follows").header.from, head.level);
}

#[test]
fn a_node_that_was_away_gets_exactly_what_it_lacks() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 10_000, WALL, None, None);
    for number in 0..20 {
        bench.change(vec![put(number, "sip:a@h")]);
    }
    let there = bench.frames()[10].header.after();
    drop(bench);
    // Over a restart: the epoch's first frame is among what it lacks.
    let mut bench = Bench::open(folder, 10_000, WALL, None, None);
    bench.change(vec![put(1, "sip:b@h")]);
    let peer = Peer(1);
    let arrived = tcp("10.0.0.1:1");
    bench.feed(Input::Connected { peer, arrived });
    bench.message(peer, Message::Hello(hello(1, Some(there))));
    let received = receive(&mut bench);
    let Message::Welcome(welcome) = &received[0] else {
        panic!("{:?}", received[0]);
    };
    assert_eq!(welcome.plan, Plan::Continue);
    let mut position = there;
    for message in &received {
        if let Message::Frame(frame) = message {
            assert_eq!(
                (frame.header.from, frame.header.root_before),
                (position.level, position.root)
            );
            position = frame.header.after();
        }
    }
    assert_eq!(position, bench.drive.core().position());
}

/// A segment that rots while the service runs must not lock a node out: the table is whole.
#[test]
fn a_node_whose_part_of_the_log_cannot_be_read_loads_the_table() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 10_000, WALL, None, None);
    for number in 0..20 {
        bench.change(vec![put(number, "sip:a@h")]);
    }
    let there = bench.frames()[10].header.after();
    drop(bench);
    let mut bench = Bench::open(folder.clone(), 10_000, WALL, None, None);
    for name in folder.names().unwrap() {
        let file = folder.open(&name).unwrap();
        file.bytes().iter_mut().for_each(|byte| *byte ^= 0xff);
    }
    let mut plans = Vec::new();
    for peer in [Peer(1), Peer(2)] {
        let arrived = tcp("10.0.0.1:1");
        bench.feed(Input::Connected { peer, arrived });
        bench.message(peer, Message::Hello(hello(1, Some(there))));
        let received = receive(&mut bench);
        let Message::Welcome(welcome) = &received[0] else {
            panic!("{:?}", received[0]);
        };
        plans.push(welcome.plan);
    }
    assert_eq!(bench.said.closed, [Peer(1)]);
    assert_eq!(plans[0], Plan::Continue);
    assert!(matches!(plans[1], Plan::Reload(_)), "{plans:?}");
}

#[test]
fn only_a_node_that_has_greeted_may_register() {
    let mut bench = Bench::new(1000);
    let peer = Peer(1);
    let arrived = tcp("10.0.0.1:1");
    bench.feed(Input::Connected { peer, arrived });
    let ticket = bench.send_register(peer, registration(1, 1, 600));
    bench.flush();
    assert_eq!(bench.reply(ticket), None);
    assert_eq!(
        (bench.said.closed.as_slice(), bench.level()),
        (&[peer][..], 0)
    );
    assert!(
        bench
            .said
            .events
            .iter()
            .any(|event| matches!(event, Event::PeerRefused { .. }))
    );
    // A reply to a node that has gone meanwhile is dropped; the binding stays.
    let peer = bench.node(2);
    bench.send_register(peer, registration(1, 1, 600));
    bench.feed(Input::Closed { peer });
    bench.flush();
    assert_eq!((bench.contacts(1), bench.level()), (1, 1));
    assert!(bench.said.messages.iter().all(|(to, _)| *to != peer));
}

#[test]
fn waiting_ends_with_the_last_node_or_with_the_time() {
    let mut bench = Bench::new(1000);
    let deadline = bench.now.plus(Duration::from_secs(5));
    let wait = |level| Request::Wait {
        level: Level(level),
        deadline,
    };
    let (first, second) = (bench.node(1), bench.node(2));
    bench.change(vec![put(1, "sip:a@h")]);
    let (reached, missed) = (bench.ask(wait(1)), bench.ask(wait(2)));
    let position = bench.drive.core().position();
    bench.message(first, status(position));
    assert_eq!(bench.said.answers.len(), 0);
    bench.message(second, status(position));
    let expected = Answer::Waited {
        level: Level(1),
        behind: vec![],
        reached: true,
    };
    assert_eq!(bench.answer(reached), expected);
    bench.change(vec![put(2, "sip:a@h")]);
    let position = bench.drive.core().position();
    bench.message(second, status(position));
    bench.advance(Duration::from_secs(4));
    assert_eq!(bench.said.answers.len(), 0);
    bench.advance(Duration::from_secs(1));
    let expected = Answer::Waited {
        level: Level(2),
        behind: vec!["n1".parse().unwrap()],
        reached: false,
    };
    assert_eq!(bench.answer(missed), expected);
}

#[test]
fn a_node_of_another_past_has_not_applied_the_level() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    bench.change(vec![put(1, "sip:a@h")]);
    let mut stranger = bench.drive.core().position();
    stranger.epoch.id = EpochId([1; 16]);
    bench.message(node, status(stranger));
    let deadline = bench.now;
    let level = Level(1);
    let ticket = bench.ask(Request::Wait { level, deadline });
    let Answer::Waited { behind, .. } = bench.answer(ticket) else {
        panic!("waited");
    };
    assert_eq!(behind.len(), 1);
}

#[test]
fn the_roster_is_shown() {
    let mut bench = Bench::new(1000);
    let (first, _) = (bench.node(1), bench.node(2));
    bench.feed(Input::Closed { peer: first });
    let ticket = bench.ask(Request::Nodes);
    let Answer::Nodes { nodes, .. } = bench.answer(ticket) else {
        panic!("nodes");
    };
    let shown: Vec<_> = nodes
        .iter()
        .map(|n| (n.name.as_str(), n.connected, n.sending))
        .collect();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0], ("n1", false, "disconnected"));
    assert!(shown[1].1, "{shown:?}");
}

/// A table that is made for many records and holds few is read in steps too: nobody waits for all of it.
#[test]
fn no_input_reads_more_than_a_few_steps_of_an_empty_table() {
    let mut bench = Bench::new(300_000);
    bench.change(vec![put(1, "sip:a@h")]);
    let peer = Peer(1);
    let arrived = tcp("10.0.0.1:1");
    bench.feed(Input::Connected { peer, arrived });
    bench.message(peer, Message::Hello(hello(1, None)));
    let mut pauses = 0;
    while let Some(due) = bench.drive.core().read_due() {
        pauses += 1;
        assert!(due > bench.now);
        bench.now = due;
        let ticket = bench.ask(Request::Level);
        assert!(bench.said.answers.remove(&ticket).is_some());
    }
    // 300,000 records need some 66,000 buckets of 64 bytes; four times 128 KiB of them are read at once.
    assert!((5..20).contains(&pauses), "{pauses}");
    let received = receive(&mut bench);
    let records = received.iter().map(|message| {
        if let Message::SnapshotPart(part) = message {
            part.records.len()
        } else {
            0
        }
    });
    assert_eq!(records.sum::<usize>(), 1);
    assert!(
        received
            .iter()
            .any(|message| matches!(message, Message::SnapshotEnd(_)))
    );
    // Nothing is read on for a node that has gone.
    let peer = Peer(2);
    let arrived = tcp("10.0.0.2:1");
    bench.feed(Input::Connected { peer, arrived });
    bench.message(peer, Message::Hello(hello(2, None)));
    assert!(bench.drive.core().read_due().is_some());
    bench.feed(Input::Closed { peer });
    assert_eq!(bench.drive.core().read_due(), None);
}
