//! A number of at most fifteen digits, packed; it knows no dial plan.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most digits of a number (ITU-T E.164 §6: "maximum ... 15 digits").
pub const DIGITS_MAX: usize = 15;

/// One to fifteen decimal digits, four bits each, left-aligned in a word, with their count.
///
/// Serves as a whole number and as a prefix: `prefix(n)` of a number equals the prefix that was stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digits {
    packed: u64,
    len: u8,
}

/// Returned for text that is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigitsError {
    /// No digit in it.
    #[error("a number has at least one digit")]
    Empty,
    /// More than [`DIGITS_MAX`].
    #[error("a number has at most {DIGITS_MAX} digits")]
    TooLong,
    /// Neither a digit nor a visual separator.
    #[error("a number cannot hold {0:?}")]
    Character(char),
}

impl Digits {
    /// Returns the number in `text`: an optional leading `+`, digits, and the visual separators
    /// `-`, `.`, `(`, `)` of RFC 3966 §5.1.1, which do not count.
    ///
    /// # Errors
    /// [`ParseDigitsError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseDigitsError> {
        let (mut packed, mut len) = (0_u64, 0_u8);
        for c in text.strip_prefix('+').unwrap_or(text).chars() {
            let digit = match c {
                '-' | '.' | '(' | ')' => continue,
                _ => c.to_digit(10).ok_or(ParseDigitsError::Character(c))?,
            };
            if usize::from(len) == DIGITS_MAX {
                return Err(ParseDigitsError::TooLong);
            }
            packed |= u64::from(digit) << (60 - 4 * u32::from(len));
            len += 1;
        }
        if len == 0 {
            Err(ParseDigitsError::Empty)
        } else {
            Ok(Self { packed, len })
        }
    }

    /// Returns the digits that `packed` and `len` stand for.
    ///
    /// `None` if `len` is not 1 to 15, a digit is above nine, or bits behind the last digit are set.
    pub fn from_parts(packed: u64, len: u8) -> Option<Self> {
        let fits = (1..=DIGITS_MAX).contains(&usize::from(len));
        let digits = Self { packed, len };
        (fits && packed << (4 * u32::from(len)) == 0 && digits.iter().all(|d| d <= 9))
            .then_some(digits)
    }

    /// Returns the digits as a word: the first in the highest four bits, unused bits zero.
    pub fn packed(self) -> u64 {
        self.packed
    }

    /// Returns how many digits there are, 1 to 15.
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is always at least one digit"
    )]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Returns the first `len` digits; `None` if there are fewer or `len` is zero.
    pub fn prefix(self, len: u8) -> Option<Self> {
        let keep = u64::MAX.checked_shl(64 - 4 * u32::from(len.min(16)))?;
        (len >= 1 && len <= self.len).then_some(Self {
            packed: self.packed & keep,
            len,
        })
    }

    /// Returns the first three digits as a number 0 to 999, the missing ones zero.
    pub fn head(self) -> u16 {
        self.padded()
            .take(3)
            .fold(0, |head, d| head * 10 + u16::from(d))
    }

    /// Iterates over the digits, 0 to 9 each.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        self.padded().take(usize::from(self.len))
    }

    fn padded(self) -> impl Iterator<Item = u8> {
        let bytes = self.packed.to_be_bytes();
        (0..16_usize).map(move |i| {
            if i % 2 == 0 {
                bytes[i / 2] >> 4
            } else {
                bytes[i / 2] & 15
            }
        })
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|d| write!(f, "{d}"))
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digits {
    type Err = ParseDigitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digits {
    type Error = ParseDigitsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Digits> for String {
    fn from(digits: Digits) -> Self {
        digits.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_left_aligned() {
        let number = Digits::parse("+49 30".replace(' ', "-").as_str()).unwrap();
        assert_eq!(number.packed(), 0x4930_0000_0000_0000);
        assert_eq!((number.len(), number.to_string().as_str()), (4, "4930"));
        assert_eq!(number.prefix(2), Some(Digits::parse("49").unwrap()));
        assert_eq!(number.prefix(4), Some(number));
        assert_eq!((number.prefix(0), number.prefix(5)), (None, None));
        assert_eq!(
            (number.head(), Digits::parse("7").unwrap().head()),
            (493, 700)
        );
        assert_eq!(Digits::from_parts(number.packed(), 4), Some(number));
        for (packed, len) in [
            (0xa000_0000_0000_0000, 1),
            (1, 15),
            (0, 0),
            (0, 16),
            (0x4900 << 48, 1),
        ] {
            assert_eq!(Digits::from_parts(packed, len), None, "{packed:x} {len}");
        }
        let longest = Digits::parse("123456789012345").unwrap();
        assert_eq!(longest.to_string(), "123456789012345");
        assert_eq!(longest.prefix(15), Some(longest));
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in [
            "",
            "+",
            "1234567890123456",
            "12a",
            "12*",
            "+49+30",
            "4 9",
            "٣",
        ] {
            assert!(Digits::parse(text).is_err(), "{text:?}");
        }
    }
}
