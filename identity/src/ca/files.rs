//! Writes files so that a crash leaves the old or the new, never half; it does not know what they hold.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::CaError;

/// For private keys, and what belongs to the CA alone.
pub(super) const PRIVATE: u32 = 0o600;
/// For certificates and lists.
pub(super) const PUBLIC: u32 = 0o644;
/// For folders that hold private keys.
const FOLDER_MODE: u32 = 0o700;

/// Names what failed.
pub(super) fn io_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CaError + use<> {
    let path = path.to_owned();
    move |error| CaError::Io { what, path, error }
}

/// Files that are written beside where they belong, durable, and put there by [`Self::commit`].
///
/// A new folder appears with all its files at once. In one that exists each file is replaced by itself, in the order
/// in which they were added, and belongs to whom its predecessor did, or else the folder does: a daemon that could
/// read the old ones can read the new ones. Dropped before, nothing is left of it.
#[derive(Debug)]
pub(super) struct Staged {
    folder: PathBuf,
    /// Where the new folder is made; `None` if the folder exists.
    fresh: Option<PathBuf>,
    files: Vec<&'static str>,
}

impl Staged {
    /// Begins with a folder that may exist; if it does, it stays as it is.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, CaError> {
        match fs::metadata(folder) {
            Ok(_) => Ok(Self {
                folder: folder.to_owned(),
                fresh: None,
                files: Vec::new(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::fresh(folder),
            Err(error) => Err(io_error("read", folder)(error)),
        }
    }

    /// Begins with a folder that must be absent or empty when it is committed.
    pub(super) fn fresh(folder: &Path) -> Result<Self, CaError> {
        if let Some(parent) = parent_of(folder) {
            let made = DirBuilder::new().recursive(true).create(parent);
            made.map_err(io_error("make", parent))?;
        }
        // By process, because another one may do the same just now.
        let fresh = beside(folder).with_extension(format!("{}.new", std::process::id()));
        let made = DirBuilder::new().mode(FOLDER_MODE).create(&fresh);
        made.map_err(io_error("make", &fresh))?;
        Ok(Self {
            folder: folder.to_owned(),
            fresh: Some(fresh),
            files: Vec::new(),
        })
    }

    /// Adds a file; its mode is that of its predecessor, if there is one, and for a private file no more than that its
    /// group may read.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), CaError> {
        let path = self.path_of(name);
        self.files.push(name);
        let (mut mode, mut owner) = (mode, None);
        if self.fresh.is_none() {
            if let Ok(before) = fs::metadata(self.folder.join(name)) {
                let private = mode == PRIVATE;
                mode = before.mode() & if private { 0o640 } else { 0o666 } | PRIVATE;
                owner = Some(before);
            } else {
                owner = fs::metadata(&self.folder).ok();
            }
        }
        write_durable(&path, bytes, mode, owner.as_ref())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        match &self.fresh {
            Some(fresh) => fresh.join(name),
            None => beside(&self.folder.join(name)),
        }
    }

    pub(super) fn commit(mut self) -> Result<(), CaError> {
        if let Some(fresh) = &self.fresh {
            sync_folder(fresh)?;
            fs::rename(fresh, &self.folder).map_err(io_error("make", &self.folder))?;
            self.fresh = None;
            self.files.clear();
            return match parent_of(&self.folder) {
                Some(parent) => sync_folder(parent),
                None => Ok(()),
            };
        }
        for name in std::mem::take(&mut self.files) {
            let path = self.folder.join(name);
            fs::rename(beside(&path), &path).map_err(io_error("write", &path))?;
        }
        sync_folder(&self.folder)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed is overwritten next time.
        if let Some(fresh) = &self.fresh {
            fs::remove_dir_all(fresh).ok();
        } else {
            for name in &self.files {
                fs::remove_file(beside(&self.folder.join(name))).ok();
            }
        }
    }
}

/// Replaces one file.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let new = beside(path);
    write_durable(&new, bytes, mode, None)?;
    fs::rename(&new, path).map_err(io_error("write", path))?;
    match parent_of(path) {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Returns the name beside `path` under which its successor is made.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn parent_of(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        parent => parent,
    }
}

fn write_durable(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<&Metadata>,
) -> Result<(), CaError> {
    // A file left by a crash would keep its own permissions.
    fs::remove_file(path).ok();
    let write = || {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(PRIVATE);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        if let Some(owner) = owner {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
        }
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().map_err(io_error("write", path))
}

fn sync_folder(path: &Path) -> Result<(), CaError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(io_error("write", path))
}
