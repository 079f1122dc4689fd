//! Folders, CAs and certificates for the tests, and two ends that meet.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use locus_identity::{
    CA_DAYS, CertificateAuthority, Channel, HandshakeError, IdentityFolder, Order, Socket,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// Long enough for a handshake on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// A folder that goes with its test.
#[derive(Debug)]
pub(crate) struct Temp(PathBuf);

impl Temp {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("locus-identity-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A CA of the cluster `lab` in a folder of its own.
pub(crate) struct Cluster {
    pub(crate) temp: Temp,
    pub(crate) ca: CertificateAuthority,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::named("lab")
    }

    pub(crate) fn named(name: &str) -> Self {
        let temp = Temp::new();
        let name = name.parse().unwrap();
        let ca = CertificateAuthority::init(&temp.join("ca"), &name, CA_DAYS).unwrap();
        Self { temp, ca }
    }

    /// Issues to `holder` and opens what was written.
    pub(crate) fn identity(&self, holder: &str) -> IdentityFolder {
        let folder = self.temp.join(&holder.replace('/', "-"));
        let order = Order::new(holder.parse().unwrap())
            .out(folder.clone())
            .renew();
        self.ca.issue(&order).unwrap();
        IdentityFolder::open(&folder).unwrap()
    }

    /// Copies what everybody trusts from the CA's folder to an identity folder, as an operator does.
    pub(crate) fn distribute(&self, to: &IdentityFolder) {
        for file in ["ca.pem", "revoked.pem"] {
            fs::copy(self.ca.folder().join(file), to.path().join(file)).unwrap();
        }
    }

    /// Returns the CA's own key, in the hands of a test.
    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        let file = |ending: &str| {
            fs::read_to_string(self.ca.folder().join(format!("ca-1.{ending}"))).unwrap()
        };
        let key = KeyPair::from_pem(&file("key")).unwrap();
        Issuer::from_ca_cert_pem(&file("pem"), key).unwrap()
    }

    /// Has a certificate signed that `locusctl ca` would not make, and writes its identity folder.
    pub(crate) fn odd(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> PathBuf {
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        let folder = self.temp.join(name);
        fs::create_dir(&folder).unwrap();
        fs::copy(self.ca.folder().join("ca.pem"), folder.join("ca.pem")).unwrap();
        fs::write(folder.join("identity.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("identity.key"), key.serialize_pem()).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.join("identity.key"), private).unwrap();
        folder
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub(crate) type Opened = Result<Channel, HandshakeError>;

/// Has a client and a server meet over a Unix socket; returns what each has of it.
pub(crate) fn meet(client: &IdentityFolder, server: &IdentityFolder) -> (Opened, Opened) {
    let (one, other) = UnixStream::pair().unwrap();
    meet_over(client, one, server, other)
}

pub(crate) fn meet_over(
    client: &IdentityFolder,
    one: impl Into<Socket> + Send,
    server: &IdentityFolder,
    other: impl Into<Socket> + Send,
) -> (Opened, Opened) {
    thread::scope(|threads| {
        let accepting = threads.spawn(|| Channel::accept(other, server, WITHIN));
        let connected = Channel::connect(one, client, WITHIN);
        (connected, accepting.join().unwrap())
    })
}

/// Has both meet, as they must.
pub(crate) fn met(client: &IdentityFolder, server: &IdentityFolder) -> (Channel, Channel) {
    let (connected, accepted) = meet(client, server);
    (connected.unwrap(), accepted.unwrap())
}

/// Returns what a client reads first from a server that has refused it.
pub(crate) fn first_read(mut channel: Channel) -> io::Error {
    let read = io::Read::read(&mut channel.reader, &mut [0; 16]);
    read.expect_err("the server refuses")
}
