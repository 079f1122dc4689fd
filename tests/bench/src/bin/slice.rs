//! bench-slice: accepted → visible on both nodes at 1,000 updates a second, and one look-up beside a plain
//! copy of the same bytes. Only measures.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot measure ends; a table for people"
)]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use locus_bench::{
    Appends, Awaited, CHAIN, Client, LookUp, Sent, Sightings, Subscriber, Watcher, float,
    folder_bytes, is_quick, load_averages, provision,
};
use locus_lab::{Cluster, Durations, Figure, Lab, milliseconds, wait, write_figures};

const AORS: usize = 100_000;
/// Room of all tables for them.
const RECORDS_MAX: &str = "150000";
const UPDATES_PER_SECOND: usize = 1_000;
/// Kept-alive connections that share the rate; each waits for its answer before it sends again.
const CLIENTS: usize = 16;
/// The API inside locsvc's namespace.
const API: &str = "127.0.0.1:8800";
/// The load runs in slices of this length; appends alone are measured between them.
const SLICE: Duration = Duration::from_secs(5);
const SLICES: usize = 6;
const APPENDS: usize = 100;
/// A send that began this much after its time counts as late: the rate was not kept.
const LATE: Duration = Duration::from_millis(2);
/// Makes this program measure look-ups in the folder that follows, and nothing else.
const LOOK_UP: &str = "--look-up";
/// Processes that are tried until one has huge pages for the copy.
const ATTEMPTS: usize = 16;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => bench(),
        (Some(word), Some(folder)) if word == LOOK_UP => {
            println!("{}", LookUp::measure(Path::new(&folder), AORS).to_json());
            ExitCode::SUCCESS
        }
        _ => {
            println!("bench-slice takes no arguments");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> ExitCode {
    let Some(lab) = Lab::start("bench-slice") else {
        return ExitCode::FAILURE;
    };
    println!("load averages before: {}", load_averages());
    let mut cluster = Cluster::prepare(lab, 0);
    cluster.locsvc.settings().set("records_max", RECORDS_MAX);
    cluster.n1.settings().set("records_max", RECORDS_MAX);
    cluster.n2.settings().set("records_max", RECORDS_MAX);
    cluster.locsvc.start();
    cluster.n1.start_agent();
    cluster.n2.start_agent();
    println!("{AORS} addresses-of-record …");
    let level = provision(&cluster.locsvc, AORS);
    cluster.wait_visible(level);
    cluster.wait_coherent();
    println!("look-ups …");
    let look_up = measure_look_up(cluster.n1.table().path());
    let visible = measure_visible(&cluster);
    report(&visible, &look_up);
    ExitCode::SUCCESS
}

/// What became of the updates.
struct Visible {
    /// From just before the request was written.
    from_begun: Durations,
    /// From when it had been written.
    from_written: Durations,
    updates: usize,
    missing: usize,
    late: usize,
    per_second: f64,
    gaps: [Durations; 2],
    append: Durations,
    append_bytes: usize,
}

fn measure_visible(cluster: &Cluster) -> Visible {
    let slices = if is_quick() { 1 } else { SLICES };
    println!(
        "{slices} slices of {} s, {UPDATES_PER_SECOND} updates a second …",
        SLICE.as_secs()
    );
    let watchers = [&cluster.n1, &cluster.n2].map(|node| Watcher::start(node.table().path()));
    let namespace = cluster.lab.host("locsvc");
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::connect(namespace, API))
        .collect();
    let mut appends = Appends::create(&cluster.lab.subfolder("append").join("file"));
    let (mut sent, mut append_bytes) = (Vec::new(), 0);
    let (mut late, mut busy) = (0, Duration::ZERO);
    for slice in 0..slices {
        let before = folder_bytes(cluster.locsvc.data());
        let start = wait::now();
        let slice_sent = run_slice(&mut clients, &watchers, slice, start);
        busy += start.elapsed();
        let grown = folder_bytes(cluster.locsvc.data()).saturating_sub(before);
        append_bytes = usize::try_from(grown).unwrap_or(0) / slice_sent.len().max(1);
        late += slice_sent.iter().filter(|(_, _, late)| *late).count();
        sent.extend(slice_sent.into_iter().map(|(update, at, _)| (update, at)));
        appends.run(APPENDS, append_bytes);
    }
    let seen = watchers.map(Watcher::finish);
    let at: HashMap<usize, Sent> = sent.iter().copied().collect();
    let since = |moment: fn(&Sent) -> Instant| -> Durations {
        let sightings = seen.iter().flat_map(|one| &one.seen);
        sightings
            .map(|(update, when)| when.saturating_duration_since(moment(&at[update])))
            .collect()
    };
    Visible {
        from_begun: since(|sent| sent.begun),
        from_written: since(|sent| sent.written),
        updates: sent.len(),
        missing: seen.iter().map(|one| one.missing.len()).sum(),
        late,
        per_second: float(sent.len()) / busy.as_secs_f64(),
        gaps: seen.map(|one: Sightings| one.gaps),
        append: appends.finish(),
        append_bytes,
    }
}

/// One slice of the load, open loop: a late answer does not move the times of the requests after it.
/// Returns each update, when it was sent, and whether that was too late.
fn run_slice(
    clients: &mut [Client],
    watchers: &[Watcher; 2],
    slice: usize,
    start: Instant,
) -> Vec<(usize, Sent, bool)> {
    let every = Duration::from_secs(1) / u32::try_from(UPDATES_PER_SECOND).unwrap_or(u32::MAX);
    let updates = UPDATES_PER_SECOND * usize::try_from(SLICE.as_secs()).unwrap_or(0);
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(first, client)| {
                let orders = watchers.each_ref().map(Watcher::orders);
                scope.spawn(move || {
                    let mut sent = Vec::new();
                    for turn in (first..updates).step_by(CLIENTS) {
                        let update = slice * updates + turn;
                        let due = every * u32::try_from(turn).unwrap_or(u32::MAX);
                        let (path, body, awaited) = change(update);
                        for order in &orders {
                            order
                                .send(awaited.clone())
                                .unwrap_or_else(|_| panic!("a watcher has ended"));
                        }
                        wait::pause(due.saturating_sub(start.elapsed()));
                        let at = client.put(&path, &body);
                        let behind = at.begun.saturating_duration_since(start + due);
                        sent.push((update, at, behind > LATE));
                    }
                    sent
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// Update number `update`: a new contact for a subscriber that has not had one in this run.
fn change(update: usize) -> (String, serde_json::Value, Awaited) {
    // 7,919 is a prime that does not divide AORS: all subscribers come once before one comes twice.
    let subscriber = Subscriber(update * 7_919 % AORS);
    let turn = 1 + update;
    let path = format!("/v1/aors/{}", subscriber.aor());
    let awaited = Awaited {
        update,
        key: subscriber.key(),
        contact: subscriber.contact(turn),
    };
    (path, subscriber.body(turn), awaited)
}

/// Measured in a process of its own, as each Kamailio worker is one, because only from outside can the
/// copy's memory be given huge pages, as the table has them: by settings of the C library's allocator.
/// That of Debian 12 is seen to heed them in some processes only, hence the attempts.
fn measure_look_up(folder: &Path) -> LookUp {
    let mut found = look_up_process(folder);
    for _ in 1..ATTEMPTS {
        if found.copy_huge_kib > 0 || found.table_huge_kib == 0 {
            break;
        }
        found = look_up_process(folder);
    }
    found
}

fn look_up_process(folder: &Path) -> LookUp {
    let output = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg(LOOK_UP)
            .arg(folder)
            .env(
                "GLIBC_TUNABLES",
                "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0",
            )
            .stderr(Stdio::inherit())
            .output()
    });
    let output = output.unwrap_or_else(|error| panic!("no process for look-ups: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    LookUp::from_json(&text).unwrap_or_else(|| panic!("look-ups were not measured: {text}"))
}

fn report(visible: &Visible, look_up: &LookUp) {
    let row = |name: &str, times: &Durations| {
        println!(
            "  {name:<44} p50 {:6.2}   p99 {:6.2}   max {:6.2} ms",
            milliseconds(times.quantile(50)),
            milliseconds(times.quantile(99)),
            milliseconds(times.max())
        );
    };
    println!(
        "\naccepted → visible: {} updates on two nodes at {:.0} a second over {CLIENTS} connections, {} late; \
         {} of {} (update, node) pairs missing",
        visible.updates,
        visible.per_second,
        visible.late,
        visible.missing,
        visible.updates * 2
    );
    row(
        "from just before the request was written",
        &visible.from_begun,
    );
    row("from when it had been written", &visible.from_written);
    for (node, gaps) in ["n1", "n2"].iter().zip(&visible.gaps) {
        row(&format!("a sighting is at most this late on {node}"), gaps);
    }
    let bytes = visible.append_bytes;
    row(
        &format!("append of {bytes} bytes + fdatasync, alone"),
        &visible.append,
    );
    println!("  (floor for p99: 20 ms)");
    println!(
        "\none look-up among {AORS} records, {} bytes of key and value; p50 over {} chains of {CHAIN}",
        look_up.bytes, look_up.chains
    );
    println!(
        "  look-up {:.0} ns   plain copy by two accesses {:.0} ns   ratio {:.2}   \
         (the next key: {:.0} ns, taken off both)",
        look_up.look_up_ns,
        look_up.copy_ns,
        look_up.look_up_ns / look_up.copy_ns,
        look_up.key_ns
    );
    println!(
        "  huge pages: {} KiB of the table, {} KiB of the copy",
        look_up.table_huge_kib, look_up.copy_huge_kib
    );
    let path = write_figures(
        "bench-slice",
        &[
            Figure {
                name: "visible_p99_ms",
                value: milliseconds(visible.from_begun.quantile(99)),
                unit: "ms",
                baseline: Some(milliseconds(visible.append.quantile(50))),
            },
            Figure {
                name: "lookup_p50_ns",
                value: look_up.look_up_ns,
                unit: "ns",
                baseline: Some(look_up.copy_ns),
            },
        ],
    );
    println!("  {}", path.display());
}
