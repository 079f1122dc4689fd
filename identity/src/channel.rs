//! A connection of two halves for two threads, sealed or plain, over TCP or a Unix socket; it knows no message.

mod error;
mod halves;
mod handshake;
mod socket;
#[cfg(test)]
mod tests;

pub use error::HandshakeError;
pub use halves::{ReadHalf, WriteHalf};
pub use socket::{Closer, Socket};

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ClientConnection, Connection, ServerConnection};

use crate::certificate::{Peer, peer_identity};
use crate::folder::{ALPN, IdentityFolder};
use halves::Tls;

/// A connection whose two halves belong to two threads.
///
/// Both halves are busy at once without waiting for each other: neither holds the lock on the TLS state while it waits
/// for the socket. What TLS itself has to say later (the answer to a change of keys) goes out before the next bytes
/// that [`WriteHalf`] writes; the reading half never writes.
///
/// An end without TLS's own farewell counts as an ordinary end: our messages have lengths, so that nothing cut off is
/// taken for something whole.
#[derive(Debug)]
pub struct Channel {
    /// Reads; for one thread.
    pub reader: ReadHalf,
    /// Writes; for another one.
    pub writer: WriteHalf,
    socket: Arc<Socket>,
    peer: Option<Peer>,
}

impl Channel {
    /// Opens TLS as a client of a location service in our cluster, whatever address it was connected to.
    ///
    /// The whole handshake must be done `within` that time. Time-outs of the socket are afterwards as they were before.
    /// A server that refuses *us* says so only after the handshake: the first read brings its reason.
    ///
    /// # Errors
    /// [`HandshakeError`] says who refused whom, and why. The socket is closed.
    pub fn connect(
        socket: impl Into<Socket>,
        folder: &IdentityFolder,
        within: Duration,
    ) -> Result<Self, HandshakeError> {
        let connection = ClientConnection::new(folder.client(), folder.locsvc());
        let connection = Connection::from(connection.map_err(HandshakeError::Tls)?);
        Self::open(connection, socket.into(), within)
    }

    /// Opens TLS as a server for anybody of our cluster; the caller looks at [`Self::peer`] whether they may.
    ///
    /// The whole handshake must be done `within` that time, so that a slow caller costs a thread no longer.
    ///
    /// # Errors
    /// [`HandshakeError`] says who refused whom, and why. The socket is closed.
    pub fn accept(
        socket: impl Into<Socket>,
        folder: &IdentityFolder,
        within: Duration,
    ) -> Result<Self, HandshakeError> {
        let connection = ServerConnection::new(folder.server());
        let connection = Connection::from(connection.map_err(HandshakeError::Tls)?);
        Self::open(connection, socket.into(), within)
    }

    /// Returns the same halves without TLS, where a configuration says `insecure = true`.
    pub fn plain(socket: impl Into<Socket>) -> Self {
        let socket = Arc::new(socket.into());
        Self {
            reader: ReadHalf::plain(Arc::clone(&socket)),
            writer: WriteHalf::plain(Arc::clone(&socket)),
            socket,
            peer: None,
        }
    }

    fn open(
        mut connection: Connection,
        socket: Socket,
        within: Duration,
    ) -> Result<Self, HandshakeError> {
        let (read_timeout, write_timeout) = (socket.read_timeout()?, socket.write_timeout()?);
        handshake::run(&mut connection, &socket, within)?;
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(HandshakeError::OtherProtocol);
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = peer_identity(chain).map_err(HandshakeError::Peer)?;
        socket.set_read_timeout(read_timeout)?;
        socket.set_write_timeout(write_timeout)?;
        // What is written leaves at once; the limit would only make it be refused.
        connection.set_buffer_limit(None);
        let socket = Arc::new(socket);
        let tls = Tls::from(Arc::new(Mutex::new(connection)));
        Ok(Self {
            reader: ReadHalf::tls(Arc::clone(&socket), tls.clone()),
            writer: WriteHalf::tls(Arc::clone(&socket), tls),
            socket,
            peer: Some(peer),
        })
    }

    /// Returns who is at the other end, as their verified certificate says; `None` without TLS.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Returns the socket, for its options.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Returns what ends both halves from a third thread.
    pub fn closer(&self) -> Closer {
        Closer::new(Arc::clone(&self.socket))
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
