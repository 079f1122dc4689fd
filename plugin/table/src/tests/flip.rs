//! Generations: loads, flips and left-overs, with readers that must never miss a record.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use locus_proto::{Level, MasterTime, NodeId, NodeState};

use super::support::{Model, SMALL, TABLE_KEY, aor_key, commit, put, value_of};
use crate::{
    Folder, FolderError, FolderReader, Generation, HeapMemory, HeapRegions, Lookup, MapRegions,
    OpenTableError, OwnRegions, Pulse, Reason, RecordBuffer, RegionName, Writer,
};

const KEYS: u64 = 50;
const FLIPS: u64 = 200;

type Table = (Generation, Writer<HeapMemory>);

/// Loads all keys at a level into a new generation.
fn load(folder: &Folder<HeapRegions>, level: u64) -> (Table, Model) {
    let mut table = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    let changes: Vec<_> = (0..KEYS).map(|i| put(aor_key(i), level, 100)).collect();
    let mut model = Model::default();
    model.apply(&changes);
    table.1.load(&changes).unwrap();
    table.1.finish_load(model.position()).unwrap();
    (table, model)
}

/// When a reader looks for what was announced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    /// Behind every look-up.
    Always,
    /// Never: it meets each flip within a look-up.
    Never,
}

fn read_until(regions: HeapRegions, refresh: Refresh, stop: &AtomicBool, reads: &AtomicU64) {
    let mut reader = FolderReader::new(regions);
    let mut buffer = RecordBuffer::new();
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) {
        for number in 0..KEYS {
            let key = aor_key(number);
            match reader.lookup(key.as_bytes(), &mut buffer) {
                Lookup::Found(record) => {
                    assert_eq!(record.value, value_of(&key, record.level, 100), "{key}");
                    assert!(record.level.0 >= seen, "{key} went back over a flip");
                    seen = record.level.0;
                }
                other @ (Lookup::Absent | Lookup::Unavailable(_)) => panic!("{key}: {other:?}"),
            }
            if refresh == Refresh::Always {
                reader.refresh();
            }
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn flips_beside_readers_lose_nothing() {
    let regions = HeapRegions::new();
    let folder = Folder::open(regions.clone()).unwrap();
    let (table, _) = load(&folder, 1);
    folder.flip(&table).unwrap();
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for refresh in [Refresh::Always, Refresh::Never] {
            let (regions, stop, reads) = (regions.clone(), &stop, &reads);
            scope.spawn(move || read_until(regions, refresh, stop, reads));
        }
        let flipped = scope.spawn(|| {
            let mut level = 1;
            while level < FLIPS || reads.load(Ordering::Relaxed) < 20 {
                level += 1;
                let (table, _) = load(&folder, level);
                folder.flip(&table).unwrap(); // zeroes the old one at once
            }
        });
        let flipped = flipped.join();
        stop.store(true, Ordering::Relaxed);
        flipped.unwrap();
    });
    assert!(folder.current().unwrap().0 >= FLIPS);
}

#[test]
fn a_folder_through_its_lives() {
    let regions = HeapRegions::new();
    let (mut reader, mut buffer) = (FolderReader::new(regions.clone()), RecordBuffer::new());
    let key = aor_key(1);
    let mut ask = |reader: &mut FolderReader<_>| match reader.lookup(key.as_bytes(), &mut buffer) {
        Lookup::Found(record) => Ok(record.level.0),
        Lookup::Absent => Ok(0),
        Lookup::Unavailable(reason) => Err(reason),
    };
    assert_eq!(ask(&mut reader), Err(Reason::NoControl));

    let folder = Folder::open(regions.clone()).unwrap();
    assert_eq!(
        (ask(&mut reader), folder.current()),
        (Err(Reason::NoTable), None)
    );
    assert!(folder.open_table().unwrap().is_none());

    // A load that is given up is invisible and leaves nothing; its number is not used again.
    let unfinished = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    assert!(matches!(
        folder.flip(&unfinished),
        Err(FolderError::Table {
            source: OpenTableError::Loading,
            ..
        })
    ));
    assert_eq!(
        (ask(&mut reader), reader.current()),
        (Err(Reason::NoTable), None)
    );
    folder.discard_others().unwrap();
    assert!(regions.map(RegionName::Table(unfinished.0)).is_err());

    let ((generation, mut writer), mut model) = load(&folder, 7);
    assert_eq!(generation, Generation(2));
    let table = (generation, writer);
    reader.refresh();
    assert_eq!(ask(&mut reader), Err(Reason::NoTable));
    folder.flip(&table).unwrap();
    assert_eq!(
        (ask(&mut reader), reader.current()),
        (Ok(7), Some(generation))
    );
    writer = table.1;
    commit(&mut writer, &mut model, &[put(key.clone(), 8, 20)]);
    assert_eq!(ask(&mut reader), Ok(8));

    // The owner dies during the next load: the left-over goes, the table stays.
    let left_over = load(&folder, 9).0.0;
    drop((folder, writer));
    let folder = Folder::open(regions.clone()).unwrap();
    assert!(regions.map(RegionName::Table(left_over)).is_err());
    let (writer, recovered) = folder.open_table().unwrap().unwrap();
    assert_eq!(
        (recovered.position, writer.records()),
        (model.position(), KEYS)
    );
    assert_eq!(ask(&mut reader), Ok(8));

    // It dies between flip and clean-up: the next life cleans up.
    let (next, _) = load(&folder, 10);
    folder.flip(&next).unwrap();
    assert_eq!(next.0, Generation(4));
    assert!(regions.map(RegionName::Table(generation)).is_err());
    assert_eq!(ask(&mut reader), Ok(10));
}

/// A folder whose file system is full, or whose files can be neither mapped nor removed, when told so.
#[derive(Clone, Default)]
struct Faulty {
    regions: HeapRegions,
    full: Rc<Cell<bool>>,
    unreadable: Rc<Cell<bool>>,
    stuck: Rc<Cell<bool>>,
    discards: Rc<Cell<u32>>,
}

impl MapRegions for Faulty {
    type Region = HeapMemory;

    fn map(&self, name: RegionName) -> io::Result<HeapMemory> {
        if self.unreadable.get() && name != RegionName::Control {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.regions.map(name)
    }
}

impl OwnRegions for Faulty {
    fn create(&self, name: RegionName, bytes: u64) -> io::Result<HeapMemory> {
        if self.full.get() && name != RegionName::Control {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.regions.create(name, bytes)
    }

    fn discard(&self, name: RegionName) -> io::Result<()> {
        self.discards.set(self.discards.get() + 1);
        if self.stuck.get() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.regions.discard(name)
    }
}

/// An agent on a file system that is too small tries again each few seconds, for weeks.
#[test]
fn loads_that_found_no_room_use_nothing_up() {
    let faulty = Faulty::default();
    let folder = Folder::open(faulty.clone()).unwrap();
    faulty.full.set(true);
    for _ in 0..3000 {
        let failed = folder.begin_load(SMALL, TABLE_KEY).map(|_| ());
        assert!(matches!(failed, Err(FolderError::Region { .. })));
    }
    faulty.full.set(false);
    let (generation, mut writer) = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    writer.finish_load(Model::default().position()).unwrap();
    folder.flip(&(generation, writer)).unwrap();
    assert_eq!(Folder::open(faulty).unwrap().current(), Some(generation));
}

/// A growth that finds no room changes nothing: the table goes on, and no worker maps what is not there.
#[test]
fn a_growth_without_room_leaves_the_table() {
    let faulty = Faulty::default();
    let folder = Folder::open(faulty.clone()).unwrap();
    let mut table = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    table.1.finish_load(Model::default().position()).unwrap();
    folder.flip(&table).unwrap();
    let (mut live, mut model) = (table.1, Model::default());
    faulty.full.set(true);
    let mut reader = FolderReader::new(faulty.clone());
    let bigger = live.fill().geometry();
    let refused = folder.grow(&live, bigger).map(|_| ());
    assert!(matches!(refused, Err(FolderError::Region { .. })));
    faulty.unreadable.set(true);
    reader.refresh();
    commit(&mut live, &mut model, &[put(aor_key(1), 1, 9)]);
    let mut buffer = RecordBuffer::new();
    let answer = reader.lookup(aor_key(1).as_bytes(), &mut buffer);
    assert!(matches!(answer, Lookup::Found(_)), "{answer:?}");
}

/// A worker that cannot map the new table says so, never "absent" out of the old one; and finds it later.
#[test]
fn a_table_that_cannot_be_mapped_is_unavailable() {
    let faulty = Faulty::default();
    let folder = Folder::open(faulty.clone()).unwrap();
    let (mut reader, mut buffer) = (FolderReader::new(faulty.clone()), RecordBuffer::new());
    let flip = |level| {
        let (generation, mut writer) = folder.begin_load(SMALL, TABLE_KEY).unwrap();
        let (mut model, change) = (Model::default(), put(aor_key(1), level, 9));
        model.apply(std::slice::from_ref(&change));
        writer.load(std::slice::from_ref(&change)).unwrap();
        writer.finish_load(model.position()).unwrap();
        folder.flip(&(generation, writer)).unwrap();
    };
    let mut ask = |reader: &mut FolderReader<Faulty>| match reader
        .lookup(aor_key(1).as_bytes(), &mut buffer)
    {
        Lookup::Found(record) => Ok(record.level.0),
        Lookup::Absent => Ok(0),
        Lookup::Unavailable(reason) => Err(reason),
    };
    flip(1);
    assert_eq!(ask(&mut reader), Ok(1));
    faulty.unreadable.set(true);
    flip(2);
    reader.refresh();
    assert_eq!(ask(&mut reader), Err(Reason::Unreadable));
    faulty.unreadable.set(false);
    assert_eq!(ask(&mut reader), Ok(2));
}

/// A worker's folder that counts what is mapped and how often something was.
#[derive(Clone, Default)]
struct Counting {
    regions: HeapRegions,
    maps: Rc<Cell<u32>>,
    held: Rc<()>,
    unreadable: Rc<Cell<bool>>,
}

struct Held {
    memory: HeapMemory,
    /// Counts itself.
    _held: Rc<()>,
}

impl AsRef<[AtomicU64]> for Held {
    fn as_ref(&self) -> &[AtomicU64] {
        self.memory.as_ref()
    }
}

impl MapRegions for Counting {
    type Region = Held;

    fn map(&self, name: RegionName) -> io::Result<Held> {
        self.maps.set(self.maps.get() + 1);
        if self.unreadable.get() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Held {
            memory: self.regions.map(name)?,
            _held: Rc::clone(&self.held),
        })
    }
}

/// A table is mapped when its load begins, opened at the flip, and given up without a trace.
#[test]
fn a_load_is_mapped_ahead() {
    let regions = HeapRegions::new();
    let folder = Folder::open(regions.clone()).unwrap();
    folder.flip(&load(&folder, 1).0).unwrap();
    let counting = Counting {
        regions,
        ..Counting::default()
    };
    let (mut reader, mut buffer) = (FolderReader::new(counting.clone()), RecordBuffer::new());
    // How often something was mapped, and how much is mapped: two handles are ours and the reader's.
    let counts = || (counting.maps.get(), Rc::strong_count(&counting.held) - 2);
    let mut level = |reader: &mut FolderReader<_>| {
        let key = aor_key(1);
        match reader.lookup(key.as_bytes(), &mut buffer) {
            Lookup::Found(record) => record.level.0,
            Lookup::Absent | Lookup::Unavailable(_) => 0,
        }
    };
    // `ctl` and the table that answers.
    assert_eq!((level(&mut reader), counts()), (1, (2, 2)));

    // Mapped once, however often it is asked, and not looked into: it is being loaded.
    let given_up = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    for _ in 0..10 {
        reader.refresh();
    }
    assert_eq!((level(&mut reader), counts()), (1, (3, 3)));
    drop(given_up);
    folder.discard_others().unwrap();
    reader.refresh();
    assert_eq!((level(&mut reader), counts()), (1, (3, 2)));

    // The flip itself costs no mapping, and the old table is given back.
    let mut table = folder.begin_load(SMALL, TABLE_KEY).unwrap();
    reader.refresh();
    let mut model = Model::default();
    let change = put(aor_key(1), 5, 9);
    model.apply(std::slice::from_ref(&change));
    table.1.load(&[change]).unwrap();
    table.1.finish_load(model.position()).unwrap();
    folder.flip(&table).unwrap();
    assert_eq!((level(&mut reader), counts()), (5, (4, 2)));

    // What cannot be mapped ahead is not tried at every request, but at the flip.
    counting.unreadable.set(true);
    let (table, _) = load(&folder, 9);
    for _ in 0..10 {
        reader.refresh();
    }
    assert_eq!((level(&mut reader), counts()), (5, (5, 2)));
    counting.unreadable.set(false);
    folder.flip(&table).unwrap();
    assert_eq!((level(&mut reader), counts()), (9, (6, 2)));
}

#[test]
fn several_lookups_read_one_generation() {
    let regions = HeapRegions::new();
    let folder = Folder::open(regions.clone()).unwrap();
    folder.flip(&load(&folder, 1).0).unwrap();
    let (mut reader, mut buffer) = (FolderReader::new(regions), RecordBuffer::new());
    let mut calls = 0;
    let levels = reader.with(|table| {
        calls += 1;
        let mut level = |number| match table.lookup(aor_key(number).as_bytes(), &mut buffer) {
            Lookup::Found(record) => record.level.0,
            Lookup::Absent | Lookup::Unavailable(_) => 0,
        };
        let first = level(1);
        if calls == 1 {
            folder.flip(&load(&folder, 2).0).unwrap();
        }
        (first, level(2))
    });
    assert_eq!((levels, calls), (Ok((2, 2)), 2));
}

#[test]
fn the_pulse_arrives() {
    let regions = HeapRegions::new();
    let folder = Folder::open(regions.clone()).unwrap();
    let reader = FolderReader::new(regions);
    assert_eq!((folder.pulse(), reader.pulse()), (None, None));
    let mut pulse = Pulse {
        state: NodeState::Coherent,
        master_offset_ms: -5,
        complete_until: MasterTime(6),
        master_level: Level(7),
        updated_monotonic_ms: 8,
        max_grace_ms: 9,
        node: NodeId(10),
        epoch_counter: 11,
    };
    for state in NodeState::ALL {
        pulse.state = state;
        folder.beat(&pulse);
        assert_eq!((folder.pulse(), reader.pulse()), (Some(pulse), Some(pulse)));
    }
}

/// Loads that are given up one after the other, as while a table does not fit, wear nothing out: no
/// clean-up looks for more than what the last load left.
#[test]
fn loads_that_are_given_up_for_ever_leave_the_folder_usable() {
    let faulty = Faulty::default();
    let mut folder = Folder::open(faulty.clone()).unwrap();
    for expected in [Generation(31), Generation(62)] {
        for _ in 0..30 {
            drop(folder.begin_load(SMALL, TABLE_KEY).unwrap());
            faulty.discards.set(0);
            folder.discard_others().unwrap();
            assert_eq!(faulty.discards.get(), 1);
        }
        folder = Folder::open(faulty.clone()).unwrap();
        let (generation, mut writer) = folder.begin_load(SMALL, TABLE_KEY).unwrap();
        assert_eq!(generation, expected);
        writer.finish_load(Model::default().position()).unwrap();
        folder.flip(&(generation, writer)).unwrap();
    }
}

/// Whoever dies between flip and clean-up, after loads that were given up, leaves the old table to the
/// next life.
#[test]
fn a_flip_without_clean_up_is_made_good() {
    let faulty = Faulty::default();
    let folder = Folder::open(faulty.clone()).unwrap();
    let (regions, is_there) = (faulty.regions.clone(), |generation| {
        faulty.regions.map(RegionName::Table(generation)).is_ok()
    });
    let flip = || {
        let (generation, mut writer) = folder.begin_load(SMALL, TABLE_KEY).unwrap();
        writer.finish_load(Model::default().position()).unwrap();
        (generation, folder.flip(&(generation, writer)))
    };
    let (old, flipped) = flip();
    flipped.unwrap();
    for _ in 0..3 {
        let given_up = folder.begin_load(SMALL, TABLE_KEY).unwrap();
        folder.discard_others().unwrap();
        assert!(!is_there(given_up.0) && is_there(old));
    }
    faulty.stuck.set(true);
    let (new, flipped) = flip();
    assert!(matches!(flipped, Err(FolderError::Region { .. })));
    assert!(is_there(old) && is_there(new));
    let folder = Folder::open(regions).unwrap();
    assert_eq!(folder.current(), Some(new));
    assert!(!is_there(old) && is_there(new));
}
