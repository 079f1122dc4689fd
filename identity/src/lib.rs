//! Who speaks for what in a cluster, and TLS 1.3 by it; it knows no message and no daemon.
#![forbid(unsafe_code)]

mod ca;
mod certificate;
mod channel;
mod clock;
mod folder;
mod identity;
mod verify;

pub use ca::{
    AuthorityState, CA_DAYS, CERTIFICATE_DAYS, CaAuthority, CaCertificate, CaContent, CaError,
    CertificateAuthority, CertificateState, DAYS_MAX, Issued, Order, Rotated,
};
pub use certificate::{ParseSerialError, Peer, PeerError, Serial, peer_identity};
pub use channel::{Channel, Closer, HandshakeError, ReadHalf, Socket, WriteHalf};
pub use folder::{IdentityFolder, OpenIdentityError, Reload};
pub use identity::{Holder, Identity, ParseIdentityError, Role};
pub use verify::Standing;
