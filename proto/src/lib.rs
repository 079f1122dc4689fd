//! Records, levels and bytes that every part of Locus speaks: what is stored, and what crosses a wire or a log.
//!
//! It refuses to know sockets, clocks, tables, storage and Kamailio.
//!
//! * [`AddressOfRecord`], [`Binding`], [`Digits`], [`Route`]: what is provisioned and looked up;
//! * [`Level`], [`Epoch`], [`Position`], [`Lineage`]: where a replica stands;
//! * [`Change`], [`Frame`]: one batch of changes, the payload of the log and of the wire;
//! * [`Message`], [`Deframer`], [`v1::DatagramHeader`]: the wire, specified in this crate's README.
#![forbid(unsafe_code)]

mod address;
mod binding;
mod codec;
mod digits;
mod error;
mod frame;
mod key;
mod level;
mod lineage;
mod node;
mod registration;
mod route;
mod status;
mod time;
mod transport;
pub mod v1;

pub use address::{AOR_BYTES_MAX, AddressOfRecord, ParseAorError};
pub use binding::{
    AorRecord, BINDINGS_MAX, Binding, BindingRef, BindingRefs, FIELD_BYTES_MAX, Methods, Owner,
    ParseQError, Q, URI_BYTES_MAX,
};
pub use codec::{Decoder, Encoder};
pub use digits::{DIGITS_MAX, Digits, ParseDigitsError};
pub use error::DecodeError;
pub use frame::{
    Change, ChangeOp, FRAME_BYTES_MAX, FRAME_CHANGES_MAX, Frame, FrameHeader, FrameKind,
    VALUE_BYTES_MAX,
};
pub use key::{KEY_BYTES_MAX, Key, KeyKind};
pub use level::{Epoch, EpochId, Level, Position, Root};
pub use lineage::{LINEAGE_MAX, Lineage, LineageEntry, LineageError, ReloadReason, Verdict};
pub use node::{BootId, NodeId, NodeName, ParseNodeNameError};
pub use registration::{
    Asked, CONTACTS_MAX, ContactChange, Refusal, Registration, RegistrationReply,
};
pub use route::{Route, RouteRef, TARGETS_MAX, Target, TargetRef, TargetRefs};
pub use status::{GroupHealth, NodeState, NodeStatus, TableHealth};
pub use time::{MasterTime, Timestamp};
pub use transport::Transport;
pub use v1::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, Deframer, Message, WireVersion};
