//! Keeps a node's table a prefix of the master's log; it holds no record and applies nothing itself.

mod answers;
mod audit;
mod backoff;
mod clock;
mod content;
mod event;
mod follow;
mod group;
mod load;
mod master;
mod membership;
mod place;
mod reason;
mod state;
#[cfg(test)]
mod tests;
mod timer;
mod walk;

pub use event::{
    AUDIT_AGAIN, AUDIT_ANSWER_MAX, AUDIT_MISSES_MAX, AUDIT_ROUNDS_MAX, AuditCause,
    BAD_PARTITIONS_MAX, BEHIND_AFTER, CLOCK_WINDOW, Failure, GREETING_WAIT, GROUP_BEHIND_MAX,
    GROUP_HELD_MAX, Mended, Pulse, RECONNECT_MAX, RECONNECT_MIN, REJOIN_EVERY, RELOAD_PROVEN,
    RELOAD_RETRY_MAX, RELOAD_RETRY_MIN, Recalled, ReceiverConfig, ReceiverEvent, SILENCE_MAX,
    SNAPSHOT_RECORDS_SLACK, STALE_AFTER, STATUS_EVERY, STATUS_SOON, STOOD_STILL, Standing,
};
pub use reason::{DisconnectReason, MasterError, StateReason};

use std::collections::VecDeque;

use backoff::Backoff;
use clock::MasterClock;
use content::Content;
use load::Load;
use locus_proto::{
    Epoch, Frame, Level, Lineage, MasterTime, Message, NodeState, Position, TableHealth, Timestamp,
    v1::{Hello, Plan, WireVersion},
};
use membership::{Membership, Way};
use timer::{Timer, Timers};
use walk::Walk;

use crate::ReceiverCounters;

/// The node's end of distribution: one per table. Calling contract: see the crate.
///
/// It follows one master: the one with the newest epoch it has heard of. A master whose newest epoch is
/// older, or another one of the same number (two masters from one cloned disk), is refused; an empty or
/// restored master can therefore not empty the nodes.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    standing: Option<Standing>,
    content: Content,
    phase: Phase,
    /// What the table owes an answer for.
    owed: Option<Owed>,
    /// The audit under way; only while the log is followed.
    audit: Option<Walk>,
    /// Memory was found to contradict its sums, and no audit has begun since.
    memory_doubted: bool,
    /// A reading of all memory has not been answered yet.
    scrub_owed: bool,
    /// Newest epoch of any master that was followed.
    followed: Option<Epoch>,
    /// Of the master that is followed; grows with the epochs' first frames.
    lineage: Lineage,
    plan: Plan,
    table_key: [u8; 16],
    master_level: Level,
    clock: MasterClock,
    complete_until: MasterTime,
    heard_at: Timestamp,
    /// When a heartbeat last matched, on a connection whose plan did not void it since.
    matched_at: Option<Timestamp>,
    last_match: Timestamp,
    loaded_at: Option<Timestamp>,
    progress: Progress,
    state: NodeState,
    backoff: Backoff,
    timers: Timers,
    /// When, and of what, the last report was sent.
    reported: (Timestamp, Level, NodeState),
    events: VecDeque<ReceiverEvent>,
    transmits: VecDeque<Message>,
    counters: ReceiverCounters,
    /// What the table's owner says of its memory, for the reports.
    health: TableHealth,
    /// What both ends of the connection speak.
    version: WireVersion,
    group: Membership,
}

/// What the table owes an answer for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owed {
    /// A frame.
    Applied {
        /// Where the table must stand then.
        at: Position,
        /// Whether with that root.
        checked: bool,
        /// The frame, if its content did not fit before: now it is applied as it is.
        again: Option<Frame>,
        /// Which way it came.
        way: Way,
    },
    /// The end of a load, and where the new table must stand then.
    Loaded(Position),
    /// Which sums differ.
    Compared,
    /// What became of a partition.
    Mended,
}

#[derive(Debug)]
enum Phase {
    /// No connection; the timer Connect runs.
    Offline,
    /// The caller is connecting.
    Connecting,
    /// Hello is sent.
    Greeting,
    /// The log comes.
    Following,
    /// A snapshot will come; the master may let the node wait for its turn.
    Awaiting,
    /// A snapshot comes.
    Loading(Load),
    /// The caller is closing; what still comes counts for nothing.
    Closing,
}

/// How the node came up to date, for its reports.
#[derive(Debug, Default)]
struct Progress {
    since: Option<Timestamp>,
    catch_ups_total: u64,
    reloads_total: u64,
    last_ms: u64,
}

impl Receiver {
    /// Returns a receiver for a table at `standing`, or for none; `recalled` is what an earlier agent on
    /// this machine knew of the master's clock. It connects at the first [`Self::handle_timeout`].
    pub fn new(
        now: Timestamp,
        config: ReceiverConfig,
        standing: Option<Standing>,
        recalled: Option<Recalled>,
    ) -> Self {
        let mut clock = MasterClock::default();
        if let Some(recalled) = recalled {
            clock.handle_time(now, recalled.time);
        }
        let mut timers = Timers::default();
        timers.set(Timer::Connect, now);
        timers.set(Timer::Stale, now.plus(STALE_AFTER));
        let state = match standing {
            Some(_) => NodeState::Resync,
            None => NodeState::Loading,
        };
        let level = standing.map_or(Level::ZERO, |standing| standing.position.level);
        Self {
            standing,
            content: Content::Good,
            phase: Phase::Offline,
            owed: None,
            audit: None,
            memory_doubted: false,
            scrub_owed: false,
            followed: standing.map(|standing| standing.position.epoch),
            lineage: Lineage::default(),
            plan: Plan::Continue,
            table_key: [0; 16],
            master_level: level,
            clock,
            complete_until: recalled.map_or(MasterTime(0), |recalled| recalled.complete_until),
            heard_at: now,
            matched_at: None,
            last_match: now,
            loaded_at: None,
            progress: Progress::default(),
            state,
            backoff: Backoff::new(config.boot.0 ^ u64::from(config.node.0)),
            timers,
            reported: (now, level, state),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: ReceiverCounters::default(),
            health: TableHealth::default(),
            version: WireVersion::V1,
            group: Membership::default(),
            config,
        }
    }

    /// Takes a new connection to a master: greets.
    pub fn handle_connected(&mut self, now: Timestamp) {
        self.phase = Phase::Greeting;
        self.version = WireVersion::V1; // until both have said what they speak
        self.timers.stop(Timer::Connect);
        self.timers.set(Timer::Welcome, now.plus(GREETING_WAIT));
        self.transmits.push_back(Message::Hello(Hello {
            cluster: self.config.cluster.clone(),
            node: self.config.node,
            name: self.config.name.clone(),
            boot: self.config.boot,
            sip: self.config.sip.clone(),
            newest: WireVersion::NEWEST.get(),
            transport: self.config.transport,
            position: self.presentable(),
        }));
    }

    /// Takes a message of the master.
    ///
    /// # Errors
    /// [`MasterError`]: the receiver asks to disconnect.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) -> Result<(), MasterError> {
        match self.phase {
            Phase::Offline | Phase::Connecting | Phase::Closing => return Ok(()),
            Phase::Greeting | Phase::Following | Phase::Awaiting | Phase::Loading(_) => {}
        }
        let outcome = match self.owed {
            Some(_) => Err(MasterError::Busy),
            None => self.handle(now, message),
        };
        if let Err(error) = &outcome {
            self.count(error);
            self.disconnect(DisconnectReason::Refused);
        }
        self.settle(now);
        outcome
    }

    /// Takes that messages of the master wait with the caller, because the table cannot take them yet: the
    /// memory for the one that [`ReceiverEvent::BeginLoad`] announced is still coming, or the one that answers
    /// grows. This is no silence; but what answers becomes stale.
    ///
    /// To be called at least each second meanwhile; it counts for nothing before the master's welcome. From the
    /// first call on nothing that comes by the group is handed to the table either, until
    /// [`Self::handle_released`]: call it before the frame is answered behind which the table takes no more.
    pub fn handle_held(&mut self, now: Timestamp) {
        self.hold_group();
        match self.phase {
            Phase::Loading(_) => self.heard(now),
            Phase::Following | Phase::Awaiting => {
                self.timers.set(Timer::Silence, now.plus(SILENCE_MAX));
            }
            Phase::Offline | Phase::Connecting | Phase::Greeting | Phase::Closing => {}
        }
        self.settle(now);
    }

    /// Takes the word that the table takes messages again.
    pub fn handle_released(&mut self, now: Timestamp) {
        self.release_group();
        self.settle(now);
    }

    /// Takes the end of a connection, or that none could be made.
    pub fn handle_closed(&mut self, now: Timestamp) {
        self.abort_load();
        self.cut_audit();
        self.drop_group();
        self.phase = Phase::Offline;
        self.stop_connection_timers();
        let wait = self.backoff.handle_closed();
        self.timers.set(Timer::Connect, now.plus(wait));
        self.settle(now);
    }

    /// Takes the time. Call it when [`Self::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((timer, due)) = self.timers.take_due(now) {
            match timer {
                Timer::Silence | Timer::Hear if now.since(due) >= STOOD_STILL => {
                    self.timers.set(timer, now.plus(STOOD_STILL));
                }
                Timer::Connect => {
                    self.phase = Phase::Connecting;
                    self.events.push_back(ReceiverEvent::Connect);
                }
                Timer::Welcome => self.disconnect(DisconnectReason::NotWelcomed),
                Timer::Silence => {
                    self.counters.silent_total += 1;
                    self.disconnect(DisconnectReason::Silent);
                }
                Timer::Answer => {
                    self.counters.audit_unanswered_total += 1;
                    self.disconnect(DisconnectReason::Unanswered);
                }
                Timer::Stale | Timer::Behind => {} // the state is judged below
                Timer::AskAgain => {}              // the next heartbeat shows whether it must
                Timer::Status => self.report(now),
                Timer::Hear => self.check_hearing(now),
                Timer::Rejoin => self.rejoin(now),
            }
        }
        self.keep_group(now);
        self.settle(now);
    }

    /// Returns what the caller has to do next.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.events.pop_front()
    }

    /// Returns the next message for the master.
    pub fn poll_transmit(&mut self) -> Option<Message> {
        self.transmits.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let group = self.group.poll_timeout();
        self.timers.next().into_iter().chain(group).min()
    }

    /// Returns the state of the table.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Returns where the table stands; `None` if there is none.
    pub fn position(&self) -> Option<Position> {
        self.standing.map(|standing| standing.position)
    }

    /// Returns whether a master has taken the node in: only then it takes registrations.
    pub fn welcomed(&self) -> bool {
        match self.phase {
            Phase::Following | Phase::Awaiting | Phase::Loading(_) => true,
            Phase::Offline | Phase::Connecting | Phase::Greeting | Phase::Closing => false,
        }
    }

    /// Returns what the workers must know at `now`.
    pub fn pulse(&self, now: Timestamp) -> Pulse {
        Pulse {
            state: self.state,
            master_time: self.clock.at(now),
            complete_until: self.complete_until,
            master_level: self.master_level,
        }
    }

    /// Returns the version in which messages for the master are written now.
    pub fn version(&self) -> WireVersion {
        self.version
    }

    /// Returns the totals.
    pub fn counters(&self) -> ReceiverCounters {
        let mut counters = self.counters;
        counters.group = self.group.counters();
        counters
    }

    fn count(&mut self, error: &MasterError) {
        let counters = &mut self.counters;
        match error {
            MasterError::Rejected(_) => {
                counters.rejections_total += 1;
                self.backoff.handle_refused();
            }
            MasterError::OtherMaster { .. } => {
                counters.masters_refused_total += 1;
                self.backoff.handle_refused();
            }
            MasterError::Unexpected { .. } | MasterError::Welcome => counters.unexpected_total += 1,
            MasterError::Gap { .. } => counters.gaps_total += 1,
            MasterError::RootMismatch { .. } => counters.root_mismatches_total += 1,
            MasterError::Snapshot { .. } => counters.snapshots_refused_total += 1,
            MasterError::Audit { .. } => counters.audit_answers_refused_total += 1,
            MasterError::Busy => counters.busy_total += 1,
        }
    }

    fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
        self.timers.set(Timer::Stale, now.plus(STALE_AFTER));
        self.timers.set(Timer::Silence, now.plus(SILENCE_MAX));
    }

    fn disconnect(&mut self, reason: DisconnectReason) {
        self.abort_load();
        self.cut_audit();
        self.drop_group();
        self.phase = Phase::Closing;
        self.stop_connection_timers();
        self.events.push_back(ReceiverEvent::Disconnect(reason));
    }

    fn abort_load(&mut self) {
        if let Phase::Loading(_) = self.phase {
            self.counters.loads_failed_total += 1;
            self.events.push_back(ReceiverEvent::AbortLoad);
        }
    }

    fn stop_connection_timers(&mut self) {
        for timer in [
            Timer::Welcome,
            Timer::Silence,
            Timer::Status,
            Timer::Answer,
            Timer::AskAgain, // another connection, perhaps another master
            Timer::Hear,
            Timer::Rejoin,
        ] {
            self.timers.stop(timer);
        }
    }
}
