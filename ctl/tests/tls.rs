//! `locusctl` over TLS: with which identity it is let in, and what it says where one does not trust the other.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use locus_identity::{CertificateAuthority, Holder, IdentityFolder, Order, Role, peer_identity};
use rustls::{ServerConnection, StreamOwned};

/// A CA in a folder that goes with the test.
struct Cluster {
    folder: PathBuf,
    ca: CertificateAuthority,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("locusctl-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        let ca = CertificateAuthority::init(&folder.join("ca"), &"lab".parse().unwrap(), 10);
        let ca = ca.unwrap();
        Self { folder, ca }
    }

    fn operator(&self, role: Role) -> PathBuf {
        let name = "alice".parse().unwrap();
        self.issue(Holder::Operator { name, role }, None)
    }

    fn locsvc(&self, host: &str) -> PathBuf {
        let name = "m1".parse().unwrap();
        self.issue(Holder::Locsvc { name }, Some(host))
    }

    fn issue(&self, holder: Holder, host: Option<&str>) -> PathBuf {
        let folder = self.folder.join(holder.kind());
        let mut order = Order::new(holder).out(folder.clone());
        if let Some(host) = host {
            order = order.host(host);
        }
        self.ca.issue(&order).unwrap();
        folder
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Answers one request over TLS, if it comes to that; says who asked.
struct Server {
    url: String,
    asked: JoinHandle<Option<String>>,
}

impl Server {
    fn new(identity: &Path) -> Self {
        const BODY: &str = r#"{"level":7,"epoch":"1-0","root":"00","records":1,"time":100000}"#;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let identity = IdentityFolder::open(identity).unwrap();
        let asked = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let server = ServerConnection::new(identity.api()).unwrap();
            let mut stream = StreamOwned::new(server, socket);
            let mut request = Vec::new();
            let mut block = [0; 4096];
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(len @ 1..) = stream.read(&mut block) else {
                    // Until the other side has read why.
                    stream.conn.write_tls(&mut stream.sock).ok();
                    stream.sock.shutdown(Shutdown::Write).ok();
                    stream.sock.read_to_end(&mut request).ok();
                    return None;
                };
                request.extend_from_slice(&block[..len]);
            }
            let len = BODY.len();
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {len}\r\n");
            write!(stream, "{head}Connection: close\r\n\r\n{BODY}").unwrap();
            let chain = stream.conn.peer_certificates().unwrap();
            Some(peer_identity(chain).unwrap().identity.to_string())
        });
        Self { url, asked }
    }
}

fn locusctl(server: &str, identity: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_locusctl"))
        .args(arguments)
        .env("LOCUS_SERVER", server)
        .env("LOCUS_IDENTITY", identity)
        .output()
        .unwrap()
}

#[track_caller]
fn refused(output: &Output, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(part), "{text}");
    assert!(
        text.contains("no TLS with locsvc at https://127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("--identity FOLDER"), "{text}");
}

#[test]
fn an_operator_is_known_by_the_certificate() {
    let cluster = Cluster::new("known");
    let server = Server::new(&cluster.locsvc("127.0.0.1"));
    let output = locusctl(&server.url, &cluster.operator(Role::Read), &["level"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let asked = server.asked.join().unwrap();
    assert_eq!(asked.as_deref(), Some("locus:lab/operator/alice/read"));
}

#[test]
fn a_certificate_without_the_address_says_how_to_issue_it() {
    let cluster = Cluster::new("host");
    let server = Server::new(&cluster.locsvc("10.77.0.10"));
    let output = locusctl(&server.url, &cluster.operator(Role::Read), &["level"]);
    refused(&output, "its certificate does not name 127.0.0.1");
    refused(&output, "locusctl ca locsvc NAME --host 127.0.0.1");
    assert_eq!(server.asked.join().unwrap(), None);
}

#[test]
fn another_ca_is_said_whoever_of_the_two_it_is() {
    let (cluster, other) = (Cluster::new("ours"), Cluster::new("theirs"));
    let server = Server::new(&cluster.locsvc("127.0.0.1"));
    let operator = other.operator(Role::Admin);
    let output = locusctl(&server.url, &operator, &["level"]);
    refused(&output, "none of the CAs in our ca.pem");
    server.asked.join().unwrap();
    // We trust them, and they do not trust us.
    let server = Server::new(&cluster.folder.join("locsvc"));
    fs::copy(
        cluster.ca.folder().join("ca.pem"),
        other.folder.join("theirs.pem"),
    )
    .unwrap();
    let both = [operator.join("ca.pem"), other.folder.join("theirs.pem")]
        .map(|path| fs::read_to_string(path).unwrap());
    fs::write(operator.join("ca.pem"), both.concat()).unwrap();
    let output = locusctl(&server.url, &operator, &["level"]);
    refused(
        &output,
        "its ca.pem does not hold the CA that signed our certificate",
    );
    server.asked.join().unwrap();
}

#[test]
fn who_was_revoked_is_told_so() {
    let cluster = Cluster::new("revoked");
    let operator = cluster.operator(Role::Provision);
    cluster.ca.revoke("alice").unwrap();
    let server = Server::new(&cluster.locsvc("127.0.0.1"));
    let output = locusctl(&server.url, &operator, &["aor", "delete", "a@x"]);
    refused(&output, "our certificate was revoked");
    server.asked.join().unwrap();
}

/// A node of the same cluster cannot play the master.
#[test]
fn only_a_locsvc_is_taken_for_one() {
    let cluster = Cluster::new("node");
    let node = Holder::Node {
        name: "n1".parse().unwrap(),
        id: locus_proto::NodeId(1),
    };
    let server = Server::new(&cluster.issue(node, None));
    let output = locusctl(&server.url, &cluster.operator(Role::Read), &["level"]);
    refused(&output, "we refuse their certificate");
    assert_eq!(server.asked.join().unwrap(), None);
}

#[test]
fn https_to_a_plain_port_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut block = [0; 4096];
        assert_ne!(stream.read(&mut block).unwrap(), 0);
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
    });
    let cluster = Cluster::new("plain");
    let output = locusctl(&url, &cluster.operator(Role::Read), &["level"]);
    refused(&output, "does not speak TLS");
    server.join().unwrap();
}
