//! Gathers messages into one distribution frame and signs it; it knows no datagram.
//!
//! Commits are gathered for at most 2 ms or 32 KiB (rules 7.2): a signature costs the sender some 15 µs and
//! each node some 40 µs, whatever it covers.

use std::time::Duration;

use locus_proto::v1::SIGNATURE_BYTES;
use locus_proto::{Level, Timestamp};

use crate::seal::Signer;

/// Shortest time between two distribution frames that are not full.
pub(super) const GATHER_WAIT: Duration = Duration::from_millis(2);
/// A distribution frame is closed when its messages have reached this.
pub(super) const GATHER_BYTES: usize = 32 * 1024;

/// The distribution frame in the making.
#[derive(Debug)]
pub(super) struct Gather {
    /// Room for the signature, then messages.
    frame: Vec<u8>,
    /// Level of the log behind the last of them.
    level: Level,
    /// When it is closed if it is not full before; `None` while it is empty.
    due_at: Option<Timestamp>,
    /// When the last one was closed.
    closed_at: Option<Timestamp>,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self {
            frame: vec![0; SIGNATURE_BYTES],
            level: Level::ZERO,
            due_at: None,
            closed_at: None,
        }
    }

    /// Adds a message. It leaves at once if the last frame was closed [`GATHER_WAIT`] ago.
    pub(super) fn push(&mut self, now: Timestamp, message: &[u8], level: Level) {
        self.frame.extend_from_slice(message);
        self.level = level;
        if self.due_at.is_none() {
            let open_at = self.closed_at.map_or(now, |at| at.plus(GATHER_WAIT));
            self.due_at = Some(open_at.max(now));
        }
    }

    /// Returns the bytes of messages in it.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len() - SIGNATURE_BYTES
    }

    /// Returns whether it has reached [`GATHER_BYTES`].
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= GATHER_BYTES
    }

    /// Returns when it is to be closed; `None` while it is empty.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }

    /// Returns the level of the log behind the last message.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Closes, signs and returns the frame, whose first datagram will be `first`; `None` if it is empty.
    pub(super) fn close(
        &mut self,
        now: Timestamp,
        signer: &Signer,
        stream: u64,
        first: u64,
    ) -> Option<Vec<u8>> {
        self.due_at.take()?;
        self.closed_at = Some(now);
        let next = Vec::with_capacity(SIGNATURE_BYTES + GATHER_BYTES);
        let mut frame = std::mem::replace(&mut self.frame, next);
        self.frame.resize(SIGNATURE_BYTES, 0);
        signer.sign(stream, first, &mut frame);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a message comes, and when its frame closes, in microseconds.
    #[test]
    fn at_once_after_a_pause_else_two_milliseconds_after_the_last() {
        let signer = Signer::new(&[7; 32]);
        let at = |us: u64| Timestamp(us * 1000);
        let mut gather = Gather::new();
        assert_eq!(gather.due_at(), None);
        let mut first = 1;
        for (comes, closes) in [(0, 0), (10, 2000), (5000, 5000), (6999, 7000), (9000, 9000)] {
            gather.push(at(comes), b"first", Level(first));
            gather.push(at(comes + 1), b"second", Level(first + 1));
            assert_eq!(gather.due_at(), Some(at(closes)), "{comes}");
            assert_eq!((gather.bytes(), gather.level()), (11, Level(first + 1)));
            let frame = gather.close(at(closes), &signer, 1, first).unwrap();
            assert_eq!(&frame[SIGNATURE_BYTES..], b"firstsecond");
            assert_eq!((gather.bytes(), gather.due_at()), (0, None));
            first += 2;
        }
        assert_eq!(gather.close(at(9999), &signer, 1, first), None);
        assert!(!gather.is_full());
        gather.push(at(9999), &[0; GATHER_BYTES], Level(1));
        assert!(gather.is_full());
    }
}
