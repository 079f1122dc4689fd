//! One `locsvc` of the lab: its configuration, its process, its API.
//! Knows levels and nodes as the API shows them, not how they are kept.

use std::path::PathBuf;
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
/// A start replays the log; the lab's logs are small.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// The location service.
#[derive(Debug)]
pub struct Locsvc {
    namespace: Namespace,
    logs: PathBuf,
    data: PathBuf,
    config: PathBuf,
    settings: Settings,
    api: Api,
    process: Option<Process>,
}

impl Locsvc {
    /// Prepares the service with the settings of scenario `cluster`; nothing runs yet.
    pub fn new(lab: &Lab) -> Self {
        let namespace = lab.host("locsvc").clone();
        let home = lab.subfolder("locsvc");
        let data = home.join("data");
        let mut settings = Settings::read(&scenario("cluster", "locsvc.toml"));
        settings.set_path("data", &data);
        let api = Api::new(&namespace, API);
        let (logs, config) = (lab.folder().to_owned(), home.join("locsvc.toml"));
        Self {
            namespace,
            logs,
            data,
            config,
            settings,
            api,
            process: None,
        }
    }

    /// The settings of the next start.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The folder that holds log and state.
    pub fn data(&self) -> &std::path::Path {
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
        Api::new(&self.namespace, API)
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
        self.process = Some(Process::spawn("locsvc", command, &self.logs));
    }

    /// A command line of the service with other arguments, inside its namespace.
    pub fn command(&self, arguments: &[&std::ffi::OsStr]) -> Command {
        let mut command = self.namespace.command(products().join("locsvc"));
        command.args(arguments);
        command
    }

    /// The configuration file of the last start.
    pub fn config(&self) -> &std::path::Path {
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

fn level_of(api: &Api) -> Option<u64> {
    let answer = api.call(ureq::http::Method::GET, "/v1/level", b"").ok()?;
    answer.json()["level"].as_u64()
}
