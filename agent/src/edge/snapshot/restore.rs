//! Loads the newest whole snapshot into a node that has no table; it knows no format.

use std::fs::File;
use std::ops::ControlFlow;

use locus_distribution::Failure;
use locus_proto::{NodeName, Timestamp};

use super::folder::{Name, SnapshotFolder};
use crate::event::{Event, with_causes};
use crate::node::Node;
use crate::snapshot::{End, ReadSnapshotError, SnapshotReader};

/// Why a snapshot is not loaded.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    /// It cannot be read, or is none.
    #[error(transparent)]
    Read(#[from] ReadSnapshotError),
    /// It holds the data of others.
    #[error("it is of cluster {0}")]
    Cluster(NodeName),
    /// The table does not take it.
    #[error("the table cannot be loaded from it")]
    Table(#[source] Failure),
}

impl RestoreError {
    /// Returns whether the file is at fault, and will be the next time.
    fn is_its_own(&self) -> bool {
        match self {
            Self::Read(ReadSnapshotError::Io(_)) | Self::Cluster(_) => false,
            Self::Read(
                ReadSnapshotError::Truncated
                | ReadSnapshotError::Format(_)
                | ReadSnapshotError::Contradicts { .. },
            ) => true,
            Self::Table(failure) => *failure == Failure::RootMismatch,
        }
    }
}

/// Why a load was broken off.
enum Broken {
    /// The table does not take it.
    Failed(Failure),
    /// The agent is to end.
    Ended,
}

/// Loads the newest snapshot that is whole; returns its end. What is refused is logged.
///
/// `go_on` is called each few milliseconds and says whether the agent is still to come up.
pub(super) fn restore(
    folder: &mut SnapshotFolder,
    cluster: &NodeName,
    node: &mut Node,
    now: impl Fn() -> Timestamp,
    mut go_on: impl FnMut(&Node) -> bool,
) -> Option<End> {
    let names = match folder.list() {
        Ok(names) => names,
        Err(error) => {
            let (path, reason) = (folder.as_path().to_owned(), error.to_string());
            Event::SnapshotRefused { path, reason }.log();
            return None;
        }
    };
    for name in names {
        let began = now();
        let path = folder.path(name);
        match load(folder, name, cluster, node, &now, &mut go_on) {
            Ok(ControlFlow::Continue(end)) => {
                let (position, records) = (end.position, end.records);
                let took = now().since(began);
                Event::SnapshotLoaded {
                    path,
                    position,
                    records,
                    took,
                }
                .log();
                return Some(end);
            }
            Ok(ControlFlow::Break(())) => {
                node.abort_load();
                return None;
            }
            Err(error) => {
                node.abort_load();
                if error.is_its_own() {
                    folder.refuse(name);
                }
                let reason = with_causes(&error);
                Event::SnapshotRefused { path, reason }.log();
            }
        }
    }
    None
}

/// Loads one snapshot; breaks if the agent is to end.
fn load(
    folder: &SnapshotFolder,
    name: Name,
    cluster: &NodeName,
    node: &mut Node,
    now: &impl Fn() -> Timestamp,
    go_on: &mut impl FnMut(&Node) -> bool,
) -> Result<ControlFlow<(), End>, RestoreError> {
    let file = File::open(folder.path(name)).map_err(ReadSnapshotError::Io)?;
    let mut snapshot = SnapshotReader::open(file)?;
    let (header, end) = (snapshot.header().clone(), *snapshot.end());
    if header.cluster != *cluster {
        return Err(RestoreError::Cluster(header.cluster));
    }
    // What was deleted while it was written takes room, too, until the frames are loaded.
    let records = header.records.max(end.records);
    let bytes = header.bytes.max(end.bytes);
    node.begin_load(header.table_key, records, bytes)
        .map_err(RestoreError::Table)?;
    while node.holds() {
        if node.work(now()).is_some() {
            return Err(RestoreError::Table(Failure::Full));
        }
        if !go_on(node) {
            return Ok(ControlFlow::Break(()));
        }
    }
    let loaded = snapshot.load(|changes| {
        if node.load(changes).is_some() {
            return ControlFlow::Break(Broken::Failed(Failure::Broken));
        }
        if go_on(node) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Broken::Ended)
        }
    })?;
    match loaded {
        ControlFlow::Break(Broken::Failed(failure)) => return Err(RestoreError::Table(failure)),
        ControlFlow::Break(Broken::Ended) => return Ok(ControlFlow::Break(())),
        ControlFlow::Continue(()) => {}
    }
    node.finish_load(end.position)
        .map_err(RestoreError::Table)?;
    Ok(ControlFlow::Continue(end))
}
