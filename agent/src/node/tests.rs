//! The table's owner on the heap: audit, repair and growth beside a model of the master's table.

mod snapshot;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use locus_proto::{
    Binding, Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Level, MasterTime,
    Position, Root,
};
use locus_table::{HeapMemory, HeapRegions, MapRegions, RegionName, ScanCursor, TableKey};

use super::*;

const KEY: [u8; 16] = [7; 16];
const EPOCH: Epoch = Epoch {
    counter: 1,
    id: EpochId([9; 16]),
};
const NOW: Timestamp = Timestamp(5_000_000_000);

impl Populate for HeapMemory {
    fn populate(&self, _: usize) -> io::Result<bool> {
        Ok(true)
    }
}

/// The master's table and a node that follows it.
struct Bench {
    regions: HeapRegions,
    node: Node<HeapRegions>,
    master: Writer<HeapMemory>,
}

fn config(records_max: u64) -> Config {
    let text = format!(
        "cluster = \"lab\"\nnode = \"n1\"\nnode_id = 1\nlocsvc = [\"127.0.0.1:1\"]\nfolder = \"/nonexistent\"\n\
         records_max = {records_max}\nrecord_bytes_mean = 128\n"
    );
    Config::parse(Path::new("agent.toml"), &text).unwrap()
}

fn put(n: u64, level: u64, uri: &str) -> Change {
    let record = AorRecord {
        bindings: vec![Binding::permanent(uri)],
    };
    Change {
        key: Key::aor(&format!("u{n}@example.net").parse().unwrap()),
        level: Level(level),
        op: ChangeOp::Put(record.encode()),
    }
}

/// The text in the value of `u<n>`, found nowhere else in memory.
fn uri(n: u64) -> String {
    format!("sip:{}@192.0.2.1", format!("{n:07}-").repeat(4))
}

impl Bench {
    /// A node with the records `u0` to `u<records - 1>` at level 10.
    fn new(records: u64, records_max: u64) -> Self {
        let geometry = Geometry::for_records(100_000, 1000);
        let memory = HeapMemory::zeroed(geometry.file_bytes());
        let mut master = Writer::create(memory, geometry, TableKey(KEY)).unwrap();
        let changes: Vec<_> = (0..records).map(|n| put(n, 10, &uri(n))).collect();
        master.load(&changes).unwrap();
        let sums = master.reader().group_sums();
        let position = Position {
            epoch: EPOCH,
            level: Level(10),
            root: sums.into_iter().fold(Root::EMPTY, Root::plus),
        };
        master.finish_load(position).unwrap();
        let regions = HeapRegions::new();
        let (mut node, events) = Node::over(regions.clone(), &config(records_max)).unwrap();
        assert_eq!(events, []);
        // So that it is as small as is asked for, it is loaded empty and filled by frames.
        node.begin_load(KEY, 0, 0).unwrap();
        assert_eq!(node.load(&changes), None);
        assert_eq!(node.finish_load(position).unwrap().records, records);
        Self {
            regions,
            node,
            master,
        }
    }

    /// Commits changes to the master's table and returns their frame.
    fn commit(&mut self, changes: Vec<Change>) -> Frame {
        let from = self.master.position();
        let prepared = self.master.prepare(&changes).unwrap();
        let header = FrameHeader {
            kind: FrameKind::Changes,
            shard: 0,
            epoch: EPOCH,
            from: from.level,
            to: changes.last().unwrap().level,
            root_before: from.root,
            root_after: prepared.root_after(),
            time: MasterTime(0),
        };
        self.master.commit(prepared, &changes, header.after());
        Frame { header, changes }
    }

    /// Commits puts of these records, and returns their frame.
    fn puts(&mut self, records: std::ops::Range<u64>, uri: &str) -> Frame {
        let level = self.master.position().level.0 + 1;
        let change = |(n, level)| put(n, level, uri);
        self.commit(records.zip(level..).map(change).collect())
    }

    fn apply(&mut self, frame: &Frame) -> Result<Standing, Failure> {
        self.node.apply(NOW, frame, true)
    }

    /// Overwrites the record `u<n>` behind the writer's back and returns its partition.
    fn ruin(&self, n: u64) -> u16 {
        let generation = self.node.folder.current().unwrap();
        let memory = self.regions.map(RegionName::Table(generation)).unwrap();
        let text = *uri(n).as_bytes()[4..].first_chunk().unwrap();
        let text = u64::from_le_bytes(text);
        let words: &[AtomicU64] = memory.as_ref();
        let holds = |word: &AtomicU64| {
            let word = word.load(Ordering::Relaxed);
            (0..8).any(|bytes| word == text.rotate_right(bytes * 8))
        };
        let at = words
            .windows(2)
            .position(|pair| pair.iter().all(holds))
            .unwrap();
        words[at].fetch_xor(0x40, Ordering::Relaxed);
        self.master.partition_of(put(n, 0, "").key.as_bytes())
    }

    fn compare(&mut self, group: Option<u8>) -> Vec<u8> {
        let reader = self.master.reader();
        let sums = match group {
            None => reader.group_sums(),
            Some(group) => reader.partition_sums(group),
        };
        self.node.compare(group, &sums).unwrap()
    }

    fn mend(&mut self, partition: u16, repair: bool) -> locus_distribution::Mended {
        let (mut records, mut buffer) = (Vec::new(), RecordBuffer::new());
        let reader = self.master.reader();
        reader
            .partition_records(partition, &mut buffer, &mut records)
            .unwrap();
        self.node.mend(NOW, partition, &records, repair).unwrap()
    }

    fn assert_equal(&self) {
        let all = |reader: &dyn Fn(ScanCursor, &mut Vec<Change>) -> Option<ScanCursor>| {
            let (mut out, mut cursor) = (Vec::new(), Some(ScanCursor::START));
            while let Some(at) = cursor {
                cursor = reader(at, &mut out);
            }
            out.sort_by(|a, b| a.key.cmp(&b.key));
            out
        };
        let table = self.node.table.as_ref().unwrap();
        let scan = |writer: &Writer<HeapMemory>| {
            all(&|at, out| {
                writer
                    .reader()
                    .scan(at, 1 << 20, &mut RecordBuffer::new(), out)
                    .unwrap()
            })
        };
        assert_eq!(scan(table), scan(&self.master));
        assert_eq!(table.position(), self.master.position());
    }

    /// Works until there is nothing to do; returns the slices.
    fn work(&mut self) -> u32 {
        for slice in 0..10_000 {
            if !self.node.has_work(NOW) {
                return slice;
            }
            assert_eq!(self.node.work(NOW), None);
        }
        panic!("work without an end")
    }
}

#[test]
fn memory_that_contradicts_its_sum_differs_once_it_is_doubted_and_is_mended() {
    let mut bench = Bench::new(500, 1000);
    let partition = bench.ruin(77);
    let (group, index) = (partition >> 8, partition & 0xff);
    let (group, index) = (u8::try_from(group).unwrap(), u8::try_from(index).unwrap());
    assert_eq!(
        bench.compare(None),
        [0_u8; 0],
        "the sums are as they were written"
    );
    bench.node.doubt(NOW, partition);
    assert_eq!(bench.node.doubted_total(), 1);
    assert_eq!(bench.compare(None), [group]);
    assert_eq!(bench.compare(Some(group)), [index]);
    let counted = bench.mend(partition, false);
    assert_eq!((counted.differing, counted.repaired), (1, 0));
    assert_eq!(bench.compare(None), [group], "counting mends nothing");
    let mended = bench.mend(partition, true);
    assert_eq!((mended.differing, mended.repaired), (1, 1));
    assert_eq!(mended.standing.position, bench.master.position());
    assert_eq!(bench.compare(None), [0_u8; 0]);
    bench.assert_equal();
}

#[test]
fn a_doubt_without_reason_is_forgotten_and_many_cost_no_reading() {
    let mut bench = Bench::new(500, 1000);
    for partition in [3, 4, 5, 65535] {
        bench.node.doubt(NOW, partition);
    }
    assert_eq!(bench.compare(None), [0_u8; 0]);
    assert_eq!(bench.node.doubted, BTreeSet::new());
    (0..4000).for_each(|partition| bench.node.doubt(NOW, partition));
    let groups: Vec<u8> = (0..16).collect();
    assert_eq!(bench.compare(None), groups, "so many are loaded anew");
}

#[test]
fn a_frame_for_other_content_puts_its_keys_in_doubt_and_can_be_followed() {
    let mut bench = Bench::new(500, 1000);
    let partition = bench.ruin(20);
    let frame = bench.puts(20..25, "sip:new@192.0.2.9");
    let before = bench.node.standing();
    assert_eq!(bench.apply(&frame), Err(Failure::RootMismatch));
    assert_eq!(bench.node.standing(), before, "it failed whole");
    assert_eq!(bench.node.doubted.len(), 5);
    assert!(bench.node.doubted.contains(&partition));
    // Where memory is what its sums say, there is no reason to.
    let found = bench.node.work(NOW);
    assert_eq!(found, Some(Input::Doubted { partition }));
    bench.work();
    assert_eq!(bench.node.doubted, BTreeSet::from([partition]));
    let standing = bench.node.apply(NOW, &frame, false).unwrap();
    assert_eq!(standing.position.level, frame.header.to);
    // The rotten record is gone, and the sum with it; whatever differs still is found and mended.
    for group in bench.compare(None) {
        for index in bench.compare(Some(group)) {
            bench.mend(u16::from(group) << 8 | u16::from(index), true);
        }
    }
    assert_eq!(bench.compare(None), [0_u8; 0]);
    bench.assert_equal();
}

#[test]
fn a_table_that_gets_full_grows_in_slices_while_frames_and_repairs_go_on() {
    let mut bench = Bench::new(100, 100);
    assert!(!bench.node.has_work(NOW));
    let frame = bench.puts(100..160, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    let small = bench.node.folder.current();
    let geometry = |bench: &Bench| bench.node.table.as_ref().unwrap().fill().geometry();
    let before = geometry(&bench);
    assert!(bench.node.has_work(NOW));
    assert_eq!(bench.node.work(NOW), None);
    assert!(bench.node.growing.is_some());
    // Between slices: replaced, removed, new; and a stray write that is repaired.
    let mut slices = 0;
    for n in 0..3 {
        let frame = bench.puts(n * 50..n * 50 + 20, "sip:changed@192.0.2.1");
        bench.apply(&frame).unwrap();
        let level = bench.master.position().level.plus(1);
        let removed = Change {
            level,
            op: ChangeOp::Delete,
            ..put(n * 50 + 30, 0, "")
        };
        let frame = bench.commit(vec![removed]);
        bench.apply(&frame).unwrap();
        if n == 1 {
            let partition = bench.ruin(45);
            bench.node.doubt(NOW, partition);
            assert_eq!(bench.mend(partition, true).repaired, 1);
        }
        if bench.node.has_work(NOW) {
            assert_eq!(bench.node.work(NOW), None);
            slices += 1;
        }
    }
    slices += bench.work();
    assert!(slices > 1, "in one piece");
    assert!(bench.node.folder.current() > small);
    let after = geometry(&bench);
    assert_eq!(
        (after.buckets, after.arena_bytes),
        (before.buckets * 2, before.arena_bytes)
    );
    bench.assert_equal();
    let frame = bench.puts(300..310, "sip:last@192.0.2.1");
    bench.apply(&frame).unwrap();
    bench.assert_equal();
}

#[test]
fn changes_wait_for_a_growth_that_they_would_overtake_and_for_nothing_else() {
    let mut bench = Bench::new(100, 100);
    let small = bench.node.folder.current();
    let frame = bench.puts(100..115, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    assert_eq!(bench.node.work(NOW), None);
    assert!(bench.node.growing.is_some() && !bench.node.holds());
    let frame = bench.puts(115..135, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    assert_eq!(bench.node.folder.current(), small, "it grew at once");
    assert!(bench.node.holds() && !bench.node.can_wait());
    while bench.node.holds() {
        assert!(bench.node.growing.is_some() && bench.node.has_work(NOW));
        assert_eq!(bench.node.work(NOW), None);
    }
    assert!(bench.node.folder.current() > small);
    bench.assert_equal();
}

#[test]
fn at_its_end_it_leaves_nothing_half_made() {
    let pulse = locus_distribution::Pulse {
        state: NodeState::Coherent,
        master_time: None,
        complete_until: MasterTime(0),
        master_level: Level(10),
    };
    let half_made: [fn(&mut Bench); 2] = [
        |bench| bench.node.begin_load(KEY, 160, 20_000).unwrap(),
        |bench| {
            let frame = bench.puts(100..160, "sip:more@192.0.2.1");
            bench.apply(&frame).unwrap();
            bench.node.work(NOW);
        },
    ];
    for begin in half_made {
        let mut bench = Bench::new(100, 100);
        let answers = bench.node.folder.current().unwrap();
        begin(&mut bench);
        let is_there = |generation| bench.regions.map(RegionName::Table(generation)).is_ok();
        let begun = locus_table::Generation(answers.0 + 1);
        assert!(is_there(begun));
        bench.node.end(&pulse, 1);
        assert!(is_there(answers) && !is_there(begun));
    }
}

#[test]
fn a_change_that_takes_more_than_is_free_lets_the_table_grow_at_once() {
    let mut bench = Bench::new(100, 100);
    let frame = bench.puts(100..1000, "sip:many@192.0.2.1");
    bench.apply(&frame).unwrap();
    bench.assert_equal();
    // Of the arena, with a growth under way that was too small.
    for n in 0..60 {
        let long = format!("sip:{}@192.0.2.1", "x".repeat(9000));
        let frame = bench.puts(2000 + n * 40..2040 + n * 40, &long);
        bench.apply(&frame).unwrap();
        if n % 8 == 0 && bench.node.has_work(NOW) {
            bench.node.work(NOW);
        }
    }
    bench.work();
    bench.assert_equal();
}

#[test]
fn a_table_whose_memory_has_rotted_does_not_grow_but_is_suspected() {
    let mut bench = Bench::new(100, 100);
    let frame = bench.puts(100..160, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    let small = bench.node.folder.current();
    let partition = bench.ruin(50);
    bench.work();
    assert_eq!(bench.node.folder.current(), small);
    assert!(bench.node.take_suspicion() && !bench.node.take_suspicion());
    // Repaired it grows, a while later.
    bench.node.doubt(NOW, partition);
    bench.mend(partition, true);
    assert!(!bench.node.has_work(NOW));
    let later = NOW.plus(GROWTH_RETRY);
    while bench.node.has_work(later) {
        bench.node.work(later);
    }
    assert!(bench.node.folder.current() > small);
    bench.assert_equal();
}

#[test]
fn a_load_takes_the_place_of_a_growth() {
    let mut bench = Bench::new(100, 100);
    let frame = bench.puts(100..160, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    bench.node.work(NOW);
    assert!(bench.node.growing.is_some());
    bench.node.begin_load(KEY, 160, 20_000).unwrap();
    assert!(bench.node.growing.is_none() && !bench.node.wants_growth(NOW));
    bench.node.abort_load();
    bench.work();
    bench.assert_equal();
}

#[test]
fn records_wait_until_the_memory_for_them_is_there() {
    let folder = PathBuf::from(format!("/dev/shm/locus-node-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = Config {
        folder: folder.clone(),
        ..config(1000)
    };
    let (mut node, _) = Node::open(&config).unwrap();
    node.begin_load(KEY, 10, 1000).unwrap();
    let mut slices = 0;
    let first = [put(1, 10, "sip:a@192.0.2.1"), put(2, 10, "sip:b@192.0.2.1")];
    assert_eq!(node.load(&first), None);
    assert!(node.can_wait());
    while node.holds() {
        assert!(node.has_work(NOW));
        assert_eq!(node.work(NOW), None);
        slices += 1;
    }
    assert!(!node.has_work(NOW) && !node.can_wait());
    assert!(slices > 2, "in {slices} slices");
    // Later ones replace what has waited, not the other way round.
    assert_eq!(node.load(&[put(1, 11, "sip:new@192.0.2.1")]), None);
    let (_, table) = &node.loading.as_ref().unwrap().table;
    assert_eq!(table.records(), 2);
    let mut buffer = RecordBuffer::new();
    let key = Key::aor(&"u1@example.net".parse().unwrap());
    let Lookup::Found(record) = table.reader().lookup(key.as_bytes(), &mut buffer) else {
        panic!("u1 is lost")
    };
    assert_eq!(record.level, Level(11));
    node.abort_load();
    drop(node);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_begun_is_announced_and_what_is_given_up_no_longer() {
    /// Words of `ctl`: the generation that answers, and the announced one.
    const GENERATION: usize = 2;
    const NEXT: usize = 3;
    let mut bench = Bench::new(100, 100);
    let control = bench.regions.map(RegionName::Control).unwrap();
    let is_announced = || {
        let [now, next] = [GENERATION, NEXT].map(|at| control.as_ref()[at].load(Ordering::Relaxed));
        next > now
    };
    assert!(!is_announced());
    // A load that is aborted, and one that fails.
    bench.node.begin_load(KEY, 160, 20_000).unwrap();
    assert!(is_announced());
    bench.node.abort_load();
    assert!(!is_announced());
    bench.node.begin_load(KEY, 160, 20_000).unwrap();
    let failed = bench.node.finish_load(bench.master.position());
    assert_eq!(failed, Err(Failure::RootMismatch));
    assert!(!is_announced());
    // A growth that gives way to a load, and one that fails.
    let frame = bench.puts(100..160, "sip:more@192.0.2.1");
    bench.apply(&frame).unwrap();
    bench.node.work(NOW);
    assert!(is_announced());
    bench.node.give_up_growing();
    assert!(!is_announced());
    bench.ruin(50);
    bench.node.work(NOW);
    assert!(is_announced());
    bench.work();
    assert!(!is_announced());
}
