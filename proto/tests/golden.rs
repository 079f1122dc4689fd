//! Golden bytes, both ways: wire version 1 is what these files say, and a change of them is a change of
//! the wire (rules 1.6).
//!
//! `LOCUS_BLESS=1 cargo test -p locus-proto --test golden` writes them anew; the CHANGELOG gets a line.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "hex/bless.rs"]
mod bless;
mod hex;

use std::path::Path;

use hex::{files, folder};
use locus_proto::v1::{
    AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport, AuditScope, AuditSums,
    AuditVerdict, GroupCut, GroupEnd, GroupEndReason, GroupHeard, GroupKey, GroupLeft,
    GroupLeftReason, GroupOffer, Heartbeat, Hello, Plan, Rejection, SnapshotBegin, SnapshotEnd,
    SnapshotPart, Welcome,
};
use locus_proto::{
    AddressOfRecord, AorRecord, Asked, Binding, BootId, Change, ChangeOp, ContactChange, Digits,
    Epoch, EpochId, Frame, FrameHeader, FrameKind, GroupHealth, Key, Level, Lineage, MasterTime,
    Message, Methods, NodeId, NodeState, NodeStatus, Owner, Position, Q, Refusal, Registration,
    RegistrationReply, ReloadReason, Root, Route, TableHealth, Target, Transport, WireVersion,
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
            newest: 1,
            transport: Transport::Multicast,
            position,
        })
    };
    let welcome = |plan| {
        Message::Welcome(Welcome {
            version: WireVersion::V1,
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
                group: GroupHealth {
                    datagrams_total: 7,
                    lost_total: 6,
                    nacks_total: 5,
                    refused_total: 4,
                    frames_total: 3,
                    connection_frames_total: 2,
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
    .chain(group())
    .collect()
}

/// What no `Debug` may show, and no text but a recording.
const SECRET: [u8; 32] = [0x5e; 32];
const STREAM: u64 = 0xfeed_0000_0000_beef;

fn group() -> [(&'static str, Message); 15] {
    let key = |id| GroupKey {
        stream: STREAM,
        id,
        secret: SECRET,
    };
    let offer = |group: &str| {
        Message::GroupOffer(GroupOffer {
            stream: STREAM,
            group: group.parse().unwrap(),
            reply_port: 7_302,
            key: key(3),
            node_key: SECRET,
            verify_key: SECRET,
        })
    };
    let stream = STREAM;
    let end = |reason| Message::GroupEnd(GroupEnd { stream, reason });
    let left = |reason| {
        Message::GroupLeft(GroupLeft {
            stream,
            reason,
            position: position(),
        })
    };
    [
        ("group_offer_v4", offer("239.192.7.1:7301")),
        ("group_offer_v6", offer("[ff15::7:1]:7301")),
        ("group_key", Message::GroupKey(key(4))),
        (
            "group_heard",
            Message::GroupHeard(GroupHeard { stream, key: 4 }),
        ),
        (
            "group_cut",
            Message::GroupCut(GroupCut {
                stream,
                seq: 70_001,
            }),
        ),
        ("group_end_lagging", end(GroupEndReason::Lagging)),
        ("group_end_rotated", end(GroupEndReason::Rotated)),
        ("group_end_unicast", end(GroupEndReason::Unicast)),
        ("group_left_silent", left(GroupLeftReason::Silent)),
        ("group_left_gone", left(GroupLeftReason::Gone)),
        ("group_left_overrun", left(GroupLeftReason::Overrun)),
        ("group_left_mistrusted", left(GroupLeftReason::Mistrusted)),
        ("group_left_asked", left(GroupLeftReason::Asked)),
        ("group_left_unable", left(GroupLeftReason::Unable)),
        // The greeting of a build that is newer than any.
        (
            "hello_of_the_future",
            Message::Hello(Hello {
                cluster: "lab".parse().unwrap(),
                node: NodeId(1),
                name: "n1".parse().unwrap(),
                boot: BootId(0xb007),
                sip: String::new(),
                newest: 255,
                transport: Transport::Bus,
                position: None,
            }),
        ),
    ]
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

/// Compares each message with its file in `folder`, both ways; writes the files when blessing.
fn compare(folder: &Path, samples: &[(&str, Message)], version: WireVersion) {
    for (name, message) in samples {
        let bytes = message.to_bytes_in(version);
        let golden = bless::compare(folder, name, &bytes);
        let decoded = Message::from_bytes(&golden);
        assert_eq!(decoded.as_ref(), Ok(message), "{name}: decoding");
    }
    let names: Vec<String> = samples.iter().map(|(name, _)| (*name).into()).collect();
    for (file, _) in files(folder) {
        assert!(names.contains(&file), "{file} belongs to no sample");
    }
}

#[test]
fn each_message_is_the_bytes_of_its_file() {
    compare(&folder("v1"), &samples(), WireVersion::V1);
}

/// The test build's version 2 has another layout for two messages; the others stay as they are.
#[test]
#[cfg(feature = "synthetic-v2")]
fn each_message_of_version_2_is_the_bytes_of_its_file() {
    let (newer, same): (Vec<_>, Vec<_>) = samples()
        .into_iter()
        .partition(|(_, message)| matches!(message, Message::Heartbeat(_) | Message::Status(_)));
    compare(&folder("v2"), &newer, WireVersion::V2);
    for (name, message) in same {
        let (v1, v2) = (message.to_bytes(), message.to_bytes_in(WireVersion::V2));
        assert_eq!(v1, v2, "{name}");
    }
}

#[test]
fn each_message_survives_a_recording() {
    for (name, message) in samples() {
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(
            serde_json::from_str::<Message>(&json).unwrap(),
            message,
            "{name}"
        );
    }
}

#[test]
fn no_debug_text_shows_a_secret() {
    // The table key of the samples is "0123456789abcdef".
    let secrets = ["94, 94", "5e5e", "48, 49, 50", "0123456789", "30313233"];
    for (name, message) in samples() {
        let text = format!("{message:?} {message:#?}").to_lowercase();
        let in_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in secrets {
            assert!(!in_one_line.contains(secret), "{name}: {in_one_line}");
        }
    }
}

#[test]
fn a_word_or_number_of_a_recording_that_means_nothing_is_refused() {
    assert_eq!(
        serde_json::to_string(&Transport::ALL).unwrap(),
        r#"["auto","multicast","unicast","bus"]"#
    );
    assert!(serde_json::from_str::<Transport>(r#""carrier pigeon""#).is_err());
    assert!(serde_json::from_str::<WireVersion>("0").is_err());
    assert!(serde_json::from_str::<WireVersion>("250").is_err());
    assert_eq!(
        serde_json::from_str::<WireVersion>("1").unwrap(),
        WireVersion::V1
    );
}
