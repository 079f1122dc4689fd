//! The node's membership in the master's group, as far as edges and people must know of it; it opens no datagram.

use locus_proto::v1::{GroupEndReason, GroupLeftReason};

use super::Membership;
use crate::event::Event;

/// Where the node stands with the master's group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Of the last membership.
    number: u64,
    /// Whether it lasts: the edge listens, or has been told to.
    is_member: bool,
    /// Whether changes come that way.
    is_followed: bool,
    /// How often they began to.
    cuts_total: u64,
    /// Why the master wants the node out of it.
    asked: Option<GroupEndReason>,
    /// Datagrams that the edge refused unread.
    pub(super) refused_total: u64,
}

impl Group {
    /// Begins a new membership.
    pub(super) fn begin(&mut self) -> Membership {
        self.number += 1;
        self.is_member = true;
        self.current()
    }

    /// Ends the membership.
    pub(super) fn end(&mut self) {
        self.is_member = false;
    }

    /// Returns the last membership.
    pub(super) fn current(&self) -> Membership {
        Membership(self.number)
    }

    /// Returns whether what comes by `membership` still counts.
    pub(super) fn is_of(&self, membership: Membership) -> bool {
        self.is_member && membership == self.current()
    }

    /// Takes that the master wants the node out of the group.
    pub(super) fn ask(&mut self, reason: GroupEndReason) {
        self.asked = Some(reason);
    }

    /// Takes how often changes began to come that way; returns what people should know.
    ///
    /// The master's word alone is not enough: where the node has left the group meanwhile, it counts for nothing.
    pub(super) fn follow(&mut self, cuts_total: u64) -> Option<Event> {
        let before = std::mem::replace(&mut self.cuts_total, cuts_total);
        (cuts_total > before).then(|| {
            self.is_followed = true;
            Event::GroupFollowed
        })
    }

    /// Takes that the node says it is out of the group; returns what people should know.
    pub(super) fn left(&mut self, reason: GroupLeftReason) -> Option<Event> {
        let asked = self
            .asked
            .take()
            .filter(|_| reason == GroupLeftReason::Asked);
        let was_followed = std::mem::take(&mut self.is_followed);
        was_followed.then_some(Event::GroupLeft { reason, asked })
    }

    /// The connection has ended, and with it all that was agreed over it.
    pub(super) fn forget(&mut self) {
        self.is_followed = false;
        self.asked = None;
    }
}
