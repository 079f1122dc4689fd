//! The node's table in this process: mapped when the agent has made it, followed when it is replaced.
//!
//! It joins the agent's folder to `locus-plugin`, which answers; it does not know what is answered.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use locus_ffi::{FileIdentity, OpenSharedError, SharedRegion, clock_monotonic_ms, prefetch};
use locus_plugin::{
    Answer, Answerer, Judge, MapRegions, PULSE_SILENCE_MS, Pulse, Query, Readiness, RegionName,
    RouteAnswer,
};
use locus_proto::Digits;

use crate::pages::Pages;

/// Largest file that is mapped: ten times what ten million subscribers take.
const REGION_BYTES_MAX: u64 = 1 << 36;
/// How often a silent agent's folder is looked at for a new one, in milliseconds.
const RECHECK_MS: u64 = 1000;

/// One process's table.
#[derive(Debug)]
pub(crate) struct Table {
    folder: PathBuf,
    answerer: Answerer<SharedFolder>,
    /// Which control file is mapped.
    control: Rc<Cell<Option<FileIdentity>>>,
    rechecked_ms: u64,
}

impl Table {
    /// Returns the table of that folder, whether or not there is one yet.
    pub(crate) fn new(folder: &Path) -> Self {
        let control = Rc::new(Cell::new(None));
        let shared = SharedFolder {
            folder: folder.to_owned(),
            control: Rc::clone(&control),
        };
        let answerer = Answerer::new(shared);
        Self {
            folder: folder.to_owned(),
            answerer,
            control,
            rechecked_ms: 0,
        }
    }

    /// Returns the contacts of an address-of-record; see [`Answerer::lookup`].
    pub(crate) fn lookup(&mut self, query: Query<'_>) -> Answer<'_> {
        let now = self.now();
        self.answerer.lookup(query, now)
    }

    /// Returns the route of a number; see [`Answerer::route`].
    pub(crate) fn route(&mut self, digits: Digits) -> RouteAnswer<'_> {
        let now = self.now();
        self.answerer.route(digits, now)
    }

    /// Begins to fetch what a look-up of `aor` reads first; nothing where no table is mapped.
    pub(crate) fn prefetch(&mut self, aor: &[u8]) {
        self.answerer.prefetch(aor, prefetch);
    }

    /// Begins to fetch what a route of `digits` reads first; nothing where no table is mapped.
    pub(crate) fn prefetch_route(&self, digits: Digits) {
        self.answerer.prefetch_route(digits, prefetch);
    }

    /// Maps what the agent has announced, where an agent has been met; two loads if that is nothing.
    ///
    /// To be called when no request waits: what a look-up meets unmapped, it maps itself.
    pub(crate) fn map_announced(&mut self) {
        if self.control.get().is_some() {
            self.answerer.refresh();
        }
    }

    /// Enters what answers into the page tables, as far as it has 2 MiB pages; see [`SharedRegion::touch`].
    pub(crate) fn touch(&mut self) {
        self.follow();
        if let Some((_, region)) = self.answerer.table() {
            region.touch(|| self.answerer.is_answering());
        }
    }

    /// Returns which table answers, and by which pages this process has it; `None` while there is none.
    pub(crate) fn pages(&mut self) -> Option<Pages> {
        self.touch();
        let (generation, region) = self.answerer.table()?;
        Some(Pages {
            generation,
            table_bytes: region.bytes(),
            huge_bytes: region.huge_bytes(),
        })
    }

    /// Returns in which file the table lies that answers; `None` while there is none.
    pub(crate) fn file(&mut self) -> Option<FileIdentity> {
        self.follow();
        self.answerer.table().map(|(_, region)| region.identity())
    }

    /// Returns how the node stands.
    pub(crate) fn readiness(&mut self) -> Readiness {
        let now = self.follow();
        self.answerer.readiness(now)
    }

    /// Returns the agent's last report.
    pub(crate) fn pulse(&mut self) -> Option<Pulse> {
        self.follow();
        self.answerer.pulse()
    }

    /// Returns by which moment bindings are judged.
    pub(crate) fn judge(&mut self) -> Option<Judge> {
        let now = self.follow();
        self.answerer.judge(now)
    }

    /// Maps what the agent has announced and returns the time; for whoever is not in a hurry.
    fn follow(&mut self) -> u64 {
        let now = self.now();
        self.answerer.refresh();
        now
    }

    /// Returns the time, and looks for a folder that was made anew where the agent is silent.
    fn now(&mut self) -> u64 {
        let now = clock_monotonic_ms();
        let is_silent = self
            .answerer
            .pulse()
            .is_some_and(|pulse| now.saturating_sub(pulse.updated_monotonic_ms) > PULSE_SILENCE_MS);
        if is_silent && now.saturating_sub(self.rechecked_ms) >= RECHECK_MS {
            self.rechecked_ms = now;
            // A folder that was made anew has another control file; the old one is never written again.
            let found = FileIdentity::of(&control_path(&self.folder));
            if found.is_some() && found != self.control.get() {
                *self = Self {
                    rechecked_ms: now,
                    ..Self::new(&self.folder)
                };
            }
        }
        now
    }
}

fn control_path(folder: &Path) -> PathBuf {
    folder.join(RegionName::Control.to_string())
}

/// The agent's folder, mapped read-only.
pub(crate) struct SharedFolder {
    folder: PathBuf,
    control: Rc<Cell<Option<FileIdentity>>>,
}

impl MapRegions for SharedFolder {
    type Region = SharedRegion;

    fn map(&self, name: RegionName) -> io::Result<SharedRegion> {
        let path = self.folder.join(name.to_string());
        let region = SharedRegion::open(&path, REGION_BYTES_MAX).map_err(|error| match error {
            OpenSharedError::Open(source) | OpenSharedError::Map(source) => source,
            OpenSharedError::NotAFile | OpenSharedError::Size { .. } => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        })?;
        if name == RegionName::Control {
            self.control.set(Some(region.identity()));
        }
        Ok(region)
    }
}

impl fmt::Debug for SharedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedFolder").field(&self.folder).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use locus_plugin::{Generation, Unready};
    use locus_proto::{
        AddressOfRecord, AorRecord, Binding, Change, ChangeOp, Epoch, Key, Level, MasterTime,
        NodeId, NodeState, Position,
    };
    use locus_table::{Folder, Geometry, HeapMemory, HeapRegions, TableKey, Writer};

    use super::*;

    /// An agent's folder in files: tables are made on the heap and written out.
    struct Agent {
        regions: HeapRegions,
        folder: Folder<HeapRegions>,
        path: PathBuf,
    }

    impl Agent {
        fn new(path: &Path) -> Self {
            let regions = HeapRegions::new();
            let folder = Folder::open(regions.clone()).unwrap();
            fs::create_dir_all(path).unwrap();
            Self {
                regions,
                folder,
                path: path.to_owned(),
            }
        }

        /// Answers with a new generation that binds alice to `uri`; `age_ms` ago is the last report.
        fn publish(&self, uri: &str, age_ms: u64) {
            let table = self.announce(uri);
            self.answer_with(&table, age_ms);
        }

        /// Makes a new generation that binds alice to `uri`, which does not answer yet.
        fn announce(&self, uri: &str) -> (Generation, Writer<HeapMemory>) {
            let (generation, mut writer) = self
                .folder
                .begin_load(Geometry::for_records(10, 300), TableKey([7; 16]))
                .unwrap();
            let mut record = AorRecord::default();
            record.insert(Binding::permanent(uri));
            let aor = AddressOfRecord::parse("alice@example.net").unwrap();
            let put = ChangeOp::Put(record.encode());
            writer
                .load(&[Change {
                    key: Key::aor(&aor),
                    level: Level(1),
                    op: put,
                }])
                .unwrap();
            let root = writer.position().root;
            writer
                .finish_load(Position {
                    epoch: Epoch::default(),
                    level: Level(1),
                    root,
                })
                .unwrap();
            self.write(RegionName::Table(generation));
            self.write(RegionName::Control);
            (generation, writer)
        }

        fn answer_with(&self, table: &(Generation, Writer<HeapMemory>), age_ms: u64) {
            self.folder.flip(table).unwrap();
            self.folder.beat(&Pulse {
                state: NodeState::Coherent,
                master_offset_ms: 0,
                complete_until: MasterTime(1),
                master_level: Level(1),
                updated_monotonic_ms: clock_monotonic_ms().saturating_sub(age_ms),
                max_grace_ms: 0,
                node: NodeId(1),
                epoch_counter: 1,
            });
            // The table is there; the control file is written in place: that is the flip.
            self.write(RegionName::Control);
        }

        fn write(&self, name: RegionName) {
            let region = self.regions.map(name).unwrap();
            let path = self.path.join(name.to_string());
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .unwrap();
            let words = region.as_ref();
            file.set_len(8 * words.len() as u64).unwrap();
            for (at, page) in (0..).step_by(4096).zip(words.chunks(512)) {
                let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
                // Most of a table of one record is zeros, as the file is.
                if name == RegionName::Control || page.iter().any(|one| word(one) != 0) {
                    let bytes: Vec<u8> = page
                        .iter()
                        .flat_map(|one| word(one).to_le_bytes())
                        .collect();
                    file.write_all_at(&bytes, at).unwrap();
                }
            }
        }
    }

    fn alice(table: &mut Table) -> Option<String> {
        match table.lookup(Query {
            aor: b"alice@example.net",
            method: None,
        }) {
            Answer::Found(contacts) => contacts.iter().next().map(|binding| binding.uri.to_owned()),
            Answer::Absent | Answer::MethodNotSupported => panic!("alice is bound"),
            Answer::Unavailable(_) => None,
        }
    }

    #[test]
    fn follows_flips_and_a_folder_that_was_made_anew() {
        let path = std::env::temp_dir().join(format!("locus-follow-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        let mut table = Table::new(&path);
        assert_eq!(alice(&mut table), None);
        let mut idle = [Table::new(&path), Table::new(&path)];

        let agent = Agent::new(&path);
        agent.publish("sip:alice@192.0.2.1", 0);
        let [registering, showing] = &mut idle;
        assert!(
            registering.pulse().is_some() && showing.judge().is_some(),
            "a process that has looked nothing up yet meets the agent, too"
        );
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));
        agent.publish("sip:alice@192.0.2.2", 0);
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.2"));

        // The agent falls silent; then the folder is made anew, with a table of the same generation's name.
        agent.publish("sip:alice@192.0.2.3", PULSE_SILENCE_MS + 1000);
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.3"));
        assert_eq!(table.readiness().state, NodeState::Stale);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(
            alice(&mut table).as_deref(),
            Some("sip:alice@192.0.2.3"),
            "the old one still answers"
        );
        Agent::new(&path).publish("sip:alice@192.0.2.4", 0);
        table.rechecked_ms = 0;
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.4"));
        assert_eq!(table.readiness().state, NodeState::Coherent);
        fs::remove_dir_all(&path).unwrap();
    }

    /// Whether this process has that table of the folder mapped, under its name or without.
    fn is_mapped(folder: &Path, generation: Generation) -> bool {
        let file = folder.join(RegionName::Table(generation).to_string());
        let file = format!("{}\n", file.display());
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.replace(" (deleted)\n", "\n").contains(&file)
    }

    #[test]
    fn an_announced_table_is_mapped_while_no_request_waits() {
        let path = std::env::temp_dir().join(format!("locus-ahead-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        let agent = Agent::new(&path);
        agent.publish("sip:alice@192.0.2.1", 0);
        let mut table = Table::new(&path);
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));

        let next = agent.announce("sip:alice@192.0.2.2");
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));
        assert!(!is_mapped(&path, next.0), "a look-up does not map it");
        table.map_announced();
        assert!(is_mapped(&path, next.0));
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));
        let answers = table.pages().unwrap().generation;
        // From here on only who has mapped it can read it.
        fs::remove_file(path.join(RegionName::Table(next.0).to_string())).unwrap();
        agent.answer_with(&next, 0);
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.2"));
        assert_eq!(table.pages().unwrap().generation, next.0);
        assert!(!is_mapped(&path, answers), "the old one is let go of");
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn where_no_agent_was_met_nothing_is_mapped_ahead() {
        let path = std::env::temp_dir().join(format!("locus-unmet-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        let mut table = Table::new(&path);
        let agent = Agent::new(&path);
        agent.publish("sip:alice@192.0.2.1", 0);
        table.prefetch(b"alice@example.net");
        table.map_announced();
        assert!(!is_mapped(&path, Generation(1)));
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));
        assert!(is_mapped(&path, Generation(1)));
        table.prefetch(b"alice@example.net");
        assert_eq!(alice(&mut table).as_deref(), Some("sip:alice@192.0.2.1"));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_process_knows_the_pages_of_the_table_that_answers() {
        let path = std::env::temp_dir().join(format!("locus-pages-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        let mut table = Table::new(&path);
        assert_eq!(table.pages(), None);
        Agent::new(&path).publish("sip:alice@192.0.2.1", 0);
        let pages = table.pages().unwrap();
        let file = path.join(RegionName::Table(pages.generation).to_string());
        assert_eq!(pages.table_bytes, fs::metadata(file).unwrap().len());
        assert!(
            pages
                .huge_bytes
                .is_some_and(|bytes| bytes <= pages.table_bytes)
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn before_the_agent_ever_ran_nothing_is_absent() {
        let folder = std::env::temp_dir().join(format!("locus-table-{}", std::process::id()));
        let mut table = Table::new(&folder);
        let query = Query {
            aor: b"alice@example.net",
            method: None,
        };
        assert!(matches!(
            table.lookup(query),
            Answer::Unavailable(Unready::Table(_))
        ));
        assert!(matches!(
            table.route(Digits::parse("49").unwrap()),
            RouteAnswer::Unavailable(_)
        ));

        // A folder with a control file that is none, too short, or no file at all.
        fs::create_dir_all(&folder).unwrap();
        for content in [vec![0; 4096], vec![0xff; 4096], vec![1; 100]] {
            fs::write(control_path(&folder), content).unwrap();
            assert!(matches!(
                table.lookup(query),
                Answer::Unavailable(Unready::Table(_))
            ));
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
