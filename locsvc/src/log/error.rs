//! Why a log cannot be opened, written or read, and what to do; it does nothing itself.

use std::io;

use locus_proto::DecodeError;

/// Why the bytes at some place are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The file ends before the entry does.
    #[error("the file ends within an entry")]
    Truncated,
    /// They do not begin as an entry does.
    #[error("no entry begins here")]
    Magic,
    /// A length that no entry has.
    #[error("an entry cannot have {0} bytes")]
    Length(u32),
    /// The checksum is another.
    #[error("the checksum does not match")]
    Checksum,
    /// Whole, but of a version that this build does not read.
    #[error("entry version {found} is not read by this build, which reads version {read}")]
    Version {
        /// The version of the entry.
        found: u8,
        /// The version of this build.
        read: u8,
    },
    /// Whole, but it does not follow the entry before it.
    #[error("the entry does not follow the one before it")]
    Chain,
    /// Whole, but not a frame.
    #[error("the entry holds no frame: {0}")]
    Frame(#[from] DecodeError),
    /// Whole, but its epoch, level or root does not follow.
    #[error("{0} does not follow the frame before it")]
    Discontinuous(&'static str),
}

impl EntryError {
    /// Returns whether a write that was cut short leaves this behind: bytes that are no whole entry.
    pub(super) fn may_be_torn(&self) -> bool {
        match self {
            Self::Truncated | Self::Magic | Self::Length(_) | Self::Checksum => true,
            Self::Version { .. } | Self::Chain | Self::Frame(_) | Self::Discontinuous(_) => false,
        }
    }
}

/// Returned when the log cannot be opened. The operator acts: the text names file, offset and remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// The folder or a file cannot be read or repaired.
    #[error("cannot open the log file {file}")]
    Io {
        /// Name of the file, or `.` for the folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are files before which others are missing.
    #[error(
        "the log begins with {file}, its first segments are missing; \
         restore the data folder from a copy"
    )]
    NoBeginning {
        /// The first file found.
        file: String,
    },
    /// An entry is damaged and others follow it: not a write that was cut short.
    #[error(
        "the log is damaged in {file} at byte {offset}: {source}. Acknowledged changes may follow, so \
         nothing was cut off: keep this folder, and restore the data folder from a copy"
    )]
    Damaged {
        /// Name of the file.
        file: String,
        /// Where the entry begins.
        offset: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The state that follows from the log cannot take the frame.
    #[error("the frame in {file} at byte {offset} cannot be applied: {reason}")]
    Refused {
        /// Name of the file.
        file: String,
        /// Where the entry begins.
        offset: u64,
        /// Why, as the state says it.
        reason: String,
    },
}

/// Returned when a batch could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It was not written, and the log is as before: it may be tried again.
    #[error("the log takes no more: {0}")]
    Refused(#[source] io::Error),
    /// Whether it is on disk cannot be told. The process has to end; the next start reads what is there.
    #[error(
        "{what} of the log failed, so it cannot be told what is on disk: \
         stopping; check the disk, then start again"
    )]
    Poisoned {
        /// The operation.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Returned when older entries cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// The file cannot be read.
    #[error("cannot read the log file {file}")]
    Io {
        /// Name of the file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was whole when it was written.
    #[error("the log was damaged meanwhile in {file} at byte {offset}: {source}")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Where the entry begins.
        offset: u64,
        /// What is wrong with it.
        source: EntryError,
    },
}
