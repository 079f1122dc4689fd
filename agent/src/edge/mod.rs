//! Everything of the agent that touches the system, and its start; it decides nothing.

mod boot;
mod folder;
mod hold;
mod identity;
mod map;
mod multicast;
mod pages;
mod registrations;
mod scrub;
mod serve;
mod snapshot;
mod unicast;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use locus_distribution::{Pulse, Recalled, ReceiverConfig};
use locus_proto::{BootId, Level, MasterTime, NodeState};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use folder::{LockFolderError, MappedFolder, OwnedFolder};
pub use identity::{EXPIRY_WARNING, IDENTITY_EVERY, IdentityError};
pub use map::Mapping;
pub use multicast::{DATAGRAMS_MAX, RECEIVE_BUFFER_BYTES};
pub use registrations::{BindSocketError, DATAGRAM_BYTES_MAX};
pub use unicast::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, OUTGOING_MAX, WRITE_TIMEOUT};

pub(crate) use boot::{BootMark, Made};
use folder::on_tmpfs;
pub(crate) use folder::{Populate, room};
use pages::Pages;
pub(crate) use snapshot::Snapshots;

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Start};
use crate::event::Event;
use crate::node::{Node, OpenNodeError};
use crate::record::Recorder;
use multicast::Group;
use registrations::RegistrationSocket;
use scrub::Scrub;
use serve::{Agent, Edges, Inputs};
use snapshot::Disk;
use unicast::Links;

/// Most inputs that wait for the core, from the master, from its group, and from all others; above it those who
/// bring them wait. The master's largest message has 512 KiB, so it bounds the memory to 32 MiB; what comes for
/// the group, to 6 MiB.
pub const INPUTS_MAX: usize = 64;
/// Longest time between two pulses: workers see the agent's life ten times a second.
pub const PULSE_EVERY: Duration = Duration::from_millis(100);
/// The group (Kamailio's) reads the tables and reaches the socket.
const FOLDER_MODE: u32 = 0o750;

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
    /// This node cannot say who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
    let identity = identity::open(config)?;
    make_folder(&config.folder)?;
    let (mut node, events) = Node::open(config)?;
    for event in events {
        event.log();
    }
    let signals = signals()?;
    // Nobody is answered before the table is there, as after a reload: a worker is told so at once, since the
    // socket is not bound yet.
    let recalled = warm_up(config, &mut node, clock, &signals)?;
    let socket = RegistrationSocket::bind(&config.socket())?;
    let (from_master, master) = bounded(INPUTS_MAX);
    let (from_group, group) = bounded(INPUTS_MAX);
    let (from_others, others) = bounded(INPUTS_MAX);
    let start = start(config, &node, recalled)?;
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
        masters: config.addresses(),
    }
    .log();
    let no_thread = |source| RunError::System {
        what: "a thread",
        source,
    };
    socket
        .read_into(from_others.clone(), clock)
        .map_err(no_thread)?;
    let scrub = Scrub::start(&config.folder, config.scrub_every(), clock, from_others)
        .map_err(no_thread)?;
    if let Some(folder) = &identity {
        identity::watch(Arc::clone(folder), clock).map_err(no_thread)?;
    }
    let core = Core::new(now, start);
    let edges = Edges {
        links: Links::new(from_master, identity),
        group: Group::new(from_group, clock, config.multicast_interface.clone()),
        socket,
        scrub,
    };
    let agent = Agent::new(clock, core, node, edges, recorder);
    let inputs = Inputs {
        master,
        group,
        others,
    };
    agent.serve(inputs, &signals);
    Ok(())
}

/// Says whether the agent could run with this configuration, as far as can be seen without running it.
///
/// # Errors
/// [`RunError`]: this node cannot say who it is.
pub fn check(config: &Config) -> Result<(), RunError> {
    identity::open(config)?;
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
    if !on_tmpfs(path).map_err(failed)? {
        let folder = path.to_owned();
        Event::NotTmpfs { folder }.log();
    }
    Ok(())
}

/// Loads the table from disk if there is none, and starts the thread that writes it there; returns what is
/// known of the master's clock.
fn warm_up(
    config: &Config,
    node: &mut Node,
    clock: Clock,
    signals: &Receiver<&'static str>,
) -> Result<Option<Recalled>, RunError> {
    let recalled = node.recalled(clock.monotonic_ms(clock.now()));
    let Some(mut disk) = Disk::open(config) else {
        return Ok(recalled);
    };
    let loading = Pulse {
        state: NodeState::Loading,
        master_time: None,
        complete_until: MasterTime(0),
        master_level: Level::ZERO,
    };
    let mut beat_at = clock.now();
    let tick = |node: &Node| {
        let now = clock.now();
        if now >= beat_at {
            node.beat(&loading, clock.monotonic_ms(now));
            beat_at = now.plus(PULSE_EVERY);
        }
        signals.is_empty()
    };
    let restored = disk.restore(config, node, clock, tick);
    let snapshots = disk
        .write(config, clock)
        .map_err(|source| RunError::System {
            what: "a thread",
            source,
        })?;
    node.set_snapshots(snapshots);
    Ok(restored.or(recalled))
}

fn start(config: &Config, node: &Node, recalled: Option<Recalled>) -> Result<Start, RunError> {
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
            transport: config.transport,
        },
        masters: config.addresses(),
        save_timeout: config.save_timeout(),
        max_grace: Duration::from_secs(config.max_grace_s.into()),
        standing: node.standing(),
        recalled,
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
