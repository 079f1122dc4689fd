//! `locus_route()`: the route of a number becomes the request's destinations.
//!
//! The longest prefix is found by `locus-plugin`; this writes the gateways' URIs, with the number as the route
//! rewrites it.

use std::ffi::CStr;

use locus_ffi::{Code, Function, Message, Target, TextFunction};
use locus_plugin::{NUMBER_BYTES_MAX, Routed};
use locus_proto::{Digits, URI_BYTES_MAX};

use crate::convert::CalledNumber;
use crate::counters;
use crate::emergency;
use crate::functions;
use crate::refusal::Refusal;
use crate::state::{self, Locus};

/// q of the best target; each further one has a little less, so that a script can try them in order.
const Q_BEST: u16 = 1000;
const Q_STEP: u16 = 10;
/// Longest URI that can come out: a target's, a `+`, the number and `@`.
const GATEWAY_BYTES_MAX: usize = URI_BYTES_MAX + NUMBER_BYTES_MAX + 2;

/// `locus_route()`, of the Request-URI's user.
#[derive(Debug)]
pub(crate) struct Route;

impl Function for Route {
    const NAME: &'static CStr = c"locus_route";

    fn run(message: &mut Message<'_>) -> Code {
        let Some(locus) = state::locus() else {
            return Code::INTERNAL;
        };
        let called = match message.request_uri_parts() {
            Some(uri) if uri.is_sip => CalledNumber::new(uri.user),
            Some(_) | None => return Refusal::FAILED.count(),
        };
        route(locus, message, called)
    }
}

/// `locus_route(number)`.
#[derive(Debug)]
pub(crate) struct RouteNumber;

impl TextFunction for RouteNumber {
    const NAME: &'static CStr = c"locus_route";

    fn run(message: &mut Message<'_>, number: &[u8]) -> Code {
        let called = CalledNumber::new(number);
        state::locus().map_or(Code::INTERNAL, |locus| route(locus, message, called))
    }
}

fn route(locus: &Locus, message: &mut Message<'_>, called: Option<CalledNumber>) -> Code {
    // A name is no failure: scripts ask for a number when no subscriber has been found.
    let Some(called) = called else {
        return Code::INTERNAL;
    };
    if let Some(code) = emergency::answer_number(locus, message, &called) {
        return code;
    }
    let Ok(digits) = Digits::parse(called.as_str()) else {
        return Code::INTERNAL;
    };
    let code = state::with_worker(|worker| match Refusal::routed(worker.table.route(digits)) {
        Ok(routed) => apply(message, called.as_str(), digits, &routed),
        Err(refusal) => refusal.count(),
    });
    code.unwrap_or(Code::INTERNAL)
}

fn apply(message: &mut Message<'_>, called: &str, digits: Digits, routed: &Routed<'_>) -> Code {
    let number = routed.number.as_str();
    let plus = keeps_plus(called, digits, number);
    let mut targets = 0_u16;
    for target in routed.targets.clone() {
        let mut buffer = [0; GATEWAY_BYTES_MAX];
        let Some(uri) = target
            .ok()
            .and_then(|target| gateway(&mut buffer, target.uri, plus, number))
        else {
            counters::BRANCHES_LOST.increment();
            continue;
        };
        let q = Q_BEST.saturating_sub(Q_STEP.saturating_mul(targets));
        let target = Target {
            q: Some(q),
            ..Target::uri(uri)
        };
        let set = if targets == 0 {
            message.set_target(&target)
        } else {
            message.add_branch(&target)
        };
        match set {
            Ok(()) => targets = targets.saturating_add(1),
            Err(_) => counters::BRANCHES_LOST.increment(),
        }
    }
    if targets == 0 {
        return Refusal::FAILED.count();
    }
    counters::ROUTED.increment();
    functions::FOUND
}

/// Whether the `+` of an international number is still true of what is sent: nothing was rewritten.
fn keeps_plus(called: &str, digits: Digits, number: &str) -> bool {
    let unchanged = digits
        .iter()
        .map(|digit| digit.saturating_add(b'0'))
        .eq(number.bytes());
    called.starts_with('+') && unchanged
}

/// Writes the gateway's URI with the number as its user; a URI that has a user of its own stays as it is.
fn gateway<'b>(buffer: &'b mut [u8], uri: &str, plus: bool, number: &str) -> Option<&'b [u8]> {
    let (scheme, rest) = uri.split_once(':')?;
    let address = rest.split(['?', ';']).next().unwrap_or(rest);
    let has_user = rest.contains('@') && (address.contains('@') || !rest.starts_with(address));
    let own = [uri, "", "", "", "", ""];
    let plus = if plus { "+" } else { "" };
    let parts = if number.is_empty() || has_user {
        own
    } else {
        [scheme, ":", plus, number, "@", rest]
    };
    let mut len = 0_usize;
    for part in parts {
        let end = len.checked_add(part.len())?;
        buffer.get_mut(len..end)?.copy_from_slice(part.as_bytes());
        len = end;
    }
    buffer.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(uri: &str, plus: bool, number: &str) -> Option<String> {
        let mut buffer = [0; GATEWAY_BYTES_MAX];
        gateway(&mut buffer, uri, plus, number).map(|uri| String::from_utf8(uri.to_vec()).unwrap())
    }

    #[test]
    fn the_number_becomes_the_gateways_user() {
        for (uri, plus, number, expected) in [
            (
                "sip:gw1.example.net",
                false,
                "4930123",
                "sip:4930123@gw1.example.net",
            ),
            (
                "sip:gw1.example.net:5070;transport=tcp",
                true,
                "4930123",
                "sip:+4930123@gw1.example.net:5070;transport=tcp",
            ),
            ("sips:[2001:db8::1]", false, "1", "sips:1@[2001:db8::1]"),
            (
                "sip:own@gw1.example.net",
                false,
                "4930123",
                "sip:own@gw1.example.net",
            ),
            ("sip:gw1.example.net", false, "", "sip:gw1.example.net"),
        ] {
            assert_eq!(written(uri, plus, number).as_deref(), Some(expected));
        }
        assert_eq!(written("gw1.example.net", false, "1"), None);
        let longest = format!("sip:{}", "g".repeat(URI_BYTES_MAX - 4));
        assert!(written(&longest, true, &"9".repeat(NUMBER_BYTES_MAX)).is_some());
    }

    #[test]
    fn the_plus_stays_while_the_number_does() {
        let digits = Digits::parse("+49-30").unwrap();
        assert!(keeps_plus("+49-30", digits, "4930"));
        assert!(!keeps_plus("49-30", digits, "4930"));
        assert!(!keeps_plus("+49-30", digits, "030"));
    }
}
