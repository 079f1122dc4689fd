//! How connections end: what is counted, who is told, what is forgotten; it decides on no end.

use locus_proto::{Message, Timestamp, v1::Rejection};

use super::{CloseReason, Peer, Sender, SenderEvent};

impl Sender {
    /// Ends a connection from this side.
    pub(super) fn drop_peer(&mut self, now: Timestamp, peer: Peer, reason: CloseReason) {
        let counters = &mut self.counters;
        match reason {
            CloseReason::NotGreeted => counters.greeting_timeouts_total += 1,
            CloseReason::Silent => counters.silent_total += 1,
            CloseReason::Stalled => counters.stalled_total += 1,
            CloseReason::Replaced => counters.replaced_total += 1,
            CloseReason::WrongCluster => counters.cluster_refused_total += 1,
            CloseReason::Violation => counters.unexpected_total += 1,
            CloseReason::LogUnreadable => counters.log_unreadable_total += 1,
            CloseReason::Full => counters.peers_refused_total += 1,
            CloseReason::WrongIdentity => counters.identities_refused_total += 1,
            CloseReason::Revoked => counters.revoked_total += 1,
            CloseReason::TooSlow => counters.too_slow_total += 1,
            CloseReason::Lost | CloseReason::ReloadAsked | CloseReason::TableUnreadable => {}
        }
        self.forget(now, peer, reason);
        self.say_goodbye(peer, reason);
    }

    /// Says why, where a person on the other side has to act, and asks to close.
    fn say_goodbye(&mut self, peer: Peer, reason: CloseReason) {
        let last_word = match reason {
            CloseReason::WrongCluster => Some(format!("this is cluster {}", self.config.cluster)),
            CloseReason::Full | CloseReason::WrongIdentity | CloseReason::Revoked => {
                Some(reason.to_string())
            }
            // Whoever connected again does not read this any more.
            CloseReason::Replaced => Some(format!(
                "{reason}; if this one did not connect again, another has its number"
            )),
            CloseReason::Lost
            | CloseReason::NotGreeted
            | CloseReason::Silent
            | CloseReason::Stalled
            | CloseReason::Violation
            | CloseReason::LogUnreadable
            | CloseReason::TooSlow
            | CloseReason::TableUnreadable
            | CloseReason::ReloadAsked => None,
        };
        if let Some(reason) = last_word {
            let rejection = Message::Rejection(Rejection { reason });
            self.transmits
                .push_back((peer, rejection.to_bytes().into()));
        }
        self.events.push_back(SenderEvent::Close { peer, reason });
    }

    /// Forgets a connection and what was queued for it.
    pub(super) fn forget(&mut self, now: Timestamp, peer: Peer, reason: CloseReason) {
        let Some(connection) = self.peers.remove(&peer) else {
            return; // already dropped
        };
        self.transmits.retain(|(other, _)| *other != peer);
        let empty = self.snapshots.forget(peer);
        self.events.retain(|event| match event {
            SenderEvent::ReadLog { peer: of, .. } | SenderEvent::ReadAudit { peer: of, .. } => {
                *of != peer
            }
            SenderEvent::ReadTable { boat, .. } => Some(*boat) != empty,
            SenderEvent::Close { .. }
            | SenderEvent::SplitScan { .. }
            | SenderEvent::EndScan { .. }
            | SenderEvent::Alarm(_)
            | SenderEvent::AuditReported { .. }
            | SenderEvent::NodeUp { .. }
            | SenderEvent::PathChanged { .. }
            | SenderEvent::MulticastLost { .. }
            | SenderEvent::MulticastBack { .. }
            | SenderEvent::NodeDown { .. } => true,
        });
        let ended = empty.map(|boat| SenderEvent::EndScan { boat });
        self.events.extend(ended);
        let live = connection.live();
        let Some((node, name)) = connection.node else {
            return;
        };
        if let Some(group) = self
            .group
            .as_mut()
            .filter(|_| connection.stage.was_offered())
        {
            group.handle_gone(now, node);
        }
        self.roster.handle_gone(node, live);
        self.events.push_back(SenderEvent::NodeDown {
            peer,
            node,
            name,
            reason,
        });
    }
}
