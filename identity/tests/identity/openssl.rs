//! What another implementation makes of our certificates and lists.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use locus_identity::{CA_DAYS, Channel, HandshakeError, IdentityFolder};

use crate::common::{Cluster, WITHIN};

fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("needs the openssl command (Debian: openssl)");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Verifies a certificate with the CAs and lists that are published now.
fn verify(folder: &Path, certificate: &Path, purpose: &str) -> (bool, String) {
    let both = folder.join("trusted-and-lists.pem");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    fs::write(&both, read("ca.pem") + &read("revoked.pem")).unwrap();
    let (both, certificate) = (both.to_str().unwrap(), certificate.to_str().unwrap());
    let strict = ["verify", "-x509_strict", "-crl_check", "-purpose", purpose];
    openssl(&[&strict[..], &["-CAfile", both, certificate]].concat())
}

#[test]
fn openssl_verifies_chains_and_lists() {
    let lab = Cluster::new();
    let folder = lab.ca.folder();
    let master = lab.identity("locsvc/m1").path().join("identity.pem");
    let node = lab.identity("node/n1/1").path().join("identity.pem");
    for (certificate, purpose, fine) in [
        (&master, "sslserver", true),
        (&master, "sslclient", true),
        (&node, "sslclient", true),
        (&node, "sslserver", false),
    ] {
        let (verified, text) = verify(folder, certificate, purpose);
        assert_eq!(verified, fine, "{purpose}: {text}");
    }
    lab.ca.revoke("n1").unwrap();
    let (verified, text) = verify(folder, &node, "sslclient");
    assert!(!verified && text.contains("certificate revoked"), "{text}");
    let (verified, text) = verify(folder, &master, "sslserver");
    assert!(verified, "{text}");
    // While one CA follows another, both chains and both lists hold.
    lab.ca.rotate(CA_DAYS).unwrap();
    let anew = lab.identity("node/n2/2").path().join("identity.pem");
    for certificate in [&master, &anew] {
        let (verified, text) = verify(folder, certificate, "sslclient");
        assert!(verified, "{text}");
    }
    let (verified, _) = verify(folder, &node, "sslclient");
    assert!(!verified, "the previous CA's list is still there");
}

#[test]
fn openssl_shows_what_is_meant() {
    let lab = Cluster::new();
    let node = lab.identity("node/n1/7").path().join("identity.pem");
    let (_, text) = openssl(&["x509", "-in", node.to_str().unwrap(), "-noout", "-text"]);
    for expected in [
        "Subject: O = Locus lab, CN = node/n1/7",
        "URI:locus:lab/node/n1/7",
        "ASN1 OID: prime256v1",
        "TLS Web Client Authentication",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let ca = lab.ca.folder().join("ca.pem");
    let (_, text) = openssl(&["x509", "-in", ca.to_str().unwrap(), "-noout", "-text"]);
    for expected in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// Has `openssl s_client` call `server` with the identity `of` and these arguments more; returns what the server has of
/// it and what openssl said.
fn s_client(
    server: &IdentityFolder,
    of: &IdentityFolder,
    more: &[&str],
) -> (Result<String, HandshakeError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let file = |name: &str| of.path().join(name).to_str().unwrap().to_owned();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_quiet",
        ])
        .args(["-connect", &address, "-servername", "locsvc.lab.internal"])
        .args([
            "-verify_hostname",
            "locsvc.lab.internal",
            "-CAfile",
            &file("ca.pem"),
        ])
        .args([
            "-cert",
            &file("identity.pem"),
            "-key",
            &file("identity.key"),
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"hello\n").ok();
    let (socket, _) = listener.accept().unwrap();
    let heard = Channel::accept(socket, server, WITHIN).map(|mut channel| {
        let peer = channel.peer().unwrap().identity.clone();
        let mut line = [0; 6];
        channel.reader.read_exact(&mut line).unwrap();
        channel.writer.write_all(b"welcome\n").unwrap();
        channel.writer.finish().unwrap();
        format!("{peer} says {}", String::from_utf8_lossy(&line))
    });
    let output = client.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (heard, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn openssl_speaks_with_us_by_the_same_rules() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (heard, said) = s_client(&master, &node, &["-tls1_3", "-alpn", "locus"]);
    assert_eq!(heard.unwrap(), "locus:lab/node/n1/1 says hello\n");
    assert!(said.contains("welcome"), "{said}");
    let (heard, _) = s_client(&master, &node, &["-tls1_2", "-alpn", "locus"]);
    let error = heard.unwrap_err();
    assert!(matches!(error, HandshakeError::TooOld(_)), "{error:?}");
    // Another protocol, and none.
    for alpn in [&["-alpn", "h2,http/1.1"][..], &[]] {
        let (heard, _) = s_client(&master, &node, alpn);
        let error = heard.unwrap_err();
        assert!(matches!(error, HandshakeError::OtherProtocol), "{error:?}");
    }
    let (heard, said) = {
        lab.ca.revoke("n1").unwrap();
        lab.distribute(&master);
        master.reload().unwrap();
        s_client(&master, &node, &["-tls1_3", "-alpn", "locus"])
    };
    assert_eq!(
        heard.unwrap_err().to_string(),
        "we refuse their certificate: it was revoked"
    );
    assert!(said.contains("certificate revoked"), "{said}");
}
