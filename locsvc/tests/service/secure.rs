//! The program with certificates: its API beyond loopback, the bus, the group, a revocation while it runs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use locus_identity::{CertificateAuthority, Holder, IdentityFolder, Order, Role};
use locus_proto::NodeId;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::node::Follower;
use super::support::{Scratch, Service};

/// A CA and what it has issued.
struct Cluster {
    scratch: Scratch,
    ca: CertificateAuthority,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let ca = scratch.path.join("ca");
        let ca = CertificateAuthority::init(&ca, &"lab".parse().unwrap(), 10).unwrap();
        Self { scratch, ca }
    }

    fn issue(&self, holder: Holder) -> PathBuf {
        let folder = self.scratch.path.join(holder.to_string().replace('/', "-"));
        let serves = matches!(holder, Holder::Locsvc { .. });
        let mut order = Order::new(holder).out(folder.clone());
        if serves {
            order = order.host("127.0.0.1");
        }
        self.ca.issue(&order).unwrap();
        folder
    }

    fn open(&self, holder: Holder) -> IdentityFolder {
        IdentityFolder::open(&self.issue(holder)).unwrap()
    }

    /// A configuration with two buses, and whatever `more` says.
    fn config(&self, identity: &Path, more: &str) -> PathBuf {
        let bus = [self.bus("a"), self.bus("b")];
        let path = self.scratch.config(&format!(
            "identity = {identity:?}\ndistribution.bus = {bus:?}\n{more}"
        ));
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("insecure = true\n", "");
        // Beyond loopback, as far as locsvc can tell.
        let text = text.replace("api.listen = \"127.0.0.1:0\"", "api.listen = \"0.0.0.0:0\"");
        fs::write(&path, text).unwrap();
        path
    }

    fn bus(&self, name: &str) -> PathBuf {
        self.scratch.path.join(format!("{name}.sock"))
    }
}

fn master() -> Holder {
    Holder::Locsvc {
        name: "m1".parse().unwrap(),
    }
}

fn node(id: u16) -> Holder {
    Holder::Node {
        name: format!("n{id}").parse().unwrap(),
        id: NodeId(id),
    }
}

/// One request to the API; its status and its body.
fn call(
    api: SocketAddr,
    identity: &IdentityFolder,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let client = ClientConnection::new(identity.api_client(), name).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", api.port())).unwrap();
    let mut stream = StreamOwned::new(client, stream);
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

const CONTACT: &str = r#"{"contacts":[{"uri":"sip:a@10.0.0.9"}]}"#;

fn provision(api: SocketAddr, operator: &IdentityFolder, user: usize) -> u64 {
    let path = format!("/v1/aors/u{user}@example.net");
    let (status, answer) = call(api, operator, "PUT", &path, CONTACT);
    assert_eq!(status, 200, "{answer}");
    answer["level"].as_u64().unwrap()
}

fn operator(role: Role) -> Holder {
    Holder::Operator {
        name: format!("op-{role}").parse().unwrap(),
        role,
    }
}

#[test]
fn the_cluster_is_known_by_certificates_and_a_revoked_node_goes() {
    let cluster = Cluster::new("secure");
    let identity = cluster.issue(master());
    let mut service = Service::start(&cluster.config(&identity, ""));
    let api = service.api;
    let (reader, provisioner) = (
        cluster.open(operator(Role::Read)),
        cluster.open(operator(Role::Provision)),
    );
    let mut good = Follower::connect(&cluster.bus("a"), &cluster.open(node(1)));
    let mut bad = Follower::connect(&cluster.bus("b"), &cluster.open(node(2)));
    let level = provision(api, &provisioner, 1);
    good.until("the first has it", |node| node.is_coherent_at(level));
    bad.until("the second has it", |node| node.is_coherent_at(level));
    service.wait_for("operator/op-provision/provision: PUT /v1/aors/u1@example.net: 200");
    let (status, refused) = call(api, &reader, "PUT", "/v1/aors/a@x", CONTACT);
    assert_eq!(
        (status, refused["code"].as_str()),
        (403, Some("role_missing"))
    );
    let (_, roster) = call(api, &reader, "GET", "/v1/nodes", "");
    let paths: Vec<_> = (0..2)
        .map(|at| roster["nodes"][at]["path"].as_str())
        .collect();
    assert_eq!(paths, [Some("bus-a"), Some("bus-b")]);
    // Found without a restart, within the ten seconds of a look.
    cluster.ca.revoke("node/n2").unwrap();
    let list = "revoked.pem";
    fs::copy(cluster.ca.folder().join(list), identity.join(list)).unwrap();
    service.wait_for("node/n2/2 is not trusted any more");
    bad.until("it is cut off", |node| node.closed);
    let level = provision(api, &provisioner, 2);
    good.until("the other goes on", |node| node.is_coherent_at(level));
    let (status, lines) = service.stop();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("revoked_total=1")),
        "{lines:#?}"
    );
    assert!(!cluster.bus("a").exists() && !cluster.bus("b").exists());
}

/// No frame over the connection: what a call needs has come by the group alone.
#[test]
fn what_is_live_comes_by_multicast_alone() {
    let cluster = Cluster::new("multicast");
    let identity = cluster.issue(master());
    let third = std::process::id() % 250;
    let free = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = cluster.config(
        &identity,
        &format!(
            "distribution.transport = \"multicast\"\n\
             distribution.multicast.group = \"239.193.{third}.83:{port}\""
        ),
    );
    let service = Service::start(&config);
    let api = service.api;
    let provisioner = cluster.open(operator(Role::Provision));
    let mut node = Follower::connect(&cluster.bus("a"), &cluster.open(node(1)));
    node.until("it has the table", |node| node.is_coherent_at(0));
    let shown = || {
        let (_, roster) = call(api, &provisioner, "GET", "/v1/nodes", "");
        roster["nodes"][0].clone()
    };
    // A machine that stands still for half a second takes the node out for a while, as it should: then it is
    // not this round that shows it.
    let shows = |node: &mut Follower, round: usize| {
        while node.during(shown)["path"] != "multicast" {}
        let before = node.during(shown);
        let level = node.during(|| {
            (round * 20..round * 20 + 20)
                .map(|user| provision(api, &provisioner, user))
                .max()
        });
        let level = level.expect("twenty changes");
        node.until("it has the changes", |node| node.is_coherent_at(level));
        while node.during(shown)["level"] != level {}
        let after = node.during(shown);
        let frames = |shown: &Value| shown["group"]["frames_total"].as_u64().unwrap();
        let bytes = |shown: &Value| shown["connection_frame_bytes_total"].clone();
        after["path"] == "multicast"
            && bytes(&after) == bytes(&before)
            && frames(&after) > frames(&before)
            && after["multicast_lost"] == Value::Null
    };
    assert!((0..20).any(|round| shows(&mut node, round)));
    let (status, lines) = service.stop();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let totals = lines
        .iter()
        .find(|line| line.contains("since the start"))
        .unwrap();
    assert!(totals.contains("; multicast received_total="), "{totals}");
    assert!(totals.contains(" sent_total="), "{totals}");
}
