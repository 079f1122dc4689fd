//! What a node says of itself, to the master and, later, to a switch; it measures nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::v1::{WireVersion, synthetic};
use crate::{DecodeError, Decoder, Encoder, Level, Position};

/// State of a node's table (rules section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// There is no complete table yet: the node cannot answer.
    #[default]
    Loading,
    /// It answers and is catching up.
    Resync,
    /// It answers at the master's level.
    Coherent,
    /// It answers from what it last heard; the master is out of reach.
    Stale,
    /// Its content contradicts the master's: the node does not answer from it.
    Inconsistent,
    /// It answers what it has begun and takes nothing new.
    Draining,
}

impl NodeState {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Loading,
        Self::Resync,
        Self::Coherent,
        Self::Stale,
        Self::Inconsistent,
        Self::Draining,
    ];

    /// Returns the word that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Resync => "resync",
            Self::Coherent => "coherent",
            Self::Stale => "stale",
            Self::Inconsistent => "inconsistent",
            Self::Draining => "draining",
        }
    }

    /// Returns the code on the wire and in the node's shared memory, 1 to 6.
    pub fn code(self) -> u8 {
        match self {
            Self::Loading => 1,
            Self::Resync => 2,
            Self::Coherent => 3,
            Self::Stale => 4,
            Self::Inconsistent => 5,
            Self::Draining => 6,
        }
    }

    /// Returns the state with this code.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|state| state.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "node state",
                value: code.into(),
            })
    }

    /// Returns whether look-ups may be answered from the table.
    pub fn answers(self) -> bool {
        match self {
            Self::Resync | Self::Coherent | Self::Stale | Self::Draining => true,
            Self::Loading | Self::Inconsistent => false,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node's owner of the table says of its memory; all zero if it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableHealth {
    /// Bytes of the table that answers.
    pub table_bytes: u64,
    /// Of these, bytes mapped by pages of 2 MiB.
    pub huge_bytes: u64,
    /// Times that the table was read again from beginning to end.
    pub scrubs_total: u64,
    /// Partitions that were found to hold something else than their sums say.
    pub doubted_total: u64,
    /// Level of the newest snapshot on disk.
    pub snapshot_level: Level,
    /// Snapshots that could not be written.
    pub snapshots_failed_total: u64,
}

impl TableHealth {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.table_bytes).u64(self.huge_bytes);
        out.u64(self.scrubs_total).u64(self.doubted_total);
        out.u64(self.snapshot_level.0)
            .u64(self.snapshots_failed_total);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            table_bytes: from.u64("table bytes")?,
            huge_bytes: from.u64("huge bytes")?,
            scrubs_total: from.u64("scrubs")?,
            doubted_total: from.u64("doubted")?,
            snapshot_level: Level(from.u64("snapshot level")?),
            snapshots_failed_total: from.u64("snapshots failed")?,
        })
    }
}

/// What a node has counted of the multicast group since its agent started; all zero if it heard none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupHealth {
    /// Datagrams of the group that were opened.
    pub datagrams_total: u64,
    /// DATA datagrams that did not come at first.
    pub lost_total: u64,
    /// NACKs sent.
    pub nacks_total: u64,
    /// Datagrams refused, for whatever reason.
    pub refused_total: u64,
    /// Log frames applied that came by the group.
    pub frames_total: u64,
    /// Log frames applied that came over the node's own connection.
    pub connection_frames_total: u64,
}

impl GroupHealth {
    fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.datagrams_total).u64(self.lost_total);
        out.u64(self.nacks_total).u64(self.refused_total);
        out.u64(self.frames_total).u64(self.connection_frames_total);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            datagrams_total: from.u64("datagrams")?,
            lost_total: from.u64("lost")?,
            nacks_total: from.u64("nacks")?,
            refused_total: from.u64("refused datagrams")?,
            frames_total: from.u64("group frames")?,
            connection_frames_total: from.u64("connection frames")?,
        })
    }
}

/// Report of a node, sent each second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// What its workers see: applied level, epoch and content.
    pub position: Position,
    /// State of the table.
    pub state: NodeState,
    /// Milliseconds since the node last matched the master's level.
    pub lag_ms: u64,
    /// Records in the table.
    pub records: u64,
    /// Incremental catch-ups since the agent started.
    pub catch_ups_total: u64,
    /// Full reloads since the agent started.
    pub reloads_total: u64,
    /// Duration of the last catch-up or reload, in milliseconds.
    pub last_sync_ms: u64,
    /// Messages refused since the agent started.
    pub refused_total: u64,
    /// Audits since the agent started, of whatever cause.
    pub audits_total: u64,
    /// Records that audits have repaired.
    pub repaired_total: u64,
    /// Of the table's memory.
    pub health: TableHealth,
    /// Of the multicast group.
    pub group: GroupHealth,
}

impl NodeStatus {
    /// Appends position, `state u8`, eight `u64`, the six of the table's health and the six of the group's.
    pub(crate) fn encode_in(&self, version: WireVersion, out: &mut Encoder<'_>) {
        self.position.encode(out);
        out.u8(self.state.code()).u64(self.lag_ms).u64(self.records);
        out.u64(self.catch_ups_total).u64(self.reloads_total);
        out.u64(self.last_sync_ms).u64(self.refused_total);
        out.u64(self.audits_total).u64(self.repaired_total);
        self.health.encode(out);
        self.group.encode(out);
        synthetic::encode(version, &self.position, out);
    }

    /// Reads what [`Self::encode_in`] wrote.
    ///
    /// # Errors
    /// Truncation, an unknown state.
    pub(crate) fn decode_in(
        version: WireVersion,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let status = Self {
            position: Position::decode(from)?,
            state: NodeState::from_code(from.u8("node state")?)?,
            lag_ms: from.u64("lag")?,
            records: from.u64("records")?,
            catch_ups_total: from.u64("catch-ups")?,
            reloads_total: from.u64("reloads")?,
            last_sync_ms: from.u64("last sync")?,
            refused_total: from.u64("refused")?,
            audits_total: from.u64("audits")?,
            repaired_total: from.u64("repaired")?,
            health: TableHealth::decode(from)?,
            group: GroupHealth::decode(from)?,
        };
        synthetic::decode(version, &status.position, from)?;
        Ok(status)
    }
}
