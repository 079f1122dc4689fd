//! Why bytes were refused; it does not know who sent them or what is done about it.

/// Returned by every decoder of this crate; a decoder never panics and never logs.
///
/// The peer is at fault: the edge that read the bytes counts it and closes or ignores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("truncated: {what} needs {need} bytes, {have} are left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// The first four bytes are not the protocol's.
    #[error("not a locus message (starts with {0:#010x})")]
    Magic(u32),
    /// A wire version this build does not speak; it is refused, never guessed.
    #[error("wire version {found} is not spoken here, this build speaks version {spoken}")]
    Version {
        /// The version in the message.
        found: u8,
        /// The version of this build.
        spoken: u8,
    },
    /// A message kind, operation or enum value that this version does not define.
    #[error("unknown {what} {value}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A length or count above its limit.
    #[error("{what} of {len} is above the limit of {max}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The length or count found.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A value that the field cannot have.
    #[error("malformed {what}")]
    Malformed {
        /// The field.
        what: &'static str,
    },
    /// Bytes behind the end of the message.
    #[error("{0} bytes behind the end")]
    Trailing(usize),
}
