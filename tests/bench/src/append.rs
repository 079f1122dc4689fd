//! What one durable append costs on the disk of the log: the same call, the same size, nothing else.
//! Knows no log.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use locus_lab::{Durations, wait};

/// A file that grows by one append and one `fdatasync` at a time.
#[derive(Debug)]
pub struct Appends {
    file: File,
    took: Vec<Duration>,
}

impl Appends {
    /// Makes the file `path`, on the file system in question.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create(path: &Path) -> Self {
        let file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let took = Vec::new();
        Self { file, took }
    }

    /// Appends `bytes` bytes, `times` times, each time durably.
    ///
    /// # Panics
    /// When the disk refuses.
    pub fn run(&mut self, times: usize, bytes: usize) {
        let block = vec![0x5a; bytes];
        for _ in 0..times {
            let start = wait::now();
            self.file
                .write_all(&block)
                .and_then(|()| self.file.sync_data())
                .unwrap_or_else(|error| panic!("append: {error}"));
            self.took.push(start.elapsed());
        }
    }

    /// What all of them took.
    pub fn finish(self) -> Durations {
        self.took.into_iter().collect()
    }
}

/// Bytes in all files below `folder`.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            // Replaced while we looked.
            Err(_) => 0,
        })
        .sum()
}
