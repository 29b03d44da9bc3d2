//! Checksums that know their place.
//!
//! Knows CRC-32 and what identifies a segment. Does not know what is being summed.
//!
//! Every checksum begins from the segment's [`Seed`] and takes in the position of what it covers before the
//! bytes themselves, so that bytes which are intact but stand elsewhere than where they were written fail.

use crc32fast::Hasher;

/// What the checksums of one segment begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The checksum of `bytes`, which stand behind their own checksum field at `position` of the file.
    pub fn at(self, position: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&position.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }

    /// Begins the checksum of a batch's body: feed it the checksums of the records.
    pub fn body(self) -> BodySum {
        BodySum(Hasher::new_with_initial(self.0))
    }
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
    use super::Seed;

    #[test]
    fn the_same_bytes_elsewhere_have_another_checksum() {
        let here = Seed::new(1, 2, 0);
        assert_ne!(here.at(100, b"bytes"), here.at(101, b"bytes"), "another position");
        assert_ne!(here.at(100, b"bytes"), Seed::new(1, 3, 0).at(100, b"bytes"), "another segment");
        assert_ne!(here.at(100, b"bytes"), Seed::new(2, 2, 0).at(100, b"bytes"), "another store");
        assert_ne!(here.at(100, b"bytes"), Seed::new(1, 2, 1).at(100, b"bytes"), "another epoch");
        assert_ne!(here.at(100, b"bytes"), Seed::compacted(1, 2, 0, 1).at(100, b"bytes"), "compacted");
        assert_ne!(Seed::compacted(1, 2, 0, 1), Seed::compacted(1, 2, 0, 2), "compacted once more");
    }
}
