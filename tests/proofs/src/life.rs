//! One life of the writer's process, as its parent has it in hand; it knows nothing of tables.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A child that speaks in lines, killed when this goes.
#[derive(Debug)]
pub(crate) struct Life {
    child: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
    gone: bool,
}

impl Life {
    /// Starts `program` on the table in `folder`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(program: &str, folder: &Path, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg(folder).args(arguments);
        // Large buffers come zeroed from the kernel: a clearing of memory is one step for each byte.
        command
            .env("MALLOC_MMAP_THRESHOLD_", "16384")
            .env("MALLOC_TOP_PAD_", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        match (child.stdout.take(), child.stdin.take()) {
            (Some(says), Some(hears)) => Ok(Self {
                child,
                says: BufReader::new(says),
                hears,
                gone: false,
            }),
            _ => Err("a child without pipes".to_owned()),
        }
    }

    /// Returns its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Returns the next line, which begins with `word`, without that.
    ///
    /// # Errors
    /// If it says something else or nothing more.
    pub(crate) fn expect(&mut self, word: &str) -> Result<String, String> {
        let mut line = String::new();
        let read = self.says.read_line(&mut line);
        let rest = line.trim_end().strip_prefix(word);
        match (read, rest) {
            (Ok(_), Some(rest)) => Ok(rest.trim_start().to_owned()),
            (read, _) => Err(format!("the writer says {line:?} ({read:?}), not {word:?}")),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub(crate) fn go(&mut self) -> Result<(), String> {
        let said = self
            .hears
            .write_all(b"go\n")
            .and_then(|()| self.hears.flush());
        said.map_err(|error| format!("the writer does not listen: {error}"))
    }

    /// Says that somebody else has waited for its end: its number may be another's already.
    pub(crate) fn is_gone(&mut self) {
        self.gone = true;
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended before, which it does only after a failure.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            let says = self.expect("fails")?;
            return Err(format!("the writer ended by itself, {status}{says}"));
        }
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| error.to_string())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.gone {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Keeps this thread, and the children that it will have, on one processor; the next thread on another.
pub(crate) fn stay_here() -> Result<(), String> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let failed = |error| format!("cannot choose a processor: {error}");
    let allowed = sched_getaffinity(None).map_err(failed)?;
    let count = usize::try_from(allowed.count()).unwrap_or(1).max(1);
    if count == 1 {
        return Ok(());
    }
    let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    let chosen = processors.nth(NEXT.fetch_add(1, Ordering::Relaxed) % count);
    let mut one = CpuSet::new();
    one.set(chosen.unwrap_or_default());
    sched_setaffinity(None, &one).map_err(failed)
}
