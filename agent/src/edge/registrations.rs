//! The Unix datagram socket on which Kamailio's workers hand in registrations; it judges none of them.

use std::fs::{self, Permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use locus_proto::Message;
use rustix::net::{SendFlags, SocketAddrUnix, sendto};

use crate::clock::Clock;
use crate::core::{Client, Input};
use crate::event::{Complaints, Event};

/// Longest datagram in bytes; the largest registration has 20 KiB.
pub const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Pause after a read that the system refused.
const PAUSE: Duration = Duration::from_millis(10);
/// Workers run under Kamailio's user, which shares the agent's group.
const SOCKET_MODE: u32 = 0o660;

/// Why the socket cannot be used; all for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindSocketError {
    /// Another process listens there.
    #[error("{} is in use by another process; stop it or set another socket", .0.display())]
    InUse(PathBuf),
    /// Something else stands at the path.
    #[error("{} exists and is not a socket; remove it or set another socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct RegistrationSocket {
    socket: Arc<UnixDatagram>,
    path: PathBuf,
}

impl RegistrationSocket {
    /// Binds the socket; takes the place of one that a dead process left behind.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindSocketError> {
        let failed = |source| BindSocketError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindSocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => {
                let probe = UnixDatagram::unbound().map_err(failed)?;
                if probe.connect(path).is_ok() {
                    return Err(BindSocketError::InUse(path.to_owned()));
                }
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixDatagram::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self {
            socket: Arc::new(socket),
            path: path.to_owned(),
        })
    }

    /// Starts the thread that reads datagrams into `inputs`; it waits where that channel is full, and
    /// so do then, for as long as they care to, the workers.
    pub(crate) fn read_into(&self, inputs: Sender<Input>, clock: Clock) -> io::Result<()> {
        let socket = Arc::clone(&self.socket);
        thread::Builder::new()
            .name("registrations".into())
            .spawn(move || read_all(&socket, &inputs, clock))?;
        Ok(())
    }

    /// Sends `message` to `client`. Never waits: a worker whose queue is full is not reading it.
    pub(crate) fn send(&self, client: &Client, message: &Message) -> io::Result<()> {
        let address = match client {
            Client::Path(path) => SocketAddrUnix::new(path.as_path())?,
            Client::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        };
        sendto(
            &self.socket,
            &message.to_bytes(),
            SendFlags::DONTWAIT,
            &address,
        )?;
        Ok(())
    }
}

impl Drop for RegistrationSocket {
    fn drop(&mut self) {
        // For tidiness alone: nobody listens behind a file that stays, and that is met at once too.
        fs::remove_file(&self.path).ok();
    }
}

fn read_all(socket: &UnixDatagram, inputs: &Sender<Input>, clock: Clock) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut complaints = Complaints::default();
    loop {
        let outcome = match socket.recv_from(&mut buffer) {
            Ok((len, from)) => understand(&buffer[..len], &from),
            Err(error) => {
                // The system is short of something; no reason to spin.
                thread::park_timeout(PAUSE);
                Err(error.to_string())
            }
        };
        match outcome {
            Ok(input) => {
                if inputs.send(input).is_err() {
                    return;
                }
            }
            Err(reason) => {
                if let Some(count) = complaints.count(clock.now()) {
                    Event::DatagramsRefused { count, reason }.log();
                }
            }
        }
    }
}

/// Returns the registration in a datagram, or why there is none.
fn understand(bytes: &[u8], from: &SocketAddr) -> Result<Input, String> {
    let client = match (from.as_pathname(), from.as_abstract_name()) {
        (Some(path), _) => Client::Path(path.to_owned()),
        (None, Some(name)) => Client::Abstract(name.to_owned()),
        (None, None) => return Err("the sender has no address to answer to".into()),
    };
    match Message::from_bytes(bytes) {
        Ok(Message::Register {
            ticket,
            registration,
        }) => Ok(Input::Registration {
            client,
            ticket,
            registration,
        }),
        Ok(
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Rejection(_)
            | Message::Frame(_)
            | Message::SnapshotBegin(_)
            | Message::SnapshotPart(_)
            | Message::SnapshotEnd(_)
            | Message::Heartbeat(_)
            | Message::Status(_)
            | Message::AuditAsk(_)
            | Message::AuditSums(_)
            | Message::AuditRecords(_)
            | Message::AuditRefused(_)
            | Message::AuditOrder(_)
            | Message::AuditReport(_)
            | Message::GroupOffer(_)
            | Message::GroupKey(_)
            | Message::GroupHeard(_)
            | Message::GroupCut(_)
            | Message::GroupEnd(_)
            | Message::GroupLeft(_)
            | Message::Registered { .. },
        ) => Err("not a registration".into()),
        Err(error) => Err(error.to_string()),
    }
}
