//! The owner of a table's folder: makes, announces, flips and removes generations; it loads no record.
//!
//! A full load goes into a new generation. `ctl` announces it as soon as its region is there, so that
//! workers map it ahead and open it later, then names it as the one that answers: the flip is one store. A
//! look-up checks afterwards that the generation is still the same, so the old table can be given back at
//! once.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;

use crate::control::{
    AT_FORMAT, AT_GENERATION, AT_MAGIC, AT_NEWEST, AT_NEXT, AT_OLDEST, CONTROL_BYTES,
    CONTROL_FORMAT, CONTROL_MAGIC,
};
use crate::layout::Layout;
use crate::{
    FolderError, Generation, Geometry, OpenTableError, OwnRegions, Pulse, Recovered, RegionName,
    TableKey, Word, Writer,
};

/// Numbers that are looked through for what is left over; more means that `ctl` is not what it was.
///
/// A million, looked through in a second or two: two years of loads that find no room, one a minute.
const GENERATIONS_MAX: u64 = 1 << 20;

/// A table's folder, for its one owner; whoever opens it holds the lock on `ctl`.
pub struct Folder<R: OwnRegions> {
    regions: R,
    control: R::Region,
}

/// A generation under construction or in use, and its writer.
type Table<R> = (Generation, Writer<R>);

/// The writer of a table that was found, and what its last writer left.
type Opened<R> = (Writer<R>, Recovered);

impl<R: OwnRegions> Folder<R> {
    /// Opens the folder or makes a new one, and removes what an earlier life left over.
    ///
    /// # Errors
    /// [`FolderError`] if `ctl` cannot be used or is of another format.
    pub fn open(regions: R) -> Result<Self, FolderError> {
        let name = RegionName::Control;
        let control = match regions.map(name) {
            Ok(control) => control,
            Err(error) if error.kind() == io::ErrorKind::NotFound => regions
                .create(name, CONTROL_BYTES)
                .map_err(|source| FolderError::Region { name, source })?,
            Err(source) => return Err(FolderError::Region { name, source }),
        };
        let folder = Self { regions, control };
        if folder.control.as_ref().len() * 8 < usize::try_from(CONTROL_BYTES).unwrap_or(0) {
            return Err(FolderError::Control);
        }
        match folder.word(AT_MAGIC) {
            0 => {
                folder.store(AT_FORMAT, CONTROL_FORMAT);
                folder.store(AT_OLDEST, 1);
                folder.store(AT_MAGIC, CONTROL_MAGIC);
            }
            CONTROL_MAGIC => {}
            _ => return Err(FolderError::Control),
        }
        if folder.word(AT_FORMAT) != CONTROL_FORMAT {
            return Err(FolderError::Format {
                found: folder.word(AT_FORMAT),
                spoken: CONTROL_FORMAT,
            });
        }
        folder.discard_others()?;
        Ok(folder)
    }

    fn word(&self, at: usize) -> u64 {
        self.control.as_ref().get(at).map_or(0, Word::load)
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.control.as_ref().get(at) {
            word.store_release(value);
        }
    }

    /// Returns the generation that answers; `None` before the first full load.
    pub fn current(&self) -> Option<Generation> {
        Some(self.word(AT_GENERATION))
            .filter(|generation| *generation != 0)
            .map(Generation)
    }

    /// Opens the table that answers for writing and completes what was under way; `None` if there is none.
    ///
    /// # Errors
    /// [`FolderError::Table`] if it must be loaded anew, [`FolderError::Region`] if it cannot be mapped.
    pub fn open_table(&self) -> Result<Option<Opened<R::Region>>, FolderError> {
        let Some(generation) = self.current() else {
            return Ok(None);
        };
        let name = RegionName::Table(generation);
        let region = self
            .regions
            .map(name)
            .map_err(|source| FolderError::Region { name, source })?;
        Writer::open(region)
            .map(Some)
            .map_err(|source| FolderError::Table { generation, source })
    }

    /// Makes an empty table under a new number, to be loaded; workers map it, but do not look into it.
    ///
    /// # Errors
    /// [`FolderError::Region`] without room for it, [`FolderError::Table`] for a size that cannot be.
    pub fn begin_load(
        &self,
        geometry: Geometry,
        key: TableKey,
    ) -> Result<Table<R::Region>, FolderError> {
        // The number is spent before the file exists: whatever happens, the file is found and removed, and
        // no later table gets its number, so a worker that maps a number always sees the same table.
        let generation = Generation(self.unused()?);
        Layout::new(geometry, key).map_err(|source| FolderError::Table { generation, source })?;
        self.store(AT_NEWEST, generation.0);
        let name = RegionName::Table(generation);
        let region = self
            .regions
            .create(name, geometry.file_bytes())
            .map_err(|source| FolderError::Region { name, source })?;
        let writer = Writer::create(region, geometry, key)
            .map_err(|source| FolderError::Table { generation, source })?;
        self.store(AT_NEXT, generation.0);
        Ok((generation, writer))
    }

    /// Returns the first number that was never used.
    fn unused(&self) -> Result<u64, FolderError> {
        let newest = self.word(AT_NEWEST).max(self.word(AT_GENERATION));
        newest.checked_add(1).ok_or(FolderError::Control)
    }

    /// Lets look-ups be answered by a generation from now on, and removes all others.
    ///
    /// # Errors
    /// [`FolderError::Table`] if it is not loaded; then nothing has changed. [`FolderError::Region`] if
    /// another could not be removed; then the flip is done.
    pub fn flip(&self, table: &Table<R::Region>) -> Result<(), FolderError> {
        let (generation, writer) = (table.0, &table.1);
        if writer.loading {
            let source = OpenTableError::Loading;
            return Err(FolderError::Table { generation, source });
        }
        if let Some(current) = self.current() {
            // Left over from the next store on, also if this life ends with it.
            self.store(AT_OLDEST, self.word(AT_OLDEST).min(current.0));
        }
        self.store(AT_GENERATION, generation.0);
        // Whoever reads a zero of the old table, which is given back now, also sees the flip.
        AtomicU64::fence_release();
        self.discard_others()
    }

    /// Removes every generation that does not answer: a load that was given up, an old table.
    ///
    /// # Errors
    /// [`FolderError::Region`] if one could not be removed.
    pub fn discard_others(&self) -> Result<(), FolderError> {
        let (current, unused) = (self.word(AT_GENERATION), self.unused()?);
        let oldest = self.word(AT_OLDEST);
        if unused.saturating_sub(oldest) > GENERATIONS_MAX {
            return Err(FolderError::Control);
        }
        // What was announced and is given up shall not be mapped any more.
        self.store(AT_NEXT, current);
        for number in oldest..unused {
            if number == current {
                continue;
            }
            let name = RegionName::Table(Generation(number));
            match self.regions.discard(name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FolderError::Region { name, source }),
            }
        }
        // Nothing is left over but by loads to come: those that were given up widen no span for ever.
        self.store(AT_OLDEST, unused);
        Ok(())
    }

    /// Tells the workers how the node stands.
    pub fn beat(&self, pulse: &Pulse) {
        pulse.write(self.control.as_ref());
    }

    /// Returns the last report, also of an earlier life of the owner.
    pub fn pulse(&self) -> Option<Pulse> {
        Pulse::read(self.control.as_ref())
    }
}

impl<R: OwnRegions> fmt::Debug for Folder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}
