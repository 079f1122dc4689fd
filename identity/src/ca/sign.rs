//! Makes keys, certificates and lists; it remembers nothing and writes no file.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_proto::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::CaError;
use super::files::io_error;
use super::ledger::{Authority, Ledger, Record};
use crate::certificate::Serial;
use crate::folder::locsvc_name;
use crate::identity::{Holder, Identity};

/// How long before its making a certificate is valid: clocks differ.
pub(super) const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// A key and its certificate, as PEM.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Returns where the certificate and the key of an authority are.
pub(super) fn files_of(folder: &Path, number: u32) -> (PathBuf, PathBuf) {
    let file = |ending: &str| folder.join(format!("ca-{number}.{ending}"));
    (file("pem"), file("key"))
}

/// Returns a random number for a certificate: 127 bits, so that none is ever given twice (RFC 5280 §4.1.2.2).
pub(super) fn serial() -> Result<Serial, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and no zeros before it
    Ok(Serial::from_be_bytes(&bytes))
}

fn date(at: u64) -> OffsetDateTime {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(at)
        .unwrap_or(time::UtcDateTime::MAX.to_offset(time::UtcOffset::UTC))
}

fn name(cluster: &NodeName, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, format!("Locus {cluster}"));
    name.push(DnType::CommonName, common);
    name
}

/// Makes a CA's own key and certificate.
pub(super) fn authority(
    cluster: &NodeName,
    authority: &Authority,
    not_before: u64,
) -> Result<Made, CaError> {
    let key = KeyPair::generate()?; // ECDSA P-256: what browsers, curl and openssl all take
    let serial = serial()?;
    // Lists and certificates are matched with CAs by name: it must differ from that of every other CA.
    let common = format!("CA {} {}", authority.number, &serial.to_string()[..8]);
    let mut params = CertificateParams::default();
    params.not_before = date(not_before);
    params.not_after = date(authority.not_after);
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.distinguished_name = name(cluster, &common);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    Ok(Made { certificate, key })
}

/// An authority that can sign.
pub(super) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    not_after: u64,
    number: u32,
}

impl Signer {
    /// Reads the key and the certificate of an authority.
    pub(super) fn read(folder: &Path, authority: &Authority) -> Result<Self, CaError> {
        let (certificate, key) = files_of(folder, authority.number);
        let mode = fs::metadata(&key).map(|metadata| metadata.mode() & 0o777);
        let mode = mode.map_err(io_error("read", &key))?;
        if mode & 0o077 != 0 {
            return Err(CaError::KeyMode { path: key, mode });
        }
        let text = fs::read_to_string(&key).map_err(io_error("read", &key))?;
        let damaged = |path: PathBuf| {
            move |error: rcgen::Error| CaError::Authority {
                path,
                reason: error.to_string(),
            }
        };
        let pair = KeyPair::from_pem(&text).map_err(damaged(key))?;
        let text = fs::read_to_string(&certificate).map_err(io_error("read", &certificate))?;
        let issuer = Issuer::from_ca_cert_pem(&text, pair).map_err(damaged(certificate))?;
        Ok(Self {
            issuer,
            not_after: authority.not_after,
            number: authority.number,
        })
    }

    /// Makes a key and a certificate.
    pub(super) fn certificate(
        &self,
        identity: &Identity,
        record: &Record,
    ) -> Result<Made, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = date(record.not_before);
        params.not_after = date(record.not_after);
        params.serial_number = Some(SerialNumber::from_slice(record.serial.as_bytes()));
        params.distinguished_name = name(&identity.cluster, &identity.holder.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        if let Holder::Locsvc { .. } = identity.holder {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            let own = locsvc_name(&identity.cluster);
            params
                .subject_alt_names
                .push(SanType::DnsName(own.try_into()?));
            for host in &record.hosts {
                params.subject_alt_names.push(match host.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(host.clone().try_into()?),
                });
            }
        }
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Made { certificate, key })
    }

    /// Makes the list of what this authority has signed and the ledger says is revoked.
    pub(super) fn list(&self, ledger: &Ledger, now: Duration) -> Result<String, CaError> {
        let listed = |record: &&Record| record.authority == self.number && record.is_listed(now);
        let revoked = ledger
            .certificates
            .iter()
            .filter(listed)
            .filter_map(|record| {
                Some(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(record.serial.as_bytes()),
                    revocation_time: date(record.revoked?),
                    reason_code: None,
                    invalidity_date: None,
                })
            });
        let begin = now.saturating_sub(CLOCKS_DIFFER).as_secs();
        let list = CertificateRevocationListParams {
            this_update: date(begin),
            // Nobody makes a new list while nothing is revoked, so it lasts as long as its CA.
            next_update: date(self.not_after.max(begin + 1)),
            crl_number: SerialNumber::from(ledger.list_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}
