//! Opens a log: reads all of it, cuts off a torn tail, refuses damage. It does not know what records mean.

use std::fmt;
use std::io::{self, ErrorKind};

use locus_proto::{Frame, FrameHeader, FrameKind, Position};

use super::entry::{Entry, find_whole};
use super::error::{EntryError, OpenLogError};
use super::file::{Folder, SegmentFile};
use super::index::{Index, Place};
use super::reader::{Tail, fill};
use super::{Log, LogConfig, Segment, segment_level};

/// What was found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Where the log ends.
    pub end: Position,
    /// Whole entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was cut off.
    pub torn: Option<TornTail>,
}

/// The remains of a batch whose write was cut short; nobody was told that it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Name of the file.
    pub file: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// What was wrong there.
    pub reason: EntryError,
}

impl<F: Folder> Log<F> {
    /// Opens the log in `folder`, gives each frame to `apply`, and is then ready to append.
    ///
    /// A tail that is no whole entry and has none behind it is what a cut-short write leaves: it is cut
    /// off. Every other fault refuses the whole log, so that no acknowledged change is lost silently.
    ///
    /// # Errors
    /// [`OpenLogError`] names file and offset and what to do.
    pub fn open<E: fmt::Display>(
        folder: F,
        config: LogConfig,
        mut apply: impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(Self, Recovered), OpenLogError> {
        let names = segment_names(&folder)?;
        let mut state = Recovery {
            segments: Vec::new(),
            index: Index::default(),
            previous: 0,
            recovered: Recovered::default(),
        };
        let mut current = None;
        let mut current_bytes = 0;
        for (at, name) in names.iter().enumerate() {
            let is_last = at + 1 == names.len();
            let base = state.index.end();
            let mut file = folder.open(name).map_err(|source| io_error(name, source))?;
            state.segments.push(Segment {
                name: name.clone(),
                base,
            });
            state.read_segment(name, &mut file, is_last, &mut apply)?;
            current_bytes = state.index.end() - base;
            current = Some(file);
        }
        // A process that died while it made the last segment has not waited for its name to be durable.
        folder.sync().map_err(|source| io_error(".", source))?;
        let end = state.recovered.end;
        let log = Self {
            folder,
            config,
            segments: state.segments,
            current,
            current_bytes,
            index: state.index,
            tail: Tail::new(end.into(), config.tail_bytes_max),
            end,
            previous: state.previous,
            poisoned: false,
        };
        Ok((log, state.recovered))
    }
}

/// What grows while the segments are read.
struct Recovery {
    segments: Vec<Segment>,
    index: Index,
    previous: u32,
    recovered: Recovered,
}

impl Recovery {
    fn read_segment<E: fmt::Display>(
        &mut self,
        name: &str,
        file: &mut impl SegmentFile,
        is_last: bool,
        apply: &mut impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(), OpenLogError> {
        let size = file.size().map_err(|source| io_error(name, source))?;
        // A segment is at most 64 MiB and one entry; it is read whole.
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        fill(file, &mut bytes, 0).map_err(|source| io_error(name, source))?;
        let (mut at, mut last_at) = (0, 0);
        while at < bytes.len() {
            let offset = u64::try_from(at).unwrap_or(u64::MAX);
            let damaged = |source| OpenLogError::Damaged {
                file: name.to_owned(),
                offset,
                source,
            };
            let entry = match Entry::decode(&bytes[at..], self.previous) {
                Ok(entry) => entry,
                Err(reason) => {
                    let torn = reason.may_be_torn() && is_last;
                    if !torn || find_whole(&bytes[at + 1..]).is_some() {
                        return Err(damaged(reason));
                    }
                    file.truncate(offset)
                        .map_err(|source| io_error(name, source))?;
                    self.recovered.torn = Some(TornTail {
                        file: name.to_owned(),
                        offset,
                        bytes: size - offset,
                        reason,
                    });
                    break;
                }
            };
            let frame = Frame::decode(entry.payload).map_err(|source| damaged(source.into()))?;
            let header = frame.header;
            follows(self.recovered.end, &header)
                .map_err(|what| damaged(EntryError::Discontinuous(what)))?;
            apply(frame).map_err(|reason| OpenLogError::Refused {
                file: name.to_owned(),
                offset,
                reason: reason.to_string(),
            })?;
            let entry_bytes = u64::try_from(entry.size()).unwrap_or(u64::MAX);
            self.previous = entry.checksum;
            self.index.push(Place::after(&header), entry_bytes);
            self.recovered.end = header.after();
            self.recovered.entries += 1;
            self.recovered.bytes += entry_bytes;
            (last_at, at) = (at, at + entry.size());
        }
        if is_last {
            make_durable(file, &bytes[last_at..at], last_at)
                .map_err(|source| io_error(name, source))?;
        }
        Ok(())
    }
}

/// Writes the last entry once more where it stands, and syncs: its writer may have died before its
/// `fdatasync`, or because it failed, after which the system takes what it holds for written. Of every
/// entry before it the sync was waited for.
fn make_durable(file: &mut impl SegmentFile, entry: &[u8], at: usize) -> io::Result<()> {
    let written = file.write_at(entry, u64::try_from(at).unwrap_or(u64::MAX))?;
    if written != entry.len() {
        return Err(ErrorKind::WriteZero.into());
    }
    file.sync()
}

/// Returns the names of the segments in order; the first begins at level zero.
fn segment_names(folder: &impl Folder) -> Result<Vec<String>, OpenLogError> {
    let mut names = folder.names().map_err(|source| io_error(".", source))?;
    names.retain(|name| segment_level(name).is_some());
    names.sort_unstable();
    match names.first() {
        Some(first) if segment_level(first) != Some(0) => Err(OpenLogError::NoBeginning {
            file: first.clone(),
        }),
        Some(_) | None => Ok(names),
    }
}

fn follows(end: Position, header: &FrameHeader) -> Result<(), &'static str> {
    let epoch_follows = match header.kind {
        FrameKind::Changes => header.epoch == end.epoch,
        FrameKind::Epoch => header.epoch.counter > end.epoch.counter,
    };
    if !epoch_follows {
        return Err("its epoch");
    }
    if header.from != end.level {
        return Err("its level");
    }
    if header.root_before != end.root {
        return Err("its root");
    }
    Ok(())
}

fn io_error(file: &str, source: io::Error) -> OpenLogError {
    OpenLogError::Io {
        file: file.to_owned(),
        source,
    }
}
