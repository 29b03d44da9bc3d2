//! What each segment holds and how much of it still counts: the accounts that compaction goes by.
//!
//! Knows segments as ranges of versions, and lengths of records. Does not know keys, files or when to compact.
//!
//! Versions rise in the order of the log, and a compacted segment stands for a run of neighbours. So the segments part
//! the versions among themselves, in order: the version of an entry tells the segment that holds its record, and no
//! entry has to remember where it came from.
//!
//! ```text
//! segment          1 - 3 (compacted)     4             5 (active)
//! versions from    1                     9_000         12_500
//! ```

use super::batch::{Dependency, Tally};
use super::segment::SEGMENT_HEADER;

/// One segment's accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The lowest number that it stands for.
    pub first: u64,
    /// Its number.
    pub number: u64,
    /// How often what is in it was compacted.
    pub generation: u32,
    /// No record in it has a version below.
    pub versions_from: u64,
    /// Bytes of its file, up to its last batch.
    pub bytes: u64,
    /// Its records.
    pub tally: Tally,
    /// Records of entries that the table has.
    pub live: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Something in it can't be read, or is not what was written: compaction leaves it alone.
    pub spoiled: bool,
}

impl Usage {
    /// Whether every value in it counts, so that it can hold nothing of a key that the table does not have.
    pub fn is_clean(&self) -> bool {
        self.tally.puts == self.live
    }

    /// Bytes that a compaction would give back. Removals have to be kept while an older segment may hold what they hide.
    pub fn garbage(&self, keep_removals: bool) -> u64 {
        let kept = self.live_bytes + if keep_removals { self.tally.removal_bytes } else { 0 };
        // What a compacted segment holds beside records it would hold again: to compact it for that would never end.
        let held = match self.generation {
            0 => self.bytes.saturating_sub(SEGMENT_HEADER as u64),
            _ => self.tally.put_bytes + self.tally.removal_bytes,
        };
        held.saturating_sub(kept)
    }
}

/// The accounts of a log.
///
/// ```
/// use kvd::log::{Ledger, Tally, Usage};
/// let mut ledger = Ledger::new(Vec::new());
/// let tally = Tally { puts: 2, put_bytes: 300, ..Tally::default() };
/// ledger.appended(1, 10, 372, tally);
/// ledger.died(10, 150);
/// let usage: &Usage = &ledger.segments()[0];
/// assert_eq!((usage.live, usage.live_bytes), (1, 150));
/// assert!(!usage.is_clean());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Oldest first; the last one is the active one.
    segments: Vec<Usage>,
    /// The sums over all of them, which are asked for all the time.
    bytes: u64,
    live_bytes: u64,
}

impl Ledger {
    /// The accounts of segments that were read, oldest first, in which nothing is known to count yet.
    pub fn new(segments: Vec<Usage>) -> Ledger {
        debug_assert!(
            segments.is_sorted_by_key(|usage| (usage.number, usage.versions_from)),
            "in the order of the log"
        );
        let sum = |of: fn(&Usage) -> u64| segments.iter().map(of).sum();
        let (bytes, live_bytes) = (sum(|usage| usage.bytes), sum(|usage| usage.live_bytes));
        Ledger { segments, bytes, live_bytes }
    }

    /// Every segment, oldest first. The last one is the active one.
    pub fn segments(&self) -> &[Usage] {
        &self.segments
    }

    /// The compacted segments older than the one of this number, as they are now. Journals have no earlier state.
    pub fn older_than(&self, number: u64) -> Vec<Dependency> {
        let older = self.segments.iter().take_while(|usage| usage.number < number).filter(|usage| usage.generation > 0);
        older.map(|usage| Dependency { number: usage.number, generation: usage.generation }).collect()
    }

    /// The table has an entry of this version, whose record has this length.
    pub fn found(&mut self, version: u64, length: usize) {
        if let Some(usage) = self.of(version) {
            usage.live += 1;
            usage.live_bytes += length as u64;
            self.live_bytes += length as u64;
        }
    }

    /// The table has those entries too that other accounts, of the same segments, have found.
    pub fn found_too(&mut self, other: &Ledger) {
        debug_assert_eq!(self.segments.len(), other.segments.len(), "the same segments");
        for (usage, other) in self.segments.iter_mut().zip(&other.segments) {
            usage.live += other.live;
            usage.live_bytes += other.live_bytes;
        }
        self.live_bytes += other.live_bytes;
    }

    /// An entry of this version, whose record has this length, has left the table.
    pub fn died(&mut self, version: u64, length: usize) {
        if let Some(usage) = self.of(version) {
            debug_assert!(usage.live > 0, "more entries left segment {} than were in it", usage.number);
            usage.live = usage.live.saturating_sub(1);
            usage.live_bytes = usage.live_bytes.saturating_sub(length as u64);
            self.live_bytes = self.live_bytes.saturating_sub(length as u64);
        }
    }

    /// A batch of this length was appended to a segment. Everything that it stores counts, until it is told otherwise.
    pub fn appended(&mut self, number: u64, first_version: u64, length: u64, tally: Tally) {
        if self.segments.last().is_none_or(|active| active.number < number) {
            let bytes = SEGMENT_HEADER as u64;
            self.bytes += bytes;
            self.segments.push(Usage {
                first: number,
                number,
                versions_from: first_version,
                bytes,
                ..Usage::default()
            });
        }
        if let Some(active) = self.segments.last_mut() {
            active.bytes += length;
            active.tally += tally;
            active.live += tally.puts;
            active.live_bytes += tally.put_bytes;
            self.bytes += length;
            self.live_bytes += tally.put_bytes;
        }
    }

    /// A compaction put one segment of `bytes` in the place of those numbered from `first` to `last`.
    pub fn replaced(&mut self, first: u64, last: u64, bytes: u64, tally: Tally) {
        let from = self.segments.partition_point(|usage| usage.number < first);
        let to = self.segments.partition_point(|usage| usage.number <= last);
        let Some(victims) = self.segments.get(from..to).filter(|victims| !victims.is_empty()) else { return };
        // Whatever counts by now was copied; whatever was copied and has died meanwhile was taken off the victims.
        let whole = Usage {
            first: victims.first().map_or(first, |oldest| oldest.first),
            number: last,
            generation: victims.iter().map(|usage| usage.generation).max().unwrap_or(0) + 1,
            versions_from: victims.first().map_or(0, |oldest| oldest.versions_from),
            bytes,
            tally,
            live: victims.iter().map(|usage| usage.live).sum(),
            live_bytes: victims.iter().map(|usage| usage.live_bytes).sum(),
            spoiled: false,
        };
        self.bytes = self.bytes + bytes - victims.iter().map(|usage| usage.bytes).sum::<u64>();
        self.segments.splice(from..to, [whole]);
    }

    /// Compaction is to leave this segment alone from now on.
    pub fn spoiled(&mut self, number: u64) {
        if let Some(usage) = self.segments.iter_mut().find(|usage| usage.number == number) {
            usage.spoiled = true;
        }
    }

    /// Bytes of all records that count.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the sealed segments.
    pub fn sealed_bytes(&self) -> u64 {
        self.bytes - self.segments.last().map_or(0, |active| active.bytes)
    }

    fn of(&mut self, version: u64) -> Option<&mut Usage> {
        let after = self.segments.partition_point(|usage| usage.versions_from <= version);
        self.segments.get_mut(after.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts(puts: u64) -> Tally {
        Tally { puts, put_bytes: puts * 100, ..Tally::default() }
    }

    #[test]
    fn what_was_found_in_parts_is_found_together() {
        let usage =
            |number| Usage { first: number, number, versions_from: number * 10, bytes: 5000, ..Usage::default() };
        let empty = Ledger::new(vec![usage(1), usage(2)]);
        let parts = [vec![(10, 100), (19, 50), (20, 70)], vec![(11, 30), (25, 1)]];
        let (mut whole, mut together) = (empty.clone(), empty.clone());
        for part in parts {
            let mut of_part = empty.clone();
            for (version, length) in part {
                whole.found(version, length);
                of_part.found(version, length);
            }
            together.found_too(&of_part);
        }
        assert_eq!(together.segments(), whole.segments());
        assert_eq!(together.live_bytes(), 251);
    }

    #[test]
    fn a_version_tells_its_segment() {
        let mut ledger = Ledger::default();
        ledger.appended(1, 1, 1072, puts(10));
        ledger.appended(1, 11, 172, puts(1));
        ledger.appended(2, 12 + (1 << 32), 272, puts(2));
        ledger.died(11, 100);
        ledger.died(13 + (1 << 32), 100);
        let live: Vec<_> = ledger.segments().iter().map(|usage| (usage.number, usage.live)).collect();
        assert_eq!(live, [(1, 10), (2, 1)]);
        assert_eq!((ledger.live_bytes(), ledger.sealed_bytes()), (1100, 4096 + 1244));
    }

    #[test]
    fn a_compacted_segment_takes_over_what_counts_at_that_moment() {
        let mut ledger = Ledger::default();
        for number in 1..=4 {
            ledger.appended(number, number * 10, 1072, puts(10));
        }
        (20..25).for_each(|version| ledger.died(version, 100));
        // Copied 15 of segments 2 and 3; one more died before the new segment was in its place.
        ledger.died(35, 100);
        ledger.replaced(2, 3, 5700, puts(15));
        let compacted = ledger.segments()[1];
        assert_eq!((compacted.first, compacted.number, compacted.versions_from), (2, 3, 20));
        assert_eq!((compacted.live, compacted.live_bytes, compacted.bytes), (14, 1400, 5700));
        assert!(!compacted.is_clean() && ledger.segments()[0].is_clean());
        ledger.died(39, 100);
        assert_eq!(ledger.segments()[1].live, 13);
        // Compacted again, together with what lies before it.
        ledger.replaced(1, 3, 6000, puts(23));
        assert_eq!((ledger.segments().len(), ledger.segments()[0].live, ledger.segments()[0].first), (2, 23, 1));
    }

    #[test]
    fn what_a_compacted_segment_says_of_others_is_no_garbage() {
        let tally = puts(2);
        let usage = Usage { bytes: 4096 + 1000, tally, live: 1, live_bytes: 100, ..Usage::default() };
        assert_eq!(usage.garbage(false), 900, "headers of batches go as well");
        assert_eq!(Usage { generation: 1, ..usage }.garbage(false), 100);
        assert_eq!(Usage { generation: 1, live_bytes: 200, ..usage }.garbage(false), 0);
    }

    #[test]
    fn one_segment_is_spoiled_and_no_other() {
        let usage = |number| Usage { first: number, number, versions_from: number, bytes: 5000, ..Usage::default() };
        let mut ledger = Ledger::new(vec![usage(1), usage(3), usage(4)]);
        ledger.spoiled(3);
        ledger.spoiled(2);
        let spoiled: Vec<_> = ledger.segments().iter().map(|usage| usage.spoiled).collect();
        assert_eq!(spoiled, [false, true, false]);
    }
}
