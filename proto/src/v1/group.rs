//! How a node comes into the multicast group and out of it, said over its own connection; it sends no
//! datagram.
//!
//! The keys in these messages are secrets: they cross a connection that is sealed and authenticated, and
//! no `Debug` shows them. A recording holds them as it holds the table key, and is kept like a key file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder, Position};

/// Bytes of a group key, of a node's own key and of the key that verifies signatures.
pub const GROUP_KEY_BYTES: usize = 32;

/// One key under which the sender seals its datagrams.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupKey {
    /// Life of the sender: another life, other keys.
    pub stream: u64,
    /// Number of the key, in each datagram's header.
    pub id: u8,
    /// Key of AES-256-GCM.
    pub secret: [u8; GROUP_KEY_BYTES],
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupKey")
            .field("stream", &format_args!("{:016x}", self.stream))
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl GroupKey {
    /// Appends `stream u64, id u8`, 32 bytes.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream).u8(self.id).bytes(&self.secret);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            stream: from.u64("stream")?,
            id: from.u8("key id")?,
            secret: from.array("group key")?,
        })
    }
}

/// The master offers the group: where it is, and what opens it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffer {
    /// Life of the sender.
    pub stream: u64,
    /// Multicast address and port of the group.
    pub group: SocketAddr,
    /// UDP port of the master's own address that takes this node's datagrams.
    pub reply_port: u16,
    /// The key now in use; its `stream` is the offer's.
    pub key: GroupKey,
    /// Key between master and this node alone: seals its NACK and STATUS datagrams.
    pub node_key: [u8; GROUP_KEY_BYTES],
    /// Ed25519 key that verifies the master's signature over each distribution frame.
    pub verify_key: [u8; GROUP_KEY_BYTES],
}

impl fmt::Debug for GroupOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOffer")
            .field("stream", &format_args!("{:016x}", self.stream))
            .field("group", &self.group)
            .field("reply_port", &self.reply_port)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl GroupOffer {
    /// Appends `stream u64`, group, `reply port u16, key id u8`, group key, node key, verify key.
    ///
    /// The group is `family u8` (4 or 6), `port u16`, and 4 or 16 bytes of address in network order.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream);
        match self.group.ip() {
            IpAddr::V4(address) => out.u8(4).u16(self.group.port()).bytes(&address.octets()),
            IpAddr::V6(address) => out.u8(6).u16(self.group.port()).bytes(&address.octets()),
        };
        out.u16(self.reply_port)
            .u8(self.key.id)
            .bytes(&self.key.secret)
            .bytes(&self.node_key)
            .bytes(&self.verify_key);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An address that is no multicast group, a port 0, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let stream = from.u64("stream")?;
        let group = decode_group(from)?;
        let reply_port = from.u16("reply port")?;
        if reply_port == 0 {
            return Err(DecodeError::Malformed { what: "reply port" });
        }
        Ok(Self {
            stream,
            group,
            reply_port,
            key: GroupKey {
                stream,
                id: from.u8("key id")?,
                secret: from.array("group key")?,
            },
            node_key: from.array("node key")?,
            verify_key: from.array("verify key")?,
        })
    }
}

fn decode_group(from: &mut Decoder<'_>) -> Result<SocketAddr, DecodeError> {
    let family = from.u8("address family")?;
    let port = from.u16("group port")?;
    let address = match family {
        4 => IpAddr::from(Ipv4Addr::from(from.array("group address")?)),
        6 => IpAddr::from(Ipv6Addr::from(from.array::<16>("group address")?)),
        family => {
            return Err(DecodeError::Unknown {
                what: "address family",
                value: family.into(),
            });
        }
    };
    if !address.is_multicast() || port == 0 {
        return Err(DecodeError::Malformed {
            what: "group address",
        });
    }
    Ok(SocketAddr::new(address, port))
}

/// The node hears the group and opens its datagrams with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHeard {
    /// Life of the sender it hears.
    pub stream: u64,
    /// Number of the key it holds.
    pub key: u8,
}

impl GroupHeard {
    /// Appends `stream u64, key id u8`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream).u8(self.key);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            stream: from.u64("stream")?,
            key: from.u8("key id")?,
        })
    }
}

/// The last message of the node's own stream: from here on it comes by the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCut {
    /// Life of the sender.
    pub stream: u64,
    /// First datagram whose messages the node takes; a distribution frame begins with it.
    pub seq: u64,
}

impl GroupCut {
    /// Appends `stream u64, seq u64`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream).u64(self.seq);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// A sequence number 0, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let stream = from.u64("stream")?;
        let seq = from.u64("sequence number")?;
        if seq == 0 {
            return Err(DecodeError::Malformed {
                what: "sequence number",
            });
        }
        Ok(Self { stream, seq })
    }
}

/// Why the master takes a node out of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum GroupEndReason {
    /// It got nothing done for half a second and would hold up the others.
    #[error("lagging")]
    Lagging,
    /// It did not say in time that it holds the new key.
    #[error("rotated without it")]
    Rotated,
    /// The group is no longer wanted.
    #[error("no longer wanted")]
    Unicast,
}

impl GroupEndReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Lagging, Self::Rotated, Self::Unicast];

    fn code(self) -> u8 {
        match self {
            Self::Lagging => 1,
            Self::Rotated => 2,
            Self::Unicast => 3,
        }
    }
}

/// The master takes a node out of the group; the node answers [`GroupLeft`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEnd {
    /// Life of the sender.
    pub stream: u64,
    /// Why.
    pub reason: GroupEndReason,
}

impl GroupEnd {
    /// Appends `stream u64, reason u8`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream).u8(self.reason.code());
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown reason, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let stream = from.u64("stream")?;
        let code = from.u8("end reason")?;
        let reason = GroupEndReason::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "end reason",
                value: code.into(),
            })?;
        Ok(Self { stream, reason })
    }
}

/// Why a node is not in the group any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum GroupLeftReason {
    /// It heard no authenticated beat, or no progress, for too long though the connection lives.
    #[error("the group is silent")]
    Silent,
    /// What it misses is no longer kept for repair.
    #[error("the repair is gone")]
    Gone,
    /// More came than it holds.
    #[error("overrun")]
    Overrun,
    /// A distribution frame bore no valid signature, or did not hold what it must.
    #[error("a frame was not to be trusted")]
    Mistrusted,
    /// The master asked for it.
    #[error("asked to")]
    Asked,
    /// It cannot join: the socket cannot be made, or the group is not wanted.
    #[error("cannot join")]
    Unable,
}

impl GroupLeftReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Silent,
        Self::Gone,
        Self::Overrun,
        Self::Mistrusted,
        Self::Asked,
        Self::Unable,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Silent => 1,
            Self::Gone => 2,
            Self::Overrun => 3,
            Self::Mistrusted => 4,
            Self::Asked => 5,
            Self::Unable => 6,
        }
    }
}

/// The node is out of the group; the master goes on over the connection from this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLeft {
    /// Life of the sender.
    pub stream: u64,
    /// Why.
    pub reason: GroupLeftReason,
    /// Where its table stands; nothing of the group is applied behind it.
    pub position: Position,
}

impl GroupLeft {
    /// Appends `stream u64, reason u8`, position.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.stream).u8(self.reason.code());
        self.position.encode(out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown reason, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let stream = from.u64("stream")?;
        let code = from.u8("left reason")?;
        let reason = GroupLeftReason::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "left reason",
                value: code.into(),
            })?;
        Ok(Self {
            stream,
            reason,
            position: Position::decode(from)?,
        })
    }
}
