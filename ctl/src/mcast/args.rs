//! What can be typed after `locusctl mcast-test`; it opens no socket.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Plan;

pub(crate) const HELP: &str = "\
Run `listen` on each node, then `send` on the host of locsvc, with the group and port that are to be used
(locsvc.toml, distribution.multicast.group) while locsvc is not running, or with another port beside it.
The listeners join once and never again; a switch whose IGMP or MLD snooping forgets its members, for want of
a querier, falls silent after some 260 s. That is why the test takes six minutes. As root they also count the
queries.

  locusctl mcast-test listen --group 239.192.76.83:5801 --interface eth1
  locusctl mcast-test send --group 239.192.76.83:5801 --interface eth1

Exit code of `listen`: 0 if multicast may be used here, else 1; the text says what to mend. Whatever it says,
the nodes are served: who cannot hear the group is served over its own connection.";

/// Arguments of `locusctl mcast-test`.
#[derive(Debug, Args)]
pub(crate) struct McastArgs {
    #[command(subcommand)]
    pub(super) side: Side,
}

#[derive(Debug, Subcommand)]
pub(super) enum Side {
    /// Sends ten numbered datagrams a second to the group.
    Send(PlanArgs),
    /// Joins the group, counts, and says what the network does.
    Listen(PlanArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Group and port, as 239.192.76.83:5801 or of IPv6 (in brackets).
    #[arg(long, value_name = "GROUP:PORT", default_value = "239.192.76.83:5801")]
    group: SocketAddr,
    /// Interface, as eth1; without it, the one that the routes say.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Length of the test in seconds.
    #[arg(long, value_name = "S", default_value_t = 360)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

impl From<PlanArgs> for Plan {
    fn from(arguments: PlanArgs) -> Self {
        let PlanArgs {
            group,
            interface,
            seconds,
        } = arguments;
        Self {
            group,
            interface,
            length: Duration::from_secs(seconds.into()),
        }
    }
}
