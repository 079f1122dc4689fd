//! The lab itself: what it needs, where it writes, its network, and how it leaves the machine behind.
//! Knows no daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::authority::Authority;
use crate::board::Board;
use crate::netns::{self, Namespace, Network};
use crate::{mount, process, wait};

/// The hosts of every lab beside its nodes, and the last byte of their address in 10.77.0.0/24.
const HOSTS: &[(&str, u8)] = &[("locsvc", 10), ("caller", 21), ("callee", 22)];
/// Nodes of a lab for calls; their addresses end in 11 and 12, those of further nodes in 103, 104, …
const NODES: u8 = 2;
const NODE_BYTE: u8 = 10;
const FURTHER_NODE_BYTE: u8 = 100;
/// Programs from Debian packages, and the package that brings each.
const PROGRAMS: &[(&str, &str)] = &[
    ("kamailio", "kamailio"),
    ("sipp", "sip-tester"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("nft", "nftables"),
];
/// Products of `make build`.
const PRODUCTS: &[&str] = &["locsvc", "locus-agent", "locusctl", "locus.so"];
/// Short, because a Unix socket's path holds at most 107 bytes.
const MOUNTS: &str = "/run/locus-lab";

/// One lab at a time in a process: its names carry only the pid.
static ONE: Mutex<()> = Mutex::new(());

/// A network, a run folder and the promise to remove both.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: PathBuf,
    mounts: PathBuf,
    network: Option<Network>,
    authority: OnceLock<Authority>,
    failed: bool,
    _one: MutexGuard<'static, ()>,
}

impl Lab {
    /// Builds the lab `name`; `None` after printing `ignored: needs …` when this machine cannot run it.
    ///
    /// # Panics
    /// When it cannot run and `LOCUS_REQUIRE_LAB=1` is set, or when building the network fails.
    pub fn start(name: &str) -> Option<Self> {
        Self::with_nodes(name, NODES)
    }

    /// As [`Lab::start`], with hosts n1 to n`nodes` for nodes.
    ///
    /// # Panics
    /// As [`Lab::start`].
    pub fn with_nodes(name: &str, nodes: u8) -> Option<Self> {
        if let Err(missing) = needs() {
            let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some_and(|value| value == "1");
            assert!(
                !required,
                "{name}: needs {missing}, and LOCUS_REQUIRE_LAB=1 forbids to skip it"
            );
            println!("{name}: ignored: needs {missing}");
            return None;
        }
        wait::catch_signals();
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        netns::sweep();
        mount::sweep(Path::new(MOUNTS));
        let pid = std::process::id();
        let folder = root().join("target/lab").join(format!("{name}-{pid}"));
        // Left over when an earlier lab of this test failed in the same process.
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).expect("the run folder can be made");
        let mounts = Path::new(MOUNTS).join(pid.to_string());
        fs::create_dir_all(&mounts).expect("/run can be written by root");
        let others = HOSTS.iter().map(|(host, last)| ((*host).to_owned(), *last));
        let nodes = (1..=nodes).map(|number| {
            let base = if number <= NODES {
                NODE_BYTE
            } else {
                FURTHER_NODE_BYTE
            };
            (format!("n{number}"), base + number)
        });
        let network = Some(Network::build(&others.chain(nodes).collect::<Vec<_>>()));
        Some(Self {
            name: name.to_owned(),
            folder,
            mounts,
            network,
            authority: OnceLock::new(),
            failed: false,
            _one: one,
        })
    }

    /// The network between the hosts.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the network lives until drop")
    }

    /// The namespace of `host`.
    pub fn host(&self, host: &str) -> &Namespace {
        self.network().host(host)
    }

    /// Where logs and files of this run lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder for `what` below the run folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn subfolder(&self, what: &str) -> PathBuf {
        let folder = self.folder.join(what);
        fs::create_dir_all(&folder).expect("a folder can be made in the run folder");
        folder
    }

    /// A short path for mounts and sockets of this lab.
    pub fn mount_point(&self, what: &str) -> PathBuf {
        self.mounts.join(what)
    }

    /// The certificate authority of the lab's cluster, made when it is first asked for.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn authority(&self) -> &Authority {
        self.authority.get_or_init(|| Authority::init(&self.folder))
    }

    /// Makes a board of `host`: processes started there from now on see, of all that the lab has made, what
    /// belongs to `host` and the folders `shared`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn board(&self, host: &str, shared: &[PathBuf]) -> Namespace {
        let own = self.mounts.join(host);
        fs::create_dir_all(&own).expect("/run can be written by root");
        let mut kept = vec![own, self.subfolder(host)];
        kept.extend_from_slice(shared);
        let emptied = [PathBuf::from(MOUNTS), self.folder.clone()];
        let namespace = self.host(host);
        namespace.with_board(Board::start(namespace, &kept, &emptied, &self.folder))
    }

    /// Prints one line of the story that a test tells.
    pub fn say(&self, line: &str) {
        println!("{}: {line}", self.name);
    }

    /// Marks the run as failed without a panic: logs are shown and kept.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.network.take());
        // Control sockets of what was stopped in haste; a mount that could not be undone has been said.
        fs::remove_dir_all(&self.mounts).ok();
        fs::remove_dir(MOUNTS).ok();
        let failed = self.failed || std::thread::panicking();
        if failed && wait::interrupted() {
            eprintln!("{}: interrupted; nothing is left behind", self.name);
        }
        if failed && !wait::interrupted() {
            eprintln!("{}", process::tails(&self.folder));
            eprintln!(
                "{}: failed; logs and files stay in {}",
                self.name,
                self.folder.display()
            );
        } else if fs::remove_dir_all(&self.folder).is_err() {
            eprintln!("{}: could not remove {}", self.name, self.folder.display());
        }
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the lab's crate lies below the root")
}

/// A file of scenario folder `scenario`.
pub fn scenario(scenario: &str, file: &str) -> PathBuf {
    root().join("tests/scenarios").join(scenario).join(file)
}

/// Where `make build` puts the binaries and `locus.so`.
pub fn products() -> PathBuf {
    std::env::var_os("LOCUS_PRODUCTS").map_or_else(|| root().join("target/release"), PathBuf::from)
}

/// Where `make build-v2` puts the daemons that speak the next version of the wire.
pub fn products_v2() -> PathBuf {
    std::env::var_os("LOCUS_PRODUCTS_V2")
        .map_or_else(|| root().join("target/v2/debug"), PathBuf::from)
}

/// What this machine lacks to run a lab.
///
/// # Errors
/// With the first thing missing, in words that follow "needs".
pub fn needs() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("root (namespaces and mounts)".to_owned());
    }
    for (program, package) in PROGRAMS {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$0\" >/dev/null", program])
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} (Debian package {package}; `make deps`)"));
        }
    }
    for product in PRODUCTS {
        if !products().join(product).exists() {
            return Err(format!(
                "{} (`make build`)",
                products().join(product).display()
            ));
        }
    }
    Ok(())
}
