//! The sender's decisions and limits, one by one; whole conversations are told in `tests/transcripts`.

use std::time::Duration;

use locus_proto::v1::{Heartbeat, Hello, Plan, SnapshotEnd, SnapshotPart};
use locus_proto::{
    Change, ChangeOp, Epoch, EpochId, FrameHeader, FrameKind, Key, Level, NodeState, NodeStatus,
    Root, Transport,
};

use super::*;
use crate::ROSTER_MAX;

mod audit;
mod boats;
mod group;

struct Cost {
    log: Option<u64>,
    table: u64,
}

impl Costs for Cost {
    fn log_bytes_after(&self, _level: Level) -> Option<u64> {
        self.log
    }
    fn table_bytes(&self) -> u64 {
        self.table
    }
    fn table_records(&self) -> u64 {
        1
    }
}

const CHEAP: Cost = Cost {
    log: Some(0),
    table: 1000,
};

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        id: EpochId([u8::try_from(counter).unwrap(); 16]),
    }
}

fn at(counter: u64, level: u64) -> Position {
    Position {
        epoch: epoch(counter),
        level: Level(level),
        root: Root([level, level]),
    }
}

fn lineage() -> Lineage {
    let mut lineage = Lineage::default();
    lineage.push(epoch(1), Level(0)).unwrap();
    lineage.push(epoch(2), Level(50)).unwrap();
    lineage
}

/// A sender at level 100 of epoch 2, with a window of 1,000 bytes.
fn sender() -> Sender {
    let config = SenderConfig {
        cluster: "lab".parse().unwrap(),
        table_key: [7; 16],
        reload_above: None,
        window_bytes: 1_000,
        transport: Transport::Auto,
        group: None,
    };
    Sender::new(
        Timestamp(0),
        config,
        lineage(),
        at(2, 100),
        MasterTime(1_000),
    )
}

fn seconds(s: u64) -> Timestamp {
    Timestamp(0).plus(Duration::from_secs(s))
}

fn hello(node: u16, position: Option<Position>) -> Message {
    Message::Hello(Hello {
        cluster: "lab".parse().unwrap(),
        node: NodeId(node),
        name: format!("n{node}").parse().unwrap(),
        boot: locus_proto::BootId(1),
        sip: String::new(),
        newest: 1,
        transport: Transport::Auto,
        position,
    })
}

fn status(level: u64) -> Message {
    Message::Status(NodeStatus {
        position: at(2, level),
        state: NodeState::Coherent,
        lag_ms: 0,
        records: 1,
        catch_ups_total: 0,
        reloads_total: 0,
        last_sync_ms: 0,
        refused_total: 0,
        audits_total: 0,
        repaired_total: 0,
        health: locus_proto::TableHealth::default(),
        group: locus_proto::GroupHealth::default(),
    })
}

/// A frame whose message takes `bytes` bytes.
fn frame(from: u64, to: u64, bytes: usize) -> LogFrame {
    LogFrame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: epoch(2),
            from: Level(from),
            to: Level(to),
            root_before: Root([from, from]),
            root_after: Root([to, to]),
            time: MasterTime(0),
        },
        message: vec![0; bytes].into(),
    }
}

fn arrived() -> Arrived {
    Arrived {
        address: "10.0.0.1:5000".into(),
        medium: Medium::Tcp,
        identity: None,
    }
}

fn connect(sender: &mut Sender, now: Timestamp, peer: u64, position: Option<Position>) {
    let node = u16::try_from(peer).unwrap();
    sender.handle_connected(now, Peer(peer), arrived());
    sender
        .handle_message(now, Peer(peer), hello(node, position), &CHEAP)
        .unwrap();
}

/// Takes what is to be sent, as kinds; frames of these tests are no messages.
fn sent(sender: &mut Sender) -> Vec<&'static str> {
    let mut words = Vec::new();
    while let Some((_, bytes)) = sender.poll_transmit() {
        words.push(Message::from_bytes(&bytes).map_or("frame", |message| noun(&message)));
    }
    words
}

fn reads(sender: &mut Sender) -> Vec<SenderEvent> {
    let mut reads = Vec::new();
    while let Some(event) = sender.poll_event() {
        match event {
            SenderEvent::ReadLog { .. } | SenderEvent::ReadTable { .. } => reads.push(event),
            SenderEvent::ReadAudit { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. }
            | SenderEvent::Close { .. }
            | SenderEvent::SplitScan { .. }
            | SenderEvent::EndScan { .. }
            | SenderEvent::PathChanged { .. }
            | SenderEvent::MulticastLost { .. }
            | SenderEvent::MulticastBack { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::NodeDown { .. } => {}
        }
    }
    reads
}

fn closes(sender: &mut Sender) -> Vec<(u64, CloseReason)> {
    let mut closes = Vec::new();
    while let Some(event) = sender.poll_event() {
        if let SenderEvent::Close { peer, reason } = event {
            closes.push((peer.0, reason));
        }
    }
    closes
}

#[test]
fn the_plan_is_lineage_first_then_the_operators_word_then_the_cost() {
    use ReloadReason::{Ahead, Empty, LostTail, TooFar, UnknownEpoch};
    let reload = Plan::Reload;
    let go_on = Plan::Continue;
    let rotten = Position {
        root: Root([1, 2]),
        ..at(2, 100)
    };
    let mut rotten_before = rotten;
    rotten_before.epoch = epoch(1);
    rotten_before.level = Level(50);
    let tail = RELOAD_COST_MIN;
    // (presented, reload_above, bytes of log, bytes of table, plan); the head is level 100 of epoch 2
    for (position, above, log, table, expected) in [
        (None, None, Some(0), 0, reload(Empty)),
        (None, Some(1_000), Some(0), 0, reload(Empty)),
        (Some(at(1, 51)), Some(1_000), Some(0), 9, reload(LostTail)),
        (
            Some(at(3, 50)),
            Some(1_000),
            Some(0),
            9,
            reload(UnknownEpoch),
        ),
        (Some(at(2, 101)), Some(1_000), Some(0), 9, reload(Ahead)),
        // Other content is mended, not loaded anew; below the head nobody could even tell.
        (Some(rotten), Some(0), None, 0, go_on),
        (Some(rotten_before), None, Some(0), 9, go_on),
        (Some(at(2, 100)), Some(0), None, 0, go_on), // nothing is lacking
        (Some(at(2, 90)), Some(10), Some(u64::MAX), 0, go_on),
        (Some(at(2, 89)), Some(10), Some(0), u64::MAX, reload(TooFar)),
        (Some(at(1, 50)), Some(1_000), None, 9, reload(TooFar)), // the log is cut off
        (Some(at(2, 60)), None, None, 9, reload(TooFar)),
        (Some(at(2, 60)), None, Some(tail), 0, go_on),
        (Some(at(2, 60)), None, Some(tail + 1), 0, reload(TooFar)),
        (Some(at(2, 60)), None, Some(tail + 1), tail + 1, go_on),
        (
            Some(at(2, 60)),
            None,
            Some(tail + 2),
            tail + 1,
            reload(TooFar),
        ),
    ] {
        let plan = plan::decide(
            position,
            &lineage(),
            at(2, 100),
            above,
            &Cost { log, table },
        );
        assert_eq!(plan, expected, "{position:?} {above:?} {log:?} {table}");
    }
}

#[test]
fn reads_only_what_the_window_takes() {
    let mut s = sender();
    connect(&mut s, Timestamp(0), 1, Some(at(2, 90)));
    assert_eq!(sent(&mut s), ["welcome"]);
    let welcome = 1_000 - credit(&mut s);
    s.handle_frames(Timestamp(0), Peer(1), vec![frame(90, 92, 1_000 - welcome)]);
    assert_eq!(sent(&mut s), ["frame"]);
    // Full: the log grows, and nothing is read.
    for level in 101..200 {
        s.handle_committed(Timestamp(0), at(2, level), MasterTime(1_000));
    }
    assert_eq!(reads(&mut s), []);
    assert!(s.counters().window_full_total >= 99);
    // Less than a quarter: still nothing. Then one read, and no second before it is answered.
    s.handle_sent(Timestamp(0), Peer(1), 249);
    assert_eq!(reads(&mut s), []);
    s.handle_sent(Timestamp(0), Peer(1), 1);
    assert_eq!(credit(&mut s), 250);
    s.handle_sent(Timestamp(0), Peer(1), 100);
    s.handle_committed(Timestamp(0), at(2, 200), MasterTime(1_000));
    assert_eq!(reads(&mut s), []);
}

/// Takes the one read of the log that must be there; returns how much it may bring.
fn credit(s: &mut Sender) -> usize {
    match reads(s)[..] {
        [SenderEvent::ReadLog { bytes_max, .. }] => bytes_max,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_heartbeat_stands_behind_the_frames_up_to_its_position_and_before_later_ones() {
    let mut s = sender();
    connect(&mut s, Timestamp(0), 1, Some(at(2, 98)));
    assert_eq!(sent(&mut s), ["welcome"]);
    // Noted at level 100 while the node is at 98.
    s.handle_timeout(Timestamp(500_000_000), MasterTime(1_500));
    assert_eq!(sent(&mut s), [] as [&str; 0]);
    s.handle_committed(Timestamp(600_000_000), at(2, 103), MasterTime(1_600));
    let answer = vec![frame(98, 99, 9), frame(99, 100, 9), frame(100, 101, 9)];
    s.handle_frames(Timestamp(600_000_000), Peer(1), answer);
    assert_eq!(sent(&mut s), ["frame", "frame", "heartbeat", "frame"]);
    // At the head it is told at once, with the time of the last commit.
    s.handle_frames(Timestamp(600_000_000), Peer(1), vec![frame(101, 103, 9)]);
    let (_, first) = s.poll_transmit().unwrap();
    assert_eq!(first.len(), 9);
    let (_, second) = s.poll_transmit().unwrap();
    let expected = Message::Heartbeat(Heartbeat {
        time: MasterTime(1_600),
        head: at(2, 103),
    });
    assert_eq!(Message::from_bytes(&second), Ok(expected));
}

#[test]
fn whoever_breaks_the_protocol_is_dropped() {
    let unexpected = |message, sending| Err(PeerError::Unexpected { message, sending });
    for (greeted, message, expected) in [
        (false, status(1), unexpected("status", Sending::Greeting)),
        (
            true,
            hello(1, None),
            unexpected("hello", Sending::Streaming),
        ),
        (
            true,
            Message::SnapshotPart(SnapshotPart {
                records: Vec::new(),
            }),
            unexpected("snapshot part", Sending::Streaming),
        ),
        (true, status(100), Ok(())),
    ] {
        let mut s = sender();
        let now = Timestamp(0);
        if greeted {
            connect(&mut s, now, 1, Some(at(2, 100)));
        } else {
            s.handle_connected(now, Peer(1), arrived());
        }
        sent(&mut s);
        let outcome = s.handle_message(now, Peer(1), message, &CHEAP);
        let dropped = outcome.is_err();
        assert_eq!(outcome, expected);
        let expected = dropped.then_some((1, CloseReason::Violation));
        assert_eq!(closes(&mut s), Vec::from_iter(expected));
        assert_eq!(s.counters().unexpected_total, u64::from(dropped));
        // What was on its way is not heard any more.
        assert_eq!(s.node(Peer(1)).is_none(), dropped);
        let later = s.handle_message(now, Peer(1), status(1), &CHEAP);
        assert_eq!(later, Ok(()));
        assert_eq!(sent(&mut s), [] as [&str; 0]);
    }
}

#[test]
fn the_mute_the_silent_and_the_stalled_are_closed() {
    let mut s = sender();
    s.handle_connected(seconds(0), Peer(1), arrived()); // says nothing
    connect(&mut s, seconds(0), 2, Some(at(2, 100))); // greets, then nothing
    connect(&mut s, seconds(0), 3, Some(at(2, 100))); // reports, and takes nothing
    connect(&mut s, seconds(0), 4, Some(at(2, 100))); // all is well
    let mut closed = Vec::new();
    for half in 0..80 {
        let now = Timestamp(0).plus(HEARTBEAT_EVERY * half);
        for peer in [3, 4] {
            let outcome = s.handle_message(now, Peer(peer), status(100), &CHEAP);
            assert_eq!(outcome, Ok(()));
        }
        s.handle_timeout(now, MasterTime(0));
        while let Some((peer, bytes)) = s.poll_transmit() {
            if peer != Peer(3) {
                s.handle_sent(now, peer, bytes.len());
            }
        }
        let at = now.0 / 1_000_000_000;
        closed.extend(
            closes(&mut s)
                .into_iter()
                .map(|(peer, reason)| (at, peer, reason)),
        );
    }
    let expected = [
        (5, 1, CloseReason::NotGreeted),
        (10, 2, CloseReason::Silent),
        (30, 3, CloseReason::Stalled),
    ];
    assert_eq!(closed, expected);
    let counters = s.counters();
    assert_eq!(counters.greeting_timeouts_total, 1);
    assert_eq!(counters.silent_total, 1);
    assert_eq!(counters.stalled_total, 1);
}

#[test]
fn a_report_counts_until_the_node_greets_again() {
    let mut s = sender();
    connect(&mut s, seconds(0), 1, Some(at(2, 100)));
    s.handle_message(seconds(0), Peer(1), status(100), &CHEAP)
        .unwrap();
    s.handle_closed(seconds(1), Peer(1));
    assert_eq!(s.roster()[0].levels_behind, Some(0), "while it is away");
    // It comes back without its table: nobody may think that it still has level 100.
    s.handle_connected(seconds(2), Peer(2), arrived());
    s.handle_message(seconds(2), Peer(2), hello(1, None), &CHEAP)
        .unwrap();
    assert_eq!(s.roster()[0].status, None);
    assert_eq!(s.roster()[0].levels_behind, None);
}

#[test]
fn connections_and_remembered_nodes_are_bounded() {
    let mut s = sender();
    let most = u64::try_from(PEERS_MAX).unwrap();
    for peer in 1..=most {
        connect(&mut s, Timestamp(0), peer, Some(at(2, 100)));
    }
    sent(&mut s);
    s.handle_connected(Timestamp(0), Peer(most + 1), arrived());
    assert_eq!(closes(&mut s), [(most + 1, CloseReason::Full)]);
    assert_eq!(sent(&mut s), ["rejection"]);
    assert_eq!(s.counters().peers_refused_total, 1);
    // Nodes come and go: the longest gone is forgotten, a connected one never.
    for peer in 1..=most {
        if peer > 1 {
            s.handle_closed(Timestamp(0), Peer(peer));
        }
    }
    let remembered = u64::try_from(ROSTER_MAX).unwrap();
    for peer in most + 2..=remembered + 10 {
        connect(&mut s, seconds(peer), peer, Some(at(2, 100)));
        s.handle_closed(seconds(peer), Peer(peer));
    }
    let roster = s.roster();
    assert_eq!(roster.len(), ROSTER_MAX);
    assert_eq!(roster[0].node, NodeId(1));
    assert!(roster[0].connected);
    assert!(roster[1..].iter().all(|entry| !entry.connected));
    // 1 to 1,024 and 1,026 to 2,058 are 9 too many.
    assert_eq!(s.counters().roster_dropped_total, 9);
    assert!(
        roster
            .iter()
            .all(|entry| entry.node == NodeId(1) || entry.node.0 > 10)
    );
}

#[test]
fn a_node_that_the_log_cannot_serve_reloads_next_time() {
    for answer in [Vec::new(), vec![frame(91, 92, 9)]] {
        let mut s = sender();
        connect(&mut s, Timestamp(0), 1, Some(at(2, 90)));
        s.handle_frames(Timestamp(0), Peer(1), answer);
        assert_eq!(closes(&mut s), [(1, CloseReason::LogUnreadable)]);
        sent(&mut s);
        s.handle_connected(Timestamp(0), Peer(2), arrived());
        let again = hello(1, Some(at(2, 90)));
        s.handle_message(Timestamp(0), Peer(2), again, &CHEAP)
            .unwrap();
        assert_eq!(sent(&mut s), ["welcome", "snapshot begin"]);
        assert_eq!(s.roster()[0].sending, Sending::Snapshotting);
        // Once it was sent the whole table, the matter is closed.
        let end = SnapshotEnd {
            level: Level(100),
            root: Root([100, 100]),
        };
        let part = SnapshotPart {
            records: Vec::new(),
        };
        s.handle_records(Timestamp(0), Boat(1), part, Some(end));
        assert_eq!(sent(&mut s), ["snapshot end", "heartbeat"]);
        s.handle_closed(Timestamp(0), Peer(2));
        s.handle_connected(Timestamp(0), Peer(3), arrived());
        let again = hello(1, Some(at(2, 90)));
        s.handle_message(Timestamp(0), Peer(3), again, &CHEAP)
            .unwrap();
        assert_eq!(sent(&mut s), ["welcome"]);
    }
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut s = sender();
    connect(&mut s, Timestamp(0), 1, Some(at(2, 100)));
    sent(&mut s);
    let end = SnapshotEnd {
        level: Level(100),
        root: Root([1, 1]),
    };
    let record = Change {
        key: Key::from_bytes(b"aalice@example.net").unwrap(),
        level: Level(1),
        op: ChangeOp::Put(Vec::new()),
    };
    let part = SnapshotPart {
        records: vec![record],
    };
    for peer in [Peer(1), Peer(9), GROUP] {
        s.handle_frames(Timestamp(0), peer, vec![frame(100, 101, 9)]);
        s.handle_records(Timestamp(0), Boat(peer.0), part.clone(), Some(end));
        s.handle_sent(Timestamp(0), peer, usize::MAX);
    }
    s.handle_closed(Timestamp(0), Peer(9));
    assert_eq!(sent(&mut s), [] as [&str; 0]);
    assert_eq!(reads(&mut s), []);
    assert_eq!(s.roster()[0].sending, Sending::Streaming);
    assert!(!s.handle_reload_asked(Timestamp(0), NodeId(9)));
}

#[test]
fn what_was_queued_for_a_closed_connection_is_dropped() {
    let mut s = sender();
    connect(&mut s, Timestamp(0), 1, Some(at(2, 90)));
    s.handle_closed(Timestamp(0), Peer(1));
    assert_eq!(sent(&mut s), [] as [&str; 0]);
    assert_eq!(reads(&mut s), []);
}

#[test]
fn inputs_survive_a_recording() {
    let frame = frame(1, 2, 9);
    let text = serde_json::to_string(&frame).unwrap();
    assert_eq!(serde_json::from_str::<LogFrame>(&text).unwrap(), frame);
    let text = serde_json::to_string(&sender().config).unwrap();
    let config: SenderConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(config, sender().config);
    assert!(!format!("{config:?}").contains("table_key"));
}
