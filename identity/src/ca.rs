//! A cluster's own CA in one folder: issues, revokes, follows itself. Whoever can read the folder is the CA.

mod error;
mod files;
mod ledger;
mod order;
mod publish;
mod sign;

pub use error::CaError;
pub use ledger::CertificateState;
pub use order::{AuthorityState, CaAuthority, CaCertificate, CaContent, Issued, Order, Rotated};

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_proto::NodeName;
use rustls::pki_types::DnsName;

use crate::clock;
use crate::folder::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, REVOKED_FILE, locsvc_name};
use crate::identity::Identity;
use files::{PRIVATE, PUBLIC, Staged, io_error, replace};
use ledger::{Authority, Ledger, Record};
use sign::{CLOCKS_DIFFER, Signer};

/// How long a CA lasts if nothing else is said: ten years.
pub const CA_DAYS: u32 = 3650;
/// How long a certificate lasts if nothing else is said: a year.
pub const CERTIFICATE_DAYS: u32 = 365;
/// Longest time that can be asked for: a century, so that a typing error shows.
pub const DAYS_MAX: u32 = 36_500;

/// Folder of the identities that are not written elsewhere.
const ISSUED_FOLDER: &str = "issued";
const LOCK_FILE: &str = "lock";
const DAY_S: u64 = 24 * 3600;

/// The CA of one cluster.
///
/// ```text
/// ca.json                     what was issued, what is revoked: the truth
/// ca-N.pem, ca-N.key          each of the CA's own lives; the newest signs, a retired one has no key any more
/// ca.pem, revoked.pem         what every identity folder of the cluster holds a copy of
/// issued/KIND-NAME/           identity folders, ready to be copied; a copy may be removed from here
/// ```
///
/// Each operation locks the folder, reads it, and leaves it durably changed or as it was; several programs may be at work.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("locus-ca-doc-{}", std::process::id()));
/// use locus_identity::{CA_DAYS, CertificateAuthority, IdentityFolder, Order};
/// let ca = CertificateAuthority::init(&dir.join("ca"), &"lab".parse()?, CA_DAYS)?;
/// ca.issue(&Order::new("locsvc/m1".parse()?).host("10.77.0.10").out(dir.join("m1")))?;
/// ca.issue(&Order::new("node/n1/1".parse()?).out(dir.join("n1")))?;
/// # assert_eq!(IdentityFolder::open(&dir.join("n1"))?.identity().to_string(), "locus:lab/node/n1/1");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CertificateAuthority {
    folder: PathBuf,
    cluster: NodeName,
}

/// The folder's lock and what was read under it.
struct Locked {
    ledger: Ledger,
    now: Duration,
    _lock: File,
}

impl CertificateAuthority {
    /// Makes the CA of `cluster` in `folder`, which must be empty or absent; it lasts `days`.
    ///
    /// # Errors
    /// [`CaError::NotEmpty`], [`CaError::Cluster`], [`CaError::Days`], and what the system refuses.
    pub fn init(folder: &Path, cluster: &NodeName, days: u32) -> Result<Self, CaError> {
        if DnsName::try_from(locsvc_name(cluster)).is_err() {
            return Err(CaError::Cluster(cluster.to_string()));
        }
        if days == 0 || days > DAYS_MAX {
            return Err(CaError::CaDays);
        }
        let now = clock::since_epoch();
        let empty = match fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(io_error("read", folder)(error)),
        };
        if !empty {
            return Err(CaError::NotEmpty(folder.to_owned()));
        }
        let mut staged = Staged::fresh(folder)?;
        let first = next_authority(1, days, now);
        let begin = now.saturating_sub(CLOCKS_DIFFER).as_secs();
        let made = sign::authority(cluster, &first, begin)?;
        staged.add("ca-1.key", made.key.as_bytes(), PRIVATE)?;
        staged.add("ca-1.pem", made.certificate.as_bytes(), PUBLIC)?;
        staged.add(CA_FILE, made.certificate.as_bytes(), PUBLIC)?;
        staged.add(LOCK_FILE, b"", PRIVATE)?;
        let ledger = Ledger::new(cluster.clone(), first);
        staged.add(ledger::LEDGER_FILE, ledger.to_text()?.as_bytes(), PRIVATE)?;
        staged.commit()?;
        let ca = Self {
            folder: folder.to_owned(),
            cluster: cluster.clone(),
        };
        // The empty list: whoever copies both files always has a list that a later one replaces.
        let mut locked = ca.lock()?;
        ca.publish(&mut locked)?;
        Ok(ca)
    }

    /// Opens the CA in `folder`.
    ///
    /// # Errors
    /// [`CaError::NoCa`], and those of reading it.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        let ledger = Ledger::read(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            cluster: ledger.cluster,
        })
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> &NodeName {
        &self.cluster
    }

    /// Returns where the CA is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a key and a certificate and writes them, with what their holder must trust, into an identity folder.
    ///
    /// Issuing to the same holder again renews: the earlier certificate stays valid until it ends or is revoked.
    ///
    /// # Errors
    /// [`CaError`]; then nothing was issued, except where the last step, putting the files in their place, failed.
    pub fn issue(&self, order: &Order) -> Result<Issued, CaError> {
        let mut locked = self.lock()?;
        let now = locked.now;
        let hosts = order.hosts()?;
        locked.ledger.check_number(order.holder(), now)?;
        let authority = locked.ledger.current()?.clone();
        let left = authority.not_after.saturating_sub(now.as_secs()) / DAY_S;
        let most = u32::try_from(left).unwrap_or(DAYS_MAX).min(DAYS_MAX);
        // The usual time is cut to the CA's own end; a time that was asked for is not.
        let usual = CERTIFICATE_DAYS.min(most);
        let days = order.days().unwrap_or(usual);
        if days == 0 || days > most {
            return Err(CaError::Days { most });
        }
        let folder = match order.folder() {
            Some(out) => out.to_owned(),
            None => self.issued_folder(order),
        };
        let files = [CA_FILE, REVOKED_FILE, KEY_FILE, CERTIFICATE_FILE];
        if !order.renews() && files.iter().any(|file| folder.join(file).exists()) {
            return Err(CaError::Exists(folder));
        }
        let identity = Identity {
            cluster: locked.ledger.cluster.clone(),
            holder: order.holder().clone(),
        };
        let record = Record {
            serial: sign::serial()?,
            holder: order.holder().clone(),
            hosts,
            authority: authority.number,
            not_before: now.saturating_sub(CLOCKS_DIFFER).as_secs(),
            not_after: now.as_secs() + u64::from(days) * DAY_S,
            revoked: None,
        };
        let made = Signer::read(&self.folder, &authority)?.certificate(&identity, &record)?;
        let trusted = self.trusted(&locked.ledger)?;
        let revoked = self.lists(&locked)?;
        let mut staged = Staged::in_folder(&folder)?;
        staged.add(CA_FILE, trusted.as_bytes(), PUBLIC)?;
        staged.add(REVOKED_FILE, revoked.as_bytes(), PUBLIC)?;
        staged.add(KEY_FILE, made.key.as_bytes(), PRIVATE)?;
        staged.add(CERTIFICATE_FILE, made.certificate.as_bytes(), PUBLIC)?;
        let same = |other: &&Record| other.holder.same_as(order.holder());
        let earlier = locked.ledger.valid(now).filter(same);
        let earlier = earlier
            .map(|record| CaCertificate::of(&locked.ledger, record, now))
            .collect();
        locked.ledger.certificates.push(record.clone());
        let issued = CaCertificate::of(&locked.ledger, &record, now);
        // First remembered, then put in place: no certificate is ever out there that cannot be revoked.
        locked.ledger.write(&self.folder)?;
        staged.commit()?;
        Ok(Issued {
            certificate: issued,
            folder,
            earlier,
        })
    }

    /// Revokes one certificate by its serial number, or all of a holder by `NAME` or `KIND/NAME`.
    ///
    /// It counts where `revoked.pem` has been copied to. One that has ended lately is revoked too: the connection that it
    /// opened lives on, and ends by this alone.
    ///
    /// # Errors
    /// [`CaError::NotFound`], [`CaError::NothingValid`], [`CaError::Ambiguous`], and what the system refuses.
    pub fn revoke(&self, which: &str) -> Result<Vec<CaCertificate>, CaError> {
        let mut locked = self.lock()?;
        let now = locked.now;
        let chosen = match order::choose(&locked.ledger, which, now) {
            Err(error @ CaError::NothingValid(_)) => return self.repeated(&mut locked, error),
            chosen => chosen?,
        };
        for record in &mut locked.ledger.certificates {
            if chosen.contains(&record.serial) {
                record.revoked = Some(now.as_secs());
            }
        }
        self.publish(&mut locked)?;
        let ledger = &locked.ledger;
        let revoked = ledger
            .certificates
            .iter()
            .filter(|record| chosen.contains(&record.serial));
        Ok(revoked
            .map(|record| CaCertificate::of(ledger, record, now))
            .collect())
    }

    /// Makes the CA's next key, which signs from now on; both are trusted until [`Self::retire`].
    ///
    /// # Errors
    /// [`CaError::Rotating`] if the last rotation has not been ended, [`CaError::Days`], and what the system refuses.
    pub fn rotate(&self, days: u32) -> Result<Rotated, CaError> {
        let mut locked = self.lock()?;
        let trusted: Vec<u32> = locked.ledger.trusted().map(|one| one.number).collect();
        if days == 0 || days > DAYS_MAX {
            return Err(CaError::CaDays);
        }
        let [previous] = trusted[..] else {
            let unretired = trusted.last().copied().unwrap_or_default();
            return self.repeated(&mut locked, CaError::Rotating(unretired));
        };
        let next = next_authority(previous.saturating_add(1), days, locked.now);
        let begin = locked.now.saturating_sub(CLOCKS_DIFFER).as_secs();
        let made = sign::authority(&self.cluster, &next, begin)?;
        let (certificate, key) = sign::files_of(&self.folder, next.number);
        replace(&key, made.key.as_bytes(), PRIVATE)?;
        replace(&certificate, made.certificate.as_bytes(), PUBLIC)?;
        let current = next.number;
        locked.ledger.authorities.push(next);
        self.publish(&mut locked)?;
        Ok(Rotated { previous, current })
    }

    /// Ends a rotation: the previous CA is trusted no longer and its key is removed.
    ///
    /// # Errors
    /// [`CaError::OnlyOne`] without a rotation; [`CaError::StillNeeded`] if somebody has a valid certificate of the previous
    /// CA and none of the current one, unless `force`; and what the system refuses.
    pub fn retire(&self, force: bool) -> Result<Rotated, CaError> {
        let mut locked = self.lock()?;
        let now = locked.now;
        let trusted: Vec<u32> = locked.ledger.trusted().map(|one| one.number).collect();
        let [current, previous] = trusted[..] else {
            return self.repeated(&mut locked, CaError::OnlyOne);
        };
        let cut_off = order::only_signed_by(&locked.ledger, previous, now);
        if !force && !cut_off.is_empty() {
            return Err(CaError::StillNeeded(cut_off));
        }
        for authority in &mut locked.ledger.authorities {
            if authority.number == previous {
                authority.retired = Some(now.as_secs());
            }
        }
        self.publish(&mut locked)?;
        Ok(Rotated { previous, current })
    }

    /// Returns everything that the CA knows.
    ///
    /// # Errors
    /// Those of reading its folder.
    pub fn list(&self) -> Result<CaContent, CaError> {
        let Locked { ledger, now, .. } = self.lock()?;
        Ok(CaContent::of(&ledger, now))
    }

    fn issued_folder(&self, order: &Order) -> PathBuf {
        let holder = order.holder();
        let name = format!("{}-{}", holder.kind(), holder.name());
        self.folder.join(ISSUED_FOLDER).join(name)
    }

    /// Waits until nobody else is at work in the folder, and reads it.
    fn lock(&self) -> Result<Locked, CaError> {
        let path = self.folder.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        let options = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE);
        let lock = options.open(&path).map_err(io_error("open", &path))?;
        lock.lock().map_err(io_error("lock", &path))?;
        Ok(Locked {
            ledger: Ledger::read(&self.folder)?,
            now: clock::since_epoch(),
            _lock: lock,
        })
    }
}

fn next_authority(number: u32, days: u32, now: Duration) -> Authority {
    Authority {
        number,
        not_after: now.as_secs() + u64::from(days) * DAY_S,
        retired: None,
    }
}
