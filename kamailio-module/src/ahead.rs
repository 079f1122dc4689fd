//! What is done ahead, so that a look-up finds it done: the first line that it will need is fetched while the script
//! begins, and a table that was announced is mapped while nobody waits.
//!
//! It answers nothing, changes no request, and keeps none from its script.

use std::ffi::CStr;

use locus_ffi::{Message, RequestHook};
use locus_proto::Digits;

use crate::convert::{CalledNumber, CanonicalAor};
use crate::state;

/// Before the script: begins to fetch what a look-up of the Request-URI reads first.
///
/// For requests that such a look-up can serve: those outside of a dialog, of a method that is meant for whom the
/// Request-URI names. It costs a hash; whether the script then looks up that address, another one or none, is its own
/// affair. What Kamailio parses for it is kept with the message, and the look-up parses nothing.
#[derive(Debug)]
pub(crate) struct Fetch;

impl RequestHook for Fetch {
    const NAME: &'static CStr = c"before_script";

    fn run(request: &Message<'_>) {
        if !request.is_initial() {
            return;
        }
        let Some(locus) = state::locus() else {
            return;
        };
        let Some(uri) = request.request_uri_parts().filter(|uri| uri.is_sip) else {
            return;
        };
        state::with_mapped_worker(|worker| {
            // A subscriber wherever there can be one: scripts ask for that first, also where the user is a number.
            let aor = CanonicalAor::new(uri.user, uri.host, locus.settings.use_domain);
            if let Ok(aor) = aor {
                worker.table.prefetch(aor.as_bytes());
            } else if let Some(digits) = number(uri.user) {
                // A number alone (`tel:`). Its longest prefix is probed first; the CPU overlaps the others with that.
                worker.table.prefetch_route(digits);
            }
        });
    }
}

fn number(user: &[u8]) -> Option<Digits> {
    Digits::parse(CalledNumber::new(user)?.as_str()).ok()
}

/// After the script: maps what the agent has announced meanwhile. Two loads while that is nothing.
#[derive(Debug)]
pub(crate) struct MapAnnounced;

impl RequestHook for MapAnnounced {
    const NAME: &'static CStr = c"after_script";

    fn run(_request: &Message<'_>) {
        state::with_mapped_worker(|worker| worker.table.map_announced());
    }
}
