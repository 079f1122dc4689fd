//! What an operator may set, and what of it fits together; it opens nothing.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use locus_proto::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, NodeName, Transport};
use serde::Deserialize;

use crate::provision::{EXPIRES_S_MAX, RegistrarLimits};

/// Most records that may be configured: what one table's index is made for.
const RECORDS_MAX_MAX: u64 = 100_000_000;
const RECORDS_MAX_DEFAULT: u64 = 1_000_000;
/// Most buses: the patent's chassis has two, A and B.
const BUSES_MAX: usize = 2;
/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Most of a link that the group may take: what one port of ten gigabits carries.
const RATE_MBIT_MAX: u32 = 10_000;
/// Two hundred megabits a second: a fifth of the slowest link that carriers use, ten times what 10,000
/// changes a second need.
const RATE_MBIT_DEFAULT: u32 = 200;

/// The file `locsvc.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster; nodes of others are sent away.
    pub cluster: NodeName,
    /// The data folder.
    pub data: PathBuf,
    /// Where nodes connect.
    pub distribution: DistributionConfig,
    /// Where operators and provisioning connect.
    pub api: ApiConfig,
    /// The folder with the certificate, the key and the CA by which nodes and operators are known.
    #[serde(default = "identity_default")]
    pub identity: PathBuf,
    /// Whether nobody is authenticated and nothing is encrypted, on any address.
    #[serde(default)]
    pub insecure: bool,
    /// Records that the table is sized for.
    #[serde(default = "records_max_default")]
    pub records_max: u64,
    /// Expiries that are granted.
    #[serde(default)]
    pub registrar: RegistrarLimits,
    /// File to which every input of the core is written, for `--replay`. It grows without bound and
    /// holds the subscribers' data, the table key, and what the group's keys are drawn from.
    pub record: Option<PathBuf>,
}

/// Section `[distribution]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributionConfig {
    /// Address and port for the agents.
    pub listen: SocketAddr,
    /// Unix sockets for the agents of boards in the same chassis: A, then B.
    #[serde(default)]
    pub bus: Vec<PathBuf>,
    /// How nodes get what is live.
    #[serde(default)]
    pub transport: Transport,
    /// The group; without it every node is served over its own connection.
    pub multicast: Option<MulticastConfig>,
    /// A node that is more levels behind than this loads the whole table; left out, the cheaper way is
    /// taken.
    pub reload_above: Option<u64>,
}

/// Section `[distribution.multicast]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MulticastConfig {
    /// Address and port of the group.
    pub group: SocketAddr,
    /// Name of the interface by which it is sent; left out, the one that has the address of
    /// `distribution.listen`.
    pub interface: Option<String>,
    /// UDP port to which nodes report what they miss; zero for any that is free.
    #[serde(default)]
    pub port: u16,
    /// Most that the group takes of the link, repairs included, in megabits a second.
    #[serde(default = "rate_mbit_default")]
    pub rate_mbit: u32,
    /// Bytes of a datagram.
    #[serde(default = "datagram_bytes_default")]
    pub datagram_bytes: usize,
}

/// Section `[api]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port of the HTTP API.
    pub listen: SocketAddr,
}

/// Returned for a configuration that cannot be used; says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, or a field is unknown, missing or of another kind.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// More sockets than there are buses.
    #[error("distribution.bus has {0} paths, there are two buses: A, then B")]
    Buses(usize),
    /// A path that no Unix socket can have.
    #[error(
        "distribution.bus: {}: a socket's path is absolute and has at most {SOCKET_PATH_BYTES_MAX} bytes",
        .0.display()
    )]
    BusPath(PathBuf),
    /// One socket for both.
    #[error("distribution.bus names {} twice: each bus has a socket of its own", .0.display())]
    BusTwice(PathBuf),
    /// `transport = "bus"` without one.
    #[error(
        "distribution.transport = \"bus\" needs distribution.bus = [\"/run/locus/bus/a.sock\"]"
    )]
    NoBus,
    /// `transport = "multicast"` without a group.
    #[error(
        "distribution.transport = \"multicast\" needs a group: write a section [distribution.multicast] \
         with group = \"239.192.76.83:5801\""
    )]
    NoGroup,
    /// An address that is no group's.
    #[error(
        "distribution.multicast.group = \"{0}\" is no multicast address with a port: choose one of \
         239.192.0.0/14, as \"239.192.76.83:5801\", or of ff15::/16, as \"[ff15::4c:53]:5801\""
    )]
    Group(SocketAddr),
    /// Every address is listened on, so none says which interface is meant.
    #[error(
        "distribution.multicast.interface has to name the interface that leads to the nodes, as \"eth1\": \
         distribution.listen = \"{listen}\" does not say which it is for the group {group}"
    )]
    Interface {
        /// `distribution.listen`.
        listen: SocketAddr,
        /// The group.
        group: SocketAddr,
    },
    /// A datagram that does not fit.
    #[error(
        "distribution.multicast.datagram_bytes is {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX}, not {0}: \
         what is larger would be cut on the way"
    )]
    DatagramBytes(usize),
    /// A rate that is none.
    #[error("distribution.multicast.rate_mbit is 1 to {RATE_MBIT_MAX}, not {0}")]
    RateMbit(u32),
    /// Expiries that contradict each other.
    #[error(
        "registrar: min_expires_s {min} <= default_expires_s {default} <= max_expires_s {max} has to \
         hold, from 1 to {EXPIRES_S_MAX}"
    )]
    Expiries {
        /// `min_expires_s`.
        min: u32,
        /// `default_expires_s`.
        default: u32,
        /// `max_expires_s`.
        max: u32,
    },
    /// A size that no table has.
    #[error("records_max is 1 to {RECORDS_MAX_MAX}, not {0}")]
    RecordsMax(u64),
}

fn records_max_default() -> u64 {
    RECORDS_MAX_DEFAULT
}

fn identity_default() -> PathBuf {
    PathBuf::from("/etc/locus/identity")
}

fn rate_mbit_default() -> u32 {
    RATE_MBIT_DEFAULT
}

fn datagram_bytes_default() -> usize {
    DATAGRAM_BYTES_MAX
}

impl MulticastConfig {
    /// Returns the most that the group takes of the link, in bytes a second.
    pub fn rate_bytes_per_s(&self) -> u64 {
        u64::from(self.rate_mbit) * 1_000_000 / 8
    }

    fn check(&self, listen: SocketAddr) -> Result<(), ConfigError> {
        let group = self.group;
        if !group.ip().is_multicast() || group.port() == 0 {
            return Err(ConfigError::Group(group));
        }
        let says_which = !listen.ip().is_unspecified() && listen.is_ipv4() == group.is_ipv4();
        if self.interface.is_none() && !says_which {
            return Err(ConfigError::Interface { listen, group });
        }
        if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&self.datagram_bytes) {
            return Err(ConfigError::DatagramBytes(self.datagram_bytes));
        }
        if !(1..=RATE_MBIT_MAX).contains(&self.rate_mbit) {
            return Err(ConfigError::RateMbit(self.rate_mbit));
        }
        Ok(())
    }
}

impl DistributionConfig {
    /// Returns whether nodes may be served by a group at all.
    pub fn wants_group(&self) -> bool {
        match self.transport {
            Transport::Auto | Transport::Multicast => true,
            Transport::Unicast | Transport::Bus => false,
        }
    }

    /// Returns the group that nodes may be served by.
    pub fn group(&self) -> Option<SocketAddr> {
        let multicast = self.multicast.as_ref();
        multicast
            .filter(|_| self.wants_group())
            .map(|multicast| multicast.group)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.bus.len() > BUSES_MAX {
            return Err(ConfigError::Buses(self.bus.len()));
        }
        for (at, path) in self.bus.iter().enumerate() {
            let bytes = path.as_os_str().as_bytes();
            if !path.is_absolute() || bytes.len() > SOCKET_PATH_BYTES_MAX || bytes.contains(&0) {
                return Err(ConfigError::BusPath(path.clone()));
            }
            if self.bus[..at].contains(path) {
                return Err(ConfigError::BusTwice(path.clone()));
            }
        }
        match self.transport {
            Transport::Multicast if self.multicast.is_none() => return Err(ConfigError::NoGroup),
            Transport::Bus if self.bus.is_empty() => return Err(ConfigError::NoBus),
            Transport::Auto | Transport::Multicast | Transport::Unicast | Transport::Bus => {}
        }
        match &self.multicast {
            Some(multicast) => multicast.check(self.listen),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Returns every way in, for people: with `insecure` anybody may take them.
    pub fn open(&self) -> Vec<String> {
        let distribution = &self.distribution;
        let mut open = vec![
            format!("distribution on {}", distribution.listen),
            format!("api on {}", self.api.listen),
        ];
        let buses = distribution.bus.iter();
        open.extend(buses.map(|path| format!("bus on {}", path.display())));
        open.extend(distribution.group().map(|group| format!("group {group}")));
        open
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.distribution.check()?;
        let RegistrarLimits {
            min_expires_s: min,
            max_expires_s: max,
            default_expires_s: default,
        } = self.registrar;
        if !(1 <= min && min <= default && default <= max && max <= EXPIRES_S_MAX) {
            return Err(ConfigError::Expiries { min, default, max });
        }
        if !(1..=RECORDS_MAX_MAX).contains(&self.records_max) {
            return Err(ConfigError::RecordsMax(self.records_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        cluster = "lab"
        data = "/var/lib/locus/locsvc"
        distribution.listen = "127.0.0.1:5800"
        api.listen = "[::1]:8800"
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.records_max, RECORDS_MAX_DEFAULT);
        assert_eq!(config.registrar, RegistrarLimits::default());
    }

    #[test]
    fn a_group_and_two_buses() {
        let text = SMALLEST.replace("127.0.0.1", "10.77.0.10");
        let more = r#"
            distribution.transport = "multicast"
            distribution.bus = ["/run/locus/a.sock", "/run/locus/b.sock"]
            distribution.multicast.group = "239.192.76.83:5801"
        "#;
        let config = parse(&format!("{text}{more}")).unwrap();
        let multicast = config.distribution.multicast.clone().unwrap();
        assert_eq!(multicast.rate_bytes_per_s(), 25_000_000);
        assert_eq!((multicast.datagram_bytes, multicast.port), (1400, 0));
        assert_eq!(config.distribution.transport, Transport::Multicast);
        assert_eq!(config.identity, Path::new("/etc/locus/identity"));
        let open = config.open().join(", ");
        let expected = "distribution on 10.77.0.10:5800, api on [::1]:8800, bus on /run/locus/a.sock, bus on \
                        /run/locus/b.sock, group 239.192.76.83:5801";
        assert_eq!(open, expected);
    }

    /// Each line is refused with words that name what to write.
    #[test]
    fn what_does_not_fit_together_says_what_to_change() {
        let group = "distribution.multicast.group = \"239.192.76.83:5801\"";
        let long = "b".repeat(SOCKET_PATH_BYTES_MAX);
        for (lines, words) in [
            (
                "distribution.transport = \"multicast\"".to_owned(),
                "[distribution.multicast]",
            ),
            (
                "distribution.transport = \"bus\"".to_owned(),
                "distribution.bus = [",
            ),
            (
                "distribution.transport = \"pigeon\"".to_owned(),
                "unknown variant",
            ),
            ("distribution.bus = [\"a.sock\"]".to_owned(), "absolute"),
            (
                format!("distribution.bus = [\"/{long}\"]"),
                "at most 107 bytes",
            ),
            ("distribution.bus = [\"/a\", \"/a\"]".to_owned(), "twice"),
            (
                "distribution.bus = [\"/a\", \"/b\", \"/c\"]".to_owned(),
                "two buses",
            ),
            (
                "distribution.multicast.group = \"10.0.0.1:5801\"".to_owned(),
                "239.192.0.0/14",
            ),
            (
                "distribution.multicast.group = \"239.192.76.83:0\"".to_owned(),
                "with a port",
            ),
            (
                "distribution.multicast.group = \"[ff15::1]:5801\"".to_owned(),
                "interface has to name",
            ),
            (
                format!("{group}\ndistribution.multicast.rate_mbit = 0"),
                "rate_mbit is 1 to",
            ),
            (
                format!("{group}\ndistribution.multicast.datagram_bytes = 1500"),
                "1232 to 1400",
            ),
            (
                format!("{group}\ndistribution.multicast.datagram_bytes = 1200"),
                "1232 to 1400",
            ),
        ] {
            let error = parse(&format!("{SMALLEST}\n{lines}")).unwrap_err();
            assert!(error.contains(words), "{lines}: {error}");
        }
        let everywhere = SMALLEST.replace("127.0.0.1", "0.0.0.0");
        let error = parse(&format!("{everywhere}\n{group}")).unwrap_err();
        assert!(error.contains("as \"eth1\""), "{error}");
        let named = format!("{everywhere}\n{group}\ndistribution.multicast.interface = \"eth1\"");
        assert!(parse(&named).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "unknown = 1",
            "distribution.port = 1",
            "records_max = 0",
            "records_max = 100000001",
            "registrar.min_expires_s = 0",
            "registrar.min_expires_s = 7200",
            "registrar.max_expires_s = 60",
            "registrar.max_expires_s = -1",
            "registrar.max_expires_s = 4000000000",
            "cluster = \"Lab!\"",
        ] {
            let key = line.split(' ').next().unwrap();
            let mut lines: Vec<&str> = SMALLEST.lines().collect();
            lines.retain(|old| !old.trim().starts_with(key));
            let text = format!("{}\n{line}", lines.join("\n"));
            assert!(parse(&text).is_err(), "{line}");
        }
    }
}
