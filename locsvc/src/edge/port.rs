//! The API's way into the core: a bounded channel in, a table of waiting replies out. It reads no request.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use locus_proto::Timestamp;

use super::ApiCounters;
use crate::clock::Clock;
use crate::core::Input;
use crate::provision::{Answer, Request, RequestError};

/// Where edges put what happens; bounded, so that a flood waits at its source.
pub type Inbox = Sender<Arrival>;

/// Something for the core, or for the loop that drives it.
#[derive(Debug)]
pub enum Arrival {
    /// An input of the core.
    Input(Input),
    /// The process is to end: take nothing new.
    Stop,
    /// The API has stopped, and has counted this: flush and leave.
    ApiStopped(ApiCounters),
}

type Reply = Box<dyn FnOnce(Answer) + Send>;
/// `None` when the core has ended.
type Waiting = Option<HashMap<u64, Reply>>;

/// Asks the core from any thread. Clones share the tickets.
#[derive(Clone)]
pub struct ApiPort {
    inbox: Inbox,
    waiting: Arc<Mutex<Waiting>>,
    tickets: Arc<AtomicU64>,
    clock: Clock,
}

/// The other end: gives the core's answers to whoever asked.
pub struct ApiReplies {
    waiting: Arc<Mutex<Waiting>>,
}

impl ApiPort {
    /// Returns a port into `inbox` and the end that delivers its answers.
    pub fn new(inbox: Inbox, clock: Clock) -> (Self, ApiReplies) {
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let replies = ApiReplies {
            waiting: Arc::clone(&waiting),
        };
        let port = Self {
            inbox,
            waiting,
            tickets: Arc::default(),
            clock,
        };
        (port, replies)
    }

    /// Returns the time by which [`Request::Wait`] states its deadline.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Hands `request` to the core, without blocking; `reply` is called once, on the core's thread, so
    /// it must not block (send to a oneshot channel).
    ///
    /// When the inbox is full or the core has ended, `reply` is called at once with
    /// [`RequestError::Busy`]; when the core ends before it answers, `reply` is dropped uncalled.
    pub fn ask(&self, request: Request, reply: impl FnOnce(Answer) + Send + 'static) {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let reply: Reply = Box::new(reply);
        match &mut *lock(&self.waiting) {
            Some(waiting) => drop(waiting.insert(ticket, reply)),
            None => return reply(Answer::Refused(RequestError::Busy)),
        }
        let input = Input::Api { ticket, request };
        if self.inbox.try_send(Arrival::Input(input)).is_err()
            && let Some(reply) = take(&self.waiting, ticket)
        {
            reply(Answer::Refused(RequestError::Busy));
        }
    }
}

impl ApiReplies {
    /// Calls the reply that waits under `ticket`.
    pub fn deliver(&self, ticket: u64, answer: Answer) {
        if let Some(reply) = take(&self.waiting, ticket) {
            reply(answer);
        }
    }

    /// Drops every reply that still waits and refuses what comes: the core has ended.
    pub fn close(&self) {
        drop(lock(&self.waiting).take());
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // A panic while it was held left a whole map: insert and remove do not unwind half-way.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(waiting: &Mutex<Waiting>, ticket: u64) -> Option<Reply> {
    lock(waiting).as_mut()?.remove(&ticket)
}

impl fmt::Debug for ApiPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiPort").finish_non_exhaustive()
    }
}

impl fmt::Debug for ApiReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiReplies").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn level(number: u64) -> Answer {
        Answer::Waited {
            level: locus_proto::Level(number),
            behind: vec![],
            reached: true,
        }
    }

    #[test]
    fn answers_find_whoever_asked_and_a_full_inbox_refuses() {
        let (inbox, arrivals) = crossbeam_channel::bounded(2);
        let (port, replies) = ApiPort::new(inbox, Clock::start());
        let (sender, answers) = mpsc::channel();
        let ask = |name: &'static str| {
            let sender = sender.clone();
            port.ask(Request::Level, move |answer| {
                sender.send((name, answer)).unwrap()
            });
        };
        ask("first");
        ask("second");
        ask("third");
        let busy = Answer::Refused(RequestError::Busy);
        assert_eq!(answers.try_recv(), Ok(("third", busy.clone())));
        let mut tickets = Vec::new();
        while let Ok(arrival) = arrivals.try_recv() {
            let Arrival::Input(Input::Api { ticket, .. }) = arrival else {
                panic!("{arrival:?}");
            };
            tickets.push(ticket);
        }
        replies.deliver(tickets[1], level(2));
        replies.deliver(tickets[1], level(9));
        replies.deliver(tickets[0], level(1));
        assert_eq!(answers.try_recv(), Ok(("second", level(2))));
        assert_eq!(answers.try_recv(), Ok(("first", level(1))));
        assert!(answers.try_recv().is_err(), "each is answered once");
        ask("fourth");
        replies.close();
        ask("fifth");
        assert_eq!(answers.try_recv(), Ok(("fifth", busy)));
        assert!(answers.try_recv().is_err(), "the fourth is dropped");
    }
}
