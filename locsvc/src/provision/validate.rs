//! What a record may hold: lengths, characters, counts. It changes nothing and repairs nothing.

use locus_proto::{
    Asked, BINDINGS_MAX, DIGITS_MAX, Digits, FIELD_BYTES_MAX, ParseDigitsError, Registration,
    Route, TARGETS_MAX, URI_BYTES_MAX,
};

use super::request::ProvisionContact;

/// Longest expiry that may be provisioned, in seconds: ten years; permanent contacts have none.
pub const EXPIRES_S_MAX: u32 = 10 * 366 * 24 * 3600;

/// Why a record cannot be kept. Whoever sent it has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A field above its limit.
    #[error("{field} has {len} bytes, at most {max} are kept")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A field that must be given.
    #[error("{0} cannot be empty")]
    Empty(&'static str),
    /// A character that could break a SIP message in which the field is sent.
    #[error("{field} cannot hold {character:?}")]
    Character {
        /// The field.
        field: &'static str,
        /// The first such character.
        character: char,
    },
    /// Not a `sip:` or `sips:` URI with a host.
    #[error("{0} has to be a sip: or sips: URI with a host")]
    Uri(&'static str),
    /// No contact, or too many.
    #[error(
        "an address-of-record has 1 to {BINDINGS_MAX} contacts, not {0}; delete it to have none"
    )]
    ContactCount(usize),
    /// Two contacts that RFC 3261 §10.3 takes for the same binding.
    #[error("contact {0} stands twice")]
    Duplicate(String),
    /// An expiry of zero, or beyond [`EXPIRES_S_MAX`].
    #[error(
        "an expiry is 1 to {EXPIRES_S_MAX} seconds, not {0}; leave it out for a permanent contact"
    )]
    Expiry(u32),
    /// `reg-id` without `+sip.instance` (RFC 5626 §4.2: it has no meaning alone).
    #[error("reg_id needs an instance")]
    RegId,
    /// No target, or too many.
    #[error("a route has 1 to {TARGETS_MAX} targets, not {0}; delete it to have none")]
    TargetCount(usize),
    /// Targets of a route are kept by priority.
    #[error("targets stand in order of priority, the lowest first")]
    TargetOrder,
    /// The digits put before a number.
    #[error("the prefix that a route puts before a number: {0}")]
    Prefix(#[from] ParseDigitsError),
    /// More digits stripped than a number has.
    #[error("at most {DIGITS_MAX} digits can be stripped, not {0}")]
    Strip(u8),
}

/// Checks the contacts of an address-of-record as an operator wrote them.
///
/// # Errors
/// [`InvalidRecord`] for the first that cannot be kept.
pub(super) fn contacts(contacts: &[ProvisionContact]) -> Result<(), InvalidRecord> {
    if contacts.is_empty() || contacts.len() > BINDINGS_MAX {
        return Err(InvalidRecord::ContactCount(contacts.len()));
    }
    for (at, contact) in contacts.iter().enumerate() {
        uri("uri", &contact.uri)?;
        text("path", &contact.path, URI_BYTES_MAX)?;
        optional_uri("received", &contact.received)?;
        instance(&contact.instance, contact.reg_id)?;
        if let Some(expires_s) = contact.expires_s
            && !(1..=EXPIRES_S_MAX).contains(&expires_s)
        {
            return Err(InvalidRecord::Expiry(expires_s));
        }
        let same = |earlier: &ProvisionContact| same_uri(&earlier.uri, &contact.uri);
        if contacts[..at].iter().any(same) {
            return Err(InvalidRecord::Duplicate(contact.uri.clone()));
        }
    }
    Ok(())
}

/// Checks a route as an operator wrote it.
///
/// # Errors
/// [`InvalidRecord`].
pub(super) fn route(route: &Route) -> Result<(), InvalidRecord> {
    if route.targets.is_empty() || route.targets.len() > TARGETS_MAX {
        return Err(InvalidRecord::TargetCount(route.targets.len()));
    }
    if usize::from(route.strip) > DIGITS_MAX {
        return Err(InvalidRecord::Strip(route.strip));
    }
    if !route.prefix.is_empty() {
        Digits::parse(&route.prefix)?;
        if let Some(character) = route.prefix.chars().find(|c| !c.is_ascii_digit()) {
            let field = "prefix";
            return Err(InvalidRecord::Character { field, character });
        }
    }
    if !route.targets.is_sorted_by_key(|target| target.priority) {
        return Err(InvalidRecord::TargetOrder);
    }
    route
        .targets
        .iter()
        .try_for_each(|target| uri("target", &target.uri))
}

/// Checks a registration as a node sent it; its address was checked when it was decoded.
///
/// # Errors
/// [`InvalidRecord`] for the first field that cannot be kept.
pub(super) fn registration(registration: &Registration) -> Result<(), InvalidRecord> {
    let Registration {
        call_id,
        path,
        received,
        socket,
        user_agent,
        asked,
        ..
    } = registration;
    if call_id.is_empty() {
        return Err(InvalidRecord::Empty("call-id"));
    }
    no_space("call-id", call_id, FIELD_BYTES_MAX)?;
    text("path", path, URI_BYTES_MAX)?;
    optional_uri("received", received)?;
    no_space("socket", socket, FIELD_BYTES_MAX)?;
    text("user agent", user_agent, FIELD_BYTES_MAX)?;
    match asked {
        Asked::Fetch | Asked::RemoveAll => Ok(()),
        Asked::Update(contacts) => {
            if contacts.is_empty() || contacts.len() > BINDINGS_MAX {
                return Err(InvalidRecord::ContactCount(contacts.len()));
            }
            contacts.iter().try_for_each(|contact| {
                uri("uri", &contact.uri)?;
                instance(&contact.instance, contact.reg_id)
            })
        }
    }
}

fn instance(value: &str, reg_id: u16) -> Result<(), InvalidRecord> {
    text("instance", value, FIELD_BYTES_MAX)?;
    if let Some(character) = value.chars().find(|c| *c == '"') {
        let field = "instance";
        return Err(InvalidRecord::Character { field, character });
    }
    if reg_id != 0 && value.is_empty() {
        return Err(InvalidRecord::RegId);
    }
    Ok(())
}

fn optional_uri(field: &'static str, value: &str) -> Result<(), InvalidRecord> {
    if value.is_empty() {
        return Ok(());
    }
    uri(field, value)?;
    short(field, value, FIELD_BYTES_MAX)
}

/// A SIP URI that can stand between `<` and `>` in a header.
fn uri(field: &'static str, value: &str) -> Result<(), InvalidRecord> {
    if value.is_empty() {
        return Err(InvalidRecord::Empty(field));
    }
    short(field, value, URI_BYTES_MAX)?;
    let forbidden = |c: &char| !c.is_ascii_graphic() || matches!(c, '<' | '>' | '"' | '\\');
    if let Some(character) = value.chars().find(forbidden) {
        return Err(InvalidRecord::Character { field, character });
    }
    let parts = UriParts::of(value).ok_or(InvalidRecord::Uri(field))?;
    let is_sip = ["sip", "sips"]
        .iter()
        .any(|scheme| parts.scheme.eq_ignore_ascii_case(scheme));
    let host_char = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let host_fits = parts.host.chars().all(host_char) && !parts.host.starts_with(':');
    if is_sip && !parts.host.is_empty() && host_fits {
        Ok(())
    } else {
        Err(InvalidRecord::Uri(field))
    }
}

fn short(field: &'static str, value: &str, max: usize) -> Result<(), InvalidRecord> {
    let len = value.len();
    if len > max {
        Err(InvalidRecord::TooLong { field, len, max })
    } else {
        Ok(())
    }
}

/// Text of a header: anything but control characters, which could begin another header.
fn text(field: &'static str, value: &str, max: usize) -> Result<(), InvalidRecord> {
    short(field, value, max)?;
    match value.chars().find(|c| c.is_control()) {
        Some(character) => Err(InvalidRecord::Character { field, character }),
        None => Ok(()),
    }
}

fn no_space(field: &'static str, value: &str, max: usize) -> Result<(), InvalidRecord> {
    text(field, value, max)?;
    match value.chars().find(|c| c.is_whitespace()) {
        Some(character) => Err(InvalidRecord::Character { field, character }),
        None => Ok(()),
    }
}

/// A URI cut where its case ceases to matter.
struct UriParts<'a> {
    scheme: &'a str,
    /// With its `@`, or empty.
    user: &'a str,
    /// With its port.
    host: &'a str,
    /// Parameters and headers, with the character that begins them.
    rest: &'a str,
}

impl<'a> UriParts<'a> {
    fn of(uri: &'a str) -> Option<Self> {
        let (scheme, after) = uri.split_once(':')?;
        // A user part may hold `;` and `?`; parameters and headers hold no `@` (RFC 3261 §25.1).
        let (user, after) = after.split_at(after.rfind('@').map_or(0, |at| at + 1));
        let (host, rest) = after.split_at(after.find([';', '?']).unwrap_or(after.len()));
        Some(Self {
            scheme,
            user,
            host,
            rest,
        })
    }
}

/// Returns whether two contact URIs name one binding: equal but for the case of scheme and host.
///
/// RFC 3261 §19.1.4 in its byte-exact part: nodes and the master have to agree, and phones repeat the
/// URI that they registered.
pub(super) fn same_uri(a: &str, b: &str) -> bool {
    match (UriParts::of(a), UriParts::of(b)) {
        (Some(a), Some(b)) => {
            a.scheme.eq_ignore_ascii_case(b.scheme)
                && a.user == b.user
                && a.host.eq_ignore_ascii_case(b.host)
                && a.rest == b.rest
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_proto::Target;

    #[test]
    fn uris_that_are_kept() {
        for value in [
            "sip:alice@example.net",
            "SIPS:alice:pw@Example.NET:5061;transport=tcp",
            "sip:10.0.0.1",
            "sip:a;b?c@[2001:db8::1]:5060;x=y?h=v",
            "sip:+4930@gw-1.example.net;ob",
        ] {
            assert_eq!(uri("uri", value), Ok(()), "{value}");
        }
    }

    #[test]
    fn uris_that_are_refused() {
        let long = format!("sip:{}@x", "a".repeat(URI_BYTES_MAX));
        for value in [
            "",
            "alice@example.net",
            "tel:+4930",
            "http://x",
            "sip:",
            "sip:alice@",
            "sip:@",
            "sip::5060",
            "sip:alice@ex ample",
            "sip:alice@example.net\r\nX: y",
            "sip:al\0ice@x",
            "<sip:alice@x>",
            "sip:alice@x>",
            "sip:älice@x",
            "sip:\"a\"@x",
            "sip:a@h/x",
            &long,
        ] {
            assert!(uri("uri", value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn case_counts_in_the_user_part_only() {
        assert!(same_uri("sip:a@X.net;t=1", "SIP:a@x.NET;t=1"));
        for (a, b) in [
            ("sip:a@x", "sip:A@x"),
            ("sip:a@x", "sips:a@x"),
            ("sip:a@x", "sip:a@x:5060"),
            ("sip:a@x;t=1", "sip:a@x;T=1"),
            ("sip:a@x", "sip:a@y"),
        ] {
            assert!(!same_uri(a, b), "{a} {b}");
        }
    }

    #[test]
    fn provisioned_contacts_that_are_refused() {
        type Spoil = fn(&mut ProvisionContact);
        let table: [(&str, Spoil); 8] = [
            ("uri", |c| c.uri = "sip:a b@x".into()),
            ("path", |c| c.path = "<sip:p>\r\nEvil: 1".into()),
            ("path length", |c| c.path = "p".repeat(URI_BYTES_MAX + 1)),
            ("received", |c| c.received = "10.0.0.1".into()),
            ("received length", |c| {
                c.received = format!("sip:{}", "h".repeat(FIELD_BYTES_MAX))
            }),
            ("expiry zero", |c| c.expires_s = Some(0)),
            ("expiry", |c| c.expires_s = Some(EXPIRES_S_MAX + 1)),
            ("reg-id", |c| c.reg_id = 1),
        ];
        for (what, spoil) in table {
            let mut contact = ProvisionContact::permanent("sip:a@x");
            assert_eq!(contacts(std::slice::from_ref(&contact)), Ok(()));
            spoil(&mut contact);
            assert!(contacts(&[contact]).is_err(), "{what}");
        }
        assert_eq!(contacts(&[]), Err(InvalidRecord::ContactCount(0)));
        let many: Vec<_> = (0..=BINDINGS_MAX)
            .map(|n| ProvisionContact::permanent(&format!("sip:{n}@x")))
            .collect();
        assert_eq!(
            contacts(&many),
            Err(InvalidRecord::ContactCount(BINDINGS_MAX + 1))
        );
        let twice = [
            ProvisionContact::permanent("sip:a@x"),
            ProvisionContact::permanent("sip:a@X"),
        ];
        assert_eq!(
            contacts(&twice),
            Err(InvalidRecord::Duplicate("sip:a@X".into()))
        );
    }

    #[test]
    fn routes_that_are_refused() {
        let good = Route {
            strip: 1,
            prefix: "00".into(),
            targets: vec![Target {
                uri: "sip:gw.example.net".into(),
                priority: 1,
                weight: 1,
            }],
        };
        assert_eq!(route(&good), Ok(()));
        type Spoil = fn(&mut Route);
        let table: [(&str, Spoil); 7] = [
            ("no target", |r| r.targets.clear()),
            ("many targets", |r| {
                r.targets = vec![r.targets[0].clone(); TARGETS_MAX + 1]
            }),
            ("target", |r| r.targets[0].uri = "gw".into()),
            ("strip", |r| r.strip = 16),
            ("prefix", |r| r.prefix = "0x".into()),
            ("long prefix", |r| r.prefix = "0".repeat(16)),
            ("order", |r| {
                let mut lower = r.targets[0].clone();
                lower.priority = 0;
                r.targets.push(lower);
            }),
        ];
        for (what, spoil) in table {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(route(&bad).is_err(), "{what}");
        }
    }
}
