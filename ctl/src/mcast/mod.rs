//! `locusctl mcast-test`: shows an installer whether a network carries the group for as long as it must; it asks
//! no daemon and needs none.
//!
//! One host sends numbered datagrams, ten a second; the others join the group once, never again, and count.
//! A switch whose IGMP or MLD snooping forgets its members falls silent after its membership time, 260 s as a
//! rule (RFC 3376 §8.4): hence the test takes longer than that. What an agent does against it, joining anew,
//! the test does not do.

pub(crate) mod args;
mod clock;
mod datagram;
mod listen;
mod queries;
mod send;
mod socket;
mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::Fault;
use crate::output::Output;
use args::{McastArgs, Side};
use listen::listen;
use send::send;
use verdict::Verdict;

/// Time between two datagrams.
const EVERY: Duration = Duration::from_millis(100);
/// Silence of this length is a path that is cut: the agents fall back after it too.
const SILENCE: Duration = Duration::from_secs(3);
/// The membership time of IGMP and MLD: robustness 2 times the query interval of 125 s, and 10 s to answer
/// (RFC 3376 §8.4, RFC 3810 §9.4). A test that is to find a switch that forgets takes longer.
const MEMBERSHIP: Duration = Duration::from_secs(260);

/// Runs one side of the test and returns what is to be printed.
pub(crate) fn run(arguments: McastArgs, json: bool) -> Output {
    let outcome = match arguments.side {
        Side::Send(plan) => send(&plan.into()).map(Output::from),
        Side::Listen(plan) => listen(&plan.into()).map(|verdict| judged(&verdict, json)),
    };
    outcome.unwrap_or_else(|error| failure(String::new(), error.to_string(), "mcast_test"))
}

fn judged(verdict: &Verdict, json: bool) -> Output {
    let text = match json {
        true => format!("{}\n", serde_json::json!(verdict)),
        false => format!("{}\n", verdict.counts()),
    };
    match verdict.is_good() {
        true if json => Output::from(text),
        true => Output::from(format!("{text}{}\n", verdict.meaning())),
        false => failure(text, verdict.meaning(), "multicast_not_usable"),
    }
}

fn failure(text: String, error: String, code: &str) -> Output {
    let code = code.to_owned();
    Output {
        text,
        failure: Some(Fault { error, code }),
    }
}

/// What is to be tested.
#[derive(Debug, Clone)]
struct Plan {
    /// Group and port.
    group: SocketAddr,
    /// Name of the interface; `None` leaves the choice to the kernel's routes.
    interface: Option<String>,
    /// How long.
    length: Duration,
}

/// Why the test cannot run; for whoever installs.
#[derive(Debug, thiserror::Error)]
enum McastError {
    /// Not a group.
    #[error("{0} is not a multicast address: IPv4 has 239.0.0.0/8 for private use, IPv6 ff15::/16")]
    NotAGroup(SocketAddr),
    /// No such interface.
    #[error("there is no interface {0}; `ip -br address` lists what there is")]
    Interface(String),
    /// A socket call failed.
    #[error("cannot {what}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl McastError {
    fn socket(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Socket { what, source }
    }
}
