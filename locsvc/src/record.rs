//! Recordings: every input of the core as a JSON line, and their replay. It changes no outcome.
//!
//! The first line holds the format and the core's configuration, each other line one input and its time.
//! A replay uses a log in memory and leads to the same epoch, level and root as the recorded run.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use locus_distribution::{GroupDatagram, LogFrame, Peer};
use locus_proto::{MasterTime, Message, Timestamp};
use locus_table::OpenTableError;
use serde::{Deserialize, Serialize};

use crate::core::{Core, CoreConfig, EndState, Input, Transmit};
use crate::drive::{Drive, DriveError, Sink};
use crate::event::Event;
use crate::log::{AppendError, Log, LogConfig, MemoryFolder, OpenLogError};
use crate::provision::Answer;

/// Version of the recording; replays refuse any other.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    locsvc_recording: u32,
    config: CoreConfig,
}

#[derive(Deserialize)]
struct Line {
    at: Timestamp,
    input: Input,
}

#[derive(Serialize)]
struct LineRef<'a> {
    at: Timestamp,
    input: &'a Input,
}

/// Writes the inputs of one life to a file.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// `None` after a write has failed: half a recording replays to nothing.
    file: Option<BufWriter<File>>,
}

impl Recorder {
    /// Begins a recording at `path`, replacing what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, config: &CoreConfig) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // It holds subscribers' data and the secret of the tables.
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(options.open(path)?);
        let header = Header {
            locsvc_recording: FORMAT,
            config: config.clone(),
        };
        write_line(&mut file, &header)?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
        })
    }

    /// Records one input, before the core sees it.
    ///
    /// Returns what to say when the recording had to end, once.
    pub fn record(&mut self, at: Timestamp, input: &Input) -> Option<Event> {
        let result = write_line(self.file.as_mut()?, &LineRef { at, input });
        self.failed(result)
    }

    /// Hands what was recorded to the system; as [`Self::record`].
    pub fn flush(&mut self) -> Option<Event> {
        let result = self.file.as_mut()?.flush();
        self.failed(result)
    }

    fn failed(&mut self, result: io::Result<()>) -> Option<Event> {
        let reason = result.err()?.to_string();
        self.file = None;
        let path = self.path.clone();
        Some(Event::RecordFailed { path, reason })
    }
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

/// Returned when a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not one.
    #[error("line {line} is no part of a recording")]
    Line {
        /// Its number, from one.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing in it.
    #[error("the recording is empty")]
    Empty,
    /// Made by another version.
    #[error("the recording has format {0}, this build replays format {FORMAT}")]
    Format(u32),
    /// Its configuration makes no table.
    #[error("no table can be made for its records_max")]
    Table(#[from] OpenTableError),
    /// It cannot be gone on from there.
    #[error("line {line} leads nowhere")]
    Drive {
        /// Its number, from one.
        line: usize,
        /// Why.
        #[source]
        source: DriveError,
    },
    /// The log in memory failed.
    #[error("the log in memory cannot be used")]
    Log(#[from] OpenLogError),
    /// The log in memory failed.
    #[error("the log in memory takes no more")]
    Append(#[from] AppendError),
}

/// Says nothing to nobody.
struct Silence;

impl Sink for Silence {
    fn transmit(&mut self, _: Transmit) {}
    fn datagram(&mut self, _: GroupDatagram) {}
    fn answer(&mut self, _: u64, _: Answer) {}
    fn close(&mut self, _: Peer) {}
    fn alive(&mut self, _: Timestamp, _: MasterTime) {}
    fn event(&mut self, _: Event) {}
}

/// Replays the recording at `path` and returns where it ends.
///
/// A last line that was cut short is left out: the service died while it wrote it.
///
/// # Errors
/// [`ReplayError`] names the line.
pub fn replay(path: &Path) -> Result<EndState, ReplayError> {
    let io_error = |source| ReplayError::Io {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(io_error)?);
    let mut text = String::new();
    reader.read_line(&mut text).map_err(io_error)?;
    if text.is_empty() {
        return Err(ReplayError::Empty);
    }
    let header: Header = parse(&text, 1)?;
    if header.locsvc_recording != FORMAT {
        return Err(ReplayError::Format(header.locsvc_recording));
    }
    let core = Core::new(header.config)?;
    let no_frame = |_| Ok::<(), std::convert::Infallible>(());
    let (log, _) = Log::open(MemoryFolder::default(), LogConfig::default(), no_frame)?;
    let mut drive = Drive::new(core, log);
    for line in 2.. {
        text.clear();
        reader.read_line(&mut text).map_err(io_error)?;
        if !text.ends_with('\n') {
            break;
        }
        let Line { at, input } = parse(&text, line)?;
        match &input {
            Input::Recovered(frame) => {
                let header = frame.header;
                let message = Message::Frame(frame.clone()).to_bytes().into();
                drive.append_recovered(LogFrame { header, message })?;
            }
            Input::Committed => drop(drive.append()?),
            Input::CommitFailed { .. } => {
                drive.discard();
            }
            Input::Start { .. }
            | Input::Api { .. }
            | Input::Connected { .. }
            | Input::Message { .. }
            | Input::Sent { .. }
            | Input::Closed { .. }
            | Input::Datagrams(_)
            | Input::Removed { .. }
            | Input::Flush
            | Input::LogUnreadable { .. }
            | Input::LogEndUnreadable { .. }
            | Input::Tick => {}
        }
        drive
            .handle(at, input, &mut Silence)
            .map_err(|source| ReplayError::Drive { line, source })?;
    }
    Ok(drive.core().end_state())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, line: usize) -> Result<T, ReplayError> {
    serde_json::from_str(text).map_err(|source| ReplayError::Line { line, source })
}
