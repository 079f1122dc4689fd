//! How a node and its master compare content and mend what differs; it hashes, reads and writes no record.
//!
//! The node asks, from coarse to fine: the sums of all groups, those of the partitions of one group, the
//! records of one partition. An answer says at which level the master read it, and counts for a table at
//! exactly that level (rules 3.2).

use serde::{Deserialize, Serialize};

use crate::frame::{decode_records, encode_records};
use crate::{Change, DecodeError, Decoder, Encoder, Level, Position, Root};

/// Sums in one answer: of the 256 groups, or of the 256 partitions of a group.
pub const AUDIT_SUMS: usize = 256;
/// Most ranges of partitions that a report names; it counts those beyond.
pub const AUDIT_RANGES_MAX: usize = 64;

/// What a question or an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditScope {
    /// The groups of the whole table.
    Groups,
    /// The partitions of one group.
    Group(u8),
    /// The records of one partition.
    Partition(u16),
}

impl AuditScope {
    /// Appends `scope u8` (0 groups, 1 group, 2 partition), `number u16`.
    fn encode(self, out: &mut Encoder<'_>) {
        let (scope, number) = match self {
            Self::Groups => (0, 0),
            Self::Group(group) => (1, group.into()),
            Self::Partition(partition) => (2, partition),
        };
        out.u8(scope).u16(number);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let scope = from.u8("audit scope")?;
        let number = from.u16("audit number")?;
        let malformed = DecodeError::Malformed {
            what: "audit number",
        };
        match scope {
            0 if number == 0 => Ok(Self::Groups),
            0 => Err(malformed),
            1 => u8::try_from(number).map(Self::Group).map_err(|_| malformed),
            2 => Ok(Self::Partition(number)),
            scope => Err(DecodeError::Unknown {
                what: "audit scope",
                value: scope.into(),
            }),
        }
    }
}

/// A node asks for sums or records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAsk {
    /// What it wants to know.
    pub scope: AuditScope,
    /// Where it stood, and with which content, when that turned out to differ from the master's; `None`
    /// if only its memory is in doubt.
    pub doubt: Option<Position>,
}

impl AuditAsk {
    /// Appends the scope, `has doubt u8`, position.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        self.scope.encode(out);
        out.u8(self.doubt.is_some().into());
        if let Some(position) = &self.doubt {
            position.encode(out);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown scope, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let scope = AuditScope::decode(from)?;
        let doubt = flag(from, "has doubt")?
            .then(|| Position::decode(from))
            .transpose()?;
        Ok(Self { scope, doubt })
    }
}

/// The master's sums at one level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSums {
    /// Level at which they are true.
    pub level: Level,
    /// The group whose partitions these are; `None` for the sums of the groups.
    pub group: Option<u8>,
    /// [`AUDIT_SUMS`] sums.
    pub sums: Vec<Root>,
}

impl AuditSums {
    /// Appends `level u64, has group u8, group u8`, 256 sums.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.level.0)
            .u8(self.group.is_some().into())
            .u8(self.group.unwrap_or(0));
        for at in 0..AUDIT_SUMS {
            self.sums
                .get(at)
                .copied()
                .unwrap_or(Root::EMPTY)
                .encode(out);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let level = Level(from.u64("level")?);
        let has_group = flag(from, "has group")?;
        let group = match (has_group, from.u8("group")?) {
            (true, group) => Some(group),
            (false, 0) => None,
            (false, _) => return Err(DecodeError::Malformed { what: "group" }),
        };
        let sums = (0..AUDIT_SUMS)
            .map(|_| Root::decode(from))
            .collect::<Result<_, _>>()?;
        Ok(Self { level, group, sums })
    }
}

/// Records of one partition, read by the master at one level.
///
/// All of a partition that do not fit one message come in several, one behind the other, at the same level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecords {
    /// Level at which the partition held them.
    pub level: Level,
    /// The partition.
    pub partition: u16,
    /// Whether these are the last of it.
    pub last: bool,
    /// The records, each a put at its own level.
    pub records: Vec<Change>,
}

impl AuditRecords {
    /// Appends `level u64, partition u16, last u8, count u32` and the records as changes of a frame.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.level.0)
            .u16(self.partition)
            .u8(self.last.into());
        encode_records(&self.records, out);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// A delete among the records, malformed records, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let level = Level(from.u64("level")?);
        let partition = from.u16("partition")?;
        let last = flag(from, "last")?;
        let records = decode_records(from, "audit record")?;
        Ok(Self {
            level,
            partition,
            last,
            records,
        })
    }
}

/// Why the master answers no question of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AuditRefusal {
    /// Most nodes agree with each other against the master: it may itself be wrong (rules 3.2).
    #[error("most nodes agree with each other against the master, which verifies its own table")]
    Majority,
    /// The master's own table contradicts itself.
    #[error("the master's own table contradicts itself")]
    Corrupt,
}

impl AuditRefusal {
    fn code(self) -> u8 {
        match self {
            Self::Majority => 1,
            Self::Corrupt => 2,
        }
    }

    /// Appends `reason u8` (1 majority, 2 corrupt).
    pub fn encode(self, out: &mut Encoder<'_>) {
        out.u8(self.code());
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown reason, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let code = from.u8("audit refusal")?;
        [Self::Majority, Self::Corrupt]
            .into_iter()
            .find(|refusal| refusal.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "audit refusal",
                value: code.into(),
            })
    }
}

/// An operator wants a node's memory read again and compared with the master's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditOrder {
    /// Returned with the report.
    pub ticket: u64,
    /// Whether what differs shall be repaired.
    pub repair: bool,
}

impl AuditOrder {
    /// Appends `ticket u64, repair u8`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.ticket).u8(self.repair.into());
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            ticket: from.u64("ticket")?,
            repair: flag(from, "repair")?,
        })
    }
}

/// How an audit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AuditVerdict {
    /// Every record is the master's.
    #[error("equal")]
    Equal,
    /// Some differ; they were left as they are.
    #[error("differs")]
    Differs,
    /// Those that differed are the master's now.
    #[error("repaired")]
    Repaired,
    /// So much differs that the table is loaded anew.
    #[error("reloading")]
    Reloading,
    /// The master refused: see its log.
    #[error("refused by the master")]
    Refused,
    /// Another audit was under way, or the node is not following the log: ask again.
    #[error("busy")]
    Busy,
    /// The node's table cannot be read or mended.
    #[error("failed")]
    Failed,
}

impl AuditVerdict {
    const ALL: [Self; 7] = [
        Self::Equal,
        Self::Differs,
        Self::Repaired,
        Self::Reloading,
        Self::Refused,
        Self::Busy,
        Self::Failed,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Equal => 1,
            Self::Differs => 2,
            Self::Repaired => 3,
            Self::Reloading => 4,
            Self::Refused => 5,
            Self::Busy => 6,
            Self::Failed => 7,
        }
    }
}

/// What an audit found, for the operator who ordered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Ticket of the order.
    pub ticket: u64,
    /// How it ended.
    pub verdict: AuditVerdict,
    /// Level at which the last comparison was made.
    pub level: Level,
    /// Records in the node's table.
    pub records: u64,
    /// Partitions that differed.
    pub partitions: u32,
    /// The first of them as ranges, from … to, both included, ascending; at most [`AUDIT_RANGES_MAX`].
    pub ranges: Vec<(u16, u16)>,
    /// Records that were missing, surplus or different.
    pub differing: u64,
    /// Of these, how many were repaired.
    pub repaired: u64,
}

impl AuditReport {
    /// Appends `ticket u64, verdict u8, level u64, records u64, partitions u32, differing u64, repaired
    /// u64, ranges u8`, per range `from u16, to u16`.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.ticket)
            .u8(self.verdict.code())
            .u64(self.level.0)
            .u64(self.records)
            .u32(self.partitions)
            .u64(self.differing)
            .u64(self.repaired);
        let ranges = self.ranges.iter().take(AUDIT_RANGES_MAX);
        out.u8(u8::try_from(ranges.len()).unwrap_or(u8::MAX));
        for (from, to) in ranges {
            out.u16(*from).u16(*to);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// An unknown verdict, ranges above their limit or out of order, truncation.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let ticket = from.u64("ticket")?;
        let code = from.u8("verdict")?;
        let verdict = AuditVerdict::ALL
            .into_iter()
            .find(|verdict| verdict.code() == code)
            .ok_or_else(|| DecodeError::Unknown {
                what: "verdict",
                value: code.into(),
            })?;
        let level = Level(from.u64("level")?);
        let records = from.u64("records")?;
        let partitions = from.u32("partitions")?;
        let differing = from.u64("differing records")?;
        let repaired = from.u64("repaired records")?;
        let ranges = Self::decode_ranges(from)?;
        Ok(Self {
            ticket,
            verdict,
            level,
            records,
            partitions,
            ranges,
            differing,
            repaired,
        })
    }

    fn decode_ranges(from: &mut Decoder<'_>) -> Result<Vec<(u16, u16)>, DecodeError> {
        let len = usize::from(from.u8("ranges")?);
        if len > AUDIT_RANGES_MAX {
            return Err(DecodeError::TooLong {
                what: "ranges",
                len,
                max: AUDIT_RANGES_MAX,
            });
        }
        let mut ranges: Vec<(u16, u16)> = Vec::with_capacity(len);
        for _ in 0..len {
            let range = (from.u16("range")?, from.u16("range")?);
            let ascends = ranges.last().is_none_or(|last| last.1 < range.0);
            if range.0 > range.1 || !ascends {
                return Err(DecodeError::Malformed { what: "range" });
            }
            ranges.push(range);
        }
        Ok(ranges)
    }
}

/// Reads a byte that is 0 or 1.
fn flag(from: &mut Decoder<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match from.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::Unknown {
            what,
            value: value.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(what: u8, number: u16) -> Result<AuditScope, DecodeError> {
        let [low, high] = number.to_le_bytes();
        AuditScope::decode(&mut Decoder::new(&[what, low, high]))
    }

    #[test]
    fn a_scope_is_one_of_three() {
        assert_eq!(scope(0, 0), Ok(AuditScope::Groups));
        assert_eq!(scope(1, 255), Ok(AuditScope::Group(255)));
        assert_eq!(scope(2, 65_535), Ok(AuditScope::Partition(65_535)));
        let what = "audit number";
        assert_eq!(scope(0, 1), Err(DecodeError::Malformed { what }));
        assert_eq!(scope(1, 256), Err(DecodeError::Malformed { what }));
        let (what, value) = ("audit scope", 3);
        assert_eq!(scope(3, 0), Err(DecodeError::Unknown { what, value }));
    }

    #[test]
    fn ranges_ascend_and_are_few() {
        let decode = |ranges: &[(u16, u16)]| {
            let mut bytes = vec![u8::try_from(ranges.len()).unwrap()];
            for (from, to) in ranges {
                bytes.extend([from.to_le_bytes(), to.to_le_bytes()].as_flattened());
            }
            AuditReport::decode_ranges(&mut Decoder::new(&bytes))
        };
        for good in [vec![], vec![(0, 0)], vec![(0, 3), (5, 9), (65_535, 65_535)]] {
            assert_eq!(decode(&good), Ok(good));
        }
        for bad in [vec![(2, 1)], vec![(0, 3), (3, 4)], vec![(5, 5), (1, 1)]] {
            let what = "range";
            assert_eq!(decode(&bad), Err(DecodeError::Malformed { what }));
        }
        let many: Vec<(u16, u16)> = (0..65).map(|at| (at * 2, at * 2)).collect();
        assert_eq!(decode(&many[..64]).as_deref(), Ok(&many[..64]));
        assert!(matches!(decode(&many), Err(DecodeError::TooLong { .. })));
    }
}
