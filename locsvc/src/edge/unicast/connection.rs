//! One connection: its handshake, its place, its two threads. It understands no message.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use locus_distribution::{Arrived, Medium, NodeIdentity, PEERS_MAX, Peer};
use locus_identity::{Channel, Holder, Peer as Certified, ReadHalf, Socket, WriteHalf};
use locus_proto::Deframer;

use super::super::handshakes::Place;
use super::{
    Connection, Ended, NODE_CONNECTIONS_MAX, Outgoing, QUEUE_MAX, Security, Shared, spawn,
};
use crate::core::Input;

/// Bytes of one read and, about, of one write.
const BLOCK_BYTES: usize = 64 * 1024;
/// A write that takes longer ends the connection; the core has given the node up before (30 s).
const WRITE_MAX: Duration = Duration::from_secs(35);

/// Somebody who has connected.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: Socket,
    /// The same connection, by which it is ended from outside while it shakes hands.
    pub(super) again: Socket,
    pub(super) address: String,
    pub(super) medium: Medium,
}

/// Serves a connection in threads of its own.
pub(super) fn begin(guest: Guest, shared: &Arc<Shared>) -> io::Result<()> {
    guest.socket.set_write_timeout(Some(WRITE_MAX))?;
    let Guest {
        socket,
        again,
        address,
        medium,
    } = guest;
    let place = match &shared.security {
        Security::Insecure => {
            // Before a thread is made for it; the last word is spoken with its place.
            if shared.connections().len() >= PEERS_MAX {
                shared.refuse(address, too_many());
                return Ok(());
            }
            None
        }
        Security::Identity(_) => {
            let end = move || drop(again.shutdown(Shutdown::Both));
            let Some(place) = shared.handshakes.begin(shared.clock.now(), end) else {
                let reason = "too many TLS handshakes are under way".to_owned();
                shared.say_refused(address, reason);
                return Ok(());
            };
            Some(place)
        }
    };
    let shared = Arc::clone(shared);
    spawn("read", move || {
        let Some(channel) = shake(socket, place, &address, &shared) else {
            return;
        };
        serve(channel, address, medium, &shared);
    })
    .map(drop)
}

/// Returns the channel of someone who may talk to us.
fn shake(socket: Socket, place: Option<Place>, address: &str, shared: &Shared) -> Option<Channel> {
    let Security::Identity(identity) = &shared.security else {
        return Some(Channel::plain(socket));
    };
    let accepted = Channel::accept(socket, identity, shared.handshake_timeout);
    let kept = place.is_none_or(Place::leave);
    match accepted {
        Ok(channel) => Some(channel),
        Err(error) => {
            // One that was ended to make room is counted where that was done.
            if kept {
                let failed = &shared.handshakes_failed_total;
                failed.fetch_add(1, Ordering::Relaxed);
                shared.say_refused(address.to_owned(), error.to_string());
            }
            None
        }
    }
}

fn too_many() -> String {
    format!("{PEERS_MAX} connections are open")
}

/// Returns what a certificate says about a node, if it is one's.
fn node_identity(certified: &Certified) -> Result<NodeIdentity, String> {
    let identity = &certified.identity;
    match &identity.holder {
        Holder::Node { name, id } => Ok(NodeIdentity {
            cluster: identity.cluster.clone(),
            node: *id,
            name: name.clone(),
        }),
        holder @ (Holder::Locsvc { .. } | Holder::Switch { .. } | Holder::Operator { .. }) => {
            Err(format!(
                "its certificate is that of {holder}; here nodes connect (`locusctl ca node NAME --id ID`)"
            ))
        }
    }
}

/// Serves a connection until it ends; the calling thread reads.
fn serve(channel: Channel, address: String, medium: Medium, shared: &Arc<Shared>) {
    let certified = channel.peer().cloned();
    let identity = match certified.as_ref().map(node_identity).transpose() {
        Ok(identity) => identity,
        Err(reason) => return shared.refuse(address, reason),
    };
    let (closer, queued_bytes) = (channel.closer(), Arc::<AtomicUsize>::default());
    let (queue, outgoing) = bounded(QUEUE_MAX);
    let connection = Connection {
        queue: Some(queue),
        queued_bytes: Arc::clone(&queued_bytes),
        closer: closer.clone(),
        certified: certified.clone(),
    };
    let peer = match admit(connection, shared) {
        Ok(peer) => peer,
        Err(reason) => return shared.refuse(address, reason),
    };
    // Who was revoked while it shook hands was not among those who were judged then.
    let judged = certified.map_or(Ok(()), |certified| shared.security.judge(&certified));
    if let Err(reason) = judged {
        drop(shared.connections().remove(&peer));
        closer.close();
        return shared.refuse(address, format!("its certificate counts no more: {reason}"));
    }
    let Channel { reader, writer, .. } = channel;
    let for_writer = (Arc::clone(shared), closer.clone());
    let writing = spawn("write", move || {
        let (shared, closer) = for_writer;
        if let Some(writer) = write(peer, writer, &outgoing, &queued_bytes, &shared) {
            drop(writer.finish()); // the other side has gone otherwise
        }
        // Also wakes the reader, which says to the core that the connection has ended.
        closer.close();
    });
    if writing.is_err() {
        shared.refuse(address, "no thread can be made for it".to_owned());
    } else {
        let arrived = Arrived {
            address,
            medium,
            identity,
        };
        // Whoever cannot be told has ended: the process is leaving.
        drop(read(peer, reader, arrived, shared));
    }
    closer.close();
    drop(shared.connections().remove(&peer));
}

/// Gives a connection its place and number.
fn admit(connection: Connection, shared: &Shared) -> Result<Peer, String> {
    let mut connections = shared.connections();
    if connections.len() >= PEERS_MAX {
        return Err(too_many());
    }
    let who = |connection: &Connection| {
        let certified = connection.certified.as_ref();
        certified.map(|certified| certified.identity.clone())
    };
    if let Some(new) = who(&connection) {
        let others = connections.values();
        let same = others.filter(|other| who(other).as_ref() == Some(&new));
        if same.count() >= NODE_CONNECTIONS_MAX {
            let holder = new.holder;
            return Err(format!(
                "{holder} has {NODE_CONNECTIONS_MAX} connections already"
            ));
        }
    }
    let peer = Peer(shared.peers.fetch_add(1, Ordering::Relaxed) + 1);
    connections.insert(peer, connection);
    Ok(peer)
}

fn read(peer: Peer, mut reader: ReadHalf, arrived: Arrived, shared: &Shared) -> Result<(), Ended> {
    let named = arrived.address.clone();
    shared.send(Input::Connected { peer, arrived })?;
    let mut deframer = Deframer::default();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let len = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break, // the network's doing; the core says that the node is gone
        };
        deframer.handle_bytes(&block[..len]);
        loop {
            match deframer.poll() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let message = Box::new(message);
                    shared.send(Input::Message { peer, message })?;
                }
                Err(error) => {
                    shared.refuse(named, error.to_string());
                    return shared.send(Input::Closed { peer });
                }
            }
        }
    }
    shared.send(Input::Closed { peer })
}

/// Writes what is queued, several messages at once, until the queue's sender is gone; `None` once a write
/// has failed.
fn write(
    peer: Peer,
    mut writer: WriteHalf,
    outgoing: &Receiver<Outgoing>,
    queued_bytes: &AtomicUsize,
    shared: &Shared,
) -> Option<WriteHalf> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while let Ok(first) = outgoing.recv() {
        block.clear();
        let mut counted = 0;
        let mut next = Some(first);
        while let Some(Outgoing {
            bytes,
            counted: counts,
        }) = next
        {
            block.extend_from_slice(&bytes);
            counted += if counts { bytes.len() } else { 0 };
            next = if block.len() < BLOCK_BYTES {
                outgoing.try_recv().ok()
            } else {
                None
            };
        }
        writer.write_all(&block).ok()?;
        queued_bytes.fetch_sub(block.len(), Ordering::Relaxed);
        let sent = Input::Sent {
            peer,
            bytes: counted,
        };
        if counted > 0 && shared.send(sent).is_err() {
            return None;
        }
        block.shrink_to(BLOCK_BYTES * 2);
    }
    Some(writer)
}
