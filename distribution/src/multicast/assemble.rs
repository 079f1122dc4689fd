//! Puts fragments together to distribution frames and lets none pass that the master did not sign.
//!
//! It knows no seq but that of the frame's first datagram. A member can seal data, since it has the group's
//! key; what it sealed never leaves here, and the fragments are asked for again.

use locus_proto::Message;
use locus_proto::v1::{FragmentFlags, GROUP_FRAME_BYTES_MAX, GroupFrame};

use crate::seal::Verifier;

/// What a fragment came to.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The frame goes on.
    More,
    /// The frame is whole and signed: its messages, and how many bytes they have.
    Frame(Vec<Message>, usize),
    /// A frame cannot be so, or is not signed: everything from this seq on is thrown away.
    Mistrusted {
        /// The first of them.
        first: u64,
    },
    /// The master signed what it must not: asking again is no use.
    Unexpected,
}

/// The distribution frame that is being put together.
#[derive(Debug)]
pub(super) struct Assembler {
    stream: u64,
    verifier: Verifier,
    /// Seq of the first fragment; `None` between frames.
    first: Option<u64>,
    frame: Vec<u8>,
}

impl Assembler {
    pub(super) fn new(stream: u64, verifier: Verifier) -> Self {
        Self {
            stream,
            verifier,
            first: None,
            frame: Vec::new(),
        }
    }

    /// Takes the fragment with this seq, which follows the one before.
    pub(super) fn push(&mut self, seq: u64, flags: FragmentFlags, payload: &[u8]) -> Step {
        let first = *self.first.get_or_insert(seq);
        let begins = first == seq;
        let fits = self.frame.len() + payload.len() <= GROUP_FRAME_BYTES_MAX;
        if flags.first != begins || !fits {
            self.clear();
            return Step::Mistrusted { first };
        }
        self.frame.extend_from_slice(payload);
        if !flags.last {
            return Step::More;
        }
        let step = match self.verifier.verify(self.stream, first, &mut self.frame) {
            true => GroupFrame::split(&self.frame)
                .and_then(|frame| frame.messages())
                .map_or(Step::Unexpected, |m| Step::Frame(m, self.frame.len())),
            false => Step::Mistrusted { first },
        };
        self.clear();
        step
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Forgets the frame in the making.
    pub(super) fn clear(&mut self) {
        self.first = None;
        self.frame.clear();
    }
}
