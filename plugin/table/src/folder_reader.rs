//! A worker's view of a folder: follows flips and answers from one generation at a time; it maps through
//! a trait and never writes.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fmt;
use std::sync::atomic::AtomicU64;

use locus_proto::Digits;

use crate::control::{AT_FORMAT, AT_GENERATION, AT_MAGIC, AT_NEXT, CONTROL_FORMAT, CONTROL_MAGIC};
use crate::view::{Probe, Reason};
use crate::{Generation, Lookup, MapRegions, Pulse, Reader, RecordBuffer, RegionName, Word};

/// Flips that one look-up follows; a full load lies between two of them.
const FLIPS_MAX: usize = 8;

/// Reads the table of a folder through all its generations; one for each worker.
///
/// A look-up makes no system call unless the table was flipped to one that [`Self::refresh`] did not map
/// ahead; then it maps the new one first. Where nothing could be mapped so far, each look-up tries once.
pub struct FolderReader<R: MapRegions> {
    regions: R,
    control: Option<R::Region>,
    current: Option<Mapped<R::Region>>,
    /// Announced, to answer after a flip.
    next: Option<Ahead<R::Region>>,
}

/// A table that is mapped ahead while it is being loaded; nothing in it is looked at before the flip.
struct Ahead<Region> {
    generation: u64,
    /// `None` if it could not be mapped: that is tried again at the flip, not at every request.
    region: Option<Region>,
}

struct Mapped<Region> {
    generation: u64,
    reader: Reader<Region>,
}

impl<R: MapRegions> FolderReader<R> {
    /// Returns a reader of the folder, whether or not it exists yet, and maps what is there.
    pub fn new(regions: R) -> Self {
        let mut reader = Self {
            regions,
            control: None,
            current: None,
            next: None,
        };
        reader.refresh();
        reader
    }

    /// Maps what has appeared: `ctl`, the table that answers, the announced one; unmaps what was given up.
    ///
    /// To be called behind a request or from a timer; costs two loads if there is nothing to do.
    #[inline]
    pub fn refresh(&mut self) {
        if self.control.is_none() && self.map_control().is_none() {
            return;
        }
        if let Some(generation) = self.generation() {
            // Whoever sees the flip also sees that the table is loaded.
            AtomicU64::fence_acquire();
            // A failure is met again, and reported, by the next look-up.
            let _unmapped_yet = self.adopt(generation);
        }
        let next = self.word(AT_NEXT);
        let ahead = self.next.as_ref().map(|ahead| ahead.generation);
        let wanted = Some(next).filter(|next| *next != 0 && !self.is_current(*next));
        if ahead != wanted {
            self.map_ahead(wanted);
        }
    }

    /// Maps an announced table instead of the one announced before.
    #[cold]
    fn map_ahead(&mut self, generation: Option<u64>) {
        self.next = None;
        self.next = generation.map(|generation| Ahead {
            generation,
            region: self.map_region(generation).ok(),
        });
    }

    fn map_control(&mut self) -> Option<&R::Region> {
        if self.control.is_none() {
            let control = self.regions.map(RegionName::Control).ok()?;
            let word = |at: usize| control.as_ref().get(at).map_or(0, Word::load);
            let is_one = word(AT_MAGIC) == CONTROL_MAGIC;
            AtomicU64::fence_acquire();
            if !is_one || word(AT_FORMAT) != CONTROL_FORMAT {
                return None;
            }
            self.control = Some(control);
        }
        self.control.as_ref()
    }

    #[inline]
    fn word(&self, at: usize) -> u64 {
        let words = self.control.as_ref().map(AsRef::as_ref);
        words.and_then(|words| words.get(at)).map_or(0, Word::load)
    }

    #[inline]
    fn generation(&self) -> Option<u64> {
        Some(self.word(AT_GENERATION)).filter(|generation| *generation != 0)
    }

    #[inline]
    fn is_current(&self, generation: u64) -> bool {
        self.current
            .as_ref()
            .is_some_and(|mapped| mapped.generation == generation)
    }

    fn map_region(&self, generation: u64) -> Result<R::Region, Reason> {
        let name = RegionName::Table(Generation(generation));
        self.regions.map(name).map_err(|_| Reason::Unreadable)
    }

    /// Makes `generation` the one that answers here.
    #[inline]
    fn adopt(&mut self, generation: u64) -> Result<(), Reason> {
        if !self.is_current(generation) {
            self.replace(generation)?;
        }
        Ok(())
    }

    #[cold]
    fn replace(&mut self, generation: u64) -> Result<(), Reason> {
        let ahead = self.next.take_if(|next| next.generation == generation);
        let region = match ahead.and_then(|ahead| ahead.region) {
            Some(region) => region,
            None => self.map_region(generation)?,
        };
        let reader = Reader::open(region).map_err(|_| Reason::Unreadable)?;
        self.current = Some(Mapped { generation, reader });
        Ok(())
    }

    /// Calls `read` with the table that answers; again if it was flipped meanwhile.
    ///
    /// What the last call returned was read from one generation, from beginning to end. Several look-ups
    /// that belong together go into one call.
    ///
    /// # Errors
    /// [`Reason`]: no folder, no table yet, or one that cannot be read.
    pub fn with<T>(&mut self, mut read: impl FnMut(&Reader<R::Region>) -> T) -> Result<T, Reason> {
        if self.control.is_none() && self.map_control().is_none() {
            return Err(Reason::NoControl);
        }
        let mut failure = Reason::Busy;
        for _ in 0..FLIPS_MAX {
            let generation = self.generation().ok_or(Reason::NoTable)?;
            AtomicU64::fence_acquire();
            if let Err(reason) = self.adopt(generation) {
                if self.generation() == Some(generation) {
                    return Err(reason);
                }
                failure = reason; // it was flipped between the load and the mapping: look again
                continue;
            }
            let Some(mapped) = &self.current else {
                continue;
            };
            let result = read(&mapped.reader);
            AtomicU64::fence_acquire();
            if self.generation() == Some(generation) {
                return Ok(result);
            }
        }
        Err(failure)
    }

    /// Returns the record of `key`; see [`Reader::lookup`].
    #[inline]
    pub fn lookup<'b>(&mut self, key: &[u8], buffer: &'b mut RecordBuffer) -> Lookup<'b> {
        let probe = self.with(|table| table.probe(key, buffer.bytes()));
        buffer.answer(probe.unwrap_or_else(Probe::Unavailable))
    }

    /// Returns the route of the longest prefix of `digits`; see [`Reader::route`].
    pub fn route<'b>(&mut self, digits: Digits, buffer: &'b mut RecordBuffer) -> Lookup<'b> {
        let probe = self.with(|table| table.probe_route(digits, buffer.bytes()));
        buffer.answer(probe.unwrap_or_else(Probe::Unavailable))
    }

    /// Starts to fetch what a look-up of `key` will need first; see [`Reader::prefetch`].
    #[inline]
    pub fn prefetch(&self, key: &[u8], fetch: impl FnOnce(&AtomicU64)) {
        if let Some(mapped) = &self.current {
            mapped.reader.prefetch(key, fetch);
        }
    }

    /// Returns the agent's last report; `None` before the first.
    #[inline]
    pub fn pulse(&self) -> Option<Pulse> {
        Pulse::read(self.control.as_ref()?.as_ref())
    }

    /// Returns the region that is mapped to answer.
    pub fn region(&self) -> Option<&R::Region> {
        self.current.as_ref().map(|mapped| &mapped.reader.memory)
    }

    /// Returns whether what is mapped to answer still does; once it does not, its memory may be gone.
    pub fn is_answering(&self) -> bool {
        self.generation()
            .is_some_and(|generation| self.is_current(generation))
    }

    /// Returns the generation that is mapped to answer.
    pub fn current(&self) -> Option<Generation> {
        self.current
            .as_ref()
            .map(|mapped| Generation(mapped.generation))
    }
}

impl<R: MapRegions> fmt::Debug for FolderReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderReader")
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}
