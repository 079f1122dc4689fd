//! The narrow layer under the log: a folder of files that grow at their end; it knows no entry.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A folder that holds the segments of a log.
pub trait Folder: Debug {
    /// One of its files.
    type File: SegmentFile + Debug;

    /// Returns the names in it, in any order.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes the new, empty file `name`.
    ///
    /// # Errors
    /// It exists, or cannot be made.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens the file `name` for reading and writing.
    ///
    /// # Errors
    /// It does not exist, or cannot be opened.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Returns when the names in the folder will survive a power cut.
    ///
    /// # Errors
    /// They may not.
    fn sync(&self) -> io::Result<()>;
}

/// One file of a [`Folder`].
pub trait SegmentFile {
    /// Returns its length in bytes.
    ///
    /// # Errors
    /// It cannot be told.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `offset`; may read less than `bytes` holds, and nothing only at the end.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, once; returns how many bytes were taken.
    ///
    /// # Errors
    /// Nothing or an unknown part was written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Returns when content and length will survive a power cut.
    ///
    /// # Errors
    /// They may not, and trying again would not tell: the system forgets failed pages.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `size` bytes.
    ///
    /// # Errors
    /// It is as before.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct DiskFolder {
    path: PathBuf,
}

impl DiskFolder {
    /// Returns the folder at `path`, which exists.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }
}

impl Folder for DiskFolder {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        options.mode(0o600); // it holds the subscribers' data
        options.open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl SegmentFile for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// A folder in memory, for replays and tests. Clones share the files.
#[derive(Debug, Clone, Default)]
pub struct MemoryFolder {
    files: Arc<Mutex<BTreeMap<String, MemoryFile>>>,
}

/// A file in memory. Clones share the bytes.
#[derive(Debug, Clone, Default)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl MemoryFile {
    /// Returns the bytes, to read or to damage.
    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryFolder {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, MemoryFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder for MemoryFolder {
    type File = MemoryFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let file = MemoryFile::default();
        match self.files().insert(name.to_owned(), file.clone()) {
            None => Ok(file),
            Some(_) => Err(ErrorKind::AlreadyExists.into()),
        }
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let found = self.files().get(name).cloned();
        found.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl SegmentFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.bytes().len()).unwrap_or(u64::MAX))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.bytes();
        let start = usize::try_from(offset).map_or(file.len(), |start| start.min(file.len()));
        let len = bytes.len().min(file.len() - start);
        bytes[..len].copy_from_slice(&file[start..start + len]);
        Ok(len)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut file = self.bytes();
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(|_| ErrorKind::FileTooLarge)?;
        self.bytes().truncate(size);
        Ok(())
    }
}
