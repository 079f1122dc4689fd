//! Keys of the table: what kind of record, and which; it knows no value.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AOR_BYTES_MAX, AddressOfRecord, DecodeError, Digits};

/// Longest key in bytes: the kind and the longest address-of-record.
pub const KEY_BYTES_MAX: usize = AOR_BYTES_MAX + 1;

const AOR: u8 = b'a';
const ROUTE: u8 = b'r';

/// Key of a record: one byte for its kind, then what it names.
///
/// ```text
/// 'a' | canonical address-of-record
/// 'r' | digit count u8 | packed digits u64, big-endian
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Vec<u8>);

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    /// An address-of-record.
    Aor(AddressOfRecord),
    /// A number prefix.
    Route(Digits),
}

impl Key {
    /// Returns the key of the bindings of `aor`.
    pub fn aor(aor: &AddressOfRecord) -> Self {
        let mut bytes = vec![AOR];
        bytes.extend_from_slice(aor.as_str().as_bytes());
        Self(bytes)
    }

    /// Returns the key of the route of a number prefix.
    pub fn route(prefix: Digits) -> Self {
        Self(Self::route_bytes(prefix).to_vec())
    }

    /// Returns the bytes of [`Self::route`] without allocating.
    #[inline]
    pub fn route_bytes(prefix: Digits) -> [u8; 10] {
        let (first, rest) = Self::route_words(prefix);
        let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
        let [i, j] = rest.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j]
    }

    /// Returns [`Self::route_bytes`] as two little-endian numbers, of the first eight bytes and of the last
    /// two: for whoever hashes many keys, in registers.
    #[inline]
    pub fn route_words(prefix: Digits) -> (u64, u16) {
        let packed = prefix.packed().swap_bytes(); // the first two digits in the lowest byte
        let first = u64::from(ROUTE) | u64::from(prefix.len()) << 8 | packed << 16;
        let [.., i, j] = packed.to_le_bytes();
        (first, u16::from_le_bytes([i, j]))
    }

    /// Returns the digits if `bytes` is the key of a route.
    pub fn route_digits(bytes: &[u8]) -> Option<Digits> {
        let [ROUTE, len, packed @ ..] = bytes else {
            return None;
        };
        Digits::from_parts(u64::from_be_bytes(packed.try_into().ok()?), *len)
    }

    /// Writes the key of the bindings of the canonical address `aor` into `out`, without allocating.
    ///
    /// Returns its length; `None` if `aor` is empty or longer than [`AOR_BYTES_MAX`].
    pub fn write_aor(aor: &[u8], out: &mut [u8; KEY_BYTES_MAX]) -> Option<usize> {
        if aor.is_empty() {
            return None;
        }
        let (kind, room) = out.split_first_mut()?;
        *kind = AOR;
        room.get_mut(..aor.len())?.copy_from_slice(aor);
        Some(aor.len() + 1)
    }

    /// Returns the key in `bytes`.
    ///
    /// # Errors
    /// An unknown kind, or a name that is not canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let is_one = match bytes {
            [AOR, name @ ..] => AddressOfRecord::is_canonical(name),
            [ROUTE, ..] => Self::route_digits(bytes).is_some(),
            [kind, ..] => {
                return Err(DecodeError::Unknown {
                    what: "key kind",
                    value: (*kind).into(),
                });
            }
            [] => false,
        };
        if is_one {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(DecodeError::Malformed { what: "key" })
        }
    }

    /// Returns what the key names.
    ///
    /// # Errors
    /// Never for a key made by this type.
    pub fn kind(&self) -> Result<KeyKind, DecodeError> {
        let kind = match self.0.as_slice() {
            [AOR, name @ ..] => AddressOfRecord::from_canonical(name).map(KeyKind::Aor),
            [ROUTE, ..] => Self::route_digits(&self.0).map(KeyKind::Route),
            _ => None,
        };
        kind.ok_or(DecodeError::Malformed { what: "key" })
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Ok(KeyKind::Aor(aor)) => write!(f, "aor {aor}"),
            Ok(KeyKind::Route(digits)) => write!(f, "route {digits}"),
            Err(_) => f.write_str("malformed key"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
