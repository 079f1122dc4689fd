//! Connections over loopback: order, ends, what is written before a close, a node that takes nothing; what
//! TLS and the bus add stands in `secure` and `bus`.

mod bus;
mod secure;

use std::io::{Read, Write};
use std::net::TcpStream;

use crossbeam_channel::Receiver;
use locus_distribution::{Arrived, Medium};
use locus_proto::{Message, Transport, v1::Rejection};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    unicast: Unicast,
    arrivals: Receiver<Arrival>,
}

fn config(bus: &[PathBuf]) -> DistributionConfig {
    DistributionConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        bus: bus.to_vec(),
        transport: Transport::Auto,
        multicast: None,
        reload_above: None,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(&config(&[]), Security::Insecure)
    }

    fn with(config: &DistributionConfig, security: Security) -> Self {
        let (inbox, arrivals) = bounded(64);
        let unicast = Unicast::start(config, security, inbox, Clock::start()).unwrap();
        Self { unicast, arrivals }
    }

    fn connect(&self) -> (TcpStream, Peer) {
        let stream = TcpStream::connect(self.unicast.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (peer, arrived) = self.connected();
        let expected = Arrived {
            address: stream.local_addr().unwrap().to_string(),
            medium: Medium::Tcp,
            identity: None,
        };
        assert_eq!(arrived, expected);
        (stream, peer)
    }

    fn connected(&self) -> (Peer, Arrived) {
        let Input::Connected { peer, arrived } = self.next() else {
            panic!("connected");
        };
        (peer, arrived)
    }

    fn next(&self) -> Input {
        let Ok(Arrival::Input(input)) = self.arrivals.recv_timeout(DEADLINE) else {
            panic!("an input");
        };
        input
    }
}

/// Waits until `is_so`, at most [`DEADLINE`].
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::start();
    let deadline = clock.now().plus(DEADLINE);
    while !is_so() {
        assert!(clock.now() < deadline, "{what}");
        thread::yield_now();
    }
}

fn message(number: usize) -> Message {
    let reason = number.to_string();
    Message::Rejection(Rejection { reason })
}

fn transmit(peer: Peer, bytes: Vec<u8>, counted: bool) -> Transmit {
    let bytes = bytes.into();
    Transmit {
        peer,
        bytes,
        counted,
    }
}

#[test]
fn messages_come_in_order_and_the_end_behind_them() {
    let bench = Bench::new();
    let (mut stream, peer) = bench.connect();
    let bytes: Vec<u8> = (0..100)
        .flat_map(|number| message(number).to_bytes())
        .collect();
    for part in bytes.chunks(7) {
        stream.write_all(part).unwrap();
    }
    for number in 0..100 {
        let message = Box::new(message(number));
        assert_eq!(bench.next(), Input::Message { peer, message });
    }
    drop(stream);
    assert_eq!(bench.next(), Input::Closed { peer });
}

#[test]
fn what_was_queued_is_written_before_the_close() {
    let bench = Bench::new();
    let (mut stream, peer) = bench.connect();
    let counted = message(1).to_bytes();
    bench
        .unicast
        .transmit(transmit(peer, counted.clone(), true));
    let last = message(2).to_bytes();
    bench.unicast.transmit(transmit(peer, last.clone(), false));
    bench.unicast.close(peer);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received, [counted.clone(), last].concat());
    let bytes = counted.len();
    assert_eq!(bench.next(), Input::Sent { peer, bytes });
    assert_eq!(bench.next(), Input::Closed { peer });
    // To whom nobody listens nothing is sent.
    bench.unicast.transmit(transmit(peer, vec![0], true));
}

/// Bytes that fill the sockets' buffers on both sides, and more.
fn block_writer(bench: &Bench, peer: Peer) {
    bench
        .unicast
        .transmit(transmit(peer, vec![0; 16 * 1024 * 1024], false));
}

#[test]
fn a_connection_counts_until_it_has_ended() {
    let bench = Bench::new();
    let (mut stream, peer) = bench.connect();
    block_writer(&bench, peer);
    bench.unicast.close(peer);
    // It still has its threads and bytes: it takes one of the places.
    assert_eq!(bench.unicast.shared.connections().len(), 1);
    bench.unicast.transmit(transmit(peer, vec![0], true)); // for nobody
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 16 * 1024 * 1024);
    assert_eq!(bench.next(), Input::Closed { peer });
    // The reader forgets it behind its last word.
    while !bench.unicast.shared.connections().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn what_waits_for_one_node_is_bounded_in_bytes_too() {
    let bench = Bench::new();
    let (stream, peer) = bench.connect();
    for _ in 0..QUEUE_BYTES_MAX / (1024 * 1024) + 32 {
        bench
            .unicast
            .transmit(transmit(peer, vec![0; 1024 * 1024], false));
    }
    assert_eq!(bench.next(), Input::Closed { peer });
    assert_eq!(bench.unicast.counters().dropped_total, 1);
    drop(stream);
}

#[test]
fn a_node_that_takes_nothing_is_dropped() {
    let bench = Bench::new();
    let (stream, peer) = bench.connect();
    let bytes: Arc<[u8]> = vec![0; 64 * 1024].into();
    // More than the sockets' buffers and the queue hold.
    for _ in 0..QUEUE_MAX + 1024 {
        let bytes = Arc::clone(&bytes);
        bench.unicast.transmit(Transmit {
            peer,
            bytes,
            counted: false,
        });
    }
    assert_eq!(bench.next(), Input::Closed { peer });
    drop(stream);
}

#[test]
fn bytes_that_are_no_message_are_counted_and_end_the_connection() {
    let bench = Bench::new();
    let mut unknown_version = message(1).to_bytes();
    unknown_version[4] = 2;
    for (number, bytes) in (1..).zip([b"nonsense, twelve".to_vec(), unknown_version]) {
        let (mut stream, peer) = bench.connect();
        stream.write_all(&bytes).unwrap();
        assert_eq!(bench.next(), Input::Closed { peer });
        assert_eq!(bench.unicast.counters().refused_total, number);
    }
}

#[test]
fn nobody_is_accepted_after_the_stop() {
    let Bench { unicast, arrivals } = Bench::new();
    let address = unicast.address();
    unicast.stop();
    assert!(TcpStream::connect(address).is_err());
    assert!(arrivals.try_recv().is_err());
}
