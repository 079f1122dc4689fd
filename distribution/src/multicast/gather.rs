//! Gathers messages into one distribution frame and signs it; it knows no datagram.
//!
//! Commits are gathered for at most 2 ms or 32 KiB (rules 7.2): a signature costs the sender some 15 µs and
//! each node some 40 µs, whatever it covers.

use std::time::Duration;

use locus_proto::v1::SIGNATURE_BYTES;
use locus_proto::{Level, Timestamp};

use crate::seal::Signer;

/// Mean time between distribution frames that are not full, and the longest that a message waits.
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
    /// When the next one would be closed if all were [`GATHER_WAIT`] apart. One may go that much ahead of it, so
    /// that a load with a beat of its own is not made to wait for ever by one message that once came late.
    paced_at: Timestamp,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self {
            frame: vec![0; SIGNATURE_BYTES],
            level: Level::ZERO,
            due_at: None,
            paced_at: Timestamp(0),
        }
    }

    /// Adds a message. It leaves at once unless frames have gone ahead of their pace, and within
    /// [`GATHER_WAIT`].
    pub(super) fn push(&mut self, now: Timestamp, message: &[u8], level: Level) {
        self.frame.extend_from_slice(message);
        self.level = level;
        if self.due_at.is_none() {
            let ahead = self.paced_at.since(now).saturating_sub(GATHER_WAIT);
            self.due_at = Some(now.plus(ahead));
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
        self.paced_at = self.paced_at.max(now).plus(GATHER_WAIT);
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
    fn at_once_unless_frames_have_gone_ahead_of_their_pace() {
        let signer = Signer::new(&[7; 32]);
        let at = |us: u64| Timestamp(us * 1000);
        let mut gather = Gather::new();
        assert_eq!(gather.due_at(), None);
        let mut first = 1;
        for (comes, closes) in [
            (0, 0),
            (10, 10), // one ahead
            (20, 2000),
            (2010, 4000),
            (6100, 6100), // 100 late; what follows does not wait for it
            (8000, 8000),
            (20_000, 20_000),
            (20_010, 20_010),
            (20_020, 22_000),
        ] {
            gather.push(at(comes), b"first", Level(first));
            gather.push(at(comes + 1), b"second", Level(first + 1));
            assert_eq!(gather.due_at(), Some(at(closes)), "{comes}");
            assert_eq!((gather.bytes(), gather.level()), (11, Level(first + 1)));
            let frame = gather.close(at(closes), &signer, 1, first).unwrap();
            assert_eq!(&frame[SIGNATURE_BYTES..], b"firstsecond");
            assert_eq!((gather.bytes(), gather.due_at()), (0, None));
            first += 2;
        }
        assert_eq!(gather.close(at(99_999), &signer, 1, first), None);
        assert!(!gather.is_full());
        gather.push(at(99_999), &[0; GATHER_BYTES], Level(1));
        assert!(gather.is_full());
    }
}
