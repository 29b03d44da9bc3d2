//! Passing over the table a stretch at a time, in order of hash.
//!
//! A position is the beginning of a hash: everything below it has been visited, whatever was inserted or removed since and
//! however the shards have grown, because no entry ever changes its hash. Stretches end between hashes as slots know them;
//! a position may also lie between two keys that share one, told by more bits of theirs. Knows nothing of prefixes, deadlines
//! or pages of keys: who asks for a stretch chooses among its entries.

use super::cursor::POSITION_BITS;
use super::entry::Entry;
use super::shard::Shard;
use super::slot::{HASH_STEP, POSITION_STEP, SHARDS, first_hash, of_slot, shard_of};
use super::{Probe, Table};

/// All entries whose hashes lie from the one asked for up to `next`, in order of hash.
#[derive(Debug)]
pub struct Stretch<'t> {
    /// The entries with their hashes.
    pub entries: Vec<(u64, &'t Entry)>,
    /// How many were looked at: these, and those that were flushed and not swept yet.
    pub looked_at: usize,
    /// The hash with which the next stretch begins; 0 at the end of the table.
    pub next: u64,
}

impl Table {
    /// The stretch that begins with the hash of a position (0 is the start, any other number is harmless), with about `aim`
    /// entries if there are as many: more only where the last ones have one hash, fewer where some were flushed and
    /// not swept yet.
    ///
    /// Costs one pass over the slots of each shard it enters and a sort of about `aim` entries.
    pub fn stretch(&self, from: u64, aim: usize) -> Stretch<'_> {
        let (from, aim) = (of_slot(from), aim.max(1));
        let mut entries = Vec::new();
        let mut shard = shard_of(from);
        let next = loop {
            let start = entries.len();
            let more = collect(&self.shards[shard], from, aim - start, &mut entries);
            shard += 1;
            if more {
                break entries.last().map_or(0, |&(hash, _)| behind(hash));
            }
            if shard == SHARDS {
                break 0;
            }
            if entries.len() >= aim {
                break first_hash(shard);
            }
        };
        let looked_at = entries.len();
        if self.sweeping().is_some() {
            entries.retain(|&(_, entry)| !self.hides(entry));
        }
        Stretch { entries, looked_at, next }
    }

    /// Where a key stands among those of its hash: a position from that hash on and below the next one. Two keys share it
    /// as seldom as 53 bits of their hashes.
    pub fn position(&self, Probe { hash, key }: Probe<'_>) -> u64 {
        hash | self.hasher.hash(key) & (HASH_STEP - 1) & !(POSITION_STEP - 1)
    }

    /// The cursor of a position: a number below 2^53 that tells nothing of it. That of 0 is 0.
    pub fn cursor(&self, position: u64) -> u64 {
        self.cursors.hide(position >> (u64::BITS - POSITION_BITS))
    }

    /// The position of a cursor; some position, if it is none.
    pub fn position_of_cursor(&self, cursor: u64) -> u64 {
        self.cursors.reveal(cursor) << (u64::BITS - POSITION_BITS)
    }
}

/// The hash behind this one; 0 behind the last.
pub fn behind(hash: u64) -> u64 {
    hash.wrapping_add(HASH_STEP)
}

/// Appends the first `aim` (1 or more) entries of a shard from a position on, and all others of the last one's
/// hash, in order of hash. Returns whether the shard holds more.
fn collect<'t>(shard: &'t Shard, from: u64, aim: usize, into: &mut Vec<(u64, &'t Entry)>) -> bool {
    let start = into.len();
    into.extend(shard.iter().filter(|&(hash, _)| hash >= from));
    let mut more = false;
    if into.len() - start > aim {
        let found = into.len();
        let (_, &mut (last, _), _) = into[start..].select_nth_unstable_by_key(aim - 1, |&(hash, _)| hash);
        let mut index = 0;
        into.retain(|&(hash, _)| {
            index += 1;
            index <= start || hash <= last
        });
        more = into.len() < found;
    }
    into[start..].sort_unstable_by_key(|&(hash, _)| hash);
    more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};
    use crate::table::slot::HASH_STEP;

    fn entry(version: u64) -> Entry {
        Entry::new(version, Key::bytes(&version.to_le_bytes()), &Value { bytes: b"", flags: 0, deadline: 0 })
    }

    /// A table with these hashes, whatever the keys.
    fn forged(hashes: &[u64]) -> Table {
        let mut table = Table::new(0);
        for (version, &hash) in hashes.iter().enumerate() {
            table.shards[shard_of(hash)].put(hash, entry(version as u64));
        }
        table
    }

    /// Every stretch, one after the other: hashes and positions.
    fn walk(table: &Table, aim: usize) -> Vec<(Vec<u64>, u64)> {
        let mut stretches = Vec::new();
        let mut from = 0;
        loop {
            let stretch = table.stretch(from, aim);
            stretches.push((stretch.entries.iter().map(|&(hash, _)| hash).collect(), stretch.next));
            from = stretch.next;
            if from == 0 {
                return stretches;
            }
        }
    }

    #[test]
    fn equal_hashes_are_never_split() {
        let [two, five, nine] = [2, 5, 9].map(|hash| hash * HASH_STEP);
        let table = forged(&[five, nine, five, five, two]);
        assert_eq!(walk(&table, 2), [(vec![two, five, five, five], behind(five)), (vec![nine], 0)]);
        // The shard is at its end with the aim reached; whether the others hold anything is for the next stretch.
        let expected =
            [(vec![two], behind(two)), (vec![five; 3], behind(five)), (vec![nine], first_hash(1)), (vec![], 0)];
        assert_eq!(walk(&table, 1), expected);
    }

    #[test]
    fn the_ends_of_shards_and_of_the_table() {
        let (second, last) = (first_hash(1), 0_u64.wrapping_sub(HASH_STEP));
        let table = forged(&[0, second - HASH_STEP, second, last, last - HASH_STEP]);
        let stretches = walk(&table, 1);
        let hashes: Vec<u64> = stretches.iter().flat_map(|(hashes, _)| hashes.clone()).collect();
        assert_eq!(hashes, [0, second - HASH_STEP, second, last - HASH_STEP, last]);
        assert_eq!(walk(&table, 100), [(hashes, 0)]);
    }

    #[test]
    fn an_arbitrary_position_is_harmless() {
        let table = forged(&[HASH_STEP, 1 << 60]);
        for from in [1, HASH_STEP + 1, (1 << 60) + 1, u64::MAX] {
            let stretch = table.stretch(from, 0);
            assert!(stretch.entries.iter().all(|&(hash, _)| hash >= of_slot(from)));
        }
        assert_eq!(Table::new(1).stretch(u64::MAX, 5).next, 0);
    }

    #[test]
    fn flushed_entries_are_passed_and_not_shown() {
        let mut table = forged(&(1..=9).map(|hash| hash * HASH_STEP).collect::<Vec<_>>());
        table.begin_flush(None, 5);
        let stretch = table.stretch(0, 6);
        let versions: Vec<u64> = stretch.entries.iter().map(|(_, entry)| entry.version()).collect();
        assert_eq!((versions, stretch.looked_at, stretch.next), (vec![5], 6, 7 * HASH_STEP));
    }
}
