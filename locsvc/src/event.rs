//! Every line that the service can log: a closed vocabulary, written in one place. It decides nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use locus_distribution::{CloseReason, Disagreement, Path, PathReason, SenderCounters};
use locus_proto::v1::{AuditReport, AuditVerdict, GroupLeftReason, Plan};
use locus_proto::{Level, NodeId, NodeName, Position, Timestamp};

use crate::core::CoreCounters;
use crate::edge::{ApiCounters, MulticastCounters, UnicastCounters};
use crate::log::TornTail;

/// Something that an operator should be able to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each stands in Display")]
pub enum Event {
    Started {
        version: &'static str,
        data: PathBuf,
        position: Position,
        records: u64,
        distribution: SocketAddr,
        bus: Vec<PathBuf>,
        group: Option<SocketAddr>,
        api: SocketAddr,
    },
    /// What is open to others, as `section on address`.
    Insecure {
        open: Vec<String>,
    },
    IdentityRead {
        folder: PathBuf,
    },
    IdentityWarning(String),
    IdentityUnreadable {
        reason: String,
    },
    Revoked {
        who: String,
        connections: usize,
    },
    Operated {
        who: String,
        request: String,
        status: u16,
        suppressed: u64,
    },
    PathChanged {
        node: NodeId,
        name: NodeName,
        from: Path,
        to: Path,
        reason: PathReason,
    },
    MulticastLost {
        node: NodeId,
        name: NodeName,
        reason: GroupLeftReason,
    },
    MulticastBack {
        node: NodeId,
        name: NodeName,
        after: Duration,
    },
    GroupFailed {
        reason: String,
        suppressed: u64,
    },
    Recording {
        path: PathBuf,
    },
    RecordFailed {
        path: PathBuf,
        reason: String,
    },
    Recovered {
        entries: u64,
        bytes: u64,
    },
    TornTailCut(TornTail),
    LogContradicted {
        level: Level,
        frames: u64,
    },
    Resumed {
        outage: Duration,
        hold: Duration,
    },
    EpochOpened(Position),
    BatchRefused {
        reason: String,
        requests: usize,
        suppressed: u64,
    },
    TableFull {
        records: u64,
        suppressed: u64,
    },
    TableInconsistent {
        reason: String,
        suppressed: u64,
    },
    AliveFailed {
        reason: String,
        suppressed: u64,
    },
    LogUnreadable {
        reason: String,
        suppressed: u64,
    },
    LogEndUnreadable {
        reason: String,
        suppressed: u64,
    },
    Alarm(Disagreement),
    AlarmOver,
    TableVerified {
        position: Position,
        records: u64,
        alarm: bool,
    },
    Audited {
        node: NodeId,
        name: Option<NodeName>,
        report: AuditReport,
    },
    NodeUp {
        node: NodeId,
        name: NodeName,
        address: String,
        plan: Plan,
    },
    NodeDown {
        node: NodeId,
        name: NodeName,
        reason: CloseReason,
    },
    NodesSuppressed {
        suppressed: u64,
    },
    PeerRefused {
        address: String,
        reason: String,
        suppressed: u64,
    },
    AcceptFailed {
        reason: String,
        suppressed: u64,
    },
    Stopping,
    Totals(Box<Totals>),
    Stopped(Position),
    Failed {
        reason: String,
    },
}

impl Event {
    fn level(&self) -> tracing::Level {
        match self {
            Self::Started { .. }
            | Self::Recording { .. }
            | Self::Recovered { .. }
            | Self::Resumed { .. }
            | Self::EpochOpened(_)
            | Self::NodeUp { .. }
            | Self::IdentityRead { .. }
            | Self::Operated { .. }
            | Self::PathChanged { .. }
            | Self::MulticastBack { .. }
            | Self::AlarmOver
            | Self::TableVerified { .. }
            | Self::Stopping
            | Self::Totals(_)
            | Self::Stopped(_) => tracing::Level::INFO,
            Self::Insecure { .. }
            | Self::IdentityWarning(_)
            | Self::Revoked { .. }
            | Self::GroupFailed { .. }
            | Self::TornTailCut(_)
            | Self::TableFull { .. }
            | Self::AliveFailed { .. }
            | Self::NodeDown { .. }
            | Self::NodesSuppressed { .. }
            | Self::PeerRefused { .. }
            | Self::AcceptFailed { .. } => tracing::Level::WARN,
            Self::Audited { report, .. } => match report.verdict {
                AuditVerdict::Equal | AuditVerdict::Repaired | AuditVerdict::Busy => {
                    tracing::Level::INFO
                }
                AuditVerdict::Differs
                | AuditVerdict::Reloading
                | AuditVerdict::Refused
                | AuditVerdict::Failed => tracing::Level::WARN,
            },
            Self::RecordFailed { .. }
            | Self::IdentityUnreadable { .. }
            | Self::MulticastLost { .. }
            | Self::BatchRefused { .. }
            | Self::TableInconsistent { .. }
            | Self::LogUnreadable { .. }
            | Self::LogEndUnreadable { .. }
            | Self::LogContradicted { .. }
            | Self::Alarm(_)
            | Self::Failed { .. } => tracing::Level::ERROR,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started {
                version,
                data,
                position,
                records,
                distribution,
                bus,
                group,
                api,
            } => {
                let data = data.display();
                write!(
                    f,
                    "locsvc {version} started: data {data}, {position}, {records} records, "
                )?;
                write!(f, "distribution on {distribution}, ")?;
                for path in bus {
                    write!(f, "bus on {}, ", path.display())?;
                }
                if let Some(group) = group {
                    write!(f, "group {group}, ")?;
                }
                write!(f, "api on {api}")
            }
            Self::Insecure { open } => {
                let open = open.join(", ");
                write!(
                    f,
                    "INSECURE (insecure = true): {open}. NOBODY IS AUTHENTICATED AND NOTHING IS ENCRYPTED: \
                     whoever reaches it reads every subscriber's location, and changes it, or speaks for any \
                     node. For a lab alone; else issue certificates (`locusctl ca init`) and take the line out"
                )
            }
            Self::IdentityRead { folder } => {
                let folder = folder.display();
                write!(
                    f,
                    "read the identity in {folder} again: it counts from now on"
                )
            }
            Self::IdentityWarning(text) => write!(f, "identity: {text}"),
            Self::IdentityUnreadable { reason } => {
                write!(
                    f,
                    "the identity folder has changed and cannot be used, what was read before goes on to count: {reason}"
                )
            }
            Self::Revoked { who, connections } => {
                let s = if *connections == 1 { "" } else { "s" };
                write!(
                    f,
                    "{who} is not trusted any more (its certificate was revoked, or its CA retired): \
                     {connections} connection{s} closed"
                )
            }
            Self::Operated {
                who,
                request,
                status,
                suppressed,
            } => {
                write!(f, "{who}: {request}: {status}")?;
                and_more(f, *suppressed)
            }
            Self::PathChanged {
                node,
                name,
                from,
                to,
                reason,
            } => {
                let (from, to) = (from.as_str(), to.as_str());
                write!(
                    f,
                    "node {node} ({name}) is served by {to}, no more by {from}: {reason}"
                )
            }
            Self::MulticastLost { node, name, reason } => write!(
                f,
                "ALARM: the multicast path to node {node} ({name}) is lost: {reason}. It is served over its \
                 own connection; look at IGMP/MLD snooping on the way (`locusctl mcast-test`)"
            ),
            Self::MulticastBack { node, name, after } => {
                let s = after.as_secs();
                write!(
                    f,
                    "the multicast path to node {node} ({name}) is back after {s} s"
                )
            }
            Self::GroupFailed { reason, suppressed } => {
                write!(f, "the group's socket: {reason}")?;
                and_more(f, *suppressed)
            }
            Self::Recording { path } => {
                let path = path.display();
                write!(
                    f,
                    "every input is recorded in {path}, which grows without bound and holds the subscribers' data"
                )
            }
            Self::RecordFailed { path, reason } => {
                write!(
                    f,
                    "recording ended, {} cannot be written: {reason}",
                    path.display()
                )
            }
            Self::Recovered { entries, bytes } => {
                write!(f, "read {entries} entries of the log, {bytes} bytes")
            }
            Self::TornTailCut(torn) => {
                let TornTail {
                    file,
                    offset,
                    bytes,
                    reason,
                } = torn;
                write!(
                    f,
                    "cut {bytes} bytes off {file} at byte {offset}: a batch that was being "
                )?;
                write!(
                    f,
                    "written when the service died and that nobody was told of ({reason})"
                )
            }
            Self::LogContradicted { level, frames } => {
                let s = if *frames == 1 { "" } else { "s" };
                write!(
                    f,
                    "{frames} frame{s} of the log, from level {level} on: the content named there does not \
                     follow from the changes, because the memory of the master that wrote them was wrong. All \
                     changes are applied, and what follows from them counts; nodes repair themselves. Look at \
                     what was changed shortly before, and test that machine's memory"
                )
            }
            Self::Resumed { outage, hold } => {
                let (outage, hold) = (outage.as_secs(), hold.as_secs());
                write!(
                    f,
                    "down for {outage} s, which ages no binding; service time stands still for {hold} s more"
                )
            }
            Self::EpochOpened(position) => write!(f, "opened a new epoch: {position}"),
            Self::BatchRefused {
                reason,
                requests,
                suppressed,
            } => {
                write!(
                    f,
                    "{requests} requests refused, nothing was changed: {reason}"
                )?;
                and_more(f, *suppressed)
            }
            Self::TableFull {
                records,
                suppressed,
            } => {
                write!(
                    f,
                    "request refused, the table is full at {records} records: raise records_max and restart"
                )?;
                and_more(f, *suppressed)
            }
            Self::TableInconsistent { reason, suppressed } => {
                write!(
                    f,
                    "the table contradicts itself ({reason}): restart the service, it is made anew from the log"
                )?;
                and_more(f, *suppressed)
            }
            Self::AliveFailed { reason, suppressed } => {
                write!(f, "cannot write the file alive: {reason}")?;
                and_more(f, *suppressed)
            }
            Self::LogUnreadable { reason, suppressed } => {
                write!(
                    f,
                    "cannot bring nodes up to date from the log, they load the whole table: {reason}"
                )?;
                and_more(f, *suppressed)
            }
            Self::LogEndUnreadable { reason, suppressed } => {
                write!(f, "cannot compare the table with the log on disk: {reason}")?;
                and_more(f, *suppressed)
            }
            Self::Alarm(Disagreement { level, nodes, of }) => write!(
                f,
                "ALARM: {nodes} of {of} nodes agree on another content than the master's at level {level}. No \
                 node is repaired; the master reads its own table again"
            ),
            Self::AlarmOver => f.write_str("the alarm is over: most nodes agree with the master"),
            Self::TableVerified {
                position,
                records,
                alarm,
            } => {
                write!(
                    f,
                    "read the whole table again: {records} records, as written, at {position}"
                )?;
                if *alarm {
                    f.write_str(
                        ". The master is right by its log, so the nodes are wrong together: load their \
                         tables anew, one after the other (stop the agent, empty its folders of table and \
                         snapshots, start it again), and report this",
                    )?;
                }
                Ok(())
            }
            Self::Audited { node, name, report } => {
                write!(f, "node {node}")?;
                if let Some(name) = name {
                    write!(f, " ({name})")?;
                }
                let AuditReport {
                    verdict,
                    level,
                    partitions,
                    differing,
                    repaired,
                    ..
                } = report;
                write!(f, " was audited at level {level}: {verdict}")?;
                if *partitions == 0 {
                    return Ok(());
                }
                let some = |count: u64, noun: &str| {
                    let s = if count == 1 { "" } else { "s" };
                    format!("{count} {noun}{s}")
                };
                let records = some(*differing, "record");
                let partitions = some((*partitions).into(), "partition");
                write!(
                    f,
                    "; {records} in {partitions} differed, repaired: {repaired}"
                )
            }
            Self::NodeUp {
                node,
                name,
                address,
                plan,
            } => {
                write!(f, "node {node} ({name}) from {address}: ")?;
                match plan {
                    Plan::Continue => f.write_str("goes on with the log"),
                    Plan::Reload(reason) => write!(f, "loads the whole table: {reason}"),
                }
            }
            Self::NodeDown { node, name, reason } => {
                write!(f, "node {node} ({name}) is gone: {reason}")
            }
            Self::NodesSuppressed { suppressed } => {
                write!(
                    f,
                    "nodes came and went {suppressed} more times in the last seconds"
                )
            }
            Self::PeerRefused {
                address,
                reason,
                suppressed,
            } => {
                write!(f, "connection from {address} closed: {reason}")?;
                and_more(f, *suppressed)
            }
            Self::AcceptFailed { reason, suppressed } => {
                write!(f, "cannot accept a connection: {reason}")?;
                and_more(f, *suppressed)
            }
            Self::Stopping => f.write_str("stopping: no more requests are taken"),
            Self::Totals(totals) => write!(f, "since the start: {totals}"),
            Self::Stopped(position) => write!(f, "stopped at {position}"),
            Self::Failed { reason } => write!(f, "stopped by a fault: {reason}"),
        }
    }
}

/// What every part has counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// The core.
    pub core: CoreCounters,
    /// Distribution.
    pub distribution: SenderCounters,
    /// The listener of the nodes.
    pub unicast: UnicastCounters,
    /// The group's socket.
    pub multicast: MulticastCounters,
    /// The API.
    pub api: ApiCounters,
}

impl fmt::Display for Totals {
    /// Names and values of all that are not zero, by part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("core", serde_json::to_value(self.core)),
            ("distribution", serde_json::to_value(self.distribution)),
            ("unicast", serde_json::to_value(self.unicast)),
            ("multicast", serde_json::to_value(self.multicast)),
            ("api", serde_json::to_value(self.api)),
        ];
        for (at, (part, counters)) in parts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{part}")?;
            if let Ok(counters) = counters {
                write_counters(f, "", counters)?;
            }
        }
        Ok(())
    }
}

/// Writes the counters that are not zero; those of a part within a part bear its name before theirs.
fn write_counters(
    f: &mut fmt::Formatter<'_>,
    within: &str,
    counters: &serde_json::Value,
) -> fmt::Result {
    let counters = counters.as_object();
    for (name, count) in counters.into_iter().flatten() {
        let name = format!("{within}{name}");
        if count.is_object() {
            write_counters(f, &format!("{name}_"), count)?;
        } else if *count != 0 {
            write!(f, " {name}={count}")?;
        }
    }
    Ok(())
}

fn and_more(f: &mut fmt::Formatter<'_>, suppressed: u64) -> fmt::Result {
    match suppressed {
        0 => Ok(()),
        more => write!(f, " (and {more} more like it)"),
    }
}

/// Writes `event` to the log: the only place from which it is written.
pub fn emit(event: &Event) {
    let level = event.level();
    if level == tracing::Level::ERROR {
        tracing::error!("{event}");
    } else if level == tracing::Level::WARN {
        tracing::warn!("{event}");
    } else {
        tracing::info!("{event}");
    }
}

/// Lets some lines a second through and counts the others: a peer must not be able to fill the disk.
#[derive(Debug)]
pub struct Limiter {
    lines_max: u32,
    since: Option<Timestamp>,
    lines: u32,
    suppressed: u64,
}

impl Default for Limiter {
    /// One line a second.
    fn default() -> Self {
        Self::per_second(1)
    }
}

impl Limiter {
    /// Returns a limiter that lets `lines_max` lines a second through.
    pub fn per_second(lines_max: u32) -> Self {
        Self {
            lines_max,
            since: None,
            lines: 0,
            suppressed: 0,
        }
    }

    /// Returns how many were suppressed since the last line, if one may be said at `now`.
    pub fn permit(&mut self, now: Timestamp) -> Option<u64> {
        let too_soon = |since| now.since(since) < Duration::from_secs(1);
        if !self.since.is_some_and(too_soon) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= self.lines_max {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_name_what_happened() {
        let mut totals = Totals::default();
        totals.core.changes_total = 40;
        totals.api.answers_total = 7;
        totals.api.refused_total = 1;
        totals.distribution.group.nacks_total = 3;
        totals.multicast.full_total = 2;
        let expected = "core changes_total=40; distribution group_nacks_total=3; unicast; \
                        multicast full_total=2; api answers_total=7 refused_total=1";
        assert_eq!(totals.to_string(), expected);
    }

    #[test]
    fn one_line_a_second_and_the_number_of_the_others() {
        let mut limiter = Limiter::default();
        let at = |ms| Timestamp::default().plus(Duration::from_millis(ms));
        assert_eq!(limiter.permit(at(0)), Some(0));
        assert_eq!(limiter.permit(at(1)), None);
        assert_eq!(limiter.permit(at(999)), None);
        assert_eq!(limiter.permit(at(1000)), Some(2));
        assert_eq!(limiter.permit(at(5000)), Some(0));
        let mut limiter = Limiter::per_second(2);
        let permits = [0, 1, 2, 3, 1000].map(|ms| limiter.permit(at(ms)));
        assert_eq!(permits, [Some(0), Some(0), None, None, Some(2)]);
    }
}
