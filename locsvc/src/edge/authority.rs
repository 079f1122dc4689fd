//! A CA for tests, with the identity folders that it issues; it goes with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use locus_identity::{CertificateAuthority, Holder, IdentityFolder, Order, Role};
use locus_proto::NodeId;

use super::Security;

/// A CA in a folder of its own.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) ca: CertificateAuthority,
    folder: PathBuf,
}

pub(crate) fn locsvc() -> Holder {
    Holder::Locsvc {
        name: "m1".parse().unwrap(),
    }
}

pub(crate) fn node(id: u16) -> Holder {
    Holder::Node {
        name: format!("n{id}").parse().unwrap(),
        id: NodeId(id),
    }
}

pub(crate) fn operator(role: Role) -> Holder {
    Holder::Operator {
        name: format!("op-{role}").parse().unwrap(),
        role,
    }
}

impl Authority {
    pub(crate) fn new(cluster: &str) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NUMBERS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("locsvc-authority-{pid}-{number}"));
        fs::remove_dir_all(&folder).ok();
        let ca = CertificateAuthority::init(&folder.join("ca"), &cluster.parse().unwrap(), 10);
        let ca = ca.unwrap();
        Self { ca, folder }
    }

    /// Issues to `holder`; returns the identity folder.
    pub(crate) fn issue(&self, holder: Holder) -> PathBuf {
        let serves = matches!(holder, Holder::Locsvc { .. });
        let folder = self.folder.join(holder.to_string().replace('/', "-"));
        let mut order = Order::new(holder).out(folder.clone());
        if serves {
            order = order.host("127.0.0.1").host("localhost");
        }
        self.ca.issue(&order).unwrap();
        folder
    }

    /// As [`Self::issue`], opened.
    pub(crate) fn identity(&self, holder: Holder) -> Arc<IdentityFolder> {
        Arc::new(IdentityFolder::open(&self.issue(holder)).unwrap())
    }

    /// Returns who we are.
    pub(crate) fn security(&self) -> (Security, Arc<IdentityFolder>) {
        let identity = self.identity(locsvc());
        (Security::Identity(Arc::clone(&identity)), identity)
    }

    /// Revokes what `holder` has, and brings the news to the folder at `told`.
    pub(crate) fn revoke(&self, holder: &Holder, told: &Path) {
        self.ca.revoke(&holder.to_string()).unwrap();
        self.tell(told);
    }

    /// Copies the list of what is revoked.
    pub(crate) fn tell(&self, told: &Path) {
        let list = "revoked.pem";
        fs::copy(self.ca.folder().join(list), told.join(list)).unwrap();
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}
