//! A set of flushes, and the one question asked of it: which flush hides this key?
//!
//! Knows prefixes and versions, not entries. A flush does not remove anything when it is met: it applies to every
//! matching entry below its version, also to those met later. Replay and the pending mutations both keep such
//! a set.

use super::prefixes::Prefixes;
use crate::mutation::{Key, Space};

/// The flushes of a log, or those that are pending.
#[derive(Debug, Default)]
pub struct Flushes {
    /// The newest flush of everything; 0 if there is none.
    everything: u64,
    /// The newest flush of each prefix.
    by_prefix: Prefixes<u64>,
}

impl Flushes {
    /// Adds a flush of this version.
    pub fn add(&mut self, prefix: Option<&[u8]>, version: u64) {
        let Some(prefix) = prefix else {
            self.everything = self.everything.max(version);
            return;
        };
        let newest = self.by_prefix.entry(prefix);
        *newest = version.max(*newest);
    }

    /// The version of the newest flush that covers the key: entries below it are gone. 0 if none does. The key is read
    /// once, however many flushes there are.
    pub fn newest_over(&self, key: Key<'_>) -> u64 {
        if key.space != Space::Bytes {
            return self.everything;
        }
        self.by_prefix.of(key.bytes).copied().fold(self.everything, u64::max)
    }

    /// The version of the newest flush of everything; 0 if there is none.
    pub fn newest_of_everything(&self) -> u64 {
        self.everything
    }

    /// Whether one of them is of a prefix.
    pub fn any_of_a_prefix(&self) -> bool {
        !self.by_prefix.is_empty()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.everything == 0 && self.by_prefix.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        *self = Flushes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: Key<'_> = Key { space: Space::Python, bytes: b"ab" };

    #[test]
    fn the_newest_that_covers() {
        let mut flushes = Flushes::default();
        assert!(flushes.is_empty());
        flushes.add(Some(b"ab"), 5);
        flushes.add(Some(b"a"), 7);
        flushes.add(Some(b"ab"), 3);
        assert_eq!(flushes.newest_over(Key::bytes(b"abc")), 7);
        assert_eq!(flushes.newest_over(Key::bytes(b"b")), 0);
        assert_eq!(flushes.newest_over(PYTHON), 0);
        flushes.add(Some(b""), 8);
        assert_eq!(flushes.newest_over(Key::bytes(b"b")), 8);
        assert_eq!(flushes.newest_over(PYTHON), 0);
        flushes.add(None, 6);
        assert_eq!(flushes.newest_over(PYTHON), 6);
        flushes.clear();
        assert!(flushes.is_empty());
    }
}
