//! Over TLS: who is let in, who is not, what a flood and a revocation do.

use std::os::unix::net::UnixStream;

use locus_distribution::NodeIdentity;
use locus_identity::{Channel, HandshakeError, IdentityFolder, Role, Socket};
use locus_proto::NodeId;

use super::*;
use crate::edge::authority::{Authority, node, operator};

fn secure(security: Security) -> Bench {
    Bench::with(&config(&[]), security)
}

fn dial(bench: &Bench) -> TcpStream {
    TcpStream::connect(bench.unicast.address()).unwrap()
}

fn connect(
    socket: impl Into<Socket>,
    identity: &IdentityFolder,
) -> Result<Channel, HandshakeError> {
    let channel = Channel::connect(socket, identity, DEADLINE)?;
    channel.socket().set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(channel)
}

fn identity(id: u16) -> NodeIdentity {
    NodeIdentity {
        cluster: "lab".parse().unwrap(),
        node: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
    }
}

#[test]
fn a_node_is_known_by_its_certificate() {
    let authority = Authority::new("lab");
    let bench = secure(authority.security().0);
    let mut channel = connect(dial(&bench), &authority.identity(node(7))).unwrap();
    let (peer, arrived) = bench.connected();
    assert_eq!(arrived.identity, Some(identity(7)));
    channel.writer.write_all(&message(1).to_bytes()).unwrap();
    let said = Box::new(message(1));
    assert_eq!(
        bench.next(),
        Input::Message {
            peer,
            message: said
        }
    );
    // Both ways, more than one record, in order; and the end is orderly.
    let bytes: Vec<u8> = (0..200_000)
        .flat_map(|number: u32| number.to_le_bytes())
        .collect();
    bench.unicast.transmit(transmit(peer, bytes.clone(), true));
    bench.unicast.close(peer);
    let mut received = Vec::new();
    channel.reader.read_to_end(&mut received).unwrap();
    assert!(received == bytes);
    let bytes = bytes.len();
    assert_eq!(bench.next(), Input::Sent { peer, bytes });
    assert_eq!(bench.next(), Input::Closed { peer });
}

#[test]
fn the_bus_is_sealed_too() {
    let authority = Authority::new("lab");
    let name = format!("locsvc-sealed-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let bench = Bench::with(&config(std::slice::from_ref(&path)), authority.security().0);
    let stream = UnixStream::connect(&path).unwrap();
    let channel = connect(stream, &authority.identity(node(3))).unwrap();
    let (_, arrived) = bench.connected();
    assert_eq!(arrived.identity, Some(identity(3)));
    assert_eq!(arrived.address, "bus-a");
    drop(channel);
    bench.unicast.stop();
}

/// Nobody of these reaches the core, and each is counted.
#[test]
fn others_are_sent_away() {
    let authority = Authority::new("lab");
    let (security, ours) = authority.security();
    let bench = secure(security);
    // Another cluster, by its own CA: it does not trust us either.
    let foreign = Authority::new("other").identity(node(1));
    assert!(connect(dial(&bench), &foreign).is_err());
    // No TLS at all: an answer that is no message, and the end.
    let mut plain = dial(&bench);
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok(); // it may be reset
    assert!(answer.len() <= 7, "at most an alert: {answer:?}");
    // A message of ours in clear.
    let mut plain = dial(&bench);
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    plain.write_all(&message(1).to_bytes()).unwrap();
    plain.read_to_end(&mut answer).ok();
    // Revoked before it came.
    let revoked = authority.identity(node(9));
    authority.revoke(&node(9), ours.path());
    ours.reload().unwrap();
    let told = connect(dial(&bench), &revoked).map(|mut channel| channel.reader.read(&mut [0]));
    let told = match told {
        Ok(read) => read.unwrap_err().to_string(), // TLS 1.3: the client learns it when it reads
        Err(error) => error.to_string(),
    };
    assert!(told.contains("our certificate was revoked"), "{told}");
    let counted = |failed| bench.unicast.counters().handshakes_failed_total == failed;
    until("four handshakes have failed", || counted(4));
    assert_eq!(bench.unicast.counters().refused_total, 0);
    // Of the cluster, and no node.
    for identity in [authority.identity(operator(Role::Admin)), ours] {
        let mut channel = connect(dial(&bench), &identity).unwrap();
        assert_eq!(channel.reader.read(&mut [0]).unwrap_or_default(), 0);
    }
    until("two are refused", || {
        bench.unicast.counters().refused_total == 2
    });
    assert!(
        bench.arrivals.try_recv().is_err(),
        "the core hears of nobody"
    );
}

#[test]
fn half_open_connections_do_not_take_the_places_of_nodes() {
    let authority = Authority::new("lab");
    let (inbox, arrivals) = bounded(64);
    let (security, clock) = (authority.security().0, Clock::start());
    let patience = Duration::from_secs(600);
    let unicast = Unicast::start_with(&config(&[]), security, inbox, clock, 4, patience).unwrap();
    let bench = Bench { unicast, arrivals };
    let mut flood: Vec<TcpStream> = (0..4).map(|_| dial(&bench)).collect();
    until("all places are taken", || {
        bench.unicast.shared.handshakes.len() == 4
    });
    let identity = authority.identity(node(1));
    // The oldest of them makes room once it is not young any more; until then the node is sent away.
    let mut channel = None;
    until("the node is let in", || {
        channel = connect(dial(&bench), &identity).ok();
        channel.is_some()
    });
    let (_, arrived) = bench.connected();
    assert_eq!(arrived.identity, Some(self::identity(1)));
    assert!(bench.unicast.counters().handshakes_crowded_total >= 1);
    flood[0].set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(
        flood[0].read(&mut [0]).unwrap_or_default(),
        0,
        "the oldest has gone"
    );
    // The stop does not wait for the others.
    bench.unicast.stop();
}

#[test]
fn who_is_revoked_while_connected_goes_at_once_and_nobody_else() {
    let authority = Authority::new("lab");
    let (security, ours) = authority.security();
    let bench = secure(security);
    let mut bad = connect(dial(&bench), &authority.identity(node(1))).unwrap();
    let (bad_peer, _) = bench.connected();
    let mut good = connect(dial(&bench), &authority.identity(node(2))).unwrap();
    let (good_peer, _) = bench.connected();
    let judge = bench.unicast.judge();
    judge.judge();
    authority.revoke(&node(1), ours.path());
    ours.reload().unwrap();
    judge.judge();
    let mut inputs = [bench.next(), bench.next()];
    inputs.sort_by_key(|input| matches!(input, Input::Closed { .. }));
    let node = NodeId(1);
    let expected = [Input::Removed { node }, Input::Closed { peer: bad_peer }];
    assert_eq!(inputs, expected);
    assert_eq!(bad.reader.read(&mut [0]).unwrap_or_default(), 0);
    assert_eq!(bench.unicast.counters().revoked_total, 1);
    bench.unicast.transmit(transmit(good_peer, vec![5], false));
    let mut byte = [0];
    good.reader.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [5]);
}

#[test]
fn one_node_cannot_take_all_places() {
    let authority = Authority::new("lab");
    let bench = secure(authority.security().0);
    let identity = authority.identity(node(1));
    let mut channels: Vec<Channel> = (0..NODE_CONNECTIONS_MAX)
        .map(|_| {
            let channel = connect(dial(&bench), &identity).unwrap();
            bench.connected();
            channel
        })
        .collect();
    let mut more = connect(dial(&bench), &identity).unwrap();
    assert_eq!(more.reader.read(&mut [0]).unwrap_or_default(), 0);
    assert_eq!(bench.unicast.counters().refused_total, 1);
    // Another node has its own, and a place is free again when one goes.
    let other = connect(dial(&bench), &authority.identity(node(2))).unwrap();
    bench.connected();
    drop(channels.pop());
    let Input::Closed { .. } = bench.next() else {
        panic!("closed");
    };
    until("its place is free", || {
        let held = bench.unicast.shared.connections().len();
        held == NODE_CONNECTIONS_MAX
    });
    let again = connect(dial(&bench), &identity).unwrap();
    bench.connected();
    drop((other, again));
}
