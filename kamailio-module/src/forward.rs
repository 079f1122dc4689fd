//! Registrations on their way to the agent: one datagram there, one back, within one deadline.
//!
//! It knows the agent's socket and the wire; it decides nothing about a registration. Each process opens its own
//! socket at its first REGISTER, after the fork, and again when the agent has gone.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use locus_ffi::clock_monotonic_ms;
use locus_proto::{Message, Registration, RegistrationReply};
use thiserror::Error;

/// Longest answer: twelve bindings with every text at its limit have under 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ForwardError {
    /// Nobody listens on the agent's socket.
    #[error("the agent does not listen")]
    Gone(#[source] io::Error),
    /// No answer came in time; the registration may still be carried out.
    #[error("the agent did not answer in time")]
    Timeout,
    /// The socket failed in another way.
    #[error("the socket to the agent failed")]
    Socket(#[source] io::Error),
}

/// This process's way to the agent.
#[derive(Debug)]
pub(crate) struct Forwarder {
    socket: Option<UnixDatagram>,
    /// The process that opened the socket: a child forked later must not share it.
    opened_by: u32,
    ticket: u64,
    buffer: Vec<u8>,
}

impl Forwarder {
    /// Returns a forwarder that has opened nothing.
    pub(crate) fn new() -> Self {
        Self {
            socket: None,
            opened_by: 0,
            ticket: chance(),
            buffer: Vec::new(),
        }
    }

    /// Sends `registration` and waits for its answer, at most `timeout_ms` in all.
    ///
    /// Late answers to earlier requests are discarded. An agent that has gone is met at once, by a refused
    /// connection; one that has been restarted, by a second attempt.
    pub(crate) fn ask(
        &mut self,
        agent: &Path,
        registration: Registration,
        timeout_ms: u64,
    ) -> Result<RegistrationReply, ForwardError> {
        let deadline = Deadline(clock_monotonic_ms().saturating_add(timeout_ms));
        if self.opened_by != std::process::id() {
            self.socket = None;
        }
        let reused = self.socket.is_some();
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open(agent)?,
        };
        self.ticket = self.ticket.wrapping_add(1);
        let question = Message::Register {
            ticket: self.ticket,
            registration,
        }
        .to_bytes();
        let mut sent = send(&socket, &question, deadline);
        if reused && matches!(sent, Err(ForwardError::Gone(_))) {
            socket = self.open(agent)?;
            sent = send(&socket, &question, deadline);
        }
        sent?;
        let answer = self.receive(&socket, deadline);
        // After a timeout the socket stays: its late answer is discarded by the next request.
        if matches!(answer, Ok(_) | Err(ForwardError::Timeout)) {
            self.socket = Some(socket);
        }
        answer
    }

    fn open(&mut self, agent: &Path) -> Result<UnixDatagram, ForwardError> {
        let name = format!("locus-module-{}-{:016x}", std::process::id(), chance());
        let address = SocketAddr::from_abstract_name(name).map_err(ForwardError::Socket)?;
        let socket = UnixDatagram::bind_addr(&address).map_err(ForwardError::Socket)?;
        socket.connect(agent).map_err(ForwardError::Gone)?;
        self.opened_by = std::process::id();
        self.buffer.resize(ANSWER_BYTES_MAX, 0);
        Ok(socket)
    }

    fn receive(
        &mut self,
        socket: &UnixDatagram,
        deadline: Deadline,
    ) -> Result<RegistrationReply, ForwardError> {
        loop {
            let left = deadline.left()?;
            socket
                .set_read_timeout(Some(left))
                .map_err(ForwardError::Socket)?;
            let received = match socket.recv(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if interrupted(&error) => continue,
                Err(error) => return Err(failure(error)),
            };
            let datagram = self.buffer.get(..received).unwrap_or(&[]);
            // Only the agent can send here; what is not the answer is an old one, or of a newer agent's making.
            if let Ok(Message::Registered { ticket, reply }) = Message::from_bytes(datagram)
                && ticket == self.ticket
            {
                return Ok(reply);
            }
        }
    }
}

fn send(socket: &UnixDatagram, question: &[u8], deadline: Deadline) -> Result<(), ForwardError> {
    loop {
        let left = deadline.left()?;
        socket
            .set_write_timeout(Some(left))
            .map_err(ForwardError::Socket)?;
        match socket.send(question) {
            Ok(_) => return Ok(()),
            Err(error) if interrupted(&error) => {}
            Err(error) => return Err(failure(error)),
        }
    }
}

fn interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "io::ErrorKind is open-ended"
)]
fn failure(error: io::Error) -> ForwardError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ForwardError::Timeout,
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotConnected => ForwardError::Gone(error),
        _ => ForwardError::Socket(error),
    }
}

/// Returns a random number, as addresses must not be guessed nor tickets repeated.
///
/// The key may be one that was drawn before the fork; the process's number tells its children apart.
fn chance() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A time on the monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Deadline(u64);

impl Deadline {
    /// What is left, never zero: a socket takes zero for "for ever".
    fn left(self) -> Result<Duration, ForwardError> {
        match self.0.saturating_sub(clock_monotonic_ms()) {
            0 => Err(ForwardError::Timeout),
            left => Ok(Duration::from_millis(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::thread;

    use locus_proto::{AddressOfRecord, Asked, Level, MasterTime, Owner, Refusal};

    use super::*;

    fn registration() -> Registration {
        Registration {
            aor: AddressOfRecord::parse("alice@example.net").unwrap(),
            call_id: "1@example.net".to_owned(),
            cseq: 1,
            path: String::new(),
            received: String::new(),
            socket: String::new(),
            owner: Owner::default(),
            user_agent: String::new(),
            flags: 0,
            asked: Asked::Fetch,
        }
    }

    fn reply(level: u64) -> RegistrationReply {
        RegistrationReply::Accepted {
            level: Level(level),
            now: MasterTime(1),
            durable: true,
            bindings: Vec::new(),
        }
    }

    /// An agent that answers each request with what `script` makes of its ticket.
    struct Agent(PathBuf);

    impl Agent {
        fn path(name: &str) -> PathBuf {
            std::env::temp_dir().join(format!("locus-forward-{name}-{}", std::process::id()))
        }

        fn start<const N: usize>(
            name: &str,
            script: [fn(u64) -> Vec<Message>; N],
        ) -> (Self, thread::JoinHandle<()>) {
            let path = Self::path(name);
            drop(std::fs::remove_file(&path));
            let socket = UnixDatagram::bind(&path).unwrap();
            let thread = thread::spawn(move || {
                for answers in script {
                    let mut buffer = [0; 4096];
                    let (len, from) = socket.recv_from(&mut buffer).unwrap();
                    let Ok(Message::Register { ticket, .. }) = Message::from_bytes(&buffer[..len])
                    else {
                        panic!("no registration");
                    };
                    for answer in answers(ticket) {
                        socket.send_to_addr(&answer.to_bytes(), &from).unwrap();
                    }
                }
            });
            (Self(path), thread)
        }
    }

    impl Drop for Agent {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    fn answer(ticket: u64, level: u64) -> Message {
        Message::Registered {
            ticket,
            reply: reply(level),
        }
    }

    #[test]
    fn the_answer_to_this_request_is_taken_and_no_other() {
        let (agent, thread) = Agent::start(
            "stale",
            [
                |ticket| vec![answer(ticket.wrapping_sub(1), 1), answer(ticket, 2)],
                |ticket| vec![answer(ticket, 3)],
            ],
        );
        let mut forwarder = Forwarder::new();
        assert_eq!(
            forwarder.ask(&agent.0, registration(), 5000).unwrap(),
            reply(2)
        );
        assert_eq!(
            forwarder.ask(&agent.0, registration(), 5000).unwrap(),
            reply(3)
        );
        thread.join().unwrap();
    }

    #[test]
    fn a_late_answer_is_discarded_by_the_next_request() {
        let (agent, thread) = Agent::start(
            "late",
            [
                |_| Vec::new(),
                |ticket| vec![answer(ticket.wrapping_sub(1), 1), answer(ticket, 2)],
            ],
        );
        let mut forwarder = Forwarder::new();
        let before = clock_monotonic_ms();
        assert!(matches!(
            forwarder.ask(&agent.0, registration(), 50),
            Err(ForwardError::Timeout)
        ));
        assert!(clock_monotonic_ms() - before >= 49);
        assert_eq!(
            forwarder.ask(&agent.0, registration(), 5000).unwrap(),
            reply(2)
        );
        thread.join().unwrap();
    }

    #[test]
    fn an_agent_that_is_gone_is_met_at_once_and_found_again() {
        let path = Agent::path("gone");
        let mut forwarder = Forwarder::new();
        assert!(matches!(
            forwarder.ask(&path, registration(), 5000),
            Err(ForwardError::Gone(_))
        ));

        let (agent, thread) = Agent::start("gone", [|ticket| vec![answer(ticket, 1)]]);
        assert_eq!(
            forwarder.ask(&path, registration(), 5000).unwrap(),
            reply(1)
        );
        thread.join().unwrap();
        // The socket file is still there, and nobody behind it.
        assert!(matches!(
            forwarder.ask(&path, registration(), 5000),
            Err(ForwardError::Gone(_))
        ));
        drop(agent);

        let (_agent, thread) = Agent::start(
            "gone",
            [|ticket| {
                vec![Message::Registered {
                    ticket,
                    reply: RegistrationReply::Refused(Refusal::OldCseq),
                }]
            }],
        );
        let refused = RegistrationReply::Refused(Refusal::OldCseq);
        assert_eq!(forwarder.ask(&path, registration(), 5000).unwrap(), refused);
        thread.join().unwrap();
    }

    #[test]
    fn an_agent_restarted_between_two_requests_is_reached_by_the_second_attempt() {
        let (agent, thread) = Agent::start("restart", [|ticket| vec![answer(ticket, 1)]]);
        let mut forwarder = Forwarder::new();
        assert_eq!(
            forwarder.ask(&agent.0, registration(), 5000).unwrap(),
            reply(1)
        );
        thread.join().unwrap();
        let (again, thread) = Agent::start("restart", [|ticket| vec![answer(ticket, 2)]]);
        assert_eq!(
            forwarder.ask(&again.0, registration(), 5000).unwrap(),
            reply(2)
        );
        thread.join().unwrap();
    }

    #[test]
    fn an_agent_that_does_not_read_costs_no_more_than_the_deadline() {
        let path = Agent::path("deaf");
        drop(std::fs::remove_file(&path));
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let mut forwarder = Forwarder::new();
        let before = clock_monotonic_ms();
        // More requests than the socket's queue holds: some fail while sending, some while waiting.
        for _ in 0..40 {
            assert!(matches!(
                forwarder.ask(&path, registration(), 10),
                Err(ForwardError::Timeout)
            ));
        }
        assert!(clock_monotonic_ms() - before < 40 * 10 + 5000);
        std::fs::remove_file(&path).unwrap();
    }
}
