//! From what a request says to what the table knows: the canonical address-of-record, and the number that is called.
//!
//! It must agree with `proto::AddressOfRecord::parse`, which makes the keys; a test holds the two together. The
//! rules are registrar's `extract_aor`: user part unescaped, `user@host` or `user` alone, lower case. Nothing is
//! allocated for a user part in ASCII, as nearly every one is.

use locus_proto::AOR_BYTES_MAX;

/// Longest number in bytes: more than E.164 or any dial string has.
const NUMBER_BYTES_MAX: usize = 64;

/// A canonical address-of-record in a buffer of its own.
#[derive(Debug)]
pub(crate) struct CanonicalAor(Text<AOR_BYTES_MAX>);

/// Why a URI names no address-of-record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConvertError {
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
    Escape,
    /// No address-of-record can be called that: it is empty, too long, lacks a host, or has characters that
    /// none has.
    Nobody,
}

impl CanonicalAor {
    /// Returns the canonical form of `user` and `host` as they stand in a URI.
    pub(crate) fn new(user: &[u8], host: &[u8], use_domain: bool) -> Result<Self, ConvertError> {
        let mut text = Text::new();
        if push_user(&mut text, user)?.is_none() {
            return Err(ConvertError::Nobody);
        }
        if use_domain && push_host(&mut text, host).is_none() {
            return Err(ConvertError::Nobody);
        }
        if text.len == 0 {
            return Err(ConvertError::Nobody);
        }
        Ok(Self(text))
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the text's bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Returns what each byte becomes where that takes no second look, 0 where it does: a letter becomes a small one,
/// a digit or one of `others` stays.
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated at compile time, in constants"
)]
const fn plain(others: &[u8]) -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = others[at];
        at += 1;
    }
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

/// What [`is_of_user`] allows, as far as it is ASCII.
const PLAIN_USER: [u8; 256] = plain(b"!#$&'()*+-./;=?[]^_`{|}~");
const PLAIN_HOST: [u8; 256] = plain(b".-_:[]");

/// Appends a user part in its canonical form; `None` when no address-of-record has it.
fn push_user(text: &mut Text<AOR_BYTES_MAX>, user: &[u8]) -> Result<Option<()>, ConvertError> {
    // Nearly every one.
    if text.push_plain(user, &PLAIN_USER).is_some() {
        return Ok(Some(()));
    }
    for byte in Unescaped(user) {
        let byte = byte?;
        if !byte.is_ascii() {
            return push_foreign_user(text, user);
        }
        if !is_of_user(char::from(byte)) || text.push(byte.to_ascii_lowercase()).is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// As [`push_user`] for letters beyond ASCII: the case of some depends on their neighbours, so the whole is
/// folded as it was where the key was made.
#[cold]
fn push_foreign_user(
    text: &mut Text<AOR_BYTES_MAX>,
    user: &[u8],
) -> Result<Option<()>, ConvertError> {
    let bytes: Vec<u8> = Unescaped(user).collect::<Result<_, _>>()?;
    let lower = String::from_utf8(bytes)
        .map_err(|_| ConvertError::Escape)?
        .to_lowercase();
    text.len = 0;
    let is_one = lower.chars().all(is_of_user);
    Ok(is_one
        .then(|| lower.bytes().try_for_each(|byte| text.push(byte)))
        .flatten())
}

/// Whether a user part can hold that character; `proto` refuses the same.
fn is_of_user(c: char) -> bool {
    let is_forbidden = matches!(c, '<' | '>' | '"' | '\\' | ',' | '%' | ':' | '@');
    !is_forbidden && !c.is_control() && !c.is_whitespace()
}

/// Appends a host, behind an `@` when there is a user; `None` when no address-of-record has it.
fn push_host(text: &mut Text<AOR_BYTES_MAX>, host: &[u8]) -> Option<()> {
    let is_alone = text.len == 0;
    if !is_alone {
        text.push(b'@')?;
    }
    if is_alone && host.contains(&b':') {
        return None;
    }
    text.push_plain(host, &PLAIN_HOST)?;
    (!host.is_empty()).then_some(())
}

/// The number that a user part calls: `+`, `*` and digits, without visual separators and parameters.
#[derive(Debug)]
pub(crate) struct CalledNumber(Text<NUMBER_BYTES_MAX>);

impl CalledNumber {
    /// Returns the number in a user part as it stands in a URI, escapes resolved; `None` when it is none.
    ///
    /// RFC 3966 §5.1.1: visual separators "have no significance"; the parameters begin at the first `;`.
    pub(crate) fn new(user: &[u8]) -> Option<Self> {
        let mut text = Text::new();
        for byte in Unescaped(user) {
            match byte.ok()? {
                b';' => break,
                b'-' | b'.' | b'(' | b')' => {}
                byte @ (b'0'..=b'9' | b'+' | b'*') => text.push(byte)?,
                _ => return None,
            }
        }
        (text.len > 0).then_some(Self(text))
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A text of at most `N` bytes on the stack.
#[derive(Debug)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Appends a byte; `None` when there is no room.
    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.len)? = byte;
        self.len = self.len.saturating_add(1);
        Some(())
    }

    /// Appends what `plain` makes of a part; `None`, and nothing is appended, when a byte takes a second look or
    /// there is no room.
    fn push_plain(&mut self, part: &[u8], plain: &[u8; 256]) -> Option<()> {
        let end = self.len.checked_add(part.len())?;
        let room = self.bytes.get_mut(self.len..end)?;
        for (to, from) in room.iter_mut().zip(part) {
            let byte = plain.get(usize::from(*from)).copied().unwrap_or(0);
            if byte == 0 {
                return None;
            }
            *to = byte;
        }
        self.len = end;
        Some(())
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn as_str(&self) -> &str {
        // Whole characters are all that was appended.
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

/// The bytes of a part of a URI with its escapes resolved.
struct Unescaped<'u>(&'u [u8]);

impl Iterator for Unescaped<'_> {
    type Item = Result<u8, ConvertError>;

    fn next(&mut self) -> Option<Self::Item> {
        let byte = match *self.0 {
            [] => return None,
            [b'%', high, low, ref behind @ ..] => {
                self.0 = behind;
                escaped(high, low)
            }
            [b'%', ..] => {
                self.0 = &[];
                Err(ConvertError::Escape)
            }
            [byte, ref behind @ ..] => {
                self.0 = behind;
                Ok(byte)
            }
        };
        Some(byte)
    }
}

fn escaped(high: u8, low: u8) -> Result<u8, ConvertError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(ConvertError::Escape);
    let value = digit(high)?.saturating_mul(16).saturating_add(digit(low)?);
    u8::try_from(value).map_err(|_| ConvertError::Escape)
}

#[cfg(test)]
mod tests {
    use locus_proto::AddressOfRecord;

    use super::*;

    fn canonical(user: &str, host: &str, use_domain: bool) -> Result<String, ConvertError> {
        let aor = CanonicalAor::new(user.as_bytes(), host.as_bytes(), use_domain)?;
        Ok(String::from_utf8(aor.as_bytes().to_vec()).unwrap())
    }

    /// What provisioning makes of the URI from which Kamailio's parser takes `user` and `host`.
    fn key(user: &str, host: &str) -> Option<String> {
        let uri = if user.is_empty() {
            format!("sip:{host}")
        } else {
            format!("sip:{user}@{host}")
        };
        let aor = AddressOfRecord::parse(&uri).ok()?;
        Some(aor.as_str().to_owned())
    }

    #[test]
    fn agrees_with_the_keys_of_the_table() {
        let longest = "a".repeat(AOR_BYTES_MAX - 2);
        let escaped = "%61".repeat(150);
        let too_long = format!("{longest}a");
        let shrinks = "\u{212a}".repeat(AOR_BYTES_MAX / 2);
        let grows = "\u{130}".repeat(AOR_BYTES_MAX / 2);
        for user in [
            "alice",
            "Alice",
            "al%69ce",
            "%41lice",
            "+4930-1234",
            "%2B4930",
            "user;par=1",
            "user;Phone-Context=+49",
            "a&b=c+d$e?f/g",
            "%c3%84rger",
            "ÄRGER",
            "İ",
            "ΣΑΣ",
            "ΟΔΟΣ1",
            "%CE%9F%CE%A3",
            "straße",
            "",
            &longest,
            &escaped,
            &too_long,
            &shrinks,
            &grows,
            // What no address-of-record holds, escaped so that a URI may.
            "a%25b",
            "a%2561b",
            "a%40b",
            "a%3ab",
            "a%20b",
            "a%00b",
            "a%0d%0ab",
            "a%c2%a0b",
            "a%e2%80%a8b",
            "a%c2%85b",
            "a%22b",
            "a%5cb",
            "a%2cb",
            "a%3cb%3e",
            // Broken.
            "a%",
            "a%4",
            "a%zz",
            "a%+1",
            "%ff",
            "%c3",
        ] {
            for host in [
                "example.net",
                "EXAMPLE.Net",
                "x",
                "192.0.2.1",
                "[2001:DB8::1]",
                "a_b",
            ] {
                let found = canonical(user, host, true).ok();
                assert_eq!(found, key(user, host), "{user:?} at {host:?}");
            }
            if !user.is_empty() {
                let alone = AddressOfRecord::parse(&format!("sip:{user}"));
                let alone = alone.ok().map(|aor| aor.as_str().to_owned());
                // Where domains do not count, nobody is called user@host.
                let alone = alone.filter(|aor| !aor.contains('@'));
                assert_eq!(canonical(user, "x", false).ok(), alone, "{user:?} alone");
            }
        }
    }

    #[test]
    fn what_is_plain_is_what_the_second_look_would_make_of_it() {
        for byte in 0..=u8::MAX {
            let is_plain = byte.is_ascii() && is_of_user(char::from(byte));
            let expected = if is_plain {
                byte.to_ascii_lowercase()
            } else {
                0
            };
            assert_eq!(PLAIN_USER[usize::from(byte)], expected, "{byte}");
        }
    }

    #[test]
    fn refuses_what_no_address_has_as_a_key_would() {
        for host in [
            "ex%61mple.net",
            "x y",
            "x/y",
            "ä.example",
            "\u{212a}.example",
        ] {
            assert_eq!(
                canonical("alice", host, true),
                Err(ConvertError::Nobody),
                "{host}"
            );
        }
        // A number of `tel:` has no host; its user part must not bring one along.
        for user in ["alice", "alice%40example.net"] {
            assert_eq!(
                canonical(user, "", true),
                Err(ConvertError::Nobody),
                "{user}"
            );
        }
        assert_eq!(canonical("", "x", false), Err(ConvertError::Nobody));
        for user in ["a%", "a%4", "a%zz", "a%+1", "%ff"] {
            assert_eq!(
                canonical(user, "x", true),
                Err(ConvertError::Escape),
                "{user}"
            );
        }
    }

    #[test]
    fn numbers_are_called_in_many_ways() {
        for (user, expected) in [
            ("112", "112"),
            ("%31%31%32", "112"),
            ("112;phone-context=+49", "112"),
            ("1-1-2", "112"),
            ("(1)1.2", "112"),
            ("%2B49-30;ext=5", "+4930"),
            ("*110", "*110"),
        ] {
            let number = CalledNumber::new(user.as_bytes()).unwrap();
            assert_eq!(number.as_str(), expected, "{user}");
        }
        let context = format!("112;phone-context={}", "x".repeat(600));
        assert_eq!(
            CalledNumber::new(context.as_bytes()).unwrap().as_str(),
            "112"
        );
        for user in [
            "",
            ";x",
            "alice",
            "11%",
            "1%zz",
            "1%2",
            "%ff",
            &"1".repeat(65),
        ] {
            assert!(CalledNumber::new(user.as_bytes()).is_none(), "{user}");
        }
    }
}
