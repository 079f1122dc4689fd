//! Accepted → visible over all (update, node) pairs, at several rates of loss in turn.

use std::time::Duration;

use locus_bench::{Appends, folder_bytes};
use locus_lab::{Durations, Fleet, Traffic, milliseconds};

use crate::fleet::{API, total, wait_level};
use crate::load::{self, Sent};
use crate::watch::{self, Watch};
use crate::wire::Wire;
use crate::{fleet, theory};

/// Rates of loss in datagrams of 1,000.
pub(crate) const LOSSES: [u16; 4] = [0, 10, 50, 200];
/// Updates a second.
pub(crate) const PER_SECOND: usize = 10_000;
/// Appends between two runs, alone on the disk.
const APPENDS: usize = 100;

/// All runs at one rate of loss.
#[derive(Debug, Default)]
pub(crate) struct AtLoss {
    /// By run.
    times: Vec<Durations>,
    pub(crate) missing: usize,
    pub(crate) updates: usize,
    pub(crate) late: usize,
    took: Duration,
    datagram_bytes: u64,
    wire_bytes: u64,
    pub(crate) nacks: u64,
    pub(crate) lost: u64,
}

impl AtLoss {
    /// Median over the runs of this quantile of each: a machine that stood still once spoils one run.
    pub(crate) fn quantile(&self, per_cent: usize) -> Duration {
        let runs: Durations = self
            .times
            .iter()
            .map(|run| run.quantile(per_cent))
            .collect();
        runs.quantile(50)
    }

    /// The p99 of each run.
    fn p99s(&self) -> Vec<f64> {
        let runs = self.times.iter().map(|run| milliseconds(run.quantile(99)));
        runs.map(|ms| (ms * 100.0).round() / 100.0).collect()
    }

    pub(crate) fn pairs(&self) -> usize {
        self.times.iter().map(Durations::count).sum::<usize>() + self.missing
    }

    pub(crate) fn per_second(&self) -> f64 {
        locus_bench::float(self.updates) / self.took.as_secs_f64()
    }

    /// Bytes that the sender gave to its sockets over the encoded records.
    pub(crate) fn bytes_per_payload(&self) -> f64 {
        theory::ratio(self.datagram_bytes, theory::payload(self.updates))
    }

    /// The same on the wire, with all headers.
    pub(crate) fn wire_per_payload(&self) -> f64 {
        theory::ratio(self.wire_bytes, theory::payload(self.updates))
    }

    /// Takes in one run of `length`; the fleet is level before and after.
    fn run(&mut self, fleet: &Fleet, per_mille: u16, length: Duration, turn: usize) -> Sent {
        let hosts = fleet.agents.iter().filter(|agent| agent.runs());
        let hosts: Vec<_> = hosts.map(|agent| agent.namespace().clone()).collect();
        if per_mille > 0 {
            for host in &hosts {
                host.lose(Traffic::Udp, per_mille);
            }
        }
        let (nacks, lost) = (total(fleet, "nacks_total"), total(fleet, "lost_total"));
        let watch = Watch::start(fleet::tables(fleet));
        let sender = fleet.locsvc.namespace();
        let before = Wire::read(sender);
        let sent = load::run(sender, API, PER_SECOND, length, turn);
        wait_level(fleet, sent.level());
        let after = Wire::read(sender);
        let seen = watch.finish();
        self.nacks += total(fleet, "nacks_total") - nacks;
        self.lost += total(fleet, "lost_total") - lost;
        if per_mille > 0 {
            for host in &hosts {
                host.lose_nothing();
            }
        }
        self.wire_bytes += after.since(before);
        self.datagram_bytes += after.datagram_bytes_since(before);
        let mut times = Vec::new();
        for (level, updates, begun) in &sent.requests {
            for seen in &seen {
                match watch::when(seen, *level) {
                    Some(at) => {
                        let took = at.saturating_duration_since(*begun);
                        times.extend(std::iter::repeat_n(took, *updates));
                    }
                    None => self.missing += updates,
                }
            }
        }
        self.times.push(times.into_iter().collect());
        self.updates += sent.updates();
        self.late += sent.late;
        self.took += sent.took;
        sent
    }
}

/// Measures all rates of loss, in turn, `rounds` times; returns them and what a bare append costs.
pub(crate) fn measure(fleet: &Fleet, rounds: usize, length: Duration) -> (Vec<AtLoss>, Durations) {
    let mut all: Vec<AtLoss> = LOSSES.iter().map(|_| AtLoss::default()).collect();
    let mut appends = Appends::create(&fleet.lab.subfolder("append").join("file"));
    for round in 0..rounds {
        for (number, (per_mille, at_loss)) in LOSSES.iter().zip(&mut all).enumerate() {
            let before = folder_bytes(fleet.locsvc.data());
            let turn = 1 + round * LOSSES.len() + number;
            let sent = at_loss.run(fleet, *per_mille, length, turn);
            let grown = folder_bytes(fleet.locsvc.data()).saturating_sub(before);
            let bytes = usize::try_from(grown).unwrap_or(0) / sent.requests.len().max(1);
            appends.run(APPENDS, bytes.max(1));
            fleet.wait_equal();
        }
    }
    (all, appends.finish())
}

/// Prints a line of the table.
pub(crate) fn row(per_mille: u16, at_loss: &AtLoss) -> String {
    let max = at_loss.times.iter().map(Durations::max).max();
    format!(
        "  {:>4} %   {:>8} pairs, {} missing   p50 {:6.2}   p99 {:6.2} {:?}   max {:7.2} ms   bytes/payload {:.3} (wire {:.3})   {} NACKs",
        f64::from(per_mille) / 10.0,
        at_loss.pairs(),
        at_loss.missing,
        milliseconds(at_loss.quantile(50)),
        milliseconds(at_loss.quantile(99)),
        at_loss.p99s(),
        milliseconds(max.unwrap_or_default()),
        at_loss.bytes_per_payload(),
        at_loss.wire_per_payload(),
        at_loss.nacks,
    )
}
