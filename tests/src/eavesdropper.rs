//! Somebody on the lab's network who hears the group and holds no key: sees headers and sealed bytes.
//! Knows the layout of a datagram's header, nothing of what is sealed.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use locus_proto::v1::DatagramHeader;

use crate::locsvc::GROUP_PORT;
use crate::netns::Namespace;
use crate::wait;

/// A beat comes each second at the latest.
const HEARD_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait in one look at the socket.
const LOOK: Duration = Duration::from_millis(50);

/// A socket in the group.
#[derive(Debug)]
pub struct Eavesdropper {
    socket: UdpSocket,
}

/// One datagram as it was on the network.
#[derive(Debug, Clone)]
pub struct Heard {
    /// What everybody can read.
    pub header: DatagramHeader,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Eavesdropper {
    /// Joins `group` on the network of `host`.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn join(host: &Namespace, group: Ipv4Addr) -> Self {
        let own = host.address();
        let socket = host.run(|| {
            let socket = UdpSocket::bind((group, GROUP_PORT)).expect("the group's port is free");
            socket
                .join_multicast_v4(&group, &own)
                .expect("the group can be joined");
            socket
        });
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a timeout can be set");
        Self { socket }
    }

    /// The first datagram for which `wanted` holds, of those that have come since the last call and of
    /// those to come.
    ///
    /// # Panics
    /// When none comes in time, or one comes that is none of the protocol.
    #[track_caller]
    pub fn hear(&self, what: &str, mut wanted: impl FnMut(&Heard) -> bool) -> Heard {
        wait::value(what, HEARD_DEADLINE, || {
            let heard = self.next()?;
            wanted(&heard).then_some(heard)
        })
    }

    /// The next datagram; `None` when none comes at once.
    ///
    /// # Panics
    /// When one comes that is none of the protocol.
    #[track_caller]
    pub fn next(&self) -> Option<Heard> {
        let mut buffer = [0; 2_048];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        let bytes = buffer[..length].to_vec();
        let header = DatagramHeader::decode(&bytes)
            .unwrap_or_else(|error| panic!("no datagram of the group, from {from}: {error}"));
        Some(Heard { header, bytes })
    }
}
