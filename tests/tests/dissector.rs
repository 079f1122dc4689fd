//! Wireshark's view of the protocol: `packaging/wireshark/locus.lua` under tshark, on captures made of the
//! golden bytes and on one of a running cluster.
//! Knows the golden files and what tshark prints, nothing of how the dissector works.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot be captured or dissected fails the test; what is missing is said"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use locus_lab::{Fleet, GROUP, Lab, root, wait};

/// Where the captures' addresses are not the matter.
const V4: &[u8] = &[10, 77, 0, 10, 239, 192, 7, 1];
const V6: &[u8] = &[
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 7, 0, 1,
];
const TCP_PORT: u16 = 5800;
const GROUP_PORT: u16 = 7301;
/// Bytes of a datagram's header, and of the tag at its end.
const HEADER_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// How long tshark may take to open an interface.
const CAPTURE_DEADLINE: Duration = Duration::from_secs(20);

/// A capture file of raw IP packets.
#[derive(Default)]
struct Capture {
    packets: Vec<Vec<u8>>,
    sent: u32,
}

impl Capture {
    /// Adds one segment of the one TCP connection.
    fn segment(&mut self, data: &[u8]) {
        let mut tcp = Vec::new();
        tcp.extend(TCP_PORT.to_be_bytes());
        tcp.extend(40_000_u16.to_be_bytes());
        tcp.extend(self.sent.to_be_bytes());
        // No acknowledgement; a header of 20 bytes; PSH and ACK; a window; neither checksum nor urgency.
        tcp.extend([0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(data);
        self.sent += u32::try_from(data.len()).unwrap();
        self.packet(6, V4, &tcp);
    }

    /// Adds one datagram between these addresses.
    fn datagram(&mut self, addresses: &[u8], data: &[u8]) {
        let mut udp = Vec::new();
        udp.extend(7_302_u16.to_be_bytes());
        udp.extend(GROUP_PORT.to_be_bytes());
        udp.extend(u16::try_from(data.len() + 8).unwrap().to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(data);
        self.packet(17, addresses, &udp);
    }

    fn packet(&mut self, protocol: u8, addresses: &[u8], payload: &[u8]) {
        let len = u16::try_from(payload.len()).unwrap();
        let mut ip = Vec::new();
        if addresses.len() == V4.len() {
            ip.extend([0x45, 0]);
            ip.extend((len + 20).to_be_bytes());
            ip.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        } else {
            ip.extend([0x60, 0, 0, 0]);
            ip.extend(len.to_be_bytes());
            ip.extend([protocol, 64]);
        }
        ip.extend(addresses);
        ip.extend(payload);
        self.packets.push(ip);
    }

    /// Writes the file: classic pcap, little-endian, link type "raw IP".
    fn write(&self, path: &Path) {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0xffff, 101] {
            file.extend(word.to_le_bytes());
        }
        for (at, packet) in self.packets.iter().enumerate() {
            let len = u32::try_from(packet.len()).unwrap();
            for word in [u32::try_from(at).unwrap(), 0, len, len] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        fs::write(path, file).unwrap();
    }
}

/// tshark with the dissector, and a folder of its own.
struct Shark {
    folder: PathBuf,
}

impl Shark {
    /// `None` after printing `ignored: needs …` where there is no tshark.
    fn start(name: &str) -> Option<Self> {
        let found = Command::new("tshark").arg("-v").output();
        if !found.is_ok_and(|output| output.status.success()) {
            let required = std::env::var_os("LOCUS_REQUIRE_LAB").is_some_and(|value| value == "1");
            let missing = "tshark (package tshark; `make deps` installs it)";
            assert!(
                !required,
                "{name}: needs {missing}, and LOCUS_REQUIRE_LAB=1 forbids to skip it"
            );
            println!("{name}: ignored: needs {missing}");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("locus-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Some(Self { folder })
    }

    /// What tshark prints for `capture` when asked with `arguments`; `None` for a file that ends in the middle
    /// of a packet.
    fn try_ask(&self, capture: &Path, arguments: &[&str]) -> Option<String> {
        let script = root().join("packaging/wireshark/locus.lua");
        let output = Command::new("tshark")
            .arg("-n")
            .arg("-X")
            .arg(format!("lua_script:{}", script.display()))
            .arg("-r")
            .arg(capture)
            .args(arguments)
            // Nobody's own preferences and plugins.
            .env("HOME", &self.folder)
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("WIRESHARK_CONFIG_DIR", &self.folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("Lua"), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    fn ask(&self, capture: &Path, arguments: &[&str]) -> String {
        self.try_ask(capture, arguments)
            .unwrap_or_else(|| panic!("tshark {arguments:?} failed"))
    }

    /// The values of `fields` in each packet, those of several messages apart by commas.
    fn fields(&self, capture: &Capture, options: &[&str], fields: &[&str]) -> Vec<Vec<String>> {
        let path = self.folder.join("capture.pcap");
        capture.write(&path);
        self.fields_of(&path, options, fields)
    }

    fn fields_of(&self, path: &Path, options: &[&str], fields: &[&str]) -> Vec<Vec<String>> {
        let mut arguments = options.to_vec();
        arguments.extend(["-T", "fields", "-E", "separator=|"]);
        for field in fields {
            arguments.extend(["-e", field]);
        }
        self.ask(path, &arguments)
            .lines()
            .map(|line| line.split('|').map(str::to_owned).collect())
            .collect()
    }
}

impl Drop for Shark {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The golden messages or datagrams by name.
fn golden(which: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = root().join("proto/tests/golden").join(which);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let bytes = text.split_whitespace();
            let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap());
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, bytes.collect())
        })
        .collect()
}

/// The kinds of all golden messages as one list, in the order of their names.
fn kinds() -> Vec<String> {
    golden("v1").values().map(|m| m[5].to_string()).collect()
}

/// The values of a field in all packets as one list.
fn all(rows: &[Vec<String>], column: usize) -> Vec<String> {
    rows.iter()
        .flat_map(|row| row[column].split(',').filter(|value| !value.is_empty()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_message_shows_what_it_says() {
    let Some(shark) = Shark::start("dissector-messages") else {
        return;
    };
    let messages = golden("v1");
    let mut capture = Capture::default();
    for message in messages.values() {
        // One packet, one message; the two longest come in several.
        message
            .chunks(1_400)
            .for_each(|piece| capture.segment(piece));
    }
    let shown = [
        ("hello", "locus.cluster", "lab"),
        ("hello", "locus.name", "n1"),
        ("hello", "locus.sip", "sip:192.0.2.11:5060"),
        ("hello", "locus.node", "1"),
        ("hello", "locus.boot", "0x000000000000b007"),
        ("hello", "locus.newest", "1"),
        ("hello", "locus.transport", "1"),
        ("hello", "locus.epoch", "2"),
        ("hello", "locus.level", "7"),
        ("hello_without_table", "locus.level", ""),
        ("hello_of_the_future", "locus.newest", "255"),
        ("welcome_continue", "locus.agreed", "1"),
        ("welcome_continue", "locus.plan", "0"),
        ("welcome_reload", "locus.plan", "3"),
        ("welcome_reload", "locus.time", "1700000000000"),
        ("rejection", "locus.reason", "another cluster"),
        ("frame_changes", "locus.frame.kind", "1"),
        ("frame_changes", "locus.frame.from", "5"),
        ("frame_changes", "locus.frame.to", "8"),
        ("frame_changes", "locus.count", "3"),
        ("frame_epoch", "locus.frame.kind", "2"),
        ("snapshot_begin", "locus.records", "2"),
        ("snapshot_end", "locus.level", "8"),
        (
            "snapshot_end",
            "locus.root",
            "03000000000000000400000000000000",
        ),
        ("heartbeat", "locus.time", "1700000000500"),
        ("heartbeat", "locus.level", "7"),
        ("status", "locus.state", "3"),
        ("status", "locus.lag_ms", "5"),
        ("registered", "locus.ticket", "17"),
        ("audit_report_equal", "locus.ticket", "9"),
        ("audit_records", "locus.level", "7"),
        ("group_offer_v4", "locus.group.address", "239.192.7.1"),
        ("group_offer_v4", "locus.group.port", "7301"),
        ("group_offer_v4", "locus.group.reply_port", "7302"),
        ("group_offer_v4", "locus.group.key", "3"),
        ("group_offer_v6", "locus.group.address6", "ff15::7:1"),
        ("group_key", "locus.group.stream", "0xfeed00000000beef"),
        ("group_key", "locus.group.key", "4"),
        ("group_heard", "locus.group.key", "4"),
        ("group_cut", "locus.group.cut", "70001"),
        ("group_end_unicast", "locus.group.end_reason", "3"),
        ("group_left_mistrusted", "locus.group.left_reason", "4"),
        ("group_left_mistrusted", "locus.level", "7"),
    ];
    let columns: BTreeSet<&str> = shown.iter().map(|(_, field, _)| *field).collect();
    let columns: Vec<&str> = ["locus.kind"].into_iter().chain(columns).collect();
    let rows = shark.fields(&capture, &["-Y", "locus"], &columns);
    assert_eq!(rows.len(), messages.len(), "one packet ends each message");
    assert_eq!(all(&rows, 0), kinds());
    for (name, field, value) in shown {
        let row = messages.keys().position(|key| key == name).unwrap();
        let column = columns.iter().position(|column| *column == field).unwrap();
        assert_eq!(rows[row][column], value, "{field} of {name}");
    }
}

#[test]
fn messages_are_put_together_however_the_stream_is_cut() {
    let Some(shark) = Shark::start("dissector-stream") else {
        return;
    };
    let stream = golden("v1").into_values().collect::<Vec<_>>().concat();
    for size in [5, 13, 500, 1_460] {
        let mut capture = Capture::default();
        // The first bytes of a conversation are its magic: sent at once by whatever sends a greeting.
        stream.chunks(size).for_each(|piece| capture.segment(piece));
        let rows = shark.fields(
            &capture,
            &[],
            &["locus.kind", "locus.strange", "locus.short"],
        );
        assert_eq!(all(&rows, 0), kinds(), "in pieces of {size}");
        assert_eq!(all(&rows, 1), [""; 0], "in pieces of {size}");
        assert_eq!(all(&rows, 2), [""; 0], "in pieces of {size}");
    }
}

#[test]
fn a_capture_that_begins_in_the_middle_is_read_where_the_port_is_named() {
    let Some(shark) = Shark::start("dissector-middle") else {
        return;
    };
    let stream = golden("v1").into_values().collect::<Vec<_>>().concat();
    let mut capture = Capture::default();
    stream[3..]
        .chunks(1_000)
        .for_each(|piece| capture.segment(piece));
    let fields = ["locus.kind", "locus.strange"];
    let rows = shark.fields(&capture, &[], &fields);
    assert_eq!(all(&rows, 0), [""; 0], "nothing says what it is");
    let rows = shark.fields(&capture, &["-o", "locus.tcp_ports:5000-5999"], &fields);
    assert_eq!(all(&rows, 0), kinds()[1..], "all but the first");
    assert_eq!(all(&rows, 1).len(), 1, "the first is said to be none");
}

#[test]
fn a_body_that_ends_too_early_is_said_to() {
    let Some(shark) = Shark::start("dissector-short") else {
        return;
    };
    let mut capture = Capture::default();
    let mut heartbeat = golden("v1").remove("heartbeat").unwrap();
    heartbeat.truncate(12 + 20);
    heartbeat[8] = 20;
    capture.segment(&heartbeat);
    let rows = shark.fields(&capture, &[], &["locus.kind", "_ws.expert.message"]);
    assert_eq!(rows, [["8", "Body shorter than its kind needs"]]);
}

#[test]
fn every_datagram_shows_its_header_and_hides_nothing_of_the_seal() {
    let Some(shark) = Shark::start("dissector-datagrams") else {
        return;
    };
    for addresses in [V4, V6] {
        let datagrams = golden("sealed");
        let mut capture = Capture::default();
        for datagram in datagrams.values() {
            capture.datagram(addresses, datagram);
        }
        let fields = [
            "locus_lrm.kind",
            "locus_lrm.key",
            "locus_lrm.first",
            "locus_lrm.last",
            "locus_lrm.node",
            "locus_lrm.stream",
            "locus_lrm.seq",
            "locus_lrm.low",
        ];
        let rows = shark.fields(&capture, &[], &fields);
        let expected = |kind, whole, of_node: bool| {
            let (key, node, low) = if of_node {
                ("0", "7", "60001")
            } else {
                ("3", "0", "60000")
            };
            let stream = "0xfeed00000000beef";
            [kind, key, whole, whole, node, stream, "70001", low].map(str::to_owned)
        };
        assert_eq!(
            rows,
            [
                expected("2", "0", false),
                expected("3", "0", false),
                expected("1", "1", false),
                expected("4", "0", false),
                expected("5", "0", true),
                expected("6", "0", true),
            ],
            "beat, confirm, data, gone, nack, status"
        );
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let rows = shark.fields(&capture, &[], &["locus_lrm.sealed", "locus_lrm.tag"]);
        for (row, datagram) in rows.iter().zip(datagrams.values()) {
            let (sealed, tag) =
                datagram[HEADER_BYTES..].split_at(datagram.len() - HEADER_BYTES - TAG_BYTES);
            assert_eq!(*row, [hex(sealed), hex(tag)], "shown as it is: sealed");
        }
    }
}

#[test]
fn what_only_looks_like_a_datagram_is_left_to_others() {
    let Some(shark) = Shark::start("dissector-strangers") else {
        return;
    };
    let beat = golden("sealed").remove("beat").unwrap();
    let changed = |at: usize, byte: u8| {
        let mut datagram = beat.clone();
        datagram[at] = byte;
        datagram
    };
    let strangers = [
        beat[..47].to_vec(),
        changed(0, b'X'),
        changed(2, 2),
        changed(3, 0),
        changed(3, 7),
        [beat.clone(), vec![0; 1_400]].concat(),
    ];
    let mut capture = Capture::default();
    for stranger in &strangers {
        capture.datagram(V4, stranger);
    }
    let fields = ["locus_lrm.kind", "locus_lrm.strange"];
    let rows = shark.fields(&capture, &[], &fields);
    assert_eq!((all(&rows, 0), all(&rows, 1)), (vec![], vec![]));
    let rows = shark.fields(&capture, &["-o", "locus_lrm.udp_ports:7301"], &fields);
    assert_eq!(all(&rows, 0), [""; 0]);
    assert_eq!(
        all(&rows, 1).len(),
        strangers.len(),
        "each is said to be none"
    );
}

#[test]
fn no_key_is_shown() {
    let Some(shark) = Shark::start("dissector-keys") else {
        return;
    };
    let mut capture = Capture::default();
    for name in ["group_key", "group_offer_v4", "welcome_continue"] {
        capture.segment(&golden("v1")[name]);
    }
    let path = shark.folder.join("capture.pcap");
    capture.write(&path);
    let text = shark.ask(&path, &["-V", "-O", "locus"]);
    assert_eq!(text.matches("Keys (secret)").count(), 3, "{text}");
    // The secrets of the golden files: 32 times 5e, and "0123456789abcdef".
    for secret in ["5e5e", "5e 5e", "3031323", "30 31 32", "0123456"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn a_cluster_at_work_is_read_from_its_network() {
    let Some(shark) = Shark::start("dissector-lab") else {
        return;
    };
    let Some(lab) = Lab::start("dissector") else {
        return;
    };
    let mut fleet = Fleet::prepare(lab, 2, GROUP);
    // Without TLS the connections can be read; the group is sealed all the same.
    fleet.locsvc.settings().set("insecure", "true");
    for agent in &mut fleet.agents {
        agent.settings().set("insecure", "true");
    }
    let host = fleet.locsvc.namespace();
    let path = fleet.lab.folder().join("capture.pcapng");
    let mut command = host.command("tshark");
    command
        .args(["-n", "-p", "-q", "-i", "e0", "-w"])
        .arg(&path);
    let capture = host.spawn("tshark", command, fleet.lab.folder());
    let log = capture.log().to_owned();
    wait::until("tshark to capture", CAPTURE_DEADLINE, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("Capture started"))
    });
    fleet.start();
    let level = fleet.locsvc.provision(0, 500, 7_100, |_| {});
    fleet.wait_level(level, &[]);
    // What is written goes through several buffers; both nodes' reports of the last level come behind all else.
    let reports = format!("locus.kind == 9 && locus.level == {level}");
    wait::until("the capture to be written", CAPTURE_DEADLINE, || {
        let reports = ["-Y", &reports, "-T", "fields", "-e", "ip.src"];
        let from = shark.try_ask(&path, &reports).unwrap_or_default();
        from.lines().collect::<BTreeSet<_>>().len() == 2
    });
    assert!(capture.stop().success(), "tshark leaves in good order");

    let fields = ["locus.kind", "locus.strange", "locus.group.stream"];
    let rows = shark.fields_of(&path, &["-Y", "locus"], &fields);
    assert_eq!(
        all(&rows, 1),
        [""; 0],
        "every message begins where one ends"
    );
    let kinds: BTreeSet<String> = all(&rows, 0).into_iter().collect();
    for (kind, name) in [
        ("1", "Hello"),
        ("2", "Welcome"),
        ("8", "Heartbeat"),
        ("9", "Status"),
        ("18", "GroupOffer"),
        ("20", "GroupHeard"),
        ("21", "GroupCut"),
    ] {
        assert!(kinds.contains(kind), "no {name} among {kinds:?}");
    }
    let offered: BTreeSet<String> = all(&rows, 2).into_iter().collect();
    assert_eq!(offered.len(), 1, "one life of the sender: {offered:?}");

    let fields = [
        "locus_lrm.kind",
        "locus_lrm.node",
        "locus_lrm.seq",
        "locus_lrm.stream",
        "locus_lrm.first",
        "locus_lrm.last",
    ];
    let rows = shark.fields_of(&path, &["-Y", "locus_lrm"], &fields);
    let streams: BTreeSet<String> = all(&rows, 3).into_iter().collect();
    assert_eq!(streams, offered, "the stream that was offered");
    let of = |kind: &'static str| rows.iter().filter(move |row| row[0] == kind);
    assert!(of("2").count() > 0, "beats");
    let reporting: BTreeSet<&str> = of("6").map(|row| row[1].as_str()).collect();
    assert_eq!(reporting, BTreeSet::from(["1", "2"]), "both nodes report");
    let data: BTreeSet<u64> = of("1").map(|row| row[2].parse().unwrap()).collect();
    let (first, last) = (*data.first().unwrap(), *data.last().unwrap());
    let len = u64::try_from(data.len()).unwrap();
    assert_eq!(
        (first, last - first + 1),
        (1, len),
        "DATA from 1 on, none missing"
    );
    assert!(of("1").any(|row| row[4] == "1") && of("1").any(|row| row[5] == "1"));
    let (messages, datagrams) = (kinds.len(), rows.len());
    fleet.lab.say(&format!(
        "{messages} kinds of messages and {datagrams} datagrams read off the network"
    ));
}
