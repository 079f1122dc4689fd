//! One agent of the lab: its table folder on a file system of its own, its identity, its process.
//! Knows how to start, stop and read it, not what it says to locsvc.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{Lab, products, scenario};
use crate::mount::Tmpfs;
use crate::netns::Namespace;
use crate::process::Process;
use crate::settings::Settings;
use crate::view::View;
use crate::wait;

/// Opening the table and reaching locsvc.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// An agent. Its process stops with it.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    name: String,
    namespace: Namespace,
    program: PathBuf,
    settings: Settings,
    environment: Vec<(String, String)>,
    config: PathBuf,
    identity: PathBuf,
    socket: PathBuf,
    logs: PathBuf,
    table: Tmpfs,
}

impl Agent {
    /// Prepares the agent of node `name` (n1, n2, …) with the settings of scenario `cluster` and an identity
    /// of the lab's authority; nothing runs yet. `options` are those of the table's tmpfs, as in `mount -o`.
    ///
    /// # Panics
    /// When the identity or a folder cannot be made.
    pub fn new(lab: &Lab, name: &str, options: &str) -> Self {
        let namespace = lab.host(name).clone();
        let id: u16 = name
            .strip_prefix('n')
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("a node of the lab is called n1, n2, …, not {name}"));
        let home = lab.subfolder(name);
        let identity = home.join("identity");
        lab.authority().node(name, id, &identity);
        let table = Tmpfs::mount(&lab.mount_point(&format!("{name}/table")), options);
        let socket = lab.mount_point(&format!("{name}/agent.sock"));
        // The files of n1 and n2 differ in nothing but what is set here.
        let file = if name == "n2" {
            "agent-n2.toml"
        } else {
            "agent-n1.toml"
        };
        let mut settings = Settings::read(&scenario("cluster", file));
        settings.set_text("node", name);
        settings.set("node_id", &id.to_string());
        settings.set_path("identity", &identity);
        settings.set_path("folder", table.path());
        settings.set_path("socket", &socket);
        settings.set_path("snapshots", &home.join("snapshots"));
        settings.set_text("sip", &format!("sip:{}:5060", namespace.address()));
        Self {
            name: name.to_owned(),
            namespace,
            process: None,
            program: products().join("locus-agent"),
            settings,
            environment: Vec::new(),
            config: home.join("agent.toml"),
            identity,
            socket,
            logs: lab.folder().to_owned(),
            table,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Lets it run on a board from its next start on; see [`Lab::board`].
    pub fn move_to(&mut self, board: Namespace) {
        self.namespace = board;
    }

    /// The node's address.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address()
    }

    /// The file system of the table.
    pub fn table(&self) -> &Tmpfs {
        &self.table
    }

    /// Its identity folder.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// Its socket for registrations.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The settings of the next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Starts another program from now on, such as one of another version.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Sets environment variables for the next start.
    pub fn set_environment(&mut self, environment: &[(String, String)]) {
        environment.clone_into(&mut self.environment);
    }

    /// Starts it and waits until it has made its table.
    ///
    /// # Panics
    /// When it does not, or runs already.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        let what = format!("{}'s agent to open its table", self.name);
        wait::until(&what, START_DEADLINE, || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(
                ended.is_none(),
                "{}'s agent ended while starting: {ended:?}",
                self.name
            );
            View::try_open(self.table.path()).is_some()
        });
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "{}'s agent runs already", self.name);
        self.settings.write(&self.config);
        let mut command = self.namespace.command(&self.program);
        command.arg("--config").arg(&self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let name = format!("{}-agent", self.name);
        self.process = Some(self.namespace.spawn(&name, command, &self.logs));
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The running process.
    ///
    /// # Panics
    /// When it is stopped.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    /// Its log so far, of all its lives.
    pub fn log(&self) -> String {
        let path = self.logs.join(format!("{}-agent.log", self.name));
        let bytes = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.process.take().expect("the agent runs").stop();
        assert!(status.success(), "{}'s agent left with {status}", self.name);
    }

    /// Forgets one that has ended by itself, so that it can be started again.
    ///
    /// # Panics
    /// When it runs.
    #[track_caller]
    pub fn forget(&mut self) {
        let mut process = self.process.take().expect("the agent was started");
        assert!(process.ended().is_some(), "{}'s agent runs", self.name);
    }

    /// Ends it as `kill -9` does.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.take().expect("the agent runs").kill();
    }

    /// What a reader of the table sees.
    ///
    /// # Panics
    /// When there is no table.
    #[track_caller]
    pub fn view(&self) -> View {
        View::try_open(self.table.path())
            .unwrap_or_else(|| panic!("{} has no readable table", self.name))
    }

    /// Waits until a reader of the table sees `level` or more.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    #[track_caller]
    pub fn wait_level(&self, level: u64, deadline: Duration) {
        wait::until(
            &format!("{} to reach level {level}", self.name),
            deadline,
            || View::try_open(self.table.path()).is_some_and(|mut view| view.level() >= level),
        );
    }
}
