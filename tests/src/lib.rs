//! The lab: real processes in network namespaces, driven as a story and always cleaned up.
//! Refuses to know how any part of Locus works inside; it sees what an operator and a phone see.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed lab step fails the test, and a story is told on the terminal"
)]

mod api;
mod callee;
mod cluster;
mod compare;
mod figures;
mod kamailio;
mod lab;
mod locsvc;
mod mount;
mod netns;
mod node;
mod process;
mod settings;
mod sip;
mod sipp;
mod subscribers;
mod view;
mod visibility;
pub mod wait;

pub use api::{Answer as ApiAnswer, Api};
pub use callee::{Callee, Manner};
pub use cluster::{Cluster, FOLLOW_DEADLINE};
pub use compare::{Comparison, compare};
pub use figures::{Durations, Figure, milliseconds, write_figures};
pub use kamailio::{Kamailio, Plan};
pub use lab::{Lab, needs, products, root, scenario};
pub use locsvc::{Locsvc, provisioned_aor};
pub use mount::Tmpfs;
pub use netns::{Namespace, Network};
pub use node::Node;
pub use process::Process;
pub use settings::Settings;
pub use sip::{Answer, DOMAIN, PROXY_PORT, Phone, REDIRECT_PORT, password};
pub use sipp::{Load, Outcome, Sipp, Tally};
pub use subscribers::{
    ANSWERING_POINT_PORT, ANSWERING_PORT, RINGING_PORTS, Subscriber, write_credentials,
};
pub use view::{Dump, View};
pub use visibility::{Seen, Watcher};
