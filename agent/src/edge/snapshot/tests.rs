//! What is kept on disk and what goes, and a load that is broken off; the thread has process tests.

use std::fs;
use std::path::{Path, PathBuf};

use locus_proto::{Epoch, EpochId, Key, NodeName, NodeState, Root};

use super::folder::Name;
use super::*;
use crate::edge::{MappedFolder, warm_up};
use crate::snapshot::{Header, Records, SnapshotWriter};

/// A folder on a tmpfs; it goes when this is dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!(
            "/dev/shm/locus-snapshot-{}-{name}",
            std::process::id()
        ));
        fs::create_dir_all(path.join("table")).unwrap();
        Self(path)
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.disk())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn position(epoch: u64, level: u64) -> Position {
    Position {
        epoch: Epoch {
            counter: epoch,
            id: EpochId([1; 16]),
        },
        level: Level(level),
        root: Root::EMPTY,
    }
}

fn cluster(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// Writes a snapshot of so many records, whose root is a lie unless there are none.
fn write(folder: &mut SnapshotFolder, of: &NodeName, position: Position, count: u64) {
    let header = Header {
        cluster: of.clone(),
        table_key: [7; 16],
        position,
        records: count,
        bytes: 0,
        time: MasterTime(20),
        complete_until: MasterTime(10),
    };
    let mut writer = SnapshotWriter::new(folder.create().unwrap(), &header).unwrap();
    let mut records = Records::default();
    for n in 0..count {
        let key = Key::aor(&format!("u{n}@example.net").parse().unwrap());
        records.push(Level(1), key.as_bytes(), &[1; 200]);
        writer.records(&mut records).unwrap();
    }
    let end = End {
        position,
        records: count,
        bytes: 0,
        time: MasterTime(20),
        complete_until: MasterTime(10),
    };
    writer.finish(&end).unwrap();
    folder.keep(Name::of(position), of).unwrap();
}

#[test]
fn the_newest_and_its_predecessor_are_kept() {
    let place = Place::new("keep");
    let mut folder = SnapshotFolder::open(&place.disk()).unwrap();
    let (lab, other) = (cluster("lab"), cluster("other"));
    for level in [20, 100, 1000] {
        write(&mut folder, &lab, position(1, level), 0);
    }
    assert_eq!(place.files(), ["snap.1.100", "snap.1.1000"]);
    // A new lineage may begin below the level of the old one.
    write(&mut folder, &lab, position(2, 30), 0);
    assert_eq!(place.files(), ["snap.1.1000", "snap.2.30"]);
    assert_eq!(folder.newest(&lab), Some(position(2, 30)));
    // What belongs to others, or has none of our names, is theirs; what is none goes.
    fs::rename(place.disk().join("snap.1.1000"), place.0.join("kept")).unwrap();
    write(&mut folder, &other, position(9, 9), 0);
    assert_eq!(place.files(), ["snap.2.30", "snap.9.9"]);
    fs::rename(place.0.join("kept"), place.disk().join("snap.1.1000")).unwrap();
    for name in ["snap.5.5", "snap.05.6", "snap.x.1", "snap.7", "notes"] {
        fs::write(place.disk().join(name), "none").unwrap();
    }
    assert_eq!(folder.newest(&lab), Some(position(2, 30)));
    folder.refuse(Name::of(position(2, 30)));
    assert_eq!(folder.newest(&lab), Some(position(1, 1000)));
    write(&mut folder, &lab, position(2, 40), 0);
    let strangers = ["notes", "snap.05.6"];
    assert_eq!(place.files()[..2], strangers);
    assert_eq!(
        place.files()[2..],
        ["snap.1.1000", "snap.2.40", "snap.7", "snap.9.9", "snap.x.1"]
    );
    folder.keep_newest(&lab).unwrap();
    assert!(!place.files().contains(&"snap.1.1000".to_owned()));
    assert!(place.files().contains(&"snap.2.40".to_owned()));
    assert_eq!(folder.newest(&lab), Some(position(2, 40)));
}

#[test]
fn a_refused_level_that_is_written_anew_counts_again() {
    let place = Place::new("anew");
    let mut folder = SnapshotFolder::open(&place.disk()).unwrap();
    let lab = cluster("lab");
    write(&mut folder, &lab, position(1, 5), 0);
    folder.refuse(Name::of(position(1, 5)));
    assert_eq!(folder.newest(&lab), None);
    write(&mut folder, &lab, position(1, 5), 0);
    assert_eq!(folder.newest(&lab), Some(position(1, 5)));
}

fn config(place: &Place) -> Config {
    let text = format!(
        "cluster = \"lab\"\nnode = \"n1\"\nnode_id = 1\nlocsvc = [\"127.0.0.1:1\"]\nrecords_max = 2000\n\
         record_bytes_mean = 64\nfolder = {:?}\nsnapshots = {:?}\n",
        place.0.join("table"),
        place.disk()
    );
    Config::parse(Path::new("agent.toml"), &text).unwrap()
}

/// While a table is loaded the workers are told so, and an agent that is to end does so at once.
#[test]
fn a_node_says_that_it_loads_and_ends_when_it_is_told_to() {
    let place = Place::new("loading");
    let config = config(&place);
    let mut folder = SnapshotFolder::open(&place.disk()).unwrap();
    write(&mut folder, &cluster("lab"), position(1, 5), 0);
    drop(folder);
    let (mut node, _) = Node::open(&config).unwrap();
    let (signal, signals) = bounded(1);
    signal.send("SIGTERM").unwrap();
    let state = || {
        MappedFolder::open_ro(&config.folder)
            .pulse()
            .map(|pulse| pulse.state)
    };
    assert_eq!(state(), None);
    let clock = Clock::start();
    let recalled = warm_up(&config, &mut node, clock, &signals).unwrap();
    assert_eq!((recalled, node.standing()), (None, None));
    assert_eq!(state(), Some(NodeState::Loading));
    node.end_snapshots();
    // Not told to end, it has a table; the next life finds it and leaves the disk alone.
    for life in 1..=2 {
        signals.try_recv().ok();
        let recalled = warm_up(&config, &mut node, clock, &signals).unwrap();
        assert_eq!(recalled.is_some(), life == 1, "no pulse says more");
        assert_eq!(node.standing().map(|at| at.position), Some(position(1, 5)));
        assert_eq!(node.snapshot_level(), Level(5));
        node.end_snapshots();
    }
}

#[test]
fn a_load_that_is_broken_off_leaves_nothing() {
    let place = Place::new("broken");
    let config = config(&place);
    let lab = cluster("lab");
    let clock = Clock::start();
    let mut disk = Disk::open(&config).unwrap();
    let tables = || {
        let names = fs::read_dir(&config.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("tbl.")).count()
    };
    let (mut node, _) = Node::open(&config).unwrap();
    assert_eq!(disk.restore(&config, &mut node, clock, |_| true), None);
    write(disk.folder.as_mut().unwrap(), &lab, position(1, 5), 40);
    for ticks in [0, 1, 2, 20] {
        let mut left = ticks;
        let restored = disk.restore(&config, &mut node, clock, |_| {
            left -= 1;
            left >= 0
        });
        assert_eq!((restored, node.standing()), (None, None), "{ticks}");
        assert_eq!(tables(), 0, "{ticks}");
    }
    // To the end; but its root is not that of its records.
    assert_eq!(disk.restore(&config, &mut node, clock, |_| true), None);
    assert_eq!((node.standing(), tables()), (None, 0));
    // The older one then.
    write(disk.folder.as_mut().unwrap(), &lab, position(1, 4), 0);
    let restored = disk.restore(&config, &mut node, clock, |_| true);
    assert_eq!(
        restored,
        Some(Recalled {
            time: MasterTime(20),
            complete_until: MasterTime(10)
        })
    );
    assert_eq!(
        node.standing().map(|standing| standing.position),
        Some(position(1, 4))
    );
    assert_eq!(disk.newest, Some(position(1, 4)));
}

#[test]
fn nobody_waits_for_a_thread_that_does_not_exist() {
    let ended = Snapshots::off().ended.try_recv();
    assert_eq!(ended, Err(crossbeam_channel::TryRecvError::Disconnected));
}

#[test]
fn the_masters_clock_goes_on_from_the_end_of_the_snapshot() {
    let end = End {
        position: position(1, 5),
        records: 0,
        bytes: 0,
        time: MasterTime(120),
        complete_until: MasterTime(100),
    };
    for (known, time) in [(None, 120), (Some(500), 500), (Some(50), 100)] {
        let expected = Recalled {
            time: MasterTime(time),
            complete_until: MasterTime(100),
        };
        assert_eq!(recalled(&end, known.map(MasterTime)), expected);
    }
}
