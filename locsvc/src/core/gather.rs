//! Requests into batches, batches into the log, answers out: the writing half of the core. It knows no node
//! but as the one to answer.

use locus_proto::{
    AorRecord, Frame, FrameHeader, FrameKind, Key, Level, MasterTime, Message, Refusal,
    Registration, RegistrationReply, Timestamp,
};
use locus_table::PrepareError;

use super::batch::{Batch, Draft, Drafted, Known, Reply, Work};
use super::input::Transmit;
use super::{BACKLOG_MAX, BATCH_BYTES_MAX, Core, InFlight};
use crate::event::Event;
use crate::log::Place;
use crate::master::{Master, RecoverError};
use crate::provision::{
    self, Answer, CHANGES_MAX, Edit, ProvisionChange, RegistrarLimits, RequestError, drop_expired,
};

/// What became of a request that was to join the batch.
enum Taken {
    /// It is in the batch, or answered.
    Yes,
    /// The batch has no room for it.
    NoRoom(Work),
}

/// Why a request came to nothing.
enum Failed {
    Request(RequestError),
    Registration(Refusal),
    /// The table contradicts itself, at this key.
    Table(Key, String),
}

impl Core {
    /// Takes a request that may change records; it is answered when its batch is durable.
    pub(super) fn enqueue(&mut self, now: Timestamp, work: Work) {
        if self.backlog.len() >= BACKLOG_MAX || self.sender.is_none() {
            self.counters.backlog_full_total += 1;
            self.refuse(work, RequestError::Busy, Refusal::Unavailable);
            return;
        }
        self.backlog.push_back(work);
        self.gather(now, false);
    }

    /// Moves requests into the batch; hands the batch to the log when it is full, or if `flush`.
    pub(super) fn gather(&mut self, now: Timestamp, flush: bool) {
        while self.in_flight.is_none() && self.fault.is_none() {
            let closing = match self.backlog.pop_front() {
                Some(work) => match self.take(now, work) {
                    Taken::Yes => {
                        self.batch.is_full() || self.batch.requests() >= self.requests_max
                    }
                    Taken::NoRoom(work) => {
                        self.backlog.push_front(work);
                        true
                    }
                },
                None if flush => true,
                None => return,
            };
            if closing && self.batch.is_empty() && self.backlog.is_empty() {
                return;
            }
            if closing && !self.batch.is_empty() {
                self.close_batch(now);
            }
        }
    }

    /// Adds one request to the batch, or answers it.
    fn take(&mut self, now: Timestamp, work: Work) -> Taken {
        let time = self.time(now);
        let draft = self.batch.draft();
        let evaluated = evaluate(&work, draft, &mut self.master, &self.config.registrar, time);
        let (drafted, reply) = match evaluated {
            Ok(evaluated) => evaluated,
            Err(failed) => {
                self.fail(now, work, failed);
                return Taken::Yes;
            }
        };
        if drafted.is_empty() && self.batch.is_empty() {
            self.reply(time, reply);
            return Taken::Yes;
        }
        let alone = self.batch.is_empty();
        match self.batch.add(drafted, work, reply) {
            Ok(()) => Taken::Yes,
            Err(work) if alone => {
                let bytes_max = BATCH_BYTES_MAX;
                self.refuse(
                    work,
                    RequestError::TooLarge { bytes_max },
                    Refusal::Malformed,
                );
                Taken::Yes
            }
            Err(work) => Taken::NoRoom(work),
        }
    }

    fn close_batch(&mut self, now: Timestamp) {
        let before = self.master.position();
        let batch = std::mem::replace(&mut self.batch, Batch::new(before.level));
        let to = batch.to();
        let (changes, jobs) = batch.close();
        let prepared = match self.master.prepare(&changes) {
            Ok(prepared) => {
                self.requests_max = (self.requests_max * 2).min(BACKLOG_MAX);
                prepared
            }
            Err(error) => {
                self.not_prepared(now, jobs, &error);
                return;
            }
        };
        let header = FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: before.epoch,
            from: before.level,
            to,
            root_before: before.root,
            root_after: prepared.root_after(),
            time: self.time(now),
        };
        let frame = Frame { header, changes };
        let bytes = self.append(&frame);
        self.in_flight = Some(InFlight::Batch {
            header,
            bytes,
            prepared,
            changes: frame.changes,
            jobs,
        });
    }

    /// One request that does not fit must not take the others with it: half of them are tried next.
    fn not_prepared(&mut self, now: Timestamp, jobs: Vec<(Work, Reply)>, error: &PrepareError) {
        if let PrepareError::Corrupt(key) = error
            && let Err(fault) = self.master.verify_key(key)
        {
            self.fault = Some(fault); // and nobody is answered: the service ends
            return;
        }
        if jobs.len() > 1 {
            self.requests_max = jobs.len() / 2;
            for (work, _) in jobs.into_iter().rev() {
                self.backlog.push_front(work);
            }
            return;
        }
        let request_error = match error {
            PrepareError::IndexFull { .. } | PrepareError::ArenaFull { .. } => {
                if let Some(suppressed) = self.limits.full.permit(now) {
                    let records = self.master.records();
                    self.say(Event::TableFull {
                        records,
                        suppressed,
                    });
                }
                RequestError::TableFull
            }
            PrepareError::TooManyChanges { .. }
            | PrepareError::TooLarge { .. }
            | PrepareError::ValueTooLong { .. } => RequestError::TooLarge {
                bytes_max: BATCH_BYTES_MAX,
            },
            PrepareError::KeyTwice(_) | PrepareError::Corrupt(_) => {
                let reason = error.to_string();
                self.say_inconsistent(now, reason);
                RequestError::Inconsistent
            }
        };
        for (work, _) in jobs {
            self.refuse(work, request_error.clone(), Refusal::Unavailable);
        }
    }

    pub(super) fn committed(&mut self, now: Timestamp) -> Result<(), RecoverError> {
        match self.in_flight.take() {
            None => {}
            Some(InFlight::Epoch { frame, bytes }) => self.epoch_begun(now, &frame, bytes)?,
            Some(InFlight::Batch {
                header,
                bytes,
                prepared,
                changes,
                jobs,
            }) => {
                for change in &changes {
                    self.note_expiry(change);
                }
                self.master
                    .commit(prepared, &changes, header.after(), header.time);
                self.index.push(Place::after(&header), bytes);
                self.batch = Batch::new(header.to);
                if let Some(clock) = &mut self.clock {
                    clock.go_on(now);
                }
                self.counters.batches_total += 1;
                self.counters.changes_total += header.to.since(header.from);
                let time = self.time(now);
                for (_, reply) in jobs {
                    self.reply(time, reply);
                }
                if let Some(sender) = &mut self.sender {
                    sender.handle_committed(now, header.after(), time);
                }
                self.check_waiting(now);
            }
        }
        self.gather(now, false);
        Ok(())
    }

    pub(super) fn commit_failed(&mut self, now: Timestamp, reason: String) {
        match self.in_flight.take() {
            None | Some(InFlight::Epoch { .. }) => {}
            Some(InFlight::Batch { jobs, .. }) => {
                // Rules 2.3: time in which no registration is accepted ages no binding.
                if let Some(clock) = &mut self.clock {
                    clock.stop(now);
                }
                self.counters.batches_refused_total += 1;
                if let Some(suppressed) = self.limits.disk.permit(now) {
                    self.say(Event::BatchRefused {
                        reason: reason.clone(),
                        requests: jobs.len(),
                        suppressed,
                    });
                }
                for (work, _) in jobs {
                    let error = RequestError::Disk(reason.clone());
                    self.refuse(work, error, Refusal::Unavailable);
                }
            }
        }
        self.gather(now, false);
    }

    fn reply(&mut self, now: MasterTime, reply: Reply) {
        match reply {
            Reply::Changed {
                ticket,
                level,
                outcomes,
            } => self.answer(ticket, Answer::Changed { level, outcomes }),
            Reply::Registered {
                peer,
                ticket,
                level,
                bindings,
            } => {
                self.counters.registrations_total += 1;
                let reply = RegistrationReply::Accepted {
                    level,
                    now,
                    durable: true,
                    bindings,
                };
                self.transmit_registered(peer, ticket, reply);
            }
            Reply::Expired => self.counters.expired_total += 1,
        }
    }

    fn fail(&mut self, now: Timestamp, work: Work, failed: Failed) {
        match failed {
            Failed::Request(error) => self.refuse(work, error, Refusal::Malformed),
            Failed::Registration(refusal) => self.refuse(work, RequestError::Busy, refusal),
            Failed::Table(key, reason) => {
                self.doubt(now, &key, reason);
                self.refuse(work, RequestError::Inconsistent, Refusal::Unavailable);
            }
        }
    }

    fn refuse(&mut self, work: Work, error: RequestError, refusal: Refusal) {
        match work {
            Work::Change { ticket, .. } => self.answer(ticket, Answer::Refused(error)),
            Work::Register { peer, ticket, .. } => {
                self.counters.registrations_refused_total += 1;
                self.transmit_registered(peer, ticket, RegistrationReply::Refused(refusal));
            }
            Work::Expire(_) => {} // still queued: the next tick tries again
        }
    }

    fn transmit_registered(
        &mut self,
        peer: locus_distribution::Peer,
        ticket: u64,
        reply: RegistrationReply,
    ) {
        // The node may be gone by now; then nobody waits for the answer.
        if self.addresses.contains_key(&peer) {
            let message = Message::Registered { ticket, reply };
            self.transmits.push_back(Transmit {
                peer,
                bytes: message.to_bytes().into(),
                counted: false,
            });
        }
    }
}

type Evaluated = Result<(Drafted, Reply), Failed>;

/// Returns what `work` does on top of the batch and the table, and what to answer once it is durable.
fn evaluate(
    work: &Work,
    draft: Draft<'_>,
    master: &mut Master,
    limits: &RegistrarLimits,
    now: MasterTime,
) -> Evaluated {
    match work {
        Work::Change { ticket, changes } => change(*ticket, changes, draft, master, now),
        Work::Register {
            peer,
            ticket,
            registration,
        } => {
            let (drafted, level, bindings) = register(registration, draft, master, limits, now)?;
            let (peer, ticket) = (*peer, *ticket);
            let reply = Reply::Registered {
                peer,
                ticket,
                level,
                bindings,
            };
            Ok((drafted, reply))
        }
        Work::Expire(key) => expire(key, draft, master, now),
    }
}

fn change(
    ticket: u64,
    changes: &[ProvisionChange],
    mut draft: Draft<'_>,
    master: &mut Master,
    now: MasterTime,
) -> Evaluated {
    if changes.is_empty() || changes.len() > CHANGES_MAX {
        let bytes_max = BATCH_BYTES_MAX;
        return Err(Failed::Request(RequestError::TooLarge { bytes_max }));
    }
    let mut outcomes = Vec::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        let key = change.key();
        let current = current(draft.get(&key), master, &key)?;
        let value = current.map(|(_, value)| value);
        let edited = provision::change(change, value, now)
            .map_err(|source| Failed::Request(RequestError::Invalid { index, source }))?;
        outcomes.push(edited.outcome);
        match edited.edit {
            Edit::Keep => {}
            Edit::Put(value) => {
                draft.set(key, Some(value));
            }
            Edit::Delete => {
                draft.set(key, None);
            }
        }
    }
    let reply = Reply::Changed {
        ticket,
        level: draft.to(),
        outcomes,
    };
    Ok((draft.finish(), reply))
}

type Registered = (Drafted, Level, Vec<locus_proto::Binding>);

fn register(
    registration: &Registration,
    mut draft: Draft<'_>,
    master: &mut Master,
    limits: &RegistrarLimits,
    now: MasterTime,
) -> Result<Registered, Failed> {
    let key = Key::aor(&registration.aor);
    let current = current(draft.get(&key), master, &key)?;
    let (level, record) = match current {
        None => (None, AorRecord::default()),
        Some((level, value)) => (Some(level), decode(&key, value)?),
    };
    let merged =
        provision::merge(&record, registration, limits, now).map_err(Failed::Registration)?;
    let bindings = merged.record.bindings;
    let level = if !merged.changed {
        // What is not there has no last change: the present level says that it is not.
        level.unwrap_or_else(|| draft.to())
    } else if bindings.is_empty() {
        draft.set(key, None)
    } else {
        let record = AorRecord {
            bindings: bindings.clone(),
        };
        draft.set(key, Some(record.encode()))
    };
    Ok((draft.finish(), level, bindings))
}

fn expire(key: &Key, mut draft: Draft<'_>, master: &mut Master, now: MasterTime) -> Evaluated {
    if let Some((_, value)) = current(draft.get(key), master, key)? {
        let mut record = decode(key, value)?;
        if drop_expired(&mut record, now) {
            let left = (!record.bindings.is_empty()).then(|| record.encode());
            draft.set(key.clone(), left);
        }
    }
    Ok((draft.finish(), Reply::Expired))
}

/// Returns the record as the requests before this one leave it.
fn current<'a>(
    known: Known<'a>,
    master: &'a mut Master,
    key: &Key,
) -> Result<Option<(Level, &'a [u8])>, Failed> {
    match known {
        Some(known) => Ok(known),
        None => master
            .get(key)
            .map_err(|reason| Failed::Table(key.clone(), reason)),
    }
}

fn decode(key: &Key, value: &[u8]) -> Result<AorRecord, Failed> {
    AorRecord::decode(value).map_err(|error| Failed::Table(key.clone(), error.to_string()))
}
