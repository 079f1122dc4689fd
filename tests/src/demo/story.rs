//! What a newcomer reads while the demo runs: one line a step, a bar where it takes seconds.
//! Knows no scene.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use locus_lab::wait;

/// Prints the story and keeps the time.
#[derive(Debug)]
pub(crate) struct Story {
    begun: Instant,
    terminal: bool,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self {
            begun: wait::now(),
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Time since the demo began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A new scene.
    pub(crate) fn scene(&self, name: &str, what: &str) {
        println!("\n── {name}: {what}");
    }

    /// One step that is done.
    pub(crate) fn step(&self, line: &str) {
        println!("  [{:5.1} s] {line}", self.elapsed().as_secs_f64());
    }

    /// A command as it was typed.
    pub(crate) fn typed(&self, command: &str) {
        println!("              $ {command}");
    }

    /// What a command printed.
    pub(crate) fn printed(&self, text: &str) {
        for line in text.lines() {
            println!("                {line}");
        }
    }

    /// A bar of `length` steps; on anything but a terminal it only says that something begins.
    pub(crate) fn bar(&self, length: u64, what: &str) -> ProgressBar {
        if !self.terminal {
            println!("  [{:5.1} s] {what} …", self.elapsed().as_secs_f64());
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("  {bar:40} {pos}/{len} {msg}")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stdout());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar
    }

    /// Lets `duration` pass, visibly, while `condition` must keep holding.
    pub(crate) fn pass(&self, duration: Duration, what: &str) {
        let bar = self.bar(duration.as_secs(), what);
        let start = wait::now();
        wait::until(what, duration + Duration::from_secs(5), || {
            bar.set_position(start.elapsed().as_secs());
            start.elapsed() >= duration
        });
        bar.finish_and_clear();
    }
}

/// A number with thousands separated, as people read it.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
