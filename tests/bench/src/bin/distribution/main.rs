//! bench-distribution: from the master's API to the tables of 1, 8 and 32 nodes: time, bytes, repairs, returns.
//! `SCENE=8`, `32` or `cold` plays one part. Only measures.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot measure ends; a table for people"
)]

mod burst;
mod fleet;
mod latency;
mod load;
mod rates;
mod returns;
mod theory;
mod watch;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use locus_bench::{is_quick, load_averages, provision};
use locus_lab::{Figure, Lab, milliseconds, write_figures};

use crate::load::RECORDS;

const MILLION: usize = 1_000_000;
/// Rate at which they cannot.
const TOO_MANY: usize = 60_000;
/// Rate at which 32 agents on one machine can follow.
const SLOW: usize = 2_000;

fn main() -> ExitCode {
    let mut figures = Vec::new();
    let scenes: [(&str, Scene); 3] = [("8", eight), ("32", thirty_two), ("cold", cold)];
    let wanted = std::env::var("SCENE").ok();
    let asked = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    for (_, scene) in scenes.iter().filter(|(name, _)| asked(name)) {
        if scene(&mut figures).is_none() {
            return ExitCode::FAILURE;
        }
    }
    if wanted.is_none() {
        let path = write_figures("bench-distribution", &figures);
        println!("\n  {}", path.display());
    }
    ExitCode::SUCCESS
}

/// Measures and prints; `None` where there can be no lab.
type Scene = fn(&mut Vec<Figure>) -> Option<()>;

fn figure(name: &'static str, value: f64, unit: &'static str, baseline: Option<f64>) -> Figure {
    Figure {
        name,
        value,
        unit,
        baseline,
    }
}

/// Eight nodes, then one of them alone.
fn eight(figures: &mut Vec<Figure>) -> Option<()> {
    let lab = Lab::with_nodes("bench-distribution", 8)?;
    println!("load averages before: {}", load_averages());
    let mut fleet = fleet::prepare(lab, 8, RECORDS * 5 / 4, "size=256m,huge=advise");
    fleet::start(&mut fleet, RECORDS);
    let (rounds, length) = if is_quick() { (1, 1) } else { (5, 2) };
    let length = Duration::from_secs(length);
    println!(
        "\naccepted → visible, 8 nodes, {} updates a second of {} bytes, {rounds} rounds in turn, medians",
        latency::PER_SECOND,
        theory::record_bytes()
    );
    let (all, append) = latency::measure(&fleet, rounds, length);
    let base = all[0].bytes_per_payload();
    let names = [
        "visible_p99_ms_loss0",
        "visible_p99_ms_loss1",
        "visible_p99_ms_loss5",
        "visible_p99_ms_loss20",
    ];
    for ((per_mille, at_loss), name) in latency::LOSSES.iter().zip(&all).zip(names) {
        println!("{}", latency::row(*per_mille, at_loss));
        let theory = theory::transmissions(8, f64::from(*per_mille) / 1_000.0);
        let repaired = at_loss.bytes_per_payload() / base;
        println!(
            "           {:.0} updates a second, {} requests late; bytes over those without loss {repaired:.3}, theory {theory:.3} ({:+.1} %)",
            at_loss.per_second(),
            at_loss.late,
            (repaired / theory - 1.0) * 100.0
        );
        let p99 = milliseconds(at_loss.quantile(99));
        figures.push(figure(
            name,
            p99,
            "ms",
            Some(milliseconds(append.quantile(50))),
        ));
    }
    println!(
        "  append + fdatasync alone: p50 {:.2}   p99 {:.2} ms",
        milliseconds(append.quantile(50)),
        milliseconds(append.quantile(99))
    );
    figures.push(figure("bytes_per_payload_n8", base, "1", Some(1.0)));

    let nacks = burst::nacks(&fleet, if is_quick() { 2 } else { 10 });
    let mut sorted = nacks.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    println!(
        "\nNACKs of 8 nodes for a burst of 50 datagrams lost by all: {nacks:?}, median {median}"
    );
    figures.push(figure(
        "nacks_per_burst",
        theory::ratio(median, 1),
        "1",
        None,
    ));

    println!("\nhighest rate without loss, 8 nodes");
    for step in rates::ramp(&fleet, length) {
        println!(
            "  {:>7} asked {:>9.0} reached   {} datagrams lost",
            step.asked, step.reached, step.lost
        );
    }

    let away = Duration::from_secs(if is_quick() { 10 } else { 60 });
    let took = returns::after_away(&mut fleet, away);
    println!(
        "\ncoherent {:.2} s after {} s away, at {} updates a second",
        took.as_secs_f64(),
        away.as_secs(),
        2_000
    );
    figures.push(figure(
        "coherent_after_60s_away_s",
        took.as_secs_f64(),
        "s",
        None,
    ));

    for agent in fleet.agents.iter_mut().skip(1) {
        agent.stop();
    }
    let one = rates::bytes(&fleet, latency::PER_SECOND, length, 500);
    println!("\nbytes of the sender over the encoded records (on the wire)");
    println!(
        "  multicast to  8   {base:.3} ({:.3})",
        all[0].wire_per_payload()
    );
    println!(
        "  multicast to  1   {:.3} ({:.3})",
        one.per_payload, one.wire_per_payload
    );
    figures.push(figure(
        "bytes_per_payload_n1",
        one.per_payload,
        "1",
        Some(1.0),
    ));
    Some(())
}

/// Thirty-two nodes: by the group, overloaded, and each over its own connection.
fn thirty_two(figures: &mut Vec<Figure>) -> Option<()> {
    let lab = Lab::with_nodes("bench-distribution-32", 32)?;
    let mut fleet = fleet::prepare(lab, 32, RECORDS * 5 / 4, "size=256m,huge=advise");
    fleet::start(&mut fleet, RECORDS);
    let length = Duration::from_secs(if is_quick() { 2 } else { 6 });
    let group = rates::bytes(&fleet, SLOW, length, 1);
    println!(
        "  multicast to 32   {:.3} ({:.3})",
        group.per_payload, group.wire_per_payload
    );
    figures.push(figure(
        "bytes_per_payload_n32",
        group.per_payload,
        "1",
        Some(1.0),
    ));
    let over = rates::overload(
        &fleet,
        TOO_MANY,
        Duration::from_secs(if is_quick() { 4 } else { 12 }),
    );
    fleet.locsvc.stop();
    fleet
        .locsvc
        .settings()
        .set_text("distribution.transport", "unicast");
    fleet.locsvc.start();
    fleet.wait_equal();
    fleet.wait_paths("tcp");
    let unicast = rates::bytes(&fleet, SLOW, length, 2);
    println!(
        "  unicast to 32     {:.3} on the wire",
        unicast.wire_per_payload
    );
    figures.push(figure(
        "bytes_per_payload_unicast_n32",
        unicast.wire_per_payload,
        "1",
        Some(group.wire_per_payload),
    ));
    println!(
        "\n32 nodes on this machine, {TOO_MANY} updates a second asked: levels gained by the slowest, second by second {:?}; {:.0} accepted a second, {} NACKs, {:.2} bytes on the wire over the records, {} nodes in the group at its end",
        over.goodput, over.accepted, over.nacks, over.wire_per_payload, over.in_group
    );
    Some(())
}

/// Eight nodes with nothing, a million records.
fn cold(figures: &mut Vec<Figure>) -> Option<()> {
    let records = if is_quick() { MILLION / 20 } else { MILLION };
    let lab = Lab::with_nodes("bench-distribution-cold", 8)?;
    let mut fleet = fleet::prepare(lab, 8, records * 5 / 4, "size=1500m,huge=advise");
    fleet.locsvc.start();
    provision(&fleet.locsvc, records);
    let took = returns::cold(&mut fleet);
    println!(
        "\n8 cold nodes coherent with {records} records after {:.2} s",
        took.as_secs_f64()
    );
    figures.push(figure("cold_8_nodes_1m_s", took.as_secs_f64(), "s", None));
    Some(())
}
