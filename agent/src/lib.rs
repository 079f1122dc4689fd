//! The node daemon: follows the master, owns the node's table, hands registrations on.
//!
//! It refuses to know Kamailio's C, storage engines and other nodes' tables. If it dies, Kamailio goes on
//! answering from the table as it is.
//!
//! * [`Config`]: what `agent.toml` says;
//! * [`Core`]: decides, without I/O; [`replay`] feeds it a recording;
//! * [`MappedFolder`], [`OwnedFolder`]: the table's files, mapped to read, and by their one owner;
//! * [`run`]: all of it, until SIGTERM; [`check`]: whether it could.

mod clock;
mod config;
mod core;
mod edge;
mod event;
mod node;
mod outage;
mod random;
mod record;
mod snapshot;

pub use config::{
    BUSES_MAX, Config, ConfigError, INTERFACE_BYTES_MAX, MASTERS_MAX, RECORDS_MAX, SCRUB_MINUTES,
    SOCKET_PATH_BYTES_MAX,
};
pub use core::{
    Address, Client, Connection, Core, Ends, Input, Membership, Order, PENDING_MAX, PROBE_EVERY,
    PROBE_EVERY_MAX, PROVED_AFTER, RegistrationCounters, SAID_MAX, Start, Summary, Transmit,
};
pub use edge::{
    BindSocketError, CONNECT_TIMEOUT, DATAGRAM_BYTES_MAX, DATAGRAMS_MAX, EXPIRY_WARNING,
    HANDSHAKE_TIMEOUT, IDENTITY_EVERY, INPUTS_MAX, IdentityError, LockFolderError, MappedFolder,
    Mapping, OUTGOING_MAX, OwnedFolder, PULSE_EVERY, RECEIVE_BUFFER_BYTES, RunError, WRITE_TIMEOUT,
    check, run,
};
pub use event::{COMPLAINT_EVERY, Event, with_causes};
pub use node::{GROWTH_RETRY, OpenNodeError, SLICE_BYTES};
pub use outage::{CONFIRMED_S_MAX, CONFIRMED_S_MIN};
pub use record::{Recorder, ReplayError, replay};
pub use snapshot::{
    CHUNK_BYTES_MAX as SNAPSHOT_CHUNK_BYTES_MAX, QUEUE_BYTES_MAX as SNAPSHOT_QUEUE_BYTES_MAX,
    QUEUE_FRAMES_MAX as SNAPSHOT_QUEUE_FRAMES_MAX, VERSION as SNAPSHOT_VERSION,
};
