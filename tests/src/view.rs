//! What a reader of a node's table sees, through the product's own read-only mapping.
//! Knows records as they lie in the table, nothing of who wrote them.

use std::collections::BTreeMap;
use std::path::Path;

use locus_agent::MappedFolder;
use locus_proto::{AddressOfRecord, ChangeOp, Key, NodeState};
use locus_table::{FolderReader, Lookup, RecordBuffer, ScanCursor};

/// A whole table: key → level and value.
pub type Dump = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// A reader of one node's table, as each Kamailio worker has one.
#[derive(Debug)]
pub struct View {
    folder: FolderReader<MappedFolder>,
    buffer: RecordBuffer,
}

impl View {
    /// Opens the table in `folder`, `None` while there is none that answers.
    pub fn try_open(folder: &Path) -> Option<Self> {
        let mut view = Self {
            folder: MappedFolder::open_ro(folder),
            buffer: RecordBuffer::new(),
        };
        view.folder.with(|_| ()).ok()?;
        Some(view)
    }

    /// The level a look-up would be answered at.
    ///
    /// # Panics
    /// When the table cannot be read any more.
    #[track_caller]
    pub fn level(&mut self) -> u64 {
        self.folder
            .with(|table| table.position().level.0)
            .expect("the table is readable")
    }

    /// Records in the table.
    ///
    /// # Panics
    /// When the table cannot be read any more.
    #[track_caller]
    pub fn records(&mut self) -> u64 {
        self.folder
            .with(|table| table.records())
            .expect("the table is readable")
    }

    /// What the agent last said of the node, `None` before its first word.
    pub fn state(&self) -> Option<NodeState> {
        self.folder.pulse().map(|pulse| pulse.state)
    }

    /// The level of the record of `aor`, `None` when the table has none.
    ///
    /// # Panics
    /// When `aor` is no address-of-record or the table cannot be read any more.
    #[track_caller]
    pub fn level_of(&mut self, aor: &str) -> Option<u64> {
        let aor = AddressOfRecord::parse(aor).expect("an address-of-record");
        match self
            .folder
            .lookup(Key::aor(&aor).as_bytes(), &mut self.buffer)
        {
            Lookup::Found(record) => Some(record.level.0),
            Lookup::Absent => None,
            Lookup::Unavailable(reason) => panic!("the table is not readable: {reason:?}"),
        }
    }

    /// Bytes of the value under `key`, copied out as a look-up does; `None` when there is none.
    #[inline]
    pub fn value_bytes(&mut self, key: &[u8]) -> Option<usize> {
        match self.folder.lookup(key, &mut self.buffer) {
            Lookup::Found(record) => Some(record.value.len()),
            Lookup::Absent | Lookup::Unavailable(_) => None,
        }
    }

    /// Every record. Nothing may be written meanwhile, or the dump mixes levels.
    ///
    /// # Panics
    /// When a record cannot be read.
    #[track_caller]
    pub fn dump(&mut self) -> Dump {
        let buffer = &mut self.buffer;
        let scanned = self.folder.with(|table| {
            let mut records = Vec::new();
            let end = table.scan(ScanCursor::START, usize::MAX, buffer, &mut records);
            assert_eq!(end, Ok(None), "one step without limit reaches the end");
            records
        });
        let records = scanned.expect("the table is readable");
        records
            .into_iter()
            .map(|record| match record.op {
                ChangeOp::Put(value) => (record.key.as_bytes().to_vec(), (record.level.0, value)),
                ChangeOp::Delete => panic!("a table holds no deletions"),
            })
            .collect()
    }
}
