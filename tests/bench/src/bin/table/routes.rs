//! Longest-prefix match in a dial plan of a million prefixes, beside the `prefix-trie` crate.
//! Knows digits and routes, no subscriber.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use locus_agent::MappedFolder;
use locus_bench::Random;
use locus_proto::{Change, ChangeOp, Digits, Key, Level, Route, Target};
use locus_table::{FolderReader, Lookup, RecordBuffer};
use prefix_trie::PrefixMap;

use crate::chain::{Chain, Fetch};
use crate::load::Loaded;
use crate::look_ups::{Clock, Round, Timing, Took};

/// Country codes in the plan.
const COUNTRIES: usize = 40;
/// Bytes of key and value of a route, for the size of its table.
const ROUTE_BYTES: u64 = 96;

/// The dial plan: skewed as those of carriers are.
#[derive(Debug)]
pub(crate) struct Plan {
    countries: Vec<String>,
    prefixes: Vec<Digits>,
    /// Each prefix and its number: says which answer is right, from memory of its own, so that nothing
    /// that is measured is warmed up.
    numbers: HashMap<Digits, usize>,
}

impl Plan {
    /// A plan of `count` prefixes of four to twelve digits.
    pub(crate) fn new(count: usize) -> Self {
        let mut random = Random::new(99);
        let countries: Vec<String> = (0..COUNTRIES)
            .map(|_| {
                let first = 1 + random.below(9);
                let rest = random.below(3);
                more_digits(first.to_string(), 1 + rest, &mut random)
            })
            .collect();
        let mut numbers = HashMap::with_capacity(count);
        let mut prefixes = Vec::with_capacity(count);
        while prefixes.len() < count {
            // Few countries have most of the prefixes.
            let most = random.below(COUNTRIES) * random.below(COUNTRIES) / COUNTRIES;
            let length = 4 + random.below(5) + random.below(5);
            let text = more_digits(countries[most].clone(), length, &mut random);
            let prefix = digits(&text);
            if let Entry::Vacant(free) = numbers.entry(prefix) {
                free.insert(prefixes.len());
                prefixes.push(prefix);
            }
        }
        Self {
            countries,
            prefixes,
            numbers,
        }
    }

    /// Returns the number of the longest prefix of `digits`.
    fn longest(&self, digits: Digits) -> Option<usize> {
        let prefixes = (1..=digits.len())
            .rev()
            .filter_map(|len| digits.prefix(len));
        let mut known = prefixes.filter_map(|prefix| self.numbers.get(&prefix));
        known.next().copied()
    }

    /// A number of eleven to fifteen digits, three of four under a prefix of the plan.
    fn number(&self, random: &mut Random) -> Digits {
        let length = 11 + random.below(5);
        let start = if random.below(4) == 0 {
            self.countries[random.below(self.countries.len())].clone()
        } else {
            self.prefixes[random.below(self.prefixes.len())].to_string()
        };
        digits(&more_digits(start, length, random))
    }

    /// Loads the plan into a table.
    pub(crate) fn load(&self, folder: &Path) -> Loaded {
        let change = |n: usize, level: Level| Change {
            key: Key::route(self.prefixes[n]),
            level,
            op: ChangeOp::Put(body(n)),
        };
        Loaded::load(folder, self.prefixes.len(), ROUTE_BYTES, change).0
    }

    /// The same prefixes in the crate's trie, each with its number.
    fn trie(&self) -> PrefixMap<Bits, u32> {
        let numbered = self.prefixes.iter().zip(0_u32..);
        numbered
            .map(|(prefix, number)| (bits(*prefix), number))
            .collect()
    }
}

/// Four bits for each digit, and how many bits.
type Bits = (u64, u8);

fn bits(digits: Digits) -> Bits {
    (digits.packed(), 4 * digits.len())
}

fn more_digits(mut text: String, length: usize, random: &mut Random) -> String {
    while text.len() < length {
        text.push(char::from(
            b'0' + u8::try_from(random.below(10)).unwrap_or(0),
        ));
    }
    text
}

fn digits(text: &str) -> Digits {
    Digits::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The route of prefix number `n`.
fn body(n: usize) -> Vec<u8> {
    let target = |gateway: usize, priority| Target {
        uri: format!("sip:r{n:07}@gw{gateway}.example.net"),
        priority,
        weight: 1,
    };
    Route {
        strip: 0,
        prefix: String::new(),
        targets: vec![target(1 + n % 7, 1), target(1 + n % 5, 2)],
    }
    .encode()
}

/// The table, through the product's reader; the body of the route is copied.
struct Routes {
    reader: FolderReader<MappedFolder>,
    buffer: RecordBuffer,
}

impl Fetch<Digits> for Routes {
    #[inline]
    fn fetch(&mut self, query: &Digits) -> Option<&[u8]> {
        match self.reader.route(*query, &mut self.buffer) {
            Lookup::Found(record) => Some(record.value),
            Lookup::Absent => Some(&[]),
            Lookup::Unavailable(_) => None,
        }
    }
}

/// The trie of the crate; it answers with the number of the prefix, and copies no body.
struct Trie {
    map: PrefixMap<Bits, u32>,
    answer: [u8; 8],
}

impl Fetch<Digits> for Trie {
    #[inline]
    fn fetch(&mut self, query: &Digits) -> Option<&[u8]> {
        let found = self.map.get_lpm(&bits(*query));
        let number = found.and_then(|(_, number)| usize::try_from(*number).ok());
        self.answer = word(number);
        Some(&self.answer)
    }
}

fn word(number: Option<usize>) -> [u8; 8] {
    let number = number.map_or(u64::MAX, |number| u64::try_from(number).unwrap_or(0));
    number.to_le_bytes()
}

/// No writer changes a route: no other answer is right.
fn exact(_query: &Digits, _answer: &[u8]) -> bool {
    false
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The table.
    pub table: Took,
    /// The trie.
    pub trie: Took,
    /// Share of the queries that had a route.
    pub found: f64,
}

/// Measures both with the same numbers.
///
/// # Panics
/// When one of them answers with another prefix than the longest.
pub(crate) fn measure(plan: &Plan, folder: &Path, rounds: usize) -> Measured {
    let mut routes = Routes {
        reader: MappedFolder::open_ro(folder),
        buffer: RecordBuffer::new(),
    };
    let mut trie = Trie {
        map: plan.trie(),
        answer: [0; 8],
    };
    let mut random = Random::new(5);
    let mut measured = Measured::default();
    let (mut found, mut asked) = (0, 0);
    for prefix in &plan.prefixes {
        // Maps every page.
        assert!(routes.fetch(prefix).is_some_and(|body| !body.is_empty()));
    }
    for _ in 0..rounds {
        let (mut table, mut other) = (Round::default(), Round::default());
        let mut empty = Round::default();
        for timing in [Timing::Singles, Timing::Batches] {
            let bodies = Chain::new(|answer| {
                let number = plan.number(&mut random);
                asked += 1;
                if let Some(n) = plan.longest(number) {
                    found += 1;
                    answer.extend(body(n));
                }
                number
            });
            let mut queries = bodies.queries().iter().copied();
            let numbers = Chain::new(|answer| {
                let query = queries.next().unwrap_or_else(|| panic!("as many queries"));
                answer.extend(word(plan.longest(query)));
                query
            });
            timing.run(&mut table, &bodies, &mut routes, exact);
            timing.run(&mut other, &numbers, &mut trie, exact);
            empty = Round::of_clock(&bodies);
        }
        let clock = Clock::of(&mut empty);
        measured.table.push(&mut table, clock);
        measured.trie.push(&mut other, clock);
    }
    measured.found = locus_bench::float(found) / locus_bench::float(asked);
    measured
}
