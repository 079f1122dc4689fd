//! The whole product in a lab: one location service, two nodes, subscribers and callees.
//! Knows the order in which things start, not what is asked of them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::callee::{Callee, Manner};
use crate::lab::Lab;
use crate::locsvc::Locsvc;
use crate::node::Node;
use crate::sip::{PROXY_PORT, Phone};
use crate::subscribers::{ANSWERING_POINT_PORT, Subscriber, write_credentials};
use crate::wait;

/// Longest time in which two nodes must follow in the lab, reloads included.
pub const FOLLOW_DEADLINE: Duration = Duration::from_secs(30);

/// A cluster. Dropping it stops every process, then removes the lab.
#[derive(Debug)]
pub struct Cluster {
    /// The location service.
    pub locsvc: Locsvc,
    /// First node: where phones register.
    pub n1: Node,
    /// Second node: where callers call.
    pub n2: Node,
    /// Whom the nodes' Kamailios can authenticate.
    pub subscribers: Vec<Subscriber>,
    /// The lab; last, so that it goes last.
    pub lab: Lab,
}

impl Cluster {
    /// Prepares a cluster with `subscribers` users; nothing runs yet.
    pub fn prepare(lab: Lab, subscribers: usize) -> Self {
        Self::prepare_on(lab, subscribers, "huge=advise")
    }

    /// As [`Cluster::prepare`], with mount options of its own for the tmpfs of node 2's table.
    pub fn prepare_on(lab: Lab, subscribers: usize, options: &str) -> Self {
        let subscribers = Subscriber::first(subscribers);
        let credentials: PathBuf = lab.subfolder("credentials");
        write_credentials(&credentials, subscribers.iter().map(|one| one.user.clone()));
        let locsvc = Locsvc::new(&lab);
        let n1 = Node::new(&lab, "n1", &credentials);
        let n2 = Node::with_table(&lab, "n2", &credentials, options);
        Self {
            locsvc,
            n1,
            n2,
            subscribers,
            lab,
        }
    }

    /// Takes TLS away at the next start, for what is told of bytes on the wire.
    pub fn set_insecure(&mut self) {
        self.locsvc.settings().set("insecure", "true");
        self.n1.settings().set("insecure", "true");
        self.n2.settings().set("insecure", "true");
    }

    /// Starts everything and waits until both nodes are coherent.
    ///
    /// # Panics
    /// When something does not come up.
    #[track_caller]
    pub fn start(&mut self) {
        self.locsvc.start();
        self.n1.start_agent();
        self.n2.start_agent();
        self.n1.start_kamailio(&self.lab);
        self.n2.start_kamailio(&self.lab);
        self.wait_coherent();
    }

    /// Prepares and starts a cluster.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[track_caller]
    pub fn started(lab: Lab, subscribers: usize) -> Self {
        let mut cluster = Self::prepare(lab, subscribers);
        cluster.start();
        cluster
    }

    /// Waits until locsvc says that both nodes are coherent at its own level, and returns that level.
    ///
    /// # Panics
    /// When it does not happen in time.
    #[track_caller]
    pub fn wait_coherent(&self) -> u64 {
        wait::value(
            "both nodes to be coherent at locsvc's level",
            FOLLOW_DEADLINE,
            || {
                let level = self.locsvc.level();
                let nodes = self.locsvc.nodes();
                let coherent = |name: &str| {
                    nodes.iter().any(|node| {
                        node["name"] == name
                            && node["connected"] == true
                            && node["state"] == "coherent"
                            && node["level"] == level
                    })
                };
                (coherent("n1") && coherent("n2")).then_some(level)
            },
        )
    }

    /// Waits until readers of both tables see `level`.
    ///
    /// # Panics
    /// When they do not in time.
    #[track_caller]
    pub fn wait_visible(&self, level: u64) {
        self.n1.wait_level(level, FOLLOW_DEADLINE);
        self.n2.wait_level(level, FOLLOW_DEADLINE);
    }

    /// A callee that plays the emergency answering point.
    pub fn answering_point(&self) -> Callee {
        Callee::listen(
            self.lab.host("callee"),
            ANSWERING_POINT_PORT,
            Manner::Answer,
        )
    }

    /// Places one emergency call through `node`; it must be answered.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn emergency_call(&self, node: &Node) {
        let point = self.answering_point();
        let mut caller = Phone::new(self.lab.host("caller"), "caller");
        let answer = caller.invite(node.address(), PROXY_PORT, "sip:112@example.net");
        assert_eq!(
            answer.code,
            200,
            "emergency call through {}: {}",
            node.name(),
            answer.text
        );
        assert_eq!(
            point.count("INVITE", ""),
            1,
            "the answering point was called once"
        );
    }

    /// What locsvc knows of node `name`, `Null` when it has never heard of it.
    pub fn node_status(&self, name: &str) -> Value {
        self.locsvc.node(name)
    }
}
