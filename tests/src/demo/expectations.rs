//! The one table of what the demo expects; every number that decides about success stands here.

use std::time::Duration;

/// How much is done, and what must come out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expectations {
    /// Addresses-of-record provisioned through the API.
    pub(crate) provisioned: usize,
    /// Subscribers registered by sipp, with 1, 2, 3, 1, … phones.
    pub(crate) subscribers: usize,
    /// Rounds of calls in scene `calls`; each round calls every subscriber once, half by each role.
    pub(crate) rounds: usize,
    /// Calls per second and role.
    pub(crate) rate: u32,
    /// Expiry of every registration before locsvc is stopped …
    pub(crate) short_expiry: Duration,
    /// … which lasts longer than that.
    pub(crate) outage: Duration,
    /// Records changed after the outage.
    pub(crate) changes: usize,
    /// Greatest difference in levels that is sent as a delta (`distribution.reload_above`).
    pub(crate) reload_above: usize,
    /// Accepted to visible on both nodes, p99, while records change one by one.
    pub(crate) visible_p99_max: Duration,
    /// Return of an agent to coherent, delta or full reload.
    pub(crate) return_max: Duration,
    /// The whole demo.
    pub(crate) duration_max: Duration,
}

/// The demo that `make demo` runs.
pub(crate) const FULL: Expectations = Expectations {
    provisioned: 10_000,
    subscribers: 200,
    rounds: 5,
    rate: 50,
    short_expiry: Duration::from_secs(30),
    outage: Duration::from_secs(34),
    changes: 1_000,
    reload_above: 5_000,
    visible_p99_max: Duration::from_millis(100),
    return_max: Duration::from_secs(10),
    duration_max: Duration::from_secs(300),
};

/// The demo that ends `make test`: the same scenes, fewer calls, a shorter outage.
pub(crate) const QUICK: Expectations = Expectations {
    rounds: 1,
    rate: 100,
    short_expiry: Duration::from_secs(7),
    outage: Duration::from_secs(8),
    duration_max: Duration::from_secs(60),
    ..FULL
};
