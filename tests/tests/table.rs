//! A node's table beyond its daily work: memory that somebody else wrote into, a reboot, a table that has become
//! too small. Calls are answered in all of it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use locus_lab::{
    Cluster, FOLLOW_DEADLINE, Lab, Phone, Tmpfs, products, provisioned_aor, root, wait,
};
use serde_json::json;

const AORS: usize = 500;
const PORT: u16 = 7_100;

/// The contact that a caller is redirected to.
fn contact(cluster: &Cluster, n: usize) -> (u16, Vec<String>) {
    let mut caller = Phone::new(cluster.lab.host("caller"), "caller");
    let answer = caller.invite(cluster.n2.address(), 5070, &provisioned_aor(n));
    (answer.code, answer.contacts())
}

fn provisioned(n: usize, port: u16) -> (u16, Vec<String>) {
    (302, vec![format!("sip:p{n:05}@10.77.0.22:{port}")])
}

/// The file of node 2's table; `None` while the next one lies beside it.
fn table_file(cluster: &Cluster) -> Option<PathBuf> {
    let names = fs::read_dir(cluster.n2.table().path()).expect("the folder can be read");
    let tables = names.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("tbl."))
    });
    let tables: Vec<PathBuf> = tables.collect();
    let [only] = &tables[..] else {
        return None;
    };
    Some(only.clone())
}

/// Writes into the memory of node 2's table as a stray store would: another port in the contact of AoR `n`.
fn spoil(cluster: &Cluster, n: usize) {
    let path = table_file(cluster).expect("one table answers");
    let memory = fs::read(&path).expect("the table can be read");
    let text = format!("sip:p{n:05}@10.77.0.22:{PORT}");
    // The journal holds the last batch as well; the record is what lies behind it.
    let mut found: Vec<usize> = memory
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes())
        .map(|(at, _)| at)
        .collect();
    let at = found.pop().expect("the record lies in the table");
    let file = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("root may write");
    let last_digit = u64::try_from(at + text.len() - 1).expect("an offset");
    file.write_all_at(b"9", last_digit)
        .expect("the store is done");
}

fn locusctl(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command: Command = cluster
        .lab
        .host("locsvc")
        .command(products().join("locusctl"));
    command.args(arguments).output().expect("locusctl runs")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn what_a_stray_store_spoils_is_found_and_mended_while_calls_are_answered() {
    let Some(lab) = Lab::start("audit") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    // Node 2 waits for the operator, node 1 looks for itself.
    cluster.n2.settings().set("scrub_minutes", "0");
    cluster.start();
    let level = cluster.locsvc.provision(0, AORS, PORT, |_| {});
    cluster.wait_visible(level);
    let whole = locusctl(&cluster, &["audit"]);
    cluster.lab.say(&said(&whole));
    assert!(whole.status.success(), "{}", said(&whole));

    spoil(&cluster, 7);
    assert_eq!(contact(&cluster, 7), provisioned(7, PORT + 9), "spoilt");
    let look = locusctl(&cluster, &["audit", "--node", "n2"]);
    cluster.lab.say(&said(&look));
    assert!(!look.status.success(), "{}", said(&look));
    let report = cluster
        .locsvc
        .api()
        .post("/v1/audit", &json!({ "node": "n2" }));
    let node = &report.json()["nodes"][0];
    assert_eq!(
        (&node["verdict"], &node["differing"], &node["repaired"]),
        (&json!("differs"), &json!(1), &json!(0)),
        "{node}"
    );
    assert_eq!(
        contact(&cluster, 7).1,
        provisioned(7, PORT + 9).1,
        "only looked at"
    );

    let mend = locusctl(&cluster, &["audit", "--node", "n2", "--repair"]);
    cluster.lab.say(&said(&mend));
    assert!(mend.status.success(), "{}", said(&mend));
    assert!(said(&mend).contains("repaired"), "{}", said(&mend));
    assert_eq!(contact(&cluster, 7), provisioned(7, PORT));
    cluster.emergency_call(&cluster.n2);
    let status = cluster.node_status("n2");
    assert_eq!(status["reloads_total"], 1, "only the first load: {status}");

    cluster
        .lab
        .say("by itself: the next scrub finds it, and a frame that meets it first is applied all the same");
    cluster.n2.stop_agent();
    cluster.n2.settings().set("scrub_minutes", "0.02");
    cluster.n2.start_agent();
    cluster.wait_coherent();
    spoil(&cluster, 8);
    wait::until("the scrub to mend it", FOLLOW_DEADLINE, || {
        contact(&cluster, 8) == provisioned(8, PORT)
    });
    spoil(&cluster, 9);
    let level = cluster.locsvc.provision(9, 1, PORT + 1, |_| {});
    cluster.n2.wait_level(level, FOLLOW_DEADLINE);
    assert_eq!(contact(&cluster, 9), provisioned(9, PORT + 1));
    cluster.wait_coherent();
    let status = cluster.node_status("n2");
    assert_eq!(
        status["reloads_total"], 0,
        "nothing was loaded anew: {status}"
    );
    cluster.emergency_call(&cluster.n2);
}

#[test]
fn after_a_reboot_without_a_master_the_node_answers_from_its_snapshot() {
    let Some(lab) = Lab::start("reboot") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster.n2.settings().set("snapshot_every_s", "1");
    cluster.start();
    let level = cluster.locsvc.provision(0, AORS, PORT, |_| {});
    cluster.wait_visible(level);
    wait::until("a snapshot of that level", FOLLOW_DEADLINE, || {
        cluster.node_status("n2")["health"]["snapshot_level"] == level
    });
    cluster.lab.say(
        "the power fails: node 2 loses its memory, and the location service does not come back",
    );
    cluster.n2.kill_agent();
    cluster.n2.stop_kamailio();
    cluster.locsvc.kill();
    cluster.n2.lose_memory();
    cluster.n2.start_agent();
    cluster.n2.start_kamailio(&cluster.lab);
    assert_eq!(cluster.n2.view().level(), level);
    assert_eq!(contact(&cluster, 7), provisioned(7, PORT));
    cluster.emergency_call(&cluster.n2);

    cluster
        .lab
        .say("it comes back, and the node catches up from where its snapshot stood");
    cluster.locsvc.start();
    let level = cluster.locsvc.provision(0, 1, PORT + 1, |_| {});
    cluster.wait_visible(level);
    cluster.wait_coherent();
    assert_eq!(contact(&cluster, 0), provisioned(0, PORT + 1));
    let status = cluster.node_status("n2");
    assert_eq!(status["reloads_total"], 0, "no reload: {status}");
}

#[test]
fn a_table_that_becomes_too_small_grows_while_calls_are_answered() {
    let Some(lab) = Lab::start("growth") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster.n2.settings().set("records_max", "500");
    cluster.n2.settings().set("record_bytes_mean", "64");
    cluster.start();
    let level = cluster.locsvc.provision(0, 100, PORT, |_| {});
    cluster.wait_visible(level);
    let first = table_file(&cluster);
    for n in 0..20 {
        let level = cluster.locsvc.provision(n * 1_000, 1_000, PORT, |_| {});
        assert_eq!(contact(&cluster, 42), provisioned(42, PORT));
        cluster.n2.wait_level(level, FOLLOW_DEADLINE);
    }
    cluster.wait_coherent();
    wait::until("the larger table to answer", FOLLOW_DEADLINE, || {
        table_file(&cluster).is_some_and(|file| Some(file) != first)
    });
    assert_eq!(cluster.n2.view().records(), cluster.n1.view().records());
    assert_eq!(contact(&cluster, 19_999), provisioned(19_999, PORT));
    let status = cluster.node_status("n2");
    cluster.lab.say(&format!("{status}"));
    cluster.emergency_call(&cluster.n2);
}

#[test]
fn the_mount_helper_mounts_what_a_table_needs() {
    let Some(lab) = Lab::start("mount_helper") else {
        return;
    };
    let point = lab.mount_point("helped");
    let mounted = |arguments: &[&str]| {
        let mut command = Command::new(root().join("packaging/mount-table"));
        command.arg(&point).args(arguments);
        command.output().expect("the helper runs")
    };
    let first = mounted(&["64m", "root:root"]);
    assert!(first.status.success(), "{}", said(&first));
    let table = Tmpfs::adopt(&point);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts can be read");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == point.to_str())
        .expect("it is mounted");
    for option in [
        "tmpfs",
        "huge=advise",
        "size=65536k",
        "mode=750",
        "nosuid",
        "nodev",
        "noexec",
    ] {
        assert!(line.contains(option), "{option}: {line}");
    }
    let again = mounted(&["64m"]);
    assert!(
        again.status.success(),
        "mounting twice does nothing: {}",
        said(&again)
    );
    assert!(said(&again).contains("a mount already"), "{}", said(&again));
    drop(table);
}
