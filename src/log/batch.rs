//! The groups that one write and one sync make durable together.
//!
//! Knows the bytes of a batch (`docs/format.md`): building one on the engine's side, sealing it on the log's. How one is read is
//! told by [`super::verified`]. Does not know files.

use super::bytes::put;
use super::checksum::Seed;
use super::record;
use crate::mutation::Mutation;
use crate::timeline::Time;

/// Bytes of the header of a batch that this code writes.
pub const BATCH_HEADER: usize = 80;
/// What every such batch begins with. Not zero, so that zeros are never a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"\xb7kvc";
/// The same of format 1, whose headers lack the clock's offset. They are read, and not written any more.
pub(super) const BATCH_HEADER_1: usize = 72;
pub(super) const BATCH_MAGIC_1: [u8; 4] = *b"\xb7kvb";
/// What both begin with.
pub(super) const MAGIC_START: &[u8] = b"\xb7kv";
/// Bytes of a dependency.
pub(super) const DEPENDENCY: usize = 12;

/// Capacity that a batch keeps when it is emptied for reuse; what a burst needed beyond it is given back.
const KEPT_CAPACITY: usize = 4 << 20;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Groups of records.
    Groups,
    /// No records: the daemon stopped here in an orderly way.
    CleanStop,
    /// No records: its header alone counts, by what it says of what is durable and of the clock.
    Mark,
    /// No records, and the first batch of a compacted segment: the older segments that it relies on.
    Dependencies,
}

impl BatchKind {
    const fn code(self) -> u16 {
        match self {
            BatchKind::Groups => 1,
            BatchKind::CleanStop => 2,
            BatchKind::Mark => 3,
            BatchKind::Dependencies => 4,
        }
    }

    pub(super) fn of(code: u16) -> Option<BatchKind> {
        match code {
            1 => Some(BatchKind::Groups),
            2 => Some(BatchKind::CleanStop),
            3 => Some(BatchKind::Mark),
            4 => Some(BatchKind::Dependencies),
            _ => None,
        }
    }
}

/// An older segment on which a compacted one relies: what was dropped would return beside an earlier state of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Its number.
    pub number: u64,
    /// Its generation at that time. What stands for it has this one, or a later one.
    pub generation: u32,
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
            Mutation::Remove { .. } | Mutation::Evict { .. } | Mutation::Flush { .. } => {
                (&mut self.removals, &mut self.removal_bytes)
            }
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
    /// Highest durable version.
    pub version: u64,
}

/// Bytes that a list of so many dependencies takes in a segment.
pub const fn list_bytes(dependencies: usize) -> u64 {
    if dependencies == 0 { 0 } else { (BATCH_HEADER + dependencies * DEPENDENCY) as u64 }
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
    time: Time,
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
            time: Time::default(),
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

    /// A batch that only marks what is durable and what time it is.
    pub fn mark() -> Self {
        Batch { kind: BatchKind::Mark, ..Batch::default() }
    }

    /// The first batch of a compacted segment that relies on these older ones.
    pub(super) fn dependencies(of: &[Dependency]) -> Self {
        let mut batch = Batch { kind: BatchKind::Dependencies, records: of.len() as u32, ..Batch::default() };
        for Dependency { number, generation } in of {
            batch.bytes.extend_from_slice(&number.to_le_bytes());
            batch.bytes.extend_from_slice(&generation.to_le_bytes());
        }
        batch
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

    /// Sets what the header says: the time, and the version that will be handed out next.
    pub fn stamp(&mut self, time: impl Into<Time>, next_version: u64) {
        self.time = time.into();
        self.next_version = next_version;
    }

    /// Whether it only marks: its header alone counts.
    pub fn is_mark(&self) -> bool {
        self.kind == BatchKind::Mark
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
    pub fn time(&self) -> Time {
        self.time
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
        let body_checksum = self.seal_body(seed, position);
        let header = &mut self.bytes;
        let body_length = (header.len() - BATCH_HEADER) as u64;
        put(header, 0, BATCH_MAGIC);
        put(header, 8, link.number.to_le_bytes());
        put(header, 16, durable.batch.to_le_bytes());
        put(header, 24, durable.version.to_le_bytes());
        put(header, 32, self.next_version.to_le_bytes());
        put(header, 40, self.time.now.to_le_bytes());
        put(header, 48, body_length.to_le_bytes());
        put(header, 56, link.chain.to_le_bytes());
        put(header, 60, body_checksum.to_le_bytes());
        put(header, 64, self.records.to_le_bytes());
        put(header, 68, self.kind.code().to_le_bytes());
        put(header, 72, self.time.offset.to_le_bytes());
        let checksum = seed.at(position, header.get(8..BATCH_HEADER).unwrap_or_default());
        put(header, 4, checksum.to_le_bytes());
        (&self.bytes, Link { number: link.number + 1, chain: checksum })
    }

    /// Fills in the checksums of the records, and returns that of the body.
    fn seal_body(&mut self, seed: Seed, position: u64) -> u32 {
        let mut sum = seed.body();
        let mut offset = BATCH_HEADER;
        if self.kind == BatchKind::Dependencies {
            sum.add_bytes(self.bytes.get(offset..).unwrap_or_default());
            return sum.finish();
        }
        while let Some((checksum, length)) =
            self.bytes.get_mut(offset..).and_then(|rest| record::seal(rest, seed, position + offset as u64))
        {
            sum.add(checksum);
            offset += length;
        }
        sum.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::RecordFault;
    use super::super::verified::{BatchFault, VerifiedBatch};
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
        batch.stamp(Time { now: 1_000, offset: -7 }, 13);
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
        assert_eq!((batch.header.next_version, batch.header.time), (13, Time { now: 1_000, offset: -7 }));
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
        assert_eq!((batch.header.kind, batch.records().count()), (Ok(BatchKind::CleanStop), 0));
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
        assert!(nothing(Batch::clean_stop()) && nothing(Batch::mark()));
        assert!(!nothing(Batch::default()), "groups without records");
    }
}
