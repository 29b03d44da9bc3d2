//! The groups that one write and one sync make durable together.
//!
//! Knows the bytes of a batch (`docs/format.md`): building one on the engine's side, sealing it on the log's,
//! verifying it on a start. Does not know files.

use super::bytes::{put, u16_at, u32_at, u64_at};
use super::checksum::Seed;
use super::record::{self, Record, RecordFault};
use crate::mutation::Mutation;

/// Bytes of a batch's header.
pub const BATCH_HEADER: usize = 72;
/// What every batch begins with. Not zero, so that zeros are never a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"\xb7kvb";

/// Capacity that a batch keeps when it is emptied for reuse; what a burst needed beyond it is given back.
const KEPT_CAPACITY: usize = 4 << 20;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Groups of records.
    Groups,
    /// No records: the daemon stopped here in an orderly way.
    CleanStop,
}

impl BatchKind {
    const fn code(self) -> u16 {
        match self {
            BatchKind::Groups => 1,
            BatchKind::CleanStop => 2,
        }
    }
}

/// How many records there are and the bytes they take, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that store.
    pub puts: u64,
    /// Their bytes, headers included.
    pub put_bytes: u64,
    /// Records that remove a key or flush.
    pub removals: u64,
    /// Their bytes, headers included.
    pub removal_bytes: u64,
}

impl Tally {
    /// Counts a record of this length, header included.
    pub fn add(&mut self, mutation: &Mutation<'_>, length: usize) {
        let (count, bytes) = match mutation {
            Mutation::Put { .. } => (&mut self.puts, &mut self.put_bytes),
            Mutation::Remove { .. } | Mutation::Flush { .. } => (&mut self.removals, &mut self.removal_bytes),
        };
        *count += 1;
        *bytes += length as u64;
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.puts += other.puts;
        self.put_bytes += other.put_bytes;
        self.removals += other.removals;
        self.removal_bytes += other.removal_bytes;
    }
}

/// Where a batch stands in the chain of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Number of the next batch.
    pub number: u64,
    /// Header checksum of the batch before it; 0 before the first.
    pub chain: u32,
}

/// What was known durable at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable {
    /// Highest durable batch number.
    pub batch: u64,
    /// Highest durable version: the watermark.
    pub version: u64,
}

/// A batch being built: encoded groups that have no place yet.
///
/// ```
/// use kvd::log::Batch;
/// use kvd::mutation::{Key, Mutation};
/// let mut batch = Batch::default();
/// batch.push(1, &Mutation::Remove { key: Key::bytes(b"a") });
/// batch.push(2, &Mutation::Remove { key: Key::bytes(b"b") });
/// batch.end_group();
/// assert!(!batch.is_empty() && batch.frees_room());
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    records: u32,
    last_record: usize,
    group_open: bool,
    tally: Tally,
    first_version: u64,
    last_version: u64,
    now: u64,
    next_version: u64,
    kind: BatchKind,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            bytes: vec![0; BATCH_HEADER],
            records: 0,
            last_record: 0,
            group_open: false,
            tally: Tally::default(),
            first_version: 0,
            last_version: 0,
            now: 0,
            next_version: 1,
            kind: BatchKind::Groups,
        }
    }
}

impl Batch {
    /// The mark of an orderly stop.
    pub fn clean_stop() -> Self {
        Batch { kind: BatchKind::CleanStop, ..Batch::default() }
    }

    /// Appends a mutation to the open group, opening one if there is none. Versions rise from call to call.
    pub fn push(&mut self, version: u64, mutation: &Mutation<'_>) {
        self.last_record = self.bytes.len();
        record::encode(&mut self.bytes, version, mutation, !self.group_open);
        self.group_open = true;
        self.records += 1;
        self.last_version = version;
        if self.first_version == 0 {
            self.first_version = version;
        }
        self.tally.add(mutation, self.bytes.len() - self.last_record);
    }

    /// Ends the open group, if there is one.
    pub fn end_group(&mut self) {
        if self.group_open {
            record::mark_last(&mut self.bytes, self.last_record);
            self.group_open = false;
        }
    }

    /// Sets what the header says: the time in Unix milliseconds, and the version that will be handed out next.
    pub fn stamp(&mut self, now: u64, next_version: u64) {
        self.now = now;
        self.next_version = next_version;
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that it takes in a segment, its header included.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it only removes, and so may use the reserve of a full disk.
    pub fn frees_room(&self) -> bool {
        self.tally.puts == 0
    }

    /// What it holds.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The version of its first record; 0 in an empty batch.
    pub fn first_version(&self) -> u64 {
        self.first_version
    }

    /// The version of its last record; 0 in an empty batch.
    pub fn last_version(&self) -> u64 {
        self.last_version
    }

    /// The time, as stamped.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The version that will be handed out after it, as stamped.
    pub fn next_version(&self) -> u64 {
        self.next_version
    }

    /// Empties it for reuse.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(BATCH_HEADER);
        bytes.shrink_to(KEPT_CAPACITY);
        *self = Batch { bytes, ..Batch::default() };
    }

    /// Fills in header and checksums for this place and returns the bytes to write, with the link for the next
    /// batch. Sealing again for another place is fine.
    pub fn seal(&mut self, seed: Seed, position: u64, link: Link, durable: Durable) -> (&[u8], Link) {
        self.end_group();
        let mut body = seed.body();
        let mut offset = BATCH_HEADER;
        while let Some((checksum, length)) =
            self.bytes.get_mut(offset..).and_then(|rest| record::seal(rest, seed, position + offset as u64))
        {
            body.add(checksum);
            offset += length;
        }
        let header = &mut self.bytes;
        let body_length = (header.len() - BATCH_HEADER) as u64;
        put(header, 0, BATCH_MAGIC);
        put(header, 8, link.number.to_le_bytes());
        put(header, 16, durable.batch.to_le_bytes());
        put(header, 24, durable.version.to_le_bytes());
        put(header, 32, self.next_version.to_le_bytes());
        put(header, 40, self.now.to_le_bytes());
        put(header, 48, body_length.to_le_bytes());
        put(header, 56, link.chain.to_le_bytes());
        put(header, 60, body.finish().to_le_bytes());
        put(header, 64, self.records.to_le_bytes());
        put(header, 68, self.kind.code().to_le_bytes());
        let checksum = seed.at(position, header.get(8..BATCH_HEADER).unwrap_or_default());
        put(header, 4, checksum.to_le_bytes());
        (&self.bytes, Link { number: link.number + 1, chain: checksum })
    }
}

/// A batch header whose checksum was verified. Its body was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its number, and the chain that it claims to carry on.
    pub link: Link,
    /// What was durable when it was written.
    pub durable: Durable,
    /// The version to hand out after it.
    pub next_version: u64,
    /// Unix milliseconds.
    pub now: u64,
    /// Bytes of its records.
    pub body_length: u64,
    /// Checksum over the records' checksums.
    pub body_checksum: u32,
    /// Number of records.
    pub records: u32,
    /// What it is for.
    pub kind: BatchKind,
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
}

impl BatchHeader {
    /// Reads the batch header at the start of `bytes`, which stands at `position` of a segment.
    pub fn decode(bytes: &[u8], seed: Seed, position: u64) -> Option<BatchHeader> {
        if !bytes.starts_with(&BATCH_MAGIC) {
            return None;
        }
        let checksum = u32_at(bytes, 4)?;
        if seed.at(position, bytes.get(8..BATCH_HEADER)?) != checksum {
            return None;
        }
        let kind = match u16_at(bytes, 68)? {
            1 => BatchKind::Groups,
            2 => BatchKind::CleanStop,
            _ => return None,
        };
        Some(BatchHeader {
            link: Link { number: u64_at(bytes, 8)?, chain: u32_at(bytes, 56)? },
            durable: Durable { batch: u64_at(bytes, 16)?, version: u64_at(bytes, 24)? },
            next_version: u64_at(bytes, 32)?,
            now: u64_at(bytes, 40)?,
            body_length: u64_at(bytes, 48)?,
            body_checksum: u32_at(bytes, 60)?,
            records: u32_at(bytes, 64)?,
            kind,
            checksum,
        })
    }
}

/// The first batch header in a segment from an offset on, and where it stands. A header counts if its checksum is right for
/// that place.
pub fn find_header(segment: &[u8], seed: Seed, from: usize) -> Option<(usize, BatchHeader)> {
    let mut at = from;
    loop {
        at += memchr::memmem::find(segment.get(at..)?, &BATCH_MAGIC)?;
        if let Some(header) = BatchHeader::decode(segment.get(at..)?, seed, at as u64) {
            return Some((at, header));
        }
        at += 1;
    }
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
        let body = usize::try_from(header.body_length)
            .ok()
            .and_then(|length| bytes.get(BATCH_HEADER..)?.get(..length))
            .ok_or(BatchFault::CutShort)?;
        let batch = VerifiedBatch { header, body, seed, position };
        batch.verify_body()?;
        Ok(batch)
    }

    /// Bytes of the whole batch.
    pub fn byte_len(&self) -> u64 {
        BATCH_HEADER as u64 + self.header.body_length
    }

    /// Its records, first to last.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let record = record::reread(rest)?;
            rest = rest.get(record.length..)?;
            Some(record)
        })
    }

    fn verify_body(&self) -> Result<(), BatchFault> {
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
        let fits_kind = (self.header.kind == BatchKind::CleanStop) == (count == 0);
        if complete && fits_kind { Ok(()) } else { Err(BatchFault::Body) }
    }

    fn checked_records(&self) -> impl Iterator<Item = (usize, Result<Record<'a>, RecordFault>)> + use<'a> {
        let (body, seed, position) = (self.body, self.seed, self.position);
        let mut offset = 0;
        std::iter::from_fn(move || {
            let rest = body.get(offset..).filter(|rest| !rest.is_empty())?;
            let at = BATCH_HEADER + offset;
            let record = record::decode(rest, seed, position + at as u64);
            // After a bad record nothing tells where the next one begins.
            offset = record.as_ref().map_or(body.len(), |record| offset + record.length);
            Some((at, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};

    const POSITION: u64 = 4096;

    fn seed() -> Seed {
        Seed::new(1, 1, 0)
    }

    fn link() -> Link {
        Link { number: 5, chain: 77 }
    }

    fn two_groups() -> Batch {
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        let mut batch = Batch::default();
        batch.push(10, &Mutation::Put { key: Key::bytes(b"a"), value });
        batch.push(11, &Mutation::Put { key: Key::bytes(b"b"), value });
        batch.end_group();
        batch.push(12, &Mutation::Remove { key: Key::bytes(b"a") });
        batch.end_group();
        batch.stamp(1_000, 13);
        batch
    }

    fn sealed() -> Vec<u8> {
        two_groups().seal(seed(), POSITION, link(), Durable { batch: 4, version: 9 }).0.to_vec()
    }

    #[test]
    fn a_batch_comes_back_with_its_groups_and_its_header() {
        let bytes = sealed();
        let batch = VerifiedBatch::decode(&bytes, seed(), POSITION, link()).expect("a valid batch");
        let marks: Vec<_> = batch.records().map(|r| (r.version, r.first, r.last)).collect();
        assert_eq!(marks, [(10, true, false), (11, false, true), (12, true, true)]);
        assert_eq!(batch.header.durable, Durable { batch: 4, version: 9 });
        assert_eq!((batch.header.next_version, batch.header.now), (13, 1_000));
        assert_eq!(batch.byte_len(), bytes.len() as u64);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let bytes = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(VerifiedBatch::decode(&flipped, seed(), POSITION, link()).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(VerifiedBatch::decode(&bytes[..end], seed(), POSITION, link()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_batch_that_does_not_follow_is_refused() {
        let bytes = sealed();
        let decode = |expected| VerifiedBatch::decode(&bytes, seed(), POSITION, expected).err();
        assert_eq!(decode(Link { number: 6, ..link() }), Some(BatchFault::Order));
        assert_eq!(decode(Link { chain: 78, ..link() }), Some(BatchFault::Order));
    }

    #[test]
    fn a_batch_at_another_position_is_refused() {
        let bytes = sealed();
        let elsewhere = VerifiedBatch::decode(&bytes, seed(), POSITION + 1, link()).err();
        assert_eq!(elsewhere, Some(BatchFault::Header));
    }

    #[test]
    fn records_exchanged_between_batches_are_refused() {
        // The same records sealed at another position have other checksums; put into this batch they fail one by one.
        let mut bytes = sealed();
        let other = two_groups().seal(seed(), POSITION + 512, link(), Durable::default()).0.to_vec();
        bytes[BATCH_HEADER..].copy_from_slice(&other[BATCH_HEADER..]);
        let refused = VerifiedBatch::decode(&bytes, seed(), POSITION, link()).err();
        assert_eq!(refused, Some(BatchFault::Record(BATCH_HEADER, RecordFault::Checksum)));
    }

    #[test]
    fn a_clean_stop_has_no_records() {
        let mut stop = Batch::clean_stop();
        stop.stamp(5, 13);
        let (bytes, next) = stop.seal(seed(), POSITION, link(), Durable::default());
        let batch = VerifiedBatch::decode(bytes, seed(), POSITION, link()).expect("a valid batch");
        assert_eq!((batch.header.kind, batch.records().count()), (BatchKind::CleanStop, 0));
        assert_eq!(next, Link { number: 6, chain: batch.header.checksum });
    }

    #[test]
    fn a_cleared_batch_is_as_new() {
        let mut batch = two_groups();
        batch.clear();
        assert!(batch.is_empty() && batch.frees_room());
        assert_eq!((batch.byte_len(), batch.last_version()), (BATCH_HEADER, 0));
    }

    #[test]
    fn what_was_summed_right_and_put_together_wrong_is_no_batch() {
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        let decoded = |versions: [u64; 2], next_version: u64, spoil: fn(&mut Batch)| {
            let mut batch = Batch::default();
            for version in versions {
                batch.push(version, &Mutation::Put { key: Key::bytes(b"k"), value });
            }
            batch.end_group();
            batch.stamp(1, next_version);
            spoil(&mut batch);
            let (bytes, _) = batch.seal(seed(), POSITION, link(), Durable::default());
            VerifiedBatch::decode(bytes, seed(), POSITION, link()).map(|batch| batch.records().count())
        };
        let wrong = Err(BatchFault::Body);
        assert_eq!(decoded([5, 6], 7, |_| ()), Ok(2));
        assert_eq!(decoded([5, 5], 7, |_| ()), wrong, "a version twice");
        assert_eq!(decoded([5, 4], 7, |_| ()), wrong, "a version that falls");
        assert_eq!(decoded([5, 6], 6, |_| ()), wrong, "a version that is still to be handed out");
        assert_eq!(
            decoded([5, 6], 7, |batch| batch.bytes[batch.last_record + 17] &= !2),
            wrong,
            "a group without an end"
        );
        assert_eq!(decoded([5, 6], 7, |batch| batch.bytes[batch.last_record + 17] |= 1), wrong, "one within another");
        assert_eq!(
            decoded([5, 6], 7, |batch| batch.bytes[BATCH_HEADER + 17] |= 2),
            wrong,
            "a group without a beginning"
        );
        assert_eq!(decoded([5, 6], 7, |batch| batch.records = 3), wrong, "a record too few");
        assert_eq!(decoded([5, 6], 7, |batch| batch.kind = BatchKind::CleanStop), wrong, "a stop with records");
        let nothing = |mut batch: Batch| {
            batch.stamp(1, 7);
            let (bytes, _) = batch.seal(seed(), POSITION, link(), Durable::default());
            VerifiedBatch::decode(bytes, seed(), POSITION, link()).is_ok()
        };
        assert!(nothing(Batch::clean_stop()) && !nothing(Batch::default()), "only a stop has no records");
    }
}
