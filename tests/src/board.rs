//! A board in a chassis: mounts and processes of its own beside its network, so that it shares with other
//! boards only the folders it is given. Knows nothing of what runs on it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netns::Namespace;
use crate::process::Process;
use crate::wait;

/// Namespaces and mounts take milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Run as the first process of a board: empties each folder named behind `--` of everything but the folders
/// named before it, then says so and stays.
const INIT: &str = r#"
set -eu
ready=$1; shift
mount -t tmpfs tmpfs /mnt
count=0
for kept; do
    [ "$kept" != -- ] || break
    count=$((count + 1))
    mkdir "/mnt/$count"
    mount --rbind "$kept" "/mnt/$count"
done
emptied=
for folder; do
    if [ "$folder" = -- ]; then emptied=yes; continue; fi
    [ -z "$emptied" ] || mount -t tmpfs tmpfs "$folder"
done
count=0
for kept; do
    [ "$kept" != -- ] || break
    count=$((count + 1))
    mkdir -p "$kept"
    mount --move "/mnt/$count" "$kept"
done
umount /mnt
echo "$ready"
exec sleep infinity
"#;
/// What the first process says when the board stands.
const READY: &str = "board: ready";

/// A board. Its processes end with its last handle.
#[derive(Debug, Clone)]
pub struct Board(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    first: Option<Process>,
    pid: u32,
}

impl Board {
    /// Makes a board with the network of `namespace`. Of what lies in the folders `emptied` it sees only the
    /// folders `kept`; the rest of the file system is the machine's.
    ///
    /// # Panics
    /// When it does not come up.
    pub(crate) fn start(
        namespace: &Namespace,
        kept: &[PathBuf],
        emptied: &[PathBuf],
        logs: &Path,
    ) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--net={}", namespace.path().display()));
        command.args(["--", "unshare", "--mount", "--pid", "--fork"]);
        command.args([
            "--kill-child",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            INIT,
            "sh",
            READY,
        ]);
        command.args(kept).arg("--").args(emptied);
        let name = format!("board-{}", namespace.name());
        let mut first = Process::spawn(&name, command, logs);
        wait::until(&format!("{name} to stand"), START_DEADLINE, || {
            assert!(first.ended().is_none(), "{name} has ended");
            let log = std::fs::read_to_string(first.log()).unwrap_or_default();
            log.lines().any(|line| line == READY)
        });
        let pid = first.pid();
        Self(Arc::new(Holder {
            first: Some(first),
            pid,
        }))
    }

    /// A command that will run with the board's network and mounts; give it to [`Board::spawn`].
    pub(crate) fn command(&self, namespace: &Path, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display()));
        command.arg(format!("--mount={}", self.namespace("mnt").display()));
        command.arg("--").arg(program);
        command
    }

    /// Starts `command` among the board's processes. It ends with the board at the latest.
    pub(crate) fn spawn(&self, name: &str, command: Command, folder: &Path) -> Process {
        thread::scope(|scope| {
            let starter = scope.spawn(|| {
                // It counts for the children of this thread.
                let pids =
                    File::open(self.namespace("pid_for_children")).expect("the board stands");
                move_into_link_name_space(pids.as_fd(), Some(LinkNameSpaceType::ProcessID))
                    .expect("setns needs root");
                Process::spawn(name, command, folder)
            });
            starter
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn namespace(&self, kind: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.0.pid.to_string())
            .join("ns")
            .join(kind)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(first) = self.first.take() {
            // Its first process takes all others of the board with it.
            first.kill();
        }
    }
}
