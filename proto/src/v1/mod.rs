//! Wire version 1: the envelope, the messages, and their order in a conversation.
//!
//! It refuses to know what carries the bytes. One message per file; each is specified in the crate's
//! README and frozen by a golden file in `tests/golden/v1`.

mod audit;
mod deframer;
mod hello;
mod live;
mod snapshot;

pub use audit::{
    AUDIT_RANGES_MAX, AUDIT_SUMS, AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport,
    AuditScope, AuditSums, AuditVerdict,
};
pub use deframer::Deframer;
pub use hello::{Hello, Plan, Rejection, Welcome};
pub use live::Heartbeat;
pub use snapshot::{SNAPSHOT_PART_BYTES, SnapshotBegin, SnapshotEnd, SnapshotPart};

use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder, Frame, NodeStatus, Registration, RegistrationReply};

/// The version that this module speaks.
pub const VERSION: u8 = 1;
/// First four bytes of each message: `LOCU`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LOCU");
/// Bytes of the envelope.
pub const ENVELOPE_BYTES: usize = 12;
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = 512 * 1024;

/// Kind of the message that carries a frame; the log's reader makes such messages from its bytes.
const FRAME_KIND: u8 = 4;

/// Any message of version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Node → master, first: who it is and where it stands.
    Hello(Hello),
    /// Master → node, answer to [`Message::Hello`]: what will follow.
    Welcome(Welcome),
    /// Master → node: goodbye, and why.
    Rejection(Rejection),
    /// Master → node: one frame of the log.
    Frame(Frame),
    /// Master → node: a whole table follows.
    SnapshotBegin(SnapshotBegin),
    /// Master → node: some of its records.
    SnapshotPart(SnapshotPart),
    /// Master → node: that was the last of them.
    SnapshotEnd(SnapshotEnd),
    /// Master → node, each half second: time and position.
    Heartbeat(Heartbeat),
    /// Node → master, each second.
    Status(NodeStatus),
    /// Node → master, and module → agent: a REGISTER.
    Register {
        /// Chosen by the asking side, returned with the answer.
        ticket: u64,
        /// The request.
        registration: Registration,
    },
    /// The answer to [`Message::Register`].
    Registered {
        /// The ticket of the request.
        ticket: u64,
        /// The answer.
        reply: RegistrationReply,
    },
    /// Node → master: what does your table hold?
    AuditAsk(AuditAsk),
    /// Master → node: sums of groups or partitions.
    AuditSums(AuditSums),
    /// Master → node: records of one partition.
    AuditRecords(AuditRecords),
    /// Master → node: no answer, and why.
    AuditRefused(AuditRefusal),
    /// Master → node: compare your memory with my table.
    AuditOrder(AuditOrder),
    /// Node → master: what an ordered audit found.
    AuditReport(AuditReport),
}

impl Message {
    /// Appends envelope and body.
    ///
    /// ```text
    /// 0  magic "LOCU" | 4  version u8 | 5  kind u8 | 6  flags u16 (0) | 8  body length u32 | 12  body
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut encoder = Encoder::new(out);
        encoder.u32(MAGIC).u8(VERSION).u8(self.kind()).u16(0).u32(0);
        match self {
            Self::Hello(message) => message.encode(&mut encoder),
            Self::Welcome(message) => message.encode(&mut encoder),
            Self::Rejection(message) => message.encode(&mut encoder),
            Self::Frame(frame) => frame.encode(out),
            Self::SnapshotBegin(message) => message.encode(&mut encoder),
            Self::SnapshotPart(message) => message.encode(&mut encoder),
            Self::SnapshotEnd(message) => message.encode(&mut encoder),
            Self::Heartbeat(message) => message.encode(&mut encoder),
            Self::Status(status) => status.encode(&mut encoder),
            Self::Register {
                ticket,
                registration,
            } => {
                encoder.u64(*ticket);
                registration.encode(&mut encoder);
            }
            Self::Registered { ticket, reply } => {
                encoder.u64(*ticket);
                reply.encode(&mut encoder);
            }
            Self::AuditAsk(message) => message.encode(&mut encoder),
            Self::AuditSums(message) => message.encode(&mut encoder),
            Self::AuditRecords(message) => message.encode(&mut encoder),
            Self::AuditRefused(refusal) => refusal.encode(&mut encoder),
            Self::AuditOrder(message) => message.encode(&mut encoder),
            Self::AuditReport(message) => message.encode(&mut encoder),
        }
        let body = u32::try_from(out.len() - start - ENVELOPE_BYTES).unwrap_or(u32::MAX);
        out[start + 8..start + ENVELOPE_BYTES].copy_from_slice(&body.to_le_bytes());
    }

    /// Returns envelope and body as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Returns the message that carries `frame`, the bytes of one frame as [`Frame::encode`] wrote them:
    /// what [`Self::to_bytes`] returns for it, without decoding it.
    pub fn frame_message(frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + frame.len());
        let len = frame.len();
        let mut encoder = Encoder::new(&mut out);
        encoder.u32(MAGIC).u8(VERSION).u8(FRAME_KIND).u16(0);
        encoder.len32(len).bytes(frame);
        out
    }

    /// Reads one message that fills `bytes`, as a datagram does.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one message of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let envelope = Envelope::decode(&mut from)?;
        let body = from.bytes("body", envelope.body_len)?;
        from.end()?;
        Self::decode_body(envelope.kind, body)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Rejection(_) => 3,
            Self::Frame(_) => FRAME_KIND,
            Self::SnapshotBegin(_) => 5,
            Self::SnapshotPart(_) => 6,
            Self::SnapshotEnd(_) => 7,
            Self::Heartbeat(_) => 8,
            Self::Status(_) => 9,
            Self::Register { .. } => 10,
            Self::Registered { .. } => 11,
            Self::AuditAsk(_) => 12,
            Self::AuditSums(_) => 13,
            Self::AuditRecords(_) => 14,
            Self::AuditRefused(_) => 15,
            Self::AuditOrder(_) => 16,
            Self::AuditReport(_) => 17,
        }
    }

    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(body);
        let message = match kind {
            1 => Self::Hello(Hello::decode(&mut from)?),
            2 => Self::Welcome(Welcome::decode(&mut from)?),
            3 => Self::Rejection(Rejection::decode(&mut from)?),
            FRAME_KIND => return Frame::decode(body).map(Self::Frame),
            5 => Self::SnapshotBegin(SnapshotBegin::decode(&mut from)?),
            6 => Self::SnapshotPart(SnapshotPart::decode(&mut from)?),
            7 => Self::SnapshotEnd(SnapshotEnd::decode(&mut from)?),
            8 => Self::Heartbeat(Heartbeat::decode(&mut from)?),
            9 => Self::Status(NodeStatus::decode(&mut from)?),
            10 => Self::Register {
                ticket: from.u64("ticket")?,
                registration: Registration::decode(&mut from)?,
            },
            11 => Self::Registered {
                ticket: from.u64("ticket")?,
                reply: RegistrationReply::decode(&mut from)?,
            },
            12 => Self::AuditAsk(AuditAsk::decode(&mut from)?),
            13 => Self::AuditSums(AuditSums::decode(&mut from)?),
            14 => Self::AuditRecords(AuditRecords::decode(&mut from)?),
            15 => Self::AuditRefused(AuditRefusal::decode(&mut from)?),
            16 => Self::AuditOrder(AuditOrder::decode(&mut from)?),
            17 => Self::AuditReport(AuditReport::decode(&mut from)?),
            other => {
                return Err(DecodeError::Unknown {
                    what: "message kind",
                    value: other.into(),
                });
            }
        };
        from.end()?;
        Ok(message)
    }
}

/// What stands before each body.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    kind: u8,
    body_len: usize,
}

impl Envelope {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let magic = from.u32("magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Magic(magic));
        }
        let found = from.u8("version")?;
        if found != VERSION {
            return Err(DecodeError::Version {
                found,
                spoken: VERSION,
            });
        }
        let kind = from.u8("kind")?;
        if from.u16("flags")? != 0 {
            return Err(DecodeError::Malformed { what: "flags" });
        }
        let body_len = usize::try_from(from.u32("body length")?).unwrap_or(usize::MAX);
        if body_len > BODY_BYTES_MAX {
            let max = BODY_BYTES_MAX;
            return Err(DecodeError::TooLong {
                what: "body",
                len: body_len,
                max,
            });
        }
        Ok(Self { kind, body_len })
    }
}
