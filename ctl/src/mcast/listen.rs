//! The listening end: joins once, counts, and leaves with a verdict.

use std::io::ErrorKind;
use std::time::Duration;

use super::clock::now;
use super::datagram::{DATAGRAM_BYTES, Datagram};
use super::queries::Queries;
use super::verdict::{Heard, Verdict};
use super::{McastError, Plan, SILENCE, socket};

/// How long the sender may take to begin.
const FIRST: Duration = Duration::from_secs(30);
/// A silence is noticed this much late at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Listens until the plan's time is over, the sender says that it ends, or the path falls silent.
///
/// # Errors
/// [`McastError`]: no such interface, the port is taken.
pub(super) fn listen(plan: &Plan) -> Result<Verdict, McastError> {
    let mut queries = Queries::watch(plan.group);
    let socket = socket::listener(plan)?;
    let timeout = socket.set_read_timeout(Some(LOOK_EVERY));
    timeout.map_err(McastError::socket("listen with a time limit"))?;
    let joined = now();
    let mut heard = Heard::default();
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    loop {
        let received = socket.recv(&mut buffer);
        let at = joined.elapsed();
        // Taken at once: on IPv6 they share a buffer with all of ICMP.
        heard.queries = queries.as_mut().map(Queries::count);
        let mut ended = at >= plan.length || heard.silence(at) >= SILENCE;
        ended |= !heard.has_begun() && at >= FIRST;
        match received {
            Ok(length) => {
                if let Some(datagram) = Datagram::parse(&buffer[..length]) {
                    heard.handle_datagram(at, datagram.run, datagram.number);
                    ended |= datagram.last;
                }
            }
            Err(error) if is_silence(error.kind()) => {}
            Err(error) => return Err(McastError::socket("listen")(error)),
        }
        if ended {
            return Ok(heard.judge(at));
        }
    }
}

fn is_silence(kind: ErrorKind) -> bool {
    kind == ErrorKind::WouldBlock || kind == ErrorKind::TimedOut || kind == ErrorKind::Interrupted
}
