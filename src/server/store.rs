//! The store as the server sees it: the engine that evaluates and the log that makes durable, joined.
//!
//! The only place where both are known. Commands are evaluated as they come; their mutations go into the
//! forming batch; while one batch is in flight the next one forms, so that however many commands come during
//! a sync, they cost one more. Knows neither peers nor the wire.

use super::allowance::Bound;
use super::clock::Moment;
use super::compaction::Compaction;
use super::progress::{Durable, Progress, Wait};
use super::reception::{Answers, MOST_FORMING};
use super::steps::Steps;
use crate::command::{Answerer, Command, ErrorCode, Expiry, Order, Reply};
use crate::engine::{BatchId, Engine, Evaluation, View};
use crate::log::{Batch, Event, Log, LogError, Shortage, SyncPolicy, Tally};
use crate::table::{Departure, Entry, Swept};
use crate::timeline::Time;
use std::time::{Duration, Instant};

/// Slots looked at between two looks at the time: when each of them is the last of its page of memory, which is given
/// back then, it takes 6 µs.
const EFFORT: usize = 64;
/// How often it is looked whether something has expired.
const EXPIRY_EVERY: Duration = Duration::from_millis(100);

/// Bytes that a record has at most beside its key and its value.
const OF_A_RECORD: usize = 64;
/// The longest that removals wait for a compaction which has borrowed their reserve.
const LONGEST_LOAN: Duration = Duration::from_secs(1);
/// Entries evicted at most for one command, which is more than most commands bring.
const EVICTIONS: usize = 64;
/// Entries evicted at most in one pass beside that: after a start with a lower limit, or for a large value.
const EVICTIONS_OF_UPKEEP: usize = 1000;

/// What the log had to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// More is durable than before.
    pub advanced: bool,
    /// The batch in flight was refused for want of room, and with it everything that was evaluated since.
    pub refused: bool,
    /// What there is not enough of, if it was the first one since there was room.
    pub newly_full: Option<Shortage>,
    /// Of so many batches there is no proof, for want of room.
    pub unproven: Option<u64>,
}

/// A store that serves.
pub(super) struct Store {
    engine: Engine,
    log: Log,
    compaction: Compaction,
    /// One time for all commands of a pass.
    moment: Moment,
    steps: Steps,
    /// How much a pass sweeps of what was flushed, and again how much it removes of what has expired.
    bound: Bound,
    progress: Progress,
    /// The batch whose sync compaction waits for.
    settling: Option<BatchId>,
    /// The newest batch that is committed, and not in the table yet.
    unfolded: Option<BatchId>,
    forming: Batch,
    /// What the batch in flight adds to the log.
    in_flight: Addition,
    /// Until when the forming batch is held up, so that compaction keeps pace with writers.
    held_until: Option<Instant>,
    /// The batch that came back from the log, empty, to be the next one that forms.
    spare: Batch,
    /// Whether the disk has no room for writes.
    full: bool,
    /// Whether the log is as large as it may be.
    at_limit: bool,
    /// When it is to be looked whether something has expired.
    next_expiry: Instant,
    /// Keys that were removed because they had expired.
    expired: u64,
    /// The newest flush whose sweep somebody waits for.
    awaited: u64,
}

/// What a batch adds to the log.
#[derive(Clone, Copy, Debug, Default)]
struct Addition {
    first_version: u64,
    length: u64,
    tally: Tally,
}

impl Store {
    /// Joins an engine, a log whose thread was started and that recorded `last`, and its compaction.
    pub fn new(
        engine: Engine,
        log: Log,
        compaction: Compaction,
        moment: Moment,
        last: Option<Time>,
        policy: SyncPolicy,
    ) -> Store {
        Store {
            engine,
            log,
            compaction,
            moment,
            steps: Steps::new(moment, last),
            bound: Bound::TIMED,
            progress: Progress::new(policy == SyncPolicy::Always),
            settling: None,
            unfolded: None,
            forming: Batch::default(),
            in_flight: Addition::default(),
            held_until: None,
            spare: Batch::default(),
            full: false,
            at_limit: false,
            next_expiry: moment.instant,
            expired: 0,
            awaited: 0,
        }
    }

    /// Begins a pass.
    pub fn begin(&mut self, moment: Moment) {
        self.moment = moment;
        self.engine.begin_turn();
        self.steps.look_if_due(moment);
    }

    /// Whether no more commands should be read until the batch in flight is through.
    pub fn congested(&self) -> bool {
        (self.progress.in_flight() || self.held_until.is_some()) && self.forming.byte_len() >= MOST_FORMING
    }

    /// Whether everything that was evaluated is decided, and every sync that was asked for is done.
    pub fn settled(&self) -> bool {
        !self.progress.in_flight() && self.forming.is_empty() && !self.progress.syncing()
    }

    /// Takes in what the log reports. When a batch is through, the log is given the next one first.
    ///
    /// # Errors
    /// The log has failed: nothing that waits may be acknowledged any more.
    pub fn hear(&mut self) -> Result<Heard, LogError> {
        let (mut heard, now) = (Heard::default(), self.moment.instant);
        while let Some(event) = self.log.event() {
            match event {
                Event::Committed { batch, segment, length } => {
                    self.spare = batch;
                    crate::fault::at("commit-heard").map_err(LogError::io("confirm", "a batch"))?;
                    self.steps.committed();
                    let Addition { first_version, tally, .. } = self.in_flight;
                    self.compaction.appended(segment, first_version, length, tally, now);
                    if let Some(number) = self.progress.committed() {
                        self.unfolded = Some(number);
                        self.submit(false);
                    }
                    heard.advanced = true;
                }
                Event::Refused { shortage, .. } => {
                    // The batch before it may have been heard of in the same breath, and is not to go with it.
                    self.fold();
                    // What has formed meanwhile was evaluated on top of what was refused, and is.
                    self.forming = Batch::default();
                    self.engine.refuse();
                    self.progress.refused();
                    self.steps.refused(self.in_flight.tally == Tally::default());
                    if !std::mem::replace(&mut self.full, true) {
                        heard.newly_full = Some(shortage);
                    }
                    heard.refused = true;
                }
                Event::RoomAgain => {
                    self.full = false;
                    self.steps.room_again();
                }
                Event::Lent(lends) => self.compaction.lent(lends, now),
                Event::Synced { is_proven } => {
                    heard.unproven = self.progress.synced(is_proven).or(heard.unproven);
                    heard.advanced = true;
                }
                Event::Failed(error) => return Err(error),
            }
        }
        self.engine.set_full(self.full);
        Ok(heard)
    }

    /// Moves what was committed into the table. To be called after [`Store::hear`] and before anything else is asked of
    /// the store; replies that are on their way already need not wait for it.
    pub fn fold(&mut self) {
        if let Some(number) = self.unfolded.take() {
            let compaction = &mut self.compaction;
            self.engine.commit(number, &mut |entry, _| compaction.died(entry));
        }
    }

    /// Lets compaction have its turn: answers its questions, and begins the next one if it is time.
    ///
    /// # Errors
    /// The log has failed, as in [`Store::hear`].
    pub fn tend(&mut self) -> Result<(), LogError> {
        let now = self.moment.instant;
        self.compaction.hear(self.engine.table(), now)?;
        if self.compaction.begins_to_settle() {
            self.settling = Some(self.progress.want_committed_synced());
        }
        if self.settling.take_if(|batch| *batch <= self.progress.durable().synced).is_some() {
            self.compaction.settled(self.log.durable_version());
        }
        self.compaction.tend(self.engine.table(), now, self.full);
        if self.full
            && let Some(bytes) = self.compaction.borrows()
        {
            self.log.lend(bytes);
        }
        if self.compaction.returns() {
            self.log.take_back();
        }
        let at_limit = self.compaction.is_at_limit(self.unaccounted());
        if at_limit && !self.at_limit {
            tracing::warn!(
                "the log is as large as --max-log-size allows: writes are refused until there is room again"
            );
        }
        self.at_limit = at_limit;
        Ok(())
    }

    /// Bytes that are on their way into the log and not in its accounts yet.
    fn unaccounted(&self) -> u64 {
        let in_flight = if self.progress.in_flight() { self.in_flight.length } else { 0 };
        in_flight + self.forming.byte_len() as u64
    }

    /// Whether the log may not take what a command would store.
    fn is_beyond_log_limit(&mut self, command: &Command<'_>) -> bool {
        if !self.compaction.has_limit() {
            return false;
        }
        let Some(growth) = self.engine.growth(command) else { return false };
        let more = self.unaccounted() + (growth.entries * OF_A_RECORD + growth.bytes) as u64;
        self.compaction.is_at_limit(more)
    }

    /// How long it may be until there is something to do although nothing happens.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let held = self.held_until.map(|until| until.saturating_duration_since(now));
        let compaction = self.compaction.wait(self.engine.table(), now);
        let step = Some(self.steps.wait(now));
        held.into_iter().chain(compaction).chain(self.until_upkeep(now)).chain(step).min()
    }

    /// Gives the log what it may begin now: the forming batch if none is in flight, a sync if one is wanted.
    ///
    /// `alone` is whether nobody but the one who waits for this batch is about: then it is committed before this returns,
    /// since to hand it over and be told would take longer, and there is nobody whose reads could wait. Only where a commit
    /// is a sync. Returns whether there is something to hear.
    pub fn submit(&mut self, alone: bool) -> bool {
        let mut committed_here = false;
        if self.forming.is_empty() && self.steps.wants_mark() && !self.progress.in_flight() {
            self.forming = Batch::mark();
        }
        if !self.progress.in_flight() && (self.forming.is_mark() || !self.forming.is_empty() && !self.is_held_up()) {
            let batch = &self.forming;
            let length = batch.byte_len() as u64;
            // A mark has no version of its own: those that follow it have this one, or a later one.
            let first_version = if batch.is_mark() { self.engine.next_version() } else { batch.first_version() };
            self.in_flight = Addition { first_version, length, tally: batch.tally() };
            let mut batch = std::mem::replace(&mut self.forming, std::mem::take(&mut self.spare));
            self.progress.submitted(self.engine.close_batch());
            batch.stamp(self.moment.time, self.engine.next_version());
            self.steps.submitted();
            committed_here = alone && self.progress.commits_sync();
            if committed_here {
                self.log.commit_here(batch, self.moment.instant);
            } else {
                self.log.submit(batch);
            }
        }
        if self.progress.begin_sync() {
            self.log.sync();
        }
        committed_here
    }

    /// Whether the forming batch waits, so that the log does not outgrow its bound. Removals wait only for their reserve, where
    /// that is lent.
    fn is_held_up(&mut self) -> bool {
        let now = self.moment.instant;
        let delay = if self.forming.frees_room() {
            self.compaction.has_borrowed().then_some(LONGEST_LOAN)
        } else {
            self.compaction.delay(self.forming.byte_len() as u64)
        };
        self.held_until = match (delay, self.held_until) {
            (None, _) => None,
            (Some(delay), None) => Some(now + delay),
            (Some(_), Some(until)) if until > now => Some(until),
            // It has waited long enough. The next one waits anew.
            (Some(_), Some(_)) => {
                self.held_until = None;
                return false;
            }
        };
        self.held_until.is_some()
    }

    /// Sweeps some of what was flushed and removes some of what has expired, for a bounded time. `ended` is told of
    /// each flush that is through.
    pub fn upkeep(&mut self, mut ended: impl FnMut(Swept)) {
        if self.engine.table().sweeping().is_some() {
            let mut allowance = self.bound.begin();
            while self.engine.table().sweeping().is_some() && allowance.take() {
                let compaction = &mut self.compaction;
                if let Some(swept) = self.engine.sweep(EFFORT, &mut |entry, _| compaction.died(entry)) {
                    ended(swept);
                }
            }
        }
        if self.engine.is_over_memory() && !self.congested() && !self.full {
            let forming = &mut self.forming;
            self.engine.evict(EVICTIONS_OF_UPKEEP, &mut |version, mutation| {
                forming.push(version, mutation);
                forming.end_group();
            });
        }
        self.engine.keep_probation(EVICTIONS_OF_UPKEEP);
        if self.engine.table().expiring() > 0 {
            let mut allowance = self.bound.begin();
            let Store { engine, compaction, expired, moment, next_expiry, .. } = self;
            let mut departed = |entry: &Entry, departure| {
                *expired += u64::from(departure == Departure::Expired);
                compaction.died(entry);
            };
            while *next_expiry <= moment.instant && allowance.take() {
                if !engine.expire(moment.time.now, EFFORT, &mut departed) {
                    *next_expiry = moment.instant + EXPIRY_EVERY;
                }
            }
        }
    }

    /// How long a wait may be, for [`Store::upkeep`] to go on.
    fn until_upkeep(&self, now: Instant) -> Option<Duration> {
        let table = self.engine.table();
        if table.sweeping().is_some() {
            return Some(Duration::ZERO);
        }
        if self.engine.is_over_memory() && !self.progress.in_flight() && !self.full {
            return Some(Duration::ZERO);
        }
        (table.expiring() > 0).then(|| self.next_expiry.saturating_duration_since(now))
    }

    /// Whether somebody may wait for a sweep.
    pub fn sweep_is_awaited(&self) -> bool {
        self.engine.table().sweeping().is_some_and(|oldest| oldest <= self.awaited)
    }

    /// Ends the log as a clean stop does. To be called when settled.
    ///
    /// # Errors
    /// The log could not be synced or marked. Every reply that left stays true where the policy is `always`.
    pub fn finish(self) -> Result<(), LogError> {
        self.log.finish(self.moment.time, self.engine.next_version())
    }
}

impl Answers for Store {
    fn foresee(&self, command: &Command<'_>) {
        self.engine.foresee(command);
    }

    fn answer(&mut self, command: &Command<'_>, view: View, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait {
        match command.class().answerer {
            Answerer::Store(Order::Sync) => {
                // The last version handed out: all before it in arrival order have one up to it.
                encode(&Reply::Number(self.engine.next_version().saturating_sub(1).cast_signed()));
                self.progress.want_proof(!self.forming.is_empty())
            }
            Answerer::Store(Order::Compact) => {
                self.compaction.begin_full_run(self.moment.instant);
                encode(&Reply::Done);
                Wait::NOTHING
            }
            Answerer::Engine | Answerer::Server(_) => {
                // The wall clock has to be known then.
                if matches!(command.class().expiry, Expiry::At(_)) {
                    self.steps.look(self.moment);
                }
                if self.is_beyond_log_limit(command) {
                    let message =
                        "this would lead beyond --max-log-size: only removals, and what is smaller, are taken";
                    encode(&Reply::Error(ErrorCode::NoSpace, message.into()));
                    // What is pending takes part of the room, and may never have been.
                    return self.engine.newest_pending().map_or(Wait::NOTHING, Wait::commit);
                }
                let forming = &mut self.forming;
                let Evaluation { reply, after, sweep } =
                    self.engine.evaluate(command, self.moment.time, view, &mut |version, mutation| {
                        forming.push(version, mutation);
                    });
                encode(&reply);
                if self.engine.is_over_memory() {
                    self.engine.evict(EVICTIONS, &mut |version, mutation| forming.push(version, mutation));
                }
                self.forming.end_group();
                self.awaited = self.awaited.max(sweep.unwrap_or(0));
                Wait { sweep, ..after.map_or(Wait::NOTHING, Wait::commit) }
            }
        }
    }

    fn durable(&self) -> Durable {
        self.progress.durable()
    }

    fn forming(&self) -> usize {
        self.forming.byte_len()
    }

    fn figures(&self, into: &mut Vec<(&'static str, String)>) {
        let table = self.engine.table();
        let (memory_limit, evicted) = self.engine.memory();
        let durable = self.progress.durable();
        into.extend([
            ("keys", table.len().to_string()),
            ("keys_with_deadline", table.expiring().to_string()),
            ("keys_expired", self.expired.to_string()),
            ("memory_bytes", table.memory().to_string()),
            ("max_memory_bytes", memory_limit.bytes.to_string()),
            ("evicted_keys", evicted.to_string()),
            ("get_hits", self.engine.lookups().hits().to_string()),
            ("get_misses", self.engine.lookups().misses().to_string()),
            ("next_version", self.engine.next_version().to_string()),
            ("batches_committed", durable.committed.to_string()),
            ("batches_synced", durable.synced.to_string()),
            ("forming_bytes", self.forming.byte_len().to_string()),
        ]);
        into.extend(self.log.stats());
        self.compaction.figures(into);
    }
}

/// What a simulation has to know and to say.
#[cfg(test)]
impl Store {
    pub fn with_bound(mut self, bound: Bound) -> Store {
        self.bound = bound;
        self.compaction = self.compaction.with_bound(bound);
        self
    }

    pub fn table(&self) -> &crate::table::Table {
        self.engine.table()
    }

    pub fn compaction(&self) -> &Compaction {
        &self.compaction
    }

    /// Whether a TOUCH is pending, so that reads of what has expired wait for it.
    pub fn is_touching(&self) -> bool {
        self.engine.is_touching()
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;
    use crate::command::{Limits, SetOptions};
    use crate::log::budget::Budget;
    use crate::log::compactor::Compactor;
    use crate::log::fs::{FakeDisk, FaultPlan};
    use crate::log::{Ledger, LogOptions, Progress as Reading, Secret, Unread};
    use crate::mutation::Key;
    use crate::table::Table;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    /// A store on an empty disk, and what wakes it.
    fn store(disk: &FakeDisk) -> (Store, Receiver<()>) {
        let options = LogOptions { segment_size: 8192, sync: SyncPolicy::Always, threads: 1 };
        let unread = Unread::open(Arc::new(disk.clone()), options).unwrap();
        let (ready, _) = unread.replay(&Reading::default(), &|_| ()).unwrap();
        let (ring, woken) = channel();
        let (budget, rate) = (Budget { segment_size: 8192, max_log_size: u64::MAX }, u64::MAX);
        let compactor = ready.compactor(|| ()).unwrap();
        let compaction = Compaction::new(compactor, ready.ledger(), budget, rate, Instant::now());
        let log = ready.start(move || ring.send(()).unwrap()).unwrap();
        let engine = Engine::new(Table::new(1), 1, Limits::default());
        (Store::new(engine, log, compaction, Clock::start(None).moment(), None, SyncPolicy::Always), woken)
    }

    fn set(store: &mut Store, key: &str, value: &[u8]) -> Wait {
        let key = Key::bytes(key.as_bytes());
        let command = Command::Set { key, value: value.into(), options: SetOptions::default() };
        store.answer(&command, View::Durable, &mut |_| ())
    }

    fn holds(store: &Store, key: &str) -> bool {
        let table = store.engine.table();
        table.get(table.probe(Key::bytes(key.as_bytes()))).is_some()
    }

    #[test]
    fn removals_wait_for_a_reserve_that_is_lent_and_not_for_ever() {
        let (mut store, woken) = store(&FakeDisk::new());
        let commit = |store: &mut Store| {
            woken.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(store.hear().unwrap().advanced);
            store.fold();
        };
        let remove = |store: &mut Store, key: &str| {
            let keys = vec![Key::bytes(key.as_bytes())];
            store.answer(&Command::Delete { keys }, View::Durable, &mut |_| ());
            store.submit(false);
        };
        set(&mut store, "one", b"v");
        set(&mut store, "other", b"v");
        store.submit(false);
        commit(&mut store);
        let begun = store.moment;
        let at = |passed| Moment { instant: begun.instant + passed, ..begun };
        store.compaction.lent(true, begun.instant);
        remove(&mut store, "one");
        // Batches, the one that forms included.
        let forming = |store: &Store| store.progress.forming();
        assert_eq!((forming(&store), store.held_until), (2, Some(at(LONGEST_LOAN).instant)));
        store.begin(at(LONGEST_LOAN / 2));
        store.submit(false);
        assert_eq!(forming(&store), 2);
        store.begin(at(LONGEST_LOAN));
        store.submit(false);
        assert_eq!(forming(&store), 3, "it has waited long enough");
        commit(&mut store);
        remove(&mut store, "other");
        assert_eq!(forming(&store), 3);
        // It is back before that.
        store.compaction.lent(false, begun.instant);
        store.submit(false);
        assert_eq!((forming(&store), store.held_until), (4, None));
        commit(&mut store);
        assert!(!holds(&store, "one") && !holds(&store, "other"));
    }

    #[test]
    fn the_limit_of_the_log_holds_for_what_would_break_it_and_the_refusal_waits_for_what_is_pending() {
        let (store, _woken) = store(&FakeDisk::new());
        let limited = |max_log_size| {
            let budget = Budget { segment_size: 8192, max_log_size };
            let compactor = Compactor::start(Arc::new(FakeDisk::new()), Secret::new(1), || ()).unwrap();
            Compaction::new(compactor, Ledger::default(), budget, u64::MAX, Instant::now())
        };
        let mut store = Store { compaction: limited(6 * 8192), ..store };
        let mut asked = |key: &'static str, length: usize| {
            let value = vec![7; length];
            let command = Command::Set {
                key: Key::bytes(key.as_bytes()),
                value: value[..].into(),
                options: SetOptions::default(),
            };
            let mut refused = false;
            let wait = store.answer(&command, View::Durable, &mut |reply| {
                refused = matches!(reply, Reply::Error(ErrorCode::NoSpace, why) if why.contains("--max-log-size"));
            });
            (refused, wait)
        };
        // Two segments are for data.
        assert_eq!(asked("large", 20 << 20), (true, Wait::NOTHING));
        assert_eq!(asked("small", 12_000), (false, Wait::commit(1)));
        assert_eq!(asked("another", 12_000), (true, Wait::commit(1)), "because of what is pending");
        assert_eq!(asked("smaller", 100), (false, Wait::commit(1)));
    }

    #[test]
    fn what_was_committed_survives_a_refusal_heard_in_the_same_breath() {
        let disk = FakeDisk::new();
        let (mut store, woken) = store(&disk);
        set(&mut store, "committed", b"v");
        store.submit(false);
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        // Formed meanwhile, and larger than what the disk will have room for.
        let refused = set(&mut store, "refused", &vec![7; 60_000]);
        disk.plan(FaultPlan { capacity: Some(0), ..FaultPlan::default() });
        let mut heard = Heard::default();
        while !heard.refused {
            heard = store.hear().unwrap();
        }
        store.fold();
        assert!(holds(&store, "committed") && !holds(&store, "refused"));
        assert!(!Answers::durable(&store).covers(refused));
    }
}
