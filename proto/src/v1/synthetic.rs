//! The one field by which version 2 of the test build differs; a build without `synthetic-v2` has none.
//!
//! Version 2 is no product: it stands for any later version, so that the upgrade of a running cluster is
//! proved before there is one.

use super::WireVersion;
use crate::{DecodeError, Decoder, Encoder, Position};

/// Appends the field that `version` has: in version 2 `level again u64`.
#[cfg(feature = "synthetic-v2")]
pub(crate) fn encode(version: WireVersion, position: &Position, out: &mut Encoder<'_>) {
    if version >= WireVersion::V2 {
        out.u64(position.level.0);
    }
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Truncation, another level than the position's.
#[cfg(feature = "synthetic-v2")]
pub(crate) fn decode(
    version: WireVersion,
    position: &Position,
    from: &mut Decoder<'_>,
) -> Result<(), DecodeError> {
    if version >= WireVersion::V2 && from.u64("level again")? != position.level.0 {
        return Err(DecodeError::Malformed {
            what: "level again",
        });
    }
    Ok(())
}

/// Version 1 has no such field.
#[cfg(not(feature = "synthetic-v2"))]
pub(crate) fn encode(_: WireVersion, _: &Position, _: &mut Encoder<'_>) {}

/// Version 1 has no such field.
///
/// # Errors
/// None.
#[cfg(not(feature = "synthetic-v2"))]
pub(crate) fn decode(_: WireVersion, _: &Position, _: &mut Decoder<'_>) -> Result<(), DecodeError> {
    Ok(())
}
