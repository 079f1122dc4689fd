//! Transition tables of the receiver, written out: each phase and state against each input.

use std::fmt::Write as _;
use std::time::Duration;

use locus_proto::{
    BootId, Change, ChangeOp, Epoch, EpochId, Frame, FrameHeader, FrameKind, Key, Level, Lineage,
    MasterTime, Message, NodeId, NodeState, Position, Refusal, RegistrationReply, ReloadReason,
    Root, Timestamp, Transport, Verdict,
    v1::{
        AuditRefusal, Heartbeat, Hello, Plan, Rejection, SnapshotBegin, SnapshotEnd, SnapshotPart,
        Welcome,
    },
};

use super::*;

mod audit;
mod conversation;
mod doubt;
mod group;

type Input<'a> = &'a dyn Fn(&mut Receiver);

/// When every transition happens.
const NOW: Timestamp = Timestamp(100_000_000_000);

fn epoch(counter: u64, id: u8) -> Epoch {
    Epoch {
        counter,
        id: EpochId([id; 16]),
    }
}

/// Each level has a content of its own, the same in every epoch.
fn at(epoch: Epoch, level: u64) -> Position {
    Position {
        epoch,
        level: Level(level),
        root: Root([level, level]),
    }
}

fn mine() -> Position {
    at(epoch(2, 2), 10)
}

fn other_content(position: Position) -> Position {
    Position {
        root: Root([99, 99]),
        ..position
    }
}

fn frame(epoch: Epoch, from: u64, to: u64) -> Message {
    let kind = if from == to {
        FrameKind::Epoch
    } else {
        FrameKind::Changes
    };
    let change = Change {
        key: Key::from_bytes(b"aalice@example.net").unwrap(),
        level: Level(to),
        op: ChangeOp::Delete,
    };
    let changes = if from == to { Vec::new() } else { vec![change] };
    let header = FrameHeader {
        kind,
        shard: 0,
        epoch,
        from: Level(from),
        to: Level(to),
        root_before: Root([from, from]),
        root_after: Root([to, to]),
        time: MasterTime(0),
    };
    Message::Frame(Frame { header, changes })
}

fn tampered(message: Message) -> Message {
    let Message::Frame(mut frame) = message else {
        unreachable!("only frames are tampered with");
    };
    frame.header.root_before = Root([99, 99]);
    Message::Frame(frame)
}

/// A master at `head`, whose epochs 1 and 2 began at 0 and 5, and the head's own there.
fn welcome(head: Position, plan: Plan) -> Message {
    let mut lineage = Lineage::default();
    for (epoch, start) in [(epoch(1, 1), 0), (epoch(2, 2), 5)] {
        if epoch.counter < head.epoch.counter {
            lineage.push(epoch, Level(start)).unwrap();
        }
    }
    let start = Level(5).max(Level(head.level.0.saturating_sub(10)));
    lineage.push(head.epoch, start).unwrap();
    Message::Welcome(Welcome {
        version: WireVersion::V1,
        lineage,
        head,
        time: MasterTime(5_000),
        table_key: [7; 16],
        plan,
    })
}

fn heartbeat(head: Position) -> Message {
    Message::Heartbeat(Heartbeat {
        time: MasterTime(6_000),
        head,
    })
}

fn begin(level: u64) -> Message {
    Message::SnapshotBegin(SnapshotBegin {
        position: at(epoch(2, 2), level),
        records: 1,
        bytes: 10,
    })
}

fn end(level: u64) -> Message {
    Message::SnapshotEnd(SnapshotEnd {
        level: Level(level),
        root: Root([level, level]),
    })
}

fn standing(position: Position) -> Standing {
    Standing {
        position,
        records: 1,
    }
}

fn receiver(standing: Option<Standing>) -> Receiver {
    let config = ReceiverConfig {
        cluster: "lab".parse().unwrap(),
        node: NodeId(1),
        name: "n1".parse().unwrap(),
        boot: BootId(1),
        sip: String::new(),
        transport: Transport::Auto,
    };
    Receiver::new(Timestamp(0), config, standing, None)
}

/// Takes all outputs; returns the events as words.
fn drain(receiver: &mut Receiver) -> Vec<&'static str> {
    while receiver.poll_transmit().is_some() {}
    let mut words = Vec::new();
    while let Some(event) = receiver.poll_event() {
        words.push(match event {
            ReceiverEvent::Connect => "connect",
            ReceiverEvent::Disconnect(_) => continue, // it shows in the phase
            ReceiverEvent::Apply { checked: true, .. } => "apply",
            ReceiverEvent::Apply { checked: false, .. } => "apply-unchecked",
            ReceiverEvent::BeginLoad { .. } => "begin-load",
            ReceiverEvent::LoadRecords(_) => "load-records",
            ReceiverEvent::LoadFrame(_) => "load-frame",
            ReceiverEvent::FinishLoad(_) => "finish-load",
            ReceiverEvent::AbortLoad => "abort-load",
            ReceiverEvent::Compare { .. } => "compare",
            ReceiverEvent::Mend { .. } => "mend",
            ReceiverEvent::Scrub => "scrub",
            ReceiverEvent::Audited { .. } => "audited",
            ReceiverEvent::Registered { .. } => "registered",
            ReceiverEvent::JoinGroup { .. } => "join-group",
            ReceiverEvent::LeaveGroup => "leave-group",
            ReceiverEvent::RejoinGroup => "rejoin-group",
            ReceiverEvent::StateChanged { .. } => continue, // the other table's affair
        });
    }
    words
}

fn phase(receiver: &Receiver) -> &'static str {
    match receiver.phase {
        Phase::Offline => "offline",
        Phase::Connecting => "connecting",
        Phase::Greeting => "greeting",
        Phase::Following => "following",
        Phase::Awaiting => "awaiting",
        Phase::Loading(_) => "loading",
        Phase::Closing => "closing",
    }
}

/// The phases of a conversation, and what leads there. A load has two: before and after its end of
/// records (at level 30, so that frames are still missing).
const PHASES: [&str; 8] = [
    "offline",
    "connecting",
    "greeting",
    "following",
    "awaiting",
    "records",
    "replay",
    "closing",
];

fn in_phase(name: &str) -> Receiver {
    let mut r = receiver(Some(standing(mine())));
    let head = at(epoch(2, 2), 20);
    let say = |r: &mut Receiver, message| r.handle_message(NOW, message).unwrap();
    if name == "offline" {
        return r;
    }
    r.handle_timeout(NOW);
    if name != "connecting" {
        r.handle_connected(NOW);
    }
    match name {
        "connecting" | "greeting" => {}
        "following" => say(&mut r, welcome(head, Plan::Continue)),
        "closing" => {
            say(&mut r, welcome(head, Plan::Continue));
            assert!(r.handle_message(NOW, frame(epoch(2, 2), 11, 12)).is_err());
        }
        load => {
            say(&mut r, welcome(head, Plan::Reload(ReloadReason::TooFar)));
            if load != "awaiting" {
                say(&mut r, begin(20));
            }
            if load == "replay" {
                say(&mut r, end(30));
            }
        }
    }
    drain(&mut r);
    r
}

#[test]
fn every_phase_and_every_message() {
    let head = at(epoch(2, 2), 20);
    let reload = Plan::Reload(ReloadReason::TooFar);
    let second = epoch(2, 2);
    let hello = Hello {
        cluster: "lab".parse().unwrap(),
        node: NodeId(1),
        name: "n1".parse().unwrap(),
        boot: BootId(1),
        sip: String::new(),
        newest: 1,
        transport: Transport::Auto,
        position: None,
    };
    let inputs = [
        ("welcome, continue", welcome(head, Plan::Continue)),
        ("welcome, reload", welcome(head, reload)),
        (
            "welcome, newer epoch",
            welcome(at(epoch(3, 3), 20), Plan::Continue),
        ),
        ("welcome, older epoch", welcome(at(epoch(1, 1), 20), reload)),
        (
            "welcome, epoch's twin",
            welcome(at(epoch(2, 9), 20), reload),
        ),
        // The node is at 10: a log that ends at 9 cannot continue it.
        (
            "welcome, impossible",
            welcome(at(second, 9), Plan::Continue),
        ),
        (
            "rejection",
            Message::Rejection(Rejection {
                reason: "no".into(),
            }),
        ),
        ("frame 10 to 12", frame(second, 10, 12)),
        ("frame 9 to 10", frame(second, 9, 10)),
        ("frame 11 to 12", frame(second, 11, 12)),
        (
            "frame 10 to 12, other root",
            tampered(frame(second, 10, 12)),
        ),
        ("frame of the past epoch", frame(epoch(1, 1), 10, 12)),
        ("frame of a strange epoch", frame(epoch(2, 9), 10, 12)),
        ("epoch 3 begins at 10", frame(epoch(3, 3), 10, 10)),
        ("epoch 3 begins at 20", frame(epoch(3, 3), 20, 20)),
        ("frame 20 to 25", frame(second, 20, 25)),
        ("frame 20 to 30", frame(second, 20, 30)),
        ("frame 20 to 31", frame(second, 20, 31)),
        ("heartbeat at 10", heartbeat(mine())),
        (
            "heartbeat at 10, other root",
            heartbeat(other_content(mine())),
        ),
        ("heartbeat at 9", heartbeat(at(second, 9))),
        ("heartbeat at 20", heartbeat(head)),
        ("snapshot begins at 20", begin(20)),
        ("snapshot begins at 19", begin(19)),
        (
            "records",
            Message::SnapshotPart(SnapshotPart {
                records: Vec::new(),
            }),
        ),
        ("snapshot ends at 20", end(20)),
        ("snapshot ends at 19", end(19)),
        (
            "registered",
            Message::Registered {
                ticket: 1,
                reply: RegistrationReply::Refused(Refusal::TooMany),
            },
        ),
        (
            "sums, not asked for",
            Message::AuditSums(audit::sums(None, 10)),
        ),
        (
            "audit's records, not asked for",
            Message::AuditRecords(audit::records(1, 10, 1)),
        ),
        (
            "audit refused, not asked for",
            Message::AuditRefused(AuditRefusal::Majority),
        ),
        ("audit ordered", audit::order(true)),
        ("group offered", group::offer()),
        ("group cut, not offered", group::cut(7, 1)),
        ("group ended, not offered", group::end(7)),
        ("hello", Message::Hello(hello)),
    ];
    let expected = "
                               | greeting  | following  | awaiting   | records      | replay
welcome, continue              | following | refused    | refused    | refused      | refused
welcome, reload                | awaiting  | refused    | refused    | refused      | refused
welcome, newer epoch           | following | refused    | refused    | refused      | refused
welcome, older epoch           | refused   | refused    | refused    | refused      | refused
welcome, epoch's twin          | refused   | refused    | refused    | refused      | refused
welcome, impossible            | refused   | refused    | refused    | refused      | refused
rejection                      | refused   | refused    | refused    | refused      | refused
frame 10 to 12                 | refused   | apply      | refused    | refused      | .
frame 9 to 10                  | refused   | .          | refused    | refused      | .
frame 11 to 12                 | refused   | refused    | refused    | refused      | .
frame 10 to 12, other root     | refused   | refused    | refused    | refused      | .
frame of the past epoch        | refused   | .          | refused    | refused      | .
frame of a strange epoch       | refused   | refused    | refused    | refused      | refused
epoch 3 begins at 10           | refused   | apply      | refused    | refused      | refused
epoch 3 begins at 20           | refused   | refused    | refused    | refused      | .
frame 20 to 25                 | refused   | refused    | refused    | refused      | load-frame
frame 20 to 30                 | refused   | refused    | refused    | refused      | load-frame finish-load
frame 20 to 31                 | refused   | refused    | refused    | refused      | refused
heartbeat at 10                | refused   | .          | .          | .            | .
heartbeat at 10, other root    | refused   | .          | .          | .            | .
heartbeat at 9                 | refused   | .          | .          | .            | .
heartbeat at 20                | refused   | refused    | .          | .            | .
snapshot begins at 20          | refused   | refused    | begin-load | refused      | refused
snapshot begins at 19          | refused   | refused    | refused    | refused      | refused
records                        | refused   | refused    | refused    | load-records | refused
snapshot ends at 20            | refused   | refused    | refused    | finish-load  | refused
snapshot ends at 19            | refused   | refused    | refused    | refused      | refused
registered                     | refused   | registered | registered | registered   | registered
sums, not asked for            | refused   | refused    | refused    | refused      | refused
audit's records, not asked for | refused   | refused    | refused    | refused      | refused
audit refused, not asked for   | refused   | refused    | refused    | refused      | refused
audit ordered                  | refused   | scrub      | .          | .            | .
group offered                  | refused   | join-group | refused    | refused      | refused
group cut, not offered         | refused   | .          | refused    | refused      | refused
group ended, not offered       | refused   | .          | refused    | refused      | refused
hello                          | refused   | refused    | refused    | refused      | refused
";
    let mut table = format!(
        "\n{:30} | {:9} | {:10} | {:10} | {:12} | {}\n",
        "", "greeting", "following", "awaiting", "records", "replay"
    );
    for (name, message) in inputs {
        let cell = |before| cell(before, |r| drop(r.handle_message(NOW, message.clone())));
        for deaf in ["offline", "connecting", "closing"] {
            assert_eq!(cell(deaf), ".", "{name}: nothing is heard while {deaf}");
        }
        let [a, b, c, d, e] = ["greeting", "following", "awaiting", "records", "replay"].map(cell);
        writeln!(table, "{name:30} | {a:9} | {b:10} | {c:10} | {d:12} | {e}").unwrap();
    }
    assert_eq!(table, expected, "{table}");
}

/// Returns what an input leads to: "." for nothing, "refused" for the end of the connection (with the
/// load dropped, if there is one), the new phase, or what is asked of the caller.
fn cell(before: &'static str, input: impl Fn(&mut Receiver)) -> String {
    let mut r = in_phase(before);
    let was = phase(&r);
    input(&mut r);
    let words = drain(&mut r);
    let is = phase(&r);
    assert_eq!(r.position(), Some(mine()), "nothing was applied yet");
    let aborts = was == "loading" && is != "loading";
    assert_eq!(
        words.contains(&"abort-load"),
        aborts,
        "{was} to {is}: {words:?}"
    );
    let words: Vec<&str> = words.into_iter().filter(|w| *w != "abort-load").collect();
    match (words.is_empty(), is) {
        (true, same) if same == was => ".".into(),
        (true, "closing") => "refused".into(),
        (true, other) => other.into(),
        (false, _) => words.join(" "),
    }
}

#[test]
fn every_phase_and_everything_else() {
    let later = |r: &mut Receiver, ms| r.handle_timeout(NOW.plus(Duration::from_millis(ms)));
    let inputs: [(&str, Input<'_>); 8] = [
        ("closed", &|r| r.handle_closed(NOW)),
        ("2 s pass", &|r| later(r, 2_000)),
        ("2,999 ms pass", &|r| later(r, 2_999)),
        ("3 s pass", &|r| later(r, 3_000)),
        ("3 s held back", &|r| {
            r.handle_held(NOW.plus(Duration::from_secs(2)));
            later(r, 3_000);
        }),
        ("applied, not asked", &|r| {
            r.handle_applied(NOW, Ok(standing(at(epoch(2, 2), 12))));
        }),
        ("loaded, not asked", &|r| {
            r.handle_loaded(NOW, Ok(standing(at(epoch(2, 2), 30))));
        }),
        ("load failed", &|r| r.handle_loaded(NOW, Err(Failure::Full))),
    ];
    let expected = "
                   | offline | connecting | greeting | following | awaiting | records | replay  | closing
closed             | .       | offline    | offline  | offline   | offline  | offline | offline | offline
2 s pass           | connect | .          | .        | .         | .        | .       | .       | .
2,999 ms pass      | connect | .          | .        | .         | .        | .       | .       | .
3 s pass           | connect | .          | refused  | refused   | refused  | refused | refused | .
3 s held back      | connect | .          | refused  | .         | .        | .       | .       | .
applied, not asked | .       | .          | .        | .         | .        | .       | .       | .
loaded, not asked  | .       | .          | .        | .         | .        | .       | .       | .
load failed        | .       | .          | .        | .         | .        | refused | refused | .
";
    let [a, b, c, d, e, f, g, h] = PHASES;
    let mut table = format!(
        "\n{:18} | {a} | {b} | {c} | {d} | {e} | {f} | {g:7} | {h}\n",
        ""
    );
    for (name, input) in inputs {
        let [a, b, c, d, e, f, g, h] = PHASES.map(|before| cell(before, input));
        writeln!(
            table,
            "{name:18} | {a:7} | {b:10} | {c:8} | {d:9} | {e:8} | {f:7} | {g:7} | {h}"
        )
        .unwrap();
    }
    assert_eq!(table, expected, "{table}");
}

/// Brings a receiver into a state of its table.
fn in_state(state: NodeState) -> Receiver {
    let say = |r: &mut Receiver, message| drop(r.handle_message(NOW, message));
    let mut r = receiver((state != NodeState::Loading).then(|| standing(mine())));
    match state {
        NodeState::Loading => {}
        NodeState::Stale => r.handle_timeout(NOW),
        NodeState::Resync | NodeState::Coherent | NodeState::Inconsistent => {
            r.handle_timeout(NOW);
            r.handle_connected(NOW);
            say(&mut r, welcome(mine(), Plan::Continue));
        }
        NodeState::Draining => unreachable!("a receiver does not drain"),
    }
    match state {
        NodeState::Coherent => say(&mut r, heartbeat(mine())),
        NodeState::Inconsistent => {
            say(&mut r, frame(epoch(2, 2), 10, 12));
            r.handle_applied(NOW, Err(Failure::Broken));
        }
        NodeState::Loading | NodeState::Resync | NodeState::Stale | NodeState::Draining => {}
    }
    assert_eq!(r.state(), state);
    drain(&mut r);
    r
}

/// Connects anew and hears this welcome.
fn again(r: &mut Receiver, plan: Plan, head: Position) {
    if r.welcomed() || matches!(r.phase, Phase::Closing) {
        r.handle_closed(NOW);
    }
    r.handle_connected(NOW);
    drop(r.handle_message(NOW, welcome(head, plan)));
}

/// Loads a whole table at level 20.
fn load(r: &mut Receiver) {
    again(r, Plan::Reload(ReloadReason::TooFar), at(epoch(2, 2), 20));
    r.handle_message(NOW, begin(20)).unwrap();
    r.handle_message(NOW, end(20)).unwrap();
    r.handle_loaded(NOW, Ok(standing(at(epoch(2, 2), 20))));
}

#[test]
fn every_state_of_the_table() {
    let ten = mine();
    let reload = Plan::Reload(ReloadReason::TooFar);
    let later = |r: &mut Receiver, ms| r.handle_timeout(NOW.plus(Duration::from_millis(ms)));
    let fail = |r: &mut Receiver, failure| {
        drop(r.handle_message(NOW, frame(epoch(2, 2), 10, 12)));
        r.handle_applied(NOW, Err(failure));
    };
    let inputs: [(&str, Input<'_>); 13] = [
        ("welcome, continue", &|r| again(r, Plan::Continue, ten)),
        ("welcome, reload", &|r| again(r, reload, ten)),
        ("whole table loaded", &load),
        ("and a heartbeat", &|r| {
            load(r);
            r.handle_message(NOW, heartbeat(at(epoch(2, 2), 20)))
                .unwrap();
        }),
        ("heartbeat", &|r| {
            drop(r.handle_message(NOW, heartbeat(ten)))
        }),
        ("heartbeat, other root", &|r| {
            drop(r.handle_message(NOW, heartbeat(other_content(ten))));
        }),
        ("frame, other root", &|r| {
            drop(r.handle_message(NOW, tampered(frame(epoch(2, 2), 10, 12))));
        }),
        ("twice", &|r| {
            for _ in 0..2 {
                again(r, Plan::Continue, ten);
                drop(r.handle_message(NOW, tampered(frame(epoch(2, 2), 10, 12))));
            }
        }),
        ("no room for a frame", &|r| fail(r, Failure::Full)),
        ("table fails", &|r| fail(r, Failure::Broken)),
        ("connection lost", &|r| r.handle_closed(NOW)),
        ("2,999 ms of silence", &|r| later(r, 2_999)),
        ("3 s of silence", &|r| later(r, 3_000)),
    ];
    let expected = "
                       | loading   | resync       | coherent     | stale        | inconsistent
welcome, continue      | .         | .            | .            | resync       | .
welcome, reload        | .         | .            | resync       | resync       | .
whole table loaded     | resync    | .            | resync       | resync       | resync
and a heartbeat        | coherent  | coherent     | .            | coherent     | coherent
heartbeat              | .         | coherent     | .            | .            | .
heartbeat, other root  | .         | .            | resync       | .            | .
frame, other root      | .         | .            | .            | .            | .
twice                  | .         | .            | resync       | resync       | .
no room for a frame    | .         | .            | .            | .            | .
table fails            | .         | inconsistent | inconsistent | .            | .
connection lost        | .         | .            | .            | .            | .
2,999 ms of silence    | .         | .            | .            | .            | .
3 s of silence         | .         | stale        | stale        | .            | .
";
    let states = [
        NodeState::Loading,
        NodeState::Resync,
        NodeState::Coherent,
        NodeState::Stale,
        NodeState::Inconsistent,
    ];
    let row = |name: &str, [a, b, c, d, e]: [String; 5]| {
        format!("{name:22} | {a:9} | {b:12} | {c:12} | {d:12} | {e}\n")
    };
    let mut table = "\n".to_owned() + &row("", states.map(|state| state.to_string()));
    for (name, input) in inputs {
        table += &row(
            name,
            states.map(|before| {
                let mut r = in_state(before);
                input(&mut r);
                let same = r.state() == before;
                if same {
                    ".".into()
                } else {
                    r.state().to_string()
                }
            }),
        );
    }
    assert_eq!(table, expected, "{table}");
}

#[test]
fn reports_each_second_and_soon_after_a_change() {
    let mut r = in_phase("following");
    let mut reports = Vec::new();
    let mut level = 10;
    // A frame at 0 ms, and five more from 1,500 ms on, 50 ms apart.
    let frames = [0, 1_500, 1_550, 1_600, 1_650, 1_700];
    for ms in (0..3_000).step_by(50) {
        let now = NOW.plus(Duration::from_millis(ms));
        if frames.contains(&ms) {
            r.handle_message(now, frame(epoch(2, 2), level, level + 1))
                .unwrap();
            level += 1;
            r.handle_applied(now, Ok(standing(at(epoch(2, 2), level))));
        }
        r.handle_timeout(now);
        while let Some(message) = r.poll_transmit() {
            let Message::Status(status) = message else {
                panic!("only reports are due");
            };
            reports.push((ms, status.position.level.0));
        }
    }
    // The welcome at 0 ms was reported already. At 1,700 ms a report is due, and then the last frame comes.
    let expected = [
        (200, 11),
        (1_200, 11),
        (1_500, 12),
        (1_700, 15),
        (1_900, 16),
        (2_900, 16),
    ];
    assert_eq!(reports, expected);
}

#[test]
fn inputs_survive_a_recording() {
    let recalled = Recalled {
        time: MasterTime(5),
        complete_until: MasterTime(4),
    };
    let inputs = (
        receiver(None).config,
        recalled,
        [Ok(standing(mine())), Err(Failure::Full)],
    );
    let text = serde_json::to_string(&inputs).unwrap();
    let read: (ReceiverConfig, Recalled, [Result<Standing, Failure>; 2]) =
        serde_json::from_str(&text).unwrap();
    assert_eq!(read, inputs);
}
