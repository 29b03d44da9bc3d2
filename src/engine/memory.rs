//! The limit of memory: what is evicted to keep it, or refused.
//!
//! Evictions are removals like any other, with a record each, so that a start brings back what the table held. They join
//! whatever batch is forming, and no reply waits for them.
//!
//! What counts is all that the table holds and all that is pending: an entry on its way takes memory beside the one that it
//! will replace. What is pending to be evicted counts as gone already.

use super::{BatchId, Engine};
use crate::command::{Command, ErrorCode, Reply, Values, Writes};
use crate::mutation::{Key, Mutation};
use crate::table::{Entry, Probe};
use std::collections::VecDeque;

/// Evictions begin this share of the limit before it: they take effect with a commit, and slots grow in steps.
const MARGIN: usize = 32;
/// Below this share of the limit, in percent, there is plenty.
const PLENTY: usize = 90;
/// What an entry takes beside its key and its value, about.
const ENTRY: usize = 40;

/// What a command stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Entries.
    pub entries: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
}

/// How much memory entries may take, and what happens beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes of the table and of what is pending.
    pub bytes: usize,
    /// Whether entries are evicted to make room; else writes that need more are refused.
    pub evicts: bool,
}

impl MemoryLimit {
    /// As much as there is.
    pub const NONE: MemoryLimit = MemoryLimit { bytes: usize::MAX, evicts: false };
}

/// The state of it.
pub struct Memory {
    limit: MemoryLimit,
    /// Evictions that are not durable yet: the batch, and the memory that it will give back.
    leaving: VecDeque<(BatchId, usize)>,
    leaving_bytes: usize,
    /// Entries evicted since the start.
    evicted: u64,
}

impl Memory {
    /// Nothing evicted yet.
    pub fn new(limit: MemoryLimit) -> Memory {
        Memory { limit, leaving: VecDeque::new(), leaving_bytes: 0, evicted: 0 }
    }

    /// What the batches up to this one evicted has left.
    pub fn committed(&mut self, batch: BatchId) {
        while let Some(&(of, bytes)) = self.leaving.front()
            && of <= batch
        {
            self.leaving.pop_front();
            self.leaving_bytes -= bytes;
        }
    }

    /// Nothing that is pending will happen.
    pub fn refused(&mut self) {
        self.leaving.clear();
        self.leaving_bytes = 0;
    }
}

impl Engine {
    /// Sets the limit. To be called before the first command. What the table holds already is looked at on so many threads.
    #[must_use]
    pub fn with_memory_limit(mut self, limit: MemoryLimit, threads: usize) -> Engine {
        if limit.evicts {
            self.table.enable_eviction(threads);
        }
        self.memory = Memory::new(limit);
        self
    }

    /// The limit, and how many entries were evicted for it.
    pub fn memory(&self) -> (MemoryLimit, u64) {
        (self.memory.limit, self.memory.evicted)
    }

    /// Evicts entries until memory is within its limit, at most so many. Records them under the forming batch, as
    /// [`Engine::evaluate`] does. Returns how many.
    pub fn evict(&mut self, most: usize, record: &mut dyn FnMut(u64, &Mutation<'_>)) -> usize {
        let mut evicted = 0;
        if self.is_over_memory() {
            self.overlay.index(&self.table);
        }
        // What a flush hides is on its way out, and makes room by itself.
        while evicted < most && self.is_over_memory() && self.table.sweeping().is_none() {
            let Engine { table, overlay, .. } = self;
            let stays = |hash: u64, entry: &Entry| overlay.look(Probe { hash, key: entry.key() }).is_none();
            let Some((hash, entry)) = table.victim(stays) else { break };
            let version = self.next_version;
            self.next_version += 1;
            let bytes = entry.memory();
            record(version, &Mutation::Evict { key: entry.key() });
            self.overlay.push(self.forming, hash, Entry::removal(version, entry.key()));
            self.memory.leaving.push_back((self.forming, bytes));
            self.memory.leaving_bytes += bytes;
            self.overlay.index(&self.table);
            evicted += 1;
        }
        self.memory.evicted += evicted as u64;
        evicted
    }

    /// Whether there is something to [`Engine::evict`].
    pub fn is_over_memory(&self) -> bool {
        let bytes = self.memory.limit.bytes;
        self.memory.limit.evicts && self.held_memory() > bytes - bytes / MARGIN
    }

    /// Ends the probation of entries that have had theirs, where memory is not short. A bounded number.
    pub fn keep_probation(&mut self, effort: usize) {
        if self.memory.limit.evicts {
            if self.held_memory() < self.memory.limit.bytes / 100 * PLENTY {
                self.table.relax_eviction();
            }
            if self.table.probation_is_over() {
                self.table.end_probation(effort);
            }
        }
    }

    /// The refusal of a command that needs more memory than there can be, and the batch on which that rests.
    pub(super) fn memory_refusal(&mut self, command: &Command<'_>) -> Option<(Reply<'static>, Option<BatchId>)> {
        let MemoryLimit { bytes: limit, evicts } = self.memory.limit;
        if limit == usize::MAX {
            return None;
        }
        let Growth { entries, bytes } = self.growth(command)?;
        let needed = bytes + entries * ENTRY;
        if evicts {
            return (needed > limit).then(|| {
                let message = format!("{needed} bytes are more than --max-memory of {limit} allows altogether");
                // What is appended to may be pending.
                (Reply::Error(ErrorCode::NoMemory, message.into()), self.newest_pending())
            });
        }
        (self.held_memory().saturating_add(needed) > limit).then(|| {
            let message = format!(
                "{needed} bytes more would be beyond --max-memory of {limit}, and --eviction none evicts nothing"
            );
            // What is pending takes part of the memory, and may never have been.
            (Reply::Error(ErrorCode::NoMemory, message.into()), self.newest_pending())
        })
    }

    /// What a command would store beside what there is, at most; none of one that stores nothing.
    pub fn growth(&mut self, command: &Command<'_>) -> Option<Growth> {
        let Writes::Values(Values { entries, bytes, again }) = command.class().writes else { return None };
        Some(Growth { entries, bytes: bytes + again.map_or(0, |key| self.held_value(key)) })
    }

    /// Bytes of the value that a key has, with everything pending applied.
    fn held_value(&mut self, key: Key<'_>) -> usize {
        self.overlay.index(&self.table);
        let probe = self.table.probe(key);
        let held = match self.overlay.look(probe) {
            Some(known) => known.entry,
            None => self.table.get(probe),
        };
        held.map_or(0, |entry| entry.value().len())
    }

    fn held_memory(&self) -> usize {
        (self.table.memory() + self.overlay.memory()).saturating_sub(self.memory.leaving_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Absent, Condition, End, Limits, SetOptions};
    use crate::engine::View;
    use crate::mutation::Value;
    use crate::table::Table;

    /// An engine with so many entries, all alike, all durable, and nothing evicted.
    fn filled(entries: u64) -> Engine {
        let limit = MemoryLimit { bytes: 1 << 40, evicts: true };
        let mut engine = Engine::new(Table::new(1), 1, Limits { max_value: 1 << 20 }).with_memory_limit(limit, 1);
        fill(&mut engine, 0..entries);
        engine
    }

    fn fill(engine: &mut Engine, keys: std::ops::Range<u64>) {
        for key in keys {
            let key = key.to_le_bytes();
            assert!(answer(engine, &set(&key, &[b'v'; 100])).starts_with("Stored"));
        }
        commit(engine);
    }

    fn commit(engine: &mut Engine) {
        let batch = engine.close_batch();
        engine.commit(batch, &mut |_, _| ());
    }

    fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
        let options = SetOptions { condition: Condition::Always, ..SetOptions::default() };
        Command::Set { key: Key::bytes(key), value: value.into(), options }
    }

    fn answer(engine: &mut Engine, command: &Command<'_>) -> String {
        format!("{:?}", engine.evaluate(command, 1, View::Pending, &mut |_, _| ()).reply)
    }

    /// What an entry of [`filled`] takes, and what its removal does while it is pending.
    fn sizes() -> (usize, usize) {
        let (bytes, value) = (0_u64.to_le_bytes(), Value { bytes: &[b'v'; 100], flags: 0, deadline: 0 });
        let key = Key::bytes(&bytes);
        (Entry::new(1, key, &value).memory(), Entry::removal(1, key).memory())
    }

    fn all_of(engine: &Engine) -> usize {
        engine.table.memory() + engine.overlay.memory()
    }

    /// The limit that leaves what is held exactly within it once this many entries were evicted.
    fn limit_for(engine: &Engine, evictions: usize) -> usize {
        let (entry, removal) = sizes();
        let target = engine.held_memory() - evictions * (entry - removal);
        (target..2 * target).find(|limit| limit - limit / 32 == target).expect("of 33 limits one has this margin")
    }

    /// The versions under which entries are evicted, at most so many.
    fn evict(engine: &mut Engine, most: usize) -> Vec<u64> {
        let mut versions = Vec::new();
        let evicted = engine.evict(most, &mut |version, mutation| {
            assert!(matches!(mutation, Mutation::Evict { .. }), "{mutation:?}");
            versions.push(version);
        });
        assert_eq!(evicted, versions.len());
        versions
    }

    #[test]
    fn as_many_go_as_have_to_and_not_one_more() {
        let mut engine = filled(1000);
        assert!(!engine.is_over_memory());
        engine.memory.limit.bytes = limit_for(&engine, 100);
        assert!(engine.is_over_memory());
        assert_eq!(evict(&mut engine, 30), (1001..=1030).collect::<Vec<_>>(), "no more than asked for");
        assert_eq!(evict(&mut engine, 1000), (1031..=1100).collect::<Vec<_>>());
        assert!(!engine.is_over_memory());
        assert_eq!((evict(&mut engine, 1000), engine.memory().1, engine.next_version()), (vec![], 100, 1101));
        commit(&mut engine);
        assert_eq!((engine.table().len(), engine.held_memory()), (900, all_of(&engine)), "nothing is on its way");
    }

    #[test]
    fn what_is_on_its_way_out_counts_as_gone_until_its_batch_is_durable() {
        let mut engine = filled(1000);
        engine.memory.limit.bytes = limit_for(&engine, 100);
        assert_eq!(evict(&mut engine, 40).len(), 40);
        let first = engine.close_batch();
        assert_eq!(evict(&mut engine, 1000).len(), 60);
        let (entry, _) = sizes();
        assert_eq!(engine.held_memory(), all_of(&engine) - 100 * entry);
        engine.commit(first, &mut |_, _| ());
        assert_eq!(engine.held_memory(), all_of(&engine) - 60 * entry);
        let second = engine.close_batch();
        engine.commit(second, &mut |_, _| ());
        assert_eq!(engine.held_memory(), all_of(&engine));
    }

    #[test]
    fn an_eviction_that_was_refused_did_not_happen() {
        let mut engine = filled(1000);
        let before = engine.held_memory();
        engine.memory.limit.bytes = limit_for(&engine, 50);
        assert_eq!(evict(&mut engine, 1000).len(), 50);
        engine.refuse();
        assert_eq!((engine.held_memory(), engine.table().len()), (before, 1000));
        assert_eq!(evict(&mut engine, 1000).len(), 50);
    }

    #[test]
    fn nothing_is_evicted_while_a_flush_makes_room() {
        let mut engine = filled(1000);
        engine.memory.limit.bytes = limit_for(&engine, 50);
        answer(&mut engine, &Command::Flush { prefix: None });
        commit(&mut engine);
        assert!(engine.table().sweeping().is_some() && engine.is_over_memory());
        assert_eq!(evict(&mut engine, 1000), [] as [u64; 0]);
    }

    #[test]
    fn what_needs_more_than_there_can_be_is_refused_from_one_byte_too_many_on() {
        let pairs = vec![(Key::bytes(b"one"), &b"1234567890"[..]), (Key::bytes(b"two"), b"12345")];
        let commands = [
            (set(b"key", b"12345"), 3 + 5 + ENTRY),
            (Command::SetMany { pairs }, 3 + 10 + 3 + 5 + 2 * ENTRY),
            (Command::Extend { key: Key::bytes(b"key"), bytes: b"12345", end: End::Back }, 3 + 5 + ENTRY),
            (Command::Increment { key: Key::bytes(b"counter"), delta: 1, absent: Absent::default() }, 7 + 20 + ENTRY),
        ];
        for (command, needed) in commands {
            for (evicts, held) in [(true, 0), (false, 1)] {
                let mut engine = filled(10);
                let held = held * engine.held_memory();
                engine.memory.limit = MemoryLimit { bytes: held + needed - 1, evicts };
                let refused = answer(&mut engine, &command);
                assert!(refused.contains("NoMemory"), "{command:?}: {refused}");
                assert_eq!(answer(&mut engine, &Command::Get { key: Key::bytes(b"key") }), "Miss", "it is not there");
                engine.memory.limit.bytes += 1;
                let taken = answer(&mut engine, &command);
                assert!(!taken.contains("NoMemory"), "{command:?}: {taken}");
            }
        }
    }

    #[test]
    fn what_is_pending_counts_too() {
        let mut engine = filled(0);
        let empty = engine.held_memory();
        answer(&mut engine, &set(b"key", &[b'v'; 1000]));
        assert!(engine.held_memory() > empty + 1000);
        engine.refuse();
        assert_eq!(engine.held_memory(), empty);
    }

    #[test]
    fn probation_ends_early_only_where_there_is_plenty() {
        // Half of the entries are newer than the victim, so that one was chosen, and yet the queue is long.
        let pressed = || {
            let mut engine = filled(1000);
            engine.memory.limit.bytes = limit_for(&engine, 1);
            assert_eq!(evict(&mut engine, 1).len(), 1);
            engine
        };
        let mut engine = pressed();
        while engine.table().probation_is_over() {
            engine.keep_probation(10);
        }
        let queue = |engine: &mut Engine| {
            engine.table.relax_eviction();
            engine.table.probation_is_over()
        };
        assert!(queue(&mut engine), "a victim was wanted, so the queue is left twice as long");
        for (more, ends) in [(0, false), (1, true)] {
            let mut engine = pressed();
            while engine.table().probation_is_over() {
                engine.keep_probation(10);
            }
            // The smallest limit of which what is held is less than nine tenths, and the one before it.
            let held = engine.held_memory();
            engine.memory.limit.bytes = (held / 90 + more) * 100;
            engine.keep_probation(1000);
            assert_eq!(!queue(&mut engine), ends, "{held} bytes of {}", engine.memory.limit.bytes);
        }
    }
}
