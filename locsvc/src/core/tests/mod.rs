//! The core in virtual time: requests, batches, faults, expiry, nodes, replay.

mod audits;
mod batches;
mod expiry;
mod group;
mod memory;
mod nodes;
mod replay;

use std::collections::{BTreeMap, HashMap, VecDeque};

use locus_distribution::{Arrived, GroupDatagram, Medium, Peer};
use locus_proto::v1::Hello;
use locus_proto::{
    AddressOfRecord, AorRecord, Asked, BootId, ContactChange, EpochId, Frame, MasterTime, Message,
    Methods, NodeId, Owner, Position, Q, Registration, RegistrationReply, Timestamp,
};
use std::time::Duration;

use super::*;
use crate::drive::{Drive, DriveError, Sink};
use crate::log::{Folder, Log, LogConfig, MemoryFolder};
use crate::provision::{
    Outcome, ProvisionChange, ProvisionContact, RegistrarLimits, Request, RequestError,
};
use crate::record::Recorder;

const WALL: u64 = 1_700_000_000_000;

fn config(records_max: u64) -> CoreConfig {
    CoreConfig {
        cluster: "lab".parse().unwrap(),
        table_key: [3; 16],
        records_max,
        registrar: RegistrarLimits::default(),
        reload_above: None,
        transport: locus_proto::Transport::Auto,
        group: None,
    }
}

/// A connection over TCP, of nobody in particular.
fn tcp(address: &str) -> Arrived {
    Arrived {
        address: address.to_owned(),
        medium: Medium::Tcp,
        identity: None,
    }
}

fn aor(number: usize) -> AddressOfRecord {
    AddressOfRecord::parse(&format!("u{number}@example.net")).unwrap()
}

fn put(number: usize, uri: &str) -> ProvisionChange {
    ProvisionChange::PutAor {
        aor: aor(number),
        contacts: vec![ProvisionContact::permanent(uri)],
    }
}

fn registration(number: usize, cseq: u32, expires_s: u32) -> Registration {
    Registration {
        aor: aor(number),
        call_id: "c".into(),
        cseq,
        path: String::new(),
        received: String::new(),
        socket: String::new(),
        owner: Owner::default(),
        user_agent: String::new(),
        flags: 0,
        asked: Asked::Update(vec![ContactChange {
            uri: format!("sip:u{number}@10.0.0.9"),
            q: Q::NONE,
            expires_s: Some(expires_s),
            instance: String::new(),
            reg_id: 0,
            methods: Methods::ALL,
        }]),
    }
}

/// Everything that the core said.
#[derive(Debug, Default)]
struct Said {
    answers: HashMap<u64, Answer>,
    messages: Vec<(Peer, Message)>,
    datagrams: Vec<GroupDatagram>,
    /// Bytes that count against each node's window and are not reported as written yet.
    counted: BTreeMap<Peer, usize>,
    closed: Vec<Peer>,
    alive: Vec<MasterTime>,
    events: Vec<Event>,
}

impl Sink for Said {
    fn transmit(&mut self, transmit: Transmit) {
        let message = Message::from_bytes(&transmit.bytes).unwrap();
        if transmit.counted {
            *self.counted.entry(transmit.peer).or_default() += transmit.bytes.len();
        }
        self.messages.push((transmit.peer, message));
    }

    fn datagram(&mut self, datagram: GroupDatagram) {
        self.datagrams.push(datagram);
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        let first = self.answers.insert(ticket, answer).is_none();
        assert!(first, "ticket {ticket} is answered once");
    }

    fn close(&mut self, peer: Peer) {
        self.closed.push(peer);
    }

    fn alive(&mut self, _: Timestamp, time: MasterTime) {
        self.alive.push(time);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// A core with a log in memory, driven by hand.
#[derive(Debug)]
struct Bench {
    drive: Drive<MemoryFolder>,
    said: Said,
    now: Timestamp,
    ticket: u64,
    /// What the disk says instead of writing.
    disk: Option<&'static str>,
    recorder: Option<Recorder>,
}

impl Bench {
    fn new(records_max: u64) -> Self {
        Self::open(MemoryFolder::default(), records_max, WALL, None, None)
    }

    /// Opens what is in `folder`, as a process that starts at `wall_ms` does.
    fn open(
        folder: MemoryFolder,
        records_max: u64,
        wall_ms: u64,
        alive: Option<Alive>,
        recorder: Option<Recorder>,
    ) -> Self {
        Self::open_as(config(records_max), folder, wall_ms, alive, recorder)
    }

    fn open_as(
        config: CoreConfig,
        folder: MemoryFolder,
        wall_ms: u64,
        alive: Option<Alive>,
        recorder: Option<Recorder>,
    ) -> Self {
        let mut core = Core::new(config).unwrap();
        let mut recovered = VecDeque::new();
        let now = Timestamp(7);
        let (log, _) = Log::open(folder, LogConfig::default(), |frame: Frame| {
            recovered.push_back(frame.clone());
            core.handle_input(now, Input::Recovered(frame))
        })
        .unwrap();
        let mut bench = Self {
            drive: Drive::new(core, log),
            said: Said::default(),
            now,
            ticket: 0,
            disk: None,
            recorder,
        };
        for frame in recovered {
            bench.record(&Input::Recovered(frame));
        }
        bench.feed(Input::Start {
            epoch: EpochId([9; 16]),
            wall_ms,
            alive,
        });
        bench
    }

    fn record(&mut self, input: &Input) {
        if let Some(recorder) = &mut self.recorder {
            assert_eq!(recorder.record(self.now, input), None);
        }
    }

    /// Gives one input, and the disk's word if the core asks for it.
    fn feed(&mut self, input: Input) {
        self.try_feed(input).unwrap();
    }

    fn try_feed(&mut self, input: Input) -> Result<(), DriveError> {
        self.record(&input);
        let unreadable = self.drive.handle(self.now, input, &mut self.said)?;
        for input in unreadable {
            self.try_feed(input)?;
        }
        let written = match self.disk {
            None => self.drive.append().unwrap(),
            Some(reason) => self.drive.discard().then(|| Input::CommitFailed {
                reason: reason.into(),
            }),
        };
        match written {
            Some(written) => self.try_feed(written),
            None => Ok(()),
        }
    }

    /// Lets time pass until the core cannot go on; returns why.
    fn until_fault(&mut self, time: Duration) -> DriveError {
        let end = self.now.plus(time);
        loop {
            let due = self.drive.core().poll_timeout().expect("the core runs");
            assert!(due <= end, "nothing was found");
            self.now = self.now.max(due);
            if let Err(fault) = self.try_feed(Input::Tick) {
                return fault;
            }
        }
    }

    /// Asks without closing the batch; returns the ticket.
    fn ask(&mut self, request: Request) -> u64 {
        self.ticket += 1;
        let ticket = self.ticket;
        self.feed(Input::Api { ticket, request });
        ticket
    }

    fn flush(&mut self) {
        while self.drive.core().wants_flush() {
            self.feed(Input::Flush);
        }
    }

    fn answer(&mut self, ticket: u64) -> Answer {
        self.flush();
        self.said.answers.remove(&ticket).expect("it is answered")
    }

    fn change(&mut self, changes: Vec<ProvisionChange>) -> Answer {
        let ticket = self.ask(Request::Change(changes));
        self.answer(ticket)
    }

    fn contacts(&mut self, number: usize) -> usize {
        let ticket = self.ask(Request::GetAor(aor(number)));
        let answer = self.answer(ticket);
        let Answer::Aor { record, .. } = answer else {
            panic!("{answer:?}");
        };
        record.map_or(0, |(_, record)| record.bindings.len())
    }

    fn level(&self) -> u64 {
        self.drive.core().position().level.0
    }

    /// Lets time pass, tick by tick, as the driver does.
    fn advance(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(due) = self.drive.core().poll_timeout()
            && due <= end
        {
            self.now = self.now.max(due);
            self.feed(Input::Tick);
            self.flush();
            let next = self.drive.core().poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "a tick serves what was due"
            );
        }
        self.now = end;
    }

    /// Reports everything as written and lets the core read on, until nothing more comes.
    fn write_all(&mut self) {
        loop {
            let due = self.drive.core().read_due();
            if let Some(due) = due {
                self.now = self.now.max(due);
                self.feed(Input::Tick);
            }
            if !self.write() && due.is_none() {
                return;
            }
        }
    }

    /// Connects a node that has no table yet; drops what it is told.
    fn node(&mut self, number: u16) -> Peer {
        let peer = Peer(number.into());
        self.feed(Input::Connected {
            peer,
            arrived: tcp(&format!("10.0.0.{number}:5800")),
        });
        self.message(peer, Message::Hello(hello(number, None)));
        self.said.messages.clear();
        peer
    }

    /// As [`Self::node`], until the node has the whole table and follows the log.
    fn following(&mut self, number: u16) -> Peer {
        let peer = self.node(number);
        self.write_all();
        self.said.messages.clear();
        peer
    }

    /// Takes what was said to a node.
    fn messages(&mut self, peer: Peer) -> Vec<Message> {
        let all = std::mem::take(&mut self.said.messages);
        let (its, others) = all.into_iter().partition(|(to, _)| *to == peer);
        self.said.messages = others;
        its.into_iter().map(|(_, message)| message).collect()
    }

    /// Reports everything as written; returns whether there was something.
    fn write(&mut self) -> bool {
        let counted = std::mem::take(&mut self.said.counted);
        let any = !counted.is_empty();
        for (peer, bytes) in counted {
            self.feed(Input::Sent { peer, bytes });
        }
        any
    }

    fn message(&mut self, peer: Peer, message: Message) {
        let message = Box::new(message);
        self.feed(Input::Message { peer, message });
    }

    /// Sends a REGISTER without closing the batch; returns the ticket.
    fn send_register(&mut self, peer: Peer, registration: Registration) -> u64 {
        self.ticket += 1;
        let ticket = self.ticket;
        let message = Message::Register {
            ticket,
            registration,
        };
        self.message(peer, message);
        ticket
    }

    fn register(&mut self, peer: Peer, registration: Registration) -> RegistrationReply {
        let ticket = self.send_register(peer, registration);
        self.flush();
        self.reply(ticket).expect("it is answered")
    }

    fn reply(&mut self, wanted: u64) -> Option<RegistrationReply> {
        let is_it = |(_, message): &(Peer, Message)| matches!(message, Message::Registered { ticket, .. } if *ticket == wanted);
        let at = self.said.messages.iter().position(is_it)?;
        let Message::Registered { reply, .. } = self.said.messages.remove(at).1 else {
            panic!("it was one");
        };
        Some(reply)
    }

    fn frames(&self) -> Vec<Frame> {
        let log = self.drive.log();
        let mut frames = Vec::new();
        let mut position = Position::default();
        loop {
            let read = log.read(position, 1 << 20).unwrap();
            let Some(last) = read.last() else {
                return frames;
            };
            position = last.header.after();
            for frame in read {
                let Ok(Message::Frame(frame)) = Message::from_bytes(&frame.message) else {
                    panic!("the log holds frames");
                };
                frames.push(frame);
            }
        }
    }
}

fn hello(number: u16, position: Option<Position>) -> Hello {
    Hello {
        cluster: "lab".parse().unwrap(),
        node: NodeId(number),
        name: format!("n{number}").parse().unwrap(),
        boot: BootId(1),
        sip: String::new(),
        newest: 1,
        transport: locus_proto::Transport::Auto,
        position,
    }
}

fn changed(answer: &Answer) -> (u64, &[Outcome]) {
    let Answer::Changed { level, outcomes } = answer else {
        panic!("{answer:?}");
    };
    (level.0, outcomes)
}
