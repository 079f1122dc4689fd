//! A rolling upgrade: versions N and N+1 side by side, in both orders, by connections and by the group that all
//! share. N+1 is this tree with a synthetic version 2 of the wire, whose heartbeat and status carry one more
//! field. Knows no field.

use locus_lab::{Cluster, FOLLOW_DEADLINE, GROUP, Lab, PATH_DEADLINE, products, products_v2, wait};

#[test]
fn upgrade_by_connections() {
    upgrade("upgrade", "unicast", "tcp");
}

#[test]
fn upgrade_in_the_group() {
    upgrade("upgrade_group", "multicast", "multicast");
}

fn upgrade(name: &str, transport: &str, path: &str) {
    let Some(lab) = Lab::start(name) else {
        return;
    };
    let v2 = products_v2();
    assert!(
        v2.join("locsvc").exists() && v2.join("locus-agent").exists(),
        "needs {} (`make build-v2`)",
        v2.display()
    );
    let stands = |cluster: &Cluster, what: &str, versions: [u64; 2], port: u16| {
        stands(cluster, what, versions, path, port);
    };
    let mut cluster = Cluster::prepare(lab, 1);
    cluster.locsvc.use_group(GROUP, transport);
    cluster.n2.set_agent_program(v2.join("locus-agent"));
    cluster.start();
    stands(
        &cluster,
        "an old locsvc, one new node of two",
        [1, 1],
        7_100,
    );

    cluster.locsvc.stop();
    cluster.locsvc.set_program(v2.join("locsvc"));
    cluster.locsvc.start();
    stands(&cluster, "a new locsvc, one new node of two", [1, 2], 7_101);

    cluster.n1.stop_agent();
    let agent = v2.join("locus-agent");
    cluster.n1.set_agent_program(agent);
    cluster.n1.start_agent();
    stands(&cluster, "all are new", [2, 2], 7_102);

    cluster.locsvc.stop();
    cluster.locsvc.set_program(products().join("locsvc"));
    cluster.locsvc.start();
    stands(&cluster, "locsvc went back to the old one", [1, 1], 7_103);
}

/// The roster shows which version each connection speaks, changes arrive, and calls are answered.
#[track_caller]
fn stands(cluster: &Cluster, what: &str, versions: [u64; 2], path: &str, port: u16) {
    cluster
        .lab
        .say(&format!("{what}: the nodes speak versions {versions:?}"));
    cluster.wait_coherent();
    for (name, version) in ["n1", "n2"].iter().zip(versions) {
        let node = wait::value(
            &format!("{name} in version {version}"),
            FOLLOW_DEADLINE,
            || {
                let node = cluster.locsvc.wait_path(name, path, PATH_DEADLINE);
                (node["version"] == version).then_some(node)
            },
        );
        assert_eq!(node["state"], "coherent", "{node}");
    }
    let level = cluster.locsvc.provision(0, 500, port, |_| {});
    cluster.wait_visible(level);
    cluster.locsvc.wait_equal(&["n1", "n2"]);
    for name in ["n1", "n2"] {
        let node = cluster.locsvc.node(name);
        assert_eq!(
            (&node["path"], &node["refused_total"]),
            (&path.into(), &0.into()),
            "{node}"
        );
    }
    cluster.emergency_call(&cluster.n1);
    cluster.emergency_call(&cluster.n2);
}
