//! A folder on a tmpfs for one test, gone with it; and what to say where there is none.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs, statvfs};

const TMPFS: &str = "/dev/shm";
/// `f_type` of a tmpfs (linux/magic.h).
const TMPFS_MAGIC: FsWord = 0x0102_1994;
const PREFIX: &str = "locus-proofs-";
/// What all tests here take together, twice over.
const FREE_BYTES_MIN: u64 = 128 << 20;

/// A folder on a tmpfs, removed with all it holds when this goes.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
}

impl Room {
    /// Makes the folder of the test `name`, and removes those of tests that were killed.
    ///
    /// # Errors
    /// What is needed, in words that follow "needs".
    pub fn new(name: &str) -> Result<Self, String> {
        let found = statfs(TMPFS).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
        if !found {
            return Err(format!("a tmpfs at {TMPFS}"));
        }
        let free = statvfs(TMPFS).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
        if free.is_ok_and(|bytes| bytes < FREE_BYTES_MIN) {
            return Err(format!("128 MiB free at {TMPFS}"));
        }
        sweep();
        let path = Path::new(TMPFS).join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}

/// Removes the folders of processes that are no more.
fn sweep() {
    let Ok(entries) = fs::read_dir(TMPFS) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Says that a test is ignored for want of something.
///
/// # Panics
/// With `LOCUS_REQUIRE_LAB=1`.
pub fn ignored(test: &str, missing: &str) {
    let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{test}: needs {missing}, and LOCUS_REQUIRE_LAB=1 forbids to skip it"
    );
    println!("{test}: ignored: needs {missing}");
}
