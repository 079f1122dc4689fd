//! What the table promises, tried as a whole; parts have their tests beside them.

mod audit;
mod corrupt;
mod crash;
mod flip;
mod growth;
mod interleave;
mod layout;
mod limits;
mod model;
mod prefixes;
mod protocol;
mod repair;
mod repair_crash;
mod rot;
mod support;
mod threads;
