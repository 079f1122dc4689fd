//! Requests that wait until all nodes have a level; it sends nodes nothing.

use std::time::Duration;

use locus_distribution::{RosterEntry, Sender};
use locus_proto::{Level, Lineage, NodeName, Timestamp, Verdict};

use super::Core;
use crate::provision::{Answer, RequestError};

/// Most requests that wait for a level at once.
const WAITING_MAX: usize = 1024;
/// A node that was heard within this time is waited for though it is not connected: its agent may be
/// restarting. One that is away for longer holds nobody up.
const RECENT: Duration = Duration::from_secs(60);

/// A request that waits until all nodes have a level.
#[derive(Debug)]
pub(super) struct Waiting {
    ticket: u64,
    level: Level,
    pub(super) deadline: Timestamp,
}

impl Core {
    pub(super) fn wait(&mut self, now: Timestamp, ticket: u64, level: Level, deadline: Timestamp) {
        if self.waiting.len() >= WAITING_MAX {
            self.answer(ticket, Answer::Refused(RequestError::Busy));
            return;
        }
        self.waiting.push(Waiting {
            ticket,
            level,
            deadline,
        });
        self.check_waiting(now);
    }

    /// Answers the waiting requests whose level is reached or whose time is up.
    pub(super) fn check_waiting(&mut self, now: Timestamp) {
        if self.waiting.is_empty() {
            return;
        }
        let head = self.master.position().level;
        let roster = self.sender.as_ref().map(Sender::roster).unwrap_or_default();
        let lineage = self.master.lineage().clone();
        for waiting in std::mem::take(&mut self.waiting) {
            let behind: Vec<NodeName> = roster
                .iter()
                .filter(|node| node.connected || now.since(node.heard_at) < RECENT)
                .filter(|node| !has_applied(node, waiting.level, head, &lineage))
                .map(|node| node.name.clone())
                .collect();
            let reached = head >= waiting.level && behind.is_empty();
            if reached || now >= waiting.deadline {
                let level = head;
                self.answer(
                    waiting.ticket,
                    Answer::Waited {
                        level,
                        behind,
                        reached,
                    },
                );
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}

/// Whether the last report of `node` says that it holds everything up to `level` of this log.
fn has_applied(node: &RosterEntry, level: Level, head: Level, lineage: &Lineage) -> bool {
    node.status.as_ref().is_some_and(|status| {
        let at = status.position;
        at.level >= level && lineage.judge(at.epoch, at.level, head) == Verdict::Continue
    })
}
