//! SCAN: pages of keys in order of hash, from the table and the pending mutations together.
//!
//! A cursor is the hash at which the next page begins. Keys never change their hash, so whoever is present
//! throughout is met, whatever comes and goes between pages, and an arbitrary cursor merely begins elsewhere.

use super::{Call, Engine, View};
use crate::command::Reply;
use crate::mutation::Space;
use crate::table::{Entry, Probe};

/// Entries looked at together, at least: below this, passing over a shard costs more than sorting its entries.
const STRETCH: usize = 256;

/// Entries looked at for one page, about. A prefix that few keys have gives short pages, even empty ones, rather
/// than a long pause for everybody else.
const EFFORT: usize = 10_000;

/// Entries that all pages of a turn may pass over together, about. When that is spent, the pages that are still asked for
/// end after a stretch.
pub(super) const TURN: usize = 2 * EFFORT;

impl Engine {
    pub(super) fn scan(&self, call: &mut Call<'_>, cursor: u64, prefix: &[u8], count: usize) -> Reply<'_> {
        // A page of no keys would never come to an end.
        let count = count.max(1);
        let now = call.now;
        let matches = |entry: &Entry| {
            let key = entry.key();
            key.space == Space::Bytes && key.bytes.starts_with(prefix) && !entry.is_expired(now)
        };
        let pending = call.view == View::Pending;
        let mut fresh = Vec::new();
        if pending {
            call.rests_on(self.overlay.newest_batch());
            fresh.extend(self.overlay.present().filter(|&(hash, entry)| hash >= cursor && matches(entry)));
            fresh.sort_unstable_by_key(|&(hash, _)| hash);
        }
        let mut fresh = fresh.into_iter().peekable();

        let mut page = Page { keys: Vec::new(), count, room: self.limits.max_message(), last: 0 };
        let mut from = cursor;
        let mut effort = EFFORT.max(count).min(self.to_pass_over.get());
        loop {
            let stretch = self.table.stretch(from, count.min(effort).max(STRETCH));
            effort = effort.saturating_sub(stretch.looked_at);
            self.to_pass_over.set(self.to_pass_over.get().saturating_sub(stretch.looked_at));
            for (hash, entry) in stretch.entries {
                // What is pending of a key stands in `fresh`, if it is present at all.
                let hidden = pending && self.overlay.look(Probe { hash, key: entry.key() }).is_some();
                if hidden || !matches(entry) {
                    continue;
                }
                while let Some((hash, entry)) = fresh.next_if(|&(fresh, _)| fresh <= hash) {
                    if !page.takes(hash, entry) {
                        return page.until(hash);
                    }
                }
                if !page.takes(hash, entry) {
                    return page.until(hash);
                }
            }
            from = stretch.next;
            while let Some((hash, entry)) = fresh.next_if(|&(hash, _)| from == 0 || hash < from) {
                if !page.takes(hash, entry) {
                    return page.until(hash);
                }
            }
            if from == 0 || effort == 0 || page.is_full() {
                return page.until(from);
            }
        }
    }
}

/// The keys of one page so far.
struct Page<'e> {
    keys: Vec<&'e [u8]>,
    /// How many it aims at.
    count: usize,
    /// How many bytes of keys there is room for: a page is one message.
    room: usize,
    /// The hash of the last one.
    last: u64,
}

impl<'e> Page<'e> {
    /// Adds a key, unless the page is full: keys of one hash stay together, since a cursor can't point between them.
    fn takes(&mut self, hash: u64, entry: &'e Entry) -> bool {
        let key = entry.key().bytes;
        if (self.is_full() || key.len() > self.room) && self.last != hash {
            return false;
        }
        self.keys.push(key);
        self.room = self.room.saturating_sub(key.len());
        self.last = hash;
        true
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= self.count || self.room == 0
    }

    fn until(self, cursor: u64) -> Reply<'e> {
        Reply::Page { cursor, keys: self.keys }
    }
}
