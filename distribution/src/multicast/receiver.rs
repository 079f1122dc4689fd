//! A node's end of the group: opens, orders, verifies, asks; it knows no table and no connection.

use std::collections::VecDeque;
use std::time::Duration;

use locus_proto::v1::{
    Confirm, DATAGRAM_HEADER_BYTES, DatagramHeader, DatagramKind, FragmentFlags, Gone, GroupBeat,
    GroupKey, GroupLeftReason, GroupOffer, GroupStatus, Nack, SEAL_BYTES,
};
use locus_proto::{Message, NodeId, Timestamp};

use super::assemble::{Assembler, Step};
use super::config::WINDOW_DATAGRAMS;
use super::counters::GroupReceiverCounters;
use super::draw::Draw;
use super::members::{status_every, status_progress};
use super::nack::{Group, NackTimer};
use super::trial::Trial;
use super::window::{Fragment, Place, Window};
use crate::seal::{Seal, Verifier};

/// Silence of the group after which a node leaves it: three beats.
pub(super) const GROUP_SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the group may be a whole window ahead before the node leaves.
pub(super) const OVERRUN_AFTER: Duration = Duration::from_secs(1);
/// Datagrams that are held while the node is not in the group.
pub(super) const LISTEN_DATAGRAMS: u64 = 1024;
/// Bytes of messages that may wait to be polled before no more datagrams are taken out of the window: a
/// table that takes nothing for a while lets the window fill, and the node lags in the end.
pub(super) const UNPOLLED_BYTES_MAX: usize = 1024 * 1024;
/// Distribution frames in a row that may fail at one place before the node leaves …
pub(super) const MISTRUSTED_IN_A_ROW: u32 = 3;
/// … or within [`MISTRUST_SPAN`] at any.
pub(super) const MISTRUSTED_MAX: u32 = 16;
/// See [`MISTRUSTED_MAX`].
pub(super) const MISTRUST_SPAN: Duration = Duration::from_mins(1);

/// What a [`GroupReceiver`] tells its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupReceiverEvent {
    /// The group is heard under the key of this id: say so to the master.
    Heard {
        /// The key's id.
        key: u8,
    },
    /// It has left the group: tell the master, and go on over the connection.
    Lost(GroupLeftReason),
}

/// A node's end of the group: one per offer.
///
/// Calling contract: see the crate. See the module for how it works.
#[derive(Debug)]
pub struct GroupReceiver {
    stream: u64,
    node: NodeId,
    node_seal: Seal,
    /// The newest key and the one before.
    keys: (Key, Option<Key>),
    group: Group,
    window: Window,
    /// `None` while it listens only: nothing is delivered.
    following: Option<Following>,
    trial: Trial,
    assembler: Assembler,
    nack: NackTimer,
    draw: Draw,
    /// Last seq of the master's beats, confirms and notices.
    control: ControlSeqs,
    nack_seq: u64,
    status_seq: u64,
    /// `sent_us` of the last beat and when it came.
    beat: Option<(u64, Timestamp)>,
    datagrams: VecDeque<Vec<u8>>,
    /// Messages to be polled, and the share of their frame's bytes that each has.
    messages: VecDeque<(Message, usize)>,
    unpolled_bytes: usize,
    now: Timestamp,
    events: VecDeque<GroupReceiverEvent>,
    counters: GroupReceiverCounters,
}

/// A group key and whether anything was opened with it.
#[derive(Debug)]
struct Key {
    id: u8,
    seal: Seal,
    heard: bool,
    /// Lowest seq of data that it opened.
    first: Option<u64>,
}

/// What counts only while messages are delivered.
#[derive(Debug)]
struct Following {
    heard_at: Timestamp,
    status_at: Timestamp,
    /// A status is due when this seq was taken.
    status_seq: u64,
    /// Since when the group is a whole window ahead.
    ahead_since: Option<Timestamp>,
    /// Frames in a row that failed.
    mistrusted: u32,
    /// Frames that failed since then.
    mistrust: (Timestamp, u32),
}

#[derive(Debug, Default)]
struct ControlSeqs {
    beat: u64,
    confirm: u64,
    gone: u64,
}

impl GroupReceiver {
    /// Returns a receiver that listens and delivers nothing yet; `seed` seeds its timers.
    pub fn new(now: Timestamp, offer: &GroupOffer, node: NodeId, seed: u64) -> Self {
        let verifier = Verifier::new(offer.verify_key);
        Self {
            stream: offer.stream,
            node,
            node_seal: Seal::new(&offer.node_key),
            keys: (Key::new(&offer.key), None),
            group: Group::new(),
            window: Window::new(0),
            following: None,
            trial: Trial::new(now),
            assembler: Assembler::new(offer.stream, verifier),
            nack: NackTimer::new(seed),
            draw: Draw::new(!seed),
            control: ControlSeqs::default(),
            nack_seq: 0,
            status_seq: 0,
            beat: None,
            datagrams: VecDeque::new(),
            messages: VecDeque::new(),
            unpolled_bytes: 0,
            now,
            events: VecDeque::new(),
            counters: GroupReceiverCounters::default(),
        }
    }

    /// Takes the next key. The one before stays good for data; the caller tells the master that it is held.
    pub fn handle_key(&mut self, key: GroupKey) {
        if key.stream == self.stream && key.id != self.keys.0.id {
            let before = std::mem::replace(&mut self.keys.0, Key::new(&key));
            self.keys.1 = Some(before);
        }
    }

    /// Takes the cut: messages from datagram `seq` on are delivered, and asked for if they are missing.
    pub fn handle_cut(&mut self, now: Timestamp, seq: u64) {
        self.now = now;
        self.assembler.clear();
        self.drop_messages();
        self.nack.stop();
        let quiet_until = self.nack.backoff(now, &self.group);
        self.window.begin(seq, quiet_until);
        if self.window.holes() > 0 {
            self.nack.handle_holes(quiet_until);
        }
        let soon = status_every(1).mul_f64(self.draw.unit());
        self.following = Some(Following {
            heard_at: now,
            status_at: now.plus(soon),
            status_seq: seq.saturating_add(status_progress(self.group.members)),
            ahead_since: None,
            mistrusted: 0,
            mistrust: (now, 0),
        });
        self.trial.handle_cut(now);
        self.drain(now);
    }

    /// Takes that the node is out of the group: it goes on listening and delivers nothing.
    pub fn handle_left(&mut self, now: Timestamp) {
        self.now = now;
        self.following = None;
        self.assembler.clear();
        self.drop_messages();
        self.nack.stop();
        self.trial.handle_left(now);
    }

    /// Takes a datagram of the group; it is opened where it lies.
    pub fn handle_datagram(&mut self, now: Timestamp, bytes: &mut [u8]) {
        self.now = now;
        let Ok((header, _)) = DatagramHeader::split(bytes) else {
            self.counters.malformed_total += 1;
            return;
        };
        if header.stream != self.stream {
            self.counters.strangers_total += 1;
            return;
        }
        match header.kind {
            DatagramKind::Data => self.handle_data(now, &header, bytes),
            DatagramKind::Beat | DatagramKind::Confirm | DatagramKind::Gone => {
                self.handle_control(now, &header, bytes);
            }
            DatagramKind::Nack | DatagramKind::Status => self.counters.malformed_total += 1,
        }
    }

    /// Does what is due; calling it earlier does no harm.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        let Some(following) = &self.following else {
            return;
        };
        if now.since(following.heard_at) >= GROUP_SILENCE_MAX {
            self.leave(now, GroupLeftReason::Silent);
            return;
        }
        if following.status_at <= now {
            self.send_status(now);
        }
        if self.nack.due_at().is_some_and(|at| at <= now) {
            self.ask(now);
        }
    }

    /// Returns when [`Self::handle_timeout`] is due; never while it only listens.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let following = self.following.as_ref()?;
        let silent_at = following.heard_at.plus(GROUP_SILENCE_MAX);
        let at = following.status_at.min(silent_at);
        Some(self.nack.due_at().map_or(at, |due| due.min(at)))
    }

    /// Returns the next datagram for the master's reply port; call until `None`.
    pub fn poll_datagram(&mut self) -> Option<Vec<u8>> {
        self.datagrams.pop_front()
    }

    /// Returns the next verified message, in order. Those that are not polled wait, up to a mebibyte; then
    /// the window fills, and in the end the node lags.
    pub fn poll_message(&mut self) -> Option<Message> {
        let (message, bytes) = self.messages.pop_front()?;
        let was_full = self.is_full();
        self.unpolled_bytes -= bytes;
        if was_full && !self.is_full() {
            self.drain(self.now);
        }
        Some(message)
    }

    /// Returns the next event; call until `None`.
    pub fn poll_event(&mut self) -> Option<GroupReceiverEvent> {
        self.events.pop_front()
    }

    /// Returns its totals.
    pub fn counters(&self) -> GroupReceiverCounters {
        self.counters
    }

    fn handle_data(&mut self, now: Timestamp, header: &DatagramHeader, bytes: &mut [u8]) {
        let seq = header.seq;
        let listening = self.following.is_none();
        match self.window.place(seq) {
            Place::Old | Place::Held => {
                self.counters.duplicates_total += 1;
                return;
            }
            Place::Ahead if !listening => {
                self.counters.ahead_total += 1;
                return;
            }
            Place::Ahead | Place::Free => {}
        }
        let Some(payload) = self.open(header, bytes) else {
            return;
        };
        self.hear(now, header, Some(seq));
        if listening {
            self.window.slide(seq, LISTEN_DATAGRAMS);
            let fragment = Fragment::new(header.flags, payload);
            self.window.hold(seq, fragment, now);
            return;
        }
        if !self.still_there(now, header.low) {
            return;
        }
        if seq == self.window.next() && !self.is_full() {
            if self.window.advance() {
                self.nack.handle_repair(now, seq, self.window.holes());
            }
            self.take(now, seq, header.flags, payload);
            self.drain(now);
        } else {
            let quiet_until = self.nack.backoff(now, &self.group);
            let fragment = Fragment::new(header.flags, payload);
            let (repaired, new) = self.window.hold(seq, fragment, quiet_until);
            if repaired {
                self.nack.handle_repair(now, seq, self.window.holes());
            }
            self.note_holes(new, quiet_until);
        }
    }

    fn handle_control(&mut self, now: Timestamp, header: &DatagramHeader, bytes: &mut [u8]) {
        // Beats under the key before are replays once its successor is in use.
        if header.key != self.keys.0.id && self.keys.0.heard {
            self.counters.unknown_key_total += 1;
            return;
        }
        let fresh = header.key == self.keys.0.id && !self.keys.0.heard;
        if !fresh && header.seq <= self.control.last(header.kind) {
            self.counters.duplicates_total += 1;
            return;
        }
        let Some(payload) = self.open(header, bytes) else {
            return;
        };
        self.control.set(header.kind, header.seq);
        self.hear(now, header, None);
        let decoded = match header.kind {
            DatagramKind::Beat => {
                GroupBeat::decode(payload).map(|beat| self.handle_beat(now, header, &beat))
            }
            DatagramKind::Confirm => {
                Confirm::decode(payload).map(|confirm| self.handle_confirm(now, &confirm))
            }
            DatagramKind::Gone => Gone::decode(payload).map(|gone| {
                self.still_there(now, gone.low);
            }),
            DatagramKind::Data | DatagramKind::Nack | DatagramKind::Status => Ok(()),
        };
        if decoded.is_err() {
            self.counters.malformed_total += 1;
        }
    }

    fn handle_beat(&mut self, now: Timestamp, header: &DatagramHeader, beat: &GroupBeat) {
        let rtt = Duration::from_micros(beat.rtt_us.into());
        self.group.hear(beat.members, rtt, beat.back_off);
        self.beat = Some((beat.sent_us, now));
        if self.following.is_none() || !self.still_there(now, header.low) {
            return;
        }
        let ahead = beat.highest >= self.window.next().saturating_add(WINDOW_DATAGRAMS);
        if let Some(following) = &mut self.following {
            let since = *following.ahead_since.get_or_insert(now);
            if !ahead {
                following.ahead_since = None;
            } else if now.since(since) >= OVERRUN_AFTER {
                self.leave(now, GroupLeftReason::Overrun);
                return;
            }
        }
        let quiet_until = self.nack.backoff(now, &self.group);
        let new = self.window.reach(beat.highest, quiet_until);
        self.note_holes(new, quiet_until);
    }

    fn handle_confirm(&mut self, now: Timestamp, confirm: &Confirm) {
        if self.following.is_some() && self.window.holes() > 0 {
            let until = self.nack.again(now, &self.group);
            self.window.confirm(&confirm.ranges, until);
        }
    }

    /// Opens a datagram with the key that its header names.
    fn open<'a>(&mut self, header: &DatagramHeader, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
        let (newest, before) = &mut self.keys;
        let fresh = newest.id == header.key && !newest.heard;
        let key = match before {
            Some(before) if before.id == header.key => {
                // The sender has sealed from there on under the newest key: only one who was a member can have
                // made this.
                let data = header.kind == DatagramKind::Data;
                if data && newest.first.is_some_and(|first| header.seq >= first) {
                    self.counters.unknown_key_total += 1;
                    return None;
                }
                before
            }
            Some(_) | None if newest.id == header.key => newest,
            Some(_) | None => {
                self.counters.unknown_key_total += 1;
                return None;
            }
        };
        let Some(payload) = key.seal.open(header, bytes) else {
            self.counters.unsealed_total += 1;
            return None;
        };
        key.heard = true;
        if header.kind == DatagramKind::Data {
            key.first = Some(key.first.map_or(header.seq, |first| first.min(header.seq)));
        }
        if fresh {
            // What a member that is gone has counted up to under the key before is void.
            self.control = ControlSeqs::default();
        }
        self.counters.datagrams_total += 1;
        Some(payload)
    }

    /// Takes that something was opened.
    fn hear(&mut self, now: Timestamp, header: &DatagramHeader, seq: Option<u64>) {
        if let Some(following) = &mut self.following {
            following.heard_at = now;
        } else if self.trial.hear(now, seq) {
            let key = header.key;
            self.events.push_back(GroupReceiverEvent::Heard { key });
        }
    }

    /// Returns whether what is missing can still be repaired, if everything below `low` is gone.
    fn still_there(&mut self, now: Timestamp, low: u64) -> bool {
        let gone = low > self.window.next();
        if gone && self.following.is_some() {
            self.leave(now, GroupLeftReason::Gone);
        }
        !gone
    }

    fn note_holes(&mut self, new: u64, quiet_until: Timestamp) {
        if new > 0 {
            self.counters.lost_total += new;
            self.nack.handle_holes(quiet_until);
        }
    }

    #[cfg(test)]
    pub(super) fn unpolled_bytes(&self) -> usize {
        self.unpolled_bytes
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.window.held_bytes() + self.assembler.held_bytes()
    }

    fn is_full(&self) -> bool {
        self.unpolled_bytes >= UNPOLLED_BYTES_MAX
    }

    fn drop_messages(&mut self) {
        self.messages.clear();
        self.unpolled_bytes = 0;
    }

    /// Takes what is held in order.
    fn drain(&mut self, now: Timestamp) {
        while self.following.is_some() && !self.is_full() {
            let Some((seq, fragment)) = self.window.take() else {
                break;
            };
            self.take(now, seq, fragment.flags, &fragment.payload);
        }
        let next = self.window.next();
        if self
            .following
            .as_ref()
            .is_some_and(|f| next >= f.status_seq)
        {
            self.send_status(now);
        }
    }

    /// Takes the fragment that follows.
    fn take(&mut self, now: Timestamp, seq: u64, flags: FragmentFlags, payload: &[u8]) {
        match self.assembler.push(seq, flags, payload) {
            Step::More => {}
            Step::Frame(messages, bytes) => {
                self.counters.frames_total += 1;
                self.counters.messages_total += as_u64(messages.len());
                let each = bytes / messages.len().max(1);
                self.unpolled_bytes += each * messages.len();
                self.messages
                    .extend(messages.into_iter().map(|m| (m, each)));
                if let Some(following) = &mut self.following {
                    following.mistrusted = 0;
                }
            }
            Step::Mistrusted { first } => self.mistrust(now, first),
            Step::Unexpected => {
                self.counters.unexpected_total += 1;
                self.leave(now, GroupLeftReason::Mistrusted);
            }
        }
    }

    /// Throws away everything from `first` on and asks again, a few times: a member may have forged one of
    /// the fragments, and the true one was taken for its duplicate.
    fn mistrust(&mut self, now: Timestamp, first: u64) {
        self.counters.frames_refused_total += 1;
        let Some(following) = &mut self.following else {
            return;
        };
        following.mistrusted += 1;
        let (since, count) = &mut following.mistrust;
        if now.since(*since) > MISTRUST_SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if following.mistrusted >= MISTRUSTED_IN_A_ROW || *count >= MISTRUSTED_MAX {
            self.leave(now, GroupLeftReason::Mistrusted);
            return;
        }
        self.window.rewind(first, now);
        self.nack.handle_holes(now);
    }

    /// Leaves the group by itself.
    fn leave(&mut self, now: Timestamp, reason: GroupLeftReason) {
        // What was verified before is true.
        let verified = std::mem::take(&mut self.messages);
        let bytes = self.unpolled_bytes;
        self.handle_left(now);
        (self.messages, self.unpolled_bytes) = (verified, bytes);
        self.counters.left_total += 1;
        self.events.push_back(GroupReceiverEvent::Lost(reason));
    }

    fn ask(&mut self, now: Timestamp) {
        let again = self.nack.again(now, &self.group);
        let awaited = self.nack.awaited(now, &self.group);
        let ranges = self.window.ask(now, again, awaited);
        if ranges.is_empty() {
            let quiet_until = self.window.quiet_until();
            // Repairs are flowing: look again when they may have stopped.
            let later = quiet_until.map(|at| if at <= now { again } else { at });
            self.nack.handle_nothing(later);
            return;
        }
        self.nack.handle_sent(again);
        self.counters.nacks_total += 1;
        self.nack_seq += 1;
        let mut payload = Vec::new();
        Nack { ranges }.encode(&mut payload);
        self.push_datagram(DatagramKind::Nack, self.nack_seq, &payload);
    }

    fn send_status(&mut self, now: Timestamp) {
        let next = self.window.next();
        let (beat_us, held) = match self.beat {
            Some((sent_us, at)) => (sent_us, now.since(at)),
            None => (0, Duration::ZERO),
        };
        let status = GroupStatus {
            contiguous: next.saturating_sub(1),
            highest: self.window.end().saturating_sub(1),
            lost_total: self.counters.lost_total,
            nacks_total: self.counters.nacks_total,
            beat_us,
            held_us: u32::try_from(held.as_micros()).unwrap_or(u32::MAX),
        };
        let mut payload = Vec::new();
        status.encode(&mut payload);
        self.status_seq += 1;
        self.counters.statuses_total += 1;
        self.push_datagram(DatagramKind::Status, self.status_seq, &payload);
        // Drawn, so that a thousand nodes do not speak at once.
        let every = status_every(self.group.members);
        let wait = every.mul_f64(0.75 + self.draw.unit() / 2.0);
        let progress = status_progress(self.group.members);
        let jitter = progress / 4 * u64::from(self.draw.unit() < 0.5);
        if let Some(following) = &mut self.following {
            following.status_at = now.plus(wait);
            following.status_seq = next.saturating_add(progress + jitter);
        }
    }

    fn push_datagram(&mut self, kind: DatagramKind, seq: u64, payload: &[u8]) {
        let header = DatagramHeader {
            kind,
            key: 0,
            flags: FragmentFlags::NONE,
            node: self.node,
            stream: self.stream,
            seq,
            low: self.window.next(),
        };
        let mut datagram = vec![0; DATAGRAM_HEADER_BYTES + payload.len() + SEAL_BYTES];
        let end = datagram.len() - SEAL_BYTES;
        datagram[DATAGRAM_HEADER_BYTES..end].copy_from_slice(payload);
        self.node_seal.seal(&header, &mut datagram);
        self.datagrams.push_back(datagram);
    }
}

impl Key {
    fn new(key: &GroupKey) -> Self {
        Self {
            id: key.id,
            seal: Seal::new(&key.secret),
            heard: false,
            first: None,
        }
    }
}

impl Fragment {
    fn new(flags: FragmentFlags, payload: &[u8]) -> Self {
        Self {
            flags,
            payload: payload.into(),
        }
    }
}

impl ControlSeqs {
    fn last(&self, kind: DatagramKind) -> u64 {
        match kind {
            DatagramKind::Beat => self.beat,
            DatagramKind::Confirm => self.confirm,
            DatagramKind::Gone => self.gone,
            DatagramKind::Data | DatagramKind::Nack | DatagramKind::Status => u64::MAX,
        }
    }

    fn set(&mut self, kind: DatagramKind, seq: u64) {
        match kind {
            DatagramKind::Beat => self.beat = seq,
            DatagramKind::Confirm => self.confirm = seq,
            DatagramKind::Gone => self.gone = seq,
            DatagramKind::Data | DatagramKind::Nack | DatagramKind::Status => {}
        }
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
