//! What the module keeps: one value for the whole server, made before the fork, and one per process.
//!
//! It knows lifetimes; it answers nothing itself.

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use locus_ffi::{LogLevel, Module, Rank, log};
use locus_plugin::{EMERGENCY_BYTES_MAX, EmergencySet, ParseEmergencyError};
use locus_proto::BootId;
use once_cell::sync::OnceCell;
use thiserror::Error;

use crate::ahead::{Fetch, MapAnnounced};
use crate::counters;
use crate::forward::Forwarder;
use crate::pages::{PageCheck, PageWatch};
use crate::params::{Settings, SettingsError};
use crate::table::Table;

/// Made in `mod_init` by the only process there is, inherited by all others, never changed.
static LOCUS: OnceCell<Locus> = OnceCell::new();

thread_local! {
    /// Made by each process when it first needs it, so after the fork: a mapping, a buffer, a socket.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// What all processes share.
#[derive(Debug)]
pub(crate) struct Locus {
    pub(crate) settings: Settings,
    /// Tells the flows of this life of the server from those of earlier ones.
    pub(crate) boot: BootId,
    pub(crate) emergency: EmergencySet,
}

/// What one process has.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) table: Table,
    pub(crate) forwarder: Forwarder,
    pub(crate) page_check: PageCheck,
    turn: usize,
}

impl Worker {
    /// Returns a number that rises by one with each call, to take turns.
    pub(crate) fn next_turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

/// Returns what all processes share; `None` before `mod_init`.
pub(crate) fn locus() -> Option<&'static Locus> {
    LOCUS.get()
}

/// Calls `f` with this process's own state.
///
/// `None` before `mod_init`, and when a call is already under way in this process: no function here calls a
/// route, so that would be a bug. Whatever `f` borrows is released, also by a panic.
pub(crate) fn with_worker<R>(f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    let locus = locus()?;
    WORKER.with(|worker| {
        let mut worker = worker.try_borrow_mut().ok()?;
        let worker = worker.get_or_insert_with(|| Worker {
            table: Table::new(&locus.settings.table_folder),
            forwarder: Forwarder::new(),
            page_check: PageCheck::default(),
            // Processes start at different peers.
            turn: usize::try_from(locus_ffi::process_number()).unwrap_or(0),
        });
        Some(f(worker))
    })
}

/// Calls `f` with this process's own state where there is one: what maps nothing must not make one.
pub(crate) fn with_mapped_worker(f: impl FnOnce(&mut Worker)) {
    WORKER.with(|worker| {
        if let Ok(mut worker) = worker.try_borrow_mut()
            && let Some(worker) = worker.as_mut()
        {
            f(worker);
        }
    });
}

/// Why the module does not start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// A parameter.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The emergency file cannot be read.
    #[error("modparam emergency_file: cannot read {}: {source}", path.display())]
    ReadEmergency {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The emergency file cannot be understood.
    #[error("modparam emergency_file: {}: {source}", path.display())]
    ParseEmergency {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        #[source]
        source: ParseEmergencyError,
    },
    /// There is no random number for this life of the server.
    #[error("cannot read /dev/urandom: {0}")]
    Random(#[source] io::Error),
    /// Kamailio refuses a statistic.
    #[error("cannot register the statistics")]
    Counters,
    /// Kamailio refuses to call the module around the script, or on a timer.
    #[error("cannot register the work around the script and the timer")]
    Hooks,
}

/// The module's life.
#[derive(Debug)]
pub(crate) struct LocusModule;

impl Module for LocusModule {
    const NAME: &'static CStr = c"locus";
    const NEEDS_SL: bool = true;

    fn init() -> Result<(), impl std::fmt::Display> {
        LOCUS.get_or_try_init(start).map(|locus| {
            let settings = &locus.settings;
            log(
                LogLevel::Info,
                format_args!(
                    "table {}, agent {}, {} emergency entries, {} peers, boot {}",
                    settings.table_folder.display(),
                    settings.agent_socket.display(),
                    locus.emergency.len(),
                    settings.peers.len(),
                    locus.boot,
                ),
            );
        })
    }

    fn init_process(rank: Rank) -> Result<(), impl std::fmt::Display> {
        // A SIP worker maps the table before its first request rather than during it. Without a table that
        // costs nothing, and is tried again then.
        if matches!(rank, Rank::Worker(_)) {
            let _mapped = with_worker(|worker| worker.table.touch());
        }
        Ok::<(), StartError>(())
    }
}

fn start() -> Result<Locus, StartError> {
    if !counters::ALL
        .iter()
        .all(|counter| counter.register(LocusModule::NAME))
    {
        return Err(StartError::Counters);
    }
    let hooks = [
        locus_ffi::before_script::<Fetch>(),
        locus_ffi::after_script::<MapAnnounced>(),
        locus_ffi::every::<PageWatch>(),
    ];
    if hooks.contains(&false) {
        return Err(StartError::Hooks);
    }
    let settings = Settings::read()?;
    let emergency = match &settings.emergency_file {
        Some(path) => read_emergency(path.clone())?,
        None => EmergencySet::default(),
    };
    let mut boot = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut boot))
        .map_err(StartError::Random)?;
    Ok(Locus {
        settings,
        boot: BootId(u64::from_le_bytes(boot)),
        emergency,
    })
}

fn read_emergency(path: PathBuf) -> Result<EmergencySet, StartError> {
    let read = fs::metadata(&path).and_then(|metadata| {
        let bytes_max = u64::try_from(EMERGENCY_BYTES_MAX).unwrap_or(u64::MAX);
        if metadata.len() > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::read_to_string(&path)
    });
    match read {
        Ok(text) => {
            EmergencySet::parse(&text).map_err(|source| StartError::ParseEmergency { path, source })
        }
        Err(source) => Err(StartError::ReadEmergency { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_file_is_read_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("locus-emergency-{}", std::process::id()));
        fs::write(&path, "112 sip:112@psap.example.net\n").unwrap();
        assert_eq!(read_emergency(path.clone()).unwrap().len(), 1);
        fs::write(
            &path,
            "112 sip:112@psap.example.net\nfire sip:fire@psap.example.net\n",
        )
        .unwrap();
        let refused = read_emergency(path.clone()).unwrap_err().to_string();
        assert!(
            refused.contains("emergency_file") && refused.contains("line 2"),
            "{refused}"
        );
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            read_emergency(path),
            Err(StartError::ReadEmergency { .. })
        ));
    }
}
