//! A node's table as hashes of what it was really given, so that a thousand of them fit; nothing is distributed.
//!
//! No memory fails here (that is the business of `tests/simulation.rs`): content that does not fit is a bug of the
//! cores, and ends the run.

use std::collections::HashMap;

use locus_distribution::{Failure, Standing};
use locus_proto::{Change, ChangeOp, Frame, Key, Level, Position, Root};

/// Per record a hash of key, level and value; its position's root is their sum.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    records: HashMap<u64, Root>,
    pub(crate) position: Position,
}

impl Table {
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            position: self.position,
            records: u64::try_from(self.records.len()).unwrap(),
        }
    }

    /// Applies a frame; it must fit.
    pub(crate) fn apply(&mut self, frame: &Frame, checked: bool) -> Result<Standing, Failure> {
        let header = &frame.header;
        assert!(checked, "content in doubt, though no memory fails here");
        assert_eq!(header.from, self.position.level, "asked to apply a gap");
        assert_eq!(header.root_before, self.position.root, "content before");
        self.load(&frame.changes);
        assert_eq!(header.root_after, self.position.root, "content after");
        self.position = header.after();
        Ok(self.standing())
    }

    /// Puts and deletes without any check, as a load does.
    pub(crate) fn load(&mut self, changes: &[Change]) {
        for Change { key, level, op } in changes {
            let at = hash(1, key.as_bytes());
            let old = match op {
                ChangeOp::Put(value) => {
                    let record = record_hash(key, *level, value);
                    self.position.root = self.position.root.plus(record);
                    self.records.insert(at, record)
                }
                ChangeOp::Delete => self.records.remove(&at),
            };
            if let Some(record) = old {
                self.position.root = self.position.root.minus(record);
            }
        }
    }

    /// Ends a load; the root must be the announced one.
    pub(crate) fn finish(&mut self, position: Position) -> Result<Standing, Failure> {
        assert_eq!(position.root, self.position.root, "content of a snapshot");
        self.position = position;
        Ok(self.standing())
    }

    /// Returns the sum of all records, taken anew.
    pub(crate) fn found(&self) -> Root {
        self.records.values().copied().fold(Root::EMPTY, Root::plus)
    }
}

/// Returns the hash of a record.
pub(crate) fn record_hash(key: &Key, level: Level, value: &[u8]) -> Root {
    let lane = |lane: u64| {
        let seed = hash(lane, key.as_bytes()) ^ level.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash(seed, value)
    };
    Root([lane(3), lane(5)])
}

/// Returns a hash of `bytes`: no adversary is met here, only bugs, and it must be fast.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut sum = seed ^ u64::try_from(bytes.len()).unwrap();
    let mut mix = |word: u64| {
        sum = (sum ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
        sum ^= sum >> 32;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        mix(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(u64::from_le_bytes(last));
    mix(seed);
    sum
}
