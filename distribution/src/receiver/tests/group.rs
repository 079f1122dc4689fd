//! The node in the group, with the master's real end of it: which way what comes is judged.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use locus_proto::v1::{GroupCut, GroupEnd, GroupEndReason, GroupHeard, GroupOffer};

use super::*;
use crate::multicast::{GroupConfig, GroupSender, GroupSenderEvent};

pub(super) const STREAM: u64 = 7;
const MASTER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 5000);

fn master() -> GroupSender {
    let config = GroupConfig {
        stream: STREAM,
        seed: [1; 32],
        datagram_bytes: 1400,
        rate_bytes_per_s: 25_000_000,
        rate_floor_bytes_per_s: 250_000,
    };
    GroupSender::new(NOW, config)
}

fn offer_of(master: &mut GroupSender) -> Message {
    let (key, node_key, verify_key) = master.offer(NodeId(1));
    Message::GroupOffer(GroupOffer {
        stream: STREAM,
        group: SocketAddr::from((Ipv4Addr::new(239, 192, 0, 1), 5000)),
        reply_port: 5001,
        key,
        node_key,
        verify_key,
    })
}

pub(super) fn offer() -> Message {
    offer_of(&mut master())
}

/// Returns what a master sends by the group at its start: a frame that follows `level`, and beats.
pub(super) fn datagrams(level: u64) -> Vec<Vec<u8>> {
    let mut master = master();
    master.offer(NodeId(1));
    master.add(NOW, NodeId(1));
    let bytes: Arc<[u8]> = frame(epoch(2, 2), level, level + 2).to_bytes().into();
    master.send(NOW, bytes, Level(0));
    let mut datagrams = Vec::new();
    for ms in 1..10 {
        master.handle_timeout(NOW.plus(Duration::from_millis(ms)));
        while let Some(datagram) = master.poll_datagram() {
            datagrams.push(datagram.bytes.to_vec());
        }
    }
    datagrams
}

pub(super) fn cut(stream: u64, seq: u64) -> Message {
    Message::GroupCut(GroupCut { stream, seq })
}

pub(super) fn end(stream: u64) -> Message {
    let reason = GroupEndReason::Lagging;
    Message::GroupEnd(GroupEnd { stream, reason })
}

/// A node, and the master's end of its group.
struct Bench {
    now: Timestamp,
    r: Receiver,
    group: GroupSender,
    /// The network brings nothing to the node.
    deaf: bool,
    /// What it has applied, and what it has said, as words.
    said: Vec<String>,
}

impl Bench {
    /// A node at level 10 that was offered the group.
    fn offered() -> Self {
        let mut bench = Self {
            now: NOW,
            r: in_phase("following"),
            group: master(),
            deaf: false,
            said: Vec::new(),
        };
        let offer = offer_of(&mut bench.group);
        bench.tell(offer);
        assert_eq!(bench.take(), ["join-group"]);
        bench
    }

    /// The same node in the group.
    fn cut() -> Self {
        let mut bench = Self::offered();
        bench.pass(10);
        assert_eq!(bench.take(), ["heard 1"]);
        let seq = bench.group.add(bench.now, NodeId(1));
        bench.tell(cut(STREAM, seq));
        assert_eq!(bench.take(), [] as [&str; 0]);
        bench
    }

    /// Takes a message of the connection.
    fn tell(&mut self, message: Message) {
        if let Err(error) = self.r.handle_message(self.now, message) {
            self.said.push(error.to_string());
        }
        self.drain();
    }

    /// Sends a message by the group.
    fn send(&mut self, message: &Message) {
        let bytes: Arc<[u8]> = message.to_bytes().into();
        self.group.send(self.now, bytes, Level(0));
        self.pass(3); // it is gathered for two
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn drain(&mut self) {
        while let Some(event) = self.r.poll_event() {
            match event {
                ReceiverEvent::Apply { frame, .. } => {
                    self.said.push(format!("apply {}", frame.header.to));
                    let at = frame.header.after();
                    self.r.handle_applied(self.now, Ok(standing(at)));
                }
                ReceiverEvent::Disconnect(reason) => self.said.push(reason.to_string()),
                ReceiverEvent::JoinGroup { .. } => self.said.push("join-group".into()),
                ReceiverEvent::LeaveGroup => self.said.push("leave-group".into()),
                ReceiverEvent::RejoinGroup => self.said.push("rejoin-group".into()),
                ReceiverEvent::Connect
                | ReceiverEvent::BeginLoad { .. }
                | ReceiverEvent::LoadRecords(_)
                | ReceiverEvent::LoadFrame(_)
                | ReceiverEvent::FinishLoad(_)
                | ReceiverEvent::AbortLoad
                | ReceiverEvent::Compare { .. }
                | ReceiverEvent::Mend { .. }
                | ReceiverEvent::Scrub
                | ReceiverEvent::Audited { .. }
                | ReceiverEvent::Registered { .. }
                | ReceiverEvent::StateChanged { .. } => {}
            }
        }
        while let Some(message) = self.r.poll_transmit() {
            if let Message::GroupHeard(heard) = message {
                self.said.push(format!("heard {}", heard.key));
            } else if let Message::GroupLeft(left) = message {
                let level = left.position.level;
                self.said
                    .push(format!("left at {level}: {:?}", left.reason));
            } else {
                assert!(matches!(message, Message::Status(_)), "{message:?}");
            }
        }
    }

    /// Brings datagrams to both.
    fn carry(&mut self) {
        while let Some(datagram) = self.group.poll_datagram() {
            if !self.deaf {
                self.r
                    .handle_datagrams(self.now, vec![datagram.bytes.to_vec()]);
                self.drain();
            }
        }
        while let Some(mut datagram) = self.r.poll_datagram() {
            self.group.handle_datagram(self.now, MASTER, &mut datagram);
        }
        while self.group.poll_event().is_some() {}
    }

    /// Lets `ms` milliseconds pass, with the connection's heartbeat at `head` each half second, if there is one.
    fn pass_with(&mut self, ms: u64, head: Option<Position>) {
        for ms in 1..=ms {
            self.now = self.now.plus(Duration::from_millis(1));
            if self.group.poll_timeout().is_some_and(|due| due <= self.now) {
                self.group.handle_timeout(self.now);
            }
            if self.r.poll_timeout().is_some_and(|due| due <= self.now) {
                self.r.handle_timeout(self.now);
                self.drain();
            }
            if let Some(head) = head.filter(|_| ms % 500 == 0) {
                self.tell(heartbeat(head));
            }
            self.carry();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.pass_with(ms, None);
    }
}

#[test]
fn frames_come_by_the_group_and_its_heartbeats_are_in_their_order() {
    let mut b = Bench::cut();
    b.send(&frame(epoch(2, 2), 10, 12));
    b.send(&heartbeat(at(epoch(2, 2), 12)));
    b.send(&frame(epoch(2, 2), 12, 14));
    assert_eq!(b.take(), ["apply 12", "apply 14"]);
    assert_eq!(b.r.state(), NodeState::Coherent);
    let counters = b.r.counters();
    assert_eq!(counters.group_frames_total, 2);
    assert_eq!(counters.connection_frames_total, 0);
    // A heartbeat that names what has not come is a gap there: the connection may do better.
    b.send(&heartbeat(at(epoch(2, 2), 20)));
    assert_eq!(b.take(), ["left at 14: Mistrusted"]);
    assert_eq!(b.r.counters().gaps_total, 1);
    b.tell(frame(epoch(2, 2), 14, 20));
    b.tell(heartbeat(at(epoch(2, 2), 20)));
    assert_eq!(b.take(), ["apply 20"]);
    assert_eq!(b.r.state(), NodeState::Coherent);
}

#[test]
fn a_gap_in_the_group_is_no_end_of_the_connection_but_one_behind_it_is() {
    let mut b = Bench::cut();
    b.send(&frame(epoch(2, 2), 11, 12));
    assert_eq!(b.take(), ["left at 10: Mistrusted"]);
    b.send(&frame(epoch(2, 2), 10, 12));
    assert_eq!(b.take(), [] as [&str; 0], "nothing of the group counts now");
    b.tell(frame(epoch(2, 2), 11, 12));
    let said = b.take();
    assert!(said[0].starts_with("a gap"), "{said:?}");
    assert_eq!(
        said[1..],
        ["leave-group", "the master's message was refused"]
    );
}

#[test]
fn other_content_in_the_group_is_first_asked_for_over_the_connection() {
    let mut b = Bench::cut();
    b.send(&tampered(frame(epoch(2, 2), 10, 12)));
    assert_eq!(b.take(), ["left at 10: Mistrusted"]);
    b.tell(frame(epoch(2, 2), 10, 12));
    assert_eq!(b.take(), ["apply 12"]);
    assert_eq!(b.r.counters().root_mismatches_total, 1);
}

#[test]
fn heads_that_the_connection_names_may_be_on_their_way_for_three_seconds() {
    let head = Some(at(epoch(2, 2), 20));
    let mut b = Bench::cut();
    b.deaf = true; // but no beat is missed for so long that the group itself would give up
    b.pass_with(2_000, head);
    b.deaf = false;
    assert_eq!(b.take(), [] as [&str; 0]);
    b.send(&frame(epoch(2, 2), 10, 12)); // some progress
    b.pass_with(3_000, head);
    assert_eq!(b.take(), ["apply 12"]);
    b.pass_with(1_000, head);
    assert_eq!(
        b.take(),
        ["left at 12: Silent"],
        "beats come, and nothing else"
    );
    // The master may not have heard it yet: what its heartbeats name is still on its way.
    b.pass_with(2_000, head);
    assert_eq!(b.take(), [] as [&str; 0]);
    // Then the connection brings it, and its heartbeats are in order again.
    b.tell(frame(epoch(2, 2), 12, 20));
    assert_eq!(b.take(), ["apply 20"]);
    b.tell(heartbeat(at(epoch(2, 2), 22)));
    let said = b.take();
    assert!(said[0].starts_with("a gap"), "{said:?}");
}

#[test]
fn whoever_is_served_no_way_at_all_connects_anew() {
    let head = Some(at(epoch(2, 2), 20));
    let mut b = Bench::cut();
    b.tell(end(STREAM));
    assert_eq!(b.take(), ["left at 10: Asked"]);
    b.pass_with(3_000, head);
    assert_eq!(b.take(), [] as [&str; 0]);
    b.pass_with(1_000, head);
    let said = b.take();
    assert!(said[0].starts_with("a gap"), "{said:?}");
}

#[test]
fn silence_is_found_in_three_seconds_and_the_group_is_joined_anew_each_minute() {
    let head = Some(mine());
    let mut b = Bench::cut();
    b.deaf = true;
    b.pass_with(2_900, head);
    assert_eq!(b.take(), [] as [&str; 0]);
    b.pass_with(200, head);
    assert_eq!(b.take(), ["left at 10: Silent"]);
    b.pass_with(120_000, head);
    assert_eq!(b.take(), ["rejoin-group", "rejoin-group"]);
    assert_eq!(b.r.state(), NodeState::Coherent, "the connection lives");
    b.deaf = false;
    b.pass_with(7_000, head);
    assert_eq!(b.take(), ["heard 1"]);
    b.pass_with(60_000, head);
    assert_eq!(b.take(), [] as [&str; 0]);
}

#[test]
fn one_that_never_hears_the_group_says_so_once() {
    let mut b = Bench::offered();
    b.deaf = true;
    b.pass_with(10_000, Some(mine()));
    assert_eq!(b.take(), ["left at 10: Silent"]);
    // A key that the master changes is no sign of hearing.
    let (key, _, _) = master().offer(NodeId(1));
    b.tell(Message::GroupKey(key));
    assert_eq!(b.take(), [] as [&str; 0]);
    // Nor is a cut that was on its way taken: the master is told once more.
    b.tell(cut(STREAM, 1));
    assert_eq!(b.take(), ["left at 10: Asked"]);
}

#[test]
fn keys_and_words_of_another_stream_change_nothing() {
    let mut b = Bench::cut();
    b.tell(cut(8, 1));
    b.tell(end(8));
    assert_eq!(b.take(), [] as [&str; 0]);
    let (key, _, _) = b.group.offer(NodeId(9));
    b.tell(Message::GroupKey(key));
    let heard = GroupHeard {
        stream: STREAM,
        key: 1,
    };
    assert_eq!(b.take(), [format!("heard {}", heard.key)]);
}

#[test]
fn a_node_that_cannot_or_must_not_join_says_so() {
    let mut b = Bench::offered();
    b.r.handle_group_failed(b.now);
    b.drain();
    assert_eq!(b.take(), ["left at 10: Unable"]);
    b.r.handle_group_failed(b.now);
    b.drain();
    assert_eq!(b.take(), [] as [&str; 0]);
    for transport in [Transport::Unicast, Transport::Bus] {
        let mut b = Bench::offered();
        b.r.config.transport = transport;
        let offer = offer();
        b.tell(offer);
        assert_eq!(b.take(), ["left at 10: Unable"]);
    }
}

#[test]
fn what_comes_while_the_table_takes_nothing_waits_up_to_a_limit() {
    let mut b = Bench::cut();
    b.r.handle_held(b.now);
    b.send(&frame(epoch(2, 2), 10, 12));
    b.send(&frame(epoch(2, 2), 12, 14));
    assert_eq!(b.take(), [] as [&str; 0]);
    b.r.handle_released(b.now);
    b.drain();
    assert_eq!(b.take(), ["apply 12", "apply 14"]);
    b.r.handle_held(b.now);
    let mut level = 14;
    let mut bytes = 0;
    while b.said.is_empty() {
        let Message::Frame(mut big) = frame(epoch(2, 2), level, level + 2) else {
            unreachable!("a frame");
        };
        big.changes[0].op = ChangeOp::Put(vec![7; 30_000]);
        b.send(&Message::Frame(big));
        level += 2;
        bytes += 30_000;
        assert!(bytes < 2 * GROUP_HELD_MAX);
    }
    assert_eq!(b.take(), ["left at 14: Overrun"]);
    assert!(bytes > GROUP_HELD_MAX / 2);
}

#[test]
fn a_process_that_stood_still_hears_first_what_came_meanwhile() {
    let mut b = Bench::cut();
    b.now = b.now.plus(Duration::from_secs(5));
    b.r.handle_timeout(b.now);
    b.drain();
    assert_eq!(
        b.take(),
        [] as [&str; 0],
        "neither the master nor the group is called silent"
    );
    b.tell(end(STREAM));
    assert_eq!(b.take(), ["left at 10: Asked"]);
    b.tell(heartbeat(mine()));
    b.pass_with(2_000, Some(mine()));
    assert_eq!(b.r.state(), NodeState::Coherent);
    assert_eq!(b.take(), [] as [&str; 0]);
}

#[test]
fn of_two_ways_the_newest_heartbeat_that_matched_counts() {
    let mut b = Bench::cut();
    let beat = |ms: u64| {
        let head = mine();
        let time = MasterTime(ms);
        Message::Heartbeat(Heartbeat { time, head })
    };
    b.tell(beat(2_000));
    b.send(&beat(1_500)); // it was sent before, and had to be repaired
    assert_eq!(b.r.pulse(b.now).complete_until, MasterTime(2_000));
}

#[test]
fn a_node_that_hears_the_group_again_names_the_newest_key_that_it_holds() {
    let left = || {
        let mut b = Bench::cut();
        b.tell(end(STREAM));
        assert_eq!(b.take(), ["left at 10: Asked"]);
        b
    };
    let mut b = left();
    let mut heard_after = 0;
    while b.said.is_empty() {
        b.pass_with(500, Some(mine()));
        heard_after += 500;
    }
    assert_eq!(b.take(), ["heard 1"]);
    // The same, and the master hands out a key half a second before: what is heard is sealed with the last one.
    let mut b = left();
    b.pass_with(heard_after - 500, Some(mine()));
    b.group.rotate(b.now);
    let Some(GroupSenderEvent::NewKey(key)) = b.group.poll_event() else {
        unreachable!("a rotation");
    };
    b.tell(Message::GroupKey(key));
    assert_eq!(b.take(), [] as [&str; 0]);
    b.pass_with(500, Some(mine()));
    assert_eq!(b.take(), ["heard 2"]);
}
