//! Counts the queries by which a switch or router asks for members; only root may, others learn nothing.

use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Number of IGMP among the protocols of IPv4.
const IGMP: i32 = 2;
/// IGMP's general query (RFC 3376 §4.1), behind the IPv4 header.
const IGMP_QUERY: u8 = 0x11;
/// MLD's query (RFC 3810 §5.1).
const MLD_QUERY: u8 = 130;

/// Sees each query that reaches this host.
#[derive(Debug)]
pub(super) struct Queries {
    socket: Socket,
    is_v4: bool,
    seen: u32,
}

impl Queries {
    /// Returns `None` where this user may not open such a socket.
    pub(super) fn watch(group: SocketAddr) -> Option<Self> {
        let is_v4 = group.is_ipv4();
        let protocol = if is_v4 {
            Protocol::from(IGMP)
        } else {
            Protocol::ICMPV6
        };
        let socket = Socket::new(Domain::for_address(group), Type::RAW, Some(protocol)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self {
            socket,
            is_v4,
            seen: 0,
        })
    }

    /// Returns how many have come until now.
    pub(super) fn count(&mut self) -> u32 {
        let mut packet = [0; 256];
        loop {
            match self.socket.read(&mut packet) {
                Ok(length) if is_query(&packet[..length], self.is_v4) => {
                    self.seen = self.seen.saturating_add(1);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.seen, // nothing waits
            }
        }
    }
}

/// Whether a packet is a query: IPv4 comes with its header, IPv6 without.
fn is_query(packet: &[u8], is_v4: bool) -> bool {
    let header = match packet.first() {
        Some(first) if is_v4 => usize::from(first & 0x0f) * 4,
        Some(_) | None => 0,
    };
    let kind = packet.get(header).copied();
    kind == Some(if is_v4 { IGMP_QUERY } else { MLD_QUERY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_told_from_a_report() {
        let mut igmp = vec![0x46; 24]; // a header with the router-alert option
        igmp.extend([0x11, 100, 0, 0, 0, 0, 0, 0]);
        assert!(is_query(&igmp, true));
        igmp[24] = 0x22; // a report
        assert!(!is_query(&igmp, true));
        assert!(is_query(&[130, 0, 0, 0], false));
        assert!(!is_query(&[143, 0, 0, 0], false));
        assert!(!is_query(&[], true) && !is_query(&[0x4f], true));
    }
}
