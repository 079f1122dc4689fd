//! Runs a writer instruction by instruction and watches the table's memory between any two.

use std::ffi::c_void;
use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use libc::user;
use locus_agent::MappedFolder;
use locus_table::{FolderReader, HeapMemory, Writer};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::case::{Case, What};
use crate::layout::{AT_BEGIN, AT_DONE, AT_JOURNAL, load};
use crate::life::{Life, stay_here};
use crate::script::Order;
use crate::watch::{Report, Watch};

/// What the writer says if its system calls do not let it be traced.
pub const UNTRACED: &str = "untraced:";

/// Steps between two looks at where the writer is: no multiple of a loop's length.
const LOOK_EACH: u64 = 257;
/// Looks that find it within [`CIRCLE_BYTES`] before it is left to run: 16,384 instructions, as many as no
/// loop of a small table has but the one that adds up 65,536 partitions in 700,000.
const LOOKS_MIN: u64 = 64;
/// Bytes of code of a loop.
const CIRCLE_BYTES: u64 = 512;
/// Debug register 7: each of the first three watches stores to the eight bytes at its address (Intel SDM 3B,
/// 19.2.4: local enable in bits 0 to 7, four bits of kind and length for each from bit 16).
const STORES_OF_EIGHT_BYTES: i64 = 0x0999_0015;

/// Why nothing was proved.
#[derive(Debug, PartialEq, Eq)]
pub enum StepError {
    /// This machine lets no process trace its child.
    Missing(String),
    /// Something else.
    Failed(String),
}

impl From<String> for StepError {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The writer's program.
    pub program: &'a str,
    /// The folder of its table.
    pub folder: &'a Path,
    /// What it does.
    pub what: What,
    /// What it does it with.
    pub seed: u64,
    /// Long loops of loads are run through, up to the first store behind them.
    pub through_loads: bool,
}

impl Run<'_> {
    /// Watches the whole operation.
    ///
    /// # Errors
    /// [`StepError`]; what is not true of the table stands in the report.
    pub fn operation(self) -> Result<Report, StepError> {
        let case = Case::new(self.what, self.seed);
        let stepped = Stepped::start(self, &["operate"])?;
        self.watch(&case, stepped, |copy| operate(&case, copy))
    }

    /// Watches the operation's stores in an order that may be wrong.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn script(self, order: Order) -> Result<Report, StepError> {
        let case = Case::new(self.what, self.seed);
        let names = Order::ALL.iter().filter(|(_, named)| *named == order);
        let name: Vec<&str> = names.map(|(name, _)| *name).collect();
        let stepped = Stepped::start(self, &["script", name[0]])?;
        self.watch(&case, stepped, |copy| operate(&case, copy))
    }

    /// Kills the writer so many instructions after its batch began, and watches the recovery by the next.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn recovery(self, behind_begin: u64) -> Result<Report, StepError> {
        let case = Case::new(self.what, self.seed);
        let mut stepped = Stepped::start(self, &["operate"])?;
        let reader = MappedFolder::open_ro(self.folder);
        let table = words(&reader)?;
        let mut behind = 0;
        while behind < behind_begin {
            if !stepped.step()? {
                return Err(format!("it ends after {behind} instructions of its batch").into());
            }
            behind += u64::from(load(table, AT_BEGIN) != load(table, AT_DONE));
        }
        drop(stepped);
        let stepped = Stepped::start(self, &["recover"])?;
        self.watch(&case, stepped, |copy| {
            let opened = Writer::open(copy).map_err(|error| error.to_string())?;
            if opened.1.redone {
                Ok(())
            } else {
                Err(format!(
                    "nothing is left to be done after {behind} instructions"
                ))
            }
        })
    }

    fn watch(
        self,
        case: &Case,
        mut stepped: Stepped,
        rehearse: impl FnOnce(HeapMemory) -> Result<(), String>,
    ) -> Result<Report, StepError> {
        let reader = MappedFolder::open_ro(self.folder);
        let mut watch = Watch::new(case, words(&reader)?, rehearse)?;
        // The first store behind a long run of loads is one of these.
        let next = [AT_JOURNAL, AT_BEGIN, AT_DONE].map(|at| stepped.table + at * 8);
        let mut circle = Circle::default();
        while stepped.step()? {
            if watch.step() {
                circle = Circle::default();
            } else if self.through_loads && circle.goes_round(&stepped)? {
                circle = Circle::default();
                let goes_on = stepped.run_to_store(next)?;
                watch.ran();
                if !goes_on {
                    break;
                }
            }
        }
        watch.finish();
        let report = watch.report;
        Ok(report)
    }
}

/// Where the writer was since its last store.
#[derive(Debug, Default)]
struct Circle {
    steps: u64,
    looks: u64,
    lowest: u64,
    highest: u64,
}

impl Circle {
    /// Returns whether it has been in one small loop for long.
    fn goes_round(&mut self, stepped: &Stepped) -> Result<bool, String> {
        self.steps += 1;
        if !self.steps.is_multiple_of(LOOK_EACH) {
            return Ok(false);
        }
        let registers = ptrace::getregs(stepped.pid);
        let at = registers.map_err(|error| format!("ptrace: {error}"))?.rip;
        let (lowest, highest) = (self.lowest.min(at), self.highest.max(at));
        // One instruction that repeats itself, as a clearing of memory does, is no loop.
        if self.looks > 0 && (1..CIRCLE_BYTES).contains(&(highest - lowest)) {
            (self.lowest, self.highest) = (lowest, highest);
            self.looks += 1;
        } else {
            (self.lowest, self.highest, self.looks) = (at, at, 1);
        }
        Ok(self.looks >= LOOKS_MIN)
    }
}

/// Returns where the kernel keeps a debug register of a traced process.
fn debug_register(number: usize) -> *mut c_void {
    let at = offset_of!(user, u_debugreg) + number * size_of::<u64>();
    std::ptr::without_provenance_mut(at)
}

fn operate(case: &Case, copy: HeapMemory) -> Result<(), String> {
    let (mut writer, _) = Writer::open(copy).map_err(|error| error.to_string())?;
    case.operate(&mut writer)
}

fn words(reader: &FolderReader<MappedFolder>) -> Result<&[AtomicU64], String> {
    let region = reader.region().ok_or("no table is mapped")?;
    Ok(region.as_ref())
}

/// A writer that stands still between any two of its instructions.
#[derive(Debug)]
struct Stepped {
    life: Life,
    pid: Pid,
    /// Where the writer has mapped its table.
    table: usize,
}

impl Stepped {
    /// Starts the writer and lets it run to where the operation begins.
    fn start(run: Run<'_>, how: &[&str]) -> Result<Self, StepError> {
        let what = match run.what {
            What::Apply => "apply",
            What::Repair => "repair",
        };
        let seed = run.seed.to_string();
        let arguments = [&how[..1], &[what, seed.as_str()], &how[1..]].concat();
        // On one processor, two processes that take turns need no wake-up between processors.
        stay_here()?;
        let mut life = Life::start(run.program, run.folder, &arguments)?;
        let pid = life.pid();
        match waitpid(pid, None) {
            Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => {}
            Ok(_) => {
                life.is_gone();
                return Err(match life.expect(UNTRACED) {
                    Ok(why) => StepError::Missing(format!("ptrace of a child ({why})")),
                    Err(says) => StepError::Failed(says),
                });
            }
            Err(error) => return Err(format!("waitpid: {error}").into()),
        }
        ptrace::setoptions(pid, Options::PTRACE_O_EXITKILL)
            .map_err(|error| StepError::Missing(format!("ptrace of a child ({error})")))?;
        let table = life.expect("table at")?;
        let table = table.parse().map_err(|_| format!("a table at {table:?}"))?;
        Ok(Self { life, pid, table })
    }

    /// Runs until a store to one of these addresses is done; returns whether the operation goes on.
    fn run_to_store(&mut self, addresses: [usize; 3]) -> Result<bool, String> {
        let failed = |error| format!("ptrace: no debug register: {error}");
        for (number, address) in addresses.into_iter().enumerate() {
            let address = i64::try_from(address).map_err(|error| error.to_string())?;
            ptrace::write_user(self.pid, debug_register(number), address).map_err(failed)?;
        }
        ptrace::write_user(self.pid, debug_register(7), STORES_OF_EIGHT_BYTES).map_err(failed)?;
        ptrace::cont(self.pid, None).map_err(|error| format!("ptrace: {error}"))?;
        let went_on = self.stopped()?;
        ptrace::write_user(self.pid, debug_register(7), 0).map_err(failed)?;
        Ok(went_on)
    }

    /// Runs one instruction; returns whether the operation goes on.
    fn step(&mut self) -> Result<bool, String> {
        ptrace::step(self.pid, None).map_err(|error| format!("ptrace: {error}"))?;
        self.stopped()
    }

    fn stopped(&mut self) -> Result<bool, String> {
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => Ok(true),
            Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => Ok(false),
            Ok(WaitStatus::Exited(..)) => {
                self.life.is_gone();
                Err(format!("the writer ends: {:?}", self.life.expect("fails")))
            }
            other => Err(format!("the writer stands at {other:?}")),
        }
    }
}
