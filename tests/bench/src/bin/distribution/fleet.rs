//! A fleet for the benches, and what its roster adds up to. Knows nothing of what is measured.

use std::path::PathBuf;
use std::time::Duration;

use locus_bench::provision;
use locus_lab::{Agent, Fleet, GROUP, Lab, wait};
use serde_json::Value;

/// The API inside locsvc's namespace.
pub(crate) const API: &str = "127.0.0.1:8800";
/// Longest time for a fleet to be level again; it only bounds a bench that cannot go on.
const LEVEL_DEADLINE: Duration = Duration::from_secs(180);

/// Prepares `nodes` agents that have room for `records` in tables of `table`, a size as in `mount -o`.
pub(crate) fn prepare(lab: Lab, nodes: u8, records: usize, table: &str) -> Fleet {
    let mut fleet = Fleet::prepare(lab, 0, GROUP);
    let records = records.to_string();
    fleet.locsvc.settings().set("records_max", &records);
    let master = format!("[\"{}\"]", fleet.locsvc.listen(GROUP.into()));
    fleet.agents = (1..=nodes)
        .map(|number| {
            let mut agent = Agent::new(&fleet.lab, &format!("n{number}"), table);
            let settings = agent.settings();
            settings.set("records_max", &records);
            settings.set("locsvc", &master);
            // What a disk writes beside is not measured here.
            settings.set("snapshot_every_s", "0");
            agent
        })
        .collect();
    fleet
}

/// Starts the fleet with `records` provisioned, and all in the group.
pub(crate) fn start(fleet: &mut Fleet, records: usize) {
    fleet.locsvc.start();
    let level = provision(&fleet.locsvc, records);
    for agent in &mut fleet.agents {
        agent.launch();
    }
    wait_level(fleet, level);
    fleet.wait_equal();
    fleet.wait_paths("multicast");
}

/// Waits until every table that is written has `level`.
pub(crate) fn wait_level(fleet: &Fleet, level: u64) {
    for agent in fleet.agents.iter().filter(|agent| agent.runs()) {
        agent.wait_level(level, LEVEL_DEADLINE);
    }
}

/// Folders of the tables of all agents that run.
pub(crate) fn tables(fleet: &Fleet) -> Vec<PathBuf> {
    let running = fleet.agents.iter().filter(|agent| agent.runs());
    running
        .map(|agent| agent.table().path().to_owned())
        .collect()
}

/// Adds up one count of the group over all connected nodes. Nodes report each second: this waits for
/// reports of a later second than the call.
pub(crate) fn total(fleet: &Fleet, count: &str) -> u64 {
    wait::pause(Duration::from_millis(1_200));
    let nodes = fleet.locsvc.nodes();
    let connected = nodes.iter().filter(|node| node["connected"] == true);
    connected
        .map(|node: &Value| {
            node["group"][count]
                .as_u64()
                .unwrap_or_else(|| panic!("no {count} in {node}"))
        })
        .sum()
}
