//! How much of a table file this process maps by pages of 2 MiB, from `/proc/self/smaps`; it maps nothing.
//!
//! proc(5), "/proc/pid/smaps": an entry begins with the addresses, permissions and file of a mapping; among
//! its fields are `Size` and, for memory of a tmpfs, `ShmemPmdMapped`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pages {
    /// Bytes of the mapping for writing.
    pub bytes: u64,
    /// Of these, bytes in pages of 2 MiB.
    pub huge_bytes: u64,
}

impl Pages {
    /// Returns what this process maps of `file` for writing; nothing if it does not.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        Self::read(BufReader::new(File::open("/proc/self/smaps")?), file)
    }

    fn read(mut smaps: impl BufRead, file: &Path) -> io::Result<Self> {
        let (mut pages, mut is_ours) = (Self::default(), false);
        let mut line = Vec::new();
        // Bytes: the name of a file may be anything.
        while smaps.read_until(b'\n', &mut line)? > 0 {
            let text = line.trim_ascii_end();
            let mut words = text
                .split(|byte| *byte == b' ')
                .filter(|word| !word.is_empty());
            let (first, second) = (words.next().unwrap_or(b""), words.next().unwrap_or(b""));
            if first.contains(&b'-') {
                // Readers of the same file in this process may map it too.
                is_ours =
                    second.get(1) == Some(&b'w') && text.ends_with(file.as_os_str().as_bytes());
            } else if is_ours {
                let kib = std::str::from_utf8(second)
                    .ok()
                    .and_then(|text| text.parse().ok());
                let bytes = kib.unwrap_or(0_u64).saturating_mul(1024);
                match first {
                    b"Size:" => pages.bytes += bytes,
                    b"ShmemPmdMapped:" => pages.huge_bytes += bytes,
                    _ => {}
                }
            }
            line.clear();
        }
        Ok(pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writers_mapping_is_found_by_its_file() {
        let smaps = "\
7f0000000000-7f0000400000 r--s 00000000 00:1f 5                          /run/locus/x/tbl.3\n\
Size:               4096 kB\nShmemPmdMapped:     2048 kB\nVmFlags: rd sh\n\
7f0000400000-7f0000a00000 rw-s 00000000 00:1f 5                          /run/locus/x/tbl.3\n\
Size:               6144 kB\nRss:                6144 kB\nShmemPmdMapped:     4096 kB\n\
7f0000a00000-7f0000c00000 rw-s 00000000 00:1f 6                          /run/locus/x/tbl.4\n\
Size:               2048 kB\nShmemPmdMapped:     2048 kB\n\
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n\
Size:                132 kB\n";
        let of = |text: &str, file: &str| Pages::read(text.as_bytes(), Path::new(file)).unwrap();
        let expected = Pages {
            bytes: 6 << 20,
            huge_bytes: 4 << 20,
        };
        assert_eq!(of(smaps, "/run/locus/x/tbl.3"), expected);
        assert_eq!(of(smaps, "/run/locus/x/tbl.5"), Pages::default());
        for strange in [
            "",
            "\n\n",
            "Size: 5 kB\n",
            "a-b rw-s /f\nSize: much\nShmemPmdMapped:\n",
        ] {
            assert_eq!(of(strange, "/f"), Pages::default(), "{strange:?}");
        }
    }
}
