//! One connection to a node: its window, its turn and its path; it decides nothing about others.

use std::time::Duration;

use locus_proto::v1::Heartbeat;
use locus_proto::{Level, Message, NodeId, NodeName, Position, Timestamp, Transport};

use super::audit::Question;
use super::carrier::{Carrier, Window};
use super::follower::{self, Answer, Follower, Unreadable};
use super::path::{Path, Stage};
use super::{
    Arrived, Boat, CloseReason, GREETING_MAX, LogFrame, PEER_SILENCE_MAX, Peer, STALL_MAX,
    SenderEvent, Sending,
};
use crate::SenderCounters;
use crate::roster::{Doubt, Live};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Greeting,
    Waiting,
    Snapshotting {
        /// With whom it shares the reading.
        boat: Boat,
    },
    Replaying {
        /// Level at which the snapshot is whole.
        end: Level,
    },
    Streaming,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) arrived: Arrived,
    /// When it connected, or was heard last.
    pub(super) heard_at: Timestamp,
    pub(super) node: Option<(NodeId, NodeName)>,
    /// How the node wishes to be served.
    pub(super) transport: Transport,
    pub(super) phase: Phase,
    /// Where the stream to the node goes, once it streams.
    pub(super) stage: Stage,
    /// Operators were told that the node is lost to the group.
    pub(super) lost: bool,
    /// When it may be in the group again after it has left, and whether it has said before that it hears it.
    pub(super) back_at: Timestamp,
    pub(super) heard_early: bool,
    /// Number of the newest of the group's keys that the node says it holds.
    pub(super) key: u8,
    pub(super) follower: Follower,
    pub(super) window: Window,
    frame_bytes_total: u64,
    /// How long the others of its boat have waited for it, and since when they do.
    held_up: Duration,
    holds_up_since: Option<Timestamp>,
    /// Question of an audit that is not answered yet.
    pub(super) question: Option<Question>,
    /// The doubt about which the master has conferred on this connection.
    pub(super) conferred: Option<Doubt>,
    /// Ticket of the audit that was ordered and not reported on yet.
    pub(super) ordered: Option<u64>,
}

impl Connection {
    pub(super) fn new(now: Timestamp, arrived: Arrived, window_bytes: usize) -> Self {
        Self {
            arrived,
            heard_at: now,
            node: None,
            transport: Transport::Auto,
            phase: Phase::Greeting,
            stage: Stage::default(),
            lost: false,
            back_at: now,
            heard_early: false,
            key: 0,
            follower: Follower::default(),
            window: Window::new(now, window_bytes),
            frame_bytes_total: 0,
            held_up: Duration::ZERO,
            holds_up_since: None,
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

    pub(super) fn path(&self) -> Path {
        match self.stage {
            Stage::Group => Path::Multicast,
            Stage::Own | Stage::Offered | Stage::Heard | Stage::Ending | Stage::Unable => {
                Path::of(self.arrived.medium)
            }
        }
    }

    /// Returns what the roster shows of it.
    pub(super) fn live(&self) -> Live {
        Live {
            sending: self.sending(),
            path: self.path(),
            version: self.window.version().get(),
            connection_frame_bytes_total: self.frame_bytes_total,
        }
    }

    /// Returns whether the log's frames go over it.
    pub(super) fn follows_log(&self) -> bool {
        match self.phase {
            Phase::Replaying { .. } | Phase::Streaming => self.stage.streams(),
            Phase::Greeting | Phase::Waiting | Phase::Snapshotting { .. } => false,
        }
    }

    /// Queues a message in the node's version and charges it to the window.
    pub(super) fn send(&mut self, now: Timestamp, message: &Message) {
        let bytes = message.to_bytes_in(self.window.version());
        self.window.push(now, bytes.into());
    }

    /// Takes the log's answer: sends the frames, and any heartbeat that becomes true among them, up to `meeting`
    /// at most: from there on they come by the group.
    pub(super) fn handle_frames(
        &mut self,
        now: Timestamp,
        frames: Vec<LogFrame>,
        meeting: Option<Position>,
    ) -> Result<u64, Unreadable> {
        let mut sent = 0;
        match self.follower.take_answer() {
            Answer::Wanted if !self.follows_log() => return Ok(0), // it was cut meanwhile
            Answer::Wanted => {}
            Answer::Stale | Answer::Unasked => return Ok(0),
        }
        if frames.is_empty() {
            return Err(Unreadable); // it was asked only because there is more
        }
        for frame in frames {
            if meeting.is_some_and(|point| self.follower.stands_at(point)) {
                break;
            }
            let bytes = u64::try_from(frame.message.len()).unwrap_or(u64::MAX);
            self.follower.handle_frame(now, frame, &mut self.window)?;
            sent += bytes;
        }
        self.frame_bytes_total += sent;
        if let Phase::Replaying { end } = self.phase
            && self.follower.cursor().level >= end
        {
            self.phase = Phase::Streaming;
        }
        Ok(sent)
    }

    /// Takes the half-second heartbeat.
    pub(super) fn handle_beat(&mut self, now: Timestamp, beat: Heartbeat) {
        match self.phase {
            Phase::Greeting => {}
            Phase::Replaying { .. } | Phase::Streaming if self.stage.streams() => {
                self.follower.handle_beat(now, beat, &mut self.window);
            }
            // No level counts before the table is whole, and in the group this heartbeat is not in the stream's
            // order; it tells the time, and that the master lives.
            Phase::Waiting
            | Phase::Snapshotting { .. }
            | Phase::Replaying { .. }
            | Phase::Streaming => {
                if self.window.room() > 0 {
                    follower::send_beat(now, beat, &mut self.window);
                }
            }
        }
    }

    /// Tells the node at once if it has caught up.
    pub(super) fn tell_head(&mut self, now: Timestamp, beat: Heartbeat) {
        self.follower.tell_head(now, beat, &mut self.window);
    }

    /// Returns whether the node has caught up with `head` and was not told.
    pub(super) fn to_be_told(&self, head: Position) -> bool {
        self.phase == Phase::Streaming
            && self.stage.streams()
            && !self.follower.is_told()
            && self.follower.stands_at(head)
    }

    /// Returns what to read next of the log, if the window has room for it.
    pub(super) fn next_read(
        &mut self,
        peer: Peer,
        head: Position,
        counters: &mut SenderCounters,
    ) -> Option<SenderEvent> {
        if !self.follows_log() {
            return None;
        }
        self.follower.next_read(peer, head, &self.window, counters)
    }

    /// Returns whether there is room for a part of the table.
    pub(super) fn takes_part(&self) -> bool {
        self.window.room() >= self.window.room_min()
    }

    /// Takes note of whether the others of its boat wait for it; returns for how long in all.
    pub(super) fn holds_up(&mut self, now: Timestamp, does: bool) -> Duration {
        let since = match does {
            true => Some(*self.holds_up_since.get_or_insert(now)),
            false => self.holds_up_since.take(),
        };
        let lasting = since.map_or(Duration::ZERO, |since| now.since(since));
        if !does {
            self.held_up += lasting;
            return self.held_up;
        }
        self.held_up + lasting
    }

    /// Begins anew with nobody waiting for it.
    pub(super) fn board(&mut self, boat: Boat) {
        self.phase = Phase::Snapshotting { boat };
        self.held_up = Duration::ZERO;
        self.holds_up_since = None;
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
        let stalled = |since: Timestamp| now.since(since) >= STALL_MAX;
        (self.window.stalled_since().is_some_and(stalled)).then_some(CloseReason::Stalled)
    }
}
