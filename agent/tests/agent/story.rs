//! The agent's process between a master and a worker: loading, following, registrations, outage, restart.

use std::process::Command;

use crate::support::{
    Agent, MASTER_NOW, Model, Peer, Place, View, Worker, listen, record, refresh, until,
};
use locus_proto::{Level, Message, NodeId, NodeState, Refusal, RegistrationReply};

const ALICE: &str = "alice@example.net";
const URI: &str = "sip:alice@192.0.2.1";

#[test]
fn follows_a_master_serves_workers_and_outlives_both() {
    let place = Place::new("story");
    let folder = place.path("table");
    let recording = place.path("recording");
    let listener = listen();
    let master = listener.local_addr().unwrap();
    let options = format!("records_max = 10000\nrecord = {recording:?}");
    let mut model = Model::new();
    model.commit(
        (0..500)
            .map(|n| (format!("u{n}@example.net"), Some(record(URI, n))))
            .collect(),
    );

    // Loading: nothing answers, then everything does.
    let agent = Agent::start(&place, &folder, master, &options);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(hello.position, None);
    let mut view = View::new(&folder);
    assert_eq!(view.position(), None);
    model.serve(&mut peer, &hello);
    view.wait(model.position());
    until("a coherent node", || {
        (view.state() == Some("coherent")).then_some(())
    });
    assert_eq!(view.records(), model.records());
    let pulse = view.pulse().unwrap();
    assert_eq!(
        (pulse.node, pulse.epoch_counter, pulse.max_grace_ms),
        (NodeId(1), 1, 3_600_000)
    );
    assert_eq!(
        (pulse.complete_until, pulse.master_level),
        (MASTER_NOW, Level(500))
    );
    let skew = pulse
        .master_now(pulse.updated_monotonic_ms)
        .ms_since(MASTER_NOW);
    assert!(skew < 20_000, "the master's time is {skew} ms ahead");
    let later = pulse.updated_monotonic_ms;
    until("the next pulse", || {
        (view.pulse().unwrap().updated_monotonic_ms > later).then_some(())
    });

    // Following: a frame is visible; the status says so.
    model.commit(vec![
        (ALICE.into(), Some(record(URI, 1))),
        ("u7@example.net".into(), None),
    ]);
    peer.send(&Message::Frame(model.frames.last().unwrap().clone()));
    peer.send(&model.heartbeat());
    view.wait(model.position());
    assert_eq!(view.find(ALICE), Some(record(URI, 1)));
    assert_eq!(view.find("u7@example.net"), None);
    let status = until("a status at this level", || match peer.receive() {
        Some(Message::Status(status)) => (status.position == model.position()
            && status.state == NodeState::Coherent)
            .then_some(status),
        other => panic!("{other:?}"),
    });
    assert_eq!((status.records, status.reloads_total), (500, 1));

    // A registration goes up, its frame comes down, and only then the worker is told.
    let worker = Worker::new(&place);
    worker.register(41, &refresh(ALICE, URI, 2));
    let (ticket, registration) = peer.registration();
    assert_eq!(registration, refresh(ALICE, URI, 2));
    let frame = model.commit(vec![(ALICE.into(), Some(record(URI, 2)))]);
    let reply = RegistrationReply::Accepted {
        level: model.position().level,
        now: MASTER_NOW,
        durable: true,
        bindings: record(URI, 2).bindings,
    };
    peer.send(&Message::Registered {
        ticket,
        reply: reply.clone(),
    });
    peer.send(&Message::Frame(frame));
    assert_eq!(worker.reply(), (41, reply));
    assert_eq!(view.find(ALICE), Some(record(URI, 2)), "read-your-write");

    // The master goes while a registration is on its way: the table answers (rules 2.4).
    worker.register(42, &refresh(ALICE, URI, 3));
    peer.registration();
    drop((peer, listener));
    let (ticket, reply) = worker.reply();
    let RegistrationReply::Accepted {
        durable,
        level,
        bindings,
        now,
    } = reply
    else {
        panic!("{reply:?}")
    };
    assert_eq!(
        (ticket, durable, level),
        (42, false, model.position().level)
    );
    assert!((60..=120).contains(&bindings[0].expires.seconds_from(now)));
    worker.register(43, &refresh("stranger@example.net", URI, 1));
    let refused = RegistrationReply::Refused(Refusal::Unavailable);
    assert_eq!(worker.reply(), (43, refused));
    until("a stale node", || {
        (view.state() == Some("stale")).then_some(())
    });
    assert_eq!(view.find(ALICE), Some(record(URI, 2)), "look-ups go on");

    // It ends when it is told to, and its recording comes to the same end.
    assert!(agent.terminate().success());
    assert!(!place.path("agent.sock").exists());
    assert_eq!(view.find(ALICE), Some(record(URI, 2)), "look-ups go on");
    let replay = Command::new(env!("CARGO_BIN_EXE_locus-agent"))
        .arg("--replay")
        .arg(&recording)
        .output()
        .unwrap();
    assert!(
        replay.status.success(),
        "{}",
        String::from_utf8_lossy(&replay.stderr)
    );
    let end: serde_json::Value = serde_json::from_slice(&replay.stdout).unwrap();
    assert_eq!(end["position"]["level"], model.position().level.0);
    assert_eq!(end["registrations"]["confirmed_total"], 1);

    assert_eq!(view.pulse().unwrap().complete_until, MASTER_NOW);

    // Warm start: the table is presented, and what was missed follows.
    let listener = listen();
    model.commit(vec![("bob@example.net".into(), Some(record(URI, 1)))]);
    let agent = Agent::start(&place, &folder, listener.local_addr().unwrap(), &options);
    let (mut peer, hello) = Peer::accept(&listener);
    assert_eq!(
        hello.position.map(|p| p.level),
        Some(Level(model.position().level.0 - 1))
    );
    model.serve(&mut peer, &hello);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());

    // A second agent on the same folder is refused in plain words.
    let mut second = Agent::start(&place, &folder, listener.local_addr().unwrap(), "");
    assert!(!second.wait().success());
    assert!(
        second.log().contains("another locus-agent owns"),
        "{}",
        second.log()
    );
    assert!(
        place.path("agent.sock").exists(),
        "the first one's socket stays"
    );
    drop(peer);
    assert!(
        agent.log().contains("SIGTERM"),
        "the log tells of the first end"
    );
    assert!(until("the pulse", || view.pulse()).updated_monotonic_ms > 0);
    agent.kill();
}

#[test]
fn bytes_that_are_no_registration_are_counted_and_do_no_harm() {
    let place = Place::new("noise");
    let folder = place.path("table");
    let listener = listen();
    let agent = Agent::start(
        &place,
        &folder,
        listener.local_addr().unwrap(),
        "records_max = 1000",
    );
    let (mut peer, hello) = Peer::accept(&listener);
    let mut model = Model::new();
    model.commit(vec![(ALICE.into(), Some(record(URI, 1)))]);
    model.serve(&mut peer, &hello);
    View::new(&folder).wait(model.position());
    let worker = Worker::new(&place);
    let good = Message::Register {
        ticket: 1,
        registration: refresh(ALICE, URI, 2),
    }
    .to_bytes();
    let mut other_version = good.clone();
    other_version[4] = 9;
    let mut trailing = good.clone();
    trailing.push(0);
    for bytes in [
        b"".as_slice(),
        b"REGISTER sip:x SIP/2.0\r\n",
        &good[..good.len() - 1],
        &trailing,
        &other_version,
        &vec![0xff; 60_000],
        &vec![0; 100_000],
        &model.heartbeat().to_bytes(),
    ] {
        worker.send(bytes);
    }
    // A sender without an address cannot be answered.
    let nameless = std::os::unix::net::UnixDatagram::unbound().unwrap();
    nameless.send_to(&good, place.path("agent.sock")).unwrap();
    worker.register(5, &refresh(ALICE, URI, 2));
    let (ticket, _) = peer.registration();
    let reply = RegistrationReply::Refused(Refusal::OldCseq);
    peer.send(&Message::Registered {
        ticket,
        reply: reply.clone(),
    });
    assert_eq!(worker.reply(), (5, reply), "only the good one was answered");
    let log = agent.log();
    assert_eq!(log.matches("were no registrations").count(), 1, "{log}");
    assert!(agent.terminate().success());
}
