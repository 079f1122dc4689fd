//! Readings of the table and who shares them; it reads no table.
//!
//! A boat is one reading. Whoever waits when it leaves rides on it; each part is encoded once. The next part is
//! read when each passenger has room; one that lets the others wait too long gets a boat of its own, which goes on
//! where the shared one is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use locus_proto::{
    Message, Timestamp,
    v1::{SnapshotBegin, SnapshotEnd, SnapshotPart},
};

use super::boat::Voyage;
use super::connection::Phase;
use super::{
    BOARDING, Boat, CloseReason, HOLD_UP_MAX, Peer, SLOW_SNAPSHOTS_MAX, SNAPSHOTS_MAX, Sender,
    SenderEvent,
};

/// What a node that waits is told to expect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announcement {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// All readings of the table, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    boats: BTreeMap<Boat, Voyage>,
    boats_total: u64,
    /// In order of greeting.
    waiting: VecDeque<(Peer, Announcement)>,
    /// When the next boat leaves, if others are under way.
    leaves_at: Option<Timestamp>,
}

impl Snapshots {
    pub(super) fn wait(&mut self, peer: Peer, announcement: Announcement) {
        self.waiting.push_back((peer, announcement));
    }

    pub(super) fn waits(&self, peer: Peer) -> bool {
        self.waiting.iter().any(|(other, _)| *other == peer)
    }

    /// Returns when the next boat leaves, if only time is lacking.
    pub(super) fn departure(&self) -> Option<Timestamp> {
        self.leaves_at.filter(|_| self.has_berth())
    }

    fn has_berth(&self) -> bool {
        let boats = self.boats.values().filter(|voyage| !voyage.slow);
        boats.count() < SNAPSHOTS_MAX
    }

    fn slow(&self) -> usize {
        self.boats.values().filter(|voyage| voyage.slow).count()
    }

    fn next_boat(&mut self) -> Boat {
        self.boats_total += 1;
        Boat(self.boats_total)
    }

    /// Returns who rides on the boat that leaves now, and what to announce.
    fn take_waiting(&mut self, now: Timestamp) -> Option<(BTreeSet<Peer>, Announcement)> {
        let (_, announcement) = *self.waiting.back()?; // the newest: the table grows
        let due = match self.boats.is_empty() {
            true => now,
            false => *self.leaves_at.get_or_insert_with(|| now.plus(BOARDING)),
        };
        if due > now || !self.has_berth() {
            return None;
        }
        self.leaves_at = None;
        let passengers = self.waiting.drain(..).map(|(peer, _)| peer).collect();
        Some((passengers, announcement))
    }

    /// Forgets a passenger; returns the boat if nobody else is on it.
    pub(super) fn forget(&mut self, peer: Peer) -> Option<Boat> {
        self.waiting.retain(|(other, _)| *other != peer);
        if self.waiting.is_empty() {
            self.leaves_at = None;
        }
        let (boat, voyage) = (self.boats.iter_mut())
            .find(|(_, voyage)| voyage.passengers.contains(&peer))
            .map(|(boat, voyage)| (*boat, voyage))?;
        voyage.passengers.remove(&peer);
        if !voyage.passengers.is_empty() {
            return None;
        }
        self.boats.remove(&boat);
        Some(boat)
    }
}

impl Sender {
    /// Takes the answer to [`SenderEvent::ReadTable`]; `end` with the last part.
    ///
    /// The sender's head when [`SnapshotBegin`] left is the level at which reading began: `end` may not
    /// be below it.
    pub fn handle_records(
        &mut self,
        now: Timestamp,
        boat: Boat,
        part: SnapshotPart,
        end: Option<SnapshotEnd>,
    ) {
        let Some(voyage) = self.snapshots.boats.get_mut(&boat) else {
            return; // nobody wants it any more
        };
        if !voyage.take_read() {
            return; // nothing was asked
        }
        let passengers = voyage.passengers.clone();
        // No version changes them: encoded once for all.
        let encode = |message: Message| -> Arc<[u8]> { message.to_bytes().into() };
        let part = (!part.records.is_empty()).then(|| encode(Message::SnapshotPart(part)));
        let last = end.map(|end| encode(Message::SnapshotEnd(end)));
        self.counters.snapshot_parts_total += u64::from(part.is_some());
        for peer in &passengers {
            let Some(connection) = self.peers.get_mut(peer) else {
                continue;
            };
            for bytes in part.iter().chain(&last) {
                connection.window.push(now, Arc::clone(bytes));
            }
            let Some(end) = end else {
                continue;
            };
            if let Some((node, _)) = &connection.node {
                self.roster.fulfil_demand(*node);
            }
            connection.phase = match connection.follower.cursor().level < end.level {
                true => Phase::Replaying { end: end.level },
                false => Phase::Streaming,
            };
        }
        if end.is_some() {
            self.snapshots.boats.remove(&boat);
        }
        for peer in passengers {
            self.settle(now, peer);
        }
        self.admit(now); // its place may be free now
    }

    /// Takes the word that [`SenderEvent::ReadTable`] cannot be answered: whoever shares the reading is closed.
    pub fn handle_unreadable(&mut self, now: Timestamp, boat: Boat) {
        let voyage = self.snapshots.boats.get(&boat);
        for peer in voyage.map(|v| v.passengers.clone()).unwrap_or_default() {
            self.drop_peer(now, peer, CloseReason::TableUnreadable);
        }
        self.admit(now);
    }

    /// Lets the next boat leave, if it is time; and sees to those under way.
    pub(super) fn admit(&mut self, now: Timestamp) {
        while let Some((passengers, announcement)) = self.snapshots.take_waiting(now) {
            self.depart(now, passengers, announcement);
        }
        let boats: Vec<Boat> = self.snapshots.boats.keys().copied().collect();
        for boat in boats {
            self.pump_boat(now, boat);
        }
    }

    fn depart(&mut self, now: Timestamp, passengers: BTreeSet<Peer>, announcement: Announcement) {
        let boat = self.snapshots.next_boat();
        self.counters.boats_total += 1;
        let begin = Message::SnapshotBegin(SnapshotBegin {
            position: self.head,
            records: announcement.records,
            bytes: announcement.bytes,
        });
        for peer in &passengers {
            if let Some(connection) = self.peers.get_mut(peer) {
                self.counters.snapshots_total += 1;
                connection.board(boat);
                connection.follower.go_to(self.head);
                connection.send(now, &begin);
                let outgoing = connection.window.take_outgoing();
                self.transmits.extend(outgoing.map(|bytes| (*peer, bytes)));
            }
        }
        let voyage = Voyage::new(passengers);
        self.snapshots.boats.insert(boat, voyage);
    }

    /// A passenger may have room again: that is cheap to hear, since each of many says so for each part.
    pub(super) fn handle_room(&mut self, now: Timestamp, peer: Peer, boat: Boat) {
        let takes = |peer: Peer| self.peers.get(&peer).is_some_and(|c| c.takes_part());
        if !takes(peer) {
            return;
        }
        let awaits = (self.snapshots.boats.get(&boat)).and_then(|voyage| voyage.awaits);
        let waits_on = awaits.is_some_and(|other| other != peer && !takes(other));
        if let Some(connection) = self.peers.get_mut(&peer) {
            connection.holds_up(now, false);
        }
        if !waits_on {
            self.pump_boat(now, boat);
        }
    }

    /// Reads the next part if each passenger has room, and sees to those who let the others wait.
    pub(super) fn pump_boat(&mut self, now: Timestamp, boat: Boat) {
        let Some(voyage) = self.snapshots.boats.get_mut(&boat) else {
            return;
        };
        if voyage.is_reading() {
            return;
        }
        let takes = |peer: &Peer| self.peers.get(peer).is_some_and(|c| c.takes_part());
        let ready = voyage.passengers.iter().filter(|peer| takes(peer)).count();
        let all_ready = ready == voyage.passengers.len();
        voyage.awaits = voyage.passengers.iter().find(|peer| !takes(peer)).copied();
        let mut slow = BTreeSet::new();
        for peer in &voyage.passengers {
            if let Some(connection) = self.peers.get_mut(peer) {
                let holds_up = ready > 0 && !connection.takes_part();
                let held_up = connection.holds_up(now, holds_up);
                if holds_up && held_up >= HOLD_UP_MAX {
                    slow.insert(*peer);
                }
            }
        }
        if all_ready {
            let first = voyage.read();
            self.events
                .push_back(SenderEvent::ReadTable { boat, first });
        } else if ready == 0 {
            self.counters.window_full_total += 1;
        } else if !slow.is_empty() {
            self.split_off(now, boat, slow);
            self.pump_boat(now, boat);
        }
    }

    /// Gives the slow a boat of their own, or, where there are enough such boats, sends them away.
    fn split_off(&mut self, now: Timestamp, from: Boat, slow: BTreeSet<Peer>) {
        if self.snapshots.slow() >= SLOW_SNAPSHOTS_MAX {
            for peer in slow {
                self.drop_peer(now, peer, CloseReason::TooSlow);
            }
            return;
        }
        let to = self.snapshots.next_boat();
        let Some(voyage) = self.snapshots.boats.get_mut(&from) else {
            return;
        };
        self.counters.boats_split_total += 1;
        for peer in &slow {
            if let Some(connection) = self.peers.get_mut(peer) {
                connection.board(to);
            }
        }
        let begun = voyage.has_begun();
        let split = voyage.split(slow);
        self.snapshots.boats.insert(to, split);
        if begun {
            self.events.push_back(SenderEvent::SplitScan { from, to });
        }
    }
}
