//! `locusctl mcast-test` on a switch that forgets its members, and on one that does not.

use std::process::Command;
use std::time::Duration;

use locus_lab::{Lab, Namespace, Process, products};

const GROUP: &str = "239.192.76.83:5802";
/// The test itself, and time for its processes to start.
const DEADLINE: Duration = Duration::from_secs(60);

fn mcast_test(host: &Namespace, side: &str, seconds: &str) -> Command {
    let mut command = host.command(products().join("locusctl"));
    command.args(["mcast-test", side, "--group", GROUP, "--interface", "e0"]);
    command.args(["--seconds", seconds]);
    command
}

/// Runs both sides; returns how the listener ended and what it said.
fn run(lab: &Lab, name: &str, seconds: &str) -> (bool, String) {
    let (listens, sends) = (lab.host("n1"), lab.host("locsvc"));
    let folder = lab.subfolder(name);
    let listen = mcast_test(listens, "listen", "60");
    let mut listener = Process::spawn("listen", listen, &folder);
    let send = mcast_test(sends, "send", seconds);
    let mut sender = Process::spawn("send", send, &folder);
    let status = listener.finish(DEADLINE);
    let log = std::fs::read_to_string(listener.log()).expect("the log can be read");
    sender.finish(DEADLINE);
    (status.success(), log)
}

#[test]
fn a_switch_that_forgets_its_members_is_found_out() {
    let Some(lab) = Lab::start("mcast_test") else {
        return;
    };
    let (good, said) = run(&lab, "flooding", "3");
    assert!(!good && said.contains("too short to tell"), "{said}");
    assert!(said.contains(" 0 lost"), "{said}");
    lab.network().forget_members();
    let (good, said) = run(&lab, "forgetting", "25");
    assert!(!good && said.contains("cut off after"), "{said}");
    assert!(said.contains("Enable a querier"), "{said}");
}
