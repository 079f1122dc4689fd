//! Network namespaces `lo-<pid>-<host>` behind one bridge, built in one batch and removed on drop.
//! Knows nothing of what runs inside them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::board::Board;
use crate::process::Process;

const PREFIX: &str = "lo-";

/// One host of the lab: a network namespace with `lo` and, towards the bridge, `e0`.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    last: u8,
    board: Option<Board>,
}

impl Namespace {
    /// The namespace's name as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on the lab's network.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.last)
    }

    /// The host's other address on the lab's network.
    pub fn address6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.last.into())
    }

    /// The same host as a board: what it starts from now on has mounts and processes of its own.
    pub(crate) fn with_board(&self, board: Board) -> Self {
        Self {
            board: Some(board),
            ..self.clone()
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Makes this thread a member of the namespace; sockets it opens from now on belong to it.
    pub fn enter(&self) {
        let handle = File::open(self.path()).expect("the namespace exists");
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("setns needs root");
    }

    /// Runs `work` on a thread inside the namespace. Sockets opened there stay bound to it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                work()
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside the namespace, keeps its pid through the wrappers, and is asked
    /// to stop when the lab's process dies without cleaning up.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        if let Some(board) = &self.board {
            return board.command(&self.path(), program.as_ref());
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "nsenter"]);
        command.arg(format!("--net={}", self.path().display()));
        command.arg("--").arg(program.as_ref());
        command
    }

    /// Runs lines of `ip` in the namespace.
    ///
    /// # Panics
    /// When one is refused.
    pub fn ip(&self, lines: &str) {
        batch(Some(&self.name), lines);
    }

    /// Starts a command of [`Namespace::command`] as process `name`, whose log lies in `folder`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(&self, name: &str, command: Command, folder: &Path) -> Process {
        match &self.board {
            Some(board) => board.spawn(name, command, folder),
            None => Process::spawn(name, command, folder),
        }
    }
}

/// All hosts of one lab and the bridge between them. Dropping it removes them.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    hosts: Vec<(String, Namespace)>,
}

impl Network {
    /// Builds `hosts` (name, last byte of 10.77.0.x), one batch for each namespace. The bridge brings
    /// every multicast datagram to every host.
    pub fn build(hosts: &[(String, u8)]) -> Self {
        let own = format!("{PREFIX}{}-", std::process::id());
        let network = Self {
            bridge: format!("{own}bridge"),
            hosts: hosts
                .iter()
                .map(|(host, last)| {
                    (
                        host.clone(),
                        Namespace {
                            name: format!("{own}{host}"),
                            last: *last,
                            board: None,
                        },
                    )
                })
                .collect(),
        };
        let mut add = format!("netns add {}\n", network.bridge);
        let mut wire = String::from(
            "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n",
        );
        for (host, namespace) in &network.hosts {
            add += &format!("netns add {}\n", namespace.name);
            wire += &format!(
                "link add p-{host} type veth peer name e0 netns {}\n",
                namespace.name
            );
            wire += &format!("link set p-{host} master br0 up\n");
        }
        batch(None, &add);
        batch(Some(&network.bridge), &wire);
        for (_, namespace) in &network.hosts {
            // Without `nodad` the IPv6 address could not be used for two seconds.
            let up = format!(
                "link set lo up\naddr add {}/24 dev e0\naddr add {}/64 dev e0 nodad\nlink set e0 up\n",
                namespace.address(),
                namespace.address6()
            );
            batch(Some(&namespace.name), &up);
        }
        network
    }

    /// The namespace of `host`.
    ///
    /// # Panics
    /// When the plan has no such host.
    pub fn host(&self, host: &str) -> &Namespace {
        let found = self.hosts.iter().find(|(name, _)| name == host);
        &found
            .unwrap_or_else(|| panic!("the lab has no host {host}"))
            .1
    }

    /// Cuts the cable of `host`: packets vanish, connections stay open.
    pub fn cut(&self, host: &str) {
        batch(Some(&self.bridge), &format!("link set p-{host} nomaster\n"));
    }

    /// Makes the bridge a switch as it is met in the field: it snoops, and its querier asks so seldom that
    /// it forgets every member 4 s after a query.
    pub fn forget_members(&self) {
        let settings = "mcast_snooping 1 mcast_querier 1 mcast_membership_interval 400 \
                        mcast_query_interval 100000 mcast_query_response_interval 100 \
                        mcast_startup_query_count 2 mcast_startup_query_interval 100";
        batch(
            Some(&self.bridge),
            &format!("addr add 10.77.0.1/24 dev br0\nlink set br0 type bridge {settings}\n"),
        );
    }

    /// Plugs the cable of `host` in again.
    pub fn heal(&self, host: &str) {
        batch(
            Some(&self.bridge),
            &format!("link set p-{host} master br0\n"),
        );
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let names = self
            .hosts
            .iter()
            .map(|(_, namespace)| namespace.name.as_str());
        remove(names.chain([self.bridge.as_str()]));
    }
}

/// Runs lines of `ip` in one process, inside namespace `inside` or outside all.
///
/// # Panics
/// When a line is refused.
fn batch(inside: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(name) = inside {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2 is installed");
    let mut input = child.stdin.take().expect("stdin is piped");
    input
        .write_all(lines.as_bytes())
        .expect("ip reads its batch");
    drop(input);
    let status = child.wait().expect("ip can be waited for");
    assert!(status.success(), "ip refused a line of:\n{lines}");
}

fn remove<'a>(names: impl Iterator<Item = &'a str>) {
    for name in names {
        let status = Command::new("ip").args(["netns", "del", name]).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("lab: could not remove namespace {name}");
        }
    }
}

/// Removes what labs of dead processes left behind: their processes first, then their namespaces.
/// Ours are told apart by name, and a namespace belongs to a dead lab iff its pid is gone.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let dead: BTreeSet<String> = names.filter(|name| owner_is_dead(name)).collect();
    for name in &dead {
        let output = Command::new("ip").args(["netns", "pids", name]).output();
        let pids = output.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        for pid in pids
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.trim().parse().ok())
        {
            if let Some(pid) = Pid::from_raw(pid) {
                // It may have ended by itself meanwhile.
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
    }
    remove(dead.iter().map(String::as_str));
}

fn owner_is_dead(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(pid, _)| pid.parse::<u32>().ok())
        .is_some_and(|pid| !process_lives(pid))
}

/// Whether a process with this id exists.
pub(crate) fn process_lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
