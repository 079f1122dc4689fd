//! The authoritative state: the table that follows from the log, its lineage, its data folder. It knows
//! neither requests nor nodes.

mod audit;
mod folder;
mod time;

pub use audit::MemoryFault;
pub use folder::{DataFolder, Meta, OpenFolderError};
pub use time::{Alive, ServiceClock};

use locus_proto::{
    Change, Frame, FrameKind, Key, Level, Lineage, LineageError, MasterTime, Position, Root,
};
use locus_table::{
    ApplyError, Geometry, HeapMemory, Lookup, OpenTableError, PrepareError, Prepared, Reader,
    RecordBuffer, ScanCursor, ScanError, TableKey, Writer,
};

/// Bytes of key and value for which the table is sized: one contact has about 300, two have 550. Memory
/// that is not written is not taken, so the size costs nothing before it is needed.
const RECORD_BYTES_MEAN: u64 = 512;

/// Returned when a frame of the log does not lead on from the state before it.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The table cannot take it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Its epoch cannot follow.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// Changes to an empty table lead to another content: no memory can have been wrong there.
    #[error(
        "the content does not follow from the changes: the file `meta` is of another log; restore the \
         whole folder from a copy"
    )]
    OtherKey,
}

/// The table and where it comes from.
#[derive(Debug)]
pub(crate) struct Master {
    writer: Writer<HeapMemory>,
    reader: Reader<HeapMemory>,
    buffer: RecordBuffer,
    lineage: Lineage,
    last_frame: Option<MasterTime>,
    /// The content that the last frame says: the table's own, unless the log holds a frame whose writer's
    /// memory was wrong.
    said: Root,
}

impl Master {
    /// Returns an empty state for `records_max` records.
    ///
    /// # Errors
    /// [`OpenTableError`]: more than a table can hold.
    pub(crate) fn new(records_max: u64, key: [u8; 16]) -> Result<Self, OpenTableError> {
        let geometry = Geometry::for_records(records_max, RECORD_BYTES_MEAN);
        let memory = HeapMemory::zeroed(geometry.file_bytes());
        let key = TableKey(key);
        let mut writer = Writer::create(memory.clone(), geometry, key)?;
        // Empty is complete: at level zero of no epoch the content is the empty root.
        writer
            .finish_load(Position::default())
            .map_err(|_| OpenTableError::Corrupt { what: "root" })?;
        Ok(Self {
            writer,
            reader: Reader::open(memory)?,
            buffer: RecordBuffer::new(),
            lineage: Lineage::default(),
            last_frame: None,
            said: Root::EMPTY,
        })
    }

    /// Applies a frame that was read from the log; returns whether it leads to the content that it says.
    ///
    /// One that does not was written by a master whose memory was wrong. Its changes are what was
    /// acknowledged, each absolute and behind a checksum: they are applied, and the content that follows
    /// from them counts. To refuse them would keep the service down for ever. Only where nothing was that
    /// could have been wrong, it is the key of this table that is another.
    ///
    /// # Errors
    /// [`RecoverError`]: it does not lead on from here, the table is too small for it, or has another key.
    pub(crate) fn recover(&mut self, frame: &Frame) -> Result<bool, RecoverError> {
        let header = &frame.header;
        let led = match self.writer.apply(frame) {
            Ok(root) => root,
            Err(ApplyError::RootAfter { .. }) if self.position().root == Root::EMPTY => {
                return Err(RecoverError::OtherKey);
            }
            Err(ApplyError::RootBefore { .. } | ApplyError::RootAfter { .. }) => {
                self.writer.follow(frame)?.root
            }
            Err(
                error
                @ (ApplyError::LevelGap { .. } | ApplyError::Loading | ApplyError::Prepare(_)),
            ) => return Err(error.into()),
        };
        if header.kind == FrameKind::Epoch {
            self.lineage.push(header.epoch, header.to)?;
        }
        self.last_frame = Some(header.time);
        self.said = header.root_after;
        Ok(led == header.root_after)
    }

    /// Returns the content that the last frame of the log says.
    pub(crate) fn said(&self) -> Root {
        self.said
    }

    /// Returns the record of `key`: the level of its last change, and its value.
    ///
    /// # Errors
    /// The table contradicts itself; the text says how.
    pub(crate) fn get(&mut self, key: &Key) -> Result<Option<(Level, &[u8])>, String> {
        match self.reader.lookup(key.as_bytes(), &mut self.buffer) {
            Lookup::Found(record) => Ok(Some((record.level, record.value))),
            Lookup::Absent => Ok(None),
            Lookup::Unavailable(reason) => Err(reason.to_string()),
        }
    }

    /// Checks that a batch fits, and returns what it leads to; nothing is changed.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) fn prepare(&self, changes: &[Change]) -> Result<Prepared, PrepareError> {
        self.writer.prepare(changes)
    }

    /// Applies a batch that is durable now.
    pub(crate) fn commit(
        &mut self,
        prepared: Prepared,
        changes: &[Change],
        after: Position,
        time: MasterTime,
    ) {
        self.writer.commit(prepared, changes, after);
        self.last_frame = Some(time);
        self.said = after.root;
    }

    /// Begins an epoch whose frame is durable now.
    ///
    /// # Errors
    /// As [`Self::recover`].
    pub(crate) fn begin_epoch(&mut self, frame: &Frame) -> Result<(), RecoverError> {
        self.recover(frame).map(drop)
    }

    /// Returns where it stands.
    pub(crate) fn position(&self) -> Position {
        self.reader.position()
    }

    /// Returns its epochs.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Returns the time of the last frame.
    pub(crate) fn last_frame(&self) -> Option<MasterTime> {
        self.last_frame
    }

    /// Returns the number of records.
    pub(crate) fn records(&self) -> u64 {
        self.reader.records()
    }

    /// Returns the bytes of all keys and values.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.reader.payload_bytes()
    }

    /// Reads on from `cursor` through the whole table, about `bytes_max` bytes; `None` at its end.
    ///
    /// # Errors
    /// [`ScanError`].
    pub(crate) fn scan(
        &mut self,
        cursor: ScanCursor,
        bytes_max: usize,
        records: &mut Vec<Change>,
    ) -> Result<Option<ScanCursor>, ScanError> {
        self.reader
            .scan(cursor, bytes_max, &mut self.buffer, records)
    }
}
