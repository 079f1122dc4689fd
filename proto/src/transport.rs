//! Which way a node or a master wishes the changes to go; it opens no way.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// Wish for the carrier of the changes; node and master combine theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Whatever costs less: multicast once enough nodes hear enough changes.
    #[default]
    Auto,
    /// The multicast group, whatever the number of nodes.
    Multicast,
    /// The node's own connection alone.
    Unicast,
    /// The bus of the chassis alone.
    Bus,
}

impl Transport {
    /// All wishes, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Multicast, Self::Unicast, Self::Bus];

    /// Returns the word in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Multicast => "multicast",
            Self::Unicast => "unicast",
            Self::Bus => "bus",
        }
    }

    /// Returns the code on the wire, 0 to 3.
    pub fn code(self) -> u8 {
        match self {
            Self::Auto => 0,
            Self::Multicast => 1,
            Self::Unicast => 2,
            Self::Bus => 3,
        }
    }

    /// Returns the transport with this code.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "transport",
                value: code.into(),
            })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_has_its_own_code() {
        for (at, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(transport.code()), at);
            assert_eq!(Transport::from_code(transport.code()), Ok(transport));
        }
        assert!(Transport::from_code(4).is_err());
    }
}
