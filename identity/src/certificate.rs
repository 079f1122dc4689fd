//! What stands in a certificate: who, until when, under which number; it does not judge whether to trust it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::identity::{Identity, ParseIdentityError, SCHEME};

/// Number of a certificate, at most 20 bytes (RFC 5280 §4.1.2.2); written in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// Longest one in bytes.
    pub const BYTES_MAX: usize = 20;

    /// Returns the number whose big-endian bytes are `bytes`; zeros before it do not count.
    pub(crate) fn from_be_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }

    /// Returns the big-endian bytes, without zeros before them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// Returned for text that is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is an even number of hexadecimal digits, at most 40")]
pub struct ParseSerialError;

impl FromStr for Serial {
    type Err = ParseSerialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        let fits = digits.len().is_multiple_of(2) && digits.len() <= 2 * Self::BYTES_MAX;
        if !fits || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ParseSerialError);
        }
        let pairs = text.as_bytes().chunks_exact(2);
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).map_err(|_| ParseSerialError)?;
            u8::from_str_radix(text, 16).map_err(|_| ParseSerialError)
        };
        let bytes: Result<Vec<u8>, _> = pairs.map(byte).collect();
        Ok(Self::from_be_bytes(&bytes?))
    }
}

/// The other side of a connection, as its verified certificate says.
#[derive(Clone)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// Number of its certificate.
    pub serial: Serial,
    /// When its certificate ends.
    pub not_after: SystemTime,
    /// The certificate and what came with it, by which it can be judged again.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) facts: Facts,
}

impl fmt::Display for Peer {
    /// Writes `locus:lab/node/n1/7 (certificate 5f3a…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (certificate {})", self.identity, self.serial)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No certificate was shown.
    #[error("no certificate was shown")]
    NoCertificate,
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// It names nobody.
    #[error("the certificate holds no URI that begins with locus: (was it made by locusctl ca?)")]
    NoIdentity,
    /// It names several.
    #[error("the certificate holds {0} URIs that begin with locus:, where one is allowed")]
    SeveralIdentities(usize),
    /// It names somebody in a way that is none.
    #[error("the certificate names {uri:?}: {error}")]
    BadIdentity {
        /// What stands there.
        uri: String,
        /// What is wrong with it.
        error: ParseIdentityError,
    },
    /// It is of another cluster.
    #[error("the certificate is {theirs}, not of our cluster {ours}")]
    OtherCluster {
        /// Who they are.
        theirs: Identity,
        /// Our cluster.
        ours: String,
    },
    /// It is not a location service, though it serves.
    #[error("the certificate is {0}, where a locsvc is expected")]
    NotALocsvc(Identity),
}

/// What matters of one certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) serial: Serial,
    pub(crate) not_before: Duration,
    pub(crate) not_after: Duration,
}

impl Facts {
    /// Returns whether it is valid at that time since 1970.
    pub(crate) fn covers(&self, at: Duration) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }

    /// Returns a time at which it is valid.
    pub(crate) fn middle(&self) -> Duration {
        let half = self.not_after.saturating_sub(self.not_before) / 2;
        self.not_before.saturating_add(half)
    }
}

/// Returns who the certificate at the head of `chain` speaks for.
///
/// `chain` is what rustls hands out after a handshake by [`crate::IdentityFolder::server`] or
/// [`crate::IdentityFolder::client`]; nothing is verified here again.
///
/// # Errors
/// [`PeerError`] if there is none, or it does not name exactly one identity. After such a handshake this
/// cannot happen, because the handshake refuses them.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
    let first = chain.first().ok_or(PeerError::NoCertificate)?;
    let certificate = parse(first)?;
    let facts = facts_of(&certificate);
    Ok(Peer {
        identity: identity_of(&certificate)?,
        serial: facts.serial.clone(),
        not_after: UNIX_EPOCH + facts.not_after,
        facts,
        chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
    })
}

/// Returns what matters of one certificate.
pub(crate) fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, PeerError> {
    Ok(facts_of(&parse(certificate)?))
}

/// Returns whether it may sign others.
pub(crate) fn is_ca(certificate: &CertificateDer<'_>) -> Result<bool, PeerError> {
    Ok(parse(certificate)?.is_ca())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    let (rest, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| PeerError::Malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(PeerError::Malformed("bytes follow it".into()))
    }
}

fn facts_of(certificate: &X509Certificate<'_>) -> Facts {
    let validity = certificate.validity();
    let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or_default());
    Facts {
        serial: Serial::from_be_bytes(certificate.raw_serial()),
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
    }
}

fn identity_of(certificate: &X509Certificate<'_>) -> Result<Identity, PeerError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| PeerError::Malformed(error.to_string()))?
        .ok_or(PeerError::NoIdentity)?;
    let ours = |name: &GeneralName<'_>| {
        let GeneralName::URI(uri) = name else {
            return None;
        };
        uri.starts_with(SCHEME).then(|| (*uri).to_owned())
    };
    let uris: Vec<String> = names.value.general_names.iter().filter_map(ours).collect();
    match &uris[..] {
        [] => Err(PeerError::NoIdentity),
        [uri] => uri.parse().map_err(|error| {
            let uri = uri.clone();
            PeerError::BadIdentity { uri, error }
        }),
        several => Err(PeerError::SeveralIdentities(several.len())),
    }
}
