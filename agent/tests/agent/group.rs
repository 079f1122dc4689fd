//! The agent in a group: frames that come by multicast on loopback alone, repairs, silence, and the return.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use locus_distribution::{GroupConfig, GroupSender, GroupTarget};
use locus_identity::WriteHalf;
use locus_proto::v1::{DATAGRAM_BYTES_MAX, GroupCut, GroupLeft, GroupLeftReason, GroupOffer};
use locus_proto::{GroupHealth, Message, NodeId, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

use crate::support::{Agent, Model, Peer, Place, View, listen, record, status, until};

const URI: &str = "sip:alice@192.0.2.1";
const NODE: NodeId = NodeId(1);
/// As a master sends them.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

fn now() -> Timestamp {
    let time = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    Timestamp(u64::try_from(time.as_nanos()).unwrap())
}

/// A master: its end of the connection, and of the group on loopback.
struct Master {
    /// Its life.
    stream: u64,
    model: Model,
    writer: WriteHalf,
    said: Receiver<Message>,
    sender: GroupSender,
    socket: UdpSocket,
    group: SocketAddr,
    /// Every so many-th datagram to the group is lost; 0: none, 1: all.
    loses: usize,
    sent: usize,
    beat_at: Timestamp,
    left: Option<GroupLeft>,
    heard: Option<u8>,
    health: GroupHealth,
}

impl Master {
    fn new(stream: u64, model: Model, peer: Peer) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let shared = SockRef::from(&socket);
        shared.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let config = GroupConfig {
            stream,
            seed: [3; 32],
            datagram_bytes: DATAGRAM_BYTES_MAX,
            rate_bytes_per_s: 25_000_000,
            rate_floor_bytes_per_s: 1_000_000,
        };
        // Of this process, so that tests side by side do not hear each other.
        let port = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
        let (writer, said) = peer.split();
        Self {
            stream,
            model,
            writer,
            said,
            sender: GroupSender::new(now(), config),
            socket,
            group: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 77, 77)), port),
            loses: 0,
            sent: 0,
            beat_at: now(),
            left: None,
            heard: None,
            health: GroupHealth::default(),
        }
    }

    fn say(&mut self, message: &Message) {
        self.writer.write_all(&message.to_bytes()).unwrap();
    }

    fn offer(&mut self) {
        let (key, node_key, verify_key) = self.sender.offer(NODE);
        self.say(&Message::GroupOffer(GroupOffer {
            stream: self.stream,
            group: self.group,
            reply_port: self.socket.local_addr().unwrap().port(),
            key,
            node_key,
            verify_key,
        }));
    }

    /// Takes the node into the group: from now on changes go there alone.
    fn cut(&mut self) {
        let key = self.heard.take().expect("it has heard the group");
        self.sender.handle_key_held(now(), NODE, key);
        let seq = self.sender.add(now(), NODE);
        let stream = self.stream;
        self.say(&Message::GroupCut(GroupCut { stream, seq }));
        self.left = None;
    }

    /// Offers the group, and takes the node into it once it hears it.
    fn take_in(&mut self) {
        self.offer();
        self.pump_until("a node that hears the group", |master| master.heard);
        self.cut();
    }

    /// Makes a change; returns its frame.
    fn change(&mut self, n: u32) -> Message {
        let changed = vec![(format!("u{n}@example.net"), Some(record(URI, n)))];
        Message::Frame(self.model.commit(changed))
    }

    fn send_to_group(&mut self, message: &Message) {
        let level = self.model.position().level;
        self.sender
            .send(now(), Arc::from(message.to_bytes()), level);
    }

    /// Does what is due at both ends.
    fn pump(&mut self) {
        for message in self.said.try_iter() {
            if let Message::GroupHeard(heard) = &message {
                self.heard = Some(heard.key);
            }
            if let Message::GroupLeft(left) = &message {
                self.sender.remove(now(), NODE);
                self.left = Some(*left);
            }
            if let Some(status) = status(&message) {
                self.health = status.group;
            }
        }
        if now() >= self.beat_at {
            self.beat_at = now().plus(HEARTBEAT_EVERY);
            let heartbeat = self.model.heartbeat();
            self.say(&heartbeat);
        }
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.sender.handle_datagram(now(), from, &mut buffer[..len]);
        }
        self.sender.handle_timeout(now());
        while let Some(datagram) = self.sender.poll_datagram() {
            let to = match datagram.to {
                GroupTarget::Node(to) => to,
                GroupTarget::Group => {
                    self.sent += 1;
                    if self.loses > 0 && self.sent.is_multiple_of(self.loses) {
                        continue;
                    }
                    self.group
                }
            };
            self.socket.send_to(&datagram.bytes, to).unwrap();
        }
        while self.sender.poll_event().is_some() {}
    }

    fn pump_until<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        until(what, || {
            self.pump();
            condition(self)
        })
    }

    fn visible(&mut self, view: &mut View) {
        let position = self.model.position();
        self.pump_until("the change in the node's table", |_| {
            (view.position() == Some(position)).then_some(())
        });
    }
}

#[test]
fn changes_come_by_the_group_are_repaired_and_when_it_falls_silent_over_the_connection() {
    let place = Place::new("group");
    let folder = place.path("table");
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let recording = place.path("recording");
    let options = format!("records_max = 10000\ntransport = \"multicast\"\nrecord = {recording:?}");
    let agent = Agent::start(&place, &folder, address, &options);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.transport.as_str(), "multicast");
    let mut model = Model::new();
    model.commit(vec![("u0@example.net".into(), Some(record(URI, 1)))]);
    model.serve(&mut peer, &hello);
    let mut view = View::new(&folder);
    view.wait(model.position());

    // Into the group, and from there a change that nothing else carried.
    let mut master = Master::new(1, model, peer);
    master.take_in();
    let frame = master.change(1);
    master.send_to_group(&frame);
    master.visible(&mut view);

    // A third of all datagrams is lost, and asked for.
    master.loses = 3;
    for n in 2..60 {
        let frame = master.change(n);
        master.send_to_group(&frame);
        master.pump();
    }
    master.visible(&mut view);
    assert_eq!(view.records(), master.model.records());
    master.loses = 0;
    let health = master.pump_until("a report of it", |master| {
        let health = master.health;
        (health.frames_total == 59 && health.nacks_total > 0).then_some(health)
    });
    assert!(health.lost_total > 0, "{health:?}");
    assert_eq!(master.left, None);
    let log = agent.log();
    assert!(
        log.contains(&format!("listening to the group {}", master.group)),
        "{log}"
    );
    assert!(
        log.contains("changes come by multicast from now on"),
        "{log}"
    );

    // The group falls silent while the connection lives: the node says so, and is served there.
    master.loses = 1;
    let left = master.pump_until("a node that leaves", |master| master.left);
    assert_eq!(left.reason, GroupLeftReason::Silent);
    assert_eq!(left.position, master.model.position());
    let frame = master.change(60);
    master.say(&frame);
    master.visible(&mut view);
    until("the reason", || {
        let told = agent
            .log()
            .contains("not by multicast: the group is silent");
        told.then_some(())
    });

    // It is heard again: the node says so by itself, and comes back.
    master.loses = 0;
    master.heard = None;
    let frame = master.change(61);
    master.say(&frame); // it is served over the connection meanwhile
    master.pump_until("a node that hears the group again", |master| master.heard);
    master.cut();
    let frame = master.change(62);
    master.send_to_group(&frame);
    master.visible(&mut view);
    assert_eq!(view.records(), master.model.records());

    // The master starts anew, with other keys and a stream that begins again: the group is left and joined anew.
    let Master { model, writer, .. } = master;
    drop(writer);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.position, Some(model.position()));
    model.serve(&mut peer, &hello);
    let mut master = Master::new(2, model, peer);
    master.take_in();
    let frame = master.change(63);
    master.send_to_group(&frame);
    master.visible(&mut view);
    let joined = agent.log().matches("listening to the group").count();
    assert_eq!(joined, 2, "{}", agent.log());

    // What was recorded of all this leads to the same end.
    assert!(agent.terminate().success());
    let replay = Command::new(env!("CARGO_BIN_EXE_locus-agent"))
        .arg("--replay")
        .arg(&recording)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success(), "{said}");
    let end: serde_json::Value = serde_json::from_slice(&replay.stdout).unwrap();
    assert_eq!(end["position"]["level"], master.model.position().level.0);
}
