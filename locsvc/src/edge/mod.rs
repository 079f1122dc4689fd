//! Sockets on one side, channels to the core on the other; it decides nothing about records.
//!
//! * `unicast`: TCP connections of the nodes' agents;
//! * `api`: the HTTP API, which asks the core through an [`ApiPort`];
//! * `port`: that port, a bounded channel and a table of waiting replies.

mod api;
mod port;
mod unicast;

pub use api::{Api, ApiCounters, StartApiError};
pub use port::{ApiPort, ApiReplies, Arrival, Inbox};
pub use unicast::{StartUnicastError, Unicast, UnicastCounters};
