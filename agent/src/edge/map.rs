//! A file mapped as atomic words; it knows neither the folder around it nor what a word means.
//!
//! The only file of the agent with unsafe code. Its argument is one: a mapping covers its file whole,
//! zero is a valid value of every word, and every access is atomic.
#![expect(
    unsafe_code,
    reason = "mapping memory that other processes share has no safe form"
)]

use std::ffi::c_void;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Alignment of mappings in bytes: a huge page, or the kernel gives none.
pub(super) const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
const WORD_BYTES: usize = size_of::<AtomicU64>();
/// What a new table has from the beginning, if the rest comes in slices: its head.
const HEAD_BYTES: usize = HUGE_PAGE_BYTES;

/// Gives a file all its memory, and maps it.
///
/// Memory that is missing must be found here: on a full tmpfs a store into a hole is a SIGBUS.
pub(super) fn all_there(file: &File) -> io::Result<Mapping> {
    let mapping = Mapping::of(file, Access::ReadWrite)?;
    mapping.allocate(file, 0..mapping.bytes())?;
    Ok(mapping)
}

/// Gives a file the memory of a table's head, and maps it.
pub(super) fn head_there(file: File) -> io::Result<Mapping> {
    let mut mapping = Mapping::of(&file, Access::ReadWrite)?;
    let there = AtomicUsize::new(0);
    mapping.missing = Some(Missing { file, there });
    mapping.populate(HEAD_BYTES)?;
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
    missing: Option<Missing>,
}

/// A mapping whose memory comes in slices.
#[derive(Debug)]
struct Missing {
    file: File,
    /// Bytes from the start that have theirs.
    there: AtomicUsize,
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
            missing: None,
        };
        // Huge pages are a matter of speed alone; tmpfs without `huge=advise` has none to give.
        // SAFETY:
        // * the range is the mapping that was just made;
        // * the advice changes no content.
        unsafe { madvise(start, bytes, Advice::LinuxHugepage) }.ok();
        Ok(mapping)
    }

    fn bytes(&self) -> usize {
        self.len * WORD_BYTES
    }

    /// Gives about `bytes` more of a new table their memory, without a signal where there is none;
    /// returns whether all of it is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] on a full file system, or what the system says.
    pub(crate) fn populate(&self, bytes: usize) -> io::Result<bool> {
        let Some(missing) = &self.missing else {
            return Ok(true);
        };
        let from = missing.there.load(Ordering::Relaxed);
        let slice = bytes
            .clamp(1, self.bytes())
            .next_multiple_of(HUGE_PAGE_BYTES);
        let to = self.bytes().min(from.saturating_add(slice));
        if from < to {
            self.allocate(&missing.file, from..to)?;
            missing.there.store(to, Ordering::Relaxed);
        }
        Ok(to == self.bytes())
    }

    fn allocate(&self, file: &File, range: Range<usize>) -> io::Result<()> {
        // Through the mapping, since that has asked for huge pages: `fallocate` alone gives small ones
        // where the mount says `huge=advise`.
        match self.populate_write(&range) {
            Ok(()) => Ok(()),
            // "EFAULT: populating page tables failed because a SIGBUS would have been generated"
            // (madvise(2)).
            Err(rustix::io::Errno::FAULT) => Err(io::ErrorKind::StorageFull.into()),
            // Before Linux 5.14.
            Err(_) => {
                let bytes = |n| u64::try_from(n).map_err(io::Error::other);
                let (from, len) = (bytes(range.start)?, bytes(range.len())?);
                Ok(fallocate(file, FallocateFlags::empty(), from, len)?)
            }
        }
    }

    /// Makes these pages of a mapping for writing be there, without a signal if they cannot.
    fn populate_write(&self, range: &Range<usize>) -> rustix::io::Result<()> {
        let end = range.end.min(self.bytes());
        let start = range.start.min(end);
        // SAFETY:
        // * the range lies within the mapping of `self`, which starts at `words`: both ends were cut to
        //   its length;
        // * the advice changes no content: it allocates and enters pages.
        unsafe {
            madvise(
                self.words
                    .as_ptr()
                    .cast::<c_void>()
                    .wrapping_byte_add(start),
                end - start,
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
        //   no SIGBUS, since it has all of them from `all_there` (or `fallocate`, for `ctl`), or writes the
        //   head alone until `populate` has brought the rest;
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
