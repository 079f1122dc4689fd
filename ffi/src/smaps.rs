//! How much of a mapping the kernel shows through 2 MiB pages, read from `/proc/self/smaps`.
//!
//! It knows the text (proc(5), "/proc/pid/smaps") and ranges of addresses; what is mapped there is not its business.

use std::io::{self, BufRead};
use std::ops::Range;

/// The entries' fields that count such pages: of a tmpfs, and of a file system whose page cache has them.
const FIELDS: [&[u8]; 2] = [b"ShmemPmdMapped:", b"FilePmdMapped:"];
/// The unit of all fields.
const KIB: u64 = 1024;

/// Returns the bytes within `addresses` that 2 MiB pages map in this process; `None` when nothing is mapped there or
/// the kernel does not say.
pub(crate) fn huge_bytes(
    mut smaps: impl BufRead,
    addresses: &Range<u64>,
) -> io::Result<Option<u64>> {
    let mut found = None;
    let mut is_inside = false;
    let mut line = Vec::new();
    // Bytes, since the name of a file may be anything.
    while smaps.read_until(b'\n', &mut line)? > 0 {
        if let Some(entry) = entry(&line) {
            if entry.start >= addresses.end {
                break; // they are in order
            }
            is_inside = entry.start >= addresses.start && entry.end <= addresses.end;
        } else if is_inside && let Some(bytes) = field(&line) {
            found = Some(found.unwrap_or(0_u64).saturating_add(bytes));
        }
        line.clear();
    }
    Ok(found)
}

/// Returns the addresses of an entry if `line` begins one, as `7f0000200000-7f0000600000 r--s …`.
fn entry(line: &[u8]) -> Option<Range<u64>> {
    let addresses = line.split(|byte| *byte == b' ').next()?;
    let (start, end) = std::str::from_utf8(addresses).ok()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

/// Returns the bytes of one of [`FIELDS`], as `ShmemPmdMapped:     2048 kB`.
fn field(line: &[u8]) -> Option<u64> {
    let value = FIELDS.iter().find_map(|name| line.strip_prefix(*name))?;
    let value = std::str::from_utf8(value).ok()?.trim();
    let kib: u64 = value.strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from two Kamailio workers (Linux 6.18) and put into one: node 2's table is on a tmpfs without huge
    /// pages, node 1's on one with them; around them the program, `ctl` and the core's shared memory.
    const RECORDED: &str = include_str!("smaps/recorded.txt");
    const SMALL: Range<u64> = 0x7f46_6a80_0000..0x7f46_6da0_0000;
    const HUGE: Range<u64> = 0x7f52_4040_0000..0x7f52_4360_0000;

    fn of(text: &str, addresses: &Range<u64>) -> Option<u64> {
        huge_bytes(text.as_bytes(), addresses).unwrap()
    }

    #[test]
    fn a_mapping_is_found_by_its_addresses() {
        assert_eq!(of(RECORDED, &HUGE), Some(50 << 20));
        assert_eq!(of(RECORDED, &SMALL), Some(0));
        assert_eq!(of(RECORDED, &(0x1000..0x2000)), None);
        assert_eq!(of(RECORDED, &(u64::MAX - 1..u64::MAX)), None);
    }

    #[test]
    fn a_mapping_that_the_kernel_holds_in_pieces_is_one() {
        let pieces = "200000-400000 r--s 0 00:1f 5 /a b\nRss: 4 kB\nShmemPmdMapped:     2048 kB\n\
            400000-500000 r--s 0 00:1f 5 /a\nShmemPmdMapped:        0 kB\nVmFlags: rd sh\n\
            600000-800000 r--s 0 00:1f 5 /other\nShmemPmdMapped:     2048 kB\n";
        assert_eq!(of(pieces, &(0x20_0000..0x50_0000)), Some(2 << 20));
    }

    #[test]
    fn what_is_no_smaps_says_nothing() {
        for text in [
            "",
            "\n",
            "200000-400000 r--s\nShmemPmdMapped: much\n",
            "200000-400000 r--s\nShmemPmdMapped: 2048\n",
            "200000-400000 r--s\nShmemPmdMapped: 99999999999999999999 kB\n",
            "x-y r--s\nShmemPmdMapped: 2048 kB\n",
            // A kernel without such pages.
            "200000-400000 r--s 0 00:1f 5 /a\nRss: 4 kB\n",
        ] {
            assert_eq!(of(text, &(0x20_0000..0x40_0000)), None, "{text:?}");
        }
        let strange = b"200000-400000 r--s 0 00:1f 5 /\xff\xfe\nShmemPmdMapped:     2048 kB\n";
        let found = huge_bytes(&strange[..], &(0x20_0000..0x40_0000)).unwrap();
        assert_eq!(found, Some(2 << 20));
    }
}
