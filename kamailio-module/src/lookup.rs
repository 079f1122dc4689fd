//! `locus_lookup()`: the contacts of an address-of-record become the request's destinations.
//!
//! What registrar's `lookup()` does with them, in the same order: first contact into the Request-URI with next hop,
//! Path, q, branch flags and sending socket; the others as branches. Which contacts, and whether this node may say
//! so, `locus-plugin` decides.

use std::ffi::CStr;

use locus_ffi::{Code, Function, LogLevel, Message, Target, TextFunction, Uri, log};
use locus_plugin::{Answer, Contacts, Query, Unready};
use locus_proto::BindingRef;

use crate::convert::{CanonicalAor, ConvertError};
use crate::counters;
use crate::emergency;
use crate::functions;
use crate::state::{self, Locus};

/// `locus_lookup()`, of the Request-URI.
#[derive(Debug)]
pub(crate) struct Lookup;

impl Function for Lookup {
    const NAME: &'static CStr = c"locus_lookup";

    fn run(message: &mut Message<'_>) -> Code {
        let Some(locus) = state::locus() else {
            return Code::INTERNAL;
        };
        // Copied to the stack: the answer replaces it.
        let mut buffer = [0; locus_ffi::TEXT_MAX];
        let Some(uri) = message.copy_request_uri(&mut buffer) else {
            return failed();
        };
        lookup(locus, message, uri)
    }
}

/// `locus_lookup(uri)`.
#[derive(Debug)]
pub(crate) struct LookupUri;

impl TextFunction for LookupUri {
    const NAME: &'static CStr = c"locus_lookup";

    fn run(message: &mut Message<'_>, uri: &[u8]) -> Code {
        state::locus().map_or(Code::INTERNAL, |locus| lookup(locus, message, uri))
    }
}

fn lookup(locus: &Locus, message: &mut Message<'_>, uri: &[u8]) -> Code {
    if let Some(code) = emergency::answer(locus, message, uri) {
        return code;
    }
    let Some(uri) = Uri::parse(uri).filter(|uri| uri.is_sip) else {
        return failed();
    };
    let aor = match CanonicalAor::new(uri.user, uri.host, locus.settings.use_domain) {
        Ok(aor) => aor,
        // No such address can have been stored.
        Err(ConvertError::Nobody) => return absent(functions::ABSENT),
        Err(ConvertError::Escape) => return failed(),
    };
    // Within a dialog the other side's abilities are known; as registrar does.
    let method = (!message.has_to_tag()).then(|| message.method());
    let query = Query {
        aor: aor.as_str().as_bytes(),
        method,
    };
    let code = state::with_worker(|worker| match worker.table.lookup(query) {
        Answer::Found(contacts) => apply(locus, message, &contacts),
        Answer::Absent => absent(functions::ABSENT),
        Answer::MethodNotSupported => absent(functions::NO_METHOD),
        Answer::Unavailable(unready) => unavailable(unready),
    });
    code.unwrap_or(Code::INTERNAL)
}

/// Counts and returns the answer of a node that cannot say.
pub(crate) fn unavailable(unready: Unready) -> Code {
    if unready == Unready::Record {
        // The table answers, this record does not: another node has the same one.
        log(LogLevel::Debug, format_args!("{unready}"));
        return failed();
    }
    counters::UNAVAILABLE.increment();
    functions::UNAVAILABLE
}

/// Counts and returns the answer to what is malformed.
pub(crate) fn failed() -> Code {
    counters::FAILED.increment();
    Code::INTERNAL
}

fn absent(code: Code) -> Code {
    counters::ABSENT.increment();
    code
}

fn apply(locus: &Locus, message: &mut Message<'_>, contacts: &Contacts<'_>) -> Code {
    let mut bindings = contacts.iter().map(|binding| target(locus, &binding));
    // A contact that Kamailio does not accept must not hide the others.
    let is_set = bindings.by_ref().any(|target| {
        let is_set = message.set_target(&target).is_ok();
        if !is_set {
            counters::BRANCHES_LOST.increment();
        }
        is_set
    });
    if !is_set {
        return failed();
    }
    if locus.settings.append_branches {
        for target in bindings {
            if message.add_branch(&target).is_err() {
                counters::BRANCHES_LOST.increment();
            }
        }
    }
    counters::FOUND.increment();
    if contacts.is_proxy_only() {
        functions::PROXY_ONLY
    } else {
        functions::FOUND
    }
}

fn target<'b>(locus: &Locus, binding: &BindingRef<'b>) -> Target<'b> {
    // The edge proxy that put itself into the Path knows how to get through to the contact.
    let received = if binding.path.is_empty() {
        binding.received
    } else {
        ""
    };
    let nat_bflags = if received.is_empty() {
        0
    } else {
        locus.settings.nat_bflags
    };
    // A connection is one of this life of this server, or means nothing here.
    let is_ours = binding.owner.connection != 0 && binding.owner.boot == locus.boot;
    Target {
        uri: binding.uri.as_bytes(),
        received: received.as_bytes(),
        path: binding.path.as_bytes(),
        instance: binding.instance.as_bytes(),
        socket: binding.socket.as_bytes(),
        user_agent: binding.user_agent.as_bytes(),
        reg_id: u32::from(binding.reg_id),
        q: binding.q.thousandths(),
        flags: binding.flags | nat_bflags,
        tcp_connection: i32::try_from(binding.owner.connection)
            .ok()
            .filter(|_| is_ours),
    }
}
