//! Whoever reaches the group's network without a key: datagrams forged, replayed, changed, cut short, by the
//! hundred thousand, to the nodes and to locsvc. They cost a count. Knows headers, no seal.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use locus_lab::{
    Agent, Eavesdropper, FOLLOW_DEADLINE, Fleet, GROUP, GROUP_PORT, Heard, Lab, Namespace, count,
    wait,
};
use locus_proto::NodeId;
use locus_proto::v1::{DatagramHeader, DatagramKind, FragmentFlags};

/// Where locsvc takes what nodes miss; an operator who fixes it tells the attacker too.
const REPLY_PORT: u16 = 5_802;
/// Datagrams of the attack.
const DATAGRAMS: usize = 100_000;
/// Datagrams that the attacker has heard before.
const HEARD: usize = 100;
/// Changes a second meanwhile.
const CHURN: u32 = 200;
/// What a daemon may grow by while changes flow and its buffers fill, in KiB.
const GROWTH_MAX: u64 = 32 * 1_024;
/// Lines that a daemon may log about it.
const LINES_MAX: usize = 50;

#[test]
fn datagrams_of_a_stranger_change_nothing() {
    let Some(lab) = Lab::with_nodes("attack", 3) else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 3, GROUP);
    let port = REPLY_PORT.to_string();
    fleet
        .locsvc
        .settings()
        .set("distribution.multicast.port", &port);
    fleet.start();
    let stranger = fleet.lab.host("caller").clone();
    stranger.ip("route add 239.192.0.0/14 dev e0\n");
    let open = stranger.run(|| UdpSocket::bind((stranger.address(), 0)).expect("a socket"));
    let masked = pretend(fleet.lab.host("callee"), fleet.locsvc.namespace().address());

    let before_restart = what_is_heard(&fleet, &Eavesdropper::join(&stranger, GROUP));
    fleet.locsvc.kill();
    fleet.locsvc.start();
    fleet.wait_paths("multicast");
    let churn = fleet.churn(CHURN);
    let now = what_is_heard(&fleet, &Eavesdropper::join(&stranger, GROUP));
    let (memory, lines) = (memory(&mut fleet), lines(&fleet));
    let refused = |fleet: &Fleet| -> Vec<u64> {
        let nodes = fleet.locsvc.nodes();
        nodes
            .iter()
            .map(|node| count(node, "/group/refused_total"))
            .collect()
    };
    let refused_before = refused(&fleet);

    let mut sent = 0_usize;
    for (number, bytes) in datagrams(&before_restart, &now).enumerate().take(DATAGRAMS) {
        let master = SocketAddr::from((fleet.locsvc.namespace().address(), REPLY_PORT));
        let group = SocketAddr::from((GROUP, GROUP_PORT));
        let (socket, to) = match number % 4 {
            0 => (&open, master),
            1 => (&open, group),
            _ => (&masked, group),
        };
        // A full buffer on the way is no failure of the attack.
        sent += usize::from(socket.send_to(&bytes, to).is_ok());
    }
    let level = churn.level() + 1;
    wait::until("further changes", FOLLOW_DEADLINE, || {
        churn.level() >= level
    });
    fleet.wait_level(churn.level(), &[]);
    churn.finish();
    let (level, records) = fleet.assert_equal();
    wait::until(
        "each node's word of what it refused",
        FOLLOW_DEADLINE,
        || {
            refused(&fleet)
                .iter()
                .zip(&refused_before)
                .all(|(now, before)| now > before)
        },
    );
    let refused: u64 = refused(&fleet).iter().sum();
    fleet.lab.say(&format!(
        "{sent} datagrams of a stranger, {refused} refused by three nodes; 3 tables of {records} records \
         equal at level {level}"
    ));
    assert!(sent > DATAGRAMS / 2, "{sent} sent");
    for ((name, before), (_, after)) in memory.iter().zip(self::memory(&mut fleet)) {
        assert!(
            after < before + GROWTH_MAX,
            "{name}: {before} KiB before, {after} KiB after"
        );
    }
    for ((name, before), (_, after)) in lines.iter().zip(self::lines(&fleet)) {
        assert!(
            after < before + LINES_MAX,
            "{name} logged {} lines",
            after - before
        );
    }
    fleet.wait_paths("multicast");
}

/// A socket on `host` that sends from `address`, which is locsvc's, as anybody on the network can.
fn pretend(host: &Namespace, address: Ipv4Addr) -> UdpSocket {
    host.run(|| {
        let answers = "/proc/sys/net/ipv4/conf/all/arp_ignore";
        fs::write(answers, "8").expect("a namespace's own setting");
    });
    host.ip(&format!(
        "route add 239.192.0.0/14 dev e0\naddr add {address}/32 dev e0\n"
    ));
    host.run(|| UdpSocket::bind((address, 0)).expect("a socket"))
}

/// Datagrams of the group as a stranger hears them while records change.
fn what_is_heard(fleet: &Fleet, stranger: &Eavesdropper) -> Vec<Heard> {
    let churn = fleet.churn(CHURN);
    let heard = (0..HEARD)
        .map(|_| stranger.hear("a datagram", |_| true))
        .collect();
    churn.finish();
    heard
}

/// An endless row: heard ones again, of this life and the one before; with one bit changed; cut short; with an
/// invented header, kind and sender.
fn datagrams<'a>(old: &'a [Heard], now: &'a [Heard]) -> impl Iterator<Item = Vec<u8>> + 'a {
    let pairs = old.iter().cycle().zip(now.iter().cycle());
    pairs.enumerate().flat_map(|(round, (old, now))| {
        let mut changed = now.bytes.clone();
        let bit = round * 7 % (changed.len() * 8);
        changed[bit / 8] ^= 1 << (bit % 8);
        let cut = now.bytes[..round * 13 % now.bytes.len()].to_vec();
        let ahead = invented(now, DatagramKind::Data, 0, round);
        let control = [
            (DatagramKind::Beat, 0),
            (DatagramKind::Gone, 0),
            (DatagramKind::Confirm, 0),
            (DatagramKind::Nack, 2),
            (DatagramKind::Status, 3),
        ];
        let (kind, node) = control[round % control.len()];
        [
            old.bytes.clone(),
            now.bytes.clone(),
            changed,
            cut,
            ahead,
            invented(now, kind, node, round),
        ]
    })
}

/// A well-formed header of the current stream over bytes that no key has sealed.
fn invented(like: &Heard, kind: DatagramKind, node: u16, round: usize) -> Vec<u8> {
    let header = DatagramHeader {
        kind,
        flags: match kind {
            DatagramKind::Data => like.header.flags,
            DatagramKind::Beat
            | DatagramKind::Confirm
            | DatagramKind::Gone
            | DatagramKind::Nack
            | DatagramKind::Status => FragmentFlags::default(),
        },
        node: NodeId(node),
        seq: like.header.seq + u64::try_from(round).unwrap_or(0) % 4_000,
        ..like.header
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend((0..64).map(|n| u8::try_from((round * 31 + n * 17) % 256).unwrap_or(0)));
    bytes
}

/// Resident memory of each daemon, in KiB.
fn memory(fleet: &mut Fleet) -> Vec<(String, u64)> {
    let mut pids = vec![("locsvc".to_owned(), fleet.locsvc.process().pid())];
    for agent in &mut fleet.agents {
        let name = agent.name().to_owned();
        pids.push((name, agent.process().pid()));
    }
    let resident = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
        // Without the table, which is a file.
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("RssAnon in /proc/PID/status")
    };
    pids.into_iter()
        .map(|(name, pid)| (name, resident(pid)))
        .collect()
}

/// Lines in each daemon's log.
fn lines(fleet: &Fleet) -> Vec<(String, usize)> {
    let agents = fleet.agents.iter();
    let mut all: Vec<(String, usize)> = agents
        .map(|agent: &Agent| (agent.name().to_owned(), agent.log().lines().count()))
        .collect();
    all.push(("locsvc".to_owned(), fleet.locsvc.log().lines().count()));
    all
}
