//! Which entry to give up when memory is full: a queue on probation, and a clock hand over the rest.
//!
//! Knows entries and their access counters; does not know limits, nor what becomes of a victim: the choice changes
//! nothing but counters.
//!
//! An entry that is new is on probation: its hash stands in a queue, for as long as a fifth of the entries are newer.
//! Was it accessed by then, it stays; else it is the victim. So a scan passes through the queue and takes nothing else
//! with it. Among those that stayed, a hand goes round in the order of the slots, takes one access off each, and stops at one
//! that has none left to spare. Two bits an entry are all that an access touches, and a hash in the queue for one entry in
//! five is all the memory that it takes: no list runs through the entries, and nothing is moved on access.
//!
//! The queue and its quick demotion are those of S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson, "FIFO queues are all you
//! need for cache eviction", SOSP 2023), without its ghost queue; the hand is a generalised CLOCK in the place of its main
//! queue. `docs/architecture.md` says what it was measured against.
//!
//! ```text
//! frequency   0          1                       2, 3
//!             probation  stays, next to go       stays, was accessed
//! ```

use super::Table;
use super::entry::Entry;
use super::shard::{Place, Shard};
use super::share::{share, share_out};
use super::slot::{SHARDS, shard_of};
use std::collections::VecDeque;

/// One entry in so many is on probation.
const PROBATION: usize = 5;
/// Entries that the hand looks at for one victim, at most.
const LOOK: usize = 64;
/// Entries that the hand passes for one victim, at most: those on probation included, and the ends of shards.
const PASS: usize = 2 * SHARDS;
/// Versions that tell, after a start, how young an entry must be to be on probation.
const SAMPLE: usize = 1000;

/// The state of eviction.
#[derive(Default)]
pub struct Eviction {
    /// Whether victims will be asked for at all: else nothing is kept.
    enabled: bool,
    /// The hashes of entries as they came, oldest first. Entries that left otherwise, or were accessed, are still named.
    queue: VecDeque<u64>,
    /// Where the hand is.
    shard: usize,
    place: Place,
    /// Whether victims are being taken, so that the queue must not be shortened in another way.
    pressed: bool,
}

impl Eviction {
    /// An entry came whose key was not there.
    pub fn admit(&mut self, hash: u64, frequency: u8) {
        if self.enabled && frequency == 0 {
            self.queue.push_back(hash);
        }
    }

    /// Bytes that the queue takes.
    pub fn memory(&self) -> usize {
        self.queue.capacity() * size_of::<u64>()
    }
}

impl Table {
    /// Begins to keep what a choice of victims needs. What is in the table already is as old as its version says: the
    /// youngest fifth is on probation. Works on so many threads.
    pub fn enable_eviction(&mut self, threads: usize) {
        self.eviction.enabled = true;
        let step = (self.len() / SAMPLE).max(1);
        let mut versions: Vec<u64> = self.iter().step_by(step).map(Entry::version).collect();
        versions.sort_unstable();
        let young =
            versions.get(versions.len() - versions.len() / PROBATION..).and_then(|young| young.first().copied());
        let Some(young) = young else { return };
        let queues = share_out(self.shards.chunks(share(threads)), |shards| {
            let mut queue = Vec::new();
            for (hash, entry) in shards.iter().flat_map(Shard::iter_ahead) {
                if entry.version() >= young {
                    queue.push(hash);
                } else {
                    entry.promote();
                }
            }
            queue
        });
        let mut queue = VecDeque::with_capacity(self.len() / PROBATION + SAMPLE);
        queue.extend(queues.iter().flatten());
        self.eviction.queue = queue;
    }

    /// Chooses an entry to give up, with its hash; `None` if there is none that `may_go`. It is not removed, and may be
    /// chosen again when the hand has been round.
    pub fn victim(&mut self, may_go: impl Fn(u64, &Entry) -> bool) -> Option<(u64, &Entry)> {
        self.eviction.pressed = true;
        let (hash, version) = self.of_probation(&may_go).or_else(|| self.of_hand(&may_go)).or_else(|| {
            // All are on probation.
            std::iter::from_fn(|| self.eviction.queue.pop_front()).take(PASS).find_map(|hash| {
                self.shards[shard_of(hash)].end_probation(hash, &may_go).map(|version| (hash, version))
            })
        })?;
        let entry = self.shards[shard_of(hash)].find(hash, |entry| entry.version() == version)?;
        Some((hash, entry))
    }

    /// Shortens the queue where no victims are taken: what has been in it for long enough stays.
    pub fn end_probation(&mut self, effort: usize) {
        for _ in 0..effort {
            if self.eviction.queue.len() <= self.probation() {
                break;
            }
            if let Some(hash) = self.eviction.queue.pop_front() {
                self.shards[shard_of(hash)].end_probation(hash, |_, _| true);
            }
        }
    }

    /// Told that memory is well below its limit: from here on whoever has been on probation long enough stays.
    pub fn relax_eviction(&mut self) {
        self.eviction.pressed = false;
    }

    /// Whether the queue is to be shortened although no victim is asked for.
    pub fn probation_is_over(&self) -> bool {
        let most = if self.eviction.pressed { 2 * self.probation() + LOOK } else { self.probation() };
        self.eviction.queue.len() > most
    }

    fn probation(&self) -> usize {
        self.len() / PROBATION
    }

    fn of_probation(&mut self, may_go: &impl Fn(u64, &Entry) -> bool) -> Option<(u64, u64)> {
        while self.eviction.queue.len() > self.probation() {
            let hash = self.eviction.queue.pop_front()?;
            if let Some(version) = self.shards[shard_of(hash)].end_probation(hash, may_go) {
                return Some((hash, version));
            }
        }
        None
    }

    fn of_hand(&mut self, may_go: &impl Fn(u64, &Entry) -> bool) -> Option<(u64, u64)> {
        let mut best: Option<(u8, u64, u64)> = None;
        let (mut looked, mut passed) = (0, 0);
        while looked < LOOK && passed < PASS {
            passed += 1;
            let Eviction { shard, place, .. } = &mut self.eviction;
            let Some((hash, entry)) = self.shards[*shard].next(place) else {
                *shard = (*shard + 1) % SHARDS;
                continue;
            };
            let frequency = entry.frequency();
            if frequency == 0 || !may_go(hash, entry) {
                continue;
            }
            looked += 1;
            if best.is_none_or(|(least, ..)| frequency < least) {
                best = Some((frequency, hash, entry.version()));
            }
            if frequency == 1 {
                break;
            }
            entry.cool();
        }
        best.map(|(_, hash, version)| (hash, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};

    fn put(table: &mut Table, version: u64, key: u64) {
        let bytes = key.to_le_bytes();
        let probe = table.probe(Key::bytes(&bytes));
        let entry = Entry::new(version, probe.key, &Value { bytes: b"v", flags: 0, deadline: 0 });
        table.put(probe.hash, entry, &mut |_, _| ());
    }

    fn access(table: &Table, key: u64) -> bool {
        let bytes = key.to_le_bytes();
        table.get(table.probe(Key::bytes(&bytes))).inspect(|entry| entry.touch()).is_some()
    }

    /// Gives one entry up, and tells which key it had.
    fn evict(table: &mut Table) -> Option<u64> {
        let key = table.victim(|_, _| true)?.1.key().bytes.to_vec();
        table.remove(table.probe(Key::bytes(&key)), &mut |_, _| ());
        Some(u64::from_le_bytes(key.try_into().unwrap()))
    }

    /// Keys 0 to 999, of which the first 500 were accessed, all past their probation.
    fn filled() -> Table {
        let mut table = Table::new(1);
        table.enable_eviction(2);
        for key in 0..1000 {
            put(&mut table, key + 1, key);
        }
        (0..500).for_each(|key| assert!(access(&table, key)));
        while table.probation_is_over() {
            table.end_probation(100);
        }
        table
    }

    #[test]
    fn what_was_not_accessed_goes_first() {
        let mut table = filled();
        for _ in 0..300 {
            assert!(evict(&mut table).is_some_and(|key| key >= 500));
        }
        assert!((0..500).all(|key| access(&table, key)));
    }

    #[test]
    fn a_scan_takes_nothing_with_it() {
        let mut table = filled();
        let before = (0..500).filter(|&key| access(&table, key)).count();
        for key in 10_000..40_000 {
            put(&mut table, key, key);
            assert!(evict(&mut table).is_some());
        }
        let after = (0..500).filter(|&key| access(&table, key)).count();
        assert!(after * 100 >= before * 98, "{after} of {before} are left");
    }

    #[test]
    fn an_empty_table_has_no_victim_and_any_other_has() {
        let mut table = Table::new(1);
        table.enable_eviction(2);
        assert_eq!(evict(&mut table), None);
        for key in 0..100 {
            put(&mut table, key + 1, key);
            if key % 3 == 0 {
                access(&table, key);
            }
        }
        let mut gone = 0;
        // Where few are left, the hand may need more than one round.
        for _ in 0..100 * SHARDS {
            gone += usize::from(evict(&mut table).is_some());
        }
        assert_eq!((gone, table.len()), (100, 0));
    }

    #[test]
    fn who_may_not_go_is_not_chosen() {
        let mut table = filled();
        for _ in 0..400 {
            let even = |_: u64, entry: &Entry| entry.version().is_multiple_of(2);
            let key = table.victim(even).map(|(_, entry)| entry.version());
            assert!(key.is_none_or(|version| version.is_multiple_of(2)));
        }
    }

    #[test]
    fn an_overwritten_entry_keeps_what_it_had() {
        let mut table = filled();
        let queued = table.eviction.queue.len();
        put(&mut table, 5_000, 0);
        assert_eq!(table.eviction.queue.len(), queued);
        let bytes = 0_u64.to_le_bytes();
        assert_eq!(table.get(table.probe(Key::bytes(&bytes))).map(Entry::frequency), Some(3));
    }

    #[test]
    fn after_a_start_the_youngest_fifth_is_on_probation() {
        let mut table = Table::new(1);
        for key in 0..10_000 {
            put(&mut table, key + 1, key);
        }
        table.enable_eviction(2);
        let young = table.iter().filter(|entry| entry.frequency() == 0).map(Entry::version);
        let (count, least) = young.fold((0, u64::MAX), |(count, least), version| (count + 1, least.min(version)));
        assert!((1_900..2_100).contains(&count) && least > 7_900, "{count} from {least} on");
        assert_eq!(table.eviction.queue.len(), count);
    }

    #[test]
    fn without_it_nothing_is_kept() {
        let mut table = Table::new(1);
        (0..100).for_each(|key| put(&mut table, key + 1, key));
        assert_eq!(table.eviction.memory(), 0);
    }
}
