//! `locusctl`, the one command-line tool of a Locus cluster; it knows the HTTP API and nothing behind it.
#![forbid(unsafe_code)]

mod api;
mod args;
mod ca;
mod format;
mod mcast;
mod output;
mod params;
mod tls;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::api::{Answer, CallError, Client, Route};
use crate::args::{AorCommand, ApiCommand, Args, Command, RouteCommand};
use crate::output::Output;

fn main() -> ExitCode {
    let Args {
        server,
        identity,
        json,
        command,
    } = Args::parse();
    let outcome = match command {
        Command::Api(command) => {
            let client = Client::new(server, &identity);
            client.and_then(|client| run(&client, command, json))
        }
        Command::Ca(arguments) => Ok(ca::run(arguments, json)),
        Command::McastTest(arguments) => Ok(mcast::run(arguments, json)),
    };
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
fn run(client: &Client, command: ApiCommand, json: bool) -> Result<Output, CallError> {
    let shown = Shown { json };
    let text: Result<String, CallError> = match command {
        ApiCommand::Aor(AorCommand::Get { aor }) => client
            .get_aor(&aor)
            .map(|answer| shown.by(&answer, format::aor)),
        ApiCommand::Aor(AorCommand::Put { aor, contacts }) => {
            let text = format!("aor {aor}");
            let answer = client.put_aor(&aor, contacts)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        ApiCommand::Aor(AorCommand::Delete { aor }) => {
            let text = format!("aor {aor}");
            let answer = client.delete_aor(&aor)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        ApiCommand::Route(RouteCommand::Get { prefix }) => client
            .get_route(prefix)
            .map(|answer| shown.by(&answer, format::route)),
        ApiCommand::Route(RouteCommand::Put {
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
        ApiCommand::Route(RouteCommand::Delete { prefix }) => {
            let text = format!("route {prefix}");
            let answer = client.delete_route(prefix)?;
            Ok(shown.by(&answer, |changed| format::changed(&text, changed)))
        }
        ApiCommand::Nodes { wide } => {
            let answer = client.nodes()?;
            let text = |nodes: &_| format::nodes(nodes, wide, output::colour());
            Ok(shown.by(&answer, text))
        }
        ApiCommand::Audit {
            node,
            repair,
            timeout,
        } => return audit(client, node.as_deref(), repair, timeout, &shown),
        ApiCommand::Reload { node } => client
            .reload(&node)
            .map(|answer| shown.by(&answer, format::reload)),
        ApiCommand::Level => client
            .level()
            .map(|answer| shown.by(&answer, format::level)),
        ApiCommand::Wait { level, timeout } => {
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
