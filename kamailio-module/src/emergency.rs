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
        match target(&locus.emergency, uri) {
            Some(target) => send(message, target),
            None => functions::ABSENT,
        }
    }
}

/// Sends the request on when `uri` names an emergency; `None` when it does not.
pub(crate) fn answer(locus: &Locus, message: &mut Message<'_>, uri: &[u8]) -> Option<Code> {
    target(&locus.emergency, uri).map(|target| send(message, target))
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

fn send(message: &mut Message<'_>, target: &str) -> Code {
    if message.set_target(&Target::uri(target.as_bytes())).is_err() {
        counters::FAILED.increment();
        return Code::INTERNAL;
    }
    counters::EMERGENCY.increment();
    functions::FOUND
}

fn target<'s>(set: &'s EmergencySet, uri: &[u8]) -> Option<&'s str> {
    if set.is_empty() {
        return None;
    }
    if is_urn(uri) {
        return service(set, uri);
    }
    let user = Uri::parse(uri).filter(|uri| uri.is_sip)?.user;
    set.number(CalledNumber::new(user)?.as_str())
}

fn is_urn(uri: &[u8]) -> bool {
    uri.get(..4)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"urn:"))
}

fn service<'s>(set: &'s EmergencySet, urn: &[u8]) -> Option<&'s str> {
    std::str::from_utf8(urn).ok().and_then(|urn| set.urn(urn))
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
            assert!(is_urn(uri.as_bytes()));
            assert_eq!(service(&set, uri.as_bytes()), expected, "{uri}");
        }
        assert!(!is_urn(b"sip:112@example.net") && !is_urn(b"urn"));
        assert_eq!(service(&set, b"urn:service:\xff"), None);
    }
}
