//! The table on disk: reboots with and without a master, death and full disks while it is written, damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use locus_proto::{Level, Message, NodeStatus, Position, RegistrationReply};

use crate::support::{
    Agent, MASTER_NOW, Model, Peer, Place, SmallTmpfs, View, Worker, listen, record, refresh, until,
};

const URI: &str = "sip:a@192.0.2.1";

/// Options of an agent with snapshots in `disk`.
fn options(disk: &Path, more: &str) -> String {
    format!("records_max = 5000\nsnapshots = {disk:?}\nsnapshot_every_s = 1\n{more}")
}

/// An address at which nobody listens.
fn nobody() -> std::net::SocketAddr {
    listen().local_addr().unwrap()
}

/// Puts `count` records with values of some hundred bytes, from number `from` on.
fn fill(model: &mut Model, from: u32, count: u32) {
    for start in (from..from + count).step_by(500) {
        let uri = format!("{URI};x={}", "y".repeat(300));
        let end = (start + 500).min(from + count);
        let puts = (start..end).map(|n| (format!("u{n}@example.net"), Some(record(&uri, n))));
        model.commit(puts.collect());
    }
}

/// Returns the snapshots in `disk` with their levels, newest first.
fn snapshots(disk: &Path) -> Vec<(PathBuf, Level)> {
    let Ok(entries) = fs::read_dir(disk) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.to_owned();
            let (_, level) = name.strip_prefix("snap.")?.split_once('.')?;
            Some((path, Level(level.parse().ok()?)))
        })
        .collect();
    found.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
    found
}

fn temporary(disk: &Path) -> PathBuf {
    disk.join("snap.tmp")
}

/// Waits for a snapshot of `level` or above and returns its level.
fn snapshot_of(disk: &Path, level: Level) -> Level {
    until("a snapshot", || {
        let (_, newest) = snapshots(disk).into_iter().next()?;
        (newest >= level).then_some(newest)
    })
}

/// What the node says of itself next.
fn status(peer: &mut Peer) -> NodeStatus {
    until("a status", || match peer.receive() {
        Some(Message::Status(status)) => Some(status),
        other => panic!("{other:?}"),
    })
}

fn position_at(model: &Model, level: Level) -> Position {
    let mut frames = model.frames.iter();
    let frame = frames.find(|frame| frame.header.to == level).unwrap();
    frame.header.after()
}

/// What a power cut does to a tmpfs.
fn empty(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn after_a_reboot_it_answers_without_a_master_and_catches_up_with_one() {
    let place = Place::new("reboot");
    let (folder, disk) = (place.path("table"), place.path("disk/agent"));
    let options = options(&disk, "");
    let listener = listen();
    let mut model = Model::new();
    fill(&mut model, 0, 1000);
    model.commit(vec![("a@example.net".into(), Some(record(URI, 1)))]);
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &options);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let level = snapshot_of(&disk, model.position().level);
    assert_eq!(level, model.position().level);
    let said = until("a status with the snapshot", || {
        Some(status(&mut peer).health).filter(|health| health.snapshot_level == level)
    });
    assert_eq!(said.snapshots_failed_total, 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&disk), 0o700);
    assert_eq!(mode(&snapshots(&disk)[0].0), 0o600, "it holds a secret");
    assert!(agent.terminate().success());
    empty(&folder);

    // The master is dead, too: the table answers as it was then, as stale.
    let agent = Agent::start(&place, &folder, nobody(), &options);
    let mut view = View::new(&folder);
    view.wait(model.position());
    until("a stale node", || {
        (view.state() == Some("stale")).then_some(())
    });
    assert_eq!(view.records(), model.records());
    let pulse = view.pulse().unwrap();
    assert_eq!(pulse.complete_until, MASTER_NOW);
    let ahead = pulse.master_now(pulse.updated_monotonic_ms);
    assert!(ahead >= MASTER_NOW && ahead.ms_since(MASTER_NOW) < 60_000);
    let worker = Worker::new(&place);
    worker.register(1, &refresh("a@example.net", URI, 2));
    let (_, reply) = worker.reply();
    let RegistrationReply::Accepted { level, durable, .. } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((level, durable), (model.position().level, false));
    assert!(agent.log().contains("loaded 1001 records from"));
    assert!(agent.terminate().success());
    empty(&folder);

    // The master lives and has gone on: what is missing follows, nothing is loaded anew.
    let snapshot = model.position();
    fill(&mut model, 500, 700);
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &options);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.position, Some(snapshot));
    model.serve(&mut peer, &hello);
    let mut view = View::new(&folder);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    let caught_up = until("a status at this level", || {
        Some(status(&mut peer)).filter(|status| status.catch_ups_total > 0)
    });
    assert_eq!(caught_up.reloads_total, 0);
    // The next one takes the place of the oldest.
    for _ in 0..2 {
        fill(&mut model, 0, 10);
        peer.send(&Message::Frame(model.frames.last().unwrap().clone()));
        peer.send(&model.heartbeat());
        snapshot_of(&disk, model.position().level);
    }
    until("the oldest one's end", || {
        (snapshots(&disk).len() == 2).then_some(())
    });
    assert!(agent.terminate().success());
    assert!(!temporary(&disk).exists());
}

#[test]
fn a_snapshot_that_was_written_beside_changes_is_exact() {
    let place = Place::new("beside");
    let (folder, disk) = (place.path("table"), place.path("disk"));
    let slow = options(&disk, "snapshot_bytes_per_s = 1500000");
    let listener = listen();
    let mut model = Model::new();
    fill(&mut model, 0, 4000);
    let before = model.position().level;
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &slow);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    // Changes all the while, until a second snapshot has begun, and ends in the middle of them.
    let mut seed = 0_u32;
    until("a snapshot", || {
        let batch = (0..20).map(|n| {
            let mixed = (seed * 20 + n).wrapping_mul(2_654_435_761);
            let uri = format!("{URI};x={}", "z".repeat((mixed % 90).try_into().unwrap()));
            let kept = !mixed.is_multiple_of(3);
            (
                format!("u{}@example.net", mixed.rotate_right(9) % 4500),
                kept.then(|| record(&uri, seed)),
            )
        });
        // Of a key that comes twice, the last.
        let batch: std::collections::BTreeMap<_, _> = batch.collect();
        peer.send(&Message::Frame(model.commit(batch.into_iter().collect())));
        peer.send(&model.heartbeat());
        seed += 1;
        (snapshots(&disk).len() == 2).then_some(())
    });
    agent.kill();
    empty(&folder);
    let (_, level) = snapshots(&disk)[0];
    assert!(level > before, "{level}");
    let agent = Agent::start(&place, &folder, nobody(), &slow);
    let mut view = View::new(&folder);
    view.wait(position_at(&model, level));
    let expected: Vec<_> = model.records_at(level).into_values().collect();
    assert_eq!(view.records(), expected);
    assert!(agent.terminate().success());
}

#[test]
fn killed_while_it_writes_the_older_snapshot_stands() {
    let place = Place::new("torn");
    let (folder, disk) = (place.path("table"), place.path("disk"));
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let mut model = Model::new();
    fill(&mut model, 0, 2000);
    let agent = Agent::start(&place, &folder, address, &options(&disk, ""));
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let older = snapshot_of(&disk, model.position().level);
    agent.kill();
    drop(peer);

    let slow = options(&disk, "snapshot_bytes_per_s = 65536");
    fill(&mut model, 0, 100);
    let agent = Agent::start(&place, &folder, address, &slow);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    until("records of the next snapshot", || {
        let found = fs::metadata(temporary(&disk)).ok()?;
        (found.len() > 10_000).then_some(())
    });
    agent.kill();
    drop(peer);
    assert!(temporary(&disk).exists());
    empty(&folder);

    let agent = Agent::start(&place, &folder, address, &slow);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.position, Some(position_at(&model, older)));
    assert!(!temporary(&disk).exists(), "what was half written is gone");
    model.serve(&mut peer, &hello);
    View::new(&folder).wait(model.position());
    // Told to end in the middle of writing, it leaves nothing half done either.
    until("records of the next snapshot", || {
        let found = fs::metadata(temporary(&disk)).ok()?;
        (found.len() > 10_000).then_some(())
    });
    assert!(agent.terminate().success());
    assert!(!temporary(&disk).exists());
    assert_eq!(snapshots(&disk).len(), 1);
}

#[test]
fn a_reload_in_the_middle_of_one_gives_it_up_and_the_next_is_whole() {
    let place = Place::new("flip");
    let (folder, disk) = (place.path("table"), place.path("disk"));
    let listener = listen();
    let mut model = Model::new();
    fill(&mut model, 0, 2000);
    // 800 kB: four seconds, of which a new connection behind a reload may take more than one.
    let slow = options(&disk, "snapshot_bytes_per_s = 200000");
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &slow);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    until("the first records", || {
        let found = fs::metadata(temporary(&disk)).ok()?;
        (found.len() > 10_000).then_some(())
    });
    drop(peer);
    let (mut peer, mut hello) = Peer::accept(&listener);
    hello.position = None; // as if an operator had asked for it
    fill(&mut model, 0, 500);
    model.serve(&mut peer, &hello);
    until("a word of it", || {
        let given_up = "given up, the next one follows: another table took its place";
        agent.log().contains(given_up).then_some(())
    });
    assert_eq!(snapshots(&disk).len(), 0);
    let level = until("a snapshot", || {
        peer.send(&model.heartbeat());
        Some(snapshots(&disk).first()?.1)
    });
    assert_eq!(level, model.position().level);
    let said = until("a status with the snapshot", || {
        Some(status(&mut peer).health).filter(|health| health.snapshot_level == level)
    });
    assert_eq!(said.snapshots_failed_total, 0, "nothing has failed");
    agent.kill();
    empty(&folder);
    let agent = Agent::start(&place, &folder, nobody(), &slow);
    let mut view = View::new(&folder);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    assert!(agent.terminate().success());
}

#[test]
fn what_is_damaged_or_of_others_is_refused() {
    let place = Place::new("damage");
    let (folder, disk) = (place.path("table"), place.path("disk"));
    let options = options(&disk, "");
    let listener = listen();
    let mut model = Model::new();
    fill(&mut model, 0, 1500);
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &options);
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    snapshot_of(&disk, model.position().level);
    fill(&mut model, 100, 50);
    peer.send(&Message::Frame(model.frames.last().unwrap().clone()));
    peer.send(&model.heartbeat());
    snapshot_of(&disk, model.position().level);
    assert!(agent.terminate().success());
    let kept: Vec<_> = snapshots(&disk)
        .into_iter()
        .map(|(path, level)| (fs::read(&path).unwrap(), path, level))
        .collect();
    let [(newest, newest_path, _), (older, older_path, level)] = kept.as_slice() else {
        panic!("{} snapshots", kept.len())
    };

    let mut view = View::new(&folder);
    let mut boot = |cluster: &str| {
        empty(&folder);
        fs::write(place.path("agent.log"), "").unwrap();
        let agent = Agent::start_in(cluster, &place, &folder, nobody(), &options);
        until("the start", || {
            agent.log().contains("locus-agent 0.").then_some(())
        });
        view = View::new(&folder);
        let position = view.position();
        let log = agent.log();
        assert!(agent.terminate().success());
        (position, log)
    };
    let cuts = [0, 100, newest.len() / 2, newest.len() - 1];
    for cut in cuts {
        fs::write(newest_path, &newest[..cut]).unwrap();
        let (position, log) = boot("lab");
        assert_eq!(position, Some(position_at(&model, *level)), "cut at {cut}");
        assert_eq!(log.matches("is not used").count(), 1, "{log}");
    }
    for at in [3, 30, newest.len() / 3, newest.len() - 50] {
        let mut flipped = newest.clone();
        flipped[at] ^= 0x10;
        fs::write(newest_path, &flipped).unwrap();
        assert_eq!(boot("lab").0, Some(position_at(&model, *level)), "at {at}");
    }
    // Both: it starts empty, in plain words, and loads from the master.
    fs::write(older_path, &older[..older.len() - 300]).unwrap();
    let (position, log) = boot("lab");
    assert_eq!(position, None);
    assert_eq!(log.matches("is not used").count(), 2, "{log}");
    assert!(log.contains("no table in"), "{log}");
    // Of another cluster; not ours to remove.
    fs::write(newest_path, newest).unwrap();
    fs::write(older_path, older).unwrap();
    let (position, log) = boot("other");
    assert_eq!(position, None);
    assert!(log.contains("it is of cluster lab"), "{log}");
    assert_eq!(boot("lab").0, Some(model.position()));
}

#[test]
fn a_full_disk_costs_snapshots_and_nothing_else() {
    let place = Place::new("fulldisk");
    let Some(tmpfs) = SmallTmpfs::mount(place.path("disk"), "size=4m") else {
        return;
    };
    let (folder, disk) = (place.path("table"), place.path("disk/agent"));
    let listener = listen();
    let mut model = Model::new();
    fill(&mut model, 0, 1000);
    let agent = Agent::start(
        &place,
        &folder,
        listener.local_addr().unwrap(),
        &options(&disk, ""),
    );
    let (mut peer, hello) = Peer::accept(&listener);
    model.serve(&mut peer, &hello);
    let whole = snapshot_of(&disk, model.position().level);

    tmpfs.fill();
    let mut view = View::new(&folder);
    let failed = |peer: &mut Peer| status(peer).health.snapshots_failed_total;
    while failed(&mut peer) < 2 {
        fill(&mut model, 0, 20);
        peer.send(&Message::Frame(model.frames.last().unwrap().clone()));
        peer.send(&model.heartbeat());
        view.wait(model.position());
        until("the master's level", || {
            (view.state() == Some("coherent")).then_some(())
        });
    }
    let log = agent.log();
    assert_eq!(log.matches("no snapshots are written").count(), 1, "{log}");
    assert!(
        log.contains("o space left") || log.contains("torage"),
        "{log}"
    );
    assert_eq!(snapshots(&disk)[0].1, whole, "the old one stands");
    assert_eq!(view.records(), model.records());

    tmpfs.relieve();
    let next = snapshot_of(&disk, model.position().level);
    let said = until("a status with the snapshot", || {
        Some(status(&mut peer).health).filter(|health| health.snapshot_level == next)
    });
    assert!(said.snapshots_failed_total >= 2);
    until("a word of it", || {
        agent
            .log()
            .contains("snapshots are written again")
            .then_some(())
    });
    assert!(agent.terminate().success());
}

#[test]
fn an_agent_whose_snapshots_another_owns_serves_without() {
    let (place, other) = (Place::new("first"), Place::new("second"));
    let disk = place.path("disk");
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let mut model = Model::new();
    fill(&mut model, 0, 10);
    let serve = |place: &Place| {
        let folder = place.path("table");
        let agent = Agent::start(place, &folder, address, &options(&disk, ""));
        let (mut peer, hello) = Peer::accept(&listener);
        model.serve(&mut peer, &hello);
        View::new(&folder).wait(model.position());
        (agent, peer)
    };
    let (first, _peer) = serve(&place);
    snapshot_of(&disk, model.position().level);
    let (second, _other_peer) = serve(&other);
    let log = second.log();
    assert!(log.contains("another locus-agent owns"), "{log}");
    assert!(second.terminate().success());
    // A folder that somebody has removed is made anew.
    until("an empty place", || fs::remove_dir_all(&disk).ok());
    snapshot_of(&disk, model.position().level);
    assert!(first.terminate().success());
}
