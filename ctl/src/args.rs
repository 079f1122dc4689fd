//! What can be typed after `locusctl`; it calls nobody.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use locus_proto::{AddressOfRecord, Digits};

use crate::api::Server;
use crate::ca::args::{self as ca, CaArgs};
use crate::mcast::args::{self as mcast, McastArgs};
use crate::params::{Contact, Target};

const EXAMPLES: &str = "\
Examples:
  locusctl aor put alice@example.net --contact 'sip:alice@10.0.0.1;q=0.5' --contact sip:alice@10.0.0.2
  locusctl aor get alice@example.net
  locusctl route put 4930 --target 'sip:gw1.example.net' --target 'sip:gw2.example.net;priority=2'
  locusctl nodes
  locusctl audit --node n2 --repair
  locusctl wait 1042 --timeout 10s
  LOCUS_SERVER=https://10.77.0.10:8800 locusctl --json level
  locusctl --server https://10.77.0.10:8800 --identity ~/.locus reload n2

Exit codes:
  0  done
  1  not found, refused, or an audit found a node that differs: the message says why
  2  wrong usage
  3  locsvc cannot be reached, or one of the two does not trust the other
  4  time-out: no answer in time, or not all nodes have the level yet";

const PUT_AOR: &str = "\
A contact is written as in a SIP Contact header (RFC 3261, 20.10). Without <> everything behind the
first ';' belongs to the contact; parameters of the URI itself need <>:

  --contact sip:alice@10.0.0.1
  --contact 'sip:alice@10.0.0.1;q=0.5;expires=3600'
  --contact '<sip:alice@10.0.0.1;transport=tcp>;q=0.7'

Parameters of a contact:
  q=0.5                   preference, 0 to 1, at most three decimals; higher is tried first
  expires=3600            seconds; without it the contact is permanent
  path=\"<sip:edge;lr>\"    route to the contact (RFC 3327)
  received=sip:192.0.2.7  where it is really reached, behind NAT
  instance=\"<urn:uuid:…>\" and reg-id=1  (RFC 5626)

The contacts replace all that the address-of-record has, registered ones too.";

const PUT_ROUTE: &str = "\
Calls to numbers that start with PREFIX go to the targets: lowest priority first, in proportion to
weight within one priority. The longest prefix that has a route counts.

  locusctl route put 49 --target sip:gw1.example.net --target 'sip:gw2.example.net;priority=2'
  locusctl route put 4930 --target '<sip:gw;transport=tcp>;weight=3' --target 'sip:gw3;weight=1'
  locusctl route put 0049 --strip 4 --prefix 0 --target sip:gw1.example.net";

const NODES: &str = "\
States:
  coherent      it holds the master's content up to now
  resync        it catches up, or repairs records that differ; it answers meanwhile
  stale         it does not hear the master; it answers from what it has
  loading       it has no table yet: other nodes answer its calls
  inconsistent  its table is not the master's and is loaded anew: other nodes answer its calls
  draining      it ends what it has begun and takes nothing new
  connecting    it is connected and has not reported yet
  disconnected  the master does not hear it; what is shown is its last report

Columns; counts are since its agent started:
  PATH              how what is live comes to it: tcp, bus-a, bus-b, multicast
  BEHIND            levels that it lacks
  LAG               time since it was last known to be coherent
  REPAIRED          records that were not the master's and were replaced
  PAGES             2M: fast look-ups; 4K, mixed: they take longer, see its agent's log
  TABLE MIB         memory of its table
  AUDITS            comparisons with the master's content
  SCRUBS            times that all of its memory was read again
  DOUBTED           partitions whose memory had changed by itself: above 0, test its memory
  SNAPSHOT AT       level of its newest snapshot on disk
  SNAPSHOTS FAILED  snapshots that could not be written
  CATCH-UPS         times that it was sent what it lacked
  RELOADS           times that it was sent the whole table
  LAST SYNC         how long the last of these took
  WIRE              version of the protocol that it and the master speak
  LOST, NACKS       datagrams of the group that it missed, and requests for them

  locusctl nodes
  locusctl nodes --wide";

const AUDIT: &str = "\
Each node reads its memory again from beginning to end and compares it with the master, down to the
record; it goes on answering meanwhile. Without --repair what differs is only named; the node may mend
it by itself afterwards, as it does whenever it notices.

Verdicts:
  equal          every record is the master's
  differs        some were not; --repair installs the master's
  repaired       those that differed are the master's now
  reloading      so much differed that the node loads the whole table
  refused        the master refuses while most nodes agree against it: see locusctl nodes and its log
  busy           the node audits itself already, or is catching up: repeat it
  failed         the node's table cannot be read or mended: see the log of its agent
  no_answer      no report in time, or the node went away meanwhile
  not_connected  the node is not connected

Exit code 0 if every node is equal or repaired, else 1.

  locusctl audit
  locusctl audit --node n2 --repair --timeout 5m";

/// Operates a Locus cluster: addresses-of-record, number routes, nodes, levels.
#[derive(Debug, Parser)]
#[command(name = "locusctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// Address of locsvc's HTTP API: https beyond loopback.
    #[arg(long, global = true, env = "LOCUS_SERVER", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8800")]
    pub(crate) server: Server,

    /// Folder of the operator's certificate, for https: ca.pem, identity.pem, identity.key.
    #[arg(long, global = true, env = "LOCUS_IDENTITY", value_name = "FOLDER")]
    #[arg(default_value = "/etc/locus/operator")]
    pub(crate) identity: PathBuf,

    /// Prints the API's answer as one line of JSON; errors too, on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Api(ApiCommand),
    /// The cluster's own CA: who is who in it. Asks no locsvc.
    #[command(after_help = ca::HELP)]
    Ca(CaArgs),
    /// Shows whether a network carries multicast for as long as it must. Asks no locsvc.
    #[command(after_help = mcast::HELP)]
    McastTest(McastArgs),
}

/// What is asked of locsvc.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiCommand {
    /// Contacts of one address-of-record.
    #[command(subcommand)]
    Aor(AorCommand),
    /// Route of one number prefix.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Nodes: state, level, how far behind, memory.
    #[command(after_help = NODES)]
    Nodes {
        /// Shows everything that nodes report, in lines of some 200 characters.
        #[arg(long)]
        wide: bool,
    },
    /// Compares nodes with the master, record by record.
    #[command(after_help = AUDIT)]
    Audit {
        /// Name or number of one node; without it, all.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Repairs what differs.
        #[arg(long)]
        repair: bool,
        /// How long to wait for the nodes: 60s, 5m; at most 10m.
        #[arg(long, value_parser = parse_audit_duration, default_value = "60s")]
        timeout: Duration,
    },
    /// Has a node load the whole table anew, whatever it holds; it answers from the old one meanwhile.
    Reload {
        /// Its name or number.
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Database level, epoch and content of the master.
    Level,
    /// Waits until all nodes have a level.
    Wait {
        /// The level, as every answer to a change carries it.
        level: u64,
        /// How long to wait: 10s, 500ms, 2m.
        #[arg(long, value_parser = parse_duration, default_value = "10s")]
        timeout: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AorCommand {
    /// Shows the contacts, best first.
    Get {
        /// user@host, with or without sip:
        aor: AddressOfRecord,
    },
    /// Replaces the contacts.
    #[command(after_help = PUT_AOR)]
    Put {
        /// user@host, with or without sip:
        aor: AddressOfRecord,
        /// One contact; repeat it for more.
        #[arg(long = "contact", required = true, value_name = "CONTACT")]
        contacts: Vec<Contact>,
    },
    /// Removes the address-of-record with all its contacts.
    Delete {
        /// user@host, with or without sip:
        aor: AddressOfRecord,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Shows the targets.
    Get {
        /// Leading digits, with or without +
        prefix: Digits,
    },
    /// Replaces the route.
    #[command(after_help = PUT_ROUTE)]
    Put {
        /// Leading digits, with or without +
        prefix: Digits,
        /// One target; repeat it for more.
        #[arg(long = "target", required = true, value_name = "TARGET")]
        targets: Vec<Target>,
        /// Leading digits to take off the called number.
        #[arg(long, default_value_t = 0)]
        strip: u8,
        /// Digits to put before what is left.
        #[arg(long = "prefix", default_value = "", hide_default_value = true)]
        prepend: String,
    },
    /// Removes the route.
    Delete {
        /// Leading digits, with or without +
        prefix: Digits,
    },
}

/// Longest wait that can be asked for; a day, so that a typing error does not look like a hang.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads `10s`, `500ms`, `2m`; a bare number counts seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "write it as 10s, 500ms or 2m".to_owned())?;
    let ms_each = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err("the unit is ms, s or m".to_owned()),
    };
    let duration = Duration::from_millis(number.saturating_mul(ms_each));
    if duration > TIMEOUT_MAX {
        return Err("at most 24 hours (1440m)".to_owned());
    }
    Ok(duration)
}

/// Longest time that locsvc gives an audit.
const AUDIT_MAX: Duration = Duration::from_secs(600);

fn parse_audit_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration > AUDIT_MAX => Err("at most 10 minutes (10m)".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn refused(line: &[&str]) -> clap::Error {
        Args::try_parse_from(line).expect_err("refused")
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let lines = [EXAMPLES, PUT_ROUTE, NODES, AUDIT].join("\n");
        let examples: Vec<_> = lines
            .lines()
            .filter(|line| line.starts_with("  locusctl ") || line.contains("LOCUS_SERVER="))
            .filter_map(|line| line.split_once("locusctl ").map(|(_, rest)| rest))
            .collect();
        assert_eq!(examples.len(), 15);
        for example in examples {
            let words = example.split(' ').map(|word| word.trim_matches('\''));
            let parsed = Args::try_parse_from(["locusctl"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{example}: {}", parsed.expect_err("error"));
        }
        let contacts = PUT_AOR
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--contact "));
        for contact in contacts {
            let parsed = contact.trim_matches('\'').parse::<Contact>();
            assert!(parsed.is_ok(), "{contact}: {parsed:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("3", 3_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1h",
            "1.5s",
            "10 s",
            "25000m",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_usage_says_what_to_write() {
        let aor = refused(&["locusctl", "aor", "get", "tel:+4930"]);
        assert_eq!(aor.kind(), ErrorKind::ValueValidation);
        assert!(aor.to_string().contains("only sip: and sips:"), "{aor}");
        let prefix = refused(&["locusctl", "route", "get", "49x"]);
        assert!(
            prefix.to_string().contains("a number cannot hold 'x'"),
            "{prefix}"
        );
        let server = refused(&["locusctl", "--server", "ftp://x", "level"]);
        assert!(server.to_string().contains("https://"), "{server}");
        let none = refused(&["locusctl", "aor", "put", "alice@example.net"]);
        assert_eq!(none.kind(), ErrorKind::MissingRequiredArgument);
    }
}
