//! How full a table is and when it is to grow; it copies nothing.

use crate::Geometry;
use crate::layout::{BUCKET_SLOTS, SLAB_BYTES};

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Records in it.
    pub records: u64,
    /// Slots of its index.
    pub slots: u64,
    /// 64-KiB slabs without a record.
    pub free_slabs: u64,
    /// All slabs.
    pub slabs: u64,
}

impl Fill {
    /// Returns the size of the table.
    pub fn geometry(self) -> Geometry {
        let per_bucket = u64::try_from(BUCKET_SLOTS).unwrap_or(u64::MAX);
        Geometry {
            buckets: self.slots / per_bucket,
            arena_bytes: self.slabs.saturating_mul(SLAB_BYTES),
        }
    }

    /// Returns the size to grow to, with what is short doubled; `None` while nothing is short.
    ///
    /// The index is short above 0.70 full: behind that, keys lie further and further from home. The arena
    /// is short when less than a sixteenth of its slabs is free.
    pub fn grown(self) -> Option<Geometry> {
        let index_short = self.records.saturating_mul(10) > self.slots.saturating_mul(7);
        let arena_short = self.free_slabs.saturating_mul(16) < self.slabs;
        let Geometry {
            buckets,
            arena_bytes,
        } = self.geometry();
        let doubled = |short, size: u64| size.saturating_mul(if short { 2 } else { 1 });
        (index_short || arena_short).then(|| Geometry {
            buckets: doubled(index_short, buckets),
            arena_bytes: doubled(arena_short, arena_bytes),
        })
    }
}
