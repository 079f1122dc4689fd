//! The lab: real processes in network namespaces, driven as a story and always cleaned up.
//! Refuses to know how any part of Locus works inside; it sees what an operator and a phone see.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed lab step fails the test, and a story is told on the terminal"
)]

mod agent;
mod api;
mod authority;
mod board;
mod callee;
mod calls;
mod chassis;
mod churn;
mod cluster;
mod compare;
mod eavesdropper;
mod faults;
mod figures;
mod fleet;
mod kamailio;
mod lab;
mod locsvc;
mod mount;
mod netns;
mod node;
mod operator;
mod process;
mod settings;
mod sip;
mod sipp;
mod subscribers;
mod view;
mod visibility;
pub mod wait;

pub use agent::Agent;
pub use api::{Answer as ApiAnswer, Api};
pub use authority::Authority;
pub use board::Board;
pub use callee::{Callee, Manner};
pub use calls::Telephones;
pub use chassis::{Bus, Chassis};
pub use churn::{Churn, Churned};
pub use cluster::{Cluster, FOLLOW_DEADLINE};
pub use compare::{Comparison, compare};
pub use eavesdropper::{Eavesdropper, Heard};
pub use faults::Traffic;
pub use figures::{Durations, Figure, milliseconds, write_figures};
pub use fleet::{Fleet, PATH_DEADLINE};
pub use kamailio::{Kamailio, Plan};
pub use lab::{Lab, needs, products, products_v2, root, scenario};
pub use locsvc::{GROUP, GROUP_PORT, GROUP6, Locsvc, count, provisioned_aor};
pub use mount::Tmpfs;
pub use netns::{Namespace, Network};
pub use node::Node;
pub use operator::{Operator, Told};
pub use process::Process;
pub use settings::Settings;
pub use sip::{Answer, DOMAIN, PROXY_PORT, Phone, REDIRECT_PORT, password};
pub use sipp::{Load, Outcome, Sipp, Tally};
pub use subscribers::{
    ANSWERING_POINT_PORT, ANSWERING_PORT, RINGING_PORTS, Subscriber, write_credentials,
};
pub use view::{Dump, View};
pub use visibility::{Seen, Watcher};
