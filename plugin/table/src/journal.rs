//! The redo journal of one batch, in words; it neither applies nor orders anything.
//!
//! ```text
//! per change   key length u16 | value length u16 | operation u32 (1 put, 2 delete)
//!              level u64
//!              key, filled up to a word with zeros | value, likewise
//! ```

use locus_proto::{Change, ChangeOp, Key, Level};

use crate::layout::{
    AT_JOURNAL, AT_JOURNAL_CHANGES, AT_JOURNAL_REPAIRS, AT_JOURNAL_WORDS, JOURNAL_WORDS,
};
use crate::publish::store_bytes;
use crate::{OpenTableError, Word};

/// Bytes of journal that a batch may take.
pub(crate) const JOURNAL_BYTES: usize = JOURNAL_WORDS * 8;

const HEAD_WORDS: usize = 2;
const PUT: u32 = 1;
const DELETE: u32 = 2;

fn value_of(change: &Change) -> (u32, &[u8]) {
    match &change.op {
        ChangeOp::Put(value) => (PUT, value),
        ChangeOp::Delete => (DELETE, &[]),
    }
}

/// Returns the words that a change takes.
pub(crate) fn change_words(change: &Change) -> usize {
    let (_, value) = value_of(change);
    HEAD_WORDS + change.key.as_bytes().len().div_ceil(8) + value.len().div_ceil(8)
}

/// Writes a batch, of a repair if it says of which partition; it was checked to fit.
pub(crate) fn write<W: Word>(words: &[W], changes: &[Change], repairs: Option<u16>) {
    let mut rest = &words[AT_JOURNAL..AT_JOURNAL + JOURNAL_WORDS];
    for change in changes {
        let (entry, behind) = rest.split_at(change_words(change));
        rest = behind;
        let (op, value) = value_of(change);
        let key = change.key.as_bytes();
        let [k0, k1] = u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes();
        let [v0, v1] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes();
        let [o0, o1, o2, o3] = op.to_le_bytes();
        entry[0].store(u64::from_le_bytes([k0, k1, v0, v1, o0, o1, o2, o3]));
        entry[1].store(change.level.0);
        let (keys, values) = entry[HEAD_WORDS..].split_at(key.len().div_ceil(8));
        store_bytes(keys, key);
        store_bytes(values, value);
    }
    let used = JOURNAL_WORDS - rest.len();
    words[AT_JOURNAL_WORDS].store(u64::try_from(used).unwrap_or(u64::MAX));
    words[AT_JOURNAL_CHANGES].store(u64::try_from(changes.len()).unwrap_or(u64::MAX));
    words[AT_JOURNAL_REPAIRS].store(repairs.map_or(0, |partition| u64::from(partition) + 1));
}

/// Returns the partition that the batch repairs; `None` for a batch that is none of a repair.
///
/// # Errors
/// [`OpenTableError::Corrupt`] if it cannot be.
pub(crate) fn repairs<W: Word>(words: &[W]) -> Result<Option<u16>, OpenTableError> {
    match words[AT_JOURNAL_REPAIRS].load().checked_sub(1) {
        None => Ok(None),
        Some(partition) => u16::try_from(partition)
            .map(Some)
            .map_err(|_| OpenTableError::Corrupt { what: "journal" }),
    }
}

/// Reads the batch that [`write`] left.
///
/// # Errors
/// [`OpenTableError::Corrupt`] if its lengths or keys cannot be.
pub(crate) fn read<W: Word>(words: &[W]) -> Result<Vec<Change>, OpenTableError> {
    let corrupt = OpenTableError::Corrupt { what: "journal" };
    let used = usize::try_from(words[AT_JOURNAL_WORDS].load()).unwrap_or(usize::MAX);
    if used > JOURNAL_WORDS {
        return Err(corrupt);
    }
    let mut rest = &words[AT_JOURNAL..AT_JOURNAL + used];
    let mut changes = Vec::new();
    for _ in 0..words[AT_JOURNAL_CHANGES].load() {
        let (change, behind) = read_change(rest).ok_or_else(|| corrupt.clone())?;
        changes.push(change);
        rest = behind;
    }
    if rest.is_empty() {
        Ok(changes)
    } else {
        Err(corrupt)
    }
}

fn read_change<W: Word>(words: &[W]) -> Option<(Change, &[W])> {
    let (head, rest) = words.split_at_checked(HEAD_WORDS)?;
    let [k0, k1, v0, v1, o0, o1, o2, o3] = head[0].load().to_le_bytes();
    let key_len = usize::from(u16::from_le_bytes([k0, k1]));
    let value_len = usize::from(u16::from_le_bytes([v0, v1]));
    let (keys, rest) = rest.split_at_checked(key_len.div_ceil(8))?;
    let (values, rest) = rest.split_at_checked(value_len.div_ceil(8))?;
    let op = match u32::from_le_bytes([o0, o1, o2, o3]) {
        PUT => ChangeOp::Put(load_bytes(values, value_len)),
        DELETE if value_len == 0 => ChangeOp::Delete,
        _ => return None,
    };
    let change = Change {
        key: Key::from_bytes(&load_bytes(keys, key_len)).ok()?,
        level: Level(head[1].load()),
        op,
    };
    Some((change, rest))
}

fn load_bytes<W: Word>(words: &[W], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}
