//! The group's sockets against real ones of a master, on loopback, and in a network of their own for IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use locus_proto::v1::DATAGRAM_BYTES_MAX;

use socket2::SockRef;

use super::*;

/// Longest wait for what must come.
const DEADLINE: Duration = Duration::from_secs(20);
/// Set in the copy of this test that runs in a network of its own.
const INSIDE: &str = "LOCUS_TEST_INSIDE";

/// A master's socket at `local`, which sends to groups from there too.
fn master(local: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    let shared = SockRef::from(&socket);
    match Interface::of(local).unwrap() {
        Interface::Address(address) => shared.set_multicast_if_v4(&address),
        Interface::Index { index, .. } => shared.set_multicast_if_v6(index),
    }
    .unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// A group of this test's own, and the edge of a node.
struct Bench {
    group: SocketAddr,
    edge: Group,
    inputs: Receiver<Input>,
}

impl Bench {
    /// `n`: of the test, so that tests side by side do not hear each other.
    fn new(n: u8, capacity: usize) -> Self {
        let process = u16::try_from(std::process::id() % 20_000).unwrap();
        let ip = Ipv4Addr::new(239, 255, 77, n);
        let (to_core, inputs) = bounded(capacity);
        Self {
            group: SocketAddr::new(ip.into(), 20_000 + process),
            edge: Group::new(to_core, Clock::start(), None),
            inputs,
        }
    }

    fn join(&mut self, number: u64, local: SocketAddr, master: SocketAddr) -> Option<Input> {
        self.edge
            .join(Membership(number), self.group, local, master)
    }

    /// Returns the datagrams of the next input, and how many were refused before.
    fn next(&self, number: u64) -> (Vec<Vec<u8>>, u64) {
        let input = self.inputs.recv_timeout(DEADLINE).expect("datagrams");
        let Input::Datagrams {
            membership,
            datagrams,
            refused,
        } = input
        else {
            panic!("{input:?}")
        };
        assert_eq!(membership, Membership(number));
        (datagrams, refused)
    }

    /// Returns as many datagrams as are awaited, and how many were refused.
    fn collect(&self, number: u64, len: usize) -> (Vec<Vec<u8>>, u64) {
        let (mut all, mut refused_total) = (Vec::new(), 0);
        while all.len() < len {
            let (datagrams, refused) = self.next(number);
            assert!((1..=DATAGRAMS_MAX).contains(&datagrams.len()));
            all.extend(datagrams);
            refused_total += refused;
        }
        (all, refused_total)
    }
}

fn loopback(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), port)
}

#[test]
fn what_the_master_sends_to_the_group_or_the_node_comes_in_order_and_answers_reach_it() {
    let mut bench = Bench::new(1, 8);
    let socket = master(loopback(1, 0));
    let at_master = socket.local_addr().unwrap();
    assert_eq!(bench.join(1, loopback(1, 40_000), at_master), None);
    for n in 0..200_u8 {
        socket.send_to(&[n], bench.group).unwrap();
    }
    let expected: Vec<_> = (0..200).map(|n| vec![n]).collect();
    assert_eq!(bench.collect(1, 200), (expected, 0));
    // The node answers, and is answered at the address from which it did.
    bench.edge.send(Membership(1), b"nack");
    let mut buffer = [0; 16];
    let (len, node) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..len], node.ip()),
        (b"nack".as_slice(), at_master.ip())
    );
    socket.send_to(b"repair", node).unwrap();
    assert_eq!(bench.next(1), (vec![b"repair".to_vec()], 0));
    // Not under another membership.
    bench.edge.send(Membership(2), b"old");
    bench.edge.send(Membership(1), b"new");
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"new");
}

#[test]
fn what_is_not_the_masters_or_too_long_is_refused_unread() {
    let mut bench = Bench::new(2, 8);
    let socket = master(loopback(1, 0));
    let stranger = master(loopback(2, 0));
    let at_master = socket.local_addr().unwrap();
    assert_eq!(bench.join(1, loopback(1, 40_000), at_master), None);
    let longest = vec![7; DATAGRAM_BYTES_MAX];
    for _ in 0..70 {
        stranger.send_to(b"forged", bench.group).unwrap();
    }
    socket
        .send_to(&[longest.as_slice(), &[7]].concat(), bench.group)
        .unwrap();
    socket.send_to(&longest, bench.group).unwrap();
    assert_eq!(bench.collect(1, 1), (vec![longest], 71));
}

#[test]
fn a_group_that_was_left_is_silent_and_can_be_joined_again() {
    let mut bench = Bench::new(3, 8);
    let socket = master(loopback(1, 0));
    let at_master = socket.local_addr().unwrap();
    for number in 1..=3 {
        assert_eq!(bench.join(number, loopback(1, 40_000), at_master), None);
        socket.send_to(b"heard", bench.group).unwrap();
        assert_eq!(bench.next(number), (vec![b"heard".to_vec()], 0));
        assert_eq!(bench.edge.rejoin(), None);
        socket.send_to(b"still", bench.group).unwrap();
        assert_eq!(bench.next(number), (vec![b"still".to_vec()], 0));
        if number == 2 {
            bench.edge.leave();
            bench.edge.send(Membership(2), b"unheard");
            socket.send_to(b"unheard", bench.group).unwrap();
        }
    }
    // What was sent while the group was left came to nobody.
    assert!(bench.inputs.is_empty());
}

#[test]
fn a_core_that_takes_nothing_costs_datagrams_and_blocks_nobody() {
    let mut bench = Bench::new(4, 1);
    let socket = master(loopback(1, 0));
    let at_master = socket.local_addr().unwrap();
    assert_eq!(bench.join(1, loopback(1, 40_000), at_master), None);
    // Far more than the channel and the socket's buffer hold; the thread waits with a batch meanwhile.
    for n in 0..40_000_u32 {
        let mut datagram = vec![0; 1000];
        datagram[..4].copy_from_slice(&n.to_le_bytes());
        socket.send_to(&datagram, bench.group).unwrap();
    }
    bench.edge.leave();
    // As soon as somebody takes what waits, the thread ends: the channel has no sender but the edge's own.
    let mut seen = 0;
    let edge = bench.edge;
    drop(edge);
    for input in &bench.inputs {
        let Input::Datagrams { datagrams, .. } = input else {
            panic!("{input:?}")
        };
        seen += datagrams.len();
    }
    assert!(seen <= DATAGRAMS_MAX * 3, "{seen} after it was left");
}

#[test]
fn says_what_to_change_where_it_cannot_join() {
    let mut bench = Bench::new(5, 8);
    let (local, at_master) = (loopback(1, 40_000), loopback(1, 5802));
    let said = |edge: &mut Group, group: &str, local, at_master| {
        let group = group.parse().unwrap();
        match edge.join(Membership(9), group, local, at_master) {
            Some(Input::GroupFailed { membership, reason }) => {
                assert_eq!(membership, Membership(9));
                reason
            }
            other => panic!("{other:?}"),
        }
    };
    let edge = &mut bench.edge;
    let text = said(edge, "10.0.0.1:1", local, at_master);
    assert!(text.contains("no multicast address"), "{text}");
    let text = said(edge, "[ff15::1]:1", local, at_master);
    assert!(text.contains("address family"), "{text}");
    let nowhere = "[2001:db8::1]:1".parse().unwrap();
    let text = said(edge, "[ff15::1]:1", nowhere, nowhere);
    assert!(text.contains("set multicast_interface"), "{text}");
    edge.interface = Some("no-such-one".into());
    let text = said(edge, "239.255.77.5:1", local, at_master);
    assert!(text.contains("`ip link` shows"), "{text}");
    // An address that no interface has.
    edge.interface = None;
    let text = said(
        edge,
        "239.255.77.5:1",
        "192.0.2.1:1".parse().unwrap(),
        at_master,
    );
    assert!(text.contains("no socket for the group"), "{text}");
    // An interface named by hand.
    edge.interface = Some("lo".into());
    let group = bench.group;
    assert_eq!(edge.join(Membership(10), group, local, at_master), None);
    let interface = edge.joined.as_ref().unwrap().interface.to_string();
    assert_eq!(interface, "lo");
}

#[test]
fn ipv6_in_a_network_of_its_own() {
    if std::env::var_os(INSIDE).is_some() {
        hears_and_answers_over_ipv6();
        return;
    }
    let script = "ip link set lo up && ip link add d0 type veth peer name d1 && ip link set d1 up \
                  && ip link set d0 up && ip address add fd00:77::1/64 dev d0 nodad && exec \"$0\" \"$@\"";
    let ran = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "edge::multicast::tests::ipv6_in_a_network_of_its_own",
        ])
        .env(INSIDE, "1")
        .output();
    let output = match ran {
        Ok(output) if !output.stderr.starts_with(b"unshare:") => output,
        other => {
            let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some();
            assert!(!required, "no network of its own: {other:?}");
            eprintln!("ignored: needs a network of its own: {other:?}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn hears_and_answers_over_ipv6() {
    let mut bench = Bench::new(6, 8);
    let local = SocketAddr::new(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1).into(), 0);
    let socket = master(local);
    let at_master = socket.local_addr().unwrap();
    // A group of the site, and one of the link.
    for (number, group) in [(1, "[ff15::77:1]:45801"), (2, "[ff12::77:1]:45801")] {
        bench.group = group.parse().unwrap();
        assert_eq!(bench.join(number, local, at_master), None);
        socket.send_to(b"to all", bench.group).unwrap();
        assert_eq!(bench.next(number), (vec![b"to all".to_vec()], 0));
        bench.edge.send(Membership(number), b"nack");
        let mut buffer = [0; 16];
        let (len, node) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"nack");
        socket.send_to(b"repair", node).unwrap();
        assert_eq!(bench.next(number), (vec![b"repair".to_vec()], 0));
        assert_eq!(bench.edge.rejoin(), None);
    }
}
