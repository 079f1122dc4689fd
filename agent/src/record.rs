//! Recordings of everything that went into a core, one JSON line each, and their replay.
//!
//! It knows no table and no socket: the answers of both are inputs too.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use locus_proto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::{Core, Input, Start, Summary};
use crate::event::Event;

/// A recording holds the cluster's table key and every registration.
const FILE_MODE: u32 = 0o600;

/// One line of a recording, borrowed to be written or owned to be read.
#[derive(Debug, Serialize, Deserialize)]
enum Line<S, I> {
    /// The first line.
    Start(Timestamp, S),
    /// What happened, and when.
    Input(Timestamp, I),
    /// The last line, if the agent was stopped in an orderly way: where the core stood.
    End(serde_json::Value),
}

type Written<'a> = Line<&'a Start, &'a Input>;
type Read = Line<Box<Start>, Box<Input>>;

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    file: Option<File>,
}

impl Recorder {
    /// Begins a new recording at `path`; an older one there is lost.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, now: Timestamp, start: &Start) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        // An older file keeps its mode when it is opened.
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        let mut recorder = Self { file: Some(file) };
        recorder.write(&Line::Start(now, start))?;
        Ok(recorder)
    }

    /// Writes an input; after a failure the recording has ended, and the agent goes on.
    pub fn record(&mut self, now: Timestamp, input: &Input) {
        self.write_or_end(&Line::Input(now, input));
    }

    /// Writes the end state.
    pub fn finish(&mut self, summary: &Summary) {
        match serde_json::to_value(summary) {
            Ok(summary) => self.write_or_end(&Line::End(summary)),
            Err(error) => self.end(&error.into()),
        }
    }

    fn write_or_end(&mut self, line: &Written<'_>) {
        if let Err(error) = self.write(line) {
            self.end(&error);
        }
    }

    fn end(&mut self, error: &io::Error) {
        if self.file.take().is_some() {
            let reason = error.to_string();
            Event::RecordingStopped { reason }.log();
        }
    }

    fn write(&mut self, line: &Written<'_>) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        file.write_all(&bytes)
    }
}

/// Why a recording does not replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("the recording cannot be read")]
    Read(#[from] io::Error),
    /// A line is none of a recording.
    #[error("line {number} is none of a recording")]
    Line {
        /// Which, from one.
        number: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Its first line is not the start, or another one is.
    #[error("line {number} stands in the wrong place")]
    Order {
        /// Which, from one.
        number: usize,
    },
    /// The replay came to another end.
    #[error("the recording ends at {recorded}, its replay at {replayed}")]
    Differs {
        /// What was recorded.
        recorded: serde_json::Value,
        /// What the replay came to.
        replayed: serde_json::Value,
    },
}

/// Feeds a recording into a new core and returns where that stands at the end.
///
/// A recording that was cut off, as by a kill -9, is replayed to its last whole line.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(mut recording: impl BufRead) -> Result<Summary, ReplayError> {
    let (mut core, mut end) = (None, None);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        recording.read_line(&mut text)?;
        if !text.ends_with('\n') {
            break;
        }
        let line: Read =
            serde_json::from_str(&text).map_err(|source| ReplayError::Line { number, source })?;
        match (line, &mut core, &end) {
            (Line::Start(now, start), None, None) => core = Some(Core::new(now, *start)),
            (Line::Input(now, input), Some(core), None) => {
                core.handle_input(now, *input);
                // What comes out has been answered already: the answers are the next lines.
                while core.poll_transmit().is_some() {}
                while core.poll_event().is_some() {}
                while core.poll_order().is_some() {}
            }
            (Line::End(summary), Some(_), None) => end = Some(summary),
            (Line::Start(..) | Line::Input(..) | Line::End(_), _, _) => {
                return Err(ReplayError::Order { number });
            }
        }
    }
    let Some(core) = core else {
        return Err(ReplayError::Order { number: 1 });
    };
    let summary = core.summary();
    if let Some(recorded) = end {
        let replayed = serde_json::to_value(&summary).map_err(io::Error::from)?;
        if recorded != replayed {
            return Err(ReplayError::Differs { recorded, replayed });
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use locus_distribution::ReceiverConfig;
    use locus_proto::{BootId, NodeId, Transport};

    use super::*;
    use crate::core::{Address, Connection};

    fn start() -> Start {
        Start {
            node: ReceiverConfig {
                cluster: "lab".parse().unwrap(),
                node: NodeId(1),
                name: "n1".parse().unwrap(),
                boot: BootId(1),
                sip: String::new(),
                transport: Transport::Auto,
            },
            masters: vec![Address::Tcp("127.0.0.1:1".parse().unwrap())],
            save_timeout: Duration::from_secs(2),
            max_grace: Duration::ZERO,
            standing: None,
            recalled: None,
            seed: 1,
        }
    }

    /// Records a few failed attempts; returns the recording and where the core stood.
    fn recorded(name: &str) -> (String, Summary) {
        let path = PathBuf::from(format!(
            "/dev/shm/locus-record-{}-{name}",
            std::process::id()
        ));
        let mut now = Timestamp(5);
        let mut core = Core::new(now, start());
        let mut recorder = Recorder::create(&path, now, &start()).unwrap();
        for n in 1..=3 {
            let mut feed = |input: Input| {
                now = core.poll_timeout().unwrap_or(now).max(now);
                recorder.record(now, &input);
                core.handle_input(now, input);
                core.summary().connections_total
            };
            while feed(Input::Timeout) < n {}
            let reason = "refused".to_owned();
            let connection = Connection(n);
            feed(Input::Closed { connection, reason });
        }
        recorder.finish(&core.summary());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (text, core.summary())
    }

    #[test]
    fn a_replay_comes_to_the_recorded_end() {
        let (text, summary) = recorded("end");
        assert_eq!(summary.connections_total, 3);
        assert_eq!(replay(text.as_bytes()).unwrap(), summary);
        let other = text.replace("\"connections_total\":3", "\"connections_total\":4");
        let error = replay(other.as_bytes()).unwrap_err();
        assert!(matches!(error, ReplayError::Differs { .. }), "{error}");
    }

    #[test]
    fn nobody_else_reads_a_recording_over_an_older_file() {
        let path = PathBuf::from(format!("/dev/shm/locus-record-{}-mode", std::process::id()));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _recorder = Recorder::create(&path, Timestamp(0), &start()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    #[test]
    fn a_recording_that_was_cut_off_replays_to_its_last_whole_line() {
        let (text, summary) = recorded("cut");
        for cut in text.find('\n').unwrap() + 1..text.len() {
            let replayed = replay(&text.as_bytes()[..cut]).unwrap();
            assert!(replayed.connections_total <= summary.connections_total);
        }
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_line() {
        let (text, _) = recorded("bad");
        let lines: Vec<_> = text.lines().collect();
        let (first, second, last) = (lines[0], lines[1], lines[lines.len() - 1]);
        for (text, expected) in [
            (String::new(), "line 1 stands in the wrong place"),
            (format!("{second}\n"), "line 1 stands in the wrong place"),
            (
                format!("{first}\n{first}\n"),
                "line 2 stands in the wrong place",
            ),
            (
                format!("{first}\n{last}\n{second}\n"),
                "line 3 stands in the wrong place",
            ),
            (format!("{first}\n{{}}\n"), "line 2 is none of a recording"),
        ] {
            let error = replay(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, expected, "{text}");
        }
        assert_eq!(
            replay(format!("{first}\n").as_bytes())
                .unwrap()
                .connections_total,
            0
        );
    }
}
