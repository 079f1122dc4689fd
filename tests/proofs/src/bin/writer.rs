//! The writer that dies: owns a table's folder as the agent does, and tells its parent where it is.
//!
//! * `FOLDER work|stray|rest SEED` applies and repairs until it is killed, or mends and ends; a stray one
//!   also spoils what nobody repairs;
//! * `FOLDER operate apply|repair SEED` stops before and behind one small operation;
//! * `FOLDER script apply|repair SEED ORDER` does its stores in some order instead;
//! * `FOLDER recover apply|repair SEED` stops before and behind the recovery of a dead writer's table.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use locus_agent::{Mapping, OwnedFolder};
use locus_proofs::{
    Case, EPOCH, KILL_GEOMETRY, LEVELS_PER_BATCH, Order, PARTITION, Rot, TABLE_KEY, UNTRACED,
    Universe, What, count, find_block, kill_content, kill_ops, kill_universe, script, spoil,
};
use locus_proto::{Change, ChangeOp, Key, Level, Position};
use locus_table::{Folder, Generation, Geometry, MapRegions, RegionName, Writer};
use nix::sys::ptrace;
use nix::sys::signal::{self, Signal};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Batches between two repairs.
const REPAIR_EACH: u64 = 2;
/// Batches that are made before the first is applied: a death shall meet the table's work, not this.
const MADE_AHEAD: u64 = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [folder, what @ ("work" | "stray" | "rest"), seed] => live(Path::new(folder), what, seed),
        [
            folder,
            how @ ("operate" | "script" | "recover"),
            what,
            seed,
            order @ ..,
        ] => step(Path::new(folder), how, what, seed, order.first().copied()),
        _ => Err("an unknown command".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("fails: {error}")).ok();
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn live(folder: &Path, what: &str, seed: &str) -> Result<()> {
    // If the parent ends without a word, nobody else would end this.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let seed = seed.parse()?;
    let universe = kill_universe();
    let folder = Folder::open(OwnedFolder::lock(folder)?)?;
    say("opens")?;
    let (mut writer, redone) = match folder.open_table()? {
        Some((writer, recovered)) => (writer, recovered.redone),
        None => (new_table(&folder, KILL_GEOMETRY)?, false),
    };
    let mut batch = writer.position().level.0 / LEVELS_PER_BATCH;
    say(&format!("open {batch} {redone}"))?;
    io::stdin().read_line(&mut String::new())?;
    // Whoever wrote before may have died between the rot and its repair.
    writer.repair(PARTITION, &kill_content(&universe, seed, batch))?;
    if what == "rest" {
        return Ok(say("rests")?);
    }
    let made = batch + 1..=batch + MADE_AHEAD;
    let made: Vec<_> = made.map(|batch| changes(&universe, seed, batch)).collect();
    let mut made = made.into_iter();
    say("works")?;
    loop {
        batch += 1;
        let next = made.next();
        let changes = next.unwrap_or_else(|| changes(&universe, seed, batch));
        apply(&mut writer, batch, &changes)?;
        let put = changes.iter().find(|change| change.op != ChangeOp::Delete);
        if let (Some(put), "stray") = (put, what) {
            spoil_record(&writer, &put.key, Rot::Value)?;
        }
        if batch.is_multiple_of(REPAIR_EACH) {
            rot_and_repair(&mut writer, &universe, seed, batch)?;
        }
    }
}

fn new_table(folder: &Folder<OwnedFolder>, geometry: Geometry) -> Result<Writer<Mapping>> {
    let mut table = folder.begin_load(geometry, TABLE_KEY)?;
    let empty = Position {
        epoch: EPOCH,
        ..Position::default()
    };
    table.1.finish_load(empty)?;
    folder.flip(&table)?;
    Ok(table.1)
}

fn changes(universe: &Universe, seed: u64, batch: u64) -> Vec<Change> {
    let ops = kill_ops(seed, batch).into_iter();
    ops.map(|op| universe.change(op)).collect()
}

fn apply(writer: &mut Writer<Mapping>, batch: u64, changes: &[Change]) -> Result<()> {
    let prepared = writer.prepare(changes)?;
    let to = Position {
        epoch: EPOCH,
        level: Level(batch * LEVELS_PER_BATCH),
        root: prepared.root_after(),
    };
    writer.commit(prepared, changes, to);
    Ok(())
}

fn spoil_record(writer: &Writer<Mapping>, key: &Key, rot: Rot) -> Result<()> {
    let words = writer.memory().as_ref();
    let block = find_block(&writer.reader(), words, KILL_GEOMETRY, key);
    spoil(words, block.ok_or("a record is not there")?, key, rot);
    Ok(())
}

/// Lets every record of the partition rot, then repairs it.
fn rot_and_repair(
    writer: &mut Writer<Mapping>,
    universe: &Universe,
    seed: u64,
    batch: u64,
) -> Result<()> {
    let content = kill_content(universe, seed, batch);
    for (number, change) in content.iter().enumerate() {
        let rot = if number.is_multiple_of(2) {
            Rot::Value
        } else {
            Rot::Check
        };
        spoil_record(writer, &change.key, rot)?;
    }
    let repaired = writer.repair(PARTITION, &content)?;
    if repaired.differed == count(content.len()) {
        Ok(())
    } else {
        Err(format!("{repaired:?} of {} rotten records", content.len()).into())
    }
}

fn step(folder: &Path, how: &str, what: &str, seed: &str, order: Option<&str>) -> Result<()> {
    let what = match what {
        "apply" => What::Apply,
        "repair" => What::Repair,
        _ => return Err("an unknown operation".into()),
    };
    let case = Case::new(what, seed.parse()?);
    let owned = OwnedFolder::lock(folder)?;
    if how == "recover" {
        let region = owned.map(RegionName::Table(Generation(1)))?;
        stop_before(region.as_ref())?;
        let opened = Writer::open(region);
        stop()?;
        return Ok(opened.map(drop)?);
    }
    let folder = Folder::open(owned)?;
    case.prepare(&mut new_table(&folder, Case::GEOMETRY)?)?;
    // Opened anew, as whoever rehearses the operation opens it: the same blocks are free in both.
    let (mut writer, _) = folder.open_table()?.ok_or("no table was made")?;
    let order = Order::ALL
        .into_iter()
        .find(|(name, _)| Some(*name) == order);
    let Some((_, order)) = order else {
        stop_before(writer.memory().as_ref())?;
        let done = case.operate(&mut writer);
        stop()?;
        return Ok(done?);
    };
    let words = writer.memory().as_ref();
    let stores = script(&case, words, order)?;
    stop_before(words)?;
    for (at, value) in stores {
        words[at].store(value, Ordering::Release);
    }
    Ok(stop()?)
}

/// Hands this process to its parent, which goes on instruction by instruction.
fn stop_before(table: &[AtomicU64]) -> Result<()> {
    if let Err(error) = ptrace::traceme() {
        say(&format!("{UNTRACED} {error}"))?;
        return Err(error.into());
    }
    say(&format!("table at {}", table.as_ptr().addr()))?;
    Ok(stop()?)
}

fn stop() -> nix::Result<()> {
    signal::raise(Signal::SIGSTOP)
}
