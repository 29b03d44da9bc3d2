//! Checksums that know their place.
//!
//! Knows CRC-32 and what identifies a segment. Does not know what is being summed.
//!
//! Every checksum begins from the segment's [`Seed`] and takes in the position of what it covers before the
//! bytes themselves, so that bytes which are intact but stand elsewhere than where they were written fail.

use crc32fast::Hasher;
use std::ops::Range;

/// What the checksums of one segment begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a segment, from what its header says of it.
    pub fn new(identity: u128, number: u64, epoch: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&identity.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// The seed of a compacted segment. It has the number of a segment that it replaces, and another generation: no
    /// record of the one passes in the other.
    pub fn compacted(identity: u128, number: u64, epoch: u64, generation: u32) -> Self {
        let Seed(journal) = Seed::new(identity, number, epoch);
        let mut hasher = Hasher::new_with_initial(journal);
        hasher.update(&generation.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// The same with the store's secret in it: who does not know that can't make bytes that pass, as within a value that is
    /// read as records where the bytes around it are damaged.
    #[must_use]
    pub fn keyed(self, secret: u128) -> Seed {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&secret.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// The checksum of `bytes`, which stand behind their own checksum field at `position` of the file.
    pub fn at(self, position: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&position.to_le_bytes());
        hasher.update(bytes);
        count(bytes.len());
        hasher.finalize()
    }

    /// The same of a range of bytes whose sums are known, in a time that does not depend on its length. `None` beyond the end.
    pub fn at_range(self, position: u64, sums: &Sums<'_>, range: Range<usize>) -> Option<u32> {
        let length = range.len() as u64;
        let (before, whole) = (sums.up_to(range.start)?, sums.up_to(range.end)?);
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&position.to_le_bytes());
        // A checksum is linear: what stands before the range goes, and what it is to begin from comes in its place.
        Some(whole ^ moved_on(before ^ hasher.finalize(), length))
    }

    /// The seed by which `bytes` at `position` have this checksum. There is one whatever they are.
    pub fn behind(checksum: u32, position: u64, bytes: &[u8]) -> Seed {
        let mut hasher = Hasher::new_with_initial(0);
        hasher.update(&position.to_le_bytes());
        hasher.update(bytes);
        let length = size_of_val(&position) + bytes.len();
        Seed(moved_back(checksum ^ hasher.finalize(), length as u64))
    }

    /// Begins the checksum of a batch's body: feed it the checksums of the records.
    pub fn body(self) -> BodySum {
        BodySum(Hasher::new_with_initial(self.0))
    }
}

/// What becomes of a checksum when so many zeros follow, but for what the zeros add of their own: multiplied by a power of x.
fn moved_on(checksum: u32, length: u64) -> u32 {
    let mut hasher = Hasher::new_with_initial_len(checksum, 0);
    hasher.combine(&Hasher::new_with_initial_len(0, length));
    hasher.finalize()
}

/// The way back. The powers of x come round after 2^32 - 1, since the polynomial is primitive.
fn moved_back(checksum: u32, length: u64) -> u32 {
    moved_on(checksum, PERIOD - length % PERIOD)
}

const PERIOD: u64 = u32::MAX as u64;

/// Bytes between two sums that are kept: a kept sum takes 4.
const STEP: usize = 64;

/// The checksums of all beginnings of some bytes, from one pass over them: any range of them is then summed by two.
pub struct Sums<'a> {
    bytes: &'a [u8],
    /// Up to each multiple of [`STEP`].
    kept: Vec<u32>,
}

impl<'a> Sums<'a> {
    /// Passes over the bytes.
    pub fn of(bytes: &'a [u8]) -> Sums<'a> {
        count(bytes.len());
        let mut hasher = Hasher::new();
        let mut kept = vec![hasher.clone().finalize()];
        kept.extend(bytes.chunks_exact(STEP).map(|chunk| {
            hasher.update(chunk);
            hasher.clone().finalize()
        }));
        Sums { bytes, kept }
    }

    /// The checksum of the first so many bytes.
    fn up_to(&self, end: usize) -> Option<u32> {
        let mut hasher = Hasher::new_with_initial(*self.kept.get(end / STEP)?);
        let rest = self.bytes.get(end / STEP * STEP..end)?;
        hasher.update(rest);
        count(rest.len());
        Some(hasher.finalize())
    }
}

/// Counts bytes that are summed, in tests: what is asserted there is work, whatever the clock says.
fn count(bytes: usize) {
    #[cfg(test)]
    tests::SUMMED.set(tests::SUMMED.get() + bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

/// Bytes that this thread has summed since it was asked before.
#[cfg(test)]
pub fn summed() -> usize {
    tests::SUMMED.take()
}

/// The checksum over the checksums of a batch's records.
pub struct BodySum(Hasher);

impl BodySum {
    /// Takes in the next record's checksum.
    pub fn add(&mut self, record: u32) {
        self.0.update(&record.to_le_bytes());
    }

    /// Takes in bytes that are no records.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of those taken in.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    thread_local! {
        pub static SUMMED: Cell<usize> = const { Cell::new(0) };
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_range_is_summed_by_what_stands_before_and_up_to_its_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            (from, length) in (0_usize..400, 0_usize..400),
            position: u64,
        ) {
            let (seed, sums) = (Seed::new(1, 2, 3), Sums::of(&bytes));
            let range = from..from + length;
            let expected = bytes.get(range.clone()).map(|bytes| seed.at(position, bytes));
            prop_assert_eq!(seed.at_range(position, &sums, range), expected);
        }

        #[test]
        fn a_checksum_tells_its_seed(identity: u128, position: u64, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let seed = Seed::new(identity, 2, 3);
            prop_assert_eq!(Seed::behind(seed.at(position, &bytes), position, &bytes), seed);
        }
    }

    #[test]
    fn the_same_bytes_elsewhere_have_another_checksum() {
        let here = Seed::new(1, 2, 0);
        assert_ne!(here.at(100, b"bytes"), here.at(101, b"bytes"), "another position");
        assert_ne!(here.at(100, b"bytes"), Seed::new(1, 3, 0).at(100, b"bytes"), "another segment");
        assert_ne!(here.at(100, b"bytes"), Seed::new(2, 2, 0).at(100, b"bytes"), "another store");
        assert_ne!(here.at(100, b"bytes"), Seed::new(1, 2, 1).at(100, b"bytes"), "another epoch");
        assert_ne!(here.at(100, b"bytes"), Seed::compacted(1, 2, 0, 1).at(100, b"bytes"), "compacted");
        assert_ne!(Seed::compacted(1, 2, 0, 1), Seed::compacted(1, 2, 0, 2), "compacted once more");
        assert_ne!(here.at(100, b"bytes"), here.keyed(1).at(100, b"bytes"), "of a store with a secret");
        assert_ne!(here.keyed(1), here.keyed(2), "of a store with another secret");
    }
}
