//! A segment's name and its header.
//!
//! Knows the first 4,096 bytes of a segment and how its file is called (`docs/format.md`): nothing else knows
//! either. Does not know batches or directories.

use super::batch::{Durable, Link};
use super::bytes::{all_zero, array, put, u16_at, u32_at, u64_at};
use super::checksum::Seed;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 4096;
/// What every segment begins with.
pub const SEGMENT_MAGIC: [u8; 8] = *b"\x89kvdlog\n";
/// The format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;

const KIND_JOURNAL: u16 = 1;
const CHECKSUM_AT: usize = 4092;
const PREFIX: &str = "segment-";
const SUFFIX: &str = ".log";
const TEMPORARY: &str = ".tmp";

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
    /// Bytes that a start cut off and kept.
    Saved,
    /// Nothing that kvd made.
    Stranger,
}

impl FileRole {
    /// The role that goes with a name.
    pub fn of(name: &str) -> FileRole {
        let Some(rest) = name.strip_prefix(PREFIX) else { return FileRole::Stranger };
        if rest.ends_with(TEMPORARY) {
            return FileRole::Temporary;
        }
        if rest.contains(".log.torn-") {
            return FileRole::Saved;
        }
        match rest.strip_suffix(SUFFIX).map(str::parse) {
            // Written back, so that `segment-7.log` is not taken for the one with 20 digits.
            Some(Ok(number)) if number > 0 && file_name(number) == name => FileRole::Segment(number),
            _ => FileRole::Stranger,
        }
    }
}

/// A journal segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that it belongs to.
    pub identity: u128,
    /// Its number.
    pub number: u64,
    /// Kept for replication; 0.
    pub epoch: u64,
    /// The next version to hand out.
    pub next_version: u64,
    /// Highest version known durable.
    pub watermark: u64,
    /// Its first batch, and the chain that it carries on.
    pub link: Link,
    /// Unix milliseconds at which it was made.
    pub created: u64,
}

/// What the first bytes of a segment's file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderState {
    /// A valid header.
    Valid(SegmentHeader),
    /// A valid header of a format that this code does not know.
    Newer {
        /// Its format version.
        version: u16,
    },
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
        Seed::new(self.identity, self.number, self.epoch)
    }

    /// What was durable when this segment was begun: all of the segments before it.
    pub fn durable(&self) -> Durable {
        Durable { batch: self.link.number.saturating_sub(1), version: self.watermark }
    }

    /// The bytes of this header.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT_HEADER];
        let header = &mut bytes;
        put(header, 0, SEGMENT_MAGIC);
        put(header, 8, FORMAT_VERSION.to_le_bytes());
        put(header, 10, KIND_JOURNAL.to_le_bytes());
        put(header, 16, self.identity.to_le_bytes());
        put(header, 32, self.number.to_le_bytes());
        put(header, 40, self.epoch.to_le_bytes());
        put(header, 48, self.next_version.to_le_bytes());
        put(header, 56, self.watermark.to_le_bytes());
        put(header, 64, self.link.number.to_le_bytes());
        put(header, 72, self.link.chain.to_le_bytes());
        put(header, 88, self.created.to_le_bytes());
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
        if version > FORMAT_VERSION || kind != KIND_JOURNAL {
            return Some(HeaderState::Newer { version });
        }
        Some(HeaderState::Valid(SegmentHeader {
            identity: u128::from_le_bytes(array(head, 16)?),
            number: u64_at(head, 32)?,
            epoch: u64_at(head, 40)?,
            next_version: u64_at(head, 48)?,
            watermark: u64_at(head, 56)?,
            link: Link { number: u64_at(head, 64)?, chain: u32_at(head, 72)? },
            created: u64_at(head, 88)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: 0x0123_4567_89ab_cdef,
            number: 3,
            epoch: 0,
            next_version: 100,
            watermark: 99,
            link: Link { number: 12, chain: 0xfeed },
            created: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_header_comes_back() {
        assert_eq!(SegmentHeader::decode(&header().encode()), HeaderState::Valid(header()));
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
        put(&mut bytes, 8, 2_u16.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Broken, "without its checksum");
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        put(&mut bytes, CHECKSUM_AT, checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Newer { version: 2 });
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
    }
}
