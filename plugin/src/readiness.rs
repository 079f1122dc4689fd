//! Whether the node's table may answer now, and the word that operators see for it; it mends nothing.

use locus_proto::{NodeState, Position};
use locus_table::{Pulse, Reason};

/// An agent that has not reported for so long, in milliseconds, is taken for dead: the state is `stale`.
///
/// Twelve of its reports, and as long as a node waits for the master's heartbeat before it says the same.
pub const PULSE_SILENCE_MS: u64 = 3000;

/// Why the table may not answer; never the same as "there is no such record".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// There is no table, or it cannot be read.
    #[error("{0}")]
    Table(Reason),
    /// There is one, but the agent says that it must not answer.
    #[error("the table is {0}")]
    State(NodeState),
    /// A record in it cannot be decoded.
    #[error("a record cannot be decoded")]
    Record,
}

/// What a worker knows of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// State, `stale` if the agent is silent.
    pub state: NodeState,
    /// Where the table stands; `None` if there is none.
    pub position: Option<Position>,
    /// Records in the table.
    pub records: u64,
    /// Level of the master when the agent last heard of it.
    pub master_level: u64,
    /// Milliseconds since the table was last known to be complete.
    pub lag_ms: u64,
}

/// Returns the state by the agent's last report, read at `monotonic_ms`.
pub(crate) fn state(pulse: &Pulse, monotonic_ms: u64) -> NodeState {
    let silent = monotonic_ms.saturating_sub(pulse.updated_monotonic_ms) > PULSE_SILENCE_MS;
    match pulse.state {
        NodeState::Coherent | NodeState::Resync if silent => NodeState::Stale,
        NodeState::Coherent
        | NodeState::Resync
        | NodeState::Loading
        | NodeState::Stale
        | NodeState::Inconsistent
        | NodeState::Draining => pulse.state,
    }
}
