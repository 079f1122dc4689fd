//! The same records in LMDB, beside which the table stands. Knows subscribers, no other system.
//!
//! heed 0.11, whose `open` is a safe function; that of later versions is not, and this house allows
//! unsafe code in three named places only. Flags cannot be set safely either, so the readers' environment
//! is not MDB_RDONLY; LMDB maps its pages read-only all the same (it would need MDB_WRITEMAP for anything
//! else), and a `get` takes the same way. It writes from a process of its own, as the agent does.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heed::types::ByteSlice;
use heed::{Database, Env, EnvOpenOptions};
use locus_bench::Random;
use locus_table::VALUE_BYTES_MAX;

use crate::chain::Fetch;
use crate::population;
use crate::systems::{Query, Table};

/// Makes this program load LMDB: folder of the table, folder of LMDB, subscribers.
pub(crate) const LOAD: &str = "--lmdb-load";
/// Makes this program write to LMDB until its input ends: folder of LMDB, subscribers.
pub(crate) const WRITE: &str = "--lmdb-write";

/// What the writer says when its first batch is in.
const BUSY: &str = "busy";

/// Records in one transaction of the load.
const LOAD_BATCH: usize = 20_000;
/// Address space for each record: twice what key, value and page ends take, so that updates have room.
const ROOM_BYTES: usize = 700;

type Records = Database<ByteSlice, ByteSlice>;

/// An open environment.
pub(crate) struct Lmdb {
    env: Env,
    records: Records,
}

impl Lmdb {
    /// Opens the environment in `folder`, made when absent.
    ///
    /// # Panics
    /// When LMDB refuses.
    pub(crate) fn open(folder: &Path, count: usize) -> Self {
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let room = (count * ROOM_BYTES + (64 << 20)).next_multiple_of(1 << 20);
        let mut options = EnvOpenOptions::new();
        let env = options.map_size(room).open(folder).unwrap_or_else(refused);
        let records = env.create_database(None).unwrap_or_else(refused);
        Self { env, records }
    }

    /// Unmaps it: heed keeps every environment until it is told to let it go.
    pub(crate) fn close(self) {
        self.env.prepare_for_closing().wait();
    }

    /// Copies subscribers `0..count` from the table in `table`, in the order of their keys: LMDB's pages
    /// are as full as they can be, which is the best case for its look-ups.
    fn load(&self, table: &Path, count: usize) {
        let mut table = Table::open(table);
        let mut next = 0;
        while next < count {
            let mut txn = self.env.write_txn().unwrap_or_else(refused);
            for n in next..count.min(next + LOAD_BATCH) {
                let query = Query::new(n);
                let value = table.fetch(&query);
                let value = value.unwrap_or_else(|| panic!("subscriber {n} is not in the table"));
                self.records
                    .append(&mut txn, &query.key, value)
                    .unwrap_or_else(refused);
            }
            txn.commit().unwrap_or_else(refused);
            next += LOAD_BATCH;
        }
    }

    /// Writes as the table's busy writer does, until `stop`.
    fn write(&self, count: usize, stop: &AtomicBool) {
        let mut random = Random::new(4_242);
        let mut pace = crate::busy::Pace::new();
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let mut txn = self.env.write_txn().unwrap_or_else(refused);
            for _ in 0..crate::busy::BATCH {
                let n = random.below(count);
                let (key, value) = (Query::new(n).key, population::value(n, turn));
                self.records
                    .put(&mut txn, &key, &value)
                    .unwrap_or_else(refused);
            }
            txn.commit().unwrap_or_else(refused);
            if turn == 1 {
                println!("{BUSY}");
            }
            pace.wait();
        }
    }
}

fn refused<T>(error: heed::Error) -> T {
    panic!("LMDB: {error}")
}

/// What this program does when it is started as LMDB's loader or writer; `None` for other arguments.
pub(crate) fn child(arguments: &[String]) -> Option<()> {
    let count = |text: &String| text.parse::<usize>().ok();
    match arguments {
        [word, table, folder, subscribers] if word == LOAD => {
            let subscribers = count(subscribers)?;
            Lmdb::open(Path::new(folder), subscribers).load(Path::new(table), subscribers);
        }
        [word, folder, subscribers] if word == WRITE => {
            let subscribers = count(subscribers)?;
            let lmdb = Lmdb::open(Path::new(folder), subscribers);
            let stop = Arc::new(AtomicBool::new(false));
            let input = Arc::clone(&stop);
            std::thread::spawn(move || {
                // The parent closes it, also by its death.
                std::io::stdin().read_to_end(&mut Vec::new()).ok();
                input.store(true, Ordering::Relaxed);
            });
            lmdb.write(subscribers, &stop);
        }
        _ => return None,
    }
    Some(())
}

/// Loads LMDB in a process of its own.
///
/// # Panics
/// When that fails.
pub(crate) fn load(table: &Path, folder: &Path, count: usize) {
    let mut process = start(&[
        LOAD.as_ref(),
        table.as_os_str(),
        folder.as_os_str(),
        count.to_string().as_ref(),
    ]);
    let status = process.wait();
    let fine = status.is_ok_and(|status| status.success());
    assert!(fine, "LMDB was not loaded");
}

/// LMDB's busy writer, in a process of its own until this is dropped.
pub(crate) struct LmdbWriter(Child);

impl LmdbWriter {
    /// Starts it and waits until it has written something.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(crate) fn start(folder: &Path, count: usize) -> Self {
        let count = count.to_string();
        let mut process = start(&[WRITE.as_ref(), folder.as_os_str(), count.as_ref()]);
        let mut line = String::new();
        let said = process.stdout.take().map(BufReader::new);
        said.and_then(|mut said| said.read_line(&mut line).ok());
        assert_eq!(line.trim_end(), BUSY, "LMDB's writer");
        Self(process)
    }
}

impl Drop for LmdbWriter {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

fn start(arguments: &[&std::ffi::OsStr]) -> Child {
    let started = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    });
    started.unwrap_or_else(|error| panic!("no process for LMDB: {error}"))
}

/// One reader of LMDB: a transaction for each look-up, as a worker would hold none between messages.
pub(crate) struct LmdbReader<'m> {
    lmdb: &'m Lmdb,
    buffer: Box<[u8]>,
}

impl<'m> LmdbReader<'m> {
    /// Reads from `lmdb`.
    pub(crate) fn of(lmdb: &'m Lmdb) -> Self {
        let buffer = vec![0; VALUE_BYTES_MAX].into_boxed_slice();
        Self { lmdb, buffer }
    }

    /// Reads every record once, so that every page is mapped.
    ///
    /// # Panics
    /// When LMDB refuses or records are missing.
    pub(crate) fn visit_all(&mut self, count: usize) {
        let txn = self.lmdb.env.read_txn().unwrap_or_else(refused);
        let all = self.lmdb.records.iter(&txn).unwrap_or_else(refused);
        assert_eq!(all.count(), count, "records in LMDB");
        drop(txn); // one at a time in a thread
        for n in (0..count).step_by(7) {
            assert!(self.fetch(&Query::new(n)).is_some(), "subscriber {n}");
        }
    }
}

impl Fetch<Query> for LmdbReader<'_> {
    #[inline]
    fn fetch(&mut self, query: &Query) -> Option<&[u8]> {
        let txn = self.lmdb.env.read_txn().ok()?;
        let value = self.lmdb.records.get(&txn, &query.key).ok()??;
        let copy = self.buffer.get_mut(..value.len())?;
        copy.copy_from_slice(value);
        Some(copy)
    }
}
