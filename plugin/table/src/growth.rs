//! Growth: a live table is copied into a bigger generation in slices, beside its changes; it decides
//! neither when nor how big.
//!
//! Between two slices every change of the live table goes into the copy too. A key that lives never
//! moves to another slot, so each record is met by the copying or changed after it: in both cases the
//! copy has its last state. At the end the two contents must be equal.

use std::fmt;
use std::sync::atomic::AtomicU64;

use locus_proto::Change;

use crate::{
    FinishLoadError, Folder, FolderError, Generation, Geometry, GrowError, OwnRegions,
    PrepareError, RecordBuffer, RepairError, ScanCursor, Writer,
};

/// A bigger generation that becomes the copy of a live one.
pub struct Growth<Region> {
    generation: Generation,
    copy: Writer<Region>,
    /// Where the copying goes on; `None` at the end.
    cursor: Option<ScanCursor>,
    buffer: RecordBuffer,
    records: Vec<Change>,
}

impl<R: OwnRegions> Folder<R> {
    /// Begins to copy the table that answers into a new generation of another size.
    ///
    /// # Errors
    /// As [`Self::begin_load`].
    pub fn grow(
        &self,
        live: &Writer<R::Region>,
        geometry: Geometry,
    ) -> Result<Growth<R::Region>, FolderError> {
        let (generation, copy) = self.begin_load(geometry, live.key())?;
        Ok(Growth {
            generation,
            copy,
            cursor: Some(ScanCursor::START),
            buffer: RecordBuffer::new(),
            records: Vec::new(),
        })
    }
}

impl<Region: AsRef<[AtomicU64]>> Growth<Region> {
    /// Copies about `records_max` more records and returns whether all are copied.
    ///
    /// # Errors
    /// [`GrowError`]; the growth must be given up, and [`Folder::discard_others`] called.
    pub fn step(&mut self, live: &Writer<Region>, records_max: usize) -> Result<bool, GrowError> {
        let Some(cursor) = self.cursor else {
            return Ok(true);
        };
        self.records.clear();
        let live = live.reader();
        self.cursor = live.copy_out(cursor, records_max, &mut self.buffer, &mut self.records)?;
        self.copy.load(&self.records)?;
        Ok(self.cursor.is_none())
    }

    /// Returns the memory of the copy.
    pub fn memory(&self) -> &Region {
        self.copy.memory()
    }

    /// Puts changes into the copy that were just applied to the live table.
    ///
    /// # Errors
    /// [`PrepareError`] if one does not fit: the growth must be given up.
    pub fn follow(&mut self, changes: &[Change]) -> Result<(), PrepareError> {
        self.copy.load(changes)
    }

    /// Makes a partition of the copy what a repair has just made of it in the live table.
    ///
    /// # Errors
    /// [`RepairError`]: the growth must be given up.
    pub fn follow_repair(&mut self, partition: u16, content: &[Change]) -> Result<(), RepairError> {
        let changes = self.copy.changes_to(partition, content)?;
        self.copy.load(&changes)?;
        Ok(())
    }

    /// Ends the growth: the copy stands where the live table stands, and [`Folder::flip`] takes it.
    ///
    /// # Errors
    /// [`FinishLoadError`] if it has not the same content: not all is copied, or the live table's memory
    /// has rotted. [`Folder::discard_others`] removes what was copied.
    pub fn finish(
        mut self,
        live: &Writer<Region>,
    ) -> Result<(Generation, Writer<Region>), FinishLoadError> {
        self.copy.finish_load(live.position())?;
        Ok((self.generation, self.copy))
    }
}

impl<Region> fmt::Debug for Growth<Region> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth")
            .field("generation", &self.generation)
            .field("copied", &self.cursor.is_none())
            .finish_non_exhaustive()
    }
}
