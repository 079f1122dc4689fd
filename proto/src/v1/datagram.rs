//! LRM: the datagrams between a master and its multicast group; it seals, opens and sends none.
//!
//! Each datagram is a header in the clear and a sealed payload. The header is the seal's associated data:
//! a changed bit of it opens nothing. What stands in the payload is in [`frame`] and [`control`].

mod control;
mod frame;

pub use control::{Confirm, Gone, GroupBeat, GroupStatus, Nack, RANGES_MAX, SeqRange};
pub use frame::{GROUP_FRAME_BYTES_MAX, GROUP_FRAME_CONTEXT, GroupFrame, SIGNATURE_BYTES};

use crate::{DecodeError, Decoder, NodeId};

/// First two bytes of each datagram: `LM`.
pub const DATAGRAM_MAGIC: u16 = u16::from_le_bytes(*b"LM");
/// The version of the datagrams' layout.
pub const DATAGRAM_VERSION: u8 = 1;
/// Longest datagram in bytes, and what a sender makes unless configured otherwise: with the headers of
/// IPv6 and UDP it fits an Ethernet frame, even behind a tunnel's header.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;
/// Shortest limit that may be configured: what every IPv6 link carries, less the headers (RFC 8200 §5).
pub const DATAGRAM_BYTES_MIN: usize = 1_232;
/// Bytes of the header.
pub const DATAGRAM_HEADER_BYTES: usize = 32;
/// Bytes of the seal's tag, behind the payload.
pub const SEAL_BYTES: usize = 16;

/// What a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// Master → group: a piece of a distribution frame.
    Data,
    /// Master → group: how far the stream is.
    Beat,
    /// Master → group: these are asked for already.
    Confirm,
    /// Master → group: older ones are not kept any more.
    Gone,
    /// Node → master: these are missing.
    Nack,
    /// Node → master: how far the node is.
    Status,
}

impl DatagramKind {
    /// All kinds, in the order of their codes. Code 7 is kept for parity.
    pub const ALL: [Self; 6] = [
        Self::Data,
        Self::Beat,
        Self::Confirm,
        Self::Gone,
        Self::Nack,
        Self::Status,
    ];

    /// Returns the code on the wire, 1 to 6.
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Beat => 2,
            Self::Confirm => 3,
            Self::Gone => 4,
            Self::Nack => 5,
            Self::Status => 6,
        }
    }

    /// Returns whether the master sends it; nodes send the others.
    pub fn is_of_master(self) -> bool {
        match self {
            Self::Data | Self::Beat | Self::Confirm | Self::Gone => true,
            Self::Nack | Self::Status => false,
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "datagram kind",
                value: code.into(),
            })
    }
}

/// Where a DATA datagram stands in its distribution frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FragmentFlags {
    /// A distribution frame begins with it.
    pub first: bool,
    /// A distribution frame ends with it.
    pub last: bool,
}

impl FragmentFlags {
    /// Flags of a datagram that is no fragment.
    pub const NONE: Self = Self {
        first: false,
        last: false,
    };

    fn code(self) -> u8 {
        u8::from(self.first) | u8::from(self.last) << 1
    }
}

/// The first [`DATAGRAM_HEADER_BYTES`] bytes of each datagram, in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramHeader {
    /// What it is for.
    pub kind: DatagramKind,
    /// Number of the group key it is sealed under; 0 in what a node sends, which has one key of its own.
    pub key: u8,
    /// Of DATA; otherwise none.
    pub flags: FragmentFlags,
    /// Who sends: 0 the master, else the node's number.
    pub node: NodeId,
    /// Life of the sender.
    pub stream: u64,
    /// Number of the datagram among those of its kind, sender and stream, from 1.
    pub seq: u64,
    /// Of what the master sends: the oldest DATA that it still repeats; of what a node sends: the first DATA
    /// that it lacks, so that it has all below.
    pub low: u64,
}

impl DatagramHeader {
    /// Returns the header's bytes.
    ///
    /// ```text
    /// 0  magic u16 "LM" | 2  version u8 (1) | 3  kind u8 | 4  key id u8 | 5  flags u8 (1 first, 2 last)
    /// 6  node u16 | 8  stream u64 | 16  seq u64 | 24  low u64
    /// ```
    pub fn encode(&self) -> [u8; DATAGRAM_HEADER_BYTES] {
        let mut out = [0; DATAGRAM_HEADER_BYTES];
        out[..2].copy_from_slice(&DATAGRAM_MAGIC.to_le_bytes());
        out[2] = DATAGRAM_VERSION;
        out[3] = self.kind.code();
        out[4] = self.key;
        out[5] = self.flags.code();
        out[6..8].copy_from_slice(&self.node.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.stream.to_le_bytes());
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
        out[24..].copy_from_slice(&self.low.to_le_bytes());
        out
    }

    /// Reads the header at the front of `datagram`; what follows it is not looked at.
    ///
    /// # Errors
    /// Another magic or version, an unknown kind or flag, flags where there is no fragment, a node where
    /// the master sends or none where a node sends, a sequence number 0, truncation.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(datagram);
        let magic = from.u16("datagram magic")?;
        if magic != DATAGRAM_MAGIC {
            return Err(DecodeError::Magic(magic.into()));
        }
        let found = from.u8("datagram version")?;
        if found != DATAGRAM_VERSION {
            return Err(DecodeError::Version {
                found,
                spoken: DATAGRAM_VERSION,
            });
        }
        let kind = DatagramKind::from_code(from.u8("datagram kind")?)?;
        let key = from.u8("key id")?;
        let flags = match (kind, from.u8("datagram flags")?) {
            (DatagramKind::Data, flags @ 0..=3) => FragmentFlags {
                first: flags & 1 != 0,
                last: flags & 2 != 0,
            },
            (_, 0) => FragmentFlags::NONE,
            (_, flags) => {
                return Err(DecodeError::Unknown {
                    what: "datagram flags",
                    value: flags.into(),
                });
            }
        };
        let node = NodeId(from.u16("node")?);
        if kind.is_of_master() != (node.0 == 0) {
            return Err(DecodeError::Malformed { what: "node" });
        }
        let stream = from.u64("stream")?;
        let seq = from.u64("sequence number")?;
        if seq == 0 {
            return Err(DecodeError::Malformed {
                what: "sequence number",
            });
        }
        let low = from.u64("low sequence number")?;
        Ok(Self {
            kind,
            key,
            flags,
            node,
            stream,
            seq,
            low,
        })
    }

    /// Returns the header of a whole datagram and the sealed payload behind it, tag included.
    ///
    /// # Errors
    /// As [`Self::decode`]; a payload without a tag; more than [`DATAGRAM_BYTES_MAX`] bytes.
    pub fn split(datagram: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let len = datagram.len();
        if len > DATAGRAM_BYTES_MAX {
            return Err(DecodeError::TooLong {
                what: "datagram",
                len,
                max: DATAGRAM_BYTES_MAX,
            });
        }
        let header = Self::decode(datagram)?;
        let sealed = &datagram[DATAGRAM_HEADER_BYTES..];
        if sealed.len() < SEAL_BYTES {
            return Err(DecodeError::Truncated {
                what: "seal",
                need: SEAL_BYTES,
                have: sealed.len(),
            });
        }
        Ok((header, sealed))
    }

    /// Returns the nonce under which the payload is sealed: `kind u8, node u16, 0 u8, seq u64`.
    ///
    /// One key never sees it twice: a stream has one key per id, kind and node name the sender's sequence,
    /// and what is sent again is the same bytes.
    pub fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = self.kind.code();
        nonce[1..3].copy_from_slice(&self.node.0.to_le_bytes());
        nonce[4..].copy_from_slice(&self.seq.to_le_bytes());
        nonce
    }
}
