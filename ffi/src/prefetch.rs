//! The CPU's instruction that begins to fetch memory and waits for nothing.
//!
//! It knows one instruction for each kind of CPU; what is worth fetching early is the caller's to know.

use std::ptr;
use std::sync::atomic::AtomicU64;

/// Begins to fetch the cache line of `word`, for a load that is to come.
///
/// A hint: nothing is read, nothing waits, and where the memory is not in the page tables nothing happens; no fault
/// is raised and no page allocated. On a CPU that is not known here it does nothing at all.
#[inline]
pub fn prefetch(word: &AtomicU64) {
    fetch(ptr::from_ref(word));
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(word: *const AtomicU64) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: PREFETCHT0 is part of every x86-64, faults at no address and changes neither memory nor registers.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(word.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn fetch(word: *const AtomicU64) {
    // SAFETY: PRFM is part of every AArch64, faults at no address and changes neither memory nor registers.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{word}]",
            word = in(reg) word,
            options(nostack, preserves_flags, readonly)
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn fetch(_word: *const AtomicU64) {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn changes_nothing_and_faults_nowhere() {
        let word = AtomicU64::new(7);
        prefetch(&word);
        assert_eq!(word.load(Ordering::Relaxed), 7);
        for address in [0, 1, usize::MAX, 1 << 63] {
            fetch(ptr::without_provenance(address));
        }
    }
}
