//! A table being filled from the log, by many threads at once and in any order.
//!
//! Knows mutations and versions, not segments or records. Order does not matter because the highest version of a
//! key wins, removals stay as entries until the end, and every flush is kept and applied to whatever lies below
//! it, met before or after. An expired entry is an entry like any other until the end: were it dropped before, an older
//! value of its key, met later, would come back.

use super::entry::Entry;
use super::flushes::Flushes;
use super::shard::{Place, Shard};
use super::slot::{SHARDS, first_hash, shard_of};
use super::{Hasher, Table};
use crate::mutation::Mutation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A table on its way. [`Replay::apply`] every mutation of the log, then [`Replay::finish`].
///
/// ```
/// use kvd::mutation::{Key, Mutation, Value};
/// use kvd::table::Replay;
/// let key = Key::bytes(b"k");
/// let replay = Replay::new(7);
/// replay.apply(2, &Mutation::Remove { key });
/// replay.apply(1, &Mutation::Put { key, value: Value { bytes: b"older", flags: 0, deadline: 0 } });
/// assert!(replay.finish(1_700_000_000_000).is_empty());
/// ```
pub struct Replay {
    hasher: Hasher,
    shards: Vec<Mutex<Growing>>,
    flushes: Mutex<Flushes>,
    /// The newest flush of everything met so far: what lies below it need not even be stored.
    flushed: AtomicU64,
}

/// A shard that may hold tombstones.
struct Growing {
    shard: Shard,
    tombstones: bool,
}

impl Replay {
    /// `seed` keys the hash; the store's identity, so that SCAN cursors outlive a restart.
    pub fn new(seed: u128) -> Self {
        Replay {
            hasher: Hasher::new(seed),
            shards: (0..SHARDS)
                .map(|shard| Mutex::new(Growing { shard: Shard::new(first_hash(shard)), tombstones: false }))
                .collect(),
            flushes: Mutex::default(),
            flushed: AtomicU64::new(0),
        }
    }

    /// Takes one mutation in; the highest version wins.
    pub fn apply(&self, version: u64, mutation: &Mutation<'_>) {
        match *mutation {
            Mutation::Flush { prefix } => {
                self.flushes.lock().unwrap_or_else(PoisonError::into_inner).add(prefix, version);
                if prefix.is_none() {
                    self.flushed.fetch_max(version, Ordering::Relaxed);
                }
            }
            // Only a saving: `finish` looks at every entry again, with all flushes known.
            _ if version < self.flushed.load(Ordering::Relaxed) => {}
            Mutation::Put { key, ref value } => {
                let hash = self.hasher.hash(key);
                self.growing(hash, |growing| {
                    growing.shard.put_if_newer(hash, key, version, || Entry::new(version, key, value));
                });
            }
            Mutation::Remove { key } => {
                let hash = self.hasher.hash(key);
                self.growing(hash, |growing| {
                    growing.shard.put_if_newer(hash, key, version, || Entry::removal(version, key));
                    growing.tombstones = true;
                });
            }
        }
    }

    /// The table, without tombstones, without what was flushed, and without what has expired by `now`, a Unix time in
    /// milliseconds.
    pub fn finish(self, now: u64) -> Table {
        let flushes = self.flushes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let finish = |growing: Mutex<Growing>| {
            let Growing { mut shard, tombstones } = growing.into_inner().unwrap_or_else(PoisonError::into_inner);
            if tombstones || !flushes.is_empty() || shard.may_hold_expired(now) {
                let goes = |entry: &Entry| {
                    let is_flushed = || entry.version() < flushes.newest_over(entry.key());
                    entry.is_removal() || entry.is_expired(now) || is_flushed()
                };
                shard.weed(&mut Place::default(), &mut usize::MAX.clone(), goes);
                shard.fit();
            }
            shard
        };
        Table::of(self.hasher, self.shards.into_iter().map(finish).collect())
    }

    /// Works on the shard of a hash. A thread that panicked on it is no reason to stop: entries are whole or absent.
    fn growing(&self, hash: u64, work: impl FnOnce(&mut Growing)) {
        work(&mut self.shards[shard_of(hash)].lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};

    const NOW: u64 = 10;

    fn put(bytes: &'static [u8], deadline: u64) -> Mutation<'static> {
        Mutation::Put { key: Key::bytes(b"key"), value: Value { bytes, flags: 0, deadline } }
    }

    /// What the key holds after these mutations, met in every order.
    fn outcome(mutations: &[(u64, Mutation<'static>)]) -> Option<Vec<u8>> {
        let mut outcomes = Vec::new();
        for rotation in 0..mutations.len() {
            for backwards in [false, true] {
                let mut order = mutations.to_vec();
                order.rotate_left(rotation);
                if backwards {
                    order.reverse();
                }
                let replay = Replay::new(3);
                for (version, mutation) in &order {
                    replay.apply(*version, mutation);
                }
                let table = replay.finish(NOW);
                let held = table.get(table.probe(Key::bytes(b"key")));
                assert_eq!(table.len(), usize::from(held.is_some()));
                outcomes.push(held.map(|entry| entry.value().to_vec()));
            }
        }
        assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "the order mattered: {outcomes:?}");
        outcomes.swap_remove(0)
    }

    #[test]
    fn the_highest_version_wins() {
        assert_eq!(outcome(&[(1, put(b"a", 0)), (3, put(b"c", 0)), (2, put(b"b", 0))]), Some(b"c".to_vec()));
    }

    #[test]
    fn a_removal_hides_what_is_older_only() {
        let remove = Mutation::Remove { key: Key::bytes(b"key") };
        assert_eq!(outcome(&[(1, put(b"a", 0)), (2, remove)]), None);
        assert_eq!(outcome(&[(1, put(b"a", 0)), (2, remove), (3, put(b"b", 0))]), Some(b"b".to_vec()));
    }

    #[test]
    fn a_flush_hides_what_is_older_and_matches() {
        let all = Mutation::Flush { prefix: None };
        assert_eq!(outcome(&[(1, put(b"a", 0)), (2, all)]), None);
        assert_eq!(outcome(&[(3, put(b"a", 0)), (2, all)]), Some(b"a".to_vec()));
        assert_eq!(outcome(&[(1, put(b"a", 0)), (2, Mutation::Flush { prefix: Some(b"ke") })]), None);
        let other = Mutation::Flush { prefix: Some(b"other") };
        assert_eq!(outcome(&[(1, put(b"a", 0)), (2, other)]), Some(b"a".to_vec()));
    }

    #[test]
    fn an_expired_entry_keeps_the_older_one_away() {
        assert_eq!(outcome(&[(1, put(b"old", 0)), (2, put(b"expired", NOW))]), None);
        assert_eq!(outcome(&[(1, put(b"old", 0)), (2, put(b"not yet", NOW + 1))]), Some(b"not yet".to_vec()));
        assert_eq!(outcome(&[(1, put(b"expired", 1)), (2, put(b"new", 0))]), Some(b"new".to_vec()));
    }
}
