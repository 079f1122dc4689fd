//! What is asked of the CA and what it answers; it makes nothing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use locus_proto::NodeName;
use rustls::pki_types::DnsName;

use super::CaError;
use super::ledger::{CertificateState, Ledger, Record};
use crate::certificate::Serial;
use crate::identity::Holder;

/// What a certificate is to be.
#[derive(Debug, Clone)]
pub struct Order {
    holder: Holder,
    hosts: Vec<String>,
    days: Option<u32>,
    out: Option<PathBuf>,
    renew: bool,
}

impl Order {
    /// Returns an order for `holder`: a year, into the CA's own folder, over nothing that is there.
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            hosts: Vec::new(),
            days: None,
            out: None,
            renew: false,
        }
    }

    /// Adds an address or DNS name under which a location service's HTTP API is called.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.to_owned());
        self
    }

    /// Sets how many days it lasts; without it, a year, or as long as the CA.
    #[must_use]
    pub fn lasting(mut self, days: u32) -> Self {
        self.days = Some(days);
        self
    }

    /// Writes the identity folder there, and not to `issued/KIND-NAME` in the CA's own.
    #[must_use]
    pub fn out(mut self, folder: PathBuf) -> Self {
        self.out = Some(folder);
        self
    }

    /// Replaces the identity that lies in that folder.
    #[must_use]
    pub fn renew(mut self) -> Self {
        self.renew = true;
        self
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(super) fn days(&self) -> Option<u32> {
        self.days
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    pub(super) fn renews(&self) -> bool {
        self.renew
    }

    /// Returns the hosts, each an IP address or a DNS name in lower case.
    pub(super) fn hosts(&self) -> Result<Vec<String>, CaError> {
        let serves = matches!(self.holder, Holder::Locsvc { .. });
        if !serves && !self.hosts.is_empty() {
            return Err(CaError::HostNotNeeded(self.holder.clone()));
        }
        let check = |host: &String| {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(address.to_string());
            }
            // A name of digits and dots alone is an address with a typing error.
            let name = host.to_ascii_lowercase();
            let numeric = name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            match DnsName::try_from(name.as_str()) {
                Ok(_) if !numeric => Ok(name),
                Ok(_) | Err(_) => Err(CaError::Host(host.clone())),
            }
        };
        self.hosts.iter().map(check).collect()
    }
}

/// One certificate that the CA has issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate {
    /// Its number.
    pub serial: Serial,
    /// Who holds it.
    pub holder: Holder,
    /// Addresses and names that it serves under.
    pub hosts: Vec<String>,
    /// Which of the CA's lives signed it.
    pub authority: u32,
    /// When it ends.
    pub not_after: SystemTime,
    /// When it was revoked.
    pub revoked: Option<SystemTime>,
    /// What it is now.
    pub state: CertificateState,
}

impl CaCertificate {
    pub(super) fn of(ledger: &Ledger, record: &Record, now: Duration) -> Self {
        Self {
            serial: record.serial.clone(),
            holder: record.holder.clone(),
            hosts: record.hosts.clone(),
            authority: record.authority,
            not_after: at(record.not_after),
            revoked: record.revoked.map(at),
            state: ledger.state_of(record, now),
        }
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What [`super::CertificateAuthority::issue`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: CaCertificate,
    /// The identity folder.
    pub folder: PathBuf,
    /// Certificates of the same holder that stay valid.
    pub earlier: Vec<CaCertificate>,
}

/// Which CA follows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The one before.
    pub previous: u32,
    /// The one that signs.
    pub current: u32,
}

/// What one life of the CA is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityState {
    /// It signs.
    Current,
    /// It is trusted and signs no certificates any more.
    Previous,
    /// It is trusted no longer.
    Retired,
}

impl AuthorityState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }
}

/// One life of the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaAuthority {
    /// Its number, from 1.
    pub number: u32,
    /// When it ends.
    pub not_after: SystemTime,
    /// What it is now.
    pub state: AuthorityState,
}

/// Everything that a CA knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaContent {
    /// The cluster.
    pub cluster: NodeName,
    /// When it was asked.
    pub at: SystemTime,
    /// The CA's lives, in order.
    pub authorities: Vec<CaAuthority>,
    /// All certificates, in the order of their making.
    pub certificates: Vec<CaCertificate>,
}

impl CaContent {
    pub(super) fn of(ledger: &Ledger, now: Duration) -> Self {
        let current = ledger.trusted().next().map(|authority| authority.number);
        let authorities = ledger.authorities.iter().map(|authority| CaAuthority {
            number: authority.number,
            not_after: at(authority.not_after),
            state: match authority.retired {
                Some(_) => AuthorityState::Retired,
                None if Some(authority.number) == current => AuthorityState::Current,
                None => AuthorityState::Previous,
            },
        });
        let certificates = ledger.certificates.iter();
        Self {
            cluster: ledger.cluster.clone(),
            at: UNIX_EPOCH + now,
            authorities: authorities.collect(),
            certificates: certificates
                .map(|record| CaCertificate::of(ledger, record, now))
                .collect(),
        }
    }
}

/// Returns the serial numbers of the certificates that `which` means and that can be revoked.
pub(super) fn choose(ledger: &Ledger, which: &str, now: Duration) -> Result<Vec<Serial>, CaError> {
    let by_name = |record: &&Record| {
        let holder = &record.holder;
        which == holder.name().as_str()
            || which == format!("{}/{}", holder.kind(), holder.name())
            || which == holder.to_string()
    };
    let mut found: Vec<&Record> = ledger.certificates.iter().filter(by_name).collect();
    if found.is_empty()
        && let Ok(serial) = which.parse::<Serial>()
    {
        found = ledger
            .certificates
            .iter()
            .filter(|record| record.serial == serial)
            .collect();
    }
    let Some(first) = found.first() else {
        return Err(CaError::NotFound(which.to_owned()));
    };
    let counts = |record: &&&Record| match ledger.state_of(record, now) {
        CertificateState::Valid => true,
        CertificateState::Expired => record.is_listed(now),
        CertificateState::Revoked | CertificateState::Retired => false,
    };
    let revocable: Vec<&Record> = found.iter().filter(counts).copied().collect();
    let mut holders: Vec<Holder> = Vec::new();
    for record in &revocable {
        if !holders.iter().any(|holder| holder.same_as(&record.holder)) {
            holders.push(record.holder.clone());
        }
    }
    match holders.len() {
        0 => Err(CaError::NothingValid(first.holder.to_string())),
        1 => {
            let serials = revocable.iter().map(|record| record.serial.clone());
            Ok(serials.collect())
        }
        _ => Err(CaError::Ambiguous {
            asked: which.to_owned(),
            holders,
        }),
    }
}

/// Returns who has a valid certificate of that authority and none of a later one.
pub(super) fn only_signed_by(ledger: &Ledger, authority: u32, now: Duration) -> Vec<Holder> {
    let mut only: Vec<Holder> = Vec::new();
    for record in ledger
        .valid(now)
        .filter(|record| record.authority == authority)
    {
        let holder = &record.holder;
        let later = |other: &Record| other.authority > authority && other.holder.same_as(holder);
        if !ledger.valid(now).any(later) && !only.iter().any(|one| one.same_as(holder)) {
            only.push(holder.clone());
        }
    }
    only
}
