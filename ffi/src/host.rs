//! The calls into the core that any unit test may reach: without Kamailio they have a stand-in.
//!
//! It knows nothing but those calls; everything else that needs the core is tested inside a real one.

#[cfg(not(test))]
pub(crate) use self::core::{counter_add, log, log_enabled};
#[cfg(test)]
pub(crate) use self::stand_in::{counter_add, log, log_enabled};

#[cfg(not(test))]
mod core {
    use std::ffi::c_int;

    use crate::{bindings, text};

    pub(crate) fn log_enabled(level: c_int) -> bool {
        // SAFETY: reads the debug level of the process; no pointer is involved.
        unsafe { bindings::shim_log_enabled(level) != 0 }
    }

    pub(crate) fn log(level: c_int, line: &[u8]) {
        // SAFETY: the text is readable for the length given, and Kamailio only formats it.
        unsafe { bindings::shim_log(level, text::pointer(line), text::length(line)) };
    }

    pub(crate) fn counter_add(handle: c_int, n: c_int) {
        // SAFETY: every caller passes a handle that the core gave out.
        unsafe { bindings::shim_counter_add(handle, n) };
    }
}

#[cfg(test)]
mod stand_in {
    use std::ffi::c_int;

    pub(crate) fn log_enabled(_level: c_int) -> bool {
        true
    }

    pub(crate) fn log(level: c_int, line: &[u8]) {
        println!("{level} {}", String::from_utf8_lossy(line));
    }

    pub(crate) fn counter_add(_handle: c_int, _n: c_int) {}
}
