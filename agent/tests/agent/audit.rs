//! Memory that rots, frames that do not fit, operators who ask: what differs is found and repaired, alone.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use locus_proto::Message;
use locus_proto::v1::{AuditOrder, AuditReport, AuditVerdict};

use crate::support::{Agent, Model, Peer, Place, View, listen, record, status, tables, until};

const RECORDS: u32 = 500;

fn aor(n: u32) -> String {
    format!("u{n}@example.net")
}

fn uri(n: u32) -> String {
    format!("sip:device-{n:06}@192.0.2.1")
}

/// A master with some hundred records, an agent that has loaded them, and the connection between.
fn loaded(place: &Place, listener: &TcpListener, options: &str) -> (Model, Agent, Peer, View) {
    let folder = place.path("table");
    let mut model = Model::new();
    let records = (0..RECORDS).map(|n| (aor(n), Some(record(&uri(n), n))));
    model.commit(records.collect());
    let options = format!("records_max = 1000\n{options}");
    let agent = Agent::start(place, &folder, listener.local_addr().unwrap(), &options);
    let (mut peer, hello) = Peer::accept(listener);
    model.serve(&mut peer, &hello);
    let mut view = View::new(&folder);
    view.wait(model.position());
    (model, agent, peer, view)
}

/// Overwrites a part of one record in the table's file, as a stray store of another process would.
fn ruin(folder: &Path, n: u32) {
    const BLOCK: usize = 4096;
    let [table] = &tables(folder)[..] else {
        panic!("one table")
    };
    let (bytes, uri) = (fs::read(table).unwrap(), uri(n));
    let in_block = |block: usize| {
        // A text may end in the next block; most of the file is empty.
        let end = bytes.len().min(block + BLOCK + uri.len());
        let window = &bytes[block..end];
        let is_empty = window.iter().all(|byte| *byte == 0);
        let mut windows = window.windows(uri.len());
        let at = (!is_empty).then(|| windows.position(|found| found == uri.as_bytes()));
        at.flatten().map(|at| block + at)
    };
    let at = (0..bytes.len()).step_by(BLOCK).find_map(in_block).unwrap();
    let file = File::options().write(true).open(table).unwrap();
    let offset = u64::try_from(at + 4).unwrap();
    file.write_all_at(b"garbage", offset).unwrap();
}

#[test]
fn a_stray_write_is_found_by_the_scrub_and_repaired_while_look_ups_go_on() {
    let place = Place::new("stray");
    let folder = place.path("table");
    let (model, agent, mut peer, mut view) = loaded(&place, &listen(), "scrub_minutes = 0.01");
    let ruined = [3, 77, 400];
    let done = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        scope.spawn(|| {
            let mut view = View::new(&folder);
            while !done.load(Ordering::Relaxed) {
                for n in 0..RECORDS {
                    assert!(view.holds(&aor(n)), "{n} was not found");
                    if !ruined.contains(&n) {
                        assert_eq!(view.find(&aor(n)), Some(record(&uri(n), n)));
                    }
                }
            }
        });
        ruined.iter().for_each(|n| ruin(&folder, *n));
        assert_ne!(view.records(), model.records(), "nothing was ruined");
        let repaired = |message: &Message| {
            let status = status(message)?;
            let is_over = status.repaired_total == 3 && status.health.doubted_total > 2;
            is_over.then(|| status.clone())
        };
        let status = peer.follow(&model, repaired);
        done.store(true, Ordering::Relaxed);
        status
    });
    assert_eq!(view.records(), model.records());
    assert_eq!(view.position(), Some(model.position()));
    assert_eq!(status.reloads_total, 1, "the first load alone");
    assert!(status.audits_total > 0 && status.health.table_bytes > 0);
    // Read again, memory is as it should be.
    let passes = status.health.scrubs_total;
    let read_again = |message: &Message| {
        let health = crate::support::status(message)?.health;
        (health.scrubs_total > passes + 1).then_some(health.doubted_total)
    };
    let doubted = peer.follow(&model, read_again);
    let log = agent.log();
    for line in [
        "memory contradicts its sum in partition",
        "records were not the master's at level 500, 1 are repaired",
        "audit (memory contradicts its sums) at level 500: repaired",
        "are repaired (partitions ",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let lines = log.matches("memory contradicts its sum in").count();
    assert!(lines <= 10, "{lines} lines for {doubted} doubts");
    assert!(agent.terminate().success());
}

/// Orders an audit, again while another is under way, and returns its report.
fn order(peer: &mut Peer, model: &Model, ticket: u64, repair: bool) -> AuditReport {
    until("an audit", || {
        let report = try_order(peer, model, ticket, repair);
        (report.verdict != AuditVerdict::Busy).then_some(report)
    })
}

fn try_order(peer: &mut Peer, model: &Model, ticket: u64, repair: bool) -> AuditReport {
    peer.send(&Message::AuditOrder(AuditOrder { ticket, repair }));
    let report = peer.follow(model, |message| {
        if let Message::AuditReport(report) = message {
            return Some(report.clone());
        }
        None
    });
    assert_eq!(report.ticket, ticket);
    report
}

#[test]
fn an_operators_order_reads_all_memory_counts_and_repairs_if_told_to() {
    let place = Place::new("order");
    let recording = place.path("recording");
    let options = format!("scrub_minutes = 0\nrecord = {recording:?}");
    let (model, agent, mut peer, mut view) = loaded(&place, &listen(), &options);
    peer.follow(&model, |message| {
        (status(message)?.records > 0).then_some(())
    });
    let equal = order(&mut peer, &model, 1, true);
    assert_eq!((equal.verdict, equal.differing), (AuditVerdict::Equal, 0));
    assert_eq!(equal.records, u64::from(RECORDS));
    for n in [7, 8] {
        ruin(&place.path("table"), n);
    }
    let differs = order(&mut peer, &model, 2, false);
    assert_eq!(differs.verdict, AuditVerdict::Differs);
    assert_eq!((differs.differing, differs.repaired), (2, 0));
    // Memory that contradicts its sums is repaired in any case, as if the scrub had found it.
    let repaired = |message: &Message| (status(message)?.repaired_total == 2).then_some(());
    peer.follow(&model, repaired);
    assert_eq!(view.records(), model.records());
    for n in [9, 10, 11] {
        ruin(&place.path("table"), n);
    }
    let repaired = order(&mut peer, &model, 3, true);
    assert_eq!(repaired.verdict, AuditVerdict::Repaired);
    assert_eq!((repaired.differing, repaired.repaired), (3, 3));
    assert_eq!(repaired.ranges.len(), 3);
    assert_eq!(view.records(), model.records());
    let scrubs = |message: &Message| {
        let scrubs = status(message)?.health.scrubs_total;
        (scrubs == 3).then_some(())
    };
    peer.follow(&model, scrubs);
    assert!(
        agent
            .log()
            .contains("audit (ordered by an operator) at level 500: differs; 2 records")
    );
    assert!(agent.terminate().success());
    let replayed = locus_agent::replay(std::io::BufReader::new(File::open(recording).unwrap()));
    assert_eq!(replayed.unwrap().receiver.repaired_total, 5);
}

#[test]
fn a_frame_over_a_record_that_has_rotted_is_followed_and_what_differs_repaired() {
    let place = Place::new("frame");
    let listener = listen();
    let (mut model, agent, mut peer, mut view) = loaded(&place, &listener, "scrub_minutes = 0");
    ruin(&place.path("table"), 2);
    let changed = [1, 2].map(|n| (aor(n), Some(record("sip:new@192.0.2.1", n))));
    peer.send(&Message::Frame(model.commit(changed.to_vec())));
    // Once it may be the connection's fault: it comes again.
    while peer.receive().is_some() {}
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.position.unwrap().level.0, u64::from(RECORDS));
    model.serve(&mut peer, &hello);
    let mended = |message: &Message| {
        let status = status(message)?;
        let is_over = status.audits_total > 0 && status.position == model.position();
        is_over.then_some(())
    };
    peer.follow(&model, mended);
    assert_eq!(view.records(), model.records());
    // It goes on from there, checked again.
    peer.send(&Message::Frame(model.commit(vec![(aor(2), None)])));
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    until("a coherent node", || {
        peer.send(&model.heartbeat());
        (view.state() == Some("coherent")).then_some(())
    });
    let log = agent.log();
    for line in [
        "a batch failed: the table is corrupt near aor u2@example.net",
        "the content differs from the master's and is being audited",
        "audit (the content differs from the master's) at level 502",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(agent.terminate().success());
}
