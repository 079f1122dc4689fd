//! One connection at a time to a locsvc, sealed or plain, over TCP or a bus; it understands no message and
//! decides no reconnection.

mod way;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select, tick};
use locus_identity::{Channel, IdentityFolder, Peer, ReadHalf, WriteHalf};
use locus_proto::{Deframer, Message, WireVersion};

use super::identity::IDENTITY_EVERY;
use crate::core::{Address, Connection, Input};
pub use way::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, WRITE_TIMEOUT};

/// Most messages that wait to be written; above it the connection counts as dead. Twice the
/// registrations that may be pending.
pub const OUTGOING_MAX: usize = 8192;

const READ_BYTES: usize = 256 * 1024;

/// Opens, writes and closes connections; what they bring goes into the inputs of the core.
///
/// Each connection has a thread that reads and one that writes. Both end by themselves soon after
/// [`Self::close`]; what they still report names a connection that the core no longer knows.
#[derive(Debug)]
pub(crate) struct Links {
    inputs: Sender<Input>,
    /// Who this node is; without it nothing is sealed.
    identity: Option<Arc<IdentityFolder>>,
    open: Option<Open>,
}

/// The connection that is followed, or the attempt at one.
#[derive(Debug)]
struct Open {
    connection: Connection,
    /// When it goes, the writer ends behind what waits.
    outgoing: Sender<Vec<u8>>,
    /// Has the writer end before that.
    given_up: Arc<AtomicBool>,
}

/// What the writer of a connection takes.
struct Queue {
    bytes: Receiver<Vec<u8>>,
    given_up: Arc<AtomicBool>,
}

impl Links {
    /// Returns the edge; it reports to `inputs`, and waits where that channel is full.
    pub(crate) fn new(inputs: Sender<Input>, identity: Option<Arc<IdentityFolder>>) -> Self {
        Self {
            inputs,
            identity,
            open: None,
        }
    }

    /// Begins to connect to `master`; reports `Connected`, or `Closed` if it comes to nothing.
    ///
    /// Returns what it cannot report: the caller empties that channel, and must not wait for itself.
    pub(crate) fn connect(&mut self, connection: Connection, master: Address) -> Option<Input> {
        let (outgoing, bytes) = bounded(OUTGOING_MAX);
        let given_up = Arc::new(AtomicBool::new(false));
        let queue = Queue {
            bytes,
            given_up: Arc::clone(&given_up),
        };
        let inputs = self.inputs.clone();
        let identity = self.identity.clone();
        let reader = thread::Builder::new().name("locsvc-read".into());
        let spawned = reader.spawn(move || {
            let reason = match serve(connection, &master, identity, queue, &inputs) {
                Ok(()) => "the other side closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            report(&inputs, Input::Closed { connection, reason });
        });
        match spawned {
            Ok(_) => {
                self.open = Some(Open {
                    connection,
                    outgoing,
                    given_up,
                });
                None
            }
            Err(error) => {
                self.open = None;
                let reason = format!("no thread for the connection: {error}");
                Some(Input::Closed { connection, reason })
            }
        }
    }

    /// Begins to look which of `addresses` is the first that is open; reports `Probed`, or returns it if it
    /// cannot.
    pub(crate) fn probe(&self, probe: u64, addresses: Vec<Address>) -> Option<Input> {
        let inputs = self.inputs.clone();
        let identity = self.identity.clone();
        let prober = thread::Builder::new().name("locsvc-probe".into());
        let spawned = prober.spawn(move || {
            let is_open = |address: &Address| way::open(address, identity.as_deref()).is_ok();
            let open = addresses.into_iter().find(is_open);
            report(&inputs, Input::Probed { probe, open });
        });
        let open = None;
        spawned.err().map(|_| Input::Probed { probe, open })
    }

    /// Sends `message` in `version` over `connection`, if that is still the open one. Never waits.
    pub(crate) fn send(&mut self, connection: Connection, version: WireVersion, message: &Message) {
        let Some(open) = &self.open else {
            return;
        };
        if open.connection != connection {
            return;
        }
        match open.outgoing.try_send(message.to_bytes_in(version)) {
            Ok(()) => {}
            // Too slow, or ended already: its reader reports that it is closed.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                open.given_up.store(true, Ordering::Relaxed);
                self.open = None;
            }
        }
    }

    /// Closes `connection`, if that is still the open one.
    pub(crate) fn close(&mut self, connection: Connection) {
        // The writer sees that its queue has no sender any more and shuts the socket down.
        self.open.take_if(|open| open.connection == connection);
    }
}

/// Hands an input over; fails only while the process ends, when nobody listens any more.
fn report(inputs: &Sender<Input>, input: Input) {
    inputs.send(input).ok();
}

/// Connects, reads until the end, and reports each message.
fn serve(
    connection: Connection,
    master: &Address,
    identity: Option<Arc<IdentityFolder>>,
    queue: Queue,
    inputs: &Sender<Input>,
) -> io::Result<()> {
    let (channel, ends) = way::open(master, identity.as_deref())?;
    let closer = channel.closer();
    let trust = identity.zip(channel.peer().cloned());
    let Channel {
        mut reader,
        mut writer,
        ..
    } = channel;
    let (to_reader, written) = bounded(1);
    let closes = closer.clone();
    thread::Builder::new()
        .name("locsvc-write".into())
        .spawn(move || {
            to_reader
                .send(write_all(&mut writer, &queue, trust.as_ref()))
                .ok();
            // Closed by us, or broken: either way the reader must end.
            closes.close();
        })?;
    report(inputs, Input::Connected { connection, ends });
    let ended = read_all(&mut reader, connection, inputs);
    // Whoever wrote has shut the socket down first, which looks as if the other side had.
    let cause = written.try_recv();
    // Wakes the writer if it is in the middle of a write.
    closer.close();
    match cause {
        Ok(Err(error)) => Err(error),
        // What the core closed it has forgotten; so this is a queue that was given up.
        Ok(Ok(())) => Err(io::Error::other("more messages wait than are written")),
        Err(_) => ended,
    }
}

fn read_all(
    reader: &mut ReadHalf,
    connection: Connection,
    inputs: &Sender<Input>,
) -> io::Result<()> {
    let mut deframer = Deframer::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        deframer.handle_bytes(&buffer[..len]);
        while let Some(message) = deframer.poll().map_err(io::Error::other)? {
            let received = Input::Received {
                connection,
                message,
            };
            if inputs.send(received).is_err() {
                return Ok(());
            }
        }
    }
}

/// Writes what is queued, until the queue ends or is given up, or the other end is no longer trusted.
fn write_all(
    writer: &mut WriteHalf,
    queue: &Queue,
    trust: Option<&(Arc<IdentityFolder>, Peer)>,
) -> io::Result<()> {
    let looks = match trust {
        Some(_) => tick(IDENTITY_EVERY),
        None => never(),
    };
    // What was given up has a backlog that a slow network would take for long, while the core waits to hear of it.
    while !queue.given_up.load(Ordering::Relaxed) {
        select! {
            recv(queue.bytes) -> bytes => match bytes {
                Ok(bytes) => writer.write_all(&bytes)?,
                Err(_) => return Ok(()),
            },
            recv(looks) -> _ => if let Some((folder, peer)) = trust
                && folder.standing(peer).ends_connections()
            {
                let text = format!(
                    "the certificate {} of {} was revoked, or its CA is no longer trusted",
                    peer.serial, peer.identity
                );
                return Err(io::Error::other(text));
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_master_that_reads_nothing_is_not_said_to_have_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to_core, inputs) = bounded(8);
        let mut links = Links::new(to_core, None);
        let connection = Connection(1);
        let address = Address::Tcp(listener.local_addr().unwrap());
        assert_eq!(links.connect(connection, address), None);
        let connected = inputs.recv_timeout(CONNECT_TIMEOUT * 3).unwrap();
        let Input::Connected {
            ends: Some(ends), ..
        } = connected
        else {
            panic!("{connected:?}")
        };
        let (_peer, from) = listener.accept().unwrap();
        assert_eq!(
            (ends.local, ends.remote),
            (from, listener.local_addr().unwrap())
        );
        // More than the queue and the socket buffers of both sides take.
        let long = Message::Rejection(locus_proto::v1::Rejection {
            reason: "x".repeat(200),
        });
        while links.open.is_some() {
            links.send(connection, WireVersion::V1, &long);
        }
        let closed = inputs.recv_timeout(WRITE_TIMEOUT * 5).unwrap();
        let Input::Closed { reason, .. } = closed else {
            panic!("{closed:?}")
        };
        assert!(!reason.contains("the other side"), "{reason}");
    }

    #[test]
    fn what_was_given_up_is_not_written_to_its_end() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut channel = Channel::plain(one);
        let (outgoing, bytes) = bounded(8);
        outgoing.send(b"late".to_vec()).unwrap();
        let given_up = Arc::new(AtomicBool::new(true));
        let queue = Queue { bytes, given_up };
        write_all(&mut channel.writer, &queue, None).unwrap();
        drop(channel);
        let mut read = Vec::new();
        other.read_to_end(&mut read).unwrap();
        assert_eq!(read, Vec::<u8>::new());
    }
}
