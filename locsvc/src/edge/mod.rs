//! Sockets on one side, channels to the core on the other; it decides nothing about records.
//!
//! * `unicast`: connections of the nodes' agents, over TCP and the bus;
//! * `multicast`: the group's socket;
//! * `security`: who the others are, and that this is read again;
//! * `handshakes`: places for those who have not said so yet;
//! * `api`: the HTTP API, which asks the core through an [`ApiPort`];
//! * `port`: that port, a bounded channel and a table of waiting replies.

mod api;
mod handshakes;
mod multicast;
mod port;
mod security;
mod unicast;

#[cfg(test)]
pub(crate) mod authority;

pub use api::{Api, ApiCounters, StartApiError};
pub use multicast::{GroupSocket, Multicast, MulticastCounters, StartMulticastError};
pub use port::{ApiPort, ApiReplies, Arrival, Inbox};
pub use security::Security;
pub(crate) use security::Watch;
pub use unicast::{StartUnicastError, Unicast, UnicastCounters};
