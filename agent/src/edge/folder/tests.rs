//! Mappings on a tmpfs: sharing, locking, alignment, giving back, and no room.

use std::ffi::CString;
use std::sync::atomic::Ordering;

use locus_table::Generation;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::super::map::HUGE_PAGE_BYTES;
use super::*;

const MIB: u64 = 1 << 20;
const FIRST: RegionName = RegionName::Table(Generation(1));

/// A folder in /dev/shm, on a small tmpfs of its own if asked for; gone when this is dropped.
struct Place {
    path: PathBuf,
    mounted: bool,
}

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("locus-map-{}-{name}", std::process::id());
        let path = Path::new("/dev/shm").join(name);
        fs::create_dir_all(&path).unwrap();
        Self {
            path,
            mounted: false,
        }
    }

    /// `None` where no tmpfs can be mounted; with LOCUS_REQUIRE_LAB that is a failure.
    fn mounted(name: &str, options: &str) -> Option<Self> {
        let mut place = Self::new(name);
        let options = CString::new(options).unwrap();
        match mount(
            "tmpfs",
            &place.path,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        ) {
            Ok(()) => place.mounted = true,
            Err(error) => {
                let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some();
                assert!(!required, "cannot mount a tmpfs: {error}");
                eprintln!("ignored: needs to mount a tmpfs: {error}");
                return None;
            }
        }
        Some(place)
    }

    fn own(&self) -> OwnedFolder {
        OwnedFolder::lock(&self.path).unwrap()
    }

    fn shared(&self) -> MappedFolder {
        MappedFolder {
            path: self.path.clone(),
        }
    }

    fn free_bytes(&self) -> u64 {
        room(&self.path)
            .unwrap()
            .expect("a limited file system")
            .free_bytes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.path, UnmountFlags::DETACH).ok();
        }
        fs::remove_dir_all(&self.path).ok();
    }
}

fn load(mapping: &Mapping, at: usize) -> u64 {
    mapping.as_ref()[at].load(Ordering::Relaxed)
}

#[test]
fn what_the_owner_stores_the_readers_see() {
    let place = Place::new("share");
    let owned = place.own();
    let table = owned.create(FIRST, 4 * MIB).unwrap();
    assert_eq!(table.as_ref().len(), 4 * 1024 * 1024 / 8);
    assert_eq!(table.as_ref().as_ptr().addr() % HUGE_PAGE_BYTES, 0);
    assert!(
        table
            .as_ref()
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    );
    let seen = place.shared().map(FIRST).unwrap();
    assert_eq!(seen.as_ref().as_ptr().addr() % HUGE_PAGE_BYTES, 0);
    let last = table.as_ref().len() - 1;
    table.as_ref()[last].store(42, Ordering::Release);
    assert_eq!((load(&seen, last), seen.as_ref().len()), (42, last + 1));
    drop(table);
    assert_eq!(load(&owned.map(FIRST).unwrap(), last), 42);
}

#[test]
fn one_owner_at_a_time() {
    let place = Place::new("lock");
    let owned = place.own();
    let second = OwnedFolder::lock(&place.path);
    assert!(
        matches!(second, Err(LockFolderError::Owned(_))),
        "{second:?}"
    );
    drop(owned);
    place.own();
    let missing = OwnedFolder::lock(&place.path.join("missing"));
    assert!(
        matches!(missing, Err(LockFolderError::Io { .. })),
        "{missing:?}"
    );
}

#[test]
fn the_control_region_is_not_there_before_it_is_made_and_stays_the_locked_file() {
    let place = Place::new("control");
    let owned = place.own();
    let kind = |result: io::Result<Mapping>| result.map(|_| ()).unwrap_err().kind();
    assert_eq!(
        kind(owned.map(RegionName::Control)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(place.shared().map(RegionName::Control)),
        io::ErrorKind::NotFound
    );
    let control = owned.create(RegionName::Control, 4096).unwrap();
    control.as_ref()[511].store(7, Ordering::Release);
    assert_eq!(
        load(&place.shared().map(RegionName::Control).unwrap(), 511),
        7
    );
    assert!(OwnedFolder::lock(&place.path).is_err());
    drop((owned, control));
    let again = place.own();
    assert_eq!(load(&again.map(RegionName::Control).unwrap(), 511), 7);
}

#[test]
fn a_discarded_table_gives_its_memory_back_though_it_is_mapped() {
    let Some(place) = Place::mounted("discard", "size=8m") else {
        return;
    };
    let owned = place.own();
    let before = place.free_bytes();
    let table = owned.create(FIRST, 6 * MIB).unwrap();
    table.as_ref()[9].store(1, Ordering::Release);
    let seen = place.shared().map(FIRST).unwrap();
    assert_eq!(
        before - place.free_bytes(),
        6 * MIB,
        "all memory is there at once"
    );
    owned.discard(FIRST).unwrap();
    assert_eq!(place.free_bytes(), before);
    assert_eq!((load(&table, 9), load(&seen, 9)), (0, 0));
    assert_eq!(
        owned.discard(FIRST).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        owned.map(FIRST).map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn without_room_nothing_is_made_and_what_is_there_can_still_be_written() {
    let Some(place) = Place::mounted("full", "size=8m") else {
        return;
    };
    let owned = place.own();
    let second = RegionName::Table(Generation(2));
    let table = owned.create(FIRST, 4 * MIB).unwrap();
    let refused = owned.create(second, 6 * MIB).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
    assert!(!owned.file(second).exists());
    // Now to the last page: a store into a hole would end this process with SIGBUS.
    let rest = place.free_bytes();
    fs::write(
        place.path.join("filler"),
        vec![1; usize::try_from(rest).unwrap()],
    )
    .unwrap();
    assert_eq!(place.free_bytes(), 0);
    for word in table.as_ref() {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    let seen = place.shared().map(FIRST).unwrap();
    assert!(
        seen.as_ref()
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == u64::MAX)
    );
    let control = owned
        .create(RegionName::Control, 4096)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(control.kind(), io::ErrorKind::StorageFull, "{control}");
}

#[test]
fn a_table_with_a_hole_is_not_written_where_there_is_no_room_for_it() {
    let Some(place) = Place::mounted("hole", "size=8m") else {
        return;
    };
    let owned = place.own();
    let file = File::create(owned.file(FIRST)).unwrap();
    file.set_len(4 * MIB).unwrap();
    let rest = usize::try_from(place.free_bytes() - MIB).unwrap();
    fs::write(place.path.join("filler"), vec![1; rest]).unwrap();
    let refused = owned.map(FIRST).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
    fs::remove_file(place.path.join("filler")).unwrap();
    let mapped = owned.map(FIRST).unwrap();
    for word in mapped.as_ref() {
        word.store(1, Ordering::Relaxed);
    }
}

#[test]
fn a_table_without_room_takes_none_while_it_is_refused() {
    let Some(place) = Place::mounted("refused", "size=8m") else {
        return;
    };
    let owned = place.own();
    let kept = place.shared();
    let refused = owned.create(FIRST, 1 << 40).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
    // Not even its file was made, so no page of it was.
    let missing = kept.map(FIRST).map(|_| ()).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{missing}");
}

#[test]
fn a_mount_that_offers_huge_pages_gives_them() {
    let Some(place) = Place::mounted("huge", "size=16m,huge=advise") else {
        return;
    };
    let table = place.own().create(FIRST, 4 * MIB).unwrap();
    let start = format!("{:x}-", table.as_ref().as_ptr().addr());
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = maps.lines().skip_while(|line| !line.starts_with(&start));
    let huge = ours
        .skip(1)
        .find(|line| line.starts_with("ShmemPmdMapped:"))
        .unwrap();
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap();
    if enabled.contains("[never]") {
        eprintln!("ignored: needs transparent huge pages, which this machine has switched off");
        return;
    }
    assert_eq!(huge.split_whitespace().nth(1), Some("4096"), "{huge}");
}

#[test]
fn a_new_table_gets_its_memory_in_slices_if_its_owner_asks_for_that() {
    let Some(place) = Place::mounted("slices", "size=16m") else {
        return;
    };
    let owned = place.own().in_slices();
    let before = place.free_bytes();
    let table = owned.create(FIRST, 8 * MIB).unwrap();
    let mut taken = vec![before - place.free_bytes()];
    while !table.populate(1).unwrap() {
        taken.push(before - place.free_bytes());
    }
    taken.push(before - place.free_bytes());
    let expected: Vec<_> = (1..=4).map(|slices| slices * 2 * MIB).collect();
    assert_eq!(taken, expected);
    for word in table.as_ref() {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    // Somebody else takes the rest meanwhile: an error, never a signal.
    let second = RegionName::Table(Generation(2));
    let table = owned.create(second, 6 * MIB).unwrap();
    let rest = usize::try_from(place.free_bytes() - MIB).unwrap();
    fs::write(place.path.join("filler"), vec![1; rest]).unwrap();
    let refused = table.populate(usize::MAX).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
}

#[test]
fn memory_that_is_given_back_aside_is_there_for_the_next_table() {
    let Some(place) = Place::mounted("aside", "size=48m") else {
        return;
    };
    let owned = place.own().in_slices();
    for generation in 1..=4 {
        let name = RegionName::Table(Generation(generation));
        let table = owned.create(name, 40 * MIB).unwrap();
        while !table.populate(8 << 20).unwrap() {}
        let seen = place.shared().map(name).unwrap();
        table.as_ref()[9].store(1, Ordering::Release);
        owned.discard(name).unwrap();
        assert!(!owned.file(name).exists());
        owned.giving.wait();
        assert_eq!((load(&table, 9), load(&seen, 9)), (0, 0));
        let again = owned.create(name, 40 * MIB).unwrap();
        while !again.populate(8 << 20).unwrap() {}
        owned.discard(name).unwrap();
    }
}
