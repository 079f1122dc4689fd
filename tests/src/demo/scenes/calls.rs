//! Scene: everybody is called. Knows nothing of faults.

use crate::stage::Stage;

pub(super) fn play(stage: &mut Stage) {
    for round in 1..=stage.expect.rounds {
        stage.call_everybody(&format!("round {round}"));
    }
}
