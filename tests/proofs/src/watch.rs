//! What is true of a table's memory at every moment of an operation: for readers now, and for the next
//! writer if this one died.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use locus_proto::Digits;
use locus_table::{HeapMemory, Lookup, Reader, Reason, RecordBuffer, Words, Writer};

use crate::case::Case;
use crate::expect::Model;
use crate::layout::{
    ACCOUNT_WORDS, AT_ACCOUNTS, AT_BEGIN, AT_DONE, AT_INDEX, AT_JOURNAL, AT_LENGTHS, Rot,
    index_end, load,
};
use crate::model::Seen;

/// Failures that are kept in words.
const TOLD_MAX: usize = 5;
/// Words of the header that change, and some more.
const HEADER: Range<usize> = 0..64;
/// Words of the journal: more than the operations here take.
const JOURNAL: Range<usize> = AT_JOURNAL..AT_JOURNAL + 1024;

/// What was seen of an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions.
    pub steps: u64,
    /// Of these, instructions with a batch begun and not done.
    pub mid_steps: u64,
    /// Runs through instructions that only load.
    pub runs: u64,
    /// Memory images.
    pub images: u64,
    /// Of these, images that differ from all others.
    pub distinct: u64,
    /// Of these, images with a batch begun and not done.
    pub mid_batch: u64,
    /// Checks that failed; at most two for each image.
    pub failures: u64,
    /// The first failures in words.
    pub told: Vec<String>,
}

/// Watches a table's memory that another process changes, between any two of its instructions.
pub(crate) struct Watch<'a> {
    case: &'a Case,
    live: &'a [AtomicU64],
    image: Vec<u64>,
    /// Where changes are looked for at each step; the end proves that there were no others.
    ranges: Vec<Range<usize>>,
    /// An heir's memory.
    copy: HeapMemory,
    buffer: RecordBuffer,
    seen: HashSet<u64>,
    /// What was seen.
    pub(crate) report: Report,
}

impl<'a> Watch<'a> {
    /// Begins to watch; `rehearse` does on a copy of the memory what the other process is going to do.
    ///
    /// # Errors
    /// If the rehearsal fails.
    pub(crate) fn new(
        case: &'a Case,
        live: &'a [AtomicU64],
        rehearse: impl FnOnce(HeapMemory) -> Result<(), String>,
    ) -> Result<Self, String> {
        let image: Vec<u64> = live
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        let copy = HeapMemory::zeroed(Case::GEOMETRY.file_bytes());
        restore(&copy, &image);
        rehearse(copy.clone())?;
        let accounts = case
            .universe
            .keys()
            .iter()
            .enumerate()
            .flat_map(|(key, _)| {
                let account =
                    AT_ACCOUNTS + usize::from(case.universe.partition(key)) * ACCOUNT_WORDS;
                account..account + ACCOUNT_WORDS
            });
        let differ = copy.as_ref().iter().zip(&image).enumerate();
        let differ = differ
            .filter(|(_, (word, value))| word.load(Ordering::Relaxed) != **value)
            .map(|(at, _)| at);
        let known = HEADER
            .chain(AT_LENGTHS..AT_JOURNAL)
            .chain(JOURNAL)
            .chain(AT_INDEX..index_end(Case::GEOMETRY));
        let mut words: Vec<usize> = known.chain(accounts).chain(differ).collect();
        words.sort_unstable();
        words.dedup();
        let ranges = words.chunk_by(|a, b| a + 1 == *b);
        let ranges = ranges.filter_map(|words| Some(*words.first()?..words.last()? + 1));
        let mut watch = Self {
            case,
            live,
            ranges: ranges.collect(),
            image,
            copy,
            buffer: RecordBuffer::new(),
            seen: HashSet::new(),
            report: Report::default(),
        };
        watch.check();
        Ok(watch)
    }

    /// Looks whether an instruction has changed something; if so, checks what must be true, and says so.
    pub(crate) fn step(&mut self) -> bool {
        self.report.steps += 1;
        self.report.mid_steps += u64::from(self.is_mid_batch());
        let changed = self.follow() > 0;
        if changed {
            self.check();
        }
        changed
    }

    /// Looks as after an instruction, when the other process has run through loads to a store.
    pub(crate) fn ran(&mut self) {
        self.report.runs += 1;
        match self.follow() {
            0 => {}
            1 => self.check(),
            more => self.fail(format!(
                "{more} words changed where only loads were expected"
            )),
        }
    }

    /// Brings the image up to date and returns how many words changed.
    fn follow(&mut self) -> u64 {
        let mut changed = 0;
        for range in &self.ranges {
            let live = self.live[range.clone()].iter();
            for (word, old) in live.zip(&mut self.image[range.clone()]) {
                let new = word.load(Ordering::Relaxed);
                changed += u64::from(new != *old);
                *old = new;
            }
        }
        changed
    }

    /// Returns whether a batch is begun and not done.
    pub(crate) fn is_mid_batch(&self) -> bool {
        self.image[AT_BEGIN] != self.image[AT_DONE]
    }

    fn check(&mut self) {
        self.report.images += 1;
        let mut hasher = DefaultHasher::new();
        for range in &self.ranges {
            self.image[range.clone()].hash(&mut hasher);
        }
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        self.report.distinct += 1;
        self.report.mid_batch += u64::from(self.is_mid_batch());
        let (now, later) = (self.check_reader(), self.check_heir());
        for failure in [now.err(), later.err()].into_iter().flatten() {
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: String) {
        self.report.failures += 1;
        if self.report.told.len() < TOLD_MAX {
            let step = self.report.steps;
            self.report.told.push(format!("step {step}: {failure}"));
        }
    }

    /// Checks the end: all is done, and no word changed that was not watched.
    pub(crate) fn finish(&mut self) {
        if (self.image[AT_BEGIN], self.image[AT_DONE]) != (Case::SEQUENCE + 1, Case::SEQUENCE + 1) {
            self.fail("the operation ends without being done".to_owned());
        }
        let moved = self.live.iter().zip(&self.image);
        let moved = moved.map(|(word, old)| word.load(Ordering::Relaxed) != *old);
        if let Some(at) = moved.into_iter().position(|moved| moved) {
            self.fail(format!("word {at} changed, which nobody expected"));
        }
    }

    /// Checks what a reader sees at this moment: each key whole, as before or as afterwards.
    fn check_reader(&mut self) -> Result<(), String> {
        let (case, is_done) = (self.case, self.image[AT_DONE] > Case::SEQUENCE);
        let reader = Reader::open(Words(self.live)).map_err(|error| error.to_string())?;
        let model = if is_done { &case.after } else { &case.before };
        if reader.position() != model.position() {
            return Err(format!("a reader stands at {:?}", reader.position()));
        }
        for key in 0..case.universe.keys().len() {
            let seen = Seen::look(&reader, &case.universe, key, &mut self.buffer);
            let is_old = !is_done && self.is_before(key, seen);
            if !is_old && !seen.is(case.after.state(key)) {
                return Err(format!("a reader sees {seen:?} of key {key}"));
            }
        }
        self.check_route(&reader)
    }

    fn check_route(&mut self, reader: &Reader<Words<'_, AtomicU64>>) -> Result<(), String> {
        let digits = Digits::parse(Case::DIALLED).map_err(|error| error.to_string())?;
        match reader.route(digits, &mut self.buffer) {
            Lookup::Found(_) => Ok(()),
            other @ (Lookup::Absent | Lookup::Unavailable(_)) => Err(format!("route: {other:?}")),
        }
    }

    /// Returns whether this may be seen of a key before the operation.
    fn is_before(&self, key: usize, seen: Seen) -> bool {
        let state = self.case.before.state(key);
        let mut rotten = self.case.rotten.iter();
        match rotten.find(|(number, _)| *number == key) {
            Some((_, Rot::Value)) => seen == Seen::Rotten(state.level),
            Some((_, Rot::Length)) => seen == Seen::Unavailable(Reason::Corrupt),
            Some((_, Rot::Check)) | None => seen.is(state),
        }
    }

    /// Checks that a writer who finds this memory arrives at the table before or after, whichever the
    /// header says, and at all of its sums.
    fn check_heir(&mut self) -> Result<(), String> {
        restore(&self.copy, &self.image);
        let (begin, done) = (self.image[AT_BEGIN], self.image[AT_DONE]);
        let opened = Writer::open(self.copy.clone());
        let (writer, recovered) = opened.map_err(|error| format!("an heir: {error}"))?;
        if recovered.redone != (begin != done) {
            return Err(format!("an heir says {recovered:?} at {begin} and {done}"));
        }
        let is_after = begin > Case::SEQUENCE;
        let case = self.case;
        let model: &Model = if is_after { &case.after } else { &case.before };
        let reader = writer.reader();
        let failed = |error| format!("an heir at {begin} and {done}: {error}");
        if writer.position() != model.position() {
            return Err(failed(format!("it stands at {:?}", writer.position())));
        }
        model.check_sums(&reader).map_err(failed)?;
        for key in 0..case.universe.keys().len() {
            let seen = Seen::look(&reader, &case.universe, key, &mut self.buffer);
            let is_old = !is_after && self.is_before(key, seen);
            if !(is_old || is_after && seen.is(model.state(key))) {
                return Err(failed(format!("key {key} is {seen:?}")));
            }
        }
        if is_after || case.rotten.is_empty() {
            model
                .check_scan(&reader, &case.universe, |_| false)
                .map_err(failed)?;
        }
        if load(self.copy.as_ref(), AT_DONE) == begin {
            Ok(())
        } else {
            Err(failed("it is not done".to_owned()))
        }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Makes a copy what the image is.
fn restore(copy: &HeapMemory, image: &[u64]) {
    for (word, value) in copy.as_ref().iter().zip(image) {
        if word.load(Ordering::Relaxed) != *value {
            word.store(*value, Ordering::Relaxed);
        }
    }
}
