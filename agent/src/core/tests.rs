//! The core's transitions: connecting, following, registrations with and without a master.

mod audit;
mod paths;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use locus_distribution::{Failure, Recalled, ReceiverConfig, SILENCE_MAX, Standing};
use locus_proto::v1::{Heartbeat, Plan, Rejection, SnapshotBegin, SnapshotEnd, Welcome};
use locus_proto::{
    AorRecord, Asked, Binding, BootId, Change, ChangeOp, ContactChange, Epoch, EpochId, Frame,
    FrameHeader, FrameKind, Key, Lineage, MasterTime, NodeId, Owner, Registration, ReloadReason,
    Root, Transport,
};

use super::*;

const EPOCH: Epoch = Epoch {
    counter: 1,
    id: EpochId([1; 16]),
};
const MASTER_NOW: u64 = 1_000_000_000;

fn position(level: u64) -> Position {
    Position {
        epoch: EPOCH,
        level: Level(level),
        root: Root([level; 2]),
    }
}

fn standing(level: u64) -> Standing {
    Standing {
        position: position(level),
        records: level,
    }
}

const ENDS: Ends = Ends {
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000),
    remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
};

fn tcp(port: u16) -> Address {
    Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
}

fn client() -> Client {
    Client::Abstract(b"worker".to_vec())
}

fn binding() -> Binding {
    Binding {
        expires: MasterTime(MASTER_NOW + 600_000),
        granted_s: 600,
        call_id: "call".into(),
        cseq: 1,
        socket: "udp:10.77.0.11:5060".into(),
        owner: Owner {
            node: NodeId(1),
            ..Owner::default()
        },
        ..Binding::permanent("sip:a@192.0.2.1")
    }
}

/// A refresh of [`binding`].
fn refresh() -> Registration {
    let bound = binding();
    Registration {
        aor: "alice@example.net".parse().unwrap(),
        call_id: bound.call_id,
        cseq: 2,
        path: String::new(),
        received: String::new(),
        socket: bound.socket,
        owner: bound.owner,
        user_agent: String::new(),
        flags: 0,
        asked: Asked::Update(vec![ContactChange {
            uri: bound.uri,
            q: bound.q,
            expires_s: Some(600),
            instance: String::new(),
            reg_id: 0,
            methods: bound.methods,
        }]),
    }
}

fn record() -> AorRecord {
    AorRecord {
        bindings: vec![binding()],
    }
}

fn accepted(level: u64) -> RegistrationReply {
    RegistrationReply::Accepted {
        level: Level(level),
        now: MasterTime(MASTER_NOW),
        durable: true,
        bindings: vec![binding()],
    }
}

fn frame(from: u64) -> Frame {
    let change = Change {
        key: Key::aor(&"alice@example.net".parse().unwrap()),
        level: Level(from + 1),
        op: ChangeOp::Put(record().encode()),
    };
    Frame {
        header: FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: EPOCH,
            from: Level(from),
            to: Level(from + 1),
            root_before: position(from).root,
            root_after: position(from + 1).root,
            time: MasterTime(MASTER_NOW),
        },
        changes: vec![change],
    }
}

/// A core, its clock, and what came out of it.
struct Bench {
    core: Core,
    now: Timestamp,
    orders: Vec<Order>,
    to_master: Vec<Message>,
    to_group: Vec<Vec<u8>>,
    replies: Vec<(u64, RegistrationReply)>,
    events: Vec<Event>,
}

impl Bench {
    /// A node whose table stands at level 5, and that has not connected yet.
    fn new() -> Self {
        Self::starting(Start {
            node: ReceiverConfig {
                cluster: "lab".parse().unwrap(),
                node: NodeId(1),
                name: "n1".parse().unwrap(),
                boot: BootId(1),
                sip: String::new(),
                transport: Transport::Auto,
            },
            masters: [1, 2].map(tcp).to_vec(),
            save_timeout: Duration::from_secs(2),
            max_grace: Duration::from_secs(3600),
            standing: Some(standing(5)),
            recalled: Some(Recalled {
                time: MasterTime(MASTER_NOW),
                complete_until: MasterTime(MASTER_NOW),
            }),
            seed: 1,
        })
    }

    fn starting(start: Start) -> Self {
        let now = Timestamp(1_000_000_000);
        let mut bench = Self {
            core: Core::new(now, start),
            now,
            orders: Vec::new(),
            to_master: Vec::new(),
            to_group: Vec::new(),
            replies: Vec::new(),
            events: Vec::new(),
        };
        bench.drain();
        bench
    }

    /// A node that follows a master and is coherent at level 5.
    fn coherent() -> Self {
        let mut bench = Self::new();
        bench.wait(Duration::ZERO);
        let connection = bench.connecting();
        bench.connected(connection);
        bench.receive(welcome(5));
        bench.receive(heartbeat(5));
        assert_eq!(bench.core.summary().state, NodeState::Coherent);
        bench
    }

    /// The connection stands, over the network.
    fn connected(&mut self, connection: Connection) {
        let ends = Some(ENDS);
        self.input(Input::Connected { connection, ends });
    }

    fn input(&mut self, input: Input) {
        self.core.handle_input(self.now, input);
        self.drain();
    }

    fn receive(&mut self, message: Message) {
        let connection = self.core.connection;
        self.input(Input::Received {
            connection,
            message,
        });
    }

    fn register(&mut self, ticket: u64) {
        self.input(Input::Registration {
            client: client(),
            ticket,
            registration: refresh(),
        });
    }

    fn close(&mut self) {
        let connection = self.core.connection;
        let reason = "cut".to_owned();
        self.input(Input::Closed { connection, reason });
    }

    /// Answers every look-up that was ordered.
    fn find(&mut self, record: Option<&AorRecord>) {
        for order in std::mem::take(&mut self.orders) {
            if let Order::Find { ticket, .. } = order {
                let record = record.cloned();
                self.input(Input::Found { ticket, record });
            }
        }
    }

    /// Lets time pass, stopping wherever the core wants to be woken.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.plus(duration);
        for _ in 0..10_000 {
            match self.core.poll_timeout().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            self.input(Input::Timeout);
        }
        assert!(
            self.core.poll_timeout().is_none_or(|at| at > end),
            "a timer that never rests"
        );
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            match transmit {
                Transmit::Master { message, .. } => self.to_master.push(message),
                Transmit::Group { datagram, .. } => self.to_group.push(datagram),
                Transmit::Client { message, .. } => {
                    let Message::Registered { ticket, reply } = message else {
                        panic!("{message:?}")
                    };
                    self.replies.push((ticket, reply));
                }
            }
        }
        while let Some(event) = self.core.poll_event() {
            self.events.push(event);
        }
        while let Some(order) = self.core.poll_order() {
            self.orders.push(order);
        }
    }

    /// Takes the order to connect, and forgets the others.
    fn connecting(&mut self) -> Connection {
        let orders = std::mem::take(&mut self.orders);
        let wanted = orders.into_iter().find_map(|order| {
            if let Order::Connect { connection, .. } = order {
                return Some(connection);
            }
            None
        });
        wanted.expect("it wants to connect")
    }

    /// The agent's own ticket of the newest registration that it forwarded.
    fn forwarded(&self) -> u64 {
        let newest = self.to_master.iter().rev().find_map(|message| {
            if let Message::Register { ticket, .. } = message {
                return Some(*ticket);
            }
            None
        });
        newest.expect("a registration was forwarded")
    }

    fn answer(&mut self, reply: RegistrationReply) {
        let ticket = self.forwarded();
        self.receive(Message::Registered { ticket, reply });
    }

    fn counters(&self) -> RegistrationCounters {
        self.core.summary().registrations
    }
}

fn welcome(head: u64) -> Message {
    greeting(head, Plan::Continue)
}

/// Announces the whole table.
fn reload(head: u64) -> Message {
    greeting(head, Plan::Reload(ReloadReason::Empty))
}

fn begin(level: u64) -> Message {
    Message::SnapshotBegin(SnapshotBegin {
        position: position(level),
        records: 1,
        bytes: 300,
    })
}

fn greeting(head: u64, plan: Plan) -> Message {
    let mut lineage = Lineage::default();
    lineage.push(EPOCH, Level::ZERO).unwrap();
    Message::Welcome(Welcome {
        version: WireVersion::V1,
        lineage,
        head: position(head),
        time: MasterTime(MASTER_NOW),
        table_key: [3; 16],
        plan,
    })
}

fn heartbeat(level: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        time: MasterTime(MASTER_NOW),
        head: position(level),
    })
}

/// Whether the worker was told 200 for a short while, by the table at level 5.
fn confirmed(reply: &(u64, RegistrationReply), ticket: u64) -> bool {
    let RegistrationReply::Accepted {
        durable,
        level,
        bindings,
        ..
    } = &reply.1
    else {
        return false;
    };
    (reply.0, *durable, *level, bindings.len()) == (ticket, false, Level(5), 1)
}

const UNAVAILABLE: RegistrationReply = RegistrationReply::Refused(Refusal::Unavailable);

#[test]
fn connects_at_once_and_presents_its_table() {
    let mut bench = Bench::new();
    bench.wait(Duration::ZERO);
    let connection = bench.connecting();
    bench.connected(connection);
    let Some(Message::Hello(hello)) = bench.to_master.first() else {
        panic!("{:?}", bench.to_master)
    };
    assert_eq!(hello.position, Some(position(5)));
}

#[test]
fn tries_the_masters_in_turn_with_growing_waits_and_says_each_cause_once() {
    let mut bench = Bench::new();
    let (mut masters, mut at) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        bench.wait(Duration::ZERO);
        while !bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Connect { .. }))
        {
            let next = bench.core.poll_timeout().expect("it tries for ever");
            bench.wait(next.since(bench.now));
        }
        at.push(bench.now);
        let Some(Order::Connect { connection, master }) = bench.orders.pop() else {
            panic!("{:?}", bench.orders)
        };
        masters.push(master);
        let reason = "connection refused".to_owned();
        bench.input(Input::Closed { connection, reason });
    }
    let expected: Vec<_> = [1, 2].map(tcp).into_iter().cycle().take(12).collect();
    assert_eq!(masters, expected);
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(waits[0] <= Duration::from_millis(200), "{waits:?}");
    assert!(waits[10] >= Duration::from_millis(2500), "{waits:?}");
    assert!(
        waits.iter().all(|wait| *wait <= Duration::from_secs(5)),
        "{waits:?}"
    );
    assert!(waits[9] != waits[10], "no jitter: {waits:?}");
    let lost = bench
        .events
        .iter()
        .filter(|e| matches!(e, Event::MasterLost { .. }));
    assert_eq!(lost.count(), 2, "{:?}", bench.events);
}

#[test]
fn a_silent_connection_is_closed_after_three_seconds_and_tried_anew() {
    let mut bench = Bench::coherent();
    bench.wait(SILENCE_MAX - Duration::from_millis(1));
    assert!(
        !bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Disconnect { .. }))
    );
    let old = bench.core.connection;
    bench.wait(Duration::from_millis(1));
    assert!(
        bench
            .orders
            .contains(&Order::Disconnect { connection: old })
    );
    assert_eq!(bench.core.summary().state, NodeState::Stale);
    bench.wait(Duration::from_secs(1));
    assert!(bench.connecting() > old);
    // What the old connection still says counts for nothing.
    bench.input(Input::Received {
        connection: old,
        message: heartbeat(5),
    });
    let summary = bench.core.summary();
    let silent = summary.receiver.silent_total;
    assert_eq!((summary.stale_inputs_total, silent), (1, 1));
}

#[test]
fn a_rejection_is_logged_once_however_often_it_comes() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.wait(Duration::from_secs(6));
        let connection = bench.connecting();
        bench.connected(connection);
        let reason = "another cluster".to_owned();
        bench.receive(Message::Rejection(Rejection { reason }));
    }
    let refused = bench
        .events
        .iter()
        .filter(|e| matches!(e, Event::MasterRefused { .. }));
    assert_eq!(
        refused.count(),
        2,
        "once for each master: {:?}",
        bench.events
    );
}

#[test]
fn a_masters_words_forge_no_log_line() {
    let mut bench = Bench::new();
    bench.wait(Duration::ZERO);
    let connection = bench.connecting();
    bench.connected(connection);
    let reason = "no\n2026-11-24T00:00:00Z INFO all is well\u{1b}[31m".to_owned();
    bench.receive(Message::Rejection(Rejection { reason }));
    let said = bench.events.iter().find_map(|event| {
        if let Event::MasterRefused { reason, .. } = event {
            return Some(reason);
        }
        None
    });
    let said = said.expect("it is logged");
    assert!(said.contains("no 2026"), "{said:?}");
    assert!(!said.contains(char::is_control), "{said:?}");
}

#[test]
fn a_registration_goes_to_the_master_and_its_answer_to_the_worker() {
    let mut bench = Bench::coherent();
    bench.register(77);
    bench.answer(accepted(5));
    assert_eq!(bench.replies, [(77, accepted(5))]);
    bench.register(78);
    bench.answer(RegistrationReply::Refused(Refusal::OldCseq));
    assert_eq!(
        bench.replies[1],
        (78, RegistrationReply::Refused(Refusal::OldCseq))
    );
    assert_eq!(bench.counters().answered_total, 2);
    assert_eq!(bench.core.summary().pending, 0);
}

#[test]
fn an_answer_is_held_until_the_table_has_its_level() {
    let mut bench = Bench::coherent();
    bench.register(1);
    bench.answer(accepted(7));
    assert_eq!(bench.replies, []);
    for level in [5, 6] {
        assert_eq!(bench.replies, [], "at level {level}");
        bench.receive(Message::Frame(frame(level)));
        assert!(matches!(
            bench.orders.pop(),
            Some(Order::Apply { checked: true, .. })
        ));
        bench.input(Input::Applied(Ok(standing(level + 1))));
    }
    assert_eq!(bench.replies, [(1, accepted(7))]);
    // The other way round: the frame came first.
    bench.register(2);
    bench.answer(accepted(7));
    assert_eq!(bench.replies[1], (2, accepted(7)));
}

#[test]
fn what_the_table_does_not_reach_in_time_is_judged_by_what_it_holds() {
    let mut bench = Bench::coherent();
    for ticket in [1, 2] {
        bench.register(ticket);
        bench.answer(accepted(9));
    }
    for _ in 0..4 {
        bench.receive(heartbeat(5));
        bench.wait(Duration::from_millis(500));
    }
    // A binding that it holds already is confirmed for a short while; what it does not hold is not.
    let held = std::mem::take(&mut bench.orders);
    let record = [Some(record()), None];
    for (order, record) in held.into_iter().zip(record) {
        let Order::Find { ticket, .. } = order else {
            panic!("{order:?}")
        };
        bench.input(Input::Found { ticket, record });
    }
    assert!(confirmed(&bench.replies[0], 1), "{:?}", bench.replies);
    assert_eq!(bench.replies[1], (2, UNAVAILABLE));
    assert_eq!(bench.counters().not_visible_total, 2);
    bench.receive(Message::Frame(frame(5)));
    bench.input(Input::Applied(Ok(standing(6))));
    assert_eq!(bench.replies.len(), 2);
}

#[test]
fn a_level_of_another_connection_confirms_no_answer_that_was_held() {
    let mut bench = Bench::coherent();
    bench.register(1);
    bench.answer(accepted(7));
    // The master dies; its successor has lost the tail of the log, level 7 is another change there.
    bench.close();
    bench.find(None);
    assert_eq!(bench.replies, [(1, UNAVAILABLE)]);
    bench.wait(Duration::from_millis(200));
    let connection = bench.connecting();
    bench.connected(connection);
    bench.receive(welcome(5));
    for level in [5, 6] {
        bench.receive(Message::Frame(frame(level)));
        bench.input(Input::Applied(Ok(standing(level + 1))));
    }
    assert_eq!(bench.replies, [(1, UNAVAILABLE)], "nothing is confirmed");
    assert_eq!(bench.core.summary().pending, 0);
}

#[test]
fn while_a_whole_table_comes_the_old_one_decides_and_no_worker_waits() {
    let mut bench = Bench::coherent();
    bench.close();
    bench.wait(Duration::from_millis(200));
    let connection = bench.connecting();
    bench.connected(connection);
    bench.receive(reload(6));
    for begun in [false, true] {
        if begun {
            bench.receive(begin(6));
        }
        bench.to_master.clear();
        bench.register(1);
        bench.find(Some(&record()));
        bench.register(2);
        bench.find(None);
        assert!(confirmed(&bench.replies[0], 1), "{:?}", bench.replies);
        assert_eq!(bench.replies[1], (2, UNAVAILABLE));
        assert_eq!(bench.to_master, []);
        bench.replies.clear();
    }
    // As soon as it is there, the master is asked again.
    bench.receive(Message::SnapshotEnd(SnapshotEnd {
        level: Level(6),
        root: position(6).root,
    }));
    bench.input(Input::Loaded(Ok(standing(6))));
    bench.register(3);
    bench.answer(accepted(6));
    assert_eq!(bench.replies, [(3, accepted(6))]);
}

#[test]
fn without_an_answer_in_time_the_table_decides() {
    let mut bench = Bench::coherent();
    bench.register(1);
    let late = bench.forwarded();
    for _ in 0..4 {
        bench.receive(heartbeat(5));
        bench.wait(Duration::from_millis(500));
    }
    bench.find(None);
    assert_eq!(bench.replies, [(1, UNAVAILABLE)]);
    bench.receive(Message::Registered {
        ticket: late,
        reply: accepted(5),
    });
    assert_eq!(bench.replies.len(), 1);
    assert_eq!(bench.counters().late_total, 1);
}

#[test]
fn a_lost_connection_sends_what_was_forwarded_to_the_table() {
    let mut bench = Bench::coherent();
    bench.register(1);
    bench.close();
    bench.find(Some(&record()));
    assert!(confirmed(&bench.replies[0], 1), "{:?}", bench.replies);
    assert_eq!(bench.counters().confirmed_total, 1);
}

#[test]
fn without_a_master_the_table_decides_at_once() {
    let mut bench = Bench::new();
    bench.register(1);
    bench.find(Some(&record()));
    bench.register(2);
    bench.find(None);
    assert!(confirmed(&bench.replies[0], 1), "{:?}", bench.replies);
    assert_eq!(bench.replies[1], (2, UNAVAILABLE));
    assert!(bench.to_master.is_empty());
}

#[test]
fn without_a_table_or_the_masters_time_nothing_is_confirmed() {
    let mut start = Bench::new().core.start;
    start.recalled = None;
    let mut bench = Bench::starting(start.clone());
    bench.register(1);
    bench.find(Some(&record()));
    start.standing = None;
    let mut empty = Bench::starting(start);
    empty.register(1);
    empty.find(Some(&record()));
    assert_eq!(bench.replies, [(1, UNAVAILABLE)]);
    assert_eq!(empty.replies, [(1, UNAVAILABLE)]);
}

#[test]
fn more_than_the_limit_are_refused_at_once() {
    let mut bench = Bench::coherent();
    for ticket in 0..=u64::try_from(PENDING_MAX).unwrap() {
        bench.register(ticket);
    }
    assert_eq!(bench.replies, [(4096, UNAVAILABLE)]);
    assert_eq!(bench.counters().pending_full_total, 1);
    assert_eq!(bench.core.summary().pending, PENDING_MAX);
    bench.close();
    bench.find(Some(&record()));
    assert_eq!(bench.replies.len(), PENDING_MAX + 1);
    assert_eq!(bench.core.summary().pending, 0);
}

#[test]
fn a_batch_that_finds_no_room_leaves_the_table_and_waits_longer_each_time() {
    let mut bench = Bench::coherent();
    bench.receive(Message::Frame(frame(5)));
    bench.orders.clear();
    bench.input(Input::Applied(Err(Failure::Full)));
    assert!(
        bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Disconnect { .. }))
    );
    assert_eq!(bench.core.summary().position, Some(position(5)));
    let mut attempts = Vec::new();
    for _ in 0..6 {
        while !bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Connect { .. }))
        {
            let next = bench.core.poll_timeout().expect("it tries for ever");
            bench.wait(next.since(bench.now));
        }
        attempts.push(bench.now);
        let connection = bench.connecting();
        bench.connected(connection);
        bench.receive(reload(6));
        bench.receive(begin(6));
        bench.orders.clear();
        bench.input(Input::Loaded(Err(Failure::Full)));
        assert!(
            bench.core.summary().state.answers(),
            "the old table goes on"
        );
    }
    let waits: Vec<_> = attempts
        .windows(2)
        .map(|pair| pair[1].since(pair[0]))
        .collect();
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
}
