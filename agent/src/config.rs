//! The agent's configuration file; it opens nothing that the file names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locus_proto::{FIELD_BYTES_MAX, NodeId, NodeName};
use serde::Deserialize;

/// Most addresses of locsvc.
pub const MASTERS_MAX: usize = 16;
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
    /// Name of this node, for people.
    pub node: NodeName,
    /// Number of this node, 1 to 65,535, unique in the cluster.
    pub node_id: NodeId,
    /// Addresses of locsvc, tried in turn, at least one.
    pub locsvc: Vec<SocketAddr>,
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
    /// Allows addresses beyond loopback although nothing is encrypted or authenticated yet.
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
    /// An address beyond loopback without `insecure = true`.
    #[error(
        "locsvc = {0} is beyond loopback and the connection is neither encrypted nor authenticated; \
         set insecure = true if the network between is trusted"
    )]
    Insecure(SocketAddr),
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
        let count_fits = (1..=MASTERS_MAX).contains(&self.locsvc.len());
        in_range("number of locsvc addresses", masters, count_fits, "1 to 16")?;
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
        match self.locsvc.iter().find(|master| !master.ip().is_loopback()) {
            Some(master) if !self.insecure => Err(ConfigError::Insecure(*master)),
            Some(_) | None => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const LEAST: &str =
        "cluster = \"lab\"\nnode = \"n1\"\nnode_id = 1\nlocsvc = [\"127.0.0.1:5800\"]\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.toml"), text)
    }

    #[test]
    fn fills_in_what_is_left_out() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.socket(), Path::new("/run/locus/default/agent.sock"));
        assert_eq!(config.save_timeout(), Duration::from_millis(400));
        assert_eq!((config.records_max, config.max_grace_s), (1_000_000, 3600));
        assert_eq!(config.scrub_every(), Duration::from_secs(600));
        assert_eq!(config.snapshots(), Some(Path::new("/var/lib/locus/agent")));
        for off in ["snapshots = \"\"", "snapshot_every_s = 0"] {
            assert_eq!(parse(&format!("{LEAST}{off}\n")).unwrap().snapshots(), None);
        }
        let never = parse(&format!("{LEAST}scrub_minutes = 0\n")).unwrap();
        assert_eq!(never.scrub_every(), Duration::ZERO);
        let own = parse(&format!(
            "{LEAST}socket = \"/run/x.sock\"\nsip = \"sip:10.0.0.1:5060\"\n"
        ));
        assert_eq!(own.unwrap().socket(), Path::new("/run/x.sock"));
    }

    #[test]
    fn says_what_to_change() {
        let with = |line: &str| {
            let key = line.split(' ').next().unwrap();
            let rest: Vec<_> = LEAST
                .lines()
                .filter(|l| l.split(' ').next() != Some(key))
                .collect();
            format!("{}\n{line}\n", rest.join("\n"))
        };
        let long = format!("socket = \"/{}\"", "s".repeat(SOCKET_PATH_BYTES_MAX));
        for (line, expected) in [
            ("node_id = 0", "node_id is 0, allowed is 1 to 65535"),
            ("node_id = 65536", "node_id"),
            (
                "locsvc = []",
                "number of locsvc addresses is 0, allowed is 1 to 16",
            ),
            ("locsvc = [\"10.0.0.1:5800\"]", "set insecure = true"),
            ("locsvc = [\"localhost\"]", "invalid socket address"),
            ("records_max = 0", "records_max is 0"),
            ("record_bytes_mean = 8", "record_bytes_mean is 8"),
            ("save_timeout_ms = 1", "save_timeout_ms is 1"),
            ("max_grace_s = 604801", "max_grace_s is 604801"),
            (
                "scrub_minutes = 0.001",
                "scrub_minutes is 0.001, allowed is 0 or 0.01 to 10080",
            ),
            ("scrub_minutes = nan", "scrub_minutes is NaN"),
            ("snapshot_every_s = 86401", "snapshot_every_s is 86401"),
            ("snapshot_bytes_per_s = 0", "snapshot_bytes_per_s is 0"),
            ("scrub_minutes = -1", "scrub_minutes is -1"),
            ("sip = \"tel:1\"", "is not a SIP URI"),
            ("cluster = \"Über\"", "a name is 1 to 32"),
            ("colour = \"red\"", "unknown field `colour`"),
            ("node = 5", "invalid type"),
            (long.as_str(), "socket has 108 bytes, at most 107"),
        ] {
            let error = parse(&with(line)).expect_err(line);
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            let text = format!("{error}: {source}");
            assert!(text.contains(expected), "{line}: {text}");
        }
        assert!(parse(&with("locsvc = [\"10.0.0.1:5800\"]\ninsecure = true")).is_ok());
        let missing = Config::read(Path::new("/nonexistent/agent.toml")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /nonexistent/agent.toml");
    }
}
