//! Conversations at random: nothing that a master says confuses the receiver.

use super::*;

/// Whatever a master says and a table answers: no panic, few outputs for each input, and no table below
/// the old one unless the lineage disowned that.
#[test]
fn no_conversation_confuses_it() {
    let (mut loads, mut mends) = (0, 0);
    let mut seed = 1_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); // Knuth's MMIX
        (seed >> 33) % limit
    };
    let offer = group::offer();
    let datagrams: Vec<_> = (0..30).map(group::datagrams).collect();
    for _ in 0..2_000 {
        let mut r = receiver((below(4) > 0).then(|| standing(mine())));
        let mut now = NOW;
        let mut head = Level::ZERO; // of the last welcome
        for _ in 0..100 {
            let level = match (below(2), r.position()) {
                (0, Some(mine)) => mine.level.0,
                (_, _) => 8 + below(5) * 2,
            };
            let of = match below(5) {
                0 => epoch(1 + below(3), u8::try_from(1 + below(3)).unwrap()),
                _ => epoch(2, 2),
            };
            let plan = match below(2) {
                0 => Plan::Continue,
                _ => Plan::Reload(ReloadReason::TooFar),
            };
            // One input after the other: what it asks for is answered before the next.
            let mut aside = true;
            match below(20) {
                0 => r.handle_doubted(now),
                1 => drop(r.handle_message(now, audit::order(below(2) == 0))),
                2 => drop(r.handle_message(now, offer.clone())),
                3 => drop(r.handle_message(now, group::cut(group::STREAM, 1 + below(3)))),
                4 => drop(r.handle_message(now, group::end(group::STREAM))),
                5 => {
                    let mut came = datagrams[usize::try_from(level % 30).unwrap()].clone();
                    if below(4) == 0 {
                        came[0][40] ^= 1;
                    }
                    r.handle_datagrams(now, came);
                }
                6 => r.handle_held(now),
                7 => r.handle_released(now),
                _ => aside = false,
            }
            let before = r.position();
            // Most of the time what fits the phase, so that conversations get far; else anything.
            let fitting = match r.phase {
                Phase::Greeting => 0,
                Phase::Following if r.audit.is_some() => 8,
                Phase::Following => 2 + below(2) * 3,
                Phase::Awaiting => 6,
                Phase::Loading(_) => 7,
                Phase::Offline | Phase::Connecting | Phase::Closing => 9,
            };
            let kind = if below(3) > 0 { fitting } else { below(10) };
            let message = match kind {
                0 | 1 => Some(welcome(at(of, level), plan)),
                2 | 3 => Some(frame(of, level, level + 2)),
                4 => Some(frame(of, level, level)),
                5 if below(3) == 0 => Some(heartbeat(other_content(at(of, level)))),
                5 => Some(heartbeat(at(of, level))),
                6 => Some(begin(level)),
                7 => Some(end(level)),
                // What an audit asked for, if there is one.
                8 if r.audit.is_none() => Some(Message::SnapshotPart(SnapshotPart {
                    records: Vec::new(),
                })),
                8 => Some(audit::fitting(
                    &r,
                    r.position().map_or(level, |mine| mine.level.0),
                )),
                _ => None,
            };
            if let (Some(Message::Welcome(welcome)), Phase::Greeting) = (&message, &r.phase) {
                head = welcome.head.level;
            }
            match message {
                _ if aside => {}
                Some(message) => drop(r.handle_message(now, message)),
                None => {
                    now = now.plus(Duration::from_millis(below(4_000)));
                    r.handle_timeout(now);
                }
            }
            let failed = below(10) == 0;
            let mut outputs = 0;
            while r.poll_datagram().is_some() {}
            while let Some(event) = r.poll_event() {
                outputs += 1;
                match event {
                    ReceiverEvent::Connect => r.handle_connected(now),
                    ReceiverEvent::Disconnect(_) => r.handle_closed(now),
                    ReceiverEvent::Apply { .. } => {
                        let outcome = answer(&r, before, head, failed);
                        r.handle_applied(now, outcome);
                    }
                    ReceiverEvent::Compare { .. } => {
                        let differ = (0..=below(2)).map(|n| u8::try_from(n).unwrap()).collect();
                        let outcome = if failed {
                            Err(Failure::RootMismatch)
                        } else {
                            Ok(differ)
                        };
                        r.handle_compared(now, outcome);
                    }
                    ReceiverEvent::Mend { .. } => {
                        let mended = Mended {
                            differing: 1,
                            repaired: 1,
                            standing: r.standing.unwrap(),
                        };
                        let outcome = if failed {
                            Err(Failure::RootMismatch)
                        } else {
                            Ok(mended)
                        };
                        r.handle_mended(now, outcome);
                        mends += 1;
                    }
                    ReceiverEvent::Scrub => r.handle_scrubbed(now, Ok(())),
                    ReceiverEvent::FinishLoad(_) => {
                        let outcome = answer(&r, before, head, failed);
                        r.handle_loaded(now, outcome);
                        loads += 1;
                    }
                    ReceiverEvent::BeginLoad { .. }
                    | ReceiverEvent::LoadRecords(_)
                    | ReceiverEvent::LoadFrame(_)
                    | ReceiverEvent::AbortLoad
                    | ReceiverEvent::Audited { .. }
                    | ReceiverEvent::Registered { .. }
                    | ReceiverEvent::JoinGroup { .. }
                    | ReceiverEvent::LeaveGroup
                    | ReceiverEvent::RejoinGroup
                    | ReceiverEvent::StateChanged { .. } => {}
                }
            }
            while r.poll_transmit().is_some() {
                outputs += 1;
            }
            assert!(outputs <= 8, "{outputs} outputs for one input");
            assert!(r.poll_timeout().is_some() || matches!(r.phase, Phase::Connecting));
        }
        assert_eq!(r.counters().busy_total, 0);
    }
    assert!(loads > 100, "only {loads} loads reached their end");
    assert!(mends > 100, "only {mends} partitions were mended");
}

/// Returns what the table answers, if what it is asked to become is allowed.
fn answer(
    r: &Receiver,
    before: Option<Position>,
    head: Level,
    failed: bool,
) -> Result<Standing, Failure> {
    let position = match r.owed {
        Some(Owed::Applied { at, .. } | Owed::Loaded(at)) => at,
        Some(Owed::Compared | Owed::Mended) | None => panic!("it owes {:?}", r.owed),
    };
    if let Some(before) = before
        && before.level > position.level
    {
        let verdict = r.lineage.judge(before.epoch, before.level, head);
        assert_ne!(verdict, Verdict::Continue, "{before} became {position}");
    }
    match failed {
        true => Err(Failure::RootMismatch),
        false => Ok(standing(position)),
    }
}
