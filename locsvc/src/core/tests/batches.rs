//! How requests are gathered, answered and refused.

use locus_proto::{Digits, FRAME_CHANGES_MAX, FrameKind, Level, Refusal, Route, Target};

use super::*;

#[test]
fn what_waits_makes_one_batch_and_each_request_has_its_level() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    let tickets = [
        bench.ask(Request::Change(vec![put(1, "sip:a@h")])),
        bench.ask(Request::Change(vec![put(2, "sip:a@h"), put(3, "sip:a@h")])),
        bench.ask(Request::Change(vec![put(1, "sip:b@h")])),
        bench.ask(Request::Change(vec![ProvisionChange::DeleteAor(aor(2))])),
        bench.ask(Request::Change(vec![put(3, "sip:a@h")])),
    ];
    let register = bench.send_register(node, registration(1, 1, 600));
    assert_eq!(bench.level(), 0);
    assert!(
        bench.said.answers.is_empty(),
        "nobody hears of what is not durable"
    );
    assert_eq!(bench.reply(register), None);
    bench.flush();
    let answers: Vec<Answer> = tickets.iter().map(|ticket| bench.answer(*ticket)).collect();
    let answers: Vec<_> = answers.iter().map(changed).collect();
    // Each sees the effect of those before it.
    let expected: [(u64, &[Outcome]); 5] = [
        (1, &[Outcome::Created]),
        (3, &[Outcome::Created, Outcome::Created]),
        (4, &[Outcome::Replaced]),
        (5, &[Outcome::Deleted]),
        (5, &[Outcome::Unchanged]),
    ];
    assert_eq!(answers, expected);
    match bench.reply(register).unwrap() {
        RegistrationReply::Accepted {
            level,
            durable,
            bindings,
            ..
        } => {
            assert_eq!((level, durable), (Level(6), true));
            let uris: Vec<&str> = bindings.iter().map(|b| b.uri.as_str()).collect();
            assert_eq!(uris, ["sip:b@h", "sip:u1@10.0.0.9"]);
        }
        RegistrationReply::Refused(refusal) => panic!("{refusal}"),
    }
    let frames = bench.frames();
    assert_eq!(frames.len(), 2, "the epoch and one batch");
    assert_eq!(frames[0].header.kind, FrameKind::Epoch);
    assert_eq!(
        (frames[1].header.from, frames[1].header.to),
        (Level(0), Level(6))
    );
    // Of each key the last change is left, in order of levels.
    let levels: Vec<u64> = frames[1]
        .changes
        .iter()
        .map(|change| change.level.0)
        .collect();
    assert_eq!(levels, [3, 5, 6]);
    assert_eq!(bench.drive.core().position(), frames[1].header.after());
}

#[test]
fn one_request_may_change_a_key_more_than_once() {
    let mut bench = Bench::new(1000);
    let delete = ProvisionChange::DeleteAor(aor(1));
    let answer = bench.change(vec![
        put(1, "sip:a@h"),
        delete.clone(),
        put(1, "sip:b@h"),
        put(1, "sip:b@h"),
    ]);
    let expected = [
        Outcome::Created,
        Outcome::Deleted,
        Outcome::Created,
        Outcome::Unchanged,
    ];
    assert_eq!(changed(&answer), (3, &expected[..]));
    assert_eq!((bench.level(), bench.contacts(1)), (3, 1));
    // Made and deleted within one batch: a delete of what the table never had.
    let answer = bench.change(vec![put(2, "sip:a@h"), ProvisionChange::DeleteAor(aor(2))]);
    assert_eq!(
        changed(&answer),
        (5, &[Outcome::Created, Outcome::Deleted][..])
    );
    assert_eq!((bench.level(), bench.contacts(2)), (5, 0));
}

#[test]
fn what_changes_nothing_costs_no_level_and_no_write() {
    let mut bench = Bench::new(1000);
    bench.change(vec![put(1, "sip:a@h")]);
    let entries = bench.frames().len();
    for (request, outcome) in [
        (put(1, "sip:a@h"), Outcome::Unchanged),
        (ProvisionChange::DeleteAor(aor(9)), Outcome::Absent),
        (
            ProvisionChange::DeleteRoute(Digits::parse("49").unwrap()),
            Outcome::Absent,
        ),
    ] {
        assert_eq!(changed(&bench.change(vec![request])), (1, &[outcome][..]));
    }
    let node = bench.node(1);
    let refresh = registration(2, 1, 600);
    bench.register(node, refresh.clone());
    let level = bench.level();
    for _ in 0..2 {
        // A retransmission, and a removal of what is gone.
        bench.register(node, refresh.clone());
        bench.register(node, registration(3, 1, 0));
    }
    assert_eq!((bench.level(), bench.frames().len()), (level, entries + 1));
}

#[test]
fn routes_are_kept_and_found_by_their_prefix() {
    let mut bench = Bench::new(1000);
    let prefix = Digits::parse("4930").unwrap();
    let route = Route {
        targets: vec![Target {
            uri: "sip:gw.example.net".into(),
            priority: 1,
            weight: 1,
        }],
        ..Route::default()
    };
    let change = ProvisionChange::PutRoute {
        prefix,
        route: route.clone(),
    };
    assert_eq!(
        changed(&bench.change(vec![change])),
        (1, &[Outcome::Created][..])
    );
    let ticket = bench.ask(Request::GetRoute(prefix));
    let expected = Answer::Route {
        level: Level(1),
        record: Some((Level(1), route)),
    };
    assert_eq!(bench.answer(ticket), expected);
    let ticket = bench.ask(Request::GetRoute(Digits::parse("493").unwrap()));
    let level = Level(1);
    assert_eq!(
        bench.answer(ticket),
        Answer::Route {
            level,
            record: None
        }
    );
}

#[test]
fn more_than_a_batch_holds_makes_several() {
    let mut bench = Bench::new(10_000);
    let tickets: Vec<u64> = (0..FRAME_CHANGES_MAX + 500)
        .map(|number| bench.ask(Request::Change(vec![put(number, "sip:a@h")])))
        .collect();
    for (at, ticket) in (1..).zip(tickets) {
        assert_eq!(changed(&bench.answer(ticket)).0, at);
    }
    let sizes: Vec<usize> = bench
        .frames()
        .iter()
        .map(|frame| frame.changes.len())
        .collect();
    assert_eq!(sizes, [0, FRAME_CHANGES_MAX, 500]);
}

#[test]
fn requests_that_no_frame_holds_are_refused() {
    let mut bench = Bench::new(10_000);
    let many = (0..=crate::provision::CHANGES_MAX)
        .map(|number| put(number, "sip:a@h"))
        .collect();
    let large = |number| {
        let contacts = (0..12).map(|n| ProvisionContact {
            path: "p".repeat(500),
            ..ProvisionContact::permanent(&format!("sip:{n}{}@h", "a".repeat(450)))
        });
        ProvisionChange::PutAor {
            aor: aor(number),
            contacts: contacts.collect(),
        }
    };
    for changes in [vec![], many, (0..30).map(large).collect()] {
        let answer = bench.change(changes);
        let refused = matches!(answer, Answer::Refused(RequestError::TooLarge { .. }));
        assert!(refused, "{answer:?}");
    }
    let bad = put(2, "not a uri");
    let answer = bench.change(vec![put(1, "sip:a@h"), bad]);
    let refused = matches!(
        answer,
        Answer::Refused(RequestError::Invalid { index: 1, .. })
    );
    assert!(refused, "{answer:?}");
    assert_eq!((bench.level(), bench.contacts(1)), (0, 0), "all or nothing");
    // Several that fit alone but not together are several batches.
    let tickets: Vec<u64> = (0..30)
        .map(|n| bench.ask(Request::Change(vec![large(n)])))
        .collect();
    for ticket in tickets {
        changed(&bench.answer(ticket));
    }
    assert_eq!(bench.level(), 30);
    assert!(bench.frames().len() > 2);
}

#[test]
fn a_full_disk_refuses_the_batch_and_nothing_else_happens() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    bench.change(vec![put(1, "sip:a@h")]);
    let before = bench.drive.core().position();
    bench.disk = Some("no space left on device");
    for _ in 0..3 {
        let change = bench.ask(Request::Change(vec![put(2, "sip:a@h")]));
        let register = bench.send_register(node, registration(1, 1, 600));
        let disk = RequestError::Disk("no space left on device".into());
        assert_eq!(bench.answer(change), Answer::Refused(disk));
        let refused = RegistrationReply::Refused(Refusal::Unavailable);
        assert_eq!(bench.reply(register), Some(refused));
    }
    assert_eq!(bench.drive.core().position(), before);
    assert_eq!((bench.contacts(1), bench.contacts(2)), (1, 0));
    let said = |event: &&Event| matches!(event, Event::BatchRefused { .. });
    assert_eq!(
        bench.said.events.iter().filter(said).count(),
        1,
        "said once a second"
    );
    bench.disk = None;
    assert_eq!(changed(&bench.change(vec![put(2, "sip:a@h")])).0, 2);
    let counters = bench.drive.core().end_state().counters;
    assert_eq!(
        (
            counters.batches_refused_total,
            counters.requests_refused_total
        ),
        (3, 3)
    );
}

#[test]
fn a_full_table_refuses_only_what_does_not_fit() {
    let mut bench = Bench::new(1);
    let mut fitted = 0;
    while let Answer::Changed { .. } = bench.change(vec![put(fitted, "sip:a@h")]) {
        fitted += 1;
        assert!(
            fitted < 10_000,
            "a table for one record is full at some time"
        );
    }
    let before = bench.level();
    let tickets = [
        bench.ask(Request::Change(vec![put(0, "sip:b@h")])),
        bench.ask(Request::Change(vec![put(fitted, "sip:a@h")])),
        bench.ask(Request::Change(vec![put(1, "sip:b@h")])),
    ];
    let answers = tickets.map(|ticket| bench.answer(ticket));
    assert_eq!(changed(&answers[0]).0, before + 1);
    assert_eq!(answers[1], Answer::Refused(RequestError::TableFull));
    assert_eq!(changed(&answers[2]).0, before + 2);
    assert!(
        bench
            .said
            .events
            .iter()
            .any(|event| matches!(event, Event::TableFull { .. }))
    );
    // Room is made by deleting.
    bench.change(
        (0..fitted)
            .map(|n| ProvisionChange::DeleteAor(aor(n)))
            .collect(),
    );
    assert_eq!(
        changed(&bench.change(vec![put(fitted, "sip:a@h")])).1,
        [Outcome::Created]
    );
}

#[test]
fn a_full_table_makes_no_write_of_its_own_of_each_request_that_fits() {
    let mut bench = Bench::new(1);
    let mut fitted = 0;
    while let Answer::Changed { .. } = bench.change(vec![put(fitted, "sip:a@h")]) {
        fitted += 1;
    }
    let entries = bench.frames().len();
    // One stranger among many who are known.
    let ask = |bench: &mut Bench, number| {
        bench.ask(Request::Change(vec![put(
            number,
            &format!("sip:{number}@h"),
        )]))
    };
    let before: Vec<u64> = (0..10).map(|n| ask(&mut bench, n % fitted)).collect();
    let stranger = ask(&mut bench, fitted);
    let behind: Vec<u64> = (0..200)
        .map(|n| bench.ask(Request::Change(vec![put(0, &format!("sip:{n}@h"))])))
        .collect();
    assert_eq!(
        bench.answer(stranger),
        Answer::Refused(RequestError::TableFull)
    );
    let mut last = 0;
    for ticket in before.into_iter().chain(behind) {
        let answer = bench.answer(ticket);
        let (level, _) = changed(&answer);
        assert!(level >= last, "in the order of their coming");
        last = level;
    }
    let entries = bench.frames().len() - entries;
    assert!(entries <= 20, "{entries} writes");
}

#[test]
fn a_restart_goes_on_in_a_new_epoch_with_the_same_content() {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    for number in 0..50 {
        bench.change(vec![put(number, "sip:a@h")]);
    }
    bench.change(vec![ProvisionChange::DeleteAor(aor(7))]);
    let before = bench.drive.core().position();
    drop(bench);
    let mut bench = Bench::open(folder, 1000, WALL, None, None);
    let after = bench.drive.core().position();
    assert_eq!((after.level, after.root), (before.level, before.root));
    assert_eq!(after.epoch.counter, before.epoch.counter + 1);
    assert_eq!((bench.contacts(1), bench.contacts(7)), (1, 0));
    assert_eq!(
        changed(&bench.change(vec![put(7, "sip:a@h")])).0,
        before.level.0 + 1
    );
}
