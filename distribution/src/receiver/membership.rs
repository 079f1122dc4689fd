//! The group that a node was offered: its own end of it, and what waits for the table; it decides nothing.

use std::collections::VecDeque;

use locus_proto::{Level, Message, Timestamp};

use super::GROUP_HELD_MAX;
use super::place::Stage;
use crate::audit::record_bytes;
use crate::counters::sum;
use crate::multicast::{GroupReceiver, GroupReceiverCounters};

/// Which way a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Connection,
    Group,
}

/// The group that was offered on this connection.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) stream: u64,
    pub(super) stage: Stage,
    /// Number of the newest key that the node holds.
    pub(super) key: u8,
    /// Datagrams heard when that was looked at last.
    pub(super) heard_total: u64,
    pub(super) receiver: GroupReceiver,
}

/// The node's place in the group, and how it came by its frames.
#[derive(Debug, Default)]
pub(super) struct Membership {
    pub(super) joined: Option<Joined>,
    /// The table takes nothing now.
    pub(super) held: bool,
    /// What has come meanwhile, and its bytes; at most [`GROUP_HELD_MAX`].
    pub(super) waiting: VecDeque<Message>,
    pub(super) waiting_bytes: usize,
    /// This process stood still: until then what came meanwhile is heard, before anybody is called silent.
    pub(super) waking_until: Option<Timestamp>,
    /// The connection's heartbeats are in no order with the stream: since when, and at which level, the node is
    /// behind the heads that they name.
    pub(super) out_of_order: Option<Option<(Timestamp, Level)>>,
    /// Of groups that are gone.
    pub(super) past: GroupReceiverCounters,
}

/// Returns about how many bytes a message takes here.
fn bytes_of(message: &Message) -> usize {
    let changes = if let Message::Frame(frame) = message {
        frame.changes.iter().map(record_bytes).sum()
    } else {
        0
    };
    size_of::<Message>() + changes
}

impl Membership {
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let due = self.joined.as_ref()?.receiver.poll_timeout()?;
        Some(self.waking_until.map_or(due, |until| due.max(until)))
    }

    /// Returns the next message for the table.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        if self.held || !self.is_cut() {
            return None;
        }
        if let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes_of(&message));
            return Some(message);
        }
        self.joined.as_mut()?.receiver.poll_message()
    }

    /// Keeps what comes while the table takes nothing; returns whether it is more than may be.
    pub(super) fn overruns(&mut self) -> bool {
        let Some(joined) = self.joined.as_mut().filter(|_| self.held) else {
            return false;
        };
        while let Some(message) = joined.receiver.poll_message() {
            self.waiting_bytes += bytes_of(&message);
            self.waiting.push_back(message);
        }
        self.waiting_bytes > GROUP_HELD_MAX
    }

    /// Ends it; returns the stream that there was.
    pub(super) fn end(&mut self) -> Option<u64> {
        self.forget_waiting();
        let joined = self.joined.take()?;
        self.past = sum(self.past, joined.receiver.counters());
        Some(joined.stream)
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    pub(super) fn counters(&self) -> GroupReceiverCounters {
        match &self.joined {
            Some(joined) => sum(self.past, joined.receiver.counters()),
            None => self.past,
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        (self.joined.as_ref()).is_some_and(|joined| joined.stage == Stage::Cut)
    }

    /// Returns the group of this stream; what is said of another one is of a master that is gone.
    pub(super) fn of(&mut self, stream: u64) -> Option<&mut Joined> {
        self.joined
            .as_mut()
            .filter(|joined| joined.stream == stream)
    }
}
