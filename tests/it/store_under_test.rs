//! A store on the fake disk, joined as the daemon joins it: what `store_model` drives and `store_judge` judges.

use crate::store_judge::{Found, Model, Rows, State, open, rows, unexpired};
use crate::store_steps::Act;
use kvd::command::Limits;
use kvd::engine::{Engine, MemoryLimit, View};
use kvd::log::compaction::{CompactionError, Fate, Questions, Steward, Stopped, Task, compact};
use kvd::log::fs::{Crash, FakeDisk, FaultPlan, Fs as _};
use kvd::log::recovery::survey;
use kvd::log::segment::file_name;
use kvd::log::victims::{self, Run};
use kvd::log::{AppendError, Batch, Ledger, LogError, Tally, Usage, Writer, record};
use kvd::mutation::Mutation;
use kvd::table::{Entry, Table};
use kvd::wire::frames;

const LIMITS: Limits = Limits { max_value: 4_000 };
/// Later than any clock that this may run on: the headers of segments carry the real time.
const BEGINNING: u64 = 1 << 42;
/// Memory for entries beside what an empty table takes: about ten of those that are stored here.
const MEMORY: usize = 8_000;

/// A store that runs.
pub struct Store {
    pub disk: FakeDisk,
    engine: Engine,
    now: u64,
    /// The wall clock.
    pub wall: u64,
    writer: Writer,
    ledger: Ledger,
    segment_size: u64,
    forming: Batch,
    full: bool,
    plan: FaultPlan,
    model: Model,
}

fn engine_of(table: Table, next_version: u64) -> Engine {
    let limit = MemoryLimit { bytes: Table::new(0).memory() + MEMORY, evicts: true };
    Engine::new(table, next_version, LIMITS).with_memory_limit(limit, 2)
}

impl Store {
    pub fn new(segment_size: u64) -> Store {
        let disk = FakeDisk::new();
        let Found { writer, ledger, table, recovered, .. } = open(&disk, segment_size, |_| BEGINNING).unwrap();
        let first = State { rows: Rows::new(), next_version: 1, now: 0, is_stop: false };
        let model = Model {
            states: vec![first],
            committed: 1,
            durable: 1,
            forming: Rows::new(),
            recorded: 0,
            shown: 0,
            latest: BEGINNING,
            attempts: Vec::new(),
        };
        let engine = engine_of(table, recovered.next_version);
        let (forming, plan) = (Batch::default(), FaultPlan::default());
        let (now, wall, full) = (BEGINNING, BEGINNING, false);
        Store { disk, engine, now, wall, writer, ledger, segment_size, forming, full, plan, model }
    }

    /// Goes on with what a start found, once it was judged. After a kill everything that was committed must be there.
    pub fn adopt(&mut self, disk: FakeDisk, segment_size: u64, found: Found, kill: bool) {
        let least = if kill { self.model.committed } else { self.model.durable };
        let index = self.model.judge(&found, least, "started again");
        let known: Vec<String> = found.ledger.segments().iter().map(|usage| file_name(usage.number)).collect();
        let sealed = |name: &String| *name < file_name(found.writer.active_number()) && !name.contains("torn");
        for name in disk.list().unwrap().iter().filter(|name| sealed(name)) {
            assert!(known.contains(name), "{name} is left over");
        }
        let Found { writer, ledger, table, recovered, now } = found;
        let mut state = self.model.states.swap_remove(index);
        state.now = recovered.time.unwrap_or_default().now;
        self.model = Model {
            forming: state.rows.clone(),
            states: vec![state],
            committed: 1,
            durable: 1,
            recorded: 0,
            latest: self.model.latest.max(now),
            attempts: Vec::new(),
            ..self.model
        };
        (self.disk, self.segment_size, self.plan, self.now) = (disk, segment_size, FaultPlan::default(), now);
        (self.writer, self.ledger, self.engine) = (writer, ledger, engine_of(table, recovered.next_version));
        (self.forming, self.full) = (Batch::default(), false);
        self.is_right("started again");
    }

    /// What a start finds on a disk that was damaged, where so many batches can pass for torn; `None` if it refuses.
    pub fn judge_damaged(&self, disk: &FakeDisk, torn: usize, context: &str) -> Option<usize> {
        let found = open(disk, self.segment_size, |_| self.now).ok()?;
        Some(self.model.judge(&found, self.model.committed.saturating_sub(torn).max(1), context))
    }

    /// The power goes at this operation.
    pub fn power_off_at(&mut self, at: u64) {
        self.plan.power_off_at = Some(at);
        self.disk.plan(self.plan.clone());
    }

    /// # Errors
    /// The disk failed, and the store can't go on.
    pub fn act(&mut self, act: &Act) -> Result<(), LogError> {
        match act {
            Act::Ask(line) => self.ask(line),
            Act::Commit { synced } => self.commit(*synced)?,
            Act::Compact { appetite, wide, meanwhile } => {
                // Neighbours come along that are small beside a segment of this size.
                let size = if *wide { 16 * self.segment_size } else { self.segment_size };
                let (mut from, up_to) = (1, self.sealed().last().map_or(0, |newest| newest.number));
                loop {
                    self.sweep_all();
                    let run = match appetite {
                        Some(appetite) => victims::choose(self.sealed(), size, *appetite),
                        None => victims::next(self.sealed(), size, from, up_to),
                    };
                    let Some(run) = run else { break };
                    self.compact(run, meanwhile)?;
                    from = run.last + 1;
                    if appetite.is_some() {
                        break;
                    }
                }
            }
            Act::Wait(milliseconds) => {
                self.now += milliseconds;
                self.wall += milliseconds;
                self.model.latest = self.model.latest.max(self.now);
            }
            Act::Expire => {
                let Store { engine, ledger, now, .. } = self;
                while engine.expire(*now, 300, &mut |entry, _| died(ledger, entry)) {}
            }
            Act::Sweep(effort) => self.sweep(*effort),
            Act::Evict(most) => self.evict(*most),
            Act::Room(room) => {
                let held =
                    || self.disk.list().unwrap().iter().map(|name| self.disk.file_len(name).unwrap()).sum::<u64>();
                self.plan.capacity = room.map(|more| held() + more as u64);
                self.disk.plan(self.plan.clone());
                self.full = !self.writer.make_room(0)?;
                self.engine.set_full(self.full);
            }
            Act::Stop => {
                self.commit(true)?;
                self.model.attempt(self.engine.next_version(), self.now, true);
                self.writer.finish(self.now, self.engine.next_version())?;
                if self.plan.capacity.is_none() {
                    (self.model.committed, self.model.durable) = (self.model.states.len(), self.model.states.len());
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, line: &str) {
        let words: Vec<String> = line.split(' ').map(spelt_out).collect();
        let frames: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let command = frames::decode(&frames, &LIMITS).unwrap();
        let Store { engine, forming, model, now, .. } = self;
        let mut record = |version, mutation: &Mutation<'_>| {
            forming.push(version, mutation);
            model.record(version, mutation);
        };
        engine.evaluate(&command, *now, View::Pending, &mut record);
        engine.evict(64, &mut record);
        forming.end_group();
    }

    fn evict(&mut self, most: usize) {
        let Store { engine, forming, model, .. } = self;
        engine.evict(most, &mut |version, mutation| {
            forming.push(version, mutation);
            forming.end_group();
            model.record(version, mutation);
        });
    }

    fn sweep(&mut self, effort: usize) {
        let ledger = &mut self.ledger;
        self.engine.sweep(effort, &mut |entry, _| died(ledger, entry));
    }

    /// What is flushed has left the table, and the accounts, only when it was swept.
    fn sweep_all(&mut self) {
        while self.engine.table().sweeping().is_some() {
            self.sweep(5_000);
        }
    }

    fn commit(&mut self, synced: bool) -> Result<(), LogError> {
        if self.forming.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.forming);
        let (first_version, length, tally) = (batch.first_version(), batch.byte_len() as u64, batch.tally());
        let number = self.engine.close_batch();
        batch.stamp(self.now, self.engine.next_version());
        self.model.attempt(self.engine.next_version(), self.now, false);
        match self.writer.append(&mut batch) {
            Ok(()) => {}
            Err(AppendError::Fatal(error)) => return Err(error),
            Err(AppendError::NoSpace(_)) => {
                // It never comes back, in whole or in part.
                self.model.states.pop();
                self.model.forming = self.model.states.last().unwrap().rows.clone();
                self.engine.refuse();
                self.full = true;
                self.engine.set_full(true);
                self.is_right("refused");
                return Ok(());
            }
        }
        if synced {
            self.writer.sync()?;
        }
        self.ledger.appended(self.writer.active_number(), first_version, length, tally);
        let ledger = &mut self.ledger;
        self.engine.commit(number, &mut |entry, _| died(ledger, entry));
        self.model.committed = self.model.states.len();
        self.model.shown = batch.last_version();
        if !self.writer.is_dirty() {
            self.model.durable = self.model.committed;
        }
        self.is_right("committed");
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.writer.sync()?;
        self.model.durable = self.model.committed;
        Ok(())
    }

    fn sealed(&self) -> &[Usage] {
        self.ledger.segments().split_last().map_or(&[], |(_, sealed)| sealed)
    }

    fn compact(&mut self, run: Run, meanwhile: &[(String, bool)]) -> Result<(), LogError> {
        let numbers = self.sealed().iter().map(|usage| usage.number);
        let present: Vec<u64> = numbers.filter(|number| (run.first..=run.last).contains(number)).collect();
        let disk = self.disk.clone();
        let older = self.ledger.older_than(run.first);
        let secret = survey(&disk).unwrap().secret().unwrap();
        let task = Task { run, present, older, secret };
        match compact(&disk, &task, &mut Asked { store: self, meanwhile: meanwhile.iter() }) {
            Ok(outcome) => self.ledger.replaced(run.first, run.last, outcome.length, outcome.tally),
            Err(CompactionError::NoSpace(_) | CompactionError::Stopped) => {}
            Err(CompactionError::Fatal(error)) => return Err(error),
            Err(error @ CompactionError::Spoiled { .. }) => panic!("{run:?}: {error}"),
        }
        self.is_right("compacted");
        let lost = open(&self.disk.crash(Crash::LoseAll), self.segment_size, |_| self.now).unwrap();
        self.model.judge(&lost, self.model.durable, "compacted, and all that was not synced lost");
        Ok(())
    }

    /// The table holds what the model holds; a replay of the log makes the same table; and the accounts are those that it
    /// would make.
    fn is_right(&self, context: &str) {
        let state = &self.model.states[self.model.committed - 1];
        self.model.holds(self.engine.table(), state, self.now, context);
        let found = open(&self.disk.crash(Crash::KeepAll), self.segment_size, |_| self.now)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(self.model.judge(&found, self.model.committed, context) + 1, self.model.committed, "{context}");
        let (held, replayed) = (rows(self.engine.table()), rows(&found.table));
        if held == replayed && self.engine.table().sweeping().is_none() {
            let accounts = |ledger: &Ledger| {
                let known = ledger.segments().iter().filter(|usage| usage.tally != Tally::default());
                known.map(|u| (u.first, u.number, u.tally, u.live, u.live_bytes)).collect::<Vec<_>>()
            };
            assert_eq!(accounts(&self.ledger), accounts(&found.ledger), "{context}");
        }
        assert_eq!(unexpired(held, self.now), replayed, "{context}: a replay is the table");
    }
}

/// A word of a command, where `x*3` is `xxx`.
fn spelt_out(word: &str) -> String {
    word.split_once('*').map_or(word.to_owned(), |(text, times)| text.repeat(times.parse().unwrap()))
}

fn died(ledger: &mut Ledger, entry: &Entry) {
    ledger.died(entry.version(), record::encoded_len(&entry.mutation()));
}

/// Answers a compaction, while commits go on.
struct Asked<'s> {
    store: &'s mut Store,
    meanwhile: std::slice::Iter<'s, (String, bool)>,
}

impl Steward for Asked<'_> {
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped> {
        if let Some((line, synced)) = self.meanwhile.next() {
            self.store.ask(line);
            self.store.commit(*synced).map_err(|_| Stopped)?;
        }
        self.store.sweep_all();
        let table = self.store.engine.table();
        questions.answer(usize::MAX, |key, version| match table.get(table.probe(key)).map(Entry::version) {
            Some(held) if held == version => Fate::Live,
            Some(_) => Fate::Superseded,
            None => Fate::Absent,
        });
        Ok(())
    }

    fn settle(&mut self) -> Result<u64, Stopped> {
        self.store.sync().map_err(|_| Stopped)?;
        Ok(self.store.writer.durable().version)
    }

    fn moved(&mut self, _: u64) -> Result<(), Stopped> {
        Ok(())
    }
}
