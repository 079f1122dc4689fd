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
        let mut from = Decoder::new(bytes);
        let format = from.u16("record format")?;
        if format != ROUTE_FORMAT {
            return Err(DecodeError::Unknown {
                what: "record format",
                value: format.into(),
            });
        }
        let len = usize::from(from.u16("target count")?);
        if len > TARGETS_MAX {
            return Err(DecodeError::TooLong {
                what: "targets",
                len,
                max: TARGETS_MAX,
            });
        }
        let strip = from.u8("strip")?;
        let prefix = from.short_text("prefix", DIGITS_MAX)?.to_owned();
        let mut targets = Vec::with_capacity(len);
        for _ in 0..len {
            targets.push(Target {
                priority: from.u16("priority")?,
                weight: from.u16("weight")?,
                uri: from.short_text("target", URI_BYTES_MAX)?.to_owned(),
            });
        }
        from.end()?;
        Ok(Self {
            strip,
            prefix,
            targets,
        })
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
