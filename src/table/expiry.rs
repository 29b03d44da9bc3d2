//! Removing what has expired, though nobody asks for it.
//!
//! Knows no clock: `now` is a parameter. No list of deadlines is kept: each shard knows the earliest deadline that it
//! may hold, so that those where nothing is due are skipped, and the others are looked through once in a while. That
//! costs nothing a key, and about a twentieth of a processor's time where all of five million keys have deadlines that
//! come one by one.

use super::Table;
use super::departure::{Departed, Departure};
use super::shard::Place;
use super::slot::SHARDS;

/// How long a shard that was looked through is left alone, in milliseconds. With the time that it takes to come round,
/// an expired entry is gone within twice as much.
const INTERVAL: u64 = 5_000;

/// Where the search for expired entries is.
#[derive(Default)]
pub struct Expiry {
    shard: usize,
    place: Place,
    /// The earliest deadline met in this shard that has not come yet; `None` between two shards.
    earliest: Option<u64>,
}

impl Table {
    /// Removes entries that have expired by `now` (Unix milliseconds), until it has spent an effort (of one for each
    /// slot that it looks at, and more for a large entry that it removes). Returns whether there is more to do now.
    ///
    /// An entry may be left for 5 s after its deadline, and for the time that the others take.
    pub fn expire(&mut self, now: u64, mut effort: usize, departed: &mut Departed<'_>) -> bool {
        if self.expiring() == 0 {
            return false;
        }
        for _ in 0..SHARDS {
            let Expiry { shard: index, mut place, earliest } = self.expiry;
            let next = Expiry { shard: (index + 1) % SHARDS, ..Expiry::default() };
            if earliest.is_none() {
                if !self.shards[index].may_hold_expired(now) {
                    self.expiry = next;
                    continue;
                }
                self.shards[index].begin_looking(now.saturating_add(INTERVAL));
            }
            let mut earliest = earliest.unwrap_or(u64::MAX);
            let through = self.change(index, |shard, presence| {
                let through = shard.weed(&mut place, &mut effort, |entry| {
                    let deadline = entry.deadline();
                    if deadline == 0 || deadline > now {
                        earliest = if deadline == 0 { earliest } else { earliest.min(deadline) };
                        return false;
                    }
                    presence.depart(entry, Departure::Expired, departed);
                    true
                });
                if through {
                    shard.end_looking(earliest);
                    shard.shrink();
                }
                through
            });
            if !through {
                self.expiry = Expiry { shard: index, place, earliest: Some(earliest) };
                return true;
            }
            self.expiry = next;
        }
        false
    }

    /// Number of entries that have a deadline, those included that a flush hides.
    pub fn expiring(&self) -> usize {
        self.totals.expiring
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};
    use crate::table::Entry;

    const NOW: u64 = 1_000_000;

    fn put(table: &mut Table, number: u64, deadline: u64) {
        let bytes = number.to_le_bytes();
        let probe = table.probe(Key::bytes(&bytes));
        let entry = Entry::new(number, probe.key, &Value { bytes: b"v", flags: 0, deadline });
        table.put(probe.hash, entry, &mut |_, _| ());
    }

    /// Expires in small steps until there is no more to do; which entries went.
    fn expire(table: &mut Table, now: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        let mut departed = |entry: &Entry, departure| {
            assert_eq!(departure, Departure::Expired);
            gone.push(entry.version());
        };
        while table.expire(now, 50, &mut departed) {}
        gone.sort_unstable();
        gone
    }

    #[test]
    fn what_has_expired_goes_and_nothing_else() {
        let mut table = Table::new(1);
        for number in 0..3_000 {
            put(&mut table, number, [0, NOW + number, NOW + 1_000_000][number as usize % 3]);
        }
        assert_eq!(table.expiring(), 2_000);
        let expected: Vec<u64> = (0..=1_500).filter(|number| number % 3 == 1).collect();
        assert_eq!(expire(&mut table, NOW + 1_500), expected);
        assert_eq!((table.len(), table.expiring()), (2_500, 1_500));
        assert_eq!(expire(&mut table, NOW + 1_500 + INTERVAL).len(), 500);
        assert_eq!(expire(&mut table, u64::MAX).len(), 1_000);
        assert_eq!((table.len(), table.expiring()), (1_000, 0));
    }

    #[test]
    fn a_shard_is_left_alone_for_a_while() {
        let mut table = Table::new(1);
        put(&mut table, 1, NOW);
        assert_eq!(expire(&mut table, NOW), [1]);
        put(&mut table, 1, NOW + 1);
        assert_eq!(expire(&mut table, NOW + INTERVAL - 1), [0; 0]);
        assert_eq!(expire(&mut table, NOW + INTERVAL), [1]);
    }

    #[test]
    fn entries_that_come_during_a_pass_are_found_by_the_next() {
        let mut table = Table::new(1);
        for number in 0..20_000 {
            put(&mut table, number, NOW);
        }
        let mut number = 20_000;
        while table.expire(NOW, 50, &mut |_, _| ()) {
            put(&mut table, number, NOW + 1);
            number += 1;
        }
        assert_eq!(table.len(), table.expiring());
        while !table.is_empty() {
            let before = table.len();
            expire(&mut table, NOW + 1 + INTERVAL);
            assert!(table.len() < before);
        }
    }

    #[test]
    fn what_a_flush_hides_is_the_flushs() {
        let mut table = Table::new(1);
        put(&mut table, 1, NOW);
        table.begin_flush(Some(b""), 2);
        table.expire(NOW, 100_000, &mut |_, departure| assert_eq!(departure, Departure::Flushed));
        assert_eq!(table.sweep(100_000, &mut |_, _| panic!("it is gone")).map(|swept| swept.removed), Some(1));
        assert_eq!(table.len(), 0);
    }
}
