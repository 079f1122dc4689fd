//! Blocks for records: size classes, slabs, and which blocks are free; it reads and writes no record.
//!
//! Nothing of it is in the table's memory: what is in use follows from the index alone, so that a death
//! at any moment leaves no list half changed.

use locus_proto::Level;

use crate::layout::SLAB_BYTES;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = locus_proto::KEY_BYTES_MAX;
/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 32 * 1024 - 1;
/// Bytes of the largest block: head, longest key, longest value.
pub const RECORD_BYTES_MAX: usize = 36 * 1024;

/// Words before the key in a block.
pub(crate) const BLOCK_HEAD_WORDS: usize = 2;
/// Their bytes.
pub(crate) const BLOCK_HEAD_BYTES: usize = BLOCK_HEAD_WORDS * 8;
/// Number of the largest size class; zero is none.
pub(crate) const CLASS_MAX: u8 = 105;

const UNIT_BYTES: u64 = 16;
const UNITS_PER_SLAB: u64 = SLAB_BYTES / UNIT_BYTES;

/// The head of a record.
///
/// ```text
/// word 0   key length u16 | value length u16 | check word u32: low bits of the record's hash
/// word 1   level u64
///          key, filled up to a word with zeros | value, likewise
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key_len: usize,
    pub(crate) value_len: usize,
    pub(crate) check: u32,
    pub(crate) level: Level,
}

impl Head {
    #[inline]
    pub(crate) fn from_words([first, second]: [u64; 2]) -> Self {
        let [k0, k1, v0, v1, c0, c1, c2, c3] = first.to_le_bytes();
        Self {
            key_len: u16::from_le_bytes([k0, k1]).into(),
            value_len: u16::from_le_bytes([v0, v1]).into(),
            check: u32::from_le_bytes([c0, c1, c2, c3]),
            level: Level(second),
        }
    }

    /// Returns the words; lengths that cannot be stored saturate, so that a reader refuses them.
    pub(crate) fn to_words(self) -> [u64; 2] {
        let [k0, k1] = u16::try_from(self.key_len)
            .unwrap_or(u16::MAX)
            .to_le_bytes();
        let [v0, v1] = u16::try_from(self.value_len)
            .unwrap_or(u16::MAX)
            .to_le_bytes();
        let [c0, c1, c2, c3] = self.check.to_le_bytes();
        [
            u64::from_le_bytes([k0, k1, v0, v1, c0, c1, c2, c3]),
            self.level.0,
        ]
    }

    /// Returns the words that the record takes.
    pub(crate) fn record_words(self) -> usize {
        BLOCK_HEAD_WORDS + self.key_len.div_ceil(8) + self.value_len.div_ceil(8)
    }
}

/// Returns the words of a block of a size class; zero for a class that is none.
///
/// 16-byte steps to 1 KiB (1 to 64), then eight steps for each doubling.
#[inline]
pub(crate) const fn class_words(class: u8) -> usize {
    let class = class as usize;
    if class <= 64 {
        return class.wrapping_mul(2);
    }
    if class > CLASS_MAX as usize {
        return 0;
    }
    let above = class.wrapping_sub(65);
    let step = 16_usize << (above >> 3); // words: 128 bytes at first
    (8_usize.wrapping_add((above & 7).wrapping_add(1))).wrapping_mul(step)
}

/// Returns the smallest size class whose block has so many words.
pub(crate) fn class_for(words: usize) -> Option<u8> {
    let small = words.div_ceil(2).max(1);
    if small <= 64 {
        return u8::try_from(small).ok();
    }
    (65..=CLASS_MAX).find(|class| class_words(*class) >= words)
}

/// Returns the blocks of a class in one slab.
fn blocks_per_slab(class: u8) -> u64 {
    UNITS_PER_SLAB / units(class)
}

fn units(class: u8) -> u64 {
    u64::try_from(class_words(class) / 2).unwrap_or(1).max(1)
}

/// One slab: nothing, or blocks of one class.
#[derive(Debug, Default)]
struct Slab {
    class: u8,
    used: u32,
    /// Where in `partial` of its class it stands, if it has room.
    at: usize,
    /// One bit for each block in use.
    map: Box<[u64]>,
}

impl Slab {
    fn is_used(&self, block: usize) -> bool {
        self.map[block / 64] & 1 << (block % 64) != 0
    }
}

/// What is free in an arena.
#[derive(Debug)]
pub(crate) struct Arena {
    slabs: Vec<Slab>,
    /// Slabs of the class with at least one free block and one used; by class.
    partial: Vec<Vec<usize>>,
    /// Free blocks in these, by class.
    free: Vec<u64>,
    /// The block given back last, by class; it is taken first, since its lines are at hand.
    recent: Vec<Option<u64>>,
    /// Slabs without a class, below `slabs.len()`.
    empty: Vec<usize>,
    /// Slabs that fit.
    limit: usize,
}

/// Returned for a slot that names a block which cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadBlock;

impl Arena {
    /// Returns an arena of so many words, all free.
    pub(crate) fn new(words: usize) -> Self {
        let classes = usize::from(CLASS_MAX) + 1;
        Self {
            slabs: Vec::new(),
            partial: vec![Vec::new(); classes],
            free: vec![0; classes],
            recent: vec![None; classes],
            empty: Vec::new(),
            limit: words / (usize::try_from(SLAB_BYTES).unwrap_or(usize::MAX) / 8),
        }
    }

    /// Returns the slabs without a block in use.
    pub(crate) fn free_slabs(&self) -> u64 {
        let free = self.limit - self.slabs.len() + self.empty.len();
        u64::try_from(free).unwrap_or(u64::MAX)
    }

    /// Returns all slabs.
    pub(crate) fn slabs(&self) -> u64 {
        u64::try_from(self.limit).unwrap_or(u64::MAX)
    }

    /// Returns how many slabs must be free for `blocks` more blocks of a class.
    pub(crate) fn slabs_needed(&self, class: u8, blocks: u64) -> u64 {
        blocks
            .saturating_sub(self.free[usize::from(class)])
            .div_ceil(blocks_per_slab(class))
    }

    /// Returns the offset of a block of a class, now in use; `None` if there is none.
    pub(crate) fn allocate(&mut self, class: u8) -> Option<u64> {
        let of_class = usize::from(class);
        if let Some(offset) = self.recent[of_class].take()
            && let Some((number, block)) = self.locate(class, offset)
            && !self.slabs[number].is_used(block)
        {
            self.take(number, block);
            return Some(offset);
        }
        let number = match self.partial[of_class].last() {
            Some(number) => *number,
            None => self.adopt(class)?,
        };
        let mut maps = self.slabs[number].map.iter().enumerate();
        let (at, bits) = maps.find(|(_, bits)| **bits != u64::MAX)?;
        let block = at * 64 + usize::try_from(bits.trailing_ones()).ok()?;
        self.take(number, block);
        let within = u64::try_from(block).ok()? * units(class);
        Some(u64::try_from(number).ok()? * UNITS_PER_SLAB + within)
    }

    /// Marks a free block of a listed slab as in use.
    fn take(&mut self, number: usize, block: usize) {
        let slab = &mut self.slabs[number];
        let class = slab.class;
        slab.map[block / 64] |= 1 << (block % 64);
        slab.used += 1;
        self.free[usize::from(class)] -= 1;
        if u64::from(slab.used) == blocks_per_slab(class) {
            self.unlist(number, class);
        }
    }

    /// Gives a block back; one that is not in use, as only rotten memory names it, stays as it is.
    pub(crate) fn release(&mut self, class: u8, offset: u64) {
        let Some((number, block)) = self.locate(class, offset) else {
            return;
        };
        let of_class = usize::from(class);
        let slab = &mut self.slabs[number];
        if !slab.is_used(block) {
            return;
        }
        slab.map[block / 64] &= !(1 << (block % 64));
        self.recent[of_class] = Some(offset);
        let was_full = u64::from(slab.used) == blocks_per_slab(class);
        slab.used -= 1;
        self.free[of_class] += 1;
        if was_full {
            self.list(number);
        }
        if self.slabs[number].used == 0 {
            self.retire(number);
        }
    }

    /// Returns whether a block is in use.
    pub(crate) fn is_used(&self, class: u8, offset: u64) -> bool {
        self.locate(class, offset)
            .is_some_and(|(number, block)| self.slabs[number].is_used(block))
    }

    /// Marks a block that the index names as in use; for the rebuild of an empty arena.
    pub(crate) fn mark(&mut self, class: u8, offset: u64) -> Result<(), BadBlock> {
        if class == 0 || class > CLASS_MAX {
            return Err(BadBlock);
        }
        let number = usize::try_from(offset / UNITS_PER_SLAB).map_err(|_| BadBlock)?;
        if number >= self.limit {
            return Err(BadBlock);
        }
        while self.slabs.len() <= number {
            self.slabs.push(Slab::default());
        }
        if self.slabs[number].class == 0 {
            self.assign(number, class);
        }
        let (number, block) = self.locate(class, offset).ok_or(BadBlock)?;
        let slab = &mut self.slabs[number];
        if slab.is_used(block) {
            return Err(BadBlock);
        }
        slab.map[block / 64] |= 1 << (block % 64);
        slab.used += 1;
        Ok(())
    }

    /// Finishes a rebuild: lists what is free between the blocks that were marked.
    pub(crate) fn marked(&mut self) {
        for number in 0..self.slabs.len() {
            let (class, used) = (self.slabs[number].class, u64::from(self.slabs[number].used));
            if class == 0 {
                self.empty.push(number);
                continue;
            }
            let free = blocks_per_slab(class) - used;
            self.free[usize::from(class)] += free;
            if free > 0 {
                self.list(number);
            }
        }
        self.empty.reverse(); // the lowest first, so that the used part stays dense
    }

    /// Returns slab and block number of an offset, if the slab is of that class and the block begins there.
    fn locate(&self, class: u8, offset: u64) -> Option<(usize, usize)> {
        let number = usize::try_from(offset / UNITS_PER_SLAB).ok()?;
        let within = offset % UNITS_PER_SLAB;
        let block = within / units(class);
        let fits = class != 0
            && self.slabs.get(number)?.class == class
            && within.is_multiple_of(units(class))
            && block < blocks_per_slab(class);
        Some((number, usize::try_from(block).ok()?)).filter(|_| fits)
    }

    /// Takes an empty slab for a class.
    fn adopt(&mut self, class: u8) -> Option<usize> {
        let number = match self.empty.pop() {
            Some(number) => number,
            None if self.slabs.len() < self.limit => {
                self.slabs.push(Slab::default());
                self.slabs.len() - 1
            }
            None => return None,
        };
        self.assign(number, class);
        self.free[usize::from(class)] += blocks_per_slab(class);
        self.list(number);
        Some(number)
    }

    fn assign(&mut self, number: usize, class: u8) {
        let blocks = blocks_per_slab(class);
        let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(1);
        let mut map = vec![0; words].into_boxed_slice();
        if !blocks.is_multiple_of(64) {
            map[words - 1] = u64::MAX << (blocks % 64); // what is behind the end is never free
        }
        let slab = &mut self.slabs[number];
        slab.class = class;
        slab.map = map;
    }

    fn list(&mut self, number: usize) {
        let list = &mut self.partial[usize::from(self.slabs[number].class)];
        self.slabs[number].at = list.len();
        list.push(number);
    }

    fn unlist(&mut self, number: usize, class: u8) {
        let at = self.slabs[number].at;
        let list = &mut self.partial[usize::from(class)];
        list.swap_remove(at);
        if let Some(moved) = list.get(at) {
            self.slabs[*moved].at = at;
        }
    }

    /// Takes the class from a slab without a used block.
    fn retire(&mut self, number: usize) {
        let class = self.slabs[number].class;
        self.unlist(number, class);
        self.slabs[number] = Slab::default();
        self.free[usize::from(class)] -= blocks_per_slab(class);
        self.empty.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_and_hold_the_largest_record() {
        let mut last = 0;
        for class in 1..=CLASS_MAX {
            let words = class_words(class);
            assert!(words > last && words.is_multiple_of(2), "class {class}");
            assert_eq!(class_for(words), Some(class));
            assert_eq!(class_for(last + 1), Some(class));
            last = words;
        }
        assert_eq!(last * 8, RECORD_BYTES_MAX);
        let largest = Head {
            key_len: KEY_BYTES_MAX,
            value_len: VALUE_BYTES_MAX,
            check: 0,
            level: Level(0),
        };
        assert!(class_for(largest.record_words()).is_some());
        assert_eq!(class_for(last + 1), None);
        assert_eq!((class_words(0), class_words(CLASS_MAX + 1)), (0, 0));
    }

    #[test]
    fn slabs_change_class_when_they_are_empty() {
        let mut arena = Arena::new(2 * 8192); // two slabs
        let blocks = usize::try_from(blocks_per_slab(4)).unwrap();
        let all: Vec<u64> = (0..2 * blocks)
            .map(|_| arena.allocate(4).unwrap())
            .collect();
        assert_eq!((arena.allocate(4), arena.free_slabs()), (None, 0));
        assert_eq!(arena.slabs_needed(5, 1), 1);
        for offset in &all[..blocks] {
            arena.release(4, *offset);
        }
        assert_eq!((arena.free_slabs(), arena.slabs_needed(4, 1)), (1, 1));
        assert_eq!(arena.allocate(CLASS_MAX), Some(0));
        assert_eq!(arena.allocate(4), None);
        arena.release(4, all[blocks]);
        assert_eq!(arena.slabs_needed(4, 1), 0);
        assert_eq!(arena.allocate(4), Some(all[blocks]));
    }

    #[test]
    fn the_block_given_back_last_is_taken_first() {
        let mut arena = Arena::new(8192);
        let all: Vec<u64> = (0..20).map(|_| arena.allocate(3).unwrap()).collect();
        for given_back in [4, 9, 2] {
            arena.release(3, all[given_back]);
        }
        // Then the others, from the beginning; each once.
        let again: Vec<u64> = (0..4).map(|_| arena.allocate(3).unwrap()).collect();
        assert_eq!(again[..3], [all[2], all[4], all[9]]);
        assert!(!all.contains(&again[3]));
        // A slab that was given up meanwhile has no such block any more.
        for offset in all.iter().chain(&again[3..]) {
            arena.release(3, *offset);
        }
        assert_eq!((arena.free_slabs(), arena.allocate(5)), (1, Some(0)));
        assert!(!arena.is_used(3, all[2]) && !arena.is_used(0, 0));
        assert!(arena.is_used(5, 0) && !arena.is_used(5, 1));
        arena.release(0, 0);
        assert!(arena.is_used(5, 0));
    }

    #[test]
    fn a_rebuild_finds_the_same_blocks_free() {
        let mut arena = Arena::new(4 * 8192);
        let mut used: Vec<(u8, u64)> = (0..3000)
            .map(|i| 2 + u8::try_from(i % 3).unwrap())
            .map(|class| (class, arena.allocate(class).unwrap()))
            .collect();
        for (class, offset) in used.split_off(1000) {
            arena.release(class, offset);
        }
        let mut again = Arena::new(4 * 8192);
        for (class, offset) in &used {
            assert_eq!(again.mark(*class, *offset), Ok(()));
        }
        again.marked();
        assert_eq!(again.free, arena.free);
        assert_eq!(again.free_slabs(), arena.free_slabs());
        let (class, offset) = used[0];
        for (class, offset) in [(class, offset), (class, offset + 1), (0, 0), (2, u64::MAX)] {
            assert_eq!(again.mark(class, offset), Err(BadBlock), "{class} {offset}");
        }
        // A block that is given back twice is free once.
        again.release(class, offset);
        let free = again.free.clone();
        again.release(class, offset);
        assert_eq!(again.free, free);
    }
}
