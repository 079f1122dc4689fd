//! The sender's ring of sealed datagrams: what may be sent, or sent again; it decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use locus_proto::{NodeId, Timestamp};

use super::config::RING_DATAGRAMS;

/// Who a repair went to, or is to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepairTo {
    Group,
    Node(NodeId),
}

/// A sealed datagram and when it left.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) bytes: Arc<[u8]>,
    /// When it was first sent.
    pub(super) sent_at: Option<Timestamp>,
    /// When it was last sent again, and to whom.
    pub(super) repaired: Option<(Timestamp, RepairTo)>,
}

/// Sealed datagrams in order of seq: those sent, for repair, then those that wait.
#[derive(Debug)]
pub(super) struct Ring {
    /// Seq of the first that is kept.
    low: u64,
    /// Seq of the first that was not sent yet.
    unsent: u64,
    sealed: VecDeque<Sealed>,
    unsent_bytes: usize,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            low: 1,
            unsent: 1,
            sealed: VecDeque::new(),
            unsent_bytes: 0,
        }
    }

    /// Returns the first seq that can still be repaired.
    pub(super) fn low(&self) -> u64 {
        self.low
    }

    /// Returns the seq of the next datagram to be sent for the first time.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Returns the seq that the next datagram made will have.
    pub(super) fn next(&self) -> u64 {
        self.low + as_u64(self.sealed.len())
    }

    /// Returns whether a datagram waits to be sent for the first time.
    pub(super) fn waits(&self) -> bool {
        self.unsent < self.next()
    }

    /// Returns the bytes of the datagrams that wait to be sent for the first time.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Adds the next datagram.
    pub(super) fn push(&mut self, bytes: Arc<[u8]>) {
        self.unsent_bytes += bytes.len();
        self.sealed.push_back(Sealed {
            bytes,
            sent_at: None,
            repaired: None,
        });
    }

    /// Returns the length of the next datagram to be sent for the first time.
    pub(super) fn peek(&self) -> Option<usize> {
        self.get(self.unsent).map(|sealed| sealed.bytes.len())
    }

    /// Takes the next datagram to be sent for the first time; drops what is then too old to be kept.
    pub(super) fn send(&mut self, now: Timestamp) -> Option<Arc<[u8]>> {
        let sealed = self.get_mut(self.unsent)?;
        sealed.sent_at = Some(now);
        let bytes = Arc::clone(&sealed.bytes);
        self.unsent += 1;
        self.unsent_bytes -= bytes.len();
        while self.unsent - self.low > as_u64(RING_DATAGRAMS) {
            self.sealed.pop_front();
            self.low += 1;
        }
        Some(bytes)
    }

    /// Returns the datagram with this seq, if it is kept.
    pub(super) fn get(&self, seq: u64) -> Option<&Sealed> {
        self.sealed.get(self.index(seq)?)
    }

    /// Returns the datagram with this seq, if it is kept.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Sealed> {
        let index = self.index(seq)?;
        self.sealed.get_mut(index)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.low)?).ok()
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_length_of_what_was_sent_and_all_that_waits() {
        let mut ring = Ring::new();
        let total = RING_DATAGRAMS + 10;
        for _ in 0..total {
            ring.push(Arc::from([0; 8]));
        }
        assert_eq!((ring.low(), ring.unsent(), ring.next()), (1, 1, 16_395));
        assert_eq!(ring.unsent_bytes(), total * 8);
        for _ in 0..total {
            assert!(ring.send(Timestamp(5)).is_some());
        }
        assert_eq!(
            (ring.low(), ring.unsent(), ring.next()),
            (11, 16_395, 16_395)
        );
        assert!(!ring.waits() && ring.send(Timestamp(5)).is_none());
        assert!(ring.get(10).is_none() && ring.get(16_395).is_none());
        assert_eq!(ring.get(11).unwrap().sent_at, Some(Timestamp(5)));
        assert_eq!(ring.unsent_bytes(), 0);
    }
}
