//! The agent's identity: sealed connections, and what is said where one of the two is not whom it should be.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use locus_agent::HANDSHAKE_TIMEOUT;
use locus_identity::{CA_DAYS, CertificateAuthority, Channel, IdentityFolder, Order};
use locus_proto::NodeState;

use crate::support::{
    Agent, Model, Peer, Place, View, Worker, configure, listen, record, refresh, until,
};

const ALICE: &str = "alice@example.net";
const URI: &str = "sip:alice@192.0.2.1";

/// An authority of a cluster, and the identities of a master and of node n1.
pub(crate) struct Authority {
    ca: CertificateAuthority,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(place: &Place, cluster: &str) -> Self {
        let folder = place.path(&format!("ca-{cluster}"));
        let ca = CertificateAuthority::init(&folder.join("ca"), &cluster.parse().unwrap(), CA_DAYS);
        Self {
            ca: ca.unwrap(),
            folder,
        }
    }

    /// Makes an identity for `holder`, as `node/n1/1`, and returns its folder.
    pub(crate) fn issue(&self, holder: &str) -> PathBuf {
        let out = self.folder.join(holder.replace('/', "-"));
        let order = Order::new(holder.parse().unwrap()).out(out.clone());
        self.ca.issue(&order).unwrap();
        out
    }

    pub(crate) fn open(&self, holder: &str) -> IdentityFolder {
        IdentityFolder::open(&self.issue(holder)).unwrap()
    }

    /// Revokes what `which` holds, and says so in an identity folder.
    fn revoke(&self, which: &str, folder: &Path) {
        self.ca.revoke(which).unwrap();
        let list = self.folder.join("ca/revoked.pem");
        // Whole or not at all: the agent may be reading.
        fs::copy(list, folder.join("revoked.new")).unwrap();
        fs::rename(folder.join("revoked.new"), folder.join("revoked.pem")).unwrap();
    }
}

/// Waits for a connection and opens TLS on it as `identity`.
pub(crate) fn accept(listener: &TcpListener, identity: &IdentityFolder) -> Option<Channel> {
    let stream = until("a connection", || listener.accept().ok()).0;
    stream.set_nonblocking(false).unwrap();
    Channel::accept(stream, identity, HANDSHAKE_TIMEOUT).ok()
}

fn options(listener: &TcpListener, identity: &Path) -> String {
    let master = listener.local_addr().unwrap();
    format!("locsvc = [\"{master}\"]\nidentity = {identity:?}\nrecords_max = 10000")
}

#[test]
fn a_node_and_a_master_prove_who_they_are_and_all_goes_on_over_tls() {
    let place = Place::new("sealed");
    let folder = place.path("table");
    let authority = Authority::new(&place, "lab");
    let master = authority.open("locsvc/m1");
    let own = authority.issue("node/n1/1");
    let listener = listen();
    let agent = Agent::with("lab", &place, &folder, &options(&listener, &own));
    let channel = accept(&listener, &master).expect("a handshake");
    let node = channel.peer().expect("a certificate").identity.to_string();
    assert_eq!(node, "locus:lab/node/n1/1");
    let (mut peer, hello) = Peer::over(channel);
    let mut model = Model::new();
    let records = (0..500).map(|n| (format!("u{n}@example.net"), Some(record(URI, n))));
    model.commit(records.collect());
    model.serve(&mut peer, &hello.expect("a greeting"));
    let mut view = View::new(&folder);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    // A registration crosses it too.
    let worker = Worker::new(&place);
    worker.register(41, &refresh(ALICE, URI, 2));
    assert_eq!(peer.registration().1, refresh(ALICE, URI, 2));
    let log = agent.log();
    assert!(!log.contains("INSECURE"), "{log}");
    assert!(log.contains("following locsvc at 127.0.0.1:"), "{log}");

    // The master's certificate is revoked while it is connected: the node takes nothing more from it.
    authority.revoke("locsvc/m1", &own);
    let mut ended = false;
    until("the end of the connection", || {
        ended = ended || !peer.try_send(&model.heartbeat());
        ended.then_some(())
    });
    until("the reason", || {
        let told = agent.log().contains("was revoked, or its CA");
        told.then_some(())
    });
    assert!(accept(&listener, &master).is_none(), "it comes again");
    until("the next reason", || {
        let told = agent
            .log()
            .contains("we refuse their certificate: it was revoked");
        told.then_some(())
    });
    assert_eq!(view.records(), model.records(), "look-ups go on");
    assert!(agent.terminate().success());
}

#[test]
fn whoever_is_not_a_locsvc_of_the_cluster_is_refused_in_plain_words() {
    let place = Place::new("refused");
    let folder = place.path("table");
    let authority = Authority::new(&place, "lab");
    let stranger = Authority::new(&place, "other");
    let own = authority.issue("node/n1/1");
    let listener = listen();
    let agent = Agent::with("lab", &place, &folder, &options(&listener, &own));
    let refused_by_us = |identity: &IdentityFolder, expected: &str| {
        until("the refusal", || {
            if let Some(channel) = accept(&listener, identity) {
                let (_, hello) = Peer::over(channel);
                assert_eq!(hello, None, "it greets one who is not the master");
            }
            agent.log().contains(expected).then_some(())
        });
    };
    refused_by_us(
        &stranger.open("locsvc/m1"),
        "it was signed by none of the CAs in our ca.pem",
    );
    refused_by_us(&authority.open("node/n2/2"), "(only a locsvc's may serve)");
    // A master that does not take this node any more: it says so after the node's half of the handshake.
    let severe = authority.issue("locsvc/m2");
    authority.revoke("node/n1", &severe);
    let severe = IdentityFolder::open(&severe).unwrap();
    until("the other side's refusal", || {
        assert!(accept(&listener, &severe).is_none());
        let told = agent
            .log()
            .contains("the other side refuses us: our certificate was revoked");
        told.then_some(())
    });
    until("one that speaks no TLS", || {
        let mut stream = until("a connection", || listener.accept().ok()).0;
        std::io::Write::write_all(&mut stream, b"HTTP/1.0 400 no\r\n\r\n").ok();
        drop(stream);
        agent.log().contains("does not speak TLS").then_some(())
    });
    assert!(!agent.log().contains("following"), "{}", agent.log());
    assert_eq!(
        View::new(&folder).state(),
        Some(NodeState::Loading.as_str())
    );
    assert!(agent.terminate().success());
}

#[test]
fn a_node_without_its_own_identity_does_not_start_and_says_what_to_do() {
    let place = Place::new("anonymous");
    let folder = place.path("table");
    let authority = Authority::new(&place, "lab");
    let other = authority.issue("node/n2/2");
    let locsvc = authority.issue("locsvc/m1");
    let own = authority.issue("node/n1/1");
    let nowhere = place.path("nothing");
    let listener = listen();
    for (identity, check, expected) in [
        (
            &nowhere,
            true,
            ["has no identity that can be used", "locusctl ca node"],
        ),
        (
            &nowhere,
            false,
            ["has no identity that can be used", "insecure = true"],
        ),
        (&other, true, ["is locus:lab/node/n2/2", "node_id = 1"]),
        (&locsvc, false, ["is locus:lab/locsvc/m1", "node = \"n1\""]),
    ] {
        let config = configure("lab", &place, &folder, &options(&listener, identity));
        let mut command = Command::new(env!("CARGO_BIN_EXE_locus-agent"));
        command.arg("--config").arg(&config);
        if check {
            command.arg("--check");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        for expected in expected {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!folder.exists(), "nothing was begun");
    }
    let config = configure("lab", &place, &folder, &options(&listener, &own));
    let checked = Command::new(env!("CARGO_BIN_EXE_locus-agent"))
        .arg("--config")
        .arg(&config)
        .arg("--check")
        .status();
    assert!(checked.unwrap().success());
}

#[test]
fn what_is_insecure_is_shouted_at_start() {
    let place = Place::new("insecure");
    let folder = place.path("table");
    let listener = listen();
    let master = listener.local_addr().unwrap();
    let agent = Agent::start(&place, &folder, master, "records_max = 1000");
    let (_peer, _) = Peer::accept(&listener);
    let log = agent.log();
    assert!(log.contains("WARN INSECURE: insecure = true"), "{log}");
    assert!(log.contains("locusctl ca node"), "{log}");
    assert!(agent.terminate().success());
}
