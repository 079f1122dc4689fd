//! The ways to a master, as sockets: two buses and the network, sealed; one after the other is cut.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use locus_agent::{HANDSHAKE_TIMEOUT, PROBE_EVERY};
use locus_identity::{Channel, IdentityFolder, Socket};
use locus_proto::v1::Hello;

use crate::identity::Authority;
use crate::support::{Agent, Model, Peer, Place, View, listen, record, until};

const URI: &str = "sip:alice@192.0.2.1";

fn bus(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Something that takes connections, and that can be cut.
enum Way {
    Bus(UnixListener),
    Network(TcpListener),
}

impl Way {
    fn poll(&self) -> Option<Socket> {
        match self {
            Self::Bus(listener) => {
                let stream = listener.accept().ok()?.0;
                stream.set_nonblocking(false).unwrap();
                Some(stream.into())
            }
            Self::Network(listener) => {
                let stream = listener.accept().ok()?.0;
                stream.set_nonblocking(false).unwrap();
                Some(stream.into())
            }
        }
    }

    /// Waits for the agent to greet on this way; it may look first who is there.
    fn accept(&self, identity: &IdentityFolder) -> (Peer, Hello) {
        loop {
            let socket = until("a connection", || self.poll());
            let Ok(channel) = Channel::accept(socket, identity, HANDSHAKE_TIMEOUT) else {
                continue;
            };
            if let (peer, Some(hello)) = Peer::over(channel) {
                return (peer, hello);
            }
        }
    }
}

/// Follows the agent's end of a connection with heartbeats until `done`.
fn keep<T>(peer: &mut Peer, model: &Model, mut done: impl FnMut() -> Option<T>) -> T {
    // Longer than the agent waits before it looks for better ways, twice.
    for _ in 0..PROBE_EVERY.as_millis() * 3 / 100 {
        if let Some(found) = done() {
            return found;
        }
        peer.try_send(&model.heartbeat());
        thread::park_timeout(Duration::from_millis(100));
    }
    panic!("the agent did not go where it should")
}

#[test]
fn bus_a_is_cut_then_bus_b_and_the_node_goes_on_over_the_network_and_comes_back() {
    let place = Place::new("ways");
    let folder = place.path("table");
    let authority = Authority::new(&place, "lab");
    let master = authority.open("locsvc/m1");
    let own = authority.issue("node/n1/1");
    let (path_a, path_b) = (place.path("a.sock"), place.path("b.sock"));
    let (a, b) = (Way::Bus(bus(&path_a)), Way::Bus(bus(&path_b)));
    let network = listen();
    let address = network.local_addr().unwrap();
    let network = Way::Network(network);
    let options = format!(
        "locsvc = [\"{address}\"]\nbus = [{path_a:?}, {path_b:?}]\nidentity = {own:?}\nrecords_max = 10000"
    );
    let mut model = Model::new();
    let change = |model: &mut Model, n| {
        model.commit(vec![(format!("u{n}@example.net"), Some(record(URI, n)))]);
    };
    change(&mut model, 1);
    let agent = Agent::with("lab", &place, &folder, &options);
    let mut view = View::new(&folder);

    // Each way in its turn, as the one before is cut; what changed meanwhile follows.
    let ways = [(a, Some(&path_a)), (b, Some(&path_b)), (network, None)];
    let mut last = None;
    for (n, (way, path)) in (2..).zip(ways) {
        let (mut peer, hello) = way.accept(&master);
        model.serve(&mut peer, &hello);
        view.wait(model.position());
        last = Some(peer);
        if let Some(path) = path {
            // The listener too: a bus that is cut takes no connection.
            fs::remove_file(path).unwrap();
            drop(way);
            last = None;
            change(&mut model, n);
        }
    }
    let mut peer = last.expect("a connection over the network");
    for said in ["bus A (", "bus B (", &format!("locsvc at {address}")] {
        assert!(agent.log().contains(said), "{said}: {}", agent.log());
    }

    // The first bus is whole again: the node sees it by itself and goes back.
    let a = Way::Bus(bus(&path_a));
    let socket = keep(&mut peer, &model, || a.poll());
    let looked = Channel::accept(socket, &master, HANDSHAKE_TIMEOUT).unwrap();
    let (_, hello) = Peer::over(looked);
    assert_eq!(hello, None, "it only looks");
    let (mut peer, hello) = a.accept(&master);
    assert_eq!(hello.position, Some(model.position()), "nothing was lost");
    change(&mut model, 9);
    model.serve(&mut peer, &hello);
    view.wait(model.position());
    assert_eq!(view.records(), model.records());
    let log = agent.log();
    assert!(log.contains("is open again: going there from"), "{log}");
    assert!(agent.terminate().success());
}
