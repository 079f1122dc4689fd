//! The only place that writes to the terminal and chooses the exit code; it knows no request.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::api::{CallError, Fault};
use crate::format::{self, Colour};

/// Exit codes, as `--help` lists them; 2 is clap's for wrong usage.
const DONE: u8 = 0;
const REFUSED: u8 = 1;
const UNREACHABLE: u8 = 3;
const TIMEOUT: u8 = 4;

/// Returns whether standard output is a terminal that wants colours (<https://no-color.org>).
pub(crate) fn colour() -> Colour {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !unwanted {
        Colour::Yes
    } else {
        Colour::No
    }
}

/// What a command prints, and what of it is a failure nevertheless.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) text: String,
    pub(crate) failure: Option<Fault>,
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        let failure = None;
        Self { text, failure }
    }
}

/// Prints the outcome of a command and returns its exit code.
pub(crate) fn finish(outcome: Result<Output, CallError>, json: bool) -> ExitCode {
    let code = match outcome {
        Ok(Output { text, failure }) => {
            // A reader that went away (`| head`) has what it wanted.
            write!(io::stdout().lock(), "{text}").ok();
            match failure {
                None => DONE,
                Some(fault) => {
                    let text = if json {
                        serde_json::json!(fault).to_string()
                    } else {
                        format!("locusctl: {}", fault.error)
                    };
                    writeln!(io::stderr().lock(), "{text}").ok();
                    REFUSED
                }
            }
        }
        Err(error) => {
            let text = if json {
                as_json(&error)
            } else {
                as_text(&error)
            };
            writeln!(io::stderr().lock(), "{text}").ok();
            exit_code(&error)
        }
    };
    ExitCode::from(code)
}

fn as_text(error: &CallError) -> String {
    let hint = format::hint(error)
        .map(|hint| format!("\n{hint}"))
        .unwrap_or_default();
    format!("locusctl: {error}{hint}")
}

/// Returns the error as the API would have said it, so that a script reads one form only.
fn as_json(error: &CallError) -> String {
    let code = match error {
        CallError::Unreachable { .. } => "unreachable",
        CallError::NoAnswer { .. } => "no_answer",
        CallError::NotLocsvc { .. } => "not_locsvc",
        CallError::Untrusted { .. } => "untrusted",
        CallError::Identity { .. } => "identity",
        CallError::Refused { code, .. } => code,
    };
    let fault = Fault {
        error: error.to_string(),
        code: code.to_owned(),
    };
    serde_json::json!(fault).to_string()
}

fn exit_code(error: &CallError) -> u8 {
    match error {
        CallError::Unreachable { .. }
        | CallError::NotLocsvc { .. }
        | CallError::Untrusted { .. }
        | CallError::Identity { .. } => UNREACHABLE,
        CallError::NoAnswer { .. } | CallError::Refused { status: 504, .. } => TIMEOUT,
        CallError::Refused { .. } => REFUSED,
    }
}
