//! Boards in one chassis: each with mounts, processes and a network of its own, the location service reached by
//! no network, only by buses A and B, of which one may be cut. Knows no message.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use locus_lab::{
    Chassis, Churn, Cluster, FOLLOW_DEADLINE, Lab, Namespace, PATH_DEADLINE, Telephones, count,
    wait,
};

/// Changes a second while a bus is cut.
const CHURN: u32 = 200;
const NODES: [&str; 2] = ["n1", "n2"];

#[test]
fn a_chassis_of_boards() {
    let Some(lab) = Lab::start("bus") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 12);
    let mut chassis = cluster.move_to_chassis();
    cluster.start();
    no_network_leads_to_locsvc(&cluster);
    a_board_sees_only_what_is_its_own(&cluster, &chassis);
    calls_are_answered_from_what_came_over_the_bus(&cluster);
    a_bus_is_cut_and_no_change_is_lost(&cluster, &mut chassis);
    both_are_cut_and_calls_go_on(&mut cluster, &mut chassis);
}

fn no_network_leads_to_locsvc(cluster: &Cluster) {
    cluster
        .lab
        .say("no packet of a node reaches locsvc, over no family of addresses");
    let host = cluster.lab.host("locsvc");
    for (address, port) in [
        (SocketAddr::from((host.address(), 5_800)), "distribution"),
        (SocketAddr::from((host.address6(), 5_800)), "distribution"),
        (SocketAddr::from((host.address(), 8_800)), "api"),
    ] {
        let reached = cluster
            .n1
            .namespace()
            .run(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok());
        assert!(!reached, "{port} at {address}");
    }
}

/// What `script` prints on the board of `place`.
fn on_board(cluster: &Cluster, place: &Namespace, name: &str, script: &str) -> String {
    let mut command = place.command("sh");
    command.args(["-c", script]);
    let mut shell = place.spawn(name, command, cluster.lab.folder());
    assert!(shell.finish(FOLLOW_DEADLINE).success(), "{script}");
    let text = fs::read_to_string(shell.log()).expect("the log can be read");
    text.lines()
        .filter(|line| !line.starts_with("---"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn a_board_sees_only_what_is_its_own(cluster: &Cluster, chassis: &Chassis) {
    let buses = chassis.a.path().parent().expect("the buses' folder");
    let all = buses
        .parent()
        .expect("the lab's folder")
        .display()
        .to_string();
    let board = cluster.n1.namespace();
    let seen = on_board(cluster, board, "look-1", &format!("ls {all}"));
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["bus", "n1"]);
    let names = "for pid in /proc/[0-9]*; do cat $pid/comm; done";
    let processes = on_board(cluster, board, "look-2", names);
    let runs = |name: &str| processes.lines().any(|line| line == name);
    assert!(runs("locus-agent") && runs("kamailio"), "{processes}");
    assert!(!runs("locsvc"), "{processes}");
    cluster.lab.say(&format!(
        "n1's board sees the folders {} and {} processes, all its own",
        seen.replace('\n', ", "),
        processes.lines().count()
    ));
}

fn calls_are_answered_from_what_came_over_the_bus(cluster: &Cluster) {
    let mut telephones = Telephones::serve(&cluster.lab);
    let phones = telephones.register(cluster);
    let level = cluster.locsvc.provision(0, 1_000, 7_100, |_| {});
    cluster.wait_visible(level);
    let calls = telephones.call(cluster);
    cluster.emergency_call(&cluster.n2);
    for name in NODES {
        let node = cluster.locsvc.wait_path(name, "bus-a", PATH_DEADLINE);
        assert!(count(&node, "/connection_frame_bytes_total") > 0, "{node}");
        assert_eq!(count(&node, "/group/frames_total"), 0, "{node}");
    }
    cluster.lab.say(&format!(
        "{phones} phones registered and 1,000 records provisioned over bus A; {calls} calls answered"
    ));
}

#[track_caller]
fn goes_on(cluster: &Cluster, churn: &Churn) {
    let level = churn.level() + 1;
    wait::until("further changes", FOLLOW_DEADLINE, || {
        churn.level() >= level
    });
    cluster.wait_visible(churn.level());
}

fn a_bus_is_cut_and_no_change_is_lost(cluster: &Cluster, chassis: &mut Chassis) {
    let before = NODES.map(|name| cluster.locsvc.node(name));
    let churn = Churn::start(cluster.locsvc.another_api(), CHURN);
    goes_on(cluster, &churn);
    chassis.b.cut();
    goes_on(cluster, &churn);
    for name in NODES {
        assert_eq!(
            cluster.locsvc.node(name)["path"],
            "bus-a",
            "B is not in use"
        );
    }
    chassis.b.heal();
    chassis.a.cut();
    for name in NODES {
        cluster.locsvc.wait_path(name, "bus-b", PATH_DEADLINE);
    }
    goes_on(cluster, &churn);
    cluster.lab.say("A is cut: both nodes go on over B");
    chassis.a.heal();
    for name in NODES {
        cluster.locsvc.wait_path(name, "bus-a", PATH_DEADLINE);
    }
    goes_on(cluster, &churn);
    let changes = churn.finish().changes;
    cluster.locsvc.wait_equal(&NODES);
    assert!(
        cluster.n1.view().dump() == cluster.n2.view().dump(),
        "tables differ"
    );
    for (name, before) in NODES.iter().zip(&before) {
        let after = cluster.locsvc.node(name);
        assert_eq!(
            count(&after, "/reloads_total"),
            count(before, "/reloads_total"),
            "{after}"
        );
    }
    cluster.lab.say(&format!(
        "A is plugged in: both go back to it by themselves; {changes} changes meanwhile, none lost, no reload"
    ));
}

fn both_are_cut_and_calls_go_on(cluster: &mut Cluster, chassis: &mut Chassis) {
    chassis.a.cut();
    chassis.b.cut();
    wait::until(
        "node 2 to know that it hears nobody",
        FOLLOW_DEADLINE,
        || {
            let state = cluster.n2.view().state();
            state.is_some_and(|state| state.as_str() == "stale")
        },
    );
    cluster.emergency_call(&cluster.n2);
    let level = cluster.locsvc.provision(0, 1_000, 7_101, |_| {});
    assert!(cluster.n2.view().level() < level);
    chassis.b.heal();
    cluster.wait_visible(level);
    cluster.locsvc.wait_path("n2", "bus-b", PATH_DEADLINE);
    cluster
        .lab
        .say("both are cut: calls go on, changes wait; B alone brings them");
}
