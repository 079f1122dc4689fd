//! Everything of the agent that touches the system, and the loop that drives the core; it decides nothing.

mod map;
mod registrations;
mod unicast;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use locus_distribution::ReceiverConfig;
use locus_proto::{BootId, Timestamp};
use rustix::fs::{FsWord, statfs};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use map::{LockFolderError, MappedFolder, Mapping};
pub use registrations::{BindSocketError, DATAGRAM_BYTES_MAX};
pub use unicast::{CONNECT_TIMEOUT, OUTGOING_MAX, WRITE_TIMEOUT};

pub(crate) use map::{OwnedFolder, room};

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Input, Order, Start, Transmit};
use crate::event::{Complaints, Event};
use crate::node::{Node, OpenNodeError};
use crate::record::Recorder;
use registrations::RegistrationSocket;
use unicast::Links;

/// Most inputs that wait for the core; above it those who bring them wait. The largest message has
/// 512 KiB, so it bounds the memory to 32 MiB.
pub const INPUTS_MAX: usize = 64;
/// Longest time between two pulses: workers see the agent's life ten times a second.
pub const PULSE_EVERY: Duration = Duration::from_millis(100);
/// Inputs that are taken in a row before what is due by time gets its turn.
const INPUTS_IN_A_ROW_MAX: u32 = 64;
/// The group (Kamailio's) reads the tables and reaches the socket.
const FOLDER_MODE: u32 = 0o750;
/// `f_type` of a tmpfs (linux/magic.h).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// Why the agent cannot run; all for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The table's folder cannot be made.
    #[error("cannot make {}", path.display())]
    MakeFolder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The table's folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenNodeError),
    /// The socket for registrations cannot be used.
    #[error(transparent)]
    Bind(#[from] BindSocketError),
    /// The recording cannot be begun.
    #[error("cannot record into {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The system gives no randomness, signals or threads.
    #[error("the system refuses {what}")]
    System {
        /// What.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`], only before it is up: whatever happens later is waited out.
pub fn run(config: &Config) -> Result<(), RunError> {
    let clock = Clock::start();
    if config.insecure {
        Event::Insecure.log();
    }
    make_folder(&config.folder)?;
    let (node, events) = Node::open(config)?;
    for event in events {
        event.log();
    }
    let socket = RegistrationSocket::bind(&config.socket())?;
    let signals = signals()?;
    let (to_core, inputs) = bounded(INPUTS_MAX);
    let start = start(config, &node, clock)?;
    let now = clock.now();
    let recorder = match &config.record {
        Some(path) => {
            Some(
                Recorder::create(path, now, &start).map_err(|source| RunError::Record {
                    path: path.clone(),
                    source,
                })?,
            )
        }
        None => None,
    };
    let position = start.standing.map(|standing| standing.position);
    Event::Started {
        version: env!("CARGO_PKG_VERSION"),
        node: config.node.clone(),
        folder: config.folder.clone(),
        position,
        masters: config.locsvc.clone(),
    }
    .log();
    socket
        .read_into(to_core.clone(), clock)
        .map_err(|source| RunError::System {
            what: "a thread",
            source,
        })?;
    let agent = Agent {
        clock,
        core: Core::new(now, start),
        node,
        links: Links::new(to_core),
        socket,
        recorder,
        undelivered: Complaints::default(),
    };
    agent.serve(&inputs, &signals);
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), RunError> {
    let failed = |source| RunError::MakeFolder {
        path: path.to_owned(),
        source,
    };
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(failed)?;
    let found = statfs(path).map_err(io::Error::from).map_err(failed)?;
    if found.f_type != TMPFS_MAGIC {
        let folder = path.to_owned();
        Event::NotTmpfs { folder }.log();
    }
    Ok(())
}

fn start(config: &Config, node: &Node, clock: Clock) -> Result<Start, RunError> {
    let random = || {
        getrandom::u64().map_err(|error| RunError::System {
            what: "random numbers",
            source: error.into(),
        })
    };
    Ok(Start {
        node: ReceiverConfig {
            cluster: config.cluster.clone(),
            node: config.node_id,
            name: config.node.clone(),
            boot: BootId(random()?),
            sip: config.sip.clone(),
        },
        masters: config.locsvc.clone(),
        save_timeout: config.save_timeout(),
        max_grace: Duration::from_secs(config.max_grace_s.into()),
        standing: node.standing(),
        recalled: node.recalled(clock.monotonic_ms(clock.now())),
        seed: random()?,
    })
}

/// Returns a channel that says which signal asks the agent to end.
fn signals() -> Result<Receiver<&'static str>, RunError> {
    let refused = |source| RunError::System {
        what: "signals",
        source,
    };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
    let (sender, receiver) = bounded(1);
    let waiting = move || {
        if let Some(signal) = signals.forever().next() {
            let name = if signal == SIGTERM {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            sender.send(name).ok();
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(waiting).map_err(refused)?;
    Ok(receiver)
}

/// The core and its edges.
#[derive(Debug)]
struct Agent {
    clock: Clock,
    core: Core,
    node: Node,
    links: Links,
    socket: RegistrationSocket,
    recorder: Option<Recorder>,
    undelivered: Complaints,
}

impl Agent {
    fn serve(mut self, inputs: &Receiver<Input>, signals: &Receiver<&'static str>) {
        let mut in_a_row = 0;
        let reason = loop {
            let now = self.clock.now();
            let due = self.core.poll_timeout().is_some_and(|at| at <= now);
            // What came first is taken first: silence is only what no waiting input breaks.
            if due && (inputs.is_empty() || in_a_row >= INPUTS_IN_A_ROW_MAX) {
                in_a_row = 0;
                self.feed(Input::Timeout);
            }
            self.beat();
            select! {
                recv(signals) -> name => break name.unwrap_or("a lost signal thread"),
                recv(inputs) -> input => if let Ok(input) = input {
                    in_a_row += 1;
                    self.feed(input);
                },
                default(self.rest()) => in_a_row = 0,
            }
        };
        self.end(reason);
    }

    /// Returns how long there is nothing to do by time.
    fn rest(&self) -> Duration {
        let due = self.core.poll_timeout().unwrap_or(Timestamp(u64::MAX));
        due.since(self.clock.now()).min(PULSE_EVERY)
    }

    /// Feeds an input, and then every answer that its orders bring.
    fn feed(&mut self, input: Input) {
        self.take(input);
        while let Some(order) = self.core.poll_order() {
            let answer = match order {
                Order::Connect { connection, master } => self.links.connect(connection, master),
                Order::Disconnect { connection } => {
                    self.links.close(connection);
                    None
                }
                Order::Apply(_)
                | Order::BeginLoad { .. }
                | Order::LoadRecords(_)
                | Order::LoadFrame(_)
                | Order::FinishLoad(_)
                | Order::AbortLoad
                | Order::Find { .. } => self.node.carry_out(order),
            };
            if let Some(answer) = answer {
                self.take(answer);
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.record(now, &input);
        }
        self.core.handle_input(now, input);
        while let Some(transmit) = self.core.poll_transmit() {
            match transmit {
                Transmit::Master {
                    connection,
                    message,
                } => self.links.send(connection, &message),
                Transmit::Client { client, message } => {
                    if let Err(error) = self.socket.send(&client, &message)
                        && let Some(count) = self.undelivered.count(now)
                    {
                        let reason = error.to_string();
                        Event::AnswerUndelivered { count, reason }.log();
                    }
                }
            }
        }
        while let Some(event) = self.core.poll_event() {
            event.log();
        }
    }

    fn beat(&self) {
        let now = self.clock.now();
        self.node
            .beat(&self.core.pulse(now), self.clock.monotonic_ms(now));
    }

    fn end(mut self, reason: &'static str) {
        let now = self.clock.now();
        self.node
            .end(&self.core.pulse(now), self.clock.monotonic_ms(now));
        let summary = self.core.summary();
        if let Some(recorder) = &mut self.recorder {
            recorder.finish(&summary);
        }
        let summary = serde_json::to_string(&summary).unwrap_or_else(|error| error.to_string());
        Event::Stopped { reason, summary }.log();
    }
}
