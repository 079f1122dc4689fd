//! Contacts and targets as they are typed: a URI and parameters behind it, as in a SIP header; it
//! judges no URI, the master does.

use std::str::FromStr;

use locus_proto::{ParseQError, Q};
use serde::{Deserialize, Serialize};

/// One contact in the API's JSON, both ways.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Contact {
    pub(crate) uri: String,
    /// Preference, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) q: Option<f64>,
    /// Seconds until it expires; none for a permanent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) received: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reg_id: Option<u16>,
    /// Who registered it; only ever read.
    #[serde(default, skip_serializing)]
    pub(crate) registration: Option<Registration>,
}

/// What the API tells of a registered contact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Registration {
    pub(crate) node: u16,
    pub(crate) user_agent: String,
}

/// One target of a route in the API's JSON, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) uri: String,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

/// Returned for a contact or target that cannot be read; says what to type instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParamsError {
    #[error("the URI is missing")]
    NoUri,
    #[error("'<' without '>'")]
    Bracket,
    #[error("a parameter behind '>' starts with ';'")]
    BehindBracket,
    #[error("a quoted text has no end")]
    Quote,
    #[error(
        "{name:?} is none of the parameters {known}; one of the URI itself goes inside <>: \
         '<{uri};{name}…>'"
    )]
    Unknown {
        name: String,
        known: &'static str,
        uri: String,
    },
    #[error("{0} needs a value: {0}=…")]
    NoValue(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{name}={value} is not a whole number from 0 to {max}")]
    Number {
        name: &'static str,
        value: String,
        max: u32,
    },
    #[error("q={value}: {source}")]
    Q {
        value: String,
        #[source]
        source: ParseQError,
    },
}

const CONTACT_PARAMS: &str = "q, expires, path, received, instance, reg-id";
const TARGET_PARAMS: &str = "priority, weight";

impl FromStr for Contact {
    type Err = ParamsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uri, params) = split(text)?;
        let mut contact = Self {
            uri,
            ..Self::default()
        };
        for (name, value) in params {
            match name.as_str() {
                "q" => {
                    let text = need("q", value)?;
                    let q: Q = text.parse().map_err(|source| ParamsError::Q {
                        value: text,
                        source,
                    })?;
                    let q = q.thousandths().map(|q| f64::from(q) / 1000.0);
                    once("q", &mut contact.q, q)?;
                }
                "expires" => {
                    let expires = number("expires", value, u32::MAX)?;
                    once("expires", &mut contact.expires_s, Some(expires))?;
                }
                "path" => once("path", &mut contact.path, Some(need("path", value)?))?,
                "received" => {
                    let received = need("received", value)?;
                    once("received", &mut contact.received, Some(received))?;
                }
                "instance" | "+sip.instance" => {
                    let instance = need("instance", value)?;
                    once("instance", &mut contact.instance, Some(instance))?;
                }
                "reg-id" => once("reg-id", &mut contact.reg_id, Some(small("reg-id", value)?))?,
                _ => return Err(unknown(name, CONTACT_PARAMS, contact.uri)),
            }
        }
        Ok(contact)
    }
}

impl FromStr for Target {
    type Err = ParamsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uri, params) = split(text)?;
        let (mut priority, mut weight) = (None, None);
        for (name, value) in params {
            match name.as_str() {
                "priority" => once("priority", &mut priority, Some(small("priority", value)?))?,
                "weight" => once("weight", &mut weight, Some(small("weight", value)?))?,
                _ => return Err(unknown(name, TARGET_PARAMS, uri)),
            }
        }
        Ok(Self {
            uri,
            priority: priority.unwrap_or(1),
            weight: weight.unwrap_or(1),
        })
    }
}

type Param = (String, Option<String>);

/// Splits `<uri>;name=value…` or `uri;name=value…`; RFC 3261 §20.10: without brackets, parameters
/// are the header's. Quotes may hold anything.
fn split(text: &str) -> Result<(String, Vec<Param>), ParamsError> {
    let text = text.trim();
    let (uri, rest) = if let Some(inside) = text.strip_prefix('<') {
        let (uri, rest) = inside.split_once('>').ok_or(ParamsError::Bracket)?;
        let rest = rest.trim_start();
        if !rest.is_empty() && !rest.starts_with(';') {
            return Err(ParamsError::BehindBracket);
        }
        (uri, rest)
    } else {
        text.split_at(text.find(';').unwrap_or(text.len()))
    };
    if uri.trim().is_empty() {
        return Err(ParamsError::NoUri);
    }
    let params = cut(rest)?
        .into_iter()
        .filter(|param| !param.trim().is_empty())
        .map(|param| {
            let (name, value) = match param.split_once('=') {
                Some((name, value)) => (name, Some(unquote(value.trim()))),
                None => (param.as_str(), None),
            };
            (name.trim().to_ascii_lowercase(), value)
        });
    Ok((uri.trim().to_owned(), params.collect()))
}

/// Cuts at every `;` outside quotes.
fn cut(text: &str) -> Result<Vec<String>, ParamsError> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if c == ';' && !quoted {
            parts.push(String::new());
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    if quoted {
        Err(ParamsError::Quote)
    } else {
        Ok(parts)
    }
}

/// Takes the quotes and their escapes off; RFC 3261 §25.1 `quoted-string`.
fn unquote(text: &str) -> String {
    let inside = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let Some(inside) = inside else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    out
}

fn unknown(name: String, known: &'static str, uri: String) -> ParamsError {
    ParamsError::Unknown { name, known, uri }
}

fn need(name: &'static str, value: Option<String>) -> Result<String, ParamsError> {
    value
        .filter(|value| !value.is_empty())
        .ok_or(ParamsError::NoValue(name))
}

fn once<T>(name: &'static str, slot: &mut Option<T>, value: Option<T>) -> Result<(), ParamsError> {
    if slot.is_some() {
        return Err(ParamsError::Twice(name));
    }
    *slot = value;
    Ok(())
}

fn number(name: &'static str, value: Option<String>, max: u32) -> Result<u32, ParamsError> {
    let value = need(name, value)?;
    match value.parse() {
        Ok(number) if number <= max && !value.starts_with('+') => Ok(number),
        Ok(_) | Err(_) => Err(ParamsError::Number { name, value, max }),
    }
}

fn small(name: &'static str, value: Option<String>) -> Result<u16, ParamsError> {
    let number = number(name, value, u16::MAX.into())?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX)) // number() has checked it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_read_as_in_a_contact_header() {
        let plain = |uri: &str| Contact {
            uri: uri.to_owned(),
            ..Contact::default()
        };
        let long = "<sip:alice@10.0.0.1;transport=tcp> ; Q=0.75;expires=60;\
                    path=\"<sip:edge;lr>, <sip:e\\\"2>\";received=sip:192.0.2.7:5060;\
                    +sip.instance=\"<urn:uuid:1>\";reg-id=2;";
        for (text, expected) in [
            ("sip:alice@10.0.0.1", plain("sip:alice@10.0.0.1")),
            ("<sip:alice@10.0.0.1>", plain("sip:alice@10.0.0.1")),
            (
                "sip:a@x;q=1",
                Contact {
                    q: Some(1.0),
                    ..plain("sip:a@x")
                },
            ),
            (
                long,
                Contact {
                    q: Some(0.75),
                    expires_s: Some(60),
                    path: Some("<sip:edge;lr>, <sip:e\"2>".into()),
                    received: Some("sip:192.0.2.7:5060".into()),
                    instance: Some("<urn:uuid:1>".into()),
                    reg_id: Some(2),
                    ..plain("sip:alice@10.0.0.1;transport=tcp")
                },
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn targets_have_defaults() {
        let target: Target = "sip:gw1.example.net".parse().unwrap();
        assert_eq!((target.priority, target.weight), (1, 1));
        let target: Target = "<sip:gw;lr>;priority=2;weight=70".parse().unwrap();
        assert_eq!(
            (target.uri.as_str(), target.priority, target.weight),
            ("sip:gw;lr", 2, 70)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "the URI is missing"),
            (";q=1", "the URI is missing"),
            ("<sip:a@x", "'<' without '>'"),
            ("<sip:a@x>q=1", "a parameter behind '>' starts with ';'"),
            (
                "sip:a@x;q=1.5",
                "q=1.5: q is 0 to 1 with at most three decimals",
            ),
            (
                "sip:a@x;q=0.5555",
                "q=0.5555: q is 0 to 1 with at most three decimals",
            ),
            ("sip:a@x;q", "q needs a value: q=…"),
            ("sip:a@x;q=1;q=0", "q is given twice"),
            ("sip:a@x;path=\"<sip:p>", "a quoted text has no end"),
            (
                "sip:a@x;expires=-1",
                "expires=-1 is not a whole number from 0 to 4294967295",
            ),
            (
                "sip:a@x;reg-id=65536",
                "reg-id=65536 is not a whole number from 0 to 65535",
            ),
            (
                "sip:a@x;transport=tcp",
                "\"transport\" is none of the parameters q, expires, path, received, instance, \
                 reg-id; one of the URI itself goes inside <>: '<sip:a@x;transport…>'",
            ),
        ] {
            let error = text.parse::<Contact>().expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
        assert!("sip:gw;q=1".parse::<Target>().is_err());
    }
}
