//! `locusctl`, the one command-line tool of a Locus cluster; it knows the HTTP API and nothing behind it.
#![forbid(unsafe_code)]

mod api;
mod args;
mod format;
mod output;
mod params;

use std::process::ExitCode;

use clap::Parser;

use crate::api::{Answer, CallError, Client, Route};
use crate::args::{AorCommand, Args, Command, RouteCommand};

fn main() -> ExitCode {
    let Args {
        server,
        json,
        command,
    } = Args::parse();
    let client = Client::new(server);
    output::finish(run(&client, command, json), json)
}

/// Returns what a command prints: for people, or the API's own answer as one line.
fn run(client: &Client, command: Command, json: bool) -> Result<String, CallError> {
    let shown = Shown { json };
    match command {
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
        Command::Nodes => {
            let answer = client.nodes()?;
            Ok(shown.by(&answer, |nodes| format::nodes(nodes, output::colour())))
        }
        Command::Level => client
            .level()
            .map(|answer| shown.by(&answer, format::level)),
        Command::Wait { level, timeout } => {
            let answer = client.wait(level, timeout)?;
            Ok(shown.by(&answer, |at| format::reached(level, at)))
        }
    }
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
