//! A node under faults: kill -9 of its agent amid batches, no room for its table, bytes that are no
//! frames, a clock that is an hour wrong. Kamailio goes on answering in all of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use locus_lab::{Cluster, FOLLOW_DEADLINE, Lab, Namespace, Phone, View, provisioned_aor, wait};
use serde_json::{Value, json};

const ROUNDS: u64 = 8;
const AORS: usize = 200;

fn batch(value: u64) -> Value {
    let changes: Vec<Value> = (0..AORS)
        .map(|n| {
            // Sizes change, so that records move.
            let padding = "x".repeat((n * 7 + usize::try_from(value % 50).unwrap_or(0) * 5) % 180);
            json!({ "op": "put_aor", "aor": provisioned_aor(n),
                "contacts": [{ "uri": format!("sip:v{value}-{padding}@10.77.0.22:7001") }] })
        })
        .collect();
    json!({ "changes": changes })
}

/// Tells a thread to stop, also when the test has failed: a scope waits for its threads.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn kill_9_of_the_agent_leaves_an_exact_level() {
    let Some(lab) = Lab::start("kill_agent") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    // However far behind, the node must come back by deltas: they only fit at exactly its level.
    cluster
        .locsvc
        .settings()
        .set("distribution.reload_above", "100000000");
    cluster.start();
    let first = cluster.locsvc.api().post("/v1/batch", &batch(0)).level();
    cluster.wait_visible(first);
    let stop = AtomicBool::new(false);
    let api = cluster.locsvc.another_api();
    thread::scope(|scope| {
        let stop_at_end = StopAtEnd(&stop);
        let writer = scope.spawn(|| {
            let mut value = 0;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                api.post("/v1/batch", &batch(value)).level();
            }
            value
        });
        for round in 0..ROUNDS {
            let goal = cluster.n2.view().level() + 400 + round * 150;
            cluster.n2.wait_level(goal, FOLLOW_DEADLINE);
            cluster.n2.kill_agent();
            every_record_is_whole(&cluster, &mut cluster.n2.view());
            cluster.emergency_call(&cluster.n2);
            cluster.n2.launch_agent();
        }
        cluster
            .n2
            .wait_level(cluster.locsvc.level(), FOLLOW_DEADLINE);
        drop(stop_at_end);
        let batches = writer.join().expect("the writer's batches are accepted");
        cluster.lab.say(&format!(
            "{ROUNDS} times kill -9 amid {batches} batches of {AORS} changes"
        ));
    });
    cluster.wait_coherent();
    let aors: Vec<String> = (0..AORS).map(provisioned_aor).collect();
    let comparison = locus_lab::compare(
        cluster.locsvc.api(),
        &[&cluster.n1, &cluster.n2],
        &aors,
        || {},
    );
    assert_eq!(
        (comparison.records, &comparison.differences[..]),
        (AORS, &[][..])
    );
    let status = cluster.node_status("n2");
    assert_eq!(
        status["reloads_total"], 0,
        "came back by deltas alone: {status}"
    );
}

/// After a kill, before any recovery: every key is readable, with one of the values written to it.
fn every_record_is_whole(cluster: &Cluster, view: &mut View) {
    let dump = view.dump();
    assert_eq!(dump.len(), AORS);
    for (key, (level, value)) in dump {
        let record = locus_proto::AorRecord::decode(&value);
        let bindings = record.map(|record| record.bindings.len());
        assert_eq!(bindings, Ok(1), "{}", key.escape_ascii());
        assert!(level > 0 && level <= cluster.locsvc.level());
    }
}

#[test]
fn no_room_for_the_table_stops_no_worker() {
    let Some(lab) = Lab::start("full_tmpfs") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster
        .locsvc
        .settings()
        .set("distribution.reload_above", "100");
    cluster.start();
    let level = cluster.locsvc.provision(0, 1_000, 7_100, |_| {});
    cluster.wait_visible(level);
    let workers = cluster.n2.kamailio().udp_workers();

    cluster
        .lab
        .say("the tmpfs fills up: the table's memory is its own, batches go on");
    let filler = cluster.n2.table().fill();
    let level = cluster.locsvc.provision(0, 1_000, 7_101, |_| {});
    cluster.wait_visible(level);
    found(&cluster, 7_101);

    cluster
        .lab
        .say("a full reload finds no room: the old table goes on answering");
    cluster.n2.stop_agent();
    let ahead = cluster.locsvc.provision(0, 1_000, 7_102, |_| {});
    cluster.n2.launch_agent();
    wait::until(
        "the agent to say that there is no room",
        FOLLOW_DEADLINE,
        || {
            let log = fs::read(cluster.n2.agent().log()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).to_lowercase();
            log.contains("no space left") || log.contains("no room") || log.contains("storage full")
        },
    );
    assert_eq!(
        cluster.n2.view().level(),
        level,
        "nothing of the load is visible"
    );
    found(&cluster, 7_101);
    cluster.emergency_call(&cluster.n2);
    assert_eq!(
        cluster.n2.kamailio().udp_workers(),
        workers,
        "no worker has died"
    );

    cluster
        .lab
        .say("there is room again, and the agent loads by itself");
    fs::remove_file(filler).expect("the filler can be removed");
    cluster.n2.wait_level(ahead, FOLLOW_DEADLINE);
    found(&cluster, 7_102);
    assert_eq!(
        cluster.n2.kamailio().udp_workers(),
        workers,
        "no worker has died"
    );
}

#[test]
fn a_table_that_is_too_small_fails_the_batch_whole() {
    let Some(lab) = Lab::start("small_table") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster.n2.settings().set("records_max", "100");
    cluster.n2.settings().set("record_bytes_mean", "64");
    cluster.start();
    let level = cluster.locsvc.provision(0, 50, 7_100, |_| {});
    cluster.wait_visible(level);
    cluster
        .lab
        .say("the tmpfs has no room for a larger table either");
    let filler = cluster.n2.table().fill();
    let ahead = cluster.locsvc.provision(0, 2_000, 7_101, |_| {});
    cluster.n1.wait_level(ahead, FOLLOW_DEADLINE);
    let log = cluster.n2.agent().log().to_owned();
    wait::until(
        "the agent to say that there is no room",
        FOLLOW_DEADLINE,
        || {
            fs::read_to_string(&log)
                .unwrap_or_default()
                .contains("no room in the table")
        },
    );
    wait::holds("the level before the batch", Duration::from_secs(1), || {
        cluster.n2.view().level() == level
    });
    let dump = cluster.n2.view().dump();
    assert_eq!(dump.len(), 50);
    assert!(
        dump.values().all(|(at, _)| *at <= level),
        "nothing of the batch is visible"
    );
    found(&cluster, 7_100);
    cluster.emergency_call(&cluster.n2);
    cluster
        .lab
        .say("with room, the agent makes a larger table by itself");
    fs::remove_file(filler).expect("the filler can be removed");
    cluster.n2.wait_level(ahead, FOLLOW_DEADLINE);
    found(&cluster, 7_101);
}

fn found(cluster: &Cluster, port: u16) {
    let mut caller = Phone::new(cluster.lab.host("caller"), "caller");
    let answer = caller.invite(cluster.n2.address(), 5070, "sip:p00001@example.net");
    assert_eq!(
        (answer.code, answer.contacts()),
        (302, vec![format!("sip:p00001@10.77.0.22:{port}")])
    );
}

/// Bytes that are no message of version 1, each a fault of its own.
fn no_frames() -> Vec<(&'static str, Vec<u8>)> {
    let envelope = |version: u8, kind: u8, length: u32| {
        let mut bytes = b"LOCU".to_vec();
        bytes.extend([version, kind, 0, 0]);
        bytes.extend(length.to_le_bytes());
        bytes
    };
    let with = |mut head: Vec<u8>, body: &[u8]| {
        head.extend(body);
        head
    };
    vec![
        ("not ours", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("unknown version", envelope(2, 1, 0)),
        ("version zero", envelope(0, 1, 0)),
        ("unknown kind", envelope(1, 99, 0)),
        ("above the longest body", envelope(1, 4, 512 * 1024 + 1)),
        ("four gigabytes", envelope(1, 4, u32::MAX)),
        ("a body that is too short", with(envelope(1, 1, 2), &[0, 0])),
        (
            "a length inside that lies",
            with(envelope(1, 1, 6), &[0xff, 0xff, 0, 0, 0, 0]),
        ),
        (
            "a frame before the greeting",
            with(envelope(1, 4, 16), &[0; 16]),
        ),
        ("cut off within the envelope", b"LOC".to_vec()),
        (
            "cut off within the body",
            with(envelope(1, 1, 100), &[1; 10]),
        ),
        ("zeroes", vec![0; 64 * 1024]),
    ]
}

/// Whether the peer closes the connection, however it says so.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .expect("a timeout can be set");
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn bytes_that_are_no_frames_reach_locsvc() {
    let Some(lab) = Lab::start("frames_locsvc") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    // What TLS refuses before it comes this far stands in `identity`.
    cluster.set_insecure();
    cluster.start();
    let level = cluster.locsvc.provision(0, 10, 7_100, |_| {});
    cluster.wait_visible(level);
    let stranger = cluster.lab.host("caller");
    for (what, bytes) in no_frames() {
        let stream =
            stranger.run(|| TcpStream::connect("10.77.0.10:5800").expect("locsvc listens"));
        // A peer that closes early makes the rest of a write fail.
        (&stream).write_all(&bytes).ok();
        if what.starts_with("cut off") {
            stream.shutdown(Shutdown::Write).ok();
        }
        assert!(is_closed(&stream), "locsvc keeps a peer that sends: {what}");
    }
    cluster
        .lab
        .say("a flood of them is counted, not logged without bound");
    let before = log_lines(&cluster);
    for _ in 0..300 {
        let stream =
            stranger.run(|| TcpStream::connect("10.77.0.10:5800").expect("locsvc listens"));
        (&stream).write_all(b"LOCU\x07\x07").ok();
    }
    assert_eq!(
        cluster.wait_coherent(),
        level,
        "nothing was changed, nobody was disturbed"
    );
    let told = log_lines(&cluster) - before;
    assert!(told < 100, "{told} lines for 300 bad peers");
    let after = cluster.locsvc.provision(0, 10, 7_101, |_| {});
    cluster.wait_visible(after);
    cluster.emergency_call(&cluster.n1);
}

fn log_lines(cluster: &Cluster) -> usize {
    let log = fs::read(cluster.lab.folder().join("locsvc.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().count()
}

/// A master that answers each agent with the next bytes that are no message, and keeps what happens.
fn false_master(host: &Namespace) -> thread::JoinHandle<Vec<(&'static str, bool)>> {
    let listener = host.run(|| TcpListener::bind("10.77.0.21:5800").expect("the port is free"));
    thread::spawn(move || {
        no_frames()
            .into_iter()
            .map(|(what, bytes)| {
                let (stream, _) = listener.accept().expect("an agent comes");
                (&stream).write_all(&bytes).ok();
                if what.starts_with("cut off") {
                    stream.shutdown(Shutdown::Write).ok();
                }
                (what, is_closed(&stream))
            })
            .collect()
    })
}

#[test]
fn bytes_that_are_no_frames_reach_an_agent() {
    let Some(lab) = Lab::start("frames_agent") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    // What TLS refuses before it comes this far stands in `identity`.
    cluster.set_insecure();
    cluster.start();
    let level = cluster.locsvc.provision(0, 10, 7_100, |_| {});
    cluster.wait_visible(level);
    cluster.n2.stop_agent();
    let master = false_master(cluster.lab.host("caller"));
    cluster.n2.settings().set("locsvc", "[\"10.77.0.21:5800\"]");
    cluster.n2.launch_agent();
    wait::until(
        "the agent to meet every one of them",
        Duration::from_secs(60),
        || {
            assert!(cluster.n2.agent().ended().is_none(), "the agent has ended");
            master.is_finished()
        },
    );
    for (what, closed) in master.join().expect("the false master serves to the end") {
        assert!(closed, "the agent keeps a master that sends: {what}");
    }
    assert_eq!(cluster.n2.view().level(), level, "its table is as it was");
    found(&cluster, 7_100);
    cluster.emergency_call(&cluster.n2);
    cluster.lab.say("back with the true master");
    cluster.n2.stop_agent();
    cluster.n2.settings().set("locsvc", "[\"10.77.0.10:5800\"]");
    cluster.n2.start_agent();
    let level = cluster.locsvc.provision(0, 10, 7_101, |_| {});
    cluster.wait_visible(level);
    found(&cluster, 7_101);
}

#[test]
fn bytes_that_are_no_registrations_reach_an_agent() {
    let Some(lab) = Lab::start("datagrams") else {
        return;
    };
    let mut cluster = Cluster::started(lab, 1);
    let level = cluster.wait_coherent();
    let stranger = UnixDatagram::unbound().expect("a socket can be made");
    stranger
        .connect(cluster.n1.socket())
        .expect("the agent listens");
    let mut datagrams: Vec<Vec<u8>> = no_frames().into_iter().map(|(_, bytes)| bytes).collect();
    datagrams.push(Vec::new());
    for _ in 0..100 {
        for datagram in &datagrams {
            // One above the largest datagram is refused by the kernel, not by the agent.
            stranger.send(datagram).ok();
        }
    }
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let contact = "Contact: <sip:u0000@10.77.0.22:7001>\r\n";
    assert_eq!(phone.register(cluster.n1.address(), contact).code, 200);
    assert!(cluster.n1.agent().ended().is_none(), "the agent lives");
    assert_eq!(cluster.wait_coherent(), level + 1);
    let log = fs::read_to_string(cluster.n1.agent().log()).expect("the log can be read");
    assert!(
        log.lines().count() < 200,
        "{} lines of log",
        log.lines().count()
    );
    cluster.emergency_call(&cluster.n1);
}

/// Debian's libfaketime for threaded programs; monotonic clocks stay true, as they do when an operator or
/// NTP sets the time.
fn shifted(file: &std::path::Path) -> Vec<(String, String)> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    assert!(
        fs::metadata(library).is_ok(),
        "needs Debian package libfaketime"
    );
    [
        ("LD_PRELOAD", library),
        (
            "FAKETIME_TIMESTAMP_FILE",
            file.to_str().expect("a path of text"),
        ),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DISABLE_SHM", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

#[test]
fn a_clock_an_hour_wrong_changes_nothing() {
    let Some(lab) = Lab::start("clock") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 2);
    let file = cluster.lab.folder().join("clock");
    fs::write(&file, "+1h\n").expect("the run folder can be written");
    cluster.n1.set_environment(&shifted(&file));
    cluster.start();
    for clock in ["+1h", "-1h", "+1h"] {
        fs::write(&file, format!("{clock}\n")).expect("the run folder can be written");
        cluster.lab.say(&format!(
            "node 1's agent and Kamailio live at {clock}, jumped while running"
        ));
        let mut owner = Phone::new(cluster.lab.host("caller"), "u0000");
        let contact = "Contact: <sip:u0000@10.77.0.22:7001>;expires=60\r\n";
        let answer = owner.register(cluster.n1.address(), contact);
        assert_eq!(answer.code, 200, "{}", answer.text);
        let granted = answer.expires_of("sip:u0000@10.77.0.22:7001");
        assert!(
            granted.is_some_and(|seconds| (59..=60).contains(&seconds)),
            "{}",
            answer.text
        );
        let mut caller = Phone::new(cluster.lab.host("caller"), "u0001");
        for node in [&cluster.n1, &cluster.n2] {
            let answer = caller.invite(node.address(), 5070, "sip:u0000@example.net");
            assert_eq!(
                answer.code,
                302,
                "{} at {clock}: {}",
                node.name(),
                answer.text
            );
        }
        let brief = json!({ "contacts": [{ "uri": "sip:brief@10.77.0.22:7001", "expires_s": 2 }] });
        let level = cluster
            .locsvc
            .api()
            .put("/v1/aors/sip:brief@example.net", &brief)
            .level();
        cluster.wait_visible(level);
        let n1 = cluster.n1.address();
        assert_eq!(
            caller.invite(n1, 5070, "sip:brief@example.net").code,
            302,
            "at {clock}"
        );
        wait::until(
            "the brief contact to expire",
            Duration::from_secs(6),
            || caller.invite(n1, 5070, "sip:brief@example.net").code == 404,
        );
        cluster.emergency_call(&cluster.n1);
    }
}
