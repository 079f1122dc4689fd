//! What each end of the group sent, took and refused, as totals since it was made; nothing here decides.

use serde::{Deserialize, Serialize};

/// Totals of a [`super::GroupSender`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupSenderCounters {
    /// Distribution frames, each with one signature.
    pub frames_total: u64,
    /// Bytes of messages in them.
    pub message_bytes_total: u64,
    /// Datagrams of data sent, first time.
    pub data_total: u64,
    /// Their bytes.
    pub data_bytes_total: u64,
    /// Repairs to the group.
    pub repairs_group_total: u64,
    /// Repairs to one node.
    pub repairs_node_total: u64,
    /// Bytes of both.
    pub repair_bytes_total: u64,
    /// Beats, confirms and notices that data is gone.
    pub control_total: u64,
    /// Their bytes.
    pub control_bytes_total: u64,
    /// NACKs that were opened and judged.
    pub nacks_total: u64,
    /// Datagrams asked for that were on their way already.
    pub held_total: u64,
    /// Confirms sent.
    pub confirms_total: u64,
    /// NACKs dropped because more than [`crate::WINDOW_DATAGRAMS`] came.
    pub nacks_over_budget_total: u64,
    /// NACKs for what is not in the ring any more.
    pub gone_total: u64,
    /// Times that the rate was halved because repairs took more than their share.
    pub slowed_total: u64,
    /// Members put out because they made no progress.
    pub lagging_total: u64,
    /// Times that a key was taken into use.
    pub rotations_total: u64,
    /// Datagrams that are not of this protocol, version, stream or direction.
    pub malformed_total: u64,
    /// Datagrams that name a node which is not in the group.
    pub strangers_total: u64,
    /// Datagrams whose seq is not above the last of its kind and node.
    pub replayed_total: u64,
    /// Datagrams that the node's key did not seal.
    pub unsealed_total: u64,
    /// Seqs asked for that were never sent.
    pub impossible_total: u64,
    /// Bytes per second that may leave now.
    pub rate_bytes_per_s: u64,
    /// Round-trip time of the group now, in microseconds.
    pub rtt_us: u64,
}

/// Totals of a [`super::GroupReceiver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupReceiverCounters {
    /// Datagrams that were opened.
    pub datagrams_total: u64,
    /// Distribution frames whose signature held.
    pub frames_total: u64,
    /// Messages in them.
    pub messages_total: u64,
    /// Datagrams of data found missing while it followed.
    pub lost_total: u64,
    /// NACKs sent.
    pub nacks_total: u64,
    /// Statuses sent.
    pub statuses_total: u64,
    /// Times that it left the group by itself.
    pub left_total: u64,
    /// Datagrams that are not of this protocol, version or direction, or too long.
    pub malformed_total: u64,
    /// Datagrams of another stream.
    pub strangers_total: u64,
    /// Datagrams under a key it does not hold, or control under one that is not in use any more.
    pub unknown_key_total: u64,
    /// Data it has had, or control that is not above the last of its kind.
    pub duplicates_total: u64,
    /// Data too far ahead of what it can hold.
    pub ahead_total: u64,
    /// Datagrams that the key did not seal.
    pub unsealed_total: u64,
    /// Distribution frames thrown away: the signature, the order of fragments or the length was wrong.
    pub frames_refused_total: u64,
    /// Signed messages that are neither a frame nor a heartbeat.
    pub unexpected_total: u64,
}

impl GroupReceiverCounters {
    /// Returns the sum of everything refused; what was merely heard twice is not.
    pub fn refused_total(&self) -> u64 {
        self.malformed_total
            + self.strangers_total
            + self.unknown_key_total
            + self.ahead_total
            + self.unsealed_total
            + self.frames_refused_total
            + self.unexpected_total
    }
}
