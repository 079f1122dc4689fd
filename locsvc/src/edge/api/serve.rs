//! Accepts connections, at most so many, and lets none of them hold the server; it knows no path.
//!
//! Beyond loopback each begins with a TLS handshake, whose places are apart from those of the known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use locus_identity::peer_identity;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::caller::{Caller, Known};
use super::counters::Counters;
use super::stall::Impatient;
use super::{HEAD_BYTES_MAX, Limits, STOP_TIMEOUT, routes};
use crate::edge::handshakes::Handshakes;
use crate::edge::{ApiPort, Security};
use crate::event::Limiter;

/// Pause after a connection could not be accepted: no file descriptor is free, and none will be at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the other side to take notice that it was refused, and how much is read meanwhile.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
const FAREWELL_READS_MAX: usize = 16;
/// Lines about changes of records, a second: an operator's are all said, a program's are counted.
const CHANGE_LINES_MAX: u32 = 5;
/// Lines about requests that only an admin may make, a second.
const ADMIN_LINES_MAX: u32 = 20;
/// Lines about requests that were refused, a second: whoever may do nothing here must not hide what was done.
const REFUSAL_LINES_MAX: u32 = 5;
/// Most connections of holders of a certificate that gives no rights here, nodes and switches: enough to tell
/// them so.
pub(super) const RIGHTLESS_MAX: usize = 4;

/// What a line about a request is about; each kind has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Records were changed, which programs do by the thousand.
    Change,
    /// What only an admin may do was done.
    Admin,
    /// Somebody was refused.
    Refusal,
}

#[derive(Debug)]
struct Lines {
    changes: Limiter,
    admins: Limiter,
    refusals: Limiter,
}

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) port: ApiPort,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    /// Places for requests that wait for a level.
    pub(super) waits: Semaphore,
    /// Who callers have to be; nobody in particular on loopback.
    pub(super) security: Security,
    handshakes: Handshakes,
    /// Places of those who have no rights here: they take nobody else's.
    rightless: Arc<Semaphore>,
    lines: Mutex<Lines>,
}

impl Shared {
    pub(super) fn new(
        port: ApiPort,
        security: Security,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            port,
            limits,
            counters,
            waits: Semaphore::new(limits.waits),
            security,
            handshakes: Handshakes::new(limits.handshakes),
            rightless: Arc::new(Semaphore::new(RIGHTLESS_MAX)),
            lines: Mutex::new(Lines {
                changes: Limiter::per_second(CHANGE_LINES_MAX),
                admins: Limiter::per_second(ADMIN_LINES_MAX),
                refusals: Limiter::per_second(REFUSAL_LINES_MAX),
            }),
        })
    }

    /// Returns how many lines of this kind were left out, if one may be said now.
    pub(super) fn permit_line(&self, line: Line) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter = match line {
            Line::Change => &mut lines.changes,
            Line::Admin => &mut lines.admins,
            Line::Refusal => &mut lines.refusals,
        };
        limiter.permit(self.port.now())
    }
}

/// Serves until `stop` fires or is dropped, then gives what has begun [`STOP_TIMEOUT`] to end.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stop: oneshot::Receiver<()>,
) {
    let router = routes::router(Arc::clone(&shared));
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let (stopping, stopped) = watch::channel(());
    loop {
        let next = next(&listener, &places, &shared);
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = &mut stop => break,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let (router, shared) = (router.clone(), Arc::clone(&shared));
        let (places, stopped) = (Arc::clone(&places), stopped.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).ok(); // costs time, not truth
            let counters = Arc::clone(&shared.counters);
            let stream = Impatient::new(stream, shared.limits.write_timeout, counters);
            match place {
                Some(place) => {
                    let router = router.layer(Extension(Caller::Unknown));
                    connection(stream, router, &shared, stopped).await;
                    drop(place);
                }
                None => {
                    let Some((stream, caller, place)) = known(stream, &shared, &places).await
                    else {
                        return;
                    };
                    let router = router.layer(Extension(caller));
                    connection(stream, router, &shared, stopped).await;
                    drop(place);
                }
            }
        });
    }
    drop(listener);
    drop(stopping); // every connection sees it
    let all = u32::try_from(shared.limits.connections).unwrap_or(u32::MAX);
    timeout(STOP_TIMEOUT, places.acquire_many(all)).await.ok(); // who is not served by then is cut
}

/// Returns the next connection with its place, for which it waits first; without one where the place is given
/// only to those who have shown who they are.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    shared: &Shared,
) -> Option<(TcpStream, Option<OwnedSemaphorePermit>)> {
    let counters = &shared.counters;
    let place = match shared.security {
        Security::Identity(_) => None,
        Security::Insecure => {
            if places.available_permits() == 0 {
                counters.connections_full.add_one();
            }
            Some(Arc::clone(places).acquire_owned().await.ok()?)
        }
    };
    match listener.accept().await {
        Ok((stream, _)) => {
            counters.connections.add_one();
            Some((stream, place))
        }
        Err(_) => {
            counters.accept_failed.add_one();
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Shakes hands: returns the stream with its caller and their place, within [`Limits::handshake_timeout`].
async fn known(
    stream: Impatient,
    shared: &Shared,
    places: &Arc<Semaphore>,
) -> Option<(TlsStream<Impatient>, Caller, OwnedSemaphorePermit)> {
    let Security::Identity(identity) = &shared.security else {
        return None;
    };
    let counters = &shared.counters;
    let (end, ended) = oneshot::channel();
    let now = shared.port.now();
    let end = move || {
        end.send(()).ok(); // it has ended by itself otherwise
    };
    let Some(guest) = shared.handshakes.begin(now, end) else {
        counters.handshakes_crowded.add_one();
        return None;
    };
    let config = identity.api();
    let shake = async {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((_, stream)) => {
                farewell(stream).await;
                return None;
            }
        };
        let (_, session) = stream.get_ref();
        let peer = peer_identity(session.peer_certificates()?).ok()?;
        let caller = Caller::Known(Arc::new(Known::new(peer, Arc::clone(&config))));
        let has_rights = caller.has_rights();
        let places = if has_rights {
            places
        } else {
            &shared.rightless
        };
        if places.available_permits() == 0 {
            counters.connections_full.add_one();
        }
        let place = if has_rights {
            Arc::clone(places).acquire_owned().await.ok()?
        } else {
            Arc::clone(places).try_acquire_owned().ok()?
        };
        Some((stream, caller, place))
    };
    let shaken = tokio::select! {
        shaken = timeout(shared.limits.handshake_timeout, shake) => shaken.ok().flatten(),
        _ = ended => {
            counters.handshakes_crowded.add_one();
            return None;
        }
    };
    drop(guest);
    if shaken.is_none() {
        counters.handshakes_failed.add_one();
    }
    shaken
}

/// Lets the other side read why it was refused: a socket that is closed while bytes lie unread in it is reset,
/// and the reset overtakes the alert.
async fn farewell(mut stream: Impatient) {
    let mut waste = [0; 4096];
    let read = async {
        stream.shutdown().await.ok()?;
        for _ in 0..FAREWELL_READS_MAX {
            if stream.read(&mut waste).await.ok()? == 0 {
                break;
            }
        }
        Some(())
    };
    timeout(FAREWELL_MAX, read).await.ok(); // it has had its time
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    shared: &Shared,
    mut stopped: watch::Receiver<()>,
) {
    let counters = &shared.counters;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match ended {
        Err(error) if error.is_timeout() => counters.head_timeouts.add_one(),
        Err(error) if error.is_parse() => counters.malformed.add_one(),
        Err(_) | Ok(()) => {} // the client went away, or was cut for taking nothing
    }
}
