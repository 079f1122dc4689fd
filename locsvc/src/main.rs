//! The program `locsvc`: reads its command line, then hands over to the library. It holds no logic.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use locsvc::{Config, Event, RunError, Service, chain, check, emit, replay};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The location service: keeps every address-of-record and number route, and brings all nodes up to date.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Configuration file.
    #[arg(long, default_value = "/etc/locus/locsvc.toml")]
    config: PathBuf,
    /// Check the configuration and the identity, open nothing, and exit.
    #[arg(long)]
    check: bool,
    /// Replay a recording in memory and print where it ends, as one line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    replay: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    let options = Options::parse();
    let done = match &options.replay {
        Some(file) => print_replay(file),
        None => serve(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            emit(&Event::Failed { reason });
            ExitCode::FAILURE
        }
    }
}

fn print_replay(file: &std::path::Path) -> Result<(), String> {
    let end = replay(file).map_err(|error| chain(&error))?;
    let line = serde_json::to_string(&end).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

fn serve(options: &Options) -> Result<(), String> {
    let config = Config::read(&options.config).map_err(|error| chain(&error))?;
    if options.check {
        check(&config).map_err(|error| chain(&error))?;
        let path = options.config.display();
        return writeln!(io::stdout(), "{path} is fine").map_err(|error| error.to_string());
    }
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|error| chain(&RunError::Thread(error)))?;
    let service = Service::start(&config).map_err(|error| chain(&error))?;
    let stopper = service.stopper();
    thread::spawn(move || {
        for _ in &mut signals {
            stopper.stop();
        }
    });
    service.run().map_err(|error| chain(&error))
}
