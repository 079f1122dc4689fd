//! Scene: changes go to a group once, sealed, and reach every node by it alone. Knows no datagram's inside.

use locus_lab::{Eavesdropper, GROUP, Operator, PATH_DEADLINE, Traffic};
use serde_json::Value;

use crate::scenes::register::EXPIRES;
use crate::stage::{OPERATOR, Stage};
use crate::story::grouped;

const NODES: [&str; 2] = ["n1", "n2"];
/// Of each 1,000 datagrams, those that node 2 loses.
const LOSS: u16 = 50;

pub(super) fn play(stage: &mut Stage) {
    stage.cluster.locsvc.stop();
    stage.cluster.locsvc.use_group(GROUP, "multicast");
    stage.cluster.locsvc.start();
    for name in NODES {
        stage
            .cluster
            .locsvc
            .wait_path(name, "multicast", PATH_DEADLINE);
    }
    stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "locsvc is started again with transport = \"multicast\"; both nodes are in the group {GROUP}"
    ));
    stage.forget_everybody("multicast");
    let before = NODES.map(|name| stage.cluster.node_status(name));
    let lossy = stage.cluster.lab.host("n2").clone();
    lossy.lose(Traffic::UdpTo(GROUP.into()), LOSS);
    let stranger = Eavesdropper::join(stage.cluster.lab.host("caller"), GROUP);
    let phones = stage.register_everybody("multicast", EXPIRES);
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "{} phones have registered while node 2 loses 5 % of the datagrams; both are at level {}",
        grouped(phones),
        grouped(level)
    ));
    stage.call_everybody("multicast");
    let lost = lossy.lose_nothing();
    let frames = what_came(stage, &before);
    let heard = what_a_stranger_hears(stage, &stranger);
    stage.story.step(&format!(
        "node 2 lost {lost} datagrams and missed no change; a stranger heard {heard} and could read none"
    ));
    stage.report.came(
        "multicast",
        format!("{frames} frames to node 2, 0 bytes over its connection; {lost} datagrams lost, no change"),
    );
    let alice = stage.cluster.lab.authority().operator(OPERATOR, "admin");
    let desk = stage.cluster.lab.host("caller");
    let nodes = Operator::at(desk, &stage.cluster.locsvc, &alice).types(&["nodes"]);
    stage.report.expect("locusctl nodes", nodes.code, Some(0));
    let url = stage.cluster.locsvc.url();
    stage.story.typed(&format!(
        "locusctl --server {url} --identity operators/{OPERATOR} nodes"
    ));
    stage.story.printed(&nodes.text);
    stage.cluster.locsvc.use_group(GROUP, "auto");
}

/// Returns how many frames node 2 had by the group; none may have come another way.
fn what_came(stage: &mut Stage, before: &[Value; 2]) -> u64 {
    let mut by_group = 0;
    for (name, before) in NODES.iter().zip(before) {
        let after = stage.cluster.node_status(name);
        let rose = |what: &str| {
            let read = |node: &Value| node.pointer(what).and_then(Value::as_u64);
            Some(read(&after)? - read(before)?)
        };
        stage.report.expect(
            &format!("bytes of frames over {name}'s own connection"),
            rose("/connection_frame_bytes_total"),
            Some(0),
        );
        by_group = rose("/group/frames_total").unwrap_or_default();
        stage.report.expect(
            &format!("{name} had frames by the group"),
            by_group > 0,
            true,
        );
        stage.story.step(&format!(
            "{name}: {by_group} frames by the group, 0 bytes of frames over its own connection"
        ));
    }
    by_group
}

/// Returns how many datagrams went by; nothing of a subscriber may be readable in them.
fn what_a_stranger_hears(stage: &mut Stage, stranger: &Eavesdropper) -> u64 {
    let (mut datagrams, mut readable) = (0, 0_u64);
    while let Some(heard) = stranger.next() {
        datagrams += 1;
        let reads = |needle: &[u8]| heard.bytes.windows(needle.len()).any(|part| part == needle);
        readable += u64::from(reads(b"example.net") || reads(b"sip:"));
    }
    stage.report.expect(
        "datagrams in which a stranger reads an address",
        readable,
        0,
    );
    datagrams
}
