//! What was asked for and is to be sent again: to one node or to all, once, and not what is on its way.
//!
//! It knows no rate and no socket. A multicast repair costs the sender as much as a unicast one, so the only
//! gain of unicast is that the others are spared; it is taken when others are unlikely to lack the same.

use std::collections::BTreeMap;
use std::time::Duration;

use locus_proto::v1::{RANGES_MAX, SeqRange};
use locus_proto::{NodeId, Timestamp};

use super::config::WINDOW_DATAGRAMS;
use super::ring::{RepairTo, Ring};

/// How long a repair to one node waits for a second node to ask.
pub(super) const REPAIR_COLLECT: Duration = Duration::from_millis(1);
/// A NACK that asks for this many datagrams anew is answered by a confirm at once: it is a burst, and a
/// burst is likely lost by all (NORM_CMD(REPAIR_ADV) of RFC 5740 §4.2.3.5, for unicast feedback).
pub(super) const CONFIRM_DATAGRAMS: u64 = 8;
/// If this many others are likely to lack the same, repairs go to all without waiting.
pub(super) const OTHERS_LIKELY: f64 = 0.05;
/// Shortest time for which a datagram is not sent again to those it was sent to.
pub(super) const HOLD_MIN: Duration = Duration::from_millis(2);

/// A datagram to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    to: RepairTo,
    ready_at: Timestamp,
}

/// How many members are likely to lack a datagram, from the share of datagrams that is asked for: if each is
/// lost by a Poisson number of members, the share that none lacks is e to the minus mean.
///
/// It knows sooner than statuses, which a large group sends seldom, and less, since one asks for many.
#[derive(Debug, Default)]
pub(super) struct Demand {
    asked: u64,
    sent: u64,
    likely: f64,
}

impl Demand {
    /// Takes that so many datagrams were asked for that nobody had asked for.
    pub(super) fn note_asked(&mut self, datagrams: u64) {
        self.asked += datagrams;
    }

    /// Takes that a datagram was sent for the first time.
    pub(super) fn note_sent(&mut self) {
        self.sent += 1;
    }

    /// Judges what came since the last tick; half of what was known before stays.
    pub(super) fn tick(&mut self) {
        let to_f64 = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let share = (to_f64(self.asked) / to_f64(self.sent.max(1))).min(0.99);
        self.likely = (self.likely - (1.0 - share).ln()) / 2.0;
        (self.asked, self.sent) = (0, 0);
    }

    /// Returns how many members are likely to lack a datagram.
    pub(super) fn likely(&self) -> f64 {
        self.likely
    }
}

/// What is known of the other members when one asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others {
    /// All of them have everything up to here.
    pub(super) have: u64,
    /// How many of them are likely to lack a datagram, losses being independent.
    pub(super) likely: f64,
}

/// Who else is taken to lack a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// Nobody: they have said so.
    Alone,
    /// Nobody, most likely: [`REPAIR_COLLECT`] is waited.
    Unlikely,
    /// Somebody.
    Likely,
}

/// What a NACK came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Judged {
    /// Asked for anew: will be sent.
    pub(super) new: u64,
    /// Of these, what others may lack too.
    pub(super) shared: u64,
    /// Was sent a moment ago: may still be on its way.
    pub(super) held: u64,
    /// Is not in the ring any more.
    pub(super) gone: u64,
    /// Was never sent.
    pub(super) impossible: u64,
}

/// Repairs that wait, lowest seq first, so that every receiver's window moves.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    asked: BTreeMap<u64, Asked>,
}

impl Repairs {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Takes the ranges that `node` asks for. At most a window of datagrams is judged.
    ///
    /// `rtt` is the node's: a NACK that comes within it after a repair to the same node was sent before
    /// that repair could be there (the holdoff of RFC 5401 §3.2.4).
    pub(super) fn ask(
        &mut self,
        now: Timestamp,
        node: NodeId,
        ranges: &[SeqRange],
        ring: &Ring,
        rtt: Duration,
        others: Others,
    ) -> Judged {
        let hold = HOLD_MIN.max(rtt + rtt / 2);
        let mut judged = Judged::default();
        let mut left = WINDOW_DATAGRAMS;
        for range in ranges.iter().take(RANGES_MAX) {
            let count = u64::from(range.count).min(left);
            left -= count;
            for seq in range.first..range.first.saturating_add(count) {
                if seq < ring.low() {
                    judged.gone += 1;
                    continue;
                }
                let Some(sealed) = ring.get(seq).filter(|_| seq < ring.unsent()) else {
                    judged.impossible += 1;
                    continue;
                };
                let recent = sealed.repaired.filter(|(at, _)| now.since(*at) < hold);
                let on_its_way = recent.is_some_and(|(_, to)| match to {
                    RepairTo::Group => true,
                    RepairTo::Node(other) => other == node,
                });
                if on_its_way {
                    judged.held += 1;
                    continue;
                }
                let to = match (seq <= others.have, recent) {
                    (true, _) => Spread::Alone,
                    (false, None) if others.likely < OTHERS_LIKELY => Spread::Unlikely,
                    // Or one was just sent it and another lacks it too: then a third is likely.
                    (false, None | Some(_)) => Spread::Likely,
                };
                if self.want(now, node, seq, to) {
                    judged.new += 1;
                    judged.shared += u64::from(to != Spread::Alone);
                }
            }
        }
        judged
    }

    /// Notes that `node` lacks `seq`; returns whether nobody had asked yet.
    fn want(&mut self, now: Timestamp, node: NodeId, seq: u64, spread: Spread) -> bool {
        let mut new = false;
        let asked = self.asked.entry(seq).or_insert_with(|| {
            new = true;
            let (to, ready_at) = match spread {
                Spread::Alone => (RepairTo::Node(node), now),
                Spread::Unlikely => (RepairTo::Node(node), now.plus(REPAIR_COLLECT)),
                Spread::Likely => (RepairTo::Group, now),
            };
            Asked { to, ready_at }
        });
        if asked.to != RepairTo::Node(node) {
            asked.to = RepairTo::Group;
            asked.ready_at = now.min(asked.ready_at);
        }
        new
    }

    /// Sends what was asked for in these ranges, above `have`, to all: the loss is likely shared.
    pub(super) fn share(&mut self, now: Timestamp, ranges: &[SeqRange], have: u64) {
        for range in ranges {
            let first = range.first.max(have.saturating_add(1));
            for (_, asked) in self.asked.range_mut(first..range.end().max(first)) {
                asked.to = RepairTo::Group;
                asked.ready_at = now.min(asked.ready_at);
            }
        }
    }

    /// Returns the lowest repair that is ready, and leaves it.
    pub(super) fn ready(&self, now: Timestamp) -> Option<(u64, RepairTo)> {
        let mut asked = self.asked.iter();
        let (seq, asked) = asked.find(|(_, asked)| asked.ready_at <= now)?;
        Some((*seq, asked.to))
    }

    /// Takes a repair out: it was sent, or cannot be.
    pub(super) fn done(&mut self, seq: u64) {
        self.asked.remove(&seq);
    }

    /// Drops what only `node` had asked for.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.asked
            .retain(|_, asked| asked.to != RepairTo::Node(node));
    }

    /// Returns when the next repair is ready.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        // Those not ready were asked for within `REPAIR_COLLECT`: the first ready one ends the search.
        let mut next: Option<Timestamp> = None;
        for asked in self.asked.values() {
            next = Some(next.map_or(asked.ready_at, |at| at.min(asked.ready_at)));
            if asked.to == RepairTo::Group {
                break;
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const RTT: Duration = Duration::from_micros(200);

    fn at(us: u64) -> Timestamp {
        Timestamp(us * 1000)
    }

    fn ring(sent: u64) -> Ring {
        let mut ring = Ring::new();
        for _ in 0..sent {
            ring.push(Arc::from([0; 100]));
            ring.send(at(0));
        }
        ring.push(Arc::from([0; 100])); // sealed, not sent yet
        ring
    }

    fn others(have: u64, likely: f64) -> Others {
        Others { have, likely }
    }

    fn one(first: u64) -> [SeqRange; 1] {
        [SeqRange { first, count: 1 }]
    }

    /// Who asks, what is known of the others → to whom it goes, and when.
    #[test]
    fn to_one_or_to_all() {
        let ring = ring(100);
        let mut repairs = Repairs::default();
        // The others have it: to this one, at once.
        let judged = repairs.ask(at(0), A, &one(5), &ring, RTT, others(5, 0.5));
        assert_eq!((judged.new, judged.shared), (1, 0));
        assert_eq!(repairs.ready(at(0)), Some((5, RepairTo::Node(A))));
        repairs.done(5);
        // They may lack it, though hardly: to this one, if nobody else asks for a millisecond.
        repairs.ask(at(0), A, &one(6), &ring, RTT, others(5, 0.01));
        assert_eq!(
            (repairs.ready(at(999)), repairs.next_at()),
            (None, Some(at(1000)))
        );
        assert_eq!(repairs.ready(at(1000)), Some((6, RepairTo::Node(A))));
        // Another asks: once, to all, at once.
        let judged = repairs.ask(at(500), B, &one(6), &ring, RTT, others(5, 0.01));
        assert_eq!(judged.new, 0);
        assert_eq!(repairs.ready(at(500)), Some((6, RepairTo::Group)));
        repairs.done(6);
        // They are likely to lack it: to all, at once.
        repairs.ask(at(0), A, &one(7), &ring, RTT, others(5, 0.05));
        assert_eq!(repairs.ready(at(0)), Some((7, RepairTo::Group)));
        repairs.done(7);
        // A burst is shared, but what the others have is not.
        let burst = [SeqRange { first: 4, count: 9 }];
        repairs.ask(at(0), A, &burst, &ring, RTT, others(5, 0.0));
        repairs.share(at(0), &burst, 5);
        let to = |repairs: &Repairs, seq| repairs.asked.get(&seq).map(|asked| asked.to);
        assert_eq!(to(&repairs, 5), Some(RepairTo::Node(A)));
        assert_eq!(to(&repairs, 6), Some(RepairTo::Group));
        // A is gone: what it alone asked for is dropped.
        repairs.forget(A);
        assert_eq!(
            (to(&repairs, 5), to(&repairs, 6)),
            (None, Some(RepairTo::Group))
        );
    }

    #[test]
    fn the_share_that_is_asked_for_tells_how_many_lack_one() {
        let mut demand = Demand::default();
        for _ in 0..20 {
            (0..1000).for_each(|_| demand.note_sent());
            demand.note_asked(632); // 1 − 1/e
            demand.tick();
        }
        assert!((demand.likely() - 1.0).abs() < 0.01, "{}", demand.likely());
        demand.note_asked(50); // and none sent
        demand.tick();
        assert!(demand.likely() < 3.0);
        (0..10).for_each(|_| demand.tick());
        assert!(demand.likely() < 0.01);
    }

    #[test]
    fn what_is_on_its_way_is_held_for_those_it_goes_to() {
        let mut ring = ring(100);
        let mut repairs = Repairs::default();
        ring.get_mut(5).unwrap().repaired = Some((at(0), RepairTo::Node(A)));
        ring.get_mut(6).unwrap().repaired = Some((at(0), RepairTo::Group));
        let both = [SeqRange { first: 5, count: 2 }];
        // A has just been sent both.
        let judged = repairs.ask(at(1999), A, &both, &ring, RTT, others(0, 0.0));
        assert_eq!((judged.held, judged.new), (2, 0));
        // B has been sent one; the other is now lacked by two, and goes to all.
        let judged = repairs.ask(at(1999), B, &both, &ring, RTT, others(0, 0.0));
        assert_eq!((judged.held, judged.new), (1, 1));
        assert_eq!(repairs.ready(at(1999)), Some((5, RepairTo::Group)));
        repairs.done(5);
        // After the hold it was lost again. A longer round trip holds longer.
        let slow = Duration::from_millis(10);
        assert_eq!(
            repairs
                .ask(at(14_999), A, &both, &ring, slow, others(0, 0.0))
                .held,
            2
        );
        assert_eq!(
            repairs
                .ask(at(15_000), A, &both, &ring, slow, others(0, 0.0))
                .new,
            2
        );
    }

    #[test]
    fn what_is_gone_and_what_never_was_is_counted() {
        let mut ring = ring(0);
        for _ in 0..20_000 {
            ring.push(Arc::from([0; 1]));
            ring.send(at(0));
        }
        let low = ring.low();
        let ask = [
            SeqRange {
                first: low - 2,
                count: 4,
            },
            SeqRange {
                first: ring.unsent(),
                count: u16::MAX,
            },
        ];
        let judged = Repairs::default().ask(at(0), A, &ask, &ring, RTT, others(0, 0.0));
        assert_eq!((judged.gone, judged.new), (2, 2));
        // No more than a window is looked at, whatever is asked.
        assert_eq!(judged.impossible, WINDOW_DATAGRAMS - 4);
    }
}
