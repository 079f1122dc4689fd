//! The CA's memory: its own lives, and every certificate it has issued; it signs nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use locus_proto::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

use super::CaError;
use super::files::{self, PRIVATE};
use crate::certificate::Serial;
use crate::identity::Holder;

/// Where it stands.
pub(super) const LEDGER_FILE: &str = "ca.json";
const FORMAT: u32 = 1;
/// How long a revoked certificate stays on the list after its end, for whoever was let in before.
const LISTED_AFTER_END: Duration = Duration::from_secs(30 * 24 * 3600);

/// Everything that the CA remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    format: u32,
    pub(super) cluster: NodeName,
    /// Number of the newest lists of what is revoked; rises with each.
    pub(super) list_number: u64,
    /// In the order in which they were made; the last one signs.
    pub(super) authorities: Vec<Authority>,
    /// In the order in which they were issued.
    pub(super) certificates: Vec<Record>,
}

/// One life of the CA: a key and its certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authority {
    pub(super) number: u32,
    /// Seconds since 1970, as all times here.
    pub(super) not_after: u64,
    pub(super) retired: Option<u64>,
}

/// One certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    #[serde(with = "as_text")]
    pub(super) serial: Serial,
    #[serde(with = "as_text")]
    pub(super) holder: Holder,
    pub(super) hosts: Vec<String>,
    pub(super) authority: u32,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) revoked: Option<u64>,
}

impl Record {
    /// Returns whether a list names it, if it is revoked.
    pub(super) fn is_listed(&self, now: Duration) -> bool {
        Duration::from_secs(self.not_after) + LISTED_AFTER_END > now
    }
}

/// Writes a value as it is displayed.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// What a certificate is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    /// It is accepted.
    Valid,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
    /// The CA that signed it was retired.
    Retired,
}

impl CertificateState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Retired => "retired",
        }
    }
}

impl Ledger {
    pub(super) fn new(cluster: NodeName, first: Authority) -> Self {
        Self {
            format: FORMAT,
            cluster,
            list_number: 0,
            authorities: vec![first],
            certificates: Vec::new(),
        }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, CaError> {
        let path = folder.join(LEDGER_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CaError::NoCa(folder.to_owned()));
            }
            Err(error) => return Err(files::io_error("read", &path)(error)),
        };
        let damaged = |reason: String| CaError::Ledger {
            path: path.clone(),
            reason,
        };
        let ledger: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if ledger.format != FORMAT {
            let format = ledger.format;
            return Err(damaged(format!("its format is {format}, not {FORMAT}")));
        }
        ledger.current()?;
        Ok(ledger)
    }

    pub(super) fn to_text(&self) -> Result<String, CaError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| CaError::Ledger {
            path: LEDGER_FILE.into(),
            reason: error.to_string(),
        })?;
        Ok(text + "\n")
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), CaError> {
        let text = self.to_text()?;
        files::replace(&folder.join(LEDGER_FILE), text.as_bytes(), PRIVATE)
    }

    /// Returns those that are trusted, the one that signs first.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &Authority> {
        let live = |authority: &&Authority| authority.retired.is_none();
        self.authorities.iter().rev().filter(live)
    }

    /// Returns the one that signs.
    pub(super) fn current(&self) -> Result<&Authority, CaError> {
        let current = self.trusted().next();
        current.ok_or_else(|| CaError::Ledger {
            path: LEDGER_FILE.into(),
            reason: "it names no CA that signs".into(),
        })
    }

    pub(super) fn state_of(&self, record: &Record, now: Duration) -> CertificateState {
        let signed = |authority: &Authority| authority.number == record.authority;
        if record.revoked.is_some() {
            CertificateState::Revoked
        } else if record.not_after <= now.as_secs() {
            CertificateState::Expired
        } else if self.trusted().any(signed) {
            CertificateState::Valid
        } else {
            CertificateState::Retired
        }
    }

    pub(super) fn valid(&self, now: Duration) -> impl Iterator<Item = &Record> {
        self.certificates
            .iter()
            .filter(move |record| self.state_of(record, now) == CertificateState::Valid)
    }

    /// Refuses a number that belongs to another node, and a second number for a node.
    pub(super) fn check_number(&self, holder: &Holder, now: Duration) -> Result<(), CaError> {
        let Some((name, id)) = node(holder) else {
            return Ok(());
        };
        for (other, number) in self.valid(now).filter_map(|record| node(&record.holder)) {
            if number == id && other != name {
                let name = other.clone();
                return Err(CaError::IdTaken { id, name });
            }
            if other == name && number != id {
                let (name, id) = (name.clone(), number);
                return Err(CaError::NameTaken { name, id });
            }
        }
        Ok(())
    }
}

fn node(holder: &Holder) -> Option<(&NodeName, NodeId)> {
    match holder {
        Holder::Node { name, id } => Some((name, *id)),
        Holder::Locsvc { .. } | Holder::Switch { .. } | Holder::Operator { .. } => None,
    }
}
