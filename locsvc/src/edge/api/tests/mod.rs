//! The API over real loopback sockets before a core that plays its part; no record is merged here.

mod hostile;
mod records;
mod secure;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use locus_proto::v1::{AuditReport, AuditVerdict, GroupLeftReason};
use locus_proto::{
    AddressOfRecord, AorRecord, Binding, Digits, Epoch, EpochId, GroupHealth, Level, MasterTime,
    NodeId, NodeState, NodeStatus, Owner, Position, Root, Route, TableHealth, Timestamp,
};
use serde_json::Value;

use super::{Api, Limits};
use crate::clock::Clock;
use crate::core::Input;
use crate::edge::{ApiPort, Arrival, Security};
use crate::provision::{
    AlarmView, Answer, Audited, InvalidRecord, LostView, NodeAudit, NodeRef, NodeView, Outcome,
    ProvisionChange, ProvisionContact, Request, RequestError,
};

/// No test waits longer for a socket; it fails then.
const PATIENCE: Duration = Duration::from_secs(20);
/// Service time of the fake core.
const NOW: MasterTime = MasterTime(1_000_000);

/// An API, and what its core was asked.
struct Fixture {
    api: Api,
    asked: Receiver<Request>,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::secured(Security::Insecure, limits)
    }

    fn secured(security: Security, limits: Limits) -> Self {
        let (inbox, arrivals) = bounded(64);
        let clock = Clock::start();
        let (port, replies) = ApiPort::new(inbox, clock);
        let (tell, asked) = unbounded();
        thread::spawn(move || {
            let mut core = FakeCore::default();
            for arrival in arrivals {
                let Arrival::Input(Input::Api { ticket, request }) = arrival else {
                    panic!("the API sends requests only, not {arrival:?}");
                };
                tell.send(request.clone()).ok();
                match core.answer(request) {
                    Said::Answer(answer) => replies.deliver(ticket, answer),
                    Said::Nothing => {}
                    Said::Ended => replies.close(),
                }
            }
        });
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = Api::start_with(loopback, security, port, limits).unwrap();
        Self { api, asked, clock }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn connect(&self) -> TcpStream {
        connect(self.api.address())
    }

    /// One request on a connection of its own.
    fn call(&self, method: &str, path: &str, body: Option<&str>) -> Reply {
        let body = body.map(|body| ("application/json", body));
        self.call_typed(method, path, body)
    }

    fn call_typed(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if let Some((kind, body)) = body {
            let len = body.len();
            request += &format!("Content-Type: {kind}\r\nContent-Length: {len}\r\n\r\n{body}");
        } else {
            request += "\r\n";
        }
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        Reply::read(stream)
    }

    fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None)
    }

    fn put(&self, path: &str, body: &str) -> Reply {
        self.call("PUT", path, Some(body))
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        self.call("POST", path, Some(body))
    }

    fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, None)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    /// Reads to the end of the connection.
    fn read(mut stream: impl Read) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks status and code of an error, and that it speaks; returns what it says.
    #[track_caller]
    fn refused(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!(
            (self.status, json["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        let error = json["error"].as_str().expect("an error text").to_owned();
        assert!(error.len() > 10, "{error}");
        error
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(
            self.head.contains("content-type: application/json"),
            "{self:?}"
        );
        self.json()
    }
}

enum Said {
    Answer(Answer),
    Nothing,
    Ended,
}

/// Keeps what it is given. The name of an address-of-record says how it behaves instead.
#[derive(Default)]
struct FakeCore {
    level: Level,
    aors: BTreeMap<AddressOfRecord, (Level, AorRecord)>,
    routes: BTreeMap<Digits, (Level, Route)>,
}

impl FakeCore {
    fn answer(&mut self, request: Request) -> Said {
        Said::Answer(match request {
            Request::GetAor(aor) => match aor.as_str() {
                "silent@x" => return Said::Nothing,
                "ended@x" => return Said::Ended,
                "busy@x" => Answer::Refused(RequestError::Busy),
                "confused@x" => self.position(),
                _ => Answer::Aor {
                    level: self.level,
                    now: NOW,
                    record: self.aors.get(&aor).cloned(),
                },
            },
            Request::GetRoute(prefix) => Answer::Route {
                level: self.level,
                record: self.routes.get(&prefix).cloned(),
            },
            Request::Change(changes) => self.change(changes),
            Request::Level => self.position(),
            Request::Nodes => Answer::Nodes {
                position: Position::default(),
                alarm: (self.level > Level::ZERO).then(alarm),
                nodes: nodes(),
            },
            Request::Audit { node, repair, .. } => audited(node, repair),
            Request::Reload { node } => match nodes()
                .into_iter()
                .find(|known| NodeRef::Name(known.name.clone()) == node)
            {
                None => Answer::Refused(RequestError::NoSuchNode(node)),
                Some(known) => Answer::ReloadAsked {
                    node: known.node,
                    name: known.name,
                    connected: known.connected,
                },
            },
            Request::Wait {
                level: Level(9_999),
                ..
            } => return Said::Nothing,
            Request::Wait { level, .. } => {
                let reached = level <= self.level;
                let behind = if reached { "" } else { "n2" };
                Answer::Waited {
                    level: Level(self.level.0.max(level.0.min(7))),
                    behind: behind.parse().into_iter().collect(),
                    reached,
                }
            }
        })
    }

    fn position(&self) -> Answer {
        let epoch = Epoch {
            counter: 3,
            id: EpochId([0xab; 16]),
        };
        Answer::Level {
            position: Position {
                epoch,
                level: self.level,
                root: Root([1, 2]),
            },
            time: NOW,
            records: 5,
        }
    }

    fn change(&mut self, changes: Vec<ProvisionChange>) -> Answer {
        let mut outcomes = Vec::new();
        for (index, change) in changes.into_iter().enumerate() {
            let outcome = match change {
                ProvisionChange::PutAor { aor, contacts } => {
                    if let Some(error) = refusal(&aor, index) {
                        return Answer::Refused(error);
                    }
                    let mut record = AorRecord::default();
                    contacts
                        .into_iter()
                        .for_each(|contact| record.insert(binding(contact)));
                    let before = self.aors.insert(aor, (self.level.plus(1), record));
                    put(before.is_some())
                }
                ProvisionChange::DeleteAor(aor) => deleted(self.aors.remove(&aor).is_some()),
                ProvisionChange::PutRoute { prefix, route } => {
                    let before = self.routes.insert(prefix, (self.level.plus(1), route));
                    put(before.is_some())
                }
                ProvisionChange::DeleteRoute(prefix) => {
                    deleted(self.routes.remove(&prefix).is_some())
                }
            };
            if outcome != Outcome::Absent {
                self.level = self.level.plus(1);
            }
            outcomes.push(outcome);
        }
        Answer::Changed {
            level: self.level,
            outcomes,
        }
    }
}

fn put(replaced: bool) -> Outcome {
    if replaced {
        Outcome::Replaced
    } else {
        Outcome::Created
    }
}

fn deleted(found: bool) -> Outcome {
    if found {
        Outcome::Deleted
    } else {
        Outcome::Absent
    }
}

fn refusal(aor: &AddressOfRecord, index: usize) -> Option<RequestError> {
    Some(match aor.as_str() {
        "invalid@x" => RequestError::Invalid {
            index,
            source: InvalidRecord::RegId,
        },
        "large@x" => RequestError::TooLarge { bytes_max: 1 },
        "disk@x" => RequestError::Disk("no space left on device".to_owned()),
        "full@x" => RequestError::TableFull,
        "torn@x" => RequestError::Inconsistent,
        "busy@x" => RequestError::Busy,
        _ => return None,
    })
}

fn binding(contact: ProvisionContact) -> Binding {
    let registered = contact.uri.contains("phone");
    Binding {
        q: contact.q,
        expires: contact
            .expires_s
            .map_or(MasterTime::NEVER, |s| NOW.plus_ms(u64::from(s) * 1000)),
        path: contact.path,
        received: contact.received,
        instance: contact.instance,
        reg_id: contact.reg_id,
        call_id: if registered {
            "c1".to_owned()
        } else {
            String::new()
        },
        cseq: 7,
        owner: Owner {
            node: NodeId(2),
            ..Owner::default()
        },
        ..Binding::permanent(&contact.uri)
    }
}

fn nodes() -> Vec<NodeView> {
    let fresh = NodeView {
        node: NodeId(1),
        name: "n1".parse().unwrap(),
        address: "10.77.0.11:40000".to_owned(),
        sip: "sip:10.77.0.11:5060".to_owned(),
        connected: true,
        status: None,
        behind: 12,
        sending: "snapshot",
        path: "bus-b",
        version: 1,
        connection_frame_bytes_total: 77,
        multicast_lost: None,
    };
    let status = NodeStatus {
        position: Position {
            level: Level(11),
            ..Position::default()
        },
        state: NodeState::Resync,
        lag_ms: 40,
        records: 6,
        catch_ups_total: 1,
        reloads_total: 2,
        last_sync_ms: 30,
        refused_total: 0,
        audits_total: 3,
        repaired_total: 9,
        health: TableHealth {
            table_bytes: 4 << 20,
            huge_bytes: 2 << 20,
            scrubs_total: 7,
            doubted_total: 1,
            snapshot_level: Level(10),
            snapshots_failed_total: 2,
        },
        group: GroupHealth {
            datagrams_total: 90,
            lost_total: 12,
            nacks_total: 3,
            refused_total: 1,
            frames_total: 8,
            connection_frames_total: 2,
        },
    };
    let known = NodeView {
        node: NodeId(2),
        name: "n2".parse().unwrap(),
        status: Some(status),
        behind: 1,
        path: "tcp",
        multicast_lost: Some(LostView {
            lasts: Duration::from_millis(2_500),
            reason: GroupLeftReason::Silent,
        }),
        ..fresh.clone()
    };
    vec![fresh, known]
}

fn alarm() -> AlarmView {
    AlarmView {
        level: Level(11),
        nodes: 2,
        of: 3,
        verified: true,
    }
}

/// The name of the node says what becomes of the audit.
fn audited(node: Option<NodeRef>, repair: bool) -> Answer {
    let named = |name: &str| {
        let wanted = NodeRef::Name(name.parse().unwrap());
        node.as_ref() == Some(&wanted)
    };
    if named("n9") {
        return Answer::Refused(RequestError::NoSuchNode(node.unwrap()));
    }
    if named("busy") {
        let left = Duration::from_millis(4_200);
        return Answer::Refused(RequestError::AuditUnderWay { left });
    }
    let report = AuditReport {
        ticket: 1,
        verdict: AuditVerdict::Repaired,
        level: Level(11),
        records: 6,
        partitions: 3,
        ranges: vec![(0x1a2b, 0x1a2c), (0xffff, 0xffff)],
        differing: 4,
        repaired: if repair { 4 } else { 0 },
    };
    let outcomes = [
        Audited::Reported(report),
        Audited::Busy,
        Audited::NoAnswer,
        Audited::NotConnected,
    ];
    let nodes = (1..).zip(outcomes).map(|(number, outcome)| NodeAudit {
        node: NodeId(number),
        name: format!("n{number}").parse().unwrap(),
        outcome,
    });
    Answer::Audited {
        level: Level(12),
        nodes: nodes.collect(),
    }
}

/// Returns once nobody listens on `address`. Pauses between trials: a full queue would drop one for a
/// second.
fn until_refused(address: SocketAddr) {
    let pause = || {
        crossbeam_channel::never::<()>()
            .recv_timeout(Duration::from_millis(2))
            .is_err()
    };
    let refused = (0..10_000).any(|_| TcpStream::connect(address).is_err() || !pause());
    assert!(refused, "{address} still listens");
}
