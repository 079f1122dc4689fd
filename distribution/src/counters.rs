//! What each end refused or had to do again, as totals since it started; nothing here decides.

use serde::Serialize;

use crate::multicast::{GroupReceiverCounters, GroupSenderCounters};

/// Totals of a [`crate::Sender`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SenderCounters {
    /// Connections refused because [`crate::PEERS_MAX`] were open.
    pub peers_refused_total: u64,
    /// Hellos of another cluster.
    pub cluster_refused_total: u64,
    /// Messages that a node must not send, or not at that point.
    pub unexpected_total: u64,
    /// Connections replaced by a newer one of the same node.
    pub replaced_total: u64,
    /// Connections that did not greet in time.
    pub greeting_timeouts_total: u64,
    /// Nodes from which nothing came for too long.
    pub silent_total: u64,
    /// Nodes that took no byte for too long.
    pub stalled_total: u64,
    /// Answers of the log that did not follow the node's position.
    pub log_unreadable_total: u64,
    /// Disconnected nodes dropped from the roster because it was full.
    pub roster_dropped_total: u64,
    /// Nodes that had to wait for the next reading of the table.
    pub snapshots_waited_total: u64,
    /// Snapshots begun: one for each node.
    pub snapshots_total: u64,
    /// Readings of the table begun; several nodes may share one.
    pub boats_total: u64,
    /// Readings split because some were too slow for the others.
    pub boats_split_total: u64,
    /// Parts of the table read, whoever got them.
    pub snapshot_parts_total: u64,
    /// Nodes sent away because they took the table too slowly, and enough others did.
    pub too_slow_total: u64,
    /// Incremental catch-ups begun.
    pub catch_ups_total: u64,
    /// Times that a node's window was full when there was something to send.
    pub window_full_total: u64,
    /// Questions of audits that were answered.
    pub audit_answers_total: u64,
    /// Questions of audits that were refused.
    pub audits_refused_total: u64,
    /// Times that most nodes agreed with each other against the master.
    pub disagreements_total: u64,
    /// Partitions not sent because they hold more than [`crate::PARTITION_BYTES_MAX`].
    pub partitions_too_large_total: u64,
    /// Reports of audits that nobody had ordered: ignored.
    pub reports_ignored_total: u64,
    /// Hellos that said something else than the certificate.
    pub identities_refused_total: u64,
    /// Connections closed because the certificate was revoked.
    pub revoked_total: u64,
    /// Bytes of frames sent over connections.
    pub connection_frame_bytes_total: u64,
    /// Bytes of frames sent to the group, each once.
    pub group_frame_bytes_total: u64,
    /// Times that a node went over to the group.
    pub group_cuts_total: u64,
    /// Times that a node left the group and was served over its connection again.
    pub group_left_total: u64,
    /// Times that the master took a node out of the group.
    pub group_ends_total: u64,
    /// Times that a node was lost to the group, so that an operator must know.
    pub multicast_lost_total: u64,
    /// Of the group's own protocol.
    pub group: GroupSenderCounters,
}

/// Totals of a [`crate::Receiver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ReceiverCounters {
    /// Frames at or below the node's level, or of an older epoch: ignored.
    pub duplicates_total: u64,
    /// Frames or heartbeats behind a gap.
    pub gaps_total: u64,
    /// Frames or heartbeats whose root contradicts the node's at the same level.
    pub root_mismatches_total: u64,
    /// Messages that the master must not send, or not at that point.
    pub unexpected_total: u64,
    /// Masters refused because the node has followed a newer or another one.
    pub masters_refused_total: u64,
    /// Times that the master sent the node away.
    pub rejections_total: u64,
    /// Snapshots that broke their own announcement.
    pub snapshots_refused_total: u64,
    /// Reloads that did not reach their end.
    pub loads_failed_total: u64,
    /// Batches that the table could not apply.
    pub applies_failed_total: u64,
    /// Connections closed because the master was silent.
    pub silent_total: u64,
    /// Audits begun, of whatever cause.
    pub audits_total: u64,
    /// Rounds of audits begun after the first, because something differed still.
    pub audit_rounds_total: u64,
    /// Answers that had to wait until the table stood at their level.
    pub audit_answers_held_total: u64,
    /// Answers whose level the table had passed already: asked again.
    pub audit_misses_total: u64,
    /// Questions that were not answered in time.
    pub audit_unanswered_total: u64,
    /// Answers that did not fit the question.
    pub audit_answers_refused_total: u64,
    /// Audits that the master refused.
    pub audits_refused_total: u64,
    /// Orders of audits that came at the wrong time.
    pub audits_busy_total: u64,
    /// Audits that ended because the table could not be read or repaired.
    pub audits_failed_total: u64,
    /// Audits given up for a reload.
    pub audits_given_up_total: u64,
    /// Audits cut short by the end of their connection.
    pub audits_cut_total: u64,
    /// Records that audits have repaired.
    pub repaired_total: u64,
    /// Messages handed in while the table still owed an answer: a bug of the caller.
    pub busy_total: u64,
    /// Frames applied that came by the group.
    pub group_frames_total: u64,
    /// Frames applied that came over the connection.
    pub connection_frames_total: u64,
    /// Times that the node went over to the group.
    pub group_cuts_total: u64,
    /// Times that it left the group, and was served over its connection again.
    pub group_left_total: u64,
    /// Times that it had to call the group silent.
    pub group_silent_total: u64,
    /// Of the group's own protocol.
    pub group: GroupReceiverCounters,
}

impl ReceiverCounters {
    /// Returns the sum of everything refused, as [`locus_proto::NodeStatus::refused_total`] reports it.
    pub fn refused_total(&self) -> u64 {
        self.duplicates_total
            + self.gaps_total
            + self.root_mismatches_total
            + self.unexpected_total
            + self.masters_refused_total
            + self.snapshots_refused_total
            + self.loads_failed_total
            + self.applies_failed_total
            + self.audit_answers_refused_total
            + self.busy_total
            + self.group.refused_total()
    }
}

/// Returns the totals of one receiver after the other.
pub(crate) fn sum(a: GroupReceiverCounters, b: GroupReceiverCounters) -> GroupReceiverCounters {
    GroupReceiverCounters {
        datagrams_total: a.datagrams_total + b.datagrams_total,
        frames_total: a.frames_total + b.frames_total,
        messages_total: a.messages_total + b.messages_total,
        lost_total: a.lost_total + b.lost_total,
        nacks_total: a.nacks_total + b.nacks_total,
        statuses_total: a.statuses_total + b.statuses_total,
        left_total: a.left_total + b.left_total,
        malformed_total: a.malformed_total + b.malformed_total,
        strangers_total: a.strangers_total + b.strangers_total,
        unknown_key_total: a.unknown_key_total + b.unknown_key_total,
        duplicates_total: a.duplicates_total + b.duplicates_total,
        ahead_total: a.ahead_total + b.ahead_total,
        unsealed_total: a.unsealed_total + b.unsealed_total,
        frames_refused_total: a.frames_refused_total + b.frames_refused_total,
        unexpected_total: a.unexpected_total + b.unexpected_total,
    }
}
