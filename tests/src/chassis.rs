//! A chassis of boards that share no network with the location service, only buses A and B: Unix sockets in a
//! folder that every board sees, each wired through to locsvc's own and cut as one pulls a card.
//! Knows no byte that travels on them.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::wait;

/// How often a bus looks whether somebody connects.
const LOOK: Duration = Duration::from_millis(5);

/// The two buses of a chassis.
#[derive(Debug)]
pub struct Chassis {
    /// Bus A, which boards prefer.
    pub a: Bus,
    /// Bus B.
    pub b: Bus,
}

impl Cluster {
    /// Makes a board of each node and of the location service, takes the latter's cable away, and gives the
    /// nodes no way to it but buses A and B. Before anything runs.
    ///
    /// # Panics
    /// When a board or a bus does not come up.
    pub fn move_to_chassis(&mut self) -> Chassis {
        let buses = self.lab.mount_point("bus");
        fs::create_dir_all(&buses).expect("/run can be written by root");
        let credentials = self.lab.subfolder("credentials");
        let shared = [buses.clone(), credentials];
        let chassis = Chassis {
            a: Bus::plug(&buses, "a"),
            b: Bus::plug(&buses, "b"),
        };
        let list = |first: &Path, second: &Path| format!("[{first:?}, {second:?}]");
        let settings = self.locsvc.settings();
        settings.set_text("distribution.listen", "127.0.0.1:5800");
        settings.set("distribution.bus", &list(&chassis.a.far, &chassis.b.far));
        self.lab.network().cut("locsvc");
        let board = self.lab.board("locsvc", &shared[..1]);
        self.locsvc.move_to(board);
        for node in [&mut self.n1, &mut self.n2] {
            let board = self.lab.board(node.name(), &shared);
            node.move_to(board);
            node.settings().set("locsvc", "[]");
            node.settings()
                .set("bus", &list(&chassis.a.near, &chassis.b.near));
            node.settings().set_text("transport", "bus");
        }
        chassis
    }
}

/// One bus. Dropping it cuts it.
#[derive(Debug)]
pub struct Bus {
    /// The socket that boards connect to.
    near: PathBuf,
    /// The socket that locsvc listens on.
    far: PathBuf,
    wire: Option<Wire>,
}

#[derive(Debug)]
struct Wire {
    stop: Arc<AtomicBool>,
    worker: JoinHandle<()>,
}

impl Bus {
    fn plug(folder: &Path, side: &str) -> Self {
        let mut bus = Self {
            near: folder.join(format!("{side}.sock")),
            far: folder.join(format!("locsvc-{side}.sock")),
            wire: None,
        };
        bus.heal();
        bus
    }

    /// The socket that boards connect to.
    pub fn path(&self) -> &Path {
        &self.near
    }

    /// Cuts the bus: its connections end, nobody can connect.
    pub fn cut(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.stop.store(true, Ordering::Relaxed);
            // A bus that panicked has said so on stderr; the test fails by what it misses.
            wire.worker.join().ok();
        }
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// When its socket cannot be made.
    pub fn heal(&mut self) {
        if self.wire.is_some() {
            return;
        }
        let listener = UnixListener::bind(&self.near).expect("the bus's socket can be made");
        listener
            .set_nonblocking(true)
            .expect("a socket takes flags");
        let stop = Arc::<AtomicBool>::default();
        let (flag, near, far) = (Arc::clone(&stop), self.near.clone(), self.far.clone());
        let worker = thread::spawn(move || {
            let open: Mutex<Vec<UnixStream>> = Mutex::default();
            thread::scope(|scope| {
                while !flag.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        wait::pause(LOOK);
                        continue;
                    };
                    // Without locsvc at the other end the connection ends at once.
                    let Ok(onward) = UnixStream::connect(&far) else {
                        continue;
                    };
                    for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                            continue;
                        };
                        scope.spawn(move || carry(from, to));
                    }
                    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                    open.extend([stream, onward]);
                }
                fs::remove_file(&near).expect("the bus's socket can be removed");
                for stream in open.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    // One that has ended already needs no end.
                    stream.shutdown(Shutdown::Both).ok();
                }
            });
        });
        self.wire = Some(Wire { stop, worker });
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Carries bytes one way until either end is gone, then ends both.
fn carry(mut from: UnixStream, mut to: UnixStream) {
    from.set_nonblocking(false).ok();
    // However it ends, the other end learns of it.
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}
