//! The program itself, in a folder of its own; both go with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than any step takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A folder that goes with the test.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("locsvc-test-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    /// Without certificates: those stand in `secure.rs`.
    pub(crate) fn config(&self, more: &str) -> PathBuf {
        let data = self.path.join("data");
        let text = format!(
            "cluster = \"lab\"\ninsecure = true\ndata = {data:?}\nrecords_max = 10000\n\
             distribution.listen = \"127.0.0.1:0\"\napi.listen = \"127.0.0.1:0\"\n{more}\n"
        );
        let path = self.path.join("locsvc.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// A running locsvc; killed with the test.
pub(crate) struct Service {
    pub(crate) child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub(crate) address: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Service {
    pub(crate) fn start(config: &Path) -> Self {
        let mut child = program(config).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut service = Self {
            child,
            lines,
            seen: Vec::new(),
            address: ([127, 0, 0, 1], 0).into(),
            api: ([127, 0, 0, 1], 0).into(),
        };
        let line = service.wait_for("started: ");
        let after = |what: &str| {
            let (_, after) = line.split_once(what).unwrap();
            after.split(',').next().unwrap().parse().unwrap()
        };
        (service.address, service.api) = (after("distribution on "), after("api on "));
        service
    }

    /// Reads what the service says until a line holds `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("no line with {text:?} after {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stop(mut self) -> (ExitStatus, Vec<String>) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.seen.push(line);
        }
        (status, std::mem::take(&mut self.seen))
    }

    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn program(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locsvc"));
    command.arg("--config").arg(config);
    command
}
