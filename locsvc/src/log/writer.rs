//! Appends entries: one write and one `fdatasync` each, or the log is as before. It reads nothing back.

use std::io::{self, ErrorKind};

use locus_distribution::LogFrame;

use super::entry::Entry;
use super::error::AppendError;
use super::file::{Folder, SegmentFile};
use super::index::Place;
use super::{Log, Segment, frame_bytes};

impl<F: Folder> Log<F> {
    /// Appends `frame`; it is durable when this returns.
    ///
    /// The caller has made the frame so that it follows [`Log::end`].
    ///
    /// # Errors
    /// [`AppendError::Refused`]: the disk took less than all of it; the log is as before.
    /// [`AppendError::Poisoned`]: what is on disk cannot be told, and every later call fails too.
    pub fn append(&mut self, frame: LogFrame) -> Result<(), AppendError> {
        if self.poisoned {
            let source = io::Error::other("an earlier operation failed");
            return Err(AppendError::Poisoned {
                what: "an operation",
                source,
            });
        }
        let (bytes, checksum) = Entry::encode(frame_bytes(&frame), self.previous);
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.roll(size)?;
        self.write(&bytes)?;
        self.current_bytes += size;
        self.previous = checksum;
        self.end = frame.header.after();
        self.index.push(Place::after(&frame.header), size);
        self.tail.push(frame);
        Ok(())
    }

    /// Opens the next segment if there is none, or if `size` more bytes would be too many for it.
    fn roll(&mut self, size: u64) -> Result<(), AppendError> {
        let name = self.segment_name();
        let fits = self.current_bytes + size <= self.config.segment_bytes_max;
        // One of the same name cannot follow: it holds no level yet.
        let same = self.segments.last().is_some_and(|last| last.name == name);
        if self.current.is_some() && (fits || same) {
            return Ok(());
        }
        let file = self.folder.create(&name).map_err(AppendError::Refused)?;
        // Without this the file could be gone after a power cut, with everything acknowledged in it.
        let synced = self.folder.sync();
        self.check("making a segment", synced)?;
        self.current = Some(file);
        self.current_bytes = 0;
        let base = self.index.end();
        self.segments.push(Segment { name, base });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let at = self.current_bytes;
        let Some(file) = &mut self.current else {
            return Err(AppendError::Refused(ErrorKind::NotFound.into()));
        };
        let refused = match file.write_at(bytes, at) {
            Ok(written) if written == bytes.len() => None,
            Ok(written) => {
                let text = format!("only {written} of {} bytes were written", bytes.len());
                Some(io::Error::new(ErrorKind::StorageFull, text))
            }
            Err(source) => Some(source),
        };
        if let Some(source) = refused {
            let truncated = file.truncate(at);
            self.check("cutting off a refused batch", truncated)?;
            return Err(AppendError::Refused(source));
        }
        let synced = file.sync();
        self.check("fdatasync", synced)
    }

    fn check(&mut self, what: &'static str, result: io::Result<()>) -> Result<(), AppendError> {
        result.map_err(|source| {
            self.poisoned = true;
            AppendError::Poisoned { what, source }
        })
    }
}
