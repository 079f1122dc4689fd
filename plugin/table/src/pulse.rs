//! What the agent tells the workers of its host, in a few words beside the table; it judges nothing.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use locus_proto::{Level, MasterTime, NodeId, NodeState};

use crate::Word;

/// First word of the pulse in the control region; it fills one cache line.
pub(crate) const AT_PULSE: usize = 64;
const PULSE_WORDS: usize = 8;

/// The agent's report, renewed with each heartbeat and change of state.
///
/// Each field is a word of its own; a reader may see some fields older than others, and no use of them
/// depends on their being of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// State of the node.
    pub state: NodeState,
    /// Service time minus CLOCK_MONOTONIC, in milliseconds.
    pub master_offset_ms: i64,
    /// Service time of the last heartbeat that matched this node's level; zero before the first.
    pub complete_until: MasterTime,
    /// Level of the master in the last heartbeat.
    pub master_level: Level,
    /// CLOCK_MONOTONIC when this was written, in milliseconds.
    pub updated_monotonic_ms: u64,
    /// Bound of the grace that an expired binding gets while the master is out of reach.
    pub max_grace_ms: u64,
    /// Number of the node.
    pub node: NodeId,
    /// Counter of the epoch that the node follows.
    pub epoch_counter: u64,
}

impl Pulse {
    /// Returns the service time at `monotonic_ms` of CLOCK_MONOTONIC.
    pub fn master_now(&self, monotonic_ms: u64) -> MasterTime {
        MasterTime(monotonic_ms.saturating_add_signed(self.master_offset_ms))
    }

    /// Reads the pulse; `None` if no agent has written one.
    pub(crate) fn read<W: Word>(control: &[W]) -> Option<Self> {
        let mut line = [0; PULSE_WORDS];
        let words = control.get(AT_PULSE..)?;
        for (to, word) in line.iter_mut().zip(words) {
            *to = word.load();
        }
        let [state, offset, complete, level, updated, grace, node, epoch] = line;
        Some(Self {
            state: NodeState::from_code(u8::try_from(state).ok()?).ok()?,
            master_offset_ms: offset.cast_signed(),
            complete_until: MasterTime(complete),
            master_level: Level(level),
            updated_monotonic_ms: updated,
            max_grace_ms: grace,
            node: NodeId(u16::try_from(node).ok()?),
            epoch_counter: epoch,
        })
    }

    /// Writes the pulse, the state last.
    pub(crate) fn write<W: Word>(&self, control: &[W]) {
        let line = [
            self.master_offset_ms.cast_unsigned(),
            self.complete_until.0,
            self.master_level.0,
            self.updated_monotonic_ms,
            self.max_grace_ms,
            self.node.0.into(),
            self.epoch_counter,
        ];
        let Some((state, rest)) = control
            .get(AT_PULSE..)
            .and_then(|words| words.split_first())
        else {
            return;
        };
        for (word, value) in rest.iter().zip(line) {
            word.store(value);
        }
        state.store_release(self.state.code().into());
    }
}
