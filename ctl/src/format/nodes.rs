//! Nodes and audits as people read them; it calls nobody.

use super::{Cell, Colour, Tone, ms, number, paint, table, text};
use crate::api::{Alarm, AuditAnswer, Audited, Fault, Node, NodesAnswer};

/// Partitions of a table.
const PARTITIONS: u64 = 65_536;
/// Most ranges of partitions that are named in a line.
const RANGES_MAX: usize = 8;
const MIB: u64 = 1024 * 1024;

/// Returns the nodes as a table, worst state in red, and below it what needs somebody.
pub(crate) fn nodes(answer: &NodesAnswer, wide: bool, colour: Colour) -> String {
    let mut heads = vec![
        "NODE", "NAME", "STATE", "PATH", "LEVEL", "BEHIND", "LAG", "RECORDS", "REPAIRED", "PAGES",
    ];
    if wide {
        heads.extend([
            "TABLE MIB",
            "AUDITS",
            "SCRUBS",
            "DOUBTED",
            "SNAPSHOT AT",
            "SNAPSHOTS FAILED",
            "CATCH-UPS",
            "RELOADS",
            "LAST SYNC",
            "WIRE",
            "LOST",
            "NACKS",
        ]);
    }
    heads.push("ADDRESS");
    if wide {
        heads.push("SIP");
    }
    let rows: Vec<_> = answer.nodes.iter().map(|each| node(each, wide)).collect();
    let mut out = format!("master at level {}\n", answer.level);
    if let Some(alarm) = &answer.alarm {
        out.push_str(&paint(&alarmed(alarm), Tone::Bad, colour));
        out.push('\n');
    }
    for alarm in answer.nodes.iter().filter_map(unreached) {
        out.push_str(&paint(&alarm, Tone::Bad, colour));
        out.push('\n');
    }
    if rows.is_empty() {
        out.push_str("no node has connected since locsvc started\n");
    } else {
        out.push_str(&table(&heads, &rows, colour));
    }
    for note in answer.nodes.iter().flat_map(notes) {
        out.push_str(&paint(&note, Tone::Warn, colour));
        out.push('\n');
    }
    out
}

fn alarmed(alarm: &Alarm) -> String {
    let Alarm {
        level,
        nodes,
        of,
        master_verified,
    } = alarm;
    let master = if *master_verified {
        "the master's memory is as its log says: load the nodes' tables anew, one after the other\n\
         (stop the agent, empty its folders of table and snapshots, start it again)"
    } else {
        "the master is reading its own memory again: look at its log"
    };
    format!(
        "ALARM: {nodes} of {of} nodes agree against the master (level {level}); nothing is repaired, and\n\
         {master}"
    )
}

/// Returns the alarm of a node that the group does not reach.
fn unreached(node: &Node) -> Option<String> {
    let lost = node.multicast_lost.as_ref()?;
    let name = text(&node.name).text;
    let lasts = ms(Some(lost.lasts_ms)).text;
    let why = match lost.reason.as_str() {
        "silent" => {
            "it hears nothing of the group: look at IGMP/MLD snooping (locusctl mcast-test)"
        }
        "gone" => "what it missed was not kept for repair any more",
        "overrun" => "more came than it takes: look at its load",
        "mistrusted" => "what it heard was not the master's: look at its agent's log",
        "unable" => "it cannot join the group: look at its agent's log",
        other => &text(other).text,
    };
    Some(format!(
        "ALARM: the multicast path to {name} is lost for {lasts}, it is served over its connection: {why}"
    ))
}

fn node(node: &Node, wide: bool) -> Vec<Cell> {
    let (state, tone) = match (node.connected, node.state.as_deref()) {
        // Its last report is history: the node may be gone, or cut off and answering.
        (false, _) => ("disconnected", Tone::Bad),
        (true, None) => ("connecting", Tone::Warn),
        (true, Some(state @ "coherent")) => (state, Tone::Good),
        (true, Some(state @ ("resync" | "stale" | "draining"))) => (state, Tone::Warn),
        (true, Some(state)) => (state, Tone::Bad),
    };
    let (health, group) = (node.health.as_ref(), node.group.as_ref());
    let pages = health.and_then(|health| health.pages.as_deref());
    let pages = pages.unwrap_or("-");
    let mut cells = vec![
        number(Some(node.node)),
        text(&node.name),
        Cell {
            tone,
            ..text(state)
        },
        Cell {
            tone: if node.multicast_lost.is_some() {
                Tone::Bad
            } else {
                Tone::Plain
            },
            ..text(
                node.path
                    .as_deref()
                    .filter(|_| node.connected)
                    .unwrap_or("-"),
            )
        },
        number(node.level),
        number(node.level.map(|_| node.behind)),
        ms(node.lag_ms),
        number(node.records),
        number(node.repaired_total),
        Cell {
            tone: if pages == "2M" || pages == "-" {
                Tone::Plain
            } else {
                Tone::Warn
            },
            ..text(pages)
        },
    ];
    if wide {
        cells.extend([
            number(health.map(|health| health.table_bytes / MIB)),
            number(node.audits_total),
            number(health.map(|health| health.scrubs_total)),
            number(health.map(|health| health.doubted_total)),
            number(health.map(|health| health.snapshot_level)),
            number(health.map(|health| health.snapshots_failed_total)),
            number(node.catch_ups_total),
            number(node.reloads_total),
            ms(node.last_sync_ms),
            number(node.version),
            number(group.map(|group| group.lost_total)),
            number(group.map(|group| group.nacks_total)),
        ]);
    }
    cells.push(text(&node.address));
    if wide {
        cells.push(text(&node.sip));
    }
    cells
}

/// Returns what of a node's report needs somebody, in words.
fn notes(node: &Node) -> Vec<String> {
    let name = text(&node.name).text;
    let mut notes = Vec::new();
    if let Some(group) = node.group.as_ref().filter(|group| group.refused_total > 0) {
        notes.push(format!(
            "{name}: {} of {} in the group were not to be trusted: somebody else sends there",
            group.refused_total,
            plural(group.datagrams_total + group.refused_total, "datagram")
        ));
    }
    let Some(health) = &node.health else {
        return notes;
    };
    if health.doubted_total > 0 {
        let what = plural(health.doubted_total, "partition");
        notes.push(format!(
            "{name}: {what} held something else than was written: test that machine's memory"
        ));
    }
    if health.snapshots_failed_total > 0 {
        notes.push(format!(
            "{name}: {} could not be written: after a reboot it loads the whole table (see its agent's log)",
            plural(health.snapshots_failed_total, "snapshot")
        ));
    }
    notes
}

/// Returns what an audit found: a table, and below it where nodes differed.
pub(crate) fn audit(answer: &AuditAnswer, colour: Colour) -> String {
    if answer.nodes.is_empty() {
        return "no node has connected since locsvc started\n".to_owned();
    }
    let heads = [
        "NODE",
        "NAME",
        "VERDICT",
        "LEVEL",
        "RECORDS",
        "PARTITIONS",
        "DIFFERING",
        "REPAIRED",
    ];
    let rows: Vec<_> = answer.nodes.iter().map(audited).collect();
    let mut out = format!("master at level {}\n", answer.level);
    out.push_str(&table(&heads, &rows, colour));
    let differing = answer.nodes.iter().filter(|node| !node.ranges.is_empty());
    for node in differing {
        out.push_str(&where_it_differed(node));
    }
    out
}

fn audited(node: &Audited) -> Vec<Cell> {
    let tone = match node.verdict.as_str() {
        "equal" => Tone::Good,
        "repaired" | "busy" => Tone::Warn,
        _ => Tone::Bad,
    };
    vec![
        number(Some(node.node)),
        text(&node.name),
        Cell {
            tone,
            ..text(&node.verdict)
        },
        number(node.level),
        number(node.records),
        number(node.partitions),
        number(node.differing),
        number(node.repaired),
    ]
}

fn where_it_differed(node: &Audited) -> String {
    let range = |(from, to): &(u16, u16)| match from == to {
        true => format!("{from:04x}"),
        false => format!("{from:04x}-{to:04x}"),
    };
    let mut ranges: Vec<_> = node.ranges.iter().map(range).collect();
    let all = ranges.len();
    ranges.truncate(RANGES_MAX);
    let named = ranges.join(", ");
    let more = if all > RANGES_MAX { ", …" } else { "" };
    let count = node.partitions.unwrap_or_default();
    let word = if count == 1 {
        "partition"
    } else {
        "partitions"
    };
    let name = text(&node.name).text;
    let records = plural(node.differing.unwrap_or_default(), "record");
    let repaired = match node.repaired {
        Some(repaired @ 1..) => format!("{repaired} repaired"),
        Some(0) | None => "none repaired".to_owned(),
    };
    format!(
        "{name}: {word} {named}{more} ({count} of {PARTITIONS}), {records} differed, {repaired}\n"
    )
}

/// Returns why an audit is a failure, unless every node holds the master's content now.
pub(crate) fn not_equal(answer: &AuditAnswer) -> Option<Fault> {
    let failed: Vec<_> = answer
        .nodes
        .iter()
        .filter(|node| !matches!(node.verdict.as_str(), "equal" | "repaired"))
        .map(|node| format!("{} {}", text(&node.name).text, said(&node.verdict)))
        .collect();
    let (code, error) = if answer.nodes.is_empty() {
        ("no_nodes", "there is no node to audit".to_owned())
    } else if failed.is_empty() {
        return None;
    } else {
        ("not_equal", failed.join("; "))
    };
    Some(Fault {
        error,
        code: code.to_owned(),
    })
}

/// Returns a verdict behind a node's name, with what to do.
fn said(verdict: &str) -> String {
    match verdict {
        "differs" => "differed from the master: unless it mends itself (locusctl nodes), repeat it with --repair",
        "reloading" => "differs so much that it loads the whole table: see locusctl nodes",
        "refused" => "was refused by the master: see locusctl nodes and locsvc's log",
        "busy" => "is busy: repeat it in a minute",
        "failed" => "cannot read or mend its table: see its agent's log",
        "no_answer" => "did not report in time: repeat it with a longer --timeout",
        "not_connected" => "is not connected",
        other => return text(other).text,
    }
    .to_owned()
}

fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Group, Health, Lost};

    fn cluster() -> NodesAnswer {
        let healthy = Node {
            node: 1,
            name: "n1".into(),
            address: "10.77.0.11:40312".into(),
            sip: "sip:10.77.0.11:5060".into(),
            connected: true,
            behind: 0,
            path: Some("multicast".into()),
            version: Some(1),
            multicast_lost: None,
            group: Some(Group {
                datagrams_total: 90_000,
                lost_total: 12,
                nacks_total: 3,
                refused_total: 0,
            }),
            state: Some("coherent".into()),
            level: Some(11_042),
            lag_ms: Some(0),
            catch_ups_total: Some(2),
            reloads_total: Some(1),
            last_sync_ms: Some(850),
            records: Some(10_000_000),
            audits_total: Some(3),
            repaired_total: Some(0),
            health: Some(Health {
                table_bytes: 3_300 * MIB,
                pages: Some("2M".into()),
                scrubs_total: 144,
                doubted_total: 0,
                snapshot_level: 11_000,
                snapshots_failed_total: 0,
            }),
        };
        let behind = Node {
            node: 12,
            name: "berlin-2".into(),
            state: Some("resync".into()),
            level: Some(9_000),
            behind: 2_042,
            lag_ms: Some(61_000),
            last_sync_ms: Some(2_345),
            repaired_total: Some(7),
            health: Some(Health {
                doubted_total: 1,
                snapshots_failed_total: 2,
                pages: Some("4K".into()),
                ..Health::default()
            }),
            ..healthy.clone()
        };
        let gone = Node {
            node: 3,
            name: "n3".into(),
            connected: false,
            ..healthy.clone()
        };
        let fresh = Node {
            node: 4,
            name: "n4".into(),
            address: "10.77.0.14:5".into(),
            path: Some("tcp".into()),
            connected: true,
            ..Node::default()
        };
        NodesAnswer {
            level: 11_042,
            alarm: None,
            nodes: vec![healthy, behind, gone, fresh],
        }
    }

    #[test]
    fn nodes_are_a_table_with_what_needs_somebody_below() {
        let expected = "\
master at level 11042
NODE  NAME      STATE         PATH       LEVEL  BEHIND        LAG   RECORDS  REPAIRED  PAGES  ADDRESS
   1  n1        coherent      multicast  11042       0       0 ms  10000000         0  2M     10.77.0.11:40312
  12  berlin-2  resync        multicast   9000    2042  1 min 1 s  10000000         7  4K     10.77.0.11:40312
   3  n3        disconnected  -          11042       0       0 ms  10000000         0  2M     10.77.0.11:40312
   4  n4        connecting    tcp            -       -          -         -         -  -      10.77.0.14:5
berlin-2: 1 partition held something else than was written: test that machine's memory
berlin-2: 2 snapshots could not be written: after a reboot it loads the whole table (see its agent's log)
";
        let shown = nodes(&cluster(), false, Colour::No);
        assert_eq!(shown, expected);
        let rows = shown.lines().skip(1).take(5);
        assert!(rows.map(str::len).max() <= Some(112), "{shown}");
    }

    #[test]
    fn wide_shows_everything() {
        let NodesAnswer { mut nodes, .. } = cluster();
        nodes.truncate(1);
        let answer = NodesAnswer {
            level: 11_042,
            alarm: None,
            nodes,
        };
        let expected = "\
master at level 11042
NODE  NAME  STATE     PATH       LEVEL  BEHIND   LAG   RECORDS  REPAIRED  PAGES  TABLE MIB  AUDITS  SCRUBS  DOUBTED  SNAPSHOT AT  SNAPSHOTS FAILED  CATCH-UPS  RELOADS  LAST SYNC  WIRE  LOST  NACKS  ADDRESS           SIP
   1  n1    coherent  multicast  11042       0  0 ms  10000000         0  2M          3300       3     144        0        11000                 0          2        1     850 ms     1    12      3  10.77.0.11:40312  sip:10.77.0.11:5060
";
        assert_eq!(super::nodes(&answer, true, Colour::No), expected);
    }

    #[test]
    fn an_alarm_stands_first() {
        let alarm = |master_verified| {
            let alarm = Some(Alarm {
                level: 11_040,
                nodes: 3,
                of: 4,
                master_verified,
            });
            let answer = NodesAnswer { alarm, ..cluster() };
            nodes(&answer, false, Colour::No)
        };
        let expected = "\
master at level 11042
ALARM: 3 of 4 nodes agree against the master (level 11040); nothing is repaired, and
the master is reading its own memory again: look at its log
NODE";
        assert!(alarm(false).starts_with(expected), "{}", alarm(false));
        assert!(alarm(true).contains("and\nthe master's memory is as its log says"));
    }

    #[test]
    fn a_node_that_the_group_does_not_reach_is_an_alarm() {
        let NodesAnswer { mut nodes, .. } = cluster();
        nodes.truncate(1);
        nodes[0].path = Some("tcp".into());
        nodes[0].multicast_lost = Some(Lost {
            reason: "silent".into(),
            lasts_ms: 123_000,
        });
        nodes[0].group.as_mut().unwrap().refused_total = 2;
        let answer = NodesAnswer {
            level: 11_042,
            alarm: None,
            nodes,
        };
        let expected = "\
master at level 11042
ALARM: the multicast path to n1 is lost for 2 min 3 s, it is served over its connection: it hears nothing of \
the group: look at IGMP/MLD snooping (locusctl mcast-test)
NODE  NAME  STATE     PATH  LEVEL  BEHIND   LAG   RECORDS  REPAIRED  PAGES  ADDRESS
   1  n1    coherent  tcp   11042       0  0 ms  10000000         0  2M     10.77.0.11:40312
n1: 2 of 90002 datagrams in the group were not to be trusted: somebody else sends there
";
        assert_eq!(super::nodes(&answer, false, Colour::No), expected);
    }

    #[test]
    fn colours_change_no_column() {
        let coloured = nodes(&cluster(), false, Colour::Yes);
        for (state, code) in [("coherent", 32), ("resync", 33), ("disconnected", 31)] {
            let painted = format!("\u{1b}[{code}m{state}\u{1b}[0m");
            assert!(coloured.contains(&painted), "{coloured}");
        }
        let plain = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, nodes(&cluster(), false, Colour::No));
    }

    #[test]
    fn nobody_commands_the_terminal() {
        let node = Node {
            name: "n\u{1b}[2J".into(),
            sip: "sip:\u{1b}[2J\n".into(),
            path: Some("\u{1b}[2J".into()),
            multicast_lost: Some(Lost {
                reason: "\u{1b}[2J".into(),
                lasts_ms: 1,
            }),
            health: Some(Health {
                doubted_total: 1,
                pages: Some("\u{1b}[2J".into()),
                ..Health::default()
            }),
            ..Node::default()
        };
        let hostile = NodesAnswer {
            level: 0,
            alarm: None,
            nodes: vec![node],
        };
        let audit_answer = AuditAnswer {
            level: 0,
            nodes: vec![Audited {
                name: "\u{1b}[2J".into(),
                verdict: "\u{1b}[2J".into(),
                ranges: vec![(0, 1)],
                ..Audited::default()
            }],
        };
        let failure = not_equal(&audit_answer).unwrap().error;
        for shown in [
            nodes(&hostile, true, Colour::No),
            audit(&audit_answer, Colour::No),
            failure,
        ] {
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
        }
    }

    #[test]
    fn an_empty_cluster_is_said_in_words() {
        let empty = NodesAnswer {
            level: 0,
            alarm: None,
            nodes: Vec::new(),
        };
        let expected = "master at level 0\nno node has connected since locsvc started\n";
        assert_eq!(nodes(&empty, false, Colour::Yes), expected);
    }

    #[test]
    fn an_audit_names_the_ranges_and_what_became_of_them() {
        let found = |verdict: &str, ranges: &[(u16, u16)], partitions, repaired| Audited {
            node: 2,
            name: "n2".into(),
            verdict: verdict.into(),
            level: Some(11_042),
            records: Some(1_000_000),
            partitions: Some(partitions),
            ranges: ranges.to_vec(),
            differing: Some(partitions),
            repaired: Some(repaired),
        };
        let equal = Audited {
            node: 1,
            name: "n1".into(),
            ..found("equal", &[], 0, 0)
        };
        let gone = Audited {
            node: 3,
            name: "berlin-3".into(),
            verdict: "not_connected".into(),
            ..Audited::default()
        };
        let answer = AuditAnswer {
            level: 11_043,
            nodes: vec![equal, found("repaired", &[(0x1a2b, 0x1a2f)], 5, 5), gone],
        };
        let expected = "\
master at level 11043
NODE  NAME      VERDICT        LEVEL  RECORDS  PARTITIONS  DIFFERING  REPAIRED
   1  n1        equal          11042  1000000           0          0         0
   2  n2        repaired       11042  1000000           5          5         5
   3  berlin-3  not_connected      -        -           -          -         -
n2: partitions 1a2b-1a2f (5 of 65536), 5 records differed, 5 repaired
";
        assert_eq!(audit(&answer, Colour::No), expected);
        let failure = not_equal(&answer).unwrap();
        assert_eq!(failure.error, "berlin-3 is not connected");
        let ranges: Vec<_> = (0..9).map(|at| (at * 16, at * 16)).collect();
        let answer = AuditAnswer {
            level: 1,
            nodes: vec![found("differs", &ranges, 2_000, 0)],
        };
        let expected = "n2: partitions 0000, 0010, 0020, 0030, 0040, 0050, 0060, 0070, … (2000 of 65536), \
                        2000 records differed, none repaired\n";
        assert!(audit(&answer, Colour::No).ends_with(expected));
        let failure = not_equal(&answer).unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.error.as_str()),
            (
                "not_equal",
                "n2 differed from the master: unless it mends itself (locusctl nodes), repeat it with --repair"
            )
        );
    }

    #[test]
    fn only_equal_or_repaired_everywhere_is_a_success() {
        let answer = |verdicts: &[&str]| AuditAnswer {
            level: 1,
            nodes: verdicts
                .iter()
                .map(|verdict| Audited {
                    name: "n1".into(),
                    verdict: (*verdict).to_owned(),
                    ..Audited::default()
                })
                .collect(),
        };
        assert!(not_equal(&answer(&["equal", "repaired"])).is_none());
        assert!(not_equal(&answer(&[])).is_some());
        for verdict in [
            "differs",
            "reloading",
            "refused",
            "busy",
            "failed",
            "no_answer",
            "not_connected",
            "what a later locsvc says",
        ] {
            let failure = not_equal(&answer(&["equal", verdict])).expect(verdict);
            assert!(failure.error.starts_with("n1 "), "{}", failure.error);
        }
    }
}
