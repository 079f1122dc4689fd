//! Compares bytes with their golden file, and writes it when `LOCUS_BLESS` is set.

use std::fmt::Write as _;
use std::path::Path;

/// Returns the bytes of the file, after comparing `bytes` with them.
pub(crate) fn compare(folder: &Path, name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = folder.join(format!("{name}.hex"));
    if std::env::var_os("LOCUS_BLESS").is_some() {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(hex(bytes), golden, "{name}: encoding");
    super::hex::unhex(&golden)
}

/// Returns `bytes` as lines of 16.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for byte in line {
            write!(text, "{byte:02x} ").unwrap();
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
