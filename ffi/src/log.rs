//! Lines in Kamailio's log, formatted without allocation.
//!
//! It knows levels and Kamailio's logger; it decides neither what is worth a line nor how often.

use std::ffi::c_int;
use std::fmt::{self, Write};

use crate::host;

/// Bytes of a log line; what is longer is cut.
const LINE_MAX: usize = 1024;

/// How much a line matters, as Kamailio counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed and an operator should look.
    Error,
    /// Something is odd or degraded.
    Warning,
    /// A change of state that is worth seeing in production.
    Notice,
    /// What happened, in order.
    Info,
    /// Detail of one request.
    Debug,
}

impl LogLevel {
    fn number(self) -> c_int {
        match self {
            Self::Error => -1,
            Self::Warning => 0,
            Self::Notice => 1,
            Self::Info => 2,
            Self::Debug => 3,
        }
    }
}

/// Writes one line to Kamailio's log when `level` is printed there; costs one comparison when it is not.
pub fn log(level: LogLevel, line: fmt::Arguments<'_>) {
    if !host::log_enabled(level.number()) {
        return;
    }
    let mut buffer = Line {
        bytes: [0; LINE_MAX],
        len: 0,
    };
    // A line that is too long is cut, which is no error worth having.
    let _ = buffer.write_fmt(line);
    host::log(level.number(), buffer.written());
}

/// A buffer on the stack that takes what fits.
struct Line {
    bytes: [u8; LINE_MAX],
    len: usize,
}

impl Line {
    fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for &byte in part.as_bytes() {
            let Some(free) = self.bytes.get_mut(self.len) else {
                return Err(fmt::Error);
            };
            // A line break or a NUL in a value must not end or forge a log line.
            *free = if byte < b' ' { b' ' } else { byte };
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings;

    #[test]
    fn a_long_line_is_cut_and_control_bytes_become_blanks() {
        let mut line = Line {
            bytes: [0; LINE_MAX],
            len: 0,
        };
        write!(line, "a\r\nb\0c").unwrap();
        assert_eq!(line.written(), b"a  b c");
        assert!(write!(line, "{}", "x".repeat(LINE_MAX)).is_err());
        assert_eq!(line.written().len(), LINE_MAX);
    }

    #[test]
    fn levels_are_kamailios() {
        assert_eq!(LogLevel::Error.number(), bindings::L_ERR);
        for (level, number) in [
            (LogLevel::Warning, bindings::L_WARN),
            (LogLevel::Notice, bindings::L_NOTICE),
            (LogLevel::Info, bindings::L_INFO),
            (LogLevel::Debug, bindings::L_DBG),
        ] {
            assert_eq!(level.number(), c_int::try_from(number).unwrap());
        }
    }
}
