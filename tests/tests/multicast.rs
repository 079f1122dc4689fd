//! The group as operators and callers see it: nodes that get their changes by sealed multicast alone, under
//! loss, stops, cuts, restarts and revocation, end with the master's content. Knows no datagram's inside.

use std::net::IpAddr;
use std::time::Duration;

use locus_lab::{
    Churn, Cluster, Eavesdropper, FOLLOW_DEADLINE, Fleet, GROUP, GROUP6, Lab, Operator,
    PATH_DEADLINE, Telephones, Traffic, count, wait,
};
use rustix::process::Signal;
use serde_json::Value;

/// Changes a second while something is broken.
const CHURN: u32 = 400;

/// A fleet that is in the group.
fn started(name: &str, nodes: u8) -> Option<Fleet> {
    let mut fleet = Fleet::prepare(Lab::with_nodes(name, nodes)?, nodes, GROUP);
    fleet.start();
    Some(fleet)
}

/// Frames that a node has applied: from the group, and over its own connection.
#[track_caller]
fn frames(node: &Value) -> (u64, u64) {
    let group = count(node, "/group/frames_total");
    (group, count(node, "/group/connection_frames_total"))
}

/// Lets changes flow and waits until they have reached all but `but`.
#[track_caller]
fn goes_on(fleet: &Fleet, churn: &Churn, but: &[&str]) {
    let level = churn.level() + 1;
    wait::until("further changes", FOLLOW_DEADLINE, || {
        churn.level() >= level
    });
    fleet.wait_level(churn.level(), but);
}

#[test]
fn calls_are_answered_from_what_came_by_the_group_alone() {
    let Some(lab) = Lab::start("multicast") else {
        return;
    };
    let mut cluster = Cluster::prepare(lab, 12);
    cluster.locsvc.use_group(GROUP, "multicast");
    cluster.start();
    let nodes = ["n1", "n2"];
    let before = nodes.map(|name| cluster.locsvc.wait_path(name, "multicast", PATH_DEADLINE));
    let stranger = Eavesdropper::join(cluster.lab.host("caller"), GROUP);
    let mut telephones = Telephones::serve(&cluster.lab);
    let phones = telephones.register(&cluster);
    let level = cluster.locsvc.provision(0, 2_000, 7_100, |_| {});
    cluster.wait_visible(level);
    let calls = telephones.call(&cluster);
    cluster.emergency_call(&cluster.n2);
    cluster.lab.say(&format!(
        "{phones} phones registered, 2,000 records provisioned, {calls} calls answered"
    ));
    cluster.locsvc.wait_equal(&nodes);
    for (name, before) in nodes.iter().zip(&before) {
        let after = cluster.locsvc.node(name);
        assert_eq!(after["path"], "multicast", "{after}");
        assert_eq!(
            count(&after, "/connection_frame_bytes_total"),
            0,
            "no frame has gone over its connection: {after}"
        );
        let ((group, own), (group_before, own_before)) = (frames(&after), frames(before));
        assert_eq!(own, own_before, "{after}");
        assert!(group > group_before, "{after}");
        cluster.lab.say(&format!(
            "{name}: {} frames by the group, 0 bytes of frames over its own connection",
            group - group_before
        ));
    }
    what_a_stranger_hears_is_sealed(&stranger);
}

/// Records went by, and nothing of them can be read.
fn what_a_stranger_hears_is_sealed(stranger: &Eavesdropper) {
    let mut datagrams = 0_u32;
    while let Some(heard) = stranger.next() {
        datagrams += 1;
        let reads = |needle: &[u8]| heard.bytes.windows(needle.len()).any(|part| part == needle);
        assert!(
            !reads(b"example.net") && !reads(b"sip:"),
            "{:?}",
            heard.header
        );
    }
    assert!(datagrams > 20, "{datagrams} datagrams heard");
}

#[test]
fn eight_receivers_end_equal_whatever_is_lost() {
    let Some(fleet) = started("multicast_loss", 8) else {
        return;
    };
    for (per_mille, port) in [(0, 7_100), (10, 7_101), (50, 7_102), (200, 7_103)] {
        let before: Vec<Value> = fleet.locsvc.nodes();
        for agent in &fleet.agents {
            agent.namespace().lose(Traffic::Udp, per_mille);
        }
        let churn = fleet.churn(CHURN);
        fleet.locsvc.provision(0, 3_000, port, |_| {});
        wait::until("two seconds of changes", FOLLOW_DEADLINE, || {
            churn.changes() >= 2 * u64::from(CHURN)
        });
        goes_on(&fleet, &churn, &[]);
        let changes = 3_000 + churn.finish().changes;
        let (level, records) = fleet.assert_equal();
        let lost: u64 = fleet
            .agents
            .iter()
            .map(|agent| agent.namespace().lose_nothing())
            .sum();
        assert_eq!(lost > 0, per_mille > 0, "{lost} datagrams lost");
        let (mut nacks, mut own_bytes) = (0, 0);
        for (before, after) in before.iter().zip(fleet.locsvc.nodes()) {
            assert!(frames(&after).0 > frames(before).0, "{after}");
            let rose = |what| count(&after, what).saturating_sub(count(before, what));
            nacks += rose("/group/nacks_total");
            own_bytes += rose("/connection_frame_bytes_total");
        }
        let per_cent = per_mille / 10;
        fleet.lab.say(&format!(
            "{per_cent} % loss: {changes} changes, {lost} datagrams lost, {nacks} NACKs, {own_bytes} bytes over \
             connections; 8 tables of {records} records equal at level {level}"
        ));
        fleet.wait_paths("multicast");
    }
}

#[test]
fn a_receiver_that_stands_still_holds_up_nobody() {
    let Some(mut fleet) = started("multicast_stopped", 4) else {
        return;
    };
    let churn = fleet.churn(CHURN);
    goes_on(&fleet, &churn, &[]);
    let before = fleet.wait_path("n4", "multicast");
    fleet.agent("n4").process().signal(Signal::STOP);
    goes_on(&fleet, &churn, &["n4"]);
    let stood = fleet.level_of("n4");
    let begun = churn.level();
    wait::holds("the others follow", Duration::from_secs(5), || {
        fleet.wait_level(churn.level(), &["n4"]);
        fleet.level_of("n4") == stood
    });
    fleet.lab.say(&format!(
        "n4 stands still at level {stood} while the others go from {begun} to {}",
        churn.level()
    ));
    fleet.agent("n4").process().signal(Signal::CONT);
    goes_on(&fleet, &churn, &[]);
    churn.finish();
    let (level, records) = fleet.assert_equal();
    let after = fleet.wait_path("n4", "multicast");
    let reloads = "/reloads_total";
    assert_eq!(count(&after, reloads), count(&before, reloads), "{after}");
    fleet.lab.say(&format!(
        "it came back by a delta, and into the group: 4 tables of {records} records equal at level {level}"
    ));
}

#[test]
fn a_partition_heals_amid_changes() {
    let Some(mut fleet) = started("multicast_partition", 4) else {
        return;
    };
    let churn = fleet.churn(CHURN);
    goes_on(&fleet, &churn, &[]);
    let cut = ["n3", "n4"];
    for name in cut {
        fleet.lab.network().cut(name);
    }
    for name in cut {
        let what = format!("{name} to know that it hears nobody");
        wait::until(&what, FOLLOW_DEADLINE, || {
            let state = fleet.agent(name).view().state();
            state.is_some_and(|state| state.as_str() == "stale")
        });
    }
    goes_on(&fleet, &churn, &cut);
    let behind = churn.level() - fleet.level_of("n3");
    for name in cut {
        fleet.lab.network().heal(name);
    }
    goes_on(&fleet, &churn, &[]);
    churn.finish();
    let (level, records) = fleet.assert_equal();
    fleet.wait_paths("multicast");
    fleet.lab.say(&format!(
        "two of four were {behind} levels behind; 4 tables of {records} records equal at level {level}, \
         all in the group"
    ));
}

/// The classic field failure: a switch that forgets a member of the group, while everything else goes on.
#[test]
fn a_group_that_falls_silent_for_one_node_is_noticed_and_comes_back_by_itself() {
    let Some(fleet) = started("multicast_silence", 3) else {
        return;
    };
    let churn = fleet.churn(CHURN);
    goes_on(&fleet, &churn, &[]);
    let deaf = fleet.lab.host("n2");
    deaf.lose(Traffic::UdpTo(IpAddr::V4(GROUP)), 1_000);
    let silent = wait::now();
    fleet.wait_path("n2", "tcp");
    let served = silent.elapsed().as_secs_f64();
    goes_on(&fleet, &churn, &[]);
    wait::until("the alarm", FOLLOW_DEADLINE, || {
        fleet.locsvc.node("n2")["multicast_lost"].is_object()
    });
    fleet.lab.say(&format!(
        "n2 hears the group no more: served over its own connection {served:.1} s later, alarm after {:.1} s",
        silent.elapsed().as_secs_f64()
    ));
    let told = Operator::beside(&fleet.locsvc).types(&["nodes"]).well();
    let alarm = told
        .lines()
        .find(|line| line.contains("multicast") && line.contains("n2"));
    assert!(alarm.is_some(), "no alarm in\n{told}");
    fleet.lab.say(alarm.unwrap_or_default());
    assert!(
        fleet
            .locsvc
            .log()
            .contains("ALARM: the multicast path to node 2 (n2) is lost"),
        "an alarm in locsvc's log"
    );
    for name in ["n1", "n3"] {
        assert_eq!(fleet.locsvc.node(name)["path"], "multicast", "{name}");
    }
    assert!(deaf.lose_nothing() > 0);
    let healed = wait::now();
    let back = fleet.wait_path("n2", "multicast");
    fleet.lab.say(&format!(
        "it hears the group again: served by it {:.1} s later",
        healed.elapsed().as_secs_f64()
    ));
    assert!(back["multicast_lost"].is_null(), "{back}");
    goes_on(&fleet, &churn, &[]);
    churn.finish();
    fleet.assert_equal();
}

#[test]
fn a_sender_that_is_killed_begins_a_new_stream() {
    let Some(mut fleet) = started("multicast_restart", 4) else {
        return;
    };
    let stranger = Eavesdropper::join(fleet.lab.host("caller"), GROUP);
    let first = stranger.hear("a datagram", |_| true).header.stream;
    let churn = fleet.churn(CHURN);
    wait::until("a thousand changes", FOLLOW_DEADLINE, || {
        churn.level() > 1_000
    });
    fleet.locsvc.kill();
    fleet.locsvc.start();
    let second = stranger.hear("another stream", |heard| heard.header.stream != first);
    assert_eq!(
        second.header.key, 1,
        "its keys begin anew: {:?}",
        second.header
    );
    goes_on(&fleet, &churn, &[]);
    fleet.wait_paths("multicast");
    churn.finish();
    let before = fleet.locsvc.nodes();
    let (level, records) = fleet.assert_equal();
    fleet.locsvc.provision(0, 100, 7_105, |_| {});
    fleet.wait_equal();
    for (before, after) in before.iter().zip(fleet.locsvc.nodes()) {
        assert!(frames(&after).0 > frames(before).0, "{after}");
    }
    fleet.lab.say(&format!(
        "locsvc was killed under load; 4 tables of {records} records equal at level {level}, all in the \
         new stream"
    ));
}

#[test]
fn the_group_may_be_ipv6() {
    let Some(lab) = Lab::with_nodes("multicast_ipv6", 3) else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 3, GROUP6);
    fleet.start();
    for agent in &fleet.agents {
        agent
            .namespace()
            .lose(Traffic::UdpTo(IpAddr::V6(GROUP6)), 50);
    }
    fleet.locsvc.provision(0, 2_000, 7_100, |_| {});
    let (level, records) = fleet.assert_equal();
    for (agent, node) in fleet.agents.iter().zip(fleet.locsvc.nodes()) {
        assert!(
            agent.namespace().lose_nothing() > 0,
            "{} lost something",
            agent.name()
        );
        assert_eq!(count(&node, "/connection_frame_bytes_total"), 0, "{node}");
        assert!(frames(&node).0 > 0, "{node}");
    }
    fleet.lab.say(&format!(
        "{GROUP6}: 5 % lost; 3 tables of {records} records equal at level {level}"
    ));
}

#[test]
fn a_revoked_node_is_out_and_the_key_is_another() {
    let Some(mut fleet) = started("multicast_revoked", 4) else {
        return;
    };
    let stranger = Eavesdropper::join(fleet.lab.host("caller"), GROUP);
    let churn = fleet.churn(CHURN);
    goes_on(&fleet, &churn, &[]);
    let key = stranger.hear("a datagram", |_| true).header.key;
    fleet.lab.authority().revoke("node/n4");
    wait::until("locsvc to close n4's connection", FOLLOW_DEADLINE, || {
        fleet.locsvc.node("n4")["connected"] == false
    });
    stranger.hear("another key", |heard| heard.header.key != key);
    goes_on(&fleet, &churn, &["n4"]);
    let (stood, level) = (fleet.level_of("n4"), churn.level());
    wait::holds("n4 learns nothing more", Duration::from_secs(2), || {
        fleet.level_of("n4") == stood
    });
    goes_on(&fleet, &churn, &["n4"]);
    churn.finish();
    let node = fleet.locsvc.node("n4");
    assert_eq!(node["connected"], false, "{node}");
    fleet.lab.say(&format!(
        "n4 is out at level {stood}; the others were at {level} under another key when it was looked at"
    ));
    assert!(
        fleet.agent("n4").log().contains("revoked"),
        "n4's agent says why"
    );
    fleet.agent("n4").stop();
    fleet.assert_equal();
    fleet.wait_paths("multicast");
}

#[test]
fn auto_takes_the_group_when_it_is_worth_it() {
    let Some(lab) = Lab::with_nodes("multicast_auto", 9) else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 9, GROUP);
    let settings = fleet.locsvc.settings();
    settings.set_text("distribution.transport", "auto");
    // A tenth of this is 100 kbit/s: what nine nodes take one by one at seven changes a second.
    settings.set("distribution.multicast.rate_mbit", "1");
    fleet.locsvc.start();
    for agent in &mut fleet.agents {
        agent.launch();
    }
    fleet.wait_equal();
    wait::holds(
        "nine idle nodes are served one by one",
        Duration::from_secs(2),
        || {
            fleet
                .locsvc
                .nodes()
                .iter()
                .all(|node| node["path"] == "tcp")
        },
    );
    let churn = fleet.churn(100);
    fleet.wait_paths("multicast");
    goes_on(&fleet, &churn, &[]);
    churn.finish();
    let (level, records) = fleet.assert_equal();
    fleet.lab.say(&format!(
        "nine nodes go by tcp while idle, by multicast at 100 changes/s: 9 tables of {records} records equal \
         at level {level}"
    ));
}

/// `make soak-distribution`.
#[test]
#[ignore = "minutes; make soak-distribution"]
fn thirty_two_receivers_end_equal_after_every_fault() {
    let Some(mut fleet) = started("multicast_32", 32) else {
        return;
    };
    for (per_mille, port) in [(0, 7_100), (10, 7_101), (50, 7_102), (200, 7_103)] {
        for agent in &fleet.agents {
            agent.namespace().lose(Traffic::Udp, per_mille);
        }
        let churn = fleet.churn(CHURN);
        fleet.locsvc.provision(0, 4_000, port, |_| {});
        goes_on(&fleet, &churn, &[]);
        churn.finish();
        let (level, records) = fleet.assert_equal();
        let lost = fleet
            .agents
            .iter()
            .map(|agent| agent.namespace().lose_nothing());
        fleet.lab.say(&format!(
            "{} % loss: {} datagrams lost; 32 tables of {records} records equal at level {level}",
            per_mille / 10,
            lost.sum::<u64>()
        ));
    }
    let churn = fleet.churn(CHURN);
    for number in 25..=32 {
        let name = format!("n{number}");
        match number % 3 {
            0 => fleet.lab.network().cut(&name),
            1 => fleet.agent(&name).kill(),
            _ => fleet.agent(&name).process().signal(Signal::STOP),
        }
    }
    let out: Vec<String> = (25..=32).map(|number| format!("n{number}")).collect();
    let out: Vec<&str> = out.iter().map(String::as_str).collect();
    wait::holds("the others follow", Duration::from_secs(15), || {
        fleet.wait_level(churn.level(), &out);
        true
    });
    for (number, name) in (25..=32).zip(&out) {
        match number % 3 {
            0 => fleet.lab.network().heal(name),
            1 => fleet.agent(name).launch(),
            _ => fleet.agent(name).process().signal(Signal::CONT),
        }
    }
    goes_on(&fleet, &churn, &[]);
    fleet.locsvc.kill();
    fleet.locsvc.start();
    goes_on(&fleet, &churn, &[]);
    churn.finish();
    let (level, records) = fleet.assert_equal();
    fleet.wait_paths("multicast");
    fleet.lab.say(&format!(
        "eight of them cut, killed and stopped, then the sender killed: 32 tables of {records} records equal \
         at level {level}, all in the group"
    ));
}
