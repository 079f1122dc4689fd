//! What the thread that writes snapshots needs from the table's owner; it writes none.

use locus_distribution::Pulse;
use locus_proto::Level;
use locus_table::OwnRegions;

use super::Node;
use crate::edge::{Populate, Snapshots};
use crate::snapshot::Moment;

impl<R: OwnRegions<Region: Populate>> Node<R> {
    /// Hands what happens to the table over to a thread that writes snapshots.
    pub(crate) fn set_snapshots(&mut self, snapshots: Snapshots) {
        self.snapshots = snapshots;
    }

    /// Answers what that thread asks; to be called again and again.
    pub(crate) fn turn_snapshots(&mut self, pulse: &Pulse) {
        let (table, doubted) = (&self.table, &self.doubted);
        self.snapshots.handover.turn(pulse.state, || {
            let table = table.as_ref().filter(|_| doubted.is_empty())?;
            Some(Moment {
                position: table.position(),
                table_key: table.key().0,
                records: table.records(),
                bytes: table.payload_bytes(),
                time: pulse.master_time?,
                complete_until: pulse.complete_until,
            })
        });
    }

    /// Returns the level of the newest snapshot on disk; zero if there is none.
    pub(crate) fn snapshot_level(&self) -> Level {
        self.snapshots.level()
    }

    /// Returns how many snapshots could not be written since the start.
    pub(crate) fn snapshots_failed_total(&self) -> u64 {
        self.snapshots.failed_total()
    }

    /// Lets that thread end.
    pub(crate) fn end_snapshots(&mut self) {
        std::mem::replace(&mut self.snapshots, Snapshots::off()).end();
    }
}
