//! One entry of the log: a checked envelope round the bytes of a frame; it knows no file.

use locus_proto::FRAME_BYTES_MAX;

use super::error::EntryError;

/// Version of the envelope.
pub(super) const ENTRY_VERSION: u8 = 1;
/// Bytes of the envelope.
pub(super) const ENVELOPE_BYTES: usize = 20;
/// Longest entry.
pub(super) const ENTRY_BYTES_MAX: usize = ENVELOPE_BYTES + FRAME_BYTES_MAX;

/// The first byte never occurs in UTF-8: no text that a stranger provisions looks like an entry.
const MAGIC: [u8; 4] = [0xF5, b'L', b'O', b'G'];

/// A whole entry in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// The frame's bytes.
    pub payload: &'a [u8],
    /// Its checksum, which the next entry repeats.
    pub checksum: u32,
    /// The checksum of the entry before it; zero for the first of a log.
    pub previous: u32,
    /// The envelope's version.
    pub version: u8,
}

impl<'a> Entry<'a> {
    /// Returns the bytes of an entry behind the one whose checksum is `previous`, and its checksum.
    ///
    /// ```text
    ///  0  magic F5 'L' 'O' 'G' | 4  version u8 | 5  reserved 3 bytes (0) | 8  payload length u32
    /// 12  checksum of the previous entry u32 | 16  CRC-32C u32 of bytes 0 to 15 and the payload
    /// 20  payload: one frame as `locus_proto::Frame` encodes it
    /// ```
    pub(super) fn encode(payload: &[u8], previous: u32) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[ENTRY_VERSION, 0, 0, 0]);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&previous.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(payload);
        (bytes, checksum)
    }

    /// Reads the entry at the front of `bytes`: whole, of this version, behind `previous`.
    ///
    /// # Errors
    /// Every [`EntryError`] but those of the frame.
    pub(super) fn decode(bytes: &'a [u8], previous: u32) -> Result<Self, EntryError> {
        let entry = Self::decode_unchained(bytes)?;
        if entry.previous == previous {
            Ok(entry)
        } else {
            Err(EntryError::Chain)
        }
    }

    /// Reads the entry at the front of `bytes`, whatever stands before it.
    ///
    /// # Errors
    /// As [`Self::decode`], but [`EntryError::Chain`].
    pub(super) fn decode_unchained(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let entry = Self::decode_whole(bytes)?;
        if entry.version == ENTRY_VERSION {
            Ok(entry)
        } else {
            Err(EntryError::Version {
                found: entry.version,
                read: ENTRY_VERSION,
            })
        }
    }

    /// Returns the bytes that the entry takes.
    pub(super) fn size(&self) -> usize {
        ENVELOPE_BYTES + self.payload.len()
    }

    fn decode_whole(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let magic_len = bytes.len().min(MAGIC.len());
        if bytes[..magic_len] != MAGIC[..magic_len] {
            return Err(EntryError::Magic);
        }
        let Some((envelope, rest)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(EntryError::Truncated);
        };
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&envelope[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let len = word(8);
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        if payload_len == 0 || payload_len > FRAME_BYTES_MAX {
            return Err(EntryError::Length(len));
        }
        let payload = rest.get(..payload_len).ok_or(EntryError::Truncated)?;
        let checksum = word(16);
        if crc32c::crc32c_append(crc32c::crc32c(&envelope[..16]), payload) != checksum {
            return Err(EntryError::Checksum);
        }
        Ok(Self {
            payload,
            checksum,
            previous: word(12),
            version: envelope[4],
        })
    }
}

/// Returns where in `bytes` the next whole entry begins, whatever stands before it.
pub(super) fn find_whole(bytes: &[u8]) -> Option<usize> {
    let is_whole =
        |at: &usize| bytes[*at] == MAGIC[0] && Entry::decode_whole(&bytes[*at..]).is_ok();
    (0..bytes.len()).find(is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_bytes_and_refuses_every_other() {
        let (bytes, checksum) = Entry::encode(b"payload", 7);
        let entry = Entry::decode(&bytes, 7).unwrap();
        assert_eq!(entry.payload, b"payload");
        assert_eq!((entry.checksum, entry.size()), (checksum, bytes.len()));
        assert_eq!(Entry::decode(&bytes, 8), Err(EntryError::Chain));
        for len in 0..bytes.len() {
            assert_eq!(
                Entry::decode(&bytes[..len], 7),
                Err(EntryError::Truncated),
                "{len}"
            );
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = Entry::decode(&damaged, 7).unwrap_err();
            assert!(error.may_be_torn(), "byte {at}: {error}");
        }
    }

    #[test]
    fn an_entry_is_found_behind_rubbish() {
        let (bytes, _) = Entry::encode(b"payload", 0);
        let mut rubbish = vec![MAGIC[0]; 9];
        rubbish.extend_from_slice(&bytes);
        assert_eq!(find_whole(&rubbish), Some(9));
        assert_eq!(find_whole(&rubbish[..rubbish.len() - 1]), None);
        assert_eq!(find_whole(&[0; 4096]), None);
    }

    #[test]
    fn another_version_is_named() {
        let (mut bytes, _) = Entry::encode(b"payload", 0);
        bytes[4] = 2;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), b"payload");
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        let expected = EntryError::Version { found: 2, read: 1 };
        assert_eq!(Entry::decode(&bytes, 0), Err(expected));
    }
}
