//! What a shard's map holds of an entry: the entry, and the part of its hash that the shard does not tell.
//!
//! Knows which bits of a hash mean what, and nothing of how a key is hashed.
//!
//! ```text
//! bit   63        54 53                       22 21            11 10      0
//!       shard        slot                        from the key     unused
//! ```
//!
//! 42 bits of hash put the keys in order: of a hundred million, a thousand pairs share theirs. More would not fit
//! beside a pointer in 12 bytes. A SCAN, whose pages may have to end between two keys of one hash, works out 11 bits more of
//! those, which makes a *position*; of a hundred million keys, a pair may share that.

use super::cursor::POSITION_BITS;
use super::entry::Entry;
use crate::mutation::Key;

/// How many leading bits of a hash tell the shard: 1024 shards.
pub const SHARD_BITS: u32 = 10;
/// Number of shards.
pub const SHARDS: usize = 1 << SHARD_BITS;
/// The distance from one hash to the next.
pub const HASH_STEP: u64 = 1 << (u64::BITS - SHARD_BITS - u32::BITS);

/// The distance from one position to the next.
pub const POSITION_STEP: u64 = 1 << (u64::BITS - POSITION_BITS);

/// Of all 64 bits of a hash, those that shard and slot tell.
pub fn of_slot(hash: u64) -> u64 {
    hash & !(HASH_STEP - 1)
}

/// The shard that a hash belongs to.
pub fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

/// The lowest hash of a shard.
pub fn first_hash(shard: usize) -> u64 {
    (shard as u64) << (u64::BITS - SHARD_BITS)
}

/// An entry and its hash: a shard that grows need not touch its entries, nor need a SCAN to put keys in order.
pub struct Slot {
    /// The entry.
    pub entry: Entry,
    hash: u32,
}

impl Slot {
    /// A slot of an entry that has this hash.
    pub fn new(hash: u64, entry: Entry) -> Slot {
        Slot { entry, hash: part(hash) }
    }

    /// Whether it is that of a key that has this hash.
    pub fn holds(&self, hash: u64, key: Key<'_>) -> bool {
        self.hash == part(hash) && {
            #[cfg(test)]
            tests::COMPARED.set(tests::COMPARED.get() + 1);
            self.entry.key() == key
        }
    }

    /// Whether its key has this hash.
    pub fn has(&self, hash: u64) -> bool {
        self.hash == part(hash)
    }

    /// The hash, in the shard that has this first one.
    pub fn hash(&self, first: u64) -> u64 {
        first + u64::from(self.hash) * HASH_STEP
    }

    /// What the map is told in place of the hash.
    pub fn bucket_hash(&self) -> u64 {
        spread(self.hash)
    }
}

/// What a shard's map is told in place of this hash.
pub fn bucket_hash(hash: u64) -> u64 {
    spread(part(hash))
}

fn part(hash: u64) -> u32 {
    (hash / HASH_STEP) as u32
}

/// A hash map chooses the bucket by the low bits, and tells slots in it apart by the seven top ones.
fn spread(part: u32) -> u64 {
    u64::from(part) << 32 | u64::from(part)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mutation::Value;
    use std::cell::Cell;

    thread_local! {
        /// Keys that this thread has compared since it was asked before.
        pub static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn a_slot_has_twelve_bytes_and_gives_its_hash_back() {
        assert_eq!(size_of::<Slot>(), 12);
        for hash in [0, HASH_STEP, first_hash(1), first_hash(1023) + 7 * HASH_STEP, 0_u64.wrapping_sub(HASH_STEP)] {
            let key = Key::bytes(b"k");
            let slot = Slot::new(hash, Entry::new(1, key, &Value { bytes: b"", flags: 0, deadline: 0 }));
            assert_eq!(slot.hash(first_hash(shard_of(hash))), hash);
            assert_eq!(slot.bucket_hash(), bucket_hash(hash));
            assert!(slot.holds(hash, key) && !slot.holds(hash ^ HASH_STEP, key) && !slot.holds(hash, Key::bytes(b"l")));
        }
    }
}
