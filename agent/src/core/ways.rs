//! The ways to a master in their order of preference: which one is tried, and when a better one is; it
//! connects nowhere.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use locus_proto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Longest time between two looks whether a better way is open again. Its upper half is drawn from, so that
/// nodes that lost a bus together do not all come at once.
pub const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Longest such time after returns that came to nothing: it doubles with each.
pub const PROBE_EVERY_MAX: Duration = Duration::from_secs(16 * 60);

/// Time after which a return has proved to be none into the void: a way may be open, and take the node in, and
/// yet carry nothing that is large.
pub const PROVED_AFTER: Duration = Duration::from_secs(60);

/// Where a locsvc is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// Through the first Unix socket of a chassis.
    BusA(PathBuf),
    /// Through the second one.
    BusB(PathBuf),
    /// Over the network.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusA(path) => write!(f, "bus A ({})", path.display()),
            Self::BusB(path) => write!(f, "bus B ({})", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The ways, and the one that is tried or followed.
#[derive(Debug)]
pub(super) struct Ways {
    /// At least one; the best first.
    addresses: Vec<Address>,
    current: usize,
    /// When better ones are looked at; `None` while there is none, or nothing is followed.
    probe_at: Option<Timestamp>,
    /// Number of the last look.
    probe: u64,
    /// Whether its answer is still to come.
    is_probing: bool,
    /// What was left for the current one, which a look found open, until that has proved itself.
    left: Option<Left>,
    /// Returns in a row that came to nothing.
    failed: u32,
}

/// A way that served the node when it went to a better one.
#[derive(Debug, Clone, Copy)]
struct Left {
    index: usize,
    at: Timestamp,
}

impl Ways {
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        Self {
            addresses,
            current: 0,
            probe_at: None,
            probe: 0,
            is_probing: false,
            left: None,
            failed: 0,
        }
    }

    pub(super) fn current(&self) -> &Address {
        // The configuration has at least one, and the index is kept below their number.
        &self.addresses[self.current]
    }

    /// The current one has taken the node in.
    pub(super) fn handle_welcomed(&mut self, now: Timestamp, random: &mut Random) {
        self.schedule(now, random);
    }

    /// The connection over the current one has ended, or there was none. One that had not brought the table to
    /// the master's level may lead to a standby, or carry nothing, so the next is tried. From a better way that
    /// is no good it goes straight back to the one that served the node.
    pub(super) fn handle_lost(&mut self, now: Timestamp, has_served: bool) {
        self.prove(now, has_served);
        self.probe_at = None;
        self.is_probing = false;
        if let Some(left) = self.left.take() {
            self.current = left.index;
            self.failed = self.failed.saturating_add(1);
        } else if !has_served {
            self.current = (self.current + 1) % self.addresses.len();
        }
    }

    /// Takes that a return was a good one if the node has been served since for long enough.
    fn prove(&mut self, now: Timestamp, has_served: bool) {
        let proved = |left: &mut Left| has_served && now.since(left.at) >= PROVED_AFTER;
        if self.left.take_if(proved).is_some() {
            self.failed = 0;
        }
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.probe_at
    }

    /// Returns the number of a new look and the ways that are to be looked at, the best first, if it is due;
    /// `is_steady`: the node follows its master and could go.
    pub(super) fn handle_timeout(
        &mut self,
        now: Timestamp,
        is_steady: bool,
        random: &mut Random,
    ) -> Option<(u64, Vec<Address>)> {
        self.probe_at.take_if(|at| *at <= now)?;
        self.prove(now, is_steady);
        self.schedule(now, random);
        if !is_steady || self.is_probing {
            return None;
        }
        self.is_probing = true;
        self.probe += 1;
        Some((self.probe, self.better().to_vec()))
    }

    /// Takes which way a look found open; returns whether it is the current one now.
    pub(super) fn handle_probed(
        &mut self,
        now: Timestamp,
        probe: u64,
        open: Option<&Address>,
        is_steady: bool,
    ) -> bool {
        if probe != self.probe || !std::mem::take(&mut self.is_probing) {
            return false; // of a connection that is no more
        }
        let found = open.and_then(|open| self.better().iter().position(|way| way == open));
        match found {
            Some(index) if is_steady => {
                let (index, at) = (std::mem::replace(&mut self.current, index), now);
                self.left = Some(Left { index, at });
                self.probe_at = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Returns the ways that are better than the current one.
    ///
    /// Of several addresses on the network none is: they may be those of an active and a standby master.
    fn better(&self) -> &[Address] {
        let kind = std::mem::discriminant(self.current());
        let of_kind = |way: &Address| std::mem::discriminant(way) == kind;
        let first = self.addresses.iter().position(of_kind);
        &self.addresses[..first.unwrap_or(0)]
    }

    fn schedule(&mut self, now: Timestamp, random: &mut Random) {
        if self.better().is_empty() {
            return;
        }
        let wait = PROBE_EVERY.saturating_mul(1 << self.failed.min(16));
        let wait = wait.min(PROBE_EVERY_MAX).as_nanos();
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        let wait = random.between(wait / 2, wait);
        self.probe_at = Some(now.plus(Duration::from_nanos(wait)));
    }
}
