//! `locus_save()`: a REGISTER becomes a registration, the agent's answer becomes the reply.
//!
//! It decides nothing about bindings: the location service merges, the agent answers, this carries both ways.

use locus_ffi::{
    BRANCH_PATH_BYTES_MAX, Code, Function, LogLevel, Message, Register, Uri, log, random,
};
use locus_proto::{
    AddressOfRecord, Asked, ContactChange, FIELD_BYTES_MAX, Methods, NodeId, Owner, Q, Refusal,
    Registration, RegistrationReply, URI_BYTES_MAX,
};

use crate::convert::CanonicalAor;
use crate::counters;
use crate::functions;
use crate::reply::Reply;
use crate::state::{self, Locus};

/// The script function.
#[derive(Debug)]
pub(crate) struct Save;

impl Function for Save {
    const NAME: &'static std::ffi::CStr = c"locus_save";

    fn run(message: &mut Message<'_>) -> Code {
        let Some(locus) = state::locus().filter(|_| message.is_request()) else {
            return Code::INTERNAL;
        };
        let Some((reply, code)) = answer(locus, message) else {
            return Code::INTERNAL;
        };
        match code {
            functions::SAVED => counters::SAVED.increment(),
            functions::UNAVAILABLE => counters::SAVES_UNAVAILABLE.increment(),
            _ => counters::SAVES_REFUSED.increment(),
        }
        match message.reply(reply.code, reply.reason, reply.headers.as_bytes()) {
            Ok(()) => code,
            // sl has logged why; a binding that was saved stays saved, and the user agent will ask again.
            Err(_) => Code::INTERNAL,
        }
    }
}

/// Returns the reply to a REGISTER and what the script gets; `None` for a bug, which is answered by the script.
fn answer(locus: &Locus, message: &Message<'_>) -> Option<(Reply, Code)> {
    let register = match message.register() {
        Ok(register) => register,
        Err(fault) => return Some((Reply::faulty(fault), functions::REFUSED)),
    };
    let supports_path = register.supports_path();
    let is_received = locus
        .settings
        .received_flag
        .is_some_and(|flag| message.flag_is_set(flag));
    let registration = match registration(locus, &register, is_received) {
        Ok(registration) => registration,
        Err(what) => return Some((Reply::bad_request(what), functions::REFUSED)),
    };
    let path = registration.path.clone();
    let asked = state::with_worker(|worker| {
        worker.forwarder.ask(
            &locus.settings.agent_socket,
            registration,
            locus.settings.save_timeout_ms,
        )
    });
    Some(match asked? {
        Ok(RegistrationReply::Accepted {
            now,
            bindings,
            durable,
            ..
        }) => {
            if !durable {
                counters::SAVES_NOT_DURABLE.increment();
            }
            let path = supports_path.then_some(path.as_str());
            (Reply::accepted(&bindings, now, path), functions::SAVED)
        }
        Ok(RegistrationReply::Refused(Refusal::Unavailable)) => {
            (Reply::unavailable(random()), functions::UNAVAILABLE)
        }
        Ok(RegistrationReply::Refused(refusal)) => {
            (Reply::refusal(refusal, random()), functions::REFUSED)
        }
        Err(error) => {
            // One line per REGISTER would drown the log while the agent is away: the counter tells.
            log(
                LogLevel::Debug,
                format_args!("registration not forwarded: {error}"),
            );
            (Reply::unavailable(random()), functions::UNAVAILABLE)
        }
    })
}

/// Turns a REGISTER into what crosses to the agent; the error says what is wrong with it, as registrar does.
fn registration(
    locus: &Locus,
    register: &Register<'_>,
    is_received: bool,
) -> Result<Registration, &'static str> {
    let to = Uri::parse(register.to_uri())
        .filter(|uri| uri.is_sip)
        .ok_or("Error while parsing AOR")?;
    if to.user.is_empty() {
        return Err("No username in To URI");
    }
    let aor = CanonicalAor::new(to.user, to.host, locus.settings.use_domain)
        .ok()
        .and_then(|aor| AddressOfRecord::parse(aor.as_str()).ok())
        .ok_or("Error while parsing AOR")?;
    let received = if is_received { register.source() } else { &[] };
    Ok(Registration {
        aor,
        call_id: field(register.call_id())
            .filter(|id| !id.is_empty())
            .ok_or("Callid too long")?,
        cseq: register.cseq(),
        path: path(register)?,
        received: field(received).ok_or("Contact/received too long")?,
        socket: field(register.socket()).unwrap_or_default(),
        owner: owner(locus, register),
        // What a phone calls itself is worth keeping, not worth a refusal.
        user_agent: field(register.user_agent()).unwrap_or_default(),
        flags: register.branch_flags(),
        asked: asked(register)?,
    })
}

fn asked(register: &Register<'_>) -> Result<Asked, &'static str> {
    if register.is_star() {
        return Ok(Asked::RemoveAll);
    }
    let mut contacts = Vec::new();
    for contact in register.contacts() {
        contacts.push(ContactChange {
            uri: contact_uri(contact.uri())?,
            q: contact
                .q()
                .map_or(Some(Q::NONE), Q::from_thousandths)
                .ok_or("Invalid q param in contact")?,
            expires_s: contact.expires(),
            instance: field(contact.instance()).ok_or("Contact/received too long")?,
            reg_id: u16::try_from(contact.reg_id()).map_err(|_| "Invalid Reg-Id number")?,
            methods: Methods(contact.methods()),
        });
    }
    if contacts.len() > locus_proto::CONTACTS_MAX {
        return Err("Too many contacts in one request");
    }
    Ok(if contacts.is_empty() {
        Asked::Fetch
    } else {
        Asked::Update(contacts)
    })
}

/// Returns a contact that can be called: what else would be stored would fail at each call.
fn contact_uri(uri: &[u8]) -> Result<String, &'static str> {
    let is_reachable = |uri: Uri<'_>| uri.is_sip && !uri.host.is_empty();
    if !Uri::parse(uri).is_some_and(is_reachable) {
        return Err("Contact parse error");
    }
    text(uri, URI_BYTES_MAX).ok_or("Contact/received too long")
}

/// Who accepts the binding. A datagram's socket is shared by all nodes; a connection is this life's alone.
fn owner(locus: &Locus, register: &Register<'_>) -> Owner {
    let connection = register
        .tcp_connection()
        .and_then(|id| u32::try_from(id).ok())
        .unwrap_or(0);
    let node = state::with_worker(|worker| worker.table.pulse())
        .flatten()
        .map_or(NodeId(0), |pulse| pulse.node);
    Owner {
        node,
        boot: locus.boot,
        connection,
    }
}

/// Joins the Path headers to one, as registrar does; no longer than a branch can carry.
fn path(register: &Register<'_>) -> Result<String, &'static str> {
    let mut joined = String::new();
    for path in register.paths() {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&text(path, BRANCH_PATH_BYTES_MAX).ok_or("Path parse error")?);
    }
    if joined.len() > BRANCH_PATH_BYTES_MAX {
        Err("Path parse error")
    } else {
        Ok(joined)
    }
}

/// Returns a text that a record can hold; `None` when it is too long, no UTF-8 or has control characters.
fn text(bytes: &[u8], bytes_max: usize) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (text.len() <= bytes_max && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// As [`text`], for the fields that are no URI.
fn field(bytes: &[u8]) -> Option<String> {
    text(bytes, FIELD_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_record_can_hold_is_forwarded() {
        assert_eq!(field(b"Phone/1.0").as_deref(), Some("Phone/1.0"));
        assert_eq!(field(b"").as_deref(), Some(""));
        assert_eq!(field(&[b'x'; FIELD_BYTES_MAX + 1]), None);
        assert_eq!(field(b"a\r\n b"), None);
        assert_eq!(field(&[0xff]), None);
    }
}
