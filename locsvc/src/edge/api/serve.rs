//! Accepts connections, at most so many, and lets none of them hold the server; it knows no path.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::counters::Counters;
use super::stall::Impatient;
use super::{HEAD_BYTES_MAX, Limits, STOP_TIMEOUT, routes};
use crate::edge::ApiPort;

/// Pause after a connection could not be accepted: no file descriptor is free, and none will be at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) port: ApiPort,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    /// Places for requests that wait for a level.
    pub(super) waits: Semaphore,
}

impl Shared {
    pub(super) fn new(port: ApiPort, limits: Limits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            port,
            limits,
            counters,
            waits: Semaphore::new(limits.waits),
        })
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
        let next = next(&listener, &places, &shared.counters);
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = &mut stop => break,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let connection = connection(stream, router.clone(), Arc::clone(&shared), stopped.clone());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    drop(stopping); // every connection sees it
    let all = u32::try_from(shared.limits.connections).unwrap_or(u32::MAX);
    timeout(STOP_TIMEOUT, places.acquire_many(all)).await.ok(); // who is not served by then is cut
}

/// Returns the next connection with its place; waits for a place first.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    counters: &Counters,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    if places.available_permits() == 0 {
        counters.connections_full.add_one();
    }
    let place = Arc::clone(places).acquire_owned().await.ok()?;
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

async fn connection(
    stream: TcpStream,
    router: Router,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<()>,
) {
    stream.set_nodelay(true).ok(); // costs time, not truth
    let counters = Arc::clone(&shared.counters);
    let stream = Impatient::new(stream, shared.limits.write_timeout, Arc::clone(&counters));
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
