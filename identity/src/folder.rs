//! An identity folder: who we are and whom we trust, read again when its files change. It opens no connection.

mod error;
mod files;
mod load;

pub use error::OpenIdentityError;
pub(crate) use files::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, REVOKED_FILE};

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use locus_proto::NodeName;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use crate::certificate::Peer;
use crate::clock;
use crate::identity::Identity;
use crate::verify::Standing;
use files::{Files, Fingerprint};
pub(crate) use load::ALPN;
use load::{Loaded, load};

/// Returns the DNS name that each location service's certificate holds beside its addresses, and that every client
/// of our own protocol verifies, whatever address it has connected to.
pub(crate) fn locsvc_name(cluster: &NodeName) -> String {
    format!("locsvc.{cluster}.internal")
}

/// What [`IdentityFolder::reload`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Nothing: the files are as they were, or change just now.
    Unchanged,
    /// What the files hold now counts from now on.
    Changed,
}

/// An identity folder: who we are, by which key, and whom we trust.
///
/// ```text
/// ca.pem        the CAs that we trust: one, two while one follows another
/// identity.pem  our certificate
/// identity.key  its private key; others must not read it
/// revoked.pem   what the CAs have revoked; without this file nothing is
/// ```
///
/// A list of what is revoked counts though it is past its date, with a warning: it can only be too short then, and refusing
/// everybody by it would cut the cluster off. A certificate that is past its date opens nothing new.
///
/// All methods take `&self`: threads share it by reference or in an [`Arc`]. The TLS configurations are always those of
/// the last good [`Self::reload`]: ask for one per connection, not once. They speak TLS 1.3 only, demand a certificate of
/// our cluster from the other side, and resume no session: whoever is refused now is not let in by a ticket of yesterday.
#[derive(Debug)]
pub struct IdentityFolder {
    path: PathBuf,
    identity: Identity,
    locsvc: ServerName<'static>,
    loaded: RwLock<Arc<Loaded>>,
    seen: Mutex<Seen>,
}

/// How the files looked when they were read.
#[derive(Debug)]
struct Seen {
    loaded: Fingerprint,
    bad: Option<Bad>,
}

/// Files that could not be taken.
#[derive(Debug)]
struct Bad {
    files: Fingerprint,
    told: bool,
}

impl IdentityFolder {
    /// Reads the folder at `path`.
    ///
    /// A certificate that has expired is no error: a node must go on answering with what it has. See [`Self::expires_in`].
    ///
    /// # Errors
    /// [`OpenIdentityError`] says which file, what is wrong with it, and what to do.
    pub fn open(path: &Path) -> Result<Self, OpenIdentityError> {
        let fingerprint = Fingerprint::of(path);
        let files = Files::read(path)?;
        let identity = files.identity.clone();
        let name = locsvc_name(&identity.cluster);
        let locsvc = ServerName::try_from(name).map_err(|_| OpenIdentityError::NotAnIdentity {
            path: path.join(CERTIFICATE_FILE),
            reason: format!(
                "the cluster's name {:?} is none in DNS",
                identity.cluster.as_str()
            ),
        })?;
        let loaded = load(path, files)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            locsvc,
            loaded: RwLock::new(Arc::new(loaded)),
            seen: Mutex::new(Seen {
                loaded: fingerprint,
                bad: None,
            }),
        })
    }

    /// Returns where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns our cluster.
    pub fn cluster(&self) -> &NodeName {
        &self.identity.cluster
    }

    /// Returns how long our certificate is still valid, `None` if it has expired.
    pub fn expires_in(&self) -> Option<Duration> {
        let left = self
            .loaded()
            .facts
            .not_after
            .checked_sub(clock::since_epoch());
        left.filter(|left| !left.is_zero())
    }

    /// Returns what is not as it should be and does not hinder: to be logged after [`Self::open`] and after each
    /// [`Reload::Changed`].
    pub fn warnings(&self) -> Vec<String> {
        self.loaded().warnings.clone()
    }

    /// Reads the files again if they have changed. To be called every ten seconds.
    ///
    /// # Errors
    /// The files are bad; what was read before goes on to count. Said once, and only when the same files were found
    /// bad by two calls in a row: four files are not copied in one instant. Another identity is an error too: who we
    /// are is settled when a daemon starts.
    pub fn reload(&self) -> Result<Reload, OpenIdentityError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Fingerprint::of(&self.path);
        if now == seen.loaded {
            seen.bad = None;
            return Ok(Reload::Unchanged);
        }
        let before = seen.bad.take().filter(|bad| bad.files == now);
        if let Some(bad) = before.as_ref().filter(|bad| bad.told) {
            let (files, told) = (bad.files.clone(), true);
            seen.bad = Some(Bad { files, told });
            return Ok(Reload::Unchanged);
        }
        let loaded = self.load_again();
        if Fingerprint::of(&self.path) != now {
            return Ok(Reload::Unchanged);
        }
        match loaded {
            Ok(loaded) => {
                seen.loaded = now;
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                Ok(Reload::Changed)
            }
            Err(error) => {
                let told = before.is_some();
                seen.bad = Some(Bad { files: now, told });
                if told {
                    Err(error)
                } else {
                    Ok(Reload::Unchanged)
                }
            }
        }
    }

    fn load_again(&self) -> Result<Loaded, OpenIdentityError> {
        let files = Files::read(&self.path)?;
        if files.identity == self.identity {
            load(&self.path, files)
        } else {
            Err(OpenIdentityError::Another {
                path: self.path.join(CERTIFICATE_FILE),
                ours: self.identity.clone(),
                now: Box::new(files.identity),
            })
        }
    }

    /// Returns how we serve our own protocol; see [`crate::Channel::accept`].
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().server)
    }

    /// Returns how we serve the HTTP API (HTTP/1.1), for rustls or tokio-rustls. Ask again for each connection.
    pub fn api(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().api)
    }

    /// Returns how we call a location service by our own protocol; see [`crate::Channel::connect`].
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.loaded().client)
    }

    /// Returns how we call a location service's HTTP API; the server's name is the host of the URL.
    pub fn api_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.loaded().api_client)
    }

    /// Judges by what the folder holds now someone who was let in earlier.
    pub fn standing(&self, peer: &Peer) -> Standing {
        let loaded = self.loaded();
        let now = clock::since_epoch();
        let judged = loaded.verifier.judge(&peer.chain, &peer.facts, now);
        // Who was verified once and now fails in any other way is trusted no longer.
        judged.unwrap_or(Standing::Unknown)
    }

    /// Returns the name by which every location service is verified.
    pub(crate) fn locsvc(&self) -> ServerName<'static> {
        self.locsvc.clone()
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}
