//! The group's key at the sender and its rotation; it knows who holds a key only from what it is told.

use std::sync::Arc;
use std::time::Duration;

use locus_proto::Timestamp;
use locus_proto::v1::{DATAGRAM_HEADER_BYTES, DatagramHeader, GroupKey, SEAL_BYTES};

use crate::seal::{Purpose, Seal, derive};

/// How long a key is used.
pub(super) const KEY_LIFE: Duration = Duration::from_hours(24);
/// How many datagrams are sealed under a key: far below 2^32, AES-GCM's limit for random nonces, though
/// ours are counted.
pub(super) const KEY_DATAGRAMS: u64 = 1 << 31;
/// Shortest time between two rotations: receivers hold two keys, and the ring's datagrams keep theirs.
pub(super) const ROTATION_MIN: Duration = Duration::from_secs(10);
/// How long members have to say that they hold the next key.
pub(super) const ROTATION_WAIT: Duration = Duration::from_secs(1);

/// The key in use and, while it is handed out, the next one.
#[derive(Debug)]
pub(super) struct SenderKeys {
    stream: u64,
    seed: [u8; 32],
    seal: Seal,
    /// Number of the key in use, from 1; its lowest byte is its id.
    number: u64,
    used_since: Timestamp,
    sealed: u64,
    /// Somebody wants another one.
    wanted: bool,
    /// When the last rotation began.
    begun_at: Option<Timestamp>,
    /// When the next key was handed out, if it was.
    pending_since: Option<Timestamp>,
}

impl SenderKeys {
    pub(super) fn new(now: Timestamp, stream: u64, seed: [u8; 32]) -> Self {
        let secret = derive(&seed, stream, Purpose::Group(1));
        Self {
            stream,
            seed,
            seal: Seal::new(&secret),
            number: 1,
            used_since: now,
            sealed: 0,
            wanted: false,
            begun_at: None,
            pending_since: None,
        }
    }

    /// Returns the id of the key in use.
    pub(super) fn id(&self) -> u8 {
        id(self.number)
    }

    /// Returns the key for a node that joins now: the next one, if it has been handed out.
    pub(super) fn offered(&self) -> GroupKey {
        self.key(self.number + u64::from(self.pending_since.is_some()))
    }

    fn key(&self, number: u64) -> GroupKey {
        GroupKey {
            stream: self.stream,
            id: id(number),
            secret: derive(&self.seed, self.stream, Purpose::Group(number)),
        }
    }

    /// Makes one sealed datagram of `header` and `payload`.
    pub(super) fn seal(&mut self, header: &DatagramHeader, payload: &[u8]) -> Arc<[u8]> {
        self.sealed += 1;
        let len = DATAGRAM_HEADER_BYTES + payload.len() + SEAL_BYTES;
        let mut datagram: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        if let Some(bytes) = Arc::get_mut(&mut datagram) {
            bytes[DATAGRAM_HEADER_BYTES..len - SEAL_BYTES].copy_from_slice(payload);
            self.seal.seal(header, bytes);
        }
        datagram
    }

    /// Takes the wish for another key.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Begins a rotation if one is due, and returns the key to hand out.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<GroupKey> {
        let worn = now.since(self.used_since) >= KEY_LIFE || self.sealed >= KEY_DATAGRAMS;
        let rested = self.begun_at.is_none_or(|at| now.since(at) >= ROTATION_MIN);
        if !(self.wanted || worn) || !rested || self.pending_since.is_some() {
            return None;
        }
        self.wanted = false;
        self.begun_at = Some(now);
        self.pending_since = Some(now);
        Some(self.key(self.number + 1))
    }

    /// Returns the id of the key that is being handed out.
    pub(super) fn pending(&self) -> Option<u8> {
        self.pending_since.map(|_| id(self.number + 1))
    }

    /// Returns whether members have had their time.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.pending_since
            .is_some_and(|since| now.since(since) >= ROTATION_WAIT)
    }

    /// Returns when a rotation is to begin or to end; the end of a key's life is looked at with each tick.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        let end = self.pending_since.map(|since| since.plus(ROTATION_WAIT));
        let begin = self.begun_at.map(|at| at.plus(ROTATION_MIN));
        end.or_else(|| begin.filter(|_| self.wanted))
    }

    /// Takes the next key into use.
    pub(super) fn finish(&mut self, now: Timestamp) {
        self.pending_since = None;
        self.number += 1;
        let secret = derive(&self.seed, self.stream, Purpose::Group(self.number));
        self.seal = Seal::new(&secret);
        self.used_since = now;
        self.sealed = 0;
    }
}

/// Keys next to each other have different ids, and receivers hold only two.
fn id(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    /// wanted or worn → handed out → in use; at most one in ten seconds.
    #[test]
    fn transitions() {
        let mut keys = SenderKeys::new(at(0), 1, [7; 32]);
        assert_eq!((keys.id(), keys.pending(), keys.next_at()), (1, None, None));
        assert_eq!(keys.begin(at(0)), None, "nobody wants another");
        keys.want();
        let key = keys.begin(at(1000)).unwrap();
        assert_eq!((key.id, keys.id(), keys.pending()), (2, 1, Some(2)));
        assert_eq!(keys.offered(), key, "who comes now is given the next one");
        assert_eq!(keys.next_at(), Some(at(2000)));
        assert!(!keys.is_overdue(at(1999)) && keys.is_overdue(at(2000)));
        keys.finish(at(1500));
        assert_eq!((keys.id(), keys.pending(), keys.next_at()), (2, None, None));
        assert_eq!(keys.offered(), key);
        keys.want();
        assert_eq!(keys.begin(at(10_999)), None);
        assert_eq!(keys.next_at(), Some(at(11_000)));
        assert_eq!(keys.begin(at(11_000)).unwrap().id, 3);
        keys.finish(at(11_000));
        // On schedule.
        let day = u64::try_from(KEY_LIFE.as_millis()).unwrap();
        assert_eq!(keys.begin(at(10_999 + day)), None);
        assert_eq!(keys.begin(at(11_000 + day)).unwrap().id, 4);
        keys.finish(at(11_000 + day));
        keys.sealed = KEY_DATAGRAMS;
        assert_eq!(keys.begin(at(30_000 + day)).unwrap().id, 5);
    }

    #[test]
    fn ids_wrap_and_secrets_do_not() {
        let mut keys = SenderKeys::new(at(0), 1, [7; 32]);
        let first = keys.offered();
        for _ in 0..256 {
            keys.finish(at(0));
        }
        assert_eq!(keys.offered().id, first.id);
        assert_ne!(keys.offered().secret, first.secret);
    }
}
