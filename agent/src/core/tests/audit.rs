//! Audits as they pass through the core, and messages that are held back.

use locus_distribution::{AuditCause, Mended, SILENCE_MAX};
use locus_proto::v1::{AuditAsk, AuditOrder, AuditRecords, AuditScope, AuditSums, AuditVerdict};
use locus_proto::{NodeStatus, TableHealth};

use super::*;

impl Bench {
    /// The scope of the only question that was asked since the last call.
    fn asked(&mut self) -> AuditScope {
        let messages = std::mem::take(&mut self.to_master);
        let asked: Vec<_> = messages
            .into_iter()
            .filter_map(|message| {
                if let Message::AuditAsk(AuditAsk { scope, .. }) = message {
                    return Some(scope);
                }
                None
            })
            .collect();
        let [scope] = asked[..] else {
            panic!("{asked:?}")
        };
        scope
    }

    /// Sends sums, takes the order to compare them and answers it.
    fn compared(&mut self, group: Option<u8>, differ: &[u8]) {
        let sums = vec![Root::EMPTY; 256];
        let level = Level(5);
        self.receive(Message::AuditSums(AuditSums {
            level,
            group,
            sums: sums.clone(),
        }));
        assert_eq!(self.orders, [Order::Compare { group, sums }]);
        self.orders.clear();
        self.input(Input::Compared(Ok(differ.to_vec())));
    }

    /// Sends the records of a partition, takes the order to mend it and answers it.
    fn mended(&mut self, partition: u16, repair: bool) {
        let records = frame(4).changes;
        self.receive(Message::AuditRecords(AuditRecords {
            level: Level(5),
            partition,
            last: true,
            records: records.clone(),
        }));
        let mend = Order::Mend {
            partition,
            records,
            repair,
        };
        assert_eq!(self.orders, [mend]);
        self.orders.clear();
        self.input(Input::Mended(Ok(Mended {
            differing: 3,
            repaired: if repair { 3 } else { 0 },
            standing: standing(5),
        })));
    }

    fn audited(&self) -> Option<&Event> {
        self.events
            .iter()
            .find(|event| matches!(event, Event::Audited { .. }))
    }
}

#[test]
fn memory_in_doubt_is_doubted_first_then_compared_mended_and_told() {
    let mut bench = Bench::coherent();
    bench.orders.clear();
    bench.to_master.clear();
    bench.input(Input::Doubted { partition: 0x0a07 });
    assert_eq!(bench.orders, [Order::Doubt { partition: 0x0a07 }]);
    bench.orders.clear();
    assert_eq!(bench.asked(), AuditScope::Groups);
    bench.compared(None, &[0x0a]);
    assert_eq!(bench.asked(), AuditScope::Group(0x0a));
    bench.compared(Some(0x0a), &[7, 8]);
    for partition in [0x0a07, 0x0a08] {
        assert_eq!(bench.asked(), AuditScope::Partition(partition));
        bench.mended(partition, true);
    }
    assert_eq!(bench.audited(), None, "a heartbeat shows whether it helped");
    bench.receive(heartbeat(5));
    let expected = Event::Audited {
        cause: AuditCause::Memory,
        verdict: AuditVerdict::Repaired,
        level: Level(5),
        partitions: 2,
        ranges: "0a07-0a08".into(),
        differing: 6,
        repaired: 6,
    };
    assert_eq!(bench.audited(), Some(&expected));
    assert_eq!(bench.core.summary().receiver.repaired_total, 6);
}

#[test]
fn an_operators_order_reads_memory_first_and_is_reported() {
    let mut bench = Bench::coherent();
    bench.orders.clear();
    let order = AuditOrder {
        ticket: 9,
        repair: false,
    };
    bench.receive(Message::AuditOrder(order));
    assert_eq!(bench.orders, [Order::Scrub]);
    bench.orders.clear();
    bench.to_master.clear();
    bench.input(Input::Scrubbed(Ok(())));
    assert_eq!(bench.asked(), AuditScope::Groups);
    bench.compared(None, &[1]);
    assert_eq!(bench.asked(), AuditScope::Group(1));
    bench.compared(Some(1), &[2]);
    assert_eq!(bench.asked(), AuditScope::Partition(0x0102));
    bench.mended(0x0102, false);
    let report = bench.to_master.iter().find_map(|message| {
        if let Message::AuditReport(report) = message {
            return Some(report);
        }
        None
    });
    let report = report.expect("a report");
    assert_eq!((report.ticket, report.verdict), (9, AuditVerdict::Differs));
    assert_eq!((report.differing, report.repaired), (3, 0));
    assert_eq!(report.ranges, [(0x0102, 0x0102)]);
    assert!(bench.audited().is_some(), "the node's log tells it too");
}

#[test]
fn a_frame_that_does_not_fit_twice_is_followed_without_roots_and_leads_to_an_audit() {
    let mut bench = Bench::coherent();
    bench.orders.clear();
    let apply = |checked| Order::Apply {
        frame: frame(5),
        checked,
    };
    bench.receive(Message::Frame(frame(5)));
    assert_eq!(bench.orders, [apply(true)]);
    bench.input(Input::Applied(Err(Failure::RootMismatch)));
    // Once it may be the connection's fault.
    bench.wait(Duration::from_millis(200));
    let connection = bench.connecting();
    bench.connected(connection);
    bench.receive(welcome(6));
    bench.receive(Message::Frame(frame(5)));
    assert_eq!(bench.orders, [apply(true)]);
    bench.orders.clear();
    bench.input(Input::Applied(Err(Failure::RootMismatch)));
    assert_eq!(bench.orders, [apply(false)]);
    let mut other = standing(6);
    other.position.root = Root([99; 2]);
    bench.input(Input::Applied(Ok(other)));
    assert!(bench.core.summary().state.answers());
    bench.to_master.clear();
    bench.receive(heartbeat(6));
    assert_eq!(bench.asked(), AuditScope::Groups);
}

#[test]
fn messages_held_back_while_memory_comes_are_no_silence() {
    let mut bench = Bench::new();
    bench.wait(Duration::ZERO);
    let connection = bench.connecting();
    bench.connected(connection);
    bench.receive(reload(6));
    bench.receive(begin(6));
    bench.to_master.clear();
    let gone = Order::Disconnect { connection };
    for _ in 0..60 {
        bench.input(Input::Held);
        bench.wait(Duration::from_millis(500));
        assert!(!bench.orders.contains(&gone));
    }
    let reports = bench.to_master.len();
    assert!(reports >= 29, "{reports} reports in 30 s");
    bench.wait(SILENCE_MAX);
    assert!(bench.orders.contains(&gone), "this is one");
}

#[test]
fn messages_held_back_while_a_table_grows_are_no_silence_but_what_answers_gets_stale() {
    let mut bench = Bench::coherent();
    bench.orders.clear();
    bench.to_master.clear();
    for _ in 0..20 {
        bench.input(Input::Held);
        bench.wait(Duration::from_millis(500));
    }
    assert_eq!(bench.orders, []);
    assert!(bench.to_master.len() >= 9, "reports in 10 s");
    assert_eq!(bench.core.summary().state, NodeState::Stale);
    bench.receive(heartbeat(5));
    assert_eq!(bench.core.summary().state, NodeState::Coherent);
}

#[test]
fn the_tables_health_goes_into_the_reports() {
    let mut bench = Bench::coherent();
    let health = TableHealth {
        table_bytes: 1 << 30,
        huge_bytes: 1 << 29,
        scrubs_total: 3,
        ..TableHealth::default()
    };
    bench.input(Input::Health(health));
    bench.to_master.clear();
    bench.wait(Duration::from_millis(1000));
    let Some(Message::Status(NodeStatus { health: told, .. })) = bench.to_master.first() else {
        panic!("{:?}", bench.to_master)
    };
    assert_eq!(*told, health);
}
