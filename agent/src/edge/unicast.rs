//! One TCP connection at a time to a locsvc; it understands no message and decides no reconnection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use locus_proto::{Deframer, Message};
use socket2::{SockRef, TcpKeepalive};

use crate::core::{Connection, Input};

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time that one write may be stuck before the connection counts as dead.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
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
    open: Option<(Connection, Sender<Vec<u8>>)>,
}

impl Links {
    /// Returns the edge; it reports to `inputs`, and waits where that channel is full.
    pub(crate) fn new(inputs: Sender<Input>) -> Self {
        Self { inputs, open: None }
    }

    /// Begins to connect to `master`; reports `Connected`, or `Closed` if it comes to nothing.
    ///
    /// Returns what it cannot report: the caller empties that channel, and must not wait for itself.
    pub(crate) fn connect(&mut self, connection: Connection, master: SocketAddr) -> Option<Input> {
        let (outgoing, queue) = bounded(OUTGOING_MAX);
        let inputs = self.inputs.clone();
        let reader = thread::Builder::new().name("locsvc-read".into());
        let spawned = reader.spawn(move || {
            let reason = match serve(connection, master, queue, &inputs) {
                Ok(()) => "the other side closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            report(&inputs, Input::Closed { connection, reason });
        });
        match spawned {
            Ok(_) => {
                self.open = Some((connection, outgoing));
                None
            }
            Err(error) => {
                self.open = None;
                let reason = format!("no thread for the connection: {error}");
                Some(Input::Closed { connection, reason })
            }
        }
    }

    /// Sends `message` over `connection`, if that is still the open one. Never waits.
    pub(crate) fn send(&mut self, connection: Connection, message: &Message) {
        let Some((open, outgoing)) = &self.open else {
            return;
        };
        if *open != connection {
            return;
        }
        match outgoing.try_send(message.to_bytes()) {
            Ok(()) => {}
            // Too slow, or ended already: its reader reports that it is closed.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.open = None,
        }
    }

    /// Closes `connection`, if that is still the open one.
    pub(crate) fn close(&mut self, connection: Connection) {
        // The writer sees that its queue has no sender any more and shuts the socket down.
        self.open.take_if(|(open, _)| *open == connection);
    }
}

/// Hands an input over; fails only while the process ends, when nobody listens any more.
fn report(inputs: &Sender<Input>, input: Input) {
    inputs.send(input).ok();
}

/// Connects, reads until the end, and reports each message.
fn serve(
    connection: Connection,
    master: SocketAddr,
    queue: Receiver<Vec<u8>>,
    inputs: &Sender<Input>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&master, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    // Belt and braces: the core closes a connection that is silent for 3 s, the kernel one whose
    // other end is gone.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let writing = stream.try_clone()?;
    let (to_reader, written) = bounded(1);
    thread::Builder::new()
        .name("locsvc-write".into())
        .spawn(move || {
            to_reader.send(write_all(&writing, &queue)).ok();
            // Closed by us, or broken: either way the reader must end.
            writing.shutdown(Shutdown::Both).ok();
        })?;
    report(inputs, Input::Connected { connection });
    let ended = read_all(&mut stream, connection, inputs);
    // Whoever wrote has shut the socket down first, which looks as if the other side had.
    let cause = written.try_recv();
    // Wakes the writer if it is in the middle of a write.
    stream.shutdown(Shutdown::Both).ok();
    match cause {
        Ok(Err(error)) => Err(error),
        // What the core closed it has forgotten; so this is a queue that was given up.
        Ok(Ok(())) => Err(io::Error::other("more messages wait than are written")),
        Err(_) => ended,
    }
}

fn read_all(
    stream: &mut TcpStream,
    connection: Connection,
    inputs: &Sender<Input>,
) -> io::Result<()> {
    let mut deframer = Deframer::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = match stream.read(&mut buffer) {
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

fn write_all(mut stream: &TcpStream, queue: &Receiver<Vec<u8>>) -> io::Result<()> {
    for bytes in queue {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_master_that_reads_nothing_is_not_said_to_have_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to_core, inputs) = bounded(8);
        let mut links = Links::new(to_core);
        let connection = Connection(1);
        let address = listener.local_addr().unwrap();
        assert_eq!(links.connect(connection, address), None);
        let connected = inputs.recv_timeout(CONNECT_TIMEOUT * 3).unwrap();
        assert_eq!(connected, Input::Connected { connection });
        let (_peer, _) = listener.accept().unwrap();
        // More than the queue and the socket buffers of both sides take.
        let long = Message::Rejection(locus_proto::v1::Rejection {
            reason: "x".repeat(200),
        });
        while links.open.is_some() {
            links.send(connection, &long);
        }
        let closed = inputs.recv_timeout(WRITE_TIMEOUT * 5).unwrap();
        let Input::Closed { reason, .. } = closed else {
            panic!("{closed:?}")
        };
        assert!(!reason.contains("the other side"), "{reason}");
    }
}
