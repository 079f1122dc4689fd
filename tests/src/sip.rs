//! A phone of few words: sends one SIP request at a time and answers digest challenges, so that tests
//! can say exactly what goes on the wire. Knows no location service.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use md5::{Digest, Md5};

use crate::netns::Namespace;
use crate::wait;

/// The domain of every subscriber in the lab.
pub const DOMAIN: &str = "example.net";
/// The port of the proxy role (also TCP).
pub const PROXY_PORT: u16 = 5060;
/// The port of the redirect role.
pub const REDIRECT_PORT: u16 = 5070;
/// How long a phone waits for a final answer; `tm` gives up sooner.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);
/// Retransmission of a request without any answer (RFC 3261 17.1.1.1, T1).
const T1: Duration = Duration::from_millis(500);

/// A final response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// The whole message.
    pub text: String,
}

impl Answer {
    /// All values of header `name`, in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The first value of header `name`, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_default()
    }

    /// The `expires` parameter of the contact `uri`, in seconds.
    pub fn expires_of(&self, uri: &str) -> Option<u32> {
        let all = self.headers("Contact").join(", ");
        let (_, after) = all.split_once(&format!("<{uri}>"))?;
        let own = after.split('<').next()?;
        let value = own
            .split(';')
            .find_map(|parameter| parameter.trim().strip_prefix("expires="))?;
        value.trim_end_matches([',', ' ']).parse().ok()
    }

    /// The URIs of all contacts in the order given.
    pub fn contacts(&self) -> Vec<String> {
        let all = self.headers("Contact").join(", ");
        all.split('<')
            .skip(1)
            .filter_map(|part| part.split('>').next())
            .map(str::to_owned)
            .collect()
    }
}

/// One phone: a UDP socket in a namespace and a subscriber's name and password.
#[derive(Debug)]
pub struct Phone {
    socket: UdpSocket,
    user: String,
    password: String,
    tag: u32,
    cseq: u32,
    call: u32,
}

impl Phone {
    /// A phone for `user` that sends from `namespace`, authenticated by [`password`].
    pub fn new(namespace: &Namespace, user: &str) -> Self {
        let address = namespace.address();
        let socket = namespace.run(|| UdpSocket::bind((address, 0)).expect("a port is free"));
        let tag = u32::from(socket.local_addr().expect("bound").port());
        let password = password(user);
        Self {
            socket,
            user: user.to_owned(),
            password,
            tag,
            cseq: 0,
            call: 0,
        }
    }

    /// The same phone with wrong credentials.
    pub fn with_password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// Where the phone sends from.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// Registers `contacts` (complete Contact lines or other headers, each ended by CRLF) for the
    /// phone's own address-of-record at `node`, with authentication.
    #[track_caller]
    pub fn register(&mut self, node: Ipv4Addr, headers: &str) -> Answer {
        let aor = self.aor();
        self.register_for(node, &aor, headers)
    }

    /// The phone's own address-of-record.
    pub fn aor(&self) -> String {
        format!("sip:{}@{DOMAIN}", self.user)
    }

    /// As [`Phone::register`], for any address-of-record.
    #[track_caller]
    pub fn register_for(&mut self, node: Ipv4Addr, aor: &str, headers: &str) -> Answer {
        self.cseq += 2;
        self.register_as(node, aor, "reg", self.cseq, headers)
    }

    /// As [`Phone::register_for`] with the CSeq of the authenticated request given; the request that
    /// fetches the challenge has one less. `call` names the Call-ID within this phone.
    #[track_caller]
    pub fn register_as(
        &mut self,
        node: Ipv4Addr,
        aor: &str,
        call: &str,
        cseq: u32,
        headers: &str,
    ) -> Answer {
        let uri = format!("sip:{DOMAIN}");
        let server = SocketAddr::from((node, PROXY_PORT));
        let message = |phone: &Self, cseq: u32, authorization: &str| {
            let to = format!("To: <{aor}>\r\n");
            let id = format!("{call}-{}", phone.tag);
            phone.message(
                "REGISTER",
                &uri,
                &to,
                &id,
                cseq,
                &format!("{authorization}{headers}"),
            )
        };
        let first = self.send(server, &message(self, cseq.saturating_sub(1), ""));
        if first.code != 401 && first.code != 407 {
            return first;
        }
        let authorization = self.authorization("REGISTER", &uri, &first);
        let second = message(self, cseq, &authorization);
        self.send(server, &second)
    }

    /// Calls `uri` at `node`, port `port`; returns the final response and acknowledges a failure.
    #[track_caller]
    pub fn invite(&mut self, node: Ipv4Addr, port: u16, uri: &str) -> Answer {
        self.request(node, port, "INVITE", uri, "")
    }

    /// Sends any request outside a dialog with extra `headers` and returns the final response.
    #[track_caller]
    pub fn request(
        &mut self,
        node: Ipv4Addr,
        port: u16,
        method: &str,
        uri: &str,
        headers: &str,
    ) -> Answer {
        self.call += 1;
        let server = SocketAddr::from((node, port));
        let id = format!("call{}-{}", self.call, self.tag);
        let to = format!("To: <{uri}>\r\n");
        let message = self.message(method, uri, &to, &id, 1, headers);
        let answer = self.send(server, &message);
        if method == "INVITE" && answer.code >= 300 {
            // The ACK of a failure belongs to the same hop: same branch, To with the tag.
            let to = format!("To: {}\r\n", answer.header("To"));
            let ack = message
                .replacen("INVITE ", "ACK ", 1)
                .replacen("1 INVITE", "1 ACK", 1);
            let ack = ack.replacen(&format!("To: <{uri}>\r\n"), &to, 1);
            self.socket
                .send_to(ack.as_bytes(), server)
                .expect("the ACK can be sent");
        }
        answer
    }

    /// Whether anything answers an OPTIONS at `node` within a moment.
    pub fn answers(&mut self, node: Ipv4Addr, port: u16) -> bool {
        self.call += 1;
        let server = SocketAddr::from((node, port));
        let id = format!("options{}-{}", self.call, self.tag);
        let uri = format!("sip:{server}");
        let message = self.message("OPTIONS", &uri, &format!("To: <{uri}>\r\n"), &id, 1, "");
        self.socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout can be set");
        let mut buffer = vec![0_u8; 65_536];
        // A closed port may answer with an ICMP error on send or on receipt: not there yet.
        self.socket.send_to(message.as_bytes(), server).is_ok()
            && self
                .socket
                .recv_from(&mut buffer)
                .is_ok_and(|(length, _)| String::from_utf8_lossy(&buffer[..length]).contains(&id))
    }

    fn message(
        &self,
        method: &str,
        uri: &str,
        to: &str,
        id: &str,
        cseq: u32,
        more: &str,
    ) -> String {
        let own = self.address();
        let (user, tag) = (&self.user, self.tag);
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {own};branch=z9hG4bK{id}-{cseq};rport\r\n\
             From: <sip:{user}@{DOMAIN}>;tag={tag}\r\n\
             {to}\
             Call-ID: {id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Max-Forwards: 70\r\n\
             {more}{contact}\
             Content-Length: 0\r\n\r\n",
            contact = if method == "INVITE" {
                format!("Contact: <sip:{user}@{own}>\r\n")
            } else {
                String::new()
            },
        )
    }

    /// Sends `message` as it stands and waits for the final response to its Call-ID and CSeq.
    ///
    /// # Panics
    /// When none comes in time.
    #[track_caller]
    pub fn send(&self, server: SocketAddr, message: &str) -> Answer {
        let what = message.lines().next().unwrap_or_default().to_owned();
        self.try_send(server, message)
            .unwrap_or_else(|| panic!("no final answer within {ANSWER_DEADLINE:?} to {what}"))
    }

    /// As [`Phone::send`]; `None` when no final response comes in time.
    pub fn try_send(&self, server: SocketAddr, message: &str) -> Option<Answer> {
        let line = |text: &str, name: &str| {
            let found = text.split("\r\n").find(|line| line.starts_with(name));
            found.unwrap_or_default().to_owned()
        };
        let wanted = [line(message, "Call-ID:"), line(message, "CSeq:")];
        let mut buffer = vec![0_u8; 65_536];
        let start = wait::now();
        let mut provisional = false;
        self.socket
            .send_to(message.as_bytes(), server)
            .expect("the request can be sent");
        self.socket
            .set_read_timeout(Some(T1))
            .expect("a timeout can be set");
        while start.elapsed() < ANSWER_DEADLINE {
            let Ok((length, _)) = self.socket.recv_from(&mut buffer) else {
                if !provisional {
                    self.socket
                        .send_to(message.as_bytes(), server)
                        .expect("it could be sent before");
                }
                continue;
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("SIP/2.0 ") || wanted.iter().any(|want| !text.contains(want)) {
                continue;
            }
            let code = text
                .get(8..11)
                .and_then(|code| code.parse().ok())
                .unwrap_or_default();
            if code >= 200 {
                return Some(Answer { code, text });
            }
            provisional = true;
        }
        None
    }

    /// Sends `message` without waiting for anything.
    pub fn fire(&self, server: SocketAddr, message: &[u8]) {
        self.socket
            .send_to(message, server)
            .expect("the datagram can be sent");
    }

    fn authorization(&self, method: &str, uri: &str, challenge: &Answer) -> String {
        let value = [
            challenge.header("WWW-Authenticate"),
            challenge.header("Proxy-Authenticate"),
        ];
        let value = value.concat();
        let field = |name: &str| {
            let start = value
                .find(&format!("{name}=\""))
                .map(|at| at + name.len() + 2);
            let rest = start.and_then(|at| value.get(at..)).unwrap_or_default();
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        let (realm, nonce, qop) = (field("realm"), field("nonce"), value.contains("qop="));
        let ha1 = hex(&format!("{}:{realm}:{}", self.user, self.password));
        let ha2 = hex(&format!("{method}:{uri}"));
        let (response, tail) = if qop {
            let response = hex(&format!("{ha1}:{nonce}:00000001:lab:auth:{ha2}"));
            (response, ", qop=auth, nc=00000001, cnonce=\"lab\"")
        } else {
            (hex(&format!("{ha1}:{nonce}:{ha2}")), "")
        };
        let header = if challenge.code == 401 {
            "Authorization"
        } else {
            "Proxy-Authorization"
        };
        format!(
            "{header}: Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5{tail}\r\n",
            self.user
        )
    }
}

/// The password of `user` in the lab's subscriber table.
pub fn password(user: &str) -> String {
    format!("secret-{user}")
}

fn hex(text: &str) -> String {
    Md5::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_rfc_2617() {
        // RFC 2617 section 3.5.
        let ha1 = hex("Mufasa:testrealm@host.com:Circle Of Life");
        let ha2 = hex("GET:/dir/index.html");
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let response = hex(&format!("{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}"));
        assert_eq!(response, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn expiry_is_that_of_the_contact_asked_for() {
        let text =
            "SIP/2.0 200 OK\r\nContact: <sip:a@h>;q=1;expires=60, <sip:b@h>;expires=90\r\n\r\n";
        let answer = Answer {
            code: 200,
            text: text.to_owned(),
        };
        assert_eq!(answer.expires_of("sip:a@h"), Some(60));
        assert_eq!(answer.expires_of("sip:b@h"), Some(90));
        assert_eq!(answer.expires_of("sip:c@h"), None);
    }

    #[test]
    fn contacts_come_back_in_order() {
        let text = "SIP/2.0 302 Moved\r\nContact: <sip:a@h>;q=1, <sip:b@h>;q=0.5\r\n\
                    contact: <sip:c@h>\r\n\r\n<sip:body@h>";
        let answer = Answer {
            code: 302,
            text: text.to_owned(),
        };
        assert_eq!(answer.expires_of("sip:a@h"), None);
        assert_eq!(answer.contacts(), ["sip:a@h", "sip:b@h", "sip:c@h"]);
    }
}
