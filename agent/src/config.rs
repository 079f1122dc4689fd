//! The agent's configuration file; it opens nothing that the file names.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_proto::{FIELD_BYTES_MAX, NodeId, NodeName, Transport};
use serde::Deserialize;

use crate::core::Address;

/// Most addresses of locsvc.
pub const MASTERS_MAX: usize = 16;
/// Most buses: A and B.
pub const BUSES_MAX: usize = 2;
/// Longest name of a network interface (`IFNAMSIZ` less its terminating byte).
pub const INTERFACE_BYTES_MAX: usize = 15;
/// Longest path of a Unix socket (`sockaddr_un` less its terminating byte).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Most records that `records_max` may ask for.
pub const RECORDS_MAX: u64 = 100_000_000;
/// Shortest and longest time, in minutes, in which the table is read again: below half a second it would
/// take a core for itself, and beyond a week nobody learns of memory that rots.
pub const SCRUB_MINUTES: (f64, f64) = (0.01, 10_080.0);

/// What `agent.toml` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; locsvc refuses nodes of another.
    pub cluster: NodeName,
    /// Name of this node; its certificate says the same.
    pub node: NodeName,
    /// Number of this node, 1 to 65,535, unique in the cluster; its certificate says the same.
    pub node_id: NodeId,
    /// TCP addresses of locsvc, tried in turn.
    #[serde(default)]
    pub locsvc: Vec<SocketAddr>,
    /// Unix sockets of locsvc for boards in one chassis: bus A, then bus B; an empty one is left out.
    #[serde(default)]
    pub bus: Vec<PathBuf>,
    /// How the master's changes may come: `auto`, `multicast`, `unicast` or `bus`.
    #[serde(default)]
    pub transport: Transport,
    /// Interface on which the group is joined; by default the one of the connection to the master.
    #[serde(default)]
    pub multicast_interface: Option<String>,
    /// Folder with this node's certificate and key, and the cluster's authority.
    #[serde(default = "default_identity")]
    pub identity: PathBuf,
    /// Folder of the table; on a tmpfs.
    #[serde(default = "default_folder")]
    pub folder: PathBuf,
    /// Unix socket for registrations; `agent.sock` in the folder by default.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Records that a new table has room for, or more if the master has more; it grows beyond by itself.
    #[serde(default = "default_records_max")]
    pub records_max: u64,
    /// Mean bytes of key and value of a record, for sizing the table.
    #[serde(default = "default_record_bytes_mean")]
    pub record_bytes_mean: u64,
    /// Minutes in which all of the table's memory is read again and compared with its sums; 0: only when an
    /// operator orders an audit.
    #[serde(default = "default_scrub_minutes")]
    pub scrub_minutes: f64,
    /// Longest grace that a binding gets while the master is out of reach, in seconds (rules 2.2).
    #[serde(default = "default_max_grace_s")]
    pub max_grace_s: u32,
    /// SIP URI at which other nodes reach this one, or empty.
    #[serde(default)]
    pub sip: String,
    /// Longest wait for the master's answer to a registration, in milliseconds; then the table decides.
    ///
    /// Below `save_timeout_ms` of the module in Kamailio (500 by default): its worker gives up then, and
    /// what comes later is lost on it. 100 ms between them suffice.
    #[serde(default = "default_save_timeout_ms")]
    pub save_timeout_ms: u32,
    /// For a lab: no identity is needed, and nothing is encrypted or authenticated.
    #[serde(default)]
    pub insecure: bool,
    /// File for the recording of all inputs.
    #[serde(default)]
    pub record: Option<PathBuf>,
    /// Folder of the table's snapshots, on a disk that outlives a reboot, for this agent alone; empty: none are
    /// written, and after a reboot the table comes from the master.
    #[serde(default = "default_snapshots")]
    pub snapshots: PathBuf,
    /// Seconds between two snapshots; 0: as with an empty folder.
    #[serde(default = "default_snapshot_every_s")]
    pub snapshot_every_s: u32,
    /// Most bytes of records that a snapshot brings to the disk in a second.
    #[serde(default = "default_snapshot_bytes_per_s")]
    pub snapshot_bytes_per_s: u64,
}

fn default_identity() -> PathBuf {
    PathBuf::from("/etc/locus/identity")
}

fn default_folder() -> PathBuf {
    PathBuf::from("/run/locus/default")
}

fn default_records_max() -> u64 {
    1_000_000
}

// A registered contact with Path, user agent and Call-ID takes 250 to 500 bytes.
fn default_record_bytes_mean() -> u64 {
    512
}

// 10 million records are 1 to 2 s of one core: a few thousandths of it.
fn default_scrub_minutes() -> f64 {
    10.0
}

fn default_max_grace_s() -> u32 {
    3600
}

fn default_snapshots() -> PathBuf {
    PathBuf::from("/var/lib/locus/agent")
}

// What the log then holds beyond a snapshot is caught up with in seconds.
fn default_snapshot_every_s() -> u32 {
    300
}

// A quarter to a half of what a plain SSD writes; 10 million records take a minute.
fn default_snapshot_bytes_per_s() -> u64 {
    64 * 1024 * 1024
}

fn default_save_timeout_ms() -> u32 {
    400
}

/// Why the configuration cannot be used; all for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong kind.
    #[error("{} does not hold an agent's configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value out of its range.
    #[error("{key} is {value}, allowed is {allowed}")]
    Range {
        /// The key.
        key: &'static str,
        /// What the file says.
        value: u64,
        /// What it may say.
        allowed: &'static str,
    },
    /// A time out of its range.
    #[error("scrub_minutes is {0}, allowed is 0 or {min} to {max}", min = SCRUB_MINUTES.0, max = SCRUB_MINUTES.1)]
    Scrub(f64),
    /// A text above its limit.
    #[error("{key} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// The key.
        key: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// `sip` is not a SIP URI.
    #[error("sip = {0:?} is not a SIP URI; write it as sip:address:port or leave it out")]
    Sip(String),
    /// No way to a master.
    #[error(
        "there is no way to locsvc; set locsvc = [\"ADDRESS:PORT\"], or bus = [\"/run/locus/bus/a.sock\"] \
         on a board beside it"
    )]
    NoMaster,
    /// The wanted transport has no way to a master.
    #[error(
        "transport = \"{transport}\" needs {needs}, which is empty; set it, or transport = \"auto\""
    )]
    NoWay {
        /// What is wanted.
        transport: Transport,
        /// The key that is missing.
        needs: &'static str,
    },
    /// Both buses are one.
    #[error(
        "bus A and bus B are both {}: nothing is left if one is cut; name two sockets, or one", .0.display()
    )]
    SameBus(PathBuf),
    /// No interface has such a name.
    #[error(
        "multicast_interface = {0:?} is no name of an interface; write it as in `ip link`, or leave it out"
    )]
    Interface(String),
}

impl Config {
    /// Returns the configuration in the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] says what to change.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Returns the configuration in `text`, which was read from `path`.
    ///
    /// # Errors
    /// [`ConfigError`] says what to change.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let masters = u64::try_from(self.locsvc.len()).unwrap_or(u64::MAX);
        in_range(
            "node_id",
            self.node_id.0.into(),
            self.node_id.0 >= 1,
            "1 to 65535",
        )?;
        let count_fits = self.locsvc.len() <= MASTERS_MAX;
        in_range("number of locsvc addresses", masters, count_fits, "0 to 16")?;
        self.check_ways()?;
        let records_fit = (1..=RECORDS_MAX).contains(&self.records_max);
        in_range(
            "records_max",
            self.records_max,
            records_fit,
            "1 to 100000000",
        )?;
        let mean_fits = (16..=32_768).contains(&self.record_bytes_mean);
        in_range(
            "record_bytes_mean",
            self.record_bytes_mean,
            mean_fits,
            "16 to 32768",
        )?;
        let timeout_fits = (10..=60_000).contains(&self.save_timeout_ms);
        in_range(
            "save_timeout_ms",
            self.save_timeout_ms.into(),
            timeout_fits,
            "10 to 60000",
        )?;
        let grace_fits = self.max_grace_s <= 7 * 86_400;
        in_range(
            "max_grace_s",
            self.max_grace_s.into(),
            grace_fits,
            "0 to 604800",
        )?;
        let (least, most) = SCRUB_MINUTES;
        if self.scrub_minutes != 0.0 && !(least..=most).contains(&self.scrub_minutes) {
            return Err(ConfigError::Scrub(self.scrub_minutes));
        }
        in_range(
            "snapshot_every_s",
            self.snapshot_every_s.into(),
            self.snapshot_every_s <= 86_400,
            "0 to 86400",
        )?;
        let pace_fits = (65_536..=1 << 40).contains(&self.snapshot_bytes_per_s);
        in_range(
            "snapshot_bytes_per_s",
            self.snapshot_bytes_per_s,
            pace_fits,
            "65536 to 1099511627776",
        )?;
        within(
            "socket",
            self.socket().as_os_str().len(),
            SOCKET_PATH_BYTES_MAX,
        )?;
        within("sip", self.sip.len(), FIELD_BYTES_MAX)?;
        let is_sip = ["sip:", "sips:"]
            .iter()
            .any(|scheme| self.sip.starts_with(scheme));
        if !self.sip.is_empty() && !is_sip {
            return Err(ConfigError::Sip(self.sip.clone()));
        }
        Ok(())
    }

    fn check_ways(&self) -> Result<(), ConfigError> {
        let buses = u64::try_from(self.bus.len()).unwrap_or(u64::MAX);
        in_range(
            "number of buses",
            buses,
            self.bus.len() <= BUSES_MAX,
            "0 to 2",
        )?;
        for path in &self.bus {
            within("bus", path.as_os_str().len(), SOCKET_PATH_BYTES_MAX)?;
        }
        if let [a, b] = self.bus.as_slice()
            && a == b
            && !a.as_os_str().is_empty()
        {
            return Err(ConfigError::SameBus(a.clone()));
        }
        let buses = self.buses();
        if self.locsvc.is_empty() && buses.is_empty() {
            return Err(ConfigError::NoMaster);
        }
        let transport = self.transport;
        let needs = match transport {
            Transport::Bus if buses.is_empty() => Some("bus"),
            Transport::Multicast if self.locsvc.is_empty() => Some("locsvc"),
            Transport::Auto | Transport::Multicast | Transport::Unicast | Transport::Bus => None,
        };
        if let Some(needs) = needs {
            return Err(ConfigError::NoWay { transport, needs });
        }
        match &self.multicast_interface {
            Some(name) if !(1..=INTERFACE_BYTES_MAX).contains(&name.len()) => {
                Err(ConfigError::Interface(name.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn buses(&self) -> Vec<Address> {
        let sides = [Address::BusA as fn(PathBuf) -> Address, Address::BusB];
        let named = sides.into_iter().zip(&self.bus);
        named
            .filter(|(_, path)| !path.as_os_str().is_empty())
            .map(|(side, path)| side(path.clone()))
            .collect()
    }

    /// Returns the ways to a master in the order in which they are preferred.
    ///
    /// A bus is nearer than a network; but no group is reached over it, so that a node that shall be in the
    /// group comes over the network while it can.
    pub fn addresses(&self) -> Vec<Address> {
        let network = self.locsvc.iter().copied().map(Address::Tcp);
        match self.transport {
            Transport::Auto | Transport::Unicast => {
                self.buses().into_iter().chain(network).collect()
            }
            Transport::Multicast => network.chain(self.buses()).collect(),
            Transport::Bus => self.buses(),
        }
    }

    /// Returns the path of the socket for registrations.
    pub fn socket(&self) -> PathBuf {
        match &self.socket {
            Some(path) => path.clone(),
            None => self.folder.join("agent.sock"),
        }
    }

    /// Returns the time in which all of the table's memory is read again; zero: never by itself.
    pub fn scrub_every(&self) -> Duration {
        Duration::try_from_secs_f64(self.scrub_minutes * 60.0).unwrap_or_default()
    }

    /// Returns the folder of snapshots; `None` if there shall be none.
    pub fn snapshots(&self) -> Option<&Path> {
        let wanted = self.snapshot_every_s > 0 && !self.snapshots.as_os_str().is_empty();
        wanted.then_some(self.snapshots.as_path())
    }

    /// Returns the longest wait for the master's answer to a registration.
    pub fn save_timeout(&self) -> Duration {
        Duration::from_millis(self.save_timeout_ms.into())
    }
}

fn in_range(
    key: &'static str,
    value: u64,
    fits: bool,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if fits {
        Ok(())
    } else {
        Err(ConfigError::Range {
            key,
            value,
            allowed,
        })
    }
}

fn within(key: &'static str, len: usize, max: usize) -> Result<(), ConfigError> {
    if len <= max {
        Ok(())
    } else {
        Err(ConfigError::TooLong { key, len, max })
    }
}
