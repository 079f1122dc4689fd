//! The kill loop: a writer dies again and again in the middle of batches and repairs, beside readers.
//!
//! Nothing waits for the writer: readers run through all of it; after each death every key is looked up
//! before anybody recovers the table, and after the recovery everything it promises is compared.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use locus_agent::MappedFolder;
use locus_table::{FolderReader, Reader, RecordBuffer, Scrubbed};

use crate::expect::Model;
use crate::layout::{AT_BEGIN, AT_DONE, AT_REPAIRS, load};
use crate::life::{Life, stay_here};
use crate::model::{Dice, PARTITION, Seen, State, Universe};
use crate::plan;
use crate::watcher::{Watcher, batch_of, fits, state_after};

const READERS: u64 = 2;
/// The life that is given, in microseconds.
const LIFE_US: Range<u64> = 1500..5500;
/// A recovery takes some hundred microseconds.
const RECOVERY_US_MAX: u64 = 800;
/// Looks at the table before a kill that meets no batch under way.
const LOOKS_MAX: u64 = 100;
/// Between two looks, in microseconds: longer than a batch takes, and not a multiple of it.
const LOOK_US: Range<u64> = 40..200;
/// Each so many unfinished batches, the recovery is killed too.
const RECOVERIES_EACH: u64 = 4;

/// What a kill loop met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kills {
    /// Deaths of a writer at work.
    pub kills: u64,
    /// Of these, deaths within a frame's batch.
    pub in_batch: u64,
    /// Of these, deaths within a repair's batch.
    pub in_repair: u64,
    /// Deaths of a writer that opened a table left unfinished.
    pub recoveries: u64,
    /// Of these, deaths before the batch was done.
    pub in_recovery: u64,
    /// Rotten records found by the dead's heirs.
    pub rotten: u64,
    /// Batches of frames that were applied.
    pub batches: u64,
    /// Look-ups of the readers.
    pub lookups: u64,
    /// Of these, look-ups that met a batch under way and found its content.
    pub ahead: u64,
}

impl Kills {
    /// Returns the share of kills that found something unfinished, in percent.
    pub fn unfinished_percent(&self) -> u64 {
        (self.in_batch + self.in_repair) * 100 / self.kills.max(1)
    }
}

/// How the writer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// As it should.
    Right,
    /// It also lets records rot that nobody repairs: that must be noticed.
    Stray,
}

/// Kills the writer so many times, beside readers.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn kill_loop(
    program: &str,
    folder: &Path,
    work: Work,
    seed: u64,
    kills: u64,
) -> Result<Kills, String> {
    let universe = plan::kill_universe();
    let stop = AtomicBool::new(false);
    let mut owner = Owner {
        program,
        folder,
        work: match work {
            Work::Right => "work",
            Work::Stray => "stray",
        },
        seed,
        dice: Dice(seed),
        reader: MappedFolder::open_ro(folder),
        model: Model::with_sums(&universe),
        universe: &universe,
        left: Left::Finished,
        report: Kills::default(),
    };
    owner.found()?;
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (universe, stop) = (&universe, &stop);
                scope.spawn(move || {
                    let mut watcher = Watcher::new(folder, universe, seed, number);
                    let result = watcher.watch(stop);
                    // Whoever fails ends all.
                    stop.store(true, Ordering::Relaxed);
                    result.map(|()| (watcher.lookups, watcher.ahead))
                })
            })
            .collect();
        let mut result = stay_here();
        for _ in 0..kills {
            if result.is_ok() && !stop.load(Ordering::Relaxed) {
                result = owner.life_and_death();
            }
        }
        let result = result.and_then(|()| owner.rest());
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let (lookups, ahead) = reader.join().map_err(|_| "a reader panicked")??;
            owner.report.lookups += lookups;
            owner.report.ahead += ahead;
        }
        result
    })?;
    owner.report.batches = owner.model.batch;
    Ok(owner.report)
}

/// What the last writer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Finished,
    Batch,
    Repair,
}

/// Gives the writer its lives and checks what each leaves.
struct Owner<'a> {
    program: &'a str,
    folder: &'a Path,
    work: &'static str,
    seed: u64,
    dice: Dice,
    reader: FolderReader<MappedFolder>,
    model: Model,
    universe: &'a Universe,
    left: Left,
    report: Kills,
}

impl Owner<'_> {
    fn start(&self, what: &str) -> Result<Life, String> {
        let mut life = Life::start(self.program, self.folder, &[what, &self.seed.to_string()])?;
        life.expect("opens")?;
        Ok(life)
    }

    /// Lets a first writer make the table.
    fn found(&mut self) -> Result<(), String> {
        let mut life = self.start(self.work)?;
        life.expect("open 0 false")?;
        life.kill()
    }

    fn life_and_death(&mut self) -> Result<(), String> {
        let unfinished = self.report.in_batch + self.report.in_repair;
        if self.left != Left::Finished && unfinished.is_multiple_of(RECOVERIES_EACH) {
            let mut life = self.start(self.work)?;
            pause(self.dice.roll(RECOVERY_US_MAX));
            life.kill()?;
            self.check_dead()?;
            self.report.recoveries += 1;
            self.report.in_recovery += u64::from(self.left != Left::Finished);
        }
        let mut life = self.start(self.work)?;
        self.check_recovered(&mut life)?;
        life.go()?;
        life.expect("works")?;
        pause(LIFE_US.start + self.dice.roll(LIFE_US.end - LIFE_US.start));
        self.aim()?;
        life.kill()?;
        self.check_dead()?;
        self.report.kills += 1;
        match self.left {
            Left::Finished => {}
            Left::Batch => self.report.in_batch += 1,
            Left::Repair => self.report.in_repair += 1,
        }
        Ok(())
    }

    /// Looks at the table every some microseconds until a batch is under way; three times of four,
    /// of which one until a repair is, if one comes soon.
    ///
    /// A batch's stores take a tenth of the time (12 of 100 deaths without aim): most would prove
    /// little. The writer has the processor of whoever looks, so it stands still between the look and the
    /// kill: it dies at whatever instruction of its batch the timer caught it.
    fn aim(&mut self) -> Result<(), String> {
        let at_repairs = match self.dice.roll(4) {
            0 => return Ok(()),
            aim => aim == 1,
        };
        let words = self.reader.region().ok_or("no table is mapped")?.as_ref();
        let dice = &mut self.dice;
        for look in 0..LOOKS_MAX {
            let is_wanted = !at_repairs || look > LOOKS_MAX / 2 || load(words, AT_REPAIRS) != 0;
            let is_under_way = load(words, AT_BEGIN) != load(words, AT_DONE);
            if is_under_way && is_wanted {
                break;
            }
            pause(LOOK_US.start + dice.roll(LOOK_US.end - LOOK_US.start));
        }
        Ok(())
    }

    /// Lets a last writer mend what rots, and demands that nothing does any more.
    fn rest(&mut self) -> Result<(), String> {
        let mut life = self.start("rest")?;
        self.check_recovered(&mut life)?;
        life.go()?;
        life.expect("rests")?;
        self.check_dead()?;
        self.check_table(|_| false)?;
        let partitions = (0..self.universe.keys().len()).map(|key| self.universe.partition(key));
        let partitions: Vec<u16> = partitions.collect();
        let mut buffer = RecordBuffer::new();
        self.with(|table| {
            for partition in &partitions {
                let scrubbed = table.scrub_consistent(usize::from(*partition), &mut buffer);
                if scrubbed != Scrubbed::Agrees {
                    return Err(format!("partition {partition}: {scrubbed:?}"));
                }
            }
            Ok(())
        })
    }

    fn with<T>(
        &mut self,
        read: impl FnMut(&Reader<locus_agent::Mapping>) -> Result<T, String>,
    ) -> Result<T, String> {
        let read = self.reader.with(read);
        read.map_err(|reason| reason.to_string())?
    }

    /// Checks the table that a dead writer left, before anybody touches it: every key is there, old or new.
    fn check_dead(&mut self) -> Result<(), String> {
        let position = self.with(|table| Ok(table.position()))?;
        let words = self.reader.region().ok_or("no table is mapped")?.as_ref();
        let word = |at| load(words, at);
        let under_way = word(AT_BEGIN).wrapping_sub(word(AT_DONE));
        self.left = match (under_way, word(AT_REPAIRS)) {
            (0, _) => Left::Finished,
            (1, 0) => Left::Batch,
            (1, repairs) if repairs == u64::from(PARTITION) + 1 => Left::Repair,
            other => return Err(format!("begin, done and journal say {other:?}")),
        };
        let batch = batch_of(position)?;
        if batch < self.model.batch {
            return Err(format!("batch {batch} behind {}", self.model.batch));
        }
        while self.model.batch < batch {
            let ops = plan::kill_ops(self.seed, self.model.batch + 1);
            self.model.apply(self.universe, &ops);
        }
        if position != self.model.position() {
            return Err(format!(
                "{position:?}, not {:?}, after a death",
                self.model.position()
            ));
        }
        let next = match self.left {
            Left::Finished | Left::Repair => Vec::new(),
            Left::Batch => plan::kill_ops(self.seed, batch + 1),
        };
        let mut new: Vec<Option<State>> = vec![None; self.universe.keys().len()];
        for op in &next {
            new[op.key] = Some(state_after(*op, batch + 1));
        }
        let (universe, mut buffer, mut rotten) = (self.universe, RecordBuffer::new(), 0);
        let model = &self.model;
        let check = |table: &Reader<locus_agent::Mapping>| {
            for (key, new) in new.iter().enumerate() {
                let seen = Seen::look(table, universe, key, &mut buffer);
                let old = model.state(key);
                rotten += u64::from(matches!(seen, Seen::Rotten(_)));
                let fits = fits(seen, old, key) || new.is_some_and(|new| fits(seen, new, key));
                if !fits {
                    let left = (old, new);
                    return Err(format!("after a death key {key} is {seen:?}, not {left:?}"));
                }
            }
            Ok(())
        };
        let checked = self.reader.with(check);
        checked.map_err(|reason| reason.to_string())??;
        self.report.rotten += rotten;
        Ok(())
    }

    /// Checks the table that a new writer has just opened.
    fn check_recovered(&mut self, life: &mut Life) -> Result<(), String> {
        let says = life.expect("open")?;
        if self.left == Left::Batch {
            let ops = plan::kill_ops(self.seed, self.model.batch + 1);
            self.model.apply(self.universe, &ops);
        }
        let expected = format!("{} {}", self.model.batch, self.left != Left::Finished);
        if says != expected {
            return Err(format!(
                "the heir of {:?} opens {says}, not {expected}",
                self.left
            ));
        }
        self.left = Left::Finished;
        self.check_table(plan::may_rot)
    }

    fn check_table(&mut self, excused: impl Fn(usize) -> bool) -> Result<(), String> {
        let (universe, mut buffer) = (self.universe, RecordBuffer::new());
        let model = &self.model;
        let check = |table: &Reader<locus_agent::Mapping>| {
            model.check_sums(table)?;
            model.check_scan(table, universe, &excused)?;
            for key in 0..universe.keys().len() {
                let seen = Seen::look(table, universe, key, &mut buffer);
                let state = model.state(key);
                if !(seen.is(state) || excused(key) && fits(seen, state, key)) {
                    return Err(format!("key {key} is {seen:?}, not {state:?}"));
                }
            }
            Ok(())
        };
        let checked = self.reader.with(check);
        checked.map_err(|reason| reason.to_string())?
    }
}

/// Lets the writer live so long: chance is this loop's input, nothing is waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "the random moment of a death, not a wait for a condition"
)]
fn pause(microseconds: u64) {
    thread::sleep(Duration::from_micros(microseconds));
}
