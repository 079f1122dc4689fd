//! How much goes through: bytes of the sender for so many nodes, the highest rate, and overload.

use std::time::Duration;

use locus_lab::Fleet;

use crate::fleet::{self, API, total, wait_level};
use crate::load;
use crate::theory;
use crate::watch::Watch;
use crate::wire::Wire;

/// What the sender sent for a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes {
    /// By its sockets, over the encoded records; all counted as UDP, so for a group only.
    pub(crate) per_payload: f64,
    /// On the wire, all headers included, over the encoded records.
    pub(crate) wire_per_payload: f64,
}

/// Sends `per_second` updates for `length` and returns what the sender sent.
pub(crate) fn bytes(fleet: &Fleet, per_second: usize, length: Duration, turn: usize) -> Bytes {
    let sender = fleet.locsvc.namespace();
    let before = Wire::read(sender);
    let sent = load::run(sender, API, per_second, length, turn);
    wait_level(fleet, sent.level());
    let after = Wire::read(sender);
    fleet.wait_equal();
    let payload = theory::payload(sent.updates());
    Bytes {
        per_payload: theory::ratio(after.datagram_bytes_since(before), payload),
        wire_per_payload: theory::ratio(after.since(before), payload),
    }
}

/// One step of a ramp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) asked: usize,
    /// Updates a second that were really accepted.
    pub(crate) reached: f64,
    /// Datagrams that nodes did not get at first.
    pub(crate) lost: u64,
}

/// Raises the rate until a datagram is lost, or the rate is not kept any more.
pub(crate) fn ramp(fleet: &Fleet, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    for asked in [10_000, 15_000, 20_000, 30_000, 45_000, 65_000, 100_000] {
        let lost = total(fleet, "lost_total");
        let sent = load::run(fleet.locsvc.namespace(), API, asked, length, 200);
        wait_level(fleet, sent.level());
        let reached = locus_bench::float(sent.updates()) / sent.took.as_secs_f64();
        let step = Step {
            asked,
            reached,
            lost: total(fleet, "lost_total") - lost,
        };
        steps.push(step);
        fleet.wait_equal();
        if step.lost > 0 || reached < locus_bench::float(asked) * 0.9 {
            break;
        }
    }
    steps
}

/// What became of a load that the nodes cannot take.
#[derive(Debug, Clone)]
pub(crate) struct Overload {
    /// Levels that the slowest node gained, second by second.
    pub(crate) goodput: Vec<u64>,
    /// Updates a second that the master took.
    pub(crate) accepted: f64,
    pub(crate) nacks: u64,
    pub(crate) wire_per_payload: f64,
    /// Nodes still served by multicast when the load ended.
    pub(crate) in_group: usize,
}

/// Sends far more than so many agents on one machine can take.
pub(crate) fn overload(fleet: &Fleet, per_second: usize, length: Duration) -> Overload {
    let nacks = total(fleet, "nacks_total");
    let watch = Watch::start(fleet::tables(fleet));
    let sender = fleet.locsvc.namespace();
    let (before, begun) = (Wire::read(sender), locus_lab::wait::now());
    let sent = load::run(sender, API, per_second, length, 300);
    let after = Wire::read(sender);
    let nodes = fleet.locsvc.nodes();
    let in_group = nodes
        .iter()
        .filter(|node| node["path"] == "multicast")
        .count();
    let seen = watch.finish();
    let level_at = |seen: &crate::watch::Seen, second: u64| {
        let until = begun + Duration::from_secs(second);
        let at = seen.partition_point(|(_, when)| *when <= until);
        at.checked_sub(1).map_or(0, |at| seen[at].0)
    };
    let slowest = |second| {
        seen.iter()
            .map(|seen| level_at(seen, second))
            .min()
            .unwrap_or(0)
    };
    let goodput = (1..=length.as_secs())
        .map(|second| slowest(second).saturating_sub(slowest(second - 1)))
        .skip(1) // the first second begins before the first look
        .collect();
    wait_level(fleet, sent.level());
    fleet.wait_equal();
    Overload {
        goodput,
        accepted: locus_bench::float(sent.updates()) / sent.took.as_secs_f64(),
        in_group,
        nacks: total(fleet, "nacks_total") - nacks,
        wire_per_payload: theory::ratio(after.since(before), theory::payload(sent.updates())),
    }
}
