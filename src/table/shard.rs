//! One shard: the entries whose hashes begin with the same bits.
//!
//! Knows entries and the hashes it is told; does not know how a key is hashed, nor that there are other shards. A
//! shard is small enough that growing it or passing over it stalls nobody.

use super::entry::Entry;
use crate::mutation::Key;
use hashbrown::HashTable;
use hashbrown::hash_table;

/// How many leading bits of a hash tell the shard: 1024 shards.
pub const SHARD_BITS: u32 = 10;

/// An entry and its hash: a shard that grows need not touch its entries, nor need a SCAN to put keys in order.
struct Slot {
    hash: u64,
    entry: Entry,
}

impl Slot {
    fn holds(&self, hash: u64, key: Key<'_>) -> bool {
        self.hash == hash && self.entry.key() == key
    }
}

/// What hashbrown is told in place of the hash. It tells slots apart by the top bits, which are the same
/// throughout a shard, so the bits below them are folded in; the low bits, which choose the bucket, stay.
fn bucket_hash(hash: u64) -> u64 {
    hash ^ (hash << SHARD_BITS)
}

/// A map from keys to entries.
#[derive(Default)]
pub struct Shard {
    slots: HashTable<Slot>,
    /// What the entries themselves take, in bytes.
    entry_bytes: usize,
}

impl Shard {
    /// The entry of a key.
    pub fn get(&self, hash: u64, key: Key<'_>) -> Option<&Entry> {
        self.slots.find(bucket_hash(hash), |slot| slot.holds(hash, key)).map(|slot| &slot.entry)
    }

    /// Stores an entry and returns the one it replaces.
    pub fn put(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        self.entry_bytes += entry.memory();
        let key = entry.key();
        match self.slots.entry(bucket_hash(hash), |slot| slot.holds(hash, key), |slot| bucket_hash(slot.hash)) {
            hash_table::Entry::Occupied(mut slot) => {
                let old = std::mem::replace(&mut slot.get_mut().entry, entry);
                self.entry_bytes -= old.memory();
                Some(old)
            }
            hash_table::Entry::Vacant(slot) => {
                slot.insert(Slot { hash, entry });
                None
            }
        }
    }

    /// Stores the entry that `make` builds, unless the key has one of this version or a later.
    pub fn put_if_newer(&mut self, hash: u64, key: Key<'_>, version: u64, make: impl FnOnce() -> Entry) {
        match self.slots.entry(bucket_hash(hash), |slot| slot.holds(hash, key), |slot| bucket_hash(slot.hash)) {
            hash_table::Entry::Occupied(mut slot) => {
                let held = &mut slot.get_mut().entry;
                if held.version() < version {
                    let entry = make();
                    self.entry_bytes += entry.memory();
                    self.entry_bytes -= held.memory();
                    *held = entry;
                }
            }
            hash_table::Entry::Vacant(slot) => {
                let entry = make();
                self.entry_bytes += entry.memory();
                slot.insert(Slot { hash, entry });
            }
        }
    }

    /// Removes a key and returns its entry.
    pub fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Entry> {
        let slot = self.slots.find_entry(bucket_hash(hash), |slot| slot.holds(hash, key)).ok()?;
        let (Slot { entry, .. }, _) = slot.remove();
        self.entry_bytes -= entry.memory();
        Some(entry)
    }

    /// Keeps the entries that `keep` says, gives memory back if few are left, and returns how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) -> usize {
        let before = self.slots.len();
        let mut bytes = 0;
        self.slots.retain(|slot| {
            let kept = keep(&slot.entry);
            bytes += if kept { slot.entry.memory() } else { 0 };
            kept
        });
        self.entry_bytes = bytes;
        if self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to_fit(|slot| bucket_hash(slot.hash));
        }
        before - self.slots.len()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory held: entries, slots, spare room.
    pub fn memory(&self) -> usize {
        self.entry_bytes + self.slots.allocation_size()
    }

    /// Every entry with its hash, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.slots.iter().map(|slot| (slot.hash, &slot.entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::Value;

    fn entry(version: u64, key: &[u8]) -> Entry {
        Entry::new(version, Key::bytes(key), &Value { bytes: b"v", flags: 0, deadline: 0 })
    }

    #[test]
    fn keys_of_one_hash_are_kept_apart() {
        let mut shard = Shard::default();
        assert!(shard.put(7, entry(1, b"a")).is_none());
        assert!(shard.put(7, entry(2, b"b")).is_none());
        assert_eq!(shard.put(7, entry(3, b"a")).map(|old| old.version()), Some(1));
        assert_eq!(shard.get(7, Key::bytes(b"b")).map(Entry::version), Some(2));
        assert_eq!(shard.remove(7, Key::bytes(b"a")).map(|old| old.version()), Some(3));
        assert!(shard.remove(7, Key::bytes(b"a")).is_none());
        assert_eq!(shard.len(), 1);
    }

    #[test]
    fn the_newer_stays() {
        let mut shard = Shard::default();
        for version in [2, 1, 3, 3, 2] {
            shard.put_if_newer(7, Key::bytes(b"a"), version, || entry(version, b"a"));
        }
        assert_eq!(shard.get(7, Key::bytes(b"a")).map(Entry::version), Some(3));
    }

    #[test]
    fn memory_follows_the_entries() {
        let mut shard = Shard::default();
        let empty = shard.memory();
        for version in 0..1000_u64 {
            shard.put(version, entry(version, &version.to_le_bytes()));
        }
        assert!(shard.memory() > empty + 1000 * 32);
        assert_eq!(shard.retain(|entry| entry.version() < 10), 990);
        assert_eq!(shard.entry_bytes, 10 * entry(0, &[0; 8]).memory());
        shard.retain(|_| false);
        assert_eq!(shard.memory(), empty);
    }
}
