//! Who hears the group and who is in it: keys, addresses, how far each is, how long its answers take.
//!
//! It knows no datagram that is sent. A *listener* was offered the group; a *member* counts: the window
//! waits for it, and it is put out when it stops the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use locus_proto::{NodeId, Timestamp};

use super::config::{LAGGING_AFTER, WINDOW_DATAGRAMS};
use crate::seal::Seal;

/// Most nodes that were offered the group and are remembered; beyond it the one longest not a member goes.
pub(super) const LISTENERS_MAX: usize = 4096;
/// Round-trip time that is assumed until one was measured.
pub(super) const RTT_UNKNOWN: Duration = Duration::from_millis(1);
/// Longest round-trip time that is believed; NORM without such a limit blocked for seconds.
pub(super) const RTT_MAX: Duration = Duration::from_millis(400);
/// A round trip longer than the member's shortest by this is a queue that grows.
pub(super) const QUEUE_DELAY_MAX: Duration = Duration::from_millis(50);
/// If more than half of at least so many members make no progress, it is not the members: they are given …
pub(super) const MANY_MEMBERS: u16 = 4;
/// … so many times [`LAGGING_AFTER`].
pub(super) const MANY_PATIENCE: u32 = 4;
/// Shortest one.
const RTT_MIN: Duration = Duration::from_micros(50);
/// Shortest time between two statuses of a node without need …
pub(super) const STATUS_MIN: Duration = Duration::from_millis(100);
/// … and what each member adds to it, so that all together send at most 500 a second …
pub(super) const STATUS_PER_MEMBER: Duration = Duration::from_millis(2);
/// … up to this, whatever a beat says of the group's size.
pub(super) const STATUS_MAX: Duration = Duration::from_secs(2);

/// Returns the time between two statuses of one node in a group of `members`.
pub(super) fn status_every(members: u16) -> Duration {
    (STATUS_PER_MEMBER * u32::from(members)).clamp(STATUS_MIN, STATUS_MAX)
}

/// Returns the progress after which a node sends a status in any case: an eighth of the window, in a large
/// group a quarter, so that the loss of several in a row never closes the window.
pub(super) fn status_progress(members: u16) -> u64 {
    match members {
        0..=256 => WINDOW_DATAGRAMS / 8,
        257.. => WINDOW_DATAGRAMS / 4,
    }
}

/// A node that was offered the group.
#[derive(Debug)]
struct Listener {
    seal: Seal,
    /// Last seq of each kind that its key sealed.
    nack_seq: u64,
    status_seq: u64,
    /// Where its last datagram came from.
    address: Option<SocketAddr>,
    /// Id of the newest key that it said it holds.
    key: Option<u8>,
    /// Order of offers and of leaving.
    idle_since: u64,
    member: Option<Member>,
}

/// What the window knows of a member.
#[derive(Debug)]
struct Member {
    /// It has everything up to here.
    contiguous: u64,
    /// When that last rose, or it joined.
    progress_at: Timestamp,
    /// Smoothed round-trip time.
    rtt: Option<Duration>,
    /// Shortest round-trip time since it joined.
    rtt_min: Duration,
    /// The last round-trip time that was measured, and when.
    sample: Option<(Timestamp, Duration)>,
    /// Share of datagrams that it lost of late.
    loss: f64,
    /// Highest and lost of its last status.
    counted: Option<(u64, u64)>,
}

/// What a node sends that its own sequence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Nack,
    Status,
}

/// Status of a member, as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) contiguous: u64,
    pub(super) highest: u64,
    pub(super) lost_total: u64,
    /// Round-trip time, if it could be measured.
    pub(super) rtt: Option<Duration>,
}

/// Nodes that hear the group, by number.
#[derive(Debug, Default)]
pub(super) struct Members {
    listeners: BTreeMap<NodeId, Listener>,
    count: u16,
    offers: u64,
    /// Smallest `contiguous` of all members; `None` without one.
    slowest: Option<u64>,
    /// Sum of the members' shares of loss.
    loss: f64,
    /// Round-trip time of the group.
    rtt: Duration,
}

impl Members {
    pub(super) fn new() -> Self {
        Self {
            rtt: RTT_UNKNOWN,
            ..Self::default()
        }
    }

    /// Returns the number of members.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Returns the round-trip time of the group, as beats tell it (GRTT of RFC 5401 §3.7.4).
    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Returns the number of the next offer.
    pub(super) fn next_offer(&self) -> u64 {
        self.offers
    }

    /// Takes an offer to `node`; with an older one it is no member any more.
    pub(super) fn offer(&mut self, node: NodeId, seal: Seal) {
        self.leave(node);
        self.offers += 1;
        self.listeners.insert(
            node,
            Listener {
                seal,
                nack_seq: 0,
                status_seq: 0,
                address: None,
                key: None,
                idle_since: self.offers,
                member: None,
            },
        );
        if self.listeners.len() > LISTENERS_MAX {
            let idle = self.listeners.iter().filter(|(_, l)| l.member.is_none());
            let oldest = idle
                .min_by_key(|(_, l)| l.idle_since)
                .map(|(node, _)| *node);
            if let Some(node) = oldest {
                self.listeners.remove(&node);
            }
        }
    }

    /// Makes `node` a member that has everything up to `contiguous`; false if it was not offered the group.
    pub(super) fn join(&mut self, now: Timestamp, node: NodeId, contiguous: u64) -> bool {
        self.leave(node);
        let Some(listener) = self.listeners.get_mut(&node) else {
            return false;
        };
        listener.member = Some(Member {
            contiguous,
            progress_at: now,
            rtt: None,
            rtt_min: RTT_MAX,
            sample: None,
            loss: 0.0,
            counted: None,
        });
        self.count += 1;
        self.slowest = Some(self.slowest.map_or(contiguous, |s| s.min(contiguous)));
        true
    }

    /// Makes `node` a mere listener; false if it was no member.
    pub(super) fn leave(&mut self, node: NodeId) -> bool {
        self.offers += 1;
        let order = self.offers;
        let Some(listener) = self.listeners.get_mut(&node) else {
            return false;
        };
        let Some(member) = listener.member.take() else {
            return false;
        };
        listener.idle_since = order;
        self.count -= 1;
        self.loss = if self.count == 0 {
            0.0
        } else {
            (self.loss - member.loss).max(0.0)
        };
        self.find_slowest();
        true
    }

    /// Returns the key that opens what `node` sends with this seq.
    ///
    /// # Errors
    /// [`RefusedVoice`], before anything costs: it is no member, or the seq is not above its last.
    pub(super) fn voice(
        &self,
        node: NodeId,
        voice: Voice,
        seq: u64,
    ) -> Result<&Seal, RefusedVoice> {
        let listener = self.listeners.get(&node).ok_or(RefusedVoice::Stranger)?;
        if listener.member.is_none() {
            return Err(RefusedVoice::Stranger);
        }
        let last = match voice {
            Voice::Nack => listener.nack_seq,
            Voice::Status => listener.status_seq,
        };
        if seq <= last {
            return Err(RefusedVoice::Replayed);
        }
        Ok(&listener.seal)
    }

    /// Takes that `node`'s key has sealed this seq, and where it came from.
    pub(super) fn heard(&mut self, node: NodeId, voice: Voice, seq: u64, from: SocketAddr) {
        if let Some(listener) = self.listeners.get_mut(&node) {
            match voice {
                Voice::Nack => listener.nack_seq = seq,
                Voice::Status => listener.status_seq = seq,
            }
            listener.address = Some(from);
        }
    }

    /// Returns where `node` last proved itself.
    pub(super) fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.listeners.get(&node)?.address
    }

    /// Returns the round-trip time of `node`, or the group's.
    pub(super) fn rtt_of(&self, node: NodeId) -> Duration {
        let member = self.listeners.get(&node).and_then(|l| l.member.as_ref());
        member.and_then(|member| member.rtt).unwrap_or(self.rtt)
    }

    /// Takes that a member has everything up to `contiguous`; what was never sent is not believed.
    pub(super) fn progress(&mut self, now: Timestamp, node: NodeId, contiguous: u64, sent: u64) {
        let Some(member) = self.member_mut(node) else {
            return;
        };
        let contiguous = contiguous.min(sent);
        if contiguous > member.contiguous {
            let before = std::mem::replace(&mut member.contiguous, contiguous);
            member.progress_at = now;
            if self.slowest == Some(before) {
                self.find_slowest();
            }
        }
    }

    /// Takes the status of a member.
    pub(super) fn report(&mut self, now: Timestamp, node: NodeId, report: Report, sent: u64) {
        self.progress(now, node, report.contiguous, sent);
        let Some(member) = self.member_mut(node) else {
            return;
        };
        if let Some(sample) = report.rtt {
            let sample = sample.clamp(RTT_MIN, RTT_MAX);
            member.rtt_min = member.rtt_min.min(sample);
            member.sample = Some((now, sample));
            // RFC 6298 §2: a first sample stands for itself, others count an eighth.
            member.rtt = Some(member.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        let before = member.loss;
        let first = (report.highest.min(sent), report.lost_total);
        let (highest, lost) = *member.counted.get_or_insert(first);
        let came = first.0.saturating_sub(highest);
        if came > 0 {
            let lost = report.lost_total.saturating_sub(lost).min(came);
            let share = to_f64(lost) / to_f64(came);
            // A status over few datagrams says little.
            let weight = to_f64(came) / (to_f64(came) + 64.0);
            member.loss += (share - member.loss) * weight;
            member.counted = Some(first);
        }
        let change = member.loss - before;
        self.loss = (self.loss + change).max(0.0);
    }

    /// Returns how many others are likely to lack a datagram that one member lacks, losses being independent.
    pub(super) fn others_likely(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            count => self.loss * f64::from(count - 1) / f64::from(count),
        }
    }

    /// Returns whether most members that were heard after `since` have datagrams waiting in queues before them:
    /// more is sent than they, or the way to them, can take. Loss tells it too, but only when the queues are
    /// full, and then repairs wait behind them.
    pub(super) fn are_delayed(&self, since: Timestamp) -> bool {
        let members = self.listeners.values().filter_map(|l| l.member.as_ref());
        let (mut heard, mut delayed) = (0_u16, 0_u16);
        for member in members {
            if let Some((at, sample)) = member.sample
                && at > since
            {
                heard += 1;
                delayed += u16::from(sample > member.rtt_min + QUEUE_DELAY_MAX);
            }
        }
        heard >= (self.count / 64).max(1) && delayed > heard / 2
    }

    /// Returns up to where all members but `node` have everything.
    pub(super) fn others_have(&self, node: NodeId) -> u64 {
        let others = self.listeners.iter().filter(|(other, _)| **other != node);
        let members = others.filter_map(|(_, listener)| listener.member.as_ref());
        members
            .map(|member| member.contiguous)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Returns the last seq that may be sent: a window beyond the slowest member.
    pub(super) fn window_end(&self) -> u64 {
        self.slowest
            .map_or(u64::MAX, |slowest| slowest.saturating_add(WINDOW_DATAGRAMS))
    }

    /// Takes that `node` holds the key of this id.
    pub(super) fn key_held(&mut self, node: NodeId, key: u8) {
        if let Some(listener) = self.listeners.get_mut(&node) {
            listener.key = Some(key);
        }
    }

    /// Returns the members that do not hold the key of this id.
    pub(super) fn without_key(&self, key: u8) -> Vec<NodeId> {
        let lack = |l: &Listener| l.member.is_some() && l.key != Some(key);
        let nodes = self.listeners.iter().filter(|(_, l)| lack(l));
        nodes.map(|(node, _)| *node).collect()
    }

    /// Measures the group and returns the members that lag.
    ///
    /// A member lags if it made no progress for [`LAGGING_AFTER`] though there was something to get
    /// (`first_sent` says since when, by seq), or, in a large group, for five of its statuses, some of which
    /// may be lost; if the
    /// window is closed because of it (`closed_since`), statuses are due and count no longer. If most are
    /// stuck at once, that is the network or the sender's rate, and they are given more time.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        sent: u64,
        closed_since: Option<Timestamp>,
        first_sent: impl Fn(u64) -> Option<Timestamp>,
    ) -> Vec<NodeId> {
        let mut rtts: Vec<Duration> = Vec::with_capacity(usize::from(self.count));
        let mut stuck: Vec<(NodeId, Duration, bool)> = Vec::new();
        let closed = closed_since.is_some_and(|since| now.since(since) >= LAGGING_AFTER);
        for (node, listener) in &self.listeners {
            let Some(member) = &listener.member else {
                continue;
            };
            rtts.extend(member.rtt);
            if member.contiguous >= sent {
                continue;
            }
            // What is not in the ring any more was sent long ago.
            let since = first_sent(member.contiguous + 1).unwrap_or(member.progress_at);
            let time = now.since(member.progress_at.max(since));
            if time >= LAGGING_AFTER {
                let blocks = closed && self.slowest == Some(member.contiguous);
                stuck.push((*node, time, blocks));
            }
        }
        self.measure(rtts);
        let many = self.count >= MANY_MEMBERS && stuck.len() > usize::from(self.count / 2);
        let times = if many { MANY_PATIENCE } else { 1 };
        let quick = LAGGING_AFTER * times;
        let patience = quick.max(status_every(self.count) * 5);
        let lags = |time: Duration, blocks: bool| time >= if blocks { quick } else { patience };
        stuck.retain(|(_, time, blocks)| lags(*time, *blocks));
        stuck.into_iter().map(|(node, _, _)| node).collect()
    }

    /// The group's round-trip time is what three of four members are within: one slow member must not
    /// stretch the timers of all.
    fn measure(&mut self, mut rtts: Vec<Duration>) {
        if rtts.is_empty() {
            self.rtt = RTT_UNKNOWN;
            return;
        }
        let index = (rtts.len() * 3 / 4).min(rtts.len() - 1);
        let (_, rtt, _) = rtts.select_nth_unstable(index);
        self.rtt = *rtt;
    }

    fn member_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.listeners.get_mut(&node)?.member.as_mut()
    }

    fn find_slowest(&mut self) {
        let members = self.listeners.values().filter_map(|l| l.member.as_ref());
        self.slowest = members.map(|member| member.contiguous).min();
    }
}

/// Why a node's datagram is refused before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedVoice {
    /// It is no member.
    Stranger,
    /// Its seq is not above the last.
    Replayed,
}

/// Counts here are far below 2^53.
fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * MS)
    }

    fn members(count: u16) -> Members {
        let mut members = Members::new();
        for node in 1..=count {
            members.offer(NodeId(node), Seal::new(&[1; 32]));
            assert!(members.join(at(0), NodeId(node), 0));
        }
        members
    }

    fn report(contiguous: u64, rtt_ms: u64) -> Report {
        Report {
            contiguous,
            highest: contiguous,
            lost_total: 0,
            rtt: Some(Duration::from_millis(rtt_ms)),
        }
    }

    #[test]
    fn the_window_waits_for_the_slowest_member() {
        let mut members = members(3);
        assert_eq!(members.window_end(), WINDOW_DATAGRAMS);
        members.progress(at(1), NodeId(1), 50, 100);
        members.progress(at(1), NodeId(2), 70, 100);
        assert_eq!(members.window_end(), WINDOW_DATAGRAMS);
        members.progress(at(1), NodeId(3), 1000, 100); // never sent: not believed
        assert_eq!(members.window_end(), 50 + WINDOW_DATAGRAMS);
        members.progress(at(1), NodeId(1), 20, 100); // an old word
        assert_eq!(members.window_end(), 50 + WINDOW_DATAGRAMS);
        assert_eq!(members.others_have(NodeId(1)), 70);
        members.leave(NodeId(1));
        assert_eq!(members.window_end(), 70 + WINDOW_DATAGRAMS);
        members.leave(NodeId(2));
        members.leave(NodeId(3));
        assert_eq!((members.window_end(), members.count()), (u64::MAX, 0));
        assert!(
            !members.join(at(1), NodeId(9), 0),
            "it was never offered the group"
        );
    }

    /// (members, stuck of them, milliseconds, window closed) → how many are put out.
    #[test]
    fn who_lags() {
        let cases = [
            (8, 1, 499, false, 0),
            (8, 1, 500, false, 1),
            (8, 4, 500, false, 4),
            (8, 5, 500, false, 0), // most: not they, but what leads to them
            (8, 5, 2000, false, 5),
            (3, 3, 500, false, 3),   // too few to tell
            (200, 1, 500, false, 0), // statuses come each 400 ms
            (200, 1, 500, true, 1),  // but the window is closed: they would have come
            (200, 1, 1999, false, 0),
            (200, 1, 2000, false, 1),
        ];
        for (count, stuck, ms, closed, out) in cases {
            let mut members = members(count);
            for node in stuck + 1..=count {
                members.progress(at(1), NodeId(node), 10, 10);
            }
            let closed_since = closed.then_some(at(0));
            let sent_at = |_| Some(at(0));
            let lagging = members.tick(at(ms), 10, closed_since, sent_at);
            assert_eq!(lagging.len(), out, "{count} {stuck} {ms} {closed}");
        }
        // With nothing to get nobody lags; the time counts from when there was something.
        let mut members = members(1);
        assert_eq!(members.tick(at(9000), 0, None, |_| None), []);
        assert_eq!(members.tick(at(9400), 10, None, |_| Some(at(9000))), []);
        assert_eq!(
            members.tick(at(9500), 10, None, |_| Some(at(9000))),
            [NodeId(1)]
        );
    }

    #[test]
    fn one_slow_member_stretches_nobodys_timers() {
        let mut members = members(8);
        for node in 1..=8 {
            let rtt_ms = if node == 8 { 300 } else { u64::from(node) };
            members.report(at(10), NodeId(node), report(0, rtt_ms), 0);
        }
        members.tick(at(100), 0, None, |_| None);
        assert_eq!(members.rtt(), Duration::from_millis(7));
        assert_eq!(members.rtt_of(NodeId(8)), Duration::from_millis(300));
        assert!(!members.are_delayed(at(0)));
        // Half of them with 60 ms more is not most; one more is.
        for node in 1..=5 {
            assert!(!members.are_delayed(at(0)));
            members.report(at(200), NodeId(node), report(0, 60 + u64::from(node)), 0);
        }
        assert!(members.are_delayed(at(0)));
        assert!(!members.are_delayed(at(200)), "older than the last slowing");
    }

    #[test]
    fn loss_is_learnt_from_statuses() {
        let mut members = members(11);
        for node in 1..=11 {
            for step in 0..20 {
                let report = Report {
                    contiguous: step * 1000,
                    highest: step * 1000,
                    lost_total: 500 + step * 10, // what it had lost before counts no more
                    rtt: None,
                };
                members.report(at(step), NodeId(node), report, 1_000_000);
            }
        }
        assert!(
            (members.others_likely() - 0.1).abs() < 0.01,
            "{}",
            members.others_likely()
        );
        for node in 2..=11 {
            members.leave(NodeId(node));
        }
        assert!(members.others_likely() < f64::EPSILON);
    }

    #[test]
    fn offers_beyond_the_limit_forget_the_longest_idle() {
        let mut members = members(1);
        let last = u16::try_from(LISTENERS_MAX).unwrap() + 1;
        for node in 2..=last {
            members.offer(NodeId(node), Seal::new(&[1; 32]));
        }
        assert_eq!(members.listeners.len(), LISTENERS_MAX);
        assert!(members.listeners.contains_key(&NodeId(1)), "a member stays");
        assert!(!members.listeners.contains_key(&NodeId(2)));
    }
}
