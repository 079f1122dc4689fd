//! A callee that does as it is told: answers, rings until cancelled, or rejects. Counts what it saw.
//! Knows no proxy and no dialog state beyond one transaction.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::netns::Namespace;
use crate::wait;

/// Between ringing and the answer: time for the other phones of a call to ring too, as in life.
const PICK_UP: Duration = Duration::from_millis(50);

/// How a callee treats an INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 180, then 200.
    Answer,
    /// 180, then 487 when the CANCEL comes.
    Ring,
    /// The given failure.
    Reject(u16),
}

/// A callee on its own UDP port. Dropping it closes the port.
#[derive(Debug)]
pub struct Callee {
    port: u16,
    address: Ipv4Addr,
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Callee {
    /// Listens on `port` of `namespace`.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn listen(namespace: &Namespace, port: u16, manner: Manner) -> Self {
        let address = namespace.address();
        let socket = namespace.run(|| UdpSocket::bind((address, port)).expect("the port is free"));
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout can be set");
        let (seen, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let worker = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || serve(&socket, manner, &seen, &stop)
        });
        Self {
            port,
            address,
            seen,
            stop,
            worker: Some(worker),
        }
    }

    /// `sip:<user>@<address>:<port>`.
    pub fn uri(&self, user: &str) -> String {
        format!("sip:{user}@{}:{}", self.address, self.port)
    }

    /// Everything received so far, retransmissions included.
    pub fn received(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many different requests of `method` with `part` in them have come; a retransmission is the same
    /// bytes again and counts once.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let start = format!("{method} ");
        let wanted = |text: &String| text.starts_with(&start) && text.contains(part);
        let different: BTreeSet<String> = self.received().into_iter().filter(wanted).collect();
        different.len()
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            // A callee that panicked has said so on stderr; the test fails by what it misses.
            worker.join().ok();
        }
    }
}

fn serve(socket: &UdpSocket, manner: Manner, seen: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut buffer = vec![0_u8; 65_536];
    let mut ringing: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // Before the answer: whoever has it may count at once.
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.clone());
        let reply = |answer: &str| {
            // The peer may be gone by now; its test has ended then.
            socket.send_to(answer.as_bytes(), from).ok();
        };
        match text.split(' ').next().unwrap_or_default() {
            "INVITE" => match manner {
                Manner::Answer => {
                    reply(&response(&text, 180));
                    wait::pause(PICK_UP);
                    reply(&response(&text, 200));
                }
                Manner::Ring => {
                    reply(&response(&text, 180));
                    ringing.push(text.clone());
                }
                Manner::Reject(code) => reply(&response(&text, code)),
            },
            "CANCEL" => {
                reply(&response(&text, 200));
                let call = header(&text, "Call-ID").to_owned();
                for invite in ringing.extract_if(.., |invite| header(invite, "Call-ID") == call) {
                    reply(&response(&invite, 487));
                }
            }
            "ACK" => {}
            _ => reply(&response(&text, 200)),
        }
    }
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.split("\r\n");
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_default().trim()
}

fn response(request: &str, code: u16) -> String {
    let mut text = format!("SIP/2.0 {code} Lab\r\n");
    let copied = ["Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"];
    for line in request.split("\r\n").take_while(|line| !line.is_empty()) {
        if copied.iter().any(|name| line.starts_with(name)) {
            text += &format!("{line}\r\n");
        } else if line.starts_with("To:") {
            let tag = if line.contains("tag=") {
                ""
            } else {
                ";tag=callee"
            };
            text += &format!("{line}{tag}\r\n");
        }
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    text + &format!("Contact: <{target}>\r\nContent-Length: 0\r\n\r\n")
}
