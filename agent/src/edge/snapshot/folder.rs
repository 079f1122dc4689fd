//! The folder of an agent's snapshots: its lock, its names, what is kept and what goes; it reads no record.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use locus_proto::{NodeName, Position};

use crate::snapshot::SnapshotReader;

/// Subscribers' addresses and the secret of the tables: for nobody but the agent.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK: &str = "lock";
const TEMPORARY: &str = "snap.tmp";
const PREFIX: &str = "snap.";

/// Name of a snapshot: the counter of its epoch and its level. The greater one is the newer one: levels rise
/// within an epoch, and may be lower at the beginning of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    epoch: u64,
    level: u64,
}

impl Name {
    /// Returns the name of a snapshot that ends at `position`.
    pub(super) fn of(position: Position) -> Self {
        Self {
            epoch: position.epoch.counter,
            level: position.level.0,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (epoch, level) = name.strip_prefix(PREFIX)?.split_once('.')?;
        let name_of = Self {
            epoch: epoch.parse().ok()?,
            level: level.parse().ok()?,
        };
        (name_of.to_string() == name).then_some(name_of)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}", self.epoch, self.level)
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenSnapshotsError {
    /// Another agent has it.
    #[error("another locus-agent owns {}; set another folder for one of them", .0.display())]
    Owned(PathBuf),
    /// The system refuses it.
    #[error("cannot use {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A folder of snapshots for its one agent, as long as this lives.
#[derive(Debug)]
pub(super) struct SnapshotFolder {
    path: PathBuf,
    /// Snapshots that were found to be none: they are no predecessors.
    refused: Vec<Name>,
    /// Held for its lock, which the kernel releases when the process ends, however it ends.
    _lock: File,
}

impl SnapshotFolder {
    /// Opens the folder at `path` or makes it, and removes what an earlier life had not written to its end.
    ///
    /// # Errors
    /// [`OpenSnapshotsError`] says who has it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenSnapshotsError> {
        let failed = |path: PathBuf| |source| OpenSnapshotsError::Io { path, source };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(failed(path.to_owned()))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(failed(lock_path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenSnapshotsError::Owned(path.to_owned()));
            }
            Err(TryLockError::Error(source)) => return Err(failed(lock_path)(source)),
        }
        let folder = Self {
            path: path.to_owned(),
            refused: Vec::new(),
            _lock: lock,
        };
        folder
            .discard_temporary()
            .map_err(failed(folder.temporary()))?;
        Ok(folder)
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.path.join(name.to_string())
    }

    fn temporary(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }

    /// Returns the snapshots, newest first.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn list(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let file = entry?.file_name();
            names.extend(file.to_str().and_then(Name::parse));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Returns where the newest snapshot of `cluster` ends, by its own word.
    pub(super) fn newest(&self, cluster: &NodeName) -> Option<Position> {
        let mut names = self.list().ok()?.into_iter();
        let newest = names.find(|name| self.is_of(*name, cluster))?;
        let file = File::open(self.path(newest)).ok()?;
        Some(SnapshotReader::open(file).ok()?.end().position)
    }

    /// Takes in that a snapshot is none: it goes when there is another one.
    pub(super) fn refuse(&mut self, name: Name) {
        self.refused.push(name);
    }

    /// Makes an empty file for the next snapshot.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn create(&self) -> io::Result<File> {
        self.discard_temporary()?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.temporary())
    }

    /// Removes what was not written to its end.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn discard_temporary(&self) -> io::Result<()> {
        match fs::remove_file(self.temporary()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Gives the new snapshot, which is synced, its name; of this cluster its predecessor is kept, too.
    ///
    /// # Errors
    /// What the system says; the snapshot may have its name then.
    pub(super) fn keep(&mut self, name: Name, cluster: &NodeName) -> io::Result<()> {
        fs::rename(self.temporary(), self.path(name))?;
        self.refused.retain(|refused| *refused != name);
        File::open(&self.path)?.sync_all()?;
        self.prune(name, cluster, 1)
    }

    /// Removes all predecessors of the newest snapshot.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn keep_newest(&self, cluster: &NodeName) -> io::Result<()> {
        match self
            .list()?
            .into_iter()
            .find(|name| self.is_of(*name, cluster))
        {
            Some(newest) => self.prune(newest, cluster, 0),
            None => Ok(()),
        }
    }

    /// Removes all but `kept`, so many of its predecessors, and what belongs to another cluster: it may be
    /// here by a mistake that somebody wants to undo.
    fn prune(&self, kept: Name, cluster: &NodeName, predecessors: usize) -> io::Result<()> {
        let mut found = 0;
        for name in self.list()?.into_iter().filter(|name| *name != kept) {
            if name < kept && found < predecessors && self.is_of(name, cluster) {
                found += 1;
            } else if !self.is_of_another(name, cluster) {
                fs::remove_file(self.path(name))?;
            }
        }
        Ok(())
    }

    fn is_of(&self, name: Name, cluster: &NodeName) -> bool {
        !self.refused.contains(&name) && self.cluster_of(name).as_ref() == Some(cluster)
    }

    fn is_of_another(&self, name: Name, cluster: &NodeName) -> bool {
        self.cluster_of(name).is_some_and(|found| found != *cluster)
    }

    /// Returns whose a snapshot is; `None` if it is none that this build reads.
    fn cluster_of(&self, name: Name) -> Option<NodeName> {
        let file = File::open(self.path(name)).ok()?;
        let snapshot = SnapshotReader::open(file).ok()?;
        Some(snapshot.header().cluster.clone())
    }
}
