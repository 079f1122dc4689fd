//! What the table promises, tried as a whole; parts have their tests beside them.

mod corrupt;
mod crash;
mod flip;
mod interleave;
mod layout;
mod limits;
mod model;
mod prefixes;
mod protocol;
mod support;
mod threads;
