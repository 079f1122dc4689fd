//! Golden files: bytes as text that a reviewer can read and a diff can show.

use std::path::{Path, PathBuf};

/// Returns a folder of golden files.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Returns each file's name without its end, and its bytes, by name.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, unhex(&std::fs::read_to_string(path).unwrap()))
        })
        .collect();
    files.sort();
    files
}

/// Returns the bytes of a file's text.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}
