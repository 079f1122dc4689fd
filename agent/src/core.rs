//! The heart of the agent: follows the master, keeps registrations until they are answered; without I/O.
//!
//! It holds no record of the table and reads no clock, socket or file. Contract: call
//! [`Core::handle_input`], drain [`Core::poll_transmit`], [`Core::poll_event`] and [`Core::poll_order`]
//! until all return `None`, feed what an order answers, then ask [`Core::poll_timeout`] and wait for the
//! next input. What was recorded replays to the same end.

mod differing;
mod input;
mod registrations;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;

use locus_distribution::{Pulse, Receiver, ReceiverCounters, ReceiverEvent};
use locus_proto::v1::Plan;
use locus_proto::{
    AddressOfRecord, AorRecord, Level, Message, NodeState, Position, Refusal, RegistrationReply,
    Timestamp,
};
use serde::Serialize;

pub use input::{Client, Connection, Input, Order, Start, Transmit};
pub use registrations::{PENDING_MAX, RegistrationCounters};

use crate::event::Event;
use crate::outage;
use crate::random::Random;
use differing::Differing;
use registrations::{Registrations, Taken};

/// Most log lines about masters that are remembered, so that each is written once; more are not written.
pub const SAID_MAX: usize = 64;

/// Where the connection to a master stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// There is none; the receiver says when to make one.
    Down,
    /// It is being made.
    Opening,
    /// It stands.
    Up,
}

/// The agent without its edges; one per node.
#[derive(Debug)]
pub struct Core {
    start: Start,
    receiver: Receiver,
    registrations: Registrations,
    random: Random,
    link: Link,
    connection: Connection,
    /// Index of the master that is tried or followed.
    master: usize,
    welcomed: bool,
    /// A whole table is to come: what the master stores now becomes visible here only at its end.
    reloading: bool,
    /// What was said since the table was last at the master's level.
    said: Vec<Event>,
    /// What the audit under way has found.
    differing: Differing,
    stale_inputs_total: u64,
    orders: VecDeque<Order>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

/// The end state of a core, for people and to compare a replay with its recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// State of the table.
    pub state: NodeState,
    /// Where it stands.
    pub position: Option<Position>,
    /// Attempts to connect since the start.
    pub connections_total: u64,
    /// Inputs of connections that were given up.
    pub stale_inputs_total: u64,
    /// Registrations that wait for an answer.
    pub pending: usize,
    /// What became of registrations.
    pub registrations: RegistrationCounters,
    /// What was refused of the master's messages.
    pub receiver: ReceiverCounters,
}

impl Core {
    /// Returns a core that wants to connect.
    pub fn new(now: Timestamp, start: Start) -> Self {
        let receiver = Receiver::new(now, start.node.clone(), start.standing, start.recalled);
        let mut core = Self {
            receiver,
            registrations: Registrations::new(start.save_timeout),
            random: Random::new(start.seed),
            link: Link::Down,
            connection: Connection(0),
            master: 0,
            welcomed: false,
            reloading: false,
            said: Vec::new(),
            differing: Differing::default(),
            stale_inputs_total: 0,
            orders: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            start,
        };
        core.pull(now);
        core
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Connected { connection } if self.is_current(connection) => {
                self.link = Link::Up;
                self.receiver.handle_connected(now);
            }
            Input::Received {
                connection,
                message,
            } if self.is_current(connection) => {
                if let Message::Welcome(welcome) = &message {
                    self.reloading = welcome.plan != Plan::Continue;
                }
                if let Err(error) = self.receiver.handle_message(now, message) {
                    // The text may be the master's own: it begins no line and moves no cursor.
                    let reason = error.to_string().replace(char::is_control, " ");
                    let master = self.master();
                    self.say_once(Event::MasterRefused { master, reason });
                }
            }
            Input::Closed { connection, reason } if self.is_current(connection) => {
                self.lost(now, reason);
            }
            Input::Connected { .. } | Input::Received { .. } | Input::Closed { .. } => {
                self.stale_inputs_total += 1;
            }
            Input::Registration {
                client,
                ticket,
                registration,
            } => {
                // A worker is not kept waiting for what it cannot get.
                let reachable = self.receiver.welcomed() && !self.reloading;
                let worker = (client, ticket);
                match self
                    .registrations
                    .take(now, worker, registration, reachable)
                {
                    Taken::Forward(ticket, registration) => {
                        let message = Message::Register {
                            ticket,
                            registration,
                        };
                        self.transmit(message);
                    }
                    Taken::Judge(ticket, aor) => self.find([(ticket, aor)]),
                    Taken::Answer(transmit) => self.transmits.push_back(transmit),
                }
            }
            Input::Applied(outcome) => self.receiver.handle_applied(now, outcome),
            Input::Loaded(outcome) => {
                self.reloading = false; // or the connection ends
                self.receiver.handle_loaded(now, outcome);
            }
            Input::Compared(outcome) => self.receiver.handle_compared(now, outcome),
            Input::Mended(outcome) => self.receiver.handle_mended(now, outcome),
            Input::Scrubbed(outcome) => self.receiver.handle_scrubbed(now, outcome),
            Input::Doubted { partition } => {
                // First of all: the audit that begins now compares it by its memory.
                self.orders.push_back(Order::Doubt { partition });
                self.receiver.handle_doubted(now);
            }
            Input::Held => self.receiver.handle_held(now),
            Input::Health(health) => self.receiver.set_health(health),
            Input::Found { ticket, record } => self.judge(now, ticket, record.as_ref()),
            Input::Timeout => self.keep_time(now),
        }
        self.pull(now);
    }

    /// Returns the next message and where it goes; drain it before the orders.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the next thing to do.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Returns the next line for the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.registrations.deadline(), self.receiver.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns what the workers must know beside the table.
    pub fn pulse(&self, now: Timestamp) -> Pulse {
        self.receiver.pulse(now)
    }

    /// Returns where the core stands.
    pub fn summary(&self) -> Summary {
        Summary {
            state: self.receiver.state(),
            position: self.receiver.position(),
            connections_total: self.connection.0,
            stale_inputs_total: self.stale_inputs_total,
            pending: self.registrations.len(),
            registrations: self.registrations.counters(),
            receiver: self.receiver.counters(),
        }
    }

    fn master(&self) -> SocketAddr {
        // The configuration has at least one address, and the index is kept below their number.
        self.start.masters[self.master]
    }

    /// Returns whether an input of `connection` still counts.
    fn is_current(&self, connection: Connection) -> bool {
        let open = matches!(self.link, Link::Opening | Link::Up);
        open && connection == self.connection
    }

    fn level(&self) -> Level {
        self.receiver.position().map_or(Level::ZERO, |p| p.level)
    }

    fn transmit(&mut self, message: Message) {
        let connection = self.connection;
        self.transmits.push_back(Transmit::Master {
            connection,
            message,
        });
    }

    fn find(&mut self, wanted: impl IntoIterator<Item = (u64, AddressOfRecord)>) {
        let orders = wanted
            .into_iter()
            .map(|(ticket, aor)| Order::Find { ticket, aor });
        self.orders.extend(orders);
    }

    /// Logs `event` unless the same was said since the table was last at the master's level.
    fn say_once(&mut self, event: Event) {
        let known = self.said.contains(&event);
        if !known && self.said.len() < SAID_MAX {
            self.said.push(event.clone());
            self.events.push_back(event);
        }
    }

    /// Closes the connection.
    fn disconnect(&mut self, now: Timestamp, reason: String) {
        let connection = self.connection;
        self.orders.push_back(Order::Disconnect { connection });
        self.lost(now, reason);
    }

    /// The connection has ended, or there was none.
    fn lost(&mut self, now: Timestamp, reason: String) {
        let master = self.master();
        self.say_once(Event::MasterLost { master, reason });
        if !self.welcomed {
            // Another one may be the active one.
            self.master = (self.master + 1) % self.start.masters.len();
        }
        self.welcomed = false;
        self.differing = Differing::default(); // the audit ends with the connection
        self.link = Link::Down;
        self.receiver.handle_closed(now);
        let unanswered = self.registrations.cut_off();
        self.find(unanswered);
    }

    /// Answers a registration by what the table holds (rules 2.4).
    fn judge(&mut self, now: Timestamp, ticket: u64, record: Option<&AorRecord>) {
        let Some(registration) = self.registrations.judging(ticket) else {
            return;
        };
        let pulse = self.receiver.pulse(now);
        let reply = match pulse.master_time {
            Some(master_time) if pulse.state.answers() => {
                let standing = outage::Standing {
                    level: self.level(),
                    now: master_time,
                    complete_until: pulse.complete_until,
                    max_grace: self.start.max_grace,
                };
                outage::answer(record, registration, standing, &mut self.random)
            }
            Some(_) | None => RegistrationReply::Refused(Refusal::Unavailable),
        };
        self.transmits
            .extend(self.registrations.judged(ticket, reply));
    }

    /// Does what has become due.
    fn keep_time(&mut self, now: Timestamp) {
        let unanswered = self.registrations.expire(now);
        self.find(unanswered);
        self.receiver.handle_timeout(now);
    }

    /// Takes what the receiver has to say.
    fn pull(&mut self, now: Timestamp) {
        while let Some(message) = self.receiver.poll_transmit() {
            self.transmit(message);
        }
        while let Some(event) = self.receiver.poll_event() {
            self.take(now, event);
        }
        if self.receiver.welcomed() && !self.welcomed {
            self.welcomed = true;
            let master = self.master();
            self.say_once(Event::MasterFound { master });
        }
        let answers = self.registrations.reached(self.level());
        self.transmits.extend(answers);
    }

    fn take(&mut self, now: Timestamp, event: ReceiverEvent) {
        match event {
            ReceiverEvent::Connect => {
                self.connection.0 += 1;
                self.link = Link::Opening;
                self.orders.push_back(Order::Connect {
                    connection: self.connection,
                    master: self.master(),
                });
            }
            ReceiverEvent::Disconnect(reason) => self.disconnect(now, reason.to_string()),
            ReceiverEvent::Apply { frame, checked } => {
                self.orders.push_back(Order::Apply { frame, checked });
            }
            ReceiverEvent::BeginLoad { table_key, begin } => {
                self.orders.push_back(Order::BeginLoad { table_key, begin });
            }
            ReceiverEvent::LoadRecords(records) => {
                self.orders.push_back(Order::LoadRecords(records))
            }
            ReceiverEvent::LoadFrame(frame) => self.orders.push_back(Order::LoadFrame(frame)),
            ReceiverEvent::FinishLoad(position) => {
                self.orders.push_back(Order::FinishLoad(position))
            }
            ReceiverEvent::AbortLoad => self.orders.push_back(Order::AbortLoad),
            ReceiverEvent::Compare { group, sums } => {
                self.orders.push_back(Order::Compare { group, sums });
            }
            ReceiverEvent::Mend {
                partition,
                records,
                repair,
            } => {
                self.differing.insert(partition);
                self.orders.push_back(Order::Mend {
                    partition,
                    records,
                    repair,
                });
            }
            ReceiverEvent::Scrub => self.orders.push_back(Order::Scrub),
            ReceiverEvent::Audited {
                cause,
                verdict,
                level,
                partitions,
                differing,
                repaired,
            } => {
                let ranges = std::mem::take(&mut self.differing).to_string();
                self.events.push_back(Event::Audited {
                    cause,
                    verdict,
                    level,
                    partitions,
                    ranges,
                    differing,
                    repaired,
                });
            }
            ReceiverEvent::Registered { ticket, reply } => {
                let level = self.level();
                self.transmits
                    .extend(self.registrations.answered(ticket, reply, level));
            }
            ReceiverEvent::StateChanged { from, to, reason } => {
                if to == NodeState::Coherent {
                    self.said.clear();
                }
                let level = self.level();
                self.events.push_back(Event::StateChanged {
                    from,
                    to,
                    reason,
                    level,
                });
            }
        }
    }
}
