//! A table being filled from the log, by many threads at once and in any order.
//!
//! Knows mutations and versions, not segments or records. Order does not matter because the highest version of a
//! key wins, removals stay as entries until the end, and every flush is kept and applied to whatever lies below
//! it, met before or after. An expired entry is an entry like any other until the end: were it dropped before, an older
//! value of its key, met later, would come back.

use super::Table;
use super::cursor::Cursors;
use super::entry::Entry;
use super::flushes::Flushes;
use super::hash::KeyHasher;
use super::shard::{Place, Shard};
use super::share::{share, share_out};
use super::slot::{SHARDS, first_hash, of_slot, shard_of};
use crate::mutation::Mutation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shards that are filled under one lock. Of a chunk of the log some dozen mutations meet in a group: enough to fetch what
/// they need in one go, few enough that it stays in the cache, and threads seldom want the same group.
const GROUP: usize = 16;

/// A table on its way. [`Replay::apply`] every mutation of the log, then [`Replay::finish`].
///
/// ```
/// use kvd::mutation::{Key, Mutation, Value};
/// use kvd::table::Replay;
/// let key = Key::bytes(b"k");
/// let replay = Replay::new(7);
/// let older = Mutation::Put { key, value: Value { bytes: b"older", flags: 0, deadline: 0 } };
/// replay.apply(&[(2, Mutation::Remove { key }), (1, older)]);
/// assert!(replay.finish(1_700_000_000_000, 2).is_empty());
/// ```
pub struct Replay {
    hasher: KeyHasher,
    cursors: Cursors,
    /// In the order of the shards.
    groups: Vec<Mutex<Vec<Growing>>>,
    flushes: Mutex<Flushes>,
    /// The newest flush of everything met so far: what lies below it need not even be stored.
    flushed: AtomicU64,
}

/// A shard that may hold tombstones.
struct Growing {
    shard: Shard,
    tombstones: bool,
}

/// A mutation of one key, and its hash.
struct Keyed<'a> {
    hash: u64,
    version: u64,
    mutation: &'a Mutation<'a>,
}

impl Replay {
    /// `secret` is the store's: see [`Table::new`].
    pub fn new(secret: u128) -> Self {
        let growing = |shard| Growing { shard: Shard::new(first_hash(shard)), tombstones: false };
        let group = |first| Mutex::new((first..first + GROUP).map(growing).collect());
        Replay {
            hasher: KeyHasher::new(secret),
            cursors: Cursors::new(secret),
            groups: (0..SHARDS).step_by(GROUP).map(group).collect(),
            flushes: Mutex::default(),
            flushed: AtomicU64::new(0),
        }
    }

    /// Takes mutations in, each with its version; the highest version of a key wins. The more at a time, the less each
    /// of them costs, up to some thousand.
    ///
    /// They are put in the order of their groups. So one lock serves several, and what the processor must fetch for them
    /// it fetches all at once.
    pub fn apply(&self, mutations: &[(u64, Mutation<'_>)]) {
        let mut keyed: Vec<Keyed<'_>> =
            mutations.iter().filter_map(|(version, mutation)| self.keyed(*version, mutation)).collect();
        keyed.sort_unstable_by_key(|keyed| group_of(keyed.hash));
        for group in keyed.chunk_by(|left, right| group_of(left.hash) == group_of(right.hash)) {
            self.fill(group);
        }
    }

    /// What a mutation does to one key, if it does; a flush is kept.
    fn keyed<'a>(&self, version: u64, mutation: &'a Mutation<'a>) -> Option<Keyed<'a>> {
        match *mutation {
            Mutation::Flush { prefix } => {
                self.flushes.lock().unwrap_or_else(PoisonError::into_inner).add(prefix, version);
                if prefix.is_none() {
                    self.flushed.fetch_max(version, Ordering::Relaxed);
                }
                None
            }
            // Only a saving: `finish` looks at every entry again, with all flushes known.
            _ if version < self.flushed.load(Ordering::Relaxed) => None,
            Mutation::Put { key, .. } | Mutation::Remove { key } | Mutation::Evict { key } => {
                Some(Keyed { hash: of_slot(self.hasher.hash(key)), version, mutation })
            }
        }
    }

    /// Takes in mutations of one group. A thread that panicked on it is no reason to stop: entries are whole or absent.
    fn fill(&self, mutations: &[Keyed<'_>]) {
        let Some(group) = mutations.first().map(|first| group_of(first.hash)) else { return };
        let mut group = self.groups[group].lock().unwrap_or_else(PoisonError::into_inner);
        for keyed in mutations {
            group[shard_of(keyed.hash) % GROUP].shard.prefetch(keyed.hash);
        }
        for &Keyed { hash, version, mutation } in mutations {
            let Growing { shard, tombstones } = &mut group[shard_of(hash) % GROUP];
            match mutation {
                Mutation::Put { key, value } => {
                    shard.put_if_newer(hash, *key, version, || Entry::new(version, *key, value));
                }
                Mutation::Remove { key } | Mutation::Evict { key } => {
                    shard.put_if_newer(hash, *key, version, || Entry::removal(version, *key));
                    *tombstones = true;
                }
                Mutation::Flush { .. } => {}
            }
        }
    }

    /// The table, without tombstones, without what was flushed, and without what has expired by `now`, a Unix time in
    /// milliseconds. Works on so many threads.
    pub fn finish(self, now: u64, threads: usize) -> Table {
        let flushes = self.flushes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let groups = self.groups.into_iter().map(|group| group.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut shards: Vec<Growing> = groups.flatten().collect();
        share_out(shards.chunks_mut(share(threads)), |share| {
            for Growing { shard, tombstones } in share {
                if *tombstones || !flushes.is_empty() || shard.may_hold_expired(now) {
                    let goes = |entry: &Entry| {
                        let is_flushed = || entry.version() < flushes.newest_over(entry.key());
                        entry.is_removal() || entry.is_expired(now) || is_flushed()
                    };
                    shard.weed(&mut Place::default(), &mut usize::MAX.clone(), goes);
                    shard.fit();
                }
            }
        });
        Table::of(self.hasher, self.cursors, shards.into_iter().map(|growing| growing.shard).collect())
    }
}

/// The group of the shard that a hash belongs to.
fn group_of(hash: u64) -> usize {
    shard_of(hash) / GROUP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};
    use crate::table::hash::tests::pinned;
    use crate::table::slot::tests::COMPARED;

    const NOW: u64 = 10;

    fn put(bytes: &'static [u8], deadline: u64) -> Mutation<'static> {
        Mutation::Put { key: Key::bytes(b"key"), value: Value { bytes, flags: 0, deadline } }
    }

    /// What the key holds after these mutations, met in every order and in chunks of every length.
    fn outcome(mutations: &[(u64, Mutation<'static>)]) -> Option<Vec<u8>> {
        let mut outcomes = Vec::new();
        for rotation in 0..mutations.len() {
            for backwards in [false, true] {
                let mut order = mutations.to_vec();
                order.rotate_left(rotation);
                if backwards {
                    order.reverse();
                }
                for at_a_time in 1..=order.len() {
                    let replay = Replay::new(3);
                    order.chunks(at_a_time).for_each(|chunk| replay.apply(chunk));
                    let table = replay.finish(NOW, at_a_time);
                    let held = table.get(table.probe(Key::bytes(b"key")));
                    assert_eq!(table.len(), usize::from(held.is_some()));
                    outcomes.push(held.map(|entry| entry.value().to_vec()));
                }
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

    #[test]
    fn every_key_of_a_chunk_finds_its_shard() {
        const KEYS: u64 = 5_000;
        let keys: Vec<[u8; 8]> = (0..KEYS).map(u64::to_le_bytes).collect();
        let puts: Vec<_> = keys
            .iter()
            .zip(1..)
            .map(|(bytes, version)| {
                let key = Key::bytes(bytes);
                (version, Mutation::Put { key, value: Value { bytes, flags: 0, deadline: 0 } })
            })
            .collect();
        let removals: Vec<_> =
            keys.iter().step_by(3).map(|bytes| (KEYS + 1, Mutation::Remove { key: Key::bytes(bytes) })).collect();
        let replay = Replay::new(3);
        // Each thread is given all of it, so that they meet in every group.
        std::thread::scope(|scope| {
            for at_a_time in [1_000, 5_000] {
                let (replay, puts, removals) = (&replay, &puts, &removals);
                scope
                    .spawn(move || puts.chunks(at_a_time).chain([&removals[..]]).for_each(|chunk| replay.apply(chunk)));
            }
        });
        let table = replay.finish(NOW, 3);
        for (number, bytes) in keys.iter().enumerate() {
            let held = table.get(table.probe(Key::bytes(bytes))).map(Entry::value);
            assert_eq!(held, (!number.is_multiple_of(3)).then_some(&bytes[..]), "key {number}");
        }
        assert_eq!(table.len(), KEYS as usize - removals.len());
    }

    #[test]
    fn keys_that_once_collided_are_compared_once_each() {
        let keys = pinned();
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        let puts: Vec<_> = keys
            .iter()
            .zip(1..)
            .map(|(key, version)| (version, Mutation::Put { key: Key::bytes(key), value }))
            .collect();
        let replay = Replay::new(3);
        COMPARED.set(0);
        replay.apply(&puts);
        let first = COMPARED.take();
        replay.apply(&puts);
        let again = COMPARED.take();
        assert!(first < 100 && again < keys.len() + 100, "{first}, then {again} keys were compared, of {}", keys.len());
        let table = replay.finish(NOW, 1);
        assert!(keys.iter().all(|key| table.get(table.probe(Key::bytes(key))).is_some()));
        assert!(COMPARED.take() < keys.len() + 100);
    }
}
