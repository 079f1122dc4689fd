//! locsvc or an agent out of reach while phones register and callers call (rules 2.4).
//! Knows what a phone may be told, not how a node decides.

use std::time::Duration;

use locus_lab::{Cluster, FOLLOW_DEADLINE, Lab, Phone, wait};
use rustix::process::Signal;

/// A worker may be held for the module's 500 ms at most; the rest is a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const CONTACT: &str = "Contact: <sip:u0000@10.77.0.22:7001>;expires=600\r\n";

fn phone(cluster: &Cluster, user: &str) -> Phone {
    Phone::new(cluster.lab.host("caller"), user)
}

/// Registers eight phones at once, from user `first` on, all of them new; each must be refused in time.
/// (A request that was refused because its answer came too late may have been done nevertheless, so that
/// each call needs phones of its own.)
#[track_caller]
fn many_at_once(cluster: &Cluster, first: usize) {
    let n1 = cluster.n1.address();
    std::thread::scope(|scope| {
        let phones: Vec<_> = (first..first + 8)
            .map(|n| {
                let user = format!("u{n:04}");
                scope.spawn(move || {
                    let start = wait::now();
                    let contact = format!("Contact: <sip:{user}@10.77.0.22:7001>\r\n");
                    let answer = phone(cluster, &user).register(n1, &contact);
                    (answer, start.elapsed())
                })
            })
            .collect();
        for one in phones {
            let (answer, took) = one.join().expect("a phone is answered");
            assert_eq!(answer.code, 500, "{}", answer.text);
            let retry = answer
                .header("Retry-After")
                .parse::<u32>()
                .unwrap_or_default();
            assert!((1..=120).contains(&retry), "Retry-After in {}", answer.text);
            // Eight phones share two workers: each waits for at most four turns.
            assert!(took < ANSWER_MAX * 4, "{took:?}");
        }
    });
}

#[track_caller]
fn refreshed_for_a_while(cluster: &Cluster, owner: &mut Phone) {
    let start = wait::now();
    let answer = owner.register(cluster.n1.address(), CONTACT);
    assert_eq!(answer.code, 200, "{}", answer.text);
    let granted = answer.expires_of("sip:u0000@10.77.0.22:7001");
    assert!(
        granted.is_some_and(|seconds| (60..=120).contains(&seconds)),
        "{}",
        answer.text
    );
    assert!(start.elapsed() < ANSWER_MAX * 2, "{:?}", start.elapsed());
}

#[track_caller]
fn still_found(cluster: &Cluster) {
    for node in [&cluster.n1, &cluster.n2] {
        let answer = phone(cluster, "u0019").invite(node.address(), 5070, "sip:u0000@example.net");
        assert_eq!(answer.code, 302, "{}: {}", node.name(), answer.text);
        cluster.emergency_call(node);
    }
}

#[test]
fn locsvc_is_stopped() {
    let Some(lab) = Lab::start("outage_stop") else {
        return;
    };
    let mut cluster = Cluster::started(lab, 20);
    let mut owner = phone(&cluster, "u0000");
    assert_eq!(owner.register(cluster.n1.address(), CONTACT).code, 200);
    let level = cluster.wait_coherent();
    cluster.locsvc.stop();
    cluster
        .lab
        .say("an unchanged binding is confirmed for 60 to 120 s, anything else is refused");
    refreshed_for_a_while(&cluster, &mut owner);
    many_at_once(&cluster, 1);
    let changed = owner.register(
        cluster.n1.address(),
        "Contact: <sip:other@10.77.0.22:7001>\r\n",
    );
    assert_eq!(changed.code, 500, "{}", changed.text);
    let removed = owner.register(cluster.n1.address(), "Contact: *\r\nExpires: 0\r\n");
    assert_eq!(removed.code, 500, "{}", removed.text);
    still_found(&cluster);
    cluster
        .lab
        .say("nothing of this was a change; back again, phones register as before");
    cluster.locsvc.start();
    assert_eq!(cluster.wait_coherent(), level);
    let answer = owner.register(cluster.n1.address(), CONTACT);
    let granted = answer.expires_of("sip:u0000@10.77.0.22:7001");
    assert!(
        granted.is_some_and(|seconds| seconds > 590),
        "{}",
        answer.text
    );
    assert_eq!(cluster.wait_coherent(), level + 1);
}

#[test]
fn locsvc_is_frozen_or_unreachable() {
    let Some(lab) = Lab::start("outage_frozen") else {
        return;
    };
    let mut cluster = Cluster::started(lab, 20);
    let mut owner = phone(&cluster, "u0000");
    assert_eq!(owner.register(cluster.n1.address(), CONTACT).code, 200);
    cluster.wait_coherent();
    cluster
        .lab
        .say("frozen: connections stay open and nothing comes; no worker is stuck");
    cluster.locsvc.process().signal(Signal::STOP);
    many_at_once(&cluster, 1);
    still_found(&cluster);
    let stale = |cluster: &Cluster| {
        let state = cluster.n1.view().state();
        state.is_some_and(|state| state.as_str() == "stale")
    };
    wait::until("node 1 to notice", FOLLOW_DEADLINE, || stale(&cluster));
    refreshed_for_a_while(&cluster, &mut owner);
    cluster.locsvc.process().signal(Signal::CONT);
    cluster.wait_coherent();
    cluster.lab.say("the cable is cut: packets vanish");
    cluster.lab.network().cut("locsvc");
    many_at_once(&cluster, 9);
    still_found(&cluster);
    wait::until("node 1 to notice", FOLLOW_DEADLINE, || stale(&cluster));
    refreshed_for_a_while(&cluster, &mut owner);
    cluster.lab.network().heal("locsvc");
    cluster.wait_coherent();
    assert_eq!(owner.register(cluster.n1.address(), CONTACT).code, 200);
}

#[test]
fn an_agent_is_dead_or_frozen() {
    let Some(lab) = Lab::start("outage_agent") else {
        return;
    };
    let mut cluster = Cluster::started(lab, 20);
    let mut owner = phone(&cluster, "u0000");
    assert_eq!(owner.register(cluster.n1.address(), CONTACT).code, 200);
    cluster.wait_coherent();
    let workers = cluster.n1.kamailio().udp_workers();
    cluster
        .lab
        .say("frozen: the module waits its 500 ms, no longer");
    cluster.n1.agent().signal(Signal::STOP);
    many_at_once(&cluster, 1);
    still_found(&cluster);
    cluster.n1.agent().signal(Signal::CONT);
    cluster.wait_coherent();
    cluster.lab.say("dead: refused at once, calls go on");
    cluster.n1.kill_agent();
    let start = wait::now();
    let answer = phone(&cluster, "u0001").register(cluster.n1.address(), CONTACT);
    assert_eq!(answer.code, 500, "{}", answer.text);
    assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
    still_found(&cluster);
    cluster
        .lab
        .say("back: phones register again, no worker has died");
    cluster.n1.start_agent();
    cluster.wait_coherent();
    assert_eq!(owner.register(cluster.n1.address(), CONTACT).code, 200);
    assert_eq!(cluster.n1.kamailio().udp_workers(), workers);
}
