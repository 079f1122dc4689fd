//! How long it takes to be coherent: after a minute away, and from nothing.

use std::time::Duration;

use locus_lab::{Fleet, wait};
use rustix::process::Signal;

use crate::fleet::API;
use crate::load;

const PER_SECOND: usize = 2_000;
const DEADLINE: Duration = Duration::from_secs(600);

/// Stops the last agent for `away` while changes flow; returns the time from its return until it is coherent
/// at the level that the master had then, while changes go on.
pub(crate) fn after_away(fleet: &mut Fleet, away: Duration) -> Duration {
    let sender = fleet.locsvc.namespace().clone();
    let name = fleet.agents.last().map(|agent| agent.name().to_owned());
    let name = name.unwrap_or_else(|| panic!("a fleet has agents"));
    fleet.agent(&name).process().signal(Signal::STOP);
    let length = away + Duration::from_secs(10);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(&sender, API, PER_SECOND, length, 400));
        wait::pause(away);
        let level = fleet.locsvc.level();
        let returned = wait::now();
        let agent = fleet.agent(&name);
        agent.process().signal(Signal::CONT);
        let view = &mut agent.view();
        wait::until("the agent to be coherent again", DEADLINE, || {
            view.level() >= level && view.state() == Some(locus_proto::NodeState::Coherent)
        });
        let took = returned.elapsed();
        load.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        took
    })
}

/// Starts all agents at once, with empty tables; returns the time until all are coherent.
pub(crate) fn cold(fleet: &mut Fleet) -> Duration {
    let begun = wait::now();
    for agent in &mut fleet.agents {
        agent.launch();
    }
    wait::until("all agents to be coherent", DEADLINE, || {
        let nodes = fleet.locsvc.nodes();
        let coherent = |name: &str| {
            nodes
                .iter()
                .any(|node| node["name"] == name && node["state"] == "coherent")
        };
        fleet.agents.iter().all(|agent| coherent(agent.name()))
    });
    begun.elapsed()
}
