//! Reads the four files of an identity folder and looks whether they fit together; it trusts nobody by them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::OpenIdentityError;
use crate::certificate::{self, Facts, peer_identity};
use crate::clock;
use crate::identity::Identity;
use crate::verify::provider;

/// The CAs that we trust.
pub(crate) const CA_FILE: &str = "ca.pem";
/// Our certificate.
pub(crate) const CERTIFICATE_FILE: &str = "identity.pem";
/// Our private key.
pub(crate) const KEY_FILE: &str = "identity.key";
/// What is revoked.
pub(crate) const REVOKED_FILE: &str = "revoked.pem";

/// Longest file that is read. A list of 100,000 revoked certificates takes about 5 MiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most CAs that are trusted at a time; one is usual, two while one follows another.
const CAS_MAX: usize = 8;
/// Permissions of the key that are too wide: to change it as a group, and anything for others.
const KEY_MODE_REFUSED: u32 = 0o027;

/// How the four files look from outside; it changes whenever one of them does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<Look>; 4]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    inode: (u64, u64),
    len: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(folder: &Path) -> Self {
        let look = |file: &str| {
            let metadata = fs::metadata(folder.join(file)).ok()?;
            Some(Look {
                inode: (metadata.dev(), metadata.ino()),
                len: metadata.len(),
                mode: metadata.mode(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        };
        Self([CA_FILE, CERTIFICATE_FILE, KEY_FILE, REVOKED_FILE].map(look))
    }
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) identity: Identity,
    pub(super) facts: Facts,
    pub(super) cas: Vec<CertificateDer<'static>>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) key: CertifiedKey,
}

impl Files {
    pub(super) fn read(folder: &Path) -> Result<Self, OpenIdentityError> {
        let cas = cas(folder)?;
        let chain = certificates(folder, CERTIFICATE_FILE, CAS_MAX)?;
        let certificate = folder.join(CERTIFICATE_FILE);
        let not_one = |reason: String| OpenIdentityError::NotAnIdentity {
            path: certificate.clone(),
            reason,
        };
        let facts = certificate::facts(&chain[0]).map_err(|error| not_one(error.to_string()))?;
        let peer = peer_identity(&chain).map_err(|error| not_one(error.to_string()))?;
        let key = key(folder, chain)?;
        let lists = lists(folder)?;
        Ok(Self {
            identity: peer.identity,
            facts,
            cas,
            lists,
            key,
        })
    }

    /// Returns what is odd about them and does not hinder.
    pub(super) fn warnings(&self, folder: &Path) -> Vec<String> {
        let now = clock::since_epoch();
        let shown = |file: &str| folder.join(file).display().to_string();
        let mut warnings = Vec::new();
        if self.facts.not_after <= now {
            warnings.push(format!(
                "{} has expired: nobody accepts it; issue it anew by locusctl ca",
                shown(CERTIFICATE_FILE)
            ));
        }
        if self.facts.not_before > now {
            warnings.push(format!(
                "{} is not valid yet: is this machine's clock right?",
                shown(CERTIFICATE_FILE)
            ));
        }
        let lists = self.lists.iter().filter_map(|list| parse_list(list).ok());
        let mut past = false;
        let mut revoked = false;
        for list in lists {
            let next = list.next_update().map(|next| next.timestamp());
            past |= next.is_some_and(|next| u64::try_from(next).unwrap_or(0) <= now.as_secs());
            let serial = self.facts.serial.as_bytes();
            let mut serials = list.iter_revoked_certificates();
            revoked |= serials.any(|one| strip(one.raw_serial()) == serial);
        }
        if past {
            warnings.push(format!(
                "{} is past its date: it still counts, but may lack what was revoked since; copy it anew from the CA",
                shown(REVOKED_FILE)
            ));
        }
        if revoked {
            warnings.push(format!(
                "{} was revoked: nobody accepts it; issue it anew by locusctl ca",
                shown(CERTIFICATE_FILE)
            ));
        }
        warnings
    }
}

fn strip(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// Reads a whole file, within [`FILE_BYTES_MAX`].
fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, OpenIdentityError> {
    let path = folder.join(name);
    let mut bytes = Vec::new();
    let result = File::open(&path).and_then(|file| {
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenIdentityError::Unreadable { path, error }),
    }
}

fn must_read(folder: &Path, name: &str) -> Result<Vec<u8>, OpenIdentityError> {
    read(folder, name)?.ok_or_else(|| OpenIdentityError::Missing {
        path: folder.join(name),
        folder: folder.to_owned(),
    })
}

fn certificates(
    folder: &Path,
    name: &str,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, OpenIdentityError> {
    let bytes = must_read(folder, name)?;
    let not_pem = |reason: String| OpenIdentityError::NotPem {
        path: folder.join(name),
        what: "certificate",
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| not_pem(error.to_string()))?;
    for one in &found {
        certificate::facts(one).map_err(|error| not_pem(error.to_string()))?;
    }
    match found.len() {
        0 => Err(not_pem("there is no PEM section of that kind".into())),
        many if many > most => Err(not_pem(format!("there are {many}, more than {most}"))),
        _ => Ok(found),
    }
}

/// Reads whom to trust; nobody who is no CA, since a trusted key signs whatever its own certificate says.
fn cas(folder: &Path) -> Result<Vec<CertificateDer<'static>>, OpenIdentityError> {
    let cas = certificates(folder, CA_FILE, CAS_MAX)?;
    for (place, ca) in (1..).zip(&cas) {
        let is_ca = certificate::is_ca(ca).map_err(|error| error.to_string());
        let fault = match is_ca {
            Ok(true) => continue,
            Ok(false) => format!("certificate {place} in it is not that of a CA"),
            Err(error) => error,
        };
        return Err(OpenIdentityError::NotPem {
            path: folder.join(CA_FILE),
            what: "CA",
            reason: fault,
        });
    }
    Ok(cas)
}

fn key(
    folder: &Path,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, OpenIdentityError> {
    let path = folder.join(KEY_FILE);
    let bytes = must_read(folder, KEY_FILE)?;
    // The content is read already; a mode that changes meanwhile changes the fingerprint, too.
    let mode = fs::metadata(&path).map(|metadata| metadata.mode() & 0o777);
    match mode {
        Ok(mode) if mode & KEY_MODE_REFUSED != 0 => {
            return Err(OpenIdentityError::KeyMode { path, mode });
        }
        Ok(_) => {}
        Err(error) => return Err(OpenIdentityError::Unreadable { path, error }),
    }
    let not_pem = |reason: String| OpenIdentityError::NotPem {
        path: path.clone(),
        what: "private key",
        reason,
    };
    let der = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| not_pem(error.to_string()))?;
    let mismatch = Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
    CertifiedKey::from_der(chain, der, &provider()).map_err(|error| {
        if error == mismatch {
            OpenIdentityError::KeyMismatch {
                key: path.clone(),
                certificate: folder.join(CERTIFICATE_FILE),
            }
        } else {
            not_pem(error.to_string())
        }
    })
}

fn parse_list<'a>(
    list: &'a CertificateRevocationListDer<'_>,
) -> Result<CertificateRevocationList<'a>, String> {
    match CertificateRevocationList::from_der(list) {
        Ok(([], list)) => Ok(list),
        Ok(_) => Err("bytes follow it".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn lists(folder: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, OpenIdentityError> {
    let Some(bytes) = read(folder, REVOKED_FILE)? else {
        return Ok(Vec::new());
    };
    let no_list = |reason: String| OpenIdentityError::NoList {
        path: folder.join(REVOKED_FILE),
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| no_list(error.to_string()))?;
    for list in &found {
        parse_list(list).map_err(no_list)?;
    }
    // An emptied file must not be taken for "nothing is revoked".
    match found.len() {
        0 => Err(no_list("there is no PEM section of that kind".into())),
        many if many > CAS_MAX => Err(no_list(format!("there are {many}, more than {CAS_MAX}"))),
        _ => Ok(found),
    }
}
