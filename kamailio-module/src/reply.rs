//! What a REGISTER is answered with: status, Contact list and the headers that go with a refusal.
//!
//! It knows replies and bindings; it sends nothing. The texts follow registrar's, so that existing scripts and
//! traces read the same.

use std::ffi::CStr;
use std::fmt::Write;

use locus_ffi::RegisterFault;
use locus_proto::{Binding, MasterTime, Refusal};

/// Expiry shown for a binding that never expires: there is one whenever the user agent asks again.
const PERMANENT_EXPIRES_S: u32 = 86_400;
/// Shortest and longest Retry-After: random, so that refused phones do not come back together.
const RETRY_AFTER_S: (u32, u32) = (5, 30);

/// A reply that is ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Status code.
    pub(crate) code: u16,
    /// Reason phrase.
    pub(crate) reason: &'static CStr,
    /// Complete header lines.
    pub(crate) headers: String,
}

impl Reply {
    /// Returns the 200 that lists `bindings`, and the Path when the user agent can read it (RFC 3327 §5.3).
    pub(crate) fn accepted(bindings: &[Binding], now: MasterTime, path: Option<&str>) -> Self {
        let mut headers = String::new();
        for binding in bindings.iter().filter(|binding| is_listed(binding, now)) {
            headers.push_str(if headers.is_empty() {
                "Contact: "
            } else {
                ", "
            });
            contact(&mut headers, binding, now);
        }
        if !headers.is_empty() {
            headers.push_str("\r\n");
        }
        if let Some(path) = path.filter(|path| !path.is_empty() && is_plain(path)) {
            line(&mut headers, "Path", path);
        }
        Self {
            code: 200,
            reason: c"OK",
            headers,
        }
    }

    /// Returns the refusal of a request that is itself at fault.
    pub(crate) fn faulty(fault: RegisterFault) -> Self {
        if fault == RegisterFault::Outbound {
            let headers = "Unsupported: outbound\r\n".to_owned();
            return Self {
                code: 420,
                reason: c"Bad Extension",
                headers,
            };
        }
        Self::bad_request(&fault.to_string())
    }

    /// Returns a 400 that says what is wrong.
    pub(crate) fn bad_request(what: &str) -> Self {
        Self::refused(400, c"Bad Request", what)
    }

    /// Returns what the location service's refusal looks like to a user agent.
    pub(crate) fn refusal(refusal: Refusal, chance: u32) -> Self {
        match refusal {
            Refusal::OldCseq => Self::bad_request("Invalid CSeq number"),
            Refusal::Malformed => Self::bad_request("Malformed or oversized contact"),
            Refusal::TooBrief(seconds) => {
                let mut reply = Self::refused(423, c"Interval Too Brief", "Interval too brief");
                line(&mut reply.headers, "Min-Expires", seconds);
                reply
            }
            // Not registrar's 503: behind one address a 503 would take the whole cluster out of use.
            Refusal::TooMany => Self::refused(403, c"Forbidden", "Too many registered contacts"),
            Refusal::Unavailable => Self::unavailable(chance),
        }
    }

    /// Returns a 500 with a random Retry-After; `chance` is any number.
    pub(crate) fn unavailable(chance: u32) -> Self {
        let mut reply = Self::refused(
            500,
            c"Server Internal Error",
            "Location service unavailable",
        );
        line(&mut reply.headers, "Retry-After", retry_after_s(chance));
        reply
    }

    fn refused(code: u16, reason: &'static CStr, what: &str) -> Self {
        let mut headers = String::new();
        line(&mut headers, "P-Registrar-Error", what);
        Self {
            code,
            reason,
            headers,
        }
    }
}

/// Returns seconds within [`RETRY_AFTER_S`].
fn retry_after_s(chance: u32) -> u32 {
    let (least, most) = RETRY_AFTER_S;
    let span = most.saturating_sub(least).saturating_add(1);
    least.saturating_add(chance.checked_rem(span).unwrap_or(0))
}

fn is_listed(binding: &Binding, now: MasterTime) -> bool {
    let alive = binding.expires == MasterTime::NEVER || binding.expires > now;
    // A URI that would end the header or its angle brackets names nobody and is not repeated.
    alive && is_plain(&binding.uri) && !binding.uri.contains(['<', '>', '"'])
}

/// Whether a text can stand in a header line.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn contact(out: &mut String, binding: &Binding, now: MasterTime) {
    let expires = if binding.expires == MasterTime::NEVER {
        PERMANENT_EXPIRES_S
    } else {
        binding.expires.seconds_from(now)
    };
    write(out, format_args!("<{}>", binding.uri));
    if binding.q.thousandths().is_some() {
        write(out, format_args!(";q={}", binding.q));
    }
    write(out, format_args!(";expires={expires}"));
    if !binding.instance.is_empty()
        && is_plain(&binding.instance)
        && !binding.instance.contains('"')
    {
        write(out, format_args!(";+sip.instance=\"{}\"", binding.instance));
    }
    if binding.reg_id > 0 {
        write(out, format_args!(";reg-id={}", binding.reg_id));
    }
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    write(out, format_args!("{name}: {value}\r\n"));
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MasterTime = MasterTime(1_000_000);

    fn binding(uri: &str, seconds: u64) -> Binding {
        Binding {
            expires: NOW.plus_ms(seconds * 1000),
            granted_s: 3600,
            ..Binding::permanent(uri)
        }
    }

    #[test]
    fn the_contact_list_reads_as_registrars() {
        let first = Binding {
            q: "0.5".parse().unwrap(),
            instance: "<urn:uuid:1>".to_owned(),
            reg_id: 2,
            ..binding("sip:alice@192.0.2.1:5060", 60)
        };
        let reply = Reply::accepted(
            &[
                first,
                binding("sip:gone@192.0.2.2", 0),
                Binding::permanent("sip:desk@192.0.2.3"),
            ],
            NOW,
            Some("<sip:edge.example.net;lr>"),
        );
        assert_eq!(
            (reply.code, reply.headers.as_str()),
            (
                200,
                "Contact: <sip:alice@192.0.2.1:5060>;q=0.5;expires=60;+sip.instance=\"<urn:uuid:1>\";reg-id=2, \
                 <sip:desk@192.0.2.3>;expires=86400\r\nPath: <sip:edge.example.net;lr>\r\n"
            )
        );
        assert_eq!(Reply::accepted(&[], NOW, None).headers, "");
    }

    #[test]
    fn nothing_stored_can_forge_a_header() {
        let forged = [
            binding("sip:a@x>\r\nX-Forged: 1\r\nY: <sip:b@x", 60),
            Binding {
                instance: "\"\r\nX-Forged: 1".to_owned(),
                ..binding("sip:c@x", 60)
            },
        ];
        let reply = Reply::accepted(&forged, NOW, Some("<sip:p;lr>\r\nX-Forged: 1"));
        assert_eq!(reply.headers, "Contact: <sip:c@x>;expires=60\r\n");
    }

    #[test]
    fn refusals_have_their_codes_and_never_503() {
        for (refusal, code, header) in [
            (
                Refusal::OldCseq,
                400,
                "P-Registrar-Error: Invalid CSeq number",
            ),
            (Refusal::Malformed, 400, "P-Registrar-Error: "),
            (Refusal::TooBrief(60), 423, "Min-Expires: 60"),
            (Refusal::TooMany, 403, "P-Registrar-Error: Too many"),
            (Refusal::Unavailable, 500, "Retry-After: "),
        ] {
            let reply = Reply::refusal(refusal, 7);
            assert_eq!(reply.code, code, "{refusal:?}");
            assert!(
                reply.headers.contains(header) && reply.headers.ends_with("\r\n"),
                "{reply:?}"
            );
        }
        assert_eq!(Reply::faulty(RegisterFault::Outbound).code, 420);
        assert_eq!(Reply::faulty(RegisterFault::StarMixed).code, 400);
        let all: std::collections::BTreeSet<u32> = (0..1000).map(retry_after_s).collect();
        assert_eq!(
            (all.first(), all.last(), all.len()),
            (Some(&5), Some(&30), 26)
        );
    }
}
