//! Payloads of the datagrams that steer the group; none of them changes a level, an epoch or content.

use crate::{DecodeError, Decoder, Encoder};

/// Most ranges in one NACK or CONFIRM.
pub const RANGES_MAX: usize = 40;

/// A run of DATA sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeqRange {
    /// The first, from 1.
    pub first: u64,
    /// How many, from 1.
    pub count: u16,
}

impl SeqRange {
    /// Returns the sequence number behind the last.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }
}

/// Appends `count u8`, per range `first u64, count u16`; those beyond [`RANGES_MAX`] are left out.
fn encode_ranges(ranges: &[SeqRange], out: &mut Vec<u8>) {
    let ranges = &ranges[..ranges.len().min(RANGES_MAX)];
    let mut out = Encoder::new(out);
    out.u8(u8::try_from(ranges.len()).unwrap_or(u8::MAX));
    for range in ranges {
        out.u64(range.first).u16(range.count);
    }
}

fn decode_ranges(payload: &[u8]) -> Result<Vec<SeqRange>, DecodeError> {
    let mut from = Decoder::new(payload);
    let len = usize::from(from.u8("ranges")?);
    if len > RANGES_MAX {
        return Err(DecodeError::TooLong {
            what: "ranges",
            len,
            max: RANGES_MAX,
        });
    }
    let malformed = DecodeError::Malformed { what: "range" };
    if len == 0 {
        return Err(malformed);
    }
    let mut ranges = Vec::with_capacity(len);
    let mut behind = 1;
    for _ in 0..len {
        let range = SeqRange {
            first: from.u64("range")?,
            count: from.u16("range")?,
        };
        let overflows = range.first.checked_add(range.count.into()).is_none();
        if range.first < behind || range.count == 0 || overflows {
            return Err(malformed);
        }
        behind = range.end();
        ranges.push(range);
    }
    from.end()?;
    Ok(ranges)
}

/// Node → master: DATA that the node misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Ascending, without overlap; 1 to [`RANGES_MAX`].
    pub ranges: Vec<SeqRange>,
}

impl Nack {
    /// Appends `count u8`, per range `first u64, count u16`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_ranges(&self.ranges, out);
    }

    /// Reads a payload that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// No range or too many, ranges that are empty, overlap or descend, truncation, bytes behind the end.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        decode_ranges(payload).map(|ranges| Self { ranges })
    }
}

/// Master → group: DATA that some node asked for and that will come again; whoever misses it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// Ascending, without overlap; 1 to [`RANGES_MAX`].
    pub ranges: Vec<SeqRange>,
}

impl Confirm {
    /// Appends `count u8`, per range `first u64, count u16`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_ranges(&self.ranges, out);
    }

    /// Reads a payload that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// As [`Nack::decode`].
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        decode_ranges(payload).map(|ranges| Self { ranges })
    }
}

/// Master → group: DATA below `low` is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The oldest that is.
    pub low: u64,
}

impl Gone {
    /// Appends `low u64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Encoder::new(out).u64(self.low);
    }

    /// Reads a payload that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation, bytes behind the end.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let low = from.u64("low")?;
        from.end()?;
        Ok(Self { low })
    }
}

/// Master → group: how far the stream is; it comes behind the last DATA, ever more seldom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupBeat {
    /// Sequence number of the last DATA; 0 before the first.
    pub highest: u64,
    /// Level of the log behind the last DATA.
    pub level: u64,
    /// Nodes in the group: their timers grow with it.
    pub members: u16,
    /// Longest round trip between the sender and a member, in microseconds.
    pub rtt_us: u32,
    /// Nodes multiply the wait before a NACK by two to this power.
    pub back_off: u8,
    /// The sender's monotonic clock in microseconds, returned in STATUS.
    pub sent_us: u64,
}

impl GroupBeat {
    /// Appends `highest u64, level u64, members u16, rtt_us u32, back_off u8, sent_us u64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Encoder::new(out)
            .u64(self.highest)
            .u64(self.level)
            .u16(self.members)
            .u32(self.rtt_us)
            .u8(self.back_off)
            .u64(self.sent_us);
    }

    /// Reads a payload that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation, bytes behind the end.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let beat = Self {
            highest: from.u64("highest")?,
            level: from.u64("level")?,
            members: from.u16("members")?,
            rtt_us: from.u32("round trip")?,
            back_off: from.u8("back-off")?,
            sent_us: from.u64("sending time")?,
        };
        from.end()?;
        Ok(beat)
    }
}

/// Node → master: how far the node is; moves the sender's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// The node has all DATA up to this sequence number.
    pub contiguous: u64,
    /// Highest sequence number it has heard of.
    pub highest: u64,
    /// DATA that did not come at first, since the node joined.
    pub lost_total: u64,
    /// NACKs it sent.
    pub nacks_total: u64,
    /// `sent_us` of the last beat it heard; 0 before the first.
    pub beat_us: u64,
    /// Microseconds between that beat's arrival and this report.
    pub held_us: u32,
}

impl GroupStatus {
    /// Appends `contiguous, highest, lost_total, nacks_total, beat_us: u64 each, held_us u32`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Encoder::new(out)
            .u64(self.contiguous)
            .u64(self.highest)
            .u64(self.lost_total)
            .u64(self.nacks_total)
            .u64(self.beat_us)
            .u32(self.held_us);
    }

    /// Reads a payload that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Truncation, bytes behind the end.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(payload);
        let status = Self {
            contiguous: from.u64("contiguous")?,
            highest: from.u64("highest")?,
            lost_total: from.u64("lost")?,
            nacks_total: from.u64("nacks")?,
            beat_us: from.u64("beat time")?,
            held_us: from.u32("held")?,
        };
        from.end()?;
        Ok(status)
    }
}
