//! Drives sipp 3.6.1: starts scenarios, and believes its statistics files, never its exit code alone.
//! Knows nothing of what a scenario says.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::Lab;
use crate::process::Process;
use crate::wait;

/// What one sipp counted, from the last line of its statistics file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls begun (caller) or seen (callee).
    pub placed: u64,
    /// Calls that went through their whole scenario.
    pub answered: u64,
    /// Calls that left it.
    pub failed: u64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            placed: self.placed + other.placed,
            answered: self.answered + other.answered,
            failed: self.failed + other.failed,
        }
    }
}

/// What a caller is to do.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// A name for its files, unique enough to be found again.
    pub name: &'a str,
    /// The scenario file.
    pub scenario: PathBuf,
    /// One line of fields for each call.
    pub lines: &'a [String],
    /// Where the requests go.
    pub target: SocketAddr,
    /// Calls per second.
    pub rate: u32,
}

/// A sipp that runs beside the test.
#[derive(Debug)]
pub struct Sipp {
    name: String,
    process: Process,
    statistics: PathBuf,
    messages: PathBuf,
}

impl Sipp {
    /// Starts a caller on host `caller` that runs through all lines of `load` once.
    ///
    /// # Panics
    /// When sipp or its files cannot be made.
    pub fn call(lab: &Lab, load: &Load<'_>) -> Self {
        let csv = lab.folder().join(format!("sipp-{}.csv", load.name));
        let text = format!("SEQUENTIAL\n{}\n", load.lines.join("\n"));
        fs::write(&csv, text).expect("the run folder can be written");
        let mut sipp = Self::prepare(lab, "caller", load.name, &load.scenario, None);
        sipp.1.arg("-inf").arg(csv);
        sipp.1.args([
            "-m",
            &load.lines.len().to_string(),
            "-r",
            &load.rate.to_string(),
        ]);
        // As many at once as the rate brings in the 32 s a transaction can take.
        sipp.1.args(["-l", &(load.rate * 32).to_string()]);
        sipp.1.arg(load.target.to_string());
        sipp.0.launch(sipp.1, lab)
    }

    /// Starts a callee on host `callee`, port `port`, that serves until [`Sipp::finish`].
    ///
    /// # Panics
    /// When sipp cannot be started or does not open its port.
    pub fn serve(lab: &Lab, name: &str, scenario: &Path, port: u16) -> Self {
        let (files, command) = Self::prepare(lab, "callee", name, scenario, Some(port));
        let mut sipp = files.launch(command, lab);
        let needle = format!(":{port:04X} ");
        wait::until(
            &format!("sipp {name} to open port {port}"),
            Duration::from_secs(10),
            || {
                assert!(sipp.process.ended().is_none(), "sipp {name} ended at once");
                let sockets = lab
                    .host("callee")
                    .run(|| fs::read_to_string("/proc/thread-self/net/udp"));
                sockets.is_ok_and(|text| text.contains(&needle))
            },
        );
        sipp
    }

    fn prepare(
        lab: &Lab,
        host: &str,
        name: &str,
        scenario: &Path,
        port: Option<u16>,
    ) -> (Files, Command) {
        let namespace = lab.host(host);
        let address: Ipv4Addr = namespace.address();
        let file = |kind: &str| lab.folder().join(format!("sipp-{name}.{kind}"));
        let (statistics, messages) = (file("statistics"), file("messages"));
        for old in [&statistics, &messages] {
            // The files of an earlier run under the same name.
            fs::remove_file(old).ok();
        }
        let mut command = namespace.command("sipp");
        command.current_dir(lab.folder()).env("TERM", "dumb");
        command.arg("-sf").arg(scenario);
        command.args([
            "-i",
            &address.to_string(),
            "-nostdin",
            "-fd",
            "1",
            "-trace_stat",
        ]);
        command.arg("-stf").arg(&statistics);
        command.arg("-trace_logs").arg("-log_file").arg(&messages);
        command
            .arg("-trace_err")
            .arg("-error_file")
            .arg(file("errors.log"));
        if let Some(port) = port {
            command.args(["-p", &port.to_string()]);
        }
        (
            Files {
                name: name.to_owned(),
                statistics,
                messages,
            },
            command,
        )
    }

    /// The counts so far, at most a second old.
    pub fn tally(&self) -> Tally {
        let text = fs::read_to_string(&self.statistics).unwrap_or_default();
        parse_statistics(&text).unwrap_or_default()
    }

    /// Waits until a caller has run through its lines, and returns the counts.
    ///
    /// # Panics
    /// When it takes longer than `deadline`.
    #[track_caller]
    pub fn done(mut self, deadline: Duration) -> Outcome {
        let status = self.process.finish(deadline);
        self.outcome(status.code())
    }

    /// Lets the calls in progress end, then ends sipp and returns the counts.
    pub fn finish(mut self) -> Outcome {
        self.process.signal(Signal::USR1);
        let start = wait::now();
        while self.process.ended().is_none() && start.elapsed() < Duration::from_secs(5) {
            wait::pause(Duration::from_millis(5));
        }
        let code = self.process.ended().and_then(|status| status.code());
        self.outcome(code)
    }

    fn outcome(self, exit: Option<i32>) -> Outcome {
        drop(self.process);
        let text = fs::read_to_string(&self.statistics).unwrap_or_default();
        let tally = parse_statistics(&text)
            .unwrap_or_else(|| panic!("sipp {} left no statistics (exit {exit:?})", self.name));
        let messages = fs::read_to_string(&self.messages).unwrap_or_default();
        Outcome {
            tally,
            exit,
            messages: messages.lines().map(str::to_owned).collect(),
        }
    }
}

/// How a sipp run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its counts.
    pub tally: Tally,
    /// Its exit code, `None` when it had to be killed.
    pub exit: Option<i32>,
    /// What the scenario logged, one line for each `<log>`.
    pub messages: Vec<String>,
}

struct Files {
    name: String,
    statistics: PathBuf,
    messages: PathBuf,
}

impl Files {
    fn launch(self, command: Command, lab: &Lab) -> Sipp {
        let process = Process::spawn(&format!("sipp-{}", self.name), command, lab.folder());
        let Self {
            name,
            statistics,
            messages,
        } = self;
        Sipp {
            name,
            process,
            statistics,
            messages,
        }
    }
}

/// Reads the last complete line of a statistics file; `None` before the first one is complete.
fn parse_statistics(text: &str) -> Option<Tally> {
    let complete = text.get(..text.rfind('\n')?)?;
    let mut lines = complete.lines();
    let titles: Vec<&str> = lines.next()?.split(';').collect();
    let values: Vec<&str> = lines.next_back()?.split(';').collect();
    let value = |title: &str| {
        let at = titles.iter().position(|name| *name == title)?;
        values.get(at)?.trim().parse().ok()
    };
    Some(Tally {
        placed: value("TotalCallCreated")?,
        answered: value("SuccessfulCall(C)")?,
        failed: value("FailedCall(C)")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_line_counts() {
        let head = "StartTime;TotalCallCreated;SuccessfulCall(P);SuccessfulCall(C);FailedCall(C);";
        let text = format!("{head}\nx;5;1;3;1;\nx;9;2;8;1;\nx;10;");
        let want = Tally {
            placed: 9,
            answered: 8,
            failed: 1,
        };
        assert_eq!(parse_statistics(&text), Some(want));
        assert_eq!(parse_statistics(&format!("{head}\n")), None);
        assert_eq!(parse_statistics(""), None);
    }
}
