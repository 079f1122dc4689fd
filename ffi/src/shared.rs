//! A file as a read-only, shared mapping of atomic words, aligned so that the kernel can use 2 MiB pages.
//!
//! It knows files and pages; it does not know what the words mean or who writes them.

use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::smaps;

/// The alignment that lets the kernel map huge pages.
const HUGE_PAGE: usize = 2 * 1024 * 1024;
const WORDS_PER_HUGE_PAGE: usize = HUGE_PAGE / size_of::<AtomicU64>();
/// The unit in which mappings are made.
const PAGE: usize = 4096;

/// Why a file was not mapped.
#[derive(Debug, Error)]
pub enum OpenSharedError {
    /// The file cannot be opened or asked for its size.
    #[error("cannot open the shared file")]
    Open(#[source] io::Error),
    /// It is a folder or a device.
    #[error("the shared file is no regular file")]
    NotAFile,
    /// Its size is 0, no multiple of 4096, or above the bound.
    #[error("the shared file has {bytes} bytes; a multiple of 4096 up to {bytes_max} is expected")]
    Size {
        /// The size that was found.
        bytes: u64,
        /// The bound that the caller set.
        bytes_max: u64,
    },
    /// The kernel refused the mapping.
    #[error("cannot map the shared file")]
    Map(#[source] io::Error),
}

/// A mapped file, readable as words that another process may write at any time.
///
/// Reading can never raise SIGBUS as long as the file keeps its size and its file system has room for every
/// page: the owner of the file creates it with its full size reserved, never truncates it, and replaces it by a
/// new file under a new name (see `SAFETY.md`, "Shared files").
#[derive(Debug)]
pub struct SharedRegion {
    words: NonNull<AtomicU64>,
    word_count: usize,
    bytes: usize,
    identity: FileIdentity,
}

/// Tells a file from another one that later has its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of what is at `path` now; `None` when there is nothing.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        path.symlink_metadata()
            .ok()
            .map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

// SAFETY: the mapping belongs to the value alone, is not bound to a thread, and is only reached through atomics.
unsafe impl Send for SharedRegion {}
// SAFETY: as above; shared access is atomic loads of pages that are mapped read-only.
unsafe impl Sync for SharedRegion {}

impl SharedRegion {
    /// Maps the whole file at `path`, which may have at most `bytes_max` bytes.
    ///
    /// Links are not followed. The mapping starts at a multiple of 2 MiB and asks for huge pages; without them it
    /// is slower, not wrong.
    ///
    /// # Errors
    /// [`OpenSharedError`], by what failed; nothing stays mapped then.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, OpenSharedError> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(OpenSharedError::Open)?;
        let metadata = file.metadata().map_err(OpenSharedError::Open)?;
        if !metadata.is_file() {
            return Err(OpenSharedError::NotAFile);
        }
        let bytes = usize::try_from(metadata.size())
            .ok()
            .filter(|bytes| {
                metadata.size() <= bytes_max && *bytes > 0 && bytes.is_multiple_of(PAGE)
            })
            .ok_or_else(|| OpenSharedError::Size {
                bytes: metadata.size(),
                bytes_max,
            })?;
        let words = map(&file, bytes).map_err(OpenSharedError::Map)?;
        Ok(Self {
            words,
            word_count: bytes.div_euclid(size_of::<AtomicU64>()),
            bytes,
            identity: FileIdentity::from_metadata(&metadata),
        })
    }

    /// Returns which file is mapped; it may have lost its name since.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Returns its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Has the kernel enter every 2 MiB page into the page tables of this process, by one load from each.
    ///
    /// Without it the first look-up that comes by pays for each. What consists of small pages is left to be entered
    /// as it is used. Takes 0.3 ms for each GiB: to be called before requests are served, or where none is.
    ///
    /// Asks before each page whether to go on: one that the owner has given back since would be allocated anew.
    pub fn touch(&self, goes_on: impl Fn() -> bool) {
        let firsts = self.as_ref().iter().step_by(WORDS_PER_HUGE_PAGE);
        for word in firsts.take_while(|_| goes_on()) {
            std::hint::black_box(word.load(Ordering::Relaxed));
        }
    }

    /// Returns the bytes that this process has mapped by 2 MiB pages; `None` when the kernel does not say.
    ///
    /// Only what was touched before is in the page tables: [`Self::touch`]. Takes milliseconds.
    #[must_use]
    pub fn huge_bytes(&self) -> Option<u64> {
        let start = u64::try_from(self.words.as_ptr().addr()).ok()?;
        let addresses = start..start.checked_add(self.bytes())?;
        let smaps = File::open("/proc/self/smaps").ok()?;
        smaps::huge_bytes(BufReader::new(smaps), &addresses).ok()?
    }
}

impl AsRef<[AtomicU64]> for SharedRegion {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds `word_count` words, is page-aligned and lives as long as `self`. Zero and any
        // other bytes are valid words; other processes write them, so they are atomics. The pages are read-only:
        // every holder only loads, as a store would be met by SIGSEGV (see SAFETY.md).
        unsafe { slice::from_raw_parts(self.words.as_ptr(), self.word_count) }
    }
}

impl Drop for SharedRegion {
    fn drop(&mut self) {
        unmap(self.words.as_ptr().cast(), self.bytes);
    }
}

/// Maps `bytes` of `file` at an address that is a multiple of 2 MiB.
fn map(file: &File, bytes: usize) -> io::Result<NonNull<AtomicU64>> {
    let reserved = bytes
        .checked_add(HUGE_PAGE)
        .ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new private reservation without access; touches no existing mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            reserved,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let before = start.align_offset(HUGE_PAGE).min(HUGE_PAGE);
    let aligned = start.wrapping_byte_add(before);
    // SAFETY: replaces pages inside our own reservation: `before` <= HUGE_PAGE, so aligned + bytes lies in it.
    let mapped = unsafe {
        libc::mmap(
            aligned,
            bytes,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_FIXED,
            file.as_raw_fd(),
            0,
        )
    };
    let Some(words) = NonNull::new(mapped.cast()).filter(|_| mapped != libc::MAP_FAILED) else {
        let refused = io::Error::last_os_error();
        unmap(start, reserved);
        return Err(refused);
    };
    // What is left of the reservation on both sides.
    unmap(start, before);
    unmap(
        aligned.wrapping_byte_add(bytes),
        HUGE_PAGE.saturating_sub(before),
    );
    // SAFETY: advice on our own mapping; a refusal is of no consequence.
    unsafe { libc::madvise(mapped, bytes, libc::MADV_HUGEPAGE) };
    Ok(words)
}

/// Gives back pages that this module mapped itself.
fn unmap(start: *mut libc::c_void, bytes: usize) {
    if bytes > 0 {
        // SAFETY: every caller passes pages of its own mapping that nothing refers to any more.
        unsafe { libc::munmap(start, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("locus-ffi-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self, name: &str, bytes: u64) -> (PathBuf, File) {
            let path = self.0.join(name);
            let file = File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            file.set_len(bytes).unwrap();
            (path, file)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_mapping_shows_what_another_writer_writes_later() {
        let scratch = Scratch::new("later");
        let (path, file) = scratch.file("table", 3 * 4096);
        let region = SharedRegion::open(&path, 1 << 20).unwrap();
        assert_eq!(region.as_ref().len(), 3 * 512);
        assert_eq!(region.words.as_ptr().align_offset(HUGE_PAGE), 0);
        file.write_all_at(&0x1122_3344_5566_7788_u64.to_le_bytes(), 2 * 4096)
            .unwrap();
        assert_eq!(
            u64::from_le(region.as_ref()[1024].load(Ordering::Relaxed)),
            0x1122_3344_5566_7788
        );
    }

    #[test]
    fn sizes_out_of_bounds_and_foreign_kinds_are_refused() {
        let scratch = Scratch::new("bounds");
        let (path, file) = scratch.file("table", 0);
        let refused = |bytes: u64| {
            file.set_len(bytes).unwrap();
            matches!(SharedRegion::open(&path, 8192), Err(OpenSharedError::Size { bytes: found, .. }) if found == bytes)
        };
        assert!(refused(0) && refused(4095) && refused(12288));
        file.set_len(8192).unwrap();
        let region = SharedRegion::open(&path, 8192).unwrap();
        assert_eq!(FileIdentity::of(&path), Some(region.identity()));
        let link = scratch.0.join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(
            SharedRegion::open(&link, 8192),
            Err(OpenSharedError::Open(_))
        ));
        assert!(matches!(
            SharedRegion::open(&scratch.0, 8192),
            Err(OpenSharedError::NotAFile)
        ));
        assert!(matches!(
            SharedRegion::open(&scratch.0.join("none"), 8192),
            Err(OpenSharedError::Open(_))
        ));
    }

    #[test]
    fn the_kernel_says_how_a_mapping_is_mapped() {
        let scratch = Scratch::new("huge");
        let (path, file) = scratch.file("table", 5 << 20);
        // Three places in three pages of 2 MiB, the last of them not whole.
        file.write_all_at(&[1], (4 << 20) + 8).unwrap();
        let region = SharedRegion::open(&path, 1 << 30).unwrap();
        let asked = std::cell::Cell::new(0);
        region.touch(|| {
            asked.set(asked.get() + 1);
            true
        });
        assert_eq!((asked.get(), region.bytes()), (3, 5 << 20));
        region.touch(|| {
            asked.set(asked.get() + 1);
            false
        });
        assert_eq!(asked.get(), 4, "whoever says no is not asked again");
        // A temporary folder is anything; where it is a disk or a tmpfs without huge pages, there are none.
        let huge = region.huge_bytes().unwrap();
        assert!(
            huge <= region.bytes() && huge.is_multiple_of(HUGE_PAGE as u64),
            "{huge}"
        );
    }

    #[test]
    fn a_dropped_mapping_is_gone() {
        let scratch = Scratch::new("drop");
        let (path, _file) = scratch.file("table", 4096);
        let region = SharedRegion::open(&path, 4096).unwrap();
        let address = region.words.as_ptr() as usize;
        let listed = || {
            std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .any(|line| line.starts_with(&format!("{address:x}-")) && line.contains("table"))
        };
        assert!(listed());
        drop(region);
        assert!(!listed());
    }
}
