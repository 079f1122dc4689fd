//! A child process that is always stopped: own process group, own log file, TERM, deadline, KILL.
//! Knows nothing of what the process does.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait;

/// How long a process may take to leave after TERM. Kamailio needs up to 5 s with many contacts.
const TERM_DEADLINE: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when something failed.
const TAIL_LINES: usize = 40;

/// A running child. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` under `name`; its output is appended to `<folder>/<name>.log`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("log opens");
        writeln!(file, "--- lab: {command:?}").expect("log can be written");
        let copy: File = file.try_clone().expect("log handle can be copied");
        command
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// The process id; wrappers have replaced themselves by the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How the process ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends `signal` to the process alone.
    pub fn signal(&self, signal: Signal) {
        // A process that has just ended needs no signal.
        rustix::process::kill_process(Pid::from_child(&self.child), signal).ok();
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it runs longer than `deadline`.
    #[track_caller]
    pub fn finish(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait::value(&what, deadline, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Ends the process in good order and returns how it left.
    pub fn stop(mut self) -> ExitStatus {
        self.end()
    }

    /// Ends the process and its group without warning, as `kill -9` does.
    pub fn kill(mut self) {
        self.kill_group();
        self.child.wait().expect("a child can be waited for");
    }

    fn kill_group(&self) {
        // The group is gone when all have left: nothing to do then.
        rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
    }

    fn end(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            // A stopped process (SIGSTOP) would not see TERM before CONT.
            self.signal(Signal::TERM);
            self.signal(Signal::CONT);
        }
        let start = wait::now();
        while self.ended().is_none() && start.elapsed() < TERM_DEADLINE {
            wait::pause(Duration::from_millis(2));
        }
        // Also when the leader has left: a worker must not survive it.
        self.kill_group();
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of every log in `folder`, for the person who looks at a failure.
pub(crate) fn tails(folder: &Path) -> String {
    let mut logs: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let mut text = String::new();
    for log in logs {
        let bytes = fs::read(&log).unwrap_or_default();
        let content = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = content.lines().collect();
        text += &format!("--- {}\n", log.display());
        for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
            text += line;
            text.push('\n');
        }
    }
    text
}
