//! The ways to a master and the group beside the connection: which one is taken, and when it is left.

use locus_proto::v1::{GroupCut, GroupKey, GroupLeftReason, GroupOffer};

use super::*;

const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 0, 1)), 5801);
const REPLY_PORT: u16 = 5802;

fn bus_a() -> Address {
    Address::BusA("/run/a.sock".into())
}

fn bus_b() -> Address {
    Address::BusB("/run/b.sock".into())
}

/// A node on two buses and the network, which has not connected yet.
fn board() -> Bench {
    let start = Start {
        masters: vec![bus_a(), bus_b(), tcp(1)],
        ..Bench::new().core.start
    };
    Bench::starting(start)
}

impl Bench {
    /// Waits for the next attempt to connect, and takes it.
    fn attempt(&mut self) -> (Connection, Address) {
        for _ in 0..100 {
            let next = self.orders.iter().find_map(|order| {
                if let Order::Connect { connection, master } = order {
                    return Some((*connection, master.clone()));
                }
                None
            });
            if let Some(next) = next {
                self.orders.clear();
                return next;
            }
            let due = self.core.poll_timeout().expect("it tries for ever");
            self.wait(due.since(self.now));
        }
        panic!("no attempt")
    }

    fn refuse(&mut self, connection: Connection) {
        let reason = "connection refused".to_owned();
        self.input(Input::Closed { connection, reason });
    }

    /// The master at the other end of `connection` takes the node in.
    fn follow(&mut self, connection: Connection) {
        self.input(Input::Connected {
            connection,
            ends: None,
        });
        self.receive(welcome(5));
        self.receive(heartbeat(5));
        assert_eq!(self.core.summary().state, NodeState::Coherent);
        self.orders.clear();
    }

    /// Lives with its master until it looks for better ways; returns the look.
    fn look(&mut self) -> (u64, Vec<Address>) {
        for _ in 0..PROBE_EVERY_MAX.as_millis() / 400 {
            self.wait(Duration::from_millis(400));
            self.receive(heartbeat(5));
            let found = self.orders.iter().position(|order| {
                let Order::Probe { .. } = order else {
                    return false;
                };
                true
            });
            if let Some(found) = found {
                let Order::Probe { probe, addresses } = self.orders.remove(found) else {
                    panic!("{:?}", self.orders)
                };
                return (probe, addresses);
            }
        }
        panic!("it does not look")
    }

    fn joining(&self) -> Option<(Membership, SocketAddr)> {
        self.orders.iter().find_map(|order| {
            if let Order::JoinGroup {
                membership, master, ..
            } = order
            {
                return Some((*membership, *master));
            }
            None
        })
    }

    fn left(&self) -> Option<GroupLeftReason> {
        self.to_master.iter().find_map(|message| {
            if let Message::GroupLeft(left) = message {
                return Some(left.reason);
            }
            None
        })
    }
}

#[test]
fn a_bus_that_is_cut_is_followed_by_the_other_and_the_network_and_is_gone_back_to() {
    let mut bench = board();
    let (connection, address) = bench.attempt();
    assert_eq!(address, bus_a());
    bench.follow(connection);
    bench.refuse(connection); // it was cut
    for expected in [bus_a(), bus_b()] {
        let (connection, address) = bench.attempt();
        assert_eq!(address, expected);
        bench.refuse(connection);
    }
    let (connection, address) = bench.attempt();
    assert_eq!(address, tcp(1));
    bench.follow(connection);
    // Nothing better is open for a while; then the first bus is.
    let (probe, addresses) = bench.look();
    assert_eq!(addresses, [bus_a(), bus_b()]);
    bench.input(Input::Probed { probe, open: None });
    assert_eq!(bench.orders, []);
    let (probe, _) = bench.look();
    let open = Some(bus_a());
    bench.input(Input::Probed { probe, open });
    assert_eq!(bench.orders, [Order::Disconnect { connection }]);
    let said = Event::Returning {
        from: tcp(1),
        to: bus_a(),
    };
    assert_eq!(bench.events.last(), Some(&said));
    let (connection, address) = bench.attempt();
    assert_eq!(address, bus_a());
    bench.follow(connection);
    // On the best way nothing is looked for.
    for _ in 0..200 {
        bench.wait(Duration::from_millis(400));
        bench.receive(heartbeat(5));
    }
    assert!(
        !bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Probe { .. }))
    );
}

/// Small messages may pass where large ones do not: a welcome alone is no service.
#[test]
fn a_way_that_welcomes_and_brings_nothing_is_followed_by_the_next() {
    let mut bench = board();
    for expected in [bus_a(), bus_b(), tcp(1)] {
        let (connection, address) = bench.attempt();
        assert_eq!(address, expected);
        bench.input(Input::Connected {
            connection,
            ends: None,
        });
        bench.receive(welcome(5));
        bench.refuse(connection);
    }
    let (connection, address) = bench.attempt();
    assert_eq!(address, bus_a());
    bench.follow(connection);
    bench.refuse(connection);
    assert_eq!(bench.attempt().1, bus_a());
}

#[test]
fn nobody_goes_back_while_a_table_is_loaded_or_not_the_masters() {
    let mut bench = board();
    for _ in 0..2 {
        let (connection, _) = bench.attempt();
        bench.refuse(connection);
    }
    let (connection, _) = bench.attempt();
    bench.follow(connection);
    let (probe, _) = bench.look();
    bench.receive(heartbeat(6)); // something is missing
    bench.wait(Duration::from_millis(1));
    bench.close();
    let (connection, address) = bench.attempt();
    assert_eq!(address, tcp(1));
    let open = Some(bus_a());
    bench.input(Input::Probed { probe, open });
    assert_eq!(bench.orders, [], "an answer of before");
    bench.input(Input::Connected {
        connection,
        ends: Some(ENDS),
    });
    bench.receive(reload(6));
    for _ in 0..300 {
        bench.receive(heartbeat(6));
        bench.wait(Duration::from_millis(400));
    }
    assert!(
        !bench
            .orders
            .iter()
            .any(|o| matches!(o, Order::Probe { .. }))
    );
}

fn offer() -> Message {
    Message::GroupOffer(GroupOffer {
        stream: 77,
        group: GROUP,
        reply_port: REPLY_PORT,
        key: GroupKey {
            stream: 77,
            id: 1,
            secret: [5; 32],
        },
        node_key: [6; 32],
        verify_key: [7; 32],
    })
}

#[test]
fn the_group_is_joined_by_the_connections_ends_and_what_comes_by_an_old_membership_counts_for_nothing()
 {
    let mut bench = Bench::coherent();
    bench.receive(offer());
    let (membership, master) = bench.joining().expect("it joins");
    let at_master = SocketAddr::new(ENDS.remote.ip(), REPLY_PORT);
    assert_eq!(master, at_master);
    bench.input(Input::Datagrams {
        membership,
        datagrams: vec![vec![1, 2, 3]],
        refused: 4,
    });
    let summary = bench.core.summary();
    let totals = (summary.group_refused_total, summary.stale_inputs_total);
    assert_eq!(totals, (4, 0));
    bench.orders.clear();
    bench.close();
    assert!(
        bench.orders.contains(&Order::LeaveGroup),
        "{:?}",
        bench.orders
    );
    bench.input(Input::Datagrams {
        membership,
        datagrams: vec![vec![1, 2, 3]],
        refused: 0,
    });
    let reason = "it was left".to_owned();
    bench.input(Input::GroupFailed { membership, reason });
    assert_eq!(bench.core.summary().stale_inputs_total, 2);
    assert!(bench.left().is_none());
}

#[test]
fn a_group_that_cannot_be_joined_is_said_to_the_master_and_to_people_once() {
    // Over a bus there is no way to a group.
    let mut bench = board();
    let (connection, _) = bench.attempt();
    bench.follow(connection);
    bench.receive(offer());
    assert_eq!(bench.joining(), None);
    assert_eq!(bench.left(), Some(GroupLeftReason::Unable));
    // The system refuses.
    let mut bench = Bench::coherent();
    bench.receive(offer());
    let (membership, _) = bench.joining().unwrap();
    for _ in 0..2 {
        let reason = "no such device".to_owned();
        bench.input(Input::GroupFailed { membership, reason });
    }
    assert_eq!(bench.left(), Some(GroupLeftReason::Unable));
    let is_it = |event: &&Event| matches!(event, Event::GroupFailed { .. });
    assert_eq!(bench.events.iter().filter(is_it).count(), 1);
    assert_eq!(bench.core.summary().stale_inputs_total, 1);
}

/// The master's word crosses the node's own that it hears nothing, or is of another life of the group.
#[test]
fn a_cut_that_counts_for_nothing_is_not_said_to_people() {
    let mut bench = Bench::coherent();
    bench.receive(offer());
    for stream in [76, 77] {
        bench.receive(Message::GroupCut(GroupCut { stream, seq: 1 }));
    }
    assert_eq!(bench.left(), Some(GroupLeftReason::Asked));
    let of_group = |event: &Event| matches!(event, Event::GroupFollowed | Event::GroupLeft { .. });
    assert!(!bench.events.iter().any(of_group), "{:?}", bench.events);
}
