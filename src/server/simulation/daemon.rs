//! A daemon that serves on a fake disk, without a process: the server's own passes, with the work of the other threads done
//! when it is somebody's turn to do it.
//!
//! The compaction thread is a real one, and runs only while everybody else waits for it.

use super::network::Network;
use crate::command::Limits;
use crate::engine::{Engine, MemoryLimit};
use crate::log::budget::Budget;
use crate::log::compactor::{Compactor, UNPACED};
use crate::log::fs::FakeDisk;
use crate::log::{Log, LogError, LogOptions, Progress, Stepper, SyncPolicy, Unread};
use crate::server::allowance::Bound;
use crate::server::clock::Moment;
use crate::server::compaction::{Compaction, account};
use crate::server::reception::{Answers as _, Reception};
use crate::server::retry::Retry;
use crate::server::store::Store;
use crate::server::{ServeError, pass, settle};
use crate::table::{Replay, Table};
use crate::timeline::Time;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How it is configured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub sync: SyncPolicy,
    pub segment_size: u64,
    pub max_log_size: u64,
    /// Bytes for entries, beyond which they are evicted.
    pub memory: usize,
    /// How much work of a kind a pass does.
    pub steps: usize,
    pub most_backlog: usize,
}

/// A key's value, flags, deadline and version.
type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u32, u64, u64)>;

pub struct Daemon {
    reception: Reception<Network>,
    store: Store,
    retry: Retry,
    log: Stepper<Box<dyn Fn()>>,
    /// Whether the log or compaction has something to say.
    something_to_hear: Rc<Cell<bool>>,
    compaction: Receiver<()>,
    heard_of_compaction: u64,
    /// T and the time of the run when it was started.
    started: (u64, Instant),
    settings: Settings,
}

impl Daemon {
    /// Starts on what is there. `wall` is what the clock on the wall says, in Unix milliseconds.
    ///
    /// # Errors
    /// It refuses to.
    pub fn start(
        disk: &FakeDisk,
        settings: Settings,
        network: &Network,
        wall: u64,
        now: Instant,
    ) -> Result<Daemon, LogError> {
        let Settings { sync, segment_size, max_log_size, memory, steps, most_backlog } = settings;
        let unread = Unread::open(Arc::new(disk.clone()), LogOptions { segment_size, sync, threads: 1 })?;
        let secret = unread.secret();
        let replay = Replay::new(secret.expose());
        let (ready, recovered) = unread.replay(&Progress::default(), &|chunk| replay.apply(chunk))?;
        let time = Time::at_start(recovered.time.unwrap_or_default(), wall);
        let table = replay.finish(time.now, 1);
        let mut ledger = ready.ledger();
        account(&mut ledger, &table, 1);
        let limit = MemoryLimit { bytes: Table::new(0).memory().saturating_add(memory), evicts: true };
        let engine = Engine::new(table, recovered.next_version, Limits::default()).with_memory_limit(limit, 1);

        let (ring, compaction) = channel();
        let compactor =
            Compactor::start_breathless(Arc::new(disk.clone()), secret, move || ring.send(()).unwrap_or_default())
                .expect("a thread");
        let budget = Budget { segment_size, max_log_size };
        let moment = Moment { instant: now, time };
        let bound = Bound::counted(steps);
        let something_to_hear = Rc::new(Cell::new(false));
        let told = Rc::clone(&something_to_hear);
        let (log, stepper) = Log::stepped(ready.into_writer(), sync, Box::new(move || told.set(true)) as Box<dyn Fn()>);
        let store = Store::new(
            engine,
            log,
            Compaction::new(compactor, ledger, budget, UNPACED, now),
            moment,
            recovered.time,
            sync,
        );
        Ok(Daemon {
            reception: Reception::open(network.clone(), Limits::default(), most_backlog, now),
            store: store.with_bound(bound),
            retry: Retry::new(),
            log: stepper,
            something_to_hear,
            compaction,
            heard_of_compaction: 0,
            started: (time.now, now),
            settings,
        })
    }

    fn moment(&self, now: Instant, wall: u64) -> Moment {
        Moment { instant: now, time: Time::new(self.now(now), wall) }
    }

    /// T.
    fn now(&self, now: Instant) -> u64 {
        let (started, instant) = self.started;
        started + now.saturating_duration_since(instant).as_millis() as u64
    }

    /// One pass of the engine's thread, and what compaction does because of it.
    ///
    /// # Errors
    /// The daemon ends.
    pub fn pass(&mut self, now: Instant, wall: u64) -> Result<(), ServeError> {
        let moment = self.moment(now, wall);
        let something_to_hear = self.something_to_hear.take();
        pass(&mut self.reception, &mut self.store, &mut self.retry, something_to_hear, moment)?;
        while self.heard_of_compaction < self.store.compaction().reports_due() && self.compaction.recv().is_ok() {
            self.heard_of_compaction += 1;
            self.something_to_hear.set(true);
        }
        Ok(())
    }

    /// Whether a TOUCH is pending, so that reads of what has expired wait for it.
    pub fn is_touching(&self) -> bool {
        self.store.is_touching()
    }

    /// Whether the last pass left something for the next one that had arrived.
    pub fn is_amid(&self) -> bool {
        self.reception.is_amid()
    }

    /// The log's thread does the next thing.
    pub fn work(&self, now: Instant) {
        self.log.step(now);
    }

    /// How many segments were compacted away.
    pub fn compactions(&self) -> u64 {
        self.store.compaction().count()
    }

    /// Ends in an orderly way, for which time passes.
    ///
    /// # Errors
    /// It could not.
    pub fn stop(mut self, now: &mut Instant, wall: u64) -> Result<(), ServeError> {
        let (mut moment, log) = (self.moment(*now, wall), &self.log);
        settle(&mut self.reception, &mut self.store, &mut |_| {
            log.step(moment.instant);
            *now += PATIENCE;
            moment.instant += PATIENCE;
            moment.time.now += PATIENCE.as_millis() as u64;
            Ok(moment)
        })?;
        self.reception.release(self.store.durable(), *now)?;
        self.store.finish().map_err(ServeError::LogFailed)
    }

    /// The log replays to the table, where nothing is on its way from one to the other.
    pub fn check_replay(&self, disk: &FakeDisk, now: Instant) {
        if self.something_to_hear.get() || self.store.table().sweeping().is_some() {
            return;
        }
        let options = LogOptions { segment_size: self.settings.segment_size, sync: SyncPolicy::Never, threads: 1 };
        let copy = disk.crash(crate::log::fs::Crash::KeepAll);
        let unread = Unread::open(Arc::new(copy), options).expect("a log");
        let replay = Replay::new(unread.secret().expose());
        unread.replay(&Progress::default(), &|chunk| replay.apply(chunk)).expect("a log without damage");
        let now = self.now(now);
        assert_eq!(rows(self.store.table(), now), rows(&replay.finish(now, 1), now), "the log replays to the table");
    }
}

/// What a table holds that has not expired.
fn rows(table: &Table, now: u64) -> Rows {
    let alive = table.iter().filter(|entry| entry.deadline() == 0 || entry.deadline() > now);
    alive
        .map(|entry| {
            let row = (entry.value().to_vec(), entry.flags(), entry.deadline(), entry.version());
            (entry.key().bytes.to_vec(), row)
        })
        .collect()
}

/// Waits that a daemon has of its own, to be had by letting so much time go by.
pub const PATIENCE: Duration = Duration::from_millis(120);
