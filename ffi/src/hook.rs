//! Work that no script asks for: before and after the script for each request, and every so often.
//!
//! It knows when the core calls; what is done then is the module's. Nothing here can keep a request from its script.

use std::ffi::{CStr, c_int, c_uint, c_void};

use crate::bindings::{self, sip_msg_t};
use crate::guard::guard;
use crate::message::Message;

/// Work before or after the script, in the process that handles the request.
pub trait RequestHook {
    /// Name in the log, should it fail.
    const NAME: &'static CStr;

    /// Does its work for one request; it costs every request that time.
    fn run(request: &Message<'_>);
}

/// Work that is done every so often, in the server's process for slow timers, which handles no request.
pub trait Timer {
    /// Name in the log, should it fail.
    const NAME: &'static CStr;
    /// How often, in seconds.
    const SECONDS: u32;

    /// Does its work once; other modules' slow timers wait for it.
    fn run();
}

/// Has `H` called for each request before its script; false when Kamailio refuses. Only while modules are initialised.
#[must_use]
pub fn before_script<H: RequestHook>() -> bool {
    // SAFETY: a function for the life of the server, which takes what the core passes.
    unsafe { bindings::shim_before_script(Some(call::<H>)) == 0 }
}

/// Has `H` called for each request after its script; false when Kamailio refuses. Only while modules are initialised.
#[must_use]
pub fn after_script<H: RequestHook>() -> bool {
    // SAFETY: as for `before_script`.
    unsafe { bindings::shim_after_script(Some(call::<H>)) == 0 }
}

/// Has `T` called every so often; false when Kamailio refuses. Only while modules are initialised.
#[must_use]
pub fn every<T: Timer>() -> bool {
    // SAFETY: as for `before_script`.
    unsafe { bindings::shim_every(Some(tick::<T>), T::SECONDS) == 0 }
}

/// What lets the script run; with 0 the core would drop the request.
const GO_ON: c_int = 1;

unsafe extern "C" fn call<H: RequestHook>(
    message: *mut sip_msg_t,
    _flags: c_uint,
    _own: *mut c_void,
) -> c_int {
    guard(H::NAME, (), || {
        // SAFETY: the core lends the message for this call.
        if let Some(message) = unsafe { Message::from_raw(message) } {
            H::run(&message);
        }
    });
    GO_ON
}

unsafe extern "C" fn tick<T: Timer>(_ticks: c_uint, _own: *mut c_void) {
    guard(T::NAME, (), T::run);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing;

    impl RequestHook for Failing {
        const NAME: &'static CStr = c"before";

        fn run(_request: &Message<'_>) {
            panic!("of the test");
        }
    }

    impl Timer for Failing {
        const NAME: &'static CStr = c"timer";
        const SECONDS: u32 = 1;

        fn run() {
            panic!("of the test");
        }
    }

    #[test]
    fn a_panic_does_not_keep_the_request_from_its_script() {
        let mut message = sip_msg_t::default();
        // SAFETY: a message of the test's, at which nothing looks.
        let answer = unsafe { call::<Failing>(&raw mut message, 0, std::ptr::null_mut()) };
        assert_eq!(answer, GO_ON);
        // SAFETY: the core may call with what it likes.
        let answer = unsafe { call::<Failing>(std::ptr::null_mut(), 0, std::ptr::null_mut()) };
        assert_eq!(answer, GO_ON);
        // SAFETY: nothing is passed.
        unsafe { tick::<Failing>(0, std::ptr::null_mut()) };
    }
}
