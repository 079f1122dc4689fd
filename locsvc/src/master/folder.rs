//! The data folder: its lock, its identity, and the service time of the last second; the log lies beside
//! them and is not known here.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use locus_proto::{Decoder, Encoder, MasterTime};

use super::time::Alive;

const META: &str = "meta";
const META_MAGIC: [u8; 8] = *b"LOCSVC\0M";
/// Version of the folder: what files are in it and what they mean.
const FORMAT: u32 = 1;
const ALIVE: &str = "alive";
const LOCK: &str = "lock";

/// What the file `meta` says; written once.
#[derive(Clone, PartialEq, Eq)]
pub struct Meta {
    /// Secret of the cluster's tables: seeds index and record hashes.
    pub table_key: [u8; 16],
    /// When the folder was made, Unix time in milliseconds.
    pub created_ms: u64,
}

/// A data folder that this process owns until it ends.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    meta: Meta,
    alive: File,
    /// Held for its lock.
    _lock: File,
}

/// Returned when the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenFolderError {
    /// A file cannot be made, read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by process {pid}: two locsvc must not share a data folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// What the other process wrote into the lock.
        pid: String,
    },
    /// There is a log without the file that says what it belongs to.
    #[error(
        "{} holds a log but no file `meta`: restore the whole folder from a copy",
        path.display()
    )]
    NoMeta {
        /// The folder.
        path: PathBuf,
    },
    /// The file `meta` is not one, or damaged.
    #[error("{} is damaged: restore the whole folder from a copy", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
    },
    /// It was made by another version.
    #[error("{} has format {found}, this build reads format {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
}

impl DataFolder {
    /// Opens the folder at `path`, or makes it with a new `meta` that `make_meta` provides.
    ///
    /// # Errors
    /// [`OpenFolderError`] says what to do.
    pub fn open(path: &Path, make_meta: impl FnOnce() -> Meta) -> Result<Self, OpenFolderError> {
        let io_at = |name: &str| {
            let path = path.join(name);
            move |source| OpenFolderError::Io { path, source }
        };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_at(""))?;
        let lock = lock(path)?;
        let meta_path = path.join(META);
        let found = match fs::read(&meta_path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(io_at(META)(source)),
        };
        let meta = match found {
            Some(bytes) => decode_meta(&bytes, meta_path)?,
            None => {
                if has_log(path).map_err(io_at(""))? {
                    let path = path.to_owned();
                    return Err(OpenFolderError::NoMeta { path });
                }
                let meta = make_meta();
                write_meta(path, &meta).map_err(io_at(META))?;
                meta
            }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let alive = options.open(path.join(ALIVE)).map_err(io_at(ALIVE))?;
        Ok(Self {
            path: path.to_owned(),
            meta,
            alive,
            _lock: lock,
        })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what it belongs to.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns the last second of the last life; `None` if it is not there or was torn.
    pub fn alive(&self) -> Option<Alive> {
        let mut bytes = [0; ALIVE_BYTES];
        self.alive.read_exact_at(&mut bytes, 0).ok()?;
        decode_alive(&bytes)
    }

    /// Notes that the service lives. Not synced: what is lost with a power cut is in the log, but for
    /// seconds.
    ///
    /// # Errors
    /// The disk refuses it; the next second tries again.
    pub fn write_alive(&self, alive: Alive) -> io::Result<()> {
        self.alive.write_all_at(&encode_alive(alive), 0)
    }
}

fn lock(path: &Path) -> Result<File, OpenFolderError> {
    let lock_path = path.join(LOCK);
    let io_error = |source| OpenFolderError::Io {
        path: lock_path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&lock_path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
            let pid = read.map_or_else(|_| String::new(), |_| pid.trim().to_owned());
            let path = path.to_owned();
            return Err(OpenFolderError::Locked { path, pid });
        }
        Err(TryLockError::Error(source)) => return Err(io_error(source)),
    }
    let note = format!("{}\n", std::process::id());
    // For people only: on a full disk the lock holds all the same.
    drop(
        file.set_len(0)
            .and_then(|()| file.write_all(note.as_bytes())),
    );
    Ok(file)
}

fn has_log(path: &Path) -> io::Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(crate::log::has_segments(&names))
}

/// Writes beside, syncs, renames, syncs the folder: there is a whole file or none.
fn write_meta(path: &Path, meta: &Meta) -> io::Result<()> {
    let mut bytes = META_MAGIC.to_vec();
    Encoder::new(&mut bytes)
        .u32(FORMAT)
        .bytes(&meta.table_key)
        .u64(meta.created_ms);
    let checksum = crc32c::crc32c(&bytes);
    Encoder::new(&mut bytes).u32(checksum);
    let beside = path.join("meta.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path.join(META))?;
    File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

fn decode_meta(bytes: &[u8], path: PathBuf) -> Result<Meta, OpenFolderError> {
    let read = || {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        let mut from = Decoder::new(body);
        let fits = from.array("magic").ok()? == META_MAGIC
            && u32::from_le_bytes(*checksum) == crc32c::crc32c(body);
        let format = from.u32("format").ok()?;
        fits.then_some((format, from))
    };
    let Some((format, mut from)) = read() else {
        return Err(OpenFolderError::Meta { path });
    };
    if format != FORMAT {
        let found = format;
        return Err(OpenFolderError::Format { path, found });
    }
    match (from.array("table key"), from.u64("creation")) {
        (Ok(table_key), Ok(created_ms)) => Ok(Meta {
            table_key,
            created_ms,
        }),
        (Err(_), _) | (_, Err(_)) => Err(OpenFolderError::Meta { path }),
    }
}

const ALIVE_BYTES: usize = 20;

fn encode_alive(alive: Alive) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ALIVE_BYTES);
    Encoder::new(&mut bytes)
        .u64(alive.time.0)
        .u64(alive.wall_ms);
    let checksum = crc32c::crc32c(&bytes);
    Encoder::new(&mut bytes).u32(checksum);
    bytes
}

fn decode_alive(bytes: &[u8]) -> Option<Alive> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let mut from = Decoder::new(body);
    let alive = Alive {
        time: MasterTime(from.u64("time").ok()?),
        wall_ms: from.u64("wall clock").ok()?,
    };
    (u32::from_le_bytes(*checksum) == crc32c::crc32c(body)).then_some(alive)
}

impl std::fmt::Debug for Meta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meta") // without the key, which is a secret
            .field("created_ms", &self.created_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        table_key: [7; 16],
        created_ms: 42,
    };

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("locsvc-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        path
    }

    #[test]
    fn keeps_its_identity_and_the_last_second() {
        let path = scratch("identity");
        let folder = DataFolder::open(&path, || META).unwrap();
        assert_eq!((folder.meta(), folder.alive()), (&META, None));
        let alive = Alive {
            time: MasterTime(5),
            wall_ms: 6,
        };
        folder.write_alive(alive).unwrap();
        drop(folder);
        let folder = DataFolder::open(&path, || panic!("it has one")).unwrap();
        assert_eq!((folder.meta(), folder.alive()), (&META, Some(alive)));
        fs::write(path.join(ALIVE), [1; ALIVE_BYTES]).unwrap();
        assert_eq!(folder.alive(), None);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn two_processes_do_not_share_it() {
        let path = scratch("shared");
        let first = DataFolder::open(&path, || META).unwrap();
        let error = DataFolder::open(&path, || META).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("in use by process {}", std::process::id())),
            "{text}"
        );
        drop(first);
        DataFolder::open(&path, || META).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn refuses_a_damaged_or_missing_identity() {
        let path = scratch("damaged");
        drop(DataFolder::open(&path, || META).unwrap());
        let whole = fs::read(path.join("meta")).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(path.join("meta"), bytes).unwrap();
            assert!(DataFolder::open(&path, || META).is_err(), "byte {at}");
        }
        fs::remove_file(path.join("meta")).unwrap();
        fs::write(path.join("log.00000000000000000000"), b"").unwrap();
        let error = DataFolder::open(&path, || META).unwrap_err();
        assert!(matches!(error, OpenFolderError::NoMeta { .. }), "{error}");
        fs::remove_dir_all(&path).unwrap();
    }
}
