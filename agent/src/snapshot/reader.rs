//! Reads a snapshot and checks every byte of it; it believes none before its checksum, and stores no record.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use locus_proto::{Change, ChangeOp, DecodeError, Decoder, Frame, FrameKind, Key, Level, Position};

use super::format::{
    CHECKSUM_BYTES, END_BYTES, End, FormatError, HEAD_BYTES, Head, Header, Kind, PREFIX_BYTES,
    Totals, chunk_checksum,
};

/// Why a snapshot cannot be read or is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSnapshotError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It was cut off, or is none.
    #[error("it ends too early")]
    Truncated,
    /// Bytes that are no part of a snapshot.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What it holds is not what its end says.
    #[error("its parts contradict each other: {what}")]
    Contradicts {
        /// Where.
        what: &'static str,
    },
}

impl From<DecodeError> for ReadSnapshotError {
    fn from(error: DecodeError) -> Self {
        Self::Format(error.into())
    }
}

/// One snapshot whose header and end are right.
#[derive(Debug)]
pub(crate) struct SnapshotReader<R> {
    input: R,
    header: Header,
    /// The header's checksum.
    seed: u32,
    end: End,
    totals: Totals,
    /// Where the first chunk begins, and the last one.
    chunks: (u64, u64),
    payload: Vec<u8>,
}

impl<R: Read + Seek> SnapshotReader<R> {
    /// Reads header and end.
    ///
    /// # Errors
    /// [`ReadSnapshotError`] if one of them is not what was written.
    pub(crate) fn open(mut input: R) -> Result<Self, ReadSnapshotError> {
        let mut prefix = [0; PREFIX_BYTES];
        read(&mut input, &mut prefix)?;
        let mut bytes = prefix.to_vec();
        bytes.resize(PREFIX_BYTES + Header::rest_of(&prefix)?, 0);
        read(&mut input, &mut bytes[PREFIX_BYTES..])?;
        let (header, seed) = Header::decode(&bytes)?;
        let first = input.stream_position()?;
        let len = input.seek(SeekFrom::End(0))?;
        let last = len
            .checked_sub(count(END_BYTES))
            .filter(|last| *last >= first)
            .ok_or(ReadSnapshotError::Truncated)?;
        input.seek(SeekFrom::Start(last))?;
        let mut chunk = [0; END_BYTES];
        read(&mut input, &mut chunk)?;
        let (end, totals) = End::decode(seed, &chunk)?;
        Ok(Self {
            input,
            header,
            seed,
            end,
            totals,
            chunks: (first, last),
            payload: Vec::new(),
        })
    }

    /// Returns what stands at its beginning.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what stands at its end.
    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    /// Hands all records to `take`, some hundred at a time, and then the changes of every frame.
    ///
    /// Returns early with what `take` breaks with. Holds one chunk in memory.
    ///
    /// # Errors
    /// [`ReadSnapshotError`]; what was handed out before may be wrong then.
    pub(crate) fn load<B>(
        &mut self,
        mut take: impl FnMut(&[Change]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadSnapshotError> {
        let mut found = Totals::default();
        if let ControlFlow::Break(why) = self.pass(Kind::Records, |payload| {
            let records = decode_records(payload)?;
            found.records += count(records.len());
            Ok(take(&records))
        })? {
            return Ok(ControlFlow::Break(why));
        }
        let mut at = self.header.position;
        if let ControlFlow::Break(why) = self.pass(Kind::Frames, |payload| {
            let mut from = Decoder::new(payload);
            while !from.rest().is_empty() {
                let frame = decode_frame(&mut from)?;
                at = follow(at, &frame)?;
                found.frames += 1;
                if let ControlFlow::Break(why) = take(&frame.changes) {
                    return Ok(ControlFlow::Break(why));
                }
            }
            Ok(ControlFlow::Continue(()))
        })? {
            return Ok(ControlFlow::Break(why));
        }
        let counted = (found.records, found.frames) == (self.totals.records, self.totals.frames);
        if !counted || at != self.end.position {
            let what = "number of records or frames, or the last position";
            return Err(ReadSnapshotError::Contradicts { what });
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads all chunks of one kind, and the heads of the others, which have another pass.
    fn pass<B>(
        &mut self,
        wanted: Kind,
        mut take: impl FnMut(&[u8]) -> Result<ControlFlow<B>, ReadSnapshotError>,
    ) -> Result<ControlFlow<B>, ReadSnapshotError> {
        let (mut at, last) = self.chunks;
        self.input.seek(SeekFrom::Start(at))?;
        for number in 0..self.totals.chunks {
            let mut head = [0; HEAD_BYTES];
            read(&mut self.input, &mut head)?;
            let Head { kind, len } = Head::decode(&head)?;
            at += count(HEAD_BYTES + len + CHECKSUM_BYTES);
            if at > last || kind == Kind::End {
                let what = "a chunk behind the last";
                return Err(ReadSnapshotError::Contradicts { what });
            }
            if kind != wanted {
                self.input.seek(SeekFrom::Start(at))?;
                continue;
            }
            self.payload.resize(len, 0);
            read(&mut self.input, &mut self.payload)?;
            let mut checksum = [0; CHECKSUM_BYTES];
            read(&mut self.input, &mut checksum)?;
            let computed = chunk_checksum(self.seed, number, &head, &self.payload);
            if computed != u32::from_le_bytes(checksum) {
                return Err(FormatError::Checksum { what: "content" }.into());
            }
            if let ControlFlow::Break(why) = take(&self.payload)? {
                return Ok(ControlFlow::Break(why));
            }
        }
        if at != last {
            let what = "bytes between the last chunks";
            return Err(ReadSnapshotError::Contradicts { what });
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn read(input: &mut impl Read, into: &mut [u8]) -> Result<(), ReadSnapshotError> {
    input.read_exact(into).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            ReadSnapshotError::Truncated
        } else {
            error.into()
        }
    })
}

fn decode_records(payload: &[u8]) -> Result<Vec<Change>, ReadSnapshotError> {
    let mut from = Decoder::new(payload);
    let mut records = Vec::new();
    while !from.rest().is_empty() {
        let key_len = usize::from(from.u16("key length")?);
        let len = usize::try_from(from.u32("value length")?).unwrap_or(usize::MAX);
        let level = Level(from.u64("level")?);
        let key = Key::from_bytes(from.bytes("key", key_len)?)?;
        let value = from.bytes("value", len)?.to_vec();
        let op = ChangeOp::Put(value);
        records.push(Change { key, level, op });
    }
    Ok(records)
}

fn decode_frame(from: &mut Decoder<'_>) -> Result<Frame, ReadSnapshotError> {
    let len = usize::try_from(from.u32("frame length")?).unwrap_or(usize::MAX);
    Ok(Frame::decode(from.bytes("frame", len)?)?)
}

/// Returns where a table at `at` stands after `frame` (rules 1.3).
fn follow(at: Position, frame: &Frame) -> Result<Position, ReadSnapshotError> {
    let header = &frame.header;
    let epoch_fits = match header.kind {
        FrameKind::Changes => header.epoch == at.epoch,
        FrameKind::Epoch => header.epoch.counter > at.epoch.counter,
    };
    if !epoch_fits || (header.from, header.root_before) != (at.level, at.root) {
        let what = "a frame does not follow the one before it";
        return Err(ReadSnapshotError::Contradicts { what });
    }
    Ok(header.after())
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
