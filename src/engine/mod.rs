//! What a command means: `(table + overlay, command, now) -> (reply, mutations)`.
//!
//! Pure: knows no clock, no socket and no file, neither bytes on the wire nor bytes on disk. Time is a parameter,
//! mutations go to a closure, and whoever owns the engine says when a batch became durable.
//!
//! ```text
//!                      +-- mutations, with versions --> record (the log's next batch)
//! command --> evaluate +-- the same ---> overlay --- commit(batch) ---> table
//!                      +-- reply, and the batch that must be durable before it may leave
//! ```
//!
//! - A command is evaluated once, at once, in the order of arrival. Only replies wait.
//! - Whatever writes is evaluated against table *and* overlay, so that two pending increments make two.
//! - A read of a peer that has nothing in flight sees the table alone, and so never waits for a disk.
//! - Each mutation has the next version, and a version is never handed out twice, not even after its batch was
//!   refused.

mod lookups;
mod memory;
mod overlay;
mod reads;
mod scan;
mod writes;

use crate::command::{Command, ErrorCode, Limits, Reads, Reply, Writes};
use crate::mutation::{Key, Mutation};
use crate::table::{Departed, Entry, Probe, Swept, Table};
use crate::timeline::Time;
pub use lookups::Lookups;
use memory::Memory;
pub use memory::{Growth, MemoryLimit};
use overlay::Overlay;
use std::cell::Cell;
use std::collections::VecDeque;

/// Number of a batch of mutations, counted from 1 by the engine since its start.
pub type BatchId = u64;

/// Which state a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The durable table alone: for a peer that has nothing in flight. But for what may be kept alive by what is pending: see
    /// [`Engine::evaluate`].
    Durable,
    /// The table with the pending mutations above it: for a peer with replies outstanding.
    Pending,
}

/// What came of a command.
#[derive(Debug)]
pub struct Evaluation<'e> {
    /// The answer, to be sent once `after` is durable.
    pub reply: Reply<'e>,
    /// The newest batch that the command wrote to or read from, if any.
    pub after: Option<BatchId>,
    /// The version of a flush whose sweep has to be through as well: the true answer is the number that it removed,
    /// as [`Reply::Number`], and `reply` only holds its place.
    pub sweep: Option<u64>,
}

/// The store as commands see it: the durable table and, above it, the overlay.
///
/// ```
/// use kvd::command::{Command, Limits, Reply, SetOptions, StoredValue};
/// use kvd::engine::{Engine, View};
/// use kvd::mutation::Key;
/// use kvd::table::Table;
///
/// let mut engine = Engine::new(Table::new(0), 1, Limits::default());
/// let set = Command::Set { key: Key::bytes(b"k"), value: b"v".into(), options: SetOptions::default() };
/// let evaluation = engine.evaluate(&set, 0, View::Durable, &mut |_version, _mutation| { /* to the log */ });
/// assert_eq!((evaluation.reply, evaluation.after), (Reply::Stored(1), Some(1)));
///
/// // Not durable yet: whoever has nothing in flight doesn't see it.
/// let get = Command::Get { key: Key::bytes(b"k") };
/// assert_eq!(engine.evaluate(&get, 0, View::Durable, &mut |_, _| ()).reply, Reply::Miss);
/// let batch = engine.close_batch();
/// engine.commit(batch, &mut |_departing, _why| { /* its record is dead */ });
/// let found = Reply::Value(StoredValue { bytes: b"v", version: 1, flags: 0 });
/// assert_eq!(engine.evaluate(&get, 0, View::Durable, &mut |_, _| ()).reply, found);
/// ```
pub struct Engine {
    table: Table,
    overlay: Overlay,
    limits: Limits,
    next_version: u64,
    /// The batch that mutations join now.
    forming: BatchId,
    /// The batches with a TOUCH that is pending, and when the first one of each was evaluated: what had not expired by then
    /// may outlive the deadline that the table knows.
    touched: VecDeque<(BatchId, u64)>,
    full: bool,
    memory: Memory,
    lookups: Lookups,
    /// How many entries the SCANs of this turn may still pass over.
    to_pass_over: Cell<usize>,
}

/// What the evaluation of one command is given, and what it notes on its way.
struct Call<'c> {
    /// What time it is.
    time: Time,
    /// T, which deadlines are held against.
    now: u64,
    /// What a read sees. Writes don't ask.
    view: View,
    /// The newest batch read or written so far.
    after: Option<BatchId>,
    /// The flush whose number of removed entries is the answer.
    sweep: Option<u64>,
    /// Takes the mutations.
    record: &'c mut dyn FnMut(u64, &Mutation<'_>),
}

impl Call<'_> {
    /// Notes that the answer rests on a batch.
    fn rests_on(&mut self, batch: Option<BatchId>) {
        self.after = self.after.max(batch);
    }
}

impl Engine {
    /// `next_version` is the version that the next mutation gets.
    pub fn new(table: Table, next_version: u64, limits: Limits) -> Self {
        let memory = Memory::new(MemoryLimit::NONE);
        let to_pass_over = Cell::new(scan::TURN);
        Engine {
            table,
            overlay: Overlay::default(),
            limits,
            next_version,
            forming: 1,
            touched: VecDeque::new(),
            full: false,
            memory,
            lookups: Lookups::default(),
            to_pass_over,
        }
    }

    /// Evaluates a command, once.
    ///
    /// `time` is the moment, on the store's time line; a key whose deadline has come by then is absent. Every mutation of the
    /// command goes, in order and with its version, to `record` (all of them are one atomic group) and into the
    /// overlay under the forming batch. A command that is refused or has no effect records nothing.
    ///
    /// Where a TOUCH is pending, what has expired in the table meanwhile may be back with its batch. Whoever asks for such a key
    /// therefore sees what is pending, in either view, so that a key once seen expired stays gone.
    ///
    /// Commands that somebody else answers ([`crate::command::Answerer`]) are an internal error here.
    pub fn evaluate<'e>(
        &'e mut self,
        command: &Command<'_>,
        time: impl Into<Time>,
        view: View,
        record: &mut dyn FnMut(u64, &Mutation<'_>),
    ) -> Evaluation<'e> {
        let time = time.into();
        let now = time.now;
        if self.full && matches!(command.class().writes, Writes::Values(_)) {
            let reply = Reply::Error(ErrorCode::NoSpace, "there is no room for more: only removals are taken".into());
            return Evaluation { reply, after: self.newest_pending(), sweep: None };
        }
        if let Some((reply, after)) = self.memory_refusal(command) {
            return Evaluation { reply, after, sweep: None };
        }
        let view = if self.may_outlive_its_deadline(command, now) { View::Pending } else { view };
        if looks_up(command, view) {
            self.overlay.index(&self.table);
        }
        let mut call = Call { time, now, view, after: None, sweep: None, record };
        let reply = match *command {
            Command::Get { key } => self.get(&mut call, key),
            Command::GetMany { ref keys } => self.get_many(&mut call, keys),
            Command::GetEntries { ref keys } => self.get_entries(&mut call, keys),
            Command::Exists { ref keys } => self.exists(&mut call, keys),
            Command::TimeToLive { key } => self.time_to_live(&mut call, key),
            Command::Count => self.count(&mut call),
            Command::Scan { cursor, prefix, count } => self.scan(&mut call, cursor, prefix, count),
            Command::Set { key, value, options } => self.set(&mut call, key, value, options),
            Command::SetMany { ref pairs } => self.set_many(&mut call, pairs),
            Command::SetEntries { ref entries, expiry } => self.set_entries(&mut call, entries, expiry),
            Command::Delete { ref keys } => self.delete(&mut call, keys),
            Command::DeleteIf { key, version } => self.delete_if(&mut call, key, version),
            Command::GetDelete { key } => self.get_delete(&mut call, key),
            Command::Increment { key, delta, absent } => self.increment(&mut call, key, delta, absent),
            Command::Extend { key, bytes, end } => self.extend(&mut call, key, bytes, end),
            Command::Touch { key, expiry } => self.touch(&mut call, key, expiry),
            Command::GetTouch { key, expiry } => self.get_touch(&mut call, key, expiry),
            Command::Flush { prefix } => self.flush(&mut call, prefix),
            Command::Ping | Command::Version | Command::Stats | Command::Sync | Command::Compact => {
                Reply::Error(ErrorCode::Internal, "asked of the wrong part of kvd".into())
            }
        };
        Evaluation { reply, after: call.after, sweep: call.sweep }
    }

    /// Begins another turn of commands. What SCANs may pass over together, so that others get their turn, is theirs anew.
    pub fn begin_turn(&mut self) {
        self.to_pass_over.set(scan::TURN);
    }

    /// Has the processor fetch what the evaluation of a command will need, where that is known and worth it. Of several
    /// commands foreseen in a row, memory is waited for once.
    pub fn foresee(&self, command: &Command<'_>) {
        let Reads::Key(key) = command.class().reads else { return };
        self.table.prefetch(self.table.probe(key).hash);
    }

    /// The newest batch that has something pending.
    pub fn newest_pending(&self) -> Option<BatchId> {
        self.overlay.newest_batch()
    }

    /// The version that the next mutation will get.
    pub fn next_version(&self) -> u64 {
        self.next_version
    }

    /// Closes the forming batch and returns its number: later mutations belong to the next one.
    pub fn close_batch(&mut self) -> BatchId {
        let closed = self.forming;
        self.forming += 1;
        closed
    }

    /// The batch is durable: folds it, and every one before it, into the table. `departed` is told of each entry
    /// that leaves the table by it.
    pub fn commit(&mut self, batch: BatchId, departed: &mut Departed<'_>) {
        self.overlay.commit(batch, &mut self.table, departed);
        self.memory.committed(batch);
        while self.touched.front().is_some_and(|(touched, _)| *touched <= batch) {
            self.touched.pop_front();
        }
    }

    /// Removes some of what was flushed: see [`Table::sweep`]. To be called again and again, as long as
    /// [`Table::sweeping`].
    pub fn sweep(&mut self, effort: usize, departed: &mut Departed<'_>) -> Option<Swept> {
        self.overlay.recount();
        self.table.sweep(effort, departed)
    }

    /// Removes some of what has expired by `now`: see [`Table::expire`]. Nothing of it reaches the log, since the record
    /// of a value tells when it ends. What a pending TOUCH may keep alive stays.
    pub fn expire(&mut self, now: u64, effort: usize, departed: &mut Departed<'_>) -> bool {
        let now = self.touched.front().map_or(now, |(_, since)| now.min(*since));
        self.overlay.recount();
        self.table.expire(now, effort, departed)
    }

    /// The oldest batch that is not yet durable was refused: forgets every pending mutation, those of the forming
    /// batch included. Neither their versions nor the batch's number come again.
    pub fn refuse(&mut self) {
        self.overlay.clear();
        self.touched.clear();
        self.memory.refused();
        self.forming += 1;
    }

    /// While full, commands that would store something are answered `ERR NOSPACE`; removals go on.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The durable table (for STATS).
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How often keys that were asked for were there (for STATS).
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// Whether a TOUCH is pending.
    #[cfg(test)]
    pub fn is_touching(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Whether a read is of something that has expired in the table, and may be kept alive by a pending TOUCH.
    fn may_outlive_its_deadline(&self, command: &Command<'_>, now: u64) -> bool {
        if self.touched.is_empty() || command.class().writes != Writes::Nothing {
            return false;
        }
        let has_expired =
            |key: &Key<'_>| self.table.get(self.table.probe(*key)).is_some_and(|held| held.is_expired(now));
        match command.class().reads {
            Reads::Key(key) => has_expired(&key),
            Reads::Keys(keys) => keys.iter().any(has_expired),
            Reads::Entries => true,
            Reads::Nothing | Reads::Number => false,
        }
    }

    /// What a read sees of a key.
    fn seen(&self, call: &mut Call<'_>, key: Key<'_>) -> Option<&Entry> {
        let probe = self.table.probe(key);
        let entry = match call.view {
            View::Durable => self.table.get(probe),
            View::Pending => self.held(call, probe),
        };
        entry.filter(|entry| !entry.is_expired(call.now))
    }

    /// The entry of a key with everything pending applied, an expired one included.
    fn held(&self, call: &mut Call<'_>, probe: Probe<'_>) -> Option<&Entry> {
        match self.overlay.look(probe) {
            Some(known) => {
                call.rests_on(Some(known.batch));
                known.entry
            }
            None => self.table.get(probe),
        }
    }
}

/// Whether a command asks what is pending: a read where its view shows that, and every write but those that store whatever
/// is there.
fn looks_up(command: &Command<'_>, view: View) -> bool {
    let class = command.class();
    class.reads != Reads::Nothing && (class.writes != Writes::Nothing || view == View::Pending)
}
