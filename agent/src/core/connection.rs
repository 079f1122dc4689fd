//! What becomes of the connection to a master, and of the group beside it; it reads no message.

use std::net::SocketAddr;

use locus_proto::{NodeState, Timestamp};

use super::{Address, Core, Differing, Ends, Link, Order};
use crate::event::Event;

impl Core {
    /// Closes the connection.
    pub(super) fn disconnect(&mut self, now: Timestamp, reason: String) {
        let connection = self.connection;
        self.orders.push_back(Order::Disconnect { connection });
        self.lost(now, reason);
    }

    /// The connection has ended, or there was none.
    pub(super) fn lost(&mut self, now: Timestamp, reason: String) {
        let master = self.ways.current().clone();
        self.say_once(Event::MasterLost { master, reason });
        self.ways.handle_lost(now, self.served);
        self.drop_connection(now);
    }

    fn drop_connection(&mut self, now: Timestamp) {
        self.welcomed = false;
        self.served = false;
        self.differing = Differing::default(); // the audit ends with the connection
        self.link = Link::Down;
        self.ends = None;
        self.receiver.handle_closed(now);
        self.group.forget();
        let unanswered = self.registrations.cut_off();
        self.find(unanswered);
    }

    /// Returns whether the node could go to another way without losing more than a moment.
    pub(super) fn is_steady(&self) -> bool {
        self.welcomed && !self.reloading && self.receiver.state() == NodeState::Coherent
    }

    /// Goes back to a better way if a look found it open.
    pub(super) fn probed(&mut self, now: Timestamp, probe: u64, open: Option<&Address>) {
        let from = self.ways.current().clone();
        let is_steady = self.is_steady();
        if !self.ways.handle_probed(now, probe, open, is_steady) {
            return;
        }
        let to = self.ways.current().clone();
        self.events.push_back(Event::Returning { from, to });
        let connection = self.connection;
        self.orders.push_back(Order::Disconnect { connection });
        self.drop_connection(now);
    }

    /// Joins the group, if the connection shows the way there.
    pub(super) fn join_group(&mut self, now: Timestamp, group: SocketAddr, reply_port: u16) {
        let membership = self.group.begin();
        let Some(Ends { local, mut remote }) = self.ends else {
            let reason = "a group is not reached over a bus".to_owned();
            self.group_failed(now, reason);
            return;
        };
        remote.set_port(reply_port);
        self.orders.push_back(Order::JoinGroup {
            membership,
            group,
            local,
            master: remote,
        });
    }

    pub(super) fn group_failed(&mut self, now: Timestamp, reason: String) {
        self.group.end();
        self.say_once(Event::GroupFailed { reason });
        self.receiver.handle_group_failed(now);
    }
}
