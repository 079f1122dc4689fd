//! What a configuration may say, and what is answered to any other.

use std::error::Error;

use super::*;

const LEAST: &str =
    "cluster = \"lab\"\nnode = \"n1\"\nnode_id = 1\nlocsvc = [\"127.0.0.1:5800\"]\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("agent.toml"), text)
}

#[test]
fn fills_in_what_is_left_out() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.socket(), Path::new("/run/locus/default/agent.sock"));
    assert_eq!(config.save_timeout(), Duration::from_millis(400));
    assert_eq!((config.records_max, config.max_grace_s), (1_000_000, 3600));
    assert_eq!(config.scrub_every(), Duration::from_secs(600));
    assert_eq!(config.snapshots(), Some(Path::new("/var/lib/locus/agent")));
    for off in ["snapshots = \"\"", "snapshot_every_s = 0"] {
        assert_eq!(parse(&format!("{LEAST}{off}\n")).unwrap().snapshots(), None);
    }
    let never = parse(&format!("{LEAST}scrub_minutes = 0\n")).unwrap();
    assert_eq!(never.scrub_every(), Duration::ZERO);
    let own = parse(&format!(
        "{LEAST}socket = \"/run/x.sock\"\nsip = \"sip:10.0.0.1:5060\"\n"
    ));
    assert_eq!(own.unwrap().socket(), Path::new("/run/x.sock"));
}

#[test]
fn says_what_to_change() {
    let with = |line: &str| {
        let key = line.split(' ').next().unwrap();
        let rest: Vec<_> = LEAST
            .lines()
            .filter(|l| l.split(' ').next() != Some(key))
            .collect();
        format!("{}\n{line}\n", rest.join("\n"))
    };
    let long = format!("socket = \"/{}\"", "s".repeat(SOCKET_PATH_BYTES_MAX));
    let long_bus = format!("bus = [\"/{}\"]", "s".repeat(SOCKET_PATH_BYTES_MAX));
    let many = format!("locsvc = [{}]", "\"127.0.0.1:1\",".repeat(MASTERS_MAX + 1));
    for (line, expected) in [
        ("node_id = 0", "node_id is 0, allowed is 1 to 65535"),
        ("node_id = 65536", "node_id"),
        ("locsvc = []", "there is no way to locsvc; set locsvc = ["),
        (many.as_str(), "number of locsvc addresses is 17"),
        (
            "bus = [\"\", \"\", \"/c\"]",
            "number of buses is 3, allowed is 0 to 2",
        ),
        ("bus = [\"/a\", \"/a\"]", "bus A and bus B are both /a"),
        (long_bus.as_str(), "bus has 108 bytes, at most 107"),
        (
            "transport = \"bus\"",
            "transport = \"bus\" needs bus, which is empty",
        ),
        ("transport = \"tcp\"", "unknown variant `tcp`"),
        (
            "multicast_interface = \"interface-of-16c\"",
            "is no name of an interface",
        ),
        ("multicast_interface = \"\"", "as in `ip link`"),
        ("locsvc = [\"localhost\"]", "invalid socket address"),
        ("records_max = 0", "records_max is 0"),
        ("record_bytes_mean = 8", "record_bytes_mean is 8"),
        ("save_timeout_ms = 1", "save_timeout_ms is 1"),
        ("max_grace_s = 604801", "max_grace_s is 604801"),
        (
            "scrub_minutes = 0.001",
            "scrub_minutes is 0.001, allowed is 0 or 0.01 to 10080",
        ),
        ("scrub_minutes = nan", "scrub_minutes is NaN"),
        ("snapshot_every_s = 86401", "snapshot_every_s is 86401"),
        ("snapshot_bytes_per_s = 0", "snapshot_bytes_per_s is 0"),
        ("scrub_minutes = -1", "scrub_minutes is -1"),
        ("sip = \"tel:1\"", "is not a SIP URI"),
        ("cluster = \"Über\"", "a name is 1 to 32"),
        ("colour = \"red\"", "unknown field `colour`"),
        ("node = 5", "invalid type"),
        (long.as_str(), "socket has 108 bytes, at most 107"),
    ] {
        let error = parse(&with(line)).expect_err(line);
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {source}");
        assert!(text.contains(expected), "{line}: {text}");
    }
    let only_bus = "locsvc = []\nbus = [\"/a\"]\ntransport = \"multicast\"";
    let error = parse(&with(only_bus)).unwrap_err().to_string();
    assert!(error.contains("needs locsvc"), "{error}");
    let missing = Config::read(Path::new("/nonexistent/agent.toml")).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nonexistent/agent.toml");
}

#[test]
fn orders_the_ways_to_a_master_as_the_transport_wants_them() {
    let ways = |more: &str| {
        let config = parse(&format!("{LEAST}{more}\n")).unwrap();
        let shown: Vec<_> = config.addresses().iter().map(ToString::to_string).collect();
        shown.join(", ")
    };
    let both = "bus = [\"/a\", \"/b\"]";
    assert_eq!(ways(""), "127.0.0.1:5800");
    for (transport, expected) in [
        ("auto", "bus A (/a), bus B (/b), 127.0.0.1:5800"),
        ("unicast", "bus A (/a), bus B (/b), 127.0.0.1:5800"),
        ("multicast", "127.0.0.1:5800, bus A (/a), bus B (/b)"),
        ("bus", "bus A (/a), bus B (/b)"),
    ] {
        let more = format!("{both}\ntransport = \"{transport}\"");
        assert_eq!(ways(&more), expected, "{transport}");
    }
    assert_eq!(ways("bus = [\"\", \"/b\"]"), "bus B (/b), 127.0.0.1:5800");
}
