//! Reads frames back for those who lag: from memory while they are near the end, else from the files.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use locus_distribution::LogFrame;
use locus_proto::{Decoder, Frame, Message, Position};

use super::entry::{ENTRY_BYTES_MAX, Entry};
use super::error::{EntryError, ReadLogError};
use super::file::{Folder, SegmentFile};
use super::index::Place;
use super::{Log, Segment};

/// The newest frames, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Tail {
    frames: VecDeque<LogFrame>,
    /// Where the log stood before the first of them.
    before: Place,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(super) fn new(before: Place, bytes_max: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            before,
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn push(&mut self, frame: LogFrame) {
        self.bytes += frame.message.len();
        self.frames.push_back(frame);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.frames.pop_front()
        {
            self.bytes -= oldest.message.len();
            self.before = Place::after(&oldest.header);
        }
    }

    /// Returns the frames after `place`; `None` if the first of them may be gone.
    fn after(&self, place: Place, bytes_max: usize) -> Option<Vec<LogFrame>> {
        if place < self.before {
            return None;
        }
        let first = self
            .frames
            .partition_point(|frame| Place::after(&frame.header) <= place);
        let mut found = Found::new(bytes_max);
        for frame in self.frames.range(first..) {
            if !found.take(frame.clone()) {
                break;
            }
        }
        Some(found.frames)
    }
}

/// Frames collected up to a number of bytes, but at least one.
struct Found {
    frames: Vec<LogFrame>,
    bytes: usize,
    bytes_max: usize,
}

impl Found {
    fn new(bytes_max: usize) -> Self {
        Self {
            frames: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn take(&mut self, frame: LogFrame) -> bool {
        let bytes = self.bytes + frame.message.len();
        if !self.frames.is_empty() && bytes > self.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.frames.push(frame);
        true
    }
}

impl<F: Folder> Log<F> {
    /// Returns the frames that follow `after`, oldest first.
    ///
    /// At most `bytes_max` bytes of messages, but at least one frame unless there is none.
    ///
    /// # Errors
    /// [`ReadLogError`]: older frames cannot be read back; the operator has to look at the disk.
    pub fn read(&self, after: Position, bytes_max: usize) -> Result<Vec<LogFrame>, ReadLogError> {
        let after = Place::from(after);
        if let Some(frames) = self.tail.after(after, bytes_max) {
            return Ok(frames);
        }
        let mut found = Found::new(bytes_max);
        let start = self.index.seek(after);
        let first = self
            .segments
            .partition_point(|segment| segment.base <= start);
        let mut offset = start;
        for at in first.saturating_sub(1)..self.segments.len() {
            let segment = &self.segments[at];
            let end = self
                .segments
                .get(at + 1)
                .map_or_else(|| self.index.end(), |next| next.base);
            let more = self.read_segment(segment, offset..end, after, &mut found)?;
            if !more {
                break;
            }
            offset = end;
        }
        Ok(found.frames)
    }

    /// Returns where the last frame leads, as it stands on disk.
    ///
    /// # Errors
    /// [`ReadLogError`], also for a log that is empty.
    pub fn read_end(&self) -> Result<Position, ReadLogError> {
        let nothing = || ReadLogError::Io {
            file: self.segment_name(),
            source: ErrorKind::NotFound.into(),
        };
        // The newest may be empty: its first frame was refused.
        let end = self.index.end();
        let mut newest_first = self.segments.iter().rev();
        let segment = newest_first
            .find(|segment| segment.base < end)
            .ok_or_else(nothing)?;
        let start = self.index.last_mark().max(segment.base);
        let mut found = Found::new(usize::MAX);
        self.read_segment(segment, start..end, Place::default(), &mut found)?;
        let last = found.frames.last().ok_or_else(nothing)?;
        Ok(last.header.after())
    }

    /// Collects from bytes `range` of the log, all within `segment`; returns whether more would fit.
    fn read_segment(
        &self,
        segment: &Segment,
        range: std::ops::Range<u64>,
        after: Place,
        found: &mut Found,
    ) -> Result<bool, ReadLogError> {
        let io_error = |source| ReadLogError::Io {
            file: segment.name.clone(),
            source,
        };
        let file = self.folder.open(&segment.name).map_err(io_error)?;
        let mut block = vec![
            0;
            found
                .bytes_max
                .saturating_add(ENTRY_BYTES_MAX)
                .min(BLOCK_BYTES)
        ];
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let len = block.len().min(left);
            fill(&file, &mut block[..len], at - segment.base).map_err(io_error)?;
            let mut rest = &block[..len];
            loop {
                let damaged = |source| ReadLogError::Damaged {
                    file: segment.name.clone(),
                    offset: at - segment.base,
                    source,
                };
                let entry = match Entry::decode_unchained(rest) {
                    Ok(entry) => entry,
                    // The block ends within the entry, or exactly before it: read on from here.
                    Err(EntryError::Truncated) if rest.len() < len => break,
                    Err(source) => return Err(damaged(source)),
                };
                let header = Frame::decode_header(&mut Decoder::new(entry.payload));
                let (header, _) = header.map_err(|source| damaged(source.into()))?;
                if Place::after(&header) > after {
                    let message = Message::frame_message(entry.payload);
                    let message = Arc::from(message);
                    if !found.take(LogFrame { header, message }) {
                        return Ok(false);
                    }
                }
                rest = &rest[entry.size()..];
                at += u64::try_from(entry.size()).unwrap_or(u64::MAX);
            }
        }
        Ok(true)
    }
}

/// Most bytes of a file that are read at once.
const BLOCK_BYTES: usize = 2 * 1024 * 1024;

/// Reads exactly as many bytes as `bytes` holds.
pub(super) fn fill(file: &impl SegmentFile, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + u64::try_from(done).unwrap_or(u64::MAX);
        match file.read_at(&mut bytes[done..], at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
