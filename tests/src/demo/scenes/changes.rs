//! Scene: records change one by one, then both tables are compared with the API record by record.
//! Knows nothing of how a change travels.

use locus_lab::{Durations, Watcher, provisioned_aor, wait};

use crate::stage::Stage;
use crate::story::grouped;

pub(super) fn play(stage: &mut Stage) {
    let changes = stage.expect.changes;
    let watchers =
        [&stage.cluster.n1, &stage.cluster.n2].map(|node| Watcher::start(node.table().path()));
    let bar = stage.story.bar(
        u64::try_from(changes).unwrap_or(u64::MAX),
        "changes, one by one",
    );
    let mut accepted = Vec::with_capacity(changes);
    for n in 0..changes {
        let body = serde_json::json!({
            "contacts": [{ "uri": format!("sip:changed{n}@10.77.0.22:7101"), "q": 0.8 }],
        });
        let path = format!("/v1/aors/{}", provisioned_aor(n));
        // Taken before the request leaves: what is reported includes the way to locsvc.
        let when = wait::now();
        accepted.push((stage.cluster.locsvc.api().put(&path, &body).level(), when));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let last = accepted.last().map(|(level, _)| *level).unwrap_or_default();
    stage.cluster.wait_visible(last);
    let seen = watchers.map(Watcher::finish);
    let visible: Durations = accepted
        .iter()
        .filter_map(|(level, when)| {
            let both = seen
                .iter()
                .map(|seen| seen.when(*level))
                .collect::<Option<Vec<_>>>()?;
            Some(both.into_iter().max()?.saturating_duration_since(*when))
        })
        .collect();
    stage
        .report
        .expect("changes seen on both nodes", visible.count(), changes);
    let limit = stage.expect.visible_p99_max;
    stage
        .report
        .expect_at_most("accepted → visible, p99", visible.quantile(99), limit);
    stage.report.visible(visible);
    let level = stage.cluster.wait_coherent();
    stage.story.step(&format!(
        "{changes} records changed; both nodes at level {}",
        grouped(level)
    ));
    compare(stage);
    stage.emergency("changes");
}

fn compare(stage: &mut Stage) {
    let mut aors: Vec<String> = (0..stage.expect.provisioned).map(provisioned_aor).collect();
    aors.extend(
        stage
            .cluster
            .subscribers
            .iter()
            .map(locus_lab::Subscriber::aor),
    );
    let bar = stage.story.bar(
        u64::try_from(aors.len()).unwrap_or(u64::MAX),
        "records compared",
    );
    let cluster = &stage.cluster;
    let comparison = locus_lab::compare(
        cluster.locsvc.api(),
        &[&cluster.n1, &cluster.n2],
        &aors,
        || bar.inc(1),
    );
    bar.finish_and_clear();
    stage.report.expect(
        "records that differ from the API",
        &comparison.differences[..],
        &[],
    );
    stage
        .report
        .expect("records compared", comparison.records, aors.len());
    stage.story.step(&format!(
        "both tables dumped: {} records each equal the API's answers",
        grouped(u64::try_from(comparison.records).unwrap_or(u64::MAX))
    ));
}
