//! What people read while it runs, and the figures that are written. Measures nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_bench::{Ratio, Rounds, float, folder_bytes};
use locus_lab::{Figure, write_figures};

use crate::draw::Law;
use crate::load::Loaded;
use crate::look_ups::Took;
use crate::pages::{Mapped, Pages};
use crate::routes::Measured;
use crate::updates::{LOOK_UPS_PER_SECOND, Reached, SIZES};

/// One situation, and what each system took in it.
pub(crate) struct Row<'t> {
    law: Law,
    readers: usize,
    table: &'t Took,
    limit: &'t Took,
    lmdb: Option<&'t Took>,
}

impl<'t> Row<'t> {
    /// A row of the table, the limit and perhaps LMDB.
    ///
    /// # Panics
    /// When one of the first two is missing.
    pub(crate) fn new(law: Law, readers: usize, took: &'t [Took]) -> Self {
        let [table, limit, rest @ ..] = took else {
            panic!("a row has a table and a limit")
        };
        Self {
            law,
            readers,
            table,
            limit,
            lmdb: rest.first(),
        }
    }

    fn print(&self, writer: &str) {
        let law = match self.law {
            Law::Uniform => "uniform",
            Law::Zipf => "Zipf",
        };
        let [p50, p99, batch] = self.table.ratios(self.limit);
        let lmdb = self.lmdb.map_or_else(String::new, |lmdb| {
            let ratio = lmdb.p50.median() / self.limit.p50.median();
            format!("   LMDB {} {ratio:5.2}", times(lmdb))
        });
        println!(
            "  {law:<7} {}  {writer:<14} table {}   limit {}   ratio p50 {}  p99 {}  batch {}{lmdb}",
            self.readers,
            times(self.table),
            times(self.limit),
            interval(p50),
            interval(p99),
            interval(batch),
        );
    }
}

fn times(took: &Took) -> String {
    format!("{:5.0} {:5.0}", took.p50.median(), took.p99.median())
}

fn interval(ratio: Ratio) -> String {
    format!("{:.3} ({:.3}–{:.3})", ratio.value, ratio.low, ratio.high)
}

/// The figures so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    fn add(&mut self, name: &'static str, value: f64, unit: &'static str, baseline: Option<f64>) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            baseline,
        });
    }

    /// What a load cost, and what it left.
    pub(crate) fn loaded(
        &mut self,
        loaded: &Loaded,
        cpu: Duration,
        reopens: &Rounds,
        counts: bool,
    ) {
        let records = float(usize::try_from(loaded.writer.records()).unwrap_or(0));
        let (overhead, cpu) = (loaded.overhead_bytes(), cpu.as_secs_f64());
        let reopen = reopens.median() / (records / 1e6);
        println!(
            "  load {cpu:.2} s of CPU, {:.0} ns a record; {:.1} bytes of key and value, {overhead:.1} bytes \
             more in use; index {:.3} full",
            cpu * 1e9 / records,
            loaded.record_bytes(),
            loaded.index_fill(),
        );
        println!(
            "  opened again in {:.1} ms ({:.1} at best): {reopen:.1} ms a million",
            reopens.median(),
            reopens.min(),
        );
        if counts {
            self.add("overhead_bytes_per_record", overhead, "B", None);
            self.add("reopen_ms_per_million", reopen, "ms", None);
            self.add("load_10m_cpu_s", cpu, "s", None);
        }
    }

    /// What LMDB needs for the same records.
    pub(crate) fn lmdb_bytes(&self, folder: &Path, loaded: &Loaded) {
        let records = float(usize::try_from(loaded.writer.records()).unwrap_or(0));
        let kib = float(usize::try_from(folder_bytes(folder) / 1024).unwrap_or(0));
        println!(
            "  LMDB, loaded in the order of keys: {:.1} bytes more a record",
            kib * 1024.0 / records - loaded.record_bytes()
        );
    }

    /// Heads the rows of look-ups.
    pub(crate) fn begin_look_ups(&self, pages: Pages, count: usize, mapped: [Mapped; 2]) {
        let [table, limit] = mapped;
        println!(
            "\n  {count} records, pages of {pages} (by 2 MiB: {} of {} MiB mapped of the table, {} of {} MiB of \
             the limit)\n  law, readers, writer; p50 and p99 in ns without the clock; medians over rounds, 95 %",
            table.huge_mib, table.mib, limit.huge_mib, limit.mib
        );
    }

    /// Says that a row is measured again, and why.
    pub(crate) fn disturbed(&self, took: &[Took]) {
        let all: Vec<String> = took.iter().map(times).collect();
        println!(
            "    disturbed, measured again (p50 and p99 in turn: {})",
            all.join(" | ")
        );
    }

    /// One row without a writer.
    pub(crate) fn look_ups(&self, row: &Row<'_>, clock: &Took) {
        row.print("idle");
        if row.readers == 1 {
            println!(
                "    (batches of 256: table {:.0}, limit {:.0} ns a look-up; clock and chain, taken off: {:.0} ns, \
                 in batches {:.1})",
                row.table.batch.median(),
                row.limit.batch.median(),
                clock.p50.median(),
                clock.batch.median()
            );
        }
    }

    /// One row with a writer that made so many updates a second.
    pub(crate) fn busy(&self, row: &Row<'_>, updates: f64) {
        row.print(&format!("{:.0} k/s", updates / 1e3));
    }

    /// Takes the figures of a row.
    pub(crate) fn figures_of(&mut self, row: &Row<'_>) {
        let (p50, p99) = (row.limit.p50.median(), row.limit.p99.median());
        let table = row.table;
        match row.law {
            Law::Uniform => {
                let name = "lookup_p50_uniform_10m_huge";
                self.add(name, table.p50.median(), "ns", Some(p50));
                let name = "lookup_p99_uniform_10m_huge";
                self.add(name, table.p99.median(), "ns", Some(p99));
                if let Some(lmdb) = row.lmdb {
                    let name = "lookup_p50_uniform_10m_lmdb";
                    self.add(name, lmdb.p50.median(), "ns", Some(p50));
                }
            }
            Law::Zipf => {
                let name = "lookup_p50_zipf_10m_huge";
                self.add(name, table.p50.median(), "ns", Some(p50));
            }
        }
    }

    /// What updates cost, and what was reached beside readers: at the rate that is asked for, and at most.
    pub(crate) fn updates(
        &mut self,
        cpu: &[Rounds; 3],
        paced: &Reached,
        most: &Reached,
        counts: bool,
    ) {
        println!("\n  CPU of one update, µs, by the size of the batch (median, at best):");
        for (size, rounds) in SIZES.iter().zip(cpu) {
            println!("    {size:5}  {:.2}  {:.2}", rounds.median(), rounds.min());
        }
        println!(
            "  updates a second in batches of 1,000 beside two readers of {LOOK_UPS_PER_SECOND} look-ups a second:"
        );
        for (name, reached) in [("200,000 asked for", paced), ("as many as can be", most)] {
            println!(
                "    {name:<18} {:8.0} ({:.0} % of a core); readers {:.0?} ({:.0?} %)",
                reached.updates,
                reached.writer_share * 100.0,
                reached.look_ups,
                reached
                    .reader_shares
                    .iter()
                    .map(|share| share * 100.0)
                    .collect::<Vec<_>>(),
            );
        }
        if counts {
            // The dearest size of batch.
            let worst = cpu.iter().map(Rounds::median).fold(0.0, f64::max);
            self.add("update_cpu_us", worst, "us", None);
            self.add(
                "updates_per_s_with_readers",
                most.updates,
                "1/s",
                Some(200_000.0),
            );
        }
    }

    /// What a longest-prefix match takes.
    pub(crate) fn routes(&mut self, measured: &Measured, loaded: &Loaded) {
        let Measured { table, trie, found } = measured;
        println!(
            "  {} prefixes, numbers of 11 to 15 digits, {:.0} % with a route; ns without the clock:",
            loaded.writer.records(),
            found * 100.0
        );
        for (name, took) in [
            ("table, body copied", table),
            ("prefix-trie, match alone", trie),
        ] {
            println!(
                "    {name:<26} p50 {:5.0}   p99 {:5.0}   in batches {:5.0}",
                took.p50.median(),
                took.p99.median(),
                took.batch.median()
            );
        }
        let trie = Some(trie.p50.median());
        self.add("lpm_p50_ns_1m", table.p50.median(), "ns", trie);
    }

    /// Prints all figures.
    pub(crate) fn print(&self) {
        println!();
        for figure in &self.figures {
            let beside = figure.baseline.map_or_else(String::new, |baseline| {
                format!("  beside {baseline:.1}: {:.3}", figure.value / baseline)
            });
            println!(
                "  {:<30} {:10.2} {}{beside}",
                figure.name, figure.value, figure.unit
            );
        }
    }

    /// Writes all figures and returns where.
    pub(crate) fn write(&self) -> PathBuf {
        write_figures("bench-table", &self.figures)
    }
}
