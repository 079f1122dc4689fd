//! What the API does to clients that are wrong, slow, greedy or gone; each case ends with a served client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

use serde_json::json;

use super::super::{BODY_BYTES_MAX, DRAIN_BYTES_MAX, WAIT_MAX};
use super::*;

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn wrong_requests_are_told_what_to_do() {
    let fixture = Fixture::new();
    let aor = "/v1/aors/a@x";
    let long = format!("/v1/aors/{}@x", "a".repeat(255));
    let very_long = format!("/v1/aors/{}@x", "a".repeat(4_000));
    let big = |json: &str| format!("{{\"contacts\":[{{\"uri\":\"sip:a@x\",{json}}}]}}");
    let fields = |json: &str| Some(big(json));
    let body = |text: &str| Some(text.to_owned());
    let contacts = body(r#"{"contacts":[{"uri":"sip:a@x"}]}"#);
    type Row<'a> = (&'a str, &'a str, Option<String>, u16, &'a str, &'a str);
    let table: &[Row<'_>] = &[
        ("GET", "/", None, 404, "no_such_path", "/v1/aors/{aor}"),
        (
            "GET",
            "/v1/aors/",
            None,
            404,
            "no_such_path",
            "/v1/aors/{aor}",
        ),
        (
            "GET",
            "/v1/aors/a/b",
            None,
            404,
            "no_such_path",
            "/v1/aors/{aor}",
        ),
        ("GET", "/v2/level", None, 404, "no_such_path", "/v1/level"),
        (
            "POST",
            aor,
            contacts.clone(),
            405,
            "method_not_allowed",
            "Allow",
        ),
        (
            "PATCH",
            "/v1/level",
            None,
            405,
            "method_not_allowed",
            "Allow",
        ),
        ("GET", "/v1/batch", None, 405, "method_not_allowed", "Allow"),
        ("GET", "/v1/aors/%ff@x", None, 400, "bad_path", "UTF-8"),
        ("GET", "/v1/aors/tel:+49", None, 400, "bad_aor", "sip:"),
        (
            "GET",
            "/v1/aors/a%0d%0ab@x",
            None,
            400,
            "bad_aor",
            "cannot hold",
        ),
        (
            "GET",
            "/v1/aors/a%2520b@x",
            None,
            400,
            "bad_aor",
            "cannot hold",
        ),
        ("GET", &long, None, 400, "bad_aor", "at most 255 bytes"),
        (
            "DELETE",
            &very_long,
            None,
            400,
            "bad_aor",
            "at most 255 bytes",
        ),
        (
            "PUT",
            &long,
            contacts.clone(),
            400,
            "bad_aor",
            "at most 255 bytes",
        ),
        (
            "GET",
            "/v1/routes/49x",
            None,
            400,
            "bad_prefix",
            "cannot hold 'x'",
        ),
        (
            "PUT",
            "/v1/routes/1234567890123456",
            body("{}"),
            400,
            "bad_prefix",
            "at most 15",
        ),
        ("PUT", aor, body(""), 400, "not_json", "not JSON"),
        ("PUT", aor, body("contacts"), 400, "not_json", "not JSON"),
        (
            "PUT",
            aor,
            body("{\"contacts\":["),
            400,
            "not_json",
            "not JSON",
        ),
        (
            "PUT",
            aor,
            body("{\"contacts\":[]}x"),
            400,
            "not_json",
            "not JSON",
        ),
        ("PUT", aor, body("[]"), 400, "bad_body", "expected struct"),
        (
            "PUT",
            aor,
            body("{}"),
            400,
            "bad_body",
            "missing field `contacts`",
        ),
        (
            "PUT",
            aor,
            body(r#"{"contacts":[{}]}"#),
            400,
            "bad_body",
            "missing field `uri`",
        ),
        (
            "PUT",
            aor,
            body(r#"{"contacts":[],"x":1}"#),
            400,
            "bad_body",
            "unknown field `x`",
        ),
        (
            "PUT",
            aor,
            fields(r#""expire_s":60"#),
            400,
            "bad_body",
            "unknown field `expire_s`",
        ),
        (
            "PUT",
            aor,
            fields(r#""expires_s":-1"#),
            400,
            "bad_body",
            "`-1`, expected u32",
        ),
        (
            "PUT",
            aor,
            fields(r#""expires_s":1.5"#),
            400,
            "bad_body",
            "expected u32",
        ),
        (
            "PUT",
            aor,
            fields(r#""expires_s":4294967296"#),
            400,
            "bad_body",
            "expected u32",
        ),
        (
            "PUT",
            aor,
            fields(r#""reg_id":65536"#),
            400,
            "bad_body",
            "expected u16",
        ),
        (
            "PUT",
            aor,
            fields(r#""q":1.5"#),
            400,
            "bad_body",
            "0 to 1 with at most three decimals",
        ),
        (
            "PUT",
            aor,
            fields(r#""q":-0.5"#),
            400,
            "bad_body",
            "three decimals, not -0.5",
        ),
        (
            "PUT",
            aor,
            fields(r#""q":0.1234"#),
            400,
            "bad_body",
            "three decimals, not 0.1234",
        ),
        (
            "PUT",
            aor,
            fields(r#""q":1e400"#),
            400,
            "not_json",
            "out of range",
        ),
        (
            "PUT",
            aor,
            fields(r#""q":"0.5""#),
            400,
            "bad_body",
            "expected f64",
        ),
        (
            "PUT",
            "/v1/routes/49",
            body(r#"{"targets":[{"uri":"sip:gw","q":1}]}"#),
            400,
            "bad_body",
            "`q`",
        ),
        (
            "PUT",
            "/v1/routes/49",
            body(r#"{"targets":[],"strip":300}"#),
            400,
            "bad_body",
            "u8",
        ),
        (
            "POST",
            "/v1/batch",
            body(r#"{"changes":[]}"#),
            400,
            "no_changes",
            "no change",
        ),
        (
            "POST",
            "/v1/batch",
            body(r#"{"changes":[{"op":"put"}]}"#),
            400,
            "bad_body",
            "unknown variant",
        ),
        (
            "POST",
            "/v1/batch",
            body(r#"{"changes":[{"aor":"a@x"}]}"#),
            400,
            "bad_body",
            "`op`",
        ),
        (
            "POST",
            "/v1/batch",
            body(r#"{"changes":[{"op":"delete_aor","aor":"a@x","contacts":[]}]}"#),
            400,
            "bad_body",
            "unknown field `contacts`",
        ),
        (
            "POST",
            "/v1/batch",
            body(
                r#"{"changes":[{"op":"delete_aor","aor":"a@x"},{"op":"delete_aor","aor":"a b"}]}"#,
            ),
            400,
            "bad_aor",
            "changes[1]: ",
        ),
        (
            "GET",
            "/v1/level?wait=x",
            None,
            400,
            "bad_query",
            "wait=LEVEL",
        ),
        (
            "GET",
            "/v1/level?wat=1",
            None,
            400,
            "bad_query",
            "wait=LEVEL",
        ),
        (
            "GET",
            "/v1/level?wait=1&nodes=2",
            None,
            400,
            "bad_query",
            "wait=LEVEL",
        ),
        (
            "GET",
            "/v1/level?timeout_ms=1",
            None,
            400,
            "bad_query",
            "needs wait",
        ),
        (
            "GET",
            "/v1/level?wait=1&timeout_ms=25001",
            None,
            400,
            "bad_query",
            "at most 25000",
        ),
        ("GET", "/v1/audit", None, 405, "method_not_allowed", "Allow"),
        ("POST", "/v1/audit", body(""), 400, "not_json", "not JSON"),
        (
            "POST",
            "/v1/audit",
            body("[]"),
            400,
            "bad_body",
            "expected struct",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"nodes":"n1"}"#),
            400,
            "bad_body",
            "unknown field `nodes`",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"repair":"yes"}"#),
            400,
            "bad_body",
            "expected a boolean",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"repair":true,"repair":false}"#),
            400,
            "bad_body",
            "duplicate field",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"timeout_ms":-1}"#),
            400,
            "bad_body",
            "expected u64",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"timeout_ms":600001}"#),
            400,
            "bad_body",
            "at most 600000",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"timeout_ms":18446744073709551615}"#),
            400,
            "bad_body",
            "at most 600000",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":["n1"]}"#),
            400,
            "bad_body",
            "the name or the number",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":true}"#),
            400,
            "bad_body",
            "the name or the number",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":"N 1"}"#),
            404,
            "no_such_node",
            "a name is 1 to 32",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":""}"#),
            404,
            "no_such_node",
            "/v1/nodes",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":65536}"#),
            404,
            "no_such_node",
            "1 to 65535",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":-1}"#),
            404,
            "no_such_node",
            "1 to 65535",
        ),
        (
            "POST",
            "/v1/audit",
            body(r#"{"node":1.5}"#),
            404,
            "no_such_node",
            "1 to 65535",
        ),
    ];
    for (method, path, body, status, code, part) in table {
        let error = fixture
            .call(method, path, body.as_deref())
            .refused(*status, code);
        assert!(error.contains(part), "{method} {path} {body:?}: {error}");
    }
    assert!(
        fixture.asked.is_empty(),
        "the core was bothered: {:?}",
        fixture.asked.try_recv()
    );
    let counters = fixture.api.counters();
    assert_eq!(counters.refused_total, u64::try_from(table.len()).unwrap());
    assert_eq!(WAIT_MAX, Duration::from_millis(25_000));
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let fixture = Fixture::new();
    let reply = fixture.call("POST", "/v1/aors/a@x", None);
    let allow = reply
        .head
        .lines()
        .find_map(|line| line.strip_prefix("allow: "));
    let mut allowed: Vec<_> = allow
        .expect("an Allow header")
        .split(',')
        .map(str::trim)
        .collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["delete", "get", "head", "put"]);
}

#[test]
fn only_json_is_taken_and_only_as_json() {
    let fixture = Fixture::new();
    let body = r#"{"contacts":[{"uri":"sip:a@y"}]}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "application/jsonx",
    ] {
        let reply = fixture.call_typed("PUT", "/v1/aors/a@x", Some((kind, body)));
        assert!(reply.refused(415, "not_json_type").contains("curl -H"));
    }
    let reply = fixture.call_typed(
        "PUT",
        "/v1/aors/a@x",
        Some(("Application/JSON; charset=utf-8", body)),
    );
    reply.ok();
}

#[test]
fn what_the_core_refuses_has_its_status() {
    let fixture = Fixture::new();
    let body = r#"{"contacts":[{"uri":"sip:a@y"}]}"#;
    for (aor, status, code, part) in [
        (
            "invalid@x",
            400,
            "invalid_record",
            "reg_id needs an instance; nothing was changed",
        ),
        ("large@x", 413, "too_many_changes", "send it in parts"),
        ("disk@x", 507, "no_room_on_disk", "no space left on device"),
        ("full@x", 507, "table_full", "records_max"),
        ("torn@x", 500, "table_inconsistent", "restart locsvc"),
        ("busy@x", 429, "busy", "repeat it"),
    ] {
        let error = fixture
            .put(&format!("/v1/aors/{aor}"), body)
            .refused(status, code);
        assert!(error.contains(part), "{aor}: {error}");
    }
    fixture.get("/v1/aors/busy@x").refused(429, "busy");
    let audit = |node: &str| fixture.post("/v1/audit", &json!({ "node": node }).to_string());
    let error = audit("n9").refused(404, "no_such_node");
    assert!(error.starts_with("no node n9 has connected"), "{error}");
    let error = audit("busy").refused(429, "busy");
    assert!(error.contains("ends within 5 s"), "{error}");
    fixture.get("/v1/aors/confused@x").refused(500, "internal");
    let batch = json!({"changes": [
        {"op": "delete_aor", "aor": "a@x"},
        {"op": "put_aor", "aor": "invalid@x", "contacts": []},
    ]});
    let error = fixture
        .post("/v1/batch", &batch.to_string())
        .refused(400, "invalid_record");
    assert_eq!(
        error,
        "changes[1]: reg_id needs an instance; nothing was changed"
    );
    assert_eq!(fixture.api.counters().failed_total, 4);
}

#[test]
fn a_batch_has_at_most_1024_changes() {
    let fixture = Fixture::new();
    let batch = |len: usize| {
        let change = r#"{"op":"delete_aor","aor":"a@x"}"#;
        format!("{{\"changes\":[{}]}}", vec![change; len].join(","))
    };
    let error = fixture
        .post("/v1/batch", &batch(1_025))
        .refused(413, "too_many_changes");
    assert_eq!(error, "a batch has at most 1024 changes, this one has 1025");
    assert_eq!(fixture.post("/v1/batch", &batch(1_024)).ok()["changed"], 0);
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_client_gets_to_read_why() {
    let fixture = Fixture::new();
    let spaces = " ".repeat(BODY_BYTES_MAX);
    let fits = format!("{}{}", r#"{"changes":[]}"#, &spaces[14..]);
    fixture.post("/v1/batch", &fits).refused(400, "no_changes");
    let error = fixture
        .post("/v1/batch", &format!("{fits} "))
        .refused(413, "body_too_large");
    assert!(error.contains("at most 1048576 bytes"), "{error}");
    fixture
        .post("/v1/batch", &spaces.repeat(4))
        .refused(413, "body_too_large");

    // Without a length.
    let mut stream = fixture.connect();
    let head = "POST /v1/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..3 {
        let chunk = format!("{:x}\r\n{spaces}\r\n", spaces.len());
        stream.write_all(chunk.as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    Reply::read(stream).refused(413, "body_too_large");

    // Announced by a client that waits for leave to send it.
    let mut stream = fixture.connect();
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    stream.write_all(head.as_bytes()).unwrap();
    Reply::read(stream).refused(413, "body_too_large");
    assert!(fixture.asked.is_empty());
}

#[test]
fn a_body_without_end_is_cut() {
    let fixture = Fixture::new();
    let mut stream = fixture.connect();
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        1_u64 << 40
    );
    stream.write_all(head.as_bytes()).unwrap();
    let block = vec![b' '; BODY_BYTES_MAX];
    // The socket's buffers hold less than all of this: an error comes before the end.
    let written = (0..64)
        .take_while(|_| stream.write_all(&block).is_ok())
        .count();
    assert!(
        written * BODY_BYTES_MAX >= DRAIN_BYTES_MAX / 2 && written < 64,
        "{written}"
    );
    fixture.get("/v1/level").ok();
}

#[test]
fn a_slow_body_is_refused() {
    let fixture = Fixture::with(Limits {
        body_timeout: SHORT,
        ..Limits::default()
    });
    let mut stream = fixture.connect();
    let head = "PUT /v1/aors/a@x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 30\r\n\r\n{\"contacts\"";
    stream.write_all(head.as_bytes()).unwrap();
    let error = Reply::read(stream).refused(408, "body_too_slow");
    assert!(
        error.contains("within 0.1 s; nothing was changed"),
        "{error}"
    );
    assert_eq!(fixture.api.counters().body_timeouts_total, 1);
}

#[test]
fn a_client_that_sends_no_request_loses_its_place_to_one_that_does() {
    let fixture = Fixture::with(Limits {
        connections: 1,
        head_timeout: SHORT,
        ..Limits::default()
    });
    for beginning in [
        "",
        "GET /v1/level HTT",
        "GET /v1/level HTTP/1.1\r\nHost: x\r\nX: ",
    ] {
        let mut slow = fixture.connect();
        slow.write_all(beginning.as_bytes()).unwrap();
        fixture.get("/v1/level").ok();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).ok();
        let rest = String::from_utf8(rest).unwrap();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 408"),
            "{rest}"
        );
    }
    let counters = fixture.api.counters();
    assert_eq!(counters.head_timeouts_total, 3);
    assert!(counters.connections_full_total >= 3, "{counters:?}");
}

#[test]
fn a_client_that_takes_no_answer_loses_its_place_to_one_that_does() {
    let fixture = Fixture::with(Limits {
        connections: 1,
        write_timeout: SHORT,
        ..Limits::default()
    });
    let contact = |n: usize| json!({"uri": format!("sip:{}{n}@x", "a".repeat(400))});
    let body = json!({"contacts": (0..12).map(contact).collect::<Vec<_>>()});
    fixture.put("/v1/aors/a@x", &body.to_string()).ok();
    let mut greedy = fixture.connect();
    // Answers of some 5 KiB each, more than the buffers of both sockets hold.
    let block = "GET /v1/aors/a@x HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    greedy.set_write_timeout(Some(PATIENCE)).unwrap();
    let writer = thread::spawn(move || {
        let cut = (0..2_000).find_map(|_| greedy.write_all(block.as_bytes()).err());
        cut.expect("the connection is cut").kind()
    });
    let kind = writer.join().unwrap();
    assert!(
        matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{kind}"
    );
    fixture.get("/v1/level").ok();
    assert_eq!(fixture.api.counters().write_timeouts_total, 1);
}

#[test]
fn what_is_not_http_is_counted_and_closed() {
    let fixture = Fixture::new();
    let large = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000));
    for (text, status) in [
        ("\x16\x03\x01 hello\r\n\r\n", 400),
        (&large, 431),
        ("GET\r\n\r\n", 400),
    ] {
        let mut stream = fixture.connect();
        stream.write_all(text.as_bytes()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok(); // a reset after the answer is as good
        let answer = String::from_utf8(answer).unwrap();
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            answer.is_empty() || answer.starts_with(&expected),
            "{answer}"
        );
    }
    fixture.get("/v1/level").ok();
    assert_eq!(fixture.api.counters().malformed_total, 3);
}

#[test]
fn waiting_takes_few_places() {
    let fixture = Fixture::with(Limits {
        waits: 1,
        ..Limits::default()
    });
    let mut waiting = fixture.connect();
    waiting
        .write_all(b"GET /v1/level?wait=9999 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let asked = fixture.asked.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(asked, Request::Wait { .. }));
    fixture
        .get("/v1/level?wait=0")
        .refused(429, "too_many_waits");
    assert_eq!(fixture.api.counters().waits_full_total, 1);
    // Who goes away leaves its place.
    drop(waiting);
    let served = (0..1_000_000).any(|_| fixture.get("/v1/level?wait=0").status == 200);
    assert!(served, "the place is free again");
}

#[test]
fn a_core_that_does_not_answer_is_told_from_one_that_has_ended() {
    let fixture = Fixture::with(Limits {
        answer_timeout: SHORT,
        ..Limits::default()
    });
    let error = fixture.get("/v1/aors/silent@x").refused(504, "no_answer");
    assert!(
        error.contains("whether a change was made is not known"),
        "{error}"
    );
    let error = fixture.get("/v1/aors/ended@x").refused(500, "stopped");
    assert!(
        error.contains("whether a change was made is not known"),
        "{error}"
    );
}

#[test]
fn it_listens_where_it_may() {
    let start = |listen: &str| {
        let (inbox, _arrivals) = bounded(1);
        let (port, _replies) = ApiPort::new(inbox, Clock::start());
        Api::start(listen.parse().unwrap(), Security::Insecure, port)
    };
    assert!(start("127.0.0.2:0").is_ok());
    assert!(start("0.0.0.0:0").is_ok());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = start(&taken.local_addr().unwrap().to_string()).unwrap_err();
    assert!(error.to_string().ends_with("(api.listen)"), "{error}");
}
