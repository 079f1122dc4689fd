//! A number with the route that was found for it; it does not choose among the targets.

use std::fmt;

use locus_proto::{DIGITS_MAX, DecodeError, Digits, RouteRef, TargetRefs};

/// Longest rewritten number in bytes: a prefix and a number of fifteen digits each.
pub const NUMBER_BYTES_MAX: usize = DIGITS_MAX * 2;

/// A called number as it is sent on: leading digits stripped, a prefix put before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Number {
    text: [u8; NUMBER_BYTES_MAX],
    len: usize,
}

impl Number {
    fn rewrite(digits: Digits, strip: u8, prefix: &str) -> Self {
        let mut number = Self {
            text: [0; NUMBER_BYTES_MAX],
            len: 0,
        };
        let kept = digits
            .iter()
            .skip(usize::from(strip))
            .map(|digit| digit.saturating_add(b'0'));
        for (place, byte) in number.text.iter_mut().zip(prefix.bytes().chain(kept)) {
            *place = byte;
            number.len = number.len.saturating_add(1);
        }
        number
    }

    /// Returns the digits as text; empty if all were stripped.
    pub fn as_str(&self) -> &str {
        self.text
            .get(..self.len)
            .and_then(|text| std::str::from_utf8(text).ok())
            .unwrap_or("")
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The route of the longest prefix of a number, and the number as it goes out.
#[derive(Debug, Clone)]
pub struct Routed<'b> {
    /// The number to send.
    pub number: Number,
    /// Where to, by priority ascending.
    pub targets: TargetRefs<'b>,
}

impl<'b> Routed<'b> {
    /// Reads the route of `digits` from a record's value, every target of it.
    pub(crate) fn read(digits: Digits, value: &'b [u8]) -> Result<Self, DecodeError> {
        let route = RouteRef::new(value)?;
        for target in route.targets.clone() {
            target?;
        }
        Ok(Self {
            number: Number::rewrite(digits, route.strip, route.prefix),
            targets: route.targets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites() {
        for (digits, strip, prefix, expected) in [
            ("4930123", 0, "", "4930123"),
            ("4930123", 2, "0", "030123"),
            ("4930123", 7, "", ""),
            ("4930123", 99, "112", "112"),
            (
                "123456789012345",
                0,
                "999999999999999",
                "999999999999999123456789012345",
            ),
        ] {
            let digits = Digits::parse(digits).unwrap();
            assert_eq!(Number::rewrite(digits, strip, prefix).as_str(), expected);
        }
    }
}
