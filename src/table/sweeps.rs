//! The flushes that are being swept: in effect, while what they cover is still on its way out.
//!
//! Knows prefixes, versions and numbers; holds no entries. A flush hides every entry below its version that it covers
//! from the moment it begins, so removing them is no hurry. Each hidden entry is counted, whichever way it leaves, for
//! the oldest flush that covers it, since by the next one it was gone already.

use super::entry::Entry;
use super::prefixes::Prefixes;
use crate::mutation::Space;
use std::collections::VecDeque;

/// A flush that was swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Its version.
    pub version: u64,
    /// How many entries it removed.
    pub removed: u64,
}

/// The flushes that are being swept.
#[derive(Default)]
pub struct Sweeps {
    /// In order of version.
    running: VecDeque<Running>,
    /// The versions of those of everything, rising.
    everything: VecDeque<u64>,
    /// The versions of those of each prefix, rising.
    by_prefix: Prefixes<VecDeque<u64>>,
}

struct Running {
    version: u64,
    prefix: Option<Box<[u8]>>,
    removed: u64,
    /// The number of shards, counted by the sweep since the table was made, after which it is through.
    ends: u64,
}

impl Sweeps {
    /// Adds a flush, newer than all others, that is through when the sweep has passed so many shards.
    pub fn begin(&mut self, prefix: Option<&[u8]>, version: u64, ends: u64) {
        debug_assert!(self.running.back().is_none_or(|last| last.version < version && last.ends <= ends));
        let prefix: Option<Box<[u8]>> = prefix.map(Into::into);
        if let Some(prefix) = &prefix {
            self.by_prefix.entry(prefix).push_back(version);
        } else {
            self.everything.push_back(version);
        }
        self.running.push_back(Running { version, prefix, removed: 0, ends });
    }

    /// The oldest one, if it is through now that so many shards were passed. It hides nothing any more.
    pub fn end(&mut self, passed: u64) -> Option<Swept> {
        if self.running.front()?.ends > passed {
            return None;
        }
        let Running { version, prefix, removed, .. } = self.running.pop_front()?;
        if let Some(prefix) = prefix {
            let versions = self.by_prefix.entry(&prefix);
            versions.pop_front();
            if versions.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        } else {
            self.everything.pop_front();
        }
        Some(Swept { version, removed })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The version of the oldest one.
    pub fn oldest(&self) -> Option<u64> {
        self.running.front().map(|first| first.version)
    }

    /// Whether one of them is of a prefix.
    pub fn any_of_a_prefix(&self) -> bool {
        !self.by_prefix.is_empty()
    }

    /// Whether one of them hides the entry.
    pub fn hide(&self, entry: &Entry) -> bool {
        self.covering(entry).is_some()
    }

    /// Whether one of everything hides the entry.
    pub fn wiped(&self, entry: &Entry) -> bool {
        self.everything.back().is_some_and(|&newest| entry.version() < newest)
    }

    /// Counts an entry that leaves for the oldest one that hides it; whether there is one.
    pub fn count(&mut self, entry: &Entry) -> bool {
        let Some(version) = self.covering(entry) else { return false };
        if let Ok(index) = self.running.binary_search_by_key(&version, |flush| flush.version) {
            self.running[index].removed += 1;
        }
        true
    }

    /// The version of the oldest one that hides the entry.
    fn covering(&self, entry: &Entry) -> Option<u64> {
        let version = entry.version();
        if self.running.back()?.version <= version {
            return None;
        }
        let oldest_above =
            |versions: &VecDeque<u64>| versions.get(versions.partition_point(|&flush| flush <= version)).copied();
        let of_everything = oldest_above(&self.everything);
        let key = entry.key();
        if key.space != Space::Bytes {
            return of_everything;
        }
        self.by_prefix.of(key.bytes).filter_map(oldest_above).chain(of_everything).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};

    fn entry(version: u64, key: Key<'_>) -> Entry {
        Entry::new(version, key, &Value { bytes: b"", flags: 0, deadline: 0 })
    }

    #[test]
    fn the_oldest_that_covers_counts() {
        let mut sweeps = Sweeps::default();
        let python = Key { space: Space::Python, bytes: b"ab" };
        sweeps.begin(Some(b"ab"), 10, 1);
        sweeps.begin(Some(b"a"), 20, 1);
        sweeps.begin(Some(b"ab"), 30, 1);
        assert!(!sweeps.hide(&entry(5, python)));
        sweeps.begin(None, 40, 2);
        for (version, key, expected) in [
            (5, Key::bytes(b"abc"), Some(10)),
            (15, Key::bytes(b"abc"), Some(20)),
            (25, Key::bytes(b"abc"), Some(30)),
            (35, Key::bytes(b"abc"), Some(40)),
            (45, Key::bytes(b"abc"), None),
            (5, Key::bytes(b"ac"), Some(20)),
            (5, Key::bytes(b"b"), Some(40)),
            (5, python, Some(40)),
        ] {
            assert_eq!(sweeps.covering(&entry(version, key)), expected, "{version} {key:?}");
            assert_eq!(sweeps.count(&entry(version, key)), expected.is_some());
        }
        assert!(sweeps.wiped(&entry(39, python)) && !sweeps.wiped(&entry(41, python)));
        assert_eq!(sweeps.end(0), None);
        let ended: Vec<_> = std::iter::from_fn(|| sweeps.end(1)).map(|swept| (swept.version, swept.removed)).collect();
        assert_eq!(ended, [(10, 1), (20, 2), (30, 1)]);
        assert!(!sweeps.any_of_a_prefix() && !sweeps.is_empty());
        assert_eq!(sweeps.end(2), Some(Swept { version: 40, removed: 3 }));
        assert!(sweeps.is_empty() && sweeps.by_prefix.is_empty() && sweeps.everything.is_empty());
    }
}
