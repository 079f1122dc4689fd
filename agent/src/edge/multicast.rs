//! The master's group: the sockets on which it is heard and answered; it reads no datagram and decides nothing.
//!
//! A thread reads what comes for the group, and what the master sends to this node alone, and hands both over in
//! the order in which they came. It refuses unread what does not come from the master's address.

mod interface;
mod reading;
#[cfg(test)]
mod tests;

pub use reading::DATAGRAMS_MAX;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Clock;
use crate::core::{Input, Membership};
use crate::event::{Complaints, Event};
use interface::Interface;
use reading::Reading;

/// Bytes of datagrams that wait in the kernel, as it counts them: those of a third of a second at 200 Mbit/s.
pub const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Why the group cannot be joined; all for the operator.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("{0} is no multicast address; see `group` in locsvc.toml")]
    NoGroup(SocketAddr),
    #[error(
        "the group {group} is not of the address family of locsvc ({master}); reach it by an address of the \
         same, or give it another group"
    )]
    Family {
        group: SocketAddr,
        master: SocketAddr,
    },
    #[error(
        "no interface is known for {0}; set multicast_interface in agent.toml to the one that leads to locsvc"
    )]
    NoInterface(IpAddr),
    #[error("multicast_interface = {name:?} cannot be used; `ip link` shows what there is")]
    Interface {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the group {group} cannot be joined on {interface}; does `ip link` show MULTICAST there?"
    )]
    Join {
        group: SocketAddr,
        interface: Interface,
        #[source]
        source: io::Error,
    },
    #[error("no socket for the group {group}")]
    Socket {
        group: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A group that was joined.
#[derive(Debug)]
struct Joined {
    membership: Membership,
    group: SocketAddr,
    interface: Interface,
    /// Bound to the group's address: what is sent to other groups, or to this node, stays out.
    socket: Arc<UdpSocket>,
    /// Bound to this node's address: what it says leaves here, and what is repaired for it alone comes here.
    own: Arc<UdpSocket>,
    master: SocketAddr,
    /// Tells the reading thread to end.
    ended: Arc<AtomicBool>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        // At once, though the thread keeps the socket until it looks: nothing more is to come.
        self.interface.leave(&self.socket, self.group.ip()).ok();
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The group, of which there is one at a time.
#[derive(Debug)]
pub(super) struct Group {
    inputs: Sender<Input>,
    clock: Clock,
    /// What the configuration names.
    interface: Option<String>,
    joined: Option<Joined>,
    /// A small receive buffer was told of.
    warned: bool,
    unsent: Complaints,
}

impl Group {
    /// Returns the edge; it reports to `inputs`, and waits where that channel is full.
    pub(super) fn new(inputs: Sender<Input>, clock: Clock, interface: Option<String>) -> Self {
        Self {
            inputs,
            clock,
            interface,
            joined: None,
            warned: false,
            unsent: Complaints::default(),
        }
    }

    /// Joins `group` in place of any other; returns an input if it cannot.
    pub(super) fn join(
        &mut self,
        membership: Membership,
        group: SocketAddr,
        local: SocketAddr,
        master: SocketAddr,
    ) -> Option<Input> {
        self.joined = None;
        match self.try_join(membership, group, canonical(local), canonical(master)) {
            Ok(joined) => {
                let interface = joined.interface.to_string();
                Event::GroupJoined { group, interface }.log();
                self.joined = Some(joined);
                None
            }
            Err(error) => {
                let reason = crate::event::with_causes(&error);
                Some(Input::GroupFailed { membership, reason })
            }
        }
    }

    /// Leaves the group and joins it again, if there is one; returns an input if it cannot.
    pub(super) fn rejoin(&mut self) -> Option<Input> {
        let joined = self.joined.as_ref()?;
        let group = joined.group;
        // Where the interface went away and came back, the kernel has forgotten the membership already.
        joined.interface.leave(&joined.socket, group.ip()).ok();
        let source = joined.interface.join(&joined.socket, group.ip()).err()?;
        let (interface, membership) = (joined.interface.clone(), joined.membership);
        self.joined = None;
        let error = JoinError::Join {
            group,
            interface,
            source,
        };
        let reason = crate::event::with_causes(&error);
        Some(Input::GroupFailed { membership, reason })
    }

    /// Leaves the group.
    pub(super) fn leave(&mut self) {
        self.joined = None;
    }

    /// Sends a datagram to the master, if that membership lasts. Never waits: what is not sent is lost, as a
    /// network may lose it.
    pub(super) fn send(&mut self, membership: Membership, datagram: &[u8]) {
        let Some(joined) = &self.joined else { return };
        if joined.membership != membership {
            return;
        }
        if let Err(error) = joined.own.send_to(datagram, joined.master)
            && let Some(count) = self.unsent.count(self.clock.now())
        {
            let (master, reason) = (joined.master, error.to_string());
            Event::GroupUnsent {
                count,
                master,
                reason,
            }
            .log();
        }
    }

    fn try_join(
        &mut self,
        membership: Membership,
        group: SocketAddr,
        local: SocketAddr,
        master: SocketAddr,
    ) -> Result<Joined, JoinError> {
        if !group.ip().is_multicast() {
            return Err(JoinError::NoGroup(group));
        }
        if group.is_ipv4() != master.is_ipv4() || local.is_ipv4() != master.is_ipv4() {
            return Err(JoinError::Family { group, master });
        }
        let interface = match &self.interface {
            Some(name) => Interface::named(name).map_err(|source| JoinError::Interface {
                name: name.clone(),
                source,
            })?,
            None => Interface::of(local).ok_or_else(|| JoinError::NoInterface(local.ip()))?,
        };
        let no_socket = |source| JoinError::Socket { group, source };
        let socket = bind(on(group, &interface)).map_err(no_socket)?;
        let own = bind(with_port(local, 0)).map_err(no_socket)?;
        self.make_room(&socket);
        self.make_room(&own);
        let (socket, own) = (Arc::new(UdpSocket::from(socket)), Arc::new(own.into()));
        interface
            .join(&socket, group.ip())
            .map_err(|source| JoinError::Join {
                group,
                interface: interface.clone(),
                source,
            })?;
        let ended = Arc::new(AtomicBool::new(false));
        // From here on it is left again, also when the thread cannot be had.
        let joined = Joined {
            membership,
            group,
            interface,
            socket,
            own,
            master,
            ended,
        };
        let reading = Reading {
            membership,
            group,
            sockets: [Arc::clone(&joined.socket), Arc::clone(&joined.own)],
            master: master.ip(),
            ended: Arc::clone(&joined.ended),
            inputs: self.inputs.clone(),
            clock: self.clock,
        };
        reading.start().map_err(no_socket)?;
        Ok(joined)
    }

    /// Gives a socket a buffer for what comes while this process has no processor.
    fn make_room(&mut self, socket: &Socket) {
        if set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_ok() {
            return;
        }
        // Not root: the system's limit holds, and the kernel says nothing when it cuts.
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).ok();
        // The kernel counts its own part of each datagram too, and shows twice what was asked for.
        let bytes = socket.recv_buffer_size().unwrap_or(0) / 2;
        if bytes < RECEIVE_BUFFER_BYTES && !self.warned {
            self.warned = true;
            let wanted = RECEIVE_BUFFER_BYTES;
            Event::GroupBufferSmall { bytes, wanted }.log();
        }
    }
}

/// Returns a socket bound to `address`.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.ip().is_multicast() {
        // Another agent on this machine, or this one before a moment: each gets a datagram of its own.
        socket.set_reuse_address(true)?;
        match address {
            // What another process joined on another interface is not for this socket.
            SocketAddr::V4(_) => socket.set_multicast_all_v4(false)?,
            SocketAddr::V6(_) => socket.set_multicast_all_v6(false)?,
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Returns an address without the IPv4 in IPv6 of sockets that listen for both.
fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(_), SocketAddr::V6(_)) => address,
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}

/// Returns the group's address as a socket is bound to it: a group of one link is one of an interface.
fn on(group: SocketAddr, interface: &Interface) -> SocketAddr {
    match group {
        SocketAddr::V4(_) => group,
        SocketAddr::V6(group) => {
            SocketAddrV6::new(*group.ip(), group.port(), 0, interface.index()).into()
        }
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}
