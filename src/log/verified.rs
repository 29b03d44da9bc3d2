//! A batch as it is read: its header first, and its records only once every one of them was found right.
//!
//! Knows how to tell whether bytes are the batch that comes next, of either format (`docs/format.md`), and trusts no length
//! before its checksum. Does not know segments, nor what follows from a fault.

use super::batch::{
    BATCH_HEADER, BATCH_HEADER_1, BATCH_MAGIC, BATCH_MAGIC_1, BatchKind, DEPENDENCY, Dependency, Durable, Link,
    MAGIC_START,
};
use super::bytes::{array, i64_at, u16_at, u32_at, u64_at};
use super::checksum::Seed;
use super::record::{self, Record, RecordFault};
use crate::timeline::Time;

/// A batch header whose checksum was verified. Its body was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its number, and the chain that it claims to carry on.
    pub link: Link,
    /// What was durable when it was written.
    pub durable: Durable,
    /// The version to hand out after it.
    pub next_version: u64,
    /// When it was written.
    pub time: Time,
    /// Bytes of the header itself.
    pub length: usize,
    /// Bytes of its records.
    pub body_length: u64,
    /// Checksum over the records' checksums.
    pub body_checksum: u32,
    /// Number of records.
    pub records: u32,
    /// What it is for; where this program does not know that, the code that says it.
    pub kind: Result<BatchKind, u16>,
    /// Its own checksum, which the next batch's chain holds.
    pub checksum: u32,
}

/// Why bytes are not the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// No batch header: magic or checksum wrong, cut short, or written for another place.
    Header,
    /// A batch header, but not of the batch that comes next.
    Order,
    /// The body leads beyond the end of what is there.
    CutShort,
    /// The record at this offset from the start of the batch is bad.
    Record(usize, RecordFault),
    /// The records are right one by one, but not together: count, groups, versions or body checksum.
    Body,
    /// The batch that comes next, and of a kind that this program does not know: a newer one wrote it.
    Newer(u16),
}

impl BatchHeader {
    /// Reads the batch header at the start of `bytes`, which stands at `position` of a segment.
    pub fn decode(bytes: &[u8], seed: Seed, position: u64) -> Option<BatchHeader> {
        let length = header_length(bytes)?;
        let checksum = u32_at(bytes, 4)?;
        if seed.at(position, bytes.get(8..length)?) != checksum {
            return None;
        }
        let code = u16_at(bytes, 68)?;
        let offset = if length == BATCH_HEADER { i64_at(bytes, 72)? } else { 0 };
        Some(BatchHeader {
            link: Link { number: u64_at(bytes, 8)?, chain: u32_at(bytes, 56)? },
            durable: Durable { batch: u64_at(bytes, 16)?, version: u64_at(bytes, 24)? },
            next_version: u64_at(bytes, 32)?,
            time: Time { now: u64_at(bytes, 40)?, offset },
            length,
            body_length: u64_at(bytes, 48)?,
            body_checksum: u32_at(bytes, 60)?,
            records: u32_at(bytes, 64)?,
            kind: BatchKind::of(code).ok_or(code),
            checksum,
        })
    }
}

/// Bytes of the batch header that begins here, as its magic tells.
fn header_length(bytes: &[u8]) -> Option<usize> {
    match array::<4>(bytes, 0)? {
        BATCH_MAGIC => Some(BATCH_HEADER),
        BATCH_MAGIC_1 => Some(BATCH_HEADER_1),
        _ => None,
    }
}

/// The first batch header in a segment from an offset on, and where it stands. A header counts if its checksum is right for
/// that place.
pub fn find_header(segment: &[u8], seed: Seed, from: usize) -> Option<(usize, BatchHeader)> {
    let mut at = from;
    loop {
        at += memchr::memmem::find(segment.get(at..)?, MAGIC_START)?;
        if let Some(header) = BatchHeader::decode(segment.get(at..)?, seed, at as u64) {
            return Some((at, header));
        }
        at += 1;
    }
}

/// Every batch header in a segment from an offset on that is right for its place by one of the seeds that are wanted, where it
/// stands, and by which. One pass, however many seeds there are: a checksum tells the only seed that it can have begun from.
pub fn headers_by_seed(
    segment: &[u8],
    from: usize,
    is_wanted: impl Fn(Seed) -> bool,
) -> impl Iterator<Item = (usize, Seed, BatchHeader)> {
    let places = memchr::memmem::find_iter(segment.get(from..).unwrap_or_default(), MAGIC_START);
    places.filter_map(move |place| {
        let at = from + place;
        let bytes = segment.get(at..)?;
        let seed = Seed::behind(u32_at(bytes, 4)?, at as u64, bytes.get(8..header_length(bytes)?)?);
        let header = is_wanted(seed).then(|| BatchHeader::decode(bytes, seed, at as u64))??;
        Some((at, seed, header))
    })
}

/// A batch that was verified to its last byte.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedBatch<'a> {
    /// Its header.
    pub header: BatchHeader,
    body: &'a [u8],
    seed: Seed,
    position: u64,
}

impl<'a> VerifiedBatch<'a> {
    /// Verifies the batch at the start of `bytes`, which stands at `position` of a segment and must be the one
    /// that `expected` describes.
    ///
    /// # Errors
    /// The first [`BatchFault`] met.
    pub fn decode(bytes: &'a [u8], seed: Seed, position: u64, expected: Link) -> Result<Self, BatchFault> {
        let header = BatchHeader::decode(bytes, seed, position).ok_or(BatchFault::Header)?;
        if header.link != expected {
            return Err(BatchFault::Order);
        }
        if let Err(code) = header.kind {
            return Err(BatchFault::Newer(code));
        }
        let body = usize::try_from(header.body_length)
            .ok()
            .and_then(|length| bytes.get(header.length..)?.get(..length))
            .ok_or(BatchFault::CutShort)?;
        let batch = VerifiedBatch { header, body, seed, position };
        batch.verify_body()?;
        Ok(batch)
    }

    /// Bytes of the whole batch.
    pub fn byte_len(&self) -> u64 {
        self.header.length as u64 + self.header.body_length
    }

    /// The segments that it says are relied on.
    pub fn dependencies(&self) -> impl Iterator<Item = Dependency> + use<'a> {
        let body = if self.header.kind == Ok(BatchKind::Dependencies) { self.body } else { &[] };
        body.chunks_exact(DEPENDENCY)
            .filter_map(|bytes| Some(Dependency { number: u64_at(bytes, 0)?, generation: u32_at(bytes, 8)? }))
    }

    /// Its records, first to last.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = if self.header.kind == Ok(BatchKind::Groups) { self.body } else { &[] };
        std::iter::from_fn(move || {
            let record = record::reread(rest)?;
            rest = rest.get(record.length..)?;
            Some(record)
        })
    }

    fn verify_body(&self) -> Result<(), BatchFault> {
        if self.header.kind == Ok(BatchKind::Dependencies) {
            return self.verify_dependencies();
        }
        let mut body = self.seed.body();
        let mut count = 0_u32;
        let mut inside_group = false;
        let mut last_version = 0;
        for (offset, record) in self.checked_records() {
            let record = record.map_err(|fault| BatchFault::Record(offset, fault))?;
            let in_order = record.version > last_version && record.version < self.header.next_version;
            if record.first == inside_group || !in_order {
                return Err(BatchFault::Body);
            }
            inside_group = !record.last;
            last_version = record.version;
            body.add(record.checksum);
            count += 1;
        }
        let complete = !inside_group && count == self.header.records && body.finish() == self.header.body_checksum;
        let fits_kind = (self.header.kind == Ok(BatchKind::Groups)) == (count > 0);
        if complete && fits_kind { Ok(()) } else { Err(BatchFault::Body) }
    }

    fn verify_dependencies(&self) -> Result<(), BatchFault> {
        let mut sum = self.seed.body();
        sum.add_bytes(self.body);
        let is_first = self.header.link.number == 1;
        let counted = self.body.len() == self.header.records as usize * DEPENDENCY && !self.body.is_empty();
        let right = is_first && counted && sum.finish() == self.header.body_checksum;
        if right { Ok(()) } else { Err(BatchFault::Body) }
    }

    fn checked_records(&self) -> impl Iterator<Item = (usize, Result<Record<'a>, RecordFault>)> + use<'a> {
        let (body, seed, position, header) = (self.body, self.seed, self.position, self.header.length);
        let mut offset = 0;
        std::iter::from_fn(move || {
            let rest = body.get(offset..).filter(|rest| !rest.is_empty())?;
            let at = header + offset;
            let record = record::decode(rest, seed, position + at as u64);
            // After a bad record nothing tells where the next one begins.
            offset = record.as_ref().map_or(body.len(), |record| offset + record.length);
            Some((at, record))
        })
    }
}
