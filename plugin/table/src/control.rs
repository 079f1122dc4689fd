//! The regions of a table's folder, who provides them, and the words of `ctl`; it maps nothing itself.
//!
//! ```text
//! ctl   0 magic | 1 format | 2 generation that answers | 3 generation announced: being loaded, to answer next
//!       8 oldest generation that may be left over, the one that answers apart | 9 newest number used
//!       64 pulse
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{HeapMemory, Word};

/// Bytes of `ctl`.
pub(crate) const CONTROL_BYTES: u64 = 4096;
pub(crate) const CONTROL_FORMAT: u64 = 1;
pub(crate) const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"LOCUSCTL");
pub(crate) const AT_MAGIC: usize = 0;
pub(crate) const AT_FORMAT: usize = 1;
pub(crate) const AT_GENERATION: usize = 2;
pub(crate) const AT_NEXT: usize = 3;
pub(crate) const AT_OLDEST: usize = 8;
pub(crate) const AT_NEWEST: usize = 9;

/// Number of a table within its folder, from 1; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which region of a folder; its `Display` is the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegionName {
    /// The control region.
    Control,
    /// A table.
    Table(Generation),
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("ctl"),
            Self::Table(generation) => write!(f, "tbl.{generation}"),
        }
    }
}

/// Maps regions of a folder; what is mapped stays valid until the region is dropped.
pub trait MapRegions {
    /// A mapped region.
    type Region: AsRef<[AtomicU64]>;

    /// Maps the whole region, if possible on a huge page's boundary.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn map(&self, name: RegionName) -> io::Result<Self::Region>;
}

/// Also makes and removes regions: what the owner of the folder can do.
///
/// Its [`MapRegions::map`] maps for reading and writing.
pub trait OwnRegions: MapRegions {
    /// Makes a region of zeros, in place of an old one of that name, and maps it.
    ///
    /// The memory must be there afterwards (`fallocate`): a table has no way to survive a write that
    /// finds its file system full.
    ///
    /// # Errors
    /// Whatever the system says; without room, [`io::ErrorKind::StorageFull`].
    fn create(&self, name: RegionName, bytes: u64) -> io::Result<Self::Region>;

    /// Gives the memory of a region back at once, also where it is still mapped (there it reads as
    /// zeros: a hole is punched, the file is never truncated), and removes its name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn discard(&self, name: RegionName) -> io::Result<()>;
}

/// A folder on the heap: for a master's own use and for tests. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct HeapRegions {
    regions: Arc<Mutex<HashMap<RegionName, HeapMemory>>>,
}

impl HeapRegions {
    /// Returns an empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RegionName, HeapMemory>> {
        // A map of handles is whole after any panic.
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MapRegions for HeapRegions {
    type Region = HeapMemory;

    fn map(&self, name: RegionName) -> io::Result<HeapMemory> {
        let found = self.lock().get(&name).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl OwnRegions for HeapRegions {
    fn create(&self, name: RegionName, bytes: u64) -> io::Result<HeapMemory> {
        let memory = HeapMemory::zeroed(bytes);
        self.lock().insert(name, memory.clone());
        Ok(memory)
    }

    fn discard(&self, name: RegionName) -> io::Result<()> {
        let Some(memory) = self.lock().remove(&name) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        for word in memory.as_ref() {
            Word::store(word, 0);
        }
        Ok(())
    }
}
