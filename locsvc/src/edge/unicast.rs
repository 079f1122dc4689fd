//! TCP connections of the nodes' agents: bytes in, messages to the core; bytes out. It understands none.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use locus_distribution::{PEERS_MAX, Peer};
use locus_proto::Deframer;
use serde::Serialize;
use socket2::{SockRef, TcpKeepalive};

use super::port::{Arrival, Inbox};
use crate::clock::Clock;
use crate::core::{Input, Transmit};
use crate::event::{self, Event, Limiter};

/// Most messages that wait to be written to one node; the window closes at 1 MiB, so this many wait only
/// for a node that takes nothing, and it is dropped.
pub(super) const QUEUE_MAX: usize = 16 * 1024;
/// Most bytes that wait to be written to one node: its window, and answers to as many registrations as it
/// may have under way. A node for which more wait is dropped.
pub(super) const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one read and, about, of one write.
const BLOCK_BYTES: usize = 64 * 1024;
/// A write that takes longer ends the connection; the core has given the node up before (30 s).
const WRITE_MAX: Duration = Duration::from_secs(35);
/// A host that vanished is noticed within 25 s though nothing is sent to it.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_RETRIES: u32 = 3;
/// Pause after an accept that failed, for instance because there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 256 * 1024;

/// Returned when the listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for nodes on {listen} (distribution.listen)")]
pub struct StartUnicastError {
    /// The address.
    pub listen: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Counts since the listener was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct UnicastCounters {
    /// Connections refused because too many were open, or closed because of what came over them.
    pub refused_total: u64,
    /// Nodes dropped because they did not take what was queued for them.
    pub dropped_total: u64,
}

/// The listener and its connections.
#[derive(Debug)]
pub struct Unicast {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    stop: Sender<()>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    clock: Clock,
    connections: Mutex<HashMap<Peer, Connection>>,
    refused: Mutex<Limiter>,
    refused_total: AtomicU64,
    dropped_total: AtomicU64,
}

/// A connection whose threads run.
#[derive(Debug)]
struct Connection {
    /// `None` once it is being closed: the writer ends behind what is queued.
    queue: Option<Sender<Outgoing>>,
    queued_bytes: Arc<AtomicUsize>,
    stream: TcpStream,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Arc<[u8]>,
    counted: bool,
}

impl Unicast {
    /// Listens on `listen` and puts what happens there into `inbox`.
    ///
    /// # Errors
    /// [`StartUnicastError`].
    pub fn start(
        listen: SocketAddr,
        inbox: Inbox,
        clock: Clock,
    ) -> Result<Self, StartUnicastError> {
        let failed = |source| StartUnicastError { listen, source };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            inbox,
            clock,
            connections: Mutex::default(),
            refused: Mutex::default(),
            refused_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
        });
        let (stop, stopped) = bounded(1);
        let accepting = listener.try_clone().map_err(failed)?;
        let for_thread = Arc::clone(&shared);
        let acceptor = spawn("accept", move || accept(&accepting, &for_thread, &stopped));
        Ok(Self {
            shared,
            listener,
            address,
            stop,
            acceptor: acceptor.map_err(failed)?,
        })
    }

    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what it has counted since it started.
    pub fn counters(&self) -> UnicastCounters {
        UnicastCounters {
            refused_total: self.shared.refused_total.load(Ordering::Relaxed),
            dropped_total: self.shared.dropped_total.load(Ordering::Relaxed),
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
            drop(connection.stream.shutdown(Shutdown::Both));
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
        self.stop.try_send(()).ok();
        drop(SockRef::from(&self.listener).shutdown(Shutdown::Both));
    }

    /// Closes every connection and waits for the acceptor.
    pub fn stop(self) {
        self.stop_accepting();
        self.shared.connections().clear();
        // It only ends early if it panicked, and said so then.
        drop(self.acceptor.join());
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
}

/// The core takes no more.
struct Ended;

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.stack_size(STACK_BYTES).spawn(body)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, stopped: &Receiver<()>) {
    for number in 1.. {
        let accepted = listener.accept();
        if stopped.try_recv().is_ok() {
            return;
        }
        let opened = accepted.and_then(|(stream, address)| {
            let address = address.to_string();
            if shared.connections().len() >= PEERS_MAX {
                shared.refuse(address, format!("{PEERS_MAX} connections are open"));
                return Ok(());
            }
            open(Peer(number), stream, address, shared)
        });
        if let Err(error) = opened {
            if let Some(suppressed) = shared.permit() {
                event::emit(&Event::AcceptFailed {
                    reason: error.to_string(),
                    suppressed,
                });
            }
            if stopped.recv_timeout(ACCEPT_PAUSE).is_ok() {
                return;
            }
        }
    }
}

fn open(peer: Peer, stream: TcpStream, address: String, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_IDLE)
        .with_interval(KEEP_ALIVE_EVERY)
        .with_retries(KEEP_ALIVE_RETRIES);
    SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    let (queue, outgoing) = bounded(QUEUE_MAX);
    let queue = Some(queue);
    let queued_bytes = Arc::<AtomicUsize>::default();
    let (reading, writing) = (stream.try_clone()?, stream.try_clone()?);
    let for_writer = (Arc::clone(shared), Arc::clone(&queued_bytes));
    spawn("write", move || {
        let (shared, queued_bytes) = for_writer;
        write(peer, &writing, &outgoing, &queued_bytes, &shared);
        // Also wakes the reader, which says to the core that the connection has ended.
        drop(writing.shutdown(Shutdown::Both));
    })?;
    let for_reader = Arc::clone(shared);
    let connection = Connection {
        queue,
        queued_bytes,
        stream,
    };
    shared.connections().insert(peer, connection);
    let reader = spawn("read", move || {
        // Whoever cannot be told has ended: the process is leaving.
        drop(read(peer, reading, address, &for_reader));
        drop(for_reader.connections().remove(&peer));
    });
    reader
        .map(drop)
        .inspect_err(|_| drop(shared.connections().remove(&peer)))
}

fn read(peer: Peer, mut stream: TcpStream, address: String, shared: &Shared) -> Result<(), Ended> {
    let named = address.clone();
    shared.send(Input::Connected { peer, address })?;
    let mut deframer = Deframer::default();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let len = match stream.read(&mut block) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break, // the network's doing; the core says that the node is gone
        };
        deframer.handle_bytes(&block[..len]);
        loop {
            match deframer.poll() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let message = Box::new(message);
                    shared.send(Input::Message { peer, message })?;
                }
                Err(error) => {
                    shared.refuse(named, error.to_string());
                    drop(stream.shutdown(Shutdown::Both));
                    return shared.send(Input::Closed { peer });
                }
            }
        }
    }
    drop(stream.shutdown(Shutdown::Both));
    shared.send(Input::Closed { peer })
}

/// Writes what is queued, several messages at once, until the queue's sender is gone or a write fails.
fn write(
    peer: Peer,
    mut stream: &TcpStream,
    outgoing: &Receiver<Outgoing>,
    queued_bytes: &AtomicUsize,
    shared: &Shared,
) {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while let Ok(first) = outgoing.recv() {
        block.clear();
        let mut counted = 0;
        let mut next = Some(first);
        while let Some(Outgoing {
            bytes,
            counted: counts,
        }) = next
        {
            block.extend_from_slice(&bytes);
            counted += if counts { bytes.len() } else { 0 };
            next = if block.len() < BLOCK_BYTES {
                outgoing.try_recv().ok()
            } else {
                None
            };
        }
        if stream.write_all(&block).is_err() {
            return;
        }
        queued_bytes.fetch_sub(block.len(), Ordering::Relaxed);
        let sent = Input::Sent {
            peer,
            bytes: counted,
        };
        if counted > 0 && shared.send(sent).is_err() {
            return;
        }
        block.shrink_to(BLOCK_BYTES * 2);
    }
}

#[cfg(test)]
mod tests;
