//! The fixed parts of a snapshot as bytes: header, head of a chunk, end; it reads and writes no file.

use std::fmt;

use locus_proto::{DecodeError, Decoder, Encoder, MasterTime, NodeName, Position};

/// Version of the format; a reader refuses any other.
pub const VERSION: u32 = 1;
/// Most bytes of a chunk's payload: what a reader takes into memory at a time.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;

const MAGIC: [u8; 8] = *b"LOCUSNAP";
/// Magic, version and length.
pub(super) const PREFIX_BYTES: usize = 16;
/// Most bytes of the header behind its prefix; with the longest name it has 130.
pub(super) const HEADER_BYTES_MAX: usize = 256;
pub(super) const CHECKSUM_BYTES: usize = 4;
/// Kind and length.
pub(super) const HEAD_BYTES: usize = 8;
const END_PAYLOAD_BYTES: usize = 104;
/// Bytes of the whole last chunk.
pub(super) const END_BYTES: usize = HEAD_BYTES + END_PAYLOAD_BYTES + CHECKSUM_BYTES;
/// Bytes of a record beside key and value.
pub(crate) const RECORD_HEAD_BYTES: usize = 14;

/// What stands at the beginning of a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The cluster whose data it is.
    pub cluster: NodeName,
    /// Secret of the cluster's tables.
    pub table_key: [u8; 16],
    /// Where the table stood before the first record was read.
    pub position: Position,
    /// Records in the table then.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Service time then.
    pub time: MasterTime,
    /// Service time until which the table was complete.
    pub complete_until: MasterTime,
}

impl Header {
    /// Returns the whole header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEADER_BYTES_MAX);
        let mut out = Encoder::new(&mut body);
        out.short_bytes(self.cluster.as_str().as_bytes())
            .bytes(&self.table_key);
        self.position.encode(&mut out);
        out.u64(self.records).u64(self.bytes);
        out.u64(self.time.0).u64(self.complete_until.0);
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len() + CHECKSUM_BYTES);
        Encoder::new(&mut bytes)
            .bytes(&MAGIC)
            .u32(VERSION)
            .len32(body.len())
            .bytes(&body);
        let checksum = crc32c::crc32c(&bytes);
        Encoder::new(&mut bytes).u32(checksum);
        bytes
    }

    /// Returns how many bytes follow a header's prefix, checksum included.
    pub(super) fn rest_of(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, FormatError> {
        let mut from = Decoder::new(prefix);
        if from.array("magic")? != MAGIC {
            return Err(FormatError::Magic);
        }
        let found = from.u32("version")?;
        if found != VERSION {
            return Err(FormatError::Version { found });
        }
        let len = usize::try_from(from.u32("header length")?).unwrap_or(usize::MAX);
        if len > HEADER_BYTES_MAX {
            let max = HEADER_BYTES_MAX;
            let what = "header";
            return Err(DecodeError::TooLong { what, len, max }.into());
        }
        Ok(len + CHECKSUM_BYTES)
    }

    /// Reads a header of which `bytes` are all; returns it and its checksum.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), FormatError> {
        let what = "header";
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(FormatError::Checksum { what });
        };
        let checksum = u32::from_le_bytes(*checksum);
        if crc32c::crc32c(body) != checksum {
            return Err(FormatError::Checksum { what });
        }
        let mut from = Decoder::new(body);
        from.bytes(what, PREFIX_BYTES)?;
        let cluster = from.short_text("cluster", HEADER_BYTES_MAX)?;
        let header = Self {
            cluster: cluster
                .parse()
                .map_err(|_| DecodeError::Malformed { what: "cluster" })?,
            table_key: from.array("table key")?,
            position: Position::decode(&mut from)?,
            records: from.u64("records")?,
            bytes: from.u64("bytes")?,
            time: MasterTime(from.u64("time")?),
            complete_until: MasterTime(from.u64("complete until")?),
        };
        from.end()?;
        Ok((header, checksum))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header") // without the key, which is a secret
            .field("cluster", &self.cluster)
            .field("position", &self.position)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// What stands at the end of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Where a table stands that was loaded from it.
    pub position: Position,
    /// Records in it.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Service time then.
    pub time: MasterTime,
    /// Service time until which the table was complete.
    pub complete_until: MasterTime,
}

/// What the end says of all that stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// Chunks; the number of the last one.
    pub chunks: u64,
    /// Records in them.
    pub records: u64,
    /// Frames in them.
    pub frames: u64,
}

impl End {
    /// Appends the payload of the last chunk.
    pub(super) fn encode(&self, totals: Totals, out: &mut Vec<u8>) {
        let mut out = Encoder::new(out);
        out.u64(totals.chunks)
            .u64(totals.records)
            .u64(totals.frames);
        self.position.encode(&mut out);
        out.u64(self.records).u64(self.bytes);
        out.u64(self.time.0).u64(self.complete_until.0);
    }

    /// Reads the last chunk of the snapshot whose header has the checksum `seed`.
    pub(super) fn decode(
        seed: u32,
        chunk: &[u8; END_BYTES],
    ) -> Result<(Self, Totals), FormatError> {
        let (head, body) = chunk.split_at(HEAD_BYTES);
        let (payload, checksum) = body.split_at(END_PAYLOAD_BYTES);
        let Head { kind, len } = Head::decode(head)?;
        let what = "end";
        if kind != Kind::End || len != END_PAYLOAD_BYTES {
            return Err(DecodeError::Malformed { what }.into());
        }
        let mut from = Decoder::new(payload);
        let totals = Totals {
            chunks: from.u64("chunks")?,
            records: from.u64("records")?,
            frames: from.u64("frames")?,
        };
        if Decoder::new(checksum).u32("checksum")?
            != chunk_checksum(seed, totals.chunks, head, payload)
        {
            return Err(FormatError::Checksum { what });
        }
        let end = Self {
            position: Position::decode(&mut from)?,
            records: from.u64("records")?,
            bytes: from.u64("bytes")?,
            time: MasterTime(from.u64("time")?),
            complete_until: MasterTime(from.u64("complete until")?),
        };
        from.end()?;
        Ok((end, totals))
    }
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records.
    Records,
    /// Frames.
    Frames,
    /// The end.
    End,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Self::Records => 1,
            Self::Frames => 2,
            Self::End => 3,
        }
    }
}

/// What stands before a chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    /// Bytes of the payload.
    pub len: usize,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD_BYTES] {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[4..].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Decoder::new(bytes);
        let code = from.u32("chunk kind")?;
        let kind = [Kind::Records, Kind::Frames, Kind::End]
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "chunk kind",
                value: code.into(),
            })?;
        let len = usize::try_from(from.u32("chunk length")?).unwrap_or(usize::MAX);
        if len > CHUNK_BYTES_MAX {
            let (what, max) = ("chunk", CHUNK_BYTES_MAX);
            return Err(DecodeError::TooLong { what, len, max }.into());
        }
        Ok(Self { kind, len })
    }
}

/// Returns the checksum of chunk `number` of the snapshot whose header has the checksum `seed`.
pub(super) fn chunk_checksum(seed: u32, number: u64, head: &[u8], payload: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, head), payload)
}

/// Why bytes are no part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// It is no snapshot.
    #[error("it is no snapshot")]
    Magic,
    /// A format that this build does not read; refused, never guessed.
    #[error("it has format {found}, this build reads format {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Bytes are not those that were written.
    #[error("the checksum of its {what} is wrong")]
    Checksum {
        /// Of which part.
        what: &'static str,
    },
    /// A part that is none, although its checksum is right or not reached.
    #[error("a part of it is malformed")]
    Malformed(#[from] DecodeError),
}
