//! The first words between a node and its master; they move no data.

use serde::{Deserialize, Serialize};

use crate::{
    BootId, DecodeError, Decoder, Encoder, FIELD_BYTES_MAX, Lineage, MasterTime, NodeId, NodeName,
    Position, ReloadReason, Transport, WireVersion,
};

/// A node presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Cluster it means to join.
    pub cluster: NodeName,
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Life of the agent.
    pub boot: BootId,
    /// SIP URI at which other nodes reach it, or empty.
    pub sip: String,
    /// Newest wire version it speaks; it speaks all older ones too.
    pub newest: u8,
    /// Which way it wishes the changes to come.
    pub transport: Transport,
    /// Where its table stands; `None` if it has none.
    pub position: Option<Position>,
}

impl Hello {
    /// Appends `cluster, name, sip` as short texts, `node u16, boot u64, newest u8,
    /// transport u8, has position u8`, position.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        for text in [self.cluster.as_str(), self.name.as_str(), &self.sip] {
            out.short_bytes(text.as_bytes());
        }
        out.u16(self.node.0)
            .u64(self.boot.0)
            .u8(self.newest)
            .u8(self.transport.code())
            .u8(self.position.is_some().into());
        if let Some(position) = &self.position {
            position.encode(out);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Malformed names, fields above their limits, a speaker of no version, an unknown transport,
    /// truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let cluster = name(from, "cluster")?;
        let node_name = name(from, "node name")?;
        let sip = from.short_text("sip address", FIELD_BYTES_MAX)?.to_owned();
        let node = NodeId(from.u16("node")?);
        let boot = BootId(from.u64("boot")?);
        let newest = from.u8("newest version")?;
        if newest < WireVersion::V1.get() {
            return Err(DecodeError::Malformed {
                what: "newest version",
            });
        }
        let transport = Transport::from_code(from.u8("transport")?)?;
        let position = match from.u8("has position")? {
            0 => None,
            1 => Some(Position::decode(from)?),
            v => {
                return Err(DecodeError::Unknown {
                    what: "has position",
                    value: v.into(),
                });
            }
        };
        Ok(Self {
            cluster,
            node,
            name: node_name,
            boot,
            sip,
            newest,
            transport,
            position,
        })
    }
}

fn name(from: &mut Decoder<'_>, what: &'static str) -> Result<NodeName, DecodeError> {
    let text = from.short_text(what, NodeName::BYTES_MAX)?;
    text.parse().map_err(|_| DecodeError::Malformed { what })
}

/// The master takes the node in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// What both speak from now on.
    pub version: WireVersion,
    /// Epochs of the log.
    pub lineage: Lineage,
    /// The end of the log.
    pub head: Position,
    /// Service time.
    pub time: MasterTime,
    /// Secret of the cluster's tables: seeds index and record hashes.
    pub table_key: [u8; 16],
    /// What follows.
    pub plan: Plan,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret: whoever knows it can choose records that collide.
        f.debug_struct("Welcome")
            .field("version", &self.version)
            .field("lineage", &self.lineage)
            .field("head", &self.head)
            .field("time", &self.time)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// How a node is brought to the master's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// The frames after its level follow.
    Continue,
    /// A snapshot and the frames after it follow.
    Reload(ReloadReason),
}

impl Plan {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Continue => 0,
            Self::Reload(reason) => reason.code(),
        }
    }
}

impl Welcome {
    /// Appends `version u8, plan u8` (0 continue, else the reload reason), `time u64`, key, head, lineage.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u8(self.version.get())
            .u8(self.plan.code())
            .u64(self.time.0)
            .bytes(&self.table_key);
        self.head.encode(out);
        self.lineage.encode(out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// A version that is not spoken here, an unknown plan, a malformed lineage, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let version = WireVersion::try_from(from.u8("agreed version")?)?;
        let plan = match from.u8("plan")? {
            0 => Plan::Continue,
            reason => Plan::Reload(ReloadReason::from_code(reason)?),
        };
        Ok(Self {
            version,
            plan,
            time: MasterTime(from.u64("time")?),
            table_key: from.array("table key")?,
            head: Position::decode(from)?,
            lineage: Lineage::decode(from)?,
        })
    }
}

/// The master sends the node away; the connection closes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Why, for an operator to read.
    pub reason: String,
}

impl Rejection {
    /// Appends the reason as a short text, cut at [`FIELD_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        let mut end = self.reason.len().min(FIELD_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        out.short_bytes(&self.reason.as_bytes()[..end]);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Too long, not UTF-8, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            reason: from.short_text("reason", FIELD_BYTES_MAX)?.to_owned(),
        })
    }
}
