//! What the API counts instead of logging: a client can make a number rise, never the log; it names no
//! client.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts since the API started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ApiCounters {
    /// Connections accepted.
    pub connections_total: u64,
    /// Times that the limit of connections was reached.
    pub connections_full_total: u64,
    /// Connections that could not be accepted.
    pub accept_failed_total: u64,
    /// Answers given.
    pub answers_total: u64,
    /// Answers that the client has to act on (4xx).
    pub refused_total: u64,
    /// Answers that the operator has to act on (5xx).
    pub failed_total: u64,
    /// Requests that were not HTTP, or whose head was too large.
    pub malformed_total: u64,
    /// Connections cut because no head came in time; idle ones too.
    pub head_timeouts_total: u64,
    /// Requests refused because their body came too slowly.
    pub body_timeouts_total: u64,
    /// Connections cut because the client took nothing of an answer.
    pub write_timeouts_total: u64,
    /// Requests refused because too many wait for a level.
    pub waits_full_total: u64,
    /// TLS handshakes that failed: no certificate, not one of this cluster, no TLS, or too slow.
    pub handshakes_failed_total: u64,
    /// TLS handshakes refused or ended because too many were under way.
    pub handshakes_crowded_total: u64,
    /// Requests refused because the caller's role does not allow them.
    pub forbidden_total: u64,
}

/// One of [`ApiCounters`], rising from any task.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: Counter,
    pub(super) connections_full: Counter,
    pub(super) accept_failed: Counter,
    pub(super) answers: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) malformed: Counter,
    pub(super) head_timeouts: Counter,
    pub(super) body_timeouts: Counter,
    pub(super) write_timeouts: Counter,
    pub(super) waits_full: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) handshakes_crowded: Counter,
    pub(super) forbidden: Counter,
}

impl Counters {
    pub(super) fn read(&self) -> ApiCounters {
        ApiCounters {
            connections_total: self.connections.read(),
            connections_full_total: self.connections_full.read(),
            accept_failed_total: self.accept_failed.read(),
            answers_total: self.answers.read(),
            refused_total: self.refused.read(),
            failed_total: self.failed.read(),
            malformed_total: self.malformed.read(),
            head_timeouts_total: self.head_timeouts.read(),
            body_timeouts_total: self.body_timeouts.read(),
            write_timeouts_total: self.write_timeouts.read(),
            waits_full_total: self.waits_full.read(),
            handshakes_failed_total: self.handshakes_failed.read(),
            handshakes_crowded_total: self.handshakes_crowded.read(),
            forbidden_total: self.forbidden.read(),
        }
    }
}
