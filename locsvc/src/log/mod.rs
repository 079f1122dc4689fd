//! The provisioning log: every accepted change on disk before anybody hears of it. It knows frames, not
//! what their records mean.
//!
//! Segment files `log.<level before the first entry>` of at most 64 MiB; one entry per batch, one write and one
//! `fdatasync` each. The log is the master database: the table is what follows from it.
//!
//! * `entry`: the envelope round a frame;
//! * `recovery`: opens a log and judges damage;
//! * `writer`: appends; `reader`: reads back, from the cached tail first;
//! * `index`: from level to byte; `file`: the narrow layer under it all.

mod entry;
mod error;
mod file;
mod index;
mod reader;
mod recovery;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{AppendError, EntryError, OpenLogError, ReadLogError};
pub use file::{DiskFolder, Folder, MemoryFile, MemoryFolder, SegmentFile};
pub(crate) use index::{Index, Place};
pub use recovery::{Recovered, TornTail};

use locus_distribution::LogFrame;
use locus_proto::Position;

use reader::Tail;

/// A segment is closed before it would grow beyond this many bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of the newest frames that are kept in memory for the nodes that follow closely.
pub(crate) const TAIL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Limits of a log; the defaults are the product's.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// A segment is closed before it would grow beyond this many bytes.
    pub segment_bytes_max: u64,
    /// Bytes of the newest frames that are kept in memory.
    pub tail_bytes_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: SEGMENT_BYTES_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
        }
    }
}

/// An open log with one writer.
#[derive(Debug)]
pub struct Log<F: Folder> {
    folder: F,
    config: LogConfig,
    segments: Vec<Segment>,
    /// The last segment's file; `None` until the first append.
    current: Option<F::File>,
    /// Bytes of whole entries in the last segment.
    current_bytes: u64,
    index: Index,
    tail: Tail,
    end: Position,
    previous: u32,
    poisoned: bool,
}

/// One segment file.
#[derive(Debug, Clone)]
struct Segment {
    name: String,
    /// Bytes of the log before it.
    base: u64,
}

impl<F: Folder> Log<F> {
    /// Returns where the log ends.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Returns how many bytes the log holds.
    pub fn bytes(&self) -> u64 {
        self.index.end()
    }

    fn segment_name(&self) -> String {
        segment_name(self.end.level.0)
    }
}

const SEGMENT_PREFIX: &str = "log.";
const SEGMENT_DIGITS: usize = 20;

fn segment_name(level: u64) -> String {
    format!("{SEGMENT_PREFIX}{level:0SEGMENT_DIGITS$}")
}

/// Returns the level in the name of a segment; `None` for any other file.
fn segment_level(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?;
    let fits = digits.len() == SEGMENT_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

/// Returns whether `names` holds a segment of a log.
pub(crate) fn has_segments(names: &[String]) -> bool {
    names.iter().any(|name| segment_level(name).is_some())
}

/// Returns the envelope of a message and the frame's bytes behind it, as nodes receive them.
fn frame_bytes(frame: &LogFrame) -> &[u8] {
    &frame.message[locus_proto::v1::ENVELOPE_BYTES..]
}
