//! Which records of a log count: of each key the newest one, unless it removes, was flushed or has expired.
//!
//! Knows keys, versions and which segment they stand in, and holds no value, so that a log can be gone through that is
//! larger than memory. Segments may be met in any order.

use crate::mutation::{Key, Mutation, Space};
use crate::table::Flushes;
use std::collections::HashMap;

/// What was met so far.
///
/// ```
/// use kvd::mutation::{Key, Mutation, Value};
/// use kvd::tools::survivors::Survivors;
/// let value = Value { bytes: b"v", flags: 0, deadline: 0 };
/// let put = Mutation::Put { key: Key::bytes(b"k"), value };
/// let mut survivors = Survivors::default();
/// survivors.meet(1, &put, 0);
/// survivors.meet(2, &put, 1);
/// assert_eq!(survivors.of_segments(2, 0), [0, 1]);
/// assert!(!survivors.take(1, &put, 0) && survivors.take(2, &put, 0));
/// assert!(!survivors.take(2, &put, 0), "it was taken before");
/// survivors.meet(3, &Mutation::Flush { prefix: None }, 1);
/// assert_eq!(survivors.of_segments(2, 0), [0, 0]);
/// ```
#[derive(Debug, Default)]
pub struct Survivors {
    /// The newest record of each key, by space.
    newest: [Newest; 2],
    flushes: Flushes,
}

type Newest = HashMap<Box<[u8]>, Met>;

/// The newest record of a key.
#[derive(Clone, Copy, Debug)]
struct Met {
    version: u64,
    segment: u32,
    is_removal: bool,
    is_taken: bool,
    deadline: u64,
}

impl Survivors {
    /// Takes note of a record, which stands in the segment that its reader calls so.
    pub fn meet(&mut self, version: u64, mutation: &Mutation<'_>, segment: usize) {
        let (key, is_removal, deadline) = match mutation {
            Mutation::Put { key, value } => (key, false, value.deadline),
            Mutation::Remove { key } | Mutation::Evict { key } => (key, true, 0),
            Mutation::Flush { prefix } => return self.flushes.add(*prefix, version),
        };
        let met = Met { version, segment: segment as u32, is_removal, is_taken: false, deadline };
        let newest = &mut self.newest[key.space as usize];
        match newest.get_mut(key.bytes) {
            // The same record may be met again, where a compaction has moved it.
            Some(held) if held.version == version => held.segment = met.segment,
            Some(held) if held.version < version => *held = met,
            Some(_) => {}
            None => _ = newest.insert(key.bytes.into(), met),
        }
    }

    /// Whether a record, now that all were met, is what a start at `now`, a Unix time in milliseconds, would keep. Says so
    /// once.
    pub fn take(&mut self, version: u64, mutation: &Mutation<'_>, now: u64) -> bool {
        let Mutation::Put { key, .. } = mutation else { return false };
        let Some(held) = self.newest[key.space as usize].get_mut(key.bytes) else { return false };
        let takes = held.version == version && !held.is_taken && is_kept(&self.flushes, *key, held, now);
        held.is_taken |= takes;
        takes
    }

    /// Every key whose newest record a start at `now` would keep, with that record's version.
    pub fn kept(&self, now: u64) -> impl Iterator<Item = (Key<'_>, u64)> {
        let spaces = [Space::Bytes, Space::Python].into_iter().zip(&self.newest);
        spaces.flat_map(move |(space, newest)| {
            let keys = newest.iter().map(move |(bytes, met)| (Key { space, bytes }, met));
            keys.filter(move |(key, met)| is_kept(&self.flushes, *key, met, now)).map(|(key, met)| (key, met.version))
        })
    }

    /// How many records of each of so many segments a start at `now` would keep.
    pub fn of_segments(&self, segments: usize, now: u64) -> Vec<u64> {
        let mut counts = vec![0; segments];
        for (space, newest) in [Space::Bytes, Space::Python].into_iter().zip(&self.newest) {
            for (bytes, met) in newest {
                if is_kept(&self.flushes, Key { space, bytes }, met, now)
                    && let Some(count) = counts.get_mut(met.segment as usize)
                {
                    *count += 1;
                }
            }
        }
        counts
    }
}

fn is_kept(flushes: &Flushes, key: Key<'_>, met: &Met, now: u64) -> bool {
    let is_expired = met.deadline != 0 && met.deadline <= now;
    !met.is_removal && !is_expired && flushes.newest_over(key) < met.version
}

const _: () = assert!(Space::Bytes as usize == 0 && Space::Python as usize == 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::Value;

    fn put(space: Space, bytes: &[u8], deadline: u64) -> Mutation<'_> {
        Mutation::Put { key: Key { space, bytes }, value: Value { bytes: b"v", flags: 0, deadline } }
    }

    #[test]
    fn the_newest_word_on_a_key_counts_in_whatever_order_it_is_met() {
        let (a, other_space) = (put(Space::Bytes, b"a", 0), put(Space::Python, b"a", 0));
        let mut survivors = Survivors::default();
        survivors.meet(3, &Mutation::Remove { key: Key::bytes(b"a") }, 0);
        survivors.meet(2, &a, 0);
        survivors.meet(1, &other_space, 1);
        assert_eq!(survivors.of_segments(2, 0), [0, 1]);
        survivors.meet(4, &a, 1);
        assert_eq!(survivors.of_segments(2, 0), [0, 2]);
        assert!(!survivors.take(2, &a, 0) && survivors.take(1, &other_space, 0) && survivors.take(4, &a, 0));
    }

    #[test]
    fn a_flush_covers_what_is_older_and_has_its_prefix() {
        let (a, b) = (put(Space::Bytes, b"a1", 0), put(Space::Bytes, b"b1", 0));
        let mut survivors = Survivors::default();
        survivors.meet(5, &Mutation::Flush { prefix: Some(b"a") }, 0);
        survivors.meet(4, &a, 0);
        survivors.meet(3, &b, 0);
        assert!(!survivors.take(4, &a, 0) && survivors.take(3, &b, 0));
        survivors.meet(6, &a, 0);
        assert!(survivors.take(6, &a, 0));
    }

    #[test]
    fn what_has_expired_is_gone() {
        let put = put(Space::Bytes, b"k", 1000);
        let mut survivors = Survivors::default();
        survivors.meet(1, &put, 0);
        assert_eq!((survivors.of_segments(1, 999), survivors.of_segments(1, 1000)), (vec![1], vec![0]));
    }

    #[test]
    fn a_newer_record_is_taken_although_an_older_one_was() {
        let put = put(Space::Bytes, b"k", 0);
        let mut survivors = Survivors::default();
        survivors.meet(1, &put, 0);
        assert!(survivors.take(1, &put, 0));
        survivors.meet(1, &put, 2);
        assert!(!survivors.take(1, &put, 0), "moved by a compaction");
        survivors.meet(2, &put, 3);
        assert!(survivors.take(2, &put, 0));
    }
}
