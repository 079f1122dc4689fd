//! Whether the table is mapped by 2 MiB pages: shown by `locus.status`, and once for each table in the log.
//!
//! It knows pages and what an operator can do about them. Small pages are slower, not wrong: nothing else depends on it.

use std::ffi::CStr;

use locus_ffi::{FileIdentity, LogLevel, Timer, log};
use locus_plugin::{Generation, RegionName};

use crate::state;

const HUGE_PAGE_BYTES: u64 = 2 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// How one process has mapped a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) generation: Generation,
    /// Its size.
    pub(crate) table_bytes: u64,
    /// What of it 2 MiB pages map; `None` when the kernel does not say.
    pub(crate) huge_bytes: Option<u64>,
}

impl Pages {
    /// Returns the line for the log, if there should be such pages and there is none.
    fn complaint(&self) -> Option<String> {
        let could_have = self.table_bytes >= HUGE_PAGE_BYTES;
        (could_have && self.huge_bytes == Some(0)).then(|| {
            format!(
                "{} ({} MiB) has no pages of 2 MiB, so each look-up takes longer: mount a tmpfs of its own with huge=advise \
                 at the table's folder and start locus-agent anew (see \"Pages of 2 MiB\" in the module's README)",
                RegionName::Table(self.generation),
                self.table_bytes.div_euclid(MIB)
            )
        })
    }
}

/// Which table has been looked at.
#[derive(Debug, Default)]
pub(crate) struct PageCheck {
    checked: Option<FileIdentity>,
}

impl PageCheck {
    /// Returns whether the table lies in another file than at the last call.
    fn is_new(&mut self, file: Option<FileIdentity>) -> bool {
        let before = std::mem::replace(&mut self.checked, file);
        file.is_some() && file != before
    }
}

/// Looks at each new table once, in the one process of the server that no request waits for.
#[derive(Debug)]
pub(crate) struct PageWatch;

impl Timer for PageWatch {
    const NAME: &'static CStr = c"timer";
    const SECONDS: u32 = 1;

    fn run() {
        let complaint = state::with_worker(|worker| {
            let file = worker.table.file();
            if !worker.page_check.is_new(file) {
                return None;
            }
            worker.table.pages()?.complaint()
        });
        if let Some(complaint) = complaint.flatten() {
            log(LogLevel::Warning, format_args!("{complaint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_huge_pages_is_complained_of() {
        let pages = |table_bytes, huge_bytes| Pages {
            generation: Generation(7),
            table_bytes,
            huge_bytes,
        };
        let complaint = pages(900 << 20, Some(0)).complaint().unwrap();
        assert!(complaint.starts_with("tbl.7 (900 MiB)"), "{complaint}");
        assert!(complaint.contains("huge=advise"), "{complaint}");
        assert!(pages(2 << 20, Some(0)).complaint().is_some());
        for fine in [
            pages(900 << 20, Some(2 << 20)),
            pages(900 << 20, None),
            pages((2 << 20) - 4096, Some(0)),
        ] {
            assert_eq!(fine.complaint(), None);
        }
    }

    #[test]
    fn each_table_is_looked_at_once() {
        let file = |path: &str| FileIdentity::of(std::path::Path::new(path));
        let (one, other) = (file("/dev"), file("/proc/self"));
        assert!(one.is_some() && other.is_some() && one != other);
        let mut check = PageCheck::default();
        let seen = [None, one, one, other, other, None, one].map(|file| check.is_new(file));
        assert_eq!(seen, [false, true, false, true, false, false, true]);
    }
}
