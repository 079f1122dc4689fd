//! One node of the lab: its table folder on a file system of its own, its agent, its Kamailio.
//! Knows how to start, stop and break them, not what they say to each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kamailio::{Kamailio, Plan};
use crate::lab::{Lab, products, scenario};
use crate::mount::Tmpfs;
use crate::netns::Namespace;
use crate::process::Process;
use crate::settings::Settings;
use crate::sip::{PROXY_PORT, REDIRECT_PORT};
use crate::view::View;
use crate::wait;

/// Opening the table and reaching locsvc.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A node. Its processes stop with it.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Namespace,
    kamailio: Option<Kamailio>,
    agent: Option<Process>,
    plan: Plan,
    settings: Settings,
    environment: Vec<(String, String)>,
    config: PathBuf,
    socket: PathBuf,
    logs: PathBuf,
    table: Tmpfs,
}

impl Node {
    /// Prepares node `name` with the settings of scenario `cluster`; nothing runs yet.
    pub fn new(lab: &Lab, name: &str, credentials: &Path) -> Self {
        Self::with_table(lab, name, credentials, "huge=advise")
    }

    /// As [`Node::new`], with mount options of its own for the table's tmpfs.
    pub fn with_table(lab: &Lab, name: &str, credentials: &Path, options: &str) -> Self {
        let namespace = lab.host(name).clone();
        let table = Tmpfs::mount(&lab.mount_point(&format!("{name}-table")), options);
        let socket = lab.mount_point(&format!("{name}.sock"));
        let mut settings = Settings::read(&scenario("cluster", &format!("agent-{name}.toml")));
        settings.set_path("folder", table.path());
        settings.set_path("socket", &socket);
        settings.set_path("snapshots", &lab.subfolder(name).join("snapshots"));
        let peer = lab.host(if name == "n1" { "n2" } else { "n1" }).address();
        let plan = Plan::example(&namespace, table.path(), &socket, credentials, peer);
        Self {
            name: name.to_owned(),
            namespace,
            kamailio: None,
            agent: None,
            plan,
            settings,
            environment: Vec::new(),
            config: lab.subfolder(name).join("agent.toml"),
            socket,
            logs: lab.folder().to_owned(),
            table,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's address.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address()
    }

    /// The proxy role.
    pub fn proxy(&self) -> SocketAddr {
        SocketAddr::from((self.address(), PROXY_PORT))
    }

    /// The redirect role.
    pub fn redirect(&self) -> SocketAddr {
        SocketAddr::from((self.address(), REDIRECT_PORT))
    }

    /// The file system of the table.
    pub fn table(&self) -> &Tmpfs {
        &self.table
    }

    /// The agent's socket for registrations.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The settings of the agent's next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// How Kamailio starts next.
    pub fn plan(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Sets environment variables for the next start of agent and Kamailio.
    pub fn set_environment(&mut self, environment: &[(String, String)]) {
        environment.clone_into(&mut self.environment);
        environment.clone_into(&mut self.plan.environment);
    }

    /// Starts the agent and waits until it has made its table.
    ///
    /// # Panics
    /// When it does not, or runs already.
    #[track_caller]
    pub fn start_agent(&mut self) {
        self.launch_agent();
        let what = format!("{}'s agent to open its table", self.name);
        wait::until(&what, START_DEADLINE, || {
            let ended = self.agent.as_mut().and_then(Process::ended);
            assert!(
                ended.is_none(),
                "{}'s agent ended while starting: {ended:?}",
                self.name
            );
            View::try_open(self.table.path()).is_some()
        });
    }

    /// Starts the agent without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    #[track_caller]
    pub fn launch_agent(&mut self) {
        assert!(self.agent.is_none(), "{}'s agent runs already", self.name);
        self.settings.write(&self.config);
        let mut command = self.namespace.command(products().join("locus-agent"));
        command.arg("--config").arg(&self.config);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.agent = Some(Process::spawn(
            &format!("{}-agent", self.name),
            command,
            &self.logs,
        ));
    }

    /// The running agent.
    ///
    /// # Panics
    /// When it is stopped.
    #[track_caller]
    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("the agent runs")
    }

    /// Stops the agent in good order.
    #[track_caller]
    pub fn stop_agent(&mut self) {
        let status = self.agent.take().expect("the agent runs").stop();
        assert!(status.success(), "{}'s agent left with {status}", self.name);
    }

    /// Ends the agent as `kill -9` does.
    #[track_caller]
    pub fn kill_agent(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// Starts Kamailio and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start_kamailio(&mut self, lab: &Lab) {
        let name = format!("{}-kamailio", self.name);
        self.kamailio = Some(Kamailio::start(lab, &name, &self.namespace, &self.plan));
    }

    /// The running Kamailio.
    ///
    /// # Panics
    /// When it is stopped.
    #[track_caller]
    pub fn kamailio(&mut self) -> &mut Kamailio {
        self.kamailio.as_mut().expect("Kamailio runs")
    }

    /// Kamailio's control socket, for `kamcmd`.
    ///
    /// # Panics
    /// When Kamailio is stopped.
    pub fn control(&self) -> PathBuf {
        self.kamailio.as_ref().expect("Kamailio runs").control()
    }

    /// Loses what lies in memory, as a reboot does; agent and Kamailio are stopped before.
    ///
    /// # Panics
    /// When one of them runs.
    #[track_caller]
    pub fn lose_memory(&self) {
        assert!(
            self.agent.is_none() && self.kamailio.is_none(),
            "nothing runs on {} during its reboot",
            self.name
        );
        self.table.renew();
    }

    /// Stops Kamailio in good order.
    #[track_caller]
    pub fn stop_kamailio(&mut self) {
        self.kamailio.take().expect("Kamailio runs").stop();
    }

    /// What a reader of the node's table sees.
    ///
    /// # Panics
    /// When there is no table.
    #[track_caller]
    pub fn view(&self) -> View {
        View::try_open(self.table.path())
            .unwrap_or_else(|| panic!("{} has no readable table", self.name))
    }

    /// Waits until a reader of the node's table sees `level` or more.
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
