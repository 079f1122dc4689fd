//! bench-slice: accepted → visible on both nodes at 1,000 updates a second, and one look-up beside a plain
//! copy of the same bytes. Only measures.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use locus_bench::Random;
use locus_lab::{
    Cluster, Durations, FOLLOW_DEADLINE, Figure, Lab, View, Watcher, milliseconds, provisioned_aor,
    wait, write_figures,
};
use serde_json::json;

const AORS: usize = 100_000;
const UPDATES_PER_SECOND: u32 = 1_000;
/// Clients that share the rate; each waits for its answer before it sends again.
const CLIENTS: u32 = 8;
const DURATION: Duration = Duration::from_secs(20);
/// Look-ups and copies that are timed, one by one: in a row they would overlap in the processor, and a
/// look-up among the work of a SIP message has nothing to overlap with.
const LOOK_UPS: usize = 200_000;

fn main() -> ExitCode {
    let Some(lab) = Lab::start("bench-slice") else {
        return ExitCode::FAILURE;
    };
    let mut cluster = Cluster::prepare(lab, 0);
    cluster.locsvc.settings().set("records_max", "150000");
    cluster.n1.settings().set("records_max", "150000");
    cluster.n2.settings().set("records_max", "150000");
    cluster.locsvc.start();
    cluster.n1.start_agent();
    cluster.n2.start_agent();
    println!("{AORS} addresses-of-record …");
    let level = cluster.locsvc.provision(0, AORS, 7_100, |_| {});
    cluster.wait_visible(level);
    cluster.wait_coherent();
    let (visible, achieved) = measure_visible(&cluster);
    let fdatasync = measure_fdatasync(&cluster);
    let (look_up, copy) = measure_look_up(&mut cluster.n1.view());
    report(&visible, achieved, &fdatasync, look_up, copy);
    ExitCode::SUCCESS
}

/// Times over all (update, node) pairs, and the updates a second that came about.
fn measure_visible(cluster: &Cluster) -> (Durations, f64) {
    println!(
        "{UPDATES_PER_SECOND} updates a second for {} s …",
        DURATION.as_secs()
    );
    let watchers = [&cluster.n1, &cluster.n2].map(|node| Watcher::start(node.table().path()));
    let start = wait::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let api = cluster.locsvc.another_api();
            thread::spawn(move || {
                let mut random = Random::new(client.into());
                let every = Duration::from_secs(1) * CLIENTS / UPDATES_PER_SECOND;
                let first = Duration::from_secs(1) * client / UPDATES_PER_SECOND;
                let mut accepted: Vec<(u64, Instant)> = Vec::new();
                for n in 0_u32.. {
                    let due = first + every * n;
                    if due >= DURATION {
                        break;
                    }
                    // Open loop: a late answer does not move the requests after it.
                    wait::pause(due.saturating_sub(start.elapsed()));
                    let uri = format!("sip:u{client}-{n}@10.77.0.22:7101");
                    let body = json!({ "contacts": [{ "uri": uri, "q": 1.0 }] });
                    let path = format!("/v1/aors/{}", provisioned_aor(random.below(AORS)));
                    // Before the request is written: the time includes its way to locsvc.
                    let when = wait::now();
                    accepted.push((api.put(&path, &body).level(), when));
                }
                accepted
            })
        })
        .collect();
    let accepted: Vec<(u64, Instant)> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("a client's updates are accepted"))
        .collect();
    let seconds = start.elapsed().as_secs_f64();
    let last = accepted
        .iter()
        .map(|(level, _)| *level)
        .max()
        .unwrap_or_default();
    cluster.n1.wait_level(last, FOLLOW_DEADLINE);
    cluster.n2.wait_level(last, FOLLOW_DEADLINE);
    // The watchers look once more after this moment.
    let end = wait::now();
    wait::until("the watchers' last look", FOLLOW_DEADLINE, || {
        end.elapsed() > Duration::from_millis(20)
    });
    let seen = watchers.map(Watcher::finish);
    let visible = seen
        .iter()
        .flat_map(|seen| {
            accepted.iter().filter_map(|(level, when)| {
                Some(seen.when(*level)?.saturating_duration_since(*when))
            })
        })
        .collect::<Durations>();
    assert_eq!(
        visible.count(),
        accepted.len() * 2,
        "every update was seen on both nodes"
    );
    let updates = u32::try_from(accepted.len()).map_or(f64::INFINITY, f64::from);
    (visible, updates / seconds)
}

/// One appended block and fdatasync at a time, on the file system of locsvc's log.
fn measure_fdatasync(cluster: &Cluster) -> Durations {
    let path = cluster.locsvc.data().join("fdatasync");
    let mut file = File::create(&path).expect("the data folder can be written");
    (0..300)
        .map(|_| {
            let start = wait::now();
            file.write_all(&[1; 400])
                .expect("the data folder can be written");
            file.sync_data().expect("the data folder can be synced");
            start.elapsed()
        })
        .collect()
}

/// p50 of one look-up by the product's reader, and of a copy of the same bytes found by two accesses: an
/// array element that says where, and the bytes (key and value) themselves. What reading the clock costs
/// is taken off both.
fn measure_look_up(view: &mut View) -> (Duration, Duration) {
    println!("{LOOK_UPS} look-ups of random keys …");
    let (mut arena, mut index, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (key, (_, value)) in view.dump() {
        index.push((arena.len(), key.len() + value.len()));
        arena.extend_from_slice(&key);
        arena.extend_from_slice(&value);
        keys.push(key);
    }
    let mut random = Random::new(7);
    let mut buffer = vec![0_u8; 64 * 1024];
    let (mut clock, mut look_ups, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LOOK_UPS {
        let key = black_box(&keys[random.below(keys.len())]);
        // The key is at hand when a message has been parsed.
        black_box(key.iter().fold(0, |sum, byte| sum ^ byte));
        let start = wait::now();
        black_box(view.value_bytes(key));
        look_ups.push(start.elapsed());
        let at = random.below(keys.len());
        let start = wait::now();
        let (from, length) = index[black_box(at)];
        buffer[..length].copy_from_slice(&arena[from..from + length]);
        black_box(&mut buffer);
        copies.push(start.elapsed());
        let start = wait::now();
        clock.push(start.elapsed());
    }
    let p50 = |times: Vec<Duration>| times.into_iter().collect::<Durations>().quantile(50);
    let clock = p50(clock);
    (
        p50(look_ups).saturating_sub(clock),
        p50(copies).saturating_sub(clock),
    )
}

fn report(
    visible: &Durations,
    achieved: f64,
    fdatasync: &Durations,
    look_up: Duration,
    copy: Duration,
) {
    let p99 = milliseconds(visible.quantile(99));
    println!(
        "\naccepted → visible, {achieved:.0} updates a second, {} (update, node) pairs",
        visible.count()
    );
    println!(
        "  p50 {:.2} ms   p99 {p99:.2} ms   max {:.2} ms   (floor for p99: 20 ms; the way to locsvc included)",
        milliseconds(visible.quantile(50)),
        milliseconds(visible.max())
    );
    let sync = milliseconds(fdatasync.quantile(50));
    println!(
        "  fdatasync of this disk: p50 {sync:.2} ms   p99 {:.2} ms",
        milliseconds(fdatasync.quantile(99))
    );
    let nanoseconds = |duration: Duration| duration.as_secs_f64() * 1e9;
    println!(
        "one look-up among {AORS} records: p50 {:.0} ns",
        nanoseconds(look_up)
    );
    println!(
        "  a copy of the same bytes by two plain accesses: {:.0} ns, ratio {:.2}",
        nanoseconds(copy),
        nanoseconds(look_up) / nanoseconds(copy)
    );
    let path = write_figures(
        "bench-slice",
        &[
            Figure {
                name: "visible_p99_ms",
                value: p99,
                unit: "ms",
                baseline: Some(sync),
            },
            Figure {
                name: "lookup_p50_ns",
                value: nanoseconds(look_up),
                unit: "ns",
                baseline: Some(nanoseconds(copy)),
            },
        ],
    );
    println!("  {}", path.display());
}
