//! Transition tables of an audit: each stage against each input, and its limits.

use locus_proto::v1::{
    AUDIT_SUMS, AuditAsk, AuditOrder, AuditRecords, AuditScope, AuditSums, AuditVerdict,
};

use super::*;
use crate::PARTITION_BYTES_MAX;

pub(super) fn sums(group: Option<u8>, level: u64) -> AuditSums {
    AuditSums {
        level: Level(level),
        group,
        sums: vec![Root::EMPTY; AUDIT_SUMS],
    }
}

fn record(bytes: usize) -> Change {
    Change {
        key: Key::from_bytes(b"aalice@example.net").unwrap(),
        level: Level(1),
        op: ChangeOp::Put(vec![7; bytes]),
    }
}

/// All records of a partition.
pub(super) fn records(partition: u16, level: u64, count: usize) -> AuditRecords {
    AuditRecords {
        level: Level(level),
        partition,
        last: true,
        records: vec![record(10); count],
    }
}

pub(super) fn order(repair: bool) -> Message {
    Message::AuditOrder(AuditOrder { ticket: 9, repair })
}

/// The answer that an audit waits for; anything, if it waits for none.
pub(super) fn fitting(r: &Receiver, level: u64) -> Message {
    let scope = r.audit.as_ref().map(|walk| walk.scope());
    match scope {
        None | Some(AuditScope::Groups) => Message::AuditSums(sums(None, level)),
        Some(AuditScope::Group(group)) => Message::AuditSums(sums(Some(group), level)),
        Some(AuditScope::Partition(p)) => Message::AuditRecords(records(p, level, 1)),
    }
}

fn say(r: &mut Receiver, message: Message) {
    r.handle_message(NOW, message).unwrap();
}

fn mended(differing: u64, repaired: u64) -> Result<Mended, Failure> {
    let standing = standing(mine());
    Ok(Mended {
        differing,
        repaired,
        standing,
    })
}

fn verdict(verdict: AuditVerdict) -> &'static str {
    match verdict {
        AuditVerdict::Equal => "equal",
        AuditVerdict::Differs => "differs",
        AuditVerdict::Repaired => "repaired",
        AuditVerdict::Reloading => "reloading",
        AuditVerdict::Refused => "refused",
        AuditVerdict::Busy => "busy",
        AuditVerdict::Failed => "failed",
    }
}

/// Takes all outputs, reports of the state left out; returns them as words.
fn outputs(r: &mut Receiver) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(message) = r.poll_transmit() {
        if let Message::AuditAsk(AuditAsk { scope, doubt }) = message {
            words.push(match (scope, doubt) {
                (AuditScope::Groups, None) => "ask".into(),
                (AuditScope::Groups, Some(_)) => "ask!".into(),
                (AuditScope::Group(group), _) => format!("{group}?"),
                (AuditScope::Partition(partition), _) => format!("{partition}?"),
            });
        } else if let Message::AuditReport(report) = message {
            words.push(format!("→ {}", verdict(report.verdict)));
        } else {
            assert!(matches!(message, Message::Status(_)), "{message:?}");
        }
    }
    while let Some(event) = r.poll_event() {
        words.push(match event {
            ReceiverEvent::Apply { checked, .. } => match checked {
                true => "apply".into(),
                false => "follow".into(),
            },
            ReceiverEvent::Compare { group, .. } => match group {
                None => "compare".into(),
                Some(group) => format!("compare {group}"),
            },
            ReceiverEvent::Mend {
                partition, repair, ..
            } => match repair {
                true => format!("mend {partition}"),
                false => format!("count {partition}"),
            },
            ReceiverEvent::Scrub => "scrub".into(),
            ReceiverEvent::Audited { verdict: how, .. } => verdict(how).into(),
            ReceiverEvent::Disconnect(_) => "closes".into(),
            ReceiverEvent::StateChanged { .. } => continue,
            ReceiverEvent::Connect
            | ReceiverEvent::BeginLoad { .. }
            | ReceiverEvent::LoadRecords(_)
            | ReceiverEvent::LoadFrame(_)
            | ReceiverEvent::FinishLoad(_)
            | ReceiverEvent::AbortLoad
            | ReceiverEvent::JoinGroup { .. }
            | ReceiverEvent::LeaveGroup
            | ReceiverEvent::RejoinGroup
            | ReceiverEvent::Registered { .. } => panic!("{event:?} is no part of an audit"),
        });
    }
    words
}

/// The stages of an audit. "held": an answer of level 12 waits; "comparing", "mending": the table owes an
/// answer; "again": the master has refused, and is asked again later.
const STAGES: [&str; 10] = [
    "none",
    "scrub",
    "groups",
    "group",
    "records",
    "held",
    "comparing",
    "mending",
    "settling",
    "again",
];

/// A receiver at level 10 whose audit is in this stage.
fn in_stage(stage: &str, cause: AuditCause) -> Receiver {
    let mut r = in_state(NodeState::Coherent);
    match (stage, cause) {
        ("none", _) => return r,
        (_, AuditCause::Divergence) => say(&mut r, heartbeat(other_content(mine()))),
        (_, AuditCause::Memory) => r.handle_doubted(NOW),
        (_, AuditCause::Order) => {
            say(&mut r, order(false));
            if stage != "scrub" {
                r.handle_scrubbed(NOW, Ok(()));
            }
        }
    }
    match stage {
        "scrub" | "groups" => {}
        "again" => say(&mut r, Message::AuditRefused(AuditRefusal::Majority)),
        "held" => say(&mut r, Message::AuditSums(sums(None, 12))),
        "comparing" => say(&mut r, Message::AuditSums(sums(None, 10))),
        _ => {
            say(&mut r, Message::AuditSums(sums(None, 10)));
            r.handle_compared(NOW, Ok(vec![1]));
        }
    }
    if ["records", "mending", "settling"].contains(&stage) {
        say(&mut r, Message::AuditSums(sums(Some(1), 10)));
        r.handle_compared(NOW, Ok(vec![2]));
    }
    if ["mending", "settling"].contains(&stage) {
        say(&mut r, Message::AuditRecords(records(258, 10, 1)));
    }
    if stage == "settling" {
        r.handle_mended(NOW, mended(1, 1));
    }
    outputs(&mut r);
    r
}

#[test]
fn every_stage_and_every_message() {
    let inputs = [
        ("sums of groups", Message::AuditSums(sums(None, 10))),
        ("of level 12", Message::AuditSums(sums(None, 12))),
        ("of level 9", Message::AuditSums(sums(None, 9))),
        ("sums of group 1", Message::AuditSums(sums(Some(1), 10))),
        ("sums of group 2", Message::AuditSums(sums(Some(2), 10))),
        ("records of 258", Message::AuditRecords(records(258, 10, 3))),
        ("of level 12", Message::AuditRecords(records(258, 12, 3))),
        ("of level 9", Message::AuditRecords(records(258, 9, 3))),
        ("of 259", Message::AuditRecords(records(259, 10, 3))),
        ("refusal", Message::AuditRefused(AuditRefusal::Majority)),
        ("order", order(true)),
        ("heartbeat", heartbeat(mine())),
        ("other content", heartbeat(other_content(mine()))),
        ("frame to 12", frame(epoch(2, 2), 10, 12)),
        ("frame of others", tampered(frame(epoch(2, 2), 10, 12))),
    ];
    let expected = "
                | none      | scrub     | groups    | group     | records   | held      | comparing | mending   | settling  | again
sums of groups  | closes    | closes    | compare   | closes    | closes    | closes    | closes    | closes    | closes    | closes
of level 12     | closes    | closes    | .         | closes    | closes    | closes    | closes    | closes    | closes    | closes
of level 9      | closes    | closes    | ask!      | closes    | closes    | closes    | closes    | closes    | closes    | closes
sums of group 1 | closes    | closes    | closes    | compare 1 | closes    | closes    | closes    | closes    | closes    | closes
sums of group 2 | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes
records of 258  | closes    | closes    | closes    | closes    | mend 258  | closes    | closes    | closes    | closes    | closes
of level 12     | closes    | closes    | closes    | closes    | .         | closes    | closes    | closes    | closes    | closes
of level 9      | closes    | closes    | closes    | closes    | 258?      | closes    | closes    | closes    | closes    | closes
of 259          | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes    | closes
refusal         | closes    | closes    | refused   | refused   | refused   | closes    | closes    | closes    | closes    | closes
order           | scrub     | → busy    | → busy    | → busy    | → busy    | → busy    | closes    | closes    | → busy    | scrub
heartbeat       | .         | .         | .         | .         | .         | .         | closes    | closes    | repaired  | .
other content   | ask!      | .         | .         | .         | .         | .         | closes    | closes    | ask!      | .
frame to 12     | apply     | apply     | follow    | follow    | follow    | follow    | closes    | closes    | follow    | follow
frame of others | closes    | closes    | follow    | follow    | follow    | follow    | closes    | closes    | follow    | follow
";
    let table = table(&inputs, |r, message| {
        drop(r.handle_message(NOW, message.clone()));
    });
    assert_eq!(table, expected, "{table}");
}

#[test]
fn every_stage_and_everything_else() {
    let later = |r: &mut Receiver, ms| r.handle_timeout(NOW.plus(Duration::from_millis(ms)));
    // What comes each half second keeps the connection.
    let wait = |r: &mut Receiver, halves| {
        for half in 1..=halves {
            let now = NOW.plus(Duration::from_millis(500) * half);
            if r.owed.is_none() {
                drop(r.handle_message(now, heartbeat(at(epoch(2, 2), 9))));
            }
            r.handle_timeout(now);
        }
    };
    let inputs: [(&str, Input<'_>); 15] = [
        ("none differs", &|r| r.handle_compared(NOW, Ok(vec![]))),
        ("1, 2 differ", &|r| r.handle_compared(NOW, Ok(vec![1, 2]))),
        ("cannot compare", &|r| {
            r.handle_compared(NOW, Err(Failure::Broken));
        }),
        ("mended", &|r| r.handle_mended(NOW, mended(2, 2))),
        ("of no use", &|r| {
            r.handle_mended(NOW, Err(Failure::RootMismatch));
        }),
        ("no room", &|r| r.handle_mended(NOW, Err(Failure::Full))),
        ("broken", &|r| r.handle_mended(NOW, Err(Failure::Broken))),
        ("scrubbed", &|r| r.handle_scrubbed(NOW, Ok(()))),
        ("cannot scrub", &|r| {
            r.handle_scrubbed(NOW, Err(Failure::Broken));
        }),
        ("doubted", &|r| r.handle_doubted(NOW)),
        ("closed", &|r| r.handle_closed(NOW)),
        ("2 s of silence", &|r| later(r, 2_000)),
        ("29 s", &|r| wait(r, 58)),
        ("30 s", &|r| wait(r, 60)),
        ("46 s", &|r| {
            wait(r, 92);
            let now = NOW.plus(Duration::from_secs(46));
            drop(r.handle_message(now, heartbeat(other_content(mine()))));
        }),
    ];
    let expected = "
                | none      | scrub     | groups    | group     | records   | held      | comparing | mending   | settling  | again
none differs    | .         | .         | .         | .         | .         | .         | .         | .         | .         | .
1, 2 differ     | .         | .         | .         | .         | .         | .         | 1?        | .         | .         | .
cannot compare  | .         | .         | .         | .         | .         | .         | failed closes | .         | .         | .
mended          | .         | .         | .         | .         | .         | .         | .         | .         | .         | .
of no use       | .         | .         | .         | .         | .         | .         | .         | reloading closes | .         | .
no room         | .         | .         | .         | .         | .         | .         | .         | failed closes | .         | .
broken          | .         | .         | .         | .         | .         | .         | .         | failed closes | .         | .
scrubbed        | .         | ask       | .         | .         | .         | .         | .         | .         | .         | .
cannot scrub    | .         | → failed failed closes | .         | .         | .         | .         | .         | .         | .         | .
doubted         | ask       | .         | .         | .         | .         | .         | .         | .         | .         | .
closed          | .         | .         | .         | .         | .         | .         | .         | .         | .         | .
2 s of silence  | .         | .         | .         | .         | .         | .         | .         | .         | .         | .
29 s            | .         | .         | .         | .         | .         | .         | closes    | closes    | .         | .
30 s            | .         | .         | closes    | closes    | closes    | closes    | closes    | closes    | .         | .
46 s            | ask!      | .         | closes    | closes    | closes    | closes    | closes    | closes    | ask!      | ask!
";
    let table = table(&inputs, |r, input| input(r));
    assert_eq!(table, expected, "{table}");
}

/// Returns what each input leads to in each stage, as lines.
fn table<T>(inputs: &[(&str, T)], apply: impl Fn(&mut Receiver, &T)) -> String {
    let row = |name: &str, cells: [String; 10]| {
        let cells: String = cells.iter().map(|cell| format!(" | {cell:9}")).collect();
        let line = format!("{name:15}{cells}");
        format!("{}\n", line.trim_end())
    };
    let mut table = "\n".to_owned() + &row("", STAGES.map(Into::into));
    for (name, input) in inputs {
        table += &row(
            name,
            STAGES.map(|stage| {
                let cause = match stage {
                    "scrub" => AuditCause::Order,
                    _ => AuditCause::Divergence,
                };
                let mut r = in_stage(stage, cause);
                apply(&mut r, input);
                match outputs(&mut r) {
                    none if none.is_empty() => ".".into(),
                    words => words.join(" "),
                }
            }),
        );
    }
    table
}

#[test]
fn an_answer_waits_for_its_level_and_frames_bring_it() {
    let mut r = in_stage("held", AuditCause::Divergence);
    for (from, to, expected) in [(10, 11, ".."), (11, 12, "compare")] {
        say(&mut r, frame(epoch(2, 2), from, to));
        assert_eq!(outputs(&mut r), ["follow"]);
        r.handle_applied(NOW, Ok(standing(other_content(at(epoch(2, 2), to)))));
        assert_eq!(outputs(&mut r).pop().as_deref().unwrap_or(".."), expected);
    }
    // A frame may also jump over the level: then it is asked again, but not for ever.
    let mut r = in_stage("held", AuditCause::Divergence);
    say(&mut r, frame(epoch(2, 2), 10, 13));
    r.handle_applied(NOW, Ok(standing(other_content(at(epoch(2, 2), 13)))));
    assert_eq!(outputs(&mut r), ["ask!", "follow"]);
    for miss in 2..=AUDIT_MISSES_MAX {
        say(&mut r, Message::AuditSums(sums(None, 12)));
        assert_eq!(outputs(&mut r), ["ask!"], "miss {miss}");
    }
    say(&mut r, Message::AuditSums(sums(None, 12)));
    assert_eq!(outputs(&mut r), ["reloading", "closes"]);
    assert_eq!(
        r.counters().audit_misses_total,
        u64::from(AUDIT_MISSES_MAX) + 1
    );
    // With nothing against the content itself there is no reason for a reload.
    let mut r = in_stage("groups", AuditCause::Memory);
    for _ in 0..=AUDIT_MISSES_MAX {
        say(&mut r, Message::AuditSums(sums(None, 9)));
    }
    assert_eq!(outputs(&mut r).last().unwrap(), "failed");
    assert_eq!(r.state(), NodeState::Coherent);
}

#[test]
fn what_differs_after_three_rounds_is_loaded_anew() {
    let mut r = in_stage("settling", AuditCause::Divergence);
    for round in 2..=AUDIT_ROUNDS_MAX {
        say(&mut r, heartbeat(other_content(mine())));
        assert_eq!(outputs(&mut r), ["ask!"], "round {round}");
        say(&mut r, Message::AuditSums(sums(None, 10)));
        r.handle_compared(NOW, Ok(vec![]));
        assert_eq!(outputs(&mut r), ["compare"]);
        assert_eq!(r.state(), NodeState::Resync);
    }
    say(&mut r, heartbeat(other_content(mine())));
    assert_eq!(outputs(&mut r), ["reloading", "closes"]);
    assert_eq!(r.state(), NodeState::Inconsistent);
    assert_eq!(r.counters().audits_given_up_total, 1);
    assert_eq!(r.counters().audit_rounds_total, 2);
    assert_eq!(r.presentable(), None);
}

/// Lets `groups` groups differ in all their partitions; returns what the last of them leads to.
fn differ_in(r: &mut Receiver, groups: u8) -> Vec<String> {
    say(r, Message::AuditSums(sums(None, 10)));
    r.handle_compared(NOW, Ok((0..groups).collect()));
    for group in 0..groups {
        say(r, Message::AuditSums(sums(Some(group), 10)));
        outputs(r);
        r.handle_compared(NOW, Ok((0..=255).collect()));
    }
    outputs(r)
}

#[test]
fn more_than_one_partition_in_twenty_is_loaded_anew() {
    for (cause, groups, expected, state) in [
        // 12 groups are 3,072 partitions.
        (AuditCause::Divergence, 12, vec!["0?"], NodeState::Resync),
        (
            AuditCause::Divergence,
            13,
            vec!["reloading", "closes"],
            NodeState::Inconsistent,
        ),
        (
            AuditCause::Memory,
            13,
            vec!["reloading", "closes"],
            NodeState::Inconsistent,
        ),
        (
            AuditCause::Order,
            13,
            vec!["→ differs", "differs"],
            NodeState::Coherent,
        ),
    ] {
        let mut r = in_stage("groups", cause);
        assert_eq!(differ_in(&mut r, groups), expected, "{cause:?}");
        assert_eq!(r.state(), state, "{cause:?}");
    }
}

#[test]
fn records_come_in_parts_up_to_a_limit() {
    let part = |count, bytes, last| {
        Message::AuditRecords(AuditRecords {
            last,
            records: vec![record(bytes); count],
            ..records(258, 10, 0)
        })
    };
    let mut r = in_stage("records", AuditCause::Divergence);
    say(&mut r, part(2, 10, false));
    say(&mut r, part(3, 10, false));
    assert_eq!(outputs(&mut r), [""; 0]);
    say(&mut r, part(0, 0, true));
    match r.poll_event() {
        Some(ReceiverEvent::Mend { records, .. }) => assert_eq!(records.len(), 5),
        other => panic!("{other:?}"),
    }
    let too_much = PARTITION_BYTES_MAX / 30_000 + 1;
    let other_level = Message::AuditRecords(records(258, 12, 1));
    for refused in [
        part(too_much, 30_000, false),
        part(0, 0, false),
        other_level,
    ] {
        let mut r = in_stage("records", AuditCause::Divergence);
        say(&mut r, part(1, 10, false));
        let outcome = r.handle_message(NOW, refused);
        assert!(matches!(outcome, Err(MasterError::Audit { .. })));
        assert_eq!(r.counters().audit_answers_refused_total, 1);
    }
}

#[test]
fn a_report_names_ranges() {
    let mut r = in_state(NodeState::Coherent);
    say(&mut r, order(true));
    r.handle_scrubbed(NOW, Ok(()));
    say(&mut r, Message::AuditSums(sums(None, 10)));
    r.handle_compared(NOW, Ok(vec![0, 1]));
    say(&mut r, Message::AuditSums(sums(Some(0), 10)));
    r.handle_compared(NOW, Ok(vec![3, 254, 255]));
    say(&mut r, Message::AuditSums(sums(Some(1), 10)));
    r.handle_compared(NOW, Ok((0..=255).filter(|n| n % 2 == 0).collect()));
    let partitions = 3 + 128;
    outputs(&mut r);
    for n in 0..partitions {
        let partition = match n {
            0 => 3,
            1 => 254,
            2 => 255,
            n => 256 + (n - 3) * 2,
        };
        say(&mut r, Message::AuditRecords(records(partition, 10, 1)));
        r.handle_mended(NOW, mended(2, 2));
    }
    outputs(&mut r);
    say(&mut r, heartbeat(mine()));
    let report = match r.poll_transmit() {
        Some(Message::AuditReport(report)) => report,
        other => panic!("{other:?}"),
    };
    assert_eq!(report.verdict, AuditVerdict::Repaired);
    assert_eq!(report.ticket, 9);
    assert_eq!(report.level, Level(10));
    assert_eq!(report.records, 1);
    assert_eq!(report.partitions, 131);
    assert_eq!((report.differing, report.repaired), (262, 262));
    assert_eq!(
        report.ranges[..4],
        [(3, 3), (254, 256), (258, 258), (260, 260)]
    );
    assert_eq!(report.ranges.len(), locus_proto::v1::AUDIT_RANGES_MAX);
    // What the roster shows.
    assert_eq!(r.counters().repaired_total, 262);
    r.handle_timeout(NOW.plus(STATUS_EVERY));
    let mut messages = std::iter::from_fn(|| r.poll_transmit());
    let Some(Message::Status(status)) = messages.find(|m| matches!(m, Message::Status(_))) else {
        panic!("no report");
    };
    assert_eq!((status.audits_total, status.repaired_total), (1, 262));
}

#[test]
fn doubted_memory_is_not_forgotten() {
    // While it is away, while an audit is cut, and while one that passed the place already is under way.
    let mut r = in_state(NodeState::Coherent);
    r.handle_closed(NOW);
    r.handle_doubted(NOW);
    assert_eq!(outputs(&mut r), [""; 0]);
    again(&mut r, Plan::Continue, mine());
    drain(&mut r);
    say(&mut r, heartbeat(mine()));
    assert_eq!(outputs(&mut r), ["ask"]);
    again(&mut r, Plan::Continue, mine());
    drain(&mut r);
    say(&mut r, heartbeat(mine()));
    assert_eq!(outputs(&mut r), ["ask"]);
    r.handle_doubted(NOW);
    say(&mut r, Message::AuditSums(sums(None, 10)));
    r.handle_compared(NOW, Ok(vec![]));
    assert_eq!(outputs(&mut r), ["compare", "equal"]);
    say(&mut r, heartbeat(mine()));
    assert_eq!(outputs(&mut r), ["ask"]);
    // Also if content was in doubt as well, and the master refused.
    let mut r = in_state(NodeState::Coherent);
    r.handle_closed(NOW);
    r.handle_doubted(NOW);
    again(&mut r, Plan::Continue, mine());
    say(&mut r, heartbeat(other_content(mine())));
    say(&mut r, Message::AuditRefused(AuditRefusal::Corrupt));
    say(&mut r, heartbeat(mine()));
    drain(&mut r);
    let mut now = NOW;
    while now < NOW.plus(AUDIT_AGAIN * 3 / 2) {
        now = now.plus(Duration::from_millis(500));
        r.handle_message(now, heartbeat(mine())).unwrap();
        r.handle_timeout(now);
    }
    r.handle_message(now, heartbeat(mine())).unwrap();
    assert_eq!(outputs(&mut r), ["ask"]);
    // A whole table from the master makes it void.
    r.handle_doubted(NOW);
    load(&mut r);
    drain(&mut r);
    say(&mut r, heartbeat(at(epoch(2, 2), 20)));
    assert_eq!(outputs(&mut r), [""; 0]);
}

#[test]
fn a_scrub_that_still_runs_keeps_the_next_order_waiting() {
    let mut r = in_stage("scrub", AuditCause::Order);
    again(&mut r, Plan::Continue, mine());
    drain(&mut r);
    say(&mut r, order(true));
    assert_eq!(outputs(&mut r), ["→ busy"]);
    r.handle_scrubbed(NOW, Ok(())); // of the order that was cut
    assert_eq!(outputs(&mut r), [""; 0]);
    say(&mut r, order(true));
    assert_eq!(outputs(&mut r), ["scrub"]);
}

/// Whoever did not ask for a repair does not get a reload either: the audit that the doubt itself calls for
/// decides that.
#[test]
fn an_order_without_repair_never_ends_in_a_reload() {
    let doubted = || {
        let mut r = in_stage("again", AuditCause::Divergence);
        say(&mut r, order(false));
        r.handle_scrubbed(NOW, Ok(()));
        outputs(&mut r);
        r
    };
    let mut r = doubted();
    for _ in 0..AUDIT_MISSES_MAX {
        say(&mut r, Message::AuditSums(sums(None, 9)));
    }
    outputs(&mut r);
    say(&mut r, Message::AuditSums(sums(None, 9)));
    assert_eq!(outputs(&mut r), ["→ failed", "failed"]);
    let mut r = doubted();
    for answer in [sums(None, 10), sums(Some(1), 10)] {
        say(&mut r, Message::AuditSums(answer));
        r.handle_compared(NOW, Ok(vec![1]));
    }
    say(&mut r, Message::AuditRecords(records(257, 10, 1)));
    outputs(&mut r);
    r.handle_mended(NOW, Err(Failure::RootMismatch));
    assert_eq!(outputs(&mut r), ["→ failed", "failed"]);
    assert_eq!(r.state(), NodeState::Resync);
}

/// What the reading for an order has found is repaired by that order: another audit would find nothing.
#[test]
fn an_order_with_repair_sees_to_what_its_reading_has_found() {
    let ends: [(bool, &[&str]); 2] = [
        (true, &["→ equal", "equal"]),
        (false, &["→ equal", "ask", "equal"]),
    ];
    for (repair, expected) in ends {
        let mut r = in_state(NodeState::Coherent);
        say(&mut r, order(repair));
        r.handle_doubted(NOW);
        r.handle_scrubbed(NOW, Ok(()));
        say(&mut r, Message::AuditSums(sums(None, 10)));
        outputs(&mut r);
        r.handle_compared(NOW, Ok(vec![]));
        say(&mut r, heartbeat(mine()));
        assert_eq!(outputs(&mut r), expected, "repair: {repair}");
    }
}
