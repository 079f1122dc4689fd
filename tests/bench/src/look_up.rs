//! One look-up in a table file by the product's reader, beside a plain copy of the same bytes.
//! Knows subscribers and the reader, nothing of who writes the table.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use locus_agent::MappedFolder;
use locus_lab::wait;
use locus_table::{FolderReader, Lookup, RecordBuffer};
use serde_json::{Value, json};

use crate::{Random, Rounds, Subscriber, float, is_quick};

/// Look-ups in one chain. Each needs what the one before has read, so that they cannot overlap in the
/// processor, as a look-up among the work of a SIP message has nothing to overlap with. A chain is timed
/// as a whole: reading the clock costs a part of a look-up.
pub const CHAIN: usize = 256;
const CHAINS: usize = 4_000;

/// What was measured; the times are medians over chains, for one step.
#[derive(Debug, Clone, PartialEq)]
pub struct LookUp {
    /// A look-up, without what making the next key costs.
    pub look_up_ns: f64,
    /// A copy of key and value found by two accesses, without what making the next key costs: an array
    /// element says where, then the bytes themselves.
    pub copy_ns: f64,
    /// What drawing a key and writing its digits costs.
    pub key_ns: f64,
    /// Bytes of key and value.
    pub bytes: usize,
    /// Chains of each kind.
    pub chains: usize,
    /// How much of the table is mapped by huge pages.
    pub table_huge_kib: u64,
    /// How much of the copy is mapped by huge pages.
    pub copy_huge_kib: u64,
}

/// What keys come in a row.
struct Chain {
    state: u64,
    subscribers: usize,
    key: Vec<u8>,
}

impl Chain {
    /// Draws a subscriber, depending on what was `read`, writes the key and returns the number.
    fn next(&mut self, read: u8) -> usize {
        let mut random = Random::new(self.state.wrapping_add(u64::from(read)));
        self.state = self.state.wrapping_add(1);
        let n = random.below(self.subscribers);
        // Eight digits, behind the kind and "4930": the form of a subscriber's key.
        let mut rest = n;
        for digit in self.key[5..13].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        n
    }
}

/// The same records in the plainest form.
struct Copy {
    arena: Vec<u8>,
    index: Vec<(usize, usize)>,
    target: Vec<u8>,
}

impl Copy {
    fn of(table: &mut FolderReader<MappedFolder>, subscribers: usize) -> Self {
        let mut buffer = RecordBuffer::new();
        let mut copy = Self {
            // Its room is known: a Vec that grew would have been copied to where pages are small.
            arena: Vec::with_capacity(subscribers * 512),
            index: Vec::with_capacity(subscribers),
            target: vec![0; 64 * 1024],
        };
        for n in 0..subscribers {
            let key = Subscriber(n).key();
            let Lookup::Found(record) = table.lookup(key.as_bytes(), &mut buffer) else {
                panic!("{key:?} is not in the table");
            };
            let start = copy.arena.len();
            copy.arena.extend_from_slice(key.as_bytes());
            copy.arena.extend_from_slice(record.value);
            copy.index.push((start, copy.arena.len() - start));
        }
        copy
    }

    fn fetch(&mut self, n: usize) -> u8 {
        let (start, length) = self.index[n];
        let target = &mut self.target[..length];
        target.copy_from_slice(&self.arena[start..start + length]);
        black_box(target).last().copied().unwrap_or(0)
    }
}

impl LookUp {
    /// Measures in the table in `folder`, which holds subscribers `0..subscribers`.
    ///
    /// # Panics
    /// When one of them is not found.
    pub fn measure(folder: &Path, subscribers: usize) -> Self {
        let mut table = MappedFolder::open_ro(folder);
        let mut copy = Copy::of(&mut table, subscribers);
        let bytes = copy.arena.len() / subscribers;
        let key = Subscriber(0).key().as_bytes().to_vec();
        let mut chain = Chain {
            state: 7,
            subscribers,
            key,
        };
        let mut buffer = RecordBuffer::new();
        let mut samples: [Rounds; 3] = Default::default();
        let chains = if is_quick() { CHAINS / 10 } else { CHAINS };
        for _ in 0..chains {
            let start = wait::now();
            for _ in 0..CHAIN {
                let Lookup::Found(record) = table.lookup(&chain.key, &mut buffer) else {
                    panic!("a look-up found nothing");
                };
                chain.next(black_box(record.value).last().copied().unwrap_or(0));
            }
            samples[0].push(start.elapsed().as_secs_f64());
            let mut n = 0;
            let start = wait::now();
            for _ in 0..CHAIN {
                n = chain.next(copy.fetch(n));
            }
            samples[1].push(start.elapsed().as_secs_f64());
            let start = wait::now();
            for _ in 0..CHAIN {
                let last = black_box(&chain.key).last().copied().unwrap_or(0);
                black_box(chain.next(last));
            }
            samples[2].push(start.elapsed().as_secs_f64());
        }
        let [look_up, copied, key] = samples.map(|sample| sample.median() * 1e9 / float(CHAIN));
        Self {
            look_up_ns: look_up - key,
            copy_ns: copied - key,
            key_ns: key,
            bytes,
            chains,
            table_huge_kib: smaps("ShmemPmdMapped:"),
            copy_huge_kib: smaps("AnonHugePages:"),
        }
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "look_up_ns": self.look_up_ns, "copy_ns": self.copy_ns, "key_ns": self.key_ns,
            "bytes": self.bytes, "chains": self.chains,
            "table_huge_kib": self.table_huge_kib, "copy_huge_kib": self.copy_huge_kib,
        })
    }

    /// Reads what [`LookUp::to_json`] gave.
    pub fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let count = |name: &str| usize::try_from(value[name].as_u64()?).ok();
        Some(Self {
            look_up_ns: value["look_up_ns"].as_f64()?,
            copy_ns: value["copy_ns"].as_f64()?,
            key_ns: value["key_ns"].as_f64()?,
            bytes: count("bytes")?,
            chains: count("chains")?,
            table_huge_kib: value["table_huge_kib"].as_u64()?,
            copy_huge_kib: value["copy_huge_kib"].as_u64()?,
        })
    }
}

/// One line of what the kernel says of this process's memory, in KiB; zero where it says nothing.
fn smaps(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_writes_the_key_of_the_subscriber_it_returns() {
        let mut chain = Chain {
            state: 1,
            subscribers: 100_000,
            key: Subscriber(0).key().as_bytes().to_vec(),
        };
        for read in 0..=u8::MAX {
            let n = chain.next(read);
            assert_eq!(chain.key, Subscriber(n).key().as_bytes());
        }
    }

    #[test]
    fn what_is_handed_over_arrives() {
        let look_up = LookUp {
            look_up_ns: 1.5,
            copy_ns: 2.5,
            key_ns: 0.5,
            bytes: 250,
            chains: 4,
            table_huge_kib: 2_048,
            copy_huge_kib: 0,
        };
        let text = look_up.to_json().to_string();
        assert_eq!(LookUp::from_json(&text), Some(look_up));
        assert_eq!(LookUp::from_json("{}"), None);
    }
}
