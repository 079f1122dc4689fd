//! One connection to a node: its cursor, its window and its turn; it decides nothing about others.

use std::sync::Arc;

use locus_proto::{FrameHeader, FrameKind, Level, NodeId, NodeName, Position, Timestamp};

use super::audit::Question;
use super::{
    CloseReason, GREETING_MAX, LogFrame, PEER_SILENCE_MAX, Peer, STALL_MAX, SenderEvent, Sending,
};
use crate::SenderCounters;
use crate::roster::Doubt;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Greeting,
    Waiting,
    Snapshotting {
        /// Whether the first part was asked for.
        begun: bool,
    },
    Replaying {
        /// Level at which the snapshot is whole.
        end: Level,
    },
    Streaming,
}

/// What is being read for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOf {
    Log,
    Table,
}

/// A heartbeat that is true at `head` only: it waits until the frames up to there are sent.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    pub(super) head: Position,
    pub(super) message: Arc<[u8]>,
}

/// Returned when the log's answer does not follow the cursor.
#[derive(Debug)]
pub(super) struct Unreadable;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: String,
    /// When it connected, or was heard last.
    pub(super) heard_at: Timestamp,
    pub(super) node: Option<(NodeId, NodeName)>,
    pub(super) phase: Phase,
    /// What the node will have once it has taken everything sent.
    pub(super) cursor: Position,
    /// A read of log or table is under way: one at a time, so answers cannot be confused.
    reading: Option<ReadOf>,
    /// Heartbeat that waits for its frames.
    owed: Option<Beat>,
    /// Whether the node was told that it has reached the head since it last fell behind.
    told: bool,
    in_flight: usize,
    /// When bytes last left, or the first of those in flight were queued.
    moved_at: Timestamp,
    outgoing: Vec<Arc<[u8]>>,
    /// Question of an audit that is not answered yet.
    pub(super) question: Option<Question>,
    /// The doubt about which the master has conferred on this connection.
    pub(super) conferred: Option<Doubt>,
    /// Ticket of the audit that was ordered and not reported on yet.
    pub(super) ordered: Option<u64>,
}

impl Connection {
    pub(super) fn new(now: Timestamp, address: String) -> Self {
        Self {
            address,
            heard_at: now,
            node: None,
            phase: Phase::Greeting,
            cursor: Position::default(),
            reading: None,
            owed: None,
            told: false,
            in_flight: 0,
            moved_at: now,
            outgoing: Vec::new(),
            question: None,
            conferred: None,
            ordered: None,
        }
    }

    pub(super) fn sending(&self) -> Sending {
        match self.phase {
            Phase::Greeting => Sending::Greeting,
            Phase::Waiting => Sending::Waiting,
            Phase::Snapshotting { .. } => Sending::Snapshotting,
            Phase::Replaying { .. } => Sending::Replaying,
            Phase::Streaming => Sending::Streaming,
        }
    }

    /// Returns whether it takes one of the places for snapshots: until the table is whole.
    pub(super) fn holds_place(&self) -> bool {
        match self.phase {
            Phase::Snapshotting { .. } | Phase::Replaying { .. } => true,
            Phase::Greeting | Phase::Waiting | Phase::Streaming => false,
        }
    }

    /// Returns the messages queued since the last call.
    pub(super) fn take_outgoing(&mut self) -> std::vec::Drain<'_, Arc<[u8]>> {
        self.outgoing.drain(..)
    }

    /// Queues a message and charges it to the window.
    pub(super) fn send(&mut self, now: Timestamp, message: Arc<[u8]>) {
        if self.in_flight == 0 {
            self.moved_at = now;
        }
        self.in_flight += message.len();
        self.outgoing.push(message);
    }

    pub(super) fn handle_sent(&mut self, now: Timestamp, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.moved_at = now;
    }

    /// Takes the log's answer: sends the frames and any heartbeat that becomes true among them.
    pub(super) fn handle_frames(
        &mut self,
        now: Timestamp,
        frames: Vec<LogFrame>,
    ) -> Result<(), Unreadable> {
        if frames.is_empty() {
            return Err(Unreadable); // it was asked only because there is more
        }
        for frame in frames {
            if !follows(self.cursor, &frame.header) {
                return Err(Unreadable);
            }
            self.cursor = frame.header.after();
            self.send(now, frame.message);
            self.pay_owed(now);
        }
        if let Phase::Replaying { end } = self.phase
            && self.cursor.level >= end
        {
            self.phase = Phase::Streaming;
        }
        Ok(())
    }

    /// Takes the half-second heartbeat.
    pub(super) fn handle_beat(&mut self, now: Timestamp, beat: &Beat, window: usize) {
        match self.phase {
            Phase::Greeting => {}
            // No level counts before the table is whole; the heartbeat tells the time and that the
            // master lives.
            Phase::Waiting | Phase::Snapshotting { .. } => {
                if self.in_flight < window {
                    self.send(now, Arc::clone(&beat.message));
                }
            }
            Phase::Replaying { .. } | Phase::Streaming => {
                if self.owed.is_some() {
                    self.told = false; // behind for half a second; the older beat comes true first
                } else {
                    self.owed = Some(beat.clone());
                    self.pay_owed(now);
                }
            }
        }
    }

    /// Returns whether the node has caught up with `head` and was not told.
    pub(super) fn to_be_told(&self, head: Position) -> bool {
        self.phase == Phase::Streaming && !self.told && same_point(self.cursor, head)
    }

    /// Tells the node at once that it has caught up: half a second matters to whoever waits for it.
    pub(super) fn tell_head(&mut self, now: Timestamp, beat: Beat) {
        self.told = true;
        self.owed = None;
        self.send(now, beat.message);
    }

    fn pay_owed(&mut self, now: Timestamp) {
        let due = self.owed.take_if(|beat| same_point(beat.head, self.cursor));
        if let Some(beat) = due {
            self.send(now, beat.message);
        }
    }

    /// Returns what to read next, if the window has room for it.
    pub(super) fn next_read(
        &mut self,
        peer: Peer,
        head: Position,
        window: usize,
        counters: &mut SenderCounters,
    ) -> Option<SenderEvent> {
        let wanted = match self.phase {
            Phase::Greeting | Phase::Waiting => false,
            Phase::Snapshotting { .. } => true,
            Phase::Replaying { .. } | Phase::Streaming => !same_point(self.cursor, head),
        };
        if !wanted || self.reading.is_some() {
            return None;
        }
        let credit = window.saturating_sub(self.in_flight);
        if credit < window / 4 {
            counters.window_full_total += 1;
            return None; // a quarter at a time, rather than many small reads
        }
        let (of, event) = match &mut self.phase {
            Phase::Snapshotting { begun } => {
                let first = !std::mem::replace(begun, true);
                (ReadOf::Table, SenderEvent::ReadTable { peer, first })
            }
            Phase::Greeting | Phase::Waiting | Phase::Replaying { .. } | Phase::Streaming => {
                let read = SenderEvent::ReadLog {
                    peer,
                    after: self.cursor,
                    bytes_max: credit,
                };
                (ReadOf::Log, read)
            }
        };
        self.reading = Some(of);
        Some(event)
    }

    /// Takes the word that a read was answered; returns whether that was asked for.
    pub(super) fn take_read(&mut self, of: ReadOf) -> bool {
        self.reading.take_if(|asked| *asked == of).is_some()
    }

    /// Returns why the connection has to end by `now`, if it has.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<CloseReason> {
        let silence = now.since(self.heard_at);
        if self.phase == Phase::Greeting {
            return (silence >= GREETING_MAX).then_some(CloseReason::NotGreeted);
        }
        if silence >= PEER_SILENCE_MAX {
            return Some(CloseReason::Silent);
        }
        let stalled = self.in_flight > 0 && now.since(self.moved_at) >= STALL_MAX;
        stalled.then_some(CloseReason::Stalled)
    }
}

/// Returns whether both stand at the same point of the log; a differing root is for the node to find.
fn same_point(a: Position, b: Position) -> bool {
    a.epoch == b.epoch && a.level == b.level
}

fn follows(cursor: Position, next: &FrameHeader) -> bool {
    let epoch_fits = match next.kind {
        FrameKind::Changes => next.epoch == cursor.epoch,
        FrameKind::Epoch => next.epoch.counter > cursor.epoch.counter,
    };
    epoch_fits && next.from == cursor.level
}
