//! A node over real sockets: the product's own receiver on a channel and in the group, with a table of which
//! only the place is kept.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver as Arrivals, Sender, channel};
use std::thread;
use std::time::Duration;

use locsvc::Clock;
use locus_distribution::{Receiver, ReceiverConfig, ReceiverEvent, Standing};
use locus_identity::{Channel, Holder, IdentityFolder, Socket, WriteHalf};
use locus_proto::{BootId, Deframer, Message, NodeState, Position, Transport};

use super::support::DEADLINE;

enum Arrival {
    Message(Box<Message>),
    Closed,
    Datagram(Vec<u8>),
}

/// A node that follows a locsvc.
pub(crate) struct Follower {
    clock: Clock,
    pub(crate) receiver: Receiver,
    arrivals: Arrivals<Arrival>,
    sender: Sender<Arrival>,
    writer: WriteHalf,
    /// Joined to the group; where its reports go.
    group: Option<(UdpSocket, SocketAddr)>,
    pub(crate) closed: bool,
}

impl Follower {
    /// Connects over the bus as `identity` says.
    pub(crate) fn connect(bus: &std::path::Path, identity: &IdentityFolder) -> Self {
        let socket = Socket::from(UnixStream::connect(bus).unwrap());
        let Channel {
            mut reader, writer, ..
        } = Channel::connect(socket, identity, DEADLINE).unwrap();
        let Holder::Node { name, id } = identity.identity().holder.clone() else {
            panic!("a node's identity");
        };
        let config = ReceiverConfig {
            cluster: identity.cluster().clone(),
            node: id,
            name,
            boot: BootId(1),
            sip: String::new(),
            transport: Transport::Auto,
        };
        let clock = Clock::start();
        let mut receiver = Receiver::new(clock.now(), config, None, None);
        receiver.handle_timeout(clock.now());
        assert_eq!(receiver.poll_event(), Some(ReceiverEvent::Connect));
        receiver.handle_connected(clock.now());
        let (sender, arrivals) = channel();
        let told = sender.clone();
        thread::spawn(move || {
            let mut deframer = Deframer::default();
            let mut block = vec![0; 64 * 1024];
            loop {
                let len = reader.read(&mut block).unwrap_or_default();
                if len == 0 {
                    told.send(Arrival::Closed).ok();
                    return;
                }
                deframer.handle_bytes(&block[..len]);
                while let Some(message) = deframer.poll().unwrap() {
                    told.send(Arrival::Message(Box::new(message))).ok();
                }
            }
        });
        Self {
            clock,
            receiver,
            arrivals,
            sender,
            writer,
            group: None,
            closed: false,
        }
    }

    /// Serves until `is_so`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = self.clock.now().plus(DEADLINE);
        loop {
            self.work();
            if is_so(self) {
                return;
            }
            let now = self.clock.now();
            let state = (self.receiver.state(), self.receiver.position());
            assert!(
                now < deadline,
                "{what}: {state:?} {:?}",
                self.receiver.counters()
            );
            let due = self.receiver.poll_timeout().unwrap_or(deadline);
            let wait = due.since(now).min(Duration::from_millis(100));
            let arrival = self.arrivals.recv_timeout(wait);
            let now = self.clock.now();
            match arrival {
                Ok(Arrival::Message(message)) => {
                    self.receiver.handle_message(now, *message).unwrap();
                }
                Ok(Arrival::Datagram(bytes)) => self.receiver.handle_datagrams(now, vec![bytes]),
                Ok(Arrival::Closed) => {
                    self.closed = true;
                    self.receiver.handle_closed(now);
                }
                Err(_) => {} // nothing came
            }
            if self.receiver.poll_timeout().is_some_and(|due| due <= now) {
                self.receiver.handle_timeout(now);
            }
        }
    }

    /// Follows while `others` do something.
    pub(crate) fn during<T: Send>(&mut self, others: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let doing = scope.spawn(others);
            self.until("the others are done", |_| doing.is_finished());
            doing.join().unwrap()
        })
    }

    pub(crate) fn is_coherent_at(&self, level: u64) -> bool {
        let at = self.receiver.position().map(|position| position.level.0);
        at == Some(level) && self.receiver.state() == NodeState::Coherent
    }

    fn work(&mut self) {
        loop {
            let now = self.clock.now();
            while let Some(message) = self.receiver.poll_transmit() {
                // It may have been closed; the reader says so.
                self.writer.write_all(&message.to_bytes()).ok();
            }
            while let Some(datagram) = self.receiver.poll_datagram() {
                if let Some((socket, master)) = &self.group {
                    socket.send_to(&datagram, master).unwrap();
                }
            }
            let Some(event) = self.receiver.poll_event() else {
                return;
            };
            match event {
                ReceiverEvent::Apply { frame, .. } => {
                    let standing = standing(frame.header.after());
                    self.receiver.handle_applied(now, Ok(standing));
                }
                ReceiverEvent::FinishLoad(position) => {
                    self.receiver.handle_loaded(now, Ok(standing(position)));
                }
                ReceiverEvent::JoinGroup { group, reply_port } => self.join(group, reply_port),
                ReceiverEvent::LeaveGroup => self.group = None,
                ReceiverEvent::Connect
                | ReceiverEvent::Disconnect(_)
                | ReceiverEvent::RejoinGroup
                | ReceiverEvent::BeginLoad { .. }
                | ReceiverEvent::LoadRecords(_)
                | ReceiverEvent::LoadFrame(_)
                | ReceiverEvent::StateChanged { .. } => {}
                event @ (ReceiverEvent::AbortLoad
                | ReceiverEvent::Compare { .. }
                | ReceiverEvent::Mend { .. }
                | ReceiverEvent::Scrub
                | ReceiverEvent::Audited { .. }
                | ReceiverEvent::Registered { .. }) => panic!("{event:?}"),
            }
        }
    }

    /// Joins on loopback, where the master of the test is.
    fn join(&mut self, group: SocketAddr, reply_port: u16) {
        let IpAddr::V4(address) = group.ip() else {
            panic!("the test's group is of IPv4");
        };
        let socket = UdpSocket::bind(group).unwrap();
        socket
            .join_multicast_v4(&address, &Ipv4Addr::LOCALHOST)
            .unwrap();
        let (reading, told) = (socket.try_clone().unwrap(), self.sender.clone());
        thread::spawn(move || {
            let mut block = vec![0; 2048];
            while let Ok(len) = reading.recv(&mut block) {
                if told.send(Arrival::Datagram(block[..len].to_vec())).is_err() {
                    return;
                }
            }
        });
        self.group = Some((socket, (Ipv4Addr::LOCALHOST, reply_port).into()));
    }
}

fn standing(position: Position) -> Standing {
    let records = 0;
    Standing { position, records }
}
