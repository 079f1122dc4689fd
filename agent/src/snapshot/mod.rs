//! A table on disk, for the time after a reboot: its format, and what the core hands over for it; it opens no
//! file and reads no clock.
//!
//! A snapshot is complete in itself: records that were read beside the writer, each true at some level since
//! the beginning, and every frame that was applied meanwhile. Whoever puts in all records and then all frames
//! in their order has exactly the content of the end position, and its root proves it.
//!
//! All numbers are little-endian. The file holds the secret of the cluster's tables and subscribers' addresses:
//! mode 0600 in a folder of mode 0700.
//!
//! ```text
//! header  magic "LOCUSNAP" | version u32 (1) | length u32 of what follows, without the checksum
//!         cluster: length u16, name | table key 16 bytes
//!         position at the beginning: epoch counter u64, epoch id 16 bytes, level u64, root 16 bytes
//!         records u64 in the table then | bytes u64 of their keys and values: for sizing
//!         service time u64 | complete until u64, both as the node knew them then
//!         checksum u32: CRC-32C of all before
//!
//! chunk   kind u32 (1 records, 2 frames, 3 end) | length u32 of the payload, at most 1 MiB | payload
//!         checksum u32: CRC-32C of the header's checksum u32, the chunk's number u64 from zero, and all of
//!         the chunk before. So no chunk can be lost, moved, or taken from another snapshot.
//!
//! records any number of: key length u16 | value length u32 | level u64 | key | value
//! frames  any number of: length u32 | frame as in proto/README.md
//!         Chunks of records and of frames come in any order. Frames follow each other from the position at
//!         the beginning to the one at the end.
//! end     chunks u64 before this one | records u64 and frames u64 in them
//!         position at the end (as above) | records u64 in the table then | bytes u64
//!         service time u64 | complete until u64
//!         The last chunk, of fixed length: 116 bytes before the end of the file.
//! ```
//!
//! A reader refuses other versions. The frames are kept apart by their kind and not by their place, so that
//! they need not wait in memory until all records are written.

mod format;
mod handover;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use format::{CHUNK_BYTES_MAX, VERSION};
pub(crate) use format::{End, Header, RECORD_HEAD_BYTES};
pub(crate) use handover::{Handed, Handover, Moment, OVERFLOW, Taken, Taker, handover};
pub use handover::{QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX};
pub(crate) use reader::{ReadSnapshotError, SnapshotReader};
pub(crate) use writer::{CHUNK_BYTES, Records, SnapshotWriter};
