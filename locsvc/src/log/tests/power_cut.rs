//! What a power cut leaves after a process that died at an unlucky moment and one that came after it.

use std::collections::BTreeMap;

use super::*;

/// A folder as Linux keeps it: what is written is read back at once, and survives a power cut only after
/// a sync. A sync that fails forgets that there was something to write.
#[derive(Debug, Clone, Default)]
struct CachedFolder {
    cache: MemoryFolder,
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What a power cut leaves of each file, if its name is left.
    files: BTreeMap<String, Vec<u8>>,
    names: Vec<String>,
    /// What happens to the next syncs.
    sync: Sync,
}

#[derive(Debug, Clone, Copy, Default)]
enum Sync {
    #[default]
    Works,
    /// The process is killed before it.
    Never,
    Fails,
}

#[derive(Debug)]
struct CachedFile {
    name: String,
    cache: MemoryFile,
    dirty: bool,
    disk: Arc<Mutex<Disk>>,
}

impl CachedFolder {
    fn wrap(&self, name: &str, cache: MemoryFile) -> CachedFile {
        CachedFile {
            name: name.to_owned(),
            cache,
            dirty: false,
            disk: Arc::clone(&self.disk),
        }
    }

    fn set_sync(&self, sync: Sync) {
        self.disk.lock().unwrap().sync = sync;
    }

    /// Returns what is there when the power comes back.
    fn cut_power(&self) -> Self {
        let left = Self::default();
        let mut disk = self.disk.lock().unwrap();
        for name in std::mem::take(&mut disk.names) {
            let bytes = disk.files.remove(&name).unwrap_or_default();
            *left.create(&name).unwrap().cache.bytes() = bytes;
        }
        left
    }
}

impl Folder for CachedFolder {
    type File = CachedFile;

    fn names(&self) -> io::Result<Vec<String>> {
        self.cache.names()
    }

    fn create(&self, name: &str) -> io::Result<CachedFile> {
        self.cache.create(name).map(|file| self.wrap(name, file))
    }

    fn open(&self, name: &str) -> io::Result<CachedFile> {
        self.cache.open(name).map(|file| self.wrap(name, file))
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        fault(!matches!(disk.sync, Sync::Works), ErrorKind::Other)?;
        disk.names = self.cache.names()?;
        Ok(())
    }
}

impl SegmentFile for CachedFile {
    fn size(&self) -> io::Result<u64> {
        self.cache.size()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.cache.read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.dirty = true;
        self.cache.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let dirty = match disk.sync {
            Sync::Works | Sync::Fails => std::mem::take(&mut self.dirty),
            Sync::Never => false,
        };
        fault(!matches!(disk.sync, Sync::Works), ErrorKind::Other)?;
        if dirty {
            let bytes = self.cache.bytes().clone();
            disk.files.insert(self.name.clone(), bytes);
        }
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.dirty = true;
        self.cache.truncate(size)
    }
}

/// One life: an epoch, and one batch that is acknowledged; returns all frames of the log.
fn live(folder: &CachedFolder, config: LogConfig) -> Vec<Frame> {
    let (mut log, _, mut frames) = open(folder.clone(), config).unwrap();
    frames.extend(fill(&mut log, 1));
    frames
}

#[test]
fn an_entry_whose_sync_nobody_saw_is_made_durable_before_it_is_used() {
    // The second life finds it in the cache, tells nodes of it, and goes on in the same segment or the next.
    for segment_bytes_max in [1, 1 << 20] {
        for sync in [Sync::Never, Sync::Fails] {
            let config = LogConfig {
                segment_bytes_max,
                ..SMALL
            };
            let folder = CachedFolder::default();
            let (mut log, _, mut expected) = open(folder.clone(), config).unwrap();
            expected.extend(fill(&mut log, 3));
            let last = changes_after(log.end(), 1);
            if segment_bytes_max == 1 {
                // Its segment is there already: only the entry itself is in doubt.
                let name = segment_name(log.end().level.0);
                log.current = Some(folder.create(&name).unwrap());
                folder.sync().unwrap();
                log.current_bytes = 0;
                let base = log.index.end();
                log.segments.push(Segment { name, base });
            }
            folder.set_sync(sync);
            log.append(log_frame(&last)).unwrap_err();
            drop(log);
            folder.set_sync(Sync::Works);
            let seen = live(&folder, config);
            assert!(seen.contains(&last), "{sync:?}: it is in the cache");
            let (_, recovered, frames) = open(folder.cut_power(), config).unwrap();
            assert_eq!(
                (frames, recovered.torn),
                (seen, None),
                "{sync:?}, {segment_bytes_max}"
            );
        }
    }
}

#[test]
fn a_segment_whose_making_nobody_saw_is_made_durable_before_it_is_used() {
    let folder = CachedFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    fill(&mut log, 3);
    while log.current_bytes + 200 <= SMALL.segment_bytes_max {
        log.append(log_frame(&changes_after(log.end(), 1))).unwrap();
    }
    folder.set_sync(Sync::Never);
    log.append(log_frame(&changes_after(log.end(), 3)))
        .unwrap_err();
    drop(log);
    folder.set_sync(Sync::Works);
    let seen = live(&folder, SMALL);
    let (_, _, frames) = open(folder.cut_power(), SMALL).unwrap();
    assert_eq!(frames, seen);
}
