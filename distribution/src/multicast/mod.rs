//! The group: one stream of signed distribution frames to many nodes by multicast (LRM); it knows no socket,
//! no log, no table and no connection.
//!
//! ```text
//!  send ─► gather ─► ring ─► pacer ─► DATA ══════════► window ─► assemble ─► poll_message
//!          sign      seal    │ ▲      BEAT ══════════►   │ holes
//!                    repairs ┘ │      CONFIRM, GONE ═►   ▼
//!  members ◄──────────────── nacks ◄─ NACK, STATUS ───  nack
//! ```
//!
//! **A distribution frame** is a run of v1 messages under one Ed25519 signature. It closes when the last one
//! was closed [`GATHER_WAIT`](gather::GATHER_WAIT) ago, or at [`GATHER_BYTES`](gather::GATHER_BYTES), is cut
//! into DATA datagrams with seqs from 1 without a gap, and each is sealed once, into a ring of
//! [`RING_DATAGRAMS`]. A repair is the same bytes again, so no nonce is used twice ([`crate::seal`]).
//!
//! **A receiver** *listens* from the offer on: it holds the last [`LISTEN_DATAGRAMS`](receiver::LISTEN_DATAGRAMS),
//! asks for nothing, delivers nothing, and says `Heard` when its trial is passed ([`trial`]): at first with the
//! first datagram, after leaving when it heard well for 5 s, doubling to 60 s. With the cut it *follows*: from
//! that seq on everything is taken in order, and a frame's messages leave only when its signature holds. It
//! leaves by itself (`Lost`) when nothing authentic came for
//! [`GROUP_SILENCE_MAX`](receiver::GROUP_SILENCE_MAX), when what it lacks is below the ring (`low` of any
//! datagram, GONE), when the group is a whole window ahead for
//! [`OVERRUN_AFTER`](receiver::OVERRUN_AFTER), or when frames go on failing.
//!
//! **NACKs** go to the sender by unicast, so a node never hears another's: repairs and CONFIRMs suppress. A gap,
//! in the seqs or against a BEAT's highest, is asked for after a random time in [0, T], exponentially
//! distributed so that few are early (RFC 5401 §3.2.2); T is a round trip, at least 1 ms, and grows with ln N
//! beyond 16 members. One NACK of at most 40 ranges is outstanding; the next comes after
//! max(3 ms, 2 rtt) × (1..2), doubling while nothing comes, at most 400 ms ([`nack`]). The round trip is measured
//! by the sender from BEAT and STATUS and told to all (GRTT, RFC 5401 §3.7, RFC 5740 §5.5.1): what three of four
//! members are within, since one slow node must not stretch the timers of all. The first beat comes 1 ms after
//! the last data, doubling to 1 s; so the loss of a last datagram shows at once, and silence within three.
//!
//! **Repairs** leave lowest first, once for all who ask within a hold of 1.5 round trips, at least 2 ms (RFC 5401
//! §3.2.4). One goes to a single node if the others have said that they have it, or if, by the measured loss, less
//! than one other in twenty lacks it and none asks within 1 ms; otherwise to the group. A NACK for eight or more
//! that others may lack is answered by a CONFIRM at once (NORM_CMD(REPAIR_ADV), RFC 5740 §4.2.3.5): a burst is
//! likely lost by all, and a thousand receivers then send two or three NACKs ([`repair`]).
//!
//! **The rate** is a token bucket; repairs take half of it at most. It halves when more than that is asked for in
//! 100 ms, or when most members' round trips are 50 ms above their shortest: queues grow before they
//! overflow, and a repair behind a full queue is late. Otherwise it rises by a thirty-second each 100 ms
//! ([`pacer`]). More than 2,000 NACKs a second are dropped, and beats tell all to wait up to eight times as long.
//! The **window**: no datagram is more than [`WINDOW_DATAGRAMS`] ahead of the slowest member, and a member
//! without progress for [`LAGGING_AFTER`] is put out; if most are stuck at once it is not they, and they are given
//! four times that ([`members`]).
//!
//! **Trust.** Header, stream, key id, node, seq and window are looked at before the seal is opened, and the seal is
//! opened before anything is kept. The seal says "a member", the signature "the master". So a member that was
//! taken over can seal DATA: its fragments make a frame fail, which is thrown away and asked for again, and
//! after [`MISTRUSTED_IN_A_ROW`](receiver::MISTRUSTED_IN_A_ROW) failures the node leaves for its connection. It can forge BEAT,
//! CONFIRM and GONE: timers are clamped, a CONFIRM puts off asking [`CONFIRMS_MAX`](window::CONFIRMS_MAX) times at
//! most, and one farewell is the worst that follows. NACK and STATUS are under a key per node and offer, with
//! ascending seqs.

mod assemble;
mod config;
mod counters;
mod draw;
mod gather;
mod keys;
mod members;
mod nack;
mod nacks;
mod pacer;
mod receiver;
mod repair;
mod ring;
mod sender;
mod trial;
mod window;

#[cfg(test)]
mod tests;

pub use config::{
    GroupConfig, GroupDatagram, GroupSenderEvent, GroupTarget, LAGGING_AFTER, RING_DATAGRAMS,
    WINDOW_DATAGRAMS,
};
pub use counters::{GroupReceiverCounters, GroupSenderCounters};
pub use receiver::{GroupReceiver, GroupReceiverEvent};
pub use sender::GroupSender;
