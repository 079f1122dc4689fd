//! Which records hold a binding that expires next; it removes nothing and reads no clock.

use std::collections::BTreeSet;

use locus_proto::{AorRecord, BindingRefs, Key, MasterTime};

/// Most records whose expired bindings are removed at once: the rest follows 100 ms later, so that calls and
/// registrations are served between.
pub(crate) const EXPIRED_MAX: usize = 256;

/// Keys by the time of their first expiry; in memory only, rebuilt when the database is opened.
///
/// No index on disk: it would cost half of every write.
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    queue: BTreeSet<(MasterTime, Key)>,
}

impl ExpiryQueue {
    /// Notes that the value of `key` was `old` and is now `new`.
    pub(crate) fn handle_change(&mut self, key: &Key, old: Option<&[u8]>, new: Option<&[u8]>) {
        if Key::route_digits(key.as_bytes()).is_some() {
            return; // a route never expires, and its value is no list of bindings
        }
        let (old, new) = (old.and_then(first_expiry), new.and_then(first_expiry));
        if old == new {
            return;
        }
        if let Some(time) = old {
            self.queue.remove(&(time, key.clone()));
        }
        if let Some(time) = new {
            self.queue.insert((time, key.clone()));
        }
    }

    /// Returns the keys that hold an expired binding at `now`, longest expired first, at most
    /// [`EXPIRED_MAX`]. They stay queued until [`Self::handle_change`] says that they are changed.
    pub(crate) fn due(&self, now: MasterTime) -> Vec<Key> {
        let due = self.queue.iter().take_while(|(time, _)| *time <= now);
        due.take(EXPIRED_MAX).map(|(_, key)| key.clone()).collect()
    }

    /// Returns when the first binding expires.
    #[cfg(test)]
    pub(crate) fn next(&self) -> Option<MasterTime> {
        self.queue.first().map(|(time, _)| *time)
    }

    /// Returns how many records hold a binding that expires.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// Returns when the first binding in the value of an address-of-record expires.
fn first_expiry(value: &[u8]) -> Option<MasterTime> {
    let bindings = BindingRefs::new(value).ok()?;
    let expiries = bindings.filter_map(|binding| binding.ok().map(|binding| binding.expires));
    expiries
        .filter(|expires| *expires != MasterTime::NEVER)
        .min()
}

/// Returns whether a binding that expires at `expires` is in force at `now`.
pub(crate) fn live(expires: MasterTime, now: MasterTime) -> bool {
    expires == MasterTime::NEVER || expires > now
}

/// Removes the bindings that have expired at `now`; returns whether there was one.
pub(crate) fn drop_expired(record: &mut AorRecord, now: MasterTime) -> bool {
    let before = record.bindings.len();
    record.bindings.retain(|binding| live(binding.expires, now));
    record.bindings.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_proto::{AddressOfRecord, Binding, Digits};

    fn key(number: usize) -> Key {
        Key::aor(&AddressOfRecord::parse(&format!("u{number}@x")).unwrap())
    }

    fn value(expiries: &[u64]) -> Vec<u8> {
        let mut record = AorRecord::default();
        for expires in expiries {
            record.insert(Binding {
                expires: MasterTime(*expires),
                ..Binding::permanent("sip:a@x")
            });
        }
        record.encode()
    }

    #[test]
    fn follows_the_first_expiry_of_each_record() {
        let mut queue = ExpiryQueue::default();
        let (first, second) = (value(&[0, 50, 30]), value(&[40]));
        queue.handle_change(&key(1), None, Some(&first));
        queue.handle_change(&key(2), None, Some(&second));
        queue.handle_change(&key(3), None, Some(&value(&[0])));
        assert_eq!((queue.next(), queue.len()), (Some(MasterTime(30)), 2));
        assert_eq!(queue.due(MasterTime(29)), []);
        assert_eq!(queue.due(MasterTime(30)), [key(1)]);
        assert_eq!(queue.due(MasterTime(99)), [key(1), key(2)]);
        let refreshed = value(&[0, 60]);
        queue.handle_change(&key(1), Some(&first), Some(&refreshed));
        assert_eq!(queue.next(), Some(MasterTime(40)));
        queue.handle_change(&key(2), Some(&second), None);
        queue.handle_change(&key(1), Some(&refreshed), Some(&value(&[0])));
        assert_eq!((queue.next(), queue.len()), (None, 0));
        let route = Key::route(Digits::parse("4930").unwrap());
        queue.handle_change(&route, None, Some(&value(&[10])));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn takes_a_bounded_number_at_once() {
        let mut queue = ExpiryQueue::default();
        for number in 0..EXPIRED_MAX + 1 {
            queue.handle_change(&key(number), None, Some(&value(&[10])));
        }
        assert_eq!(queue.due(MasterTime(10)).len(), EXPIRED_MAX);
    }

    #[test]
    fn permanent_bindings_never_expire() {
        let mut record = AorRecord::decode(&value(&[0, 10, 20])).unwrap();
        assert!(!drop_expired(&mut record, MasterTime(9)));
        assert!(drop_expired(&mut record, MasterTime(10)));
        assert!(drop_expired(&mut record, MasterTime(u64::MAX)));
        assert_eq!(record.bindings.len(), 1);
    }
}
