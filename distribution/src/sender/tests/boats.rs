//! Readings of the table that several nodes share.

use super::*;
use crate::RosterEntry;

fn part(n: u64) -> SnapshotPart {
    let key = Key::from_bytes(format!("au{n}@lab").as_bytes()).unwrap();
    let record = Change {
        key,
        level: Level(n),
        op: ChangeOp::Put(vec![7; 200]),
    };
    SnapshotPart {
        records: vec![record],
    }
}

fn end(level: u64) -> SnapshotEnd {
    SnapshotEnd {
        level: Level(level),
        root: Root([level, level]),
    }
}

fn ms(ms: u64) -> Timestamp {
    Timestamp(ms * 1_000_000)
}

/// Takes what is asked of the table's owner, as words.
fn scans(s: &mut Sender) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(event) = s.poll_event() {
        match event {
            SenderEvent::ReadTable { boat, first } => words.push(match first {
                true => format!("begin {}", boat.0),
                false => format!("go on {}", boat.0),
            }),
            SenderEvent::SplitScan { from, to } => words.push(format!("split {} {}", from.0, to.0)),
            SenderEvent::EndScan { boat } => words.push(format!("forget {}", boat.0)),
            SenderEvent::Close { peer, reason } => {
                words.push(format!("close {}: {reason:?}", peer.0))
            }
            SenderEvent::ReadLog { .. }
            | SenderEvent::ReadAudit { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::PathChanged { .. }
            | SenderEvent::MulticastLost { .. }
            | SenderEvent::MulticastBack { .. }
            | SenderEvent::NodeDown { .. } => {}
        }
    }
    words
}

/// Takes all that is sent, as written by everybody but `stuck`.
fn write(s: &mut Sender, now: Timestamp, stuck: &[u64]) -> Vec<(u64, Arc<[u8]>)> {
    let mut sent = Vec::new();
    while let Some((peer, bytes)) = s.poll_transmit() {
        if !stuck.contains(&peer.0) {
            s.handle_sent(now, peer, bytes.len());
        }
        sent.push((peer.0, bytes));
    }
    sent
}

/// Three nodes on boat 2, which has been asked for its first part; node 1 is alone on boat 1, and stuck.
fn three() -> Sender {
    let mut s = sender();
    for peer in 1..=4 {
        connect(&mut s, ms(0), peer, None);
    }
    assert_eq!(scans(&mut s), ["begin 1"], "the first leaves at once");
    s.handle_timeout(ms(249), MasterTime(0));
    assert_eq!(scans(&mut s), [] as [&str; 0], "the others gather");
    s.handle_timeout(ms(250), MasterTime(0));
    assert_eq!(scans(&mut s), ["begin 2"]);
    write(&mut s, ms(250), &[1]);
    s
}

#[test]
fn who_waits_when_a_boat_leaves_rides_on_it_and_each_part_is_encoded_once() {
    let mut s = three();
    s.handle_records(ms(300), Boat(2), part(1), None);
    let sent = write(&mut s, ms(300), &[1]);
    let peers: Vec<u64> = sent.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [2, 3, 4]);
    assert!(sent.iter().all(|(_, bytes)| Arc::ptr_eq(bytes, &sent[0].1)));
    assert_eq!(scans(&mut s), ["go on 2"]);
    // The end of the log at departure is where it begins, however the log has grown.
    s.handle_committed(ms(300), at(2, 110), MasterTime(0));
    s.handle_records(ms(310), Boat(2), part(2), Some(end(110)));
    write(&mut s, ms(310), &[1]);
    let from_departure = |read: &SenderEvent| {
        let SenderEvent::ReadLog { after, .. } = read else {
            return false;
        };
        after.level == Level(100)
    };
    let reads = reads(&mut s);
    assert!(reads.len() == 3 && reads.iter().all(from_departure));
    let counters = s.counters();
    assert_eq!((counters.boats_total, counters.snapshots_total), (2, 4));
    assert_eq!(counters.snapshot_parts_total, 2);
    assert_eq!(counters.snapshots_waited_total, 3);
}

#[test]
fn who_lets_the_others_wait_for_a_second_rides_alone() {
    let mut s = three();
    // Each part is 229 bytes of a window of 1,000: with three of them less than a quarter is left.
    let mut now = ms(300);
    for n in 1..=4 {
        s.handle_records(now, Boat(2), part(n), None);
        write(&mut s, now, &[1, 3]);
    }
    assert_eq!(scans(&mut s), ["go on 2", "go on 2", "go on 2"]);
    now = ms(1_299);
    s.handle_timeout(now, MasterTime(0));
    assert_eq!(scans(&mut s), [] as [&str; 0], "they wait for 3");
    now = ms(1_800);
    s.handle_timeout(now, MasterTime(0));
    assert_eq!(scans(&mut s), ["split 2 3", "go on 2"]);
    // It goes on where it was, once it takes something.
    s.handle_sent(now, Peer(3), 600);
    assert_eq!(scans(&mut s), ["go on 3"]);
    // The others do not notice when it goes away.
    s.handle_closed(now, Peer(3));
    assert_eq!(scans(&mut s), ["forget 3"]);
    s.handle_records(now, Boat(3), part(5), Some(end(100)));
    s.handle_records(now, Boat(2), part(5), Some(end(100)));
    write(&mut s, now, &[1]);
    let streaming = |entry: &&RosterEntry| entry.sending == Sending::Streaming;
    assert_eq!(s.roster().iter().filter(streaming).count(), 2);
    assert_eq!(s.counters().boats_split_total, 1);
}

#[test]
fn readings_for_the_slow_are_bounded() {
    let mut s = sender();
    let last = u64::try_from(SLOW_SNAPSHOTS_MAX).unwrap() + 3;
    for peer in 1..=last {
        connect(&mut s, ms(0), peer, None);
    }
    write(&mut s, ms(0), &[]);
    s.handle_records(ms(0), Boat(1), part(1), Some(end(100)));
    let mut now = ms(250);
    s.handle_timeout(now, MasterTime(0));
    assert_eq!(scans(&mut s), ["begin 1", "begin 2"]);
    write(&mut s, now, &[]);
    // One after the other takes nothing more.
    let mut closed = Vec::new();
    let mut stuck = Vec::new();
    for slow in 2..last {
        stuck.push(slow);
        for n in 0..4 {
            s.handle_records(now, Boat(2), part(n), None);
            write(&mut s, now, &stuck);
        }
        for _ in 0..6 {
            now = now.plus(HEARTBEAT_EVERY);
            for peer in 1..=last {
                if s.node(Peer(peer)).is_some() {
                    s.handle_message(now, Peer(peer), status(1), &CHEAP)
                        .unwrap();
                }
            }
            s.handle_timeout(now, MasterTime(0));
            write(&mut s, now, &stuck);
        }
        closed.extend(scans(&mut s).into_iter().filter(|w| w.starts_with("close")));
    }
    assert_eq!(s.counters().boats_split_total, 4);
    let expected = format!("close {}: TooSlow", last - 1);
    assert_eq!(closed, [expected]);
    assert_eq!(s.counters().too_slow_total, 1);
}

#[test]
fn a_table_that_cannot_be_read_closes_whoever_shares_the_reading() {
    let mut s = three();
    s.handle_unreadable(ms(300), Boat(2));
    let expected = [
        "close 2: TableUnreadable",
        "close 3: TableUnreadable",
        "forget 2",
        "close 4: TableUnreadable",
    ];
    assert_eq!(scans(&mut s), expected);
    assert!(s.node(Peer(1)).is_some());
}
