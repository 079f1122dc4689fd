//! What an operator may set, and what of it fits together; it opens nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use locus_proto::NodeName;
use serde::Deserialize;

use crate::provision::{EXPIRES_S_MAX, RegistrarLimits};

/// Most records that may be configured: what one table's index is made for.
const RECORDS_MAX_MAX: u64 = 100_000_000;
const RECORDS_MAX_DEFAULT: u64 = 1_000_000;

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
    /// Whether addresses beyond loopback may be listened on without any authentication.
    #[serde(default)]
    pub insecure: bool,
    /// Records that the table is sized for.
    #[serde(default = "records_max_default")]
    pub records_max: u64,
    /// Expiries that are granted.
    #[serde(default)]
    pub registrar: RegistrarLimits,
    /// File to which every input of the core is written, for `--replay`. It grows without bound and
    /// holds the subscribers' data and the table key.
    pub record: Option<PathBuf>,
}

/// Section `[distribution]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributionConfig {
    /// Address and port for the agents.
    pub listen: SocketAddr,
    /// A node that is more levels behind than this loads the whole table; left out, the cheaper way is
    /// taken.
    pub reload_above: Option<u64>,
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
    /// An address beyond loopback.
    #[error(
        "{section}.listen = \"{listen}\" is reachable from other hosts, and nothing authenticates them \
         yet: use a loopback address, or set insecure = true on a network that only you can reach"
    )]
    NotLoopback {
        /// The section.
        section: &'static str,
        /// The address.
        listen: SocketAddr,
    },
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

    /// Returns what is listened on beyond loopback; never empty unless all is on loopback.
    pub fn exposed(&self) -> Vec<(&'static str, SocketAddr)> {
        let listens = [
            ("distribution", self.distribution.listen),
            ("api", self.api.listen),
        ];
        listens
            .into_iter()
            .filter(|(_, listen)| !listen.ip().to_canonical().is_loopback())
            .collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some((section, listen)) = self.exposed().first().copied()
            && !self.insecure
        {
            return Err(ConfigError::NotLoopback { section, listen });
        }
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
        assert_eq!(config.exposed(), []);
    }

    #[test]
    fn other_hosts_need_a_word() {
        let exposed = SMALLEST.replace("127.0.0.1", "10.77.0.10");
        let error = parse(&exposed).unwrap_err();
        assert!(error.contains("insecure = true"), "{error}");
        let config = parse(&format!("insecure = true\n{exposed}")).unwrap();
        assert_eq!(
            config.exposed(),
            [("distribution", config.distribution.listen)]
        );
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
