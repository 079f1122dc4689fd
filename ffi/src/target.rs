//! One destination of a request, with all that a binding may say about how to reach it.
//!
//! It knows the fields Kamailio takes; it does not know where they come from.

use crate::bindings::shim_target_t;
use crate::text;

/// A destination; an empty text or `None` means that nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// The new Request-URI.
    pub uri: &'t [u8],
    /// Address from which it registered: the next hop, unless there is a path.
    pub received: &'t [u8],
    /// Path to it (RFC 3327), one or more `<uri>` separated by commas.
    pub path: &'t [u8],
    /// `+sip.instance`.
    pub instance: &'t [u8],
    /// `proto:host:port` from which to send; used when it is one of this server's sockets.
    pub socket: &'t [u8],
    /// User-Agent that registered it.
    pub user_agent: &'t [u8],
    /// `reg-id` (RFC 5626); 0 when there is none.
    pub reg_id: u32,
    /// Preference from 0 to 1000; `None` when unspecified.
    pub q: Option<u16>,
    /// Branch flags to set.
    pub flags: u32,
    /// Connection over which it registered, when that is one of this server's.
    pub tcp_connection: Option<i32>,
}

impl<'t> Target<'t> {
    /// Returns a target that is a URI and nothing else.
    #[must_use]
    pub const fn uri(uri: &'t [u8]) -> Self {
        Self {
            uri,
            received: &[],
            path: &[],
            instance: &[],
            socket: &[],
            user_agent: &[],
            reg_id: 0,
            q: None,
            flags: 0,
            tcp_connection: None,
        }
    }

    /// The C form; it points to the texts of `self` and is used before they can go away.
    pub(crate) fn to_shim(self) -> shim_target_t {
        shim_target_t {
            uri: text::view(self.uri),
            received: text::view(self.received),
            path: text::view(self.path),
            instance: text::view(self.instance),
            socket: text::view(self.socket),
            user_agent: text::view(self.user_agent),
            reg_id: self.reg_id,
            q: self.q.map_or(-1, i32::from),
            flags: self.flags,
            tcp_connection: self.tcp_connection.unwrap_or(-1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_says_so_in_c() {
        let plain = Target::uri(b"sip:a@b").to_shim();
        assert_eq!((plain.q, plain.tcp_connection, plain.reg_id), (-1, -1, 0));
        assert!(plain.path.s.is_null() && plain.received.s.is_null());
        let full = Target {
            q: Some(500),
            tcp_connection: Some(7),
            ..Target::uri(b"sip:a@b")
        }
        .to_shim();
        assert_eq!((full.q, full.tcp_connection), (500, 7));
    }
}
