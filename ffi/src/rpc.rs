//! RPC commands: what kamcmd and jsonrpcs ask a module, and flat structures as the answer.
//!
//! It knows the core's RPC interface; it does not know the transport.

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use thiserror::Error;

use crate::bindings::{self, rpc_t, str_};
use crate::text;

/// A command that operators can call.
pub trait RpcCommand {
    /// Name as typed, `module.verb`.
    const NAME: &'static CStr;
    /// One line for `system.methodHelp`.
    const DOC: &'static CStr;

    /// Answers one call; runs in an RPC process.
    ///
    /// # Errors
    /// [`RpcFault`], which the caller sees.
    fn run(request: &RpcRequest<'_>) -> Result<(), RpcFault>;
}

/// A refusal, with a code as SIP's and a text for the operator.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct RpcFault {
    /// Such as 400, 404 or 500.
    pub code: u16,
    /// What is wrong, and what to do.
    pub text: String,
}

impl RpcFault {
    /// Returns a fault with `code` and `text`.
    #[must_use]
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// The answer could not be extended, for want of memory.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the answer is too large")]
pub struct RpcError;

impl From<RpcError> for RpcFault {
    fn from(error: RpcError) -> Self {
        Self::new(500, error.to_string())
    }
}

/// One call.
#[derive(Debug)]
pub struct RpcRequest<'r> {
    rpc: NonNull<rpc_t>,
    context: *mut c_void,
    lent: PhantomData<&'r mut rpc_t>,
}

impl RpcRequest<'_> {
    /// Borrows the call that C passed; `None` when it passed none.
    ///
    /// # Safety
    /// Both pointers are what the core handed to an RPC function, for the time of that call.
    pub(crate) unsafe fn from_raw(rpc: *mut rpc_t, context: *mut c_void) -> Option<Self> {
        NonNull::new(rpc).map(|rpc| Self {
            rpc,
            context,
            lent: PhantomData,
        })
    }

    /// Returns the next argument as text; `None` when there is none.
    #[must_use]
    pub fn argument(&self) -> Option<&[u8]> {
        let mut value = str_::default();
        // SAFETY: the call's own pointers (type invariant) and a place of ours.
        if unsafe { bindings::shim_rpc_argument(self.rpc.as_ptr(), self.context, &raw mut value) }
            != 0
        {
            return None;
        }
        // SAFETY: arguments lie in the call's buffer, which lives as long as the call.
        Some(unsafe { text::bytes(&value) })
    }

    /// Starts a structure as (part of) the answer.
    ///
    /// # Errors
    /// [`RpcError`] when memory is short.
    pub fn add_struct(&self) -> Result<RpcStruct<'_>, RpcError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the call's own pointers (type invariant) and a place of ours.
        let result =
            unsafe { bindings::shim_rpc_struct(self.rpc.as_ptr(), self.context, &raw mut handle) };
        RpcStruct::new(self.rpc, result, handle)
    }

    pub(crate) fn refuse(&self, fault: &RpcFault) {
        // A NUL in a text would end it early in C; nothing of ours has one.
        let text = CString::new(fault.text.as_str()).unwrap_or_default();
        // SAFETY: the call's own pointers (type invariant); the text is copied.
        unsafe {
            bindings::shim_rpc_fault(
                self.rpc.as_ptr(),
                self.context,
                i32::from(fault.code),
                text.as_ptr(),
            );
        }
    }
}

/// A structure of an answer.
#[derive(Debug)]
pub struct RpcStruct<'r> {
    rpc: NonNull<rpc_t>,
    handle: NonNull<c_void>,
    call: PhantomData<&'r ()>,
}

impl<'r> RpcStruct<'r> {
    fn new(rpc: NonNull<rpc_t>, result: i32, handle: *mut c_void) -> Result<Self, RpcError> {
        let handle = NonNull::new(handle)
            .filter(|_| result >= 0)
            .ok_or(RpcError)?;
        Ok(Self {
            rpc,
            handle,
            call: PhantomData,
        })
    }

    /// Adds a text.
    ///
    /// # Errors
    /// [`RpcError`] when memory is short.
    pub fn text(&self, name: &CStr, value: impl AsRef<[u8]>) -> Result<&Self, RpcError> {
        let value = value.as_ref();
        // SAFETY: pointers of this call (type invariant); name and value are copied.
        let result = unsafe {
            bindings::shim_rpc_text(
                self.rpc.as_ptr(),
                self.handle.as_ptr(),
                name.as_ptr(),
                text::pointer(value),
                text::length(value),
            )
        };
        if result < 0 { Err(RpcError) } else { Ok(self) }
    }

    /// Adds a number.
    ///
    /// # Errors
    /// [`RpcError`] when memory is short.
    pub fn number(&self, name: &CStr, value: u64) -> Result<&Self, RpcError> {
        // SAFETY: pointers of this call (type invariant); the name is copied.
        let result = unsafe {
            bindings::shim_rpc_number(
                self.rpc.as_ptr(),
                self.handle.as_ptr(),
                name.as_ptr(),
                value,
            )
        };
        if result < 0 { Err(RpcError) } else { Ok(self) }
    }

    /// Adds a list of structures.
    ///
    /// # Errors
    /// [`RpcError`] when memory is short.
    pub fn list(&self, name: &CStr) -> Result<RpcList<'r>, RpcError> {
        let mut list = ptr::null_mut();
        // SAFETY: pointers of this call (type invariant) and a place of ours.
        let result = unsafe {
            bindings::shim_rpc_list(
                self.rpc.as_ptr(),
                self.handle.as_ptr(),
                name.as_ptr(),
                &raw mut list,
            )
        };
        let handle = NonNull::new(list).filter(|_| result >= 0).ok_or(RpcError)?;
        Ok(RpcList {
            rpc: self.rpc,
            handle,
            call: PhantomData,
        })
    }
}

/// A list of structures in an answer.
#[derive(Debug)]
pub struct RpcList<'r> {
    rpc: NonNull<rpc_t>,
    handle: NonNull<c_void>,
    call: PhantomData<&'r ()>,
}

impl<'r> RpcList<'r> {
    /// Appends a structure.
    ///
    /// # Errors
    /// [`RpcError`] when memory is short.
    pub fn add_struct(&self) -> Result<RpcStruct<'r>, RpcError> {
        let mut handle = ptr::null_mut();
        // SAFETY: pointers of this call (type invariant) and a place of ours.
        let result = unsafe {
            bindings::shim_rpc_list_struct(self.rpc.as_ptr(), self.handle.as_ptr(), &raw mut handle)
        };
        RpcStruct::new(self.rpc, result, handle)
    }
}
