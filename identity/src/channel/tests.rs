//! What TLS does by itself in the middle of a channel: new keys, while both halves are busy.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{Channel, ReadHalf, WriteHalf};
use crate::{CA_DAYS, CertificateAuthority, IdentityFolder, Order};

const WITHIN: Duration = Duration::from_secs(30);
const BLOCK: [u8; 5000] = [0x5a; 5000];
const BLOCKS: usize = 2000;

struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Two ends of a sealed channel.
fn pair(test: &str) -> (Channel, Channel) {
    let name = format!("locus-channel-{test}-{}", std::process::id());
    let temp = Temp(std::env::temp_dir().join(name));
    let ca = CertificateAuthority::init(&temp.0.join("ca"), &"lab".parse().unwrap(), CA_DAYS);
    let ca = ca.unwrap();
    let identity = |holder: &str| {
        let issued = ca.issue(&Order::new(holder.parse().unwrap())).unwrap();
        IdentityFolder::open(&issued.folder).unwrap()
    };
    let (master, node) = (identity("locsvc/m1"), identity("node/n1/1"));
    let (one, other) = UnixStream::pair().unwrap();
    thread::scope(|threads| {
        let accepting = threads.spawn(|| Channel::accept(other, &master, WITHIN).unwrap());
        let connected = Channel::connect(one, &node, WITHIN).unwrap();
        (connected, accepting.join().unwrap())
    })
}

fn new_keys(writer: &WriteHalf) {
    let tls = writer.tls.as_ref().unwrap();
    tls.lock().unwrap().refresh_traffic_keys().unwrap();
}

/// Both sides renew their keys again and again, and each makes the other renew its own.
#[test]
fn keys_change_while_both_halves_are_busy() {
    fn send(mut writer: WriteHalf) {
        for number in 0..BLOCKS {
            if number % 50 == 7 {
                new_keys(&writer);
            }
            writer.write_all(&BLOCK).unwrap();
        }
        writer.finish().unwrap();
    }
    fn receive(mut reader: ReadHalf) {
        let mut block = [0; BLOCK.len()];
        for _ in 0..BLOCKS {
            reader.read_exact(&mut block).unwrap();
            assert_eq!(block, BLOCK);
        }
        assert_eq!(reader.read(&mut block).unwrap(), 0);
    }
    let (one, other) = pair("keys");
    thread::scope(|threads| {
        threads.spawn(move || send(one.writer));
        threads.spawn(move || receive(one.reader));
        threads.spawn(move || send(other.writer));
        threads.spawn(move || receive(other.reader));
    });
}

/// The reading half answers nothing by itself: its side's new keys come with its next bytes.
#[test]
fn the_answer_to_new_keys_goes_out_with_the_next_write() {
    let (mut one, mut other) = pair("answer");
    for round in 0..3 {
        new_keys(&one.writer);
        one.writer.write_all(&[round]).unwrap();
        let mut byte = [0];
        other.reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
        other.writer.write_all(&[round, round]).unwrap();
        let mut bytes = [9; 2];
        one.reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [round; 2]);
    }
}
