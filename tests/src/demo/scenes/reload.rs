//! Scene: the greatest difference that is a delta, the smallest that is a full reload, under calls.
//! Knows nothing of how either travels.

use locus_lab::{FOLLOW_DEADLINE, wait};

use crate::stage::Stage;
use crate::story::grouped;

pub(super) fn play(stage: &mut Stage) {
    let limit = stage.expect.reload_above;
    for (missed, port, how) in [(limit, 7_103, "delta"), (limit + 1, 7_104, "full reload")] {
        let calls = stage.keep_calling();
        wait::until("the first call", FOLLOW_DEADLINE, || {
            calls.tally().placed > 0
        });
        stage.cluster.n2.stop_agent();
        bring_back(stage, missed, port, how);
        stage.hang_up(how, calls);
    }
}

/// Changes `missed` records while node 2's agent is away, starts it, and reports how and how fast it came
/// back.
pub(super) fn bring_back(stage: &mut Stage, missed: usize, port: u16, how: &str) {
    let before = stage.cluster.n2.view().level();
    let level = stage.cluster.locsvc.provision(0, missed, port, |_| {});
    let difference = level - before;
    stage.report.expect(
        "levels missed",
        difference,
        u64::try_from(missed).unwrap_or(u64::MAX),
    );
    let start = wait::now();
    stage.cluster.n2.launch_agent();
    stage.cluster.n2.wait_level(level, FOLLOW_DEADLINE);
    let duration = start.elapsed();
    stage.cluster.wait_coherent();
    let status = stage.cluster.node_status("n2");
    let counts = (
        status["catch_ups_total"].as_u64(),
        status["reloads_total"].as_u64(),
    );
    let wanted = if how == "delta" {
        (Some(1), Some(0))
    } else {
        (Some(0), Some(1))
    };
    stage.report.expect(
        &format!("{} levels behind: deltas, reloads", grouped(difference)),
        counts,
        wanted,
    );
    stage
        .report
        .expect_at_most("return of the agent", duration, stage.expect.return_max);
    stage
        .report
        .returned(&format!("{how} of {}", grouped(difference)), duration);
    stage.story.step(&format!(
        "{} levels behind, the agent came back by {how} in {:.2} s",
        grouped(difference),
        duration.as_secs_f64()
    ));
}
