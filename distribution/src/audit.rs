//! Sizes that both ends of an audit agree on; it compares nothing.

use locus_proto::{Change, ChangeOp, v1::SNAPSHOT_PART_BYTES};

/// Most bytes of records in one partition that are sent, and taken, for an audit: 15 times what a partition
/// of a table of 50 million records holds.
pub const PARTITION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A message with records of a partition is closed when it has grown to this many bytes; the largest record
/// fits behind it.
pub(crate) const AUDIT_PART_BYTES: usize = SNAPSHOT_PART_BYTES;

/// Bytes of a change on the wire beside its key and value.
const CHANGE_BYTES: usize = 16;

/// Returns the bytes that a record takes in a message.
pub(crate) fn record_bytes(record: &Change) -> usize {
    let value = match &record.op {
        ChangeOp::Put(value) => value.len(),
        ChangeOp::Delete => 0,
    };
    CHANGE_BYTES + record.key.as_bytes().len() + value
}
