//! From what a request says to what the table knows: the canonical address-of-record, without allocation.
//!
//! It must agree with `proto::AddressOfRecord::parse`, which makes the keys; a test holds the two together. The
//! rules are registrar's `extract_aor`: user part unescaped, `user@host` or `user` alone, lower case.

use locus_proto::AOR_BYTES_MAX;

/// A canonical address-of-record in a buffer of its own.
#[derive(Debug)]
pub(crate) struct CanonicalAor {
    bytes: [u8; AOR_BYTES_MAX],
    len: usize,
}

/// Why a URI names no address-of-record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConvertError {
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
    Escape,
    /// Longer than any address-of-record.
    TooLong,
    /// Neither user nor host is left.
    Empty,
}

impl CanonicalAor {
    /// Returns the canonical form of `user` and `host` as they stand in a URI.
    pub(crate) fn new(user: &[u8], host: &[u8], use_domain: bool) -> Result<Self, ConvertError> {
        let mut aor = Self {
            bytes: [0; AOR_BYTES_MAX],
            len: 0,
        };
        let mut rest = user;
        while let [first, tail @ ..] = rest {
            (rest, *aor.next()?) = match (*first, tail) {
                (b'%', [high, low, behind @ ..]) => (behind, escaped(*high, *low)?),
                (b'%', _) => return Err(ConvertError::Escape),
                (byte, _) => (tail, byte),
            };
        }
        aor.lower()?;
        if use_domain {
            if aor.len > 0 && !host.is_empty() {
                *aor.next()? = b'@';
            }
            for byte in host {
                *aor.next()? = byte.to_ascii_lowercase();
            }
        }
        if aor.len == 0 {
            Err(ConvertError::Empty)
        } else {
            Ok(aor)
        }
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        // `lower` has seen the user part; a host with other bytes names nobody.
        std::str::from_utf8(self.bytes()).unwrap_or("")
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn next(&mut self) -> Result<&mut u8, ConvertError> {
        let place = self.bytes.get_mut(self.len).ok_or(ConvertError::TooLong)?;
        self.len = self.len.saturating_add(1);
        Ok(place)
    }

    /// Folds case. Nearly every user part is ASCII; for the others the rules of Unicode count, as they do where
    /// the key was made.
    fn lower(&mut self) -> Result<(), ConvertError> {
        if self.bytes().is_ascii() {
            self.bytes.make_ascii_lowercase();
            return Ok(());
        }
        let copy = self.bytes;
        let text = copy
            .get(..self.len)
            .and_then(|text| std::str::from_utf8(text).ok());
        self.len = 0;
        for lower in text
            .ok_or(ConvertError::Escape)?
            .chars()
            .flat_map(char::to_lowercase)
        {
            for byte in lower.encode_utf8(&mut [0; 4]).bytes() {
                *self.next()? = byte;
            }
        }
        Ok(())
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
        Ok(aor.as_str().to_owned())
    }

    #[test]
    fn agrees_with_the_keys_of_the_table() {
        for (user, host) in [
            ("alice", "example.net"),
            ("Alice", "EXAMPLE.Net"),
            ("al%69ce", "example.net"),
            ("%41lice", "example.net"),
            ("+4930-1234", "example.net"),
            ("user;par=1", "example.net"),
            ("bob", "[2001:DB8::1]"),
            ("%c3%84rger", "example.net"),
            ("ÄRGER", "example.net"),
            ("İ", "example.net"),
            ("", "example.net"),
        ] {
            let uri = if user.is_empty() {
                format!("sip:{host}")
            } else {
                format!("sip:{user}@{host}")
            };
            let key = AddressOfRecord::parse(&uri).unwrap();
            assert_eq!(canonical(user, host, true).unwrap(), key.as_str(), "{uri}");
        }
        assert_eq!(canonical("Alice", "example.net", false).unwrap(), "alice");
    }

    #[test]
    fn refuses_broken_escapes_and_what_is_too_long() {
        for user in ["a%", "a%4", "a%zz", "%ff"] {
            assert_eq!(
                canonical(user, "x", true),
                Err(ConvertError::Escape),
                "{user}"
            );
        }
        let longest = "a".repeat(AOR_BYTES_MAX - 2);
        assert_eq!(canonical(&longest, "x", true).unwrap().len(), AOR_BYTES_MAX);
        assert_eq!(
            canonical(&format!("{longest}a"), "x", true),
            Err(ConvertError::TooLong)
        );
        assert_eq!(canonical("", "x", false), Err(ConvertError::Empty));
    }
}
