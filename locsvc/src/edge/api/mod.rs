//! The HTTP/JSON API: one thread with a small tokio runtime, asking the core through an [`ApiPort`]; it
//! decides nothing about records.
//!
//! On loopback it speaks plain HTTP to anybody. Beyond it, it speaks TLS with holders of a certificate of the
//! cluster, and each request needs a role (`caller`).
//!
//! Paths stand in `routes`, bodies and answers in `json` and `report`; every error is
//! `{"error":"a sentence that says what to do","code":"snake_case"}` (`fault`).

mod body;
mod caller;
mod counters;
mod fault;
mod json;
mod report;
mod routes;
mod serve;
mod stall;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{ApiPort, Security};
pub use counters::ApiCounters;
use counters::Counters;

/// Most bytes of a request's body. 1,024 changes of a few contacts fit; the core refuses what a frame
/// cannot hold.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most connections at a time; more wait in the kernel's queue, or behind their handshake, until one ends.
const CONNECTIONS_MAX: usize = 128;
/// Most requests that wait for a level at a time, so that waiting leaves connections for working.
const WAITS_MAX: usize = 32;
/// Longest wait for a level that one request may ask for. Clients give up after 30 s as a rule: ours
/// is the first word.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// Longest time that one audit may be given. A node reads all of its memory again, which takes seconds for
/// each ten million records, and more on a busy machine.
const AUDIT_MAX: Duration = Duration::from_secs(600);
/// Bytes of a request's head, path included.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body that is too large which are read and dropped, so that the client, still sending, gets
/// to read why.
const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A request's head has to arrive within this time, and a kept connection ends after it.
/// Twenty seconds: HTTP clients reuse connections idle for up to 15 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A request's body has to arrive within this time: 1 MiB needs less than 1 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most TLS handshakes under way.
const HANDSHAKES_MAX: usize = 64;
/// Time for a TLS handshake, and to get a place behind it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client has to take some of an answer within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The core answers within this time unless its disk hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// What has begun when the API stops has this time to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits above, which tests shorten.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    waits: usize,
    handshakes: usize,
    handshake_timeout: Duration,
    head_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    answer_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            waits: WAITS_MAX,
            handshakes: HANDSHAKES_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            head_timeout: HEAD_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

/// Why the API did not start. The operator has to change the configuration or the machine.
#[derive(Debug, thiserror::Error)]
pub enum StartApiError {
    /// The address cannot be had.
    #[error("cannot listen for the API on {listen} (api.listen)")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread or no event queue.
    #[error("cannot start the API's thread")]
    Thread(#[source] io::Error),
}

/// The running API. Dropping it is [`Self::stop`].
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Listens on `listen` and answers from now on.
    ///
    /// On a loopback address it speaks plain HTTP to anybody. Beyond it, `security` says whether callers show
    /// a certificate and need a role.
    ///
    /// # Errors
    /// [`StartApiError::Bind`] when the address is taken or not of this machine.
    pub fn start(
        listen: SocketAddr,
        security: Security,
        port: ApiPort,
    ) -> Result<Self, StartApiError> {
        let is_loopback = listen.ip().to_canonical().is_loopback();
        let security = if is_loopback {
            Security::Insecure
        } else {
            security
        };
        Self::start_with(listen, security, port, Limits::default())
    }

    fn start_with(
        listen: SocketAddr,
        security: Security,
        port: ApiPort,
        limits: Limits,
    ) -> Result<Self, StartApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartApiError::Thread)?;
        let (listener, address) = runtime
            .block_on(async {
                let listener = TcpListener::bind(listen).await?;
                let address = listener.local_addr()?;
                Ok((listener, address))
            })
            .map_err(|source| StartApiError::Bind { listen, source })?;
        let counters = Arc::<Counters>::default();
        let shared = serve::Shared::new(port, security, limits, Arc::clone(&counters));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || runtime.block_on(serve::serve(listener, shared, stopped)))
            .map_err(StartApiError::Thread)?;
        Ok(Self {
            address,
            counters,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the address it listens on; the port is the real one when `listen` had none.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what it has counted since it started.
    pub fn counters(&self) -> ApiCounters {
        self.counters.read()
    }

    /// Takes no more requests, gives what has begun a second to end, then ends the thread; returns what
    /// was counted. The core has to live until then.
    pub fn stop(self) -> ApiCounters {
        let counters = Arc::clone(&self.counters);
        drop(self);
        counters.read()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok(); // it has ended by itself otherwise
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok(); // the panic hook has told of a panic
        }
    }
}
