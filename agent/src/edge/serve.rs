//! The loop that drives the core: takes inputs, carries orders out, works between them; it decides nothing.

use std::time::Duration;

use crossbeam_channel::{Receiver, never, select};
use locus_proto::{TableHealth, Timestamp};

use super::hold::Hold;
use super::multicast::Group;
use super::registrations::RegistrationSocket;
use super::scrub::Scrub;
use super::unicast::Links;
use super::{PULSE_EVERY, Pages};
use crate::clock::Clock;
use crate::core::{Core, Input, Order, Transmit};
use crate::event::{Complaints, Event};
use crate::node::Node;
use crate::record::Recorder;

/// Inputs that are taken in a row before what is due by time gets its turn.
const INPUTS_IN_A_ROW_MAX: u32 = 64;
/// Shortest time between two reports of the table's health to the core.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// What waits for the core.
#[derive(Debug)]
pub(super) struct Inputs {
    /// From the connection to the master: held back while the table cannot take it.
    pub master: Receiver<Input>,
    /// From the master's group: held back with it. A channel of its own, so that whoever floods the group
    /// does not silence the connection.
    pub group: Receiver<Input>,
    /// From everybody else.
    pub others: Receiver<Input>,
}

/// What touches the network and its like.
#[derive(Debug)]
pub(super) struct Edges {
    pub links: Links,
    pub group: Group,
    pub socket: RegistrationSocket,
    pub scrub: Scrub,
}

/// The core and its edges.
#[derive(Debug)]
pub(super) struct Agent {
    clock: Clock,
    core: Core,
    node: Node,
    edges: Edges,
    recorder: Option<Recorder>,
    undelivered: Complaints,
    /// When the next slice of work may begin though inputs wait.
    slice_at: Timestamp,
    hold: Hold,
    /// What the core was told last, and when the next may follow.
    health: TableHealth,
    health_at: Timestamp,
}

impl Agent {
    pub(super) fn new(
        clock: Clock,
        core: Core,
        node: Node,
        edges: Edges,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            clock,
            core,
            node,
            edges,
            recorder,
            undelivered: Complaints::default(),
            slice_at: Timestamp(0),
            hold: Hold::default(),
            health: TableHealth::default(),
            health_at: Timestamp(0),
        }
    }

    /// Runs until a signal comes.
    pub(super) fn serve(mut self, inputs: Inputs, signals: &Receiver<&'static str>) {
        let nobody = never();
        let mut in_a_row = 0;
        let reason = loop {
            let now = self.clock.now();
            self.pass_or_release(now, &inputs.master);
            let holds = self.node.holds();
            let (master, group) = if holds {
                (&nobody, &nobody)
            } else {
                (&inputs.master, &inputs.group)
            };
            let idle = inputs.others.is_empty() && master.is_empty() && group.is_empty();
            let due = self.core.poll_timeout().is_some_and(|at| at <= now);
            // What came first is taken first: silence is only what no waiting input breaks.
            if due && (idle || in_a_row >= INPUTS_IN_A_ROW_MAX) {
                in_a_row = 0;
                self.feed(Input::Timeout);
            }
            self.beat();
            self.tell_health(now);
            self.node.turn_snapshots(&self.core.pulse(now));
            let rest = if self.work(idle) {
                Duration::ZERO
            } else {
                self.rest()
            };
            select! {
                recv(signals) -> name => break name.unwrap_or("a lost signal thread"),
                recv(inputs.others) -> input => if let Ok(input) = input {
                    in_a_row += 1;
                    self.feed(input);
                },
                recv(master) -> input => if let Ok(input) = input {
                    in_a_row += 1;
                    self.feed(input);
                },
                recv(group) -> input => if let Ok(input) = input {
                    in_a_row += 1;
                    self.feed(input);
                },
                default(rest) => in_a_row = 0,
            }
        };
        // Whoever waits to hand an input over, waits no longer.
        drop(inputs);
        self.end(reason);
    }

    /// Lets through what was held back: all of it, or, while the table cannot take it, what may pass.
    fn pass_or_release(&mut self, now: Timestamp, master: &Receiver<Input>) {
        if self.node.holds() {
            let passed = self.hold.pass(now, self.node.can_wait(), master);
            if let Some(input) = passed {
                self.feed(input);
            }
            return;
        }
        while let Some(input) = self.hold.release() {
            self.feed(input);
            if self.node.holds() {
                break;
            }
        }
    }

    /// Returns how long there is nothing to do by time.
    fn rest(&self) -> Duration {
        let due = self.core.poll_timeout().unwrap_or(Timestamp(u64::MAX));
        due.since(self.clock.now()).min(PULSE_EVERY)
    }

    /// Does a slice of the table's work, if there is some and it is its turn; returns whether there is.
    ///
    /// Inputs have half of the time: after a slice they are taken for as long as it took.
    fn work(&mut self, idle: bool) -> bool {
        let now = self.clock.now();
        if !self.node.has_work(now) {
            return false;
        }
        if idle || now >= self.slice_at {
            if let Some(input) = self.node.work(now) {
                self.feed(input);
            }
            if self.node.take_suspicion() {
                self.edges.scrub.suspect();
            }
            let end = self.clock.now();
            self.slice_at = end.plus(end.since(now));
        }
        true
    }

    /// Feeds an input, and then every answer that its orders bring.
    fn feed(&mut self, input: Input) {
        self.take(input);
        while let Some(order) = self.core.poll_order() {
            let answer = match order {
                Order::Connect { connection, master } => {
                    self.edges.links.connect(connection, master)
                }
                Order::Disconnect { connection } => {
                    self.edges.links.close(connection);
                    None
                }
                Order::Probe { probe, addresses } => self.edges.links.probe(probe, addresses),
                Order::JoinGroup {
                    membership,
                    group,
                    local,
                    master,
                } => self.edges.group.join(membership, group, local, master),
                Order::RejoinGroup => self.edges.group.rejoin(),
                Order::LeaveGroup => {
                    self.edges.group.leave();
                    None
                }
                Order::Scrub => self.edges.scrub.order(),
                Order::Apply { .. }
                | Order::BeginLoad { .. }
                | Order::LoadRecords(_)
                | Order::LoadFrame(_)
                | Order::FinishLoad(_)
                | Order::AbortLoad
                | Order::Doubt { .. }
                | Order::Compare { .. }
                | Order::Mend { .. }
                | Order::Find { .. } => self.node.carry_out(self.clock.now(), order),
            };
            if self.node.holds()
                && let Some(held) = self.hold.begin(self.clock.now())
            {
                self.take(held);
            }
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
                    version,
                    message,
                } => self.edges.links.send(connection, version, &message),
                Transmit::Group {
                    membership,
                    datagram,
                } => self.edges.group.send(membership, &datagram),
                Transmit::Client { client, message } => {
                    if let Err(error) = self.edges.socket.send(&client, &message)
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

    /// Tells the core what is known of the table's memory, when that has changed.
    fn tell_health(&mut self, now: Timestamp) {
        if now < self.health_at {
            return;
        }
        let Pages { bytes, huge_bytes } = self.edges.scrub.pages();
        let health = TableHealth {
            table_bytes: bytes,
            huge_bytes,
            scrubs_total: self.edges.scrub.passes(),
            doubted_total: self.node.doubted_total(),
            snapshot_level: self.node.snapshot_level(),
            snapshots_failed_total: self.node.snapshots_failed_total(),
        };
        if health != self.health {
            self.health = health;
            self.health_at = now.plus(HEALTH_EVERY);
            self.feed(Input::Health(health));
        }
    }

    fn end(mut self, reason: &'static str) {
        let now = self.clock.now();
        self.node
            .end(&self.core.pulse(now), self.clock.monotonic_ms(now));
        self.node.end_snapshots();
        let summary = self.core.summary();
        if let Some(recorder) = &mut self.recorder {
            recorder.finish(&summary);
        }
        let summary = serde_json::to_string(&summary).unwrap_or_else(|error| error.to_string());
        Event::Stopped { reason, summary }.log();
    }
}
