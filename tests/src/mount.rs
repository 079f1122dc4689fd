//! Small file systems of their own: a node's table folder, a disk that can be full.
//! Knows nothing of what is stored in them.

use std::ffi::{CString, OsStr};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// A tmpfs, unmounted and removed on drop.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    options: String,
}

impl Tmpfs {
    /// Mounts a tmpfs at `path` (created when absent) with `options` as in `mount -o`.
    ///
    /// # Panics
    /// When the kernel refuses; mounting needs root.
    pub fn mount(path: &Path, options: &str) -> Self {
        mount(path, options);
        Self {
            path: path.to_owned(),
            options: options.to_owned(),
        }
    }

    /// Takes over a tmpfs that a program mounted at `path`.
    pub fn adopt(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            options: String::new(),
        }
    }

    /// Loses everything in it, as a reboot does.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn renew(&self) {
        unmount(&self.path);
        mount(&self.path, &self.options);
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills what is left with one file and returns the file's path.
    pub fn fill(&self) -> PathBuf {
        let path = self.path.join("filler");
        let block = vec![0_u8; 4096];
        let mut file = fs::File::create(&path).expect("the filler can be made");
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn mount(path: &Path, options: &str) {
    fs::create_dir_all(path).expect("the mount point can be made");
    let data = CString::new(options).expect("mount options hold no zero byte");
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::NOSUID, data.as_c_str())
        .unwrap_or_else(|error| panic!("mount tmpfs at {} ({options}): {error}", path.display()));
}

fn unmount(path: &Path) {
    if let Err(error) = rustix::mount::unmount(path, UnmountFlags::DETACH) {
        eprintln!("lab: could not unmount {}: {error}", path.display());
    }
    // Only the empty mount point is ours to remove; a failure leaves an empty folder.
    fs::remove_dir(path).ok();
}

/// Unmounts and removes everything below `root` whose folder name is the pid of a dead process.
pub(crate) fn sweep(root: &Path) {
    let is_dead = |name: &OsStr| {
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        pid.is_some_and(|pid| !crate::netns::process_lives(pid))
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Ok(rest) = Path::new(point).strip_prefix(root) else {
            continue;
        };
        if rest.iter().next().is_some_and(is_dead) {
            unmount(Path::new(point));
        }
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if is_dead(&entry.file_name()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
