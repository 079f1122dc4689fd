//! Opens one way to a locsvc: a stream over TCP or a bus, and proves on it who both are; it sends no message.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use locus_identity::{Channel, IdentityFolder, Socket};
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};

use crate::core::{Address, Ends};

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait until both have proved who they are.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time that one write may be stuck before the connection counts as dead.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens the way to `address`; returns also where its ends are in the network.
///
/// # Errors
/// What the system, or the handshake, says: for people.
pub(super) fn open(
    address: &Address,
    identity: Option<&IdentityFolder>,
) -> io::Result<(Channel, Option<Ends>)> {
    let (socket, ends) = match address {
        Address::Tcp(address) => tcp(*address)?,
        Address::BusA(path) | Address::BusB(path) => (bus(path)?, None),
    };
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let channel = match identity {
        Some(folder) => {
            Channel::connect(socket, folder, HANDSHAKE_TIMEOUT).map_err(io::Error::other)?
        }
        None => Channel::plain(socket),
    };
    Ok((channel, ends))
}

fn tcp(address: SocketAddr) -> io::Result<(Socket, Option<Ends>)> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    // Belt and braces: the core closes a connection that is silent for 3 s, the kernel one whose
    // other end is gone.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let ends = Ends {
        local: stream.local_addr()?,
        remote: stream.peer_addr()?,
    };
    Ok((stream.into(), Some(ends)))
}

fn bus(path: &Path) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // This bounds the wait for a place in the listener's queue, too.
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(UnixStream::from(socket).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::other(
            "there is no such socket; locsvc makes it where distribution.bus in locsvc.toml names it, and its \
             folder must be seen here",
        )),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::other(
            "nobody took the connection in time: locsvc does not run, or is stuck",
        )),
        Err(error) => Err(error),
    }
}
