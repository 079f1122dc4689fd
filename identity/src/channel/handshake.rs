//! Runs a handshake on a blocking socket within a total time; it judges nobody.

use std::io::{self, Read};
use std::net::Shutdown;
use std::time::Duration;

use rustls::Connection;

use super::{HandshakeError, Socket};
use crate::clock::Deadline;

/// Longest wait for the other side to take notice that we refused it.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Most that is read and thrown away meanwhile.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// Runs the handshake to its end.
///
/// `within` bounds all of it, not each read: a caller that sends a byte now and then gains no time.
pub(super) fn run(
    connection: &mut Connection,
    socket: &Socket,
    within: Duration,
) -> Result<(), HandshakeError> {
    let deadline = Deadline::after(within);
    let slow = |error: io::Error| {
        if is_timeout(&error) {
            HandshakeError::TooSlow(within)
        } else {
            HandshakeError::Io(error)
        }
    };
    let left = || deadline.left().ok_or(HandshakeError::TooSlow(within));
    loop {
        if connection.wants_write() {
            socket.set_write_timeout(Some(left()?))?;
            match connection.write_tls(&mut &*socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(slow(error)),
            }
            continue;
        }
        if !connection.is_handshaking() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left()?))?;
        match connection.read_tls(&mut &*socket) {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(slow(error)),
        }
        if let Err(error) = connection.process_new_packets() {
            farewell(connection, socket, deadline).ok();
            return Err(error.into());
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Tells the other side why, and lets it read that before the socket goes.
///
/// A socket that is closed while bytes lie unread in it is reset, and the reset takes our alert with it. So what
/// still comes is read and thrown away, for a short while.
fn farewell(connection: &mut Connection, socket: &Socket, deadline: Deadline) -> io::Result<()> {
    let over = || io::Error::from(io::ErrorKind::TimedOut);
    while connection.wants_write() {
        socket.set_write_timeout(Some(deadline.left().ok_or_else(over)?))?;
        connection.write_tls(&mut &*socket)?;
    }
    socket.shutdown(Shutdown::Write)?;
    let farewell = Deadline::after(FAREWELL_MAX);
    let mut waste = [0; 4096];
    let mut wasted = 0;
    while wasted < FAREWELL_BYTES_MAX {
        let left = farewell.left().zip(deadline.left());
        let (one, other) = left.ok_or_else(over)?;
        socket.set_read_timeout(Some(one.min(other)))?;
        match (&mut &*socket).read(&mut waste)? {
            0 => return Ok(()),
            len => wasted += len,
        }
    }
    Ok(())
}
