//! What the network does to datagrams: loss, delay, order, copies, finite queues; it knows no protocol.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use locus_proto::Timestamp;
use locus_proto::v1::{DatagramHeader, DatagramKind};

/// Gigabit Ethernet, in bytes per second.
pub(crate) const GIGABIT: u64 = 125_000_000;

/// What all links have in common.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// One way.
    pub(crate) latency: Duration,
    /// At most so much is added to it.
    pub(crate) jitter: Duration,
    /// Share of datagrams that each node loses, independently of the others.
    pub(crate) loss: f64,
    /// Share of datagrams to the master that are lost.
    pub(crate) loss_back: f64,
    /// Share of datagrams that a node gets later, by at most `reorder_by`.
    pub(crate) reorder: f64,
    pub(crate) reorder_by: Duration,
    /// Share of datagrams that a node gets twice.
    pub(crate) duplicate: f64,
    /// So many of the next datagrams to the group are lost by all: the master's uplink.
    pub(crate) burst: u32,
    /// Bytes per second of the master's uplink.
    pub(crate) rate: u64,
    /// Most time that a datagram waits for the uplink; beyond it, it is lost.
    pub(crate) uplink_wait_max: Duration,
    /// Longest datagram that passes.
    pub(crate) datagram_max: usize,
    /// Time from the arrival of a datagram to the wake-up of whoever takes it.
    pub(crate) wake: Duration,
    /// Datagrams that were too long.
    pub(crate) too_long_total: u64,
    /// Datagrams to the group, each once.
    pub(crate) group_total: u64,
    /// Datagrams lost by all.
    pub(crate) burst_total: u64,
    /// Of data to the group: the newest seq, how many came out of the switch for the first time, and how many of
    /// those some node lost.
    pub(crate) newest_seq: u64,
    pub(crate) first_total: u64,
    pub(crate) first_lost_total: u64,
}

impl Network {
    /// Returns a sound network in one room: 0.2 ms there and back.
    pub(crate) fn sound() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::from_micros(20),
            loss: 0.0,
            loss_back: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(1),
            duplicate: 0.0,
            burst: 0,
            rate: GIGABIT,
            uplink_wait_max: Duration::from_millis(10),
            datagram_max: 1_400,
            wake: Duration::from_micros(20),
            too_long_total: 0,
            group_total: 0,
            burst_total: 0,
            newest_seq: 0,
            first_total: 0,
            first_lost_total: 0,
        }
    }

    /// Counts a datagram to the group, if it is data that was not sent before.
    pub(crate) fn count_first(&mut self, bytes: &[u8], lost: bool) {
        let header = DatagramHeader::decode(bytes);
        let Some(header) = header.ok().filter(|h| h.kind == DatagramKind::Data) else {
            return;
        };
        if header.seq > self.newest_seq {
            self.newest_seq = header.seq;
            self.first_total += 1;
            self.first_lost_total += u64::from(lost);
        }
    }

    /// Returns the time that so many bytes take on the uplink.
    pub(crate) fn serialise(&self, bytes: usize) -> Duration {
        let nanos = u64::try_from(bytes).unwrap() * 1_000_000_000 / self.rate;
        Duration::from_nanos(nanos)
    }
}

/// A node's end of the network: its queue of datagrams, and who takes from it how fast.
#[derive(Debug)]
pub(crate) struct Port {
    /// Its own loss, where it differs.
    pub(crate) loss: Option<f64>,
    /// It gets nothing that is sent to the group.
    pub(crate) deaf: bool,
    /// It will be so until it joins anew: the switch has forgotten it.
    pub(crate) forgotten: bool,
    /// Nothing passes in either direction.
    pub(crate) cut: bool,
    pub(crate) queue: VecDeque<Arc<[u8]>>,
    /// Most datagrams in the queue.
    pub(crate) queue_max: usize,
    /// Time that the node needs for one datagram.
    pub(crate) service: Duration,
    pub(crate) busy_until: Timestamp,
    pub(crate) woken: bool,
    /// Datagrams that found the queue full.
    pub(crate) overflow_total: u64,
    /// Datagrams that were lost on the way.
    pub(crate) lost_total: u64,
    pub(crate) taken_total: u64,
}

impl Port {
    pub(crate) fn new() -> Self {
        Self {
            loss: None,
            deaf: false,
            forgotten: false,
            cut: false,
            queue: VecDeque::new(),
            queue_max: 4_096, // 6 MB of socket buffer
            service: Duration::ZERO,
            busy_until: Timestamp(0),
            woken: false,
            overflow_total: 0,
            lost_total: 0,
            taken_total: 0,
        }
    }

    /// Returns whether the group's datagrams come as far as this port.
    pub(crate) fn hears(&self) -> bool {
        !self.deaf && !self.forgotten && !self.cut
    }

    /// Takes what the node can work on at once; returns it and when the node is free again.
    pub(crate) fn take(&mut self, now: Timestamp) -> (Vec<Vec<u8>>, Timestamp) {
        const AT_ONCE: usize = 8; // of a node that needs time for each
        let few = match self.service.is_zero() {
            true => self.queue.len(),
            false => self.queue.len().min(AT_ONCE),
        };
        let taken: Vec<Vec<u8>> = self.queue.drain(..few).map(|d| d.to_vec()).collect();
        self.taken_total += u64::try_from(few).unwrap();
        let busy = self.service * u32::try_from(few).unwrap();
        self.busy_until = now.plus(busy);
        (taken, self.busy_until)
    }
}
