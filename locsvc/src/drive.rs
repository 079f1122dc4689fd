//! The core and its log together, one input at a time; the same steps serve and replay. It knows no socket
//! and no clock.

use locus_distribution::{GroupDatagram, LogFrame};
use locus_proto::Timestamp;

use crate::core::{Core, Input, Output, Transmit};
use crate::event::Event;
use crate::log::{AppendError, Folder, Log};
use crate::master::{MemoryFault, RecoverError};
use crate::provision::Answer;
use locus_distribution::Peer;
use locus_proto::MasterTime;

/// Where what the core says goes.
pub trait Sink {
    /// Bytes for a node.
    fn transmit(&mut self, transmit: Transmit);
    /// A datagram for the group, or a repair for one node of it.
    fn datagram(&mut self, datagram: GroupDatagram);
    /// An answer for the API.
    fn answer(&mut self, ticket: u64, answer: Answer);
    /// A connection to be closed, behind what was transmitted to it.
    fn close(&mut self, peer: Peer);
    /// Service time, once a second.
    fn alive(&mut self, now: Timestamp, time: MasterTime);
    /// A line for the operator.
    fn event(&mut self, event: Event);
}

/// Why the process has to end. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The log was refused by the state that follows from it.
    #[error("the log does not lead on")]
    Recover(#[from] RecoverError),
    /// The table in memory is not what was written.
    #[error(
        "the table in memory is not what was written there, by a fault of this machine's memory or of \
         locsvc. Nothing was committed since, and the nodes go on answering. Start locsvc again (systemd \
         does): the table is made anew from the log. If this comes back, test the memory, or move locsvc \
         to another machine"
    )]
    Memory(#[from] MemoryFault),
}

/// A core and its log.
#[derive(Debug)]
pub struct Drive<F: Folder> {
    core: Core,
    log: Log<F>,
    /// What the core has asked to be made durable; its next input says what became of it.
    pending: Option<LogFrame>,
}

impl<F: Folder> Drive<F> {
    /// Returns a core that has seen all of `log`.
    pub fn new(core: Core, log: Log<F>) -> Self {
        Self {
            core,
            log,
            pending: None,
        }
    }

    /// Returns the core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Returns the log.
    pub fn log(&self) -> &Log<F> {
        &self.log
    }

    /// Gives one input to the core and does what it asks for, except to append.
    ///
    /// Returns the inputs that follow from it: that frames could not be read.
    ///
    /// # Errors
    /// [`DriveError`]: what was said is said, nothing that was asked for is to be appended.
    pub fn handle(
        &mut self,
        now: Timestamp,
        input: Input,
        sink: &mut impl Sink,
    ) -> Result<Vec<Input>, DriveError> {
        self.core.handle_input(now, input)?;
        let mut unreadable = Vec::new();
        loop {
            while let Some(transmit) = self.core.poll_transmit() {
                sink.transmit(transmit);
            }
            while let Some(datagram) = self.core.poll_datagram() {
                sink.datagram(datagram);
            }
            match self.core.poll_output() {
                None => break,
                Some(Output::Append(frame)) => self.pending = Some(frame),
                Some(Output::ReadLog {
                    peer,
                    after,
                    bytes_max,
                }) => match self.log.read(after, bytes_max) {
                    Ok(frames) => self.core.handle_frames(now, peer, frames),
                    Err(error) => {
                        let reason = chain(&error);
                        unreadable.push(Input::LogUnreadable { peer, reason });
                    }
                },
                Some(Output::ReadLogEnd) => match self.log.read_end() {
                    Ok(end) => self.core.handle_log_end(now, end),
                    Err(error) => {
                        let reason = chain(&error);
                        unreadable.push(Input::LogEndUnreadable { reason });
                    }
                },
                Some(Output::Answer { ticket, answer }) => sink.answer(ticket, answer),
                Some(Output::Close { peer }) => sink.close(peer),
                Some(Output::Alive(time)) => sink.alive(now, time),
                Some(Output::Event(event)) => sink.event(event),
            }
        }
        match self.core.fault() {
            Some(fault) => Err(fault.into()),
            None => Ok(unreadable),
        }
    }

    /// Makes durable what the core has asked for; returns the input that says so, if it has asked.
    ///
    /// # Errors
    /// [`AppendError::Poisoned`]: the process has to end.
    pub fn append(&mut self) -> Result<Option<Input>, AppendError> {
        let Some(frame) = self.pending.take() else {
            return Ok(None);
        };
        match self.log.append(frame) {
            Ok(()) => Ok(Some(Input::Committed)),
            Err(AppendError::Refused(source)) => {
                let reason = source.to_string();
                Ok(Some(Input::CommitFailed { reason }))
            }
            Err(error @ AppendError::Poisoned { .. }) => Err(error),
        }
    }

    /// Forgets what the core has asked to be made durable: a replay knows that it was refused.
    ///
    /// Returns whether there was something.
    pub fn discard(&mut self) -> bool {
        self.pending.take().is_some()
    }

    /// Appends a frame that is known to be durable: a replay reads it from the recording.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_recovered(&mut self, frame: LogFrame) -> Result<(), AppendError> {
        self.log.append(frame)
    }
}

#[cfg(test)]
impl<F: Folder> Drive<F> {
    /// Returns what a test may disturb.
    pub(crate) fn parts(&mut self) -> (&mut Core, &mut Log<F>) {
        (&mut self.core, &mut self.log)
    }
}

/// Returns an error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
