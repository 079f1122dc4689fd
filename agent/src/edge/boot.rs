//! Whether a table in a folder was made since this machine was started; it opens no table.
//!
//! The pages of a table file reach a disk in any order, so after a restart no table there can be trusted
//! (table.md 8.10). A tmpfs does not outlive its boot; any other folder holds a file that names the boot of the
//! table that answers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::on_tmpfs;

/// Where the kernel names its boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The file beside `ctl`.
const MARK: &str = "boot";

/// When a table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// In this life of the machine.
    SinceBoot,
    /// In an earlier one, as far as anybody can tell.
    BeforeBoot,
}

/// The name of the boot in which the table of a folder was made, beside that of this one.
#[derive(Debug)]
pub(crate) struct BootMark {
    path: PathBuf,
    now: Option<String>,
    noted: Option<String>,
    is_tmpfs: bool,
}

impl BootMark {
    /// Reads what is noted in `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let path = folder.join(MARK);
        let text = |path: &Path| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self {
            now: text(Path::new(BOOT_ID)),
            noted: text(&path),
            is_tmpfs: on_tmpfs(folder).unwrap_or(false),
            path,
        }
    }

    /// Returns when the table that answers was made.
    pub(crate) fn made(&self) -> Made {
        match (&self.noted, &self.now) {
            (Some(noted), Some(now)) if noted == now => Made::SinceBoot,
            (Some(_), Some(_)) => Made::BeforeBoot,
            (None, _) | (_, None) if self.is_tmpfs => Made::SinceBoot,
            (None, _) | (_, None) => Made::BeforeBoot,
        }
    }

    /// Notes that the table which answers now was made in this boot.
    ///
    /// # Errors
    /// What the system says; the table is then refused after the next start of the agent, unless on a tmpfs.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if self.now.is_some() && self.now != self.noted {
            fs::write(&self.path, self.now.as_deref().unwrap_or_default())?;
            self.noted.clone_from(&self.now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_trusted_if_it_was_made_in_this_boot() {
        use Made::{BeforeBoot, SinceBoot};
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        for (noted, now, is_tmpfs, expected) in [
            ("a", "a", false, SinceBoot),
            ("a", "a", true, SinceBoot),
            ("b", "a", false, BeforeBoot),
            ("b", "a", true, BeforeBoot), // copied there
            ("", "a", false, BeforeBoot), // before its first table, or lost with the power
            ("", "a", true, SinceBoot),
            ("a", "", false, BeforeBoot), // no /proc
            ("a", "", true, SinceBoot),
        ] {
            let mark = BootMark {
                path: PathBuf::new(),
                now: text(now),
                noted: text(noted),
                is_tmpfs,
            };
            assert_eq!(mark.made(), expected, "{mark:?}");
        }
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let folder = PathBuf::from(format!("/dev/shm/locus-boot-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut mark = BootMark::read(&folder);
        assert_eq!(mark.noted, None);
        mark.write().unwrap();
        let again = BootMark::read(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!(again.now.is_some(), "this machine names no boot");
        assert_eq!((&again.noted, again.made()), (&again.now, Made::SinceBoot));
        mark.noted = None;
        assert!(mark.write().is_err(), "the folder is gone");
    }
}
