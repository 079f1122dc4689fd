//! What is compared: the product's reader, the limit, LMDB; each as one worker of Kamailio would hold it.
//! Knows how each is asked, not what is measured.

use std::path::Path;

use locus_agent::MappedFolder;
use locus_table::{FolderReader, Lookup, RecordBuffer};

use crate::chain::{Chain, Fetch};
use crate::limit::{Limit, LimitMemory};
use crate::lmdb::{Lmdb, LmdbReader};
use crate::look_ups::{Round, Timing};
use crate::population::{self, KEY_BYTES};

/// Whose record is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// The subscriber.
    pub n: usize,
    /// The key of the record.
    pub key: [u8; KEY_BYTES],
}

impl Query {
    /// The query for subscriber `n`.
    pub(crate) fn new(n: usize) -> Self {
        let mut key = [0; KEY_BYTES];
        population::write_key(n, &mut key);
        Self { n, key }
    }
}

/// The table, through the product's reader with its own mapping.
pub(crate) struct Table {
    reader: FolderReader<MappedFolder>,
    buffer: RecordBuffer,
}

impl Table {
    /// Opens the table in `folder`.
    pub(crate) fn open(folder: &Path) -> Self {
        Self {
            reader: MappedFolder::open_ro(folder),
            buffer: RecordBuffer::new(),
        }
    }

    /// Looks all subscribers up once, so that every page is mapped.
    ///
    /// # Panics
    /// When one is not found, or another's record is.
    pub(crate) fn visit_all(&mut self, count: usize) {
        for n in 0..count {
            let query = Query::new(n);
            let found = self.fetch(&query);
            let right = found.is_some_and(|value| population::is_of(&query.key, value));
            assert!(right, "subscriber {n} is not in the table");
        }
    }
}

impl Fetch<Query> for Table {
    #[inline]
    fn fetch(&mut self, query: &Query) -> Option<&[u8]> {
        match self.reader.lookup(&query.key, &mut self.buffer) {
            Lookup::Found(record) => Some(record.value),
            Lookup::Absent | Lookup::Unavailable(_) => None,
        }
    }
}

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// The product.
    Table,
    /// Memory itself.
    Limit,
    /// LMDB through heed.
    Lmdb,
}

/// All that one reader needs.
pub(crate) struct Kit<'m> {
    table: Table,
    limit: Limit<'m>,
    lmdb: Option<LmdbReader<'m>>,
}

impl<'m> Kit<'m> {
    /// A reader's own mappings and buffers; every page that holds a record is mapped afterwards.
    pub(crate) fn new(
        folder: &Path,
        count: usize,
        limit: &'m LimitMemory,
        lmdb: Option<&'m Lmdb>,
    ) -> Self {
        let mut table = Table::open(folder);
        table.visit_all(count);
        Self {
            table,
            limit: Limit::of(limit),
            lmdb: lmdb.map(LmdbReader::of),
        }
    }

    /// Times the look-ups of a chain in one system.
    pub(crate) fn run(
        &mut self,
        timing: Timing,
        round: &mut Round,
        system: System,
        chain: &Chain<Query>,
    ) {
        let right = |query: &Query, value: &[u8]| population::is_right(query.n, value);
        match system {
            System::Table => timing.run(round, chain, &mut self.table, right),
            System::Limit => timing.run(round, chain, &mut self.limit, right),
            System::Lmdb => timing.run(round, chain, self.lmdb(), right),
        }
    }

    fn lmdb(&mut self) -> &mut LmdbReader<'m> {
        let lmdb = self.lmdb.as_mut();
        lmdb.unwrap_or_else(|| panic!("LMDB was not loaded"))
    }
}
