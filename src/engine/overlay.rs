//! The pending mutations: evaluated, on their way to the disk, not yet in the table.
//!
//! Knows mutations in the order they were made and the batch each belongs to; knows nothing of commands, nor of
//! how a batch becomes durable. It exists so that commands are evaluated once, at once, while the table shows
//! nothing that a crash could take back.
//!
//! ```text
//! changes   [ put a | put b | remove a | FLUSH x | put a ]      oldest to newest, in order of version
//! batch        1       1       2          2         3
//! newest    a -> 4, b -> 1                                      what a pending read sees
//! ```
//!
//! A commit takes changes from the front and moves them into the table, so that the table is at every moment
//! the state as of one batch. Changes of one key that a newer one hides stay in line until then.
//!
//! Most writes look nothing up, and where nobody does, nothing is said about the newest: whoever wants to look calls
//! [`Overlay::index`] first.

use super::BatchId;
use crate::table::{Departed, Entry, Flushes, Probe, Stretch, Table, behind};
use hashbrown::HashTable;
use std::collections::{BTreeSet, VecDeque};

/// Changes whose place in the table is fetched before the first of them is made: as many as a processor keeps waiting for
/// memory at a time.
const PREFETCHED: usize = 16;

/// What is pending.
#[derive(Default)]
pub struct Overlay {
    /// Oldest first.
    changes: VecDeque<Pending>,
    /// Position of the first of them, counted since the start of the engine: a position stays right when changes
    /// before it are committed.
    first: u64,
    /// For each key with a pending change before [`Overlay::indexed`], the newest.
    newest: HashTable<Newest>,
    /// The same, hashes and positions in order of hash; kept since a SCAN has asked for it.
    ordered: Option<BTreeSet<(u64, u64)>>,
    /// Whether one has, since the last commit.
    is_scanned: bool,
    /// How many entries the table will have once all that is indexed is in it; kept since somebody has asked.
    entries: Option<usize>,
    /// Whether somebody has, since the last commit.
    is_counted: bool,
    /// Position of the first change that is not in the index yet.
    indexed: u64,
    /// The pending flushes: they hide keys of the table and changes older than they are.
    flushes: Flushes,
    /// What the entries take, in bytes.
    memory: usize,
}

struct Pending {
    batch: BatchId,
    change: Change,
}

enum Change {
    /// A value or a tombstone.
    Key { hash: u64, entry: Entry },
    /// The removal of everything older under a prefix.
    Flush { version: u64, prefix: Option<Box<[u8]>> },
}

impl Change {
    fn version(&self) -> u64 {
        match self {
            Change::Key { entry, .. } => entry.version(),
            Change::Flush { version, .. } => *version,
        }
    }
}

/// The position of the newest change of a key that has this hash.
struct Newest {
    hash: u64,
    position: u64,
}

/// What is pending of one key.
#[derive(Debug)]
pub struct Known<'o> {
    /// The batch that it comes with.
    pub batch: BatchId,
    /// The entry; `None` if the key is pending to be removed or flushed.
    pub entry: Option<&'o Entry>,
}

impl Overlay {
    /// The entry that was pushed last.
    pub fn last_entry(&self) -> Option<&Entry> {
        match &self.changes.back()?.change {
            Change::Key { entry, .. } => Some(entry),
            Change::Flush { .. } => None,
        }
    }

    /// Brings the index up to date, above this table. To be called before anything is looked up, after the last change was added,
    /// and before a flush is.
    pub fn index(&mut self, table: &Table) {
        self.indexed = self.indexed.max(self.first);
        while self.indexed < self.end() {
            let position = self.indexed;
            let index = (position - self.first) as usize;
            if let Some(Pending { change: Change::Key { hash, entry }, .. }) = self.changes.get(index) {
                let (hash, probe) = (*hash, Probe { hash: *hash, key: entry.key() });
                // Two steps, since to compare keys is to read the changes that the map points to.
                let held = self.find(probe);
                let counted = self.entries.map(|entries| {
                    let was = match held.and_then(|held| self.at(held)) {
                        Some(held) => self.lasts(held),
                        None => self.flushes.newest_of_everything() == 0 && table.get(probe).is_some(),
                    };
                    entries + usize::from(self.lasts(entry)) - usize::from(was)
                });
                match held.and_then(|held| self.newest.find_mut(spread(hash), |newest| newest.position == held)) {
                    Some(newest) => newest.position = position,
                    None => {
                        self.newest
                            .insert_unique(spread(hash), Newest { hash, position }, |newest| spread(newest.hash));
                    }
                }
                self.entries = counted;
                if let Some(ordered) = &mut self.ordered {
                    if let Some(held) = held {
                        ordered.remove(&(hash, held));
                    }
                    ordered.insert((hash, position));
                }
            }
            self.indexed += 1;
        }
    }

    /// Puts what is indexed in order of hash as well, for [`Overlay::stretch`]. From then on [`Overlay::index`] keeps it so, for
    /// as long as somebody asks between two commits: each change is put in order once, however many SCANs there are.
    pub fn put_in_order(&mut self) {
        self.is_scanned = true;
        if self.ordered.is_none() {
            self.ordered = Some(self.each_newest().map(|newest| (newest.hash, newest.position)).collect());
        }
    }

    /// How many entries the table will have once everything pending is in it, those included that a flush of a prefix hides until
    /// its sweep has removed them. From then on [`Overlay::index`] keeps it up to date, for as long as somebody asks between two
    /// commits: each change is counted once, however often somebody asks.
    pub fn count(&mut self, table: &Table) -> usize {
        self.is_counted = true;
        if let Some(entries) = self.entries {
            return entries;
        }
        let is_wiped = self.flushes.newest_of_everything() != 0;
        let mut entries = if is_wiped { 0 } else { table.len() };
        for (hash, entry) in self.newest() {
            let was = !is_wiped && table.get(Probe { hash, key: entry.key() }).is_some();
            entries = entries + usize::from(self.lasts(entry)) - usize::from(was);
        }
        *self.entries.insert(entries)
    }

    /// The table has changed in another way than by a commit.
    pub fn recount(&mut self) {
        self.entries = None;
    }

    /// The newest change of every key from a hash on, flushed or not, in order of hash, as [`Table::stretch`] has it.
    pub fn stretch(&self, from: u64, aim: usize) -> Stretch<'_> {
        debug_assert!(self.ordered.is_some(), "not put in order");
        let mut stretch = Stretch { entries: Vec::new(), looked_at: 0, next: 0 };
        for &(hash, position) in self.ordered.iter().flat_map(|ordered| ordered.range((from, 0)..)) {
            if stretch.entries.len() >= aim
                && let Some(&(last, _)) = stretch.entries.last()
                && last != hash
            {
                stretch.next = behind(last);
                break;
            }
            stretch.entries.extend(self.at(position).map(|entry| (hash, entry)));
        }
        stretch.looked_at = stretch.entries.len();
        stretch
    }

    /// What is pending of a key; `None` leaves the word to the table.
    pub fn look(&self, probe: Probe<'_>) -> Option<Known<'_>> {
        if self.changes.is_empty() {
            return None;
        }
        let flush = self.flushes.newest_over(probe.key);
        let newest = self.position(probe).and_then(|position| self.pending(position));
        match newest {
            Some((batch, entry)) if entry.version() > flush => {
                Some(Known { batch, entry: Some(entry).filter(|entry| !entry.is_removal()) })
            }
            _ if flush != 0 => Some(Known { batch: self.batch_of(flush)?, entry: None }),
            _ => None,
        }
    }

    /// Where the newest change of a key stands, flushed or not. Good until the next commit or [`Overlay::clear`].
    pub fn position(&self, probe: Probe<'_>) -> Option<u64> {
        debug_assert!(self.indexed.max(self.first) == self.end(), "looked up without an index");
        self.find(probe)
    }

    fn find(&self, probe: Probe<'_>) -> Option<u64> {
        self.newest.find(spread(probe.hash), |newest| self.is_of(newest, probe)).map(|newest| newest.position)
    }

    /// The entry at a position.
    pub fn at(&self, position: u64) -> Option<&Entry> {
        self.pending(position).map(|(_, entry)| entry)
    }

    /// Adds a value or a tombstone, whose key has this hash.
    pub fn push(&mut self, batch: BatchId, hash: u64, entry: Entry) {
        self.memory += entry.memory();
        self.changes.push_back(Pending { batch, change: Change::Key { hash, entry } });
    }

    /// Adds a flush.
    pub fn push_flush(&mut self, batch: BatchId, version: u64, prefix: Option<&[u8]>) {
        debug_assert!(self.indexed.max(self.first) == self.end(), "a flush above what is not indexed");
        self.flushes.add(prefix, version);
        if prefix.is_none() {
            self.entries = self.entries.map(|_| 0);
        }
        self.changes.push_back(Pending { batch, change: Change::Flush { version, prefix: prefix.map(Into::into) } });
    }

    /// Moves the changes of a batch, and of those before it, into the table.
    pub fn commit(&mut self, batch: BatchId, table: &mut Table, departed: &mut Departed<'_>) {
        let mut flushed = false;
        let mut ahead = 0;
        while self.changes.front().is_some_and(|pending| pending.batch <= batch) {
            if ahead == 0 {
                ahead = self.prefetch(table);
            }
            ahead -= 1;
            let Some(Pending { change, .. }) = self.changes.pop_front() else { break };
            let position = self.first;
            self.first += 1;
            match change {
                Change::Key { hash, entry } => {
                    self.memory -= entry.memory();
                    // What was never indexed was not counted either.
                    self.entries = self.entries.filter(|_| position < self.indexed);
                    if position < self.indexed
                        && let Ok(newest) = self.newest.find_entry(spread(hash), |newest| newest.position == position)
                    {
                        newest.remove();
                        if let Some(ordered) = &mut self.ordered {
                            ordered.remove(&(hash, position));
                        }
                    }
                    if entry.is_removal() {
                        table.remove(Probe { hash, key: entry.key() }, departed);
                    } else {
                        table.put(hash, entry, departed);
                    }
                }
                Change::Flush { version, prefix } => {
                    table.begin_flush(prefix.as_deref(), version);
                    flushed = true;
                }
            }
        }
        if !std::mem::take(&mut self.is_scanned) {
            self.ordered = None;
        }
        // What the table hides and still counts is not told by looking a key up.
        if !std::mem::take(&mut self.is_counted) || flushed || table.sweeping_a_prefix() {
            self.entries = None;
        }
        if flushed {
            self.flushes.clear();
            for pending in &self.changes {
                if let Change::Flush { version, prefix } = &pending.change {
                    self.flushes.add(prefix.as_deref(), *version);
                }
            }
        }
    }

    /// Has the processor fetch what the next changes will touch, all at once instead of one after the other; how many
    /// changes that were.
    fn prefetch(&self, table: &Table) -> usize {
        let next = self.changes.iter().take(PREFETCHED);
        for pending in next {
            if let Change::Key { hash, .. } = pending.change {
                table.prefetch(hash);
            }
        }
        PREFETCHED
    }

    /// Position behind the newest change.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.first = self.end();
        self.changes.clear();
        self.newest.clear();
        self.ordered = None;
        self.entries = None;
        self.flushes.clear();
        self.memory = 0;
    }

    /// Bytes of memory that the pending entries take.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The newest batch that has a pending change.
    pub fn newest_batch(&self) -> Option<BatchId> {
        self.changes.back().map(|pending| pending.batch)
    }

    /// The pending flushes.
    pub fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Whether a pending entry is a value that no pending flush hides.
    pub fn stays(&self, entry: &Entry) -> bool {
        !entry.is_removal() && entry.version() > self.flushes.newest_over(entry.key())
    }

    /// Whether a pending entry will be in the table, if only hidden by the flush of a prefix.
    fn lasts(&self, entry: &Entry) -> bool {
        !entry.is_removal() && entry.version() > self.flushes.newest_of_everything()
    }

    /// The newest pending value or tombstone of every key that has one, with its hash, in no order, flushed or not.
    fn newest(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.each_newest().filter_map(|newest| Some((newest.hash, self.at(newest.position)?)))
    }

    /// Passes over all of them.
    fn each_newest(&self) -> impl Iterator<Item = &Newest> {
        #[cfg(test)]
        tests::PASSED.set(tests::PASSED.get() + self.newest.len());
        self.newest.iter()
    }

    fn is_of(&self, newest: &Newest, probe: Probe<'_>) -> bool {
        newest.hash == probe.hash && self.at(newest.position).is_some_and(|entry| entry.key() == probe.key)
    }

    fn pending(&self, position: u64) -> Option<(BatchId, &Entry)> {
        let index = position.checked_sub(self.first)?;
        match self.changes.get(index as usize)? {
            Pending { batch, change: Change::Key { entry, .. } } => Some((*batch, entry)),
            Pending { change: Change::Flush { .. }, .. } => None,
        }
    }

    /// The batch of a pending change, by its version.
    fn batch_of(&self, version: u64) -> Option<BatchId> {
        let index = self.changes.partition_point(|pending| pending.change.version() < version);
        self.changes.get(index).map(|pending| pending.batch)
    }
}

/// The hash for the map: a table's hashes have no low bits, by which the map chooses the bucket. What was random in it stays
/// so, bit for bit.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{Key, Value};
    use std::cell::Cell;

    thread_local! {
        /// Changes that this thread has passed over.
        pub static PASSED: Cell<usize> = const { Cell::new(0) };
    }

    fn put(overlay: &mut Overlay, table: &Table, batch: BatchId, version: u64, key: &[u8]) {
        let probe = table.probe(Key::bytes(key));
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        overlay.push(batch, probe.hash, Entry::new(version, probe.key, &value));
        if !version.is_multiple_of(3) {
            overlay.index(table);
        }
    }

    fn look(overlay: &mut Overlay, table: &Table, key: &[u8]) -> Option<(BatchId, Option<u64>)> {
        overlay.index(table);
        let known = overlay.look(table.probe(Key::bytes(key)))?;
        Some((known.batch, known.entry.map(Entry::version)))
    }

    fn present(overlay: &Overlay) -> usize {
        overlay.newest().filter(|(_, entry)| overlay.stays(entry)).count()
    }

    #[test]
    fn the_newest_word_counts() {
        let (mut overlay, table) = (Overlay::default(), Table::new(1));
        put(&mut overlay, &table, 1, 10, b"ab");
        put(&mut overlay, &table, 2, 11, b"ab");
        assert_eq!(look(&mut overlay, &table, b"ab"), Some((2, Some(11))));
        assert_eq!(look(&mut overlay, &table, b"ac"), None);
        overlay.push_flush(3, 12, Some(b"a"));
        assert_eq!(look(&mut overlay, &table, b"ab"), Some((3, None)));
        assert_eq!(look(&mut overlay, &table, b"ac"), Some((3, None)), "hidden, if it is in the table");
        put(&mut overlay, &table, 4, 13, b"ab");
        assert_eq!(look(&mut overlay, &table, b"ab"), Some((4, Some(13))));
        assert_eq!(present(&overlay), 1);
        assert_eq!(overlay.newest_batch(), Some(4));
    }

    #[test]
    fn a_commit_leaves_the_newer_batches_on_top() {
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        put(&mut overlay, &table, 1, 10, b"a");
        put(&mut overlay, &table, 2, 11, b"b");
        overlay.push_flush(2, 12, None);
        put(&mut overlay, &table, 3, 13, b"a");
        overlay.commit(1, &mut table, &mut |_, _| ());
        assert_eq!(table.get(table.probe(Key::bytes(b"a"))).map(Entry::version), Some(10));
        assert_eq!(look(&mut overlay, &table, b"a"), Some((3, Some(13))));
        assert_eq!(look(&mut overlay, &table, b"b"), Some((2, None)));
        overlay.commit(2, &mut table, &mut |_, _| ());
        assert!(table.is_empty());
        assert_eq!(look(&mut overlay, &table, b"b"), None);
        overlay.commit(3, &mut table, &mut |_, _| ());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn memory_is_what_the_pending_entries_take() {
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        let mut taken = vec![0];
        for (version, key) in [(1, &b"short"[..]), (2, &[b'k'; 200]), (3, b"short")] {
            put(&mut overlay, &table, version, version, key);
            let value = Value { bytes: b"v", flags: 0, deadline: 0 };
            taken.push(taken[version as usize - 1] + Entry::new(version, Key::bytes(key), &value).memory());
            assert_eq!(overlay.memory(), taken[version as usize]);
        }
        for batch in 1..=3 {
            overlay.commit(batch, &mut table, &mut |_, _| ());
            assert_eq!(overlay.memory(), taken[3] - taken[batch as usize]);
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let (mut overlay, table) = (Overlay::default(), Table::new(1));
        let probe = table.probe(Key::bytes(b"one"));
        let other = Probe { hash: probe.hash, key: Key::bytes(b"other") };
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        overlay.push(1, probe.hash, Entry::new(1, probe.key, &value));
        overlay.index(&table);
        assert!(overlay.look(other).is_none());
        overlay.push(1, probe.hash, Entry::new(2, other.key, &value));
        overlay.index(&table);
        let version = |probe| overlay.look(probe).and_then(|known| known.entry).map(Entry::version);
        assert_eq!((version(probe), version(other)), (Some(1), Some(2)));
        assert_eq!(present(&overlay), 2);
    }

    #[test]
    fn nothing_is_left_behind() {
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        for turn in 0..3 {
            for version in 1..=100_u64 {
                put(&mut overlay, &table, version, turn * 100 + version, &(version % 9).to_le_bytes());
            }
            overlay.index(&table);
            overlay.push_flush(101, turn * 100 + 101, Some(b"x"));
            if turn == 1 {
                overlay.clear();
            } else {
                overlay.commit(101, &mut table, &mut |_, _| ());
            }
            assert!(overlay.changes.is_empty() && overlay.newest.is_empty() && overlay.flushes.is_empty());
        }
        assert_eq!(table.len(), 9);
    }

    #[test]
    fn what_is_pending_is_counted_and_put_in_order_once() {
        const KEYS: u64 = 2_000;
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        PASSED.set(0);
        for version in 1..=KEYS {
            let key = (version / 2 % 700).to_le_bytes();
            put(&mut overlay, &table, version / 100, version, &key);
            overlay.index(&table);
            overlay.put_in_order();
            let kept = overlay.count(&table);
            if version.is_multiple_of(100) {
                overlay.commit(version / 100 - 1, &mut table, &mut |_, _| ());
            }
            if version.is_multiple_of(97) {
                let (passed, entries) = (PASSED.get(), overlay.entries.take());
                assert!(
                    entries.is_none_or(|entries| entries == overlay.count(&table)),
                    "{version}: {entries:?}, {kept}"
                );
                PASSED.set(passed);
            }
            let in_order = overlay.stretch(0, usize::MAX).entries;
            assert!(in_order.is_sorted_by_key(|&(hash, _)| hash) && in_order.len() == overlay.newest.len());
        }
        assert!(PASSED.get() < KEYS as usize, "{} changes were passed over", PASSED.get());
    }

    #[test]
    fn a_flush_of_everything_leaves_what_comes_after_it() {
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        put(&mut overlay, &table, 1, 1, b"a");
        overlay.commit(1, &mut table, &mut |_, _| ());
        put(&mut overlay, &table, 2, 2, b"b");
        overlay.index(&table);
        assert_eq!(overlay.count(&table), 2);
        overlay.push_flush(2, 4, None);
        assert_eq!(overlay.count(&table), 0);
        for (version, key, entries) in [(5, b"a", 1), (7, b"b", 2), (8, b"b", 2), (10, b"c", 3)] {
            put(&mut overlay, &table, 3, version, key);
            overlay.index(&table);
            assert_eq!(overlay.count(&table), entries);
        }
        overlay.recount();
        assert_eq!(overlay.count(&table), 3);
        overlay.commit(3, &mut table, &mut |_, _| ());
        assert_eq!((overlay.count(&table), table.len()), (3, 3));
    }

    #[test]
    fn what_was_committed_before_anybody_looked_is_counted() {
        let (mut overlay, mut table) = (Overlay::default(), Table::new(1));
        for (version, key, entries) in [(3, b"a", 1), (6, b"a", 1), (9, b"b", 2)] {
            overlay.count(&table);
            put(&mut overlay, &table, version, version, key);
            overlay.commit(version, &mut table, &mut |_, _| ());
            overlay.index(&table);
            assert_eq!((overlay.count(&table), table.len()), (entries, entries));
        }
    }
}
