//! `locus_peer()`: a node that is not ready hands the request to another node, once.
//!
//! It knows addresses only; which peer is ready it does not know, so it takes turns.

use std::ffi::CStr;

use locus_ffi::{Code, Function, Message};

use crate::counters;
use crate::functions;
use crate::state;

/// Marks a request that one node has handed to another: it is not handed on again.
const HOP_HEADER: &str = "X-Locus-Hop";
const HOP_LINE: &str = "X-Locus-Hop: 1\r\n";

/// The script function.
#[derive(Debug)]
pub(crate) struct Peer;

impl Function for Peer {
    const NAME: &'static CStr = c"locus_peer";

    fn run(message: &mut Message<'_>) -> Code {
        let Some(locus) = state::locus().filter(|_| message.is_request()) else {
            return Code::INTERNAL;
        };
        match message.has_header(HOP_HEADER) {
            None => return Code::INTERNAL,
            Some(true) => return functions::ABSENT,
            Some(false) => {}
        }
        let turn = state::with_worker(|worker| worker.next_turn()).unwrap_or(0);
        let peers = &locus.settings.peers;
        let Some(peer) = turn
            .checked_rem(peers.len())
            .and_then(|turn| peers.get(turn))
        else {
            return functions::ABSENT;
        };
        let sent = message
            .append_header(HOP_LINE)
            .and_then(|()| message.set_destination(peer));
        if sent.is_err() {
            return Code::INTERNAL;
        }
        counters::RELAYED.increment();
        functions::FOUND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_header_that_is_looked_for() {
        assert_eq!(HOP_LINE, format!("{HOP_HEADER}: 1\r\n"));
    }
}
