//! Which way is tried when, and when a better one is gone back to.

use super::*;

fn all() -> Vec<Address> {
    let network = ["10.0.0.1:1", "10.0.0.2:1"].map(|at| Address::Tcp(at.parse().unwrap()));
    let buses = [Address::BusA("/a".into()), Address::BusB("/b".into())];
    buses.into_iter().chain(network).collect()
}

/// Loses the current way until it is the one at `index`, and is taken in there.
fn at(index: usize, random: &mut Random) -> (Ways, Timestamp) {
    let (mut ways, now) = (Ways::new(all()), Timestamp(1));
    for _ in 0..index {
        ways.handle_lost(Timestamp(1), false);
    }
    ways.handle_welcomed(now, random);
    (ways, now)
}

fn is_due(ways: &mut Ways, random: &mut Random) -> (Duration, Option<(u64, Vec<Address>)>) {
    let due = ways.deadline().expect("a look is due sometime");
    (
        due.since(Timestamp(1)),
        ways.handle_timeout(due, true, random),
    )
}

#[test]
fn all_ways_are_tried_in_turn_and_a_lost_master_is_tried_again_first() {
    let mut ways = Ways::new(all());
    ways.handle_lost(Timestamp(1), true);
    assert_eq!(ways.current(), &all()[0]);
    for expected in [1, 2, 3, 0, 1] {
        ways.handle_lost(Timestamp(1), false);
        assert_eq!(ways.current(), &all()[expected]);
    }
}

#[test]
fn only_better_kinds_of_ways_are_looked_at_and_only_while_steady() {
    let mut random = Random::new(3);
    assert_eq!(at(0, &mut random).0.deadline(), None);
    for (index, better) in [(1, 1), (2, 2), (3, 2)] {
        let (mut ways, _) = at(index, &mut random);
        let (wait, looks) = is_due(&mut ways, &mut random);
        assert!((PROBE_EVERY / 2..=PROBE_EVERY).contains(&wait), "{wait:?}");
        assert_eq!(looks, Some((1, all()[..better].to_vec())));
        let due = ways.deadline().unwrap();
        assert_eq!(
            ways.handle_timeout(due, true, &mut random),
            None,
            "one at a time"
        );
    }
    let (mut ways, _) = at(2, &mut random);
    let due = ways.deadline().unwrap();
    assert_eq!(ways.handle_timeout(due, false, &mut random), None);
    assert!(ways.deadline().unwrap() > due);
}

#[test]
fn a_way_found_open_is_taken_unless_the_node_is_not_steady_or_the_answer_is_old() {
    let mut random = Random::new(3);
    let (mut ways, _) = at(2, &mut random);
    let (_, looks) = is_due(&mut ways, &mut random);
    let (probe, better) = looks.unwrap();
    assert!(!ways.handle_probed(Timestamp(1), probe + 1, Some(&better[1]), true));
    assert!(ways.handle_probed(Timestamp(1), probe, Some(&better[1]), true));
    assert_eq!(ways.current(), &better[1]);
    assert!(
        !ways.handle_probed(Timestamp(1), probe, Some(&better[0]), true),
        "once"
    );
    let (mut ways, _) = at(2, &mut random);
    let (_, looks) = is_due(&mut ways, &mut random);
    let (probe, better) = looks.unwrap();
    assert!(!ways.handle_probed(Timestamp(1), probe, Some(&better[0]), false));
    let (_, looks) = is_due(&mut ways, &mut random);
    let (probe, _) = looks.unwrap();
    assert!(!ways.handle_probed(Timestamp(1), probe, None, true));
    let (_, looks) = is_due(&mut ways, &mut random);
    let (probe, better) = looks.unwrap();
    ways.handle_lost(Timestamp(1), true);
    assert!(!ways.handle_probed(Timestamp(1), probe, Some(&better[0]), true));
}

/// Goes to the first bus as soon as a look finds it open; returns when.
fn go_back(ways: &mut Ways, random: &mut Random) -> Timestamp {
    let now = ways.deadline().expect("a look is due sometime");
    let (probe, better) = ways.handle_timeout(now, true, random).expect("a look");
    assert!(ways.handle_probed(now, probe, Some(&better[0]), true));
    now
}

#[test]
fn returns_that_come_to_nothing_end_where_they_began_and_are_tried_less_and_less_often() {
    let mut random = Random::new(3);
    // One that does not take the node in, and one that does and carries nothing.
    for welcomes in [false, true] {
        let (mut ways, mut now) = at(3, &mut random);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let gone_at = go_back(&mut ways, &mut random);
            waits.push(gone_at.since(now));
            now = gone_at.plus(PROVED_AFTER / 2);
            if welcomes {
                ways.handle_welcomed(now, &mut random);
            }
            ways.handle_lost(now, welcomes);
            assert_eq!(ways.current(), &all()[3]);
            ways.handle_welcomed(now, &mut random);
        }
        assert!(waits[5] >= PROBE_EVERY * 16, "{waits:?}");
        assert!(
            waits.iter().all(|wait| *wait <= PROBE_EVERY_MAX),
            "{waits:?}"
        );
        // One that serves it begins from the start, and is tried again first.
        now = go_back(&mut ways, &mut random);
        ways.handle_welcomed(now, &mut random);
        now = now.plus(PROVED_AFTER);
        ways.handle_lost(now, true);
        assert_eq!(ways.current(), &all()[0]);
        ways.handle_lost(now, false);
        ways.handle_welcomed(now, &mut random);
        assert!(ways.deadline().unwrap().since(now) <= PROBE_EVERY);
    }
}

#[test]
fn a_return_proves_itself_while_a_better_way_is_still_looked_for() {
    let mut random = Random::new(3);
    let (mut ways, _) = at(2, &mut random);
    let due = ways.deadline().unwrap();
    let (probe, better) = ways.handle_timeout(due, true, &mut random).unwrap();
    assert!(ways.handle_probed(due, probe, Some(&better[1]), true));
    ways.handle_welcomed(due, &mut random);
    let later = due.plus(PROVED_AFTER);
    assert!(ways.handle_timeout(later, true, &mut random).is_some());
    ways.handle_lost(later, true);
    assert_eq!(ways.current(), &all()[1], "it is tried again first");
}
