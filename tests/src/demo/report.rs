//! Collects what the scenes found and judges it at the end. Knows expectations only as numbers.

use std::fmt::Write as _;
use std::time::Duration;

use locus_lab::{Durations, Tally, milliseconds};

use crate::story::grouped;

/// Calls by role.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Calls {
    pub(crate) redirect: Tally,
    pub(crate) proxy: Tally,
    pub(crate) emergency: Tally,
}

/// Everything the closing table shows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    calls: Calls,
    visible: Option<Durations>,
    levels: Vec<(String, u64)>,
    returns: Vec<(String, Duration)>,
    ways: Vec<(String, String)>,
    complaints: Vec<String>,
}

impl Report {
    /// Adds calls; every one placed must have been answered.
    pub(crate) fn calls(&mut self, what: &str, calls: Calls) {
        let roles = [
            ("redirect", calls.redirect, &mut self.calls.redirect),
            ("proxy", calls.proxy, &mut self.calls.proxy),
            ("emergency", calls.emergency, &mut self.calls.emergency),
        ];
        let mut lost = Vec::new();
        for (role, tally, sum) in roles {
            *sum = *sum + tally;
            if tally.answered != tally.placed || tally.failed != 0 {
                lost.push(format!("{what}: {role} calls: {tally:?}"));
            }
        }
        self.complaints.append(&mut lost);
    }

    /// Adds the times from accepted to visible on both nodes.
    pub(crate) fn visible(&mut self, visible: Durations) {
        self.visible = Some(visible);
    }

    /// Adds the level of a node at the end.
    pub(crate) fn level(&mut self, node: &str, level: u64) {
        self.levels.push((node.to_owned(), level));
    }

    /// Adds how long an agent took to return.
    pub(crate) fn returned(&mut self, how: &str, duration: Duration) {
        self.returns.push((how.to_owned(), duration));
    }

    /// Adds what came to the nodes by one way alone.
    pub(crate) fn came(&mut self, way: &str, text: String) {
        self.ways.push((way.to_owned(), text));
    }

    /// Notes a number that is not as expected.
    pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, wanted: T) {
        if got != wanted {
            self.complaints
                .push(format!("{what}: {got:?}, expected {wanted:?}"));
        }
    }

    /// Notes a duration above its limit.
    pub(crate) fn expect_at_most(&mut self, what: &str, got: Duration, limit: Duration) {
        if got > limit {
            self.complaints
                .push(format!("{what}: {got:?}, expected at most {limit:?}"));
        }
    }

    /// The closing table.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![("calls".to_owned(), "placed     answered".to_owned())];
        let Calls {
            redirect,
            proxy,
            emergency,
        } = self.calls;
        for (role, tally) in [
            ("redirect", redirect),
            ("proxy", proxy),
            ("emergency", emergency),
        ] {
            let numbers = format!("{:<10} {}", grouped(tally.placed), grouped(tally.answered));
            rows.push((format!("  {role}"), numbers));
        }
        for (node, level) in &self.levels {
            rows.push((format!("database level of {node}"), grouped(*level)));
        }
        if let Some(visible) = &self.visible {
            let text = format!(
                "p50 {:.1} ms   p99 {:.1} ms   max {:.1} ms   ({} changes)",
                milliseconds(visible.quantile(50)),
                milliseconds(visible.quantile(99)),
                milliseconds(visible.max()),
                grouped(u64::try_from(visible.count()).unwrap_or(u64::MAX)),
            );
            rows.push(("accepted → visible on both nodes".to_owned(), text));
        }
        for (way, text) in &self.ways {
            rows.push((format!("by {way} alone"), text.clone()));
        }
        for (how, duration) in &self.returns {
            rows.push((
                format!("agent back by {how}"),
                format!("{:.2} s", duration.as_secs_f64()),
            ));
        }
        let width = rows
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or_default();
        let mut table = String::new();
        for (name, value) in rows {
            let gap = " ".repeat(width - name.chars().count());
            writeln!(table, "  {name}{gap}   {value}").expect("a String takes all");
        }
        table
    }

    /// What was not as expected, one line each.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}
