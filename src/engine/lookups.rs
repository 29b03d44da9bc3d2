//! How often a key that was asked for was there.

use std::cell::Cell;

/// Counts of the keys that GET, MGET, MGETS, GETDEL and GETEX asked for, since the start. Those that other verbs look at
/// are not counted: nobody fills a cache because an EXISTS found nothing.
#[derive(Debug, Default)]
pub struct Lookups {
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl Lookups {
    /// A key was asked for, and was there or not.
    pub(super) fn count(&self, is_hit: bool) {
        let count = if is_hit { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
    }

    /// Keys that were there.
    pub fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// Keys that were not, or had expired.
    pub fn misses(&self) -> u64 {
        self.misses.get()
    }
}
