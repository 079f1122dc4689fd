//! What runs in the world: masters and nodes, and chance; nothing here moves.

use std::collections::{HashMap, VecDeque};

use locus_distribution::{Boat, Failure, NodeIdentity, Receiver, Sender};
use locus_proto::{Key, MasterTime, NodeId, Timestamp, Transport};

use crate::model::{Log, Op};
use crate::table::Table;

/// SplitMix64: the same numbers from the same seed on every machine.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A machine with the service. Its log survives the process.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) name: String,
    pub(crate) log: Log,
    pub(crate) sender: Option<Sender>,
    pub(crate) time: MasterTime,
    pub(crate) clock_runs: bool,
    pub(crate) reload_above: Option<u64>,
    pub(crate) window_bytes: usize,
    pub(crate) transport: Transport,
    /// Whether it serves a group.
    pub(crate) group: bool,
    pub(crate) part_records: usize,
    /// Writes that happen once so many parts of a snapshot were read.
    pub(crate) during_snapshot: VecDeque<(usize, Vec<Op>)>,
    pub(crate) time_at: Timestamp,
    pub(crate) parts_read: usize,
    pub(crate) cursors: HashMap<Boat, Key>,
    /// Times that its log was read.
    pub(crate) reads: usize,
    /// Starts of the process.
    pub(crate) life: u64,
}

/// A machine with an agent. Its table survives the process unless a test takes it away.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) table: Option<Table>,
    pub(crate) cluster: String,
    pub(crate) dials: usize,
    /// The next load ends in this.
    pub(crate) load_fails: Option<Failure>,
    /// Its next connection takes so many messages, then nothing.
    pub(crate) takes: Option<usize>,
    pub(crate) loading: Option<Table>,
    pub(crate) transport: Transport,
    /// What its certificate says.
    pub(crate) identity: Option<NodeIdentity>,
    /// It says that it speaks no newer version.
    pub(crate) newest: Option<u8>,
    /// The master whose group it has joined.
    pub(crate) joined: Option<usize>,
    pub(crate) cannot_join: bool,
    /// The network brings it no datagram of the group.
    pub(crate) deaf: bool,
    /// Its process stands still: SIGSTOP.
    pub(crate) stopped: bool,
    /// Frames it has applied that came by the group.
    pub(crate) group_frames: u64,
    pub(crate) link: Option<usize>,
    pub(crate) boot: u64,
    /// Its table has failed since it was loaded.
    pub(crate) faulted: bool,
}
