//! What may be put into the database and how it is merged there; it knows no log, socket or node.

mod change;
mod expiry;
mod registrar;
mod request;
mod validate;

pub(crate) use change::{Edit, change};
pub(crate) use expiry::{EXPIRED_MAX, ExpiryQueue, drop_expired, live};
pub use registrar::RegistrarLimits;
pub(crate) use registrar::merge;
pub use request::{
    AlarmView, Answer, Audited, CHANGES_MAX, LostView, NodeAudit, NodeRef, NodeView, Outcome,
    ProvisionChange, ProvisionContact, Request, RequestError,
};
pub use validate::{EXPIRES_S_MAX, InvalidRecord};
