//! Scene: every subscriber's phones register through node 1. Knows nothing of calls.

use std::time::Duration;

use locus_lab::Phone;

use crate::stage::Stage;
use crate::story::grouped;

/// Long enough for the whole demo.
pub(super) const EXPIRES: Duration = Duration::from_secs(3_600);

pub(super) fn play(stage: &mut Stage) {
    let subscribers = stage.cluster.subscribers.len();
    let phones = stage.register_everybody("register", EXPIRES);
    stage.story.step(&format!(
        "{} phones of {subscribers} subscribers registered, each after a digest challenge",
        grouped(phones)
    ));
    let n1 = stage.cluster.n1.address();
    let mut thief = Phone::new(stage.cluster.lab.host("caller"), "u0000");
    let answer = thief.register_for(
        n1,
        "sip:u0001@example.net",
        "Contact: <sip:thief@10.77.0.21>\r\n",
    );
    stage.report.expect(
        "a phone that registers somebody else's address",
        answer.code,
        403,
    );
    stage.story.step(&format!(
        "a phone that tries somebody else's address is told {}",
        answer.code
    ));
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "both nodes are coherent at level {}",
        grouped(level)
    ));
    stage.emergency("register");
}
