//! The program itself: starts, serves nodes over TCP, survives bad bytes and kill -9, ends on SIGTERM.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step fails the test"
)]

mod node;
mod secure;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Output};

use locus_proto::v1::{AuditAsk, AuditScope, Hello, Welcome};
use locus_proto::{
    AddressOfRecord, Asked, BootId, ContactChange, Deframer, Message, Methods, NodeId, Owner, Q,
    Registration, RegistrationReply, Root,
};
use support::{DEADLINE, Scratch, Service, program};

/// A node's side of a connection.
struct Node {
    stream: TcpStream,
    deframer: Deframer,
    ticket: u64,
}

impl Node {
    fn connect(service: &Service) -> Self {
        let stream = TcpStream::connect(service.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let deframer = Deframer::default();
        let ticket = 0;
        Self {
            stream,
            deframer,
            ticket,
        }
    }

    fn greeted(service: &Service) -> (Self, Welcome) {
        let mut node = Self::connect(service);
        node.send(&Message::Hello(Hello {
            cluster: "lab".parse().unwrap(),
            node: NodeId(1),
            name: "n1".parse().unwrap(),
            boot: BootId(1),
            sip: String::new(),
            newest: 1,
            transport: locus_proto::Transport::Auto,
            position: None,
        }));
        let welcome = node.receive(|message| {
            if let Message::Welcome(welcome) = message {
                Some(welcome)
            } else {
                None
            }
        });
        (node, welcome)
    }

    fn send(&mut self, message: &Message) {
        self.stream.write_all(&message.to_bytes()).unwrap();
    }

    /// Reads until `wanted` takes a message.
    fn receive<T>(&mut self, mut wanted: impl FnMut(Message) -> Option<T>) -> T {
        let mut block = [0; 4096];
        loop {
            while let Some(message) = self.deframer.poll().unwrap() {
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
            let len = self.stream.read(&mut block).unwrap();
            assert_ne!(len, 0, "the service closed the connection");
            self.deframer.handle_bytes(&block[..len]);
        }
    }

    fn send_ask(&mut self, scope: AuditScope) {
        self.send(&Message::AuditAsk(AuditAsk { scope, doubt: None }));
    }

    /// Asks as an audit does, and reads until `wanted` takes a message.
    fn ask<T>(&mut self, scope: AuditScope, wanted: impl FnMut(Message) -> Option<T>) -> T {
        self.send_ask(scope);
        self.receive(wanted)
    }

    /// Returns which of the sums is the first that is not empty.
    fn first_sum(&mut self, scope: AuditScope) -> u16 {
        let sums = self.ask(scope, |message| {
            if let Message::AuditSums(sums) = message {
                Some(sums.sums)
            } else {
                None
            }
        });
        let at = sums.iter().position(|sum| *sum != Root::EMPTY);
        u16::try_from(at.unwrap()).unwrap()
    }

    fn send_register(&mut self, user: &str, cseq: u32, asked: Asked) -> u64 {
        self.ticket += 1;
        let ticket = self.ticket;
        self.send(&Message::Register {
            ticket,
            registration: Registration {
                aor: AddressOfRecord::parse(&format!("{user}@example.net")).unwrap(),
                call_id: "c".into(),
                cseq,
                path: String::new(),
                received: String::new(),
                socket: String::new(),
                owner: Owner::default(),
                user_agent: String::new(),
                flags: 0,
                asked,
            },
        });
        ticket
    }

    fn reply(&mut self, wanted: u64) -> RegistrationReply {
        self.receive(|message| {
            if let Message::Registered { ticket, reply } = message
                && ticket == wanted
            {
                return Some(reply);
            }
            None
        })
    }

    /// Returns the level and the number of bindings.
    fn accepted(&mut self, ticket: u64) -> (u64, usize) {
        let reply = self.reply(ticket);
        let RegistrationReply::Accepted {
            level, bindings, ..
        } = reply
        else {
            panic!("{reply:?}");
        };
        (level.0, bindings.len())
    }
}

fn contact(user: &str) -> Asked {
    Asked::Update(vec![ContactChange {
        uri: format!("sip:{user}@10.0.0.9:5060"),
        q: Q::NONE,
        expires_s: Some(600),
        instance: String::new(),
        reg_id: 0,
        methods: Methods::ALL,
    }])
}

#[test]
fn serves_a_node_ends_on_sigterm_and_goes_on() {
    let scratch = Scratch::new("serves");
    let config = scratch.config("");
    let service = Service::start(&config);
    let (mut node, welcome) = Node::greeted(&service);
    assert_eq!((welcome.head.level.0, welcome.head.epoch.counter), (0, 1));
    for (number, user) in (1..).zip(["a", "b", "c"]) {
        let ticket = node.send_register(user, 1, contact(user));
        assert_eq!(node.accepted(ticket), (number, 1));
    }
    let (status, lines) = service.stop();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has("stopped at level 3"), "{lines:#?}");
    assert!(has("since the start: core"), "{lines:#?}");
    assert!(has(" changes_total=3 registrations_total=3"), "{lines:#?}");
    // Whoever reads a log file or journald wants no colours.
    assert!(!has("\u{1b}"), "{lines:#?}");
    // The key of the tables, and the subscribers' data.
    for name in ["meta", "log.00000000000000000000"] {
        let file = fs::metadata(scratch.path.join("data").join(name)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }

    let service = Service::start(&config);
    let (mut node, welcome) = Node::greeted(&service);
    assert_eq!((welcome.head.level.0, welcome.head.epoch.counter), (3, 2));
    let ticket = node.send_register("b", 2, Asked::Fetch);
    assert_eq!(node.accepted(ticket), (2, 1));
}

#[test]
fn bytes_that_are_no_message_end_the_connection_and_nothing_else() {
    let scratch = Scratch::new("bytes");
    let service = Service::start(&scratch.config(""));
    let hello = Message::Hello(Hello {
        cluster: "lab".parse().unwrap(),
        node: NodeId(2),
        name: "n2".parse().unwrap(),
        boot: BootId(1),
        sip: String::new(),
        newest: 1,
        transport: locus_proto::Transport::Auto,
        position: None,
    })
    .to_bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = hello.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, bytes) in [
        ("magic", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("version", with(4, 9)),
        ("kind", with(5, 200)),
        ("length", with(11, 0xff)),
        ("body", with(12, 200)),
        (
            "not a greeting",
            Message::from_bytes(&hello)
                .map(|_| register_bytes())
                .unwrap(),
        ),
    ] {
        for _ in 0..20 {
            let mut node = Node::connect(&service);
            node.stream.write_all(&bytes).unwrap();
            let mut rest = Vec::new();
            // Closed by the service; a reset says the same.
            let end = node.stream.read_to_end(&mut rest);
            assert!(end.is_ok() || rest.is_empty(), "{what}: {end:?}");
        }
    }
    // A message that never ends and a connection that says nothing hold nobody up.
    let mut half = Node::connect(&service);
    half.stream.write_all(&hello[..hello.len() - 1]).unwrap();
    let _silent = Node::connect(&service);
    let (mut node, _) = Node::greeted(&service);
    let ticket = node.send_register("a", 1, contact("a"));
    assert_eq!(node.accepted(ticket), (1, 1));
    let (status, lines) = service.stop();
    assert_eq!(status.code(), Some(0));
    let refused = lines.iter().filter(|line| line.contains("closed:")).count();
    assert!((1..30).contains(&refused), "rate-limited: {lines:#?}");
}

fn register_bytes() -> Vec<u8> {
    Message::Register {
        ticket: 1,
        registration: Registration {
            aor: AddressOfRecord::parse("a@example.net").unwrap(),
            call_id: "c".into(),
            cseq: 1,
            path: String::new(),
            received: String::new(),
            socket: String::new(),
            owner: Owner::default(),
            user_agent: String::new(),
            flags: 0,
            asked: contact("a"),
        },
    }
    .to_bytes()
}

#[test]
fn kill_nine_amid_writes_loses_nothing_that_was_acknowledged() {
    let scratch = Scratch::new("kill");
    let config = scratch.config("");
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    for life in 0..5_u32 {
        let service = Service::start(&config);
        let (mut node, welcome) = Node::greeted(&service);
        let last = acknowledged.last().map_or(0, |(_, level)| *level);
        assert!(
            welcome.head.level.0 >= last,
            "life {life}: {welcome:?} after level {last}"
        );
        for (user, level) in &acknowledged {
            let ticket = node.send_register(user, 1, Asked::Fetch);
            assert_eq!(node.accepted(ticket), (*level, 1), "life {life}: {user}");
        }
        // Many on their way, so that the kill falls into a batch.
        let users: Vec<String> = (0..400).map(|n| format!("u{life}x{n}")).collect();
        let tickets: Vec<u64> = users
            .iter()
            .map(|user| node.send_register(user, 1, contact(user)))
            .collect();
        for (user, ticket) in users
            .iter()
            .zip(&tickets)
            .take(50 + usize::try_from(life).unwrap() * 60)
        {
            let (level, _) = node.accepted(*ticket);
            acknowledged.push((user.clone(), level));
        }
        service.kill();
    }
    let service = Service::start(&config);
    let (_, welcome) = Node::greeted(&service);
    assert!(welcome.head.level.0 >= acknowledged.last().unwrap().1);
}

/// Memory that rots under a running master: it never sends what has rotted, ends, and makes its table anew
/// from the log.
#[test]
fn a_master_whose_memory_rots_ends_and_starts_again_from_its_log() {
    let scratch = Scratch::new("rots");
    let config = scratch.config("");
    let mut service = Service::start(&config);
    let (mut node, _) = Node::greeted(&service);
    node.receive(|message| matches!(message, Message::SnapshotEnd(_)).then_some(()));
    let ticket = node.send_register("victim", 1, contact("victim"));
    assert_eq!(node.accepted(ticket), (1, 1));
    let group = node.first_sum(AuditScope::Groups);
    let low = node.first_sum(AuditScope::Group(u8::try_from(group).unwrap()));
    let partition = group << 8 | low;
    let records = node.ask(AuditScope::Partition(partition), |message| {
        if let Message::AuditRecords(part) = message {
            Some(part.records.len())
        } else {
            None
        }
    });
    assert_eq!(records, 1);
    if let Err(error) = rot(service.child.id(), b"sip:victim@10.0.0.9:5060") {
        let may_not = std::io::ErrorKind::PermissionDenied;
        assert_eq!(error.kind(), may_not, "{error}");
        eprintln!("ignored: this machine does not let a process write to its child's memory");
        return;
    }
    node.send_ask(AuditScope::Partition(partition));
    let line = service.wait_for("stopped by a fault: the table in memory is not what was written");
    assert!(line.contains("Start locsvc again"), "{line}");
    assert!(
        line.contains(&format!("partition {partition:04x}")),
        "{line}"
    );
    assert_eq!(service.child.wait().unwrap().code(), Some(1));

    let service = Service::start(&config);
    let (mut node, welcome) = Node::greeted(&service);
    assert_eq!((welcome.head.level.0, welcome.head.epoch.counter), (1, 2));
    let ticket = node.send_register("victim", 2, Asked::Fetch);
    let RegistrationReply::Accepted { bindings, .. } = node.reply(ticket) else {
        panic!("accepted");
    };
    assert_eq!(bindings[0].uri, "sip:victim@10.0.0.9:5060");
    let (status, _) = service.stop();
    assert_eq!(status.code(), Some(0));
}

/// Changes the first byte of every copy of `text` in the memory of a child.
fn rot(pid: u32, text: &[u8]) -> std::io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut changed = 0;
    for line in maps.lines() {
        // Written by nobody but the process itself: neither program nor library, no device.
        let fields: Vec<_> = line.split_whitespace().collect();
        let named = fields.get(5).is_some_and(|name| *name != "[heap]");
        if !fields[1].starts_with("rw-p") || named {
            continue;
        }
        let (start, end) = fields[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue; // a guard page, or gone
        }
        for at in 0..bytes.len().saturating_sub(text.len()) {
            if &bytes[at..at + text.len()] == text {
                memory.write_all_at(b"S", start + u64::try_from(at).unwrap())?;
                changed += 1;
            }
        }
    }
    assert!(changed > 0, "the record is somewhere");
    Ok(())
}

#[test]
fn two_services_do_not_share_a_data_folder() {
    let scratch = Scratch::new("shared");
    let config = scratch.config("");
    let service = Service::start(&config);
    let output = program(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let pid = service.child.id();
    assert!(text.contains(&format!("in use by process {pid}")), "{text}");
}

#[test]
fn a_damaged_log_refuses_to_start_and_says_what_to_do() {
    let scratch = Scratch::new("damaged");
    let config = scratch.config("");
    let service = Service::start(&config);
    let (mut node, _) = Node::greeted(&service);
    for user in ["a", "b", "c"] {
        let ticket = node.send_register(user, 1, contact(user));
        node.accepted(ticket);
    }
    service.stop();
    let log = scratch.path.join("data/log.00000000000000000000");
    let mut bytes = fs::read(&log).unwrap();
    bytes[200] ^= 1;
    fs::write(&log, bytes).unwrap();
    let output = program(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("damaged in log.00000000000000000000 at byte 108"),
        "{text}"
    );
    assert!(
        text.contains("restore the data folder from a copy"),
        "{text}"
    );
}

#[test]
fn a_recording_replays_to_the_position_of_the_recorded_run() {
    let scratch = Scratch::new("replay");
    let record = scratch.path.join("record.jsonl");
    let config = scratch.config(&format!("record = {record:?}"));
    for life in 1..3 {
        let service = Service::start(&config);
        let (mut node, _) = Node::greeted(&service);
        for number in 0..20 {
            let user = format!("u{life}x{number}");
            let ticket = node.send_register(&user, 1, contact(&user));
            node.accepted(ticket);
        }
        service.stop();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_locsvc"))
        .arg("--replay")
        .arg(&record)
        .output();
    let Output { status, stdout, .. } = output.unwrap();
    assert!(status.success());
    let end: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    let service = Service::start(&scratch.config(""));
    let (_, welcome) = Node::greeted(&service);
    assert_eq!(end["level"], 40);
    assert_eq!(end["epoch"], 2);
    assert_eq!(end["root"], welcome.head.root.to_string());
    assert_eq!(end["counters"]["registrations_total"], 20);
}

#[test]
fn the_configuration_is_checked_without_touching_anything() {
    let scratch = Scratch::new("check");
    let fine = program(&scratch.config(""))
        .arg("--check")
        .output()
        .unwrap();
    assert!(fine.status.success(), "{fine:?}");
    assert!(!scratch.path.join("data").exists());
    for (more, said) in [
        ("unknown = 1", "unknown"),
        ("records_max = 0", "records_max"),
        ("registrar.min_expires_s = 0", "min_expires_s"),
    ] {
        let path = scratch.config(more);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("records_max = 10000\n", "")).unwrap();
        let output = program(&path).arg("--check").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said), "{text}");
    }
    // Without a word to the contrary nodes are known by certificates, on loopback too.
    let identity = scratch.path.join("identity");
    let secure = scratch.config(&format!("identity = {identity:?}"));
    let text = fs::read_to_string(&secure).unwrap();
    fs::write(&secure, text.replace("insecure = true\n", "")).unwrap();
    for arguments in [&["--check"][..], &[]] {
        let output = program(&secure).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("locusctl ca locsvc NAME"), "{text}");
        assert!(text.contains("insecure = true"), "{text}");
    }
    assert!(!scratch.path.join("data").exists());
}
