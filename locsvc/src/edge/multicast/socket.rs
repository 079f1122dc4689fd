//! The group's socket, opened: its interface, how far it reaches, its buffer, its port. It sends nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::MulticastConfig;

/// Datagrams leave in bursts of what was gathered in 2 ms, and repairs with them: 4 MiB are some 150 ms at
/// the default rate. What does not fit is lost, and repaired.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Where Linux lists the IPv6 addresses of this host.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";

/// Returned when the group cannot be served. The operator changes `[distribution.multicast]` or the machine.
#[derive(Debug, thiserror::Error)]
pub enum StartMulticastError {
    /// No such interface.
    #[error(
        "there is no interface {name} (distribution.multicast.interface); `ip -brief address` lists those \
         there are"
    )]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// No interface has the address.
    #[error(
        "no interface has the address {0} (distribution.listen): name the one for the group in \
         distribution.multicast.interface"
    )]
    NoAddress(IpAddr),
    /// The system refuses the socket.
    #[error("cannot send to the group {group} (distribution.multicast.group)")]
    Socket {
        /// The group.
        group: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port is taken.
    #[error("cannot listen on UDP port {port} (distribution.multicast.port)")]
    Bind {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The group's socket before it is served: its port stands in what nodes are offered.
#[derive(Debug)]
pub struct GroupSocket {
    pub(super) socket: UdpSocket,
    pub(super) group: SocketAddr,
    port: u16,
}

/// By which interface the group is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the one with this number.
    Index(u32),
    /// By the one with this address.
    Address(Ipv4Addr),
}

impl GroupSocket {
    /// Opens the socket: sends to the group by one interface and no further than its link, hears what comes
    /// to the port on every address.
    ///
    /// # Errors
    /// [`StartMulticastError`].
    pub fn open(config: &MulticastConfig, listen: SocketAddr) -> Result<Self, StartMulticastError> {
        let group = config.group;
        let failed = |source| StartMulticastError::Socket { group, source };
        let kind = (Domain::for_address(group), Type::DGRAM.nonblocking());
        let socket = Socket::new(kind.0, kind.1, Some(Protocol::UDP)).map_err(failed)?;
        let way = way(config, listen, &socket)?;
        let any: IpAddr = match group {
            SocketAddr::V4(group) => {
                let set = match way {
                    Way::Address(address) => {
                        let set = socket.set_multicast_if_v4(&address);
                        if set
                            .as_ref()
                            .is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
                        {
                            return Err(StartMulticastError::NoAddress(address.into()));
                        }
                        set
                    }
                    Way::Index(index) => {
                        let unsaid = Ipv4Addr::UNSPECIFIED;
                        sockopt::set_ip_multicast_if_with_ifindex(
                            &socket,
                            group.ip(),
                            &unsaid,
                            index,
                        )
                        .map_err(io::Error::from)
                    }
                };
                set.map_err(failed)?;
                socket.set_multicast_ttl_v4(1).map_err(failed)?;
                // A node on this host is a node like any other.
                socket.set_multicast_loop_v4(true).map_err(failed)?;
                Ipv4Addr::UNSPECIFIED.into()
            }
            SocketAddr::V6(_) => {
                let Way::Index(index) = way else {
                    return Err(StartMulticastError::NoAddress(listen.ip()));
                };
                socket.set_only_v6(true).map_err(failed)?;
                socket.set_multicast_if_v6(index).map_err(failed)?;
                socket.set_multicast_hops_v6(1).map_err(failed)?;
                socket.set_multicast_loop_v6(true).map_err(failed)?;
                Ipv6Addr::UNSPECIFIED.into()
            }
        };
        // Beyond the system's limit if this process may, else up to it.
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER_BYTES).is_err() {
            socket
                .set_send_buffer_size(SEND_BUFFER_BYTES)
                .map_err(failed)?;
        }
        let port = config.port;
        let bind = |source| StartMulticastError::Bind { port, source };
        socket
            .bind(&SocketAddr::new(any, port).into())
            .map_err(bind)?;
        let socket = UdpSocket::from(socket);
        let port = socket.local_addr().map_err(failed)?.port();
        Ok(Self {
            socket,
            group,
            port,
        })
    }

    /// Returns the port to which nodes report.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn way(
    config: &MulticastConfig,
    listen: SocketAddr,
    socket: &Socket,
) -> Result<Way, StartMulticastError> {
    match (&config.interface, listen.ip()) {
        (Some(name), _) => {
            let index = name_to_index(socket, name);
            let name = name.clone();
            index
                .map(Way::Index)
                .map_err(|_| StartMulticastError::NoInterface { name })
        }
        (None, IpAddr::V4(address)) => Ok(Way::Address(address)),
        (None, address @ IpAddr::V6(wanted)) => {
            let lists = fs::read_to_string(IPV6_ADDRESSES).unwrap_or_default();
            let index = index_of(&lists, wanted);
            index
                .map(Way::Index)
                .ok_or(StartMulticastError::NoAddress(address))
        }
    }
}

/// Returns the number of the interface that has `wanted`, by the kernel's list: address, number, length of
/// the prefix, scope, flags, name.
pub(super) fn index_of(list: &str, wanted: Ipv6Addr) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        (Ipv6Addr::from(address) == wanted).then_some(index)
    })
}
