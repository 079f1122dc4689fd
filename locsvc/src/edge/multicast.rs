//! The group's socket: sealed datagrams out, what nodes miss in. It opens no seal.

mod socket;

pub use socket::{GroupSocket, StartMulticastError};

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use locus_distribution::{GroupDatagram, GroupTarget};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::port::{Arrival, Inbox};
use crate::clock::Clock;
use crate::core::Input;
use crate::event::{self, Event, Limiter};

/// Longest datagram that a node sends: a NACK of 40 ranges has 32 + 1 + 400 + 16 bytes.
const NODE_DATAGRAM_BYTES_MAX: usize = 512;
/// Most datagrams in one input: the core takes them together.
const DATAGRAMS_MAX: usize = 32;
/// Most such inputs that wait for the core. More is lost: nodes ask again.
const WAITING_MAX: usize = 64;
/// Longest time in which the reader does not look whether it shall end.
const STOP_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Pause after a failure of the socket, so that a broken one takes no processor.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 128 * 1024;
/// Counts since the socket was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MulticastCounters {
    /// Datagrams handed to the system.
    pub sent_total: u64,
    /// Bytes in them.
    pub sent_bytes_total: u64,
    /// Datagrams lost because the system's buffer was full; nodes ask for them.
    pub full_total: u64,
    /// Datagrams that the system refused.
    pub failed_total: u64,
    /// Datagrams of nodes that were handed to the core.
    pub received_total: u64,
    /// Datagrams lost because too many waited for the core; nodes send them again.
    pub dropped_total: u64,
    /// Datagrams that are too long to be a node's.
    pub oversized_total: u64,
}

/// The group's socket and its reader.
#[derive(Debug)]
pub struct Multicast {
    shared: Arc<Shared>,
    group: SocketAddr,
    stop: Sender<()>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    inbox: Inbox,
    clock: Clock,
    /// Inputs that the core has not taken yet.
    waiting: AtomicUsize,
    failed: Mutex<Limiter>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    full: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    oversized: AtomicU64,
}

impl Multicast {
    /// Serves the group; what nodes send goes into `inbox`.
    ///
    /// # Errors
    /// [`StartMulticastError::Socket`]: no thread.
    pub fn start(
        socket: GroupSocket,
        inbox: Inbox,
        clock: Clock,
    ) -> Result<Self, StartMulticastError> {
        let group = socket.group;
        let shared = Arc::new(Shared {
            socket: socket.socket,
            inbox,
            clock,
            waiting: AtomicUsize::new(0),
            failed: Mutex::default(),
            counters: Counters::default(),
        });
        let for_reader = Arc::clone(&shared);
        let (stop, stopped) = bounded(1);
        let reader = thread::Builder::new()
            .name("group".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || for_reader.read(&stopped))
            .map_err(|source| StartMulticastError::Socket { group, source })?;
        Ok(Self {
            shared,
            group,
            stop,
            reader,
        })
    }

    /// Sends one datagram; never waits. What cannot be sent is lost on the way, as far as nodes can tell.
    pub fn transmit(&self, datagram: &GroupDatagram) {
        let to = match datagram.to {
            GroupTarget::Group => self.group,
            GroupTarget::Node(address) => address,
        };
        let counters = &self.shared.counters;
        let len = datagram.bytes.len();
        match self.shared.socket.send_to(&datagram.bytes, to) {
            Ok(_) => {
                counters.sent.fetch_add(1, Ordering::Relaxed);
                let bytes = u64::try_from(len).unwrap_or(u64::MAX);
                counters.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) if is_full(&error) => {
                counters.full.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                self.shared.say_failed(&format!("to {to}"), &error);
            }
        }
    }

    /// The core has taken an [`Input::Datagrams`].
    pub fn taken(&self) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns what it has counted since it started.
    pub fn counters(&self) -> MulticastCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        MulticastCounters {
            sent_total: read(&counters.sent),
            sent_bytes_total: read(&counters.sent_bytes),
            full_total: read(&counters.full),
            failed_total: read(&counters.failed),
            received_total: read(&counters.received),
            dropped_total: read(&counters.dropped),
            oversized_total: read(&counters.oversized),
        }
    }

    /// Ends the reader.
    pub fn stop(self) {
        drop(self.stop);
        // It only ends early if it panicked, and said so then.
        drop(self.reader.join());
    }
}

fn is_full(error: &io::Error) -> bool {
    let no_buffers = rustix::io::Errno::NOBUFS.raw_os_error();
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(no_buffers)
}

impl Shared {
    fn read(&self, stopped: &Receiver<()>) {
        let mut block = [0; NODE_DATAGRAM_BYTES_MAX + 1];
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let mut readable = [PollFd::new(&self.socket, PollFlags::IN)];
            // A signal, or nothing came: look again whether to end.
            if !matches!(poll(&mut readable, Some(&STOP_LOOK)), Ok(1..)) {
                continue;
            }
            let mut datagrams = Vec::new();
            while datagrams.len() < DATAGRAMS_MAX {
                match self.socket.recv_from(&mut block) {
                    Ok((len, _)) if len > NODE_DATAGRAM_BYTES_MAX => {
                        self.counters.oversized.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok((len, from)) => datagrams.push((from, block[..len].to_vec())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.say_failed("cannot be read", &error);
                        stopped.recv_timeout(FAILURE_PAUSE).ok();
                        break;
                    }
                }
            }
            if !datagrams.is_empty() && self.hand_over(datagrams).is_err() {
                return;
            }
        }
    }

    /// Hands datagrams to the core, unless too many wait for it; the error says that it has ended.
    fn hand_over(&self, datagrams: Vec<(SocketAddr, Vec<u8>)>) -> Result<(), ()> {
        let count = u64::try_from(datagrams.len()).unwrap_or(u64::MAX);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            let input = Input::Datagrams(datagrams);
            match self.inbox.try_send(Arrival::Input(input)) {
                Ok(()) => {
                    self.counters.received.fetch_add(count, Ordering::Relaxed);
                    return Ok(());
                }
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Err(()),
            }
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.counters.dropped.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    fn say_failed(&self, what: &str, error: &io::Error) {
        let mut limiter = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = limiter.permit(self.clock.now()) {
            event::emit(&Event::GroupFailed {
                reason: format!("{what}: {error}"),
                suppressed,
            });
        }
    }
}

#[cfg(test)]
mod tests;
