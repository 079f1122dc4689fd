//! What follows from the CA's ledger: the files that every identity folder holds a copy of. It decides nothing.

use std::fs;
use std::io;

use super::files::{PUBLIC, io_error, replace};
use super::ledger::{Authority, Ledger};
use super::sign::{self, Signer};
use super::{CaError, CertificateAuthority, ISSUED_FOLDER, Locked};
use crate::folder::{CA_FILE, CERTIFICATE_FILE, REVOKED_FILE};

impl CertificateAuthority {
    /// Refuses what the ledger says was done before, and first sees to it that it is done to its end: the earlier command
    /// may have been cut off, or the disk been full, between the ledger and the files that follow from it.
    pub(super) fn repeated<T>(&self, locked: &mut Locked, error: CaError) -> Result<T, CaError> {
        self.publish(locked)?;
        Err(error)
    }

    /// Writes the ledger, then what follows from it: the files that every identity folder holds a copy of, and no key of a
    /// CA that was retired.
    pub(super) fn publish(&self, locked: &mut Locked) -> Result<(), CaError> {
        locked.ledger.list_number += 1;
        locked.ledger.write(&self.folder)?;
        let trusted = self.trusted(&locked.ledger)?;
        let revoked = self.lists(locked)?;
        replace(&self.folder.join(CA_FILE), trusted.as_bytes(), PUBLIC)?;
        replace(&self.folder.join(REVOKED_FILE), revoked.as_bytes(), PUBLIC)?;
        for retired in locked
            .ledger
            .authorities
            .iter()
            .filter(|one| one.retired.is_some())
        {
            let (_, key) = sign::files_of(&self.folder, retired.number);
            match fs::remove_file(&key) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &key)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let issued = self.folder.join(ISSUED_FOLDER);
        let folders = match fs::read_dir(&issued) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("read", &issued)(error)),
        };
        for folder in folders {
            let folder = folder.map_err(io_error("read", &issued))?.path();
            if folder.join(CERTIFICATE_FILE).exists() {
                replace(&folder.join(CA_FILE), trusted.as_bytes(), PUBLIC)?;
                replace(&folder.join(REVOKED_FILE), revoked.as_bytes(), PUBLIC)?;
            }
        }
        Ok(())
    }

    /// Returns the certificates of all trusted CAs, the one that signs first.
    pub(super) fn trusted(&self, ledger: &Ledger) -> Result<String, CaError> {
        let read = |authority: &Authority| {
            let (path, _) = sign::files_of(&self.folder, authority.number);
            fs::read_to_string(&path).map_err(io_error("read", &path))
        };
        ledger.trusted().map(read).collect()
    }

    /// Returns the lists of all trusted CAs.
    pub(super) fn lists(&self, locked: &Locked) -> Result<String, CaError> {
        let list = |authority: &Authority| {
            Signer::read(&self.folder, authority)?.list(&locked.ledger, locked.now)
        };
        locked.ledger.trusted().map(list).collect()
    }
}
