//! The scenes of the bench: tables of one size on pages of both sizes, and the dial plan.
//! Knows what is measured and in which order, not how.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use locus_bench::is_quick;
use locus_lab::{Tmpfs, wait};

use crate::draw::{Draw, Law};
use crate::limit::{Limit, LimitMemory};
use crate::lmdb::{self, Lmdb, LmdbReader, LmdbWriter};
use crate::load::Loaded;
use crate::look_ups::{Cell, Took, beside_writer};
use crate::pages::{Mapped, Pages, subfolder};
use crate::population;
use crate::report::{Report, Row};
use crate::routes::{self, Plan};
use crate::systems::{Kit, System, Table};
use crate::updates::{self, Frames, Reached};

/// Bytes of key and value for which a table is made: the mean of the population, rounded up.
const RECORD_BYTES: u64 = 290;
/// Readers at most: as many as the small machine of a developer has cores.
const READERS: usize = 2;
/// Rounds of a cell; of one from which figures are taken.
const ROUNDS: (usize, usize) = (40, 160);
/// Times that look-ups are measured until they are undisturbed.
const ATTEMPTS: usize = 4;
/// Times that a table is opened again.
const REOPENS: usize = 7;
/// Rounds of updates.
const UPDATE_ROUNDS: usize = 20;
/// Updates a second beside readers, and for how many seconds.
const RATE: (usize, usize) = (200_000, 3);
/// Prefixes of the dial plan.
const PREFIXES: usize = 1_000_000;
const TABLE: &str = "table";
const LIMIT: &str = "limit";
const LMDB: &str = "lmdb";

/// Everything about tables of one size.
pub(crate) struct Scene<'r> {
    count: usize,
    /// Whether figures are taken from it.
    counts: bool,
    draw: Draw,
    /// How many cells there were.
    cells: AtomicU64,
    report: &'r mut Report,
}

fn fewer(rounds: usize) -> usize {
    if is_quick() {
        rounds.div_ceil(8)
    } else {
        rounds
    }
}

impl<'r> Scene<'r> {
    /// A scene of `count` records.
    pub(crate) fn new(count: usize, counts: bool, report: &'r mut Report) -> Self {
        Self {
            count,
            counts,
            draw: Draw::new(count),
            cells: AtomicU64::new(0),
            report,
        }
    }

    /// Plays all of it.
    ///
    /// # Panics
    /// When something cannot be measured, or Ctrl-C arrives.
    pub(crate) fn play(mut self) {
        let huge = Pages::Huge.mount();
        println!("\n{} records: the load …", self.count);
        let mut loaded = self.load(&huge);
        let limit_folder = subfolder(&huge, LIMIT);
        let mut table = Table::open(loaded.path());
        let limit = LimitMemory::lay(&limit_folder, loaded.file_bytes, self.count, &mut table);
        drop(table);
        let lmdb_folder = subfolder(&huge, LMDB);
        lmdb::load(loaded.path(), &lmdb_folder, self.count);
        let lmdb = Lmdb::open(&lmdb_folder, self.count);
        self.report.lmdb_bytes(&lmdb_folder, &loaded);
        self.look_ups(
            Pages::Huge,
            &mut loaded,
            &limit,
            Some((&lmdb, &lmdb_folder)),
        );
        lmdb.close();
        fs::remove_dir_all(&lmdb_folder).ok();

        let small = Pages::Small.mount();
        for name in [TABLE, LIMIT] {
            copy(&subfolder(&huge, name), &subfolder(&small, name));
        }
        drop(limit);
        fs::remove_dir_all(&limit_folder).ok();
        let small_limit = LimitMemory::open(&subfolder(&small, LIMIT));
        let mut small_table = Loaded::open(&subfolder(&small, TABLE));
        self.look_ups(Pages::Small, &mut small_table, &small_limit, None);
        drop((small_table, small_limit, small));

        self.updates(&mut loaded);
    }

    fn load(&mut self, mount: &Tmpfs) -> Loaded {
        let folder = subfolder(mount, TABLE);
        let change = |n, level| population::change(n, 0, level);
        let (loaded, cpu) = Loaded::load(&folder, self.count, RECORD_BYTES, change);
        let (loaded, reopens) = loaded.reopen(fewer(REOPENS));
        self.report.loaded(&loaded, cpu, &reopens, self.counts);
        loaded
    }

    fn look_ups(
        &mut self,
        pages: Pages,
        loaded: &mut Loaded,
        limit: &LimitMemory,
        lmdb: Option<(&Lmdb, &Path)>,
    ) {
        let folder = loaded.path().to_owned();
        let (count, of_lmdb) = (self.count, lmdb.map(|(lmdb, _)| lmdb));
        let mut kits: Vec<Kit<'_>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..READERS)
                .map(|_| scope.spawn(|| Kit::new(&folder, count, limit, of_lmdb)))
                .collect();
            let kits = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            kits.collect()
        });
        Limit::of(limit).visit_all(count);
        if let Some(lmdb) = of_lmdb {
            LmdbReader::of(lmdb).visit_all(count);
        }
        let mount = folder.parent().unwrap_or(&folder);
        let mapped = [TABLE, LIMIT].map(|name| Mapped::of(&mount.join(name)));
        assert!(
            pages == Pages::Small || mapped.iter().all(|mapped| mapped.is_huge()),
            "the kernel gave no huge pages: {mapped:?}"
        );
        self.report.begin_look_ups(pages, self.count, mapped);
        for (law, readers) in situations() {
            let counts = self.counts && pages == Pages::Huge && readers == 1;
            let all = [System::Table, System::Limit, System::Lmdb];
            let systems = &all[..if lmdb.is_some() { 3 } else { 2 }];
            let draw = self.draw.by(law);
            let mut measure = || self.cell(systems, counts).run(&mut kits[..readers], &draw);
            let (mut took, mut clock) = measure();
            for _ in 1..ATTEMPTS {
                // Judged by the limit alone: what the table itself makes slow counts.
                if !took.get(1).is_some_and(Took::is_disturbed) {
                    break;
                }
                self.report.disturbed(&took);
                (took, clock) = measure();
            }
            let row = Row::new(law, readers, &took);
            self.report.look_ups(&row, &clock);
            if counts {
                self.report.figures_of(&row);
            }
        }
        for (law, readers) in situations() {
            let (kits, draw) = (&mut kits[..readers], self.draw.by(law));
            let cell = self.cell(&[System::Table, System::Limit], false);
            let run = || cell.run(kits, &draw).0;
            let (mut took, updates) = beside_writer(&mut loaded.writer, self.count, run);
            if let Some((_, folder)) = lmdb {
                let cell = self.cell(&[System::Lmdb], false);
                let _writer = LmdbWriter::start(folder, self.count);
                took.extend(cell.run(kits, &draw).0);
            }
            self.report.busy(&Row::new(law, readers, &took), updates);
        }
    }

    /// A cell whose queries no cell before had.
    fn cell<'s>(&self, systems: &'s [System], counts: bool) -> Cell<'s> {
        let rounds = if counts { ROUNDS.1 } else { ROUNDS.0 };
        let seed = self.cells.fetch_add(1, Ordering::Relaxed);
        Cell {
            systems,
            rounds: fewer(rounds),
            seed,
        }
    }

    fn updates(&mut self, loaded: &mut Loaded) {
        let mut frames = Frames::new(self.count);
        let cpu = updates::cpu(&mut loaded.writer, &mut frames, fewer(UPDATE_ROUNDS));
        let mut readers: Vec<Table> = (0..READERS).map(|_| Table::open(loaded.path())).collect();
        for reader in &mut readers {
            reader.visit_all(self.count);
        }
        let mut reach = |rate: Option<usize>| -> Reached {
            let seconds = if is_quick() { 1 } else { RATE.1 };
            // No subscriber comes twice.
            let updates = (RATE.0 * seconds).min(self.count / 3);
            let all = frames.make(&loaded.writer, vec![1_000; updates / 1_000]);
            updates::beside_readers(&mut loaded.writer, &all, &mut readers, self.count, rate)
        };
        let (paced, most) = (reach(Some(RATE.0)), reach(None));
        self.report.updates(&cpu, &paced, &most, self.counts);
    }
}

/// Laws and numbers of readers.
fn situations() -> impl Iterator<Item = (Law, usize)> {
    let laws = [Law::Uniform, Law::Zipf];
    laws.into_iter()
        .flat_map(|law| (1..=READERS).map(move |readers| (law, readers)))
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    let copied = fs::read_dir(from).and_then(|entries| {
        entries
            .flatten()
            .try_for_each(|entry| fs::copy(entry.path(), to.join(entry.file_name())).map(|_| ()))
    });
    copied.unwrap_or_else(|error| panic!("copy of {}: {error}", from.display()));
}

/// The dial plan.
///
/// # Panics
/// When something cannot be measured.
pub(crate) fn routes(report: &mut Report) {
    assert!(!wait::interrupted(), "interrupted");
    println!("\n{PREFIXES} prefixes …");
    let huge = Pages::Huge.mount();
    let folder = subfolder(&huge, TABLE);
    let plan = Plan::new(PREFIXES);
    let loaded = plan.load(&folder);
    let measured = routes::measure(&plan, &folder, fewer(ROUNDS.1));
    let mapped = Mapped::of(&folder);
    assert!(
        mapped.is_huge(),
        "the kernel gave no huge pages: {mapped:?}"
    );
    report.routes(&measured, &loaded);
}
