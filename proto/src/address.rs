//! The address-of-record: the public SIP identity that is looked up; it knows nothing bound to it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest address-of-record in bytes.
///
/// As Kamailio's registrar (`MAX_AOR_LEN` 256, less its terminating byte).
pub const AOR_BYTES_MAX: usize = 255;

/// A canonical address-of-record: `user@host`, or `user` alone where domains do not count; lower case.
///
/// RFC 3261 §6 and §10.3 step 5: the "canonical form" has no URI parameters, no port, and its escapes
/// are resolved. Case is folded in the user part too, as Kamailio's registrar does by default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressOfRecord(String);

/// Returned for text that is not an address-of-record; says what an operator has to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAorError {
    /// Nothing is left of it.
    #[error("an address-of-record cannot be empty")]
    Empty,
    /// Above [`AOR_BYTES_MAX`].
    #[error("an address-of-record has at most {AOR_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A byte that none may have, or a broken `%xx`.
    #[error("an address-of-record cannot hold {0:?}")]
    Character(char),
    /// A scheme other than `sip:` and `sips:`.
    #[error("only sip: and sips: addresses are kept here")]
    Scheme,
    /// Not one `@`, or nothing on one side of it.
    #[error("write it as user@host")]
    Shape,
}

impl AddressOfRecord {
    /// Returns the canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the canonical form of `text`, with or without `sip:`, escapes resolved, lower case.
    ///
    /// # Errors
    /// [`ParseAorError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseAorError> {
        if text.len() > AOR_BYTES_MAX * 3 {
            return Err(ParseAorError::TooLong(text.len())); // even if every byte were escaped
        }
        let lower = text.trim().to_ascii_lowercase();
        let bare = match lower.split_once(':') {
            Some(("sip" | "sips", rest)) => rest,
            // A colon may stand in an IPv6 host; anything else before one is a scheme.
            Some((head, _)) if !head.contains(['@', '[']) => return Err(ParseAorError::Scheme),
            _ => &lower,
        };
        let text = unescape(bare)?.to_lowercase();
        if text.is_empty() {
            return Err(ParseAorError::Empty);
        }
        if text.len() > AOR_BYTES_MAX {
            return Err(ParseAorError::TooLong(text.len()));
        }
        let forbidden = |c: &char| {
            c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\\' | ',' | '%')
        };
        if let Some(c) = text.chars().find(forbidden) {
            return Err(ParseAorError::Character(c));
        }
        // Behind a resolved escape or a second scheme: the canonical form would not be its own.
        if text
            .split('@')
            .next()
            .is_some_and(|user| user.contains(':'))
        {
            return Err(ParseAorError::Character(':'));
        }
        if let Some((user, host)) = text.split_once('@') {
            let host_char = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            if user.is_empty() || host.is_empty() || host.contains('@') {
                return Err(ParseAorError::Shape);
            }
            if let Some(c) = host.chars().find(|c| !host_char(*c)) {
                return Err(ParseAorError::Character(c));
            }
            if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
                return Err(ParseAorError::Character(':')); // an address-of-record has no port
            }
        }
        Ok(Self(text))
    }

    /// Returns whether `text` is the canonical form of an address.
    pub(crate) fn is_canonical(text: &[u8]) -> bool {
        is_plain(text)
            || std::str::from_utf8(text)
                .is_ok_and(|text| Self::parse(text).is_ok_and(|aor| aor.0 == text))
    }

    /// Returns the address that `text` is the canonical form of; `None` if it is not one.
    pub(crate) fn from_canonical(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        Self::is_canonical(text.as_bytes()).then(|| Self(text.to_owned()))
    }
}

/// Returns whether text is an address in its canonical form at first sight: short, lower-case ASCII without
/// anything that [`AddressOfRecord::parse`] looks at twice.
///
/// For most addresses; what it says of others says nothing about them.
fn is_plain(text: &[u8]) -> bool {
    // What `parse` forbids, folds, resolves or strips; and '@' and ':', which it counts.
    let user_byte = |b: &u8| {
        b.is_ascii_graphic()
            && !b.is_ascii_uppercase()
            && !matches!(b, b'<' | b'>' | b'"' | b'\\' | b',' | b'%' | b'@' | b':')
    };
    let host_byte = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let (user, host) = match text.iter().position(|b| *b == b'@') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    text.len() <= AOR_BYTES_MAX
        && !user.is_empty()
        && user.iter().all(user_byte)
        && host.is_none_or(|host| !host.is_empty() && host.iter().all(host_byte))
}

/// Resolves `%xx`; RFC 3261 §19.1.2: escaped and unescaped characters are equivalent.
fn unescape(text: &str) -> Result<String, ParseAorError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            out.push(*first);
            rest = tail;
            continue;
        }
        let hex = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(byte.ok_or(ParseAorError::Character('%'))?);
        rest = &tail[2..];
    }
    String::from_utf8(out).map_err(|_| ParseAorError::Character(char::REPLACEMENT_CHARACTER))
}

impl FromStr for AddressOfRecord {
    type Err = ParseAorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AddressOfRecord {
    type Error = ParseAorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<AddressOfRecord> for String {
    fn from(aor: AddressOfRecord) -> Self {
        aor.0
    }
}

impl fmt::Display for AddressOfRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for (text, expected) in [
            ("alice@example.net", "alice@example.net"),
            ("sip:Alice@Example.NET", "alice@example.net"),
            ("sips:al%69ce@example.net", "alice@example.net"),
            ("sip:+49301234@example.net", "+49301234@example.net"),
            ("alice", "alice"),
            ("bob@[2001:db8::1]", "bob@[2001:db8::1]"),
            ("user;par=1@example.net", "user;par=1@example.net"),
        ] {
            assert_eq!(
                AddressOfRecord::parse(text).unwrap().as_str(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        let long = "a".repeat(AOR_BYTES_MAX + 1);
        for text in [
            "",
            "sip:",
            "@example.net",
            "alice@",
            "a@b@c",
            "al ice@x",
            "alice\u{0}@x",
            "<alice@x>",
            "tel:+4930",
            "alice@x:5060",
            "alice@x;transport=tcp",
            "a%zz@x",
            "a%0d%0ab@x",
            "a%",
            "al\"ice@x",
            "alice@x/y",
            "a%25b@x",
            "sip:sip:alice@x",
            "sip%3aalice@x",
            "sip:alice:secret@x",
            &long,
        ] {
            assert!(AddressOfRecord::parse(text).is_err(), "{text:?}");
        }
    }

    /// The short way says yes only to what the long way leaves as it is.
    #[test]
    fn plain_is_canonical() {
        // Every byte in the user part, in the host part and alone, and what stands between them.
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for byte in 0..=u8::MAX {
            texts.push([b"a", [byte].as_slice(), b"b@example.net"].concat());
            texts.push([[byte].as_slice(), b"@example.net"].concat());
            texts.push([b"alice@ex", [byte].as_slice(), b"mple.net"].concat());
            texts.push([b"alice@example.net", [byte].as_slice()].concat());
            texts.push(vec![byte]);
            texts.push([b"sip", [byte].as_slice(), b"alice@example.net"].concat());
        }
        for text in [
            "",
            "@",
            "a@",
            "@a",
            "a@b@c",
            "alice",
            "bob@[2001:db8::1]",
            "j\u{f6}rg@x",
        ] {
            texts.push(text.as_bytes().to_vec());
        }
        texts.push(vec![b'a'; AOR_BYTES_MAX]);
        texts.push(vec![b'a'; AOR_BYTES_MAX + 1]);
        let mut plain = 0;
        for text in texts {
            let parsed = std::str::from_utf8(&text)
                .ok()
                .and_then(|text| AddressOfRecord::parse(text).ok())
                .filter(|aor| aor.as_str().as_bytes() == text);
            assert_eq!(AddressOfRecord::is_canonical(&text), parsed.is_some());
            assert_eq!(AddressOfRecord::from_canonical(&text), parsed);
            if is_plain(&text) {
                plain += 1;
                assert!(parsed.is_some(), "{:?}", String::from_utf8_lossy(&text));
            }
        }
        assert!(plain > 200, "{plain}");
    }
}
