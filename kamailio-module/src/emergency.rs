//! Emergency calls: answered from the local file, before and without the table (rules 4.7).
//!
//! It knows which URI names an emergency; it never refuses anything.

use std::ffi::CStr;

use locus_ffi::{Code, Function, Message, Target, Uri};
use locus_plugin::EmergencySet;

use crate::convert::CalledNumber;
use crate::counters;
use crate::functions;
use crate::state::{self, Locus};

/// `locus_emergency()`.
#[derive(Debug)]
pub(crate) struct Emergency;

impl Function for Emergency {
    const NAME: &'static CStr = c"locus_emergency";

    fn run(message: &mut Message<'_>) -> Code {
        let Some(locus) = state::locus() else {
            return Code::INTERNAL;
        };
        let Some(uri) = message.request_uri() else {
            return Code::INTERNAL;
        };
        let parts = message.request_uri_parts();
        match target(&locus.emergency, uri, parts.as_ref()) {
            Some(target) => send(message, target),
            None => functions::ABSENT,
        }
    }
}

/// Returns where `uri` goes when it names an emergency; `parts` are its own, `None` when it cannot be taken apart.
pub(crate) fn target<'s>(
    set: &'s EmergencySet,
    uri: &[u8],
    parts: Option<&Uri<'_>>,
) -> Option<&'s str> {
    if set.is_empty() {
        return None;
    }
    match parts {
        Some(parts) if parts.is_sip => set.number(CalledNumber::new(parts.user)?.as_str()),
        Some(_) | None => service(set, uri),
    }
}

/// Sends the request on when `number` is an emergency number.
pub(crate) fn answer_number(
    locus: &Locus,
    message: &mut Message<'_>,
    number: &CalledNumber,
) -> Option<Code> {
    locus
        .emergency
        .number(number.as_str())
        .map(|target| send(message, target))
}

/// Sends the request on.
pub(crate) fn send(message: &mut Message<'_>, target: &str) -> Code {
    if message.set_target(&Target::uri(target.as_bytes())).is_err() {
        counters::FAILED.increment();
        return Code::INTERNAL;
    }
    counters::EMERGENCY.increment();
    functions::FOUND
}

fn is_urn(uri: &[u8]) -> bool {
    uri.get(..4)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"urn:"))
}

fn service<'s>(set: &'s EmergencySet, uri: &[u8]) -> Option<&'s str> {
    if !is_urn(uri) {
        return None;
    }
    std::str::from_utf8(uri).ok().and_then(|urn| set.urn(urn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_their_urn() {
        let set = EmergencySet::parse("urn:service:sos sip:sos@psap\n").unwrap();
        for (uri, expected) in [
            ("urn:service:sos.fire", Some("sip:sos@psap")),
            ("URN:service:SOS", Some("sip:sos@psap")),
            ("urn:service:counseling", None),
        ] {
            assert_eq!(service(&set, uri.as_bytes()), expected, "{uri}");
        }
        for other in ["sip:112@example.net", "urn", "urn:", ""] {
            assert_eq!(service(&set, other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn numbers_are_found_by_the_parts_and_services_without() {
        let set = EmergencySet::parse("112 sip:112@psap\nurn:service:sos sip:sos@psap\n").unwrap();
        let parts = |user: &'static [u8], is_sip| Uri {
            user,
            host: b"example.net",
            port: 0,
            is_sip,
        };
        let urn = &b"urn:service:sos"[..];
        let of = |uri, parts: Option<Uri<'_>>| target(&set, uri, parts.as_ref());
        assert_eq!(
            of(b"sip:112@example.net", Some(parts(b"112", true))),
            Some("sip:112@psap")
        );
        assert_eq!(
            of(b"sip:1-12@example.net", Some(parts(b"1-12", true))),
            Some("sip:112@psap")
        );
        assert_eq!(
            of(b"sip:alice@example.net", Some(parts(b"alice", true))),
            None
        );
        assert_eq!(of(urn, Some(parts(b"", false))), Some("sip:sos@psap"));
        assert_eq!(of(urn, None), Some("sip:sos@psap"));
        assert_eq!(of(b"sip:112@exa mple.net", None), None);
        assert_eq!(target(&EmergencySet::default(), urn, None), None);
        assert_eq!(service(&set, b"urn:service:\xff"), None);
    }
}
