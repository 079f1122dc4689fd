//! The partitions that an audit found to differ, as text for people; it compares nothing.
//!
//! In hexadecimal, as `locusctl audit` names them.

use std::collections::BTreeSet;
use std::fmt;

/// Ranges that a text names; it counts those beyond.
const RANGES_MAX: usize = 8;

/// Partitions that differ; its `Display` names them as ranges, ascending.
#[derive(Debug, Default)]
pub(super) struct Differing(BTreeSet<u16>);

impl Differing {
    pub(super) fn insert(&mut self, partition: u16) {
        self.0.insert(partition);
    }

    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for partition in &self.0 {
            match ranges.last_mut() {
                Some((_, to)) if to.checked_add(1) == Some(*partition) => *to = *partition,
                Some(_) | None => ranges.push((*partition, *partition)),
            }
        }
        ranges
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges();
        for (at, (from, to)) in ranges.iter().take(RANGES_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if from == to {
                write!(f, "{comma}{from:04x}")?;
            } else {
                write!(f, "{comma}{from:04x}-{to:04x}")?;
            }
        }
        match ranges.len().saturating_sub(RANGES_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} ranges more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_named_up_to_a_limit() {
        let text = |partitions: &[u16]| {
            let mut differing = Differing::default();
            partitions.iter().for_each(|p| differing.insert(*p));
            differing.to_string()
        };
        assert_eq!(text(&[]), "");
        assert_eq!(
            text(&[7, 65535, 8, 9, 0, 65534, 7]),
            "0000, 0007-0009, fffe-ffff"
        );
        let many: Vec<_> = (0..20).map(|n| n * 2).collect();
        let expected = "0000, 0002, 0004, 0006, 0008, 000a, 000c, 000e and 12 ranges more";
        assert_eq!(text(&many), expected);
    }
}
