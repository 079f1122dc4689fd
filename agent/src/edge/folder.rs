//! A table's folder on a tmpfs, for its readers and for its one owner; it gives no word a meaning.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use locus_table::{FolderReader, MapRegions, OwnRegions, RegionName};
use rustix::fs::{FallocateFlags, FsWord, fallocate, statfs, statvfs};

use super::map::{Access, Mapping, all_there, head_there};
use crate::event::Event;

/// Kamailio's workers read as members of the agent's group; nobody else reads subscribers' addresses.
const FILE_MODE: u32 = 0o640;
/// `f_type` of a tmpfs (linux/magic.h).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// A table's folder for reading: maps its files without write permission.
///
/// Only readers are made of it; a store into one of its mappings would end the process with SIGSEGV.
#[derive(Debug, Clone)]
pub struct MappedFolder {
    path: PathBuf,
}

impl MappedFolder {
    /// Returns a reader of the table in the folder at `path`, as the workers in Kamailio have one.
    ///
    /// The folder need not exist yet; the reader maps what appears in it and follows every flip.
    pub fn open_ro(path: &Path) -> FolderReader<Self> {
        FolderReader::new(Self {
            path: path.to_owned(),
        })
    }
}

impl MapRegions for MappedFolder {
    type Region = Mapping;

    fn map(&self, name: RegionName) -> io::Result<Mapping> {
        let file = File::open(self.path.join(name.to_string()))?;
        Mapping::of(&file, Access::ReadOnly)
    }
}

/// A table's folder for its one owner, as long as this lives.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    /// `ctl`, locked: the kernel releases the lock when the process ends, however it ends.
    control: File,
    pages: Pages,
    giving: Giving,
}

/// When a new table gets its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// When it is made.
    AtOnce,
    /// The head when it is made, the rest by [`Mapping::populate`].
    InSlices,
}

/// Why the folder cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum LockFolderError {
    /// Another agent owns it.
    #[error("another locus-agent owns {}; stop it or set another folder", .0.display())]
    Owned(PathBuf),
    /// The system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl OwnedFolder {
    /// Takes the folder at `path`; makes its control file if there is none.
    ///
    /// # Errors
    /// [`LockFolderError`] says who has it.
    pub fn lock(path: &Path) -> Result<Self, LockFolderError> {
        let file = path.join(RegionName::Control.to_string());
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&file);
        let failed = |source| LockFolderError::Io {
            path: file.clone(),
            source,
        };
        let control = opened.map_err(failed)?;
        match control.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                control,
                pages: Pages::AtOnce,
                giving: Giving::default(),
            }),
            Err(TryLockError::WouldBlock) => Err(LockFolderError::Owned(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Makes new tables with the memory of their head alone: whoever makes one calls
    /// [`Mapping::populate`] until all is there, before the first record. Memory that is given back, is so a
    /// little later.
    ///
    /// A kernel clears 1 to 5 GiB of pages in a second; a large table at once would be a silence in
    /// which masters take a node for dead.
    pub(crate) fn in_slices(mut self) -> Self {
        self.pages = Pages::InSlices;
        self
    }

    /// Returns whether so much is free, once what was given up is given back.
    fn has_room(&self, bytes: u64) -> io::Result<bool> {
        let is_free = || Ok(room(&self.path)?.is_none_or(|room| room.free_bytes >= bytes));
        if is_free()? {
            return Ok(true);
        }
        self.giving.wait();
        is_free()
    }

    fn file(&self, name: RegionName) -> PathBuf {
        self.path.join(name.to_string())
    }
}

impl MapRegions for OwnedFolder {
    type Region = Mapping;

    fn map(&self, name: RegionName) -> io::Result<Mapping> {
        match name {
            RegionName::Control => Mapping::of(&self.control, Access::ReadWrite),
            RegionName::Table(_) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(self.file(name))?;
                // Its memory is there; entering it now spares the first batches a fault on each page.
                all_there(&file)
            }
        }
    }
}

impl OwnRegions for OwnedFolder {
    fn create(&self, name: RegionName, bytes: u64) -> io::Result<Mapping> {
        let path = self.file(name);
        match name {
            // The inode is the lock: it stays.
            RegionName::Control => {
                fallocate(&self.control, FallocateFlags::empty(), 0, bytes)?;
                Mapping::of(&self.control, Access::ReadWrite)
            }
            RegionName::Table(_) => {
                match fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                // Before any page is taken: a table far too large would empty the file system, and keep
                // everybody waiting meanwhile, only to fail at its end.
                if !self.has_room(bytes)? {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(FILE_MODE)
                    .open(&path)?;
                let allocated = file.set_len(bytes).and_then(|()| match self.pages {
                    Pages::AtOnce => all_there(&file),
                    Pages::InSlices => head_there(file),
                });
                allocated.inspect_err(|_| {
                    // What was allocated of it goes with its name.
                    fs::remove_file(&path).ok();
                })
            }
        }
    }

    fn discard(&self, name: RegionName) -> io::Result<()> {
        let path = self.file(name);
        let file = OpenOptions::new().write(true).open(&path)?;
        match self.pages {
            Pages::AtOnce => {
                give_back(&file)?;
                fs::remove_file(&path)
            }
            // As long as it takes to get, it takes to give back.
            Pages::InSlices => {
                fs::remove_file(&path)?;
                self.giving.give_back(file)
            }
        }
    }
}

/// Gives the memory of a file back.
fn give_back(file: &File) -> io::Result<()> {
    // Workers may have it mapped still, and a file that is cut short under a mapping kills them.
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, punch, 0, file.metadata()?.len().max(1))?)
}

/// Files that have lost their names and give their memory back, a thread for each.
#[derive(Debug, Default)]
struct Giving(Mutex<Vec<JoinHandle<()>>>);

impl Giving {
    fn give_back(&self, file: File) -> io::Result<()> {
        let file = Arc::new(file);
        let same = Arc::clone(&file);
        let thread = thread::Builder::new().name("give-back".into());
        let Ok(giving) = thread.spawn(move || {
            if let Err(error) = give_back(&same) {
                let reason = error.to_string();
                Event::NotRemoved { reason }.log();
            }
        }) else {
            return give_back(&file);
        };
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(giving);
        Ok(())
    }

    /// Waits until all memory is back.
    fn wait(&self) {
        for thread in self.threads().drain(..) {
            thread.join().ok();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // A list of threads is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table whose memory may come in slices.
pub(crate) trait Populate {
    /// Brings about `bytes` more; returns whether all is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where there is none.
    fn populate(&self, bytes: usize) -> io::Result<bool>;
}

impl Populate for Mapping {
    fn populate(&self, bytes: usize) -> io::Result<bool> {
        Self::populate(self, bytes)
    }
}

/// Returns whether `path` is on a tmpfs, whose files never outlive the boot that made them.
pub(crate) fn on_tmpfs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type == TMPFS_MAGIC)
}

/// Room of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// In use and free.
    pub total_bytes: u64,
    /// Free.
    pub free_bytes: u64,
}

/// Returns the room of the file system at `path`; `None` for a tmpfs without a limit.
pub(crate) fn room(path: &Path) -> io::Result<Option<Room>> {
    let found = statvfs(path)?;
    let limited = found.f_blocks > 0;
    Ok(limited.then(|| Room {
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
    }))
}
