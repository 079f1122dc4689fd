//! The files of a table's folder, mapped as atomic words; it gives no word a meaning.
//!
//! The only file of the agent with unsafe code. Its argument is one: a mapping covers its file whole,
//! zero is a valid value of every word, and every access is atomic.
#![expect(
    unsafe_code,
    reason = "mapping memory that other processes share has no safe form"
)]

#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use locus_table::{FolderReader, MapRegions, OwnRegions, RegionName};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Alignment of mappings in bytes: a huge page, or the kernel gives none.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
const WORD_BYTES: usize = size_of::<AtomicU64>();
/// Kamailio's workers read as members of the agent's group; nobody else reads subscribers' addresses.
const FILE_MODE: u32 = 0o640;

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
pub(crate) struct OwnedFolder {
    path: PathBuf,
    /// `ctl`, locked: the kernel releases the lock when the process ends, however it ends.
    control: File,
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
    pub(crate) fn lock(path: &Path) -> Result<Self, LockFolderError> {
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
            }),
            Err(TryLockError::WouldBlock) => Err(LockFolderError::Owned(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
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
                all_there(&file, file.metadata()?.len())
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
                if room(&self.path)?.is_some_and(|room| room.free_bytes < bytes) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(FILE_MODE)
                    .open(&path)?;
                let allocated = file.set_len(bytes).and_then(|()| all_there(&file, bytes));
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
        // Workers may have it mapped still, and a file that is cut short under a mapping kills them.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, punch, 0, file.metadata()?.len().max(1))?;
        fs::remove_file(&path)
    }
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

/// Gives a file of this length all its memory, and maps it.
///
/// Memory that is missing must be found here: on a full tmpfs a store into a hole is a SIGBUS.
fn all_there(file: &File, bytes: u64) -> io::Result<Mapping> {
    let mapping = Mapping::of(file, Access::ReadWrite)?;
    // Through the mapping, since that has asked for huge pages: `fallocate` alone gives small ones
    // where the mount says `huge=advise`.
    match mapping.populate() {
        Ok(()) => {}
        // "EFAULT: populating page tables failed because a SIGBUS would have been generated" (madvise(2)).
        Err(rustix::io::Errno::FAULT) => return Err(io::ErrorKind::StorageFull.into()),
        // Before Linux 5.14.
        Err(_) => fallocate(file, FallocateFlags::empty(), 0, bytes)?,
    }
    Ok(mapping)
}

/// What a mapping may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Loads only; a store would end the process.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// A file that is mapped whole, shared with every process that maps it, until this is dropped.
pub struct Mapping {
    /// The reservation around the words, for the unmapping.
    reserved: NonNull<c_void>,
    reserved_bytes: usize,
    words: NonNull<AtomicU64>,
    len: usize,
}

impl Mapping {
    /// Maps all of `file`, at a multiple of 2 MiB if it is at least as long.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] for an empty file, such as a `ctl` that was
    /// locked and not yet written.
    pub(crate) fn of(file: &File, access: Access) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let len = bytes / WORD_BYTES;
        if len == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let slack = if bytes >= HUGE_PAGE_BYTES {
            HUGE_PAGE_BYTES
        } else {
            0
        };
        let reserved_bytes = bytes + slack;
        // SAFETY:
        // * the address is null: the kernel chooses a range that nothing else uses;
        // * no reference to it exists, and none can be used before the next call replaces its pages.
        let reserved = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                reserved_bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let past = if slack == 0 {
            0
        } else {
            reserved.addr() % HUGE_PAGE_BYTES
        };
        let start = reserved.wrapping_byte_add(if past == 0 { 0 } else { slack - past });
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY:
        // * `start` is page-aligned: the kernel returned a page, and whole pages were added;
        // * `start + bytes` lies within the reservation, since at most `slack` was added;
        // * the reservation is ours alone and no reference to it exists.
        let mapped = unsafe {
            mmap(
                start,
                bytes,
                prot,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )
        };
        // A call that failed may have removed the reservation already, and another thread may have got
        // its place: it is not unmapped then. What may be left of it is addresses, no memory.
        let words = NonNull::new(mapped?.cast());
        let (Some(reserved), Some(words)) = (NonNull::new(reserved), words) else {
            return Err(io::Error::other("the kernel mapped address zero"));
        };
        // From here on the drop unmaps.
        let mapping = Self {
            reserved,
            reserved_bytes,
            words,
            len,
        };
        // Huge pages are a matter of speed alone; tmpfs without `huge=advise` has none to give.
        // SAFETY:
        // * the range is the mapping that was just made;
        // * the advice changes no content.
        unsafe { madvise(start, bytes, Advice::LinuxHugepage) }.ok();
        Ok(mapping)
    }

    /// Makes every page of a mapping for writing be there, without a signal if it cannot.
    fn populate(&self) -> rustix::io::Result<()> {
        let bytes = self.len * WORD_BYTES;
        // SAFETY:
        // * the range lies within the mapping of `self`, which starts at `words`;
        // * the advice changes no content: it allocates and enters pages.
        unsafe {
            madvise(
                self.words.as_ptr().cast(),
                bytes,
                Advice::LinuxPopulateWrite,
            )
        }
    }
}

impl AsRef<[AtomicU64]> for Mapping {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY:
        // * the pointer is the start of a live mapping of at least `len` words and page-aligned;
        // * every bit pattern is a valid `AtomicU64`, so whatever other processes store is one;
        // * words are changed only through atomics, by all who map the file (the agent and `ffi::shared`);
        // * the file is never truncated while it is mapped: its one writer holds the folder's lock and
        //   removes a file only by punching a hole and unlinking it, which leaves zeroes;
        // * so no access lies behind the file's end; and a page that is missing before it costs the writer
        //   no SIGBUS, since it has all of them from `all_there` (or `fallocate`, for `ctl`);
        // * loads from pages without write permission are relaxed and word-sized, which the standard
        //   library allows; nobody stores through a read-only mapping but a writer, and writers are
        //   only made over `Access::ReadWrite`;
        // * the mapping lives as long as `self`, from which the slice borrows.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY:
        // * the range is the reservation made in `of`, whole pages, unmapped nowhere else;
        // * slices of it borrow from `self` and are gone.
        unsafe { munmap(self.reserved.as_ptr(), self.reserved_bytes) }.ok();
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and its content is atomics.
unsafe impl Send for Mapping {}
// SAFETY: shared access is to atomics alone.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("words", &self.len)
            .finish_non_exhaustive()
    }
}
