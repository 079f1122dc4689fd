//! Who is let in by whom, and what each side is told when it is not.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::common::{Cluster, WITHIN, dns, first_read, meet, meet_over, met, uri};
use locus_identity::{
    CA_DAYS, Channel, HandshakeError, Holder, IdentityFolder, PeerError, Reload, Standing,
};
use rcgen::CertificateParams;
use time::OffsetDateTime;

#[test]
fn each_side_knows_the_other() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    for holder in ["node/n1/7", "switch/s1", "operator/alice/read", "locsvc/m2"] {
        let client = lab.identity(holder);
        let (connected, accepted) = met(&client, &master);
        let seen = &accepted.peer().unwrap().identity;
        assert_eq!(seen.to_string(), format!("locus:lab/{holder}"));
        assert_eq!(seen, client.identity());
        let server = &connected.peer().unwrap().identity;
        assert_eq!(server.to_string(), "locus:lab/locsvc/m1");
    }
}

#[test]
fn they_meet_over_tcp_whatever_the_address() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    let limit = Some(Duration::from_millis(2500));
    one.set_write_timeout(limit).unwrap();
    let (connected, accepted) = meet_over(&node, one, &master, other);
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    assert_eq!(connected.socket().write_timeout().unwrap(), limit);
    assert_eq!(connected.socket().read_timeout().unwrap(), None);
    assert_eq!(accepted.socket().write_timeout().unwrap(), None);
}

#[test]
fn who_is_revoked_is_refused_and_told_so() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (_connected, live) = met(&node, &master);
    let peer = live.peer().unwrap();
    assert_eq!(master.standing(peer), Standing::Good);

    let revoked = lab.ca.revoke("node/n1").unwrap();
    assert_eq!(revoked[0].serial, peer.serial);
    // Nobody has been told yet.
    assert_eq!(master.reload().unwrap(), Reload::Unchanged);
    assert!(meet(&node, &master).1.is_ok());

    lab.distribute(&master);
    assert_eq!(master.reload().unwrap(), Reload::Changed);
    assert_eq!(master.standing(peer), Standing::Revoked);
    assert!(master.standing(peer).ends_connections());
    let (connected, accepted) = meet(&node, &master);
    let error = accepted.unwrap_err().to_string();
    assert_eq!(error, "we refuse their certificate: it was revoked");
    let told = first_read(connected.unwrap()).to_string();
    assert_eq!(
        told,
        "the other side refuses us: our certificate was revoked"
    );

    // Another node, and the same with a new certificate, are none the worse for it.
    assert!(meet(&lab.identity("node/n2/2"), &master).1.is_ok());
    assert!(meet(&lab.identity("node/n1/1"), &master).1.is_ok());
}

#[test]
fn a_revoked_server_is_refused() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    lab.ca.revoke("m1").unwrap();
    lab.distribute(&node);
    assert_eq!(node.reload().unwrap(), Reload::Changed);
    let (connected, accepted) = meet(&node, &master);
    let error = connected.unwrap_err().to_string();
    assert_eq!(error, "we refuse their certificate: it was revoked");
    let error = accepted.unwrap_err().to_string();
    assert_eq!(
        error,
        "the other side refuses us: our certificate was revoked"
    );
}

/// (who has been given the new CA, who was issued anew) → who talks with whom.
#[test]
fn a_rotation_cuts_nobody_off_who_was_served_in_order() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let (old, renewed) = (lab.identity("node/n1/1"), lab.identity("node/n2/2"));
    let (_client, live) = met(&old, &master);
    lab.ca.rotate(CA_DAYS).unwrap();

    // 1. The new CA everywhere: all as before.
    for folder in [&master, &old, &renewed] {
        lab.distribute(folder);
        assert_eq!(folder.reload().unwrap(), Reload::Changed);
    }
    for node in [&old, &renewed] {
        assert!(meet(node, &master).1.is_ok());
    }
    // 2. One node anew, then the master: old and new talk, both ways.
    lab.identity("node/n2/2");
    assert_eq!(renewed.reload().unwrap(), Reload::Changed);
    assert!(meet(&renewed, &master).1.is_ok());
    lab.identity("locsvc/m1");
    assert_eq!(master.reload().unwrap(), Reload::Changed);
    assert!(meet(&renewed, &master).1.is_ok());
    assert!(meet(&old, &master).1.is_ok());
    // 3. Who was left out stops the end of the rotation.
    let error = lab.ca.retire(false).unwrap_err().to_string();
    assert!(
        error.starts_with("node/n1/1 would be cut off: issue them anew first"),
        "{error}"
    );
    lab.ca.retire(true).unwrap();
    for folder in [&master, &renewed] {
        lab.distribute(folder);
        assert_eq!(folder.reload().unwrap(), Reload::Changed);
    }
    assert!(meet(&renewed, &master).1.is_ok());
    assert_eq!(master.standing(live.peer().unwrap()), Standing::Unknown);
    assert!(Standing::Unknown.ends_connections());
    let (connected, accepted) = meet(&old, &master);
    let error = accepted.unwrap_err().to_string();
    assert!(
        error.contains("signed by none of the CAs in our ca.pem"),
        "{error}"
    );
    // It still trusts both CAs, so it is the server that speaks.
    let told = first_read(connected.unwrap()).to_string();
    assert!(
        told.contains("its ca.pem does not hold the CA that signed our certificate"),
        "{told}"
    );
}

#[test]
fn another_cluster_is_another_world() {
    let (lab, other) = (Cluster::new(), Cluster::named("other"));
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (foreign_master, foreign_node) = (other.identity("locsvc/m1"), other.identity("node/n1/1"));
    let refuses = |error: HandshakeError| {
        let text = error.to_string();
        assert!(text.contains("none of the CAs in our ca.pem"), "{text}");
    };
    // The client looks first, so both of these are its refusals.
    refuses(meet(&node, &foreign_master).0.unwrap_err());
    refuses(meet(&foreign_node, &master).0.unwrap_err());
    // A stranger who makes a CA of his own under our name, and takes ours for good.
    let stranger = Cluster::new();
    let posing = stranger.identity("node/n1/1");
    lab.distribute(&posing);
    // Our own code does not even start so; his is patched.
    assert!(IdentityFolder::open(posing.path()).is_err());
    let error = meet_as_client(&posing, &master).to_string();
    assert!(error.contains("none of the CAs in our ca.pem"), "{error}");
}

/// Our own CA signs only what `locusctl ca` makes; these are what it would take if it signed more.
#[test]
fn an_identity_must_be_one_of_our_cluster() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let node = lab.identity("node/n1/1");
    let names = |sans: &[&str]| {
        let sans: Vec<_> = sans.iter().map(|text| uri(text)).collect();
        move |params: &mut CertificateParams| params.subject_alt_names = sans
    };
    // A server that is one of another cluster, or no locsvc, though DNS name and purpose are right.
    for (name, who, expected) in [
        (
            "x1",
            "locus:other/locsvc/m1",
            "is locus:other/locsvc/m1, not of our cluster lab",
        ),
        (
            "x2",
            "locus:lab/node/n9/9",
            "is locus:lab/node/n9/9, where a locsvc is expected",
        ),
        (
            "x3",
            "locus:lab/operator/eve/admin",
            "is locus:lab/operator/eve/admin, where a locsvc is expected",
        ),
    ] {
        let folder = lab.odd(name, |params| {
            let name = "locsvc.lab.internal";
            params.subject_alt_names = vec![uri(who), dns(name), dns("locsvc.other.internal")];
        });
        let server = IdentityFolder::open(&folder).unwrap();
        let error = meet(&node, &server).0.unwrap_err();
        assert!(matches!(error, HandshakeError::Peer(_)), "{error:?}");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    // A locsvc without the name that everybody verifies.
    let nameless = lab.odd("x4", names(&["locus:lab/locsvc/m1"]));
    let nameless = IdentityFolder::open(&nameless).unwrap();
    let error = meet(&node, &nameless).0.unwrap_err().to_string();
    assert!(error.contains("locsvc.lab.internal"), "{error}");
    // Certificates of the CA's own kinds, used for what they are not made for.
    for holder in ["node/n2/2", "switch/s1", "operator/alice/admin"] {
        let server = lab.identity(holder);
        let error = meet(&node, &server).0.unwrap_err().to_string();
        assert!(error.contains("only a locsvc's may serve"), "{error}");
    }
    // A client of another cluster under the same CA.
    let foreign = IdentityFolder::open(&lab.odd("x5", |params| {
        params.subject_alt_names = vec![uri("locus:other/node/n1/1")];
    }));
    let error = meet_as_client(&foreign.unwrap(), &master);
    assert!(
        matches!(&error, HandshakeError::Peer(PeerError::OtherCluster { .. })),
        "{error:?}"
    );
}

/// A client that, unlike ours, accepts the server; returns why the server refuses it.
fn meet_as_client(client: &IdentityFolder, server: &IdentityFolder) -> HandshakeError {
    let (one, other) = UnixStream::pair().unwrap();
    let config = unverified(client);
    let name = "locsvc.lab.internal".try_into().unwrap();
    let connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    thread::scope(|threads| {
        threads.spawn(move || {
            let mut stream = rustls::StreamOwned::new(connection, one);
            stream.write_all(b"hello").ok();
            stream.read_to_end(&mut Vec::new()).ok();
        });
        Channel::accept(other, server, WITHIN).unwrap_err()
    })
}

/// A configuration with the certificate and key of a folder that verifies a server by any cluster's rules.
fn unverified(folder: &IdentityFolder) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let path = |file: &str| folder.path().join(file);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates([CertificateDer::from_pem_file(path("ca.pem")).unwrap()]);
    let chain = vec![CertificateDer::from_pem_file(path("identity.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(path("identity.key")).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"locus".to_vec()];
    config
}

#[test]
fn a_certificate_that_names_nobody_or_two_is_refused() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let odd: [(&str, &[&str], &str); 4] = [
        ("o1", &[], "holds no URI that begins with locus:"),
        (
            "o2",
            &["spiffe://lab/n1"],
            "holds no URI that begins with locus:",
        ),
        (
            "o3",
            &["locus:lab/node/n1/1", "locus:lab/locsvc/m1"],
            "holds 2 URIs that begin with locus:",
        ),
        (
            "o4",
            &["locus:lab/node/n1/0"],
            "the number of a node is 1 to 65535",
        ),
    ];
    for (name, uris, expected) in odd {
        let folder = lab.odd(name, |params| {
            params.subject_alt_names = vec![dns("n1.example.net")];
            params
                .subject_alt_names
                .extend(uris.iter().map(|text| uri(text)));
        });
        // Our own daemons do not even start with it.
        let error = IdentityFolder::open(&folder).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        // Somebody else's program shows it nevertheless.
        let node = lab.identity("node/n1/1");
        for file in ["identity.pem", "identity.key"] {
            fs::copy(folder.join(file), node.path().join(file)).unwrap();
        }
        let error = meet_as_client(&node, &master).to_string();
        assert!(error.contains(expected), "{error}");
    }
    // One of ours beside those of others is one.
    let folder = lab.odd("o5", |params| {
        params.subject_alt_names = vec![uri("spiffe://lab/n1"), uri("locus:lab/node/n1/1")];
    });
    let node = IdentityFolder::open(&folder).unwrap();
    let (_, accepted) = met(&node, &master);
    let peer = accepted.peer().unwrap();
    assert!(matches!(&peer.identity.holder, Holder::Node { .. }));
}

#[test]
fn an_expired_certificate_is_refused_but_cuts_nothing_off() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let folder = lab.odd("late", |params| {
        params.subject_alt_names = vec![uri("locus:lab/node/n1/1")];
        params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(7200);
        params.not_after = OffsetDateTime::now_utc() - Duration::from_secs(60);
    });
    let node = IdentityFolder::open(&folder).unwrap();
    assert_eq!(node.expires_in(), None);
    let warnings = node.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("has expired"),
        "{warnings:?}"
    );
    let (connected, accepted) = meet(&node, &master);
    let error = accepted.unwrap_err().to_string();
    assert!(error.contains("it has expired"), "{error}");
    let told = first_read(connected.unwrap()).to_string();
    assert!(told.contains("our certificate has expired"), "{told}");

    let folder = lab.odd("early", |params| {
        params.subject_alt_names = vec![uri("locus:lab/node/n2/2")];
        params.not_before = OffsetDateTime::now_utc() + Duration::from_secs(1800);
    });
    let node = IdentityFolder::open(&folder).unwrap();
    assert!(node.warnings()[0].contains("is not valid yet"));
    let error = meet(&node, &master).1.unwrap_err().to_string();
    assert!(error.contains("is our clock right?"), "{error}");
}

#[test]
fn the_api_and_the_protocol_are_not_confused() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (one, other) = UnixStream::pair().unwrap();
    let name = "locsvc.lab.internal".try_into().unwrap();
    let api = rustls::ClientConnection::new(node.api_client(), name).unwrap();
    thread::scope(|threads| {
        let client = threads.spawn(move || {
            let mut stream = rustls::StreamOwned::new(api, one);
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap_err()
        });
        let error = Channel::accept(other, &master, WITHIN).unwrap_err();
        assert!(matches!(error, HandshakeError::OtherProtocol), "{error:?}");
        let told = client.join().unwrap().to_string();
        assert!(told.contains("NoApplicationProtocol"), "{told}");
    });
}

#[test]
fn the_api_is_verified_by_the_host_of_its_url() {
    let lab = Cluster::new();
    let folder = lab.temp.join("m1");
    let order = locus_identity::Order::new("locsvc/m1".parse().unwrap());
    let order = order
        .host("10.77.0.10")
        .host("M1.example.net")
        .host("fd00::1");
    lab.ca.issue(&order.out(folder.clone())).unwrap();
    let master = IdentityFolder::open(&folder).unwrap();
    let alice = lab.identity("operator/alice/admin");
    for (host, fine) in [
        ("10.77.0.10", true),
        ("fd00::1", true),
        ("m1.example.net", true),
        ("10.77.0.11", false),
        ("m2.example.net", false),
    ] {
        let name = host.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(alice.api_client(), name).unwrap();
        let mut server = rustls::ServerConnection::new(master.api()).unwrap();
        let done = shake(&mut client, &mut server);
        assert_eq!(done.is_ok(), fine, "{host}: {done:?}");
        if fine {
            let chain = server.peer_certificates().unwrap();
            let peer = locus_identity::peer_identity(chain).unwrap();
            assert_eq!(&peer.identity, alice.identity());
        }
    }
}

/// Whoever was let in once is judged anew each time.
#[test]
fn nothing_is_resumed() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (client, server) = (node.client(), master.server());
    for _ in 0..3 {
        let name = "locsvc.lab.internal".try_into().unwrap();
        let mut one = rustls::ClientConnection::new(client.clone(), name).unwrap();
        let mut other = rustls::ServerConnection::new(server.clone()).unwrap();
        shake(&mut one, &mut other).unwrap();
        assert_eq!(one.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let version = Some(rustls::ProtocolVersion::TLSv1_3);
        assert_eq!(other.protocol_version(), version);
        assert_eq!(one.tls13_tickets_received(), 0);
    }
}

/// Carries bytes between two connections until both are done.
fn shake(
    client: &mut rustls::ClientConnection,
    server: &mut rustls::ServerConnection,
) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}
