//! Scene: 10,000 addresses-of-record come in through the API. Knows nothing of phones.

use locus_lab::wait;

use crate::stage::Stage;
use crate::story::grouped;

/// Port of the provisioned contacts; nobody calls them.
pub(super) const PORT: u16 = 7100;

pub(super) fn play(stage: &mut Stage) {
    let count = stage.expect.provisioned;
    let length = u64::try_from(count).unwrap_or(u64::MAX);
    let bar = stage.story.bar(length, "addresses-of-record");
    let before = stage.cluster.locsvc.level();
    let start = wait::now();
    let level = stage.cluster.locsvc.provision(0, count, PORT, |more| {
        bar.inc(u64::try_from(more).unwrap_or_default());
    });
    bar.finish_and_clear();
    stage.cluster.wait_visible(level);
    stage
        .report
        .expect("levels made by provisioning", level - before, length);
    stage.story.step(&format!(
        "{} addresses-of-record provisioned and visible on both nodes in {:.1} s: level {}",
        grouped(length),
        start.elapsed().as_secs_f64(),
        grouped(level),
    ));
    stage.emergency("provision");
}
