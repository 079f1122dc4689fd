//! Connections of the nodes' agents, over TCP and the bus: bytes in, messages to the core; bytes out. It
//! understands none.
//!
//! Each has two threads. Without `insecure` it begins with a TLS handshake, in the reading thread: only a node
//! of the cluster gets one of the places, and the core hears of nobody else.

mod connection;
mod listen;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use locus_distribution::Peer;
use locus_identity::{Closer, Holder, Peer as Certified};
use serde::Serialize;

use super::handshakes::Handshakes;
use super::port::{Arrival, Inbox};
use super::security::Security;
use crate::clock::Clock;
use crate::config::DistributionConfig;
use crate::core::{Input, Transmit};
use crate::event::{self, Event, Limiter};
use listen::Listener;

/// Most messages that wait to be written to one node; the window closes at 1 MiB, so this many wait only
/// for a node that takes nothing, and it is dropped.
pub(super) const QUEUE_MAX: usize = 16 * 1024;
/// Most bytes that wait to be written to one node: its window, and answers to as many registrations as it
/// may have under way. A node for which more wait is dropped.
pub(super) const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most TLS handshakes under way: a thread each.
const HANDSHAKES_MAX: usize = 256;
/// Time for a TLS handshake; a whole cluster may come back at once to a small machine.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections of one node: the one that it follows, one on each better path that it tries, and those
/// that a dead host has left behind.
const NODE_CONNECTIONS_MAX: usize = 8;
const STACK_BYTES: usize = 256 * 1024;

/// Returned when a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartUnicastError {
    /// The TCP port.
    #[error("cannot listen for nodes on {listen} (distribution.listen)")]
    Tcp {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket of the bus.
    #[error(
        "cannot listen for nodes on the bus {} (distribution.bus): its folder has to exist and locsvc to \
         be allowed to write there",
        path.display()
    )]
    Bus {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process serves it.
    #[error(
        "somebody listens on {} (distribution.bus) already: another locsvc? end it first",
        .0.display()
    )]
    BusTaken(PathBuf),
    /// What is there is no socket.
    #[error(
        "{} (distribution.bus) is there and is no socket: it is not removed; choose another path",
        .0.display()
    )]
    NoSocket(PathBuf),
}

/// Counts since the listeners were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct UnicastCounters {
    /// Connections refused because too many were open, or closed because of what came over them.
    pub refused_total: u64,
    /// Nodes dropped because they did not take what was queued for them.
    pub dropped_total: u64,
    /// TLS handshakes that failed: no TLS, no certificate of this cluster, too slow.
    pub handshakes_failed_total: u64,
    /// TLS handshakes refused or ended because too many were under way.
    pub handshakes_crowded_total: u64,
    /// Connections closed because their certificate was revoked, or its CA retired.
    pub revoked_total: u64,
}

/// The listeners and their connections.
#[derive(Debug)]
pub struct Unicast {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptors: Vec<Acceptor>,
}

/// A listener with its thread.
#[derive(Debug)]
struct Acceptor {
    listener: Arc<Listener>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Ends the connections of those who are not trusted any more.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    clock: Clock,
    security: Security,
    handshakes: Handshakes,
    handshake_timeout: Duration,
    peers: AtomicU64,
    connections: Mutex<HashMap<Peer, Connection>>,
    refused: Mutex<Limiter>,
    refused_total: AtomicU64,
    dropped_total: AtomicU64,
    handshakes_failed_total: AtomicU64,
    revoked_total: AtomicU64,
}

/// A connection whose threads run.
#[derive(Debug)]
struct Connection {
    /// `None` once it is being closed: the writer ends behind what is queued.
    queue: Option<Sender<Outgoing>>,
    queued_bytes: Arc<AtomicUsize>,
    closer: Closer,
    /// Who it is, unless everything is insecure.
    certified: Option<Certified>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Arc<[u8]>,
    counted: bool,
}

impl Unicast {
    /// Listens as `config` says and puts what happens there into `inbox`.
    ///
    /// # Errors
    /// [`StartUnicastError`].
    pub fn start(
        config: &DistributionConfig,
        security: Security,
        inbox: Inbox,
        clock: Clock,
    ) -> Result<Self, StartUnicastError> {
        Self::start_with(
            config,
            security,
            inbox,
            clock,
            HANDSHAKES_MAX,
            HANDSHAKE_TIMEOUT,
        )
    }

    fn start_with(
        config: &DistributionConfig,
        security: Security,
        inbox: Inbox,
        clock: Clock,
        handshakes_max: usize,
        handshake_timeout: Duration,
    ) -> Result<Self, StartUnicastError> {
        let (tcp, address) = Listener::tcp(config.listen)?;
        let mut listeners = vec![tcp];
        for (path, side) in config.bus.iter().zip(listen::SIDES) {
            listeners.push(Listener::bus(path, side)?);
        }
        let shared = Arc::new(Shared {
            inbox,
            clock,
            security,
            handshakes: Handshakes::new(handshakes_max),
            handshake_timeout,
            peers: AtomicU64::new(0),
            connections: Mutex::default(),
            refused: Mutex::default(),
            refused_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            handshakes_failed_total: AtomicU64::new(0),
            revoked_total: AtomicU64::new(0),
        });
        let mut acceptors = Vec::new();
        for listener in listeners {
            let listener = Arc::new(listener);
            let (stop, stopped) = bounded(1);
            let for_thread = (Arc::clone(&listener), Arc::clone(&shared));
            let thread = spawn("accept", move || {
                let (listener, shared) = for_thread;
                listen::accept(&listener, &shared, &stopped);
            });
            let thread = thread.map_err(|source| listener.failed(source))?;
            acceptors.push(Acceptor {
                listener,
                stop,
                thread,
            });
        }
        Ok(Self {
            shared,
            address,
            acceptors,
        })
    }

    /// Returns the TCP address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what ends the connections of those who are not trusted any more.
    pub(crate) fn judge(&self) -> Judge {
        let shared = Arc::clone(&self.shared);
        Judge { shared }
    }

    /// Returns what it has counted since it started.
    pub fn counters(&self) -> UnicastCounters {
        let shared = &self.shared;
        UnicastCounters {
            refused_total: shared.refused_total.load(Ordering::Relaxed),
            dropped_total: shared.dropped_total.load(Ordering::Relaxed),
            handshakes_failed_total: shared.handshakes_failed_total.load(Ordering::Relaxed),
            handshakes_crowded_total: shared.handshakes.crowded_total(),
            revoked_total: shared.revoked_total.load(Ordering::Relaxed),
        }
    }

    /// Queues bytes for a node; never blocks. A node whose queue is full is dropped.
    pub fn transmit(&self, transmit: Transmit) {
        let Transmit {
            peer,
            bytes,
            counted,
        } = transmit;
        let mut connections = self.shared.connections();
        let Some(connection) = connections.get_mut(&peer) else {
            return;
        };
        let Some(queue) = &connection.queue else {
            return;
        };
        let len = bytes.len();
        let queued = connection.queued_bytes.fetch_add(len, Ordering::Relaxed) + len;
        let is_full = queued > QUEUE_BYTES_MAX
            || match queue.try_send(Outgoing { bytes, counted }) {
                Err(TrySendError::Full(_)) => true,
                // The writer has failed: the reader is about to say that the connection has ended.
                Ok(()) | Err(TrySendError::Disconnected(_)) => false,
            };
        if is_full {
            self.shared.dropped_total.fetch_add(1, Ordering::Relaxed);
            connection.queue = None;
            // The reader sees the end and says so to the core.
            connection.closer.close();
        }
    }

    /// Closes a connection when what is queued for it is written.
    pub fn close(&self, peer: Peer) {
        if let Some(connection) = self.shared.connections().get_mut(&peer) {
            connection.queue = None;
        }
    }

    /// Takes no more connections.
    pub fn stop_accepting(&self) {
        for acceptor in &self.acceptors {
            acceptor.stop.try_send(()).ok();
            acceptor.listener.shutdown();
        }
    }

    /// Closes every connection, waits for the acceptors, removes the sockets of the bus.
    pub fn stop(self) {
        self.stop_accepting();
        self.shared.handshakes.end_all();
        self.shared.connections().clear();
        for acceptor in self.acceptors {
            // It only ends early if it panicked, and said so then.
            drop(acceptor.thread.join());
        }
    }
}

impl Judge {
    /// Judges everybody who is connected by what the identity folder holds now.
    pub(crate) fn judge(&self) {
        self.shared.judge_all();
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<Peer, Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, address: String, reason: String) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
        self.say_refused(address, reason);
    }

    fn say_refused(&self, address: String, reason: String) {
        if let Some(suppressed) = self.permit() {
            event::emit(&Event::PeerRefused {
                address,
                reason,
                suppressed,
            });
        }
    }

    fn permit(&self) -> Option<u64> {
        let mut limiter = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.permit(self.clock.now())
    }

    fn send(&self, input: Input) -> Result<(), Ended> {
        self.inbox.send(Arrival::Input(input)).map_err(|_| Ended)
    }

    fn judge_all(&self) {
        // The core, which sends to them, does not wait while a thousand signatures are verified.
        let connected: Vec<(Closer, Certified)> = {
            let connections = self.connections();
            let each = connections.values();
            each.filter_map(|c| Some((c.closer.clone(), c.certified.clone()?)))
                .collect()
        };
        let mut gone = HashMap::new();
        for (closer, certified) in connected {
            if self.security.judge(&certified).is_err() {
                closer.close();
                let connections = gone.entry(certified.identity.holder);
                *connections.or_insert(0) += 1;
            }
        }
        let mut nodes = BTreeSet::new();
        for (holder, connections) in gone {
            let total = u64::try_from(connections).unwrap_or(u64::MAX);
            self.revoked_total.fetch_add(total, Ordering::Relaxed);
            event::emit(&Event::Revoked {
                who: holder.to_string(),
                connections,
            });
            if let Holder::Node { id, .. } = holder {
                nodes.insert(id);
            }
        }
        for node in nodes {
            if self.send(Input::Removed { node }).is_err() {
                return; // the process is leaving
            }
        }
    }
}

/// The core takes no more.
struct Ended;

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.stack_size(STACK_BYTES).spawn(body)
}

#[cfg(test)]
mod tests;
