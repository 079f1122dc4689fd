//! The sending end: numbered datagrams at a steady pace.

use super::clock::{now, pause};
use super::datagram::Datagram;
use super::{EVERY, McastError, Plan, socket};

/// Copies of the last datagram: the end of the run should not be lost, or it looks like a cut.
const LAST_COPIES: u64 = 5;

/// Sends for as long as the plan says; returns what was sent, for people.
///
/// # Errors
/// [`McastError`]: no such interface, no route to the group.
pub(super) fn send(plan: &Plan) -> Result<String, McastError> {
    let socket = socket::sender(plan)?;
    let run = getrandom::u64().map_err(|error| McastError::Socket {
        what: "get random numbers",
        source: error.into(),
    })?;
    let begun = now();
    let count = u64::try_from(plan.length.as_millis() / EVERY.as_millis()).unwrap_or(u64::MAX);
    for turn in 0..count.saturating_add(LAST_COPIES) {
        let datagram = Datagram {
            run,
            number: turn.min(count),
            last: turn >= count,
        };
        let sent = socket.send_to(&datagram.to_bytes(), plan.group);
        sent.map_err(McastError::socket("send to the group"))?;
        let next = EVERY.saturating_mul(u32::try_from(turn + 1).unwrap_or(u32::MAX));
        pause(next.saturating_sub(begun.elapsed()));
    }
    let Plan { group, length, .. } = plan;
    Ok(format!(
        "{count} datagrams sent to {group} in {} s\n",
        length.as_secs()
    ))
}
