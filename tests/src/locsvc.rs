//! One `locsvc` of the lab: its configuration, its process, its API.
//! Knows levels and nodes as the API shows them, not how they are kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::lab::{Lab, products, scenario};
use crate::netns::Namespace;
use crate::process::Process;
use crate::settings::Settings;
use crate::wait;

/// Where the API listens inside the namespace.
const API: &str = "127.0.0.1:8800";
/// Its port, also where it listens beyond loopback.
const API_PORT: u16 = 8800;
/// The port to which nodes connect.
const NODES_PORT: u16 = 5800;
/// The group of the lab in IPv4.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 77, 1);
/// The group of the lab in IPv6.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x77, 1);
/// The port of the group.
pub const GROUP_PORT: u16 = 5801;
/// A start replays the log; the lab's logs are small.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Dozens of nodes that reload on a small machine, and their next status, which comes each second.
const EQUAL_DEADLINE: Duration = Duration::from_secs(60);

/// The location service.
#[derive(Debug)]
pub struct Locsvc {
    process: Option<Process>,
    namespace: Namespace,
    program: PathBuf,
    logs: PathBuf,
    data: PathBuf,
    config: PathBuf,
    settings: Settings,
    identity: PathBuf,
    /// The operator's folder for an API beyond loopback.
    operator: Option<PathBuf>,
    api: Api,
}

impl Locsvc {
    /// Prepares the service with the settings of scenario `cluster` and an identity of the lab's authority;
    /// nothing runs yet.
    ///
    /// # Panics
    /// When the identity or a folder cannot be made.
    pub fn new(lab: &Lab) -> Self {
        let namespace = lab.host("locsvc").clone();
        let home = lab.subfolder("locsvc");
        let (data, identity) = (home.join("data"), home.join("identity"));
        let host = namespace.address().to_string();
        lab.authority().locsvc("m1", &host, &identity);
        let mut settings = Settings::read(&scenario("cluster", "locsvc.toml"));
        settings.set_path("data", &data);
        settings.set_path("identity", &identity);
        let api = Api::new(&namespace, API);
        let (logs, config) = (lab.folder().to_owned(), home.join("locsvc.toml"));
        Self {
            process: None,
            namespace,
            program: products().join("locsvc"),
            logs,
            data,
            config,
            settings,
            identity,
            operator: None,
            api,
        }
    }

    /// Lets the API listen beyond loopback from the next start on; the lab then comes as the operator whose
    /// identity folder is `operator`.
    pub fn open_api(&mut self, operator: &Path) {
        let address = SocketAddr::from((self.namespace.address(), API_PORT));
        self.settings.set_text("api.listen", &address.to_string());
        self.operator = Some(operator.to_owned());
        self.api = self.another_api();
    }

    /// Where nodes connect that are in `group`.
    pub fn listen(&self, group: IpAddr) -> SocketAddr {
        let address = match group {
            IpAddr::V4(_) => self.namespace.address().into(),
            IpAddr::V6(_) => self.namespace.address6().into(),
        };
        SocketAddr::new(address, NODES_PORT)
    }

    /// The URL of the API.
    pub fn url(&self) -> String {
        match self.operator {
            Some(_) => format!("https://{}:{API_PORT}", self.namespace.address()),
            None => format!("http://{API}"),
        }
    }

    /// Sets a group for the next start, at [`GROUP`] or [`GROUP6`], and the transport. Nodes connect by
    /// the group's kind of address.
    pub fn use_group(&mut self, group: impl Into<IpAddr>, transport: &str) {
        let group = group.into();
        self.settings
            .set_text("distribution.listen", &self.listen(group).to_string());
        let group = SocketAddr::new(group, GROUP_PORT).to_string();
        self.settings
            .set_text("distribution.multicast.group", &group);
        self.settings.set_text("distribution.transport", transport);
    }

    /// Lets the service run on a board from its next start on; see [`Lab::board`].
    pub fn move_to(&mut self, board: Namespace) {
        self.namespace = board;
    }

    /// Starts another program from now on, such as one of another version.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Its identity folder.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The settings of the next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The folder that holds log and state.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Moves the data folder of the next start.
    pub fn set_data(&mut self, data: PathBuf) {
        self.settings.set_path("data", &data);
        self.data = data;
    }

    /// The API's client.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A client of its own, for use beside the first one.
    pub fn another_api(&self) -> Api {
        match &self.operator {
            Some(operator) => Api::secure(&self.namespace, &self.url(), operator),
            None => Api::new(&self.namespace, API),
        }
    }

    /// Starts the service and waits until its API answers.
    ///
    /// # Panics
    /// When it does not, or when it runs already.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        let api = self.api.clone();
        wait::until("locsvc's API to answer", START_DEADLINE, || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "locsvc ended while starting: {ended:?}");
            level_of(&api).is_some()
        });
    }

    /// Starts the service without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "locsvc runs already");
        self.settings.write(&self.config);
        let command = self.command(&["--config".as_ref(), self.config.as_os_str()]);
        self.process = Some(self.namespace.spawn("locsvc", command, &self.logs));
    }

    /// A command line of the service with other arguments, inside its namespace.
    pub fn command(&self, arguments: &[&std::ffi::OsStr]) -> Command {
        let mut command = self.namespace.command(&self.program);
        command.args(arguments);
        command
    }

    /// The configuration file of the last start.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The running process.
    ///
    /// # Panics
    /// When the service is stopped.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("locsvc runs")
    }

    /// Stops the service in good order.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.take().expect("locsvc runs").stop()
    }

    /// Ends the service as `kill -9` does.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.take().expect("locsvc runs").kill();
    }

    /// Forgets a process that has ended by itself and returns how.
    ///
    /// # Panics
    /// When it still runs after `deadline`.
    #[track_caller]
    pub fn ended(&mut self, deadline: Duration) -> ExitStatus {
        self.process
            .take()
            .expect("locsvc was started")
            .finish(deadline)
    }

    /// The database level of the service.
    ///
    /// # Panics
    /// When the API does not answer.
    #[track_caller]
    pub fn level(&self) -> u64 {
        self.api.get("/v1/level").level()
    }

    /// What the service knows of its nodes.
    #[track_caller]
    pub fn nodes(&self) -> Vec<Value> {
        self.api.get("/v1/nodes").json()["nodes"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// What the service knows of node `name`, `Null` when it has never heard of it.
    #[track_caller]
    pub fn node(&self, name: &str) -> Value {
        let mut nodes = self.nodes().into_iter();
        nodes
            .find(|node| node["name"] == name)
            .unwrap_or(Value::Null)
    }

    /// Waits until the roster says that node `name` goes by `path`, and returns its line.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    #[track_caller]
    pub fn wait_path(&self, name: &str, path: &str, deadline: Duration) -> Value {
        wait::value(&format!("{name} to go by {path}"), deadline, || {
            let node = self.node(name);
            (node["connected"] == true && node["path"] == path).then_some(node)
        })
    }

    /// Waits until the nodes `names` are coherent at the service's level with its root, and returns the
    /// level. Nothing may change meanwhile.
    ///
    /// # Panics
    /// When it does not happen in time.
    #[track_caller]
    pub fn wait_equal(&self, names: &[&str]) -> u64 {
        let stands = |answer: &Value, name: &str| {
            let nodes = answer["nodes"].as_array().into_iter().flatten();
            nodes.into_iter().any(|node| {
                node["name"] == name
                    && node["connected"] == true
                    && node["state"] == "coherent"
                    && node["level"] == answer["level"]
                    && node["root"] == answer["root"]
            })
        };
        let what = format!(
            "{} to be coherent at locsvc's level and root",
            names.join(", ")
        );
        wait::value(&what, EQUAL_DEADLINE, || {
            let answer = self.api.get("/v1/nodes").json();
            let all = names.iter().all(|name| stands(&answer, name));
            all.then(|| answer["level"].as_u64()).flatten()
        })
    }

    /// Its log so far, of all its lives.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.logs.join("locsvc.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Provisions addresses-of-record `first..first + count`, one permanent contact each, in batches, and
    /// returns the level created. `port` is part of the contact, so that a second round changes all.
    ///
    /// # Panics
    /// When a batch is refused.
    pub fn provision(
        &self,
        first: usize,
        count: usize,
        port: u16,
        mut progress: impl FnMut(usize),
    ) -> u64 {
        let mut level = 0;
        let numbers: Vec<usize> = (first..first + count).collect();
        for chunk in numbers.chunks(1_000) {
            let changes: Vec<Value> = chunk
                .iter()
                .map(|n| {
                    serde_json::json!({
                        "op": "put_aor", "aor": provisioned_aor(*n),
                        "contacts": [{ "uri": format!("sip:p{n:05}@10.77.0.22:{port}"), "q": 1.0 }],
                    })
                })
                .collect();
            level = self
                .api
                .post("/v1/batch", &serde_json::json!({ "changes": changes }))
                .level();
            progress(chunk.len());
        }
        level
    }
}

/// The address-of-record of provisioned subscriber `n`.
pub fn provisioned_aor(n: usize) -> String {
    format!("sip:p{n:05}@{}", crate::sip::DOMAIN)
}

/// The number at `pointer` (RFC 6901) in a node's line of the roster.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn count(node: &Value, pointer: &str) -> u64 {
    let number = node.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {node}"))
}

fn level_of(api: &Api) -> Option<u64> {
    let answer = api.call(ureq::http::Method::GET, "/v1/level", b"").ok()?;
    answer.json()["level"].as_u64()
}
