//! Parameters: what the configuration may say, its defaults, and what is refused at the start.
//!
//! It knows values and limits; it opens nothing. Types and defaults stand also in `doc/locus_admin.xml`.

use std::path::PathBuf;

use locus_ffi::{IntParameter, ListParameter, ListSource, ParameterExport, TextParameter, Uri};
use thiserror::Error;

/// Peers that may be named; one is tried per request.
pub(crate) const PEERS_MAX: usize = 64;
/// Limits of `save_timeout_ms`: below, a disk's commit does not fit; above, a worker is blocked for too long.
const SAVE_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 10..=10_000;
/// Message and branch flags are numbered from 0 to 31.
const FLAG_MAX: i32 = 31;
/// Value of a flag parameter that is not used.
const NO_FLAG: i32 = -1;

static TABLE_FOLDER: TextParameter = TextParameter::new();
static AGENT_SOCKET: TextParameter = TextParameter::new();
static EMERGENCY_FILE: TextParameter = TextParameter::new();
static SAVE_TIMEOUT: IntParameter = IntParameter::new(500);
static USE_DOMAIN: IntParameter = IntParameter::new(1);
static APPEND_BRANCHES: IntParameter = IntParameter::new(1);
static RECEIVED_FLAG: IntParameter = IntParameter::new(NO_FLAG);
static NAT_BFLAG: IntParameter = IntParameter::new(NO_FLAG);
static PEER: ListParameter = ListParameter::new();

/// Names the list that `peer` fills.
#[derive(Debug)]
struct Peers;

impl ListSource for Peers {
    fn list() -> &'static ListParameter {
        &PEER
    }
}

/// The table that Kamailio reads.
pub(crate) static TABLE: [ParameterExport; 10] = [
    ParameterExport::text(c"table_folder", &TABLE_FOLDER),
    ParameterExport::text(c"agent_socket", &AGENT_SOCKET),
    ParameterExport::text(c"emergency_file", &EMERGENCY_FILE),
    ParameterExport::int(c"save_timeout_ms", &SAVE_TIMEOUT),
    ParameterExport::int(c"use_domain", &USE_DOMAIN),
    ParameterExport::int(c"append_branches", &APPEND_BRANCHES),
    ParameterExport::int(c"received_flag", &RECEIVED_FLAG),
    ParameterExport::int(c"nat_bflag", &NAT_BFLAG),
    ParameterExport::list::<Peers>(c"peer"),
    ParameterExport::END,
];

/// What the configuration says, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Folder in which the agent keeps the table.
    pub(crate) table_folder: PathBuf,
    /// The agent's socket for registrations.
    pub(crate) agent_socket: PathBuf,
    /// File with the emergency numbers; `None`: no number is special.
    pub(crate) emergency_file: Option<PathBuf>,
    /// Longest time that one REGISTER may hold a worker.
    pub(crate) save_timeout_ms: u64,
    /// Whether the host belongs to an address-of-record.
    pub(crate) use_domain: bool,
    /// Whether contacts after the first become branches.
    pub(crate) append_branches: bool,
    /// Message flag that says: the sender's address is to be stored as `received`.
    pub(crate) received_flag: Option<i32>,
    /// Branch flags of a target that is reached by `received`.
    pub(crate) nat_bflags: u32,
    /// URIs of the other nodes.
    pub(crate) peers: Vec<Box<[u8]>>,
}

/// A parameter that cannot be used; the server does not start.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SettingsError {
    /// A path is not absolute.
    #[error("modparam {name}: \"{value}\" is no absolute path")]
    Path {
        /// The parameter.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// A number is out of range.
    #[error("modparam {name}: {value} is out of range, {range} is accepted")]
    Range {
        /// The parameter.
        name: &'static str,
        /// What it says.
        value: i32,
        /// What it may say.
        range: String,
    },
    /// A peer is no SIP URI.
    #[error("modparam peer: \"{0}\" is no sip: URI")]
    Peer(String),
    /// More than [`PEERS_MAX`] peers.
    #[error("modparam peer: {0} peers, at most {PEERS_MAX} are accepted")]
    Peers(usize),
}

impl Settings {
    /// Reads and checks all parameters; a peer that is this server itself is left out, so that all nodes can
    /// share one list.
    pub(crate) fn read() -> Result<Self, SettingsError> {
        let listed = PEER.get();
        if listed.len() > PEERS_MAX {
            return Err(SettingsError::Peers(listed.len()));
        }
        let mut peers = Vec::with_capacity(listed.len());
        for peer in listed {
            match Uri::parse(&peer) {
                Some(uri) if uri.is_sip && !uri.host.is_empty() => {
                    if !uri.is_own() {
                        peers.push(peer);
                    }
                }
                _ => {
                    return Err(SettingsError::Peer(
                        String::from_utf8_lossy(&peer).into_owned(),
                    ));
                }
            }
        }
        let save_timeout_ms = SAVE_TIMEOUT.get();
        if !SAVE_TIMEOUT_MS.contains(&save_timeout_ms) {
            return Err(SettingsError::Range {
                name: "save_timeout_ms",
                value: save_timeout_ms,
                range: format!("{} to {}", SAVE_TIMEOUT_MS.start(), SAVE_TIMEOUT_MS.end()),
            });
        }
        let folder = TABLE_FOLDER.get().unwrap_or(b"/run/locus/default");
        let socket = AGENT_SOCKET
            .get()
            .unwrap_or(b"/run/locus/default/agent.sock");
        Ok(Self {
            table_folder: absolute("table_folder", folder)?,
            agent_socket: absolute("agent_socket", socket)?,
            emergency_file: EMERGENCY_FILE
                .get()
                .map(|path| absolute("emergency_file", path))
                .transpose()?,
            save_timeout_ms: u64::try_from(save_timeout_ms).unwrap_or(0),
            use_domain: switch("use_domain", USE_DOMAIN.get())?,
            append_branches: switch("append_branches", APPEND_BRANCHES.get())?,
            received_flag: flag("received_flag", RECEIVED_FLAG.get())?,
            nat_bflags: flag("nat_bflag", NAT_BFLAG.get())?.map_or(0, bit),
            peers,
        })
    }
}

fn absolute(name: &'static str, value: &[u8]) -> Result<PathBuf, SettingsError> {
    let text = String::from_utf8_lossy(value);
    if text.starts_with('/') {
        return Ok(PathBuf::from(text.into_owned()));
    }
    Err(SettingsError::Path {
        name,
        value: text.into_owned(),
    })
}

fn switch(name: &'static str, value: i32) -> Result<bool, SettingsError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(SettingsError::Range {
            name,
            value,
            range: "0 or 1".to_owned(),
        }),
    }
}

fn flag(name: &'static str, value: i32) -> Result<Option<i32>, SettingsError> {
    match value {
        NO_FLAG => Ok(None),
        0..=FLAG_MAX => Ok(Some(value)),
        _ => Err(SettingsError::Range {
            name,
            value,
            range: format!("{NO_FLAG} (unused) or 0 to {FLAG_MAX}"),
        }),
    }
}

fn bit(flag: i32) -> u32 {
    u32::try_from(flag)
        .ok()
        .and_then(|flag| 1_u32.checked_shl(flag))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_by_name() {
        assert_eq!(
            absolute("table_folder", b"run/locus")
                .unwrap_err()
                .to_string(),
            "modparam table_folder: \"run/locus\" is no absolute path"
        );
        assert!(switch("use_domain", 2).is_err());
        assert_eq!(flag("received_flag", -1), Ok(None));
        assert_eq!(flag("received_flag", 31), Ok(Some(31)));
        assert!(flag("received_flag", 32).is_err() && flag("nat_bflag", -2).is_err());
        assert_eq!((bit(0), bit(31)), (1, 0x8000_0000));
    }
}
