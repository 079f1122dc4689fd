//! The heart of the service: every request, registration and node passes through it, in one order. It reads
//! no clock, socket or file.
//!
//! Contract: call one `handle_*`, then drain [`Core::poll_transmit`], [`Core::poll_datagram`] and
//! [`Core::poll_output`] until all return `None`, in that order, doing at once what is asked for; then take the
//! next input. After [`Output::Append`] the very next input says what became of it.

mod audit;
mod batch;
mod distribute;
mod gather;
mod input;
mod request;
mod verify;
mod wait;

#[cfg(test)]
mod tests;

pub use batch::BATCH_BYTES_MAX;
pub use input::{CoreConfig, CoreCounters, EndState, Input, Output, Transmit};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use locus_distribution::{Boat, GroupDatagram, LogFrame, Peer, Sender};
use locus_proto::{
    Change, Epoch, EpochId, Frame, FrameHeader, FrameKind, Level, MasterTime, Message, NodeId,
    Position, Timestamp,
};
use locus_table::{OpenTableError, Prepared, ScanCursor};

use crate::event::{Event, Limiter};
use crate::log::{Index, Place};
use crate::master::{Alive, Master, MemoryFault, RecoverError, ServiceClock};
use crate::provision::{Answer, EXPIRED_MAX, ExpiryQueue};
use audit::Ordered;
use batch::{Batch, Reply, Work};
use distribute::Lost;
use verify::{Alarm, Scrub};
use wait::Waiting;

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
    scans: HashMap<Boat, ScanCursor>,
    /// Steps through the table that nodes wait for, and whether each is the first.
    reads: VecDeque<(Boat, bool)>,
    read_at: Timestamp,
    waiting: Vec<Waiting>,
    scrub: Scrub,
    alarm: Option<Alarm>,
    /// What is wrong with the table's memory: nothing is committed any more.
    fault: Option<MemoryFault>,
    /// Recovered frames that say another content than follows from them: the first level behind one, and how
    /// many. `None` once an epoch has begun with what follows.
    contradicted: Option<(Level, u64)>,
    ordered: Option<Ordered>,
    /// Audits ordered in this life.
    orders: u64,
    addresses: HashMap<Peer, String>,
    /// Nodes that the group does not reach though it should: an alarm each.
    lost: BTreeMap<NodeId, Lost>,
    outputs: VecDeque<Output>,
    transmits: VecDeque<Transmit>,
    datagrams: VecDeque<GroupDatagram>,
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
/// Lines about alarms, a second: each has a beginning, a reading of the table, and an end.
const ALARM_LINES_MAX: u32 = 3;

#[derive(Debug)]
struct Limiters {
    disk: Limiter,
    full: Limiter,
    table: Limiter,
    peers: Limiter,
    log: Limiter,
    nodes: Limiter,
    alarms: Limiter,
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
            alarms: Limiter::per_second(ALARM_LINES_MAX),
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
            reads: VecDeque::new(),
            read_at: Timestamp::default(),
            waiting: Vec::new(),
            scrub: Scrub::default(),
            alarm: None,
            fault: None,
            contradicted: None,
            ordered: None,
            orders: 0,
            addresses: HashMap::new(),
            lost: BTreeMap::new(),
            outputs: VecDeque::new(),
            transmits: VecDeque::new(),
            datagrams: VecDeque::new(),
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
            Input::Connected { peer, arrived } => self.connected(now, peer, arrived),
            Input::Message { peer, message } => self.message(now, peer, *message),
            Input::Sent { peer, bytes } => {
                if let Some(sender) = &mut self.sender {
                    sender.handle_sent(now, peer, bytes);
                }
            }
            Input::Closed { peer } => self.closed(now, peer),
            Input::Datagrams(datagrams) => self.datagrams(now, datagrams),
            Input::Removed { node } => self.removed(now, node),
            Input::Flush => self.gather(now, true),
            Input::Committed => self.committed(now)?,
            Input::CommitFailed { reason } => self.commit_failed(now, reason),
            Input::LogUnreadable { peer, reason } => self.log_unreadable(now, peer, reason),
            Input::LogEndUnreadable { reason } => self.log_end_unreadable(now, reason),
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

    /// Returns the next datagram of the group.
    pub fn poll_datagram(&mut self) -> Option<GroupDatagram> {
        self.datagrams.pop_front()
    }

    /// Returns what has to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let sender = self.sender.as_ref()?.poll_timeout();
        let wait = self.waiting.iter().map(|waiting| waiting.deadline).min();
        let audit = self.ordered.as_ref().map(|ordered| ordered.deadline);
        let read = self.read_due();
        let own = self.alive_at.min(self.expire_at).min(self.scrub.due);
        Some(
            [sender, wait, audit, read]
                .into_iter()
                .flatten()
                .fold(own, Timestamp::min),
        )
    }

    /// Returns when more of the table is to be read for a node.
    fn read_due(&self) -> Option<Timestamp> {
        (!self.reads.is_empty()).then_some(self.read_at)
    }

    /// Returns whether requests wait for [`Input::Flush`].
    pub fn wants_flush(&self) -> bool {
        let waiting = !(self.batch.is_empty() && self.backlog.is_empty());
        self.in_flight.is_none() && self.fault.is_none() && waiting
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
        let header = &frame.header;
        if !self.master.recover(frame)? {
            self.counters.frames_contradicted_total += 1;
            let (_, frames) = self.contradicted.get_or_insert((header.to, 0));
            *frames += 1;
        } else if header.kind == FrameKind::Epoch {
            self.contradicted = None; // that life has said so, and begun with what is true
        }
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
        if let Some((level, frames)) = self.contradicted {
            self.say(Event::LogContradicted { level, frames });
            // It may be this memory that is wrong, and then nothing may follow from it.
            if let Err(fault) = self.verify_recovered() {
                self.fault = Some(fault);
                return;
            }
        }
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
            // The log's own word; the epoch begins with what follows from it.
            root_before: self.master.said(),
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

    fn answer(&mut self, ticket: u64, answer: Answer) {
        if matches!(answer, Answer::Refused(_)) {
            self.counters.requests_refused_total += 1;
        }
        self.outputs.push_back(Output::Answer { ticket, answer });
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
        self.end_alarm(now);
        self.scrub(now);
        self.check_waiting(now);
        self.check_audit(now);
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
