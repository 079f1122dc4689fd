//! JSON about nodes: how they stand, and what audits of them found; it judges none.

use axum::http::StatusCode;
use locus_proto::v1::{AuditVerdict, GroupLeftReason};
use locus_proto::{GroupHealth, Level, NodeId, NodeName, Position, TableHealth};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::Fault;
use crate::provision::{AlarmView, Audited, NodeAudit, NodeRef, NodeView};

/// Body of `POST /v1/audit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditBody {
    /// Name or number; absent or null for all.
    #[serde(default)]
    node: Option<Value>,
    #[serde(default)]
    pub(super) repair: bool,
    pub(super) timeout_ms: Option<u64>,
}

impl AuditBody {
    /// Returns the node that is meant, if it is one.
    pub(super) fn node(&self) -> Result<Option<NodeRef>, Fault> {
        match &self.node {
            None => Ok(None),
            Some(Value::String(name)) => node_ref(name).map(Some),
            Some(Value::Number(number)) => {
                let number = number.as_u64().and_then(|number| number.try_into().ok());
                match number {
                    Some(number) => Ok(Some(NodeRef::Number(NodeId(number)))),
                    None => Err(no_such("a node's number is 1 to 65535")),
                }
            }
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Err(
                Fault::bad("bad_body", "\"node\" is the name or the number of a node"),
            ),
        }
    }
}

/// Returns the node that is called so, by name or number.
pub(super) fn node_ref(text: &str) -> Result<NodeRef, Fault> {
    match text.parse() {
        Ok(name) => Ok(NodeRef::Name(name)),
        Err(error) => Err(no_such(&format!("{error}"))),
    }
}

fn no_such(error: &str) -> Fault {
    let error = format!("there is no such node: {error}; GET /v1/nodes shows those there are");
    Fault::new(StatusCode::NOT_FOUND, "no_such_node", error)
}

/// Answer to `POST /v1/nodes/{node}/reload`.
#[derive(Debug, Serialize)]
pub(super) struct ReloadAnswer {
    node: u16,
    name: String,
    /// Whether it begins now, or when it comes back.
    connected: bool,
}

impl ReloadAnswer {
    pub(super) fn new(node: NodeId, name: &NodeName, connected: bool) -> Self {
        Self {
            node: node.0,
            name: name.to_string(),
            connected,
        }
    }
}

/// Answer to `POST /v1/audit`.
#[derive(Debug, Serialize)]
pub(super) struct AuditAnswer {
    level: Level,
    nodes: Vec<AuditedNode>,
}

#[derive(Debug, Serialize)]
struct AuditedNode {
    node: u16,
    name: String,
    /// A node's own word, or why there is none.
    verdict: Verdict,
    /// Absent without a report.
    #[serde(flatten)]
    report: Option<AuditedTable>,
}

/// The verdicts of nodes, and `no_answer` and `not_connected`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Verdict {
    Node(AuditVerdict),
    Master(&'static str),
}

#[derive(Debug, Serialize)]
struct AuditedTable {
    level: Level,
    records: u64,
    /// How many differed.
    partitions: u32,
    /// The first of them, from … to, both included.
    ranges: Vec<(u16, u16)>,
    differing: u64,
    repaired: u64,
}

impl AuditAnswer {
    pub(super) fn new(level: Level, nodes: Vec<NodeAudit>) -> Self {
        let nodes = nodes.into_iter().map(AuditedNode::from).collect();
        Self { level, nodes }
    }
}

impl From<NodeAudit> for AuditedNode {
    fn from(audit: NodeAudit) -> Self {
        let (verdict, report) = match audit.outcome {
            Audited::Reported(report) => {
                let table = AuditedTable {
                    level: report.level,
                    records: report.records,
                    partitions: report.partitions,
                    ranges: report.ranges,
                    differing: report.differing,
                    repaired: report.repaired,
                };
                (Verdict::Node(report.verdict), Some(table))
            }
            Audited::Busy => (Verdict::Node(AuditVerdict::Busy), None),
            Audited::NoAnswer => (Verdict::Master("no_answer"), None),
            Audited::NotConnected => (Verdict::Master("not_connected"), None),
        };
        Self {
            node: audit.node.0,
            name: audit.name.to_string(),
            verdict,
            report,
        }
    }
}

/// Answer to `GET /v1/nodes`.
#[derive(Debug, Serialize)]
pub(super) struct NodesAnswer {
    level: Level,
    epoch: String,
    root: String,
    /// Null while all is well.
    alarm: Option<AlarmAnswer>,
    nodes: Vec<NodeAnswer>,
}

#[derive(Debug, Serialize)]
struct NodeAnswer {
    node: u16,
    name: String,
    address: String,
    sip: String,
    connected: bool,
    behind: u64,
    sending: &'static str,
    /// `tcp`, `bus-a`, `bus-b` or `multicast`.
    path: &'static str,
    /// Version of the wire that both speak.
    version: u8,
    /// Bytes of frames sent over the node's own connection since it greeted.
    connection_frame_bytes_total: u64,
    /// Null unless the group should reach the node and does not.
    multicast_lost: Option<LostAnswer>,
    /// The node's own words; absent until it has reported.
    #[serde(flatten)]
    report: Option<NodeReport>,
}

/// The group does not reach a node: it is served over its own connection meanwhile.
#[derive(Debug, Serialize)]
struct LostAnswer {
    /// One word.
    reason: GroupLeftReason,
    lasts_ms: u64,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    state: &'static str,
    level: Level,
    epoch: String,
    root: String,
    lag_ms: u64,
    records: u64,
    catch_ups_total: u64,
    reloads_total: u64,
    last_sync_ms: u64,
    refused_total: u64,
    audits_total: u64,
    repaired_total: u64,
    health: HealthReport,
    group: GroupReport,
}

/// What the node says of the group.
#[derive(Debug, Serialize)]
struct GroupReport {
    /// Datagrams heard.
    datagrams_total: u64,
    /// Datagrams that it had to ask for.
    lost_total: u64,
    nacks_total: u64,
    /// Datagrams that it did not believe.
    refused_total: u64,
    /// Frames applied that came by the group, and that came over the connection.
    frames_total: u64,
    connection_frames_total: u64,
}

/// What the node says of its table's memory.
#[derive(Debug, Serialize)]
struct HealthReport {
    table_bytes: u64,
    huge_bytes: u64,
    /// `2M`, `4K` or `mixed`; null if the node does not know.
    pages: Option<&'static str>,
    scrubs_total: u64,
    doubted_total: u64,
    snapshot_level: Level,
    snapshots_failed_total: u64,
}

/// Most nodes agree with each other against the master; nothing is repaired meanwhile.
#[derive(Debug, Serialize)]
struct AlarmAnswer {
    /// Level at which the last of them stood.
    level: Level,
    /// How many, of how many.
    nodes: usize,
    of: usize,
    /// Whether the master has read its own table again since and found it to be what was written.
    master_verified: bool,
}

impl From<AlarmView> for AlarmAnswer {
    fn from(alarm: AlarmView) -> Self {
        Self {
            level: alarm.level,
            nodes: alarm.nodes,
            of: alarm.of,
            master_verified: alarm.verified,
        }
    }
}

/// Of a table's bytes, those that lie in pages of 2 MiB where it has them, in hundredths: the ends of its
/// parts may not.
const HUGE_PERCENT_MIN: u64 = 90;

/// Returns by which pages a table is mapped.
fn pages(health: &TableHealth) -> Option<&'static str> {
    match (health.table_bytes, health.huge_bytes) {
        (0, _) => None,
        (_, 0) => Some("4K"),
        (all, huge) if huge >= all / 100 * HUGE_PERCENT_MIN => Some("2M"),
        (_, _) => Some("mixed"),
    }
}

impl From<TableHealth> for HealthReport {
    fn from(health: TableHealth) -> Self {
        Self {
            pages: pages(&health),
            table_bytes: health.table_bytes,
            huge_bytes: health.huge_bytes,
            scrubs_total: health.scrubs_total,
            doubted_total: health.doubted_total,
            snapshot_level: health.snapshot_level,
            snapshots_failed_total: health.snapshots_failed_total,
        }
    }
}

impl From<GroupHealth> for GroupReport {
    fn from(group: GroupHealth) -> Self {
        Self {
            datagrams_total: group.datagrams_total,
            lost_total: group.lost_total,
            nacks_total: group.nacks_total,
            refused_total: group.refused_total,
            frames_total: group.frames_total,
            connection_frames_total: group.connection_frames_total,
        }
    }
}

impl NodesAnswer {
    pub(super) fn new(position: Position, alarm: Option<AlarmView>, nodes: Vec<NodeView>) -> Self {
        Self {
            level: position.level,
            epoch: position.epoch.to_string(),
            root: position.root.to_string(),
            alarm: alarm.map(AlarmAnswer::from),
            nodes: nodes.into_iter().map(NodeAnswer::from).collect(),
        }
    }
}

impl From<NodeView> for NodeAnswer {
    fn from(view: NodeView) -> Self {
        let report = view.status.map(|status| NodeReport {
            state: status.state.as_str(),
            level: status.position.level,
            epoch: status.position.epoch.to_string(),
            root: status.position.root.to_string(),
            lag_ms: status.lag_ms,
            records: status.records,
            catch_ups_total: status.catch_ups_total,
            reloads_total: status.reloads_total,
            last_sync_ms: status.last_sync_ms,
            refused_total: status.refused_total,
            audits_total: status.audits_total,
            repaired_total: status.repaired_total,
            health: status.health.into(),
            group: status.group.into(),
        });
        Self {
            node: view.node.0,
            name: view.name.to_string(),
            address: view.address,
            sip: view.sip,
            connected: view.connected,
            behind: view.behind,
            sending: view.sending,
            path: view.path,
            version: view.version,
            connection_frame_bytes_total: view.connection_frame_bytes_total,
            multicast_lost: view.multicast_lost.map(|lost| LostAnswer {
                reason: lost.reason,
                lasts_ms: u64::try_from(lost.lasts.as_millis()).unwrap_or(u64::MAX),
            }),
            report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named() {
        let of = |table_bytes, huge_bytes| {
            pages(&TableHealth {
                table_bytes,
                huge_bytes,
                ..TableHealth::default()
            })
        };
        assert_eq!(of(0, 0), None);
        assert_eq!(of(64 << 20, 0), Some("4K"));
        assert_eq!(of(64 << 20, 2 << 20), Some("mixed"));
        assert_eq!(of(64 << 20, 62 << 20), Some("2M"));
        assert_eq!(of(u64::MAX, u64::MAX), Some("2M"));
    }
}
