//! Kamailio's (pointer, length) strings as byte slices, and back.
//!
//! It knows the two shapes; it does not know whose memory they point to.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::slice;

use crate::bindings::str_;

/// Returns the bytes of a Kamailio string; empty when it is null or its length is not positive.
///
/// # Safety
/// When `text.s` is not null and `text.len` is positive, `text.s` is readable for `text.len` bytes, and nothing
/// writes to them or frees them during `'a`.
pub(crate) unsafe fn bytes<'a>(text: &str_) -> &'a [u8] {
    let len = usize::try_from(text.len).unwrap_or(0);
    if text.s.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for `len` readable bytes that stay as they are during 'a.
    unsafe { slice::from_raw_parts(text.s.cast::<u8>(), len) }
}

/// Returns a Kamailio string that views `bytes`; empty when they are more than an `int` can count.
///
/// The pointer is mutable in C's type only: what it is handed to must not write.
pub(crate) fn view(bytes: &[u8]) -> str_ {
    match c_int::try_from(bytes.len()) {
        Ok(len) if len > 0 => str_ {
            s: pointer(bytes).cast_mut(),
            len,
        },
        _ => str_ {
            s: ptr::null_mut(),
            len: 0,
        },
    }
}

/// Returns the address of `bytes` as C's characters.
pub(crate) fn pointer(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

/// Returns the length of `bytes` as a C int; 0 when it does not fit, so that C reads nothing.
pub(crate) fn length(bytes: &[u8]) -> c_int {
    c_int::try_from(bytes.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_reads_back_as_the_same_bytes() {
        let text = view(b"sip:alice@example.net");
        // SAFETY: the view points to a static byte string.
        assert_eq!(unsafe { bytes(&text) }, b"sip:alice@example.net");
    }

    #[test]
    fn null_empty_and_negative_lengths_read_as_nothing() {
        let mut byte = b'x'.cast_signed();
        for text in [
            str_ {
                s: ptr::null_mut(),
                len: 3,
            },
            str_ {
                s: &raw mut byte,
                len: 0,
            },
            str_ {
                s: &raw mut byte,
                len: -1,
            },
        ] {
            // SAFETY: the only non-null pointer has a length that is not positive.
            assert!(unsafe { bytes(&text) }.is_empty());
        }
        assert!(view(b"").s.is_null());
    }
}
