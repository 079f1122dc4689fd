//! The table that answers look-ups: one writer and many lock-free readers over a slice of atomic words.
//!
//! It knows keys, values, levels and memory; it refuses to know SIP, sockets, files and why something is
//! written. Whoever maps a file hands in the words; the same code runs on the heap of a test.
//!
//! * [`Reader`]: look-up, longest-prefix match, scan, scrub; a look-up takes no lock, allocates nothing,
//!   makes no system call and never panics;
//! * [`Writer`]: batches that are applied whole or not at all, repairs, redo after any death, full load;
//! * [`Folder`], [`FolderReader`]: generations of tables, and the [`Pulse`] of the node beside them;
//! * [`Growth`]: a live table is copied into a bigger generation.
//!
//! # The order of a change
//! Three operations change a live table, in one order of stores, and each may end with the death of the
//! writer at any of them. [`Writer::apply`] takes a frame that begins and ends with the content that it
//! says; [`Writer::follow`] takes one whatever content it says, for a table that is known to differ from
//! the master's; [`Writer::repair`] makes one partition what the master says it holds, at the same level
//! and epoch.
//! 1. The journal (changes, and for a repair its partition) and the mark (where the table will stand) are
//!    written where no reader looks.
//! 2. `begin` takes the batch's number.
//! 3. A repair sets the partition's account (sum, records, bytes) to that of what is in memory.
//! 4. Records are put, then deleted. For each: the block is written, the slot names it, the bucket's version
//!    rises, the account of its partition follows. From the slot's store on readers find it.
//! 5. A repair empties slots by which nothing true can be found: behind the puts, so that where
//!    rot can be seen a record is unavailable until it is found, never absent.
//! 6. `done` takes the number: the position switches to the mark.
//!
//! Whoever opens the table and finds `begin` ahead of `done` raises the versions of all buckets that the batch
//! can have touched, does steps 3 to 6 again from the journal, and takes the accounts of the partitions it
//! touches from memory; changes are absolute, so what was done already stays as it is. Accounts, mark and
//! index must then agree. Where memory rotted beside a frame they do not, and the table is refused; beside
//! a repair they do, as far as its partition is concerned.
#![forbid(unsafe_code)]

mod arena;
mod audit;
mod control;
mod error;
mod fill;
mod folder;
mod folder_reader;
mod growth;
mod header;
mod journal;
mod layout;
mod memory;
mod plan;
mod prefix;
mod publish;
mod pulse;
mod reader;
mod recovery;
mod reload;
mod repair;
mod snapshot;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use arena::{KEY_BYTES_MAX, RECORD_BYTES_MAX, VALUE_BYTES_MAX};
pub use audit::{GROUPS, PARTITIONS, TableKey};
pub use control::{Generation, HeapRegions, MapRegions, OwnRegions, RegionName};
pub use error::{
    ApplyError, FinishLoadError, FolderError, GrowError, OpenTableError, PrepareError, RepairError,
    ScanError,
};
pub use fill::Fill;
pub use folder::Folder;
pub use folder_reader::FolderReader;
pub use growth::Growth;
pub use layout::{FORMAT, Geometry, PROBE};
pub use memory::{HeapMemory, Memory, Word, Words};
pub use plan::Prepared;
pub use pulse::Pulse;
pub use reader::{Lookup, Reader, Record, RecordBuffer, Scrubbed};
pub use recovery::Recovered;
pub use repair::Repaired;
pub use snapshot::ScanCursor;
pub use view::Reason;
pub use writer::Writer;
