//! What the master knows of each node, connected or not; it sends nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use locus_proto::{
    BootId, Level, NodeId, NodeName, NodeState, NodeStatus, ReloadReason, Root, Timestamp,
    v1::Hello,
};
use serde::Serialize;

use crate::{Path, Sending};

/// Most nodes remembered; above it the one that has been away longest is forgotten.
///
/// Twice [`crate::PEERS_MAX`]: every connected node fits, and as many that are away.
pub const ROSTER_MAX: usize = 2048;

/// What a node holds that is not the master's: its root less the master's at one level. Nodes with the same
/// agree with each other, whatever their levels.
pub(crate) type Doubt = Root;

/// One node as the master knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RosterEntry {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where its connection came from.
    pub address: String,
    /// SIP URI at which other nodes reach it, or empty.
    pub sip: String,
    /// Life of its agent.
    pub boot: BootId,
    /// Whether its connection is open.
    pub connected: bool,
    /// What is being sent to it; the last state before it went, if it is not connected.
    pub sending: Sending,
    /// How the log comes to it; the last way before it went, if it is not connected.
    pub path: Path,
    /// Version of the messages to it.
    pub version: u8,
    /// Bytes of frames sent over its own connection since it greeted last.
    pub connection_frame_bytes_total: u64,
    /// When it was last heard.
    pub heard_at: Timestamp,
    /// Its last report since it greeted last.
    pub status: Option<NodeStatus>,
    /// Levels between its last report and the head of the log; `None` before its first report.
    pub levels_behind: Option<u64>,
}

/// What a connection says of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) sending: Sending,
    pub(crate) path: Path,
    pub(crate) version: u8,
    pub(crate) connection_frame_bytes_total: u64,
}

impl RosterEntry {
    fn set(&mut self, live: Live) {
        self.sending = live.sending;
        self.path = live.path;
        self.version = live.version;
        self.connection_frame_bytes_total = live.connection_frame_bytes_total;
    }
}

#[derive(Debug)]
struct Known {
    entry: RosterEntry,
    /// Why its next greeting must end in a reload, whatever it presents.
    reload_next: Option<ReloadReason>,
    /// What it holds against the master, until it matches. It outlasts a connection: whoever comes back has not
    /// changed its mind.
    doubt: Option<Doubt>,
}

/// All nodes that ever greeted, at most [`ROSTER_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Roster {
    nodes: BTreeMap<NodeId, Known>,
}

impl Roster {
    /// Enters a node that greets; returns whether another one had to be forgotten for it.
    pub(crate) fn handle_hello(&mut self, now: Timestamp, hello: &Hello, address: &str) -> bool {
        let known = self.nodes.remove(&hello.node);
        let forgot = self.nodes.len() >= ROSTER_MAX && self.forget_one();
        let (reload_next, doubt) =
            known.map_or((None, None), |known| (known.reload_next, known.doubt));
        let doubt = doubt.filter(|_| hello.position.is_some()); // the whole table comes
        let entry = RosterEntry {
            node: hello.node,
            name: hello.name.clone(),
            address: address.to_owned(),
            sip: hello.sip.clone(),
            boot: hello.boot,
            connected: true,
            sending: Sending::Greeting,
            path: Path::Tcp, // until it is asked for, and then by its connection
            version: 1,
            connection_frame_bytes_total: 0,
            heard_at: now,
            status: None, // what it said before may be of another table
            levels_behind: None,
        };
        let known = Known {
            entry,
            reload_next,
            doubt,
        };
        self.nodes.insert(hello.node, known);
        forgot
    }

    pub(crate) fn handle_status(&mut self, now: Timestamp, node: NodeId, status: NodeStatus) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.entry.heard_at = now;
            known.doubt = (known.doubt).filter(|_| status.state != NodeState::Coherent);
            known.entry.status = Some(status);
        }
    }

    pub(crate) fn handle_gone(&mut self, node: NodeId, live: Live) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.entry.connected = false;
            known.entry.set(live);
        }
    }

    /// Takes note that the node's content is in doubt, or is not.
    pub(crate) fn doubt(&mut self, node: NodeId, doubt: Option<Doubt>) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.doubt = doubt;
        }
    }

    /// Returns the node's doubt.
    pub(crate) fn doubt_of(&self, node: NodeId) -> Option<Doubt> {
        self.nodes.get(&node)?.doubt
    }

    /// Returns the doubts of nodes that are not connected and were heard within `recent`.
    pub(crate) fn doubts_away(
        &self,
        now: Timestamp,
        recent: Duration,
    ) -> impl Iterator<Item = Doubt> {
        let away = move |known: &&Known| {
            !known.entry.connected && now.since(known.entry.heard_at) < recent
        };
        self.nodes
            .values()
            .filter(away)
            .filter_map(|known| known.doubt)
    }

    /// Demands a reload at the node's next greeting; returns whether it is known.
    pub(crate) fn demand_reload(&mut self, node: NodeId, reason: ReloadReason) -> bool {
        let known = self.nodes.get_mut(&node);
        known.is_some_and(|known| {
            known.reload_next = Some(reason);
            true
        })
    }

    /// Returns the reason if the node must reload.
    pub(crate) fn demand(&self, node: NodeId) -> Option<ReloadReason> {
        self.nodes.get(&node)?.reload_next
    }

    /// Forgets the demand: the whole table was sent.
    pub(crate) fn fulfil_demand(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.reload_next = None;
        }
    }

    /// Returns all entries for a log that ends at `head`; `live` tells of the connected ones.
    pub(crate) fn entries(
        &self,
        head: Level,
        live: impl Fn(NodeId) -> Option<Live>,
    ) -> Vec<RosterEntry> {
        let entry = |known: &Known| {
            let mut entry = known.entry.clone();
            if let Some(live) = live(entry.node) {
                entry.set(live);
            }
            entry.levels_behind =
                (entry.status.as_ref()).map(|status| head.since(status.position.level));
            entry
        };
        self.nodes.values().map(entry).collect()
    }

    fn forget_one(&mut self) -> bool {
        let away = self.nodes.values().filter(|known| !known.entry.connected);
        let longest = away.min_by_key(|known| known.entry.heard_at);
        let Some(node) = longest.map(|known| known.entry.node) else {
            return false;
        };
        self.nodes.remove(&node).is_some()
    }
}
