//! bench-table: look-ups, updates, loads and number routes of the table, beside what memory itself takes
//! and beside LMDB. Only measures.
//!
//! All numbers of one run are to be compared with each other: ratios of medians over rounds that alternate
//! between the systems. `QUICK=1` takes a million records and few rounds, and writes no figures.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot measure ends; a table for people"
)]

mod busy;
mod chain;
mod clock;
mod draw;
mod gate;
mod limit;
mod lmdb;
mod load;
mod look_ups;
mod pages;
mod population;
mod report;
mod routes;
mod scene;
mod systems;
mod updates;

use std::process::ExitCode;

use locus_bench::{is_quick, load_averages};
use locus_lab::wait;

use crate::report::Report;
use crate::scene::Scene;

const MILLION: usize = 1_000_000;
/// Memory for ten million records: the table, the limit and LMDB at once.
const MIB_PER_MILLION: u64 = 1_400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => bench(),
        _ if lmdb::child(&arguments).is_some() => ExitCode::SUCCESS,
        _ => {
            println!("bench-table takes no arguments");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> ExitCode {
    let sizes: &[usize] = if is_quick() {
        &[MILLION]
    } else {
        &[MILLION, 10 * MILLION]
    };
    let largest = sizes.last().map_or(0, |count| count / MILLION);
    let need = MIB_PER_MILLION * u64::try_from(largest).unwrap_or(0) + 1_024;
    let available = pages::available_mib();
    if !rustix::process::geteuid().is_root() || available < need {
        println!(
            "bench-table: ignored: needs root, to mount file systems, and {need} MiB of memory; \
             {available} MiB are available"
        );
        return ExitCode::FAILURE;
    }
    wait::catch_signals();
    let start = wait::now();
    println!("load averages before: {}", load_averages());
    let mut report = Report::default();
    for count in sizes {
        Scene::new(*count, *count == 10 * MILLION, &mut report).play();
    }
    scene::routes(&mut report);
    pages::clean_up();
    report.print();
    if is_quick() {
        println!("  QUICK: no figures are written");
    } else {
        println!("  {}", report.write().display());
    }
    println!(
        "  load averages after: {}; {:.0} s in all",
        load_averages(),
        start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
