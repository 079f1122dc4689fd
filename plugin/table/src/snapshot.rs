//! Reading a whole table in bounded steps beside its writer; it neither stores nor sends it.

use locus_proto::{Change, ChangeOp, Key};

use crate::layout::BUCKET_SLOTS;
use crate::{Memory, Reader, RecordBuffer, ScanError};

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanCursor {
    bucket: u64,
}

impl ScanCursor {
    /// The beginning of every table.
    pub const START: Self = Self { bucket: 0 };
}

impl<M: Memory> Reader<M> {
    /// Appends records to `out`, each as a put at its own level, until they hold `bytes_max` bytes.
    ///
    /// Returns where to go on; `None` at the end. A step ends with a bucket, so it may exceed
    /// `bytes_max` by seven records. Every record that is not changed during the whole scan appears
    /// exactly once; one that is changed may appear with any of its states, twice or not at all. Whoever
    /// loads the scan then applies the changes made meanwhile.
    ///
    /// # Errors
    /// [`ScanError`] if a record cannot be read; the scan must be given up.
    pub fn scan(
        &self,
        cursor: ScanCursor,
        bytes_max: usize,
        buffer: &mut RecordBuffer,
        out: &mut Vec<Change>,
    ) -> Result<Option<ScanCursor>, ScanError> {
        let view = self.view();
        let end = view.buckets_all();
        let mut bytes = 0_usize;
        for bucket in cursor.bucket..end {
            if bytes >= bytes_max {
                return Ok(Some(ScanCursor { bucket }));
            }
            for slot in 0..BUCKET_SLOTS {
                let unavailable = |reason| ScanError::Unavailable { bucket, reason };
                let scanned = view
                    .scan_slot(bucket, slot, buffer.bytes())
                    .map_err(unavailable)?;
                let Some(scanned) = scanned else { continue };
                let malformed = ScanError::Key { bucket };
                let (key, value) = scanned.split(buffer.bytes()).ok_or(malformed)?;
                let change = Change {
                    key: Key::from_bytes(key).map_err(|_| malformed)?,
                    level: scanned.head.level,
                    op: ChangeOp::Put(value.to_vec()),
                };
                bytes = bytes.saturating_add(change.payload_bytes());
                out.push(change);
            }
        }
        Ok(None)
    }
}
