//! What can be typed after `locusctl ca`; it makes nothing.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use locus_identity::{CA_DAYS, CERTIFICATE_DAYS, Role};
use locus_proto::NodeName;

pub(crate) const HELP: &str = "\
Everybody in a cluster has an identity: a folder with a certificate that says who they are, its key,
and whom to trust. The CA makes these folders; it is a folder itself, kept on one machine, with a backup.

  ca.pem        the CA, or two of them during a rotation     copy it to everybody
  identity.pem  the certificate                              only its holder's
  identity.key  its private key                              only its holder's, mode 600
  revoked.pem   what was revoked                             copy it to everybody

A locsvc and a node have theirs in /etc/locus/identity (`identity` in their configuration), an operator
in /etc/locus/operator (--identity). Daemons read changed files within 10 seconds, without a restart.

A new cluster:
  locusctl ca init lab
  locusctl ca locsvc m1 --host 10.77.0.10 --host m1.example.net
  locusctl ca node n1 --id 1
  locusctl ca operator alice --role admin

Renewal, once a year (the old certificate stays valid until it ends):
  locusctl ca node n1 --id 1 --renew

Somebody leaves, or a key was lost; then copy revoked.pem to every locsvc and node:
  locusctl ca revoke node/n1
  locusctl ca revoke 5f3ac2d19e0b44c7a1d0328f6b7e5510

A new key for the CA itself, without interruption:
  locusctl ca rotate          then copy ca.pem and revoked.pem to everybody
  locusctl ca list            shows who still has a certificate of the previous CA: renew and copy these
  locusctl ca retire          then copy ca.pem and revoked.pem to everybody again";

/// The CA's folder where none is named.
pub(crate) const FOLDER: &str = "/etc/locus/ca";

/// The cluster's CA.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// The CA's own folder.
    #[arg(long, global = true, env = "LOCUS_CA", value_name = "FOLDER")]
    #[arg(default_value = FOLDER)]
    pub(crate) folder: PathBuf,

    #[command(subcommand)]
    pub(crate) command: CaCommand,
}

/// What is asked of it.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Makes the CA of a new cluster.
    Init {
        /// Name of the cluster: 1 to 32 of a-z, 0-9, '-' and '.'.
        cluster: NodeName,
        /// How many days the CA lasts.
        #[arg(long, default_value_t = CA_DAYS)]
        days: u32,
    },
    /// Makes the identity of a location service.
    Locsvc {
        /// Its name.
        name: NodeName,
        /// Address or name under which its HTTP API is called; repeat it for more.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Makes the identity of a node.
    Node {
        /// Its name, as in its agent's configuration.
        name: NodeName,
        /// Its number, as in its agent's configuration.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        id: u16,
        #[command(flatten)]
        how: How,
    },
    /// Makes the identity of a switch.
    Switch {
        /// Its name.
        name: NodeName,
        #[command(flatten)]
        how: How,
    },
    /// Makes the identity of a person or program that uses the HTTP API.
    Operator {
        /// Their name.
        name: NodeName,
        /// read: may look; provision: may change records too; admin: may do everything.
        #[arg(long, value_name = "read|provision|admin")]
        role: Role,
        #[command(flatten)]
        how: How,
    },
    /// Revokes the certificates of somebody, or one certificate.
    Revoke {
        /// NAME, KIND/NAME (node/n1), or the serial number of one certificate.
        #[arg(value_name = "NAME|SERIAL")]
        which: String,
    },
    /// Begins to replace the CA's own key; both CAs are trusted until `retire`.
    Rotate {
        /// How many days the next CA lasts.
        #[arg(long, default_value_t = CA_DAYS)]
        days: u32,
    },
    /// Ends a rotation: the previous CA is trusted no longer.
    Retire {
        /// Even if somebody has no certificate of the current CA yet.
        #[arg(long)]
        force: bool,
    },
    /// Shows what was issued, until when it is valid, and what was revoked.
    List,
}

/// How an identity is made.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Where the identity folder is written [default: issued/KIND-NAME in the CA's folder].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// How many days the certificate lasts; without it, a year or as long as the CA.
    #[arg(long, help = days_help())]
    pub(crate) days: Option<u32>,
    /// Replaces the identity that lies there already.
    #[arg(long)]
    pub(crate) renew: bool,
}

fn days_help() -> String {
    format!(
        "How many days the certificate lasts [default: {CERTIFICATE_DAYS}, at most as long as the CA]"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::HELP;
    use crate::args::Args;

    #[test]
    fn every_example_of_the_help_is_understood() {
        let lines = HELP
            .lines()
            .filter_map(|line| line.strip_prefix("  locusctl "));
        let examples: Vec<&str> = lines
            .map(|line| line.split("   ").next().unwrap_or(line))
            .collect();
        assert_eq!(examples.len(), 10);
        for example in examples {
            let words = ["locusctl"].into_iter().chain(example.split(' '));
            let parsed = Args::try_parse_from(words);
            assert!(parsed.is_ok(), "{example}: {}", parsed.expect_err("error"));
        }
    }

    #[test]
    fn wrong_usage_says_what_to_write() {
        for (line, kind, part) in [
            ("ca node n1", ErrorKind::MissingRequiredArgument, "--id"),
            ("ca node n1 --id 0", ErrorKind::ValueValidation, "1.."),
            ("ca node N1 --id 1", ErrorKind::ValueValidation, "a-z"),
            (
                "ca operator al",
                ErrorKind::MissingRequiredArgument,
                "read|provision|admin",
            ),
            (
                "ca operator al --role root",
                ErrorKind::ValueValidation,
                "a role is read",
            ),
            (
                "ca node n1 --id 1 --host x",
                ErrorKind::UnknownArgument,
                "--host",
            ),
            (
                "ca revoke",
                ErrorKind::MissingRequiredArgument,
                "NAME|SERIAL",
            ),
        ] {
            let words = ["locusctl"].into_iter().chain(line.split(' '));
            let error = Args::try_parse_from(words).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
