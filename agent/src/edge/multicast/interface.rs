//! The interface on which a group is joined, by its name or by an address on it; it sends nothing.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use socket2::{InterfaceIndexOrAddress, SockRef};

/// IPv6 addresses of this machine, with the index and the name of their interface.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";

/// An interface of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interface {
    /// By its index.
    Index {
        /// The index.
        index: u32,
        /// For people.
        name: String,
    },
    /// The one that has this address: the kernel finds it.
    Address(Ipv4Addr),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { name, .. } => f.write_str(name),
            Self::Address(address) => write!(f, "the interface with {address}"),
        }
    }
}

impl Interface {
    /// Returns the interface of that name.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = name_to_index(any, name)?;
        let name = name.to_owned();
        Ok(Self::Index { index, name })
    }

    /// Returns the interface that has this address; `None` if none is known.
    pub(super) fn of(local: SocketAddr) -> Option<Self> {
        match local.ip() {
            IpAddr::V4(address) => Some(Self::Address(address)),
            IpAddr::V6(address) => {
                let addresses = fs::read_to_string(IPV6_ADDRESSES).ok()?;
                find(&addresses, address, scope(local))
            }
        }
    }

    /// Returns its index; 0, which is any, if only the kernel knows it.
    pub(super) fn index(&self) -> u32 {
        match self {
            Self::Index { index, .. } => *index,
            Self::Address(_) => 0,
        }
    }

    pub(super) fn join(&self, socket: &UdpSocket, group: IpAddr) -> io::Result<()> {
        let socket = SockRef::from(socket);
        match group {
            IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &self.v4()),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.index()),
        }
    }

    pub(super) fn leave(&self, socket: &UdpSocket, group: IpAddr) -> io::Result<()> {
        let socket = SockRef::from(socket);
        match group {
            IpAddr::V4(group) => socket.leave_multicast_v4_n(&group, &self.v4()),
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, self.index()),
        }
    }

    fn v4(&self) -> InterfaceIndexOrAddress {
        match self {
            Self::Index { index, .. } => InterfaceIndexOrAddress::Index(*index),
            Self::Address(address) => InterfaceIndexOrAddress::Address(*address),
        }
    }
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}

/// Finds an address in the kernel's list: `address index prefix scope flags name`, all but the name in
/// hexadecimal. The same address of one link may be on several interfaces: `scope` says on which, unless 0.
fn find(addresses: &str, wanted: Ipv6Addr, scope: u32) -> Option<Interface> {
    addresses.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        let name = fields.nth(3)?.to_owned();
        let is_it = address == wanted.to_bits() && (scope == 0 || scope == index);
        is_it.then_some(Interface::Index { index, name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
fe800000000000000000000000000001 1f 40 20 80     eth1
20010db8000000000000000000000005 1f 40 00 80     eth1
";

    #[test]
    fn finds_the_interface_of_an_address() {
        let found = |address: &str, scope| {
            let found = find(LIST, address.parse().unwrap(), scope);
            found.map(|interface| (interface.index(), interface.to_string()))
        };
        assert_eq!(found("::1", 0), Some((1, "lo".into())));
        assert_eq!(found("fe80::1", 31), Some((31, "eth1".into())));
        assert_eq!(found("2001:db8::5", 0), Some((31, "eth1".into())));
        assert_eq!(found("2001:db8::6", 0), None);
        assert_eq!(find("0 zz\n\nnonsense", Ipv6Addr::LOCALHOST, 0), None);
    }

    #[test]
    fn knows_the_machines_own_and_no_others() {
        let lo = Interface::named("lo").unwrap();
        assert_eq!((lo.index(), lo.to_string()), (1, "lo".to_owned()));
        assert!(Interface::named("no-such-one").is_err());
    }
}
