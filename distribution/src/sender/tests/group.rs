//! The master's side of the group: who is served which way, and what is read for whom.

use std::net::{Ipv4Addr, SocketAddr};

use locus_proto::v1::{GroupHeard, GroupLeft, GroupLeftReason};

use super::super::choice::Choice;
use super::*;
use crate::multicast::GroupConfig;

const STREAM: u64 = 7;

/// A sender at level 100 with a group.
fn with_group(transport: Transport) -> Sender {
    let config = SenderConfig {
        transport,
        group: Some(GroupSetup {
            address: SocketAddr::from((Ipv4Addr::new(239, 192, 0, 1), 5000)),
            reply_port: 5001,
            config: GroupConfig {
                stream: STREAM,
                seed: [1; 32],
                datagram_bytes: 1400,
                rate_bytes_per_s: 25_000_000,
                rate_floor_bytes_per_s: 250_000,
            },
        }),
        ..sender().config
    };
    Sender::new(
        Timestamp(0),
        config,
        lineage(),
        at(2, 100),
        MasterTime(1_000),
    )
}

fn hear(s: &mut Sender, now: Timestamp, peer: u64) {
    let heard = GroupHeard {
        stream: STREAM,
        key: 1,
    };
    s.handle_message(now, Peer(peer), Message::GroupHeard(heard), &CHEAP)
        .unwrap();
}

fn leave(s: &mut Sender, now: Timestamp, peer: u64, reason: GroupLeftReason, at: Position) {
    let left = GroupLeft {
        stream: STREAM,
        reason,
        position: at,
    };
    s.handle_message(now, Peer(peer), Message::GroupLeft(left), &CHEAP)
        .unwrap();
}

/// Takes the events that tell of paths and reads, as words.
fn events(s: &mut Sender) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(event) = s.poll_event() {
        match event {
            SenderEvent::ReadLog { peer, after, .. } => {
                words.push(format!("read for {} after {}", peer.0, after.level));
            }
            SenderEvent::PathChanged { node, to, .. } => words.push(format!("{node} by {to}")),
            SenderEvent::MulticastLost { node, .. } => words.push(format!("{node} lost")),
            SenderEvent::MulticastBack { node, .. } => words.push(format!("{node} back")),
            SenderEvent::Close { peer, reason } => {
                words.push(format!("close {}: {reason:?}", peer.0))
            }
            SenderEvent::ReadTable { .. }
            | SenderEvent::SplitScan { .. }
            | SenderEvent::EndScan { .. }
            | SenderEvent::ReadAudit { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::NodeDown { .. } => {}
        }
    }
    words
}

const NOTHING: [String; 0] = [];

#[test]
fn the_log_is_read_once_for_all_nodes_in_the_group() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    for peer in 1..=3 {
        connect(&mut s, now, peer, Some(at(2, 100)));
        assert_eq!(sent(&mut s), ["welcome", "group offer", "heartbeat"]);
    }
    assert_eq!(events(&mut s), NOTHING, "nobody is in: nothing is read");
    for peer in 1..=3 {
        hear(&mut s, now, peer);
        assert_eq!(sent(&mut s), ["group cut"]);
        assert_eq!(events(&mut s), [format!("{peer} by multicast")]);
    }
    s.handle_committed(now, at(2, 102), MasterTime(1_000));
    assert_eq!(events(&mut s), ["read for 0 after 100"]);
    s.handle_frames(now, GROUP, vec![frame(100, 101, 9), frame(101, 102, 9)]);
    assert_eq!(sent(&mut s), [] as [&str; 0], "by the group alone");
    assert_eq!(events(&mut s), NOTHING);
    // While in the group a heartbeat over the connection tells that the master lives.
    s.handle_timeout(seconds(1), MasterTime(2_000));
    assert_eq!(sent(&mut s), ["heartbeat"; 3]);
    let counters = s.counters();
    assert_eq!(counters.group_frame_bytes_total, 18);
    assert_eq!(counters.connection_frame_bytes_total, 0);
    assert!(s.roster().iter().all(|entry| entry.path == Path::Multicast));
}

#[test]
fn a_node_is_cut_where_its_place_and_the_groups_meet() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    connect(&mut s, now, 1, Some(at(2, 100)));
    hear(&mut s, now, 1);
    // Behind the group: it is served over its connection up to where the group is, and no further.
    connect(&mut s, now, 2, Some(at(2, 98)));
    hear(&mut s, now, 2);
    assert_eq!(events(&mut s), ["1 by multicast", "read for 2 after 98"]);
    s.handle_committed(now, at(2, 101), MasterTime(1_000));
    assert_eq!(events(&mut s), ["read for 0 after 100"]);
    sent(&mut s);
    let frames = vec![frame(98, 99, 9), frame(99, 100, 9), frame(100, 101, 9)];
    s.handle_frames(now, Peer(2), frames);
    assert_eq!(sent(&mut s), ["frame", "frame", "group cut"]);
    assert_eq!(events(&mut s), ["2 by multicast"]);
    // Ahead of the group: it waits until the group has come to where it is.
    connect(&mut s, now, 3, Some(at(2, 101)));
    hear(&mut s, now, 3);
    s.handle_committed(now, at(2, 103), MasterTime(1_000));
    assert_eq!(events(&mut s), NOTHING);
    sent(&mut s);
    let frames = vec![frame(100, 101, 9), frame(101, 103, 9)];
    s.handle_frames(now, GROUP, frames);
    assert_eq!(sent(&mut s), ["group cut"]);
    assert_eq!(events(&mut s), ["3 by multicast"]);
    assert_eq!(s.counters().group_frame_bytes_total, 18);
}

#[test]
fn nobody_waits_for_a_first_node_that_is_far_behind() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    connect(&mut s, now, 1, Some(at(2, 90)));
    connect(&mut s, now, 2, Some(at(2, 100)));
    hear(&mut s, now, 1);
    hear(&mut s, now, 2);
    assert_eq!(events(&mut s), ["read for 1 after 90", "2 by multicast"]);
    s.handle_committed(now, at(2, 101), MasterTime(1_000));
    assert_eq!(events(&mut s), ["read for 0 after 100"]);
    s.handle_frames(now, GROUP, vec![frame(100, 101, 9)]);
    sent(&mut s);
    s.handle_frames(now, Peer(1), vec![frame(90, 101, 9)]);
    assert_eq!(sent(&mut s), ["frame", "group cut"]);
    assert_eq!(events(&mut s), ["1 by multicast"]);
}

#[test]
fn the_group_begins_though_nobody_keeps_up_over_its_connection() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    connect(&mut s, now, 1, Some(at(2, 90)));
    connect(&mut s, now, 2, Some(at(2, 95)));
    hear(&mut s, now, 1);
    hear(&mut s, now, 2);
    let reads = ["read for 1 after 90", "read for 2 after 95"];
    let begun = ["2 by multicast", "read for 0 after 95"];
    assert_eq!(events(&mut s), [reads, begun].concat());
}

#[test]
fn who_has_left_again_does_not_come_back_by_an_earlier_word() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    connect(&mut s, now, 1, Some(at(2, 100)));
    hear(&mut s, now, 1);
    leave(&mut s, now, 1, GroupLeftReason::Gone, at(2, 100));
    hear(&mut s, now, 1); // too early
    leave(&mut s, now, 1, GroupLeftReason::Silent, at(2, 100));
    events(&mut s);
    s.handle_timeout(now.plus(BACK_AFTER), MasterTime(1_000));
    assert_eq!(events(&mut s), NOTHING);
}

#[test]
fn a_node_that_leaves_is_served_from_where_it_says_it_is() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    for peer in [1, 2] {
        connect(&mut s, now, peer, Some(at(2, 100)));
        hear(&mut s, now, peer);
    }
    s.handle_committed(now, at(2, 102), MasterTime(1_000));
    s.handle_frames(now, GROUP, vec![frame(100, 102, 9)]);
    sent(&mut s);
    events(&mut s);
    leave(&mut s, now, 1, GroupLeftReason::Silent, at(2, 100));
    assert_eq!(
        events(&mut s),
        ["1 lost", "1 by tcp", "read for 1 after 100"]
    );
    // Said twice, it changes nothing; nor is the alarm raised again.
    s.handle_frames(now, Peer(1), vec![frame(100, 102, 9)]);
    assert_eq!(sent(&mut s), ["frame", "heartbeat"]);
    leave(&mut s, now, 1, GroupLeftReason::Silent, at(2, 100));
    assert_eq!(events(&mut s), NOTHING);
    // It comes back by itself, but not at once, however often it comes and goes.
    hear(&mut s, now, 1);
    assert_eq!(sent(&mut s), [] as [&str; 0]);
    s.handle_timeout(now.plus(BACK_AFTER / 2), MasterTime(1_000));
    assert_eq!(events(&mut s), NOTHING);
    let now = now.plus(BACK_AFTER);
    s.handle_timeout(now, MasterTime(1_000));
    assert!(sent(&mut s).contains(&"group cut"));
    assert_eq!(events(&mut s), ["1 by multicast", "1 back"]);
    // What it holds is not of this log: it reloads.
    leave(&mut s, now, 1, GroupLeftReason::Gone, at(2, 103));
    assert_eq!(events(&mut s), ["1 by tcp", "close 1: LogUnreadable"]);
    connect(&mut s, now, 3, Some(at(2, 102)));
    assert_eq!(sent(&mut s), ["welcome", "group offer", "heartbeat"]);
    s.handle_closed(now, Peer(3));
    s.handle_connected(now, Peer(4), arrived());
    s.handle_message(now, Peer(4), hello(1, Some(at(2, 102))), &CHEAP)
        .unwrap();
    assert_eq!(sent(&mut s), ["welcome", "snapshot begin"]);
}

#[test]
fn a_group_that_the_log_cannot_serve_ends_for_all() {
    let mut s = with_group(Transport::Multicast);
    let now = Timestamp(0);
    for peer in [1, 2] {
        connect(&mut s, now, peer, Some(at(2, 100)));
        hear(&mut s, now, peer);
    }
    s.handle_committed(now, at(2, 102), MasterTime(1_000));
    sent(&mut s);
    events(&mut s);
    s.handle_frames(now, GROUP, Vec::new());
    assert_eq!(sent(&mut s), ["group end", "group end"]);
    assert_eq!(events(&mut s), ["1 by tcp", "2 by tcp"]);
    // Nothing is streamed until they say where they are.
    s.handle_committed(now, at(2, 103), MasterTime(1_000));
    assert_eq!(events(&mut s), NOTHING);
    leave(&mut s, now, 2, GroupLeftReason::Asked, at(2, 100));
    assert_eq!(events(&mut s), ["read for 2 after 100"]);
    // An answer that was on its way for the group counts for nobody.
    s.handle_frames(now, GROUP, vec![frame(100, 103, 9)]);
    assert_eq!(s.counters().group_frame_bytes_total, 0);
}

#[test]
fn wishes_decide_and_nobody_speaks_of_a_group_that_was_not_offered() {
    for (ours, theirs, offered) in [
        (Transport::Auto, Transport::Auto, false),
        (Transport::Auto, Transport::Multicast, true),
        (Transport::Multicast, Transport::Auto, true),
        (Transport::Multicast, Transport::Unicast, false),
        (Transport::Unicast, Transport::Multicast, false),
    ] {
        let mut s = with_group(ours);
        let now = Timestamp(0);
        s.handle_connected(now, Peer(1), arrived());
        let Message::Hello(mut greeting) = hello(1, Some(at(2, 100))) else {
            unreachable!("a hello");
        };
        greeting.transport = theirs;
        s.handle_message(now, Peer(1), Message::Hello(greeting), &CHEAP)
            .unwrap();
        assert_eq!(sent(&mut s).contains(&"group offer"), offered);
        let heard = Message::GroupHeard(GroupHeard {
            stream: STREAM,
            key: 1,
        });
        let outcome = s.handle_message(now, Peer(1), heard, &CHEAP);
        assert_eq!(outcome.is_ok(), offered, "{ours:?} {theirs:?}");
    }
}

#[test]
fn auto_takes_many_nodes_in_under_load_and_out_when_it_is_calm() {
    let mut s = with_group(Transport::Auto);
    let nodes = u64::try_from(AUTO_NODES_MAX).unwrap() + 1;
    for peer in 1..=nodes {
        connect(&mut s, Timestamp(0), peer, Some(at(2, 100)));
    }
    // One that wishes it whatever the load.
    s.handle_connected(Timestamp(0), Peer(20), arrived());
    let Message::Hello(mut greeting) = hello(20, Some(at(2, 100))) else {
        unreachable!("a hello");
    };
    greeting.transport = Transport::Multicast;
    s.handle_message(Timestamp(0), Peer(20), Message::Hello(greeting), &CHEAP)
        .unwrap();
    let (mut now, mut level) = (Timestamp(0), 100);
    let mut offers = 0;
    let mut run = |s: &mut Sender, beats: u64, per_second: u64| {
        let mut ends = 0;
        for _ in 0..beats {
            now = now.plus(HEARTBEAT_EVERY);
            level += per_second / 2;
            s.handle_committed(now, at(2, level), MasterTime(1_000));
            for peer in (1..=nodes).chain([20]) {
                s.handle_message(now, Peer(peer), status(level), &CHEAP)
                    .unwrap();
                s.handle_sent(now, Peer(peer), usize::MAX);
            }
            s.handle_timeout(now, MasterTime(1_000));
            while let Some((peer, bytes)) = s.poll_transmit() {
                s.handle_sent(now, peer, bytes.len());
                let Ok(message) = Message::from_bytes(&bytes) else {
                    continue;
                };
                offers += usize::from(noun(&message) == "group offer");
                ends += usize::from(noun(&message) == "group end");
            }
            while let Some(event) = s.poll_event() {
                if let SenderEvent::ReadLog { peer, after, .. } = event {
                    s.handle_frames(now, peer, vec![frame(after.level.0, level, 9)]);
                }
            }
            while s.poll_datagram().is_some() {}
        }
        (now, level, offers, ends)
    };
    let (_, _, offers, _) = run(&mut s, 60, 500);
    assert_eq!(offers, 1, "below a tenth of the rate");
    let (now, _, offers, ends) = run(&mut s, 60, 2_000);
    assert_eq!((offers, ends), (10, 0));
    for peer in (1..=nodes).chain([20]) {
        hear(&mut s, now, peer);
    }
    let by_group = |s: &Sender| {
        let roster = s.roster();
        roster.iter().filter(|e| e.path == Path::Multicast).count()
    };
    assert_eq!(by_group(&s), 10);
    // It is calm again (how `auto` finds that is told in its own tests): only the one that wishes it stays.
    s.group.as_mut().unwrap().choice = Choice::default();
    s.handle_timeout(now, MasterTime(1_000));
    assert_eq!(by_group(&s), 10, "at the next heartbeat");
    let (now, level, _, ends) = run(&mut s, 1, 0);
    assert_eq!(ends, 9);
    assert_eq!(by_group(&s), 1);
    for peer in 1..=nodes {
        leave(&mut s, now, peer, GroupLeftReason::Asked, at(2, level));
        hear(&mut s, now, peer); // they go on listening, but are not cut
    }
    assert_eq!(by_group(&s), 1);
    events(&mut s);
    sent(&mut s);
    s.handle_committed(now, at(2, level + 1), MasterTime(1_000));
    let read = |peer: u64| format!("read for {peer} after {level}");
    let reads: Vec<String> = (0..=nodes).map(read).collect();
    assert_eq!(
        events(&mut s),
        reads,
        "for the group, and for each of the others"
    );
    assert_eq!(sent(&mut s), [] as [&str; 0]);
    s.handle_frames(now, Peer(1), vec![frame(level, level + 1, 9)]);
    assert_eq!(sent(&mut s), ["frame"]);
}

#[test]
fn keys_change_when_somebody_is_gone_who_knows_them() {
    let mut s = with_group(Transport::Multicast);
    for peer in 1..=4 {
        connect(&mut s, seconds(0), peer, Some(at(2, 100)));
        hear(&mut s, seconds(0), peer);
    }
    sent(&mut s);
    let keys = |s: &mut Sender| sent(s).into_iter().filter(|w| *w == "group key").count();
    // Revoked: at once.
    s.handle_removed(seconds(1), NodeId(1));
    assert_eq!(keys(&mut s), 3);
    let closed = closes(&mut s);
    assert_eq!(closed, [(1, CloseReason::Revoked)]);
    // A second one within ten seconds waits for its turn; who is unknown changes nothing.
    s.handle_removed(seconds(2), NodeId(2));
    s.handle_removed(seconds(2), NodeId(77));
    assert_eq!(keys(&mut s), 0);
    let mut at_seconds = Vec::new();
    for half in 4..60_u32 {
        let now = Timestamp(0).plus(HEARTBEAT_EVERY * half);
        for peer in [3, 4] {
            if s.node(Peer(peer)).is_some() {
                s.handle_message(now, Peer(peer), status(100), &CHEAP)
                    .unwrap();
            }
        }
        if half == 30 {
            s.handle_closed(now, Peer(3)); // back within ten seconds
        }
        if half == 40 {
            connect(&mut s, now, 5, Some(at(2, 100)));
        }
        s.handle_timeout(now, MasterTime(1_000));
        if keys(&mut s) > 0 {
            at_seconds.push(half / 2);
        }
    }
    assert_eq!(at_seconds, [11, 25], "the second one's, then the third's");
    // Nobody here says that it holds the new key: each is taken out.
    assert!(s.counters().group_ends_total > 0);
}

#[test]
fn keys_change_too_when_it_came_back_and_was_not_offered_the_group() {
    let mut s = with_group(Transport::Multicast);
    let now = seconds(0);
    for peer in [1, 2] {
        connect(&mut s, now, peer, Some(at(2, 100)));
        hear(&mut s, now, peer);
    }
    s.handle_closed(now, Peer(1));
    s.handle_connected(now, Peer(3), arrived());
    s.handle_message(now, Peer(3), hello(1, None), &CHEAP)
        .unwrap();
    sent(&mut s);
    // It loads the table, and is revoked meanwhile.
    s.handle_removed(now, NodeId(1));
    assert!(sent(&mut s).contains(&"group key"));
}
