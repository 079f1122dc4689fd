//! A REGISTER as registrar reads it: who, which contacts, from where.
//!
//! It knows the request alone; what becomes of the contacts is decided elsewhere.

use std::ffi::c_int;
use std::marker::PhantomData;

use thiserror::Error;

use crate::bindings::{self, shim_contact_t, shim_register_t};
use crate::text;

/// Contacts that one request may carry.
pub const CONTACTS_MAX: usize = 32;
const _: () = assert!(bindings::SHIM_CONTACTS_MAX == 32);
/// Longest Path in bytes that Kamailio can carry in a branch; its registrar refuses longer ones, too.
pub const BRANCH_PATH_BYTES_MAX: usize = bindings::SHIM_BRANCH_PATH_MAX as usize;

/// What is wrong with a REGISTER; the text is registrar's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RegisterFault {
    /// The headers cannot be parsed.
    #[error("Message parse error")]
    Headers,
    /// There is no usable To.
    #[error("To header not found")]
    NoTo,
    /// There is no Call-ID.
    #[error("Call-ID header not found")]
    NoCallId,
    /// There is no CSeq.
    #[error("CSeq header not found")]
    NoCseq,
    /// Expires cannot be parsed.
    #[error("Expires parse error")]
    Expires,
    /// A Contact cannot be parsed.
    #[error("Contact parse error")]
    Contact,
    /// `*` with an expiry other than 0.
    #[error("* used in contact and expires is not zero")]
    StarExpires,
    /// `*` beside another contact.
    #[error("* used in contact and more than 1 contact")]
    StarMixed,
    /// CSeq is no number of 32 bits.
    #[error("Invalid CSeq number")]
    Cseq,
    /// A q value is out of range.
    #[error("Invalid q param in contact")]
    Q,
    /// A methods parameter cannot be parsed.
    #[error("Invalid methods param in contact")]
    Methods,
    /// A reg-id is 0 or no number.
    #[error("Invalid Reg-Id number")]
    RegId,
    /// A Path is unreadable, or its first hop is no loose router.
    #[error("Path parse error")]
    Path,
    /// More contacts or Path headers than one request may carry.
    #[error("Too many contacts in one request")]
    TooMany,
    /// The request requires outbound (RFC 5626), which is not offered.
    #[error("No support for Outbound on server")]
    Outbound,
}

impl RegisterFault {
    pub(crate) fn from_number(number: c_int) -> Option<Self> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match number {
            bindings::shim_register_fault_SHIM_REGISTER_OK => None,
            bindings::shim_register_fault_SHIM_REGISTER_NO_TO => Some(Self::NoTo),
            bindings::shim_register_fault_SHIM_REGISTER_NO_CALL_ID => Some(Self::NoCallId),
            bindings::shim_register_fault_SHIM_REGISTER_NO_CSEQ => Some(Self::NoCseq),
            bindings::shim_register_fault_SHIM_REGISTER_EXPIRES => Some(Self::Expires),
            bindings::shim_register_fault_SHIM_REGISTER_CONTACT => Some(Self::Contact),
            bindings::shim_register_fault_SHIM_REGISTER_STAR_EXPIRES => Some(Self::StarExpires),
            bindings::shim_register_fault_SHIM_REGISTER_STAR_MIXED => Some(Self::StarMixed),
            bindings::shim_register_fault_SHIM_REGISTER_CSEQ => Some(Self::Cseq),
            bindings::shim_register_fault_SHIM_REGISTER_Q => Some(Self::Q),
            bindings::shim_register_fault_SHIM_REGISTER_METHODS => Some(Self::Methods),
            bindings::shim_register_fault_SHIM_REGISTER_REG_ID => Some(Self::RegId),
            bindings::shim_register_fault_SHIM_REGISTER_PATH => Some(Self::Path),
            bindings::shim_register_fault_SHIM_REGISTER_TOO_MANY => Some(Self::TooMany),
            bindings::shim_register_fault_SHIM_REGISTER_OUTBOUND => Some(Self::Outbound),
            // SHIM_REGISTER_HEADERS, and what a newer shim might add.
            _ => Some(Self::Headers),
        }
    }
}

/// A REGISTER; its texts lie in the message.
#[derive(Debug)]
pub struct Register<'m> {
    view: shim_register_t,
    message: PhantomData<&'m [u8]>,
}

/// One contact of a REGISTER.
#[derive(Clone, Copy, Debug)]
pub struct RegisterContact<'m> {
    view: &'m shim_contact_t,
}

impl<'m> Register<'m> {
    pub(crate) fn new(view: shim_register_t) -> Self {
        Self {
            view,
            message: PhantomData,
        }
    }

    /// Returns the URI of To: the address-of-record.
    #[must_use]
    pub fn to_uri(&self) -> &'m [u8] {
        // SAFETY: points into the message, which stays as it is during 'm.
        unsafe { text::bytes(&self.view.to_uri) }
    }

    /// Returns the Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &'m [u8] {
        // SAFETY: as for `to_uri`.
        unsafe { text::bytes(&self.view.call_id) }
    }

    /// Returns the number of CSeq.
    #[must_use]
    pub fn cseq(&self) -> u32 {
        self.view.cseq
    }

    /// Returns User-Agent; empty when there is none.
    #[must_use]
    pub fn user_agent(&self) -> &'m [u8] {
        // SAFETY: as for `to_uri`.
        unsafe { text::bytes(&self.view.user_agent) }
    }

    /// Returns the bodies of the Path headers, topmost first.
    pub fn paths(&self) -> impl Iterator<Item = &'m [u8]> + '_ {
        let count = usize::try_from(self.view.path_count).unwrap_or(0);
        // SAFETY: as for `to_uri`.
        self.view
            .paths
            .iter()
            .take(count)
            .map(|path| unsafe { text::bytes(path) })
    }

    /// Returns whether the user agent supports Path, so that a reply may echo it.
    #[must_use]
    pub fn supports_path(&self) -> bool {
        self.view.supports_path != 0
    }

    /// Returns the receiving socket as `proto:host:port`.
    #[must_use]
    pub fn socket(&self) -> &'m [u8] {
        // SAFETY: a socket's text lives as long as the server.
        unsafe { text::bytes(&self.view.socket) }
    }

    /// Returns the sender as `sip:address:port[;transport=…]`; empty when the core cannot say.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        let len = usize::try_from(self.view.source_len).unwrap_or(0);
        let source = self.view.source.get(..len).unwrap_or(&[]);
        // SAFETY: the same bytes with the sign taken off, borrowed from `self`.
        unsafe { std::slice::from_raw_parts(source.as_ptr().cast::<u8>(), source.len()) }
    }

    /// Returns the connection over which it came; `None` for a datagram.
    #[must_use]
    pub fn tcp_connection(&self) -> Option<i32> {
        (self.view.tcp_connection >= 0).then_some(self.view.tcp_connection)
    }

    /// Returns the branch flags that the script set.
    #[must_use]
    pub fn branch_flags(&self) -> u32 {
        self.view.branch_flags
    }

    /// Returns whether all contacts are to be removed: the only contact is `*`.
    #[must_use]
    pub fn is_star(&self) -> bool {
        self.view.star != 0
    }

    /// Returns the contacts in the order of the request, at most [`CONTACTS_MAX`].
    pub fn contacts(&self) -> impl Iterator<Item = RegisterContact<'_>> {
        let count = usize::try_from(self.view.contact_count).unwrap_or(0);
        self.view
            .contacts
            .iter()
            .take(count)
            .map(|view| RegisterContact { view })
    }
}

impl<'m> RegisterContact<'m> {
    /// Returns the contact's URI.
    #[must_use]
    pub fn uri(&self) -> &'m [u8] {
        // SAFETY: points into the message, which outlives the borrowed view.
        unsafe { text::bytes(&self.view.uri) }
    }

    /// Returns `+sip.instance` without its quotes; empty when there is none.
    #[must_use]
    pub fn instance(&self) -> &'m [u8] {
        // SAFETY: as for `uri`.
        unsafe { text::bytes(&self.view.instance) }
    }

    /// Returns the seconds asked for by the parameter or by Expires; `None` when neither speaks.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        u32::try_from(self.view.expires).ok()
    }

    /// Returns q in thousandths; `None` when unspecified.
    #[must_use]
    pub fn q(&self) -> Option<u16> {
        u16::try_from(self.view.q).ok()
    }

    /// Returns the methods it accepts, one bit each; all bits when nothing is said.
    #[must_use]
    pub fn methods(&self) -> u32 {
        self.view.methods
    }

    /// Returns `reg-id`; 0 when there is none.
    #[must_use]
    pub fn reg_id(&self) -> u32 {
        self.view.reg_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_number_has_its_own_text() {
        assert_eq!(RegisterFault::from_number(0), None);
        let texts: std::collections::BTreeSet<String> = (1..=15)
            .map(|number| RegisterFault::from_number(number).unwrap().to_string())
            .collect();
        assert_eq!(texts.len(), 15);
        assert_eq!(RegisterFault::from_number(-5), Some(RegisterFault::Headers));
    }
}
