//! The model that a store on the fake disk is held against: the rows as of each batch that a start may still find.
//!
//! It is told each mutation as the engine records it, and when a batch was committed and synced.

use kvd::log::fs::FakeDisk;
use kvd::log::{Ledger, LogError, LogOptions, Progress, Recovered, SyncPolicy, UNCLEAN_SKIP, Unread, Writer, record};
use kvd::mutation::{Mutation, Value};
use kvd::table::{Entry, Replay, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    version: u64,
    value: Vec<u8>,
    flags: u32,
    deadline: u64,
}

impl Row {
    fn is_expired(&self, now: u64) -> bool {
        self.deadline != 0 && self.deadline <= now
    }
}

pub type Rows = BTreeMap<Vec<u8>, Row>;

/// Everything that a table holds.
pub fn rows(table: &Table) -> Rows {
    let row = |entry: &Entry| {
        let (flags, deadline, version) = (entry.flags(), entry.deadline(), entry.version());
        (entry.key().bytes.to_vec(), Row { value: entry.value().to_vec(), flags, deadline, version })
    };
    table.iter().map(row).collect()
}

pub fn unexpired(mut rows: Rows, now: u64) -> Rows {
    rows.retain(|_, row| !row.is_expired(now));
    rows
}

/// What a start found.
pub struct Found {
    pub writer: Writer,
    pub ledger: Ledger,
    pub table: Table,
    pub recovered: Recovered,
    pub now: u64,
}

/// Starts on a disk, as the daemon does. The clock is told the latest time that the log records.
pub fn open(disk: &FakeDisk, segment_size: u64, clock: impl FnOnce(u64) -> u64) -> Result<Found, LogError> {
    let options = LogOptions { segment_size, sync: SyncPolicy::Always, threads: 1 };
    let unread = Unread::open(Arc::new(disk.clone()), options)?;
    let replay = Replay::new(unread.secret().expose());
    let (ready, recovered) = unread.replay(&Progress::default(), &|chunk| replay.apply(chunk))?;
    let now = clock(recovered.time.unwrap_or_default().now);
    let table = replay.finish(now, 2);
    let mut ledger = ready.ledger();
    for entry in table.iter() {
        ledger.found(entry.version(), record::encoded_len(&entry.mutation()));
    }
    Ok(Found { writer: ready.into_writer(), ledger, table, recovered, now })
}

/// The store as of one batch.
#[derive(Clone, Debug)]
pub struct State {
    pub rows: Rows,
    /// The version to hand out next and the time, as its batch says.
    pub next_version: u64,
    pub now: u64,
    /// Whether it is the mark of an orderly stop.
    pub is_stop: bool,
}

/// What a start may find.
pub struct Model {
    /// Oldest first; none before the first one can be found any more.
    pub states: Vec<State>,
    /// How many of them are committed, and how many are durable.
    pub committed: usize,
    pub durable: usize,
    /// The rows with the forming batch applied.
    pub forming: Rows,
    /// The highest version that was recorded since the start, and the highest one that anybody may have been shown.
    pub recorded: u64,
    pub shown: u64,
    /// The latest time that there ever was.
    pub latest: u64,
    /// The time of each batch that was to be written, and how many states there were before it.
    pub attempts: Vec<(usize, u64)>,
}

impl Model {
    pub fn record(&mut self, version: u64, mutation: &Mutation<'_>) {
        assert!(version > self.recorded && version > self.shown, "version {version} was handed out before");
        self.recorded = version;
        match *mutation {
            Mutation::Put { key, value: Value { bytes, flags, deadline } } => {
                let row = Row { version, value: bytes.to_vec(), flags, deadline };
                self.forming.insert(key.bytes.to_vec(), row);
            }
            Mutation::Remove { key } | Mutation::Evict { key } => drop(self.forming.remove(key.bytes)),
            Mutation::Flush { prefix } => self.forming.retain(|key, _| !key.starts_with(prefix.unwrap_or_default())),
        }
    }

    /// A batch is about to be written.
    pub fn attempt(&mut self, next_version: u64, now: u64, is_stop: bool) {
        self.attempts.push((self.states.len(), now));
        self.states.push(State { rows: self.forming.clone(), next_version, now, is_stop });
    }

    /// Which state the log says that it ends with, by the version that it wants handed out next, where at least so many
    /// states must be there.
    fn named_by(&self, next_version: u64, least: usize) -> usize {
        let in_log = next_version.saturating_sub(UNCLEAN_SKIP);
        // The first one may be a stop that counts no more.
        let may_be = |(index, state): (usize, &State)| state.next_version <= in_log && (index == 0 || !state.is_stop);
        let unclean = self.states.iter().enumerate().rev().position(may_be).map(|back| self.states.len() - 1 - back);
        let stop = self.states.iter().rposition(|state| state.is_stop && state.next_version == next_version);
        // A stop right after an unclean start reads like the start before. The rows are the same.
        match (unclean, stop) {
            (Some(unclean), Some(stop)) if unclean + 1 < least => stop,
            (Some(unclean), _) => unclean,
            (None, stop) => stop.expect("a log that ends with what was written"),
        }
    }

    /// Holds against the model what a start found, where at least so many states must be there. Returns the state.
    pub fn judge(&self, found: &Found, least: usize, context: &str) -> usize {
        let next_version = found.recovered.next_version;
        let index = self.named_by(next_version, least);
        assert!(index + 1 >= least, "{context}: state {index} of {}, {least} must be there", self.states.len());
        assert!(next_version > self.shown, "{context}: {next_version} is to be handed out, {} was", self.shown);
        // A segment's header tells the time of the batch that was to come, also where that is lost, or was refused.
        let time = found.recovered.time.unwrap_or_default().now;
        let told_later = self.attempts.iter().any(|(before, now)| *before > index && *now == time);
        // A stop reads like what it follows.
        let may_be = &self.states[index.saturating_sub(usize::from(self.states[index].is_stop))..=index];
        let is_last = may_be.iter().any(|state| [0, time].contains(&state.now)) || told_later;
        assert!(is_last, "{context}: the last time that was recorded is forgotten, for {time}");
        self.holds(&found.table, &self.states[index], found.now, context);
        index
    }

    pub fn holds(&self, table: &Table, state: &State, now: u64, context: &str) {
        let held = unexpired(rows(table), now);
        for (key, row) in &held {
            let name = key.escape_ascii();
            assert_eq!(state.rows.get(key).map(told), Some(told(row)), "{context}: {name}");
            assert_eq!(state.rows.get(key), Some(row), "{context}: {name}");
        }
        for (key, row) in &state.rows {
            let may_be_gone = row.is_expired(self.latest.max(now));
            assert!(may_be_gone || held.contains_key(key), "{context}: {} is lost: {}", key.escape_ascii(), told(row));
        }
    }
}

fn told(row: &Row) -> String {
    format!("version {}, {} bytes until {}", row.version, row.value.len(), row.deadline)
}
