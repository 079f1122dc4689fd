//! Death in the middle of batches, a full file system, a silent master.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use locus_proto::v1::Plan;
use locus_proto::{Level, Message, ReloadReason, Root};
use locus_table::Geometry;

use crate::support::{Agent, Model, Peer, Place, SmallTmpfs, View, listen, record, tables, until};

const URI: &str = "sip:a@192.0.2.1";
const KILLS: u32 = 25;

/// Batches of puts, replacements of other sizes, and deletes over a few hundred keys.
fn batch(model: &mut Model, seed: u32) {
    let change = |n: u32| {
        let mixed = seed
            .wrapping_mul(2_654_435_761)
            .wrapping_add(n.wrapping_mul(97));
        let uri = format!("{URI};x={}", "y".repeat((mixed % 300).try_into().unwrap()));
        let kept = !mixed.is_multiple_of(5);
        (
            format!("u{}@example.net", (seed * 7 + n) % 400),
            kept.then(|| record(&uri, seed)),
        )
    };
    model.commit((0..60).map(change).collect());
}

#[test]
fn killed_in_the_middle_of_batches_it_stands_at_an_exact_level_with_exact_content() {
    let place = Place::new("kill");
    let folder = place.path("table");
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let mut model = Model::new();
    batch(&mut model, 0);
    let (mut view, mut redone) = (View::new(&folder), 0);
    for round in 1..=KILLS {
        let agent = Agent::start(&place, &folder, address, "records_max = 1000");
        let (mut peer, hello) = Peer::accept(&listener);
        match hello.position {
            None => assert_eq!(round, 1, "the table was lost"),
            Some(position) => {
                let roots: Vec<(Level, Root)> = model
                    .frames
                    .iter()
                    .map(|f| (f.header.to, f.header.root_after))
                    .collect();
                assert!(
                    roots.contains(&(position.level, position.root)),
                    "{position:?}"
                );
            }
        }
        redone += agent.log().matches("in the middle of a batch").count();
        model.serve(&mut peer, &hello);
        view.wait(model.position());
        assert_eq!(view.records(), model.records(), "round {round}");
        // As many batches as fit into a few milliseconds, then SIGKILL from the side.
        let dead = AtomicBool::new(false);
        thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let wait = Duration::from_micros(u64::from(1500 + round * 731 % 4000));
                thread::park_timeout(wait);
                agent.kill();
                dead.store(true, Ordering::Relaxed);
            });
            for n in 0..2000 {
                batch(&mut model, round * 10_000 + n);
                let frame = model.frames.last().unwrap().clone();
                if !peer.try_send(&Message::Frame(frame)) || dead.load(Ordering::Relaxed) {
                    break;
                }
            }
            killer.join().unwrap();
        });
        // Nobody writes now: each key is whole, as of the level or of the batch that was being applied.
        let level = view.position().unwrap().level;
        let whole = model.records_at(level);
        let next = model
            .frames
            .iter()
            .find(|f| f.header.from == level)
            .map(|f| f.header.to);
        let after = model.records_at(next.unwrap_or(level));
        let found: BTreeMap<_, _> = view
            .records()
            .into_iter()
            .map(|change| (change.key.clone(), change))
            .collect();
        for key in whole.keys().chain(after.keys()).chain(found.keys()) {
            let one_of_both = [whole.get(key), after.get(key)].contains(&found.get(key));
            assert!(one_of_both, "{key} at level {level}: {:?}", found.get(key));
        }
        fs::write(place.path("agent.log"), "").unwrap();
    }
    eprintln!("{KILLS} kills, {redone} in the middle of a batch");
}

#[test]
fn killed_in_the_middle_of_a_load_it_leaves_the_old_table_and_nothing_else() {
    let place = Place::new("half");
    let folder = place.path("table");
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let mut model = Model::new();
    batch(&mut model, 1);
    let mut view = View::new(&folder);
    for old in [None, Some(model.position())] {
        // First without a table, then with one.
        let agent = Agent::start(&place, &folder, address, "records_max = 1000");
        let (mut peer, hello) = Peer::accept(&listener);
        assert_eq!(hello.position, old);
        peer.send(&model.welcome(Plan::Reload(ReloadReason::Asked)));
        peer.send(&model.snapshot_begin());
        let already = usize::from(old.is_some());
        until("a new table", || {
            (tables(&folder).len() == already + 1).then_some(())
        });
        agent.kill();
        assert_eq!(view.position(), old);
        let agent = Agent::start(&place, &folder, address, "records_max = 1000");
        let (mut peer, hello) = Peer::accept(&listener);
        assert_eq!(hello.position, old);
        assert_eq!(tables(&folder).len(), already, "the half table is removed");
        assert_eq!(view.position(), old);
        model.serve(&mut peer, &hello);
        view.wait(model.position());
        assert_eq!(view.records(), model.records());
        assert!(agent.terminate().success());
    }
}

#[test]
fn a_full_tmpfs_costs_freshness_never_an_answer() {
    let place = Place::new("full");
    let Some(tmpfs) = SmallTmpfs::mount(place.path("table"), "size=64m") else {
        return;
    };
    let folder = tmpfs.0.clone();
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let mut model = Model::new();
    batch(&mut model, 1);
    let agent = Agent::start(&place, &folder, address, "records_max = 1000");
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let mut view = View::new(&folder);
    view.wait(model.position());

    // Full: batches go on, since their memory was there from the beginning.
    tmpfs.fill();
    for n in 2..50 {
        batch(&mut model, n);
        peer.send(&Message::Frame(model.frames.last().unwrap().clone()));
    }
    peer.send(&model.heartbeat());
    view.wait(model.position());
    assert_eq!(view.records(), model.records());

    // A batch that the table has no room for fails whole; so does the larger table; the old one answers.
    let (position, records) = (model.position(), model.records());
    let mut grown = Vec::new();
    while grown.len() < 8 {
        let from = grown.len() * 500;
        let uri = format!("{URI};x={}", "z".repeat(400));
        let many = (from..from + 500).map(|n| (format!("v{n}@example.net"), Some(record(&uri, 1))));
        grown.push(model.commit(many.collect()));
    }
    for frame in &grown {
        if !peer.try_send(&Message::Frame(frame.clone())) {
            break;
        }
    }
    until("a refused batch", || {
        agent.log().contains("a batch failed").then_some(())
    });
    let stopped = view.position().unwrap();
    assert!(stopped.level >= position.level && stopped.level < model.position().level);
    for round in 0..2 {
        let (mut peer, hello) = Peer::accept(&listener);
        assert_eq!(hello.position, None, "it asks for the whole table");
        peer.send(&model.welcome(Plan::Reload(ReloadReason::Empty)));
        peer.send(&model.snapshot_begin());
        while peer.receive().is_some() {}
        assert_eq!(view.position(), Some(stopped), "round {round}");
        assert_eq!(tables(&folder).len(), 1, "what was begun is removed");
    }
    assert_eq!(
        agent.log().matches("a load failed").count(),
        1,
        "{}",
        agent.log()
    );
    for needed in [
        "bytes, and a reload as many",
        "size=",
        "records_max (now 1000)",
    ] {
        assert!(agent.log().contains(needed), "{}", agent.log());
    }
    let known = |aor: &str| {
        records
            .iter()
            .any(|change| change.key == crate::support::key(aor))
    };
    for n in 0..400 {
        let aor = format!("u{n}@example.net");
        assert_eq!(view.find(&aor).is_some(), known(&aor), "{aor}");
    }

    let log = agent.log();
    let refused: Vec<_> = log.lines().filter(|l| l.contains("cannot grow")).collect();
    assert_eq!(refused.len(), 1, "it tried to grow: {log}");
    assert!(refused[0].contains("mount -o remount,size="), "{log}");

    // Room again: the larger table is loaded, and the old one given back.
    tmpfs.relieve();
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    assert_eq!(tables(&folder).len(), 1);
    assert!(agent.terminate().success());
}

#[test]
fn a_mount_that_is_too_small_is_named_with_what_it_needs() {
    let place = Place::new("small");
    let Some(tmpfs) = SmallTmpfs::mount(place.path("table"), "size=16m") else {
        return;
    };
    let folder = tmpfs.0.clone();
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let model = {
        let mut model = Model::new();
        batch(&mut model, 1);
        model
    };
    let agent = Agent::start(&place, &folder, address, "records_max = 100000");
    let (mut peer, _) = Peer::accept(&listener);
    let needed = |mean: u64| {
        let bytes = Geometry::for_records(100_000, mean).file_bytes();
        let mount = format!("size={} or more", bytes * 2 + bytes / 10);
        let what = format!("a table for 100000 records of {mean} bytes takes {bytes} bytes");
        (what, mount)
    };
    // At the start, long before the reload at night …
    let warned = format!("too small for a reload: {}", needed(256).0);
    until("a warning", || agent.log().contains(&warned).then_some(()));
    // … and when a load finds no room.
    peer.send(&model.welcome(Plan::Reload(ReloadReason::Empty)));
    peer.send(&model.snapshot_begin());
    while peer.receive().is_some() {}
    let failed = || {
        agent
            .log()
            .lines()
            .find(|l| l.contains("a load failed"))
            .map(str::to_owned)
    };
    let line = until("the failure", failed);
    let (what, mount) = needed(model.table.payload_bytes() / model.table.records());
    let settings = "records_max (now 100000) or record_bytes_mean (now 256)";
    for part in [&what, &mount, settings, "no storage space"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(tables(&folder).len(), 0);
    assert!(agent.terminate().success());
}

#[test]
fn a_master_that_falls_silent_is_left_and_found_again() {
    let place = Place::new("silent");
    let folder = place.path("table");
    let listener = listen();
    let mut model = Model::new();
    batch(&mut model, 1);
    let agent = Agent::start(
        &place,
        &folder,
        listener.local_addr().unwrap(),
        "records_max = 1000",
    );
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let view = View::new(&folder);
    until("a coherent node", || {
        (view.state() == Some("coherent")).then_some(())
    });
    // Open, but not a word: after three seconds the agent comes again.
    let (mut again, hello) = Peer::accept(&listener);
    assert_eq!(hello.position, Some(model.position()));
    assert!(agent.log().contains("silent for 3 s"), "{}", agent.log());
    model.serve(&mut again, &hello);
    until("a coherent node", || {
        (view.state() == Some("coherent")).then_some(())
    });
    while peer.receive().is_some() {}
    assert!(agent.terminate().success());
}
