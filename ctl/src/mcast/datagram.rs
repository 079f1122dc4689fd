//! The test's datagram; it is nothing of Locus' wire, so that no agent ever takes it for a master's.

/// Bytes: as long as the longest datagram of LRM, so that a path with a smaller MTU shows.
pub(super) const DATAGRAM_BYTES: usize = 1_400;
const MAGIC: &[u8; 8] = b"LOCUSMCT";

/// One of the numbered datagrams.
///
/// ```text
/// 0  magic "LOCUSMCT" | 8  run u64 | 16  number u64 | 24  last u8 | 25  zeros up to 1,400
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Random number of the sender's run: a second sender is noticed.
    pub(super) run: u64,
    /// 0, 1, 2 …
    pub(super) number: u64,
    /// Whether the run ends with it: what follows is no silence of the network.
    pub(super) last: bool,
}

impl Datagram {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(DATAGRAM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.run.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.push(self.last.into());
        bytes.resize(DATAGRAM_BYTES, 0);
        bytes
    }

    /// Returns `None` for anything that this test has not sent.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DATAGRAM_BYTES {
            return None;
        }
        let rest = bytes.strip_prefix(MAGIC)?;
        let (run, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            number: u64::from_le_bytes(*number),
            last: rest.first() == Some(&1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_is_read() {
        let datagram = |last| Datagram {
            run: 7,
            number: 9,
            last,
        };
        for datagram in [datagram(false), datagram(true)] {
            assert_eq!(Datagram::parse(&datagram.to_bytes()), Some(datagram));
        }
        let bytes = datagram(false).to_bytes();
        assert_eq!(Datagram::parse(&bytes[..1_399]), None);
        assert_eq!(Datagram::parse(&[0; DATAGRAM_BYTES]), None);
    }
}
