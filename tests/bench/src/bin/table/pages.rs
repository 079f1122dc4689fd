//! Which pages the kernel gave: file systems with and without huge ones, and what is mapped of a file.
//! Knows nothing of what lies in them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use locus_lab::Tmpfs;

/// Size of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// 2 MiB.
    Huge,
    /// 4 KiB.
    Small,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Huge => f.write_str("2 MiB"),
            Self::Small => f.write_str("4 KiB"),
        }
    }
}

impl Pages {
    /// Mounts a file system of its own with such pages, below the lab's folder of mounts: what a killed
    /// run leaves there, the next lab removes.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub(crate) fn mount(self) -> Tmpfs {
        let (name, huge) = match self {
            Self::Huge => ("huge", "advise"),
            Self::Small => ("small", "never"),
        };
        Tmpfs::mount(
            &mounts().join(name),
            &format!("huge={huge},size=100%,mode=0700"),
        )
    }
}

fn mounts() -> PathBuf {
    Path::new("/run/locus-lab").join(std::process::id().to_string())
}

/// Removes the folder of mounts when all are gone.
pub(crate) fn clean_up() {
    fs::remove_dir(mounts()).ok();
}

/// A folder below `mount`, made.
///
/// # Panics
/// When it cannot be made.
pub(crate) fn subfolder(mount: &Tmpfs, name: &str) -> PathBuf {
    let path = mount.path().join(name);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// What of the files below a folder this process has mapped, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// By pages of any size.
    pub mib: u64,
    /// By pages of 2 MiB.
    pub huge_mib: u64,
}

impl Mapped {
    /// Asks the kernel.
    ///
    /// # Panics
    /// When it does not tell.
    pub(crate) fn of(folder: &Path) -> Self {
        let text = fs::read_to_string("/proc/self/smaps")
            .unwrap_or_else(|error| panic!("/proc/self/smaps: {error}"));
        Self::parse(&text, folder)
    }

    fn parse(text: &str, folder: &Path) -> Self {
        let (mut kib, mut huge_kib, mut counts) = (0, 0, false);
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let first = words.next().unwrap_or_default();
            let number = || {
                words
                    .clone()
                    .next()
                    .and_then(|word| word.parse::<u64>().ok())
            };
            match first {
                "Rss:" if counts => kib += number().unwrap_or(0),
                "ShmemPmdMapped:" if counts => huge_kib += number().unwrap_or(0),
                // The head of a mapping ends with its file.
                _ if !first.ends_with(':') => {
                    counts = line
                        .find('/')
                        .is_some_and(|at| Path::new(&line[at..]).starts_with(folder));
                }
                _ => {}
            }
        }
        Self {
            mib: kib / 1024,
            huge_mib: huge_kib / 1024,
        }
    }

    /// Whether nearly all of it is mapped by huge pages.
    pub(crate) fn is_huge(self) -> bool {
        self.huge_mib * 100 >= self.mib * 98
    }
}

/// What the kernel could give to a new process without swapping, in MiB.
pub(crate) fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_below_the_folder_count() {
        let text = "7f00-7f10 r--s 00000000 00:2f 7    /run/x/huge/table/tbl.1\n\
                    Size: 9999 kB\nRss:    4096 kB\nShmemPmdMapped:  2048 kB\nVmFlags: rd mr\n\
                    7f20-7f30 r--s 00000000 00:2f 8    /run/x/huge/other\n\
                    Rss:    1024 kB\nShmemPmdMapped:  0 kB\n\
                    7f40-7f50 rw-p 00000000 00:00 0 \nRss: 1024 kB\n";
        let mapped = Mapped::parse(text, Path::new("/run/x/huge/table"));
        assert_eq!((mapped.mib, mapped.huge_mib), (4, 2));
        assert!(!mapped.is_huge());
    }
}
