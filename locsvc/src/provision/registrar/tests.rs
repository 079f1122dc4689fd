//! The registrar as a table of transitions: bindings before, request, bindings after.

use locus_proto::{AddressOfRecord, FIELD_BYTES_MAX, Methods, Owner, Q, URI_BYTES_MAX};

use super::*;

const NOW: MasterTime = MasterTime(1_000_000);
const LIMITS: RegistrarLimits = RegistrarLimits {
    min_expires_s: 60,
    max_expires_s: 3600,
    default_expires_s: 1800,
};

fn contact(uri: &str, expires_s: Option<u32>) -> ContactChange {
    ContactChange {
        uri: uri.into(),
        q: Q::NONE,
        expires_s,
        instance: String::new(),
        reg_id: 0,
        methods: Methods::ALL,
    }
}

fn outbound(uri: &str, instance: &str, reg_id: u16) -> ContactChange {
    ContactChange {
        instance: instance.into(),
        reg_id,
        ..contact(uri, Some(600))
    }
}

fn preferred(uri: &str, q: &str) -> ContactChange {
    ContactChange {
        q: q.parse().unwrap(),
        ..contact(uri, Some(600))
    }
}

fn register(call_id: &str, cseq: u32, asked: Asked) -> Registration {
    Registration {
        aor: AddressOfRecord::parse("alice@example.net").unwrap(),
        call_id: call_id.into(),
        cseq,
        path: String::new(),
        received: String::new(),
        socket: "udp:10.0.0.1:5060".into(),
        owner: Owner::default(),
        user_agent: "phone".into(),
        flags: 0,
        asked,
    }
}

fn update(call_id: &str, cseq: u32, contacts: &[ContactChange]) -> Registration {
    register(call_id, cseq, Asked::Update(contacts.to_vec()))
}

/// The bindings that these registrations, each a second after the other, leave.
fn after(registrations: &[Registration]) -> AorRecord {
    let mut record = AorRecord::default();
    for (at, registration) in registrations.iter().enumerate() {
        let now = NOW.plus_ms(u64::try_from(at).unwrap() * 1000);
        record = merge(&record, registration, &LIMITS, now).unwrap().record;
    }
    record
}

fn shown(record: &AorRecord) -> Vec<String> {
    let show = |b: &Binding| {
        let left = b.expires.seconds_from(NOW);
        format!(
            "{} {} {} {left}",
            b.uri.trim_start_matches("sip:"),
            b.call_id,
            b.cseq
        )
    };
    record.bindings.iter().map(show).collect()
}

/// One line of the table.
struct Case {
    name: &'static str,
    before: Vec<Registration>,
    request: Registration,
    /// `uri call-id cseq seconds left` of each binding, or why not.
    after: Result<(&'static [&'static str], bool), Refusal>,
}

#[test]
fn transitions() {
    let a600 = || update("c", 1, &[contact("sip:a@h", Some(600))]);
    let cases = [
        Case {
            name: "a first contact",
            before: vec![],
            request: a600(),
            after: Ok((&["a@h c 1 600"], true)),
        },
        Case {
            name: "default expiry",
            before: vec![],
            request: update("c", 1, &[contact("sip:a@h", None)]),
            after: Ok((&["a@h c 1 1800"], true)),
        },
        Case {
            name: "expiry above the maximum is shortened",
            before: vec![],
            request: update("c", 1, &[contact("sip:a@h", Some(u32::MAX))]),
            after: Ok((&["a@h c 1 3600"], true)),
        },
        Case {
            name: "expiry below the minimum is refused",
            before: vec![],
            request: update("c", 1, &[contact("sip:a@h", Some(59))]),
            after: Err(Refusal::TooBrief(60)),
        },
        Case {
            name: "expiry at the minimum",
            before: vec![],
            request: update("c", 1, &[contact("sip:a@h", Some(60))]),
            after: Ok((&["a@h c 1 60"], true)),
        },
        Case {
            name: "a refresh",
            before: vec![a600()],
            request: update("c", 2, &[contact("sip:a@h", Some(700))]),
            after: Ok((&["a@h c 2 700"], true)),
        },
        Case {
            name: "a refresh by a URI that differs in the case of its host",
            before: vec![a600()],
            request: update("c", 2, &[contact("SIP:a@H", Some(700))]),
            after: Ok((&["SIP:a@H c 2 700"], true)),
        },
        Case {
            name: "the case of the user part tells contacts apart",
            before: vec![a600()],
            request: update("c", 2, &[contact("sip:A@h", Some(700))]),
            after: Ok((&["a@h c 1 600", "A@h c 2 700"], true)),
        },
        Case {
            name: "older CSeq of the same call",
            before: vec![update("c", 5, &[contact("sip:a@h", Some(600))])],
            request: update("c", 4, &[contact("sip:a@h", Some(600))]),
            after: Err(Refusal::OldCseq),
        },
        Case {
            name: "older CSeq of another call",
            before: vec![update("c", 5, &[contact("sip:a@h", Some(600))])],
            request: update("d", 1, &[contact("sip:a@h", Some(600))]),
            after: Ok((&["a@h d 1 600"], true)),
        },
        Case {
            name: "a retransmission changes nothing",
            before: vec![a600()],
            request: a600(),
            after: Ok((&["a@h c 1 600"], false)),
        },
        Case {
            name: "the same CSeq with other content is no retransmission",
            before: vec![a600()],
            request: update("c", 1, &[contact("sip:a@h", Some(700))]),
            after: Err(Refusal::OldCseq),
        },
        Case {
            name: "the same CSeq cannot remove",
            before: vec![a600()],
            request: update("c", 1, &[contact("sip:a@h", Some(0))]),
            after: Err(Refusal::OldCseq),
        },
        Case {
            name: "one old CSeq refuses the whole request",
            before: vec![update("c", 5, &[contact("sip:a@h", Some(600))])],
            request: update(
                "c",
                4,
                &[contact("sip:b@h", Some(600)), contact("sip:a@h", Some(600))],
            ),
            after: Err(Refusal::OldCseq),
        },
        Case {
            name: "another contact of the same call and CSeq joins",
            before: vec![a600()],
            request: update("c", 1, &[contact("sip:b@h", Some(600))]),
            after: Ok((&["a@h c 1 600", "b@h c 1 600"], true)),
        },
        Case {
            name: "removal",
            before: vec![update(
                "c",
                1,
                &[contact("sip:a@h", Some(600)), contact("sip:b@h", Some(600))],
            )],
            request: update("c", 2, &[contact("sip:a@h", Some(0))]),
            after: Ok((&["b@h c 1 600"], true)),
        },
        Case {
            name: "removal of the last",
            before: vec![a600()],
            request: update("c", 2, &[contact("sip:a@h", Some(0))]),
            after: Ok((&[], true)),
        },
        Case {
            name: "removal of what is not there",
            before: vec![a600()],
            request: update("c", 2, &[contact("sip:b@h", Some(0))]),
            after: Ok((&["a@h c 1 600"], false)),
        },
        Case {
            name: "one removed, one added",
            before: vec![a600()],
            request: update(
                "c",
                2,
                &[contact("sip:a@h", Some(0)), contact("sip:b@h", Some(600))],
            ),
            after: Ok((&["b@h c 2 600"], true)),
        },
        Case {
            name: "a contact given twice: the last word counts",
            before: vec![],
            request: update(
                "c",
                1,
                &[contact("sip:a@h", Some(600)), contact("sip:a@h", Some(700))],
            ),
            after: Ok((&["a@h c 1 700"], true)),
        },
        Case {
            name: "all removed",
            before: vec![update(
                "c",
                1,
                &[contact("sip:a@h", Some(600)), contact("sip:b@h", Some(600))],
            )],
            request: register("c", 2, Asked::RemoveAll),
            after: Ok((&[], true)),
        },
        Case {
            name: "all removed by another call",
            before: vec![update("c", 9, &[contact("sip:a@h", Some(600))])],
            request: register("d", 1, Asked::RemoveAll),
            after: Ok((&[], true)),
        },
        Case {
            name: "an old CSeq cannot remove all",
            before: vec![update("c", 9, &[contact("sip:a@h", Some(600))])],
            request: register("c", 9, Asked::RemoveAll),
            after: Err(Refusal::OldCseq),
        },
        Case {
            name: "all of nothing removed",
            before: vec![],
            request: register("c", 1, Asked::RemoveAll),
            after: Ok((&[], false)),
        },
        Case {
            name: "a question",
            before: vec![a600()],
            request: register("x", 1, Asked::Fetch),
            after: Ok((&["a@h c 1 600"], false)),
        },
        Case {
            name: "a phone that moved keeps its binding by instance and reg-id",
            before: vec![update("c", 1, &[outbound("sip:a@h1", "<urn:uuid:1>", 1)])],
            request: update("d", 1, &[outbound("sip:a@h2", "<urn:uuid:1>", 1)]),
            after: Ok((&["a@h2 d 1 600"], true)),
        },
        Case {
            name: "another flow of the same instance joins",
            before: vec![update("c", 1, &[outbound("sip:a@h", "<urn:uuid:1>", 1)])],
            request: update("c", 2, &[outbound("sip:a@h", "<urn:uuid:1>", 2)]),
            after: Ok((&["a@h c 1 600", "a@h c 2 600"], true)),
        },
        Case {
            name: "another instance behind the same URI joins",
            before: vec![update("c", 1, &[outbound("sip:a@h", "<urn:uuid:1>", 1)])],
            request: update("d", 1, &[outbound("sip:a@h", "<urn:uuid:2>", 1)]),
            after: Ok((&["a@h c 1 600", "a@h d 1 600"], true)),
        },
        Case {
            name: "an instance without reg-id is matched by URI",
            before: vec![update("c", 1, &[outbound("sip:a@h", "<urn:uuid:1>", 0)])],
            request: update("c", 2, &[outbound("sip:a@h", "<urn:uuid:2>", 0)]),
            after: Ok((&["a@h c 2 600"], true)),
        },
        Case {
            name: "a phone that begins to send a reg-id takes over its binding",
            before: vec![a600()],
            request: update("c", 2, &[outbound("sip:a@h", "<urn:uuid:1>", 1)]),
            after: Ok((&["a@h c 2 600"], true)),
        },
        Case {
            name: "q descending, then insertion",
            before: vec![update(
                "c",
                1,
                &[preferred("sip:a@h", "0.5"), preferred("sip:b@h", "0.5")],
            )],
            request: update(
                "c",
                2,
                &[preferred("sip:c@h", "0.7"), preferred("sip:d@h", "0.5")],
            ),
            after: Ok((
                &["c@h c 2 600", "a@h c 1 600", "b@h c 1 600", "d@h c 2 600"],
                true,
            )),
        },
        Case {
            name: "a refresh of the same q keeps its place",
            before: vec![update(
                "c",
                1,
                &[preferred("sip:a@h", "0.5"), preferred("sip:b@h", "0.5")],
            )],
            request: update("c", 2, &[preferred("sip:a@h", "0.5")]),
            after: Ok((&["a@h c 2 600", "b@h c 1 600"], true)),
        },
        Case {
            name: "a refresh of another q moves",
            before: vec![update(
                "c",
                1,
                &[preferred("sip:a@h", "0.5"), preferred("sip:b@h", "0.5")],
            )],
            request: update("c", 2, &[preferred("sip:a@h", "0.4")]),
            after: Ok((&["b@h c 1 600", "a@h c 2 600"], true)),
        },
    ];
    for case in cases {
        let before = after(&case.before);
        let merged = merge(&before, &case.request, &LIMITS, NOW);
        match (&merged, &case.after) {
            (Ok(merged), Ok((bindings, changed))) => {
                assert_eq!(shown(&merged.record), *bindings, "{}", case.name);
                assert_eq!(merged.changed, *changed, "{}", case.name);
            }
            (Err(refusal), Err(expected)) => assert_eq!(refusal, expected, "{}", case.name),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{}: {merged:?}", case.name),
        }
    }
}

#[test]
fn a_binding_holds_what_routing_needs() {
    let owner = Owner {
        connection: 7,
        ..Owner::default()
    };
    let registration = Registration {
        path: "<sip:p1;lr>,<sip:p2;lr>".into(),
        received: "sip:192.0.2.1:1024".into(),
        owner,
        flags: 3,
        ..update("c", 1, &[outbound("sip:a@h", "<urn:uuid:1>", 4)])
    };
    let record = merge(&AorRecord::default(), &registration, &LIMITS, NOW)
        .unwrap()
        .record;
    let expected = Binding {
        q: Q::NONE,
        expires: NOW.plus_ms(600_000),
        granted_s: 600,
        modified: NOW,
        path: registration.path.clone(),
        received: registration.received.clone(),
        socket: registration.socket.clone(),
        owner,
        user_agent: "phone".into(),
        call_id: "c".into(),
        cseq: 1,
        instance: "<urn:uuid:1>".into(),
        reg_id: 4,
        flags: 3,
        ..Binding::permanent("sip:a@h")
    };
    assert_eq!(record.bindings, [expected]);
}

#[test]
fn a_thirteenth_contact_is_refused_unless_one_goes() {
    let contacts: Vec<_> = (0..BINDINGS_MAX)
        .map(|n| contact(&format!("sip:{n}@h"), Some(600)))
        .collect();
    let full = after(&[update("c", 1, &contacts)]);
    assert_eq!(full.bindings.len(), BINDINGS_MAX);
    let another = contact("sip:another@h", Some(600));
    let refused = merge(
        &full,
        &update("d", 1, std::slice::from_ref(&another)),
        &LIMITS,
        NOW,
    );
    assert_eq!(refused, Err(Refusal::TooMany));
    let gone = contact("sip:0@h", Some(0));
    let merged = merge(
        &full,
        &update("d", 1, &[another.clone(), gone]),
        &LIMITS,
        NOW,
    )
    .unwrap();
    assert_eq!(merged.record.bindings.len(), BINDINGS_MAX);
    // Those that have expired make room.
    let late = NOW.plus_ms(600_000);
    let merged = merge(&full, &update("d", 1, &[another]), &LIMITS, late).unwrap();
    assert_eq!(merged.record.bindings.len(), 1);
}

#[test]
fn what_has_expired_is_dropped_and_has_no_cseq() {
    let before = after(&[update("c", 5, &[contact("sip:a@h", Some(60))])]);
    let late = NOW.plus_ms(60_000);
    let request = update("c", 1, &[contact("sip:b@h", Some(600))]);
    let merged = merge(&before, &request, &LIMITS, late).unwrap();
    assert_eq!(merged.record.bindings.len(), 1);
    assert_eq!(merged.record.bindings[0].uri, "sip:b@h");
    // The question alone writes nothing, but is not shown it either.
    let merged = merge(&before, &register("x", 1, Asked::Fetch), &LIMITS, late).unwrap();
    assert_eq!((merged.record.bindings.len(), merged.changed), (0, false));
    let again = update("c", 5, &[contact("sip:a@h", Some(600))]);
    let merged = merge(&before, &again, &LIMITS, late).unwrap();
    assert_eq!((merged.record.bindings.len(), merged.changed), (1, true));
}

#[test]
fn provisioned_contacts_are_kept_beside_registered_ones() {
    let mut before = AorRecord::default();
    before.insert(Binding::permanent("sip:mailbox@h"));
    let request = update("c", 1, &[contact("sip:a@h", Some(600))]);
    let merged = merge(&before, &request, &LIMITS, NOW).unwrap();
    assert_eq!(merged.record.bindings.len(), 2);
    let all = register("c", 2, Asked::RemoveAll);
    let merged = merge(&merged.record, &all, &LIMITS, NOW).unwrap();
    assert_eq!(merged.record.bindings, []);
}

#[test]
fn oversized_or_malformed_fields_are_refused() {
    type Spoil = fn(&mut Registration);
    fn first(r: &mut Registration) -> &mut ContactChange {
        let Asked::Update(contacts) = &mut r.asked else {
            panic!("an update")
        };
        &mut contacts[0]
    }
    let cases: [(&str, Spoil); 20] = [
        ("empty call-id", |r| r.call_id.clear()),
        ("call-id with a space", |r| r.call_id = "a b".into()),
        ("long call-id", |r| {
            r.call_id = "c".repeat(FIELD_BYTES_MAX + 1)
        }),
        ("call-id with a line end", |r| {
            r.call_id = "c\r\nX: y".into()
        }),
        ("path with a line end", |r| {
            r.path = "<sip:p>\r\nX: y".into()
        }),
        ("long path", |r| r.path = "p".repeat(URI_BYTES_MAX + 1)),
        ("received that is no URI", |r| {
            r.received = "192.0.2.1:5060".into()
        }),
        ("long received", |r| {
            r.received = format!("sip:{}", "h".repeat(FIELD_BYTES_MAX))
        }),
        ("socket with a NUL", |r| r.socket = "udp:\0".into()),
        ("long socket", |r| {
            r.socket = "s".repeat(FIELD_BYTES_MAX + 1)
        }),
        ("user agent with a line end", |r| {
            r.user_agent = "a\nb".into()
        }),
        ("long user agent", |r| {
            r.user_agent = "u".repeat(FIELD_BYTES_MAX + 1)
        }),
        ("no contact", |r| r.asked = Asked::Update(vec![])),
        ("thirteen contacts", |r| {
            let one = first(r).clone();
            r.asked = Asked::Update(vec![one; BINDINGS_MAX + 1]);
        }),
        ("empty uri", |r| first(r).uri.clear()),
        ("uri of another scheme", |r| {
            first(r).uri = "mailto:a@h".into()
        }),
        ("uri with brackets", |r| first(r).uri = "<sip:a@h>".into()),
        ("long uri", |r| {
            first(r).uri = format!("sip:{}@h", "a".repeat(URI_BYTES_MAX))
        }),
        ("long instance", |r| {
            first(r).instance = "i".repeat(FIELD_BYTES_MAX + 1)
        }),
        ("reg-id without instance", |r| first(r).reg_id = 1),
    ];
    for (what, spoil) in cases {
        let mut registration = update("c", 1, &[contact("sip:a@h", Some(600))]);
        assert!(merge(&AorRecord::default(), &registration, &LIMITS, NOW).is_ok());
        spoil(&mut registration);
        let merged = merge(&AorRecord::default(), &registration, &LIMITS, NOW);
        assert_eq!(merged, Err(Refusal::Malformed), "{what}");
    }
}
