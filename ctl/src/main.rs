//! `locusctl`, the one command-line tool of a Locus cluster; it knows the HTTP API and nothing behind it.
#![forbid(unsafe_code)]

mod api;
mod args;
mod format;
mod output;
mod params;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::api::{Answer, CallError, Client, Route};
use crate::args::{AorCommand, Args, Command, RouteCommand};
use crate::output::Output;

fn main() -> ExitCode {
    let Args {
        server,
        json,
        command,
    } = Args::parse();
    let client = Client::new(server);
    let outcome = run(&client, command, json);
    output::finish(outcome, json)
}

/// Has nodes compared with the master; any that does not hold its content afterwards is a failure.
fn audit(
    client: &Client,
    node: Option<&str>,
    repair: bool,
    timeout: Duration,
    shown: &Shown,
) -> Result<Output, CallError> {
    let answer = client.audit(node, repair, timeout)?;
    let text = shown.by(&answer, |audit| format::audit(audit, output::colour()));
    let failure = format::not_equal(&answer.value);
    Ok(Output { text, failure })
}

/// Returns what a command prints: for people, or the API's own answer as one line.
fn run(client: &Client, command: Command, json: bool) -> Result<Output, CallError> {
    let shown = Shown { json };
    let text: Result<String, CallError> = match command {
        Command::Aor(AorCommand::Get { aor }) => client
            .get_aor(&aor)
            .map(|answer| shown.by(&answer, format::aor)),
        Command::Aor(AorCommand::Put { aor, contacts }) => {
            let text = format!("aor {aor}");
            let answer = client.put_aor(&aor, contacts)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        Command::Aor(AorCommand::Delete { aor }) => {
            let text = format!("aor {aor}");
            let answer = client.delete_aor(&aor)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        Command::Route(RouteCommand::Get { prefix }) => client
            .get_route(prefix)
            .map(|answer| shown.by(&answer, format::route)),
        Command::Route(RouteCommand::Put {
            prefix,
            mut targets,
            strip,
            prepend,
        }) => {
            targets.sort_by_key(|target| target.priority); // the API wants them in order
            let text = format!("route {prefix}");
            let route = Route {
                targets,
                strip,
                prefix: prepend,
            };
            let answer = client.put_route(prefix, &route)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        Command::Route(RouteCommand::Delete { prefix }) => {
            let text = format!("route {prefix}");
            let answer = client.delete_route(prefix)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        Command::Nodes { wide } => {
            let answer = client.nodes()?;
            let text = |nodes: &_| format::nodes(nodes, wide, output::colour());
            Ok(shown.by(&answer, text))
        }
        Command::Audit {
            node,
            repair,
            timeout,
        } => return audit(client, node.as_deref(), repair, timeout, &shown),
        Command::Level => client
            .level()
            .map(|answer| shown.by(&answer, format::level)),
        Command::Wait { level, timeout } => {
            let answer = client.wait(level, timeout)?;
            Ok(shown.by(&answer, |at| format::reached(level, at)))
        }
    };
    text.map(Output::from)
}

/// How an answer is shown.
struct Shown {
    json: bool,
}

impl Shown {
    fn by<T>(&self, answer: &Answer<T>, for_people: impl FnOnce(&T) -> String) -> String {
        if self.json {
            format!("{}\n", answer.text.trim_end())
        } else {
            for_people(&answer.value)
        }
    }
}
