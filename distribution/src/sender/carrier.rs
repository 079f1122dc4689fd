//! What brings the log's messages nearer to their readers: one connection's window; it reads no log.

use std::sync::Arc;

use locus_proto::{Level, Timestamp, v1::WireVersion};

use crate::multicast::GroupSender;

/// Least room in the group for which the log is read: half of what is gathered into one distribution frame.
const GROUP_ROOM_MIN: usize = 16 * 1024;

/// What takes the stream of messages that a [`super::follower::Follower`] makes of the log.
pub(super) trait Carrier {
    /// Returns the bytes of messages that it takes now.
    fn room(&self) -> usize;
    /// Returns the least room for which it is worth to read the log: not many small reads.
    fn room_min(&self) -> usize;
    /// Returns the version in which its readers understand messages.
    fn version(&self) -> WireVersion;
    /// Takes a message behind which the log stands at `level`.
    fn send(&mut self, now: Timestamp, message: Arc<[u8]>, level: Level);
}

/// Bytes on their way to one node.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: usize,
    version: WireVersion,
    in_flight: usize,
    /// When bytes last left, or the first of those in flight were queued.
    moved_at: Timestamp,
    outgoing: Vec<Arc<[u8]>>,
}

impl Window {
    pub(super) fn new(now: Timestamp, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            version: WireVersion::V1, // until both have said what they speak
            in_flight: 0,
            moved_at: now,
            outgoing: Vec::new(),
        }
    }

    pub(super) fn agree(&mut self, version: WireVersion) {
        self.version = version;
    }

    /// Queues a message, whatever the room.
    pub(super) fn push(&mut self, now: Timestamp, message: Arc<[u8]>) {
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

    /// Returns the messages queued since the last call.
    pub(super) fn take_outgoing(&mut self) -> std::vec::Drain<'_, Arc<[u8]>> {
        self.outgoing.drain(..)
    }

    /// Returns since when the node has taken no byte though some wait.
    pub(super) fn stalled_since(&self) -> Option<Timestamp> {
        (self.in_flight > 0).then_some(self.moved_at)
    }
}

impl Carrier for Window {
    fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.in_flight)
    }

    fn room_min(&self) -> usize {
        self.bytes_max / 4
    }

    fn version(&self) -> WireVersion {
        self.version
    }

    fn send(&mut self, now: Timestamp, message: Arc<[u8]>, _level: Level) {
        self.push(now, message);
    }
}

impl Carrier for GroupSender {
    fn room(&self) -> usize {
        Self::room(self)
    }

    fn room_min(&self) -> usize {
        GROUP_ROOM_MIN
    }

    fn version(&self) -> WireVersion {
        WireVersion::V1 // each of its readers understands it
    }

    fn send(&mut self, now: Timestamp, message: Arc<[u8]>, level: Level) {
        Self::send(self, now, message, level);
    }
}
