//! Expiry in virtual time: removal is a logged change, outages are credited.

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_has_expired_is_removed_by_a_logged_change() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    bench.change(vec![put(1, "sip:permanent@h")]);
    bench.register(node, registration(1, 1, 60));
    bench.register(node, registration(2, 1, 60));
    bench.register(node, registration(3, 1, 600));
    assert_eq!((bench.contacts(1), bench.contacts(2)), (2, 1));
    bench.advance(seconds(59));
    assert_eq!((bench.level(), bench.drive.core().records()), (4, 3));
    bench.advance(seconds(3));
    assert_eq!((bench.level(), bench.drive.core().records()), (6, 2));
    assert_eq!(
        (bench.contacts(1), bench.contacts(2), bench.contacts(3)),
        (1, 0, 1)
    );
    bench.advance(seconds(3 * 3600));
    assert_eq!(
        (bench.contacts(1), bench.contacts(3), bench.level()),
        (1, 0, 7)
    );
    let total = bench.drive.core().end_state().counters.expired_total;
    assert_eq!(total, 3);
}

#[test]
fn a_provisioned_contact_may_expire_too() {
    let mut bench = Bench::new(1000);
    let contact = ProvisionContact {
        expires_s: Some(5),
        ..ProvisionContact::permanent("sip:a@h")
    };
    bench.change(vec![ProvisionChange::PutAor {
        aor: aor(1),
        contacts: vec![contact],
    }]);
    bench.advance(seconds(4));
    assert_eq!(bench.contacts(1), 1);
    bench.advance(seconds(3));
    assert_eq!((bench.contacts(1), bench.drive.core().records()), (0, 0));
}

#[test]
fn many_that_expire_at_once_are_removed_in_bounded_steps() {
    let mut bench = Bench::new(10_000);
    let node = bench.node(1);
    for number in 0..1000 {
        bench.send_register(node, registration(number, 1, 60));
    }
    bench.flush();
    let batches = bench.frames().len();
    bench.advance(seconds(63));
    assert_eq!(bench.drive.core().records(), 0);
    let removals: Vec<usize> = bench.frames()[batches..]
        .iter()
        .map(|f| f.changes.len())
        .collect();
    assert_eq!(removals, [256, 256, 256, 232]);
}

#[test]
fn a_full_disk_delays_removal_and_forgets_nothing() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    bench.register(node, registration(1, 1, 60));
    bench.disk = Some("no space left on device");
    bench.advance(seconds(70));
    assert_eq!(bench.drive.core().records(), 1);
    assert_eq!(bench.contacts(1), 0, "it is not shown any more");
    bench.disk = None;
    bench.advance(seconds(2));
    assert_eq!(bench.drive.core().records(), 0);
}

#[test]
fn a_full_disk_ages_nobody_who_could_not_come_back() {
    let mut bench = Bench::new(1000);
    let node = bench.node(1);
    bench.register(node, registration(1, 1, 600));
    bench.advance(seconds(100));
    bench.disk = Some("no space left on device");
    for number in 2..32 {
        let node = bench.node(number); // the one before has been silent for too long
        let refused = bench.register(node, registration(1, number.into(), 600));
        assert!(
            matches!(refused, RegistrationReply::Refused(_)),
            "{refused:?}"
        );
        bench.advance(seconds(30));
    }
    assert_eq!(bench.contacts(1), 1, "500 s of its life are left");
    bench.disk = None;
    bench.change(vec![put(2, "sip:a@h")]);
    // As after a restart: time to come back for those who were sent away.
    bench.advance(seconds(120 + 499));
    assert_eq!(bench.contacts(1), 1);
    bench.advance(seconds(3));
    assert_eq!(bench.contacts(1), 0);
}

/// Registers for 60 s, lives 20 s, is down for `outage_s`; returns after how many seconds of the new
/// life the binding is removed.
fn removed_after(outage_s: u64, wall_jump_ms: i64) -> u64 {
    let folder = MemoryFolder::default();
    let mut bench = Bench::open(folder.clone(), 1000, WALL, None, None);
    let node = bench.node(1);
    bench.register(node, registration(1, 1, 60));
    bench.advance(seconds(20));
    let time = *bench.said.alive.last().unwrap();
    let wall_ms = WALL + 20_000;
    drop(bench);
    let later = (wall_ms + outage_s * 1000)
        .checked_add_signed(wall_jump_ms)
        .unwrap();
    let alive = Some(Alive { time, wall_ms });
    let mut bench = Bench::open(folder, 1000, later, alive, None);
    for second in 0..1000 {
        if bench.drive.core().records() == 0 {
            return second;
        }
        bench.advance(seconds(1));
    }
    panic!("it is never removed");
}

#[test]
fn an_outage_ages_nothing_and_gives_time_to_come_back() {
    // 40 s of life are left, after the hold; removal looks once a second.
    for (outage_s, hold_s) in [(0, 0), (30, 30), (120, 120), (24 * 3600, 120)] {
        let after = removed_after(outage_s, 0);
        let expected = hold_s + 40..=hold_s + 42;
        assert!(
            expected.contains(&after),
            "down {outage_s} s: removed after {after} s"
        );
    }
}

#[test]
fn a_wall_clock_that_jumps_expires_nobody() {
    for jump_ms in [3_600_000, -3_600_000, 40 * 365 * 24 * 3_600_000] {
        let after = removed_after(30, jump_ms);
        assert!(
            (40..=162).contains(&after),
            "jump {jump_ms}: removed after {after} s"
        );
    }
}

#[test]
fn the_service_time_is_noted_once_a_second() {
    let mut bench = Bench::new(1000);
    bench.advance(seconds(10));
    let times: Vec<u64> = bench.said.alive.iter().map(|time| time.0 - WALL).collect();
    assert_eq!(
        times,
        (0..=10).map(|second| second * 1000).collect::<Vec<_>>()
    );
}
