//! Who the others have to be, and that this is read again while the service runs; it accepts nobody.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use locus_identity::{IdentityFolder, Peer, Reload, Standing};

use crate::drive::chain;
use crate::event::{Event, emit};

/// Time between two looks at the identity folder.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks between two words about a certificate that ends soon: a day's.
const EXPIRY_LOOKS: u32 = 24 * 360;
/// A certificate that ends within this time is spoken of.
const EXPIRY_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Who the others have to be.
#[derive(Debug, Clone)]
pub enum Security {
    /// Anybody, in clear.
    Insecure,
    /// Holders of a certificate of our cluster, over TLS.
    Identity(Arc<IdentityFolder>),
}

impl Security {
    /// Judges again someone who was let in earlier.
    ///
    /// # Errors
    /// Why they would have to go now.
    pub(crate) fn judge(&self, peer: &Peer) -> Result<(), &'static str> {
        let Self::Identity(identity) = self else {
            return Ok(());
        };
        match identity.standing(peer) {
            Standing::Revoked => Err("it was revoked"),
            Standing::Unknown => Err("the CA that signed it is trusted no more"),
            Standing::Good | Standing::Expired => Ok(()),
        }
    }
}

/// Reads the identity folder again every ten seconds.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins; `changed` is called whenever the folder holds something else.
    pub(crate) fn start(
        identity: Arc<IdentityFolder>,
        changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_with(identity, LOOK_EVERY, changed)
    }

    fn start_with(
        identity: Arc<IdentityFolder>,
        every: Duration,
        changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        warn(&identity);
        let (stop, stopped) = bounded(1);
        let thread = thread::Builder::new()
            .name("identity".to_owned())
            .spawn(move || watch(&identity, every, &stopped, &changed))?;
        Ok(Self { stop, thread })
    }

    /// Ends; waits for a look under way.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // It only ends early if it panicked, and said so then.
        drop(self.thread.join());
    }
}

fn watch(identity: &IdentityFolder, every: Duration, stopped: &Receiver<()>, changed: &impl Fn()) {
    let mut looks = 0;
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        match identity.reload() {
            Ok(Reload::Unchanged) => {}
            Ok(Reload::Changed) => {
                let folder = identity.path().to_owned();
                emit(&Event::IdentityRead { folder });
                warn(identity);
                changed();
                looks = 0;
            }
            Err(error) => {
                let reason = chain(&error);
                emit(&Event::IdentityUnreadable { reason });
            }
        }
        looks += 1;
        if looks == EXPIRY_LOOKS {
            looks = 0;
            if identity.expires_in().is_none_or(|left| left < EXPIRY_SOON) {
                emit(&Event::IdentityWarning(ending(identity)));
            }
        }
    }
}

fn warn(identity: &IdentityFolder) {
    for warning in identity.warnings() {
        emit(&Event::IdentityWarning(warning));
    }
}

fn ending(identity: &IdentityFolder) -> String {
    let name = identity.identity().holder.name();
    let when = match identity.expires_in() {
        None => "has expired: nodes that connect anew are not served".to_owned(),
        Some(left) => format!("ends in {} days", left.as_secs() / (24 * 3600)),
    };
    format!("our certificate {when}; issue another by `locusctl ca locsvc {name}`")
}
