//! SCAN: pages of keys in order of hash, from the table and the pending mutations together.
//!
//! A cursor hides the position at which the next page begins. Keys never change their position, so whoever is present
//! throughout is met, whatever comes and goes between pages, and an arbitrary cursor merely begins elsewhere.

use super::{Call, Engine, View};
use crate::command::Reply;
use crate::mutation::Space;
use crate::table::{Entry, Probe, Stretch, of_slot};

/// Entries looked at together, at least: below this, passing over a shard costs more than sorting its entries.
const STRETCH: usize = 256;

/// Entries looked at for one page, about. A prefix that few keys have gives short pages, even empty ones, rather
/// than a long pause for everybody else.
const EFFORT: usize = 10_000;

/// Entries that all pages of a turn may pass over together, about. When that is spent, the pages that are still asked for
/// end after a stretch.
pub(super) const TURN: usize = 2 * EFFORT;

impl Engine {
    pub(super) fn scan(&mut self, call: &mut Call<'_>, cursor: u64, prefix: &[u8], count: usize) -> Reply<'_> {
        // A page of no keys would never come to an end.
        let count = count.max(1);
        let now = call.now;
        let matches = |entry: &Entry| {
            let key = entry.key();
            key.space == Space::Bytes && key.bytes.starts_with(prefix) && !entry.is_expired(now)
        };
        if call.view == View::Pending {
            self.overlay.put_in_order();
            call.rests_on(self.overlay.newest_batch());
        }
        let begins = self.table.position_of_cursor(cursor);
        let mut page = Page { keys: Vec::new(), count, room: self.limits.max_message() };
        let mut from = begins;
        let mut effort = EFFORT.max(count).min(self.to_pass_over.get());
        loop {
            let mut stretch = self.stretch(call.view, from, count.min(effort).max(STRETCH));
            effort = effort.saturating_sub(stretch.looked_at);
            self.to_pass_over.set(self.to_pass_over.get().saturating_sub(stretch.looked_at));
            stretch.entries.retain(|(_, entry)| matches(entry));
            self.tell_apart(&mut stretch.entries, begins);
            for together in stretch.entries.chunk_by(|(left, _), (right, _)| left == right) {
                match together.first() {
                    Some(&(position, _)) if position < begins => {}
                    Some(&(position, _)) if !page.takes(together) => return page.until(self.table.cursor(position)),
                    _ => {}
                }
            }
            from = stretch.next;
            if from == 0 || effort == 0 || page.is_full() {
                return page.until(self.table.cursor(from));
            }
        }
    }

    /// A stretch of what a view shows: see [`crate::table::Table::stretch`]. What is pending of a key stands in the place
    /// of what the table has.
    fn stretch(&self, view: View, from: u64, aim: usize) -> Stretch<'_> {
        let mut stretch = self.table.stretch(from, aim);
        if view == View::Pending {
            let fresh = self.overlay.stretch(of_slot(from), aim);
            stretch.looked_at += fresh.looked_at;
            // Of both, everything is known up to where the shorter one ends.
            stretch.next = match (stretch.next, fresh.next) {
                (0, next) | (next, 0) => next,
                (of_table, pending) => of_table.min(pending),
            };
            let next = stretch.next;
            let is_within = |hash: u64| next == 0 || hash < next;
            stretch.entries.retain(|&(hash, entry)| {
                is_within(hash) && self.overlay.look(Probe { hash, key: entry.key() }).is_none()
            });
            let fresh = fresh.entries.into_iter().filter(|&(hash, entry)| is_within(hash) && self.overlay.stays(entry));
            stretch.entries.extend(fresh);
            // Two runs that are in order: this merges them.
            stretch.entries.sort_by_key(|&(hash, _)| hash);
        }
        stretch
    }

    /// Puts positions in the place of hashes where those of keys are alike, and where a page begins within them. Else a hash
    /// does: no other key lies between it and the position.
    fn tell_apart(&self, entries: &mut [(u64, &Entry)], begins: u64) {
        for alike in entries.chunk_by_mut(|(left, _), (right, _)| left == right) {
            let begins_within = alike.first().is_some_and(|&(hash, _)| hash < begins);
            if alike.len() > 1 || begins_within {
                for (hash, entry) in alike.iter_mut() {
                    *hash = self.table.position(Probe { hash: *hash, key: entry.key() });
                }
                alike.sort_unstable_by_key(|&(position, _)| position);
            }
        }
    }
}

/// The keys of one page so far.
struct Page<'e> {
    keys: Vec<&'e [u8]>,
    /// How many it may hold.
    count: usize,
    /// How many bytes of keys there is room for: a page is one message.
    room: usize,
}

impl<'e> Page<'e> {
    /// Adds the keys of one position, if there is room for them, or if they are the first: a cursor can't point between
    /// them. More than one key has it only where 53 bits of their hashes are the same.
    fn takes(&mut self, together: &[(u64, &'e Entry)]) -> bool {
        let bytes: usize = together.iter().map(|(_, entry)| entry.key().bytes.len()).sum();
        let fits = self.keys.len() + together.len() <= self.count && bytes <= self.room;
        if !fits && !self.keys.is_empty() {
            return false;
        }
        self.keys.extend(together.iter().map(|(_, entry)| entry.key().bytes));
        self.room = self.room.saturating_sub(bytes);
        true
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= self.count || self.room == 0
    }

    fn until(self, cursor: u64) -> Reply<'e> {
        Reply::Page { cursor, keys: self.keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Limits, SetOptions};
    use crate::mutation::Key;
    use crate::table::Table;
    use std::collections::BTreeSet;

    /// The bits of a hash that slots don't hold.
    const IN_NO_SLOT: u64 = (1 << 22) - 1;

    /// An engine whose keys have these bits of their hashes only, of which every third is durable and of another third an
    /// older value is.
    fn colliding(mask: u64, keys: &[Vec<u8>]) -> Engine {
        let mut table = Table::new(5);
        table.collide(mask);
        let mut engine = Engine::new(table, 1, Limits::default());
        for pending in [false, true] {
            for (number, key) in keys.iter().enumerate() {
                if number % 3 == usize::from(pending) || number % 3 == 2 {
                    let (key, options) = (Key::bytes(key), SetOptions::default());
                    let set = Command::Set { key, value: b"v"[..].into(), options };
                    engine.evaluate(&set, 0, View::Pending, &mut |_, _| ());
                }
            }
            if !pending {
                let batch = engine.close_batch();
                engine.commit(batch, &mut |_, _| ());
            }
        }
        engine
    }

    /// The keys of every page, with `between` called after each.
    fn pages(engine: &mut Engine, count: usize, mut between: impl FnMut(&mut Engine)) -> Vec<Vec<Vec<u8>>> {
        let (mut pages, mut cursor) = (Vec::new(), 0);
        loop {
            let scan = Command::Scan { cursor, prefix: b"", count };
            let reply = engine.evaluate(&scan, 0, View::Pending, &mut |_, _| ()).reply;
            let Reply::Page { cursor: next, keys } = reply else { panic!("{reply:?}") };
            assert!(next < 1 << 53);
            pages.push(keys.iter().map(|key| key.to_vec()).collect());
            if next == 0 {
                return pages;
            }
            cursor = next;
            between(engine);
        }
    }

    fn numbered(keys: u32) -> Vec<Vec<u8>> {
        (0..keys).map(|number| number.to_be_bytes().to_vec()).collect()
    }

    #[test]
    fn a_page_stays_within_its_bound_although_all_keys_have_one_hash() {
        let keys = numbered(1_000);
        // Nothing is left but what slots don't hold, or three bits of that besides.
        for mask in [IN_NO_SLOT, 8 * IN_NO_SLOT + 7] {
            let mut engine = colliding(mask, &keys);
            for count in [10, 100, 10_000] {
                let pages = pages(&mut engine, count, |_| ());
                assert!(pages.iter().all(|page| page.len() <= count), "{count}");
                let met: Vec<_> = pages.concat();
                assert_eq!(met.len(), keys.len(), "none twice");
                assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), keys.iter().cloned().collect());
            }
        }
    }

    #[test]
    fn whoever_is_present_throughout_is_met_among_keys_of_one_hash() {
        let keys = numbered(400);
        let mut engine = colliding(IN_NO_SLOT, &keys);
        let mut turn = 1_000_u32;
        let pages = pages(&mut engine, 7, |engine| {
            for key in (turn..turn + 10).map(u32::to_be_bytes) {
                let set =
                    Command::Set { key: Key::bytes(&key), value: b"v"[..].into(), options: SetOptions::default() };
                engine.evaluate(&set, 0, View::Pending, &mut |_, _| ());
            }
            let gone: Vec<[u8; 4]> = (turn - 5..turn + 5).map(u32::to_be_bytes).collect();
            let delete = Command::Delete { keys: gone.iter().map(|key| Key::bytes(key)).collect() };
            engine.evaluate(&delete, 0, View::Pending, &mut |_, _| ());
            if turn.is_multiple_of(3) {
                let batch = engine.close_batch();
                engine.commit(batch, &mut |_, _| ());
            }
            turn += 10;
        });
        let met: BTreeSet<_> = pages.concat().into_iter().collect();
        assert!(keys.iter().all(|key| met.contains(key)));
    }

    #[test]
    fn keys_that_nothing_tells_apart_come_together() {
        let keys = numbered(30);
        let met = pages(&mut colliding(0, &keys), 10, |_| ());
        assert_eq!((met.len(), met[0].len()), (1, 30));
    }

    #[test]
    fn a_page_passes_over_a_bounded_part_of_what_is_pending() {
        let mut engine = colliding(u64::MAX, &numbered(60_000));
        engine.overlay.index(&engine.table);
        engine.overlay.put_in_order();
        assert_eq!(engine.stretch(View::Pending, 0, 100).looked_at, 200, "100 of the table, 100 that are pending");
        engine.begin_turn();
        let nothing = Command::Scan { cursor: 0, prefix: b"nothing", count: 10 };
        assert!(matches!(
            engine.evaluate(&nothing, 0, View::Pending, &mut |_, _| ()).reply,
            Reply::Page { cursor: 1.., .. }
        ));
        assert!((9_000..11_000).contains(&(TURN - engine.to_pass_over.get())), "{:?}", engine.to_pass_over);
    }
}
