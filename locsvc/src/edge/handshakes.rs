//! Places for connections that have not shown who they are yet; it knows no protocol.
//!
//! Whoever opens connections and says nothing would otherwise hold every place until its time is up. So the
//! places are few and apart from those of the known, and where all are taken the oldest makes room: an honest
//! handshake takes milliseconds, and the oldest of a flood is never one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locus_proto::Timestamp;

/// A handshake that is younger is not ended to make room: when a whole cluster comes back at once, those
/// who came first are served first, and the others come again.
const AGE_MIN: Duration = Duration::from_millis(250);

/// The places; clones share them.
#[derive(Clone)]
pub(super) struct Handshakes {
    max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tickets: u64,
    /// The oldest first.
    under_way: BTreeMap<u64, Guest>,
    ended_total: u64,
    refused_total: u64,
}

struct Guest {
    since: Timestamp,
    end: Box<dyn FnOnce() + Send>,
}

/// One place; dropping it frees it.
pub(super) struct Place {
    ticket: u64,
    state: Arc<Mutex<State>>,
}

impl Handshakes {
    /// Returns `max` places.
    pub(super) fn new(max: usize) -> Self {
        let state = Arc::default();
        Self { max, state }
    }

    /// Returns a place, if there is one or the oldest handshake can be ended for it; `end` ends this one.
    pub(super) fn begin(
        &self,
        now: Timestamp,
        end: impl FnOnce() + Send + 'static,
    ) -> Option<Place> {
        let mut state = lock(&self.state);
        let mut ended = None;
        if state.under_way.len() >= self.max {
            let oldest = state.under_way.first_entry();
            let old = oldest.filter(|guest| now.since(guest.get().since) >= AGE_MIN);
            let Some(old) = old else {
                state.refused_total += 1;
                return None;
            };
            ended = Some(old.remove().end);
            state.ended_total += 1;
        }
        let ticket = state.tickets;
        state.tickets += 1;
        let (since, end) = (now, Box::new(end));
        state.under_way.insert(ticket, Guest { since, end });
        drop(state);
        if let Some(end) = ended {
            end();
        }
        let state = Arc::clone(&self.state);
        Some(Place { ticket, state })
    }

    /// Returns how many were ended to make room, or refused for want of it.
    pub(super) fn crowded_total(&self) -> u64 {
        let state = lock(&self.state);
        state.ended_total + state.refused_total
    }

    /// Returns how many are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.state).under_way.len()
    }

    /// Ends all that are under way.
    pub(super) fn end_all(&self) {
        let guests = std::mem::take(&mut lock(&self.state).under_way);
        for guest in guests.into_values() {
            (guest.end)();
        }
    }
}

impl Place {
    /// Frees the place; returns whether it still was this handshake's.
    pub(super) fn leave(self) -> bool {
        lock(&self.state).under_way.remove(&self.ticket).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.state).under_way.remove(&self.ticket);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic while it was held left a whole map.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(ms))
    }

    fn begin(places: &Handshakes, ms: u64) -> Option<(Place, Receiver<()>)> {
        let (sender, ended) = channel();
        let place = places.begin(at(ms), move || sender.send(()).unwrap())?;
        Some((place, ended))
    }

    #[test]
    fn the_oldest_makes_room_unless_it_is_young() {
        let places = Handshakes::new(2);
        let (first, first_ended) = begin(&places, 0).unwrap();
        let (second, second_ended) = begin(&places, 100).unwrap();
        assert!(begin(&places, 249).is_none());
        assert!(first_ended.try_recv().is_err());
        let (third, _ended) = begin(&places, 250).unwrap();
        assert!(first_ended.try_recv().is_ok());
        assert!(!first.leave(), "its place is another's");
        assert!(second.leave());
        assert!(second_ended.try_recv().is_err(), "it left by itself");
        assert_eq!(places.crowded_total(), 2);
        // One place is free again, and one more when its owner is dropped.
        let fourth = begin(&places, 260).unwrap();
        assert!(begin(&places, 261).is_none());
        drop(fourth);
        assert!(begin(&places, 262).is_some());
        assert!(third.leave());
    }

    #[test]
    fn all_are_ended_at_the_end() {
        let places = Handshakes::new(2);
        let (place, ended) = begin(&places, 0).unwrap();
        places.end_all();
        assert!(ended.try_recv().is_ok());
        assert!(!place.leave());
    }
}
