//! One shard: the entries whose hashes begin with the same bits.
//!
//! Knows entries and the hashes it is told; does not know how a key is hashed, nor that there are other shards.
//! Growing it stalls nobody for long, since that moves slots and touches no entry; passing over it can be
//! broken off after any slot and taken up again.

use super::allocation;
use super::entry::Entry;
use super::slot::{Slot, bucket_hash};
use crate::mutation::Key;
use hashbrown::HashTable;
use hashbrown::hash_table;

/// A removal costs an effort of 1, and 1 more for so many bytes: large allocations are given back to the system.
const BYTES_AN_EFFORT: usize = 16 << 10;

/// Slots are put in order anew, and do not double, where at least one in so many was given up.
const SPENT: usize = 16;

/// Entries that are fetched ahead of the one that is read.
const AHEAD: usize = 16;

/// A map from keys to entries.
pub struct Shard {
    /// The lowest hash that belongs here.
    first: u64,
    slots: HashTable<Slot>,
    /// What the slots take, in bytes, those included that are free.
    slots_memory: usize,
    /// What the entries themselves take, in bytes.
    entries_memory: usize,
    /// How many entries have a deadline.
    expiring: usize,
    /// No deadline is earlier, save those that the pass that is under way has met.
    earliest: u64,
    /// When expired entries may be looked for again, in Unix milliseconds.
    next_look: u64,
    /// How often slots have changed their places.
    arrangement: u32,
}

/// How far a pass over a shard has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    bucket: usize,
    /// When slots have changed their places since, the pass begins anew.
    arrangement: u32,
}

impl Shard {
    /// An empty shard. `first` is the lowest hash that belongs to it.
    pub fn new(first: u64) -> Shard {
        Shard {
            first,
            slots: HashTable::new(),
            slots_memory: 0,
            entries_memory: 0,
            expiring: 0,
            earliest: u64::MAX,
            next_look: 0,
            arrangement: 0,
        }
    }

    /// The entry of a key.
    pub fn get(&self, hash: u64, key: Key<'_>) -> Option<&Entry> {
        self.slots.find(bucket_hash(hash), |slot| slot.holds(hash, key)).map(|slot| &slot.entry)
    }

    /// Stores an entry and returns the one it replaces.
    pub fn put(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        self.make_room();
        self.count(&entry);
        let key = entry.key();
        match self.slots.entry(bucket_hash(hash), |slot| slot.holds(hash, key), Slot::bucket_hash) {
            hash_table::Entry::Occupied(mut slot) => {
                entry.inherit(&slot.get().entry);
                let old = std::mem::replace(&mut slot.get_mut().entry, entry);
                self.discount(&old);
                Some(old)
            }
            hash_table::Entry::Vacant(slot) => {
                slot.insert(Slot::new(hash, entry));
                None
            }
        }
    }

    /// Stores the entry that `make` builds, unless the key has one of this version or a later.
    pub fn put_if_newer(&mut self, hash: u64, key: Key<'_>, version: u64, make: impl FnOnce() -> Entry) {
        if self.get(hash, key).is_none_or(|held| held.version() < version) {
            self.put(hash, make());
        }
    }

    /// Removes a key and returns its entry.
    pub fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Entry> {
        let slot = self.slots.find_entry(bucket_hash(hash), |slot| slot.holds(hash, key)).ok()?;
        let (Slot { entry, .. }, _) = slot.remove();
        self.discount(&entry);
        Some(entry)
    }

    /// An entry that has this hash and of which `is_it` says so.
    pub fn find(&self, hash: u64, is_it: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let found = self.slots.find(bucket_hash(hash), |slot| slot.has(hash) && is_it(&slot.entry));
        found.map(|slot| &slot.entry)
    }

    /// Has the processor fetch the entry that has this hash.
    pub fn prefetch(&self, hash: u64) {
        if let Some(entry) = self.find(hash, |_| true) {
            entry.prefetch();
        }
    }

    /// The version of an entry that has this hash, was not accessed yet, and may go. Whether it goes or not, its
    /// probation ends here.
    pub fn end_probation(&self, hash: u64, may_go: impl Fn(u64, &Entry) -> bool) -> Option<u64> {
        let entry = self.find(hash, |entry| entry.frequency() == 0)?;
        entry.promote();
        may_go(hash, entry).then(|| entry.version())
    }

    /// The first entry from a place on, with its hash, and moves the place behind it. `None` at the end, from where it
    /// begins anew.
    pub fn next(&self, place: &mut Place) -> Option<(u64, &Entry)> {
        // Where slots have changed their places, those that come are as good as any.
        while place.bucket < self.slots.num_buckets() {
            let slot = self.slots.get_bucket(place.bucket);
            place.bucket += 1;
            if let Some(slot) = slot {
                return Some((slot.hash(self.first), &slot.entry));
            }
        }
        *place = Place::default();
        None
    }

    /// Passes over the slots from a place on and drops each entry of which `goes` says so, until it has spent
    /// `effort` or is through. Returns whether it is through.
    ///
    /// A slot costs an effort of 1; a large entry that goes costs more, since its memory returns to the system.
    pub fn weed(&mut self, place: &mut Place, effort: &mut usize, mut goes: impl FnMut(&Entry) -> bool) -> bool {
        if place.arrangement != self.arrangement {
            *place = Place { bucket: 0, arrangement: self.arrangement };
        }
        while place.bucket < self.slots.num_buckets() {
            if *effort == 0 {
                return false;
            }
            *effort -= 1;
            let bucket = place.bucket;
            place.bucket += 1;
            if let Some(ahead) = self.slots.get_bucket(bucket + AHEAD) {
                ahead.entry.prefetch();
            }
            if self.slots.get_bucket(bucket).is_some_and(|slot| goes(&slot.entry))
                && let Ok(slot) = self.slots.get_bucket_entry(bucket)
            {
                let (Slot { entry, .. }, _) = slot.remove();
                self.discount(&entry);
                *effort = effort.saturating_sub(entry.memory() / BYTES_AN_EFFORT);
            }
        }
        *place = Place::default();
        true
    }

    /// Gives memory back if few slots are taken.
    pub fn shrink(&mut self) {
        if self.slots.len() * 4 < self.slots.capacity() {
            self.arrangement = self.arrangement.wrapping_add(1);
            self.slots.shrink_to_fit(Slot::bucket_hash);
            self.slots_memory = allocation::taken(self.slots.allocation_size());
        }
    }

    /// Takes no more slots than its entries need, so that what comes out of a replay is no larger than what was there.
    pub fn fit(&mut self) {
        self.arrangement = self.arrangement.wrapping_add(1);
        self.slots.shrink_to_fit(Slot::bucket_hash);
        self.slots_memory = allocation::taken(self.slots.allocation_size());
    }

    /// Whether an entry may have expired by `now`, and it is time to look.
    pub fn may_hold_expired(&self, now: u64) -> bool {
        self.earliest <= now && self.next_look <= now
    }

    /// A pass begins that looks for what has expired, and that will meet every entry. The next one is not to begin
    /// before `next`.
    pub fn begin_looking(&mut self, next: u64) {
        self.next_look = next;
        self.earliest = u64::MAX;
    }

    /// The pass is through, and the earliest deadline that it met and left is this one.
    pub fn end_looking(&mut self, earliest: u64) {
        self.earliest = self.earliest.min(earliest);
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Number of entries that have a deadline.
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Bytes of memory held: entries, slots, spare room.
    pub fn memory(&self) -> usize {
        self.entries_memory + self.slots_memory
    }

    /// Every entry with its hash, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.slots.iter().map(|slot| (slot.hash(self.first), &slot.entry))
    }

    /// As [`Shard::iter`], for who reads each entry at once: the processor fetches them some way ahead.
    pub fn iter_ahead(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let mut ahead = self.slots.iter();
        ahead.by_ref().take(AHEAD).for_each(|slot| slot.entry.prefetch());
        self.iter().inspect(move |_| {
            if let Some(slot) = ahead.next() {
                slot.entry.prefetch();
            }
        })
    }

    /// Makes sure of a free slot, so that no slot changes its place without this being known.
    ///
    /// A slot that was given up can't be used again until all slots are put in order anew. Where as many come as go,
    /// as under eviction, that is done in place: twice the slots would take memory that entries then have to make room for.
    fn make_room(&mut self) {
        if self.slots.len() < self.slots.capacity() {
            return;
        }
        self.arrangement = self.arrangement.wrapping_add(1);
        let room = self.slots.num_buckets() / 8 * 7;
        if self.slots.len() < room - room / SPENT {
            let spent = std::mem::replace(&mut self.slots, HashTable::with_capacity(room));
            for slot in spent {
                self.slots.insert_unique(slot.bucket_hash(), slot, Slot::bucket_hash);
            }
        } else {
            self.slots.reserve(1, Slot::bucket_hash);
        }
        self.slots_memory = allocation::taken(self.slots.allocation_size());
    }

    fn count(&mut self, entry: &Entry) {
        self.entries_memory += entry.memory();
        let deadline = entry.deadline();
        if deadline != 0 {
            self.expiring += 1;
            self.earliest = self.earliest.min(deadline);
        }
    }

    fn discount(&mut self, entry: &Entry) {
        self.entries_memory -= entry.memory();
        self.expiring -= usize::from(entry.deadline() != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::Value;
    use crate::table::slot::HASH_STEP;

    const HASH: u64 = 7 * HASH_STEP;

    fn entry(version: u64, key: &[u8]) -> Entry {
        Entry::new(version, Key::bytes(key), &Value { bytes: b"v", flags: 0, deadline: version % 2 })
    }

    /// A shard with these versions, each under a key and a hash of its own.
    fn filled(versions: std::ops::Range<u64>) -> Shard {
        let mut shard = Shard::new(0);
        for version in versions {
            shard.put(version * HASH_STEP, entry(version, &version.to_le_bytes()));
        }
        shard
    }

    fn weed(shard: &mut Shard, goes: impl FnMut(&Entry) -> bool) -> usize {
        let before = shard.len();
        let mut effort = usize::MAX;
        assert!(shard.weed(&mut Place::default(), &mut effort, goes));
        shard.shrink();
        before - shard.len()
    }

    #[test]
    fn keys_of_one_hash_are_kept_apart() {
        let mut shard = Shard::new(0);
        assert!(shard.put(HASH, entry(1, b"a")).is_none());
        assert!(shard.put(HASH, entry(2, b"b")).is_none());
        assert_eq!(shard.put(HASH, entry(3, b"a")).map(|old| old.version()), Some(1));
        assert_eq!(shard.get(HASH, Key::bytes(b"b")).map(Entry::version), Some(2));
        assert_eq!(shard.remove(HASH, Key::bytes(b"a")).map(|old| old.version()), Some(3));
        assert!(shard.remove(HASH, Key::bytes(b"a")).is_none());
        assert_eq!(shard.len(), 1);
    }

    #[test]
    fn slots_do_not_double_where_as_many_come_as_go() {
        let mut shard = filled(0..400);
        let memory = shard.slots_memory;
        for version in 400..20_000 {
            shard.put(version * HASH_STEP, entry(version, &version.to_le_bytes()));
            let oldest = version - 400;
            assert!(shard.remove(oldest * HASH_STEP, Key::bytes(&oldest.to_le_bytes())).is_some());
        }
        assert_eq!((shard.len(), shard.slots_memory), (400, memory));
        assert!(
            (19_600..20_000)
                .all(|version| shard.get(version * HASH_STEP, Key::bytes(&version.to_le_bytes())).is_some())
        );
    }

    #[test]
    fn the_newer_stays() {
        let mut shard = Shard::new(0);
        for version in [2, 1, 3, 3, 2] {
            shard.put_if_newer(HASH, Key::bytes(b"a"), version, || entry(version, b"a"));
        }
        assert_eq!(shard.get(HASH, Key::bytes(b"a")).map(Entry::version), Some(3));
    }

    #[test]
    fn figures_follow_the_entries() {
        let mut shard = filled(0..1000);
        assert!(shard.memory() > 1000 * 32);
        assert_eq!(shard.expiring(), 500);
        assert_eq!(weed(&mut shard, |entry| entry.version() >= 10), 990);
        assert_eq!(shard.entries_memory, 5 * (entry(0, &[0; 8]).memory() + entry(1, &[0; 8]).memory()));
        assert_eq!((shard.len(), shard.expiring()), (10, 5));
        assert_eq!(shard.get(HASH, Key::bytes(&7_u64.to_le_bytes())).map(Entry::version), Some(7));
        weed(&mut shard, |_| true);
        assert_eq!((shard.memory(), shard.expiring()), (0, 0));
    }

    #[test]
    fn a_pass_is_taken_up_where_it_was_broken_off() {
        let mut shard = filled(0..300);
        let (mut place, mut met, mut steps) = (Place::default(), 0, 1);
        let mut goes = |entry: &Entry| {
            met += 1;
            entry.version().is_multiple_of(3)
        };
        while !shard.weed(&mut place, &mut 7, &mut goes) {
            steps += 1;
        }
        assert_eq!((met, shard.len()), (300, 200));
        assert_eq!(steps, shard.slots.num_buckets().div_ceil(7));
    }

    #[test]
    fn a_pass_misses_nothing_when_slots_move() {
        let mut shard = filled(0..100);
        let (mut place, mut version) = (Place::default(), 1000);
        // New entries come in all the time, so that the shard grows several times.
        while !shard.weed(&mut place, &mut 3, |entry| entry.version() < 100) {
            if version < 1600 {
                for _ in 0..20 {
                    shard.put(version * HASH_STEP, entry(version, &version.to_le_bytes()));
                    version += 1;
                }
            }
        }
        assert_eq!((version, shard.len()), (1600, 600));
        assert!(shard.iter().all(|(_, entry)| entry.version() >= 1000));
    }

    #[test]
    fn large_entries_take_more_effort() {
        let mut shard = Shard::new(0);
        for at in 0..10_u8 {
            let value = vec![0; 4 << 20];
            let value = Value { bytes: &value, flags: 0, deadline: 0 };
            shard.put(u64::from(at) * HASH_STEP, Entry::new(1, Key::bytes(&[at]), &value));
        }
        assert!(!shard.weed(&mut Place::default(), &mut 400, |_| true));
        assert_eq!(shard.len(), 8);
    }
}
