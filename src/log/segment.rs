//! A segment's name and its header.
//!
//! Knows the first 4,096 bytes of a segment and how its file is called (`docs/format.md`): nothing else knows
//! either. Does not know batches or directories.

use super::batch::Link;
use super::bytes::{all_zero, array, i64_at, put, u16_at, u32_at, u64_at};
use super::checksum::Seed;
use super::error::Unknown;
use super::secret::Secret;
use crate::timeline::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 4096;
/// What every segment begins with.
pub const SEGMENT_MAGIC: [u8; 8] = *b"\x89kvdlog\n";
/// The format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 2;

const KIND_JOURNAL: u16 = 1;
const KIND_COMPACTED: u16 = 2;
const CHECKSUM_AT: usize = 4092;
/// Where the number of epochs stands of which a header has a history: room for up to 16 of 32 bytes is kept behind it. This
/// program writes none, and does not know what one means.
const EPOCHS_AT: usize = 136;
const PREFIX: &str = "segment-";
const SUFFIX: &str = ".log";
/// Of a segment's number, in its name.
const DIGITS: usize = 20;
const TEMPORARY: &str = ".tmp";
const TORN_TAIL: &str = ".torn-tail-at-";
const TORN_HEADER: &str = ".torn-header";
const DAMAGED: &str = ".damaged-";

/// The name of a segment's file.
///
/// ```
/// assert_eq!(kvd::log::segment::file_name(7), "segment-00000000000000000007.log");
/// ```
pub fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:020}{SUFFIX}")
}

/// What a name in the data directory says of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// A segment of this number.
    Segment(u64),
    /// Left over from work that was cut short.
    Temporary,
    /// Bytes that a start cut off and kept, or a damaged segment that a repair has replaced.
    Saved,
    /// Nothing that kvd made.
    Stranger,
}

impl FileRole {
    /// The role that goes with a name.
    pub fn of(name: &str) -> FileRole {
        let Some((number, rest)) = split(name) else { return FileRole::Stranger };
        match rest {
            "" => FileRole::Segment(number),
            TEMPORARY => FileRole::Temporary,
            _ if is_kept(rest) => FileRole::Saved,
            _ => FileRole::Stranger,
        }
    }
}

/// A segment's number and what follows its own name, in a name that begins with that.
fn split(name: &str) -> Option<(u64, &str)> {
    let digits = name.strip_prefix(PREFIX)?.get(..DIGITS)?;
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    // Written back, since `parse` takes a sign as well.
    Some((number, name.strip_prefix(&file_name(number))?))
}

/// Whether this follows a segment's name where bytes of it were kept: `.torn-tail-at-4096`, and `.2` where that was there.
fn is_kept(rest: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let may_be_the_next = |text: &str| text.is_empty() || text.strip_prefix('.').is_some_and(is_number);
    if let Some(rest) = rest.strip_prefix(DAMAGED) {
        return is_number(rest);
    }
    if let Some(rest) = rest.strip_prefix(TORN_TAIL) {
        let digits = rest.find('.').unwrap_or(rest.len());
        return is_number(&rest[..digits]) && may_be_the_next(&rest[digits..]);
    }
    rest.strip_prefix(TORN_HEADER).is_some_and(may_be_the_next)
}

/// The name under which what follows an offset of a segment is kept, the n-th one from there.
pub fn torn_tail_name(number: u64, offset: u64, n: u64) -> String {
    nth(format!("{}{TORN_TAIL}{offset}", file_name(number)), n)
}

/// The name under which a header that was never finished is kept, the n-th one of this number.
pub fn torn_header_name(number: u64, n: u64) -> String {
    nth(format!("{}{TORN_HEADER}", file_name(number)), n)
}

fn nth(name: String, n: u64) -> String {
    if n > 1 { format!("{name}.{n}") } else { name }
}

/// The name under which the segment that will have this number is made, until it is whole.
pub fn temporary_name(number: u64) -> String {
    format!("{}{TEMPORARY}", file_name(number))
}

/// The name under which a damaged segment is kept, the n-th one of this number.
pub fn damaged_name(number: u64, n: u64) -> String {
    format!("{}{DAMAGED}{n}", file_name(number))
}

/// How a segment came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Commits were appended to it.
    Journal,
    /// Compaction wrote what was left of one or more segments.
    Compacted(Compacted),
}

/// What a compacted segment's header says of its making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// It stands for the segments from this number up to its own.
    pub first: u64,
    /// One more than that of any segment that it was made of; a journal segment's is 0.
    pub generation: u32,
    /// Bytes of the whole file.
    pub length: u64,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// How it came to be.
    pub kind: SegmentKind,
    /// The store that it belongs to.
    pub identity: u128,
    /// What the store keys its hashes by; none in a segment of format 1.
    pub secret: Option<Secret>,
    /// Its number.
    pub number: u64,
    /// Kept for replication; 0.
    pub epoch: u64,
    /// The next version to hand out when it was begun: none of its records has one below. In a compacted segment that of
    /// the first one it stands for.
    pub next_version: u64,
    /// Highest version known durable when it was begun. In a compacted segment as of when the table had last been asked
    /// about its records: without everything up to there, what was dropped is missing.
    pub durable_version: u64,
    /// What the segment before it has to end with: the number of the batch after that, and the chain.
    pub link: Link,
    /// When it was begun. In a compacted segment the time of the newest that it was made of.
    pub time: Time,
}

/// What the first bytes of a segment's file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderState {
    /// A valid header.
    Valid(SegmentHeader),
    /// A valid header of which this code does not know something.
    Newer(Unknown),
    /// Zeros, or nothing at all.
    Blank,
    /// Begins like a segment, or with zeros, but is not a valid header.
    Broken,
    /// Nothing that kvd wrote.
    Foreign,
}

impl SegmentHeader {
    /// What the checksums of this segment begin from.
    pub fn seed(&self) -> Seed {
        let seed = match self.kind {
            SegmentKind::Journal => Seed::new(self.identity, self.number, self.epoch),
            SegmentKind::Compacted(Compacted { generation, .. }) => {
                Seed::compacted(self.identity, self.number, self.epoch, generation)
            }
        };
        self.secret.map_or(seed, |secret| seed.keyed(secret.expose()))
    }

    /// What its first batch has to carry on. The batches of a compacted segment are a chain of their own.
    pub fn first_batch(&self) -> Link {
        match self.kind {
            SegmentKind::Journal => self.link,
            SegmentKind::Compacted(_) => Link { number: 1, chain: 0 },
        }
    }

    /// The lowest number of the segments that it stands for, its own at most.
    pub fn first(&self) -> u64 {
        match self.kind {
            SegmentKind::Journal => self.number,
            SegmentKind::Compacted(Compacted { first, .. }) => first,
        }
    }

    /// How often what is in it was compacted.
    pub fn generation(&self) -> u32 {
        match self.kind {
            SegmentKind::Journal => 0,
            SegmentKind::Compacted(Compacted { generation, .. }) => generation,
        }
    }

    /// Whether batches of this program may follow those that are in it.
    pub fn is_current(&self) -> bool {
        self.secret.is_some()
    }

    /// The bytes of this header, which must have a secret: what is written is of this program's format.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.secret.is_some(), "a header without the store's secret");
        let mut bytes = vec![0; SEGMENT_HEADER];
        let header = &mut bytes;
        put(header, 0, SEGMENT_MAGIC);
        put(header, 8, FORMAT_VERSION.to_le_bytes());
        put(header, 16, self.identity.to_le_bytes());
        put(header, 32, self.number.to_le_bytes());
        put(header, 40, self.epoch.to_le_bytes());
        put(header, 48, self.next_version.to_le_bytes());
        put(header, 56, self.durable_version.to_le_bytes());
        put(header, 64, self.link.number.to_le_bytes());
        put(header, 72, self.link.chain.to_le_bytes());
        put(header, 88, self.time.now.to_le_bytes());
        put(header, 112, self.time.offset.to_le_bytes());
        put(header, 120, self.secret.map_or(0, Secret::expose).to_le_bytes());
        match self.kind {
            SegmentKind::Journal => put(header, 10, KIND_JOURNAL.to_le_bytes()),
            SegmentKind::Compacted(Compacted { first, generation, length }) => {
                put(header, 10, KIND_COMPACTED.to_le_bytes());
                put(header, 12, generation.to_le_bytes());
                put(header, 80, length.to_le_bytes());
                if first < self.number {
                    put(header, 76, 1_u32.to_le_bytes());
                    put(header, 96, first.to_le_bytes());
                    put(header, 104, (self.number - 1).to_le_bytes());
                }
            }
        }
        let checksum = crc32fast::hash(header.get(..CHECKSUM_AT).unwrap_or_default());
        put(header, CHECKSUM_AT, checksum.to_le_bytes());
        bytes
    }

    /// Reads the beginning of a segment's file.
    pub fn decode(bytes: &[u8]) -> HeaderState {
        let head = bytes.get(..SEGMENT_HEADER).unwrap_or(bytes);
        if all_zero(head) {
            return HeaderState::Blank;
        }
        // A header that was being written when the power went may lack any of its sectors, the first included.
        let begins = head.get(..8).unwrap_or(head);
        if !SEGMENT_MAGIC.starts_with(begins) && !all_zero(begins) {
            return HeaderState::Foreign;
        }
        if u32_at(head, CHECKSUM_AT) != Some(crc32fast::hash(head.get(..CHECKSUM_AT).unwrap_or_default())) {
            return HeaderState::Broken;
        }
        Self::parse(head).unwrap_or(HeaderState::Broken)
    }

    fn parse(head: &[u8]) -> Option<HeaderState> {
        let (version, kind) = (u16_at(head, 8)?, u16_at(head, 10)?);
        let number = u64_at(head, 32)?;
        let kind = match kind {
            _ if version > FORMAT_VERSION => return Some(HeaderState::Newer(Unknown::Format(version))),
            KIND_JOURNAL => SegmentKind::Journal,
            KIND_COMPACTED => SegmentKind::Compacted(Self::parse_compacted(head, number)?),
            kind => return Some(HeaderState::Newer(Unknown::SegmentKind(kind))),
        };
        let (offset, secret) = match version {
            1 => (0, None),
            _ if u32_at(head, EPOCHS_AT)? != 0 => return Some(HeaderState::Newer(Unknown::EpochHistory)),
            _ => (i64_at(head, 112)?, Some(Secret::new(u128::from_le_bytes(array(head, 120)?)))),
        };
        Some(HeaderState::Valid(SegmentHeader {
            kind,
            identity: u128::from_le_bytes(array(head, 16)?),
            secret,
            number,
            epoch: u64_at(head, 40)?,
            next_version: u64_at(head, 48)?,
            durable_version: u64_at(head, 56)?,
            link: Link { number: u64_at(head, 64)?, chain: u32_at(head, 72)? },
            time: Time { now: u64_at(head, 88)?, offset },
        }))
    }

    fn parse_compacted(head: &[u8], number: u64) -> Option<Compacted> {
        let (generation, length) = (u32_at(head, 12)?, u64_at(head, 80)?);
        let first = match u32_at(head, 76)? {
            0 => number,
            1 => u64_at(head, 96).filter(|first| (1..number).contains(first))?,
            _ => return None,
        };
        let right = generation > 0 && (first == number || u64_at(head, 104)? == number - 1);
        right.then_some(Compacted { first, generation, length })
    }
}

/// Now, for the header only, where it tells a person when the segment was made.
pub fn unix_milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Journal,
            identity: 0x0123_4567_89ab_cdef,
            secret: Some(Secret::new(0xfeed << 100 | 7)),
            number: 3,
            epoch: 0,
            next_version: 100,
            durable_version: 99,
            link: Link { number: 12, chain: 0xfeed },
            time: Time { now: 1_700_000_000_000, offset: -5_000 },
        }
    }

    #[test]
    fn a_header_comes_back() {
        assert_eq!(SegmentHeader::decode(&header().encode()), HeaderState::Valid(header()));
    }

    #[test]
    fn a_compacted_segment_says_what_it_stands_for() {
        for first in [1, 3] {
            let kind = SegmentKind::Compacted(Compacted { first, generation: 2, length: 70_000 });
            let compacted = SegmentHeader { kind, ..header() };
            assert_eq!(SegmentHeader::decode(&compacted.encode()), HeaderState::Valid(compacted));
            assert_eq!((compacted.first(), compacted.first_batch()), (first, Link { number: 1, chain: 0 }));
            assert_ne!(compacted.seed(), header().seed());
        }
    }

    #[test]
    fn a_compacted_segment_that_contradicts_itself_is_damage() {
        let kind = SegmentKind::Compacted(Compacted { first: 1, generation: 1, length: 70_000 });
        for (at, wrong) in [(12, 0_u64), (76, 2), (96, 3), (96, 0), (104, 1)] {
            let mut bytes = SegmentHeader { kind, ..header() }.encode();
            let width = if at < 80 { 4 } else { 8 };
            bytes[at..at + width].copy_from_slice(&wrong.to_le_bytes()[..width]);
            let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
            put(&mut bytes, CHECKSUM_AT, checksum.to_le_bytes());
            assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Broken, "{wrong} at {at}");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let state = SegmentHeader::decode(&flipped);
            assert!(matches!(state, HeaderState::Broken | HeaderState::Foreign), "bit {bit}: {state:?}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = header().encode();
        put(&mut bytes, 8, 3_u16.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Broken, "without its checksum");
        let summed = |mut bytes: Vec<u8>| {
            let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
            put(&mut bytes, CHECKSUM_AT, checksum.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(summed(bytes), HeaderState::Newer(Unknown::Format(3)));
        let mut bytes = header().encode();
        put(&mut bytes, 10, 3_u16.to_le_bytes());
        assert_eq!(summed(bytes), HeaderState::Newer(Unknown::SegmentKind(3)));
        let mut bytes = header().encode();
        put(&mut bytes, EPOCHS_AT, 1_u32.to_le_bytes());
        assert_eq!(summed(bytes), HeaderState::Newer(Unknown::EpochHistory));
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        assert_eq!(SegmentHeader::decode(&[]), HeaderState::Blank);
        assert_eq!(SegmentHeader::decode(&[0; 5000]), HeaderState::Blank);
        assert_eq!(SegmentHeader::decode(&SEGMENT_MAGIC[..3]), HeaderState::Broken);
        assert_eq!(SegmentHeader::decode(b"# notes on segments\n"), HeaderState::Foreign);
        let mut torn = header().encode();
        torn[..512].fill(0);
        assert_eq!(SegmentHeader::decode(&torn), HeaderState::Broken, "first sector missing");
    }

    #[test]
    fn names_say_what_files_are() {
        assert_eq!(FileRole::of(&file_name(u64::MAX)), FileRole::Segment(u64::MAX));
        assert_eq!(FileRole::of("segment-7.log"), FileRole::Stranger);
        assert_eq!(FileRole::of("segment-00000000000000000000.log"), FileRole::Stranger);
        assert_eq!(FileRole::of("segment-00000000000000000007.log.tmp"), FileRole::Temporary);
        assert_eq!(FileRole::of("segment-00000000000000000007.log.torn-tail-at-4096"), FileRole::Saved);
        assert_eq!(FileRole::of("LOCK"), FileRole::Stranger);
        for kept in [
            damaged_name(7, 12),
            torn_tail_name(7, 4096, 1),
            torn_tail_name(7, 4096, 3),
            torn_header_name(7, 1),
            torn_header_name(7, 2),
        ] {
            assert_eq!(FileRole::of(&kept), FileRole::Saved, "{kept}");
        }
    }

    #[test]
    fn only_names_of_exactly_these_forms_are_kvds() {
        for stranger in [
            "segment-notes.tmp",
            "segment-.tmp",
            "segment-7.log.tmp",
            "segment-00000000000000000000.log.tmp",
            "segment-+0000000000000000007.log.tmp",
            "segment-00000000000000000007.tmp",
            "segment-00000000000000000007.log.tmp.tmp",
            "segment-00000000000000000007.log.tmp~",
            "segment-00000000000000000007.log.bak",
            "segment-notes.log.torn-out",
            "segment-00000000000000000007.log.torn-out",
            "segment-00000000000000000007.log.torn-tail-at-",
            "segment-00000000000000000007.log.torn-tail-at-4096.",
            "segment-00000000000000000007.log.torn-tail-at-4096.x",
            "segment-00000000000000000007.log.torn-header2",
            "segment-00000000000000000007.log.damaged-",
            "segment-00000000000000000007.log.damaged-1.txt",
            "segment-0000000000000000000\u{fffd}.log.tmp",
            "segment-000000000000000000000000000000007.log",
            "segment-99999999999999999999.log",
        ] {
            assert_eq!(FileRole::of(stranger), FileRole::Stranger, "{stranger}");
        }
    }

    #[test]
    fn the_generation_is_that_of_the_compaction() {
        let kind = |generation| SegmentKind::Compacted(Compacted { first: 1, generation, length: 70_000 });
        assert_eq!(header().generation(), 0);
        assert_eq!(SegmentHeader { kind: kind(2), ..header() }.generation(), 2);
    }
}
