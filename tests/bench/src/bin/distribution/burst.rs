//! A burst of datagrams that all nodes lose alike, at the sender's own interface.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use locus_lab::{Fleet, GROUP, Namespace};

use crate::fleet::{API, total, wait_level};
use crate::load;

/// Bytes lost in one burst: fifty full datagrams with their IP and UDP headers.
const BURST_BYTES: u32 = 50 * 1_428;
const PER_SECOND: usize = 10_000;

/// Returns the NACKs that all nodes sent for each of `bursts` bursts, in order.
pub(crate) fn nacks(fleet: &Fleet, bursts: usize) -> Vec<u64> {
    let sender = fleet.locsvc.namespace().clone();
    (0..bursts)
        .map(|burst| {
            let before = total(fleet, "nacks_total");
            let sent = std::thread::scope(|scope| {
                let load = scope.spawn(|| {
                    load::run(
                        &sender,
                        API,
                        PER_SECOND,
                        Duration::from_secs(1),
                        100 + burst,
                    )
                });
                locus_lab::wait::pause(Duration::from_millis(300));
                nft(&sender, &lose_a_burst());
                load.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            wait_level(fleet, sent.level());
            nft(&sender, "delete table inet burst\n");
            total(fleet, "nacks_total") - before
        })
        .collect()
}

/// A rule that drops to the group until its quota is used up, and is nothing afterwards.
fn lose_a_burst() -> String {
    format!(
        "table inet burst {{ chain out {{ type filter hook output priority 0;\n\
         ip daddr {GROUP} quota {BURST_BYTES} bytes drop\n}}\n}}\n"
    )
}

fn nft(namespace: &Namespace, lines: &str) {
    let mut child = namespace
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("nft: {error}"));
    let written = child
        .stdin
        .take()
        .map(|mut input| input.write_all(lines.as_bytes()));
    let ended = child.wait();
    let fine = written.is_some_and(|written| written.is_ok())
        && ended.is_ok_and(|status| status.success());
    assert!(fine, "nft refused:\n{lines}");
}
