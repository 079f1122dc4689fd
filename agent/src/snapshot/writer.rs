//! Makes the bytes of a snapshot, in one pass; it decides neither when nor what, and syncs nothing.

use std::io::{self, Write};

use locus_proto::{Encoder, Level};

use super::format::{
    CHECKSUM_BYTES, CHUNK_BYTES_MAX, End, HEAD_BYTES, Head, Header, Kind, RECORD_HEAD_BYTES,
    Totals, chunk_checksum,
};

/// Payload at which a chunk is written: a quarter of what it may have, so that one more frame, or what one step
/// of a scan finds, always fits.
pub(crate) const CHUNK_BYTES: usize = CHUNK_BYTES_MAX / 4;

/// Records on their way into a chunk.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    count: u64,
}

impl Records {
    /// Adds a record.
    pub(crate) fn push(&mut self, level: Level, key: &[u8], value: &[u8]) {
        self.bytes
            .reserve(RECORD_HEAD_BYTES + key.len() + value.len());
        Encoder::new(&mut self.bytes)
            .u16(u16::try_from(key.len()).unwrap_or(u16::MAX))
            .len32(value.len())
            .u64(level.0)
            .bytes(key)
            .bytes(value);
        self.count += 1;
    }

    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// Returns how many bytes they take.
    pub(crate) fn bytes(&self) -> u64 {
        count(self.bytes.len())
    }

    /// Returns what [`Self::rewind`] takes.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.bytes.len(), self.count)
    }

    /// Forgets the records that were added after `mark`.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.0);
        self.count = mark.1;
    }

    /// Returns whether there are enough for a chunk.
    pub(crate) fn fill_a_chunk(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES
    }
}

/// How far records had come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize, u64);

/// Writes one snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotWriter<W> {
    out: W,
    /// The header's checksum.
    seed: u32,
    totals: Totals,
    /// A chunk of frames that is not full yet.
    frames: Vec<u8>,
    frames_in_it: u64,
    written: u64,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub(crate) fn new(mut out: W, header: &Header) -> io::Result<Self> {
        let bytes = header.encode();
        let (_, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let seed = checksum.try_into().map_or(0, u32::from_le_bytes);
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            seed,
            totals: Totals::default(),
            frames: Vec::new(),
            frames_in_it: 0,
            written: count(bytes.len()),
        })
    }

    /// Writes records, at most a chunk of them, and forgets them.
    ///
    /// # Errors
    /// Whatever the output says; [`io::ErrorKind::InvalidInput`] for more than a chunk.
    pub(crate) fn records(&mut self, records: &mut Records) -> io::Result<()> {
        if records.count > 0 {
            self.chunk(Kind::Records, &records.bytes)?;
            self.totals.records += records.count;
            records.clear();
        }
        Ok(())
    }

    /// Adds an encoded frame.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub(crate) fn frame(&mut self, frame: &[u8]) -> io::Result<()> {
        Encoder::new(&mut self.frames)
            .len32(frame.len())
            .bytes(frame);
        self.frames_in_it += 1;
        if self.frames.len() >= CHUNK_BYTES {
            self.flush_frames()?;
        }
        Ok(())
    }

    fn flush_frames(&mut self) -> io::Result<()> {
        if self.frames_in_it > 0 {
            let frames = std::mem::take(&mut self.frames);
            self.chunk(Kind::Frames, &frames)?;
            self.totals.frames += self.frames_in_it;
            self.frames = frames;
            self.frames.clear();
            self.frames_in_it = 0;
        }
        Ok(())
    }

    /// Writes the end and returns the output, which is still to be synced.
    ///
    /// # Errors
    /// Whatever the output says.
    pub(crate) fn finish(mut self, end: &End) -> io::Result<W> {
        self.flush_frames()?;
        let mut payload = Vec::new();
        end.encode(self.totals, &mut payload);
        self.chunk(Kind::End, &payload)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn chunk(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        if payload.len() > CHUNK_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len = payload.len();
        let head = Head { kind, len }.encode();
        let checksum = chunk_checksum(self.seed, self.totals.chunks, &head, payload);
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.out.write_all(&checksum.to_le_bytes())?;
        self.totals.chunks += 1;
        self.written += count(HEAD_BYTES + len + CHECKSUM_BYTES);
        Ok(())
    }

    /// Returns the bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Returns the output.
    pub(crate) fn output(&self) -> &W {
        &self.out
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
