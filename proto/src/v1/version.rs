//! Which wire versions this build speaks, and which of them two speakers use; it reads no message.
//!
//! A node names the newest version it speaks in its Hello, the master answers with the one that both
//! speak. Hello, Welcome and Rejection have one layout for ever. Each message travels in the lowest
//! version that has its layout, so that bytes made once serve every reader that knows no newer one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// A wire version that this build speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct WireVersion(u8);

impl WireVersion {
    /// Version 1, which everything speaks.
    pub const V1: Self = Self(1);

    /// Version 2 of the test build: Heartbeat and Status carry one more field.
    #[cfg(feature = "synthetic-v2")]
    pub const V2: Self = Self(2);

    /// The newest version that this build speaks.
    #[cfg(not(feature = "synthetic-v2"))]
    pub const NEWEST: Self = Self::V1;

    /// The newest version that this build speaks.
    #[cfg(feature = "synthetic-v2")]
    pub const NEWEST: Self = Self::V2;

    /// Returns the newest version that this build and a speaker of all versions up to `theirs` share.
    ///
    /// A speaker without any version does not exist ([`Hello`](super::Hello) refuses to decode one); it
    /// is answered in version 1.
    #[must_use]
    pub fn agree(theirs: u8) -> Self {
        Self(theirs.clamp(Self::V1.0, Self::NEWEST.0))
    }

    /// Returns the number on the wire.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the version in which a message of `kind` travels between speakers of this one: the
    /// lowest that has its layout.
    pub(super) fn of_kind(self, kind: u8) -> Self {
        self.min(newest_layout(kind))
    }
}

/// Returns the version that gave messages of `kind` the newest layout they have here.
#[cfg(not(feature = "synthetic-v2"))]
fn newest_layout(_kind: u8) -> WireVersion {
    WireVersion::V1
}

/// Returns the version that gave messages of `kind` the newest layout they have here.
#[cfg(feature = "synthetic-v2")]
fn newest_layout(kind: u8) -> WireVersion {
    match kind {
        super::HEARTBEAT_KIND | super::STATUS_KIND => WireVersion::V2,
        _ => WireVersion::V1,
    }
}

impl TryFrom<u8> for WireVersion {
    type Error = DecodeError;

    fn try_from(found: u8) -> Result<Self, Self::Error> {
        if (Self::V1.0..=Self::NEWEST.0).contains(&found) {
            Ok(Self(found))
        } else {
            Err(DecodeError::Version {
                found,
                spoken: Self::NEWEST.0,
            })
        }
    }
}

impl From<WireVersion> for u8 {
    fn from(version: WireVersion) -> Self {
        version.0
    }
}

impl fmt::Display for WireVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_speakers_agree_on_the_older_of_their_newest() {
        let newest = WireVersion::NEWEST.get();
        for (theirs, agreed) in [(0, 1), (1, 1), (newest, newest), (255, newest)] {
            assert_eq!(WireVersion::agree(theirs).get(), agreed, "{theirs}");
        }
    }

    #[test]
    fn a_version_that_is_not_spoken_is_no_version() {
        let spoken = WireVersion::NEWEST.get();
        for found in [0, spoken + 1, 255] {
            let expected = DecodeError::Version { found, spoken };
            assert_eq!(WireVersion::try_from(found), Err(expected));
        }
        assert_eq!(WireVersion::try_from(1), Ok(WireVersion::V1));
    }
}
