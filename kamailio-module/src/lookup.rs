//! `locus_lookup()`: the contacts of an address-of-record become the request's destinations.
//!
//! What registrar's `lookup()` does with them, in the same order: first contact into the Request-URI with next hop,
//! Path, q, branch flags and sending socket; the others as branches. Which contacts, and whether this node may say
//! so, `locus-plugin` decides.

use std::ffi::CStr;

use locus_ffi::{Code, Function, Message, Target, TextFunction, Uri};
use locus_plugin::{Contacts, Query};
use locus_proto::BindingRef;

use crate::convert::{CanonicalAor, ConvertError};
use crate::counters;
use crate::emergency;
use crate::functions;
use crate::refusal::Refusal;
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
        let Some(uri) = message.request_uri() else {
            return Refusal::FAILED.count();
        };
        let parts = message.request_uri_parts();
        if let Some(target) = emergency::target(&locus.emergency, uri, parts.as_ref()) {
            return emergency::send(message, target);
        }
        let aor = canonical(locus, parts);
        aor.map_or_else(Refusal::count, |aor| look_up(locus, message, &aor))
    }
}

/// `locus_lookup(uri)`.
#[derive(Debug)]
pub(crate) struct LookupUri;

impl TextFunction for LookupUri {
    const NAME: &'static CStr = c"locus_lookup";

    fn run(message: &mut Message<'_>, uri: &[u8]) -> Code {
        let Some(locus) = state::locus() else {
            return Code::INTERNAL;
        };
        let parts = Uri::parse(uri);
        if let Some(target) = emergency::target(&locus.emergency, uri, parts.as_ref()) {
            return emergency::send(message, target);
        }
        let aor = canonical(locus, parts);
        aor.map_or_else(Refusal::count, |aor| look_up(locus, message, &aor))
    }
}

/// Returns who is looked up.
fn canonical(locus: &Locus, uri: Option<Uri<'_>>) -> Result<CanonicalAor, Refusal> {
    let uri = uri.filter(|uri| uri.is_sip).ok_or(Refusal::FAILED)?;
    CanonicalAor::new(uri.user, uri.host, locus.settings.use_domain).map_err(|error| match error {
        // No such address can have been stored.
        ConvertError::Nobody => Refusal::ABSENT,
        ConvertError::Escape => Refusal::FAILED,
    })
}

fn look_up(locus: &Locus, message: &mut Message<'_>, aor: &CanonicalAor) -> Code {
    // Within a dialog the other side's abilities are known; as registrar does.
    let method = (!message.has_to_tag()).then(|| message.method());
    let query = Query {
        aor: aor.as_bytes(),
        method,
    };
    let code = state::with_worker(
        |worker| match Refusal::contacts(worker.table.lookup(query)) {
            Ok(contacts) => apply(locus, message, &contacts),
            Err(refusal) => refusal.count(),
        },
    );
    code.unwrap_or(Code::INTERNAL)
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
        return Refusal::FAILED.count();
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
