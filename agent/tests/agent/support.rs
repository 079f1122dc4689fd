//! A hand-written master, a worker's socket and an agent's process, for tests of the whole agent.
//!
//! The master knows the wire and a table of its own as the model; it has no log and no timers.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use locus_agent::MappedFolder;
use locus_identity::{Channel, ReadHalf, WriteHalf};
use locus_proto::v1::{
    AuditAsk, AuditRecords, AuditScope, AuditSums, Heartbeat, Hello, Plan, SnapshotBegin,
    SnapshotEnd, SnapshotPart, Welcome,
};
use locus_proto::{
    AorRecord, Asked, Binding, BootId, Change, ChangeOp, ContactChange, Deframer, Epoch, EpochId,
    Frame, FrameHeader, FrameKind, Key, Level, Lineage, MasterTime, Message, NodeId, NodeStatus,
    Owner, Position, Registration, RegistrationReply, ReloadReason,
};
use locus_table::{
    FolderReader, Geometry, HeapMemory, Lookup, RecordBuffer, ScanCursor, ScanError, TableKey,
    Writer,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const MASTER_NOW: MasterTime = MasterTime(1_700_000_000_000);
const KEY: [u8; 16] = [7; 16];
const EPOCH: Epoch = Epoch {
    counter: 1,
    id: EpochId([9; 16]),
};

/// Longest wait for anything; far above what a loaded machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(2);

/// Waits until `condition` returns something; panics with `what` after [`DEADLINE`].
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..DEADLINE.as_millis() / STEP.as_millis() {
        if let Some(found) = condition() {
            return found;
        }
        thread::park_timeout(STEP);
    }
    panic!("waited in vain for {what}")
}

/// A folder on a tmpfs; it goes when this is dropped.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(format!(
            "/dev/shm/locus-agent-{}-{name}",
            std::process::id()
        ));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A process of `locus-agent`; killed when this is dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(place: &Place, folder: &Path, master: SocketAddr, more: &str) -> Self {
        Self::start_in("lab", place, folder, master, more)
    }

    /// As [`Self::start`], in a cluster of that name.
    pub(crate) fn start_in(
        cluster: &str,
        place: &Place,
        folder: &Path,
        master: SocketAddr,
        more: &str,
    ) -> Self {
        let more = format!("locsvc = [\"{master}\"]\ninsecure = true\n{more}");
        Self::with(cluster, place, folder, &more)
    }

    /// As [`Self::start_in`], with the ways to a master, and the identity, in `more`.
    pub(crate) fn with(cluster: &str, place: &Place, folder: &Path, more: &str) -> Self {
        let config = configure(cluster, place, folder, more);
        let log = place.path("agent.log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_locus-agent"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the agent's end", || self.child.try_wait().unwrap())
    }
}

/// Writes a configuration of node n1, number 1.
pub(crate) fn configure(cluster: &str, place: &Place, folder: &Path, more: &str) -> PathBuf {
    let config = place.path("agent.toml");
    // Never into the machine's own folder.
    let snapshots = if more.contains("snapshots") {
        ""
    } else {
        "snapshots = \"\""
    };
    let text = format!(
        "{snapshots}\ncluster = \"{cluster}\"\nnode = \"n1\"\nnode_id = 1\nfolder = {folder:?}\n\
         socket = {:?}\nrecord_bytes_mean = 256\n{more}\n",
        place.path("agent.sock")
    );
    fs::write(&config, text).unwrap();
    config
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The master's data: a table of its own, and every frame that led there.
pub(crate) struct Model {
    pub(crate) table: Writer<HeapMemory>,
    pub(crate) frames: Vec<Frame>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let geometry = Geometry::for_records(20_000, 256);
        let memory = HeapMemory::zeroed(geometry.file_bytes());
        let mut table = Writer::create(memory, geometry, TableKey(KEY)).unwrap();
        let position = Position {
            epoch: EPOCH,
            ..Position::default()
        };
        table.finish_load(position).unwrap();
        Self {
            table,
            frames: Vec::new(),
        }
    }

    pub(crate) fn position(&self) -> Position {
        self.table.position()
    }

    /// Commits changes, each one level, and returns their frame.
    pub(crate) fn commit(&mut self, changes: Vec<(String, Option<AorRecord>)>) -> Frame {
        let from = self.position();
        let changes: Vec<_> = (1..)
            .zip(changes)
            .map(|(n, (aor, record))| Change {
                key: key(&aor),
                level: from.level.plus(n),
                op: record.map_or(ChangeOp::Delete, |record| ChangeOp::Put(record.encode())),
            })
            .collect();
        let prepared = self.table.prepare(&changes).unwrap();
        let frame = Frame {
            header: FrameHeader {
                kind: FrameKind::Changes,
                shard: 0,
                epoch: EPOCH,
                from: from.level,
                to: changes.last().unwrap().level,
                root_before: from.root,
                root_after: prepared.root_after(),
                time: MASTER_NOW,
            },
            changes,
        };
        self.table
            .commit(prepared, &frame.changes, frame.header.after());
        self.frames.push(frame.clone());
        frame
    }

    /// Returns every record, by key.
    pub(crate) fn records(&self) -> Vec<Change> {
        let (mut out, mut buffer) = (Vec::new(), RecordBuffer::new());
        let mut cursor = Some(ScanCursor::START);
        while let Some(at) = cursor {
            let reader = self.table.reader();
            cursor = reader.scan(at, 1 << 20, &mut buffer, &mut out).unwrap();
        }
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    /// Returns every record as it was at `level`, by key.
    pub(crate) fn records_at(&self, level: Level) -> BTreeMap<Key, Change> {
        let mut records = BTreeMap::new();
        for frame in self.frames.iter().filter(|frame| frame.header.to <= level) {
            for change in &frame.changes {
                match change.op {
                    ChangeOp::Put(_) => records.insert(change.key.clone(), change.clone()),
                    ChangeOp::Delete => records.remove(&change.key),
                };
            }
        }
        records
    }

    pub(crate) fn welcome(&self, plan: Plan) -> Message {
        let mut lineage = Lineage::default();
        lineage.push(EPOCH, Level::ZERO).unwrap();
        Message::Welcome(Welcome {
            version: locus_proto::WireVersion::V1,
            lineage,
            head: self.position(),
            time: MASTER_NOW,
            table_key: KEY,
            plan,
        })
    }

    pub(crate) fn heartbeat(&self) -> Message {
        Message::Heartbeat(Heartbeat {
            time: MASTER_NOW,
            head: self.position(),
        })
    }

    pub(crate) fn snapshot_begin(&self) -> Message {
        Message::SnapshotBegin(SnapshotBegin {
            position: self.position(),
            records: self.table.records(),
            bytes: self.table.payload_bytes(),
        })
    }

    /// Answers a question of an audit.
    pub(crate) fn answer(&self, ask: &AuditAsk) -> Message {
        let (reader, level) = (self.table.reader(), self.position().level);
        let sums = |group, sums| Message::AuditSums(AuditSums { level, group, sums });
        match ask.scope {
            AuditScope::Groups => sums(None, reader.group_sums()),
            AuditScope::Group(group) => sums(Some(group), reader.partition_sums(group)),
            AuditScope::Partition(partition) => {
                let (mut records, mut buffer) = (Vec::new(), RecordBuffer::new());
                reader
                    .partition_records(partition, &mut buffer, &mut records)
                    .unwrap();
                Message::AuditRecords(AuditRecords {
                    level,
                    partition,
                    last: true,
                    records,
                })
            }
        }
    }

    /// Takes a node in: the whole table, or the frames that it lacks, and a heartbeat.
    pub(crate) fn serve(&self, peer: &mut Peer, hello: &Hello) {
        match hello.position {
            None => {
                peer.send(&self.welcome(Plan::Reload(ReloadReason::Empty)));
                peer.send(&self.snapshot_begin());
                for part in self.records().chunks(100) {
                    let records = part.to_vec();
                    peer.send(&Message::SnapshotPart(SnapshotPart { records }));
                }
                peer.send(&Message::SnapshotEnd(SnapshotEnd {
                    level: self.position().level,
                    root: self.position().root,
                }));
            }
            Some(position) => {
                peer.send(&self.welcome(Plan::Continue));
                let missing = self
                    .frames
                    .iter()
                    .filter(|f| f.header.from >= position.level);
                for frame in missing {
                    peer.send(&Message::Frame(frame.clone()));
                }
            }
        }
        peer.send(&self.heartbeat());
    }
}

/// Returns a new listener of a master.
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// The master's end of a connection.
pub(crate) struct Peer {
    reader: ReadHalf,
    writer: WriteHalf,
    deframer: Deframer,
}

impl Peer {
    /// Waits for the agent to connect and greet.
    pub(crate) fn accept(listener: &TcpListener) -> (Self, Hello) {
        let stream = until("a connection", || listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        let (peer, hello) = Self::over(Channel::plain(stream));
        (peer, hello.expect("a greeting"))
    }

    /// Waits for the agent to greet; it does not if it only looks who is there.
    pub(crate) fn over(channel: Channel) -> (Self, Option<Hello>) {
        channel.socket().set_read_timeout(Some(DEADLINE)).unwrap();
        let Channel { reader, writer, .. } = channel;
        let deframer = Deframer::default();
        let mut peer = Self {
            reader,
            writer,
            deframer,
        };
        let hello = peer.receive().map(|first| {
            let Message::Hello(hello) = first else {
                panic!("the first message is no Hello: {first:?}")
            };
            hello
        });
        (peer, hello)
    }

    pub(crate) fn send(&mut self, message: &Message) {
        self.writer.write_all(&message.to_bytes()).unwrap();
    }

    /// Sends; `false` if the agent is gone.
    pub(crate) fn try_send(&mut self, message: &Message) -> bool {
        self.writer.write_all(&message.to_bytes()).is_ok()
    }

    /// Returns the next message; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        receive(&mut self.deframer, &mut self.reader)
    }

    /// Returns what writes, and what the agent says from now on, without waiting.
    pub(crate) fn split(self) -> (WriteHalf, Receiver<Message>) {
        let (sender, said) = unbounded();
        let Self {
            mut reader,
            writer,
            mut deframer,
        } = self;
        thread::spawn(move || {
            while let Some(message) = receive(&mut deframer, &mut reader) {
                sender.send(message).ok();
            }
        });
        (writer, said)
    }

    /// Answers an agent's questions, with a heartbeat behind each of its messages, until `done` says so.
    pub(crate) fn follow<T>(
        &mut self,
        model: &Model,
        mut done: impl FnMut(&Message) -> Option<T>,
    ) -> T {
        loop {
            let message = self.receive().expect("a message");
            if let Message::AuditAsk(ask) = &message {
                self.send(&model.answer(ask));
            }
            if let Some(done) = done(&message) {
                return done;
            }
            self.send(&model.heartbeat());
        }
    }

    /// Returns the next registration; status reports are skipped.
    pub(crate) fn registration(&mut self) -> (u64, Registration) {
        loop {
            let message = self.receive().expect("a registration");
            if let Message::Register {
                ticket,
                registration,
            } = message
            {
                return (ticket, registration);
            }
            assert!(matches!(message, Message::Status(_)), "{message:?}");
        }
    }
}

fn receive(deframer: &mut Deframer, reader: &mut ReadHalf) -> Option<Message> {
    let mut buffer = [0; 64 * 1024];
    loop {
        if let Some(message) = deframer.poll().unwrap() {
            return Some(message);
        }
        let len = reader.read(&mut buffer).ok()?;
        if len == 0 {
            return None;
        }
        deframer.handle_bytes(&buffer[..len]);
    }
}

/// A worker of Kamailio: a socket in the abstract name space.
pub(crate) struct Worker {
    pub(crate) socket: UnixDatagram,
    agent: PathBuf,
}

impl Worker {
    pub(crate) fn new(place: &Place) -> Self {
        let name = format!("{}-worker", place.0.display());
        let address = UnixAddress::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let agent = place.path("agent.sock");
        until("the agent's socket", || agent.exists().then_some(()));
        Self { socket, agent }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, &self.agent).unwrap();
    }

    pub(crate) fn register(&self, ticket: u64, registration: &Registration) {
        let registration = registration.clone();
        let message = Message::Register {
            ticket,
            registration,
        };
        self.send(&message.to_bytes());
    }

    pub(crate) fn reply(&self) -> (u64, RegistrationReply) {
        let mut buffer = vec![0; 64 * 1024];
        let len = self.socket.recv(&mut buffer).expect("an answer");
        let Message::Registered { ticket, reply } = Message::from_bytes(&buffer[..len]).unwrap()
        else {
            panic!("no answer")
        };
        (ticket, reply)
    }
}

/// Reads a node's table as a worker does.
pub(crate) struct View {
    reader: FolderReader<MappedFolder>,
    buffer: RecordBuffer,
}

impl View {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            reader: MappedFolder::open_ro(folder),
            buffer: RecordBuffer::new(),
        }
    }

    pub(crate) fn position(&mut self) -> Option<Position> {
        self.reader.with(|table| table.position()).ok()
    }

    pub(crate) fn wait(&mut self, position: Position) {
        until("the node's level", || {
            (self.position() == Some(position)).then_some(())
        });
    }

    /// Returns whether a look-up finds something, whatever it is.
    pub(crate) fn holds(&mut self, aor: &str) -> bool {
        match self.reader.lookup(key(aor).as_bytes(), &mut self.buffer) {
            Lookup::Found(_) => true,
            Lookup::Absent => false,
            Lookup::Unavailable(reason) => panic!("{reason:?}"),
        }
    }

    pub(crate) fn state(&self) -> Option<&'static str> {
        self.reader.pulse().map(|pulse| pulse.state.as_str())
    }

    pub(crate) fn pulse(&self) -> Option<locus_table::Pulse> {
        self.reader.pulse()
    }

    pub(crate) fn find(&mut self, aor: &str) -> Option<AorRecord> {
        match self.reader.lookup(key(aor).as_bytes(), &mut self.buffer) {
            Lookup::Found(record) => Some(AorRecord::decode(record.value).unwrap()),
            Lookup::Absent => None,
            Lookup::Unavailable(reason) => panic!("{reason:?}"),
        }
    }

    /// Returns every record of one generation, by key.
    pub(crate) fn records(&mut self) -> Vec<Change> {
        let buffer = &mut self.buffer;
        let scanned = self.reader.with(|table| {
            let (mut out, mut cursor) = (Vec::new(), Some(ScanCursor::START));
            while let Some(at) = cursor {
                cursor = table.scan(at, 1 << 20, buffer, &mut out)?;
            }
            Ok::<_, ScanError>(out)
        });
        let mut out = scanned.unwrap().unwrap();
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }
}

/// Returns a node's report; `None` if the message is another.
pub(crate) fn status(message: &Message) -> Option<&NodeStatus> {
    if let Message::Status(status) = message {
        return Some(status);
    }
    None
}

/// Returns the tables in a folder.
pub(crate) fn tables(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_table = |path: &PathBuf| {
        let name = path.file_name().unwrap();
        name.to_string_lossy().starts_with("tbl.")
    };
    paths.filter(is_table).collect()
}

/// A small tmpfs of its own; `None` where it cannot be mounted.
pub(crate) struct SmallTmpfs(pub(crate) PathBuf);

impl SmallTmpfs {
    pub(crate) fn mount(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = CString::new(options).unwrap();
        match mount(
            "tmpfs",
            &path,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        ) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some();
                assert!(!required, "cannot mount a tmpfs: {error}");
                eprintln!("ignored: needs to mount a tmpfs: {error}");
                None
            }
        }
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let block = vec![1; 4096];
        while filler.write_all(&block).is_ok() {}
    }

    pub(crate) fn relieve(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

pub(crate) fn key(aor: &str) -> Key {
    Key::aor(&aor.parse().unwrap())
}

/// A record with one registered contact.
pub(crate) fn record(uri: &str, cseq: u32) -> AorRecord {
    AorRecord {
        bindings: vec![Binding {
            expires: MASTER_NOW.plus_ms(600_000),
            granted_s: 600,
            call_id: "call".into(),
            cseq,
            socket: "udp:10.77.0.11:5060".into(),
            owner: Owner {
                node: NodeId(1),
                boot: BootId(4),
                connection: 0,
            },
            ..Binding::permanent(uri)
        }],
    }
}

/// The REGISTER that refreshes the contact of [`record`].
pub(crate) fn refresh(aor: &str, uri: &str, cseq: u32) -> Registration {
    let bound = record(uri, cseq).bindings.remove(0);
    Registration {
        aor: aor.parse().unwrap(),
        call_id: bound.call_id,
        cseq,
        path: String::new(),
        received: String::new(),
        socket: bound.socket,
        owner: bound.owner,
        user_agent: "phone".into(),
        flags: 0,
        asked: Asked::Update(vec![ContactChange {
            uri: bound.uri,
            q: bound.q,
            expires_s: Some(600),
            instance: String::new(),
            reg_id: 0,
            methods: bound.methods,
        }]),
    }
}
