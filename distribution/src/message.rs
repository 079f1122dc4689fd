//! Names of messages for errors and logs; it reads none of them.

use locus_proto::Message;

/// Returns the word for a message's kind.
pub(crate) fn noun(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Welcome(_) => "welcome",
        Message::Rejection(_) => "rejection",
        Message::Frame(_) => "frame",
        Message::SnapshotBegin(_) => "snapshot begin",
        Message::SnapshotPart(_) => "snapshot part",
        Message::SnapshotEnd(_) => "snapshot end",
        Message::Heartbeat(_) => "heartbeat",
        Message::Status(_) => "status",
        Message::Register { .. } => "register",
        Message::Registered { .. } => "registered",
        Message::AuditAsk(_) => "audit question",
        Message::AuditSums(_) => "audit sums",
        Message::AuditRecords(_) => "audit records",
        Message::AuditRefused(_) => "audit refusal",
        Message::AuditOrder(_) => "audit order",
        Message::AuditReport(_) => "audit report",
        Message::GroupOffer(_) => "group offer",
        Message::GroupKey(_) => "group key",
        Message::GroupHeard(_) => "group heard",
        Message::GroupCut(_) => "group cut",
        Message::GroupEnd(_) => "group end",
        Message::GroupLeft(_) => "group left",
    }
}
