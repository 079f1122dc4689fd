//! Whom to trust: the certificates of a cluster's CA, not revoked, of holders in that cluster. It reads no file.

use std::sync::Arc;
use std::time::Duration;

use locus_proto::NodeName;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::certificate::{Facts, Peer, PeerError, peer_identity};
use crate::identity::Holder;

/// What a certificate of the cluster is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It would be accepted.
    Good,
    /// It has ended, or has not begun; what it has opened may go on.
    Expired,
    /// It was revoked.
    Revoked,
    /// No CA that we trust has signed it: that CA was retired.
    Unknown,
}

impl Standing {
    /// Returns whether a connection that was opened with it must end now.
    ///
    /// Not by expiry: a certificate that nobody renewed in time must not cut a cluster that works.
    pub fn ends_connections(self) -> bool {
        match self {
            Self::Good | Self::Expired => false,
            Self::Revoked | Self::Unknown => true,
        }
    }
}

/// Judges certificates, of servers and of clients, by rustls' own verifiers and by the identity in them.
#[derive(Debug)]
pub(crate) struct ClusterVerifier {
    cluster: NodeName,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

/// The one provider of cryptography; nothing is installed for the whole process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl ClusterVerifier {
    /// Returns a verifier that trusts `cas` less what `lists` revoke.
    ///
    /// A list counts though it is past its date: it can only be too short then, and refusing everybody by it
    /// would cut the cluster off.
    pub(crate) fn new(
        cluster: NodeName,
        cas: &[CertificateDer<'static>],
        lists: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(cas.iter().cloned());
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .with_crls(lists.iter().cloned())
            .allow_unknown_revocation_status()
            .build()?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(lists.iter().cloned())
            .allow_unknown_revocation_status()
            .build()?;
        Ok(Self {
            cluster,
            clients,
            servers,
        })
    }

    /// Judges a certificate for what it is worth `now` (since 1970), whatever it is used for.
    ///
    /// Whether it is trusted is asked first, for a time at which it is valid: a certificate that was revoked and has
    /// ended since is one that was revoked.
    pub(crate) fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        facts: &Facts,
        now: Duration,
    ) -> Result<Standing, Error> {
        let (first, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let middle = UnixTime::since_unix_epoch(facts.middle());
        // Each of our certificates may be used by a client.
        match self.clients.verify_client_cert(first, rest, middle) {
            Ok(_) if facts.covers(now) => Ok(Standing::Good),
            Ok(_) => Ok(Standing::Expired),
            Err(Error::InvalidCertificate(CertificateError::Revoked)) => Ok(Standing::Revoked),
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                Ok(Standing::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the holder of a certificate that is trusted, if it is one of our cluster.
    fn member(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
    ) -> Result<Peer, PeerError> {
        let mut chain = vec![first.clone()];
        chain.extend(rest.iter().cloned());
        let peer = peer_identity(&chain)?;
        if peer.identity.cluster == self.cluster {
            Ok(peer)
        } else {
            let (theirs, ours) = (peer.identity, self.cluster.to_string());
            Err(PeerError::OtherCluster { theirs, ours })
        }
    }
}

/// Hands our reason through rustls to where the handshake is reported.
fn refused(error: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl ClientCertVerifier for ClusterVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .clients
            .verify_client_cert(end_entity, intermediates, now)?;
        self.member(end_entity, intermediates).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.servers.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let peer = self.member(end_entity, intermediates).map_err(refused)?;
        match peer.identity.holder {
            Holder::Locsvc { .. } => Ok(verified),
            Holder::Node { .. } | Holder::Switch { .. } | Holder::Operator { .. } => {
                Err(refused(PeerError::NotALocsvc(peer.identity)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.supported_verify_schemes()
    }
}
