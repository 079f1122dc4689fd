//! A chain of look-ups, each of which needs what the one before has read, and its two clocks.
//! Knows neither table nor key.
//!
//! A look-up among the work of a SIP message has no other look-up to overlap with, so here none may
//! overlap either: which query comes next depends, for the processor, on the last word of the value that
//! was copied. The queries of a round are drawn and formatted before its clock runs.
//!
//! * Single look-ups: the clock is read before and after each, and every byte of each answer is compared
//!   when the clock has stopped. The median and the 99th hundredth come from these.
//! * Batches of [`BATCH`]: the clock is read around all; of each answer length and last word are compared.
//!
//! What clock and chain cost without a look-up is measured by the same two loops ([`Chain::clock`]), and
//! taken off everything.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use locus_bench::float;
use locus_lab::wait;

/// Look-ups in one batch.
pub(crate) const BATCH: usize = 256;
/// Queries of one round.
pub(crate) const ROUND: usize = 4_096;

/// Something that answers queries.
pub(crate) trait Fetch<Q> {
    /// Copies the value for a query out and returns the copy.
    fn fetch(&mut self, query: &Q) -> Option<&[u8]>;
}

/// The queries of one round, and the right answers.
#[derive(Debug)]
pub(crate) struct Chain<Q> {
    queries: Vec<Q>,
    bytes: Vec<u8>,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    bytes: Range<usize>,
    last: u64,
}

/// Nanoseconds for each look-up of a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<f64>);

impl<Q> Chain<Q> {
    /// Returns a chain of [`ROUND`] queries that `draw` gives with their right answers.
    pub(crate) fn new(mut draw: impl FnMut(&mut Vec<u8>) -> Q) -> Self {
        let mut chain = Self {
            queries: Vec::with_capacity(ROUND),
            bytes: Vec::new(),
            answers: Vec::with_capacity(ROUND),
        };
        for _ in 0..ROUND {
            let start = chain.bytes.len();
            chain.queries.push(draw(&mut chain.bytes));
            let bytes = start..chain.bytes.len();
            let last = last_word(&chain.bytes[bytes.clone()]);
            chain.answers.push(Answer { bytes, last });
        }
        chain
    }

    /// The queries.
    pub(crate) fn queries(&self) -> &[Q] {
        &self.queries
    }

    fn answer(&self, at: usize) -> &[u8] {
        &self.bytes[self.answers[at].bytes.clone()]
    }

    /// Times each look-up. An answer that is not the expected one counts as right if `is_right` says so:
    /// a writer may have changed the record.
    ///
    /// # Panics
    /// When an answer is wrong or there is none.
    pub(crate) fn singles(
        &self,
        system: &mut impl Fetch<Q>,
        is_right: impl Fn(&Q, &[u8]) -> bool,
    ) -> Times {
        let mask = black_box(0_u64);
        let mut last = 0;
        let each = (0..ROUND).map(|turn| {
            let start = wait::now();
            let at = next(turn, last, mask);
            let query = &self.queries[at];
            let value = system.fetch(query);
            last = black_box(value.map_or(0, last_word));
            let took = start.elapsed();
            let right =
                value.is_some_and(|value| value == self.answer(at) || is_right(query, value));
            assert!(right, "a wrong answer: {value:?}");
            nanoseconds(took)
        });
        Times(each.collect())
    }

    /// Times whole batches; the time of each is that of one of its look-ups.
    ///
    /// # Panics
    /// When an answer is wrong or there is none.
    pub(crate) fn batches(&self, system: &mut impl Fetch<Q>) -> Times {
        let mask = black_box(0_u64);
        let mut last = 0;
        let each = (0..ROUND).step_by(BATCH).map(|first| {
            let start = wait::now();
            for turn in first..first + BATCH {
                let at = next(turn, last, mask);
                let value = system.fetch(&self.queries[at]).unwrap_or_default();
                last = last_word(value);
                let answer = &self.answers[at];
                let right = value.len() == answer.bytes.len() && last == answer.last;
                assert!(right, "a wrong answer: {value:?}");
            }
            nanoseconds(start.elapsed()) / float(BATCH)
        });
        Times(each.collect())
    }

    /// Times the two loops with no look-up in them: singles, batches.
    pub(crate) fn clock(&self) -> (Times, Times) {
        let mask = black_box(0_u64);
        let mut last = 0;
        let singles = (0..ROUND).map(|turn| {
            let start = wait::now();
            let at = next(turn, last, mask);
            last = black_box(self.answers[at].last);
            nanoseconds(start.elapsed())
        });
        let singles = Times(singles.collect());
        let batches = (0..ROUND).step_by(BATCH).map(|first| {
            let start = wait::now();
            for turn in first..first + BATCH {
                last = black_box(self.answers[next(turn, last, mask)].last);
            }
            nanoseconds(start.elapsed()) / float(BATCH)
        });
        (singles, Times(batches.collect()))
    }
}

fn nanoseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9
}

/// Which query comes next: number `turn`; `last` has no bit in common with `mask`, which is zero, but
/// neither compiler nor processor know.
#[inline]
fn next(turn: usize, last: u64, mask: u64) -> usize {
    turn + usize::try_from(last & mask).unwrap_or(0)
}

#[inline]
fn last_word(value: &[u8]) -> u64 {
    value
        .last_chunk::<8>()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

impl Times {
    /// The time that `per_cent` of all do not exceed.
    ///
    /// A clock has steps (10 ns on some machines), so many are equal: equal ones are taken as spread evenly
    /// from half-way to the next smaller one to half-way to the next larger one, as is usual for quantiles
    /// of grouped data.
    pub(crate) fn quantile(&mut self, per_cent: usize) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        let all = &self.0;
        let rank = (all.len() * per_cent).div_ceil(100).max(1) - 1;
        let Some(value) = all.get(rank).copied() else {
            return f64::NAN;
        };
        let (start, end) = (
            all.partition_point(|time| *time < value),
            all.partition_point(|time| *time <= value),
        );
        let smaller = start.checked_sub(1).map_or(value, |at| all[at]);
        let larger = all.get(end).copied().unwrap_or(value);
        let (low, high) = (f64::midpoint(smaller, value), f64::midpoint(value, larger));
        let place = float(rank - start) + 0.5;
        low + (high - low) * place / float(end - start)
    }

    /// Adds what another reader took in the same round.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo([u8; 8], usize);

    impl Fetch<u64> for Echo {
        fn fetch(&mut self, query: &u64) -> Option<&[u8]> {
            self.1 += 1;
            self.0 = query.to_le_bytes();
            Some(&self.0)
        }
    }

    fn chain() -> Chain<u64> {
        let mut n = 0_u64;
        Chain::new(|answer| {
            n += 1;
            answer.extend_from_slice(&n.to_le_bytes());
            n
        })
    }

    #[test]
    fn every_query_is_asked_once() {
        let (chain, mut echo) = (chain(), Echo([0; 8], 0));
        let mut singles = chain.singles(&mut echo, |_, _| false);
        assert_eq!((singles.0.len(), echo.1), (ROUND, ROUND));
        assert!(singles.quantile(50) <= singles.quantile(99));
        assert_eq!(chain.batches(&mut echo).0.len(), ROUND / BATCH);
        assert_eq!(echo.1, 2 * ROUND);
        let (singles, batches) = chain.clock();
        assert_eq!((singles.0.len(), batches.0.len()), (ROUND, ROUND / BATCH));
    }

    #[test]
    #[should_panic(expected = "a wrong answer")]
    fn a_wrong_answer_is_seen() {
        let chain = chain();
        let mut other = Echo([0; 8], 0);
        let shifted = Chain {
            queries: chain.queries.iter().map(|n| n ^ 1).collect(),
            ..chain
        };
        shifted.singles(&mut other, |_, _| false);
    }

    #[test]
    fn quantiles_of_times_that_all_differ_are_near_members() {
        let mut times = Times((1..=200).rev().map(f64::from).collect());
        assert_eq!((times.quantile(50), times.quantile(99)), (100.0, 198.0));
    }

    #[test]
    fn quantiles_lie_within_a_step_of_the_clock() {
        let of = |counts: [usize; 3]| {
            let steps = [10.0, 20.0, 30.0].into_iter().zip(counts);
            Times(steps.flat_map(|(time, count)| vec![time; count]).collect())
        };
        // The middle one of a hundred: nearly all of the first step, half of the second, little of the last.
        assert_eq!(of([10, 80, 10]).quantile(50), 15.0 + 10.0 * 39.5 / 80.0);
        assert!(of([49, 50, 1]).quantile(50) < 15.2);
        assert!(of([1, 49, 50]).quantile(50) > 24.8);
        assert!(Times::default().quantile(50).is_nan());
    }
}
