//! What an interface has sent, as the kernel counts it. Knows bytes and packets, nothing of their meaning.

use std::fs;

use locus_lab::Namespace;

/// Header bytes of Ethernet, IPv4 and UDP.
const UDP_HEADERS: u64 = 14 + 20 + 8;

/// Totals of an interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    bytes: u64,
    packets: u64,
}

impl Wire {
    /// Reads what `e0` in `namespace` has sent until now.
    pub(crate) fn read(namespace: &Namespace) -> Self {
        let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
        let text = text.unwrap_or_else(|error| panic!("/proc/net/dev: {error}"));
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("e0:"))
            .unwrap_or_else(|| panic!("no e0 in {}:\n{text}", namespace.name()));
        // Receive: bytes packets errs drop fifo frame compressed multicast; then the same of transmit.
        let field = |number| {
            let field = line.split_whitespace().nth(number);
            field
                .and_then(|field| field.parse().ok())
                .unwrap_or_else(|| panic!("not as in proc(5): {line}"))
        };
        Self {
            bytes: field(8),
            packets: field(9),
        }
    }

    /// Bytes on the wire since `earlier`, headers included.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.bytes - earlier.bytes
    }

    /// Bytes that sockets were given since `earlier`, if all was UDP.
    pub(crate) fn datagram_bytes_since(self, earlier: Self) -> u64 {
        self.since(earlier) - (self.packets - earlier.packets) * UDP_HEADERS
    }
}
