//! What people read: tables, durations, hints, as text; it writes to no stream. Nodes and audits stand in
//! `nodes`, certificates in `ca`.

mod ca;
mod nodes;

pub(crate) use ca::{certificates, date};
pub(crate) use nodes::{audit, nodes, not_equal};

use std::time::Duration;

use crate::api::{AorAnswer, CallError, Changed, LevelAnswer, ReloadAnswer, RouteAnswer};
use crate::params::Contact;

/// Whether text may carry terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

/// A phone or node may have named itself so as to command the terminal: no control character passes.
fn text(text: impl Into<String>) -> Cell {
    Cell {
        text: text.into().replace(char::is_control, "\u{fffd}"),
        tone: Tone::Plain,
        right: false,
    }
}

fn number(value: Option<impl ToString>) -> Cell {
    Cell {
        right: true,
        ..text(value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
    }
}

/// Returns what was done about a reload.
pub(crate) fn reload(answer: &ReloadAnswer) -> String {
    let name = text(&answer.name).text;
    let node = answer.node;
    if answer.connected {
        format!("node {node} ({name}) loads the whole table: see locusctl nodes\n")
    } else {
        format!(
            "node {node} ({name}) is not connected: it loads the whole table when it comes back\n"
        )
    }
}

/// Returns the rows under their headings, columns aligned, two spaces between them, no spaces at the
/// end of a line.
fn table(heads: &[&str], rows: &[Vec<Cell>], colour: Colour) -> String {
    let width = |column: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells.map(|cell| cell.text.chars().count());
        widths.fold(head.chars().count(), usize::max)
    };
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, head)| width(i, head))
        .collect();
    let right = |column: usize| {
        rows.first()
            .and_then(|row| row.get(column))
            .is_some_and(|cell| cell.right)
    };
    let mut out = String::new();
    let mut line = |cells: Vec<(String, Tone, bool)>| {
        let mut plain_end = out.len();
        for (i, ((text, tone, right), width)) in cells.into_iter().zip(&widths).enumerate() {
            let gap = if i == 0 { "" } else { "  " };
            let fill = " ".repeat(width.saturating_sub(text.chars().count()));
            let (before, behind) = if right {
                (fill.as_str(), "")
            } else {
                ("", fill.as_str())
            };
            out.push_str(gap);
            out.push_str(before);
            out.push_str(&paint(&text, tone, colour));
            if !text.is_empty() {
                plain_end = out.len();
            }
            out.push_str(behind);
        }
        out.truncate(plain_end);
        out.push('\n');
    };
    let head = |(i, head): (usize, &&str)| ((*head).to_owned(), Tone::Plain, right(i));
    line(heads.iter().enumerate().map(head).collect());
    for row in rows {
        line(
            row.iter()
                .map(|cell| (cell.text.clone(), cell.tone, cell.right))
                .collect(),
        );
    }
    out
}

fn paint(text: &str, tone: Tone, colour: Colour) -> String {
    let code = match (colour, tone) {
        (Colour::No, _) | (Colour::Yes, Tone::Plain) => return text.to_owned(),
        (Colour::Yes, Tone::Good) => 32,
        (Colour::Yes, Tone::Warn) => 33,
        (Colour::Yes, Tone::Bad) => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Returns `850 ms`, `2.3 s`, `59 min 3 s`, `7 h 12 min`, `3 d 4 h`: two figures are enough to act on.
pub(crate) fn duration(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    let pair = |whole: u64, unit: &str, rest: u64, rest_unit: &str| match rest {
        0 => format!("{whole} {unit}"),
        rest => format!("{whole} {unit} {rest} {rest_unit}"),
    };
    match s {
        0 => format!("{ms} ms"),
        1..10 if ms % 1000 >= 100 => format!("{s}.{} s", ms % 1000 / 100),
        1..60 => format!("{s} s"),
        60..3600 => pair(s / 60, "min", s % 60, "s"),
        3600..86_400 => pair(s / 3600, "h", s % 3600 / 60, "min"),
        86_400.. => pair(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

fn ms(ms: Option<u64>) -> Cell {
    number(ms.map(|ms| duration(Duration::from_millis(ms))))
}

/// Returns the contacts of an address-of-record, best first.
pub(crate) fn aor(answer: &AorAnswer) -> String {
    let row = |contact: &Contact| {
        let expires = contact.expires_s.map_or_else(
            || "never".to_owned(),
            |s| format!("in {}", duration(Duration::from_secs(s.into()))),
        );
        vec![
            number(contact.q),
            text(expires),
            text(&contact.uri),
            text(details(contact)),
        ]
    };
    let rows: Vec<_> = answer.contacts.iter().map(row).collect();
    let plain = answer
        .contacts
        .iter()
        .all(|contact| details(contact).is_empty());
    let heads = [
        "Q",
        "EXPIRES",
        "CONTACT",
        if plain { "" } else { "DETAILS" },
    ];
    let mut out = format!("{} at level {}\n", answer.aor, answer.level);
    out.push_str(&table(&heads, &rows, Colour::No));
    out
}

fn details(contact: &Contact) -> String {
    let parts = [
        ("path", contact.path.clone()),
        ("received", contact.received.clone()),
        ("instance", contact.instance.clone()),
        ("reg-id", contact.reg_id.map(|id| id.to_string())),
        (
            "node",
            contact.registration.as_ref().map(|by| by.node.to_string()),
        ),
        (
            "user-agent",
            contact
                .registration
                .as_ref()
                .map(|by| by.user_agent.clone()),
        ),
    ];
    let parts = parts
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        .map(|(name, value)| format!("{name}={value}"));
    parts.collect::<Vec<_>>().join(" ")
}

/// Returns a route and its targets in order of trial.
pub(crate) fn route(answer: &RouteAnswer) -> String {
    let route = &answer.route;
    let mut out = format!("{} at level {}", answer.prefix, answer.level);
    if route.strip > 0 {
        out.push_str(&format!(", takes {} digits off", route.strip));
    }
    if !route.prefix.is_empty() {
        out.push_str(&format!(", puts {} before", route.prefix));
    }
    out.push('\n');
    let rows = route.targets.iter().map(|target| {
        vec![
            number(Some(target.priority)),
            number(Some(target.weight)),
            text(&target.uri),
        ]
    });
    out.push_str(&table(
        &["PRIORITY", "WEIGHT", "TARGET"],
        &rows.collect::<Vec<_>>(),
        Colour::No,
    ));
    out
}

/// Returns what a change of `what` did.
pub(crate) fn changed(what: &str, answer: &Changed) -> String {
    match answer.outcome.as_str() {
        "unchanged" => format!("{what} is so already (level {})\n", answer.level),
        outcome => format!("{what} {outcome}, level {}\n", answer.level),
    }
}

/// Returns what waiting for `level` has come to; no node at all must not look like success.
pub(crate) fn reached(level: u64, answer: &LevelAnswer) -> String {
    let master = answer.level;
    match answer.nodes {
        Some(0) => format!("no node has connected since locsvc started; it is at level {master}\n"),
        Some(1) => format!("the only node has level {level} (master at {master})\n"),
        Some(nodes) => format!("all {nodes} nodes have level {level} (master at {master})\n"),
        None => format!("all nodes have level {level} (master at {master})\n"),
    }
}

/// Returns where the database stands.
pub(crate) fn level(answer: &LevelAnswer) -> String {
    let LevelAnswer {
        level,
        epoch,
        root,
        records,
        nodes: _,
    } = answer;
    format!("level    {level}\nepoch    {epoch}\nroot     {root}\nrecords  {records}\n")
}

/// Returns what an operator can do about an error; it stands on a line of its own.
pub(crate) fn hint(error: &CallError) -> Option<&'static str> {
    match error {
        CallError::Unreachable { .. } => Some(
            "Does it run (systemctl status locsvc)? Another address: --server URL or LOCUS_SERVER. \
             Nodes go on answering calls from their own tables meanwhile.",
        ),
        CallError::NoAnswer { changing: true, .. } => Some(
            "Whether the change was made is not known: look with `locusctl aor get` or \
             `route get`; repeating it does no harm.",
        ),
        CallError::NoAnswer { .. } => {
            Some("It may be waiting for its disk: look at its log (journalctl -u locsvc).")
        }
        CallError::Untrusted { .. } => Some(
            "The identity is that of --identity FOLDER (LOCUS_IDENTITY); `locusctl ca list` shows what was \
             issued and revoked.",
        ),
        CallError::Identity { .. } => Some(
            "Beside locsvc itself http://127.0.0.1:8800 needs none, where its api.listen is on loopback.",
        ),
        CallError::NotLocsvc { .. } => Some("Is the port right? locsvc.toml has it as api.listen."),
        CallError::Refused { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Route, Server};
    use crate::params::Registration;

    #[test]
    fn contacts_are_a_table() {
        let contact = |text: &str| text.parse::<Contact>().unwrap();
        let mut answer = AorAnswer {
            aor: "alice@example.net".into(),
            level: 42,
            contacts: vec![
                contact("sip:alice@10.0.0.1;q=0.75;expires=3543"),
                contact("sip:alice@10.0.0.2"),
            ],
        };
        let plain = "\
alice@example.net at level 42
   Q  EXPIRES        CONTACT
0.75  in 59 min 3 s  sip:alice@10.0.0.1
   -  never          sip:alice@10.0.0.2
";
        assert_eq!(aor(&answer), plain);
        answer.contacts = vec![contact(
            "sip:a@x;reg-id=1;received=sip:192.0.2.7;path=\"<sip:p;lr>\"",
        )];
        let details = "\
alice@example.net at level 42
Q  EXPIRES  CONTACT  DETAILS
-  never    sip:a@x  path=<sip:p;lr> received=sip:192.0.2.7 reg-id=1
";
        assert_eq!(aor(&answer), details);
        answer.contacts[0] = Contact {
            registration: Some(Registration {
                node: 2,
                user_agent: "Phone/1".into(),
            }),
            ..contact("sip:a@x")
        };
        assert!(aor(&answer).ends_with("sip:a@x  node=2 user-agent=Phone/1\n"));
    }

    #[test]
    fn routes_say_what_they_do_to_the_number() {
        let answer = RouteAnswer {
            prefix: "0049".into(),
            level: 7,
            route: Route {
                targets: vec![
                    "sip:gw1;weight=70".parse().unwrap(),
                    "sip:gw2;priority=2".parse().unwrap(),
                ],
                strip: 4,
                prefix: "0".into(),
            },
        };
        let expected = "\
0049 at level 7, takes 4 digits off, puts 0 before
PRIORITY  WEIGHT  TARGET
       1      70  sip:gw1
       2       1  sip:gw2
";
        assert_eq!(route(&answer), expected);
    }

    #[test]
    fn changes_and_levels() {
        let answer = |outcome: &str| Changed {
            level: 9,
            outcome: outcome.to_owned(),
        };
        assert_eq!(
            changed("aor a@x", &answer("created")),
            "aor a@x created, level 9\n"
        );
        assert_eq!(
            changed("aor a@x", &answer("unchanged")),
            "aor a@x is so already (level 9)\n"
        );
        let answer = LevelAnswer {
            level: 9,
            epoch: "3-0a0b0c0d".into(),
            root: "00".into(),
            records: 5,
            nodes: Some(0),
        };
        let none = "no node has connected since locsvc started; it is at level 9\n";
        assert_eq!(reached(8, &answer), none);
        let expected = "level    9\nepoch    3-0a0b0c0d\nroot     00\nrecords  5\n";
        assert_eq!(level(&answer), expected);
    }

    #[test]
    fn durations_have_two_figures() {
        for (ms, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (2_345, "2.3 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_543_000, "59 min 3 s"),
            (7 * 3_600_000 + 720_000, "7 h 12 min"),
            (3 * 86_400_000 + 4 * 3_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), expected);
        }
    }

    #[test]
    fn every_error_of_the_way_has_a_hint() {
        let server: Server = "http://127.0.0.1:1".parse().unwrap();
        let reason = String::new;
        for error in [
            CallError::Unreachable {
                server: server.clone(),
                reason: reason(),
            },
            CallError::NoAnswer {
                server: server.clone(),
                reason: reason(),
                changing: true,
            },
            CallError::Untrusted {
                server: server.clone(),
                reason: reason(),
            },
            CallError::NotLocsvc {
                server,
                reason: reason(),
            },
        ] {
            assert!(hint(&error).is_some(), "{error}");
        }
    }
}
