//! Sockets of the test: on the interface that was named, one hop, and deaf to other groups.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use rustix::net::{netdevice, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{McastError, Plan};

/// Returns a socket that sends to the group: one hop, as the cluster's own.
pub(super) fn sender(plan: &Plan) -> Result<UdpSocket, McastError> {
    let socket = open(plan)?;
    let chosen = match (plan.group.ip(), interface(plan, &socket)?) {
        (IpAddr::V4(group), Some(index)) => {
            let any = Ipv4Addr::UNSPECIFIED;
            sockopt::set_ip_multicast_if_with_ifindex(&socket, &group, &any, index)
                .map_err(std::io::Error::from)
        }
        (IpAddr::V6(_), Some(index)) => socket.set_multicast_if_v6(index),
        (_, None) => Ok(()),
    };
    chosen.map_err(McastError::socket("send on that interface"))?;
    Ok(socket.into())
}

/// Returns a socket that is a member of the group and hears nothing else.
pub(super) fn listener(plan: &Plan) -> Result<UdpSocket, McastError> {
    let socket = open(plan)?;
    let index = interface(plan, &socket)?.unwrap_or(0); // 0: as the routes say
    let bound = socket
        .set_reuse_address(true)
        .and_then(|()| socket.bind(&plan.group.into()));
    bound.map_err(McastError::socket("listen on the group's port"))?;
    let joined = match plan.group.ip() {
        IpAddr::V4(group) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
        }
        IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
    };
    joined.map_err(McastError::socket("join the group"))?;
    Ok(socket.into())
}

fn open(plan: &Plan) -> Result<Socket, McastError> {
    if !plan.group.ip().is_multicast() {
        return Err(McastError::NotAGroup(plan.group));
    }
    let domain = Domain::for_address(plan.group);
    Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
        .map_err(McastError::socket("open a socket"))
}

/// Returns the number of the interface that was named.
fn interface(plan: &Plan, socket: &Socket) -> Result<Option<u32>, McastError> {
    let Some(name) = &plan.interface else {
        return Ok(None);
    };
    let index = netdevice::name_to_index(socket, name);
    index
        .map(Some)
        .map_err(|_| McastError::Interface(name.clone()))
}
