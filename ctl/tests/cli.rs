//! `locusctl` as an operator or a script runs it: what it sends, what it prints, how it exits.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Answers one request after the other, each on a connection of its own.
struct Server {
    url: String,
    requests: JoinHandle<Vec<String>>,
}

impl Server {
    /// Each answer is a status and a body.
    fn new(answers: &'static [(u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = thread::spawn(move || {
            let serve = |(status, body): &(u16, &str)| {
                let (mut stream, _) = listener.accept().unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let mut request = Vec::new();
                while !complete(&request) {
                    let mut block = [0; 4096];
                    let len = stream.read(&mut block).unwrap();
                    assert_ne!(len, 0, "the request is complete");
                    request.extend_from_slice(&block[..len]);
                }
                let len = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {len}\r\n");
                let answer = format!("{head}Connection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            };
            answers.iter().map(serve).collect()
        });
        Self { url, requests }
    }

    /// The first line and the body of each request.
    fn requests(self) -> Vec<(String, String)> {
        let short = |request: String| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            (head.lines().next().unwrap().to_owned(), body.to_owned())
        };
        self.requests
            .join()
            .unwrap()
            .into_iter()
            .map(short)
            .collect()
    }
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn locusctl(server: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_locusctl"))
        .args(arguments)
        .env("LOCUS_SERVER", server)
        .env("http_proxy", "http://127.0.0.1:1") // must not matter
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*out), (Some(code), stdout), "{err}");
    assert!(
        err.contains(stderr) && (err.is_empty() == stderr.is_empty()),
        "{err}"
    );
}

#[test]
fn a_contact_is_put_as_typed() {
    let server = Server::new(&[(200, r#"{"level":42,"changed":1,"outcome":"created"}"#)]);
    let contacts = [
        "--contact",
        "sip:alice@10.0.0.1;q=0.5",
        "--contact",
        "<sip:b@x;lr>;expires=60",
    ];
    let arguments = [&["aor", "put", "sip:Alice@example.net"], &contacts[..]].concat();
    let output = locusctl(&server.url, &arguments);
    check(&output, 0, "aor alice@example.net created, level 42\n", "");
    let body = r#"{"contacts":[{"q":0.5,"uri":"sip:alice@10.0.0.1"},{"expires_s":60,"uri":"sip:b@x;lr"}]}"#;
    let requests = server.requests();
    assert_eq!(requests[0].0, "PUT /v1/aors/alice@example.net HTTP/1.1");
    let sent: serde_json::Value = serde_json::from_str(&requests[0].1).unwrap();
    assert_eq!(
        sent,
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    );
}

#[test]
fn targets_are_sent_in_order_of_priority() {
    let server = Server::new(&[(200, r#"{"level":1,"changed":0,"outcome":"unchanged"}"#)]);
    let targets = [
        "--target",
        "sip:b;priority=2",
        "--target",
        "sip:a",
        "--strip",
        "2",
    ];
    let arguments = [&["route", "put", "+49"], &targets[..]].concat();
    let output = locusctl(&server.url, &arguments);
    check(&output, 0, "route 49 is so already (level 1)\n", "");
    let (line, body) = server.requests().remove(0);
    assert_eq!(line, "PUT /v1/routes/49 HTTP/1.1");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["targets"][0]["uri"], &body["strip"]),
        (&"sip:a".into(), &2.into())
    );
}

#[test]
fn a_record_is_shown_for_people_and_for_programs() {
    const ANSWER: &str = r#"{"aor":"a@x","level":7,"database_level":9,"contacts":[{"uri":"sip:a@y","q":0.5,"expires_s":90,"new_field":1}]}"#;
    let server = Server::new(&[(200, ANSWER), (200, ANSWER)]);
    let table = "a@x at level 7\n  Q  EXPIRES        CONTACT\n0.5  in 1 min 30 s  sip:a@y\n";
    check(&locusctl(&server.url, &["aor", "get", "a@x"]), 0, table, "");
    let json = locusctl(&server.url, &["--json", "aor", "get", "a@x"]);
    check(&json, 0, &format!("{ANSWER}\n"), "");
    assert_eq!(server.requests()[1].0, "GET /v1/aors/a@x HTTP/1.1");
}

#[test]
fn a_refusal_is_exit_code_1_in_the_servers_words() {
    const ANSWER: &str = r#"{"error":"a@x has no contacts","code":"not_found"}"#;
    let server = Server::new(&[(404, ANSWER), (404, ANSWER)]);
    let output = locusctl(&server.url, &["aor", "delete", "a@x"]);
    check(&output, 1, "", "locusctl: a@x has no contacts\n");
    let output = locusctl(&server.url, &["aor", "delete", "a@x", "--json"]);
    check(&output, 1, "", r#""code":"not_found""#);
    assert_eq!(server.requests()[0].0, "DELETE /v1/aors/a@x HTTP/1.1");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for (arguments, part) in [
        (&["aor", "get", "tel:+49"][..], "only sip: and sips:"),
        (
            &["aor", "put", "a@x", "--contact", "sip:a@y;q=2"],
            "at most three decimals",
        ),
        (&["wait"], "<LEVEL>"),
        (&["wait", "1", "--timeout", "soon"], "10s, 500ms or 2m"),
        (&["audit", "--timeout", "11m"], "at most 10 minutes"),
        (&["audit", "--node"], "a value is required"),
        (&["--server", "ftp://x", "level"], "https://host:port"),
        (&[], "Usage"),
    ] {
        check(&locusctl("http://127.0.0.1:1", arguments), 2, "", part);
    }
}

#[test]
fn no_server_is_exit_code_3() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = locusctl(&url, &["level"]);
    check(
        &output,
        3,
        "",
        &format!("cannot reach locsvc at {url}: Connection refused"),
    );
    check(&output, 3, "", "systemctl status locsvc");
    check(
        &locusctl(&url, &["level", "--json"]),
        3,
        "",
        r#""code":"unreachable""#,
    );
    for answer in [
        &[(200, "<html>")],
        &[(502, "<html>")],
        &[(200, r#"{"level":"x"}"#)],
    ] {
        let server = Server::new(answer);
        check(&locusctl(&server.url, &["level"]), 3, "", "is not locsvc");
    }
}

#[test]
fn waiting_is_asked_in_parts_and_ends_with_exit_code_4() {
    const LATE: (u16, &str) = (504, r#"{"error":"n2 is behind","code":"wait_timeout"}"#);
    const DONE: (u16, &str) = (
        200,
        r#"{"level":9,"epoch":"1-0","root":"0","records":1,"time":1,"nodes":2}"#,
    );
    let server = Server::new(&[LATE, LATE, LATE, LATE, DONE]);
    let output = locusctl(&server.url, &["wait", "8", "--timeout", "45s"]);
    check(&output, 4, "", "locusctl: n2 is behind\n");
    let output = locusctl(&server.url, &["wait", "8", "--timeout", "21s"]);
    check(&output, 0, "all 2 nodes have level 8 (master at 9)\n", "");
    let lines: Vec<_> = server
        .requests()
        .into_iter()
        .map(|(line, _)| line)
        .collect();
    let timeouts = [20_000, 20_000, 5_000, 20_000, 1_000];
    let expected = timeouts.map(|ms| format!("GET /v1/level?wait=8&timeout_ms={ms} HTTP/1.1"));
    assert_eq!(lines, expected);
}

#[test]
fn a_reload_is_asked_by_name() {
    const GONE: &str = r#"{"node":3,"name":"n3","connected":false}"#;
    let server = Server::new(&[
        (200, r#"{"node":2,"name":"n2","connected":true}"#),
        (200, GONE),
        (
            403,
            r#"{"error":"operator/bob/read has the role read","code":"role_missing"}"#,
        ),
    ]);
    let told = "node 2 (n2) loads the whole table: see locusctl nodes\n";
    check(&locusctl(&server.url, &["reload", "n2"]), 0, told, "");
    let later = "node 3 (n3) is not connected: it loads the whole table when it comes back\n";
    check(&locusctl(&server.url, &["reload", "3"]), 0, later, "");
    let output = locusctl(&server.url, &["reload", "a/b"]);
    check(&output, 1, "", "has the role read");
    let lines = server.requests().into_iter().map(|(line, _)| line);
    let expected =
        ["n2", "3", "a%2Fb"].map(|node| format!("POST /v1/nodes/{node}/reload HTTP/1.1"));
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn https_without_an_identity_says_which_folder_it_wants() {
    let output = locusctl(
        "https://127.0.0.1:1",
        &["--identity", "/nowhere/at/all", "level"],
    );
    check(
        &output,
        3,
        "",
        "https://127.0.0.1:1 needs an operator's identity in /nowhere/at/all",
    );
}

#[test]
fn a_lost_answer_says_that_the_outcome_is_not_known() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut block = [0; 4096];
        assert_ne!(stream.read(&mut block).unwrap(), 0);
    });
    let output = locusctl(&url, &["aor", "delete", "a@x"]);
    server.join().unwrap();
    check(&output, 4, "", "Whether the change was made is not known");
}

#[test]
fn a_table_in_a_pipe_has_no_colours() {
    let server = Server::new(&[(
        200,
        r#"{"level":3,"nodes":[{"node":1,"name":"n1","address":"a","sip":"s","connected":true,"behind":0,"sending":"log","path":"multicast","version":1,"connection_frame_bytes_total":0,"multicast_lost":{"reason":"silent","lasts_ms":3000},"state":"coherent","level":3,"lag_ms":0,"catch_ups_total":0,"reloads_total":1,"last_sync_ms":12,"records":5,"repaired_total":0,"health":{"table_bytes":0,"huge_bytes":0,"pages":"2M","scrubs_total":0,"doubted_total":0,"snapshot_level":0,"snapshots_failed_total":0}}]}"#,
    )]);
    let output = locusctl(&server.url, &["nodes"]);
    let expected = "\
master at level 3
ALARM: the multicast path to n1 is lost for 3 s, it is served over its connection: it hears nothing of the \
group: look at IGMP/MLD snooping (locusctl mcast-test)
NODE  NAME  STATE     PATH       LEVEL  BEHIND   LAG  RECORDS  REPAIRED  PAGES  ADDRESS
   1  n1    coherent  multicast      3       0  0 ms        5         0  2M     a
";
    check(&output, 0, expected, "");
}

#[test]
fn an_audit_says_where_a_node_differed_and_fails_unless_all_are_equal() {
    const REPAIRED: &str = r#"{"level":9,"nodes":[{"node":1,"name":"n1","verdict":"equal","level":9,"records":5,"partitions":0,"ranges":[],"differing":0,"repaired":0},{"node":2,"name":"n2","verdict":"repaired","level":9,"records":5,"partitions":2,"ranges":[[6699,6699],[65535,65535]],"differing":3,"repaired":3}]}"#;
    const DIFFERS: &str = r#"{"level":9,"nodes":[{"node":2,"name":"n2","verdict":"differs","level":9,"records":5,"partitions":5,"ranges":[[6699,6703]],"differing":7,"repaired":0}]}"#;
    const GONE: &str = r#"{"level":9,"nodes":[{"node":2,"name":"n2","verdict":"not_connected"}]}"#;
    let server = Server::new(&[(200, REPAIRED), (200, DIFFERS), (200, GONE)]);
    let table = "\
master at level 9
NODE  NAME  VERDICT   LEVEL  RECORDS  PARTITIONS  DIFFERING  REPAIRED
   1  n1    equal         9        5           0          0         0
   2  n2    repaired      9        5           2          3         3
n2: partitions 1a2b, ffff (2 of 65536), 3 records differed, 3 repaired
";
    let output = locusctl(&server.url, &["audit", "--repair", "--timeout", "90s"]);
    check(&output, 0, table, "");
    let table = "\
master at level 9
NODE  NAME  VERDICT  LEVEL  RECORDS  PARTITIONS  DIFFERING  REPAIRED
   2  n2    differs      9        5           5          7         0
n2: partitions 1a2b-1a2f (5 of 65536), 7 records differed, none repaired
";
    let output = locusctl(&server.url, &["audit", "--node", "n2"]);
    let reason = "locusctl: n2 differed from the master: unless it mends itself (locusctl nodes), repeat it \
                  with --repair\n";
    check(&output, 1, table, reason);
    let output = locusctl(&server.url, &["--json", "audit", "--node", "2"]);
    let fault = r#"{"error":"n2 is not connected","code":"not_equal"}"#;
    let error = String::from_utf8_lossy(&output.stderr);
    let [error, fault]: [serde_json::Value; 2] =
        [&error, fault].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(error, fault);
    check(&output, 1, &format!("{GONE}\n"), "not_equal");
    let bodies: Vec<serde_json::Value> = server
        .requests()
        .into_iter()
        .map(|(line, body)| {
            assert_eq!(line, "POST /v1/audit HTTP/1.1");
            serde_json::from_str(&body).unwrap()
        })
        .collect();
    let expected = [
        r#"{"repair":true,"timeout_ms":90000}"#,
        r#"{"node":"n2","repair":false,"timeout_ms":60000}"#,
        r#"{"node":"2","repair":false,"timeout_ms":60000}"#,
    ];
    let expected = expected.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    assert_eq!(bodies, expected);
}

#[test]
fn an_audit_that_is_refused_says_why() {
    const UNKNOWN: &str = r#"{"error":"no node n9 has connected","code":"no_such_node"}"#;
    const BUSY: &str = r#"{"error":"another audit is under way","code":"busy"}"#;
    let server = Server::new(&[(404, UNKNOWN), (429, BUSY)]);
    let output = locusctl(&server.url, &["audit", "--node", "n9"]);
    check(&output, 1, "", "locusctl: no node n9 has connected\n");
    let output = locusctl(&server.url, &["audit"]);
    check(&output, 1, "", "locusctl: another audit is under way\n");
    server.requests();
}
