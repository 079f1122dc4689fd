//! A SIP message in Kamailio's hands: what it says, and what a module may change about it.
//!
//! It knows the shim's calls; it keeps no pointer beyond the call that lent the message.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use thiserror::Error;

use crate::bindings::{self, shim_uri_t, sip_msg_t, str_};
use crate::register::{Register, RegisterFault};
use crate::target::Target;
use crate::text;

/// Kamailio refused a change of the message; its log says why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("kamailio refused to change the message")]
pub struct MessageError;

/// The message that a script function was called with, for the time of that call.
#[derive(Debug)]
pub struct Message<'m> {
    raw: NonNull<sip_msg_t>,
    lent: PhantomData<&'m mut sip_msg_t>,
}

/// The parts of a URI that name someone, as they stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'u> {
    /// User part, not unescaped; of a `tel:` URI the number; empty when there is none.
    pub user: &'u [u8],
    /// Host part; empty for a `tel:` URI.
    pub host: &'u [u8],
    /// Port; 0 when none is given.
    pub port: u16,
    /// Whether the scheme is `sip`, `sips`, `tel` or `tels`.
    pub is_sip: bool,
}

impl<'u> Uri<'u> {
    /// Takes a URI apart with Kamailio's parser; `None` when that cannot.
    #[must_use]
    pub fn parse(uri: &'u [u8]) -> Option<Self> {
        let mut parts = shim_uri_t::default();
        // SAFETY: `uri` is readable for the length given; `parts` is ours.
        let parsed = unsafe {
            bindings::shim_parse_uri(text::pointer(uri), text::length(uri), &raw mut parts)
        };
        if parsed != 0 {
            return None;
        }
        // SAFETY: the parser's strings point into `uri`, which is borrowed for 'u.
        Some(unsafe { Self::of(&parts) })
    }

    /// Takes over what C said.
    ///
    /// # Safety
    /// The texts of `parts` stay readable and unchanged for 'u.
    unsafe fn of(parts: &shim_uri_t) -> Self {
        // SAFETY: the caller's promise.
        let user = unsafe { text::bytes(&parts.user) };
        // SAFETY: the caller's promise.
        let host = unsafe { text::bytes(&parts.host) };
        Self {
            user,
            host,
            port: parts.port,
            is_sip: parts.is_sip != 0,
        }
    }

    /// Returns whether host and port are those of a socket or an alias of this server.
    #[must_use]
    pub fn is_own(&self) -> bool {
        // SAFETY: `host` is readable for the length given; the core's list of sockets is fixed.
        unsafe {
            bindings::shim_is_own_address(
                text::pointer(self.host),
                text::length(self.host),
                self.port,
            ) != 0
        }
    }
}

impl Message<'_> {
    /// Borrows the message that C passed; `None` when it passed none.
    ///
    /// # Safety
    /// `raw` is null or a message that stays valid, and that nobody else uses, until the value is gone.
    pub(crate) unsafe fn from_raw(raw: *mut sip_msg_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self {
            raw,
            lent: PhantomData,
        })
    }

    fn raw(&self) -> *mut sip_msg_t {
        self.raw.as_ptr()
    }

    /// Returns whether it is a request; a script function may be called with a reply, too.
    #[must_use]
    pub fn is_request(&self) -> bool {
        // SAFETY: a valid message (type invariant).
        unsafe { bindings::shim_is_request(self.raw()) != 0 }
    }

    /// Returns the Request-URI as changed so far; `None` for a reply.
    #[must_use]
    pub fn request_uri(&self) -> Option<&[u8]> {
        let mut uri = str_::default();
        // SAFETY: a valid message (type invariant) and a place of ours.
        if unsafe { bindings::shim_request_uri(self.raw(), &raw mut uri) } != 0 {
            return None;
        }
        // SAFETY: the text is freed only by a change of the message, which needs `&mut self`.
        Some(unsafe { text::bytes(&uri) })
    }

    /// Returns the parts of the Request-URI as changed so far; `None` for a reply, or when it cannot be parsed.
    ///
    /// Cheaper than [`Uri::parse`]: Kamailio keeps them with the message, until the URI is changed.
    #[must_use]
    pub fn request_uri_parts(&self) -> Option<Uri<'_>> {
        let mut parts = shim_uri_t::default();
        // SAFETY: a valid message (type invariant) and a place of ours; parsing adds to the message only.
        if unsafe { bindings::shim_request_uri_parts(self.raw(), &raw mut parts) } != 0 {
            return None;
        }
        // SAFETY: the texts are freed only by a change of the message, which needs `&mut self`.
        Some(unsafe { Uri::of(&parts) })
    }

    /// Returns the bit of the request's method, as contacts list methods; 0 for a reply.
    #[must_use]
    pub fn method(&self) -> u32 {
        // SAFETY: a valid message (type invariant).
        unsafe { bindings::shim_method(self.raw()) }
    }

    /// Returns whether it is a request outside of a dialog, of a method that is meant for whom the Request-URI names:
    /// INVITE, MESSAGE, SUBSCRIBE, NOTIFY, REFER or OPTIONS. False while To is not parsed.
    ///
    /// ACK, CANCEL, BYE and the like follow a request that has found its way; a REGISTER is for the registrar.
    #[must_use]
    pub fn is_initial(&self) -> bool {
        // SAFETY: a valid message (type invariant).
        unsafe { bindings::shim_is_initial(self.raw()) != 0 }
    }

    /// Returns whether To carries a tag: the request belongs to a dialog.
    #[must_use]
    pub fn has_to_tag(&self) -> bool {
        // SAFETY: a valid message (type invariant); parsing adds to it only.
        unsafe { bindings::shim_has_to_tag(self.raw()) != 0 }
    }

    /// Returns whether the script set message flag `flag`; false for a number that is no flag.
    #[must_use]
    pub fn flag_is_set(&self, flag: i32) -> bool {
        // SAFETY: a valid message (type invariant); the shim checks the range.
        unsafe { bindings::shim_flag_is_set(self.raw(), flag) != 0 }
    }

    /// Returns whether a header of that name is present; `None` when the headers cannot be parsed.
    #[must_use]
    pub fn has_header(&self, name: &str) -> Option<bool> {
        let name = name.as_bytes();
        // SAFETY: a valid message (type invariant); `name` is readable for the length given.
        let found = unsafe {
            bindings::shim_has_header(self.raw(), text::pointer(name), text::length(name))
        };
        u8::try_from(found).ok().map(|found| found != 0)
    }

    /// Appends a header line, which must end in CR LF, to the request that is sent on.
    ///
    /// # Errors
    /// [`MessageError`] when the headers cannot be parsed or memory is short.
    pub fn append_header(&mut self, line: &str) -> Result<(), MessageError> {
        let line = line.as_bytes();
        // SAFETY: a valid message (type invariant); the line is copied.
        done(unsafe {
            bindings::shim_append_header(self.raw(), text::pointer(line), text::length(line))
        })
    }

    /// Makes `target` the Request-URI and next hop, and resets what an earlier one left, except branches, flags and a
    /// sending socket, which may be the script's.
    ///
    /// # Errors
    /// [`MessageError`] when the path is malformed or memory is short; then another target is to be set, or the
    /// request refused.
    pub fn set_target(&mut self, target: &Target<'_>) -> Result<(), MessageError> {
        let target = target.to_shim();
        // SAFETY: a valid message (type invariant); the core copies every text it keeps.
        done(unsafe { bindings::shim_set_target(self.raw(), &raw const target) })
    }

    /// Appends `target` as a further branch, to be tried beside or after the earlier ones.
    ///
    /// # Errors
    /// [`MessageError`] when the branches are full or a part is malformed; the earlier ones stay.
    pub fn add_branch(&mut self, target: &Target<'_>) -> Result<(), MessageError> {
        let target = target.to_shim();
        // SAFETY: as for `set_target`.
        done(unsafe { bindings::shim_add_branch(self.raw(), &raw const target) })
    }

    /// Sets the next hop alone, as `$du` does.
    ///
    /// # Errors
    /// [`MessageError`] when memory is short.
    pub fn set_destination(&mut self, uri: &[u8]) -> Result<(), MessageError> {
        // SAFETY: a valid message (type invariant); the core copies the URI.
        done(unsafe {
            bindings::shim_set_destination(self.raw(), text::pointer(uri), text::length(uri))
        })
    }

    /// Sends a reply with `headers`, which are complete lines; stateful when there is a transaction.
    ///
    /// The module must have bound sl at its start ([`crate::Module::NEEDS_SL`]).
    ///
    /// # Errors
    /// [`MessageError`] when nothing was sent.
    pub fn reply(&mut self, code: u16, reason: &CStr, headers: &[u8]) -> Result<(), MessageError> {
        // SAFETY: a valid message (type invariant); sl and the core copy reason and headers.
        done(unsafe {
            bindings::shim_reply(
                self.raw(),
                i32::from(code),
                reason.as_ptr(),
                text::pointer(headers),
                text::length(headers),
            )
        })
    }

    /// Reads a REGISTER as registrar does.
    ///
    /// # Errors
    /// [`RegisterFault`] by what is wrong with the request; registrar refuses the same.
    pub fn register(&self) -> Result<Register<'_>, RegisterFault> {
        let mut view = MaybeUninit::uninit();
        // SAFETY: a valid message (type invariant); the shim fills the whole view before anything else.
        let fault = unsafe { bindings::shim_register(self.raw(), view.as_mut_ptr()) };
        // SAFETY: written in full (zeroed first), whatever the shim returned.
        let view = unsafe { view.assume_init() };
        match RegisterFault::from_number(fault) {
            None => Ok(Register::new(view)),
            Some(fault) => Err(fault),
        }
    }

    /// Returns a script parameter's value for this message, copied into `buffer`; `None` when it has none or is
    /// too long.
    ///
    /// # Safety
    /// `parameter` is what the fixup made of the parameter.
    pub(crate) unsafe fn parameter<'b>(
        &self,
        parameter: *mut std::ffi::c_char,
        buffer: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        let mut value = str_::default();
        // SAFETY: the caller vouches for the parameter; the message is valid (type invariant).
        if unsafe { bindings::shim_parameter_text(self.raw(), parameter, &raw mut value) } != 0 {
            return None;
        }
        // SAFETY: the value is copied before anything can change what it points to.
        copy(unsafe { text::bytes(&value) }, buffer)
    }
}

/// Copies a value that may lie in the message itself, which the function called with it is about to change.
pub(crate) fn copy<'b>(value: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let place = buffer.get_mut(..value.len())?;
    place.copy_from_slice(value);
    Some(place)
}

fn done(result: std::ffi::c_int) -> Result<(), MessageError> {
    if result == 0 {
        Ok(())
    } else {
        Err(MessageError)
    }
}
