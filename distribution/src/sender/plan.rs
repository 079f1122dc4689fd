//! Decides whether a node catches up or loads the whole table anew; it sends nothing.

use locus_proto::{Lineage, Position, ReloadReason, Verdict, v1::Plan};

use super::{Costs, RELOAD_COST_MIN};

/// Returns how a node at `position` is brought to `head`.
///
/// Lineage comes first (rules 1.2): a node that holds changes which the log does not know can only
/// reload. Then what the operator fixed, `reload_above`; without it the cheaper way, in bytes. Content that
/// differs is no reason: the node finds that by the next heartbeat and has it repaired.
pub(super) fn decide(
    position: Option<Position>,
    lineage: &Lineage,
    head: Position,
    reload_above: Option<u64>,
    costs: &dyn Costs,
) -> Plan {
    let Some(position) = position else {
        return Plan::Reload(ReloadReason::Empty);
    };
    match lineage.judge(position.epoch, position.level, head.level) {
        Verdict::Reload(reason) => return Plan::Reload(reason),
        Verdict::Continue => {}
    }
    if position.level == head.level && position.epoch == head.epoch {
        return Plan::Continue;
    }
    // Also at an equal level: the frames of the epochs in between must still be there.
    let Some(log_bytes) = costs.log_bytes_after(position.level) else {
        return Plan::Reload(ReloadReason::TooFar);
    };
    let too_far = match reload_above {
        Some(levels) => head.level.since(position.level) > levels,
        None => log_bytes > costs.table_bytes().max(RELOAD_COST_MIN),
    };
    if too_far {
        Plan::Reload(ReloadReason::TooFar)
    } else {
        Plan::Continue
    }
}
