//! The running service: opens everything, then one loop gives arrivals to the core. It decides nothing.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use locus_distribution::{GroupConfig, GroupDatagram, GroupSetup, Peer};
use locus_identity::{Holder, IdentityFolder, OpenIdentityError};
use locus_proto::{EpochId, MasterTime, Timestamp};
use locus_table::OpenTableError;

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, CoreConfig, EndState, Input, Transmit};
use crate::drive::{Drive, DriveError, Sink, chain};
use crate::edge::{
    Api, ApiCounters, ApiPort, ApiReplies, Arrival, GroupSocket, Inbox, Multicast, Security,
    StartApiError, StartMulticastError, StartUnicastError, Unicast, Watch,
};
use crate::event::{Event, Limiter, Totals, emit};
use crate::log::{AppendError, DiskFolder, Log, LogConfig, OpenLogError};
use crate::master::{Alive, DataFolder, Meta, OpenFolderError};
use crate::provision::Answer;
use crate::record::Recorder;

/// Most arrivals that wait for the core; behind it the edges wait, or refuse.
const INBOX_MAX: usize = 4096;
/// Most arrivals that are taken before the batch is written: questions that keep coming must not hold up
/// those who wait for the disk.
const GATHER_MAX: usize = 2048;
/// Arrivals after which it is looked whether something is due, while more arrivals wait: the group's timers
/// count milliseconds.
const LOOK_EVERY: usize = 64;
/// Under losses new data gives way down to this part of the rate: less would not keep up with a busy
/// registrar, whatever the losses.
const RATE_FLOOR_PART: u64 = 20;
/// Longest sleep of the core, though nothing is due.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Returned when the service cannot start, or cannot go on. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder.
    #[error("the data folder cannot be opened")]
    Folder(#[from] OpenFolderError),
    /// The log.
    #[error("the log cannot be opened")]
    Log(#[from] OpenLogError),
    /// `records_max`.
    #[error("no table can be made for records_max")]
    Table(#[from] OpenTableError),
    /// The identity folder.
    #[error(
        "the identity by which nodes and operators know this locsvc cannot be used: issue one by `locusctl ca \
         locsvc NAME --host ADDRESS` and copy the folder here (in a lab alone: insecure = true)"
    )]
    Identity(#[from] OpenIdentityError),
    /// The certificate is of somebody else.
    #[error(
        "the certificate in {} is {found}, where locsvc of the cluster {cluster} is needed: issue one by \
         `locusctl ca locsvc NAME`",
        folder.display()
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// Who it is.
        found: String,
        /// The cluster of the configuration.
        cluster: String,
    },
    /// The listener of the nodes.
    #[error(transparent)]
    Unicast(#[from] StartUnicastError),
    /// The group's socket.
    #[error(transparent)]
    Multicast(#[from] StartMulticastError),
    /// The listener of the API.
    #[error(transparent)]
    Api(#[from] StartApiError),
    /// The recording.
    #[error("the recording {path} cannot be begun")]
    Record {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system's random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// A thread, or the signals.
    #[error("cannot start a thread or take signals")]
    Thread(#[source] io::Error),
    /// The disk failed.
    #[error("the log failed")]
    Append(#[from] AppendError),
    /// The log, or the memory, contradicts the state that follows from it.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The first frame of the epoch was refused.
    #[error("the log takes no entry: {0}; make room on the disk, then start again")]
    NoRoom(String),
}

/// Asks a running service to end.
#[derive(Debug, Clone)]
pub struct Stopper {
    inbox: Inbox,
}

impl Stopper {
    /// Makes the service flush and end; returns at once.
    pub fn stop(&self) {
        // A full inbox waits here until the core has taken some; an ended one needs no word.
        drop(self.inbox.send(Arrival::Stop));
    }
}

/// A service that listens.
#[derive(Debug)]
pub struct Service {
    inbox: Inbox,
    arrivals: Receiver<Arrival>,
    drive: Drive<DiskFolder>,
    edges: Edges,
    watch: Option<Watch>,
    api: Option<Api>,
    /// What the API had counted when it stopped.
    api_counters: ApiCounters,
}

/// Where what the core says goes.
#[derive(Debug)]
struct Edges {
    clock: Clock,
    folder: DataFolder,
    unicast: Unicast,
    multicast: Option<Multicast>,
    replies: ApiReplies,
    recorder: Option<Recorder>,
    alive_failed: Limiter,
}

impl Service {
    /// Opens the data folder, reads the log, begins a new epoch, listens.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start(config: &Config) -> Result<Self, RunError> {
        let clock = Clock::start();
        let security = security(config)?;
        if let Security::Insecure = security {
            let open = config.open();
            emit(&Event::Insecure { open });
        }
        let socket = match &config.distribution.multicast {
            Some(multicast) if config.distribution.wants_group() => {
                let socket = GroupSocket::open(multicast, config.distribution.listen)?;
                Some((multicast, socket))
            }
            Some(_) | None => None,
        };
        let group = match &socket {
            None => None,
            Some((multicast, socket)) => Some(GroupSetup {
                address: multicast.group,
                reply_port: socket.port(),
                config: GroupConfig {
                    stream: u64::from_le_bytes(random()?),
                    seed: random()?,
                    datagram_bytes: multicast.datagram_bytes,
                    rate_bytes_per_s: multicast.rate_bytes_per_s(),
                    rate_floor_bytes_per_s: multicast.rate_bytes_per_s() / RATE_FLOOR_PART,
                },
            }),
        };
        let table_key: [u8; 16] = random()?;
        let created_ms = clock.wall_ms();
        let folder = DataFolder::open(&config.data, || Meta {
            table_key,
            created_ms,
        })?;
        let core_config = CoreConfig {
            cluster: config.cluster.clone(),
            table_key: folder.meta().table_key,
            records_max: config.records_max,
            registrar: config.registrar,
            reload_above: config.distribution.reload_above,
            transport: config.distribution.transport,
            group,
        };
        let mut recorder = None;
        if let Some(path) = &config.record {
            let begun = Recorder::create(path, &core_config);
            recorder = Some(begun.map_err(|source| RunError::Record {
                path: path.display().to_string(),
                source,
            })?);
            emit(&Event::Recording { path: path.clone() });
        }
        let mut core = Core::new(core_config)?;
        let disk = DiskFolder::new(folder.path());
        let (log, recovered) = Log::open(disk, LogConfig::default(), |frame| {
            let (now, input) = (clock.now(), Input::Recovered(frame));
            if let Some(event) = recorder.as_mut().and_then(|r| r.record(now, &input)) {
                emit(&event);
            }
            core.handle_input(now, input)
        })?;
        if let Some(torn) = recovered.torn {
            emit(&Event::TornTailCut(torn));
        }
        let (entries, bytes) = (recovered.entries, recovered.bytes);
        emit(&Event::Recovered { entries, bytes });

        let (inbox, arrivals) = bounded(INBOX_MAX);
        let (port, replies) = ApiPort::new(inbox.clone(), clock);
        let multicast = socket
            .map(|(_, socket)| Multicast::start(socket, inbox.clone(), clock))
            .transpose()?;
        let unicast = Unicast::start(&config.distribution, security.clone(), inbox.clone(), clock)?;
        let watch = match &security {
            Security::Insecure => None,
            Security::Identity(identity) => {
                let judge = unicast.judge();
                let watch = Watch::start(Arc::clone(identity), move || judge.judge());
                Some(watch.map_err(RunError::Thread)?)
            }
        };
        let start = Input::Start {
            epoch: EpochId(random()?),
            wall_ms: clock.wall_ms(),
            alive: folder.alive(),
        };
        let mut service = Self {
            inbox,
            arrivals,
            drive: Drive::new(core, log),
            edges: Edges {
                clock,
                folder,
                unicast,
                multicast,
                replies,
                recorder,
                alive_failed: Limiter::default(),
            },
            watch,
            api: None,
            api_counters: ApiCounters::default(),
        };
        service.feed(start)?;
        // Only now: whoever asks the API finds a service that answers.
        let api = Api::start(config.api.listen, security, port)?;
        emit(&Event::Started {
            version: env!("CARGO_PKG_VERSION"),
            data: config.data.clone(),
            position: service.drive.core().position(),
            records: service.drive.core().records(),
            distribution: service.edges.unicast.address(),
            bus: config.distribution.bus.clone(),
            group: config.distribution.group(),
            api: api.address(),
        });
        service.api = Some(api);
        Ok(service)
    }

    /// Returns a handle that ends the service from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            inbox: self.inbox.clone(),
        }
    }

    /// Serves until it is asked to stop.
    ///
    /// # Errors
    /// [`RunError`]: disk or memory failed in a way that leaves no choice but to end.
    pub fn run(mut self) -> Result<(), RunError> {
        let served = self.serve();
        self.edges.replies.close();
        let EndState {
            counters: core,
            distribution,
            ..
        } = self.drive.core().end_state();
        let totals = Totals {
            core,
            distribution,
            unicast: self.edges.unicast.counters(),
            multicast: self
                .edges
                .multicast
                .as_ref()
                .map(Multicast::counters)
                .unwrap_or_default(),
            api: self.api_counters,
        };
        drop(self.arrivals); // whoever waits for room in it is waited for below
        if let Some(watch) = self.watch {
            watch.stop();
        }
        self.edges.unicast.stop();
        if let Some(multicast) = self.edges.multicast {
            multicast.stop();
        }
        served?;
        emit(&Event::Totals(Box::new(totals)));
        emit(&Event::Stopped(self.drive.core().position()));
        Ok(())
    }

    fn serve(&mut self) -> Result<(), RunError> {
        loop {
            let now = self.edges.clock.now();
            let due = self.drive.core().poll_timeout();
            let wait = due.map_or(IDLE_MAX, |due| due.since(now).min(IDLE_MAX));
            let mut stopped = false;
            match self.arrivals.recv_timeout(wait) {
                Ok(arrival) => stopped |= self.arrival(arrival)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stopped = true, // cannot be: we hold a sender
            }
            // Natural batching: whatever came while the last batch was written makes the next.
            for taken in 1..GATHER_MAX {
                if stopped || self.drive.core().is_batch_full() {
                    break;
                }
                if taken % LOOK_EVERY == 0 && self.is_due() {
                    self.feed(Input::Tick)?;
                }
                let Ok(arrival) = self.arrivals.try_recv() else {
                    break;
                };
                stopped |= self.arrival(arrival)?;
            }
            while self.drive.core().wants_flush() {
                self.feed(Input::Flush)?;
            }
            if self.is_due() {
                self.feed(Input::Tick)?;
            }
            while self.drive.core().wants_flush() {
                self.feed(Input::Flush)?;
            }
            self.edges.flush_recording();
            if stopped {
                return Ok(());
            }
        }
    }

    fn is_due(&self) -> bool {
        let now = self.edges.clock.now();
        let due = self.drive.core().poll_timeout();
        due.is_some_and(|due| due <= now)
    }

    /// Takes one arrival; returns whether it was the last.
    fn arrival(&mut self, arrival: Arrival) -> Result<bool, RunError> {
        match arrival {
            Arrival::Input(input) => {
                if let Input::Datagrams(_) = &input
                    && let Some(multicast) = &self.edges.multicast
                {
                    multicast.taken();
                }
                self.feed(input).map(|()| false)
            }
            Arrival::Stop => self.stop_api().map(|()| false),
            Arrival::ApiStopped(counters) => {
                self.api_counters = counters;
                Ok(true)
            }
        }
    }

    /// Takes nothing new; requests that have begun are served to their end, at most a second.
    fn stop_api(&mut self) -> Result<(), RunError> {
        let Some(api) = self.api.take() else {
            return Ok(()); // asked twice
        };
        emit(&Event::Stopping);
        self.edges.unicast.stop_accepting();
        let inbox = self.inbox.clone();
        // Its last requests need this loop, so it is not waited for here.
        let stopping = thread::Builder::new()
            .name("stop".to_owned())
            .spawn(move || {
                drop(inbox.send(Arrival::ApiStopped(api.stop())));
            });
        stopping.map(drop).map_err(RunError::Thread)
    }

    /// Gives the core one input and what follows from it.
    fn feed(&mut self, input: Input) -> Result<(), RunError> {
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let now = self.edges.clock.now();
            self.edges.record(now, &input);
            let starting = matches!(input, Input::Start { .. });
            let unreadable = self.drive.handle(now, input, &mut self.edges)?;
            queue.extend(unreadable);
            let Some(written) = self.drive.append()? else {
                continue;
            };
            if let Input::CommitFailed { reason } = &written
                && starting
            {
                return Err(RunError::NoRoom(reason.clone()));
            }
            // What became of the batch comes before anything else.
            queue.push_front(written);
        }
        Ok(())
    }
}

impl Edges {
    fn record(&mut self, now: Timestamp, input: &Input) {
        if let Some(event) = self.recorder.as_mut().and_then(|r| r.record(now, input)) {
            emit(&event);
        }
    }

    fn flush_recording(&mut self) {
        if let Some(event) = self.recorder.as_mut().and_then(Recorder::flush) {
            emit(&event);
        }
    }
}

impl Sink for Edges {
    fn transmit(&mut self, transmit: Transmit) {
        self.unicast.transmit(transmit);
    }

    fn datagram(&mut self, datagram: GroupDatagram) {
        if let Some(multicast) = &self.multicast {
            multicast.transmit(&datagram);
        }
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        self.replies.deliver(ticket, answer);
    }

    fn close(&mut self, peer: Peer) {
        self.unicast.close(peer);
    }

    fn alive(&mut self, now: Timestamp, time: MasterTime) {
        let wall_ms = self.clock.wall_ms();
        if let Err(error) = self.folder.write_alive(Alive { time, wall_ms })
            && let Some(suppressed) = self.alive_failed.permit(now)
        {
            let reason = chain(&error);
            emit(&Event::AliveFailed { reason, suppressed });
        }
    }

    fn event(&mut self, event: Event) {
        emit(&event);
    }
}

/// Checks what a configuration names beside itself: the identity.
///
/// # Errors
/// [`RunError::Identity`] and [`RunError::NotOurs`].
pub fn check(config: &Config) -> Result<(), RunError> {
    security(config).map(drop)
}

/// Returns who the others have to be.
fn security(config: &Config) -> Result<Security, RunError> {
    if config.insecure {
        return Ok(Security::Insecure);
    }
    let identity = IdentityFolder::open(&config.identity)?;
    let ours = identity.identity();
    let is_locsvc = matches!(ours.holder, Holder::Locsvc { .. });
    if !is_locsvc || ours.cluster != config.cluster {
        return Err(RunError::NotOurs {
            folder: config.identity.clone(),
            found: ours.to_string(),
            cluster: config.cluster.to_string(),
        });
    }
    Ok(Security::Identity(Arc::new(identity)))
}

fn random<const N: usize>() -> Result<[u8; N], RunError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RunError::Random)?;
    Ok(bytes)
}
