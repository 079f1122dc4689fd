//! Channels under load, at their ends, and against callers who mean no good.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use locus_identity::{Channel, HandshakeError, IdentityFolder, Socket};

use crate::common::{Cluster, WITHIN, meet_over, met};

/// More than all buffers between the two hold.
const MANY_BYTES: usize = 16 * 1024 * 1024;

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    (one, other)
}

/// Bytes of which each tells where it stands, and which side sent it.
fn pattern(salt: usize, from: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at ^ (at >> 8) ^ (at >> 16) ^ salt) & 0xff).unwrap();
    (from..from + len).map(byte).collect()
}

/// Sends [`MANY_BYTES`] each way at once, in pieces of many sizes; each byte must come where it belongs.
fn busy_both_ways(one: Channel, other: Channel) {
    fn send(mut channel: locus_identity::WriteHalf, salt: usize) {
        let sizes = [1, 33, 1000, 16_384, 70_000, 300_000];
        let mut sent = 0;
        for size in sizes.into_iter().cycle() {
            let len = usize::min(size, MANY_BYTES - sent);
            channel.write_all(&pattern(salt, sent, len)).unwrap();
            sent += len;
            if sent == MANY_BYTES {
                break;
            }
        }
        channel.finish().unwrap();
    }
    fn receive(mut channel: locus_identity::ReadHalf, salt: usize) {
        let mut buffer = vec![0; 200_000];
        let mut got = 0;
        loop {
            let len = channel.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            assert_eq!(buffer[..len], pattern(salt, got, len), "from byte {got}");
            got += len;
        }
        assert_eq!(got, MANY_BYTES);
    }
    thread::scope(|threads| {
        threads.spawn(move || send(one.writer, 1));
        threads.spawn(move || receive(one.reader, 2));
        threads.spawn(move || send(other.writer, 2));
        threads.spawn(move || receive(other.reader, 1));
    });
}

#[test]
fn both_halves_are_busy_at_once_sealed_or_plain_on_either_kind_of_socket() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (one, other) = tcp_pair();
    let (one, other) = meet_over(&node, one, &master, other);
    busy_both_ways(one.unwrap(), other.unwrap());
    let (one, other) = met(&node, &master);
    busy_both_ways(one, other);
    let (one, other) = tcp_pair();
    busy_both_ways(Channel::plain(one), Channel::plain(other));
    let (one, other) = UnixStream::pair().unwrap();
    busy_both_ways(Channel::plain(one), Channel::plain(other));
}

#[test]
fn one_half_goes_on_when_the_other_has_finished() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let plain = UnixStream::pair().unwrap();
    for (one, mut other) in [
        met(&node, &master),
        (Channel::plain(plain.0), Channel::plain(plain.1)),
    ] {
        assert_eq!(one.peer().is_some(), other.peer().is_some());
        let mut reader = one.reader;
        one.writer.finish().unwrap();
        assert_eq!(other.reader.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(other.reader.read(&mut [0; 8]).unwrap(), 0);
        other.writer.write_all(b"still here").unwrap();
        other.writer.finish().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
    }
}

#[test]
fn an_end_without_farewell_is_an_end() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (mut one, mut other) = met(&node, &master);
    one.writer.write_all(b"last words").unwrap();
    one.socket().shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    other.reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
}

#[test]
fn a_closer_wakes_both_halves() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (one, other) = met(&node, &master);
    let closer = one.closer();
    let (mut reader, mut writer) = (one.reader, one.writer);
    let (started, both_started) = mpsc::channel();
    let reading = started.clone();
    thread::scope(|threads| {
        let read = threads.spawn(move || {
            reading.send(()).unwrap();
            reader.read(&mut [0; 8])
        });
        let write = threads.spawn(move || {
            started.send(()).unwrap();
            // The other side reads nothing.
            writer.write_all(&vec![0; MANY_BYTES]).unwrap_err();
            writer.write_all(b"more").unwrap_err().kind()
        });
        both_started.recv().unwrap();
        both_started.recv().unwrap();
        closer.close();
        closer.clone().close();
        assert_eq!(read.join().unwrap().unwrap(), 0);
        assert_eq!(write.join().unwrap(), io::ErrorKind::BrokenPipe);
    });
    drop(other);
}

#[test]
fn a_write_that_timed_out_is_the_last_one() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let plain = UnixStream::pair().unwrap();
    for (mut one, other) in [
        met(&node, &master),
        (Channel::plain(plain.0), Channel::plain(plain.1)),
    ] {
        let limit = Some(Duration::from_millis(50));
        one.socket().set_write_timeout(limit).unwrap();
        let error = one.writer.write_all(&vec![0; MANY_BYTES]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let error = one.writer.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(other);
    }
}

/// Whoever is let in and then sends without end is held by the socket, not kept in memory: the writer is stuck after as
/// much as the socket's buffers take.
#[test]
fn what_nobody_reads_stays_with_the_sender() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (mut one, mut other) = met(&node, &master);
    one.writer.write_all(&[7; 1024]).unwrap();
    assert_eq!(other.reader.read(&mut [0; 16]).unwrap(), 16);
    let limit = Some(Duration::from_millis(100));
    one.socket().set_write_timeout(limit).unwrap();
    let mut sent = 0;
    while one.writer.write_all(&[7; 4096]).is_ok() {
        sent += 4096;
        assert!(sent < 4 * 1024 * 1024, "a Unix socket buffers far less");
    }
}

/// Sends `bytes` again and again until that fails; returns how much went.
fn flood(mut socket: impl Write, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(len) = socket.write(bytes) {
        sent += len;
        assert!(sent < 64 * 1024 * 1024, "nobody stops it");
    }
    sent
}

fn accept(socket: impl Into<Socket>, master: &IdentityFolder) -> HandshakeError {
    Channel::accept(socket, master, WITHIN).unwrap_err()
}

#[test]
fn a_flood_before_the_handshake_is_cut_off() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    // A handshake message that is announced as 16 MiB long, in records of 16 KiB.
    let mut endless = vec![22, 3, 3, 0x40, 0, 1, 0xff, 0xff, 0xff];
    endless.resize(5 + 0x4000, 0);
    let zeros = vec![0; 16 * 1024];
    let request = b"GET / HTTP/1.1\r\nHost: m1\r\n\r\n".repeat(512);
    for bytes in [&endless, &zeros, &request] {
        let (one, other) = UnixStream::pair().unwrap();
        thread::scope(|threads| {
            let flooding = threads.spawn(|| flood(one, bytes));
            let error = accept(other, &master);
            assert!(
                matches!(error, HandshakeError::NotTls | HandshakeError::Tls(_)),
                "{error:?}"
            );
            let sent = flooding.join().unwrap();
            assert!(sent < 2 * 1024 * 1024, "{sent} bytes were taken");
        });
    }
}

#[test]
fn plain_bytes_at_a_tls_port_are_named_so() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    // Our own protocol with `insecure = true` at one end only, both ways round.
    let (mut one, other) = UnixStream::pair().unwrap();
    one.write_all(b"LOCU\x01\x01\0\0\x10\0\0\0").unwrap();
    drop(one);
    let error = accept(other, &master).to_string();
    assert!(error.contains("insecure = true"), "{error}");
    let (one, mut other) = UnixStream::pair().unwrap();
    other.write_all(b"LOCU\x01\x02\0\0\x10\0\0\0").unwrap();
    let error = Channel::connect(one, &node, WITHIN).unwrap_err();
    assert!(matches!(error, HandshakeError::NotTls), "{error:?}");
}

/// A ClientHello as a TLS 1.2 client sends it (RFC 5246 §7.4.1.2), without supported_versions.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [
        0u8, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]); // random
    body.push(0); // no session
    body.extend([0, 2, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // no compression
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    record
}

#[test]
fn a_client_of_tls_1_2_is_refused() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let (mut one, other) = UnixStream::pair().unwrap();
    one.write_all(&hello_of_tls_1_2()).unwrap();
    one.shutdown(Shutdown::Write).unwrap();
    let error = accept(other, &master);
    assert!(matches!(error, HandshakeError::TooOld(_)), "{error:?}");
    let mut answer = Vec::new();
    one.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "alert protocol_version");
}

/// A byte now and then, each well within what one read may take; the handshake's own time ends it.
#[test]
fn a_slow_handshake_ends() {
    let lab = Cluster::new();
    let master = lab.identity("locsvc/m1");
    let within = Duration::from_millis(300);
    let (mut one, other) = UnixStream::pair().unwrap();
    thread::scope(|threads| {
        let dripping = threads.spawn(move || {
            let (_never, pause) = mpsc::channel::<()>();
            let hello = hello_of_tls_1_2();
            let start = [22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb].into_iter();
            for byte in start.chain(hello.into_iter().cycle()) {
                if one.write_all(&[byte]).is_err() {
                    return;
                }
                pause.recv_timeout(Duration::from_millis(10)).ok();
            }
        });
        let error = Channel::accept(other, &master, within).unwrap_err();
        assert!(
            matches!(error, HandshakeError::TooSlow(limit) if limit == within),
            "{error:?}"
        );
        dripping.join().unwrap();
    });
    // One who says nothing at all, and one who goes away.
    let (one, other) = UnixStream::pair().unwrap();
    let error = Channel::accept(other, &master, within).unwrap_err();
    assert!(matches!(error, HandshakeError::TooSlow(_)), "{error:?}");
    drop(one);
    let (one, other) = UnixStream::pair().unwrap();
    drop(one);
    let error = accept(other, &master);
    assert!(matches!(error, HandshakeError::Closed), "{error:?}");
}

/// With an established channel in the hands of somebody who breaks the seal.
#[test]
fn a_broken_seal_is_an_error_and_not_an_end() {
    let lab = Cluster::new();
    let (master, node) = (lab.identity("locsvc/m1"), lab.identity("node/n1/1"));
    let (mut one, mut other) = met(&node, &master);
    one.writer.write_all(b"good").unwrap();
    let mut record = vec![23, 3, 3, 0, 32];
    record.extend([0xee; 32]);
    (&mut one.socket()).write_all(&record).unwrap();
    let mut buffer = [0; 64];
    // What came before it still comes.
    assert_eq!(other.reader.read(&mut buffer).unwrap(), 4);
    for _ in 0..2 {
        let error = other.reader.read(&mut buffer).unwrap_err().to_string();
        assert!(error.contains("the sealed stream is broken"), "{error}");
    }
}
