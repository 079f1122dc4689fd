//! Scene: locsvc is away for longer than every expiry. Knows nothing of how a node judges expiry.

use locus_lab::Phone;

use crate::scenes::register::EXPIRES;
use crate::stage::Stage;
use crate::story::grouped;

pub(super) fn play(stage: &mut Stage) {
    let short = stage.expect.short_expiry;
    let phones = stage.register_everybody("short expiries", short);
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "{} phones registered anew for {} s only: level {}",
        grouped(phones),
        short.as_secs(),
        grouped(level)
    ));
    let status = stage.cluster.locsvc.stop();
    stage
        .report
        .expect("locsvc leaves in good order", status.success(), true);
    stage.story.step("locsvc is stopped");
    stage.call_everybody("without locsvc");
    refresh(stage);
    stage
        .story
        .pass(stage.expect.outage, "seconds without locsvc");
    stage.call_everybody("after every expiry");
    stage.cluster.locsvc.start();
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "locsvc is back; both nodes are coherent at level {}",
        grouped(level)
    ));
    stage.call_everybody("with locsvc back");
    stage.register_everybody("long expiries", EXPIRES);
    stage.cluster.wait_coherent();
    stage.story.step("the phones have refreshed, as phones do");
}

/// One phone refreshes during the outage and is told to come back soon.
fn refresh(stage: &mut Stage) {
    let n1 = stage.cluster.n1.address();
    let callee = stage.cluster.lab.host("callee").address();
    let mut phone = Phone::new(stage.cluster.lab.host("caller"), "u0000");
    let contact = format!("Contact: <sip:u0000@{callee}:7001>;q=0.5;expires=3600\r\n");
    let answer = phone.register(n1, &contact);
    let granted = answer.expires_of(&format!("sip:u0000@{callee}:7001"));
    stage
        .report
        .expect("a refresh without locsvc", answer.code, 200);
    // 60 to 120 s, but no longer than the node would find a phone that stays away: its expiry once more.
    let longest = (2 * stage.expect.short_expiry.as_secs()).min(120);
    let short = granted.is_some_and(|seconds| (1..=longest).contains(&u64::from(seconds)));
    stage
        .report
        .expect("a short expiry without locsvc", short, true);
    let stranger = phone.register(n1, "Contact: <sip:u0000@10.77.0.21:7999>\r\n");
    stage
        .report
        .expect("a new contact without locsvc", stranger.code, 500);
    stage.story.step(&format!(
        "a refresh is answered {} for {} s, a new contact {}",
        answer.code,
        granted.unwrap_or_default(),
        stranger.code
    ));
}
