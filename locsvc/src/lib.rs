//! The location service: accepts changes and registrations, logs them, keeps the master table, brings every
//! node up to date. It refuses to know Kamailio.
//!
//! ```text
//!  api ──Request──►┐                          ┌─Append──► log ──┐
//!                  ├─► core (sans-IO) ────────┤                 ├─► distribution ──► nodes
//!  nodes ─Register►┘    table, expiry, batch  └─ReadLog─────────┘
//! ```
//!
//! One thread owns the core ([`Core`]); edges hand it a closed set of inputs over a bounded channel and
//! take its outputs. Every input can be recorded and replayed to the same end state.
#![forbid(unsafe_code)]

mod clock;
mod config;
mod core;
mod drive;
mod edge;
mod event;
mod log;
mod master;
mod provision;
mod record;
mod run;

pub use crate::core::{
    BACKLOG_MAX, BATCH_BYTES_MAX, Core, CoreConfig, CoreCounters, EndState, Input, Output, Transmit,
};
pub use clock::Clock;
pub use config::{ApiConfig, Config, ConfigError, DistributionConfig, MulticastConfig};
pub use drive::{Drive, DriveError, Sink, chain};
pub use edge::{
    Api, ApiCounters, ApiPort, ApiReplies, Arrival, GroupSocket, Inbox, Multicast,
    MulticastCounters, Security, StartApiError, StartMulticastError, StartUnicastError, Unicast,
    UnicastCounters,
};
pub use event::{Event, Limiter, Totals, emit};
pub use log::{
    AppendError, DiskFolder, EntryError, Folder, Log, LogConfig, MemoryFile, MemoryFolder,
    OpenLogError, ReadLogError, Recovered, SegmentFile, TornTail,
};
pub use master::{
    Alive, DataFolder, MemoryFault, Meta, OpenFolderError, RecoverError, ServiceClock,
};
pub use provision::{
    AlarmView, Answer, Audited, CHANGES_MAX, EXPIRES_S_MAX, InvalidRecord, LostView, NodeAudit,
    NodeRef, NodeView, Outcome, ProvisionChange, ProvisionContact, RegistrarLimits, Request,
    RequestError,
};
pub use record::{Recorder, ReplayError, replay};
pub use run::{RunError, Service, Stopper, check};
