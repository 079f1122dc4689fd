//! The heart of the service: every request, registration and node passes through it, in one order. It reads
//! no clock, socket or file.
//!
//! Contract: call one `handle_*`, then drain [`Core::poll_transmit`] and [`Core::poll_output`] until both
//! return `None`, in that order, doing at once what is asked for; then take the next input. After
//! [`Output::Append`] the very next input says what became of it.

mod batch;
mod distribute;
mod gather;
mod input;

#[cfg(test)]
mod tests;

pub use batch::BATCH_BYTES_MAX;
pub use input::{CoreConfig, CoreCounters, EndState, Input, Output, Transmit};

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use locus_distribution::{LogFrame, Peer, Sender};
use locus_proto::{
    AddressOfRecord, AorRecord, Change, Digits, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key,
    Level, MasterTime, Message, Position, Route, Timestamp,
};
use locus_table::{OpenTableError, Prepared, ScanCursor};

use crate::event::{Event, Limiter};
use crate::log::{Index, Place};
use crate::master::{Alive, Master, RecoverError, ServiceClock};
use crate::provision::{Answer, EXPIRED_MAX, ExpiryQueue, Request, RequestError, live};
use batch::{Batch, Reply, Work};
use distribute::Waiting;

/// Most requests that wait for the batch before theirs; the driver hands over far fewer at a time.
pub const BACKLOG_MAX: usize = 16 * 1024;
/// Time between two looks for expired bindings: nodes have stopped using them by themselves.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// The same while there are more of them.
const EXPIRE_SOON: Duration = Duration::from_millis(100);
/// Time between two notes of the service time.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// The core; see the module.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    master: Master,
    clock: Option<ServiceClock>,
    sender: Option<Sender>,
    expiry: ExpiryQueue,
    /// Bytes of the log by level: what a catch-up would cost.
    index: Index,
    backlog: VecDeque<Work>,
    batch: Batch,
    /// Most requests in one batch: halved when a batch does not fit into the table, doubled with each
    /// that does, so that the one that is too much is found and the others still share their writes.
    requests_max: usize,
    in_flight: Option<InFlight>,
    scans: HashMap<Peer, ScanCursor>,
    waiting: Vec<Waiting>,
    addresses: HashMap<Peer, String>,
    outputs: VecDeque<Output>,
    transmits: VecDeque<Transmit>,
    alive_at: Timestamp,
    expire_at: Timestamp,
    counters: CoreCounters,
    limits: Limiters,
}

/// What the log is making durable.
#[derive(Debug)]
enum InFlight {
    Batch {
        header: FrameHeader,
        bytes: u64,
        prepared: Prepared,
        changes: Vec<Change>,
        jobs: Vec<(Work, Reply)>,
    },
    Epoch {
        frame: Frame,
        bytes: u64,
    },
}

/// Lines about nodes that come and go, a second: a whole cluster that comes back is shown in a few.
const NODE_LINES_MAX: u32 = 100;

#[derive(Debug)]
struct Limiters {
    disk: Limiter,
    full: Limiter,
    table: Limiter,
    peers: Limiter,
    log: Limiter,
    nodes: Limiter,
}

impl Default for Limiters {
    fn default() -> Self {
        Self {
            disk: Limiter::default(),
            full: Limiter::default(),
            table: Limiter::default(),
            peers: Limiter::default(),
            log: Limiter::default(),
            nodes: Limiter::per_second(NODE_LINES_MAX),
        }
    }
}

impl Core {
    /// Returns the core of an empty database.
    ///
    /// # Errors
    /// [`OpenTableError`]: `records_max` is beyond what a table can hold.
    pub fn new(config: CoreConfig) -> Result<Self, OpenTableError> {
        Ok(Self {
            master: Master::new(config.records_max, config.table_key)?,
            config,
            clock: None,
            sender: None,
            expiry: ExpiryQueue::default(),
            index: Index::default(),
            backlog: VecDeque::new(),
            batch: Batch::new(Level::ZERO),
            requests_max: BACKLOG_MAX,
            in_flight: None,
            scans: HashMap::new(),
            waiting: Vec::new(),
            addresses: HashMap::new(),
            outputs: VecDeque::new(),
            transmits: VecDeque::new(),
            alive_at: Timestamp::default(),
            expire_at: Timestamp::default(),
            counters: CoreCounters::default(),
            limits: Limiters::default(),
        })
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`RecoverError`], of [`Input::Recovered`] alone: the log does not lead on.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) -> Result<(), RecoverError> {
        match input {
            Input::Recovered(frame) => self.recover(&frame)?,
            Input::Start {
                epoch,
                wall_ms,
                alive,
            } => self.start(now, epoch, wall_ms, alive),
            Input::Api { ticket, request } => self.request(now, ticket, request),
            Input::Connected { peer, address } => self.connected(now, peer, address),
            Input::Message { peer, message } => self.message(now, peer, *message),
            Input::Sent { peer, bytes } => {
                if let Some(sender) = &mut self.sender {
                    sender.handle_sent(now, peer, bytes);
                }
            }
            Input::Closed { peer } => self.closed(now, peer),
            Input::Flush => self.gather(now, true),
            Input::Committed => self.committed(now)?,
            Input::CommitFailed { reason } => self.commit_failed(now, reason),
            Input::LogUnreadable { peer, reason } => self.log_unreadable(now, peer, reason),
            Input::Tick => self.tick(now),
        }
        self.pump(now);
        Ok(())
    }

    /// Takes the frames that [`Output::ReadLog`] asked for, in log order.
    pub fn handle_frames(&mut self, now: Timestamp, peer: Peer, frames: Vec<LogFrame>) {
        if let Some(sender) = &mut self.sender {
            sender.handle_frames(now, peer, frames);
        }
        self.pump(now);
    }

    /// Returns the next bytes for a node.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns what has to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let sender = self.sender.as_ref()?.poll_timeout();
        let wait = self.waiting.iter().map(|waiting| waiting.deadline).min();
        let own = self.alive_at.min(self.expire_at);
        Some(
            [sender, wait]
                .into_iter()
                .flatten()
                .fold(own, Timestamp::min),
        )
    }

    /// Returns whether requests wait for [`Input::Flush`].
    pub fn wants_flush(&self) -> bool {
        self.in_flight.is_none() && !(self.batch.is_empty() && self.backlog.is_empty())
    }

    /// Returns whether the batch that is gathered is full: time for [`Input::Flush`].
    pub fn is_batch_full(&self) -> bool {
        self.batch.is_full() || !self.backlog.is_empty()
    }

    /// Returns where the database stands.
    pub fn position(&self) -> Position {
        self.master.position()
    }

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.master.records()
    }

    /// Returns the clock by which bindings expire, once started.
    pub fn service_clock(&self) -> Option<ServiceClock> {
        self.clock
    }

    /// Returns what a replay has to reproduce.
    pub fn end_state(&self) -> EndState {
        let position = self.position();
        EndState {
            epoch: position.epoch.counter,
            epoch_id: position.epoch.id,
            level: position.level.0,
            root: position.root.to_string(),
            records: self.records(),
            counters: self.counters,
            distribution: self
                .sender
                .as_ref()
                .map(Sender::counters)
                .unwrap_or_default(),
        }
    }

    fn time(&self, now: Timestamp) -> MasterTime {
        self.clock.map(|clock| clock.time(now)).unwrap_or_default()
    }

    fn recover(&mut self, frame: &Frame) -> Result<(), RecoverError> {
        for change in &frame.changes {
            self.note_expiry(change);
        }
        self.master.recover(frame)?;
        let message = Message::Frame(frame.clone()).to_bytes();
        self.index
            .push(Place::after(&frame.header), bytes_of(&message));
        self.batch = Batch::new(frame.header.to);
        Ok(())
    }

    /// Keeps the expiry queue in step: call it before the change is applied.
    fn note_expiry(&mut self, change: &Change) {
        let new = match &change.op {
            locus_proto::ChangeOp::Put(value) => Some(value.as_slice()),
            locus_proto::ChangeOp::Delete => None,
        };
        let old = match self.master.get(&change.key) {
            Ok(old) => old.map(|(_, value)| value),
            Err(_) => None, // said where the record is asked for
        };
        self.expiry.handle_change(&change.key, old, new);
    }

    fn start(&mut self, now: Timestamp, id: EpochId, wall_ms: u64, alive: Option<Alive>) {
        let clock = ServiceClock::start(now, wall_ms, alive, self.master.last_frame());
        self.clock = Some(clock);
        let position = self.master.position();
        let epoch = Epoch {
            counter: position.epoch.counter + 1,
            id,
        };
        let header = FrameHeader {
            kind: FrameKind::Epoch,
            shard: 0,
            epoch,
            from: position.level,
            to: position.level,
            root_before: position.root,
            root_after: position.root,
            time: clock.time(now),
        };
        let frame = Frame {
            header,
            changes: Vec::new(),
        };
        let bytes = self.append(&frame);
        self.in_flight = Some(InFlight::Epoch { frame, bytes });
    }

    /// Asks for `frame` to be made durable; returns the bytes that its message takes.
    fn append(&mut self, frame: &Frame) -> u64 {
        let message = frame_message(frame);
        let bytes = bytes_of(&message);
        let header = frame.header;
        let message = message.into();
        self.outputs
            .push_back(Output::Append(LogFrame { header, message }));
        bytes
    }

    fn request(&mut self, now: Timestamp, ticket: u64, request: Request) {
        let level = self.master.position().level;
        let answer = match request {
            Request::GetAor(aor) => self.get_aor(now, level, &aor),
            Request::GetRoute(prefix) => self.get_route(now, level, prefix),
            Request::Change(changes) => {
                self.enqueue(now, Work::Change { ticket, changes });
                return;
            }
            Request::Level => Answer::Level {
                position: self.master.position(),
                time: self.time(now),
                records: self.master.records(),
            },
            Request::Nodes => self.nodes(),
            Request::Wait { level, deadline } => {
                self.wait(now, ticket, level, deadline);
                return;
            }
        };
        self.answer(ticket, answer);
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        if matches!(answer, Answer::Refused(_)) {
            self.counters.requests_refused_total += 1;
        }
        self.outputs.push_back(Output::Answer { ticket, answer });
    }

    fn get_aor(&mut self, now: Timestamp, level: Level, aor: &AddressOfRecord) -> Answer {
        let time = self.time(now);
        let decoded = match self.master.get(&Key::aor(aor)) {
            Ok(None) => Ok(None),
            Ok(Some((changed, value))) => AorRecord::decode(value)
                .map(|record| Some((changed, record)))
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match decoded {
            Ok(record) => Answer::Aor {
                level,
                now: time,
                record: record.and_then(|(changed, mut record)| {
                    record
                        .bindings
                        .retain(|binding| live(binding.expires, time));
                    (!record.bindings.is_empty()).then_some((changed, record))
                }),
            },
            Err(reason) => {
                self.say_inconsistent(now, reason);
                Answer::Refused(RequestError::Inconsistent)
            }
        }
    }

    fn get_route(&mut self, now: Timestamp, level: Level, prefix: Digits) -> Answer {
        let decoded = match self.master.get(&Key::route(prefix)) {
            Ok(None) => Ok(None),
            Ok(Some((changed, value))) => Route::decode(value)
                .map(|route| Some((changed, route)))
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match decoded {
            Ok(record) => Answer::Route { level, record },
            Err(reason) => {
                self.say_inconsistent(now, reason);
                Answer::Refused(RequestError::Inconsistent)
            }
        }
    }

    fn say_inconsistent(&mut self, now: Timestamp, reason: String) {
        if let Some(suppressed) = self.limits.table.permit(now) {
            self.say(Event::TableInconsistent { reason, suppressed });
        }
    }

    fn say(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn tick(&mut self, now: Timestamp) {
        let time = self.time(now);
        if let Some(sender) = &mut self.sender
            && sender.poll_timeout().is_some_and(|due| due <= now)
        {
            sender.handle_timeout(now, time);
        }
        if now >= self.alive_at {
            self.alive_at = now.plus(ALIVE_EVERY);
            self.outputs.push_back(Output::Alive(time));
        }
        if now >= self.expire_at {
            let due = self.expiry.due(time);
            let more = due.len() == EXPIRED_MAX;
            self.expire_at = now.plus(if more { EXPIRE_SOON } else { EXPIRE_EVERY });
            for key in due {
                self.enqueue(now, Work::Expire(key));
            }
        }
        self.check_waiting(now);
    }
}

/// Returns the message that carries `frame` to nodes; the log holds its body.
fn frame_message(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    Message::frame_message(&bytes)
}

fn bytes_of(message: &[u8]) -> u64 {
    u64::try_from(message.len()).unwrap_or(u64::MAX)
}
