//! Reading a whole table, or one partition of it, beside its writer; it neither stores nor sends it.

use locus_proto::{Change, ChangeOp, Key, Level, Root};

use crate::layout::BUCKET_BYTES;
use crate::{Memory, Reader, RecordBuffer, ScanError, audit};

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
    /// Calls `each` with level, key and value of the records that look-ups find, of about `records_max`.
    ///
    /// Returns where to go on; `None` at the end. An empty bucket counts as a record, so that a step
    /// through a nearly empty table has an end too; a step ends with a bucket, so it may exceed
    /// `records_max` by six records, and is one bucket at least. Every record that is not changed during
    /// the whole scan appears exactly once; one that is changed may appear with any of its states, twice
    /// or not at all. Whoever loads the scan then applies the changes made meanwhile.
    ///
    /// # Errors
    /// [`ScanError`] if a record cannot be read; the scan must be given up.
    pub fn for_each(
        &self,
        cursor: ScanCursor,
        records_max: usize,
        buffer: &mut RecordBuffer,
        mut each: impl FnMut(Level, &[u8], &[u8]),
    ) -> Result<Option<ScanCursor>, ScanError> {
        self.walk(cursor, records_max, buffer, |_, level, key, value| {
            each(level, key, value);
        })
    }

    /// As [`Self::for_each`]; `each` gets the bucket too.
    fn walk(
        &self,
        cursor: ScanCursor,
        records_max: usize,
        buffer: &mut RecordBuffer,
        mut each: impl FnMut(u64, Level, &[u8], &[u8]),
    ) -> Result<Option<ScanCursor>, ScanError> {
        let view = self.view();
        let end = view.buckets_all();
        let mut counted = 0_usize;
        for bucket in cursor.bucket..end {
            let mut found = 0;
            view.scan_buckets(
                bucket,
                bucket + 1,
                buffer.bytes(),
                |place, head, key, value| {
                    found += 1;
                    // What no look-up finds is no record: memory rotted there.
                    if view.is_in_place(view.hashes.key(key), place, head) {
                        each(bucket, head.level, key, value);
                    }
                },
            )
            .map_err(|(bucket, reason)| ScanError::Unavailable { bucket, reason })?;
            counted = counted.saturating_add(found.max(1));
            let next = bucket + 1;
            if counted >= records_max && next < end {
                return Ok(Some(ScanCursor { bucket: next }));
            }
        }
        Ok(None)
    }

    /// As [`Self::for_each`]; appends the records to `out`, each as a put at its own level, and checks
    /// their keys.
    pub(crate) fn copy_out(
        &self,
        cursor: ScanCursor,
        records_max: usize,
        buffer: &mut RecordBuffer,
        out: &mut Vec<Change>,
    ) -> Result<Option<ScanCursor>, ScanError> {
        let mut malformed = None;
        let next = self.walk(
            cursor,
            records_max,
            buffer,
            |bucket, level, key, value| match put(level, key, value) {
                Some(change) => out.push(change),
                None => malformed = Some(bucket),
            },
        )?;
        match malformed {
            Some(bucket) => Err(ScanError::Key { bucket }),
            None => Ok(next),
        }
    }

    /// Appends records to `out`, each as a put at its own level, until they hold `bytes_max` bytes.
    ///
    /// As [`Self::for_each`], with keys that are checked; here a bucket counts with the 64 bytes that it
    /// has itself.
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
        let (mut cursor, mut bytes) = (cursor, 0_usize);
        loop {
            let before = out.len();
            let next = self.copy_out(cursor, 1, buffer, out)?;
            let copied = out.iter().skip(before).map(Change::payload_bytes);
            bytes = bytes
                .saturating_add(copied.sum())
                .saturating_add(BUCKET_BYTES);
            match next {
                Some(next) if bytes < bytes_max => cursor = next,
                Some(_) | None => return Ok(next),
            }
        }
    }

    /// Appends all records of a partition to `out`, each as a put at its own level, and returns their sum.
    ///
    /// Whole and of one moment only if no batch is applied meanwhile, as where the writer's own thread
    /// asks; the sum then equals [`Self::partition_sum`], or memory has rotted.
    ///
    /// # Errors
    /// [`ScanError`] if a record cannot be read.
    pub fn partition_records(
        &self,
        partition: u16,
        buffer: &mut RecordBuffer,
        out: &mut Vec<Change>,
    ) -> Result<Root, ScanError> {
        let mut sum = Root::EMPTY;
        let mut malformed = None;
        audit::each_record(
            self.memory.words(),
            &self.view(),
            partition.into(),
            buffer.bytes(),
            |bucket, level, key, value, record| {
                sum = sum.plus(record.sum);
                match put(level, key, value) {
                    Some(change) => out.push(change),
                    None => malformed = Some(bucket),
                }
            },
        )
        .map_err(|(bucket, reason)| ScanError::Unavailable { bucket, reason })?;
        match malformed {
            Some(bucket) => Err(ScanError::Key { bucket }),
            None => Ok(sum),
        }
    }
}

/// Returns the change that makes a record; `None` if its key is none.
fn put(level: Level, key: &[u8], value: &[u8]) -> Option<Change> {
    Some(Change {
        key: Key::from_bytes(key).ok()?,
        level,
        op: ChangeOp::Put(value.to_vec()),
    })
}
