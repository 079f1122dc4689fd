//! Who this node is by its certificate, and whether that changes; it opens no connection.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::tick;
use locus_identity::{Holder, Identity, IdentityFolder, OpenIdentityError, Reload};
use locus_proto::{NodeId, NodeName, Timestamp};

use crate::clock::Clock;
use crate::config::Config;
use crate::event::{Event, with_causes};

/// Time between two looks at the identity's files, and at the standing of who is connected.
pub const IDENTITY_EVERY: Duration = Duration::from_secs(10);
/// A certificate that ends sooner is spoken of.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// Time between two such words.
const SPEAK_EVERY: Duration = Duration::from_secs(86_400);

/// Why the agent cannot say who this node is; all for the operator.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none that can be used.
    #[error(
        "this node (name {node}, id {id}) has no identity that can be used in {}, and only in a lab insecure = true \
         does without one", path.display()
    )]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Name of the node.
        node: NodeName,
        /// Its number.
        id: NodeId,
        /// The cause.
        #[source]
        source: Box<OpenIdentityError>,
    },
    /// It is somebody else's.
    #[error(
        "the certificate in {} is {found}, but the configuration says cluster = \"{cluster}\", node = \"{node}\", \
         node_id = {id}: change there what is wrong, or put this node's own identity there", path.display()
    )]
    Another {
        /// Where it is.
        path: PathBuf,
        /// What it says.
        found: Box<Identity>,
        /// What the configuration says.
        cluster: NodeName,
        /// What the configuration says.
        node: NodeName,
        /// What the configuration says.
        id: NodeId,
    },
}

/// Opens the identity that the configuration names; `None` if it wants none.
///
/// # Errors
/// [`IdentityError`] says what to change.
pub(crate) fn open(config: &Config) -> Result<Option<Arc<IdentityFolder>>, IdentityError> {
    if config.insecure {
        return Ok(None);
    }
    let path = &config.identity;
    let folder = IdentityFolder::open(path).map_err(|source| IdentityError::Open {
        path: path.clone(),
        node: config.node.clone(),
        id: config.node_id,
        source: Box::new(source),
    })?;
    let expected = Identity {
        cluster: config.cluster.clone(),
        holder: Holder::Node {
            name: config.node.clone(),
            id: config.node_id,
        },
    };
    if *folder.identity() != expected {
        return Err(IdentityError::Another {
            path: path.clone(),
            found: Box::new(folder.identity().clone()),
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            id: config.node_id,
        });
    }
    Ok(Some(Arc::new(folder)))
}

/// Starts the thread that reads the identity's files again when they change.
///
/// # Errors
/// The system has no thread.
pub(crate) fn watch(folder: Arc<IdentityFolder>, clock: Clock) -> io::Result<()> {
    let mut watch = Watch {
        folder,
        spoke_at: None,
    };
    log(watch.begin(clock.now()));
    thread::Builder::new()
        .name("identity".into())
        .spawn(move || {
            for _ in tick(IDENTITY_EVERY) {
                log(watch.look(clock.now()));
            }
        })?;
    Ok(())
}

fn log(events: Vec<Event>) {
    for event in events {
        event.log();
    }
}

#[derive(Debug)]
struct Watch {
    folder: Arc<IdentityFolder>,
    /// When it last spoke of the certificate's end.
    spoke_at: Option<Timestamp>,
}

impl Watch {
    /// Returns what is to be said at first.
    fn begin(&mut self, now: Timestamp) -> Vec<Event> {
        let mut events = self.warnings();
        events.extend(self.end(now));
        events
    }

    /// Reads the files again if they have changed; returns what is to be said.
    fn look(&mut self, now: Timestamp) -> Vec<Event> {
        let path = self.folder.path().to_owned();
        let mut events = Vec::new();
        match self.folder.reload() {
            Ok(Reload::Unchanged) => {}
            Ok(Reload::Changed) => {
                let days = self.folder.expires_in().map_or(0, days);
                events.push(Event::IdentityChanged { path, days });
                events.extend(self.warnings());
                self.spoke_at = None;
            }
            Err(error) => {
                let reason = with_causes(&error);
                events.push(Event::IdentityRefused { path, reason });
            }
        }
        events.extend(self.end(now));
        events
    }

    fn warnings(&self) -> Vec<Event> {
        let texts = self.folder.warnings().into_iter();
        texts.map(|text| Event::IdentityWarning { text }).collect()
    }

    /// Returns that the certificate ends soon, once a day.
    fn end(&mut self, now: Timestamp) -> Option<Event> {
        let left = self.folder.expires_in();
        if left.is_some_and(|left| left > EXPIRY_WARNING)
            || self.spoke_at.is_some_and(|at| now.since(at) < SPEAK_EVERY)
        {
            return None;
        }
        self.spoke_at = Some(now);
        let path = self.folder.path().to_owned();
        let days = left.map(days);
        Some(Event::IdentityEnds { path, days })
    }
}

fn days(left: Duration) -> u64 {
    left.as_secs() / 86_400
}

#[cfg(test)]
mod tests {
    use std::fs;

    use locus_identity::{CA_DAYS, CertificateAuthority, Order};

    use super::*;

    #[test]
    fn speaks_of_each_change_and_each_day_of_an_end_that_is_near() {
        let place = PathBuf::from(format!("/dev/shm/locus-identity-{}", std::process::id()));
        let cluster = "lab".parse().unwrap();
        let ca = CertificateAuthority::init(&place.join("ca"), &cluster, CA_DAYS).unwrap();
        let own = place.join("own");
        let order = Order::new("node/n1/1".parse().unwrap()).out(own.clone());
        ca.issue(&order.clone().lasting(20)).unwrap();
        let mut watch = Watch {
            folder: Arc::new(IdentityFolder::open(&own).unwrap()),
            spoke_at: None,
        };
        let path = || own.clone();
        let ends = |left| Event::IdentityEnds {
            path: path(),
            days: left,
        };
        let at = |hours: u64| Timestamp(hours * 3_600_000_000_000);
        let near = [ends(Some(19))];
        assert_eq!(watch.begin(at(5)), near);
        assert_eq!(watch.look(at(28)), []);
        assert_eq!(watch.look(at(29)), near);
        // Files that are no identity: said once, and the old one goes on.
        fs::write(own.join("identity.pem"), "none").unwrap();
        let said: Vec<_> = (0..4).flat_map(|_| watch.look(at(30))).collect();
        let [Event::IdentityRefused { reason, .. }] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert!(reason.contains("identity.pem"), "{reason}");
        // A good one that ends later: nothing more to say of the end.
        ca.issue(&order.lasting(60).renew()).unwrap();
        let changed = Event::IdentityChanged {
            path: path(),
            days: 59,
        };
        assert_eq!(watch.look(at(31)), [changed]);
        assert_eq!(watch.look(at(90)), []);
        fs::remove_dir_all(&place).unwrap();
    }
}
