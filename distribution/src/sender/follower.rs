//! A reader's place in the log, and the heartbeat it is owed; it knows neither connection nor group.

use std::sync::Arc;

use locus_proto::{FrameHeader, FrameKind, Message, Position, Timestamp, v1::Heartbeat};

use super::carrier::Carrier;
use super::{LogFrame, Peer, SenderEvent};
use crate::SenderCounters;

/// Returned when the log's answer does not follow the cursor.
#[derive(Debug)]
pub(super) struct Unreadable;

/// What an answer of the log is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It goes on where the cursor is.
    Wanted,
    /// The cursor has moved meanwhile: it is read anew.
    Stale,
    /// Nothing was asked.
    Unasked,
}

/// One reader of the log: a node, or the group that stands for many.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// What its readers have once they have taken everything sent.
    cursor: Position,
    /// Where the read begins that is under way: one at a time, so answers cannot be confused.
    reading: Option<Position>,
    /// Heartbeat that is true behind frames which are not sent yet.
    owed: Option<Heartbeat>,
    /// Whether it was told that it has reached the head since it last fell behind.
    told: bool,
}

impl Follower {
    pub(super) fn cursor(&self) -> Position {
        self.cursor
    }

    /// Goes on at another place.
    pub(super) fn go_to(&mut self, cursor: Position) {
        self.cursor = cursor;
        self.owed = None;
        self.told = false;
    }

    /// Moves to the head without a word: nobody reads.
    pub(super) fn rest_at(&mut self, head: Position) {
        self.go_to(head);
        self.told = true;
    }

    /// Lets its readers be told again once they are at the head.
    pub(super) fn forget_told(&mut self) {
        self.told = false;
    }

    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    pub(super) fn stands_at(&self, point: Position) -> bool {
        same_point(self.cursor, point)
    }

    /// Takes the log's answer to the read that is under way.
    pub(super) fn take_answer(&mut self) -> Answer {
        match self.reading.take() {
            None => Answer::Unasked,
            Some(from) if same_point(from, self.cursor) => Answer::Wanted,
            Some(_) => Answer::Stale,
        }
    }

    /// Sends a frame of the log's answer, and the heartbeat that becomes true behind it.
    pub(super) fn handle_frame(
        &mut self,
        now: Timestamp,
        frame: LogFrame,
        carrier: &mut impl Carrier,
    ) -> Result<(), Unreadable> {
        if !follows(self.cursor, &frame.header) {
            return Err(Unreadable);
        }
        self.cursor = frame.header.after();
        carrier.send(now, frame.message, self.cursor.level);
        self.pay_owed(now, carrier);
        Ok(())
    }

    /// Takes the half-second heartbeat.
    pub(super) fn handle_beat(
        &mut self,
        now: Timestamp,
        beat: Heartbeat,
        carrier: &mut impl Carrier,
    ) {
        if self.owed.is_some() {
            self.told = false; // behind for half a second; the older beat comes true first
        } else {
            self.owed = Some(beat);
            self.pay_owed(now, carrier);
        }
    }

    /// Tells its readers at once that they have caught up, unless they know: half a second matters to whoever
    /// waits for it.
    pub(super) fn tell_head(
        &mut self,
        now: Timestamp,
        beat: Heartbeat,
        carrier: &mut impl Carrier,
    ) {
        if !self.told && self.stands_at(beat.head) {
            self.told = true;
            self.owed = None;
            send_beat(now, beat, carrier);
        }
    }

    fn pay_owed(&mut self, now: Timestamp, carrier: &mut impl Carrier) {
        let cursor = self.cursor;
        let due = self.owed.take_if(|beat| same_point(beat.head, cursor));
        if let Some(beat) = due {
            send_beat(now, beat, carrier);
        }
    }

    /// Returns what to read for `peer`, if it is behind `head` and `carrier` has room.
    pub(super) fn next_read(
        &mut self,
        peer: Peer,
        head: Position,
        carrier: &impl Carrier,
        counters: &mut SenderCounters,
    ) -> Option<SenderEvent> {
        if self.reading.is_some() || self.stands_at(head) {
            return None;
        }
        let bytes_max = carrier.room();
        if bytes_max < carrier.room_min() {
            counters.window_full_total += 1;
            return None;
        }
        self.reading = Some(self.cursor);
        let after = self.cursor;
        Some(SenderEvent::ReadLog {
            peer,
            after,
            bytes_max,
        })
    }
}

/// Sends a heartbeat in its readers' version.
pub(super) fn send_beat(now: Timestamp, beat: Heartbeat, carrier: &mut impl Carrier) {
    let bytes: Arc<[u8]> = Message::Heartbeat(beat)
        .to_bytes_in(carrier.version())
        .into();
    carrier.send(now, bytes, beat.head.level);
}

/// Returns whether both stand at the same point of the log; a differing root is for the node to find.
pub(super) fn same_point(a: Position, b: Position) -> bool {
    a.epoch == b.epoch && a.level == b.level
}

fn follows(cursor: Position, next: &FrameHeader) -> bool {
    let epoch_fits = match next.kind {
        FrameKind::Changes => next.epoch == cursor.epoch,
        FrameKind::Epoch => next.epoch.counter > cursor.epoch.counter,
    };
    epoch_fits && next.from == cursor.level
}
