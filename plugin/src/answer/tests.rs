//! What a node answers: who is eligible, in which order, and when it must not say "absent".

use locus_proto::{
    AddressOfRecord, AorRecord, Binding, Change, ChangeOp, Epoch, Level, MasterTime, Methods,
    NodeId, NodeState, Owner, Position, Q, Route, Target,
};
use locus_table::{Folder, Geometry, HeapRegions, Pulse, TableKey, Writer};

use super::*;

const INVITE: u32 = 1;
const MESSAGE: u32 = 128;
const NOW: u64 = 1_000_000;

/// A node whose monotonic clock and service time are the same, at [`NOW`].
struct Node {
    folder: Folder<HeapRegions>,
    answerer: Answerer<HeapRegions>,
}

impl Node {
    fn without_table() -> Self {
        let regions = HeapRegions::new();
        let folder = Folder::open(regions.clone()).unwrap();
        let answerer = Answerer::new(regions);
        Self { folder, answerer }
    }

    fn with(records: Vec<(Key, Vec<u8>)>) -> Self {
        let node = Self::without_table();
        node.load(records);
        node.beat(NodeState::Coherent, NOW);
        node
    }

    fn load(&self, records: Vec<(Key, Vec<u8>)>) {
        let geometry = Geometry::for_records(100, 300);
        let (generation, mut writer) = self.folder.begin_load(geometry, TableKey([7; 16])).unwrap();
        let put = |(key, value)| Change {
            key,
            level: Level(1),
            op: ChangeOp::Put(value),
        };
        let changes: Vec<Change> = records.into_iter().map(put).collect();
        writer.load(&changes).unwrap();
        let root = Writer::position(&writer).root;
        let to = Position {
            epoch: Epoch::default(),
            level: Level(1),
            root,
        };
        writer.finish_load(to).unwrap();
        self.folder.flip(&(generation, writer)).unwrap();
    }

    fn beat(&self, state: NodeState, updated_monotonic_ms: u64) {
        self.folder.beat(&Pulse {
            state,
            master_offset_ms: 0,
            complete_until: MasterTime(NOW),
            master_level: Level(1),
            updated_monotonic_ms,
            max_grace_ms: 0,
            node: NodeId(1),
            epoch_counter: 1,
        });
    }

    fn ask(&mut self, aor: &str, method: Option<u32>) -> String {
        match self.answerer.lookup(
            Query {
                aor: aor.as_bytes(),
                method,
            },
            NOW,
        ) {
            Answer::Found(contacts) => {
                let uris: Vec<&str> = contacts.iter().map(|binding| binding.uri).collect();
                let proxy = if contacts.is_proxy_only() {
                    " proxy only"
                } else {
                    ""
                };
                format!("{}{proxy}", uris.join(" "))
            }
            Answer::Absent => "absent".into(),
            Answer::MethodNotSupported => "method not supported".into(),
            Answer::Unavailable(unready) => format!("unavailable: {unready}"),
        }
    }
}

fn key(aor: &str) -> Key {
    Key::aor(&AddressOfRecord::parse(aor).unwrap())
}

fn record(bindings: impl IntoIterator<Item = Binding>) -> Vec<u8> {
    let mut record = AorRecord::default();
    bindings
        .into_iter()
        .for_each(|binding| record.insert(binding));
    record.encode()
}

fn contact(uri: &str, change: impl FnOnce(&mut Binding)) -> Binding {
    let mut binding = Binding::permanent(uri);
    change(&mut binding);
    binding
}

#[test]
fn answers_what_is_eligible_in_order() {
    let expires = |ms| move |b: &mut Binding| b.expires = MasterTime(ms);
    let q = |q| move |b: &mut Binding| b.q = Q::from_thousandths(q).unwrap();
    let invite_only = |b: &mut Binding| b.methods = Methods(INVITE);
    let mut node = Node::with(vec![
        (key("plain@x"), record([contact("sip:a", |_| {})])),
        (
            key("order@x"),
            record([contact("sip:low", q(100)), contact("sip:high", q(900))]),
        ),
        (key("gone@x"), record([contact("sip:a", expires(NOW))])),
        (
            key("half@x"),
            record([
                contact("sip:a", expires(NOW)),
                contact("sip:b", expires(NOW + 1)),
            ]),
        ),
        (key("invite@x"), record([contact("sip:a", invite_only)])),
        (
            key("either@x"),
            record([contact("sip:a", invite_only), contact("sip:b", |_| {})]),
        ),
        (
            key("nat@x"),
            record([contact("sip:a", |b| b.received = "sip:nat".into())]),
        ),
        (
            key("path@x"),
            record([contact("sip:a", |b| b.path = "<sip:p;lr>".into())]),
        ),
        (
            key("flow@x"),
            record([contact("sip:a", |b| {
                b.owner = Owner {
                    connection: 3,
                    ..b.owner
                }
            })]),
        ),
        (
            key("old-nat@x"),
            record([
                contact("sip:a", |b| {
                    b.received = "sip:nat".into();
                    b.expires = MasterTime(1);
                }),
                contact("sip:b", |_| {}),
            ]),
        ),
        (key("empty@x"), record([])),
        (key("broken@x"), vec![9, 9, 9]),
    ]);
    for (aor, method, expected) in [
        ("plain@x", Some(INVITE), "sip:a"),
        ("order@x", Some(INVITE), "sip:high sip:low"),
        ("gone@x", Some(INVITE), "absent"),
        ("half@x", Some(INVITE), "sip:b"),
        ("invite@x", Some(INVITE), "sip:a"),
        ("invite@x", Some(MESSAGE), "method not supported"),
        ("invite@x", None, "sip:a"),
        ("either@x", Some(MESSAGE), "sip:b"),
        ("nat@x", Some(INVITE), "sip:a proxy only"),
        ("path@x", Some(INVITE), "sip:a proxy only"),
        ("flow@x", Some(INVITE), "sip:a proxy only"),
        ("old-nat@x", Some(INVITE), "sip:b"),
        ("empty@x", Some(INVITE), "absent"),
        ("nobody@x", Some(INVITE), "absent"),
        ("", Some(INVITE), "absent"),
        (
            "broken@x",
            Some(INVITE),
            "unavailable: a record cannot be decoded",
        ),
    ] {
        assert_eq!(node.ask(aor, method), expected, "{aor} {method:?}");
    }
    assert_eq!(node.ask(&"a".repeat(300), None), "absent");
    let count = |stat| node.answerer.stats().get(stat);
    assert_eq!(
        (count(Stat::Malformed), count(Stat::MethodNotSupported)),
        (1, 1)
    );
}

#[test]
fn never_says_absent_when_it_cannot_know() {
    let mut nowhere = Answerer::new(HeapRegions::new());
    let query = Query {
        aor: b"a@x",
        method: None,
    };
    assert!(matches!(
        nowhere.lookup(query, NOW),
        Answer::Unavailable(Unready::Table(Reason::NoControl))
    ));
    let mut node = Node::without_table();
    node.beat(NodeState::Loading, NOW);
    assert_eq!(node.ask("a@x", None), "unavailable: the table is loading");
    node.beat(NodeState::Coherent, NOW);
    assert_eq!(node.ask("a@x", None), "unavailable: there is no table yet");
    // The table that appears later is found without a restart.
    node.load(vec![(key("a@x"), record([contact("sip:a", |_| {})]))]);
    for state in NodeState::ALL {
        node.beat(state, NOW);
        let expected = match state {
            NodeState::Loading | NodeState::Inconsistent => {
                format!("unavailable: the table is {state}")
            }
            NodeState::Resync | NodeState::Coherent | NodeState::Stale | NodeState::Draining => {
                "sip:a".into()
            }
        };
        assert_eq!(node.ask("a@x", None), expected, "{state}");
    }
}

#[test]
fn a_silent_agent_makes_the_node_stale() {
    let mut node = Node::with(vec![]);
    assert_eq!(
        node.answerer.readiness(NOW + PULSE_SILENCE).state,
        NodeState::Coherent
    );
    assert_eq!(
        node.answerer.readiness(NOW + PULSE_SILENCE + 1).state,
        NodeState::Stale
    );
    node.beat(NodeState::Inconsistent, 0);
    assert_eq!(node.answerer.readiness(NOW).state, NodeState::Inconsistent);
}

const PULSE_SILENCE: u64 = crate::PULSE_SILENCE_MS;

#[test]
fn routes_by_the_longest_prefix() {
    let route = |uri: &str, strip, prefix: &str| Route {
        strip,
        prefix: prefix.into(),
        targets: vec![Target {
            uri: uri.into(),
            priority: 1,
            weight: 1,
        }],
    };
    let prefix = |digits: &str| Key::route(digits.parse().unwrap());
    let mut node = Node::with(vec![
        (prefix("49"), route("sip:de", 0, "").encode()),
        (prefix("4930"), route("sip:berlin", 2, "0").encode()),
        (
            prefix("44"),
            route("sip:uk", 0, "")
                .encode()
                .into_iter()
                .take(9)
                .collect(),
        ),
    ]);
    let mut ask = |number: &str| match node.answerer.route(number.parse().unwrap(), NOW) {
        RouteAnswer::Found(mut routed) => {
            let target = routed.targets.next().unwrap().unwrap();
            format!("{} {}", target.uri, routed.number.as_str())
        }
        RouteAnswer::Absent => "absent".into(),
        RouteAnswer::Unavailable(unready) => unready.to_string(),
    };
    assert_eq!(ask("493012345"), "sip:berlin 03012345");
    assert_eq!(ask("494012345"), "sip:de 494012345");
    assert_eq!(ask("4"), "absent");
    assert_eq!(ask("33"), "absent");
    assert_eq!(ask("4420"), "a record cannot be decoded");
}

#[test]
fn what_a_look_up_reads_first_is_fetched_ahead() {
    let mut node = Node::without_table();
    let fetched = |node: &mut Node, aor: &str| {
        let mut lines = Vec::new();
        node.answerer
            .prefetch(aor.as_bytes(), |word| lines.push(std::ptr::from_ref(word)));
        lines
    };
    assert_eq!(fetched(&mut node, "alice@x"), [], "there is no table");
    let digits = Digits::parse("4930").unwrap();
    node.answerer
        .prefetch_route(digits, |_| panic!("there is no table"));
    assert_eq!(
        node.answerer.table().map(|(generation, _)| generation),
        None
    );

    node.load(vec![(key("alice@x"), record([contact("sip:a", |_| {})]))]);
    assert_eq!(fetched(&mut node, "alice@x"), [], "none is mapped yet");
    node.answerer.refresh();
    let (generation, region) = node.answerer.table().unwrap();
    assert_eq!(generation, Generation(1));
    assert!(node.answerer.is_answering());
    let words = region.as_ref().as_ptr_range();
    let [line] = fetched(&mut node, "alice@x")[..] else {
        panic!("one line")
    };
    assert!(words.contains(&line) && line.addr() % 64 == 0);
    assert_eq!(
        fetched(&mut node, &"a".repeat(KEY_BYTES_MAX)),
        [],
        "no such key"
    );
    let mut fetched = 0;
    node.answerer.prefetch_route(digits, |_| fetched += 1);
    assert_eq!(fetched, 1);
    let counted = Stat::ALL.map(|stat| node.answerer.stats().get(stat));
    assert_eq!(counted, [0; Stat::ALL.len()], "nothing is counted");
    node.load(vec![]);
    assert!(!node.answerer.is_answering(), "another one does");
}
