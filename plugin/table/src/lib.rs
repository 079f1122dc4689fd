//! The table that answers look-ups: one writer and many lock-free readers over a slice of atomic words.
//!
//! It knows keys, values, levels and memory; it refuses to know SIP, sockets, files and why something is
//! written. Whoever maps a file hands in the words; the same code runs on the heap of a test.
//!
//! * [`Reader`]: look-up, longest-prefix match, scan; no lock, allocation or system call, never a panic;
//! * [`Writer`]: batches that are applied whole or not at all, redo after any death, full load;
//! * [`Folder`], [`FolderReader`]: generations of tables, and the [`Pulse`] of the node beside them.
#![forbid(unsafe_code)]

mod arena;
mod audit;
mod control;
mod error;
mod folder;
mod folder_reader;
mod header;
mod journal;
mod layout;
mod memory;
mod plan;
mod prefix;
mod publish;
mod pulse;
mod reader;
mod reload;
mod snapshot;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use arena::{KEY_BYTES_MAX, RECORD_BYTES_MAX, VALUE_BYTES_MAX};
pub use audit::{PARTITIONS, TableKey};
pub use control::{Generation, HeapRegions, MapRegions, OwnRegions, RegionName};
pub use error::{
    ApplyError, FinishLoadError, FolderError, OpenTableError, PrepareError, ScanError,
};
pub use folder::Folder;
pub use folder_reader::FolderReader;
pub use layout::{FORMAT, Geometry, PROBE};
pub use memory::{HeapMemory, Memory, Word, Words};
pub use plan::Prepared;
pub use pulse::Pulse;
pub use reader::{Lookup, Reader, Record, RecordBuffer};
pub use snapshot::ScanCursor;
pub use view::Reason;
pub use writer::{Recovered, Writer};
