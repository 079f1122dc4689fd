//! Golden bytes, both ways: wire version 1 is what these files say, and a change of them is a change of
//! the wire (rules 1.6).
//!
//! `LOCUS_BLESS=1 cargo test -p locus-proto --test golden` writes them anew; the CHANGELOG gets a line.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fmt::Write as _;
use std::path::PathBuf;

use locus_proto::v1::{
    AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport, AuditScope, AuditSums,
    AuditVerdict, Heartbeat, Hello, Plan, Rejection, SnapshotBegin, SnapshotEnd, SnapshotPart,
    Welcome,
};
use locus_proto::{
    AddressOfRecord, AorRecord, Asked, Binding, BootId, Change, ChangeOp, ContactChange, Digits,
    Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, Lineage, MasterTime, Message,
    Methods, NodeId, NodeState, NodeStatus, Owner, Position, Q, Refusal, Registration,
    RegistrationReply, ReloadReason, Root, Route, TableHealth, Target,
};

fn aor() -> AddressOfRecord {
    AddressOfRecord::parse("alice@example.net").unwrap()
}

fn epoch(counter: u64) -> Epoch {
    Epoch {
        counter,
        id: EpochId([0xe0 + u8::try_from(counter).unwrap(); 16]),
    }
}

fn position() -> Position {
    Position {
        epoch: epoch(2),
        level: Level(7),
        root: Root([0x1122, 0x3344]),
    }
}

fn binding() -> Binding {
    Binding {
        uri: "sip:alice@192.0.2.1:5070".into(),
        q: Q::from_thousandths(500).unwrap(),
        expires: MasterTime(1_700_000_060_000),
        granted_s: 60,
        modified: MasterTime(1_700_000_000_000),
        path: "<sip:edge.example.net;lr>".into(),
        received: "sip:198.51.100.7:40000".into(),
        socket: "udp:192.0.2.11:5060".into(),
        owner: Owner {
            node: NodeId(1),
            boot: BootId(0xb007),
            connection: 9,
        },
        user_agent: "phone/1".into(),
        call_id: "c@192.0.2.1".into(),
        cseq: 3,
        instance: "<urn:uuid:0>".into(),
        reg_id: 1,
        methods: Methods(0x21),
        flags: 4,
    }
}

fn registration(asked: Asked) -> Message {
    let registration = Registration {
        aor: aor(),
        call_id: "c@192.0.2.1".into(),
        cseq: 3,
        path: String::new(),
        received: "sip:198.51.100.7:40000".into(),
        socket: "udp:192.0.2.11:5060".into(),
        owner: Owner {
            node: NodeId(1),
            boot: BootId(0xb007),
            connection: 0,
        },
        user_agent: "phone/1".into(),
        flags: 0,
        asked,
    };
    Message::Register {
        ticket: 17,
        registration,
    }
}

fn samples() -> Vec<(&'static str, Message)> {
    let mut lineage = Lineage::default();
    lineage.push(epoch(1), Level(0)).unwrap();
    lineage.push(epoch(2), Level(5)).unwrap();
    let hello = |position| {
        Message::Hello(Hello {
            cluster: "lab".parse().unwrap(),
            node: NodeId(1),
            name: "n1".parse().unwrap(),
            boot: BootId(0xb007),
            sip: "sip:192.0.2.11:5060".into(),
            position,
        })
    };
    let welcome = |plan| {
        Message::Welcome(Welcome {
            lineage: lineage.clone(),
            head: position(),
            time: MasterTime(1_700_000_000_000),
            table_key: *b"0123456789abcdef",
            plan,
        })
    };
    let record = AorRecord {
        bindings: vec![binding(), Binding::permanent("sip:a@192.0.2.2")],
    };
    let route = Route {
        strip: 1,
        prefix: "49".into(),
        targets: vec![Target {
            uri: "sip:gw.example.net".into(),
            priority: 1,
            weight: 10,
        }],
    };
    let put_aor = Change {
        key: Key::aor(&aor()),
        level: Level(6),
        op: ChangeOp::Put(record.encode()),
    };
    let put_route = |level| Change {
        key: Key::route(Digits::parse("4930").unwrap()),
        level,
        op: ChangeOp::Put(route.encode()),
    };
    let header = FrameHeader {
        kind: FrameKind::Changes,
        shard: 0,
        epoch: epoch(2),
        from: Level(5),
        to: Level(8),
        root_before: Root([1, 2]),
        root_after: Root([3, 4]),
        time: MasterTime(1_700_000_000_000),
    };
    let delete = Change {
        key: Key::aor(&AddressOfRecord::parse("bob").unwrap()),
        level: Level(8),
        op: ChangeOp::Delete,
    };
    let contact = ContactChange {
        uri: "sip:alice@192.0.2.1:5070".into(),
        q: Q::NONE,
        expires_s: Some(60),
        instance: "<urn:uuid:0>".into(),
        reg_id: 1,
        methods: Methods::ALL,
    };
    let by_default = ContactChange {
        expires_s: None,
        ..contact.clone()
    };
    let registered = |reply| Message::Registered { ticket: 17, reply };
    vec![
        ("hello", hello(Some(position()))),
        ("hello_without_table", hello(None)),
        ("welcome_continue", welcome(Plan::Continue)),
        (
            "welcome_reload",
            welcome(Plan::Reload(ReloadReason::LostTail)),
        ),
        (
            "rejection",
            Message::Rejection(Rejection {
                reason: "another cluster".into(),
            }),
        ),
        (
            "frame_changes",
            Message::Frame(Frame {
                header,
                changes: vec![put_aor, put_route(Level(7)), delete],
            }),
        ),
        (
            "frame_epoch",
            Message::Frame(Frame {
                header: FrameHeader {
                    kind: FrameKind::Epoch,
                    to: Level(5),
                    ..header
                },
                changes: vec![],
            }),
        ),
        (
            "snapshot_begin",
            Message::SnapshotBegin(SnapshotBegin {
                position: position(),
                records: 2,
                bytes: 300,
            }),
        ),
        (
            "snapshot_part",
            Message::SnapshotPart(SnapshotPart {
                records: vec![put_route(Level(2))],
            }),
        ),
        (
            "snapshot_end",
            Message::SnapshotEnd(SnapshotEnd {
                level: Level(8),
                root: Root([3, 4]),
            }),
        ),
        (
            "heartbeat",
            Message::Heartbeat(Heartbeat {
                time: MasterTime(1_700_000_000_500),
                head: position(),
            }),
        ),
        (
            "status",
            Message::Status(NodeStatus {
                position: position(),
                state: NodeState::Coherent,
                lag_ms: 5,
                records: 2,
                catch_ups_total: 1,
                reloads_total: 1,
                last_sync_ms: 12,
                refused_total: 0,
                audits_total: 3,
                repaired_total: 4,
                health: TableHealth {
                    table_bytes: 6 << 20,
                    huge_bytes: 4 << 20,
                    scrubs_total: 2,
                    doubted_total: 1,
                    snapshot_level: Level(6),
                    snapshots_failed_total: 1,
                },
            }),
        ),
        ("register_fetch", registration(Asked::Fetch)),
        ("register_remove_all", registration(Asked::RemoveAll)),
        (
            "register_update",
            registration(Asked::Update(vec![contact, by_default])),
        ),
        (
            "registered",
            registered(RegistrationReply::Accepted {
                level: Level(8),
                now: MasterTime(1_700_000_000_000),
                durable: true,
                bindings: vec![binding()],
            }),
        ),
        (
            "refused_too_brief",
            registered(RegistrationReply::Refused(Refusal::TooBrief(60))),
        ),
        (
            "refused_old_cseq",
            registered(RegistrationReply::Refused(Refusal::OldCseq)),
        ),
        (
            "refused_malformed",
            registered(RegistrationReply::Refused(Refusal::Malformed)),
        ),
        (
            "refused_too_many",
            registered(RegistrationReply::Refused(Refusal::TooMany)),
        ),
        (
            "refused_unavailable",
            registered(RegistrationReply::Refused(Refusal::Unavailable)),
        ),
    ]
    .into_iter()
    .chain(audit(put_route(Level(2))))
    .collect()
}

fn audit(record: Change) -> [(&'static str, Message); 11] {
    let ask = |scope, doubt| Message::AuditAsk(AuditAsk { scope, doubt });
    let sums = |group| {
        let sums = (0..256).map(|at| Root([at, at << 32])).collect();
        let level = Level(7);
        Message::AuditSums(AuditSums { level, group, sums })
    };
    let report = |verdict, ranges: Vec<(u16, u16)>| {
        Message::AuditReport(AuditReport {
            ticket: 9,
            verdict,
            level: Level(7),
            records: 2,
            partitions: u32::try_from(ranges.len()).unwrap() * 2,
            ranges,
            differing: 3,
            repaired: 2,
        })
    };
    [
        (
            "audit_ask_groups",
            ask(AuditScope::Groups, Some(position())),
        ),
        ("audit_ask_group", ask(AuditScope::Group(0xab), None)),
        (
            "audit_ask_partition",
            ask(AuditScope::Partition(0xabcd), Some(position())),
        ),
        ("audit_sums_groups", sums(None)),
        ("audit_sums_group", sums(Some(0xab))),
        (
            "audit_records",
            Message::AuditRecords(AuditRecords {
                level: Level(7),
                partition: 0xabcd,
                last: true,
                records: vec![record],
            }),
        ),
        (
            "audit_refused_majority",
            Message::AuditRefused(AuditRefusal::Majority),
        ),
        (
            "audit_refused_corrupt",
            Message::AuditRefused(AuditRefusal::Corrupt),
        ),
        (
            "audit_order",
            Message::AuditOrder(AuditOrder {
                ticket: 9,
                repair: true,
            }),
        ),
        ("audit_report_equal", report(AuditVerdict::Equal, vec![])),
        (
            "audit_report_repaired",
            report(AuditVerdict::Repaired, vec![(3, 4), (0xff00, 0xff01)]),
        ),
    ]
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1")
        .join(format!("{name}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for byte in line {
            write!(text, "{byte:02x} ").unwrap();
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn each_message_is_the_bytes_of_its_file() {
    for (name, message) in samples() {
        if std::env::var_os("LOCUS_BLESS").is_some() {
            std::fs::write(path(name), hex(&message.to_bytes())).unwrap();
        }
        let golden = std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(hex(&message.to_bytes()), golden, "{name}: encoding");
        assert_eq!(
            Message::from_bytes(&unhex(&golden)).as_ref(),
            Ok(&message),
            "{name}: decoding"
        );
    }
}

#[test]
fn each_golden_file_is_a_sample() {
    let names: Vec<_> = samples().into_iter().map(|(name, _)| path(name)).collect();
    for entry in std::fs::read_dir(path("").parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        assert!(
            names.contains(&file),
            "{} belongs to no sample",
            file.display()
        );
    }
}
