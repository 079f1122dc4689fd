//! `locus-agent`: the command line of the node daemon; everything else is in the library.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use locus_agent::{Config, Event, check, replay, run, with_causes};

/// Follows locsvc and keeps the table from which this node's Kamailio answers.
#[derive(Debug, Parser)]
#[command(name = "locus-agent", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/locus/agent.toml")]
    config: PathBuf,
    /// Only say whether the configuration, and the identity it names, can be used.
    #[arg(long)]
    check: bool,
    /// Feed a recording into the agent's core and print the end state as JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    replay: Option<PathBuf>,
    /// Log more.
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.verbose {
        tracing::Level::DEBUG
    } else {
        tracing::Level::INFO
    };
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .init();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = with_causes(error.as_ref());
            Event::Failed { reason }.log();
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &arguments.replay {
        let summary = replay(BufReader::new(File::open(path)?))?;
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
        return Ok(());
    }
    let config = Config::read(&arguments.config)?;
    if arguments.check {
        check(&config)?;
    } else {
        run(&config)?;
    }
    Ok(())
}
