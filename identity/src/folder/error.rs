//! What can be wrong with an identity folder, in words by which an operator can mend it.

use std::io;
use std::path::PathBuf;

use crate::identity::Identity;

/// Why an identity folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenIdentityError {
    /// A file is not there.
    #[error(
        "{} is missing: on the CA's machine run `locusctl ca node NAME --id ID` (or `ca locsvc NAME`, \
         `ca switch NAME`, `ca operator NAME --role ROLE`) and copy the folder that it writes to {}",
        path.display(), folder.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The identity folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what belongs into it.
    #[error("{} holds no {what}: {reason}; copy it again from the CA's machine", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What belongs into it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Others may read the private key.
    #[error(
        "{} may be read by everybody or changed by its group (mode {mode:o}): chmod 600 it (640 if the daemon reads it \
         as a group), and if it has lain so for long, issue it anew and revoke the old one", path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Key and certificate do not belong together.
    #[error(
        "{} is not the key of {}: copy both from the same folder that locusctl ca has written",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// The certificate does not say who we are.
    #[error("{}: {reason}; issue it by locusctl ca", path.display())]
    NotAnIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No CA that we trust has signed our certificate.
    #[error(
        "{} is signed by none of the CAs in {}: copy ca.pem from the CA's folder, and if its CA was retired, issue it \
         anew by locusctl ca", path.display(), cas.display()
    )]
    NotSigned {
        /// Our certificate.
        path: PathBuf,
        /// The CAs.
        cas: PathBuf,
    },
    /// The list of what is revoked is none, or not one of our CAs'.
    #[error(
        "{} is not a list of what our CAs have revoked: {reason}; copy revoked.pem from the CA's folder",
        path.display()
    )]
    NoList {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// On reading again it is somebody else's.
    #[error("{} is now that of {now}, and not ours, {ours}: restart to become another", path.display())]
    Another {
        /// The certificate.
        path: PathBuf,
        /// Who we are.
        ours: Identity,
        /// Whose it is.
        now: Box<Identity>,
    },
}
