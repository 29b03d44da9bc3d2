//! The log thread: group commit off the engine's thread, so that reads go on while a sync runs.
//!
//! Knows when to sync and what to tell whom. Does not know the order of file operations ([`super::writer`]) or who is
//! waiting for a batch.
//!
//! While one batch is written and synced the next one forms at the caller's; that is the whole of group commit.
//! One batch is here at a time, so that a batch which finds no room takes down exactly what was evaluated on top of it.

use super::batch::Batch;
use super::error::LogError;
use super::policy::SyncPolicy;
use super::writer::{AppendError, Writer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a full disk is looked at for new room.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

/// What the log thread reports.
#[derive(Debug)]
pub enum Event {
    /// The submitted batch is committed as the policy wants it.
    Committed {
        /// It comes back empty, for reuse.
        batch: Batch,
        /// Number of the segment that it is in.
        segment: u64,
    },
    /// There was no room for the submitted batch; nothing of it will ever be in the log. Until
    /// [`Event::RoomAgain`] only batches that remove find room.
    Refused(Batch),
    /// There is room again for batches that store.
    RoomAgain,
    /// The sync that was asked for is done: every batch committed before it is on disk.
    Synced,
    /// Nothing more can be promised: acknowledge nothing and exit non-zero.
    Failed(LogError),
}

enum Request {
    Append(Batch),
    Sync,
    Finish { now: u64, next_version: u64 },
}

/// Counters that the thread keeps, for whoever shows them.
#[derive(Debug, Default)]
struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    refused: AtomicU64,
    active_segment: AtomicU64,
    durable_version: AtomicU64,
}

/// The handle of the log thread. It is ended by [`Log::finish`], or left behind when the process exits.
#[derive(Debug)]
pub struct Log {
    requests: Sender<Request>,
    events: Receiver<Event>,
    counters: Arc<Counters>,
    thread: JoinHandle<Result<(), LogError>>,
}

impl Log {
    /// Starts the thread. `wake` is called after each event was queued, on the log thread.
    ///
    /// # Errors
    /// What the system says when it can't make a thread.
    pub fn start(writer: Writer, policy: SyncPolicy, wake: impl Fn() + Send + 'static) -> std::io::Result<Log> {
        let (requests, received) = channel();
        let (reports, events) = channel();
        let counters = Arc::new(Counters::default());
        let mut committer = Committer {
            writer,
            policy,
            counters: Arc::clone(&counters),
            report: move |event| {
                // Nobody listens any more when the process is on its way out.
                let _ = reports.send(event);
                wake();
            },
            sync_due: None,
            full: false,
        };
        committer.publish();
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || committer.run(&received))?;
        Ok(Log { requests, events, counters, thread })
    }

    /// Hands a batch over, stamped. One at a time: not before the event of the last one.
    pub fn submit(&mut self, batch: Batch) {
        self.request(Request::Append(batch));
    }

    /// Asks for a sync of everything submitted before, whatever the policy. [`Event::Synced`] answers.
    pub fn sync(&mut self) {
        self.request(Request::Sync);
    }

    /// The next event, if there is one. Never blocks. A thread that ended without being asked to is an
    /// [`Event::Failed`].
    pub fn event(&mut self) -> Option<Event> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(Event::Failed(LogError::ThreadGone)),
        }
    }

    /// After the last batch's event: syncs, marks an orderly stop and ends the thread.
    ///
    /// # Errors
    /// What kept the log from being finished. What was acknowledged is safe all the same.
    pub fn finish(self, now: u64, next_version: u64) -> Result<(), LogError> {
        self.request(Request::Finish { now, next_version });
        self.thread.join().unwrap_or(Err(LogError::ThreadGone))
    }

    /// Figures for `STATS`, each a name and a value.
    pub fn stats(&self) -> Vec<(&'static str, String)> {
        let counters = &self.counters;
        [
            ("log_batches", &counters.batches),
            ("log_bytes_written", &counters.bytes),
            ("log_syncs", &counters.syncs),
            ("log_batches_refused", &counters.refused),
            ("log_active_segment", &counters.active_segment),
            ("durable_version", &counters.durable_version),
        ]
        .map(|(name, value)| (name, value.load(Ordering::Relaxed).to_string()))
        .to_vec()
    }

    fn request(&self, request: Request) {
        // If the thread is gone, `event` and `finish` say so.
        let _ = self.requests.send(request);
    }
}

/// The thread's own state.
struct Committer<R> {
    writer: Writer,
    policy: SyncPolicy,
    counters: Arc<Counters>,
    report: R,
    /// When what was written must be synced.
    sync_due: Option<Instant>,
    /// Whether a batch found no room, and nothing was found since.
    full: bool,
}

impl<R: Fn(Event)> Committer<R> {
    fn run(&mut self, requests: &Receiver<Request>) -> Result<(), LogError> {
        // The reserve is there before the first batch, so that it can be emptied whatever others store on this disk.
        match self.writer.make_room() {
            Ok(room) => self.full = !room,
            Err(error) => {
                (self.report)(Event::Failed(error));
                return Ok(());
            }
        }
        loop {
            let step = match self.wait(requests) {
                Ok(Request::Append(batch)) => self.append(batch),
                Ok(Request::Sync) => self.sync().map(|()| (self.report)(Event::Synced)),
                Ok(Request::Finish { now, next_version }) => return self.finish(now, next_version),
                Err(RecvTimeoutError::Timeout) => self.on_time(),
                // The daemon is gone without an orderly stop; the log is right as it is.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if let Err(error) = step {
                (self.report)(Event::Failed(error));
                return Ok(());
            }
        }
    }

    fn wait(&self, requests: &Receiver<Request>) -> Result<Request, RecvTimeoutError> {
        let now = Instant::now();
        let until_sync = self.sync_due.map(|due| due.saturating_duration_since(now));
        let until_room = self.full.then_some(ROOM_INTERVAL);
        match until_sync.into_iter().chain(until_room).min() {
            Some(timeout) => requests.recv_timeout(timeout),
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn append(&mut self, mut batch: Batch) -> Result<(), LogError> {
        let length = batch.byte_len() as u64;
        let committed = match self.writer.append(&mut batch) {
            Ok(()) => {
                let due = self.policy.due(Instant::now());
                if self.policy == SyncPolicy::Always {
                    self.sync()?;
                } else {
                    self.sync_due = self.sync_due.or(due);
                    self.sync_if_due()?;
                }
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes.fetch_add(length, Ordering::Relaxed);
                true
            }
            Err(AppendError::NoSpace) => {
                self.full = true;
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(AppendError::Fatal(error)) => return Err(error),
        };
        batch.clear();
        self.publish();
        let segment = self.writer.active_number();
        (self.report)(if committed { Event::Committed { batch, segment } } else { Event::Refused(batch) });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if self.writer.is_dirty() {
            self.writer.sync()?;
            self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            self.publish();
        }
        self.sync_due = None;
        Ok(())
    }

    fn sync_if_due(&mut self) -> Result<(), LogError> {
        if self.sync_due.is_some_and(|due| due <= Instant::now()) { self.sync() } else { Ok(()) }
    }

    fn on_time(&mut self) -> Result<(), LogError> {
        self.sync_if_due()?;
        if self.full && self.writer.make_room()? {
            self.full = false;
            (self.report)(Event::RoomAgain);
        }
        Ok(())
    }

    fn publish(&self) {
        self.counters.active_segment.store(self.writer.active_number(), Ordering::Relaxed);
        self.counters.durable_version.store(self.writer.durable().version, Ordering::Relaxed);
    }

    fn finish(&mut self, now: u64, next_version: u64) -> Result<(), LogError> {
        self.writer.finish(now, next_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fs::{FakeDisk, FaultPlan};
    use crate::mutation::{Key, Mutation};

    #[test]
    fn room_is_looked_for_after_any_refusal() {
        let disk = FakeDisk::new();
        let writer = Writer::create(Arc::new(disk.clone()), 8192, 1).expect("a new store");
        let (rung, woken) = channel();
        let mut log = Log::start(writer, SyncPolicy::Always, move || rung.send(()).expect("a test that listens"))
            .expect("a thread");
        let next = |log: &mut Log| {
            woken.recv_timeout(Duration::from_secs(60)).expect("an event in time");
            log.event().expect("the event")
        };
        // Only a removal, and too large for the reserve.
        let mut batch = Batch::default();
        batch.push(1, &Mutation::Remove { key: Key::bytes(&vec![7; 60_000]) });
        batch.stamp(1, 2);
        disk.plan(FaultPlan { capacity: Some(0), ..FaultPlan::default() });
        log.submit(batch);
        assert!(matches!(next(&mut log), Event::Refused(_)));
        disk.plan(FaultPlan::default());
        assert!(matches!(next(&mut log), Event::RoomAgain));
    }
}
