//! The client of locsvc's HTTP API: paths, JSON and what can go wrong; it prints nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use locus_identity::{IdentityFolder, OpenIdentityError};
use locus_proto::{AddressOfRecord, Digits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

use crate::params::{Contact, Target};
use crate::tls::{self, TlsConnector};

/// Time to connect. Three seconds: one lost SYN and its repetition.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for an answer; longer than locsvc itself waits for its disk, so that its own word comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);
/// Time for an audit beyond what it is given: the word that a node did not answer comes from locsvc.
const AUDIT_SLACK: Duration = Duration::from_secs(5);
/// Longest wait asked of locsvc at once; a longer one is asked in parts. Its own limit is 25 s.
const WAIT_PART_MAX: Duration = Duration::from_secs(20);

/// Where locsvc's API is: `https://host:port`, or `http://host:port` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    url: String,
    host: String,
    is_tls: bool,
}

/// Returned for text that is not such an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as https://host:port, or http://127.0.0.1:port beside locsvc itself")]
pub(crate) struct ParseServerError;

impl FromStr for Server {
    type Err = ParseServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| ParseServerError)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty());
        let scheme = uri.scheme_str().unwrap_or_default();
        match (scheme, authority, bare) {
            ("http" | "https", Some(authority), true) => Ok(Self {
                url: format!("{scheme}://{authority}"),
                host: tls::bare(authority.host()).to_owned(),
                is_tls: scheme == "https",
            }),
            (_, Some(_) | None, true | false) => Err(ParseServerError),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing answers there.
    #[error("cannot reach locsvc at {server}: {reason}")]
    Unreachable { server: Server, reason: String },
    /// It was connected, but the answer did not come, or broke off.
    #[error("locsvc at {server} did not answer: {reason}")]
    NoAnswer {
        server: Server,
        reason: String,
        /// Whether something may have been changed nevertheless.
        changing: bool,
    },
    /// One of the two does not trust the other.
    #[error("no TLS with locsvc at {server}: {reason}")]
    Untrusted { server: Server, reason: String },
    /// Our identity cannot be used.
    #[error("{server} needs an operator's identity in {} (--identity): {source}", folder.display())]
    Identity {
        server: Server,
        folder: PathBuf,
        source: Box<OpenIdentityError>,
    },
    /// What answers there is not locsvc.
    #[error("what answers at {server} is not locsvc: {reason}")]
    NotLocsvc { server: Server, reason: String },
    /// locsvc said no.
    #[error("{error}")]
    Refused {
        error: String,
        code: String,
        status: u16,
    },
}

/// An error in the API's JSON.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Fault {
    pub(crate) error: String,
    pub(crate) code: String,
}

/// Answer to a change.
#[derive(Debug, Deserialize)]
pub(crate) struct Changed {
    pub(crate) level: u64,
    pub(crate) outcome: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AorAnswer {
    pub(crate) aor: String,
    pub(crate) level: u64,
    pub(crate) contacts: Vec<Contact>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RouteAnswer {
    pub(crate) prefix: String,
    pub(crate) level: u64,
    pub(crate) route: Route,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Route {
    pub(crate) targets: Vec<Target>,
    pub(crate) strip: u8,
    pub(crate) prefix: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LevelAnswer {
    pub(crate) level: u64,
    pub(crate) epoch: String,
    pub(crate) root: String,
    pub(crate) records: u64,
    /// After a wait: how many nodes have the level.
    pub(crate) nodes: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NodesAnswer {
    pub(crate) level: u64,
    pub(crate) alarm: Option<Alarm>,
    pub(crate) nodes: Vec<Node>,
}

/// Most nodes agree with each other against the master.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Alarm {
    pub(crate) level: u64,
    pub(crate) nodes: u64,
    pub(crate) of: u64,
    pub(crate) master_verified: bool,
}

/// One node; what it reports itself is absent until its first report.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Node {
    pub(crate) node: u16,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) sip: String,
    pub(crate) connected: bool,
    pub(crate) behind: u64,
    pub(crate) path: Option<String>,
    pub(crate) version: Option<u8>,
    pub(crate) multicast_lost: Option<Lost>,
    pub(crate) group: Option<Group>,
    pub(crate) state: Option<String>,
    pub(crate) level: Option<u64>,
    pub(crate) lag_ms: Option<u64>,
    pub(crate) catch_ups_total: Option<u64>,
    pub(crate) reloads_total: Option<u64>,
    pub(crate) last_sync_ms: Option<u64>,
    pub(crate) records: Option<u64>,
    pub(crate) audits_total: Option<u64>,
    pub(crate) repaired_total: Option<u64>,
    pub(crate) health: Option<Health>,
}

/// The group does not reach a node though it should.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Lost {
    pub(crate) reason: String,
    pub(crate) lasts_ms: u64,
}

/// What a node says of the group.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Group {
    pub(crate) datagrams_total: u64,
    pub(crate) lost_total: u64,
    pub(crate) nacks_total: u64,
    pub(crate) refused_total: u64,
}

/// What a node says of its table's memory.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Health {
    pub(crate) table_bytes: u64,
    pub(crate) pages: Option<String>,
    pub(crate) scrubs_total: u64,
    pub(crate) doubted_total: u64,
    pub(crate) snapshot_level: u64,
    pub(crate) snapshots_failed_total: u64,
}

/// Answer to a reload.
#[derive(Debug, Deserialize)]
pub(crate) struct ReloadAnswer {
    pub(crate) node: u16,
    pub(crate) name: String,
    pub(crate) connected: bool,
}

/// Answer to an audit.
#[derive(Debug, Deserialize)]
pub(crate) struct AuditAnswer {
    pub(crate) level: u64,
    pub(crate) nodes: Vec<Audited>,
}

/// One node of an audit; what it found is absent without a report.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Audited {
    pub(crate) node: u16,
    pub(crate) name: String,
    pub(crate) verdict: String,
    pub(crate) level: Option<u64>,
    pub(crate) records: Option<u64>,
    pub(crate) partitions: Option<u64>,
    #[serde(default)]
    pub(crate) ranges: Vec<(u16, u16)>,
    pub(crate) differing: Option<u64>,
    pub(crate) repaired: Option<u64>,
}

/// An answer as it came and as it was understood.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) text: String,
    pub(crate) value: T,
}

/// One call.
struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Option<serde_json::Value>,
    /// Whether it may change the database.
    changing: bool,
    timeout: Duration,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a str, body: Option<serde_json::Value>) -> Self {
        Self {
            changing: method != Method::GET,
            method,
            path,
            body,
            timeout: ANSWER_TIMEOUT,
        }
    }
}

/// Calls one locsvc.
#[derive(Debug)]
pub(crate) struct Client {
    server: Server,
    agent: ureq::Agent,
}

impl Client {
    /// Returns a client that shows the identity in `folder` where the URL says `https`.
    pub(crate) fn new(server: Server, folder: &Path) -> Result<Self, CallError> {
        let identity = if server.is_tls {
            let opened = IdentityFolder::open(folder);
            Some(Arc::new(opened.map_err(|source| CallError::Identity {
                server: server.clone(),
                folder: folder.to_owned(),
                source: Box::new(source),
            })?))
        } else {
            None
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None) // an operator's http_proxy is not meant for the cluster
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("locusctl/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector = TcpConnector::default().chain(TlsConnector { identity });
        let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Self { server, agent })
    }

    pub(crate) fn get_aor(&self, aor: &AddressOfRecord) -> Result<Answer<AorAnswer>, CallError> {
        self.call(Method::GET, &aor_path(aor), None)
    }

    pub(crate) fn put_aor(
        &self,
        aor: &AddressOfRecord,
        contacts: Vec<Contact>,
    ) -> Result<Answer<Changed>, CallError> {
        let body = serde_json::json!({ "contacts": contacts });
        self.call(Method::PUT, &aor_path(aor), Some(body))
    }

    pub(crate) fn delete_aor(&self, aor: &AddressOfRecord) -> Result<Answer<Changed>, CallError> {
        self.call(Method::DELETE, &aor_path(aor), None)
    }

    pub(crate) fn get_route(&self, prefix: Digits) -> Result<Answer<RouteAnswer>, CallError> {
        self.call(Method::GET, &format!("/v1/routes/{prefix}"), None)
    }

    pub(crate) fn put_route(
        &self,
        prefix: Digits,
        route: &Route,
    ) -> Result<Answer<Changed>, CallError> {
        let body = serde_json::json!(route);
        self.call(Method::PUT, &format!("/v1/routes/{prefix}"), Some(body))
    }

    pub(crate) fn delete_route(&self, prefix: Digits) -> Result<Answer<Changed>, CallError> {
        self.call(Method::DELETE, &format!("/v1/routes/{prefix}"), None)
    }

    pub(crate) fn nodes(&self) -> Result<Answer<NodesAnswer>, CallError> {
        self.call(Method::GET, "/v1/nodes", None)
    }

    /// Has one node, or all, compared with the master, and what differs repaired if `repair`.
    pub(crate) fn audit(
        &self,
        node: Option<&str>,
        repair: bool,
        timeout: Duration,
    ) -> Result<Answer<AuditAnswer>, CallError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut body = serde_json::json!({ "repair": repair, "timeout_ms": timeout_ms });
        if let Some(node) = node {
            body["node"] = node.into();
        }
        let call = Call {
            changing: false, // no record of the database
            timeout: ANSWER_TIMEOUT.max(timeout + AUDIT_SLACK),
            ..Call::new(Method::POST, "/v1/audit", Some(body))
        };
        self.call_by(call)
    }

    /// Has one node load the whole table anew.
    pub(crate) fn reload(&self, node: &str) -> Result<Answer<ReloadAnswer>, CallError> {
        let path = format!("/v1/nodes/{}/reload", escaped(node));
        let call = Call {
            changing: false, // no record of the database
            ..Call::new(Method::POST, &path, None)
        };
        self.call_by(call)
    }

    pub(crate) fn level(&self) -> Result<Answer<LevelAnswer>, CallError> {
        self.call(Method::GET, "/v1/level", None)
    }

    /// Returns once all nodes have `level`.
    ///
    /// # Errors
    /// [`CallError::Refused`] with status 504 when they have not within `timeout`.
    pub(crate) fn wait(
        &self,
        level: u64,
        timeout: Duration,
    ) -> Result<Answer<LevelAnswer>, CallError> {
        let mut left = timeout;
        loop {
            let part = left.min(WAIT_PART_MAX);
            left = left.saturating_sub(part);
            let ms = part.as_millis();
            let path = format!("/v1/level?wait={level}&timeout_ms={ms}");
            match self.call(Method::GET, &path, None) {
                // This part of the time is over; no clock is needed to know it.
                Err(CallError::Refused { code, .. })
                    if code == "wait_timeout" && !left.is_zero() => {}
                done => return done,
            }
        }
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<Answer<T>, CallError> {
        self.call_by(Call::new(method, path, body))
    }

    fn call_by<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Answer<T>, CallError> {
        let Call {
            method,
            path,
            body,
            changing,
            timeout,
        } = call;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = if body.is_empty() {
            request
        } else {
            request.header("Content-Type", "application/json")
        };
        let request = request
            .body(body)
            .map_err(|error| self.not_locsvc(&error))?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout))
            .build();
        let mut response = self
            .agent
            .run(request)
            .map_err(|error| self.failure(error, changing, timeout))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| self.failure(error, changing, timeout))?;
        if (200..300).contains(&status) {
            let value = serde_json::from_str(&text).map_err(|error| self.not_locsvc(&error))?;
            return Ok(Answer { text, value });
        }
        let Ok(Fault { error, code }) = serde_json::from_str(&text) else {
            return Err(self.not_locsvc(&format_args!("status {status} without its JSON")));
        };
        Err(CallError::Refused {
            error,
            code,
            status,
        })
    }

    fn not_locsvc(&self, reason: &dyn fmt::Display) -> CallError {
        CallError::NotLocsvc {
            server: self.server.clone(),
            reason: reason.to_string(),
        }
    }

    /// Sorts the HTTP client's errors by what an operator can do about them.
    fn failure(&self, error: ureq::Error, changing: bool, timeout: Duration) -> CallError {
        use std::io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
            PermissionDenied, TimedOut,
        };
        use ureq::{Error, Timeout};
        let not_found = matches!(error, Error::HostNotFound);
        let too_slow = matches!(error, Error::Timeout(Timeout::Resolve | Timeout::Connect));
        let refused = matches!(&error, Error::Io(io) if matches!(
            io.kind(),
            AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable
                | PermissionDenied | TimedOut
        ));
        let unreachable =
            not_found || too_slow || refused || matches!(error, Error::ConnectionFailed);
        if matches!(error, Error::Protocol(_)) {
            let hint = if self.server.is_tls {
                ""
            } else {
                " (beyond loopback it speaks https)"
            };
            return self.not_locsvc(&format_args!("{error}{hint}"));
        }
        let server = self.server.clone();
        if let Error::Io(io) = &error
            && let Some(reason) = tls::reason(io, &server.host)
        {
            return CallError::Untrusted { server, reason };
        }
        let reason = if not_found {
            "no such host".to_owned()
        } else if too_slow {
            format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())
        } else if let Error::Timeout(_) = error {
            format!("nothing within {} s", timeout.as_secs())
        } else if let Error::Io(io) = error {
            io.to_string()
        } else {
            error.to_string()
        };
        if unreachable {
            CallError::Unreachable { server, reason }
        } else {
            CallError::NoAnswer {
                server,
                reason,
                changing,
            }
        }
    }
}

/// Returns the path of an address-of-record; what is no unreserved character is escaped (RFC 3986 §2).
fn aor_path(aor: &AddressOfRecord) -> String {
    format!("/v1/aors/{}", escaped(aor.as_str()))
}

fn escaped(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@+".contains(&byte) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, expected) in [
            ("http://127.0.0.1:8800", "http://127.0.0.1:8800"),
            ("http://localhost:8800/", "http://localhost:8800"),
            ("http://[::1]:8800", "http://[::1]:8800"),
            ("https://10.77.0.10:8800/", "https://10.77.0.10:8800"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), expected);
        }
        for text in [
            "",
            "127.0.0.1:8800",
            "ftp://x",
            "https://",
            "http://",
            "http://x/v1",
            "http://x/?a",
        ] {
            assert_eq!(text.parse::<Server>(), Err(ParseServerError), "{text}");
        }
    }

    #[test]
    fn addresses_of_record_survive_a_path() {
        for (aor, expected) in [
            ("alice@example.net", "/v1/aors/alice@example.net"),
            ("+4930@example.net", "/v1/aors/+4930@example.net"),
            ("a/b?c#d&e@x", "/v1/aors/a%2Fb%3Fc%23d%26e@x"),
            ("bob@[2001:db8::1]", "/v1/aors/bob@%5B2001%3Adb8%3A%3A1%5D"),
            ("ü@x", "/v1/aors/%C3%BC@x"),
        ] {
            let aor: AddressOfRecord = aor.parse().unwrap();
            assert_eq!(aor_path(&aor), expected);
        }
    }
}
