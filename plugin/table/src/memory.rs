//! The memory under a table: atomic words and who provides them; it knows nothing that they mean.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// One 64-bit word that several processes share.
///
/// A trait, so that a model checker can run the very functions that publish and read records. Loads are
/// relaxed: on pages that are mapped read-only nothing stronger is promised; order comes from fences.
pub trait Word {
    /// Loads, relaxed.
    fn load(&self) -> u64;
    /// Stores, relaxed.
    fn store(&self, value: u64);
    /// Stores after everything stored before it.
    fn store_release(&self, value: u64);
    /// Puts the loads before it before the loads and stores behind it.
    fn fence_acquire();
    /// Puts the loads and stores before it before the stores behind it.
    fn fence_release();
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, value: u64) {
        Self::store(self, value, Ordering::Relaxed);
    }

    #[inline]
    fn store_release(&self, value: u64) {
        Self::store(self, value, Ordering::Release);
    }

    #[inline]
    fn fence_acquire() {
        fence(Ordering::Acquire);
    }

    #[inline]
    fn fence_release() {
        fence(Ordering::Release);
    }
}

/// Something that holds a table's words; always the same ones.
pub trait Memory {
    /// The kind of word.
    type Word: Word;
    /// Returns all words.
    fn words(&self) -> &[Self::Word];
}

impl<M: AsRef<[AtomicU64]>> Memory for M {
    type Word = AtomicU64;

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self.as_ref()
    }
}

/// Borrowed words of any kind.
pub struct Words<'a, W>(pub &'a [W]);

impl<W: Word> Memory for Words<'_, W> {
    type Word = W;

    #[inline]
    fn words(&self) -> &[W] {
        self.0
    }
}

impl<W> fmt::Debug for Words<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Words").field(&self.0.len()).finish()
    }
}

/// Words on the heap, all zero at first; clones share them.
///
/// Pages that are never touched take no memory: they come zeroed from the system. Starts at a cache line,
/// so that a bucket is one line.
#[derive(Clone)]
pub struct HeapMemory {
    words: Arc<Box<[AtomicU64]>>,
    range: Range<usize>,
}

const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = 8;

impl HeapMemory {
    /// Returns `bytes` of zeroed memory, rounded up to whole words.
    pub fn zeroed(bytes: u64) -> Self {
        let len = usize::try_from(bytes.div_ceil(8)).unwrap_or(usize::MAX);
        let spare = LINE_BYTES / WORD_BYTES;
        let words: Box<[AtomicU64]> =
            bytemuck::allocation::zeroed_slice_box(len.saturating_add(spare));
        let past_line = words.as_ptr().addr() % LINE_BYTES;
        let start = (LINE_BYTES - past_line) % LINE_BYTES / WORD_BYTES;
        let range = start..start + len;
        Self {
            words: Arc::new(words),
            range,
        }
    }
}

impl AsRef<[AtomicU64]> for HeapMemory {
    #[inline]
    fn as_ref(&self) -> &[AtomicU64] {
        self.words.get(self.range.clone()).unwrap_or(&[])
    }
}

impl fmt::Debug for HeapMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeapMemory")
            .field(&self.range.len())
            .finish()
    }
}
