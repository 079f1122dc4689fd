//! The two ends on one virtual clock: what the group must do as a whole.

mod flow;
mod hostile;
mod life;
mod patterns;
mod world;
