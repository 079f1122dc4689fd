//! A sealed channel beside the plain one over the same kind of socket, as ratios of one run.
//!
//! `cargo bench -p locus-identity`
#![expect(clippy::unwrap_used, reason = "a failed step ends the run")]
#![expect(clippy::print_stdout, reason = "the figures are its purpose")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use locus_identity::{
    CA_DAYS, CertificateAuthority, Channel, IdentityFolder, Order, ReadHalf, Socket, WriteHalf,
};

/// Bytes each way in one round; rounds of the two kinds alternate, so that both meet the same noise.
const ROUND_BYTES: usize = 64 * 1024 * 1024;
const ROUNDS: usize = 5;
const WITHIN: Duration = Duration::from_secs(30);

fn main() {
    let name = format!("locus-channel-bench-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let ca = CertificateAuthority::init(&folder, &"lab".parse().unwrap(), CA_DAYS).unwrap();
    let identity = |holder: &str| {
        let issued = ca.issue(&Order::new(holder.parse().unwrap())).unwrap();
        IdentityFolder::open(&issued.folder).unwrap()
    };
    let (master, node) = (identity("locsvc/m1"), identity("node/n1/1"));
    std::fs::remove_dir_all(&folder).unwrap();
    println!(
        "sealed / plain, medians of {ROUNDS} rounds of {} MiB",
        ROUND_BYTES >> 20
    );
    for (medium, pair) in [("tcp", tcp as fn() -> (Socket, Socket)), ("unix", unix)] {
        for (ways, both) in [("one way", false), ("both ways", true)] {
            for write_bytes in [300, 4096, 65_536] {
                let mut times = [Vec::new(), Vec::new()];
                for _ in 0..ROUNDS {
                    let (one, other) = pair();
                    let plain = (Channel::plain(one), Channel::plain(other));
                    times[0].push(round(plain, both, write_bytes));
                    let (one, other) = pair();
                    let sealed = thread::scope(|threads| {
                        let accept = || Channel::accept(other, &master, WITHIN).unwrap();
                        let accepting = threads.spawn(accept);
                        let connected = Channel::connect(one, &node, WITHIN).unwrap();
                        (connected, accepting.join().unwrap())
                    });
                    times[1].push(round(sealed, both, write_bytes));
                }
                let [plain, sealed] = times.map(median);
                println!(
                    "{medium:4} {ways:9} {write_bytes:5} B a write: {:.2} ({:.0} / {:.0} MB/s)",
                    plain / sealed,
                    rate(both, sealed),
                    rate(both, plain),
                );
            }
        }
    }
}

fn tcp() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    for end in [&one, &other] {
        end.set_nodelay(true).unwrap();
    }
    (one.into(), other.into())
}

fn unix() -> (Socket, Socket) {
    let (one, other) = UnixStream::pair().unwrap();
    (one.into(), other.into())
}

/// Returns the seconds that one round takes.
#[expect(clippy::disallowed_methods, reason = "a bench measures")]
fn round((one, other): (Channel, Channel), both: bool, write_bytes: usize) -> f64 {
    let start = Instant::now();
    thread::scope(|threads| {
        threads.spawn(move || send(one.writer, write_bytes));
        threads.spawn(move || receive(other.reader));
        if both {
            threads.spawn(move || send(other.writer, write_bytes));
            threads.spawn(move || receive(one.reader));
        }
    });
    start.elapsed().as_secs_f64()
}

fn send(mut writer: WriteHalf, write_bytes: usize) {
    let block = vec![0x5a; write_bytes];
    let mut left = ROUND_BYTES;
    while left > 0 {
        let len = left.min(write_bytes);
        writer.write_all(&block[..len]).unwrap();
        left -= len;
    }
    writer.finish().unwrap();
}

fn receive(mut reader: ReadHalf) {
    let mut buffer = vec![0; 256 * 1024];
    let mut got = 0;
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            len => got += len,
        }
    }
    assert_eq!(got, ROUND_BYTES);
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(both: bool, seconds: f64) -> f64 {
    let bytes = ROUND_BYTES * if both { 2 } else { 1 };
    bytes as f64 / seconds / 1e6
}
