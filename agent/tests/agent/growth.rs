//! A table that gets full grows while it answers; pages of 2 MiB; a table of another boot.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use locus_proto::{Message, NodeState};

use crate::support::{
    Agent, Model, Peer, Place, SmallTmpfs, View, listen, record, status, tables, until,
};

const URI: &str = "sip:a@192.0.2.1";
/// Attempts to kill an agent before its growth, of some hundred milliseconds, is done.
const ATTEMPTS: u32 = 5;

fn aor(n: u32) -> String {
    format!("u{n}@example.net")
}

/// Commits records `from..to` and sends their frame.
fn put(model: &mut Model, peer: &mut Peer, from: u32, to: u32) {
    let records = (from..to).map(|n| (aor(n), Some(record(URI, n))));
    let frame = model.commit(records.collect());
    peer.send(&Message::Frame(frame));
}

fn loaded(place: &Place, folder: &Path, records: u32, options: &str) -> (Model, Agent, Peer) {
    let listener = listen();
    let mut model = Model::new();
    for from in (0..records).step_by(1000) {
        let to = records.min(from + 1000);
        let put = (from..to).map(|n| (aor(n), Some(record(URI, n))));
        model.commit(put.collect());
    }
    let agent = Agent::start(place, folder, listener.local_addr().unwrap(), options);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    View::new(folder).wait(model.position());
    (model, agent, peer)
}

#[test]
fn a_table_grows_under_updates_and_not_one_look_up_fails() {
    let place = Place::new("growth");
    let folder = place.path("table");
    let (mut model, agent, mut peer) = loaded(&place, &folder, 100, "records_max = 100");
    let small = tables(&folder);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut view = View::new(&folder);
            while !done.load(Ordering::Relaxed) {
                for n in 0..100 {
                    assert_eq!(view.find(&aor(n)), Some(record(URI, n)));
                }
            }
        });
        for n in 2..40 {
            put(&mut model, &mut peer, n * 50, n * 50 + 50);
        }
        peer.send(&model.heartbeat());
        let mut view = View::new(&folder);
        view.wait(model.position());
        assert_eq!(view.records(), model.records());
        done.store(true, Ordering::Relaxed);
    });
    assert_ne!(tables(&folder), small);
    let log = agent.log();
    assert!(
        log.contains("records in") && log.contains("the table has grown to"),
        "{log}"
    );
    assert_eq!(
        log.matches("failed").count(),
        log.matches("0 attempts that failed").count(),
        "{log}"
    );
    until("the small tables' end", || {
        (tables(&folder).len() == 1).then_some(())
    });
    assert!(agent.terminate().success());
}

#[test]
fn killed_in_the_middle_of_a_growth_it_goes_on_with_the_small_table() {
    for attempt in 0.. {
        assert!(attempt < ATTEMPTS, "no growth was caught in the middle");
        let place = Place::new(&format!("half-grown-{attempt}"));
        let folder = place.path("table");
        let (mut model, agent, mut peer) = loaded(&place, &folder, 14_000, "records_max = 100");
        for from in (14_000..19_600).step_by(800) {
            put(&mut model, &mut peer, from, from + 800);
        }
        until("a growth", || (tables(&folder).len() == 2).then_some(()));
        agent.kill();
        let left = tables(&folder);
        let newest = left.iter().max().cloned().unwrap();
        let is_half = left.len() == 2;
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let agent = Agent::start(&place, &folder, address, "records_max = 100");
        let (mut peer, hello) = Peer::accept(&listener);
        assert_eq!(
            hello.position.map(|p| p.epoch),
            Some(model.position().epoch)
        );
        if is_half {
            assert!(!newest.exists(), "the half copy is removed");
        }
        model.serve(&mut peer, &hello);
        let mut view = View::new(&folder);
        view.wait(model.position());
        until("the growth", || {
            agent.log().contains("the table has grown").then_some(())
        });
        assert_eq!(view.records(), model.records());
        assert!(agent.terminate().success());
        if is_half {
            return;
        }
    }
}

#[test]
fn huge_pages_are_counted_and_said_to_be_missing_once() {
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap();
    let has_huge = !enabled.contains("[never]");
    for (name, options, huge) in [
        ("huge", "size=64m,huge=advise", has_huge),
        ("small", "size=64m", false),
    ] {
        let place = Place::new(name);
        let Some(tmpfs) = SmallTmpfs::mount(place.path("table"), options) else {
            return;
        };
        let options = "records_max = 100";
        let (model, agent, mut peer) = loaded(&place, &tmpfs.0, 100, options);
        let health = peer.follow(&model, |message| {
            let health = status(message)?.health;
            (health.table_bytes > 0).then_some(health)
        });
        let file = fs::metadata(&tables(&tmpfs.0)[0]).unwrap().len();
        assert_eq!(health.table_bytes, file);
        assert_eq!(health.huge_bytes >= file / 100 * 90, huge, "{health:?}");
        let warnings = agent
            .log()
            .matches("Mount a tmpfs with huge=advise at")
            .count();
        assert_eq!(warnings, usize::from(!huge), "{}", agent.log());
        assert!(agent.terminate().success());
    }
}

#[test]
fn a_table_of_another_boot_does_not_answer_and_is_loaded_anew() {
    let place = Place::new("boot");
    let folder = place.path("table");
    let (model, agent, _peer) = loaded(&place, &folder, 100, "records_max = 100");
    assert!(agent.terminate().success());
    let mark = folder.join("boot");
    let this_boot = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, "5f3c0d1e-0000-4000-8000-000000000000\n").unwrap();
    for _ in 0..2 {
        // Also after a death before the new table is there.
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let agent = Agent::start(&place, &folder, address, "records_max = 100");
        let (_peer, hello) = Peer::accept(&listener);
        assert_eq!(hello.position, None);
        until("a pulse", || {
            let state = View::new(&folder).pulse().map(|pulse| pulse.state);
            (state == Some(NodeState::Loading)).then_some(())
        });
        assert!(
            agent
                .log()
                .contains("was made before this machine was started")
        );
        agent.kill();
    }
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let agent = Agent::start(&place, &folder, address, "records_max = 100");
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let view = View::new(&folder);
    until("a coherent node", || {
        (view.state() == Some("coherent")).then_some(())
    });
    assert_eq!(fs::read_to_string(&mark).unwrap(), this_boot);
    assert_eq!(tables(&folder).len(), 1);
    assert!(agent.terminate().success());
}
