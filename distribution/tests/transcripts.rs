//! The protocol as stories: each file in `tests/transcripts` reads aloud; `REWRITE=1` writes what happens.
//!
//! Nothing is delayed: after each command all that follows from it at that moment is told, in order.
//! Heartbeats and reports, which come all the time, are left out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use datadriven::TestCase;
use locus_distribution::{Failure, NodeIdentity, Path};
use locus_proto::{AddressOfRecord, EpochId, Key, NodeId, Transport, v1::AuditOrder};

use crate::audits::same;
use crate::model::Op;
use crate::table::Fault;
use crate::world::{Mischief, World};

/// Most changes in one frame of `fill`.
const FILL_FRAME: usize = 1000;

#[test]
fn transcripts() {
    datadriven::walk("tests/transcripts", |file| {
        let mut story = Story::new();
        file.run(|case| story.tell(case));
    });
}

struct Story {
    world: World,
    starts: HashMap<String, u8>,
}

impl Story {
    fn new() -> Self {
        let mut world = World::new(1);
        world.trace = Some(Vec::new());
        Self {
            world,
            starts: HashMap::new(),
        }
    }

    fn tell(&mut self, case: &TestCase) -> String {
        let mut said = self.command(case);
        self.world.advance(Duration::ZERO);
        for line in self
            .world
            .trace
            .iter_mut()
            .flat_map(|trace| trace.drain(..))
        {
            said.push_str(&line);
            said.push('\n');
        }
        if case.args.contains_key("brief") {
            said = brief(&said);
        }
        if said.is_empty() {
            said.push_str("(nothing)\n");
        }
        said
    }

    fn command(&mut self, case: &TestCase) -> String {
        let arg = |name: &str| case.args.get(name).map(|values| values.join(" "));
        let number = |name: &str| arg(name).map(|text| text.parse::<u64>().unwrap());
        let usize_of = |name: &str| number(name).map(|n| usize::try_from(n).unwrap());
        let mut said = String::new();
        match case.directive.as_str() {
            // A service on a fresh disk, on its old disk, or on a copy of another one's disk.
            "master" => {
                let name = arg("name").unwrap();
                let master = match self.world.masters.iter().position(|m| m.name == name) {
                    Some(master) => master,
                    None => {
                        let source = arg("disk-of").map(|name| self.master(&name));
                        let log = source.map(|m| self.world.masters[m].log.clone());
                        let time = source.map(|m| self.world.masters[m].time);
                        let new = self.world.add_master(&name, log.unwrap_or_default());
                        self.world.masters[new].part_records = 2;
                        if let Some(time) = time {
                            self.world.masters[new].time = time;
                        }
                        new
                    }
                };
                let m = &mut self.world.masters[master];
                m.reload_above = number("reload-above").or(m.reload_above);
                m.window_bytes = usize_of("window").unwrap_or(m.window_bytes);
                m.part_records = usize_of("part").unwrap_or(m.part_records);
                m.group |= case.args.contains_key("group");
                m.transport = arg("transport").map_or(m.transport, |word| transport(&word));
                let id = self.epoch_id(&name);
                self.world.start_master_as(master, id);
                let head = self.world.masters[master].log.head();
                writeln!(
                    said,
                    "{name} begins epoch {} at level {}",
                    head.epoch, head.level
                )
                .unwrap();
            }
            // A new epoch while it runs.
            "epoch" => {
                let name = arg("on").unwrap();
                let master = self.master(&name);
                let id = self.epoch_id(&name);
                self.world.begin_epoch(master, id);
                let head = self.world.masters[master].log.head();
                writeln!(said, "{head}").unwrap();
            }
            "stop" => {
                let master = self.master(&arg("master").unwrap());
                self.world.stop_master(master);
                if let Some(frames) = usize_of("lose") {
                    self.world.masters[master].log.lose_tail(frames);
                    let level = self.world.masters[master].log.head().level;
                    writeln!(said, "its disk ends at level {level}").unwrap();
                }
            }
            // One batch: `put alice 1` or `delete alice` a line.
            "write" => {
                let master = self.master(&arg("on").unwrap());
                self.world.commit(master, &ops(&case.input));
                let level = self.world.masters[master].log.head().level;
                writeln!(said, "level {level}").unwrap();
            }
            "fill" => {
                let master = self.master(&arg("on").unwrap());
                let count = usize_of("changes").unwrap();
                let keys = usize_of("keys").unwrap_or(FILL_FRAME);
                let frame = usize_of("frame").unwrap_or(FILL_FRAME).min(keys);
                let bytes = usize_of("bytes").unwrap_or(10);
                let names: Vec<usize> = (0..count).map(|n| n % keys).collect();
                for batch in names.chunks(frame) {
                    let put = |n: &usize| Op::Put(key(&format!("user{n}")), vec![7; bytes]);
                    let ops: Vec<Op> = batch.iter().map(put).collect();
                    self.world.commit(master, &ops);
                }
                let level = self.world.masters[master].log.head().level;
                writeln!(said, "level {level}").unwrap();
            }
            "during-snapshot" => {
                let master = self.master(&arg("on").unwrap());
                let after = usize_of("after-parts").unwrap();
                let writes = (after, ops(&case.input));
                self.world.masters[master].during_snapshot.push_back(writes);
            }
            "clock" => {
                let master = self.master(&arg("of").unwrap());
                self.world.advance(Duration::ZERO);
                self.world.masters[master].clock_runs = case.args.contains_key("runs");
            }
            "node" => {
                let name = arg("name").unwrap();
                let dials = self.master(&arg("dials").unwrap());
                let node = match self.world.nodes.iter().position(|n| n.name == name) {
                    Some(node) => node,
                    None => self.world.add_node(&name, dials),
                };
                if let Some(same) = arg("number-of") {
                    let same = self.node(&same);
                    self.world.nodes[node].id = self.world.nodes[same].id;
                }
                if let Some(cluster) = arg("cluster") {
                    self.world.nodes[node].cluster = cluster;
                }
                self.world.nodes[node].dials = dials;
                let n = &mut self.world.nodes[node];
                n.takes = usize_of("takes");
                n.transport = arg("transport").map_or(n.transport, |word| transport(&word));
                n.cannot_join |= case.args.contains_key("cannot-join");
                n.identity = arg("certificate")
                    .map(|words| certificate(&words))
                    .or_else(|| n.identity.take());
                if case.args.contains_key("fails-to-load") {
                    self.world.nodes[node].load_fails = Some(Failure::Full);
                }
                self.world.start_node(node);
            }
            "dial" => {
                let node = self.node(&arg("node").unwrap());
                self.world.nodes[node].dials = self.master(&arg("to").unwrap());
            }
            "kill" => {
                let node = self.node(&arg("node").unwrap());
                self.world
                    .kill_node(node, case.args.contains_key("silently"));
            }
            "cut" => self.world.cut(self.node(&arg("node").unwrap())),
            "hold" => self.world.hold(self.node(&arg("node").unwrap()), true),
            "release" => self.world.hold(self.node(&arg("node").unwrap()), false),
            // The network brings it no datagram of the group any more, or brings them again.
            "deafen" => {
                let node = self.node(&arg("node").unwrap());
                self.world.nodes[node].deaf = true;
            }
            "hear" => {
                let node = self.node(&arg("node").unwrap());
                self.world.nodes[node].deaf = false;
            }
            // Its process stands still, or runs again.
            "freeze" => self.world.stop(self.node(&arg("node").unwrap()), true),
            "thaw" => self.world.stop(self.node(&arg("node").unwrap()), false),
            "loss" => self.world.loss_percent = usize_of("percent").unwrap(),
            "revoke" => {
                let master = self.master(&arg("on").unwrap());
                let id = self.world.nodes[self.node(&arg("node").unwrap())].id;
                self.world.revoke(master, id);
            }
            "mischief" => {
                let node = self.node(&arg("node").unwrap());
                let what = match arg("next").unwrap().as_str() {
                    "drop-frame" => Mischief::DropFrame,
                    "tamper-frame" => Mischief::TamperFrame,
                    "tamper-heartbeat" => Mischief::TamperHeartbeat,
                    other => panic!("mischief {other}"),
                };
                self.world.mischief.entry(node).or_default().push_back(what);
            }
            // A table that changes by itself: a bug, or memory that fails.
            "rot" => {
                let fault = match arg("fault").unwrap().as_str() {
                    "value" => Fault::Rot,
                    "loss" => Fault::Loss,
                    "sum" => Fault::Sum,
                    "sums" => Fault::Sums(3_277),
                    "content" => Fault::Content,
                    other => panic!("fault {other}"),
                };
                match arg("node") {
                    Some(node) => self.world.fail(self.node(&node), fault),
                    None => {
                        let master = self.master(&arg("of").unwrap());
                        self.world.fail_master(master, fault);
                    }
                }
            }
            "scrub" => {
                let node = self.node(&arg("node").unwrap());
                self.world.scrub(node);
            }
            "order-audit" => {
                let master = self.master(&arg("on").unwrap());
                let node = self.node(&arg("node").unwrap());
                let order = AuditOrder {
                    ticket: 1,
                    repair: case.args.contains_key("repair"),
                };
                if let Some(error) = self.world.order_audit(master, node, order) {
                    writeln!(said, "{error}").unwrap();
                }
            }
            "ask-reload" => {
                let master = self.master(&arg("on").unwrap());
                let id = self.world.nodes[self.node(&arg("node").unwrap())].id;
                said = match self.world.ask_reload(master, id) {
                    true => said,
                    false => "there is no such node\n".into(),
                };
            }
            "advance" => {
                let ms = number("ms").unwrap_or(0) + 1000 * number("s").unwrap_or(0);
                self.world.advance(Duration::from_millis(ms));
            }
            "show" => said = self.show(self.node(&arg("node").unwrap())),
            "roster" => said = self.roster(self.master(&arg("of").unwrap())),
            "same" => {
                let node = &self.world.nodes[self.node(&arg("node").unwrap())];
                let master = &self.world.masters[self.master(&arg("as").unwrap())];
                let same = same(node.table.as_ref(), &master.log.table);
                writeln!(said, "{}", if same { "yes" } else { "no" }).unwrap();
            }
            other => panic!("no command {other}"),
        }
        said
    }

    /// What the workers of a node see, and how long ago the table was certainly complete.
    fn show(&self, node: usize) -> String {
        let n = &self.world.nodes[node];
        let Some(receiver) = &n.receiver else {
            return format!("{} is not running\n", n.name);
        };
        let pulse = receiver.pulse(self.world.now);
        let at = receiver
            .position()
            .map_or_else(|| "no level".into(), |p| p.to_string());
        let time = pulse
            .master_time
            .map_or_else(|| "unknown".into(), |t| t.to_string());
        format!(
            "{}: {} at {at}; service time {time}, complete until {}, the master is at level {}\n",
            n.name, pulse.state, pulse.complete_until, pulse.master_level
        )
    }

    fn roster(&self, master: usize) -> String {
        let Some(sender) = &self.world.masters[master].sender else {
            return "not running\n".into();
        };
        let mut said = String::new();
        for entry in sender.roster() {
            let connected = if entry.connected { "connected" } else { "away" };
            let behind = entry.levels_behind.map(|n| format!("{n} levels behind"));
            let state = entry.status.as_ref().map(|s| s.state.to_string());
            let seconds = Duration::from_nanos(entry.heard_at.0).as_secs_f64();
            writeln!(
                said,
                "{} {}: {connected}, {}{}, says {}, {}, heard at {seconds:.1} s",
                entry.node,
                entry.name,
                entry.sending.as_str(),
                if entry.path == Path::Multicast {
                    " by the group"
                } else {
                    ""
                },
                state.unwrap_or_else(|| "nothing".into()),
                behind.unwrap_or_else(|| "level unknown".into()),
            )
            .unwrap();
        }
        said
    }

    /// The second epoch of master `a` is `a2`, and so on.
    fn epoch_id(&mut self, master: &str) -> EpochId {
        let starts = self.starts.entry(master.into()).or_default();
        *starts += 1;
        let digit = master.as_bytes()[0] - b'a' + 10;
        EpochId([digit * 16 + *starts; 16])
    }

    fn master(&self, name: &str) -> usize {
        let known = |m: &crate::machines::Master| m.name == name;
        self.world.masters.iter().position(known).unwrap()
    }

    fn node(&self, name: &str) -> usize {
        let known = |n: &crate::machines::Node| n.name == name;
        self.world.nodes.iter().position(known).unwrap()
    }
}

fn transport(word: &str) -> Transport {
    serde_json::from_value(word.into()).unwrap()
}

/// Reads cluster, number and name.
fn certificate(words: &str) -> NodeIdentity {
    let [cluster, node, name] = words.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no certificate: {words}");
    };
    NodeIdentity {
        cluster: cluster.parse().unwrap(),
        node: NodeId(node.parse().unwrap()),
        name: name.parse().unwrap(),
    }
}

/// Returns only the first and last of many lines.
fn brief(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    match lines.len() {
        0..16 => said.into(),
        len => {
            let [first, last] = [&lines[..6], &lines[len - 8..]].map(|lines| lines.join("\n"));
            format!("{first}\n… {} lines …\n{last}\n", len - 14)
        }
    }
}

fn ops(lines: &str) -> Vec<Op> {
    let op = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["put", name, value] => Op::Put(key(name), value.as_bytes().to_vec()),
        ["delete", name] => Op::Delete(key(name)),
        _ => panic!("not a write: {line}"),
    };
    lines.lines().map(op).collect()
}

fn key(name: &str) -> Key {
    Key::aor(&AddressOfRecord::parse(name).unwrap())
}
