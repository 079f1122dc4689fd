//! Answers look-ups from a node's table; it changes no SIP message.

use std::sync::atomic::AtomicU64;

use locus_proto::{Digits, KEY_BYTES_MAX, Key};
use locus_table::{FolderReader, Generation, Lookup, MapRegions, Pulse, Reason, RecordBuffer};

use crate::contacts::Sifted;
use crate::{Contacts, Judge, Readiness, Routed, Stat, Stats, Unready, readiness};

/// Who is looked up, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Canonical address-of-record.
    pub aor: &'a [u8],
    /// The request's method as Kamailio's bit; `None` if methods do not count, as within a dialog.
    pub method: Option<u32>,
}

/// Answer of a node; "absent" and "cannot say" are never folded (rules 4.4).
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "returned once and read on the spot; a box would be an allocation for each look-up"
)]
pub enum Answer<'b> {
    /// Contacts to try.
    Found(Contacts<'b>),
    /// No binding, or none that has not expired.
    Absent,
    /// Bindings, but none accepts the method.
    MethodNotSupported,
    /// It cannot be said here; another node may know.
    Unavailable(Unready),
}

/// Answer for a number.
#[derive(Debug)]
pub enum RouteAnswer<'b> {
    /// Where it goes.
    Found(Routed<'b>),
    /// No prefix of it has a route.
    Absent,
    /// It cannot be said here.
    Unavailable(Unready),
}

/// Reads one node's table; each worker has its own.
#[derive(Debug)]
pub struct Answerer<R: MapRegions> {
    folder: FolderReader<R>,
    buffer: RecordBuffer,
    key: [u8; KEY_BYTES_MAX],
    stats: Stats,
}

impl<R: MapRegions> Answerer<R> {
    /// Returns the answerer of a table's folder, whether or not there is a table yet.
    pub fn new(regions: R) -> Self {
        Self {
            folder: FolderReader::new(regions),
            buffer: RecordBuffer::new(),
            key: [0; KEY_BYTES_MAX],
            stats: Stats::default(),
        }
    }

    /// Maps what the agent has announced; to be called between requests. Two loads if that is nothing.
    pub fn refresh(&mut self) {
        self.folder.refresh();
    }

    /// Returns the generation that is mapped to answer, and its region; `None` where none is mapped.
    pub fn table(&self) -> Option<(Generation, &R::Region)> {
        self.folder.current().zip(self.folder.region())
    }

    /// Returns whether that one still answers; once it does not, its memory may be gone.
    pub fn is_answering(&self) -> bool {
        self.folder.is_answering()
    }

    /// Begins to fetch what a look-up of `aor` reads first; `fetch` is the CPU's instruction for it.
    ///
    /// To be called as soon as the address is known. Cost: one hash. Does nothing where no table is mapped; it maps
    /// none, counts nothing, and waits for nothing.
    #[inline]
    pub fn prefetch(&mut self, aor: &[u8], fetch: impl FnOnce(&AtomicU64)) {
        if let Some(len) = Key::write_aor(aor, &mut self.key) {
            let key = self.key.get(..len).unwrap_or_default();
            self.folder.prefetch(key, fetch);
        }
    }

    /// Begins to fetch what a route of `digits` reads first, if a route has all of them; as [`Self::prefetch`].
    #[inline]
    pub fn prefetch_route(&self, digits: Digits, fetch: impl FnOnce(&AtomicU64)) {
        self.folder.prefetch(&Key::route_bytes(digits), fetch);
    }

    /// Returns the agent's last report; `None` before the first.
    pub fn pulse(&self) -> Option<Pulse> {
        self.folder.pulse()
    }

    /// Returns what this worker has counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the contacts of an address-of-record at `monotonic_ms` of CLOCK_MONOTONIC, best first.
    ///
    /// At most [`locus_proto::BINDINGS_MAX`]; the state at the table's level, which may trail the master's.
    /// Never waits for a writer. Cost: one hash, one line of the index, one record copied and decoded.
    ///
    /// RFC 3261 §16.5 (target set obtained "from an abstract location service").
    pub fn lookup(&mut self, query: Query<'_>, monotonic_ms: u64) -> Answer<'_> {
        let answer = Self::answer(
            &mut self.folder,
            &mut self.buffer,
            &mut self.key,
            query,
            monotonic_ms,
        );
        self.stats.count(match &answer {
            Answer::Found(_) => Stat::Found,
            Answer::Absent => Stat::Absent,
            Answer::MethodNotSupported => Stat::MethodNotSupported,
            Answer::Unavailable(Unready::Record) => Stat::Malformed,
            Answer::Unavailable(_) => Stat::Unavailable,
        });
        answer
    }

    fn answer<'b>(
        folder: &mut FolderReader<R>,
        buffer: &'b mut RecordBuffer,
        key: &mut [u8; KEY_BYTES_MAX],
        query: Query<'_>,
        monotonic_ms: u64,
    ) -> Answer<'b> {
        let pulse = match Self::ready(folder, monotonic_ms) {
            Ok(pulse) => pulse,
            Err(unready) => return Answer::Unavailable(unready),
        };
        let Some(len) = Key::write_aor(query.aor, key) else {
            return Answer::Absent; // too long to have been stored
        };
        let record = match folder.lookup(key.get(..len).unwrap_or_default(), buffer) {
            Lookup::Found(record) => record,
            Lookup::Absent => return Answer::Absent,
            Lookup::Unavailable(reason) => return Answer::Unavailable(Unready::Table(reason)),
        };
        let judge = Judge::new(&pulse, monotonic_ms);
        match Contacts::sift(record.value, judge, query.method) {
            Ok(Sifted::Some(contacts)) => Answer::Found(contacts),
            Ok(Sifted::None) => Answer::Absent,
            Ok(Sifted::MethodNotSupported) => Answer::MethodNotSupported,
            Err(_) => Answer::Unavailable(Unready::Record),
        }
    }

    /// Returns the route of the longest prefix of `digits`, and the number to send.
    pub fn route(&mut self, digits: Digits, monotonic_ms: u64) -> RouteAnswer<'_> {
        let unready = Self::ready(&mut self.folder, monotonic_ms).err();
        let answer = match unready {
            Some(unready) => RouteAnswer::Unavailable(unready),
            None => match self.folder.route(digits, &mut self.buffer) {
                Lookup::Found(record) => match Routed::read(digits, record.value) {
                    Ok(routed) => RouteAnswer::Found(routed),
                    Err(_) => RouteAnswer::Unavailable(Unready::Record),
                },
                Lookup::Absent => RouteAnswer::Absent,
                Lookup::Unavailable(reason) => RouteAnswer::Unavailable(Unready::Table(reason)),
            },
        };
        self.stats.count(match &answer {
            RouteAnswer::Found(_) => Stat::Routed,
            RouteAnswer::Absent => Stat::NotRouted,
            RouteAnswer::Unavailable(Unready::Record) => Stat::Malformed,
            RouteAnswer::Unavailable(_) => Stat::Unavailable,
        });
        answer
    }

    /// Returns how the node stands, also when its table may not answer.
    pub fn readiness(&mut self, monotonic_ms: u64) -> Readiness {
        let table = self
            .folder
            .with(|table| (table.position(), table.records()))
            .ok();
        let pulse = self.folder.pulse();
        let judge = pulse.map(|pulse| Judge::new(&pulse, monotonic_ms));
        Readiness {
            state: pulse
                .map(|pulse| readiness::state(&pulse, monotonic_ms))
                .unwrap_or_default(),
            position: table.map(|(position, _)| position),
            records: table.map_or(0, |(_, records)| records),
            master_level: pulse.map_or(0, |pulse| pulse.master_level.0),
            lag_ms: judge.map_or(0, |judge| judge.lag_ms()),
        }
    }

    /// Returns by which moment bindings are judged; `None` before the agent's first report.
    pub fn judge(&self, monotonic_ms: u64) -> Option<Judge> {
        self.folder
            .pulse()
            .map(|pulse| Judge::new(&pulse, monotonic_ms))
    }

    /// Returns the pulse if the table may answer.
    fn ready(folder: &mut FolderReader<R>, monotonic_ms: u64) -> Result<Pulse, Unready> {
        if folder.current().is_none() {
            folder.refresh();
        }
        let pulse = folder.pulse().ok_or(Unready::Table(Reason::NoControl))?;
        let state = readiness::state(&pulse, monotonic_ms);
        if state.answers() {
            Ok(pulse)
        } else {
            Err(Unready::State(state))
        }
    }
}

#[cfg(test)]
mod tests;
