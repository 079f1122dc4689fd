//! The API beyond loopback: TLS, certificates, roles; every route for every role.

use std::sync::Arc;

use locus_identity::{Holder, IdentityFolder, Role};
use serde_json::json;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::*;
use crate::edge::api::serve::RIGHTLESS_MAX;
use crate::edge::authority::{Authority, node, operator};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Every route with a body that succeeds, and the least role that may use it.
const ROUTES: [(&str, &str, &str, Role); 13] = [
    ("GET", "/v1/level", "", Role::Read),
    ("GET", "/v1/nodes", "", Role::Read),
    (
        "PUT",
        "/v1/aors/a@x",
        r#"{"contacts":[{"uri":"sip:a@y"}]}"#,
        Role::Provision,
    ),
    ("GET", "/v1/aors/a@x", "", Role::Read),
    ("DELETE", "/v1/aors/a@x", "", Role::Provision),
    (
        "PUT",
        "/v1/routes/49",
        r#"{"targets":[{"uri":"sip:gw"}]}"#,
        Role::Provision,
    ),
    ("GET", "/v1/routes/49", "", Role::Read),
    ("DELETE", "/v1/routes/49", "", Role::Provision),
    (
        "POST",
        "/v1/batch",
        r#"{"changes":[{"op":"delete_aor","aor":"b@x"}]}"#,
        Role::Provision,
    ),
    ("POST", "/v1/audit", "{}", Role::Admin),
    ("POST", "/v1/nodes/n1/reload", "", Role::Admin),
    ("PATCH", "/v1/nodes", "", Role::Admin),
    ("POST", "/v1/what_comes_later", "", Role::Admin),
];

fn secured(authority: &Authority) -> (Fixture, Arc<IdentityFolder>) {
    let (security, ours) = authority.security();
    (Fixture::secured(security, Limits::default()), ours)
}

fn dial(fixture: &Fixture, identity: &IdentityFolder) -> Tls {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let client = ClientConnection::new(identity.api_client(), name).unwrap();
    StreamOwned::new(client, fixture.connect())
}

fn request(method: &str, path: &str, body: &str, more: &str) -> String {
    let len = body.len();
    let kind = "Content-Type: application/json\r\n";
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{kind}Content-Length: {len}\r\n{more}\r\n{body}"
    )
}

fn call(
    fixture: &Fixture,
    identity: &IdentityFolder,
    method: &str,
    path: &str,
    body: &str,
) -> Reply {
    let mut stream = dial(fixture, identity);
    let text = request(method, path, body, "Connection: close\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    Reply::read(stream)
}

/// Waits until `is_so`, at most [`PATIENCE`].
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::start();
    let deadline = clock.now().plus(PATIENCE);
    while !is_so() {
        assert!(clock.now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn every_route_for_every_role() {
    let authority = Authority::new("lab");
    let (fixture, ours) = secured(&authority);
    let switch = Holder::Switch {
        name: "s1".parse().unwrap(),
    };
    let callers = [
        (authority.identity(operator(Role::Read)), Some(Role::Read)),
        (
            authority.identity(operator(Role::Provision)),
            Some(Role::Provision),
        ),
        (authority.identity(operator(Role::Admin)), Some(Role::Admin)),
        (ours, Some(Role::Admin)),
        (authority.identity(node(1)), None),
        (authority.identity(switch), None),
    ];
    let mut forbidden = 0;
    for (identity, role) in callers {
        // What is read or deleted has to be there for those who may not put it.
        if role.is_none_or(|role| role < Role::Provision) {
            let admin = authority.ca.folder().join("issued/admin");
            let order = locus_identity::Order::new(operator(Role::Admin))
                .out(admin.clone())
                .renew();
            authority.ca.issue(&order).unwrap();
            let admin = IdentityFolder::open(&admin).unwrap();
            for (method, path, body, _) in [ROUTES[2], ROUTES[5]] {
                call(&fixture, &admin, method, path, body).ok();
            }
        }
        for (method, path, body, needed) in ROUTES {
            let reply = call(&fixture, &identity, method, path, body);
            let who = identity.identity();
            if role.is_some_and(|role| role >= needed) {
                let expected = match path {
                    "/v1/what_comes_later" => 404,
                    _ if method == "PATCH" => 405,
                    _ => 200,
                };
                assert_eq!(reply.status, expected, "{who}: {method} {path}: {reply:?}");
                continue;
            }
            forbidden += 1;
            let error = reply.refused(403, "role_missing");
            assert!(error.contains(&format!("--role {needed}")), "{error}");
            assert_eq!(reply.json()["needed"], needed.as_str());
            let has = role.map_or(Value::Null, |role| json!(role.as_str()));
            assert_eq!(reply.json()["role"], has);
        }
    }
    assert_eq!(fixture.api.counters().forbidden_total, forbidden);
    // What was forbidden did not reach the core: an admin's and a locsvc's audits and reloads alone.
    let mut audits = 0;
    while let Ok(asked) = fixture.asked.try_recv() {
        audits += usize::from(matches!(
            asked,
            Request::Audit { .. } | Request::Reload { .. }
        ));
    }
    assert_eq!(audits, 4);
}

/// Beside locsvc itself nobody needs a certificate.
#[test]
fn loopback_is_plain_though_there_is_an_identity() {
    let authority = Authority::new("lab");
    let (inbox, arrivals) = bounded(1);
    let (port, replies) = ApiPort::new(inbox, Clock::start());
    let loopback = "127.0.0.1:0".parse().unwrap();
    let api = Api::start(loopback, authority.security().0, port).unwrap();
    let core = thread::spawn(move || {
        let Ok(Arrival::Input(Input::Api { ticket, .. })) = arrivals.recv_timeout(PATIENCE) else {
            panic!("a request");
        };
        replies.deliver(ticket, FakeCore::default().position());
    });
    let mut stream = connect(api.address());
    let text = request("GET", "/v1/level", "", "Connection: close\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    assert_eq!(Reply::read(stream).ok()["level"], 0);
    core.join().unwrap();
}

#[test]
fn strangers_get_no_answer() {
    let authority = Authority::new("lab");
    let (fixture, ours) = secured(&authority);
    let plain = |text: &str| {
        let mut stream = fixture.connect();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok(); // it may be reset
        answer
    };
    // Plain HTTP to the TLS port: at most an alert, and nothing of the API.
    let answer = plain("GET /v1/level HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.len() <= 7, "{answer:?}");
    // Of another CA: we do not trust them, nor they us.
    let foreign = Authority::new("lab").identity(operator(Role::Admin));
    let mut stream = dial(&fixture, &foreign);
    let told = stream.write_all(b"GET").unwrap_err();
    assert!(told.to_string().contains("UnknownIssuer"), "{told}");
    // Revoked; the reason gets through though the client has sent its request already.
    let revoked = authority.identity(operator(Role::Read));
    authority.revoke(&operator(Role::Read), ours.path());
    ours.reload().unwrap();
    let mut stream = dial(&fixture, &revoked);
    let text = request("GET", "/v1/level", "", "");
    stream.write_all(text.as_bytes()).unwrap();
    let told = stream.read(&mut [0]).unwrap_err();
    assert!(told.to_string().contains("CertificateRevoked"), "{told}");
    until("three handshakes have failed", || {
        fixture.api.counters().handshakes_failed_total == 3
    });
    assert!(fixture.asked.try_recv().is_err());
}

#[test]
fn who_is_revoked_while_connected_is_told_so() {
    let authority = Authority::new("lab");
    let (fixture, ours) = secured(&authority);
    let mut stream = dial(&fixture, &authority.identity(operator(Role::Admin)));
    let text = request("GET", "/v1/level", "", "");
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut block = [0; 512];
        let len = stream.read(&mut block).unwrap();
        assert_ne!(len, 0);
        answer.extend_from_slice(&block[..len]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    authority.revoke(&operator(Role::Admin), ours.path());
    ours.reload().unwrap();
    let text = request("GET", "/v1/level", "", "Connection: close\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let error = Reply::read(stream).refused(403, "certificate_ended");
    assert!(error.contains("it was revoked"), "{error}");
}

/// Whoever breaks into a node has a certificate of the cluster: it does not shut the operators out.
#[test]
fn who_has_no_rights_takes_nobodys_place() {
    let authority = Authority::new("lab");
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let fixture = Fixture::secured(authority.security().0, limits);
    let node = authority.identity(node(1));
    let held: Vec<Tls> = (0..RIGHTLESS_MAX)
        .map(|_| {
            let mut stream = dial(&fixture, &node);
            let text = request("GET", "/v1/level", "", "");
            stream.write_all(text.as_bytes()).unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 403");
            stream
        })
        .collect();
    let mut more = dial(&fixture, &node);
    more.write_all(b"GET").ok(); // shakes hands; it may be reset
    assert_eq!(more.read(&mut [0]).unwrap_or_default(), 0);
    let operator = authority.identity(operator(Role::Read));
    let reply = call(&fixture, &operator, "GET", "/v1/level", "");
    assert_eq!(reply.status, 200);
    assert_eq!(fixture.api.counters().connections_full_total, 1);
    drop(held);
}

#[test]
fn half_open_connections_take_nobodys_place() {
    let authority = Authority::new("lab");
    let limits = Limits {
        handshakes: 4,
        handshake_timeout: Duration::from_secs(600),
        ..Limits::default()
    };
    let fixture = Fixture::secured(authority.security().0, limits);
    let flood: Vec<TcpStream> = (0..4).map(|_| fixture.connect()).collect();
    until("all are accepted", || {
        fixture.api.counters().connections_total == 4
    });
    let identity = authority.identity(operator(Role::Read));
    let text = request("GET", "/v1/level", "", "Connection: close\r\n");
    until("an operator is served", || {
        let mut stream = dial(&fixture, &identity);
        stream.write_all(text.as_bytes()).is_ok() && stream.read(&mut [0]).is_ok_and(|len| len == 1)
    });
    assert!(fixture.api.counters().handshakes_crowded_total >= 1);
    drop(flood);
}

#[test]
fn a_slow_handshake_is_cut() {
    let authority = Authority::new("lab");
    let limits = Limits {
        handshake_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let fixture = Fixture::secured(authority.security().0, limits);
    let mut stream = fixture.connect();
    assert_eq!(stream.read(&mut [0]).unwrap_or_default(), 0);
    until("it is counted", || {
        fixture.api.counters().handshakes_failed_total == 1
    });
}
