//! One node of the lab: its agent and its Kamailio.
//! Knows how to start, stop and break them, not what they say to each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::Agent;
use crate::kamailio::{Kamailio, Plan};
use crate::lab::Lab;
use crate::mount::Tmpfs;
use crate::netns::Namespace;
use crate::process::Process;
use crate::settings::Settings;
use crate::sip::{PROXY_PORT, REDIRECT_PORT};
use crate::view::View;

/// A node. Its processes stop with it, Kamailio first.
#[derive(Debug)]
pub struct Node {
    kamailio: Option<Kamailio>,
    plan: Plan,
    agent: Agent,
}

impl Node {
    /// Prepares node `name` with the settings of scenario `cluster`; nothing runs yet.
    pub fn new(lab: &Lab, name: &str, credentials: &Path) -> Self {
        Self::with_table(lab, name, credentials, "huge=advise")
    }

    /// As [`Node::new`], with mount options of its own for the table's tmpfs.
    pub fn with_table(lab: &Lab, name: &str, credentials: &Path, options: &str) -> Self {
        let agent = Agent::new(lab, name, options);
        let peer = lab.host(if name == "n1" { "n2" } else { "n1" }).address();
        let plan = Plan::example(
            agent.namespace(),
            agent.table().path(),
            agent.socket(),
            credentials,
            peer,
        );
        Self {
            kamailio: None,
            plan,
            agent,
        }
    }

    /// Lets agent and Kamailio run on a board from their next start on; see [`Lab::board`].
    pub fn move_to(&mut self, board: Namespace) {
        self.agent.move_to(board);
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.agent.name()
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        self.agent.namespace()
    }

    /// The node's address.
    pub fn address(&self) -> Ipv4Addr {
        self.agent.address()
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
        self.agent.table()
    }

    /// The agent's socket for registrations.
    pub fn socket(&self) -> &Path {
        self.agent.socket()
    }

    /// The settings of the agent's next start.
    pub fn settings(&mut self) -> &mut Settings {
        self.agent.settings()
    }

    /// How Kamailio starts next.
    pub fn plan(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Sets environment variables for the next start of agent and Kamailio.
    pub fn set_environment(&mut self, environment: &[(String, String)]) {
        self.agent.set_environment(environment);
        environment.clone_into(&mut self.plan.environment);
    }

    /// Starts the agent and waits until it has made its table.
    ///
    /// # Panics
    /// When it does not, or runs already.
    #[track_caller]
    pub fn start_agent(&mut self) {
        self.agent.start();
    }

    /// Starts the agent without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    #[track_caller]
    pub fn launch_agent(&mut self) {
        self.agent.launch();
    }

    /// The running agent's process.
    ///
    /// # Panics
    /// When it is stopped.
    #[track_caller]
    pub fn agent(&mut self) -> &mut Process {
        self.agent.process()
    }

    /// Starts another agent from now on, such as one of another version.
    pub fn set_agent_program(&mut self, program: PathBuf) {
        self.agent.set_program(program);
    }

    /// Forgets an agent that has ended by itself.
    ///
    /// # Panics
    /// When it runs.
    #[track_caller]
    pub fn forget_agent(&mut self) {
        self.agent.forget();
    }

    /// The agent's log so far, of all its lives.
    pub fn agent_log(&self) -> String {
        self.agent.log()
    }

    /// Stops the agent in good order.
    #[track_caller]
    pub fn stop_agent(&mut self) {
        self.agent.stop();
    }

    /// Ends the agent as `kill -9` does.
    #[track_caller]
    pub fn kill_agent(&mut self) {
        self.agent.kill();
    }

    /// Starts Kamailio and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn start_kamailio(&mut self, lab: &Lab) {
        let name = format!("{}-kamailio", self.name());
        self.kamailio = Some(Kamailio::start(
            lab,
            &name,
            self.agent.namespace(),
            &self.plan,
        ));
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
            !self.agent.runs() && self.kamailio.is_none(),
            "nothing runs on {} during its reboot",
            self.name()
        );
        self.agent.table().renew();
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
        self.agent.view()
    }

    /// Waits until a reader of the node's table sees `level` or more.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    #[track_caller]
    pub fn wait_level(&self, level: u64, deadline: Duration) {
        self.agent.wait_level(level, deadline);
    }
}
