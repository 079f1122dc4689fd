//! What was recorded leads to the same end state when it is replayed.

use locus_proto::v1::{AuditAsk, AuditReport, AuditScope, AuditVerdict};

use super::*;
use crate::provision::NodeRef;
use crate::record::{ReplayError, replay};

fn scratch(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("locsvc-{}-{name}.jsonl", std::process::id()))
}

/// A life with everything in it: provisioning, registrations, nodes, a full disk, expiry.
fn live(bench: &mut Bench, host: &str) {
    let node = bench.node(1);
    for number in 0..40_u32 {
        let index = usize::try_from(number).unwrap();
        bench.ask(Request::Change(vec![
            put(index, &format!("sip:a@{host}")),
            put(index + 100, &format!("sip:b@{host}")),
        ]));
        bench.send_register(node, registration(index / 2, number + 1, 60 + number));
        bench.disk = (number % 7 == 3).then_some("no space left on device");
        bench.advance(Duration::from_millis(1500));
        bench.disk = None;
        bench.write();
        bench.message(node, nodes::status(bench.drive.core().position()));
        if number % 5 == 0 {
            bench.change(vec![ProvisionChange::DeleteAor(aor(index))]);
        }
        if number % 10 == 4 {
            audit(bench, node);
        }
        if number == 20 {
            let second = bench.node(2);
            bench.feed(Input::Closed { peer: second });
        }
    }
    bench.advance(Duration::from_secs(300));
    bench.feed(Input::LogEndUnreadable {
        reason: "input/output error".into(),
    });
}

/// An order and its report, and a question.
fn audit(bench: &mut Bench, node: Peer) {
    let deadline = bench.now.plus(Duration::from_secs(1));
    bench.ask(Request::Audit {
        node: Some(NodeRef::Number(NodeId(1))),
        repair: true,
        deadline,
    });
    let messages = bench.messages(node);
    let ordered = messages.into_iter().find_map(|message| {
        if let Message::AuditOrder(order) = message {
            Some(order.ticket)
        } else {
            None
        }
    });
    bench.message(
        node,
        Message::AuditReport(AuditReport {
            ticket: ordered.expect("an order"),
            verdict: AuditVerdict::Repaired,
            level: bench.drive.core().position().level,
            records: 1,
            partitions: 1,
            ranges: vec![(0, 0)],
            differing: 1,
            repaired: 1,
        }),
    );
    let scope = AuditScope::Groups;
    bench.message(node, Message::AuditAsk(AuditAsk { scope, doubt: None }));
}

#[test]
fn a_replay_ends_where_the_recorded_run_ended() {
    let path = scratch("replay");
    let folder = MemoryFolder::default();
    live(
        &mut Bench::open(folder.clone(), 1000, WALL, None, None),
        "first",
    );
    // The recorded life begins with a log that is not empty.
    let recorder = Recorder::create(&path, &config(1000)).unwrap();
    let mut bench = Bench::open(folder, 1000, WALL + 1, None, Some(recorder));
    live(&mut bench, "second");
    assert_eq!(bench.recorder.as_mut().unwrap().flush(), None);
    let end = bench.drive.core().end_state();
    assert!(end.level > 100 && end.counters.expired_total > 5, "{end:?}");
    assert!(end.counters.batches_refused_total > 0, "{end:?}");
    assert_eq!(
        (end.counters.audits_total, end.counters.alarms_total),
        (4, 0)
    );
    assert!(end.distribution.audit_answers_total >= 4, "{end:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    for input in ["\"Audit\"", "AuditReport", "AuditAsk", "LogEndUnreadable"] {
        assert!(text.contains(input), "{input}");
    }
    assert_eq!(replay(&path).unwrap(), end);
    // A process that died while it wrote the last line.
    let text = std::fs::read_to_string(&path).unwrap();
    let ticks = format!("{text}{{\"at\":99999999999999,\"input\":\"Ti");
    std::fs::write(&path, ticks).unwrap();
    assert_eq!(replay(&path).unwrap(), end);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_no_recording_is_refused() {
    let path = scratch("no-recording");
    drop(Recorder::create(&path, &config(1000)).unwrap());
    let header = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(replay(&path), Err(ReplayError::Empty)));
    std::fs::write(&path, "{}\n").unwrap();
    assert!(matches!(
        replay(&path),
        Err(ReplayError::Line { line: 1, .. })
    ));
    std::fs::write(
        &path,
        format!("{header}{{\"at\":1,\"input\":\"Nonsense\"}}\n"),
    )
    .unwrap();
    assert!(matches!(
        replay(&path),
        Err(ReplayError::Line { line: 2, .. })
    ));
    std::fs::write(&path, header.replace("recording\":2", "recording\":1")).unwrap();
    assert!(matches!(replay(&path), Err(ReplayError::Format(1))));
    std::fs::remove_file(&path).unwrap();
}
