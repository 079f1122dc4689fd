//! What locsvc has acknowledged survives: kill -9 amid writes, a disk that is full, a recording replayed.
//! Knows the API only.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;

use locus_lab::{Api, Cluster, FOLLOW_DEADLINE, Lab, Phone, Tmpfs, provisioned_aor, wait};
use serde_json::{Value, json};
use ureq::http::Method;

/// Rounds of kill -9, each at another moment.
const ROUNDS: usize = 6;
const WRITERS: usize = 4;

/// What one writer knows after locsvc has gone.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    acknowledged: u64,
    sent: u64,
    level: u64,
}

fn contacts(n: u64) -> Value {
    json!({ "contacts": [{ "uri": format!("sip:v{n}@10.77.0.22:7001") }] })
}

/// Writes rising values to one address-of-record until no answer comes.
fn write_until_gone(api: &Api, aor: &str, from: u64) -> Written {
    let mut written = Written {
        acknowledged: from,
        sent: from,
        level: 0,
    };
    loop {
        written.sent += 1;
        let body = contacts(written.sent).to_string();
        match api.call(Method::PUT, &format!("/v1/aors/{aor}"), body.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                written.acknowledged = written.sent;
                written.level = answer.level();
            }
            Ok(_) | Err(_) => return written,
        }
    }
}

fn value_of(cluster: &Cluster, aor: &str) -> u64 {
    let answer = cluster.locsvc.api().get(&format!("/v1/aors/{aor}"));
    let json = answer.json();
    let uri = json["contacts"][0]["uri"]
        .as_str()
        .unwrap_or("sip:v0@")
        .to_owned();
    uri.trim_start_matches("sip:v")
        .split('@')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[test]
fn kill_9_of_locsvc_loses_nothing_acknowledged() {
    let Some(lab) = Lab::start("kill_locsvc") else {
        return;
    };
    let mut cluster = Cluster::started(lab, 1);
    let mut known = [Written::default(); WRITERS];
    for round in 0..ROUNDS {
        let apis: Vec<Api> = (0..WRITERS).map(|_| cluster.locsvc.another_api()).collect();
        let goal = cluster.locsvc.level() + 20 + 35 * u64::try_from(round).unwrap_or(0);
        let writers: Vec<_> = apis
            .into_iter()
            .enumerate()
            .map(|(n, api)| {
                let from = known[n].sent;
                thread::spawn(move || write_until_gone(&api, &provisioned_aor(n), from))
            })
            .collect();
        wait::until(
            "the writers to be amid their writes",
            FOLLOW_DEADLINE,
            || cluster.locsvc.level() >= goal,
        );
        cluster.locsvc.kill();
        for (slot, writer) in known.iter_mut().zip(writers) {
            *slot = writer.join().expect("a writer ends when locsvc does");
        }
        cluster.emergency_call(&cluster.n2);
        cluster.locsvc.start();
        let highest = known.iter().map(|one| one.level).max().unwrap_or(0);
        assert!(
            cluster.locsvc.level() >= highest,
            "level {highest} was acknowledged"
        );
        for (n, one) in known.iter().enumerate() {
            let value = value_of(&cluster, &provisioned_aor(n));
            let fine = (one.acknowledged..=one.sent).contains(&value);
            assert!(fine, "round {round}, writer {n}: {value}, but {one:?}");
        }
        cluster.lab.say(&format!(
            "round {round}: killed at level {highest}, nothing lost: {known:?}"
        ));
    }
    cluster.wait_coherent();
    let aors: Vec<String> = (0..WRITERS).map(provisioned_aor).collect();
    let comparison = locus_lab::compare(
        cluster.locsvc.api(),
        &[&cluster.n1, &cluster.n2],
        &aors,
        || {},
    );
    assert_eq!(
        (comparison.records, &comparison.differences[..]),
        (WRITERS, &[][..])
    );
    let reloads = ["n1", "n2"].map(|name| cluster.node_status(name)["reloads_total"].clone());
    cluster.lab.say(&format!(
        "both nodes followed through {ROUNDS} epochs; reloads: {reloads:?}"
    ));
}

#[test]
fn a_full_disk_refuses_the_change_and_loses_nothing() {
    let Some(lab) = Lab::start("full_disk") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    let disk = Tmpfs::mount(&cluster.lab.mount_point("disk"), "size=160m");
    cluster.locsvc.set_data(disk.path().join("data"));
    cluster.start();
    let before = cluster.locsvc.provision(0, 100, 7_100, |_| {});
    cluster.lab.say("the disk fills up");
    let filler = disk.fill();
    let api = cluster.locsvc.another_api();
    let mut accepted = before;
    let refusal = wait::value("a change to be refused", FOLLOW_DEADLINE, || {
        // What the log has preallocated may still take some.
        let changes: Vec<Value> = (0..1_000)
            .map(|n| {
                json!({ "op": "put_aor", "aor": provisioned_aor(n),
                    "contacts": [{ "uri": format!("sip:{}-{accepted}@h", "x".repeat(150)) }] })
            })
            .collect();
        let answer = api.post("/v1/batch", &json!({ "changes": changes }));
        if answer.status == 200 {
            accepted = answer.level();
            return None;
        }
        Some(answer)
    });
    assert_eq!(refusal.status, 507, "{}", refusal.body);
    cluster.lab.say(&format!("refused: {}", refusal.body));
    assert_eq!(
        cluster.locsvc.level(),
        accepted,
        "nothing but what was acknowledged"
    );
    cluster.emergency_call(&cluster.n1);
    cluster.wait_coherent();
    cluster
        .lab
        .say("there is room again, and the service goes on by itself");
    fs::remove_file(filler).expect("the filler can be removed");
    let level = api
        .put("/v1/aors/sip:after@example.net", &contacts(1))
        .level();
    assert_eq!(level, accepted + 1);
    cluster.wait_visible(level);
    let value = cluster
        .locsvc
        .api()
        .get("/v1/aors/sip:p00000@example.net")
        .body;
    cluster
        .lab
        .say("kill -9 and restart: the log ends where it was acknowledged");
    cluster.locsvc.kill();
    cluster.locsvc.start();
    assert_eq!(cluster.locsvc.level(), level);
    let again = cluster
        .locsvc
        .api()
        .get("/v1/aors/sip:p00000@example.net")
        .json();
    let was: Value = serde_json::from_str(&value).expect("JSON");
    assert_eq!(again["contacts"], was["contacts"]);
    // The disk goes after the service.
    cluster.locsvc.stop();
    drop(disk);
}

#[test]
fn damage_in_the_middle_of_the_log_is_not_skipped() {
    let Some(lab) = Lab::start("damage") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster.locsvc.start();
    for n in 0..20 {
        cluster
            .locsvc
            .api()
            .put(&format!("/v1/aors/{}", provisioned_aor(n)), &contacts(1))
            .level();
    }
    let level = cluster.locsvc.level();
    cluster.locsvc.kill();
    let segment = first_segment(cluster.locsvc.data());
    let whole = fs::read(&segment).expect("the log can be read");
    let used = whole
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    cluster.lab.say("a torn tail: the last bytes are missing");
    fs::write(&segment, &whole[..used - 5]).expect("the log can be written");
    cluster.locsvc.start();
    let after = cluster.locsvc.level();
    assert!(
        (level - 1..=level).contains(&after),
        "{after} after a torn tail at {level}"
    );
    cluster.locsvc.kill();
    cluster
        .lab
        .say("a flipped bit in the middle: locsvc refuses to start and says so");
    let mut damaged = whole.clone();
    damaged[used / 2] ^= 0x40;
    fs::write(&segment, &damaged).expect("the log can be written");
    cluster.locsvc.launch();
    let status = cluster.locsvc.ended(FOLLOW_DEADLINE);
    assert!(!status.success(), "{status}");
}

fn first_segment(data: &std::path::Path) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut open = vec![data.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)
            .expect("the data folder can be read")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push((entry.metadata().map_or(0, |meta| meta.len()), path));
            }
        }
    }
    files.sort();
    files.pop().expect("there is a log").1
}

#[test]
fn recordings_replay_to_the_same_end_state() {
    let Some(lab) = Lab::start("replay") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 3);
    let files =
        ["locsvc", "agent"].map(|name| cluster.lab.folder().join(format!("{name}.recording")));
    cluster.locsvc.settings().set_path("record", &files[0]);
    cluster.n1.settings().set_path("record", &files[1]);
    cluster.start();
    cluster.locsvc.provision(0, 50, 7_100, |_| {});
    cluster
        .locsvc
        .api()
        .delete("/v1/aors/sip:p00007@example.net")
        .level();
    let mut phone = Phone::new(cluster.lab.host("caller"), "u0000");
    let contact = "Contact: <sip:u0000@10.77.0.22:7001>\r\n";
    assert_eq!(phone.register(cluster.n1.address(), contact).code, 200);
    cluster.emergency_call(&cluster.n1);
    let level = cluster.wait_coherent();
    let answer = cluster.locsvc.api().get("/v1/level").json();
    cluster
        .lab
        .say("stopped, then replayed without a network and without disks");
    cluster.n1.stop_agent();
    cluster.n2.stop_agent();
    cluster.locsvc.stop();
    for (program, file) in ["locsvc", "locus-agent"].into_iter().zip(&files) {
        let replay = || {
            let mut command = cluster
                .lab
                .host("callee")
                .command(locus_lab::products().join(program));
            command.arg("--replay").arg(file).stderr(Stdio::inherit());
            let output = command.output().expect("the program runs");
            assert!(
                output.status.success(),
                "{program} --replay: {}",
                output.status
            );
            let end: Value = serde_json::from_slice(&output.stdout).expect("the end state as JSON");
            end
        };
        let (first, second) = (replay(), replay());
        assert_eq!(first, second, "{program} replays to one end state");
        cluster.lab.say(&format!("{program}: {first}"));
        let text = first.to_string();
        assert!(
            text.contains(&format!("\"level\":{level}")),
            "{program} ends at level {level}: {text}"
        );
        let root = answer["root"].as_str().expect("the API gives a root");
        let (high, low) = root.split_at(16);
        let lanes = [low, high].map(|lane| u64::from_str_radix(lane, 16).expect("hexadecimal"));
        let told = text.contains(root) || text.contains(&format!("[{},{}]", lanes[0], lanes[1]));
        assert!(told, "{program} ends with root {root}: {text}");
    }
    let mut cut = fs::OpenOptions::new()
        .append(true)
        .open(&files[0])
        .expect("the recording");
    cut.write_all(b"{\"torn").expect("it can be written");
    cluster
        .lab
        .say("a torn last line, as kill -9 leaves it, is told or left out, never a panic");
    let mut command = cluster
        .lab
        .host("callee")
        .command(locus_lab::products().join("locsvc"));
    let output = command
        .arg("--replay")
        .arg(&files[0])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
}
