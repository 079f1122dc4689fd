//! Nodes in the group: what is live reaches them by datagrams alone, an alarm when it does not, keys that change
//! with a removal, and all of it again from a recording. The nodes are the real receivers.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};

use locus_distribution::{
    GROUP, GroupConfig, GroupSetup, GroupTarget, NodeIdentity, Path, Receiver, ReceiverConfig,
    ReceiverEvent, Standing,
};
use locus_proto::v1::GroupLeftReason;
use locus_proto::{NodeState, Transport};

use super::*;
use crate::provision::{NodeRef, NodeView};
use crate::record::replay;

const STEP: Duration = Duration::from_millis(1);

fn grouped(transport: Transport) -> CoreConfig {
    CoreConfig {
        transport,
        group: Some(GroupSetup {
            address: "239.192.76.83:5801".parse().unwrap(),
            reply_port: 5802,
            config: GroupConfig {
                stream: 77,
                seed: [5; 32],
                datagram_bytes: 1400,
                rate_bytes_per_s: 25_000_000,
                rate_floor_bytes_per_s: 1_250_000,
            },
        }),
        ..config(10_000)
    }
}

/// A node: a receiver, and a table of which only the place is kept.
struct Follower {
    number: u16,
    peer: Peer,
    receiver: Receiver,
    /// Whether it has joined the group.
    joined: bool,
    /// Whether datagrams reach it.
    hears: bool,
}

fn identity(number: u16) -> NodeIdentity {
    NodeIdentity {
        cluster: "lab".parse().unwrap(),
        node: NodeId(number),
        name: format!("n{number}").parse().unwrap(),
    }
}

impl Follower {
    fn connect(bench: &mut Bench, number: u16) -> Self {
        let NodeIdentity {
            cluster,
            node,
            name,
        } = identity(number);
        let config = ReceiverConfig {
            cluster,
            node,
            name,
            boot: BootId(number.into()),
            sip: String::new(),
            transport: Transport::Auto,
        };
        let mut follower = Self {
            number,
            peer: Peer(number.into()),
            receiver: Receiver::new(bench.now, config, None, None),
            joined: false,
            hears: true,
        };
        follower.receiver.handle_timeout(bench.now);
        assert_eq!(follower.receiver.poll_event(), Some(ReceiverEvent::Connect));
        bench.feed(Input::Connected {
            peer: follower.peer,
            arrived: Arrived {
                identity: Some(identity(number)),
                ..tcp(&format!("10.0.0.{number}:5800"))
            },
        });
        follower.receiver.handle_connected(bench.now);
        follower
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], self.number))
    }

    fn done(&mut self, now: Timestamp, position: Position, loaded: bool) {
        let standing = Ok(Standing {
            position,
            records: 0,
        });
        if loaded {
            self.receiver.handle_loaded(now, standing);
        } else {
            self.receiver.handle_applied(now, standing);
        }
    }

    /// Does what the receiver asks for; adds what it sends, messages and datagrams.
    fn work(&mut self, now: Timestamp, said: &mut (Vec<Message>, Vec<Vec<u8>>)) {
        let (messages, datagrams) = said;
        loop {
            messages.extend(std::iter::from_fn(|| self.receiver.poll_transmit()));
            datagrams.extend(std::iter::from_fn(|| self.receiver.poll_datagram()));
            let Some(event) = self.receiver.poll_event() else {
                return;
            };
            match event {
                ReceiverEvent::Apply { frame, .. } => self.done(now, frame.header.after(), false),
                ReceiverEvent::FinishLoad(position) => self.done(now, position, true),
                ReceiverEvent::JoinGroup { group, reply_port } => {
                    assert_eq!((group.port(), reply_port), (5801, 5802));
                    self.joined = true;
                }
                ReceiverEvent::LeaveGroup => self.joined = false,
                ReceiverEvent::RejoinGroup
                | ReceiverEvent::BeginLoad { .. }
                | ReceiverEvent::LoadRecords(_)
                | ReceiverEvent::LoadFrame(_)
                | ReceiverEvent::StateChanged { .. } => {}
                event @ (ReceiverEvent::Connect
                | ReceiverEvent::Disconnect(_)
                | ReceiverEvent::AbortLoad
                | ReceiverEvent::Compare { .. }
                | ReceiverEvent::Mend { .. }
                | ReceiverEvent::Scrub
                | ReceiverEvent::Audited { .. }
                | ReceiverEvent::Registered { .. }) => panic!("n{}: {event:?}", self.number),
            }
        }
    }
}

/// A network without delay between a master and its nodes.
struct World {
    bench: Bench,
    nodes: Vec<Follower>,
}

impl World {
    fn new(transport: Transport, nodes: u16, recording: Option<&FilePath>) -> Self {
        let config = grouped(transport);
        let recorder = recording.map(|path| Recorder::create(path, &config).unwrap());
        let folder = MemoryFolder::default();
        let mut bench = Bench::open_as(config, folder, WALL, None, recorder);
        let nodes = (1..=nodes)
            .map(|number| Follower::connect(&mut bench, number))
            .collect();
        Self { bench, nodes }
    }

    /// Carries what was said until nobody says anything.
    fn settle(&mut self) {
        loop {
            let now = self.bench.now;
            self.bench.write_all();
            let datagrams = std::mem::take(&mut self.bench.said.datagrams);
            let mut quiet = datagrams.is_empty();
            for node in &mut self.nodes {
                let closed = self.bench.said.closed.contains(&node.peer);
                let mut said = (Vec::new(), Vec::new());
                for message in self.bench.messages(node.peer) {
                    quiet = false;
                    node.receiver.handle_message(now, message).unwrap();
                    node.work(now, &mut said);
                }
                let hears = node.joined && node.hears;
                let address = node.address();
                let its = datagrams.iter().filter(|datagram| match datagram.to {
                    GroupTarget::Group => hears,
                    GroupTarget::Node(to) => hears && to == address,
                });
                let its: Vec<Vec<u8>> = its.map(|datagram| datagram.bytes.to_vec()).collect();
                if !its.is_empty() {
                    node.receiver.handle_datagrams(now, its);
                }
                node.work(now, &mut said);
                let (messages, reports) = said;
                if closed {
                    continue;
                }
                for message in messages {
                    quiet = false;
                    self.bench.message(node.peer, message);
                }
                if !reports.is_empty() {
                    quiet = false;
                    let reports = reports.into_iter().map(|bytes| (address, bytes)).collect();
                    self.bench.feed(Input::Datagrams(reports));
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.bench.now.plus(time);
        while self.bench.now < end {
            self.bench.advance(STEP);
            let now = self.bench.now;
            for node in &mut self.nodes {
                if node.receiver.poll_timeout().is_some_and(|due| due <= now) {
                    node.receiver.handle_timeout(now);
                }
            }
            self.settle();
        }
    }

    /// Lets time pass until `is_so`, at most `time`.
    #[track_caller]
    fn until(&mut self, time: Duration, what: &str, is_so: impl Fn(&mut Self) -> bool) {
        let end = self.bench.now.plus(time);
        while !is_so(self) {
            assert!(
                self.bench.now < end,
                "{what}: {:#?}",
                self.bench.said.events
            );
            self.run(STEP);
        }
    }

    fn roster(&mut self) -> Vec<NodeView> {
        let ticket = self.bench.ask(Request::Nodes);
        let Answer::Nodes { nodes, .. } = self.bench.answer(ticket) else {
            panic!("nodes");
        };
        nodes
    }

    fn paths(&mut self) -> Vec<&'static str> {
        self.roster().into_iter().map(|node| node.path).collect()
    }

    fn wait_grouped(&mut self) {
        let all = self.nodes.len();
        self.until(Duration::from_secs(5), "all are in the group", |world| {
            world.paths() == vec!["multicast"; all]
        });
    }

    fn levels(&self) -> Vec<u64> {
        let level = |node: &Follower| node.receiver.position().map_or(0, |at| at.level.0);
        self.nodes.iter().map(level).collect()
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("locsvc-group-{}-{name}.jsonl", std::process::id()))
}

#[test]
fn what_is_live_comes_by_the_group_alone() {
    let mut world = World::new(Transport::Multicast, 3, None);
    world.wait_grouped();
    let before: Vec<u64> = world
        .roster()
        .iter()
        .map(|node| node.connection_frame_bytes_total)
        .collect();
    for number in 0..50 {
        world.bench.change(vec![put(number, "sip:a@h")]);
        // What a commit gives the group leaves when it was gathered, at the latest.
        world.run(STEP * 4);
        let level = world.bench.level();
        assert_eq!(world.levels(), [level; 3]);
    }
    world.run(Duration::from_secs(2));
    let roster = world.roster();
    let after: Vec<u64> = roster
        .iter()
        .map(|node| node.connection_frame_bytes_total)
        .collect();
    assert_eq!(after, before, "nothing of it over the connections");
    for node in roster {
        let status = node.status.expect("it reports");
        assert_eq!(status.state, NodeState::Coherent);
        assert!(status.group.frames_total >= 50, "{:?}", status.group);
        assert_eq!(node.multicast_lost, None);
    }
    let end = world.bench.drive.core().end_state();
    assert!(end.distribution.group_frame_bytes_total > 0, "{end:?}");
    let moved = |event: &Event| {
        matches!(
            event,
            Event::PathChanged {
                from: Path::Tcp,
                to: Path::Multicast,
                ..
            }
        )
    };
    let moves = world.bench.said.events.iter().filter(|event| moved(event));
    assert_eq!(moves.count(), 3);
}

#[test]
fn a_node_that_does_not_hear_the_group_is_an_alarm_until_it_does() {
    let mut world = World::new(Transport::Multicast, 2, None);
    world.wait_grouped();
    world.nodes[1].hears = false;
    let silent = world.bench.now;
    world.until(Duration::from_secs(5), "it is noticed", |world| {
        world.roster()[1].multicast_lost.is_some()
    });
    assert!(world.bench.now.since(silent) < Duration::from_secs(4));
    assert_eq!(world.paths(), ["multicast", "tcp"]);
    let said = |world: &World, wanted: fn(&Event) -> bool| {
        world
            .bench
            .said
            .events
            .iter()
            .filter(|event| wanted(event))
            .count()
    };
    let lost: fn(&Event) -> bool = |event| {
        let reason = GroupLeftReason::Silent;
        matches!(event, Event::MulticastLost { node: NodeId(2), reason: why, .. } if *why == reason)
    };
    assert_eq!(said(&world, lost), 1);
    // It is served all the same, and the other does not notice.
    world.bench.change(vec![put(1, "sip:a@h")]);
    world.run(Duration::from_secs(2));
    assert_eq!(world.levels(), [1, 1]);
    let view = world.roster()[1].multicast_lost.expect("it lasts");
    assert!(view.lasts >= Duration::from_secs(2), "{view:?}");
    assert_eq!(view.reason, GroupLeftReason::Silent);
    world.nodes[1].hears = true;
    world.until(
        Duration::from_secs(120),
        "it comes back by itself",
        |world| world.paths() == ["multicast"; 2],
    );
    assert_eq!(world.roster()[1].multicast_lost, None);
    let back: fn(&Event) -> bool = |event| {
        matches!(
            event,
            Event::MulticastBack {
                node: NodeId(2),
                ..
            }
        )
    };
    assert_eq!((said(&world, lost), said(&world, back)), (1, 1));
    assert_eq!(
        world
            .bench
            .drive
            .core()
            .end_state()
            .counters
            .multicast_lost_total,
        1
    );
}

#[test]
fn a_revoked_node_is_closed_and_the_others_get_other_keys() {
    let mut world = World::new(Transport::Multicast, 2, None);
    world.wait_grouped();
    let before = world
        .bench
        .drive
        .core()
        .end_state()
        .distribution
        .group
        .rotations_total;
    let node = NodeId(2);
    world.bench.feed(Input::Removed { node });
    assert_eq!(world.bench.said.closed, [Peer(2)]);
    world.bench.feed(Input::Closed { peer: Peer(2) });
    world.nodes.truncate(1);
    world.until(Duration::from_secs(15), "the keys are changed", |world| {
        world
            .bench
            .drive
            .core()
            .end_state()
            .distribution
            .group
            .rotations_total
            > before
    });
    world.bench.change(vec![put(1, "sip:a@h")]);
    world.run(Duration::from_secs(1));
    assert_eq!((world.levels(), world.paths()[0]), (vec![1], "multicast"));
}

#[test]
fn a_certificate_speaks_for_its_node_alone() {
    let mut world = World::new(Transport::Unicast, 0, None);
    let peer = Peer(9);
    world.bench.feed(Input::Connected {
        peer,
        arrived: Arrived {
            identity: Some(identity(1)),
            ..tcp("10.0.0.9:1")
        },
    });
    world.bench.message(peer, Message::Hello(hello(2, None)));
    assert_eq!(world.bench.said.closed, [peer]);
    let refused = world.bench.said.events.iter().any(|event| {
        matches!(event, Event::PeerRefused { reason, .. } if reason.contains("whose certificate is for node 1"))
    });
    assert!(refused, "{:?}", world.bench.said.events);
    assert_eq!(world.roster().len(), 0, "nobody of that number was here");
}

#[test]
fn forged_datagrams_change_nothing_and_are_counted() {
    let mut world = World::new(Transport::Multicast, 1, None);
    world.wait_grouped();
    let forged = (0..100).map(|number: u8| {
        let from = SocketAddr::from(([192, 0, 2, 1], 9));
        (from, vec![number; usize::from(number) * 5])
    });
    let position = world.bench.drive.core().position();
    world.bench.feed(Input::Datagrams(forged.collect()));
    assert!(world.bench.said.datagrams.is_empty() && world.bench.said.closed.is_empty());
    assert_eq!(world.bench.drive.core().position(), position);
    let counters = world.bench.drive.core().end_state().distribution.group;
    assert_eq!(
        counters.malformed_total + counters.strangers_total,
        100,
        "{counters:?}"
    );
}

#[test]
fn a_reload_that_was_asked_for_is_done_and_the_group_joined_again() {
    let mut world = World::new(Transport::Multicast, 1, None);
    world.bench.change(vec![put(1, "sip:a@h")]);
    world.wait_grouped();
    let node = NodeRef::Name("n1".parse().unwrap());
    let ticket = world.bench.ask(Request::Reload { node });
    let asked = Answer::ReloadAsked {
        node: NodeId(1),
        name: "n1".parse().unwrap(),
        connected: true,
    };
    assert_eq!(world.bench.answer(ticket), asked);
    assert_eq!(world.bench.said.closed, [Peer(1)]);
    let unknown = NodeRef::Number(NodeId(9));
    let ticket = world.bench.ask(Request::Reload {
        node: unknown.clone(),
    });
    let refused = Answer::Refused(RequestError::NoSuchNode(unknown));
    assert_eq!(world.bench.answer(ticket), refused);
    // It comes back with what it has, and is sent the whole table nevertheless.
    world.bench.feed(Input::Closed { peer: Peer(1) });
    let there = world.nodes[0].receiver.position();
    let peer = Peer(2);
    world.bench.feed(Input::Connected {
        peer,
        arrived: tcp("10.0.0.1:2"),
    });
    world.bench.message(peer, Message::Hello(hello(1, there)));
    let welcomed = world.bench.messages(peer).into_iter().find_map(|message| {
        if let Message::Welcome(welcome) = message {
            Some(welcome.plan)
        } else {
            None
        }
    });
    assert!(
        matches!(welcomed, Some(locus_proto::v1::Plan::Reload(_))),
        "{welcomed:?}"
    );
}

/// The log that cannot be read for the group is read for each node over its connection.
#[test]
fn a_log_that_cannot_be_read_for_the_group_ends_it() {
    let mut world = World::new(Transport::Multicast, 2, None);
    world.wait_grouped();
    let now = world.bench.now;
    let (core, log) = world.bench.drive.parts();
    let request = Request::Change(vec![put(1, "sip:a@h")]);
    let mut inputs = vec![Input::Flush, Input::Api { ticket: 0, request }];
    let mut reads = Vec::new();
    while let Some(input) = inputs.pop() {
        core.handle_input(now, input).unwrap();
        while let Some(output) = core.poll_output() {
            match output {
                Output::Append(frame) => {
                    log.append(frame).unwrap();
                    inputs.push(Input::Committed);
                }
                Output::ReadLog { peer, .. } => {
                    reads.push(peer);
                    let reason = "input/output error".to_owned();
                    inputs.push(Input::LogUnreadable { peer, reason });
                }
                Output::ReadLogEnd
                | Output::Answer { .. }
                | Output::Close { .. }
                | Output::Alive(_)
                | Output::Event(_) => {}
            }
        }
    }
    assert_eq!(reads, [GROUP], "it is not read again and again");
    world.run(STEP * 10);
    assert_eq!(world.paths(), ["tcp", "tcp"]);
    assert_eq!(world.levels(), [1, 1]);
}

#[test]
fn a_recording_with_a_group_leads_to_the_same_end() {
    let path = scratch("replay");
    let mut world = World::new(Transport::Multicast, 3, Some(&path));
    world.wait_grouped();
    for number in 0..20 {
        world.bench.change(vec![put(number, "sip:a@h")]);
        // Some of it is lost on the way to one of them, and asked for again.
        world.nodes[2].hears = number % 3 != 0;
        world.run(STEP * 3);
    }
    world.nodes[2].hears = true;
    world.run(Duration::from_secs(1));
    world.bench.feed(Input::Removed { node: NodeId(1) });
    world.bench.feed(Input::Closed { peer: Peer(1) });
    world.nodes.remove(0);
    world.run(Duration::from_secs(12));
    assert_eq!(world.levels(), [20, 20]);
    let end = world.bench.drive.core().end_state();
    assert!(end.distribution.group.nacks_total > 0, "{end:?}");
    assert_eq!(world.bench.recorder.as_mut().unwrap().flush(), None);
    let text = std::fs::read_to_string(&path).unwrap();
    for input in ["\"Datagrams\"", "\"Removed\"", "\"seed\""] {
        assert!(text.contains(input), "{input}");
    }
    assert_eq!(replay(&path).unwrap(), end);
    std::fs::remove_file(&path).unwrap();
}
