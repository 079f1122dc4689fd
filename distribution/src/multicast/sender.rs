//! The master's end of the group: gathers, seals, paces, repairs; it knows no log and no connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use locus_proto::v1::{
    Confirm, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_HEADER_BYTES, DatagramHeader,
    DatagramKind, FragmentFlags, Gone, GroupBeat, GroupKey, GroupStatus, Nack, SEAL_BYTES,
};
use locus_proto::{Level, NodeId, Timestamp};

use super::config::{GroupConfig, GroupDatagram, GroupSenderEvent, GroupTarget};
use super::counters::GroupSenderCounters;
use super::gather::Gather;
use super::keys::SenderKeys;
use super::members::{Members, RefusedVoice, Report, Voice};
use super::nacks::NackBudget;
use super::pacer::{Paced, Pacer, REPAIR_PATIENCE, Sign};
use super::repair::{CONFIRM_DATAGRAMS, Demand, Others, Repairs};
use super::ring::{RepairTo, Ring};
use crate::seal::{Purpose, Seal, Signer, derive};

/// Bytes of messages that wait to be sent, gathered and sealed, before no more are taken.
pub(super) const BACKLOG_BYTES: usize = 256 * 1024;
/// A beat follows the last data by this, then by twice as long each time …
pub(super) const BEAT_MIN: Duration = Duration::from_millis(1);
/// … up to this: a third of the silence after which a node leaves.
pub(super) const BEAT_MAX: Duration = Duration::from_secs(1);
/// Data that comes at least this often shows its own gaps: the first beat waits as long.
pub(super) const BEAT_FLOW: Duration = Duration::from_millis(4);
/// Longest time between two beats while data flows; they carry size, round trip and back-off.
pub(super) const BEAT_FLOW_MAX: Duration = Duration::from_millis(100);

/// The master's end of the group: one per life of a sender.
///
/// Calling contract: see the crate; `poll_datagram` is drained first, because a distribution frame is closed
/// there, when all messages of one turn have been taken. See the module for how it works.
#[derive(Debug)]
pub struct GroupSender {
    stream: u64,
    seed: [u8; 32],
    datagram_bytes: usize,
    now: Timestamp,
    signer: Signer,
    keys: SenderKeys,
    gather: Gather,
    ring: Ring,
    pub(super) members: Members,
    repairs: Repairs,
    demand: Demand,
    pacer: Pacer,
    budget: NackBudget,
    beats: Beats,
    confirm_seq: u64,
    gone_seq: u64,
    /// Since when data has waited for the window.
    closed_since: Option<Timestamp>,
    tick_at: Timestamp,
    /// Beats, confirms, notices: they leave first.
    control: VecDeque<GroupDatagram>,
    events: VecDeque<GroupSenderEvent>,
    counters: GroupSenderCounters,
}

/// When to send the next beat.
#[derive(Debug)]
struct Beats {
    seq: u64,
    at: Timestamp,
    wait: Duration,
    sent_at: Timestamp,
    data_at: Option<Timestamp>,
    /// Level of the log behind the last frame that was closed.
    level: Level,
}

impl GroupSender {
    /// Returns a sender without members.
    pub fn new(now: Timestamp, config: GroupConfig) -> Self {
        let GroupConfig { stream, seed, .. } = config;
        Self {
            stream,
            seed,
            datagram_bytes: config
                .datagram_bytes
                .clamp(DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX),
            now,
            signer: Signer::new(&derive(&seed, stream, Purpose::Signing)),
            keys: SenderKeys::new(now, stream, seed),
            gather: Gather::new(),
            ring: Ring::new(),
            members: Members::new(),
            repairs: Repairs::new(),
            demand: Demand::default(),
            pacer: Pacer::new(now, config.rate_bytes_per_s, config.rate_floor_bytes_per_s),
            budget: NackBudget::new(now),
            beats: Beats {
                seq: 0,
                at: now,
                wait: BEAT_MIN,
                sent_at: now,
                data_at: None,
                level: Level::ZERO,
            },
            confirm_seq: 0,
            gone_seq: 0,
            closed_since: None,
            tick_at: now.plus(REPAIR_PATIENCE),
            control: VecDeque::new(),
            events: VecDeque::new(),
            counters: GroupSenderCounters::default(),
        }
    }

    /// Draws what `node` needs to hear the group: the group's key, a key of its own, the verifying key.
    ///
    /// Each offer draws another key of its own, and voids the one before: a receiver that begins again
    /// counts from 1 again. If it was a member, it is none any more.
    pub fn offer(&mut self, node: NodeId) -> (GroupKey, [u8; 32], [u8; 32]) {
        let offer = self.members.next_offer();
        let secret = derive(&self.seed, self.stream, Purpose::Node(node, offer));
        self.repairs.forget(node);
        self.members.offer(node, Seal::new(&secret));
        (self.keys.offered(), secret, self.signer.verify_key())
    }

    /// Takes `node` into the group; returns the seq of the datagram from which on it needs everything.
    ///
    /// What is gathered is closed first: a distribution frame begins there.
    pub fn add(&mut self, now: Timestamp, node: NodeId) -> u64 {
        self.now = now;
        self.close_frame();
        let seq = self.ring.next();
        self.members.join(now, node, seq - 1);
        seq
    }

    /// Takes `node` out of the group; what it sends is refused from now on. It may be added again under
    /// the same offer.
    pub fn remove(&mut self, now: Timestamp, node: NodeId) {
        self.now = now;
        self.drop_member(node);
    }

    /// Returns the number of members.
    pub fn members(&self) -> usize {
        self.members.count().into()
    }

    /// Takes that `node` holds the group key of this id.
    pub fn handle_key_held(&mut self, now: Timestamp, node: NodeId, key: u8) {
        self.now = now;
        self.members.key_held(node, key);
        self.turn_key();
    }

    /// Begins to rotate the group's key, at most once in ten seconds: sooner, it is done then.
    pub fn rotate(&mut self, now: Timestamp) {
        self.now = now;
        self.keys.want();
        self.turn_key();
    }

    /// Returns the bytes of messages that it takes now. While it is not zero, a message of any length may
    /// be sent.
    pub fn room(&self) -> usize {
        BACKLOG_BYTES.saturating_sub(self.gather.bytes() + self.ring.unsent_bytes())
    }

    /// Takes one message (Frame or Heartbeat, with its envelope); `level` is that of the log behind it.
    pub fn send(&mut self, now: Timestamp, message: Arc<[u8]>, level: Level) {
        self.now = now;
        self.gather.push(now, &message, level);
        if self.gather.is_full() {
            self.close_frame();
        }
    }

    /// Takes a datagram that came to the reply port; it is opened where it lies.
    pub fn handle_datagram(&mut self, now: Timestamp, from: SocketAddr, bytes: &mut [u8]) {
        self.now = now;
        let Ok((header, _)) = DatagramHeader::split(bytes) else {
            self.counters.malformed_total += 1;
            return;
        };
        let voice = match header.kind {
            DatagramKind::Nack => Voice::Nack,
            DatagramKind::Status => Voice::Status,
            DatagramKind::Data
            | DatagramKind::Beat
            | DatagramKind::Confirm
            | DatagramKind::Gone => {
                self.counters.malformed_total += 1;
                return;
            }
        };
        if header.stream != self.stream || header.key != 0 {
            self.counters.malformed_total += 1;
            return;
        }
        let seal = match self.members.voice(header.node, voice, header.seq) {
            Ok(seal) => seal,
            Err(RefusedVoice::Stranger) => {
                self.counters.strangers_total += 1;
                return;
            }
            Err(RefusedVoice::Replayed) => {
                self.counters.replayed_total += 1;
                return;
            }
        };
        let Some(payload) = seal.open(&header, bytes) else {
            self.counters.unsealed_total += 1;
            return;
        };
        let payload = &*payload;
        self.members.heard(header.node, voice, header.seq, from);
        // What it lacks first tells what it has.
        let sent = self.ring.unsent() - 1;
        let contiguous = header.low.saturating_sub(1);
        self.members.progress(now, header.node, contiguous, sent);
        match voice {
            Voice::Nack => match Nack::decode(payload) {
                Ok(nack) => self.handle_nack(header.node, from, &nack),
                Err(_) => self.counters.malformed_total += 1,
            },
            Voice::Status => match GroupStatus::decode(payload) {
                Ok(status) => self.handle_status(header.node, &status),
                Err(_) => self.counters.malformed_total += 1,
            },
        }
    }

    /// Does what is due; calling it earlier does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        if self.tick_at <= now {
            self.tick_at = now.plus(REPAIR_PATIENCE);
            self.tick();
        }
        if self.beats.at <= now {
            self.beat();
        }
        if self.keys.next_at().is_some_and(|at| at <= now) {
            self.turn_key();
        }
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let mut at = self.tick_at.min(self.beats.at);
        if let Some(due) = self.gather.due_at() {
            at = at.min(due);
        }
        if let Some(due) = self.repairs.next_at() {
            at = at.min(due.max(self.pacer.repair_at()));
        }
        if self.ring.waits() && self.ring.unsent() <= self.members.window_end() {
            at = at.min(self.pacer.data_at());
        }
        if let Some(due) = self.keys.next_at() {
            at = at.min(due);
        }
        Some(at)
    }

    /// Returns the next datagram to send; call until `None`.
    pub fn poll_datagram(&mut self) -> Option<GroupDatagram> {
        if let Some(datagram) = self.control.pop_front() {
            return Some(datagram);
        }
        if self.gather.due_at().is_some_and(|at| at <= self.now) {
            self.close_frame();
        }
        self.poll_repair().or_else(|| self.poll_data())
    }

    /// Returns the next event; call until `None`.
    pub fn poll_event(&mut self) -> Option<GroupSenderEvent> {
        self.events.pop_front()
    }

    /// Returns its totals, and how fast it may send now.
    pub fn counters(&self) -> GroupSenderCounters {
        GroupSenderCounters {
            rate_bytes_per_s: self.pacer.rate(),
            rtt_us: u64::try_from(self.members.rtt().as_micros()).unwrap_or(u64::MAX),
            ..self.counters
        }
    }

    fn handle_nack(&mut self, node: NodeId, from: SocketAddr, nack: &Nack) {
        if !self.budget.take(self.now) {
            self.counters.nacks_over_budget_total += 1;
            return;
        }
        self.counters.nacks_total += 1;
        let others = Others {
            have: self.members.others_have(node),
            likely: self.others_likely(),
        };
        let rtt = self.members.rtt_of(node);
        let judged = self
            .repairs
            .ask(self.now, node, &nack.ranges, &self.ring, rtt, others);
        self.pacer
            .note_asked(judged.shared.saturating_mul(as_u64(self.datagram_bytes)));
        self.demand.note_asked(judged.shared);
        self.counters.held_total += judged.held;
        self.counters.impossible_total += judged.impossible;
        if judged.shared >= CONFIRM_DATAGRAMS {
            self.repairs.share(self.now, &nack.ranges, others.have);
            self.confirm(nack);
        }
        if judged.gone > 0 {
            self.counters.gone_total += 1;
            self.tell_gone(from);
        }
    }

    fn handle_status(&mut self, node: NodeId, status: &GroupStatus) {
        let now_us = micros(self.now);
        let held = Duration::from_micros(status.held_us.into());
        let back = Duration::from_micros(now_us.saturating_sub(status.beat_us));
        let report = Report {
            contiguous: status.contiguous,
            highest: status.highest,
            lost_total: status.lost_total,
            rtt: (status.beat_us != 0).then(|| back.saturating_sub(held)),
        };
        let sent = self.ring.unsent() - 1;
        self.members.report(self.now, node, report, sent);
    }

    /// Tells all that the ranges of `nack` are asked for: RFC 5740 §4.2.3.5's REPAIR_ADV.
    fn confirm(&mut self, nack: &Nack) {
        self.confirm_seq += 1;
        let header = self.header(DatagramKind::Confirm, self.confirm_seq);
        let confirm = Confirm {
            ranges: nack.ranges.clone(),
        };
        let mut payload = Vec::new();
        confirm.encode(&mut payload);
        self.counters.confirms_total += 1;
        self.push_control(GroupTarget::Group, &header, &payload);
    }

    fn tell_gone(&mut self, to: SocketAddr) {
        self.gone_seq += 1;
        let header = self.header(DatagramKind::Gone, self.gone_seq);
        let gone = Gone {
            low: self.ring.low(),
        };
        let mut payload = Vec::new();
        gone.encode(&mut payload);
        self.push_control(GroupTarget::Node(to), &header, &payload);
    }

    fn beat(&mut self) {
        self.beats.seq += 1;
        let header = self.header(DatagramKind::Beat, self.beats.seq);
        let beat = GroupBeat {
            highest: self.ring.unsent() - 1,
            level: self.beats.level.0,
            members: self.members.count(),
            rtt_us: u32::try_from(self.members.rtt().as_micros()).unwrap_or(u32::MAX),
            back_off: self.budget.back_off(),
            sent_us: micros(self.now),
        };
        let mut payload = Vec::new();
        beat.encode(&mut payload);
        self.push_control(GroupTarget::Group, &header, &payload);
        self.beats.sent_at = self.now;
        self.beats.wait = (self.beats.wait * 2).min(BEAT_MAX);
        self.beats.at = self.now.plus(self.beats.wait);
    }

    fn header(&self, kind: DatagramKind, seq: u64) -> DatagramHeader {
        DatagramHeader {
            kind,
            key: self.keys.id(),
            flags: FragmentFlags::NONE,
            node: NodeId(0),
            stream: self.stream,
            seq,
            low: self.ring.low(),
        }
    }

    fn push_control(&mut self, to: GroupTarget, header: &DatagramHeader, payload: &[u8]) {
        let bytes = self.keys.seal(header, payload);
        self.counters.control_total += 1;
        self.counters.control_bytes_total += as_u64(bytes.len());
        self.pacer.take_control(self.now, bytes.len());
        self.control.push_back(GroupDatagram { to, bytes });
    }

    /// Closes the frame in the making and seals its datagrams.
    fn close_frame(&mut self) {
        let level = self.gather.level();
        let bytes = as_u64(self.gather.bytes());
        let first = self.ring.next();
        let closed = self
            .gather
            .close(self.now, &self.signer, self.stream, first);
        let Some(frame) = closed else {
            return;
        };
        self.beats.level = level;
        self.counters.frames_total += 1;
        self.counters.message_bytes_total += bytes;
        let room = self.datagram_bytes - DATAGRAM_HEADER_BYTES - SEAL_BYTES;
        let pieces = frame.len().div_ceil(room);
        for (index, piece) in frame.chunks(room).enumerate() {
            let mut header = self.header(DatagramKind::Data, self.ring.next());
            header.flags = FragmentFlags {
                first: index == 0,
                last: index + 1 == pieces,
            };
            let sealed = self.keys.seal(&header, piece);
            self.ring.push(sealed);
        }
    }

    fn poll_repair(&mut self) -> Option<GroupDatagram> {
        loop {
            let (seq, to) = self.repairs.ready(self.now)?;
            if self.pacer.repair_at() > self.now {
                return None;
            }
            self.repairs.done(seq);
            let target = match to {
                RepairTo::Group => Some(GroupTarget::Group),
                RepairTo::Node(node) => self.members.address(node).map(GroupTarget::Node),
            };
            let (Some(sealed), Some(target)) = (self.ring.get_mut(seq), target) else {
                continue;
            };
            sealed.repaired = Some((self.now, to));
            let bytes = Arc::clone(&sealed.bytes);
            self.pacer.take_repair(self.now, bytes.len());
            match to {
                RepairTo::Group => self.counters.repairs_group_total += 1,
                RepairTo::Node(_) => self.counters.repairs_node_total += 1,
            }
            self.counters.repair_bytes_total += as_u64(bytes.len());
            return Some(GroupDatagram { to: target, bytes });
        }
    }

    fn poll_data(&mut self) -> Option<GroupDatagram> {
        let len = self.ring.peek()?;
        if self.ring.unsent() > self.members.window_end() {
            self.closed_since.get_or_insert(self.now);
            return None;
        }
        self.closed_since = None;
        if self.pacer.data_at() > self.now {
            return None;
        }
        let bytes = self.ring.send(self.now)?;
        self.pacer.take_data(self.now, len);
        self.counters.data_total += 1;
        self.counters.data_bytes_total += as_u64(len);
        self.demand.note_sent();
        self.beats.follow_data(self.now);
        let to = GroupTarget::Group;
        Some(GroupDatagram { to, bytes })
    }

    /// Returns how many others are likely to lack a datagram that one member lacks, losses being independent.
    fn others_likely(&self) -> f64 {
        match self.members.count() {
            0 | 1 => 0.0,
            _ => self.members.others_likely().max(self.demand.likely()),
        }
    }

    fn tick(&mut self) {
        self.demand.tick();
        let sign = Sign {
            delayed: self.members.are_delayed(self.pacer.patient_until()),
            waits: self.ring.waits(),
            rtt: self.members.rtt(),
        };
        if self.pacer.tick(self.now, sign) == Paced::Slowed {
            self.counters.slowed_total += 1;
        }
        if self.budget.tick(self.now) {
            self.beats.at = self.now; // all are to know it
        }
        let sent = self.ring.unsent() - 1;
        let ring = &self.ring;
        let first_sent = |seq| ring.get(seq).and_then(|sealed| sealed.sent_at);
        let lagging = self
            .members
            .tick(self.now, sent, self.closed_since, first_sent);
        for node in lagging {
            self.drop_member(node);
            self.counters.lagging_total += 1;
            self.events.push_back(GroupSenderEvent::Lagging(node));
        }
        self.turn_key();
    }

    fn drop_member(&mut self, node: NodeId) {
        if self.members.leave(node) {
            self.repairs.forget(node);
            self.turn_key();
        }
    }

    /// Takes each step of a rotation that can be taken now.
    fn turn_key(&mut self) {
        if let Some(key) = self.keys.begin(self.now) {
            self.events.push_back(GroupSenderEvent::NewKey(key));
        }
        let Some(id) = self.keys.pending() else {
            return;
        };
        let lacking = self.members.without_key(id);
        if !lacking.is_empty() && !self.keys.is_overdue(self.now) {
            return;
        }
        self.keys.finish(self.now);
        self.counters.rotations_total += 1;
        for node in lacking {
            if self.members.leave(node) {
                self.repairs.forget(node);
            }
            self.events.push_back(GroupSenderEvent::Unrotated(node));
        }
    }
}

impl Beats {
    /// Sets the next beat to follow data that leaves now.
    fn follow_data(&mut self, now: Timestamp) {
        let flows = self.data_at.is_some_and(|at| now.since(at) <= BEAT_FLOW);
        if self.data_at == Some(now) && self.wait == BEAT_MIN {
            return; // another datagram of the same moment
        }
        self.data_at = Some(now);
        self.wait = BEAT_MIN;
        self.at = match flows {
            true => now.plus(BEAT_FLOW).min(self.sent_at.plus(BEAT_FLOW_MAX)),
            false => now.plus(BEAT_MIN),
        };
    }
}

fn micros(at: Timestamp) -> u64 {
    at.0 / 1000
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
