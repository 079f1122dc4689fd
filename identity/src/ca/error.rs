//! What can go wrong at the CA, in words by which an operator can mend it.

use std::io;
use std::path::PathBuf;

use locus_proto::{NodeId, NodeName};

use super::DAYS_MAX;
use crate::identity::Holder;

/// Why the CA did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is no CA in that folder.
    #[error("there is no CA in {}: make it by `locusctl ca init CLUSTER`, or name its folder by --folder", .0.display())]
    NoCa(PathBuf),
    /// Something is in the folder already.
    #[error("{} is not empty; a CA is made in a folder of its own, and never over another one", .0.display())]
    NotEmpty(PathBuf),
    /// The cluster's name cannot stand in a DNS name.
    #[error(
        "{0:?} cannot be the name of a cluster with certificates: each part between dots must begin and end with a letter or digit"
    )]
    Cluster(String),
    /// The ledger cannot be read.
    #[error("{} is damaged: {reason}; put it back from a backup of the folder", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key or certificate of the CA cannot be read.
    #[error("{} is damaged: {reason}; put it back from a backup of the folder", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Others may read the CA's private key.
    #[error("{} may be read by others (mode {mode:o}): chmod 600 it; who has read it can make any certificate", path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// An identity is there already.
    #[error(
        "{} holds an identity already; --renew replaces it (the certificate that lies there stays valid until it ends or is \
         revoked), --out writes elsewhere", .0.display()
    )]
    Exists(PathBuf),
    /// The number belongs to another node.
    #[error(
        "number {id} belongs to node {name}; take another, or `locusctl ca revoke node/{name}` first"
    )]
    IdTaken {
        /// The number.
        id: NodeId,
        /// Whose it is.
        name: NodeName,
    },
    /// The node has another number.
    #[error("node {name} has number {id}; keep it, or `locusctl ca revoke node/{name}` first")]
    NameTaken {
        /// The node.
        name: NodeName,
        /// Its number.
        id: NodeId,
    },
    /// It is neither an address nor a DNS name.
    #[error("{0:?} is neither an IP address nor a DNS name (no port, no http://)")]
    Host(String),
    /// Only those who serve have addresses in their certificates.
    #[error("{0} serves nothing: only a locsvc has --host")]
    HostNotNeeded(Holder),
    /// That many days cannot be had.
    #[error(
        "no certificate outlives its CA, which has {most} days left, nor lasts less than a day (`locusctl ca rotate` makes \
         the next CA)"
    )]
    Days {
        /// What the CA's own end allows.
        most: u32,
    },
    /// No CA lasts that long.
    #[error("a CA lasts 1 to {DAYS_MAX} days")]
    CaDays,
    /// Nothing was issued to it.
    #[error("no certificate is {0}: see `locusctl ca list`")]
    NotFound(String),
    /// What it was given is revoked or has ended long ago.
    #[error(
        "{0} has no certificate that is not revoked already or has long ended: nothing to revoke (see `locusctl ca list`)"
    )]
    NothingValid(String),
    /// Several are called so.
    #[error("{asked} can be {}: say which", holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Who are called so.
        holders: Vec<Holder>,
    },
    /// Two CAs are trusted already.
    #[error(
        "CA {0} has not been retired yet: `locusctl ca retire` ends the rotation before another begins"
    )]
    Rotating(u32),
    /// There is nothing to retire.
    #[error(
        "there is only one CA: `locusctl ca rotate` makes the next one before this one can be retired"
    )]
    OnlyOne,
    /// Somebody would be cut off.
    #[error(
        "{} would be cut off: issue them anew first (the same command with --renew), copy, and retire then; or --force",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    StillNeeded(Vec<Holder>),
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A certificate or list could not be made.
    #[error("cannot make a certificate or list: {0}")]
    Make(#[from] rcgen::Error),
}
