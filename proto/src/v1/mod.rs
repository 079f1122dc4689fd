//! The wire: the envelope, the messages, the datagrams of a group, and the versions of their layouts.
//!
//! It refuses to know what carries the bytes. One message per file; each is specified in the crate's
//! README and frozen by a golden file in `tests/golden/v1`.

mod audit;
mod datagram;
mod deframer;
mod envelope;
mod group;
mod hello;
mod live;
mod snapshot;
pub(crate) mod synthetic;
mod version;

pub use audit::{
    AUDIT_RANGES_MAX, AUDIT_SUMS, AuditAsk, AuditOrder, AuditRecords, AuditRefusal, AuditReport,
    AuditScope, AuditSums, AuditVerdict,
};
pub use datagram::{
    Confirm, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_HEADER_BYTES, DATAGRAM_MAGIC,
    DATAGRAM_VERSION, DatagramHeader, DatagramKind, FragmentFlags, GROUP_FRAME_BYTES_MAX,
    GROUP_FRAME_CONTEXT, Gone, GroupBeat, GroupFrame, GroupStatus, Nack, RANGES_MAX, SEAL_BYTES,
    SIGNATURE_BYTES, SeqRange,
};
pub use deframer::Deframer;
pub use envelope::{BODY_BYTES_MAX, MAGIC};
pub use group::{
    GROUP_KEY_BYTES, GroupCut, GroupEnd, GroupEndReason, GroupHeard, GroupKey, GroupLeft,
    GroupLeftReason, GroupOffer,
};
pub use hello::{Hello, Plan, Rejection, Welcome};
pub use live::Heartbeat;
pub use snapshot::{SNAPSHOT_PART_BYTES, SnapshotBegin, SnapshotEnd, SnapshotPart};
pub use version::WireVersion;

use envelope::Envelope;
use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Encoder, Frame, NodeStatus, Registration, RegistrationReply};

/// Bytes of the envelope.
pub const ENVELOPE_BYTES: usize = 12;

/// Kind of the message that carries a frame; the log's reader makes such messages from its bytes.
const FRAME_KIND: u8 = 4;
const HEARTBEAT_KIND: u8 = 8;
const STATUS_KIND: u8 = 9;

/// Any message.
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
    /// Master → node: here is the group.
    GroupOffer(GroupOffer),
    /// Master → node: the group's next key.
    GroupKey(GroupKey),
    /// Node → master: the group is heard, this key is held.
    GroupHeard(GroupHeard),
    /// Master → node: from here on by the group.
    GroupCut(GroupCut),
    /// Master → node: out of the group.
    GroupEnd(GroupEnd),
    /// Node → master: out of the group; go on from here.
    GroupLeft(GroupLeft),
}

impl Message {
    /// Appends envelope and body in version 1.
    ///
    /// ```text
    /// 0  magic "LOCU" | 4  version u8 | 5  kind u8 | 6  flags u16 (0) | 8  body length u32 | 12  body
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_in(WireVersion::V1, out);
    }

    /// Appends envelope and body for a speaker of `version`, in the lowest version that has the layout.
    pub fn encode_in(&self, version: WireVersion, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = self.kind();
        let version = version.of_kind(kind);
        let mut encoder = Encoder::new(out);
        Envelope {
            version,
            kind,
            body_len: 0,
        }
        .encode(&mut encoder);
        self.encode_body(version, &mut encoder);
        Envelope::close(out, start);
    }

    fn encode_body(&self, version: WireVersion, encoder: &mut Encoder<'_>) {
        match self {
            Self::Hello(message) => message.encode(encoder),
            Self::Welcome(message) => message.encode(encoder),
            Self::Rejection(message) => message.encode(encoder),
            Self::Frame(frame) => frame.encode(encoder.buffer()),
            Self::SnapshotBegin(message) => message.encode(encoder),
            Self::SnapshotPart(message) => message.encode(encoder),
            Self::SnapshotEnd(message) => message.encode(encoder),
            Self::Heartbeat(message) => message.encode_in(version, encoder),
            Self::Status(status) => status.encode_in(version, encoder),
            Self::Register {
                ticket,
                registration,
            } => {
                encoder.u64(*ticket);
                registration.encode(encoder);
            }
            Self::Registered { ticket, reply } => {
                encoder.u64(*ticket);
                reply.encode(encoder);
            }
            Self::AuditAsk(message) => message.encode(encoder),
            Self::AuditSums(message) => message.encode(encoder),
            Self::AuditRecords(message) => message.encode(encoder),
            Self::AuditRefused(refusal) => refusal.encode(encoder),
            Self::AuditOrder(message) => message.encode(encoder),
            Self::AuditReport(message) => message.encode(encoder),
            Self::GroupOffer(message) => message.encode(encoder),
            Self::GroupKey(message) => message.encode(encoder),
            Self::GroupHeard(message) => message.encode(encoder),
            Self::GroupCut(message) => message.encode(encoder),
            Self::GroupEnd(message) => message.encode(encoder),
            Self::GroupLeft(message) => message.encode(encoder),
        }
    }

    /// Returns envelope and body as bytes, in version 1.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_in(WireVersion::V1)
    }

    /// Returns envelope and body as bytes for a speaker of `version`.
    pub fn to_bytes_in(&self, version: WireVersion) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_in(version, &mut out);
        out
    }

    /// Returns the message that carries `frame`, the bytes of one frame as [`Frame::encode`] wrote them:
    /// what [`Self::to_bytes`] returns for it, without decoding it.
    pub fn frame_message(frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE_BYTES + frame.len());
        let mut encoder = Encoder::new(&mut out);
        Envelope {
            version: WireVersion::V1,
            kind: FRAME_KIND,
            body_len: frame.len(),
        }
        .encode(&mut encoder);
        encoder.bytes(frame);
        out
    }

    /// Reads one message that fills `bytes`, as a datagram does.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one message of a version that is spoken here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let envelope = Envelope::decode(&mut from)?;
        let body = from.bytes("body", envelope.body_len)?;
        from.end()?;
        Self::decode_body(envelope.version, envelope.kind, body)
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
            Self::Heartbeat(_) => HEARTBEAT_KIND,
            Self::Status(_) => STATUS_KIND,
            Self::Register { .. } => 10,
            Self::Registered { .. } => 11,
            Self::AuditAsk(_) => 12,
            Self::AuditSums(_) => 13,
            Self::AuditRecords(_) => 14,
            Self::AuditRefused(_) => 15,
            Self::AuditOrder(_) => 16,
            Self::AuditReport(_) => 17,
            Self::GroupOffer(_) => 18,
            Self::GroupKey(_) => 19,
            Self::GroupHeard(_) => 20,
            Self::GroupCut(_) => 21,
            Self::GroupEnd(_) => 22,
            Self::GroupLeft(_) => 23,
        }
    }

    fn decode_body(version: WireVersion, kind: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(body);
        let message = match kind {
            1 => Self::Hello(Hello::decode(&mut from)?),
            2 => Self::Welcome(Welcome::decode(&mut from)?),
            3 => Self::Rejection(Rejection::decode(&mut from)?),
            FRAME_KIND => return Frame::decode(body).map(Self::Frame),
            5 => Self::SnapshotBegin(SnapshotBegin::decode(&mut from)?),
            6 => Self::SnapshotPart(SnapshotPart::decode(&mut from)?),
            7 => Self::SnapshotEnd(SnapshotEnd::decode(&mut from)?),
            HEARTBEAT_KIND => Self::Heartbeat(Heartbeat::decode_in(version, &mut from)?),
            STATUS_KIND => Self::Status(NodeStatus::decode_in(version, &mut from)?),
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
            18 => Self::GroupOffer(GroupOffer::decode(&mut from)?),
            19 => Self::GroupKey(GroupKey::decode(&mut from)?),
            20 => Self::GroupHeard(GroupHeard::decode(&mut from)?),
            21 => Self::GroupCut(GroupCut::decode(&mut from)?),
            22 => Self::GroupEnd(GroupEnd::decode(&mut from)?),
            23 => Self::GroupLeft(GroupLeft::decode(&mut from)?),
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
