//! Module parameters: places that Kamailio fills while it reads the configuration.
//!
//! It knows when they are written, which is before any process is forked; it does not know what they mean.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::bindings::{self, modparam_t, str_};
use crate::guard::guard;
use crate::text;

/// A parameter that is a text; a `static` of the module.
#[derive(Debug)]
#[repr(transparent)]
pub struct TextParameter(UnsafeCell<str_>);

// SAFETY: Kamailio writes it while its only process, with its only thread, reads the configuration; later, in every
// process, it is only read (SAFETY.md, "Parameters").
unsafe impl Sync for TextParameter {}

impl TextParameter {
    /// Returns a parameter that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(str_ {
            s: std::ptr::null_mut(),
            len: 0,
        }))
    }

    /// Returns what the configuration says; `None` when it says nothing or an empty text.
    #[must_use]
    pub fn get(&self) -> Option<&'static [u8]> {
        // SAFETY: no longer written when anything can read it (see `Sync` above).
        let value = unsafe { &*self.0.get() };
        // SAFETY: the text lies in memory of the core that it never frees, as a parameter is never taken back.
        let value: &'static [u8] = unsafe { text::bytes(value) };
        (!value.is_empty()).then_some(value)
    }

    /// Where Kamailio writes the value.
    pub(crate) const fn place(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

impl Default for TextParameter {
    fn default() -> Self {
        Self::new()
    }
}

/// A parameter that is a whole number; a `static` of the module.
#[derive(Debug)]
#[repr(transparent)]
pub struct IntParameter(AtomicI32);

impl IntParameter {
    /// Returns a parameter with its default.
    #[must_use]
    pub const fn new(default: i32) -> Self {
        Self(AtomicI32::new(default))
    }

    /// Returns what the configuration says, or the default.
    #[must_use]
    pub fn get(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Where Kamailio writes the value: an int, while nothing else runs.
    pub(crate) const fn place(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }
}

/// A parameter that may be given several times; a `static` of the module.
///
/// The lock is taken only while there is one process with one thread, so that no child inherits it locked.
#[derive(Debug)]
pub struct ListParameter(Mutex<Vec<Box<[u8]>>>);

impl ListParameter {
    /// Returns an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Returns the values in the order of the configuration; to be called from the module's start only.
    #[must_use]
    pub fn get(&self) -> Vec<Box<[u8]>> {
        self.0
            .lock()
            .map(|values| values.clone())
            .unwrap_or_default()
    }

    fn push(&self, value: &[u8]) -> bool {
        self.0
            .lock()
            .map(|mut values| values.push(value.into()))
            .is_ok()
    }
}

impl Default for ListParameter {
    fn default() -> Self {
        Self::new()
    }
}

/// Names the list that a repeatable parameter fills: Kamailio's setter carries no context.
pub trait ListSource {
    /// Returns the module's `static`.
    fn list() -> &'static ListParameter;
}

/// Takes one value of a repeatable parameter.
///
/// # Safety
/// Called by the core with a `str` as the value, as registered.
pub(crate) unsafe extern "C" fn add_value<L: ListSource>(
    _kind: modparam_t,
    value: *mut c_void,
) -> c_int {
    guard(c"modparam", -1, || {
        // SAFETY: the parameter is registered as PARAM_STR, so the core passes a `str *`.
        let Some(value) = (unsafe { value.cast::<str_>().as_ref() }) else {
            return -1;
        };
        // SAFETY: the text lives during this call and is copied.
        if L::list().push(unsafe { text::bytes(value) }) {
            0
        } else {
            -1
        }
    })
}

/// The kinds of parameter, as the core numbers them.
pub(crate) const TEXT: modparam_t = bindings::PARAM_STR;
pub(crate) const INT: modparam_t = bindings::PARAM_INT;
pub(crate) const LIST: modparam_t = bindings::PARAM_STR | bindings::SHIM_PARAM_USE_FUNC;

#[cfg(test)]
mod tests {
    use super::*;

    static LIST_OF_TEST: ListParameter = ListParameter::new();

    struct OfTest;

    impl ListSource for OfTest {
        fn list() -> &'static ListParameter {
            &LIST_OF_TEST
        }
    }

    #[test]
    fn a_list_keeps_the_order_of_the_configuration() {
        for value in [b"sip:a".as_slice(), b"sip:b"] {
            let mut value = text::view(value);
            // SAFETY: a `str` of ours, as the core would pass one.
            let added = unsafe { add_value::<OfTest>(LIST, (&raw mut value).cast()) };
            assert_eq!(added, 0);
        }
        assert_eq!(
            LIST_OF_TEST.get(),
            [b"sip:a".as_slice().into(), b"sip:b".as_slice().into()]
        );
    }

    #[test]
    fn a_text_is_absent_until_it_is_written() {
        static PLACE: TextParameter = TextParameter::new();
        assert_eq!(PLACE.get(), None);
        // SAFETY: what the core does before the fork; no other thread of this test uses the static.
        unsafe { PLACE.place().cast::<str_>().write(text::view(b"/run/x")) };
        assert_eq!(PLACE.get(), Some(b"/run/x".as_slice()));
    }
}
