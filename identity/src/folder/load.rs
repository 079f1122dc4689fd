//! Makes of an identity folder's files what TLS needs, if they fit together; it reads none of them.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, ServerConfig, version};

use super::OpenIdentityError;
use super::files::{CA_FILE, CERTIFICATE_FILE, Files, REVOKED_FILE};
use crate::certificate::Facts;
use crate::clock;
use crate::verify::{ClusterVerifier, Standing, provider};

/// Application protocol of the connections between daemons (RFC 7301).
pub(crate) const ALPN: &[u8] = b"locus";
/// Application protocol of the HTTP API.
const API_ALPN: &[u8] = b"http/1.1";

/// What the files make of us.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) facts: Facts,
    pub(super) verifier: Arc<ClusterVerifier>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) api: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) api_client: Arc<ClientConfig>,
    pub(super) warnings: Vec<String>,
}

/// Makes the TLS configurations of what was read.
pub(super) fn load(path: &Path, files: Files) -> Result<Loaded, OpenIdentityError> {
    let warnings = files.warnings(path);
    let Files {
        identity,
        facts,
        cas,
        lists,
        key,
    } = files;
    let bad_list = |reason: String| OpenIdentityError::NoList {
        path: path.join(REVOKED_FILE),
        reason,
    };
    let verifier = ClusterVerifier::new(identity.cluster, &cas, &lists)
        .map_err(|error| bad_list(error.to_string()))?;
    // By our own certificate it is seen whether all fits together.
    match verifier.judge(&key.cert, &facts, clock::since_epoch()) {
        Ok(Standing::Good | Standing::Expired | Standing::Revoked) => {}
        Ok(Standing::Unknown) => {
            return Err(OpenIdentityError::NotSigned {
                path: path.join(CERTIFICATE_FILE),
                cas: path.join(CA_FILE),
            });
        }
        Err(Error::InvalidCertificate(error)) => {
            return Err(OpenIdentityError::NotAnIdentity {
                path: path.join(CERTIFICATE_FILE),
                reason: format!("nobody would take it: {error}"),
            });
        }
        Err(error) => return Err(bad_list(error.to_string())),
    }
    let verifier = Arc::new(verifier);
    let key = Arc::new(key);
    Ok(Loaded {
        facts,
        server: Arc::new(server(&verifier, &key, ALPN)),
        api: Arc::new(server(&verifier, &key, API_ALPN)),
        client: Arc::new(client(&verifier, &key, ALPN)),
        api_client: Arc::new(client(&verifier, &key, API_ALPN)),
        verifier,
        warnings,
    })
}

fn server(
    verifier: &Arc<ClusterVerifier>,
    key: &Arc<CertifiedKey>,
    protocol: &[u8],
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider());
    let mut config = builder
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::clone(verifier) as _)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

fn client(
    verifier: &Arc<ClusterVerifier>,
    key: &Arc<CertifiedKey>,
    protocol: &[u8],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider());
    let mut config = builder
        .with_protocol_versions(&[&version::TLS13])
        .expect("ring has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as _)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}
