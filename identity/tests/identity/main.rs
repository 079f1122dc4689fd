//! The CA, identity folders and channels as daemons and operators use them.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod ca;
mod channel;
mod common;
mod folder;
mod handshake;
mod openssl;
