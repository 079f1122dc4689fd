//! Pseudo-variables: `$name(inner)` in the script.
//!
//! It knows how a variable is parsed once and read often; it does not know what it shows.

use std::ffi::{CStr, c_int};

use crate::bindings::{self, pv_param_t, pv_spec_t, pv_value_t, sip_msg_t, str_};
use crate::guard::guard;
use crate::text;

/// A class of pseudo-variables.
pub trait Variable {
    /// The class's name, without `$`.
    const NAME: &'static CStr;

    /// Returns a number that stands for `$NAME(inner)`; `None` when there is no such variable.
    fn choose(inner: &[u8]) -> Option<u16>;

    /// Returns the value of what [`Self::choose`] chose.
    fn value(choice: u16) -> Value;
}

/// What a pseudo-variable shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number; above 2^31 − 1 only its text is exact.
    Number(u64),
    /// A word.
    Text(&'static str),
    /// `$null`.
    Null,
}

/// Parses the inner name when the script is read.
///
/// # Safety
/// Called by the core, with the specification and the name it is parsing.
pub(crate) unsafe extern "C" fn parse_name<V: Variable>(
    spec: *mut pv_spec_t,
    inner: *mut str_,
) -> c_int {
    guard(V::NAME, -1, || {
        // SAFETY: the core passes a name that lives during this call.
        let Some(inner) = (unsafe { inner.as_ref() }) else {
            return -1;
        };
        // SAFETY: as above.
        let Some(choice) = V::choose(unsafe { text::bytes(inner) }) else {
            return -1;
        };
        if spec.is_null() {
            return -1;
        }
        // SAFETY: the specification that the core is filling.
        unsafe { bindings::shim_pv_choose(spec, i32::from(choice)) };
        0
    })
}

/// Reads the variable for a message.
///
/// # Safety
/// Called by the core, with a message or null, a parameter that [`parse_name`] filled, and a value to fill.
pub(crate) unsafe extern "C" fn get<V: Variable>(
    message: *mut sip_msg_t,
    parameter: *mut pv_param_t,
    result: *mut pv_value_t,
) -> c_int {
    if parameter.is_null() || result.is_null() {
        return -1;
    }
    guard(V::NAME, -1, || {
        // SAFETY: a parameter of ours, filled by `parse_name`.
        let choice = unsafe { bindings::shim_pv_choice(parameter) };
        let value = u16::try_from(choice).map_or(Value::Null, V::value);
        match value {
            Value::Number(number) => {
                // SAFETY: the core's own pointers, handed on; the shim fills `result`.
                unsafe { bindings::shim_pv_number(message, parameter, result, number) }
            }
            Value::Text(word) => {
                let word = word.as_bytes();
                // SAFETY: as above; the text is copied into the core's ring of buffers.
                unsafe {
                    bindings::shim_pv_text(
                        message,
                        parameter,
                        result,
                        text::pointer(word),
                        text::length(word),
                    )
                }
            }
            // SAFETY: as above.
            Value::Null => unsafe { bindings::shim_pv_null(message, parameter, result) },
        }
    })
}
