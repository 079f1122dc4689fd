//! One reading of the table, and the nodes that share it; it reads no table.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Peer;

/// Number of a reading of the table, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boat(pub u64);

/// A reading of the table that is under way.
#[derive(Debug)]
pub(super) struct Voyage {
    /// Who gets each of its parts; never empty.
    pub(super) passengers: BTreeSet<Peer>,
    /// Whether the first part was asked for.
    begun: bool,
    /// Whether a part was asked for and has not come.
    reading: bool,
    /// One that had no room when that was looked at last.
    pub(super) awaits: Option<Peer>,
    /// It was split off for those who were too slow for another one.
    pub(super) slow: bool,
}

impl Voyage {
    pub(super) fn new(passengers: BTreeSet<Peer>) -> Self {
        Self {
            passengers,
            begun: false,
            reading: false,
            awaits: None,
            slow: false,
        }
    }

    /// Splits off some, where this one is; it must not be reading.
    pub(super) fn split(&mut self, passengers: BTreeSet<Peer>) -> Self {
        self.passengers.retain(|peer| !passengers.contains(peer));
        Self {
            passengers,
            begun: self.begun,
            reading: false,
            awaits: None,
            slow: true,
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Asks for the next part; returns whether it is the first.
    pub(super) fn read(&mut self) -> bool {
        self.reading = true;
        !std::mem::replace(&mut self.begun, true)
    }

    /// Takes the word that a part has come; returns whether it was asked for.
    pub(super) fn take_read(&mut self) -> bool {
        std::mem::take(&mut self.reading)
    }
}
