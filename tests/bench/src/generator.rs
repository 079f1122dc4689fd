//! A closed loop of SIP requests over one UDP socket: as many in flight as the window, one more for each
//! answer. Knows no SIP beyond the first line of an answer.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use locus_lab::Namespace;

/// Requests in flight: enough to keep one worker busy, few enough for the default socket buffers.
pub const WINDOW: usize = 32;

/// The generator.
#[derive(Debug)]
pub struct Generator {
    socket: UdpSocket,
    number: u64,
}

impl Generator {
    /// Sends from `namespace` to `server`.
    ///
    /// # Panics
    /// When no socket can be had.
    pub fn new(namespace: &Namespace, server: SocketAddr) -> Self {
        let address = namespace.address();
        let open = || {
            UdpSocket::bind((address, 0)).and_then(|socket| socket.connect(server).map(|()| socket))
        };
        let socket = namespace
            .run(open)
            .unwrap_or_else(|error| panic!("no socket: {error}"));
        let second = Some(Duration::from_secs(1));
        socket
            .set_read_timeout(second)
            .unwrap_or_else(|error| panic!("no timeout: {error}"));
        Self { socket, number: 0 }
    }

    /// Sends what `write` puts into the buffer, `count` times, each with a number never used before, and
    /// waits for all answers. Every answer must begin with `SIP/2.0 <code>`.
    ///
    /// # Panics
    /// When an answer does not come within a second or is another one.
    pub fn run(&mut self, count: usize, code: &str, mut write: impl FnMut(u64, &mut Vec<u8>)) {
        let expected = format!("SIP/2.0 {code} ");
        let (mut request, mut answer) = (Vec::with_capacity(2_048), vec![0_u8; 65_536]);
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < WINDOW {
                self.number += 1;
                request.clear();
                write(self.number, &mut request);
                self.socket
                    .send(&request)
                    .unwrap_or_else(|error| panic!("send: {error}"));
                sent += 1;
            }
            let length = self
                .socket
                .recv(&mut answer)
                .unwrap_or_else(|error| panic!("{answered} of {count} answered, then: {error}"));
            if !answer[..length].starts_with(expected.as_bytes()) {
                panic!(
                    "wanted {code}, got {}",
                    String::from_utf8_lossy(&answer[..length])
                );
            }
            answered += 1;
        }
    }

    /// Sends one request and returns the answer.
    ///
    /// # Panics
    /// When none comes within a second.
    pub fn ask(&mut self, write: impl FnOnce(u64, &mut Vec<u8>)) -> String {
        self.number += 1;
        let mut request = Vec::new();
        write(self.number, &mut request);
        self.socket
            .send(&request)
            .unwrap_or_else(|error| panic!("send: {error}"));
        let mut answer = vec![0_u8; 65_536];
        let length = self
            .socket
            .recv(&mut answer)
            .unwrap_or_else(|error| panic!("no answer: {error}"));
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    /// The address requests come from.
    pub fn address(&self) -> SocketAddr {
        self.socket
            .local_addr()
            .unwrap_or_else(|error| panic!("not bound: {error}"))
    }
}
