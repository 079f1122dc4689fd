//! A client of locsvc's HTTP API whose sockets live in locsvc's namespace.
//! Knows paths and status codes, not what the records mean.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::netns::Namespace;

/// Longer than locsvc's own longest wait, so that its answer wins.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON, `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The database level the answer carries.
    ///
    /// # Panics
    /// When the answer is no success or carries no level.
    #[track_caller]
    pub fn level(&self) -> u64 {
        assert!(
            (200..300).contains(&self.status),
            "API answered {} {}",
            self.status,
            self.body
        );
        let level = self.json()["level"].as_u64();
        level.unwrap_or_else(|| panic!("no level in {}", self.body))
    }
}

struct Job {
    method: Method,
    path: String,
    body: Vec<u8>,
    reply: SyncSender<Result<Answer, String>>,
}

/// One client with one kept-alive connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Api {
    jobs: Sender<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Api {
    /// A client that calls `http://<address>` from inside `namespace`. Its thread ends with the last
    /// clone.
    pub fn new(namespace: &Namespace, address: &str) -> Self {
        Self::with(namespace, format!("http://{address}"), None)
    }

    /// A client that calls `url` as the operator whose identity folder is `operator`, and believes nobody
    /// but that operator's authority.
    ///
    /// # Panics
    /// When the folder holds no identity.
    pub fn secure(namespace: &Namespace, url: &str, operator: &Path) -> Self {
        let read = |file: &str| {
            let path = operator.join(file);
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let own = certificates(&read("identity.pem"));
        let key = PrivateKey::from_pem(&read("identity.key")).expect("identity.key holds a key");
        let roots = certificates(&read("ca.pem"));
        Self::with_tls(
            namespace,
            url,
            &roots,
            Some(ClientCert::new_with_certs(&own, key)),
        )
    }

    /// A client that calls `url` without a certificate of its own, but believes the authority of `operator`.
    ///
    /// # Panics
    /// When the folder holds no authority.
    pub fn anonymous(namespace: &Namespace, url: &str, operator: &Path) -> Self {
        let roots = std::fs::read(operator.join("ca.pem")).expect("ca.pem can be read");
        Self::with_tls(namespace, url, &certificates(&roots), None)
    }

    fn with_tls(
        namespace: &Namespace,
        url: &str,
        roots: &[Certificate<'static>],
        own: Option<ClientCert>,
    ) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(roots))
            .client_cert(own)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        Self::with(namespace, url.to_owned(), Some(tls))
    }

    fn with(namespace: &Namespace, base: String, tls: Option<TlsConfig>) -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let namespace = namespace.clone();
        thread::spawn(move || {
            namespace.enter();
            let mut config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(TIMEOUT))
                .max_idle_connections(1);
            if let Some(tls) = tls {
                config = config.tls_config(tls);
            }
            let agent: ureq::Agent = config.build().into();
            for job in inbox {
                let answer = request(&agent, &base, job.method, &job.path, job.body);
                // The caller waits for it, unless it has panicked meanwhile.
                job.reply.send(answer).ok();
            }
        });
        Self { jobs }
    }

    /// Sends one request; an error means that no answer came.
    ///
    /// # Errors
    /// With the client's text when the connection failed.
    pub fn call(&self, method: Method, path: &str, body: &[u8]) -> Result<Answer, String> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job = Job {
            method,
            path: path.to_owned(),
            body: body.to_vec(),
            reply,
        };
        self.jobs
            .send(job)
            .expect("the client's thread lives as long as its handles");
        answer.recv().expect("the client's thread answers each job")
    }

    /// GET; see [`Api::call`].
    ///
    /// # Panics
    /// When no answer came.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, b"")
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// PUT of a JSON body; see [`Api::call`].
    ///
    /// # Panics
    /// When no answer came.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }

    /// POST of a JSON body; see [`Api::call`].
    ///
    /// # Panics
    /// When no answer came.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// DELETE; see [`Api::call`].
    ///
    /// # Panics
    /// When no answer came.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, b"")
            .unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    items
        .filter_map(|item| {
            let PemItem::Certificate(certificate) = item else {
                return None;
            };
            Some(certificate)
        })
        .collect()
}

fn request(
    agent: &ureq::Agent,
    base: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, String> {
    let uri = format!("{base}{path}");
    let builder = Request::builder().method(method).uri(uri);
    let result = if body.is_empty() {
        agent.run(builder.body(()).map_err(|error| error.to_string())?)
    } else {
        let builder = builder.header("Content-Type", "application/json");
        agent.run(builder.body(body).map_err(|error| error.to_string())?)
    };
    let mut response = result.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    Ok(Answer { status, body })
}
