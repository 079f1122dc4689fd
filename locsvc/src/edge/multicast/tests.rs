//! The group's socket on loopback: what leaves reaches the group, what nodes send reaches the core, bounded.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crossbeam_channel::Receiver as Arrivals;

use super::socket::index_of;
use super::*;
use crate::config::MulticastConfig;

const DEADLINE: Duration = Duration::from_secs(20);

fn config(group: &str) -> MulticastConfig {
    MulticastConfig {
        group: group.parse().unwrap(),
        interface: None,
        port: 0,
        rate_mbit: 200,
        datagram_bytes: 1400,
    }
}

/// A member of the group on the loopback interface.
fn member() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let address = Ipv4Addr::new(239, 195, 7, 83);
    socket
        .join_multicast_v4(&address, &Ipv4Addr::LOCALHOST)
        .unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, (address, port).into())
}

fn open(group: SocketAddr) -> GroupSocket {
    let listen = "127.0.0.1:5800".parse().unwrap();
    GroupSocket::open(&config(&group.to_string()), listen).unwrap()
}

fn start(group: SocketAddr) -> (Multicast, u16, Arrivals<Arrival>) {
    let (inbox, arrivals) = bounded(WAITING_MAX * 2);
    let socket = open(group);
    let port = socket.port();
    let multicast = Multicast::start(socket, inbox, Clock::start()).unwrap();
    (multicast, port, arrivals)
}

fn datagrams(arrivals: &Arrivals<Arrival>) -> Vec<(SocketAddr, Vec<u8>)> {
    let Ok(Arrival::Input(Input::Datagrams(datagrams))) = arrivals.recv_timeout(DEADLINE) else {
        panic!("datagrams");
    };
    datagrams
}

#[test]
fn the_group_hears_and_is_heard() {
    let (node, group) = member();
    let (multicast, port, arrivals) = start(group);
    let bytes: Arc<[u8]> = vec![7; 1400].into();
    let to = GroupTarget::Group;
    multicast.transmit(&GroupDatagram { to, bytes });
    let mut block = [0; 2048];
    let (len, from) = node.recv_from(&mut block).unwrap();
    assert_eq!(block[..len], [7; 1400]);
    // From the address that nodes connect to, and from the port that they were told.
    assert_eq!(from, (Ipv4Addr::LOCALHOST, port).into());
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    ours.set_read_timeout(Some(DEADLINE)).unwrap();
    ours.send_to(b"nack", from).unwrap();
    let heard = datagrams(&arrivals);
    assert_eq!(heard, [(ours.local_addr().unwrap(), b"nack".to_vec())]);
    multicast.taken();
    // A repair for one node alone.
    let bytes: Arc<[u8]> = b"again".to_vec().into();
    let to = GroupTarget::Node(heard[0].0);
    multicast.transmit(&GroupDatagram { to, bytes });
    assert_eq!(ours.recv(&mut block).unwrap(), 5);
    let counters = multicast.counters();
    assert_eq!((counters.sent_total, counters.sent_bytes_total), (2, 1405));
    assert_eq!((counters.received_total, counters.failed_total), (1, 0));
    multicast.stop();
}

/// IPv6 needs an interface that has a route to groups, which loopback has not: the lab has one.
#[test]
fn the_group_is_sent_by_the_interface_that_is_named() {
    let (node, group) = member();
    let named = MulticastConfig {
        interface: Some("lo".into()),
        ..config(&group.to_string())
    };
    let everywhere = "0.0.0.0:5800".parse().unwrap();
    let socket = GroupSocket::open(&named, everywhere).unwrap();
    let (inbox, _arrivals) = bounded(1);
    let port = socket.port();
    let multicast = Multicast::start(socket, inbox, Clock::start()).unwrap();
    let bytes: Arc<[u8]> = b"data".to_vec().into();
    let to = GroupTarget::Group;
    multicast.transmit(&GroupDatagram { to, bytes });
    let mut block = [0; 64];
    let (len, from) = node.recv_from(&mut block).unwrap();
    assert_eq!((&block[..len], from.port()), (&b"data"[..], port));
    multicast.stop();
}

#[test]
fn what_nobody_takes_is_bounded_and_counted() {
    let (_node, group) = member();
    let (multicast, port, arrivals) = start(group);
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    ours.send_to(&[1; NODE_DATAGRAM_BYTES_MAX + 1], to).unwrap();
    let mut sent = 0;
    // One after the other, so that the system's buffer loses none of them.
    while multicast.counters().dropped_total == 0 {
        ours.send_to(&[1; NODE_DATAGRAM_BYTES_MAX], to).unwrap();
        sent += 1;
        let seen = |counters: MulticastCounters| counters.received_total + counters.dropped_total;
        while seen(multicast.counters()) < sent {
            thread::yield_now();
        }
    }
    let counters = multicast.counters();
    assert_eq!(counters.oversized_total, 1);
    assert_eq!(arrivals.len(), WAITING_MAX);
    // When the core takes one, one more comes.
    datagrams(&arrivals);
    multicast.taken();
    ours.send_to(b"last", to).unwrap();
    let mut last = Vec::new();
    for _ in 0..WAITING_MAX {
        last = datagrams(&arrivals);
    }
    assert_eq!(last[0].1, b"last");
    multicast.stop();
}

#[test]
fn what_is_not_there_is_said() {
    let listen: SocketAddr = "127.0.0.1:5800".parse().unwrap();
    let named = MulticastConfig {
        interface: Some("nowhere0".into()),
        ..config("239.195.7.83:5801")
    };
    let error = GroupSocket::open(&named, listen).unwrap_err().to_string();
    assert!(error.contains("there is no interface nowhere0"), "{error}");
    let foreign = GroupSocket::open(
        &config("[ff15::1]:5801"),
        "[2001:db8::1]:1".parse().unwrap(),
    );
    assert!(matches!(foreign, Err(StartMulticastError::NoAddress(_))));
    let elsewhere = "192.0.2.1:5800".parse().unwrap();
    let foreign = GroupSocket::open(&config("239.195.7.83:5801"), elsewhere);
    assert!(matches!(foreign, Err(StartMulticastError::NoAddress(_))));
    let (_node, group) = member();
    let taken = open(group).port();
    let held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    assert_ne!(taken, port);
    let again = MulticastConfig {
        port,
        ..config("239.195.7.83:5801")
    };
    let error = GroupSocket::open(&again, listen).unwrap_err().to_string();
    assert!(error.contains("(distribution.multicast.port)"), "{error}");
}

#[test]
fn the_kernels_list_of_addresses_is_read() {
    let list = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                00000000000000000000000000000001 01 80 10 80       lo\n\
                fd000000000000000000000000000005 1f 40 00 80     eth1\n";
    assert_eq!(index_of(list, "::1".parse().unwrap()), Some(1));
    assert_eq!(index_of(list, "fd00::5".parse().unwrap()), Some(31));
    assert_eq!(index_of(list, "fd00::6".parse().unwrap()), None);
    assert_eq!(index_of("nonsense\n\n", "::1".parse().unwrap()), None);
}
