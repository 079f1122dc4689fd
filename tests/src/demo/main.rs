//! The demo: a cluster in network namespaces answers calls from its own tables, whatever happens to the
//! location service. Tells the story; what must come out stands in `expectations`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the demo's output is its purpose"
)]

mod expectations;
mod report;
mod scenes;
mod stage;
mod story;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::time::Duration;

use locus_lab::{Cluster, Lab, needs, products, wait};

use crate::expectations::{Expectations, FULL, QUICK};
use crate::scenes::SCENES;
use crate::stage::{OPERATOR, Stage};
use crate::story::Story;

const USAGE: &str = "\
environment: QUICK=1      at most 60 seconds
             SCENE=name   one scene (and what it needs)
             KEEP=1       leaves the cluster up until Ctrl-C and says how to talk to it";

fn main() -> ExitCode {
    let expect = if set("QUICK") { QUICK } else { FULL };
    let scene = std::env::var("SCENE").ok().filter(|name| !name.is_empty());
    if let Some(name) = &scene
        && !SCENES.iter().any(|scene| scene.name == *name)
    {
        let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
        eprintln!(
            "demo: no scene {name:?}; there are: {}\n{USAGE}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    if let Err(missing) = needs() {
        eprintln!("demo: needs {missing}");
        return ExitCode::FAILURE;
    }
    wait::catch_signals();
    // A failed step is one line for people; RUST_BACKTRACE is for those who look for a bug in the demo.
    panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| info.payload().downcast_ref::<&str>().copied());
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("\ndemo: {} ({place})", text.unwrap_or("a step failed"));
    }));
    let Some(lab) = Lab::start("demo") else {
        return ExitCode::FAILURE;
    };
    let played = panic::catch_unwind(AssertUnwindSafe(|| play(lab, expect, scene.as_deref())));
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if wait::interrupted() => ExitCode::from(130),
        Err(_) => ExitCode::FAILURE,
    }
}

fn set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Plays the scenes and returns whether every number was as expected.
fn play(lab: Lab, expect: Expectations, only: Option<&str>) -> bool {
    let story = Story::begin();
    story.scene(
        "stage",
        "one location service, two nodes, callers and callees",
    );
    let mut stage = Stage::set(lab, expect, story);
    for scene in SCENES {
        let wanted = only.is_none_or(|name| name == scene.name);
        let needed = only.is_some_and(|name| scene.needed_by(name));
        if wanted || needed {
            stage.story.scene(scene.name, scene.what);
            (scene.play)(&mut stage);
        }
    }
    // The buses of the chassis stay plugged in as long as the cluster is up.
    let (mut report, story, mut cluster, _chassis) = stage.close();
    let duration = story.elapsed();
    report.expect_at_most("duration of the demo", duration, expect.duration_max);
    println!("\n{}", report.table());
    for complaint in report.complaints() {
        println!("  NOT AS EXPECTED: {complaint}");
    }
    let good = report.complaints().is_empty();
    let verdict = if good {
        "every number is as expected"
    } else {
        "failed"
    };
    println!("demo: {verdict} ({:.0} s)", duration.as_secs_f64());
    if set("KEEP") {
        keep(&cluster);
    }
    if !good {
        cluster.lab.fail();
    }
    good
}

/// Says how to talk to the cluster and leaves it up until Ctrl-C.
fn keep(cluster: &Cluster) {
    let enter = |host: &str| format!("ip netns exec {}", cluster.lab.host(host).name());
    let release = products();
    println!("\nThe cluster stays up until Ctrl-C. From another terminal, as root:");
    println!(
        "  {} sipsak -v -s sip:10.77.0.12:5060 -H 10.77.0.21",
        enter("caller")
    );
    let control = cluster.n2.control();
    println!("  kamcmd -s unix:{} locus.status", control.display());
    println!(
        "  kamcmd -s unix:{} locus.show u0002@example.net",
        control.display()
    );
    let (locsvc, url) = (enter("locsvc"), cluster.locsvc.url());
    let alice = cluster.lab.authority().operator(OPERATOR, "admin");
    let ctl = format!(
        "{locsvc} {}/locusctl --server {url} --identity {}",
        release.display(),
        alice.display()
    );
    println!("  {ctl} nodes");
    println!("  {ctl} aor get sip:u0002@example.net");
    println!("  logs: {}", cluster.lab.folder().display());
    while !wait::interrupted() {
        wait::pause(Duration::from_millis(100));
    }
}
