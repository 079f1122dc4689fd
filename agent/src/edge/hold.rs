//! What the master sends while the table cannot take it: the memory for a new one is still coming, or changes
//! would overtake its growth. It loads nothing.
//!
//! It waits in the channel, and behind that in the connection, so it takes no memory here. Yet it is no
//! silence, of which the core is told; and a master gives a node up that takes nothing for long, so that now
//! and then a message with records is let through to wait with the table's owner.

use std::time::Duration;

use crossbeam_channel::Receiver;
use locus_proto::{Message, Timestamp};

use crate::core::Input;

/// Time between two words to the core: well below every silence that counts.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Time between two messages that are let through: well below the 30 s after which a master gives up.
const PASS_EVERY: Duration = Duration::from_secs(5);

/// Inputs of the master that are held back.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// The core knows of it, and was not told of its end.
    is_told: bool,
    tell_at: Timestamp,
    pass_at: Timestamp,
    /// Taken from the channel, and not to be passed: it is the next.
    aside: Option<Input>,
}

impl Hold {
    /// Returns what the core gets as soon as the table can take no more, before it gets the table's answer: it
    /// has changes of the group itself that would follow.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<Input> {
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        self.tell_at = now.plus(TELL_EVERY);
        Some(Input::Held)
    }

    /// Returns what the core gets now though the table cannot take it; `can_wait`: records may come.
    pub(super) fn pass(
        &mut self,
        now: Timestamp,
        can_wait: bool,
        master: &Receiver<Input>,
    ) -> Option<Input> {
        if now >= self.tell_at {
            self.is_told = true;
            self.tell_at = now.plus(TELL_EVERY);
            return Some(Input::Held);
        }
        if now < self.pass_at || !can_wait || self.aside.is_some() {
            return None;
        }
        self.pass_at = now.plus(PASS_EVERY);
        let next = master.try_recv().ok()?;
        if let Input::Received {
            message: Message::SnapshotPart(_),
            ..
        } = &next
        {
            return Some(next);
        }
        self.aside = Some(next);
        None
    }

    /// Returns what comes before all that is in the channel, once the table can take it; call until `None`.
    pub(super) fn release(&mut self) -> Option<Input> {
        if std::mem::take(&mut self.is_told) {
            return Some(Input::Released);
        }
        self.aside.take()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;
    use locus_proto::v1::SnapshotPart;

    use super::*;
    use crate::core::Connection;

    fn received(message: Message) -> Input {
        Input::Received {
            connection: Connection(1),
            message,
        }
    }

    #[test]
    fn records_pass_now_and_then_and_what_is_none_waits_in_its_place() {
        let (sender, master) = unbounded();
        let records = Vec::new();
        let part = || {
            received(Message::SnapshotPart(SnapshotPart {
                records: records.clone(),
            }))
        };
        let closed = || Input::Closed {
            connection: Connection(1),
            reason: "gone".into(),
        };
        for input in [part(), part(), closed(), part()] {
            sender.send(input).unwrap();
        }
        let mut hold = Hold::default();
        let (mut now, mut passed) = (Timestamp(7_000_000_000), Vec::new());
        let end = now.plus(PASS_EVERY * 4);
        while now < end {
            while let Some(input) = hold.pass(now, true, &master) {
                passed.push(input);
            }
            now = now.plus(Duration::from_millis(100));
        }
        let told = passed.iter().filter(|input| **input == Input::Held).count();
        assert_eq!(told, 40);
        passed.retain(|input| *input != Input::Held);
        assert_eq!(passed, [part(), part()]);
        assert_eq!(hold.release(), Some(Input::Released));
        assert_eq!(hold.release(), Some(closed()));
        assert_eq!(hold.release(), None);
        assert_eq!(master.try_recv(), Ok(part()));
    }

    #[test]
    fn the_core_is_told_of_its_beginning_once_and_of_its_end_once() {
        let (_sender, master) = unbounded();
        let mut hold = Hold::default();
        let now = Timestamp(7_000_000_000);
        assert_eq!(hold.release(), None);
        assert_eq!(hold.begin(now), Some(Input::Held));
        assert_eq!(hold.begin(now), None);
        assert_eq!(hold.pass(now, true, &master), None, "it knows");
        let later = now.plus(TELL_EVERY);
        assert_eq!(hold.pass(later, true, &master), Some(Input::Held));
        assert_eq!(hold.release(), Some(Input::Released));
        assert_eq!(hold.release(), None);
    }

    #[test]
    fn nothing_passes_where_no_more_can_wait() {
        let (sender, master) = unbounded();
        sender.send(Input::Timeout).unwrap();
        let mut hold = Hold::default();
        let now = Timestamp(7_000_000_000);
        assert_eq!(hold.pass(now, false, &master), Some(Input::Held));
        assert_eq!(hold.pass(now, false, &master), None);
        assert_eq!(master.len(), 1);
    }
}
