//! One kept-alive connection to locsvc's API that tells when a request had been written.
//! Knows as much HTTP/1.1 as that API speaks, no meaning of a body.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use locus_lab::{Namespace, wait};
use serde_json::Value;

/// Longer than any answer takes; it only bounds a bench that cannot go on.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// The connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// When a request went out.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Just before its one `write`.
    pub begun: Instant,
    /// When that returned. The service may have begun with the request before.
    pub written: Instant,
}

impl Client {
    /// Connects from inside `namespace`.
    ///
    /// # Panics
    /// When the service does not listen.
    pub fn connect(namespace: &Namespace, address: &str) -> Self {
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(stream)
        };
        let opened: std::io::Result<TcpStream> = namespace.run(open);
        let stream = opened.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        Self {
            stream,
            buffer: vec![0; 16 * 1024],
        }
    }

    /// Sends `PUT path` in one `write` and waits for the answer.
    ///
    /// # Panics
    /// When it is none of 2xx with a level.
    pub fn put(&mut self, path: &str, body: &Value) -> Sent {
        self.change("PUT", path, body).0
    }

    /// Sends `POST path` in one `write`, waits for the answer and returns its level too.
    ///
    /// # Panics
    /// As [`Client::put`].
    pub fn post(&mut self, path: &str, body: &Value) -> (Sent, u64) {
        let (sent, answer) = self.change("POST", path, body);
        let level = level(&answer);
        (
            sent,
            level.unwrap_or_else(|| panic!("no level in {answer}")),
        )
    }

    fn change(&mut self, method: &str, path: &str, body: &Value) -> (Sent, String) {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: locsvc\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = wait::now();
        let result = self.stream.write_all(request.as_bytes());
        let written = wait::now();
        result.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let answer = self.answer();
        let accepted = answer.starts_with("HTTP/1.1 2") && answer.contains("\"level\":");
        assert!(accepted, "{method} {path} was answered {answer}");
        (Sent { begun, written }, answer)
    }

    fn answer(&mut self) -> String {
        let mut length = 0;
        loop {
            let read = self
                .stream
                .read(&mut self.buffer[length..])
                .unwrap_or_else(|error| panic!("no answer of the API: {error}"));
            assert!(read > 0, "the API closed the connection");
            length += read;
            let text = String::from_utf8_lossy(&self.buffer[..length]);
            if is_whole(&text) {
                return text.into_owned();
            }
        }
    }
}

/// The database level in an answer.
fn level(answer: &str) -> Option<u64> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    body["level"].as_u64()
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"level\":1}";
        assert!(is_whole(answer));
        assert!(
            answer.is_char_boundary(answer.len() - 1) && !is_whole(&answer[..answer.len() - 1])
        );
        assert!(!is_whole("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"));
    }
}
