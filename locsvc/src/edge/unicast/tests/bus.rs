//! The bus: socket files, their modes, what is in their place, and what is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use locus_distribution::BusSide;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("locsvc-bus-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn sockets(&self) -> [PathBuf; 2] {
        ["a.sock", "b.sock"].map(|name| self.0.join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn start(bus: &[PathBuf]) -> Result<Unicast, StartUnicastError> {
    let (inbox, _) = bounded(64);
    Unicast::start(&config(bus), Security::Insecure, inbox, Clock::start())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nodes_come_over_both_buses_and_the_sockets_go_at_the_end() {
    let scratch = Scratch::new("both");
    let sockets = scratch.sockets();
    let bench = Bench::with(&config(&sockets), Security::Insecure);
    for (path, side, name) in [
        (&sockets[0], BusSide::A, "bus-a"),
        (&sockets[1], BusSide::B, "bus-b"),
    ] {
        assert_eq!(mode(path), 0o660);
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (peer, arrived) = bench.connected();
        let medium = Medium::Bus(side);
        assert_eq!((arrived.medium, arrived.address.as_str()), (medium, name));
        stream.write_all(&message(7).to_bytes()).unwrap();
        let said = Box::new(message(7));
        assert_eq!(
            bench.next(),
            Input::Message {
                peer,
                message: said
            }
        );
        let back = message(8).to_bytes();
        bench.unicast.transmit(transmit(peer, back.clone(), false));
        bench.unicast.close(peer);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received, back);
        assert_eq!(bench.next(), Input::Closed { peer });
    }
    bench.unicast.stop();
    assert!(sockets.iter().all(|path| !path.exists()));
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let scratch = Scratch::new("stale");
    let [a, b] = scratch.sockets();
    drop(UnixListener::bind(&a).unwrap()); // its file stays
    assert!(a.exists());
    let unicast = start(std::slice::from_ref(&a)).unwrap();
    // The second one leaves the first one's socket alone, also when it goes.
    let taken = start(std::slice::from_ref(&a));
    assert!(matches!(&taken, Err(StartUnicastError::BusTaken(path)) if *path == a));
    drop(taken);
    drop(UnixStream::connect(&a).unwrap());
    fs::write(&b, "precious").unwrap();
    let no_socket = start(std::slice::from_ref(&b));
    assert!(matches!(no_socket, Err(StartUnicastError::NoSocket(_))));
    assert_eq!(fs::read(&b).unwrap(), b"precious");
    // A file that somebody has put there meanwhile is not ours to remove.
    fs::remove_file(&a).unwrap();
    fs::write(&a, "another's").unwrap();
    unicast.stop();
    assert_eq!(fs::read(&a).unwrap(), b"another's");
}

#[test]
fn a_missing_folder_is_said() {
    let scratch = Scratch::new("missing");
    let path = scratch.0.join("none/a.sock");
    let error = start(&[path]).unwrap_err();
    let text = crate::drive::chain(&error);
    assert!(text.contains("its folder has to exist"), "{text}");
    assert!(text.contains("none/a.sock"), "{text}");
}
