//! Scene: the cluster as boards of one chassis, reached over buses A and B and no network.
//! Knows nothing of what travels on a bus.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use locus_lab::PATH_DEADLINE;
use serde_json::Value;

use crate::scenes::register::EXPIRES;
use crate::stage::Stage;
use crate::story::grouped;

const NODES: [&str; 2] = ["n1", "n2"];
/// Far more than a packet takes on the lab's network.
const REACH_DEADLINE: Duration = Duration::from_millis(300);

pub(super) fn play(stage: &mut Stage) {
    let cluster = &mut stage.cluster;
    for node in [&mut cluster.n1, &mut cluster.n2] {
        node.stop_kamailio();
        node.stop_agent();
    }
    cluster.locsvc.stop();
    let host = cluster.lab.host("locsvc").address();
    stage.chassis = Some(cluster.move_to_chassis());
    cluster.start();
    wait_path(stage, "bus-a");
    stage.story.step(
        "locsvc and both nodes are boards now, with mounts, processes and networks of their own",
    );
    let address = SocketAddr::from((host, 5_800));
    let reached = stage
        .cluster
        .n2
        .namespace()
        .run(|| TcpStream::connect_timeout(&address, REACH_DEADLINE).is_ok());
    stage
        .report
        .expect("a network from node 2 to locsvc", reached, false);
    stage.story.step(&format!(
        "locsvc's cable is pulled, node 2 cannot reach {host}: it follows over bus A, a Unix socket"
    ));
    stage.forget_everybody("bus");
    let phones = stage.register_everybody("bus", EXPIRES);
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "{} phones have registered over the bus: level {}",
        grouped(phones),
        grouped(level)
    ));
    stage.call_everybody("bus");
    if let Some(chassis) = &mut stage.chassis {
        chassis.a.cut();
    }
    wait_path(stage, "bus-b");
    let level = stage.cluster.locsvc.provision(0, 1_000, 7_105, |_| {});
    stage.cluster.wait_visible(level);
    stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "bus A is cut: both nodes follow over B, 1,000 changes later both are at level {}",
        grouped(level)
    ));
    stage.emergency("bus");
    let frames = frames(stage);
    stage.report.came(
        "the bus",
        format!("{frames} frames to node 2, none by a network"),
    );
    if let Some(chassis) = &mut stage.chassis {
        chassis.a.heal();
    }
}

fn wait_path(stage: &Stage, path: &str) {
    for name in NODES {
        stage.cluster.locsvc.wait_path(name, path, PATH_DEADLINE);
    }
}

/// Returns how many frames node 2 has applied since it is a board.
fn frames(stage: &mut Stage) -> u64 {
    let node = stage.cluster.node_status("n2");
    let read = |what: &str| node.pointer(what).and_then(Value::as_u64);
    stage
        .report
        .expect("frames by a group", read("/group/frames_total"), Some(0));
    let frames = read("/group/connection_frames_total").unwrap_or_default();
    stage.report.expect("frames over the bus", frames > 0, true);
    frames
}
