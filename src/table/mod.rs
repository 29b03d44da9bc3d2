//! The durable state: a hash map in memory that equals, at every moment, a replay of the log.
//!
//! Knows keys, entries, versions and [mutations](crate::mutation); knows nothing of commands, batches, clocks or files.
//! [`Replay`] builds it from the log at a start, and from then on [`crate::engine`] alone changes it, by mutations
//! that are already durable.
//!
//! ```text
//! key --hash--> [shard: top 10 bits] --> [slot: hash, pointer] --> [entry: header, key, value]
//! ```
//!
//! The map is cut into shards so that growing never stalls anyone for long and replay can fill it on all cores. Order
//! of hash is an order that growth does not disturb, which is what a SCAN cursor is made of.

mod entry;
mod flushes;
mod replay;
mod scan;
mod shard;

pub use entry::Entry;
pub use flushes::{Flushes, covers};
pub use replay::Replay;
pub use scan::Stretch;

use crate::mutation::Key;
use foldhash::quality::FixedState;
use shard::{SHARD_BITS, Shard};
use std::hash::{BuildHasher as _, Hasher as _};

/// A key and its hash in one table, so that it is hashed once however often it is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The hash.
    pub hash: u64,
    /// The key.
    pub key: Key<'a>,
}

/// The durable state.
///
/// ```
/// use kvd::mutation::{Key, Value};
/// use kvd::table::{Entry, Table};
/// let mut table = Table::new(7);
/// let probe = table.probe(Key::bytes(b"user:1"));
/// table.put(probe.hash, Entry::new(1, probe.key, &Value { bytes: b"Ada", flags: 0, deadline: 0 }));
/// assert_eq!(table.get(probe).map(Entry::value), Some(&b"Ada"[..]));
/// assert_eq!(table.flush(Some(b"user:"), 2, &mut |_| {}), 1);
/// assert!(table.is_empty());
/// ```
pub struct Table {
    hasher: Hasher,
    shards: Vec<Shard>,
    len: usize,
}

impl Table {
    /// An empty table. `seed` keys the hash; the store's identity, so that SCAN cursors outlive a restart.
    pub fn new(seed: u128) -> Self {
        Table { hasher: Hasher::new(seed), shards: new_shards(), len: 0 }
    }

    /// Hashes a key, for what is asked of it next.
    pub fn probe<'a>(&self, key: Key<'a>) -> Probe<'a> {
        Probe { hash: self.hasher.hash(key), key }
    }

    /// The entry of a key, an expired one included.
    pub fn get(&self, probe: Probe<'_>) -> Option<&Entry> {
        self.shards[shard_of(probe.hash)].get(probe.hash, probe.key)
    }

    /// Stores an entry, whose key has this hash, and returns the one it replaces.
    pub fn put(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        debug_assert_eq!(hash, self.hasher.hash(entry.key()), "the hash of another key");
        debug_assert!(!entry.is_removal(), "a removal is `remove`");
        let old = self.shards[shard_of(hash)].put(hash, entry);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a key and returns its entry.
    pub fn remove(&mut self, probe: Probe<'_>) -> Option<Entry> {
        let old = self.shards[shard_of(probe.hash)].remove(probe.hash, probe.key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Removes what a flush of version `below` covers, and returns how many entries went.
    pub fn flush(&mut self, prefix: Option<&[u8]>, below: u64, departed: &mut dyn FnMut(&Entry)) -> usize {
        let mut stays = |entry: &Entry| {
            let stays = entry.version() >= below || !covers(prefix, entry.key());
            if !stays {
                departed(entry);
            }
            stays
        };
        let removed = self.shards.iter_mut().map(|shard| shard.retain(&mut stays)).sum();
        self.len -= removed;
        removed
    }

    /// Number of entries, expired ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory held, entries and their bookkeeping, approximately.
    pub fn memory(&self) -> usize {
        self.shards.iter().map(|shard| size_of::<Shard>() + shard.memory()).sum()
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.iter_hashed().map(|(_, entry)| entry)
    }

    /// Every entry with its hash, in no order.
    pub fn iter_hashed(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.shards.iter().flat_map(Shard::iter)
    }
}

/// The hash of keys, keyed so that nobody outside can choose keys that collide.
struct Hasher {
    state: FixedState,
    /// The half of the seed that the state has no room for.
    salt: u64,
}

impl Hasher {
    fn new(seed: u128) -> Self {
        Hasher { state: FixedState::with_seed(seed as u64), salt: (seed >> 64) as u64 }
    }

    fn hash(&self, key: Key<'_>) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(self.salt ^ key.space as u64);
        hasher.write(key.bytes);
        hasher.finish()
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

fn new_shards<S: Default>() -> Vec<S> {
    std::iter::repeat_with(S::default).take(1 << SHARD_BITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Space, Value};

    fn put(table: &mut Table, version: u64, key: Key<'_>) {
        let hash = table.probe(key).hash;
        table.put(hash, Entry::new(version, key, &Value { bytes: b"v", flags: 0, deadline: 0 }));
    }

    #[test]
    fn the_spaces_are_apart() {
        let mut table = Table::new(1);
        let python = Key { space: Space::Python, bytes: b"k" };
        put(&mut table, 1, Key::bytes(b"k"));
        put(&mut table, 2, python);
        assert_eq!(table.len(), 2);
        assert_eq!(table.flush(Some(b""), 9, &mut |_| {}), 1);
        assert_eq!(table.get(table.probe(python)).map(Entry::version), Some(2));
        assert_eq!(table.flush(None, 9, &mut |_| {}), 1);
    }

    #[test]
    fn a_flush_spares_what_is_not_older() {
        let mut table = Table::new(1);
        for version in 1..=10_u64 {
            put(&mut table, version, Key::bytes(&[b'k', version as u8]));
        }
        assert_eq!(table.flush(Some(b"k"), 6, &mut |_| {}), 5);
        assert!(table.iter().all(|entry| entry.version() >= 6));
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn the_seed_decides_the_hash() {
        let key = Key::bytes(b"k");
        let hashes = [0, 1, 1 << 64].map(|seed: u128| Table::new(seed).probe(key).hash);
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
        assert_eq!(hashes[1], Table::new(1).probe(key).hash);
    }

    #[test]
    fn memory_returns_after_a_flush() {
        let mut table = Table::new(1);
        let empty = table.memory();
        for version in 1..=5_000_u64 {
            put(&mut table, version, Key::bytes(&version.to_le_bytes()));
        }
        assert!(table.memory() > empty + 5_000 * 48);
        table.flush(None, u64::MAX, &mut |_| {});
        assert_eq!(table.memory(), empty);
    }
}
