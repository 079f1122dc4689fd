//! What room tables need in the folder, and what an operator can do where there is none; it takes none.

use std::io;

use locus_table::{FolderError, OwnRegions};

use super::Node;
use crate::edge::{Populate, room};

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Returns what room a table needs, what there is, and what to change.
    pub(super) fn advice(&self, bytes: u64, records: u64, mean: u64) -> String {
        let (total, free) = match room(&self.path) {
            Ok(Some(room)) => (room.total_bytes, room.free_bytes),
            Ok(None) | Err(_) => (u64::MAX, u64::MAX),
        };
        format!(
            "a table for {records} records of {mean} bytes takes {bytes} bytes, and a reload as many \
             beside it; of {total} bytes in {} are {free} free. Mount a tmpfs with size={} or more there, \
             or lower records_max (now {}) or record_bytes_mean (now {}), if the master's data allows it",
            self.path.display(),
            mount_bytes(bytes),
            self.records_max,
            self.record_bytes_mean,
        )
    }

    /// Returns what room a bigger table needs, and how to give it.
    pub(super) fn remount_advice(&self, bytes: u64) -> String {
        let free = match room(&self.path) {
            Ok(Some(room)) => room.free_bytes,
            Ok(None) | Err(_) => u64::MAX,
        };
        let folder = self.path.display();
        format!(
            "a table of {bytes} bytes is to be made beside it, and {free} bytes are free in {folder}; give \
             it more while all goes on: mount -o remount,size={} {folder}",
            mount_bytes(bytes)
        )
    }
}

/// Returns the bytes that a file system needs for tables of `bytes`: two during a reload, and a tenth.
pub(super) fn mount_bytes(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(bytes / 10)
}

/// Returns whether a folder had no room.
pub(super) fn is_full(error: &FolderError) -> bool {
    match error {
        FolderError::Region { source, .. } => source.kind() == io::ErrorKind::StorageFull,
        FolderError::Format { .. } | FolderError::Control | FolderError::Table { .. } => false,
    }
}
