//! Scene: an agent is away, its Kamailio is not. Knows nothing of deltas but that they are counted.

use crate::scenes::reload::bring_back;
use crate::stage::Stage;

pub(super) fn play(stage: &mut Stage) {
    stage.cluster.n2.stop_agent();
    stage
        .story
        .step("node 2's agent is stopped; its Kamailio knows nothing of it");
    stage.call_everybody("without node 2's agent");
    let missed = stage.expect.changes;
    bring_back(stage, missed, 7_102, "delta");
    stage.emergency("catch-up");
}
