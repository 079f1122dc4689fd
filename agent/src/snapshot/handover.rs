//! What the core hands to the thread that writes a snapshot, and what the thread asks of it; neither side
//! ever waits for the other here.
//!
//! The thread asks to begin. The core hands over where the table stands, and from then on each frame that it
//! applies. Only then the thread reads the first record; so a record that it meets may be newer than the
//! beginning, never older. When it has read all, it asks for the end: where the table stands then, behind
//! every frame that led there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use locus_proto::{Frame, MasterTime, NodeState, Position};

/// Most bytes of frames that wait to be written; above it the snapshot is given up.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most frames that wait; above it the snapshot is given up. Half a minute of a master that commits each
/// 2 ms: as long as a disk may be stuck.
pub const QUEUE_FRAMES_MAX: usize = 16_384;
/// The thread waits for an answer to each: there is never a second.
const REQUESTS_MAX: usize = 4;

/// Where a table stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Epoch, level and content.
    pub position: Position,
    /// Secret of the cluster's tables.
    pub table_key: [u8; 16],
    /// Its records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Service time.
    pub time: MasterTime,
    /// Service time until which the table is complete.
    pub complete_until: MasterTime,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment") // without the key, which is a secret
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What the thread asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// To begin, unless the table stands where it did when the last snapshot ended.
    Begin { unless: Option<Position> },
    /// Where the table stands; all records are read.
    End,
    /// To hand over nothing more.
    Stop,
}

/// What the core hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The table has not changed since the last snapshot.
    Same,
    /// A snapshot begins here.
    Begin(Moment),
    /// A frame was applied; as bytes.
    Frame(Vec<u8>),
    /// It ends here.
    End(Moment),
    /// It must be given up: what was read and handed over so far does not make a table.
    Void(&'static str),
    /// Nothing more follows, as was asked.
    Stopped,
}

/// Returns the core's half and the thread's half.
pub(crate) fn handover() -> (Handover, Taker) {
    let (to_thread, handed) = bounded(QUEUE_FRAMES_MAX);
    let (to_core, requests) = bounded(REQUESTS_MAX);
    let queued = Arc::new(AtomicUsize::new(0));
    let core = Handover {
        requests,
        to_thread,
        queued: Arc::clone(&queued),
        phase: Phase::Idle,
        owed: None,
    };
    let thread = Taker {
        to_core,
        handed,
        queued,
    };
    (core, thread)
}

/// Where the core's half stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No snapshot.
    Idle,
    /// The thread wants to begin.
    Asked(Option<Position>),
    /// Frames are handed over.
    UnderWay,
    /// The thread has read all records.
    Ending,
}

/// The core's half.
#[derive(Debug)]
pub(crate) struct Handover {
    requests: Receiver<Request>,
    to_thread: Sender<Handed>,
    /// Bytes of frames that wait.
    queued: Arc<AtomicUsize>,
    phase: Phase,
    /// What found no room in the queue and ends the snapshot.
    owed: Option<Handed>,
}

impl Handover {
    /// Takes what the thread asks and answers it when the table allows it; to be called again and again.
    ///
    /// A snapshot begins only while `state` says that the content is the master's, and goes on as long as
    /// nothing speaks against it. `look` returns where the table stands, `None` if the content is in doubt.
    pub(crate) fn turn(&mut self, state: NodeState, look: impl FnOnce() -> Option<Moment>) {
        if self.phase == Phase::Idle && self.owed.is_none() && self.requests.is_empty() {
            return;
        }
        if let Some(owed) = self.owed.take() {
            self.hand_last(owed);
        }
        while let Ok(request) = self.requests.try_recv() {
            match (request, self.phase) {
                (Request::Begin { unless }, _) => self.phase = Phase::Asked(unless),
                (Request::End, Phase::UnderWay) => self.phase = Phase::Ending,
                // It was given up meanwhile, and the thread is told so.
                (Request::End, Phase::Idle | Phase::Asked(_) | Phase::Ending) => {}
                (Request::Stop, _) => {
                    self.phase = Phase::Idle;
                    self.hand_last(Handed::Stopped);
                }
            }
        }
        let may_begin = match state {
            NodeState::Coherent | NodeState::Stale => true,
            NodeState::Loading
            | NodeState::Resync
            | NodeState::Inconsistent
            | NodeState::Draining => false,
        };
        let moment = || look().filter(|_| state.answers());
        match self.phase {
            Phase::Idle => {}
            Phase::Asked(unless) => {
                let Some(moment) = moment().filter(|_| may_begin) else {
                    return; // later
                };
                let same = unless == Some(moment.position);
                let (phase, handed) = if same {
                    (Phase::Idle, Handed::Same)
                } else {
                    (Phase::UnderWay, Handed::Begin(moment))
                };
                if self.to_thread.try_send(handed).is_ok() {
                    self.phase = phase;
                }
            }
            Phase::UnderWay => {
                if moment().is_none() {
                    self.void("the content is in doubt");
                }
            }
            Phase::Ending => match moment() {
                None => self.void("the content is in doubt"),
                Some(moment) => {
                    // Without room now, there will be some later: frames go on being handed over.
                    if self.to_thread.try_send(Handed::End(moment)).is_ok() {
                        self.phase = Phase::Idle;
                    }
                }
            },
        }
    }

    /// Takes a frame that was applied.
    pub(crate) fn applied(&mut self, frame: &Frame) {
        if !self.is_under_way() {
            return;
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let len = bytes.len();
        // Counted before the thread can take it, and never subtracted twice.
        let queued = self.queued.fetch_add(len, Ordering::Relaxed);
        let fits = queued.saturating_add(len) <= QUEUE_BYTES_MAX;
        if !fits || self.to_thread.try_send(Handed::Frame(bytes)).is_err() {
            self.queued.fetch_sub(len, Ordering::Relaxed);
            self.void(OVERFLOW);
        }
    }

    /// Gives a snapshot up: the table has become another one by something else than a checked frame.
    pub(crate) fn void(&mut self, why: &'static str) {
        if self.is_under_way() {
            self.phase = Phase::Idle;
            self.hand_last(Handed::Void(why));
        }
    }

    fn is_under_way(&self) -> bool {
        match self.phase {
            Phase::UnderWay | Phase::Ending => true,
            Phase::Idle | Phase::Asked(_) => false,
        }
    }

    /// Hands over what ends a snapshot: now, or as soon as there is room. The last such word counts.
    fn hand_last(&mut self, handed: Handed) {
        if let Err(TrySendError::Full(handed)) = self.to_thread.try_send(handed) {
            self.owed = Some(handed);
        }
    }
}

/// Why a snapshot is given up that nobody is at fault for but the disk.
pub(crate) const OVERFLOW: &str = "changes came faster than the disk took them";

/// Ends a wait of the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Something was handed over.
    Handed(Handed),
    /// Nothing yet.
    Nothing,
    /// The agent ends.
    Ended,
}

/// The thread's half.
#[derive(Debug)]
pub(crate) struct Taker {
    to_core: Sender<Request>,
    handed: Receiver<Handed>,
    queued: Arc<AtomicUsize>,
}

impl Taker {
    /// Asks the core to begin a snapshot, unless the table still stands at `unless`.
    pub(crate) fn ask_begin(&self, unless: Option<Position>) {
        self.ask(Request::Begin { unless });
    }

    /// Asks the core for the end.
    pub(crate) fn ask_end(&self) {
        self.ask(Request::End);
    }

    /// Lets the core hand over nothing more and drops what waits; returns why the core had given the
    /// snapshot up itself, if it had.
    pub(crate) fn stop(&self) -> Option<&'static str> {
        self.ask(Request::Stop);
        let mut void = None;
        loop {
            match self.take(Duration::MAX) {
                Taken::Handed(Handed::Stopped) | Taken::Ended => return void,
                Taken::Handed(Handed::Void(why)) => void = Some(why),
                Taken::Handed(
                    Handed::Same | Handed::Begin(_) | Handed::Frame(_) | Handed::End(_),
                )
                | Taken::Nothing => {}
            }
        }
    }

    fn ask(&self, request: Request) {
        // The core takes each before there can be so many; one that has ended needs none.
        self.to_core.try_send(request).ok();
    }

    /// Returns what was handed over; waits for it no longer than `wait`.
    pub(crate) fn take(&self, wait: Duration) -> Taken {
        let received = if wait.is_zero() {
            self.handed.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        } else if wait == Duration::MAX {
            self.handed
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.handed.recv_timeout(wait)
        };
        match received {
            Ok(handed) => {
                if let Handed::Frame(bytes) = &handed {
                    self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
                Taken::Handed(handed)
            }
            Err(RecvTimeoutError::Timeout) => Taken::Nothing,
            Err(RecvTimeoutError::Disconnected) => Taken::Ended,
        }
    }
}
