//! Why a handshake came to nothing, in words by which an operator can mend it.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::certificate::PeerError;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Io(io::Error),
    /// The other side ended the connection.
    #[error("the other side closed the connection during the TLS handshake; its log may say why")]
    Closed,
    /// It took too long.
    #[error("the TLS handshake was not done within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// What came is no TLS.
    #[error(
        "the other side does not speak TLS: does its configuration say `insecure = true`, or is it another program?"
    )]
    NotTls,
    /// What came is older than TLS 1.3.
    #[error("the other side does not speak TLS 1.3: {0}")]
    TooOld(String),
    /// They speak of something else over TLS.
    #[error("the other side speaks another protocol over TLS: is the port right?")]
    OtherProtocol,
    /// We do not accept their certificate.
    #[error("we refuse their certificate: {0}")]
    Refused(String),
    /// Their certificate does not name somebody of our cluster, or not whom we expect.
    #[error("we refuse their certificate: {0}")]
    Peer(PeerError),
    /// They do not accept ours.
    #[error("{0}")]
    RefusedByThem(String),
    /// Anything else that TLS finds wrong.
    #[error("the TLS handshake failed: {0}")]
    Tls(Error),
}

impl From<Error> for HandshakeError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls may add to its errors; what is not named has its own text"
    )]
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<PeerError>() {
                    Some(error) => Self::Peer(error.clone()),
                    None => Self::Refused(other.to_string()),
                }
            }
            Error::InvalidCertificate(error) => Self::Refused(refusal(&error)),
            Error::NoCertificatesPresented => Self::Peer(PeerError::NoCertificate),
            Error::AlertReceived(alert) => Self::RefusedByThem(their_refusal(alert)),
            Error::NoApplicationProtocol => Self::OtherProtocol,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(why) => match why {
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled => Self::TooOld(format!("{why:?}")),
                other => Self::Tls(Error::PeerIncompatible(other)),
            },
            other => Self::Tls(other),
        }
    }
}

/// Returns why we refuse a certificate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add to its errors; what is not named has its own text"
)]
fn refusal(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "it was signed by none of the CAs in our ca.pem (another cluster, a retired CA, or a new one whose ca.pem \
             has not been copied here)"
                .into()
        }
        CertificateError::Revoked => "it was revoked".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired (is our clock right? else issue it anew by locusctl ca)".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is our clock right?".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made for that end of a connection (only a locsvc's may serve)".into()
        }
        other => other.to_string(),
    }
}

/// Returns what the other side has said when it refused us.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add to its errors; what is not named has its own text"
)]
pub(super) fn their_refusal(alert: AlertDescription) -> String {
    let known = match alert {
        AlertDescription::CertificateRevoked => "our certificate was revoked",
        AlertDescription::CertificateExpired => {
            "our certificate has expired, or one of the two clocks is wrong"
        }
        AlertDescription::UnknownCA => {
            "its ca.pem does not hold the CA that signed our certificate (another cluster, a retired CA, or a new one \
             whose ca.pem has not been copied there)"
        }
        AlertDescription::CertificateRequired => "it demands a certificate",
        AlertDescription::CertificateUnknown | AlertDescription::BadCertificate => {
            "our certificate does not name somebody of its cluster whom it would accept; its log says more"
        }
        AlertDescription::UnsupportedCertificate => {
            "our certificate is not made for this end of a connection"
        }
        AlertDescription::ProtocolVersion => "it speaks no TLS 1.3",
        AlertDescription::NoApplicationProtocol => {
            "it speaks another protocol over TLS: is the port right?"
        }
        other => return format!("the other side refuses the connection (TLS alert {other:?})"),
    };
    format!("the other side refuses us: {known}")
}
