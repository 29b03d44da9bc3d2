//! The limit of memory: what is evicted to keep it, or refused.
//!
//! Evictions are removals like any other, with a record each, so that a start brings back what the table held. They join
//! whatever batch is forming, and no reply waits for them.
//!
//! What counts is all that the table holds and all that is pending: an entry on its way takes memory beside the one that it
//! will replace. What is pending to be evicted counts as gone already.

use super::{BatchId, Engine};
use crate::command::{Command, ErrorCode, Reply};
use crate::mutation::Mutation;
use crate::table::{Entry, Probe};
use std::collections::VecDeque;

/// Evictions begin this share of the limit before it: they take effect with a commit, and slots grow in steps.
const MARGIN: usize = 32;
/// Below this share of the limit, in percent, there is plenty.
const PLENTY: usize = 90;
/// What an entry takes beside its key and its value, about.
const ENTRY: usize = 40;

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
            self.overlay.index();
        }
        // What a flush hides is on its way out, and makes room by itself.
        while evicted < most && self.is_over_memory() && self.table.sweeping().is_none() {
            let Engine { table, overlay, .. } = self;
            let stays = |hash: u64, entry: &Entry| overlay.look(Probe { hash, key: entry.key() }).is_none();
            let Some((hash, entry)) = table.victim(stays) else { break };
            let version = self.next_version;
            self.next_version += 1;
            let bytes = entry.memory();
            record(version, &Mutation::Remove { key: entry.key() });
            self.overlay.push(self.forming, hash, Entry::removal(version, entry.key()));
            self.memory.leaving.push_back((self.forming, bytes));
            self.memory.leaving_bytes += bytes;
            self.overlay.index();
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

    /// The refusal of a command that needs more memory than there can be.
    pub(super) fn memory_refusal(&self, command: &Command<'_>) -> Option<Reply<'static>> {
        let MemoryLimit { bytes: limit, evicts } = self.memory.limit;
        if limit == usize::MAX {
            return None;
        }
        let needed = match command {
            Command::Set { key, value, .. } => key.bytes.len() + value.len() + ENTRY,
            Command::SetMany { pairs } => pairs.iter().map(|(key, value)| key.bytes.len() + value.len() + ENTRY).sum(),
            Command::Extend { key, bytes, .. } => key.bytes.len() + bytes.len() + ENTRY,
            Command::Increment { key, .. } => key.bytes.len() + ENTRY,
            _ => return None,
        };
        let held = if evicts { 0 } else { self.held_memory() };
        (held.saturating_add(needed) > limit).then(|| {
            let message =
                format!("{needed} bytes more would be beyond --max-memory of {limit}, and nothing is evicted");
            Reply::Error(ErrorCode::NoMemory, message.into())
        })
    }

    fn held_memory(&self) -> usize {
        (self.table.memory() + self.overlay.memory()).saturating_sub(self.memory.leaving_bytes)
    }
}
