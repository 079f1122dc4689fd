//! What one worker counted; it reports to nobody.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stat {
    /// Look-ups that found contacts.
    Found,
    /// Look-ups without a record or with none that has not expired.
    Absent,
    /// Look-ups whose contacts do not accept the method.
    MethodNotSupported,
    /// Look-ups and routes that the table could not answer.
    Unavailable,
    /// Records that could not be decoded.
    Malformed,
    /// Numbers that were routed.
    Routed,
    /// Numbers without a route.
    NotRouted,
}

impl Stat {
    /// All, in the order of their places.
    pub const ALL: [Self; 7] = [
        Self::Found,
        Self::Absent,
        Self::MethodNotSupported,
        Self::Unavailable,
        Self::Malformed,
        Self::Routed,
        Self::NotRouted,
    ];

    /// Returns the counter's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found_total",
            Self::Absent => "absent_total",
            Self::MethodNotSupported => "method_not_supported_total",
            Self::Unavailable => "unavailable_total",
            Self::Malformed => "malformed_total",
            Self::Routed => "routed_total",
            Self::NotRouted => "not_routed_total",
        }
    }
}

/// Counters since the worker started; each of its own word.
#[derive(Debug, Default)]
pub struct Stats([AtomicU64; Stat::ALL.len()]);

impl Stats {
    pub(crate) fn count(&self, stat: Stat) {
        for (counter, candidate) in self.0.iter().zip(Stat::ALL) {
            if candidate == stat {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns a counter's value.
    pub fn get(&self, stat: Stat) -> u64 {
        let found = self
            .0
            .iter()
            .zip(Stat::ALL)
            .find(|(_, candidate)| *candidate == stat);
        found.map_or(0, |(counter, _)| counter.load(Ordering::Relaxed))
    }
}
