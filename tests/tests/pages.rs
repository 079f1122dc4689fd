//! By which pages a node's table is mapped: an operator sees it in `locus.status`, and is told once where it is the
//! small ones. Knows no table.

use std::fs;

use locus_lab::{Cluster, FOLLOW_DEADLINE, Lab, Node, wait};

const HUGE_PAGE_BYTES: u64 = 2 << 20;

#[test]
fn a_node_says_by_which_pages_its_table_is_mapped() {
    let Some(lab) = Lab::start("pages") else {
        return;
    };
    let mut cluster = Cluster::prepare_on(lab, 1, "huge=never");
    cluster.start();
    let (all, huge) = bytes(&mut cluster.n1);
    cluster.lab.say(&format!(
        "on huge=advise {huge} of {all} bytes are in pages of 2 MiB"
    ));
    assert_eq!(huge, all / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    let (all, huge) = bytes(&mut cluster.n2);
    cluster.lab.say(&format!(
        "on huge=never {huge} of {all} are, and the log says what to do"
    ));
    assert_eq!(huge, 0);
    assert!(all > HUGE_PAGE_BYTES);
    wait::until("the warning", FOLLOW_DEADLINE, || {
        warnings(&mut cluster.n2) > 0
    });
    assert_eq!(warnings(&mut cluster.n2), 1, "one for the whole server");
    assert_eq!(warnings(&mut cluster.n1), 0);
    cluster.emergency_call(&cluster.n2);
}

/// The table's bytes, and how many of them are in pages of 2 MiB.
fn bytes(node: &mut Node) -> (u64, u64) {
    let status = node.kamailio().rpc(&["locus.status"]).expect("it answers");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.expect("locus.status says so")
    };
    (field("table_bytes:"), field("huge_bytes:"))
}

fn warnings(node: &mut Node) -> usize {
    let log = fs::read(node.kamailio().process().log()).expect("the log can be read");
    let log = String::from_utf8_lossy(&log).into_owned();
    log.lines()
        .filter(|line| line.contains("WARNING") && line.contains("huge=advise"))
        .count()
}
