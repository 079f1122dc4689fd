//! The listeners: a TCP port, and the socket files of the bus; it reads nothing of a connection.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use locus_distribution::{BusSide, Medium};
use locus_identity::Socket;
use socket2::{SockRef, TcpKeepalive};

use super::connection::{self, Guest};
use super::{Shared, StartUnicastError};
use crate::event::{self, Event};

/// Which bus each path of the configuration is.
pub(super) const SIDES: [BusSide; 2] = [BusSide::A, BusSide::B];
/// The agents of other boards run under a group that both know.
const BUS_MODE: u32 = 0o660;
/// A host that vanished is noticed within 25 s though nothing is sent to it.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_RETRIES: u32 = 3;
/// Pause after an accept that failed, for instance because there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where nodes come from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Bus(UnixListener, BusSide, SocketFile),
}

/// The file of a Unix socket; it goes with this.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number: another's file of the same name is left alone.
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours {
            fs::remove_file(&self.path).ok(); // the next start finds it stale
        }
    }
}

impl Listener {
    pub(super) fn tcp(listen: SocketAddr) -> Result<(Self, SocketAddr), StartUnicastError> {
        let failed = |source| StartUnicastError::Tcp { listen, source };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok((Self::Tcp(listener, address), address))
    }

    /// Makes a socket file; one that nobody listens on is replaced.
    pub(super) fn bus(path: &Path, side: BusSide) -> Result<Self, StartUnicastError> {
        let failed = |source| StartUnicastError::Bus {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(StartUnicastError::NoSocket(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                // Full, or not ours to connect to: somebody is there.
                Ok(_) | Err(_) => return Err(StartUnicastError::BusTaken(path.to_owned())),
            },
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        let file = SocketFile {
            path: path.to_owned(),
            inode: (made.dev(), made.ino()),
        };
        fs::set_permissions(path, Permissions::from_mode(BUS_MODE)).map_err(failed)?;
        Ok(Self::Bus(listener, side, file))
    }

    pub(super) fn failed(&self, source: io::Error) -> StartUnicastError {
        match self {
            Self::Tcp(_, listen) => StartUnicastError::Tcp {
                listen: *listen,
                source,
            },
            Self::Bus(_, _, file) => StartUnicastError::Bus {
                path: file.path.clone(),
                source,
            },
        }
    }

    /// Wakes whoever waits for a connection, for good.
    pub(super) fn shutdown(&self) {
        let shut = match self {
            Self::Tcp(listener, _) => SockRef::from(listener).shutdown(Shutdown::Both),
            Self::Bus(listener, _, _) => SockRef::from(listener).shutdown(Shutdown::Both),
        };
        drop(shut); // it is shut already otherwise
    }

    fn accept(&self) -> io::Result<Guest> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                let keep_alive = TcpKeepalive::new()
                    .with_time(KEEP_ALIVE_IDLE)
                    .with_interval(KEEP_ALIVE_EVERY)
                    .with_retries(KEEP_ALIVE_RETRIES);
                SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
                let again = Socket::from(stream.try_clone()?);
                Ok(Guest {
                    socket: stream.into(),
                    again,
                    address: address.to_string(),
                    medium: Medium::Tcp,
                })
            }
            Self::Bus(listener, side, _) => {
                let (stream, _) = listener.accept()?;
                let again = Socket::from(stream.try_clone()?);
                let medium = Medium::Bus(*side);
                Ok(Guest {
                    socket: stream.into(),
                    again,
                    address: match side {
                        BusSide::A => "bus-a",
                        BusSide::B => "bus-b",
                    }
                    .to_owned(),
                    medium,
                })
            }
        }
    }
}

/// Accepts until it is stopped.
pub(super) fn accept(listener: &Listener, shared: &Arc<Shared>, stopped: &Receiver<()>) {
    loop {
        let accepted = listener.accept();
        if stopped.try_recv().is_ok() {
            return;
        }
        let begun = accepted.and_then(|guest| connection::begin(guest, shared));
        if let Err(error) = begun {
            if let Some(suppressed) = shared.permit() {
                event::emit(&Event::AcceptFailed {
                    reason: error.to_string(),
                    suppressed,
                });
            }
            if stopped.recv_timeout(ACCEPT_PAUSE).is_ok() {
                return;
            }
        }
    }
}
