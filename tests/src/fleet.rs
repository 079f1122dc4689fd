//! Many receivers of one location service: agents without Kamailio, each on a host of its own.
//! Knows levels, paths and tables as operator and reader see them, not what travels between the hosts.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::churn::Churn;
use crate::cluster::FOLLOW_DEADLINE;
use crate::lab::Lab;
use crate::locsvc::Locsvc;
use crate::operator::Operator;
use crate::view::{Dump, View};

/// Few records, so that dozens of tables fit on a small machine.
const RECORDS_MAX: &str = "5000";
/// Hearing the offer, the group, the cut: a second or two; a machine that is busy with dozens of agents
/// takes longer. A path that was lost is heard for 5 to 60 s before it is used again.
pub const PATH_DEADLINE: Duration = Duration::from_secs(90);

/// A location service and agents n1, n2, …. Dropping it stops all of them, then removes the lab.
#[derive(Debug)]
pub struct Fleet {
    /// The location service.
    pub locsvc: Locsvc,
    /// The agents, n1 first.
    pub agents: Vec<Agent>,
    /// The lab; last, so that it goes last.
    pub lab: Lab,
}

impl Fleet {
    /// Prepares agents n1 to n`nodes`, which the lab must have as hosts, and a group that all of them are
    /// to be in; nothing runs yet.
    pub fn prepare(lab: Lab, nodes: u8, group: impl Into<IpAddr>) -> Self {
        let group = group.into();
        let mut locsvc = Locsvc::new(&lab);
        locsvc.use_group(group, "multicast");
        let master = format!("[\"{}\"]", locsvc.listen(group));
        let agents = (1..=nodes)
            .map(|number| {
                let mut agent = Agent::new(&lab, &format!("n{number}"), "size=64m");
                agent.settings().set("records_max", RECORDS_MAX);
                agent.settings().set("locsvc", &master);
                agent
            })
            .collect();
        Self {
            locsvc,
            agents,
            lab,
        }
    }

    /// Starts everything and waits until all are coherent and in the group.
    ///
    /// # Panics
    /// When something does not come up.
    #[track_caller]
    pub fn start(&mut self) {
        self.locsvc.start();
        for agent in &mut self.agents {
            agent.launch();
        }
        self.wait_equal();
        self.wait_paths("multicast");
    }

    /// Agent `name`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn agent(&mut self, name: &str) -> &mut Agent {
        let mut agents = self.agents.iter_mut();
        agents
            .find(|agent| agent.name() == name)
            .unwrap_or_else(|| panic!("no agent {name}"))
    }

    /// Begins to change about `per_second` records a second.
    pub fn churn(&self, per_second: u32) -> Churn {
        Churn::start(self.locsvc.another_api(), per_second)
    }

    /// Waits until every agent that runs goes by `path`.
    ///
    /// # Panics
    /// When one does not in time.
    #[track_caller]
    pub fn wait_paths(&self, path: &str) {
        for agent in self.agents.iter().filter(|agent| agent.runs()) {
            self.wait_path(agent.name(), path);
        }
    }

    /// Waits until the roster says that `name` goes by `path`, and returns its line.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_path(&self, name: &str, path: &str) -> Value {
        self.locsvc.wait_path(name, path, PATH_DEADLINE)
    }

    /// Waits until every agent that runs is coherent at locsvc's level with locsvc's root, and returns the
    /// level. Nothing may change meanwhile.
    ///
    /// # Panics
    /// When it does not happen in time.
    #[track_caller]
    pub fn wait_equal(&self) -> u64 {
        let running: Vec<&str> = self
            .agents
            .iter()
            .filter(|agent| agent.runs())
            .map(Agent::name)
            .collect();
        self.locsvc.wait_equal(&running)
    }

    /// Waits until readers of all these tables see `level`.
    ///
    /// # Panics
    /// When one does not in time.
    #[track_caller]
    pub fn wait_level(&self, level: u64, but: &[&str]) {
        for agent in self
            .agents
            .iter()
            .filter(|agent| !but.contains(&agent.name()))
        {
            agent.wait_level(level, FOLLOW_DEADLINE);
        }
    }

    /// Compares everything, when nothing changes any more: every agent that runs is at locsvc's level with
    /// its root, every table holds the same records byte for byte, and each agent's own audit finds nothing.
    /// Returns level and records.
    ///
    /// # Panics
    /// When anything differs.
    #[track_caller]
    pub fn assert_equal(&self) -> (u64, usize) {
        let level = self.wait_equal();
        let running: Vec<&Agent> = self.agents.iter().filter(|agent| agent.runs()).collect();
        let dumps: Vec<Dump> = running.iter().map(|agent| agent.view().dump()).collect();
        let first = dumps.first().expect("an agent runs");
        for (agent, dump) in running.iter().zip(&dumps) {
            assert!(
                dump == first,
                "the table of {} differs from {}'s",
                agent.name(),
                running[0].name()
            );
        }
        for agent in running {
            let told = Operator::beside(&self.locsvc).types(&["audit", "--node", agent.name()]);
            assert!(told.clone().well().contains("equal"), "{told:?}");
        }
        (level, first.len())
    }

    /// The level that a reader of `name`'s table sees, 0 when there is none.
    pub fn level_of(&self, name: &str) -> u64 {
        let agent = self.agents.iter().find(|agent| agent.name() == name);
        let view = agent.and_then(|agent| View::try_open(agent.table().path()));
        view.map_or(0, |mut view| view.level())
    }
}
