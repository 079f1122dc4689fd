//! A closed loop of SIP requests over one UDP socket: as many in flight as the window, one more for each
//! answer. Knows of SIP the first line of an answer and the Call-ID, which tells whose answer it is.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use locus_lab::Namespace;

/// Requests in flight: enough to keep one worker busy, few enough for the default socket buffers.
pub const WINDOW: usize = 32;
/// Nothing is lost on the way, so this only bounds a bench that cannot go on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

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
            let socket = UdpSocket::bind((address, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(socket)
        };
        let opened: std::io::Result<UdpSocket> = namespace.run(open);
        let socket = opened.unwrap_or_else(|error| panic!("no socket: {error}"));
        Self { socket, number: 0 }
    }

    /// Sends `count` requests and waits for all answers. `write` puts one with a number never used before
    /// into the buffer, its Call-ID being that number; `is_right` judges the answer to it, which has
    /// begun with `SIP/2.0 <code>`.
    ///
    /// # Panics
    /// When an answer does not come, comes twice or is another one.
    pub fn run(
        &mut self,
        count: usize,
        code: &str,
        mut write: impl FnMut(u64, &mut Vec<u8>),
        mut is_right: impl FnMut(u64, &[u8]) -> bool,
    ) {
        let expected = format!("SIP/2.0 {code} ");
        let (mut request, mut buffer) = (Vec::with_capacity(2_048), vec![0_u8; 65_536]);
        let mut in_flight: Vec<u64> = Vec::with_capacity(WINDOW);
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && in_flight.len() < WINDOW {
                self.number += 1;
                request.clear();
                write(self.number, &mut request);
                self.socket
                    .send(&request)
                    .unwrap_or_else(|error| panic!("send: {error}"));
                in_flight.push(self.number);
                sent += 1;
            }
            let length = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{answered} of {count} answered, then: {error}"));
            let answer = &buffer[..length];
            let place = call_id(answer)
                .and_then(|number| in_flight.iter().position(|sent| *sent == number));
            let right = place.is_some_and(|place| {
                let number = in_flight.swap_remove(place);
                answer.starts_with(expected.as_bytes()) && is_right(number, answer)
            });
            if !right {
                panic!(
                    "a wrong answer (wanted {code}):\n{}",
                    String::from_utf8_lossy(answer)
                );
            }
            answered += 1;
        }
    }

    /// Sends one request and returns the answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&mut self, code: &str, write: impl FnMut(u64, &mut Vec<u8>)) -> String {
        let mut text = String::new();
        self.run(1, code, write, |_, answer| {
            text = String::from_utf8_lossy(answer).into_owned();
            true
        });
        text
    }

    /// The address requests come from.
    pub fn address(&self) -> SocketAddr {
        self.socket
            .local_addr()
            .unwrap_or_else(|error| panic!("not bound: {error}"))
    }
}

/// What follows header `name` (with its colon and space) in `message`, up to the end of the message.
pub fn header<'m>(message: &'m [u8], name: &str) -> Option<&'m [u8]> {
    message.split_inclusive(|byte| *byte == b'\n').find_map({
        let mut at = 0;
        move |line| {
            let start = at;
            at += line.len();
            line.starts_with(name.as_bytes())
                .then(|| &message[start + name.len()..])
        }
    })
}

fn call_id(answer: &[u8]) -> Option<u64> {
    let digits = header(answer, "Call-ID: ")?
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number: Option<u64>, digit| {
        let digit = u64::from(*digit - b'0');
        Some(number.unwrap_or(0).wrapping_mul(10).wrapping_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_call_id() {
        let answer = b"SIP/2.0 302 Moved\r\nVia: x\r\nCall-ID: 4711@10.77.0.11\r\nContact: <sip:a@h>\r\n\r\n";
        assert_eq!(call_id(answer), Some(4_711));
        assert!(header(answer, "Contact: ").is_some_and(|rest| rest.starts_with(b"<sip:a@h>")));
        assert_eq!(header(answer, "Route: "), None);
        assert_eq!(call_id(b"SIP/2.0 200 OK\r\nCall-ID: x\r\n\r\n"), None);
    }
}
