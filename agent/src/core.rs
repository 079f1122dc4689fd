//! The heart of the agent: follows the master, keeps registrations until they are answered; without I/O.
//!
//! It holds no record of the table and reads no clock, socket or file. Contract: call
//! [`Core::handle_input`], drain [`Core::poll_transmit`], [`Core::poll_event`] and [`Core::poll_order`]
//! until all return `None`, feed what an order answers, then ask [`Core::poll_timeout`] and wait for the
//! next input. What was recorded replays to the same end.

mod connection;
mod differing;
mod group;
mod input;
mod registrations;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::VecDeque;

use locus_distribution::{Pulse, Receiver, ReceiverCounters, ReceiverEvent};
use locus_proto::v1::Plan;
use locus_proto::{
    AddressOfRecord, AorRecord, Level, Message, NodeState, Position, Refusal, RegistrationReply,
    Timestamp, WireVersion,
};
use serde::Serialize;

pub use input::{Client, Connection, Ends, Input, Membership, Order, Start, Transmit};
pub use registrations::{PENDING_MAX, RegistrationCounters};
pub use ways::{Address, PROBE_EVERY, PROBE_EVERY_MAX, PROVED_AFTER};

use crate::event::Event;
use crate::outage;
use crate::random::Random;
use differing::Differing;
use group::Group;
use registrations::{Registrations, Taken};
use ways::Ways;

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
    /// Of the connection, if it goes over the network.
    ends: Option<Ends>,
    /// What both ends of it speak.
    version: WireVersion,
    ways: Ways,
    group: Group,
    welcomed: bool,
    /// Whether the table was at the master's level since the connection stands.
    served: bool,
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
    /// Inputs of connections and memberships that were given up.
    pub stale_inputs_total: u64,
    /// Datagrams for the group that did not come from the master, or were too long: refused unread.
    pub group_refused_total: u64,
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
            ends: None,
            version: WireVersion::V1,
            ways: Ways::new(start.masters.clone()),
            group: Group::default(),
            welcomed: false,
            served: false,
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
            Input::Connected { connection, ends } if self.is_current(connection) => {
                self.link = Link::Up;
                self.ends = ends;
                self.version = WireVersion::V1; // until both have agreed on another
                self.receiver.handle_connected(now);
            }
            Input::Received {
                connection,
                message,
            } if self.is_current(connection) => {
                if let Message::Welcome(welcome) = &message {
                    self.version = welcome.version;
                    self.reloading = welcome.plan != Plan::Continue;
                }
                if let Message::GroupEnd(end) = &message {
                    self.group.ask(end.reason);
                }
                if let Err(error) = self.receiver.handle_message(now, message) {
                    // The text may be the master's own: it begins no line and moves no cursor.
                    let reason = error.to_string().replace(char::is_control, " ");
                    let master = self.ways.current().clone();
                    self.say_once(Event::MasterRefused { master, reason });
                }
            }
            Input::Closed { connection, reason } if self.is_current(connection) => {
                self.lost(now, reason);
            }
            Input::Connected { .. } | Input::Received { .. } | Input::Closed { .. } => {
                self.stale_inputs_total += 1;
            }
            Input::Probed { probe, open } => self.probed(now, probe, open.as_ref()),
            Input::Datagrams {
                membership,
                datagrams,
                refused,
            } => {
                self.group.refused_total += refused;
                if self.group.is_of(membership) {
                    self.receiver.handle_datagrams(now, datagrams);
                } else {
                    self.stale_inputs_total += 1;
                }
            }
            Input::GroupFailed { membership, reason } => {
                if self.group.is_of(membership) {
                    self.group_failed(now, reason);
                } else {
                    self.stale_inputs_total += 1;
                }
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
            Input::Released => self.receiver.handle_released(now),
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
        let deadlines = [
            self.registrations.deadline(),
            self.receiver.poll_timeout(),
            self.ways.deadline(),
        ];
        deadlines.into_iter().flatten().min()
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
            group_refused_total: self.group.refused_total,
            pending: self.registrations.len(),
            registrations: self.registrations.counters(),
            receiver: self.receiver.counters(),
        }
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
        if let Message::GroupLeft(left) = &message {
            self.events.extend(self.group.left(left.reason));
        }
        self.transmits.push_back(Transmit::Master {
            connection: self.connection,
            version: self.version,
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
        let is_steady = self.is_steady();
        let looks = self.ways.handle_timeout(now, is_steady, &mut self.random);
        if let Some((probe, addresses)) = looks {
            self.orders.push_back(Order::Probe { probe, addresses });
        }
        self.receiver.handle_timeout(now);
    }

    /// Takes what the receiver has to say.
    fn pull(&mut self, now: Timestamp) {
        let cuts_total = self.receiver.counters().group_cuts_total;
        self.events.extend(self.group.follow(cuts_total));
        loop {
            while let Some(message) = self.receiver.poll_transmit() {
                self.transmit(message);
            }
            while let Some(datagram) = self.receiver.poll_datagram() {
                let membership = self.group.current();
                self.transmits.push_back(Transmit::Group {
                    membership,
                    datagram,
                });
            }
            let Some(event) = self.receiver.poll_event() else {
                break;
            };
            self.take(now, event); // which may make it speak again
        }
        if self.receiver.welcomed() && !self.welcomed {
            self.welcomed = true;
            self.ways.handle_welcomed(now, &mut self.random);
            let master = self.ways.current().clone();
            self.say_once(Event::MasterFound { master });
        }
        self.served |= self.is_steady();
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
                    master: self.ways.current().clone(),
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
            ReceiverEvent::JoinGroup { group, reply_port } => {
                self.join_group(now, group, reply_port);
            }
            ReceiverEvent::RejoinGroup => self.orders.push_back(Order::RejoinGroup),
            ReceiverEvent::LeaveGroup => {
                self.group.end();
                self.orders.push_back(Order::LeaveGroup);
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
