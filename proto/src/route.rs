//! A number route: where calls to a prefix go; it chooses nothing.

use serde::{Deserialize, Serialize};

use crate::{DIGITS_MAX, DecodeError, Decoder, Encoder, URI_BYTES_MAX};

/// Most targets of one route; as many as one call may try (see [`crate::BINDINGS_MAX`]).
pub const TARGETS_MAX: usize = 12;

const ROUTE_FORMAT: u16 = 1;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// SIP URI of the gateway, at most [`URI_BYTES_MAX`] bytes, never empty.
    pub uri: String,
    /// Order of trial: the lowest first.
    pub priority: u16,
    /// Share among targets of one priority.
    pub weight: u16,
}

/// The route of a number prefix. Value of an `'r'` key in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Route {
    /// Leading digits taken off the called number.
    pub strip: u8,
    /// Digits put before what is left, at most 15, or empty.
    pub prefix: String,
    /// Targets by priority ascending, at most [`TARGETS_MAX`].
    pub targets: Vec<Target>,
}

impl Route {
    /// Returns the value's bytes.
    ///
    /// ```text
    /// format u16 (1) | count u16 | strip u8 | prefix: u16 length, digits
    /// per target: priority u16 | weight u16 | uri: u16 length, text
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        encoder
            .u16(ROUTE_FORMAT)
            .u16(u16::try_from(self.targets.len()).unwrap_or(u16::MAX));
        encoder.u8(self.strip).short_bytes(self.prefix.as_bytes());
        for target in &self.targets {
            encoder
                .u16(target.priority)
                .u16(target.weight)
                .short_bytes(target.uri.as_bytes());
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown format, a count or length above its limit, truncation, trailing bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let RouteRef {
            strip,
            prefix,
            targets: mut refs,
        } = RouteRef::new(bytes)?;
        let prefix = prefix.to_owned();
        let targets = refs
            .by_ref()
            .map(|target| target.map(TargetRef::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        refs.from.end()?;
        Ok(Self {
            strip,
            prefix,
            targets,
        })
    }
}

/// One target read in place from a table's value; see [`Target`] for the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are Target's")]
pub struct TargetRef<'a> {
    pub uri: &'a str,
    pub priority: u16,
    pub weight: u16,
}

impl TargetRef<'_> {
    /// Returns a copy that owns its text.
    pub fn to_owned(self) -> Target {
        Target {
            uri: self.uri.to_owned(),
            priority: self.priority,
            weight: self.weight,
        }
    }
}

/// A route read in place from a table's value, without allocating; see [`Route`] for the fields.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are Route's")]
pub struct RouteRef<'a> {
    pub strip: u8,
    pub prefix: &'a str,
    pub targets: TargetRefs<'a>,
}

impl<'a> RouteRef<'a> {
    /// Returns the route in a value that [`Route::encode`] made.
    ///
    /// # Errors
    /// An unknown format, a count or length above its limit, truncation before the targets.
    pub fn new(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(value);
        let format = from.u16("record format")?;
        if format != ROUTE_FORMAT {
            return Err(DecodeError::Unknown {
                what: "record format",
                value: format.into(),
            });
        }
        let left = from.u16("target count")?;
        if usize::from(left) > TARGETS_MAX {
            return Err(DecodeError::TooLong {
                what: "targets",
                len: left.into(),
                max: TARGETS_MAX,
            });
        }
        Ok(Self {
            strip: from.u8("strip")?,
            prefix: from.short_text("prefix", DIGITS_MAX)?,
            targets: TargetRefs { from, left },
        })
    }
}

/// Iterates over the targets in a value; ends after the first error.
#[derive(Debug, Clone)]
pub struct TargetRefs<'a> {
    from: Decoder<'a>,
    left: u16,
}

impl<'a> TargetRefs<'a> {
    fn read(&mut self) -> Result<TargetRef<'a>, DecodeError> {
        Ok(TargetRef {
            priority: self.from.u16("priority")?,
            weight: self.from.u16("weight")?,
            uri: self.from.short_text("target", URI_BYTES_MAX)?,
        })
    }
}

impl<'a> Iterator for TargetRefs<'a> {
    type Item = Result<TargetRef<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let target = self.read();
        if target.is_err() {
            self.left = 0;
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_bytes() {
        let target = |uri: &str, priority| Target {
            uri: uri.into(),
            priority,
            weight: 1,
        };
        let route = Route {
            strip: 2,
            prefix: "0049".into(),
            targets: vec![
                target("sip:gw1.example.net", 1),
                target("sip:gw2.example.net", 2),
            ],
        };
        let bytes = route.encode();
        assert_eq!(Route::decode(&bytes), Ok(route));
        for len in 0..bytes.len() {
            assert!(Route::decode(&bytes[..len]).is_err(), "{len}");
        }
    }
}
