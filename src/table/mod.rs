//! The durable state: a hash map in memory that equals, at every moment, a replay of the log.
//!
//! Knows keys, entries, versions and [mutations](crate::mutation); knows nothing of commands, batches, clocks or files.
//! [`Replay`] builds it from the log at a start, and from then on [`crate::engine`] alone changes it, by mutations
//! that are already durable.
//!
//! ```text
//! key --SipHash--> [shard: top 10 bits] --> [slot: pointer, 32 bits] --> [entry: header, key, value]
//! ```
//!
//! The map is cut into shards so that growing never stalls anyone for long and replay can fill it on all cores. Order
//! of hash is an order that growth does not disturb, which is what a SCAN cursor is made of. The hash is a keyed one, so that
//! nobody can choose keys that make any of this slow.

mod allocation;
mod cursor;
mod departure;
mod entry;
mod eviction;
mod expiry;
mod flushes;
mod hash;
mod prefixes;
mod replay;
mod scan;
mod shard;
mod share;
mod slot;
mod sweep;
mod sweeps;

pub use allocation::avoid_pauses;
pub use departure::{Departed, Departure};
pub use entry::Entry;
pub use flushes::Flushes;
pub use replay::Replay;
pub use scan::{Stretch, behind};
pub use slot::of_slot;
pub use sweeps::Swept;

use crate::mutation::Key;
use cursor::Cursors;
use departure::Presence;
use eviction::Eviction;
use expiry::Expiry;
use hash::KeyHasher;
use shard::Shard;
use share::{share, share_out};
use slot::{SHARDS, first_hash, shard_of};
use sweep::Sweep;

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
/// use kvd::table::{Departure, Entry, Table};
/// let mut table = Table::new(7);
/// let probe = table.probe(Key::bytes(b"user:1"));
/// let entry = |version, bytes| Entry::new(version, probe.key, &Value { bytes, flags: 0, deadline: 0 });
/// table.put(probe.hash, entry(1, b"Ada"), &mut |_, _| ());
/// assert_eq!(table.get(probe).map(Entry::value), Some(&b"Ada"[..]));
///
/// // Whoever changes the table hears of every entry that leaves it.
/// table.put(probe.hash, entry(2, b"Ben"), &mut |entry, departure| {
///     assert_eq!((entry.version(), departure), (1, Departure::Superseded));
/// });
///
/// // A flush hides at once, and removes by and by.
/// table.begin_flush(Some(b"user:"), 3);
/// assert_eq!(table.get(probe), None);
/// let swept = table.sweep(10_000, &mut |_, _| ()).unwrap();
/// assert_eq!((swept.version, swept.removed), (3, 1));
/// ```
pub struct Table {
    hasher: KeyHasher,
    cursors: Cursors,
    shards: Vec<Shard>,
    presence: Presence,
    totals: Totals,
    sweep: Sweep,
    expiry: Expiry,
    eviction: Eviction,
}

/// What all shards together have, kept up to date by [`Table::change`].
#[derive(Default)]
struct Totals {
    memory: usize,
    expiring: usize,
}

impl Table {
    /// An empty table. `secret` is the store's: it keys the hash, and hides what SCAN cursors point to.
    pub fn new(secret: u128) -> Self {
        Table::of(KeyHasher::new(secret), Cursors::new(secret), (0..SHARDS).map(first_hash).map(Shard::new).collect())
    }

    fn of(hasher: KeyHasher, cursors: Cursors, shards: Vec<Shard>) -> Self {
        let of_shards = allocation::taken(shards.capacity() * size_of::<Shard>());
        let memory = of_shards + shards.iter().map(Shard::memory).sum::<usize>();
        let totals = Totals { memory, expiring: shards.iter().map(Shard::expiring).sum() };
        let presence = Presence { len: shards.iter().map(Shard::len).sum(), ..Presence::default() };
        Table {
            hasher,
            cursors,
            shards,
            presence,
            totals,
            sweep: Sweep::default(),
            expiry: Expiry::default(),
            eviction: Eviction::default(),
        }
    }

    /// Hashes a key, for what is asked of it next.
    pub fn probe<'a>(&self, key: Key<'a>) -> Probe<'a> {
        Probe { hash: of_slot(self.hasher.hash(key)), key }
    }

    /// The entry of a key, an expired one included, one that was flushed not.
    pub fn get(&self, probe: Probe<'_>) -> Option<&Entry> {
        let entry = self.shards[shard_of(probe.hash)].get(probe.hash, probe.key)?;
        (!self.hides(entry)).then_some(entry)
    }

    /// Has the processor fetch the entry of a key that has this hash, for who asks for it soon. Costs little where nothing
    /// is there, and waits for nothing where several are fetched in a row.
    pub fn prefetch(&self, hash: u64) {
        self.shards[shard_of(hash)].prefetch(hash);
    }

    /// Stores an entry, whose key has this hash.
    pub fn put(&mut self, hash: u64, entry: Entry, departed: &mut Departed<'_>) {
        debug_assert_eq!(hash, self.probe(entry.key()).hash, "the hash of another key");
        debug_assert!(!entry.is_removal(), "a removal is `remove`");
        let frequency = entry.frequency();
        let is_new = self.change(shard_of(hash), |shard, presence| {
            presence.len += 1;
            let old = shard.put(hash, entry);
            if let Some(old) = &old {
                presence.depart(old, Departure::Superseded, departed);
            }
            old.is_none()
        });
        if is_new {
            self.eviction.admit(hash, frequency);
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, probe: Probe<'_>, departed: &mut Departed<'_>) {
        self.change(shard_of(probe.hash), |shard, presence| {
            if let Some(old) = shard.remove(probe.hash, probe.key) {
                presence.depart(&old, Departure::Removed, departed);
            }
        });
    }

    /// Number of entries, expired ones included, flushed ones not; save that what a flush of a prefix hides counts
    /// until it is removed, since only then is it known how many they are.
    pub fn len(&self) -> usize {
        self.presence.len
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that everything stored takes, as the allocator counts it: entries, those included that a flush
    /// hides, slots, and free slots.
    pub fn memory(&self) -> usize {
        self.totals.memory + self.eviction.memory()
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(Shard::iter).map(|(_, entry)| entry).filter(|entry| !self.hides(entry))
    }

    /// Works on every entry, in no order, on so many threads. Each has a part of the entries, and each part an outcome.
    pub fn read_all<R: Send>(
        &self,
        threads: usize,
        work: impl Fn(&mut dyn Iterator<Item = &Entry>) -> R + Sync,
    ) -> Vec<R> {
        share_out(self.shards.chunks(share(threads)), |shards| {
            let entries = shards.iter().flat_map(Shard::iter_ahead).map(|(_, entry)| entry);
            work(&mut entries.filter(|entry| !self.hides(entry)))
        })
    }

    /// Whether the entry was flushed, and merely not swept yet.
    fn hides(&self, entry: &Entry) -> bool {
        !self.presence.sweeps.is_empty() && self.presence.sweeps.hide(entry)
    }

    /// Changes a shard, and keeps the totals.
    fn change<R>(&mut self, shard: usize, work: impl FnOnce(&mut Shard, &mut Presence) -> R) -> R {
        let shard = &mut self.shards[shard];
        let (memory, expiring) = (shard.memory(), shard.expiring());
        let result = work(shard, &mut self.presence);
        self.totals.memory = self.totals.memory - memory + shard.memory();
        self.totals.expiring = self.totals.expiring - expiring + shard.expiring();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Space, Value};

    impl Table {
        /// Leaves of every hash no bits but these, so that keys collide after all.
        pub fn collide(&mut self, mask: u64) {
            self.hasher.mask = mask;
        }
    }

    fn put(table: &mut Table, version: u64, key: Key<'_>) {
        let hash = table.probe(key).hash;
        table.put(hash, Entry::new(version, key, &Value { bytes: b"v", flags: 0, deadline: 0 }), &mut |_, _| ());
    }

    /// Flushes to the end, and tells how many entries went.
    fn flush(table: &mut Table, prefix: Option<&[u8]>, version: u64) -> Option<u64> {
        table.begin_flush(prefix, version);
        table.sweep(usize::MAX, &mut |_, _| ()).map(|swept| swept.removed)
    }

    #[test]
    fn the_spaces_are_apart() {
        let mut table = Table::new(1);
        let python = Key { space: Space::Python, bytes: b"k" };
        put(&mut table, 1, Key::bytes(b"k"));
        put(&mut table, 2, python);
        assert_eq!(table.len(), 2);
        assert_eq!(flush(&mut table, Some(b""), 8), Some(1));
        assert_eq!(table.get(table.probe(python)).map(Entry::version), Some(2));
        assert_eq!(flush(&mut table, None, 9), Some(1));
    }

    #[test]
    fn the_secret_decides_the_hash() {
        let key = Key::bytes(b"k");
        let hashes = [0, 1, 1 << 64].map(|secret: u128| Table::new(secret).probe(key).hash);
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
        assert!(table.memory() > empty + 5_000 * (11 + 8 + 1 + 12));
        flush(&mut table, None, u64::MAX);
        assert_eq!(table.memory(), empty);
    }

    #[test]
    fn every_departure_is_told() {
        let mut table = Table::new(1);
        let mut told = Vec::new();
        let key = Key::bytes(b"k");
        put(&mut table, 1, key);
        let probe = table.probe(key);
        let mut departed = |entry: &Entry, departure| told.push((entry.version(), departure));
        let entry = Entry::new(2, key, &Value { bytes: b"v", flags: 0, deadline: 0 });
        table.put(probe.hash, entry, &mut departed);
        table.remove(probe, &mut departed);
        table.remove(probe, &mut departed);
        assert_eq!(told, [(1, Departure::Superseded), (2, Departure::Removed)]);
        assert_eq!(table.len(), 0);
    }
}
