//! Registrations between worker and master, from datagram to answer; it sends nothing and judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use locus_proto::{
    AddressOfRecord, Level, Message, Refusal, Registration, RegistrationReply, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Client, Transmit};

/// Most registrations that wait for an answer; above it new ones are refused at once.
///
/// Each worker of Kamailio waits for its one, so 4,096 is above any number of workers that a machine
/// runs; it bounds the memory to 160 MiB if every one were as large as it may be.
pub const PENDING_MAX: usize = 4096;

/// What became of the registrations since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RegistrationCounters {
    /// Handed in by workers.
    pub taken_total: u64,
    /// Answered by the master in time.
    pub answered_total: u64,
    /// Confirmed by the table for a short while, without the master or before what it stored was visible
    /// here: not durable (rules 2.4).
    pub confirmed_total: u64,
    /// Refused because the table alone decided and they would have changed something.
    pub unavailable_total: u64,
    /// Stored by the master, but not in this node's table in time: the table decided.
    pub not_visible_total: u64,
    /// Refused because [`PENDING_MAX`] others were waiting.
    pub pending_full_total: u64,
    /// Answers of the master that came too late.
    pub late_total: u64,
}

/// What to do with a registration that was taken.
#[derive(Debug)]
pub(super) enum Taken {
    /// Hand it to the master under this ticket.
    Forward(u64, Registration),
    /// Judge it by the table under this ticket.
    Judge(u64, AddressOfRecord),
    /// Answer at once.
    Answer(Transmit),
}

#[derive(Debug)]
enum Stage {
    /// The master has it.
    Forwarded,
    /// The table is asked.
    Judging,
    /// The master has stored it; the table must reach that level first (read-your-write, rules 5.3).
    Held(Level, RegistrationReply),
}

#[derive(Debug)]
struct Pending {
    client: Client,
    ticket: u64,
    registration: Registration,
    deadline: Timestamp,
    stage: Stage,
}

impl Pending {
    fn answer(self, reply: RegistrationReply) -> Transmit {
        let ticket = self.ticket;
        Transmit::Client {
            client: self.client,
            message: Message::Registered { ticket, reply },
        }
    }
}

/// The registrations that wait, by the agent's own ticket.
#[derive(Debug)]
pub(super) struct Registrations {
    timeout: Duration,
    // Tickets rise and all wait equally long: the first entry has the earliest deadline.
    pending: BTreeMap<u64, Pending>,
    held: BTreeSet<(Level, u64)>,
    last_ticket: u64,
    counters: RegistrationCounters,
}

impl Registrations {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            pending: BTreeMap::new(),
            held: BTreeSet::new(),
            last_ticket: 0,
            counters: RegistrationCounters::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn counters(&self) -> RegistrationCounters {
        self.counters
    }

    /// Takes a worker's registration; `reachable` says whether the master takes it.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        (client, ticket): (Client, u64),
        registration: Registration,
        reachable: bool,
    ) -> Taken {
        self.counters.taken_total += 1;
        self.last_ticket += 1;
        let own = self.last_ticket;
        let stage = if reachable {
            Stage::Forwarded
        } else {
            Stage::Judging
        };
        let aor = registration.aor.clone();
        let pending = Pending {
            client,
            ticket,
            registration: registration.clone(),
            deadline: now.plus(self.timeout),
            stage,
        };
        if self.pending.len() >= PENDING_MAX {
            self.counters.pending_full_total += 1;
            return Taken::Answer(pending.answer(RegistrationReply::Refused(Refusal::Unavailable)));
        }
        self.pending.insert(own, pending);
        if reachable {
            Taken::Forward(own, registration)
        } else {
            Taken::Judge(own, aor)
        }
    }

    /// Takes the master's answer; returns it for the worker unless it must wait for `level` to rise.
    pub(super) fn answered(
        &mut self,
        own: u64,
        reply: RegistrationReply,
        level: Level,
    ) -> Option<Transmit> {
        let waiting = self.pending.get_mut(&own);
        let Some(pending) = waiting.filter(|p| matches!(p.stage, Stage::Forwarded)) else {
            self.counters.late_total += 1;
            return None;
        };
        match &reply {
            RegistrationReply::Accepted { level: needed, .. } if *needed > level => {
                let needed = *needed;
                pending.stage = Stage::Held(needed, reply);
                self.held.insert((needed, own));
                None
            }
            RegistrationReply::Accepted { .. } | RegistrationReply::Refused(_) => {
                self.counters.answered_total += 1;
                self.pending.remove(&own).map(|p| p.answer(reply))
            }
        }
    }

    /// Takes the table's new level; returns the answers that waited for it.
    pub(super) fn reached(&mut self, level: Level) -> Vec<Transmit> {
        let mut answers = Vec::new();
        while let Some((needed, own)) = self.held.first().copied()
            && needed <= level
        {
            self.held.remove(&(needed, own));
            if let Some(pending) = self.pending.remove(&own)
                && let Stage::Held(_, reply) = &pending.stage
            {
                self.counters.answered_total += 1;
                let reply = reply.clone();
                answers.push(pending.answer(reply));
            }
        }
        answers
    }

    /// The master is lost: returns all registrations that wait, to be judged by the table.
    ///
    /// Those that wait for a level too: the next master's changes may be others under the same levels.
    pub(super) fn cut_off(&mut self) -> Vec<(u64, AddressOfRecord)> {
        self.held.clear();
        self.pending.iter_mut().filter_map(judge).collect()
    }

    /// Returns the registration that is being judged under this ticket.
    pub(super) fn judging(&self, own: u64) -> Option<&Registration> {
        let pending = self.pending.get(&own)?;
        matches!(pending.stage, Stage::Judging).then_some(&pending.registration)
    }

    /// Takes the judgement and returns it for the worker.
    pub(super) fn judged(&mut self, own: u64, reply: RegistrationReply) -> Option<Transmit> {
        let pending = self.pending.remove(&own)?;
        match &reply {
            RegistrationReply::Accepted { .. } => self.counters.confirmed_total += 1,
            RegistrationReply::Refused(_) => self.counters.unavailable_total += 1,
        }
        Some(pending.answer(reply))
    }

    /// Takes the time; returns what the master did not answer, or the table did not reach, in time, to be
    /// judged by the table.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<(u64, AddressOfRecord)> {
        let due = self
            .pending
            .iter_mut()
            .take_while(|(_, pending)| pending.deadline <= now);
        let mut unanswered = Vec::new();
        for (own, pending) in due {
            if let Stage::Held(needed, _) = pending.stage {
                self.held.remove(&(needed, *own));
                self.counters.not_visible_total += 1;
            }
            unanswered.extend(judge((own, pending)));
        }
        unanswered
    }

    /// Returns the earliest deadline; what is being judged is answered before any time passes.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let mut waiting = self
            .pending
            .values()
            .filter(|p| !matches!(p.stage, Stage::Judging));
        waiting.next().map(|pending| pending.deadline)
    }
}

/// Hands a registration to the table, unless that has it already.
fn judge((own, pending): (&u64, &mut Pending)) -> Option<(u64, AddressOfRecord)> {
    if let Stage::Judging = pending.stage {
        return None;
    }
    pending.stage = Stage::Judging;
    Some((*own, pending.registration.aor.clone()))
}
