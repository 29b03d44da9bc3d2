//! Flushing without a pause: what a flush covers is hidden at once, and removed a bounded number of slots at a time.
//!
//! One sweep goes round the shards for all flushes together, for as long as there are any. A flush is through when the
//! sweep has passed every shard since it began.

use super::Table;
use super::departure::{Departed, Departure};
use super::shard::Place;
use super::slot::SHARDS;
use super::sweeps::Swept;

/// Where the sweep is.
#[derive(Default)]
pub struct Sweep {
    /// How many shards it has passed, ever. The next one follows from it.
    passed: u64,
    /// How far it has come in that.
    place: Place,
    /// Whether it has begun with that.
    within: bool,
}

impl Table {
    /// Puts a flush of this version, newer than everything stored, into effect: what it covers is hidden from now on.
    /// [`Table::sweep`] removes it.
    pub fn begin_flush(&mut self, prefix: Option<&[u8]>, version: u64) {
        if prefix.is_none() {
            self.presence.len = 0;
        }
        // What is left of a shard that the sweep is in is not all of it.
        let ends = self.sweep.passed + SHARDS as u64 + u64::from(self.sweep.within);
        self.presence.sweeps.begin(prefix, version, ends);
    }

    /// The version of the oldest flush that is not swept yet.
    pub fn sweeping(&self) -> Option<u64> {
        self.presence.sweeps.oldest()
    }

    /// Whether a flush of a prefix is not swept yet, so that [`Table::len`] may be too high.
    pub fn sweeping_a_prefix(&self) -> bool {
        self.presence.sweeps.any_of_a_prefix()
    }

    /// Removes what the flushes hide, until it has spent an effort (of one for each slot that it looks at, and more for
    /// a large entry that it removes) or comes to the end of a flush, which it returns.
    pub fn sweep(&mut self, mut effort: usize, departed: &mut Departed<'_>) -> Option<Swept> {
        loop {
            if let Some(swept) = self.presence.sweeps.end(self.sweep.passed) {
                return Some(swept);
            }
            if self.presence.sweeps.is_empty() {
                return None;
            }
            let Sweep { passed, mut place, .. } = self.sweep;
            let through = self.change((passed % SHARDS as u64) as usize, |shard, presence| {
                let through = shard.weed(&mut place, &mut effort, |entry| {
                    let hidden = presence.sweeps.hide(entry);
                    if hidden {
                        presence.depart(entry, Departure::Flushed, departed);
                    }
                    hidden
                });
                if through {
                    shard.shrink();
                }
                through
            });
            self.sweep = Sweep { passed: passed + u64::from(through), place, within: !through };
            if !through {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};
    use crate::table::Entry;

    fn put(table: &mut Table, version: u64, key: &[u8], departed: &mut Departed<'_>) {
        let probe = table.probe(Key::bytes(key));
        table.put(probe.hash, Entry::new(version, probe.key, &Value { bytes: b"v", flags: 0, deadline: 0 }), departed);
    }

    fn filled(prefixes: &[&str], each: u64) -> (Table, u64) {
        let (mut table, mut version) = (Table::new(1), 0);
        for prefix in prefixes {
            for number in 0..each {
                version += 1;
                put(&mut table, version, format!("{prefix}{number}").as_bytes(), &mut |_, _| panic!("all are new"));
            }
        }
        (table, version)
    }

    fn sweep_all(table: &mut Table) -> Vec<(u64, u64)> {
        let mut ended = Vec::new();
        while table.sweeping().is_some() {
            let swept = table.sweep(100, &mut |_, departure| assert_eq!(departure, Departure::Flushed));
            ended.extend(swept.map(|swept| (swept.version, swept.removed)));
        }
        ended
    }

    #[test]
    fn what_is_flushed_is_hidden_at_once() {
        let (mut table, version) = filled(&["a", "b"], 3_000);
        table.begin_flush(Some(b"a"), version + 1);
        assert!(
            table.get(table.probe(Key::bytes(b"a7"))).is_none() && table.get(table.probe(Key::bytes(b"b7"))).is_some()
        );
        assert_eq!(table.iter().count(), 3_000);
        assert_eq!(table.len(), 6_000, "not known yet");
        table.begin_flush(None, version + 2);
        assert_eq!((table.iter().count(), table.len()), (0, 0));
        assert_eq!(sweep_all(&mut table), [(version + 1, 3_000), (version + 2, 3_000)]);
        assert_eq!((table.len(), table.memory()), (0, Table::new(1).memory()));
    }

    #[test]
    fn a_flush_counts_what_it_hides_however_it_leaves() {
        let (mut table, version) = filled(&["a", "b"], 1_000);
        table.begin_flush(Some(b"a"), version + 1);
        let mut flushed = 0;
        let mut departed = |_: &Entry, departure| flushed += u32::from(departure == Departure::Flushed);
        put(&mut table, version + 2, b"a1", &mut departed);
        table.remove(table.probe(Key::bytes(b"a2")), &mut departed);
        table.remove(table.probe(Key::bytes(b"b2")), &mut departed);
        put(&mut table, version + 3, b"b1", &mut departed);
        assert_eq!(flushed, 2);
        assert_eq!(sweep_all(&mut table), [(version + 1, 1_000)]);
        assert_eq!((table.len(), table.iter().count()), (1_000, 1_000));
        table.begin_flush(None, version + 4);
        put(&mut table, version + 5, b"a1", &mut |_, departure| assert_eq!(departure, Departure::Flushed));
        assert_eq!(table.len(), 1);
        assert_eq!(sweep_all(&mut table), [(version + 4, 1_000)]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_flush_that_comes_amid_a_sweep_is_swept_whole() {
        let (mut table, version) = filled(&["a", "b"], 20_000);
        table.begin_flush(Some(b"a"), version + 1);
        for _ in 0..100 {
            assert_eq!(table.sweep(17, &mut |_, _| ()), None);
        }
        table.begin_flush(Some(b"b"), version + 2);
        assert_eq!(sweep_all(&mut table), [(version + 1, 20_000), (version + 2, 20_000)]);
        assert!(table.is_empty());
        table.begin_flush(None, version + 3);
        assert_eq!(sweep_all(&mut table), [(version + 3, 0)]);
    }
}
