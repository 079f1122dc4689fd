//! The thread that reads a group's datagrams and hands them over in batches; it opens none of them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use locus_proto::v1::DATAGRAM_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock::Clock;
use crate::core::{Input, Membership};
use crate::event::{Complaints, Event};

/// Most datagrams in one input; what waits is handed over together.
pub const DATAGRAMS_MAX: usize = 64;
/// Most of them that came to the node alone.
const OWN_MAX: usize = 16;
/// Longest time after which the thread sees that the group was left.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after a read that the system refused.
const PAUSE: Duration = Duration::from_millis(10);

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Reading {
    pub membership: Membership,
    pub group: SocketAddr,
    /// The group's, and the node's own.
    pub sockets: [Arc<UdpSocket>; 2],
    /// The only one who speaks in the group.
    pub master: IpAddr,
    pub ended: Arc<AtomicBool>,
    pub inputs: Sender<Input>,
    pub clock: Clock,
}

/// A batch that is being filled.
#[derive(Debug, Default)]
struct Batch {
    datagrams: Vec<Vec<u8>>,
    /// Refused since the last batch that was handed over.
    refused: u64,
}

impl Reading {
    /// Starts the thread.
    pub(super) fn start(self) -> io::Result<()> {
        let thread = thread::Builder::new().name("group".into());
        thread.spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        let mut batch = Batch::default();
        let mut complaints = Complaints::default();
        while !self.ended.load(Ordering::Relaxed) {
            let read = self
                .wait()
                .and_then(|()| self.read(&mut batch, &mut complaints));
            if read.is_err() {
                // An interface that went away, or a system short of something: no reason to spin.
                thread::park_timeout(PAUSE);
            }
            if batch.datagrams.is_empty() {
                continue;
            }
            let input = Input::Datagrams {
                membership: self.membership,
                datagrams: std::mem::take(&mut batch.datagrams),
                refused: std::mem::take(&mut batch.refused),
            };
            if self.inputs.send(input).is_err() {
                return;
            }
        }
    }

    /// Waits until something came, for [`LOOK_EVERY`] at most.
    fn wait(&self) -> io::Result<()> {
        let [group, own] = &self.sockets;
        let mut ready = [
            PollFd::new(group, PollFlags::IN),
            PollFd::new(own, PollFlags::IN),
        ];
        let longest = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_EVERY.subsec_nanos().into(),
        };
        match poll(&mut ready, Some(&longest)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what waits, [`DATAGRAMS_MAX`] at most; first what came to the node alone, since it was asked for.
    fn read(&self, batch: &mut Batch, complaints: &mut Complaints) -> io::Result<()> {
        // One byte more than may come shows what is too long.
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        let [group, own] = &self.sockets;
        // Each has its share, so that a flood at one of them does not silence the other.
        for (socket, share) in [(own, OWN_MAX), (group, DATAGRAMS_MAX - OWN_MAX)] {
            for _ in 0..share {
                let (len, from) = match socket.recv_from(&mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                match buffer.get(..len).filter(|_| len <= DATAGRAM_BYTES_MAX) {
                    Some(datagram) if from.ip().to_canonical() == self.master => {
                        batch.datagrams.push(datagram.to_vec());
                    }
                    Some(_) | None => {
                        batch.refused += 1;
                        self.complain(complaints, len, from);
                    }
                }
            }
        }
        Ok(())
    }

    fn complain(&self, complaints: &mut Complaints, len: usize, from: SocketAddr) {
        if let Some(count) = complaints.count(self.clock.now()) {
            let (group, master) = (self.group, self.master);
            Event::GroupDatagramsRefused {
                count,
                group,
                from,
                master,
                len,
            }
            .log();
        }
    }
}
