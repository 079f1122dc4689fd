//! One Kamailio of the lab: the distribution's binary, the module's own example configuration.
//! Knows its command line and its control socket, no SIP.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::lab::{Lab, products, root, scenario};
use crate::netns::Namespace;
use crate::process::Process;
use crate::sip::{PROXY_PORT, Phone};
use crate::wait;

/// Where the distribution keeps its modules.
const MODULES: &str = "/usr/lib/x86_64-linux-gnu/kamailio/modules";
/// SIP workers for each socket: as many as the machines have on which the lab must run.
const WORKERS: usize = 2;
/// Loading modules and forking takes about a second on a busy small machine.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How a Kamailio is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The configuration file.
    pub config: PathBuf,
    /// Folder in which each Kamailio makes one for its sockets.
    pub folder: PathBuf,
    /// Folder that holds `locus.so`.
    pub module: PathBuf,
    /// `-A` definitions.
    pub defines: Vec<String>,
    /// Shared memory in MiB (`-m`); Kamailio's own default when absent.
    pub memory_mib: Option<u32>,
    /// Environment, such as a shifted clock.
    pub environment: Vec<(String, String)>,
}

impl Plan {
    /// The example configuration for `node`, whose agent serves `table` and `socket`, with the
    /// subscribers of the db_text database in `credentials` and one other node.
    pub fn example(
        node: &Namespace,
        table: &Path,
        socket: &Path,
        credentials: &Path,
        peer: Ipv4Addr,
    ) -> Self {
        let text = |name: &str, value: &str| format!("{name}=\"{value}\"");
        let defines = vec![
            text("NODE_ADDRESS", &node.address().to_string()),
            text("DOMAIN", crate::sip::DOMAIN),
            // The nodes and the caller's host; a phone on the callee's host is a stranger.
            text("TRUSTED", "10.77.0.8/29,10.77.0.21/32"),
            text("TABLE_FOLDER", &table.display().to_string()),
            text("AGENT_SOCKET", &socket.display().to_string()),
            text("PEER", &format!("sip:{peer}:{PROXY_PORT}")),
            text(
                "EMERGENCY_FILE",
                &scenario("cluster", "emergency").display().to_string(),
            ),
            text("DB_URL", &format!("text://{}", credentials.display())),
            format!("WORKERS={WORKERS}"),
        ];
        Self {
            config: root().join("kamailio-module/doc/kamailio.cfg"),
            folder: socket
                .parent()
                .expect("the agent's socket lies in a folder")
                .to_owned(),
            module: products(),
            defines,
            memory_mib: None,
            environment: Vec::new(),
        }
    }
}

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
    folder: PathBuf,
    namespace: Namespace,
}

impl Kamailio {
    /// Starts Kamailio as `name` in `namespace` and waits until its proxy port answers.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(lab: &Lab, name: &str, namespace: &Namespace, plan: &Plan) -> Self {
        let mut kamailio = Self::launch(lab, name, namespace, plan);
        let mut phone = Phone::new(lab.host("caller"), "lab");
        let address = namespace.address();
        wait::until(&format!("{name} to answer OPTIONS"), START_DEADLINE, || {
            let ended = kamailio.process.ended();
            assert!(ended.is_none(), "{name} ended while starting: {ended:?}");
            phone.answers(address, PROXY_PORT)
        });
        kamailio
    }

    /// Starts Kamailio without waiting for anything.
    pub fn launch(lab: &Lab, name: &str, namespace: &Namespace, plan: &Plan) -> Self {
        let folder = plan.folder.join(name);
        std::fs::create_dir_all(&folder).expect("/run can be written by root");
        let mut command = namespace.command("kamailio");
        command.args(["-DD", "-E", "-f"]).arg(&plan.config);
        command
            .arg("-L")
            .arg(format!("{}:{MODULES}", plan.module.display()));
        command.arg("-Y").arg(&folder).arg("-w").arg(&folder);
        command
            .arg("-A")
            .arg(format!("RUN_DIR={}", folder.display()));
        if let Some(memory) = plan.memory_mib {
            command.args(["-m", &memory.to_string()]);
        }
        for define in &plan.defines {
            command.args(["-A", define]);
        }
        command.envs(plan.environment.iter().map(|(name, value)| (name, value)));
        let process = namespace.spawn(name, command, lab.folder());
        Self {
            process,
            folder,
            namespace: namespace.clone(),
        }
    }

    /// The address of the node.
    pub fn address(&self) -> Ipv4Addr {
        self.namespace.address()
    }

    /// The main process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Pids of the workers that receive UDP, in Kamailio's order.
    pub fn udp_workers(&self) -> Vec<u32> {
        let text = self.rpc(&["core.psx"]).unwrap_or_default();
        let mut pid: Option<u32> = None;
        let mut workers = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(value) = line.strip_prefix("PID: ") {
                pid = value.parse().ok();
            } else if line.starts_with("DSC: udp receiver") {
                workers.extend(pid);
            }
        }
        workers
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.folder.join("kamailio_ctl")
    }

    /// Calls an RPC through `kamcmd`.
    ///
    /// # Errors
    /// With what `kamcmd` printed when the call failed.
    pub fn rpc(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("kamcmd");
        command
            .arg("-s")
            .arg(format!("unix:{}", self.control().display()));
        let output = command
            .args(words)
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = !output.status.success() || text.starts_with("error:");
        if failed {
            return Err(text + &String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Stops Kamailio in good order.
    pub fn stop(self) -> ExitStatus {
        let status = self.process.stop();
        // Only its control socket is in there; a leftover is swept with the lab.
        std::fs::remove_dir_all(&self.folder).ok();
        status
    }
}
