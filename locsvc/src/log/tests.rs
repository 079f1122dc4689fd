//! Recovery at every byte, damage, full and failing disks, reading back.

mod power_cut;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use locus_distribution::LogFrame;
use locus_proto::{
    AddressOfRecord, Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level,
    MasterTime, Message, Position, Root,
};

use super::entry::ENVELOPE_BYTES;
use super::*;

const SMALL: LogConfig = LogConfig {
    segment_bytes_max: 1000,
    tail_bytes_max: 600,
};

fn epoch_after(end: Position) -> Frame {
    let counter = end.epoch.counter + 1;
    let id = EpochId([u8::try_from(counter).unwrap(); 16]);
    frame(end, Epoch { counter, id }, 0)
}

fn changes_after(end: Position, count: u64) -> Frame {
    frame(end, end.epoch, count)
}

/// A frame of `count` changes behind `end`; an epoch's first frame if there is none.
fn frame(end: Position, epoch: Epoch, count: u64) -> Frame {
    let to = end.level.plus(count);
    let change = |number: u64| Change {
        key: Key::aor(&AddressOfRecord::parse(&format!("u{number}@x")).unwrap()),
        level: Level(number),
        op: ChangeOp::Put(vec![b'v'; 40]),
    };
    let header = FrameHeader {
        kind: if count == 0 {
            FrameKind::Epoch
        } else {
            FrameKind::Changes
        },
        shard: 0,
        epoch,
        from: end.level,
        to,
        root_before: end.root,
        root_after: end.root.plus(Root([count, count])),
        time: MasterTime(7),
    };
    let changes = (end.level.0 + 1..=to.0).map(change).collect();
    Frame { header, changes }
}

fn log_frame(frame: &Frame) -> LogFrame {
    LogFrame {
        header: frame.header,
        message: Message::Frame(frame.clone()).to_bytes().into(),
    }
}

fn open<F: Folder>(
    folder: F,
    config: LogConfig,
) -> Result<(Log<F>, Recovered, Vec<Frame>), OpenLogError> {
    let mut frames = Vec::new();
    let (log, recovered) = Log::open(folder, config, |frame| {
        frames.push(frame);
        Ok::<(), Infallible>(())
    })?;
    Ok((log, recovered, frames))
}

/// Appends an epoch and `batches` batches of one to three changes; returns all frames.
fn fill<F: Folder>(log: &mut Log<F>, batches: u64) -> Vec<Frame> {
    let mut frames = vec![epoch_after(log.end())];
    log.append(log_frame(&frames[0])).unwrap();
    for number in 0..batches {
        let frame = changes_after(log.end(), number % 3 + 1);
        log.append(log_frame(&frame)).unwrap();
        frames.push(frame);
    }
    frames
}

fn sorted_names(folder: &MemoryFolder) -> Vec<String> {
    let mut names = folder.names().unwrap();
    names.sort();
    names
}

#[test]
fn reopens_to_what_was_appended_over_segments_and_epochs() {
    let folder = MemoryFolder::default();
    let (mut log, recovered, _) = open(folder.clone(), SMALL).unwrap();
    assert_eq!(recovered, Recovered::default());
    let mut expected = fill(&mut log, 20);
    for _ in 0..3 {
        let (mut log, recovered, frames) = open(folder.clone(), SMALL).unwrap();
        assert_eq!(frames, expected);
        let count = u64::try_from(expected.len()).unwrap();
        assert_eq!((recovered.entries, recovered.bytes), (count, log.bytes()));
        assert_eq!(recovered.end, expected.last().unwrap().header.after());
        expected.extend(fill(&mut log, 5));
    }
    let names = sorted_names(&folder);
    assert!(names.len() > 5, "{names:?}");
    assert_eq!(names[0], "log.00000000000000000000");
    for name in &names {
        assert!(
            folder.open(name).unwrap().size().unwrap() <= SMALL.segment_bytes_max,
            "{name}"
        );
    }
}

/// One segment of four entries, and where each begins.
fn four_entries() -> (MemoryFolder, String, Vec<usize>) {
    let folder = MemoryFolder::default();
    let (mut log, _, _) = open(folder.clone(), LogConfig::default()).unwrap();
    let mut starts = vec![0];
    for frame in fill(&mut log, 3) {
        let size = ENVELOPE_BYTES + Message::Frame(frame).to_bytes().len()
            - locus_proto::v1::ENVELOPE_BYTES;
        starts.push(starts.last().unwrap() + size);
    }
    let name = sorted_names(&folder).remove(0);
    assert_eq!(starts[4], folder.open(&name).unwrap().bytes().len());
    (folder, name, starts)
}

#[test]
fn a_write_cut_short_at_any_byte_loses_nothing_before_it() {
    let (folder, name, starts) = four_entries();
    let whole = folder.open(&name).unwrap().bytes().clone();
    for len in 0..=whole.len() {
        for garbage in [0, 200] {
            let file = folder.open(&name).unwrap();
            *file.bytes() = whole[..len].to_vec();
            // A power cut may leave the length of a write but not its bytes.
            file.bytes().resize(len + garbage, 0);
            let found = file.bytes().clone();
            let (mut log, recovered, frames) = open(folder.clone(), LogConfig::default()).unwrap();
            // Missing zeros that come back as zeros are not missing.
            let is_whole = |start: &&usize| found.starts_with(&whole[..**start]);
            let entries = starts.iter().filter(is_whole).count() - 1;
            assert_eq!(frames.len(), entries, "cut at {len}, {garbage} zeros");
            let torn = len + garbage != starts[entries];
            assert_eq!(
                recovered.torn.is_some(),
                torn,
                "cut at {len}, {garbage} zeros"
            );
            assert_eq!(file.bytes().len(), starts[entries]);
            // The log goes on behind what was left.
            let next = if entries == 0 {
                epoch_after(log.end())
            } else {
                changes_after(log.end(), 2)
            };
            log.append(log_frame(&next)).unwrap();
            let (_, recovered, frames) = open(folder.clone(), LogConfig::default()).unwrap();
            assert_eq!((frames.len(), recovered.torn), (entries + 1, None));
        }
    }
}

#[test]
fn damage_before_a_whole_entry_refuses_to_start() {
    let (folder, name, starts) = four_entries();
    let whole = folder.open(&name).unwrap().bytes().clone();
    for at in 0..whole.len() {
        let file = folder.open(&name).unwrap();
        *file.bytes() = whole.clone();
        file.bytes()[at] ^= 0x40;
        let entry = starts.iter().rposition(|start| *start <= at).unwrap();
        let opened = open(folder.clone(), LogConfig::default());
        if entry == 3 {
            let (_, recovered, frames) = opened.unwrap();
            assert_eq!(frames.len(), 3, "byte {at}");
            assert!(recovered.torn.is_some(), "byte {at}");
        } else {
            let error = opened.unwrap_err();
            let text = error.to_string();
            let offset = starts[entry];
            assert!(
                text.contains(&format!("damaged in {name} at byte {offset}:")),
                "{at}: {text}"
            );
            assert!(
                text.contains("restore the data folder from a copy"),
                "{text}"
            );
            let damaged = *file.bytes() != whole && file.bytes().len() == whole.len();
            assert!(damaged, "a refused log is left as it is");
        }
    }
}

#[test]
fn segments_that_are_missing_or_cut_refuse_to_start() {
    let folder = MemoryFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    fill(&mut log, 20);
    let names = sorted_names(&folder);
    let without = |missing: usize| {
        let copy = MemoryFolder::default();
        for (at, name) in names.iter().enumerate() {
            if at != missing {
                let bytes = folder.open(name).unwrap().bytes().clone();
                *copy.create(name).unwrap().bytes() = bytes;
            }
        }
        copy
    };
    let error = open(without(0), SMALL).unwrap_err();
    assert!(matches!(error, OpenLogError::NoBeginning { .. }), "{error}");
    for missing in 1..names.len() - 1 {
        let error = open(without(missing), SMALL).unwrap_err();
        let chain = EntryError::Chain;
        assert!(
            matches!(&error, OpenLogError::Damaged { source, .. } if *source == chain),
            "{error}"
        );
    }
    // A torn end of a segment that has a successor is damage: the successor was begun behind it.
    let cut = without(usize::MAX);
    cut.open(&names[1]).unwrap().bytes().pop();
    let error = open(cut, SMALL).unwrap_err();
    assert!(matches!(error, OpenLogError::Damaged { .. }), "{error}");
    // An empty last segment is what a death between its making and its first entry leaves.
    let begun = without(usize::MAX);
    begun.create(&segment_name(log.end().level.0)).unwrap();
    let (mut log, _, _) = open(begun, SMALL).unwrap();
    log.append(log_frame(&changes_after(log.end(), 1))).unwrap();
}

#[test]
fn frames_that_do_not_follow_refuse_to_start() {
    let end = epoch_after(Position::default()).header.after();
    type Spoil = fn(&mut Frame);
    let spoil: [(&str, Spoil); 4] = [
        ("its level", |f| f.header.from = Level(9)),
        ("its epoch", |f| f.header.epoch.counter += 1),
        ("its epoch", |f| f.header.epoch.id = EpochId([9; 16])),
        ("its root", |f| f.header.root_before = Root([9, 9])),
    ];
    for (what, spoil) in spoil {
        let folder = MemoryFolder::default();
        let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
        log.append(log_frame(&epoch_after(Position::default())))
            .unwrap();
        let mut bad = changes_after(end, 20);
        bad.changes.drain(..10);
        spoil(&mut bad);
        log.append(log_frame(&bad)).unwrap();
        let error = open(folder, SMALL).unwrap_err();
        let expected = EntryError::Discontinuous(what);
        let found = matches!(&error, OpenLogError::Damaged { source, .. } if *source == expected);
        assert!(found, "{what}: {error}");
    }
}

#[test]
fn a_state_that_refuses_a_frame_is_named_with_its_place() {
    let (folder, name, starts) = four_entries();
    let mut seen = 0;
    let error = Log::open(folder, LogConfig::default(), |_| {
        seen += 1;
        if seen == 3 { Err("too small") } else { Ok(()) }
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("{name} at byte {}", starts[2])),
        "{text}"
    );
    assert!(text.contains("too small"), "{text}");
}

/// What goes wrong next.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// A write takes only so many bytes …
    write_takes: Option<usize>,
    /// … and says so, or fails.
    write_fails: bool,
    sync_fails: bool,
    truncate_fails: bool,
    create_fails: bool,
    folder_sync_fails: bool,
}

#[derive(Debug, Clone, Default)]
struct FaultyFolder {
    inner: MemoryFolder,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct FaultyFile {
    inner: MemoryFile,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyFolder {
    fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    fn wrap(&self, inner: MemoryFile) -> FaultyFile {
        let faults = Arc::clone(&self.faults);
        FaultyFile { inner, faults }
    }
}

fn fault(fails: bool, kind: ErrorKind) -> io::Result<()> {
    if fails { Err(kind.into()) } else { Ok(()) }
}

impl Folder for FaultyFolder {
    type File = FaultyFile;

    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        fault(
            self.faults.lock().unwrap().create_fails,
            ErrorKind::StorageFull,
        )?;
        self.inner.create(name).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        self.inner.open(name).map(|file| self.wrap(file))
    }

    fn sync(&self) -> io::Result<()> {
        fault(
            self.faults.lock().unwrap().folder_sync_fails,
            ErrorKind::Other,
        )
    }
}

impl SegmentFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let faults = *self.faults.lock().unwrap();
        let len = faults.write_takes.unwrap_or(bytes.len()).min(bytes.len());
        self.inner.write_at(&bytes[..len], offset)?;
        fault(faults.write_fails, ErrorKind::StorageFull)?;
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        fault(self.faults.lock().unwrap().sync_fails, ErrorKind::Other)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        fault(self.faults.lock().unwrap().truncate_fails, ErrorKind::Other)?;
        self.inner.truncate(size)
    }
}

#[test]
fn a_full_disk_refuses_the_batch_and_leaves_the_log_as_it_was() {
    let folder = FaultyFolder::default();
    let (mut log, _, _) = open(folder.clone(), LogConfig::default()).unwrap();
    let mut expected = fill(&mut log, 2);
    let next = changes_after(log.end(), 2);
    let size = Message::Frame(next.clone()).to_bytes().len() + ENVELOPE_BYTES;
    for takes in 0..size {
        for fails in [false, true] {
            folder.set(Faults {
                write_takes: Some(takes),
                write_fails: fails,
                ..Faults::default()
            });
            let before = (log.end(), log.bytes());
            let refused = log.append(log_frame(&next));
            if takes >= size - locus_proto::v1::ENVELOPE_BYTES && !fails {
                // Not short any more: it was accepted, and the loop goes on behind it.
                refused.unwrap();
                expected.push(next);
                folder.set(Faults::default());
                let (_, recovered, frames) = open(folder, LogConfig::default()).unwrap();
                assert_eq!((frames, recovered.torn), (expected, None));
                return;
            }
            assert!(
                matches!(refused, Err(AppendError::Refused(_))),
                "{takes}: {refused:?}"
            );
            assert_eq!((log.end(), log.bytes()), before);
            let (_, recovered, frames) = open(folder.inner.clone(), LogConfig::default()).unwrap();
            assert_eq!(
                (frames, recovered.torn),
                (expected.clone(), None),
                "{takes}"
            );
        }
    }
    panic!("a write that takes all bytes is accepted");
}

#[test]
fn room_again_after_a_full_disk_also_at_a_new_segment() {
    let folder = FaultyFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    let mut expected = fill(&mut log, 3);
    for round in 0..30 {
        let frame = changes_after(log.end(), 3);
        let fault = if round % 2 == 0 {
            Faults {
                create_fails: true,
                write_fails: true,
                ..Faults::default()
            }
        } else {
            Faults {
                write_takes: Some(10),
                ..Faults::default()
            }
        };
        folder.set(fault);
        let refused = log.append(log_frame(&frame));
        assert!(
            matches!(refused, Err(AppendError::Refused(_))),
            "{refused:?}"
        );
        folder.set(Faults::default());
        log.append(log_frame(&frame)).unwrap();
        expected.push(frame);
    }
    let (_, _, frames) = open(folder, SMALL).unwrap();
    assert_eq!(frames, expected);
}

#[test]
fn what_cannot_be_told_poisons_the_log_for_good() {
    let faults = [
        Faults {
            sync_fails: true,
            ..Faults::default()
        },
        Faults {
            write_takes: Some(5),
            truncate_fails: true,
            ..Faults::default()
        },
        Faults {
            folder_sync_fails: true,
            ..Faults::default()
        },
    ];
    for fault in faults {
        let folder = FaultyFolder::default();
        let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
        if !fault.folder_sync_fails {
            log.append(log_frame(&epoch_after(log.end()))).unwrap();
        }
        folder.set(fault);
        let frame = if log.end().epoch.counter == 0 {
            epoch_after(log.end())
        } else {
            changes_after(log.end(), 1)
        };
        let error = log.append(log_frame(&frame)).unwrap_err();
        assert!(matches!(error, AppendError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("stopping"), "{error}");
        // A disk that seems well again changes nothing: what it forgot stays forgotten.
        folder.set(Faults::default());
        let error = log.append(log_frame(&frame)).unwrap_err();
        assert!(matches!(error, AppendError::Poisoned { .. }), "{error}");
    }
}

#[test]
fn reads_on_from_every_position_in_memory_and_from_files() {
    let folder = MemoryFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    let mut frames = fill(&mut log, 12);
    frames.extend(fill(&mut log, 12));
    let (reopened, _, _) = open(folder, SMALL).unwrap();
    let mut position = Position::default();
    for at in 0..=frames.len() {
        for (log, bytes_max) in [(&log, 1), (&log, 700), (&log, 1 << 20), (&reopened, 700)] {
            let found = log.read(position, bytes_max).unwrap();
            let expected: Vec<LogFrame> = frames[at..].iter().map(log_frame).collect();
            assert_eq!(found, expected[..found.len()], "{at}, {bytes_max}");
            assert_eq!(found.is_empty(), at == frames.len(), "{at}, {bytes_max}");
            let bytes: usize = found.iter().map(|frame| frame.message.len()).sum();
            assert!(
                bytes <= bytes_max || found.len() == 1,
                "{at}, {bytes_max}: {bytes}"
            );
            let more = expected
                .get(found.len())
                .map(|frame| bytes + frame.message.len());
            assert!(
                more.is_none_or(|more| more > bytes_max),
                "{at}, {bytes_max}: {bytes}"
            );
        }
        if let Some(frame) = frames.get(at) {
            position = frame.header.after();
        }
    }
}

#[test]
fn damage_that_comes_later_is_seen_by_the_reader() {
    let folder = MemoryFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    fill(&mut log, 20);
    let name = sorted_names(&folder).remove(0);
    folder.open(&name).unwrap().bytes()[130] ^= 1;
    let error = log.read(Position::default(), 1 << 20).unwrap_err();
    assert!(
        matches!(error, ReadLogError::Damaged { offset: 108, .. }),
        "{error:?}"
    );
}

#[test]
fn only_segments_are_segments() {
    assert_eq!(segment_level("log.00000000000000000042"), Some(42));
    for name in [
        "log.42",
        "log.0000000000000000004x",
        "meta",
        "log.+0000000000000000042",
    ] {
        assert_eq!(segment_level(name), None, "{name}");
    }
    assert_eq!(segment_level(&segment_name(u64::MAX)), Some(u64::MAX));
}

#[test]
fn the_end_is_read_from_the_disk() {
    let folder = MemoryFolder::default();
    let (mut log, _, _) = open(folder.clone(), SMALL).unwrap();
    let nothing = log.read_end();
    assert!(
        matches!(nothing, Err(ReadLogError::Io { .. })),
        "{nothing:?}"
    );
    for _ in 0..30 {
        fill(&mut log, 1);
        assert_eq!(log.read_end().unwrap(), log.end());
    }
    let (log, _, _) = open(folder.clone(), SMALL).unwrap();
    assert_eq!(log.read_end().unwrap(), log.end());
    // A segment whose first frame was refused holds none.
    let name = log.segment_name();
    folder.create(&name).unwrap();
    let (log, _, _) = open(folder.clone(), SMALL).unwrap();
    assert_eq!(log.read_end().unwrap(), log.end());
    // What is kept in memory does not count.
    let newest = sorted_names(&folder).into_iter().rev().nth(1).unwrap();
    let file = folder.open(&newest).unwrap();
    let last = file.bytes().len() - 1;
    file.bytes()[last] ^= 1;
    let damaged = log.read_end();
    assert!(
        matches!(damaged, Err(ReadLogError::Damaged { .. })),
        "{damaged:?}"
    );
}

/// With the product's sizes: more than one mark of the index, and the newest of them counts.
#[test]
fn the_end_of_a_long_segment_is_read_from_its_last_mark() {
    let (mut log, _, _) = open(MemoryFolder::default(), LogConfig::default()).unwrap();
    fill(&mut log, 2_000);
    assert!(log.bytes() > 200_000, "{}", log.bytes());
    assert_eq!(log.read_end().unwrap(), log.end());
}
