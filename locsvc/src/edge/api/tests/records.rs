//! What the API does for clients that behave.

use std::io::{Read, Write};

use locus_proto::{Level, Q, Target};
use serde_json::json;

use super::*;

#[test]
fn an_address_of_record_is_put_read_replaced_and_deleted() {
    let fixture = Fixture::new();
    let body = json!({"contacts": [
        {"uri": "sip:alice@10.0.0.2"},
        {"uri": "sip:alice@10.0.0.1", "q": 0.5, "expires_s": 3600, "path": "<sip:edge;lr>",
         "received": "sip:192.0.2.7", "instance": "<urn:uuid:1>", "reg_id": 1},
        {"uri": "sip:alice@10.0.0.3", "q": 1, "expires_s": null, "path": null},
    ]});
    let answer = fixture
        .put("/v1/aors/sip:Alice@Example.NET", &body.to_string())
        .ok();
    assert_eq!(
        answer,
        json!({"level": 1, "changed": 1, "outcome": "created"})
    );
    let Ok(Request::Change(changes)) = fixture.asked.recv_timeout(PATIENCE) else {
        panic!("the core was asked for a change");
    };
    let [ProvisionChange::PutAor { aor, contacts }] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(aor.as_str(), "alice@example.net");
    let q: Vec<Q> = contacts.iter().map(|contact| contact.q).collect();
    assert_eq!(q, [Q::NONE, "0.5".parse().unwrap(), "1".parse().unwrap()]);

    let answer = fixture.get("/v1/aors/al%69ce%40example.net").ok();
    let expected = json!({
        "aor": "alice@example.net", "level": 1, "database_level": 1,
        "contacts": [
            {"uri": "sip:alice@10.0.0.3", "q": 1.0, "expires_s": null},
            {"uri": "sip:alice@10.0.0.1", "q": 0.5, "expires_s": 3600, "path": "<sip:edge;lr>",
             "received": "sip:192.0.2.7", "instance": "<urn:uuid:1>", "reg_id": 1},
            {"uri": "sip:alice@10.0.0.2", "expires_s": null},
        ]
    });
    assert_eq!(answer, expected);

    // What was read can be put again.
    let again = json!({"contacts": answer["contacts"]});
    let answer = fixture
        .put("/v1/aors/alice@example.net", &again.to_string())
        .ok();
    assert_eq!(
        answer,
        json!({"level": 2, "changed": 1, "outcome": "replaced"})
    );
    let answer = fixture.delete("/v1/aors/alice@example.net").ok();
    assert_eq!(
        answer,
        json!({"level": 3, "changed": 1, "outcome": "deleted"})
    );
    for gone in [
        fixture.get("/v1/aors/alice@example.net"),
        fixture.delete("/v1/aors/alice@example.net"),
    ] {
        assert!(
            gone.refused(404, "not_found")
                .contains("alice@example.net has no contacts")
        );
    }
}

#[test]
fn a_registered_contact_says_who_registered_it() {
    let fixture = Fixture::new();
    fixture
        .put(
            "/v1/aors/a@x",
            r#"{"contacts":[{"uri":"sip:phone@10.0.0.1"}]}"#,
        )
        .ok();
    let answer = fixture.get("/v1/aors/a@x").ok();
    let registration = &answer["contacts"][0]["registration"];
    assert_eq!(
        (&registration["node"], &registration["call_id"]),
        (&json!(2), &json!("c1"))
    );
}

#[test]
fn a_route_is_put_read_and_deleted() {
    let fixture = Fixture::new();
    let body = json!({"strip": 4, "prefix": "0", "targets": [
        {"uri": "sip:gw1.example.net"}, {"uri": "sip:gw2.example.net", "priority": 2, "weight": 70},
    ]});
    let answer = fixture.put("/v1/routes/+4930", &body.to_string()).ok();
    assert_eq!(
        answer,
        json!({"level": 1, "changed": 1, "outcome": "created"})
    );
    let answer = fixture.get("/v1/routes/4930").ok();
    let targets = json!([
        {"uri": "sip:gw1.example.net", "priority": 1, "weight": 1},
        {"uri": "sip:gw2.example.net", "priority": 2, "weight": 70},
    ]);
    let expected = json!({"prefix": "4930", "level": 1, "database_level": 1,
        "route": {"strip": 4, "prefix": "0", "targets": targets}});
    assert_eq!(answer, expected);
    assert_eq!(fixture.delete("/v1/routes/4930").ok()["outcome"], "deleted");
    fixture.get("/v1/routes/4930").refused(404, "not_found");
    fixture.delete("/v1/routes/4930").refused(404, "not_found");
}

#[test]
fn a_batch_reaches_the_core_as_one_request() {
    let fixture = Fixture::new();
    let body = json!({"changes": [
        {"op": "put_aor", "aor": "a@x", "contacts": [{"uri": "sip:a@10.0.0.1", "q": 0.125}]},
        {"op": "delete_aor", "aor": "b@x"},
        {"op": "put_route", "prefix": "49", "route": {"targets": [{"uri": "sip:gw", "priority": 3}]}},
        {"op": "delete_route", "prefix": "49"},
    ]});
    let answer = fixture.post("/v1/batch", &body.to_string()).ok();
    assert_eq!(answer, json!({"level": 3, "changed": 3}));
    let asked = fixture.asked.recv_timeout(PATIENCE).unwrap();
    let contact = ProvisionContact {
        q: Q::from_thousandths(125).unwrap(),
        ..ProvisionContact::permanent("sip:a@10.0.0.1")
    };
    let route = Route {
        targets: vec![Target {
            uri: "sip:gw".to_owned(),
            priority: 3,
            weight: 1,
        }],
        ..Route::default()
    };
    let expected = vec![
        ProvisionChange::PutAor {
            aor: "a@x".parse().unwrap(),
            contacts: vec![contact],
        },
        ProvisionChange::DeleteAor("b@x".parse().unwrap()),
        ProvisionChange::PutRoute {
            prefix: "49".parse().unwrap(),
            route,
        },
        ProvisionChange::DeleteRoute("49".parse().unwrap()),
    ];
    assert_eq!(asked, Request::Change(expected));
}

#[test]
fn level_and_nodes() {
    let fixture = Fixture::new();
    let level = fixture.get("/v1/level").ok();
    let expected = json!({"level": 0, "epoch": "3-abababab",
        "root": "00000000000000020000000000000001", "records": 5, "time": 1_000_000});
    assert_eq!(level, expected);
    let answer = fixture.get("/v1/nodes").ok();
    let both = json!({"address": "10.77.0.11:40000", "sip": "sip:10.77.0.11:5060", "connected": true,
        "sending": "snapshot", "version": 1, "connection_frame_bytes_total": 77});
    let mut fresh = both.clone();
    let mut known = both;
    let merge = |into: &mut Value, more: Value| {
        let more = more.as_object().unwrap().clone();
        into.as_object_mut().unwrap().extend(more);
    };
    merge(
        &mut fresh,
        json!({"node": 1, "name": "n1", "behind": 12, "path": "bus-b", "multicast_lost": null}),
    );
    merge(
        &mut known,
        json!({"node": 2, "name": "n2", "behind": 1, "state": "resync", "level": 11, "path": "tcp",
        "multicast_lost": {"reason": "silent", "lasts_ms": 2500},
        "group": {"datagrams_total": 90, "lost_total": 12, "nacks_total": 3, "refused_total": 1,
            "frames_total": 8, "connection_frames_total": 2},
        "epoch": "0-00000000", "root": "0".repeat(32), "lag_ms": 40, "records": 6,
        "catch_ups_total": 1, "reloads_total": 2, "last_sync_ms": 30, "refused_total": 0,
        "audits_total": 3, "repaired_total": 9, "health": {
            "table_bytes": 4_194_304, "huge_bytes": 2_097_152, "pages": "mixed", "scrubs_total": 7,
            "doubted_total": 1, "snapshot_level": 10, "snapshots_failed_total": 2}}),
    );
    assert_eq!(answer["nodes"], json!([fresh, known]));
    assert_eq!(answer["alarm"], Value::Null);
    fixture
        .put("/v1/aors/a@x", r#"{"contacts":[{"uri":"sip:a@y"}]}"#)
        .ok();
    let told = json!({"node": 1, "name": "n1", "connected": true});
    assert_eq!(fixture.post("/v1/nodes/n1/reload", "").ok(), told);
    fixture
        .post("/v1/nodes/n9/reload", "")
        .refused(404, "no_such_node");
    let alarm = json!({"level": 11, "nodes": 2, "of": 3, "master_verified": true});
    assert_eq!(fixture.get("/v1/nodes").ok()["alarm"], alarm);
}

#[test]
fn audits() {
    let fixture = Fixture::new();
    let before = fixture.now();
    let answer = fixture.post("/v1/audit", "{}").ok();
    let expected = json!({"level": 12, "nodes": [
        {"node": 1, "name": "n1", "verdict": "repaired", "level": 11, "records": 6, "partitions": 3,
         "ranges": [[6699, 6700], [65535, 65535]], "differing": 4, "repaired": 0},
        {"node": 2, "name": "n2", "verdict": "busy"},
        {"node": 3, "name": "n3", "verdict": "no_answer"},
        {"node": 4, "name": "n4", "verdict": "not_connected"},
    ]});
    assert_eq!(answer, expected);
    let asked = |body: &str, ms: u64| {
        fixture.post("/v1/audit", body).ok();
        let request = fixture.asked.try_iter().last().unwrap();
        let Request::Audit {
            node,
            repair,
            deadline,
        } = request
        else {
            panic!("{request:?}");
        };
        let soonest = before.plus(Duration::from_millis(ms));
        let latest = fixture.now().plus(Duration::from_millis(ms));
        assert!((soonest..=latest).contains(&deadline), "{body}");
        (node, repair)
    };
    let name = |name: &str| Some(NodeRef::Name(name.parse().unwrap()));
    assert_eq!(asked("{}", 60_000), (None, false));
    let all = r#"{"node":null,"repair":true,"timeout_ms":600000}"#;
    assert_eq!(asked(all, 600_000), (None, true));
    let by_name = r#"{"node":"berlin-2","timeout_ms":1}"#;
    assert_eq!(asked(by_name, 1), (name("berlin-2"), false));
    let by_number = Some(NodeRef::Number(NodeId(7)));
    assert_eq!(
        asked(r#"{"node":7,"repair":true}"#, 60_000),
        (by_number, true)
    );
    assert_eq!(asked(r#"{"node":"7"}"#, 60_000), (name("7"), false));
}

#[test]
fn waiting_for_a_level() {
    let fixture = Fixture::new();
    fixture
        .put("/v1/aors/a@x", r#"{"contacts":[{"uri":"sip:a@y"}]}"#)
        .ok();
    let all = fixture.get("/v1/level?wait=1&timeout_ms=50&nodes=all").ok();
    assert_eq!((&all["level"], &all["nodes"]), (&json!(1), &json!(2)));
    assert_eq!(fixture.get("/v1/level?wait=1").ok()["level"], 1);
    let late = fixture.get("/v1/level?wait=5&timeout_ms=50");
    assert!(
        late.refused(504, "wait_timeout")
            .contains("these nodes do not have level 5: n2")
    );
    assert_eq!(
        (&late.json()["level"], &late.json()["behind"]),
        (&json!(5), &json!(["n2"]))
    );
    let future = fixture
        .get("/v1/level?wait=50&timeout_ms=50")
        .refused(504, "wait_timeout");
    assert!(
        future.contains("the database itself is at level 7, below 50"),
        "{future}"
    );
    let waits: Vec<_> = fixture
        .asked
        .try_iter()
        .filter(|r| matches!(r, Request::Wait { .. }))
        .collect();
    assert!(
        matches!(
            waits[..],
            [
                Request::Wait {
                    level: Level(1),
                    ..
                },
                _,
                _,
                _
            ]
        ),
        "{waits:?}"
    );
}

#[test]
fn a_connection_serves_many_requests() {
    let fixture = Fixture::new();
    let mut stream = fixture.connect();
    for _ in 0..3 {
        stream
            .write_all(b"GET /v1/level HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut block = [0; 512];
            let len = stream.read(&mut block).unwrap();
            assert_ne!(len, 0, "the connection is kept");
            answer.extend_from_slice(&block[..len]);
        }
    }
    let counters = fixture.api.counters();
    assert_eq!((counters.connections_total, counters.answers_total), (1, 3));
}

#[test]
fn a_request_that_has_begun_is_answered_when_the_api_stops() {
    let (inbox, arrivals) = bounded(1);
    let (port, replies) = ApiPort::new(inbox, Clock::start());
    let api = Api::start("127.0.0.1:0".parse().unwrap(), Security::Insecure, port).unwrap();
    let address = api.address();
    let mut stream = connect(address);
    stream
        .write_all(b"GET /v1/level HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let Arrival::Input(Input::Api { ticket, .. }) = arrivals.recv_timeout(PATIENCE).unwrap() else {
        panic!("not a request");
    };
    let stopping = thread::spawn(move || drop(api));
    // It listens no more, but the request is still in hand.
    until_refused(address);
    replies.deliver(ticket, FakeCore::default().position());
    assert_eq!(Reply::read(stream).ok()["level"], 0);
    stopping.join().unwrap();
    assert!(arrivals.recv_timeout(PATIENCE).is_err(), "the port is gone");
}
