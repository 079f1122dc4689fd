//! The reading and the writing half, each for a thread of its own.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::{Connection, Error};

use super::Socket;
use super::error::their_refusal;

/// Most ciphertext that is taken from the socket at once: four full records.
const WIRE_BYTES: usize = 64 * 1024;
/// Most plaintext that is sealed at once.
const PLAIN_BYTES_MAX: usize = 64 * 1024;

/// The TLS state that both halves share.
#[derive(Clone)]
pub(super) struct Tls(Arc<Mutex<Connection>>);

impl From<Arc<Mutex<Connection>>> for Tls {
    fn from(connection: Arc<Mutex<Connection>>) -> Self {
        Self(connection)
    }
}

impl Tls {
    pub(super) fn lock(&self) -> io::Result<MutexGuard<'_, Connection>> {
        self.0
            .lock()
            .map_err(|_| io::Error::other("the other half of the connection has panicked"))
    }
}

/// The reading half of a [`super::Channel`]; for one thread.
///
/// A read returns 0 when the connection has ended, with or without a farewell.
#[derive(Debug)]
pub struct ReadHalf {
    socket: Arc<Socket>,
    sealed: Option<Sealed>,
}

/// What the reading half of a sealed connection holds.
struct Sealed {
    tls: Tls,
    /// Ciphertext that was taken from the socket and has not been opened.
    wire: Box<[u8]>,
    start: usize,
    end: usize,
    failed: Option<Error>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("start", &self.start)
            .field("end", &self.end)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What opening has brought.
enum Opened {
    Bytes(usize),
    NeedsMore,
    End,
}

impl ReadHalf {
    pub(super) fn plain(socket: Arc<Socket>) -> Self {
        let sealed = None;
        Self { socket, sealed }
    }

    pub(super) fn tls(socket: Arc<Socket>, tls: Tls) -> Self {
        let sealed = Some(Sealed {
            tls,
            wire: vec![0; WIRE_BYTES].into(),
            start: 0,
            end: 0,
            failed: None,
        });
        Self { socket, sealed }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut socket = &*self.socket;
        let Some(sealed) = &mut self.sealed else {
            return socket.read(buf);
        };
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match sealed.open(buf)? {
                Opened::Bytes(len) => return Ok(len),
                Opened::End => return Ok(0),
                Opened::NeedsMore => {}
            }
            // Nothing is locked while this waits.
            let len = socket.read(&mut sealed.wire)?;
            if len == 0 {
                return Ok(0);
            }
            (sealed.start, sealed.end) = (0, len);
        }
    }
}

impl Sealed {
    /// Opens as much of what has come as fits into `buf`.
    fn open(&mut self, buf: &mut [u8]) -> io::Result<Opened> {
        let mut tls = self.tls.lock()?;
        let mut filled = 0;
        loop {
            match tls.reader().read(&mut buf[filled..]) {
                Ok(0) if filled < buf.len() => {
                    return Ok(if filled == 0 {
                        Opened::End
                    } else {
                        Opened::Bytes(filled)
                    });
                }
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(if filled == 0 {
                        Opened::End
                    } else {
                        Opened::Bytes(filled)
                    });
                }
                Err(error) => return Err(error),
            }
            if filled == buf.len() {
                return Ok(Opened::Bytes(filled));
            }
            if filled == 0
                && let Some(error) = &self.failed
            {
                return Err(text_of(error));
            }
            if self.start == self.end || self.failed.is_some() {
                return Ok(if filled == 0 {
                    Opened::NeedsMore
                } else {
                    Opened::Bytes(filled)
                });
            }
            self.start += tls.read_tls(&mut &self.wire[self.start..self.end])?;
            self.failed = tls.process_new_packets().err();
        }
    }
}

/// Says in words what TLS found wrong after the handshake.
fn text_of(error: &Error) -> io::Error {
    if let Error::AlertReceived(alert) = error {
        io::Error::other(their_refusal(*alert))
    } else {
        io::Error::other(format!("the sealed stream is broken: {error}"))
    }
}

/// The writing half of a [`super::Channel`]; for one thread.
///
/// Nothing is kept back: when a write has returned, its bytes are with the kernel. After a write that failed, by
/// time-out too, all further ones fail: a part of it may be on its way.
pub struct WriteHalf {
    socket: Arc<Socket>,
    pub(super) tls: Option<Tls>,
    out: Vec<u8>,
    broken: bool,
}

impl fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteHalf")
            .field("socket", &self.socket)
            .field("tls", &self.tls.is_some())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl WriteHalf {
    pub(super) fn plain(socket: Arc<Socket>) -> Self {
        let (tls, out, broken) = (None, Vec::new(), false);
        Self {
            socket,
            tls,
            out,
            broken,
        }
    }

    pub(super) fn tls(socket: Arc<Socket>, tls: Tls) -> Self {
        let (tls, out, broken) = (Some(tls), Vec::new(), false);
        Self {
            socket,
            tls,
            out,
            broken,
        }
    }

    /// Says that nothing more comes; the other half may go on reading.
    ///
    /// # Errors
    /// Those of a write.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.clone() {
            let mut tls = tls.lock()?;
            tls.send_close_notify();
            take(&mut tls, &mut self.out)?;
            drop(tls);
            self.send()?;
        }
        self.socket.shutdown(Shutdown::Write)
    }

    /// Sends what has been sealed.
    fn send(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let sent = (&mut &*self.socket).write_all(&self.out);
        self.broken = sent.is_err();
        self.out.clear();
        sent
    }
}

/// Moves what has been sealed out of the TLS state.
fn take(tls: &mut Connection, out: &mut Vec<u8>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(out)?;
    }
    Ok(())
}

impl Write for WriteHalf {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(tls) = &self.tls else {
            let written = (&mut &*self.socket).write(buf);
            let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
            self.broken = written.as_ref().is_err_and(|error| !interrupted(error));
            return written;
        };
        let part = &buf[..buf.len().min(PLAIN_BYTES_MAX)];
        {
            let mut tls = tls.lock()?;
            tls.writer().write_all(part)?;
            take(&mut tls, &mut self.out)?;
        }
        // Nothing is locked while this waits.
        self.send()?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
