//! Who may do what between daemons and beyond loopback: a node is what its certificate says, an operator may do
//! what the role allows, and whoever has none gets nothing. Knows no key.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use locus_identity::{Channel, IdentityFolder};
use locus_lab::{Api, Authority, Cluster, FOLLOW_DEADLINE, Fleet, GROUP, Lab, Operator, wait};
use locus_proto::v1::Hello;
use locus_proto::{BootId, Message, NodeId, Transport, WireVersion};
use serde_json::json;
use ureq::http::Method;

#[test]
fn a_node_is_what_its_certificate_says() {
    let Some(lab) = Lab::with_nodes("identity_nodes", 3) else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 3, GROUP);
    fleet
        .locsvc
        .settings()
        .set_text("distribution.transport", "auto");
    fleet.locsvc.start();
    fleet.agent("n1").launch();
    fleet.locsvc.wait_equal(&["n1"]);

    fleet
        .lab
        .say("n2 finds n1's certificate in its folder: its agent refuses to start, and says why");
    let others = fleet.agent("n1").identity().to_owned();
    let own = fleet.agent("n2").identity().to_owned();
    fleet.agent("n2").settings().set_path("identity", &others);
    fleet.agent("n2").launch();
    let status = fleet.agent("n2").process().finish(FOLLOW_DEADLINE);
    assert!(!status.success());
    let log = fleet.agent("n2").log();
    assert!(log.contains("node/n1/1"), "whose it is: {log}");

    fleet
        .lab
        .say("n2 says that it is n3, with its own certificate: nobody follows as n3");
    let n3_folder = fleet.agent("n3").identity().to_owned();
    for file in ["identity.pem", "identity.key"] {
        fs::copy(own.join(file), n3_folder.join(file)).expect("an identity folder can be written");
    }
    fleet.agent("n3").launch();
    let status = fleet.agent("n3").process().finish(FOLLOW_DEADLINE);
    assert!(!status.success());
    let log = fleet.agent("n3").log();
    assert!(log.contains("node/n2/2"), "whose it is: {log}");

    fleet
        .lab
        .say("n2's own certificate in the hands of a program that says it is n1, or n3: refused");
    a_liar_is_refused(&fleet, &own);
    fleet
        .lab
        .say("bytes that are no handshake: the connection ends, nobody is disturbed");
    a_stranger_is_refused(&fleet);
    let names: Vec<String> = fleet
        .locsvc
        .nodes()
        .iter()
        .map(|node| node["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["n1"], "nobody else was let in");

    fleet.locsvc.provision(0, 10, 7_100, |_| {});
    fleet.locsvc.wait_equal(&["n1"]);
}

/// A node with a good certificate whose program lies about who it is.
fn a_liar_is_refused(fleet: &Fleet, own: &Path) {
    let folder = IdentityFolder::open(own).expect("n2's identity");
    for (name, number) in [("n1", 1), ("n3", 3), ("n2", 3), ("n3", 2)] {
        let stream = fleet
            .lab
            .host("n2")
            .run(|| TcpStream::connect("10.77.0.10:5800"));
        let stream = stream.expect("locsvc listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout can be set");
        let mut channel = Channel::connect(stream, &folder, Duration::from_secs(10))
            .expect("n2 is of the cluster");
        let hello = Message::Hello(Hello {
            cluster: "lab".parse().expect("a name"),
            node: NodeId(number),
            name: name.parse().expect("a name"),
            boot: BootId(1),
            sip: String::new(),
            newest: WireVersion::NEWEST.get(),
            transport: Transport::Unicast,
            position: None,
        });
        channel
            .writer
            .write_all(&hello.to_bytes())
            .expect("it is sent");
        let mut answer = Vec::new();
        // However it ends, it ends.
        let ended = channel.reader.read_to_end(&mut answer);
        assert!(!timed_out(ended), "the connection of a liar stays open");
        let text = String::from_utf8_lossy(&answer);
        let words = "another node than its certificate says";
        assert!(
            answer.len() < 128 && text.contains(words),
            "{name} {number}: {text:?}"
        );
    }
}

/// Bytes that are no handshake, and one that ends early: the connection ends, nobody is disturbed.
fn a_stranger_is_refused(fleet: &Fleet) {
    let stranger = fleet.lab.host("caller");
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"LOCU\x01\x01\0\0\0\0",
        b"\x16\x03\x01\x00\x05",
    ] {
        let mut stream = stranger
            .run(|| TcpStream::connect("10.77.0.10:5800"))
            .expect("locsvc listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout can be set");
        // It may be closed by then.
        stream.write_all(bytes).ok();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(
            ended.is_ok() || !timed_out(ended),
            "the connection stays open"
        );
        assert!(answer.len() < 64, "an alert at most: {answer:?}");
    }
}

fn timed_out(result: std::io::Result<usize>) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    result.is_err_and(|error| [TimedOut, WouldBlock].contains(&error.kind()))
}

#[test]
fn operators_do_what_their_role_allows() {
    let Some(lab) = Lab::start("identity_roles") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    let folder = |role: &str| cluster.lab.authority().operator(&format!("{role}er"), role);
    let (read, provision, admin) = (folder("read"), folder("provision"), folder("admin"));
    cluster.locsvc.open_api(&admin);
    cluster.start();
    let desk = cluster.lab.host("caller");
    let operator = |folder: &Path| Operator::at(desk, &cluster.locsvc, folder);
    let put = [
        "aor",
        "put",
        "alice@example.net",
        "--contact",
        "sip:alice@10.77.0.22",
    ];
    let get = ["aor", "get", "alice@example.net"];
    let audit = ["audit", "--node", "n2"];
    for (who, allowed) in [
        (&read, [false, true, false]),
        (&provision, [true, true, false]),
        (&admin, [true, true, true]),
    ] {
        let operator = operator(who);
        operator.types(&["nodes"]).well();
        for (words, allowed) in [&put[..], &get, &audit].into_iter().zip(allowed) {
            let told = operator.types(words);
            // There is no alice before the first who may make her.
            let nobody = told.errors.contains("has no contacts");
            let fine = told.code == Some(0) || (who == &read && nobody);
            assert_eq!(fine, allowed, "{} {words:?}: {told:?}", who.display());
            if !allowed {
                assert!(told.errors.contains("role"), "why: {told:?}");
            }
        }
    }
    cluster.lab.say(
        "read looks, provision changes, admin audits; each refusal names the role that is needed",
    );

    let secret = Api::secure(desk, &cluster.locsvc.url(), &read);
    let body = json!({ "contacts": [{ "uri": "sip:a@10.77.0.22" }] });
    assert_eq!(secret.put("/v1/aors/sip:a@example.net", &body).status, 403);
    assert_eq!(secret.get("/v1/level").status, 200);
    whoever_has_no_certificate_gets_nothing(&cluster, &read);
    a_node_is_no_operator(&cluster);
    cluster.emergency_call(&cluster.n1);
}

fn whoever_has_no_certificate_gets_nothing(cluster: &Cluster, read: &Path) {
    let desk = cluster.lab.host("caller");
    let url = cluster.locsvc.url();
    let level = cluster.locsvc.level();
    let anonymous = Api::anonymous(desk, &url, read);
    let answer = anonymous.call(Method::GET, "/v1/level", b"");
    assert!(answer.is_err(), "{answer:?}");
    let plain = Api::new(desk, url.trim_start_matches("https://"));
    let answer = plain.call(Method::GET, "/v1/level", b"");
    assert!(
        !answer.is_ok_and(|answer| answer.body.contains("level")),
        "plain HTTP"
    );
    cluster.lab.say("no certificate, or plain HTTP: no answer");
    assert_eq!(cluster.locsvc.level(), level);
}

fn a_node_is_no_operator(cluster: &Cluster) {
    let desk = cluster.lab.host("caller");
    let folder = cluster.lab.folder().join("n1/identity");
    let node = Api::secure(desk, &cluster.locsvc.url(), &folder);
    let answer = node.call(Method::GET, "/v1/level", b"");
    let refused = answer.as_ref().map_or(true, |answer| answer.status == 403);
    assert!(refused, "{answer:?}");
    cluster.lab.say("a node's certificate opens no API");
}

#[test]
fn the_authority_is_replaced_while_changes_flow() {
    let Some(lab) = Lab::with_nodes("identity_rotation", 2) else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 2, GROUP);
    fleet.start();
    let old = fleet.lab.folder().join("old");
    copy_folder(fleet.agents[1].identity(), &old);
    let churn = fleet.churn(100);
    let authority = fleet.lab.authority();
    for (step, take) in [
        (
            "the next one is made known",
            Authority::rotate as fn(&Authority),
        ),
        ("everybody is renewed", Authority::renew),
        ("the previous one is retired", Authority::retire),
    ] {
        let before = reads(&fleet);
        take(authority);
        wait::until(
            &format!("{step}: everybody to have read it"),
            FOLLOW_DEADLINE,
            || {
                reads(&fleet)
                    .iter()
                    .zip(&before)
                    .all(|(now, before)| now > before)
            },
        );
        let level = churn.level() + 1;
        wait::until("further changes", FOLLOW_DEADLINE, || {
            churn.level() >= level
        });
        fleet.wait_level(churn.level(), &[]);
        fleet.lab.say(&format!("{step}: changes flow on"));
    }
    churn.finish();
    for name in ["n1", "n2"] {
        fleet.agent(name).stop();
        fleet.agent(name).launch();
    }
    fleet.assert_equal();
    let stream = fleet
        .lab
        .host("n2")
        .run(|| TcpStream::connect("10.77.0.10:5800"));
    let folder = IdentityFolder::open(&old).expect("n2's old identity");
    let within = Duration::from_secs(10);
    let refused = Channel::connect(stream.expect("locsvc listens"), &folder, within).is_err();
    assert!(refused, "the retired authority's certificates open nothing");
    fleet.lab.say(
        "all connect anew with what they have now; what the retired one had signed opens nothing",
    );
}

/// How often each daemon has said that it read its identity again.
fn reads(fleet: &Fleet) -> Vec<usize> {
    let count = |log: &str| log.matches("the identity in").count();
    let mut all: Vec<usize> = fleet
        .agents
        .iter()
        .map(|agent| count(&agent.log()))
        .collect();
    all.push(count(&fleet.locsvc.log()));
    all
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the run folder can be written");
    for file in ["ca.pem", "identity.pem", "identity.key"] {
        fs::copy(from.join(file), to.join(file)).expect("an identity folder can be read");
    }
}

#[test]
fn without_identity_nothing_starts_and_insecure_is_shouted() {
    let Some(lab) = Lab::start("identity_insecure") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    let nowhere = cluster.lab.folder().join("nowhere");
    let identity = cluster.locsvc.identity().to_owned();
    cluster.locsvc.settings().set_path("identity", &nowhere);
    cluster.locsvc.launch();
    assert!(!cluster.locsvc.ended(FOLLOW_DEADLINE).success());
    let log = cluster.locsvc.log();
    assert!(log.contains("locusctl ca"), "the command to run: {log}");
    cluster.locsvc.settings().set_path("identity", &identity);
    cluster.n1.settings().set_path("identity", &nowhere);
    cluster.n1.launch_agent();
    assert!(!cluster.n1.agent().finish(FOLLOW_DEADLINE).success());
    let log = cluster.n1.agent_log();
    assert!(
        log.contains("locusctl ca node"),
        "the command to run: {log}"
    );
    cluster.n1.forget_agent();
    cluster
        .lab
        .say("without an identity a daemon ends, and names the command to run");

    cluster.locsvc.settings().set("insecure", "true");
    cluster.n2.settings().set("insecure", "true");
    let identity = cluster.lab.folder().join("n1/identity");
    cluster.n1.settings().set_path("identity", &identity);
    cluster.locsvc.start();
    cluster.n1.launch_agent();
    cluster.n2.start_agent();
    cluster.locsvc.wait_equal(&["n2"]);
    assert!(cluster.locsvc.log().contains("INSECURE"), "locsvc shouts");
    assert!(
        cluster.n2.agent_log().contains("INSECURE"),
        "the agent shouts"
    );
    wait::holds(
        "a secure agent follows nobody insecure",
        Duration::from_secs(2),
        || {
            let nodes = cluster.locsvc.nodes();
            !nodes.iter().any(|node| node["name"] == "n1")
        },
    );
    cluster
        .lab
        .say("insecure = true is shouted, and nobody who is secure falls for it");
}
