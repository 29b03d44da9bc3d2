//! The log thread: commits off the engine's thread, so that reads go on while a sync runs.
//!
//! Knows threads, and what to tell whom. Does not know what a commit is ([`super::committer`]).
//!
//! Where a batch can't be made larger by waiting, because one client alone waits for it, the caller may commit it on its own
//! thread: that spares it two wake-ups.

use super::batch::Batch;
use super::committer::{Committer, Counters, Event, Request};
use super::error::LogError;
use super::policy::SyncPolicy;
use super::writer::Writer;
use crate::timeline::Time;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// The handle of the log thread. It is ended by [`Log::finish`], or left behind when the process exits.
#[derive(Debug)]
pub struct Log {
    requests: Sender<Request>,
    events: Receiver<Event>,
    /// The event of a batch that was committed on the caller's thread.
    event_here: Option<Event>,
    committer: Arc<Mutex<Committer>>,
    counters: Arc<Counters>,
    /// `None` where somebody else does its work, step by step.
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts the thread. `wake` is called after each event was queued, on the log thread.
    ///
    /// # Errors
    /// What the system says when it can't make a thread.
    pub fn start(writer: Writer, policy: SyncPolicy, wake: impl Fn() + Send + 'static) -> std::io::Result<Log> {
        let (log, worker) = Log::joined(writer, policy, wake);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || worker.run())?;
        Ok(Log { thread: Some(thread), ..log })
    }

    /// The handle, and who does the work.
    fn joined<W: Fn()>(writer: Writer, policy: SyncPolicy, wake: W) -> (Log, Worker<W>) {
        let (requests, received) = channel();
        let (reports, events) = channel();
        let counters = Arc::new(Counters::default());
        let committer = Arc::new(Mutex::new(Committer::new(writer, policy, Arc::clone(&counters))));
        let worker = Worker { committer: Arc::clone(&committer), requests: received, reports, wake };
        (Log { requests, events, event_here: None, committer, counters, thread: None }, worker)
    }

    /// Hands a batch over, stamped. One at a time: not before the event of the last one.
    pub fn submit(&mut self, batch: Batch) {
        self.request(Request::Append(batch));
    }

    /// Commits a batch, stamped, on this thread, which waits for the disk meanwhile. Its event is the next one. To be called
    /// where [`Log::submit`] could be.
    pub fn commit_here(&mut self, batch: Batch, now: Instant) {
        let Ok(mut committer) = self.committer.try_lock() else { return self.submit(batch) };
        if !committer.is_sound() {
            // The thread has told why, or is about to.
            return;
        }
        let event = committer.serve(Request::Append(batch), now).unwrap_or_else(|error| Some(Event::Failed(error)));
        if matches!(event, Some(Event::Refused { .. })) {
            // The thread has to look for room from now on.
            self.request(Request::LookAgain);
        }
        self.event_here = event;
    }

    /// Asks for a sync of everything submitted before, whatever the policy, and for proof of it. [`Event::Synced`] answers.
    pub fn sync(&mut self) {
        self.request(Request::Sync);
    }

    /// Asks for so many bytes of the reserve, the most that there are, for a compaction on a disk that is full.
    /// [`Event::Lent`] answers. If there are enough, there is no [`Event::RoomAgain`] before [`Log::take_back`].
    pub fn lend(&mut self, bytes: RangeInclusive<u64>) {
        self.request(Request::Lend(bytes));
    }

    /// What was lent is not needed any more.
    pub fn take_back(&mut self) {
        self.request(Request::TakeBack);
    }

    /// The next event, if there is one. Never blocks. A thread that ended without being asked to is an
    /// [`Event::Failed`].
    pub fn event(&mut self) -> Option<Event> {
        if let Some(event) = self.event_here.take() {
            return Some(event);
        }
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
    pub fn finish(self, time: Time, next_version: u64) -> Result<(), LogError> {
        let Log { requests, events, committer, thread, .. } = self;
        drop(requests);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            return Err(LogError::ThreadGone);
        }
        // A sync that came due meanwhile may have failed, which nobody has heard of yet.
        let failed =
            events.try_iter().find_map(|event| if let Event::Failed(error) = event { Some(error) } else { None });
        match failed {
            Some(error) => Err(error),
            None => locked(&committer).finish(time, next_version),
        }
    }

    /// The highest version known durable.
    pub fn durable_version(&self) -> u64 {
        self.counters.durable_version.load(Ordering::Relaxed)
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

/// Who does what is asked of the log: a thread.
struct Worker<W: Fn()> {
    committer: Arc<Mutex<Committer>>,
    requests: Receiver<Request>,
    reports: Sender<Event>,
    wake: W,
}

impl<W: Fn()> Worker<W> {
    /// What the thread does until nobody can ask for anything any more, or something fails.
    fn run(&self) {
        let mut is_sound = self.begin();
        while is_sound {
            let patience = locked(&self.committer).patience(Instant::now());
            let request = match patience {
                Some(timeout) => self.requests.recv_timeout(timeout),
                None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            is_sound = match request {
                Ok(request) => self.serve(request, Instant::now()),
                Err(RecvTimeoutError::Timeout) => self.serve(Request::LookAgain, Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// What comes before the first batch. Returns whether the log can be relied on.
    fn begin(&self) -> bool {
        let looked = locked(&self.committer).begin();
        self.report(looked.map(|()| None))
    }

    /// Does what is asked. Returns whether the log can be relied on.
    fn serve(&self, request: Request, now: Instant) -> bool {
        let done = locked(&self.committer).serve(request, now);
        self.report(done)
    }

    fn report(&self, done: Result<Option<Event>, LogError>) -> bool {
        let event = done.unwrap_or_else(|error| Some(Event::Failed(error)));
        let is_sound = !matches!(event, Some(Event::Failed(_)));
        if let Some(event) = event {
            // Nobody listens any more when the process is on its way out.
            let _ = self.reports.send(event);
            (self.wake)();
        }
        is_sound
    }
}

impl<W: Fn()> Drop for Worker<W> {
    /// Tells of a panic on the thread. Nobody would be woken by that alone, and who waits for a batch would wait for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report(Err(LogError::ThreadGone));
        }
    }
}

/// Whoever panicked with it has ended the daemon: [`Log::event`] says so.
fn locked(committer: &Mutex<Committer>) -> MutexGuard<'_, Committer> {
    committer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the work of the log's thread step by step, for a simulation.
#[cfg(test)]
pub struct Stepper<W: Fn()>(Worker<W>);

#[cfg(test)]
impl<W: Fn()> Stepper<W> {
    /// Does the next thing that is asked, or else what is due. Returns whether there may be more.
    pub fn step(&self, now: Instant) -> bool {
        self.0.serve(self.0.requests.try_recv().unwrap_or(Request::LookAgain), now)
    }
}

#[cfg(test)]
impl Log {
    /// A log without a thread.
    pub fn stepped<W: Fn()>(writer: Writer, policy: SyncPolicy, wake: W) -> (Log, Stepper<W>) {
        let (log, worker) = Log::joined(writer, policy, wake);
        worker.begin();
        (log, Stepper(worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Secret;
    use crate::log::fs::{FakeDisk, FaultPlan};
    use crate::mutation::{Key, Mutation, Value};
    use std::time::Duration;

    fn writer(disk: &FakeDisk, segment_size: u64) -> Writer {
        Writer::create(Arc::new(disk.clone()), segment_size, 1, Secret::new(2)).expect("a new store")
    }

    fn start(disk: &FakeDisk) -> (Log, Receiver<()>) {
        let writer = writer(disk, 8192);
        let (rung, woken) = channel();
        let wake = move || rung.send(()).expect("a test that listens");
        (Log::start(writer, SyncPolicy::Always, wake).expect("a thread"), woken)
    }

    fn figure(log: &Log, of: &str) -> u64 {
        let figure = log.stats().into_iter().find(|(name, _)| *name == of).expect("a figure").1;
        figure.parse().expect("a number")
    }

    fn put(version: u64) -> Batch {
        let mut batch = Batch::default();
        let value = Value { bytes: b"v", flags: 0, deadline: 0 };
        batch.push(version, &Mutation::Put { key: Key::bytes(b"k"), value });
        batch.end_group();
        batch.stamp(1, version + 1);
        batch
    }

    #[test]
    fn a_batch_can_be_committed_by_whoever_waits_for_it() {
        let disk = FakeDisk::new();
        let (mut log, woken) = start(&disk);
        log.submit(put(1));
        woken.recv_timeout(Duration::from_secs(60)).expect("an event in time");
        assert!(matches!(log.event(), Some(Event::Committed { .. })));
        log.commit_here(put(2), Instant::now());
        assert!(matches!(log.event(), Some(Event::Committed { .. })), "its event is there at once");
        assert!(woken.try_recv().is_err(), "and nobody had to be woken");
        assert_eq!((figure(&log, "log_batches"), figure(&log, "durable_version")), (2, 2));

        // No room: the thread, which did not meet it, looks for it all the same.
        disk.plan(FaultPlan { capacity: Some(0), ..FaultPlan::default() });
        let mut large = put(3);
        large.push(4, &Mutation::Remove { key: Key::bytes(&vec![7; 60_000]) });
        large.stamp(1, 5);
        log.commit_here(large, Instant::now());
        assert!(matches!(log.event(), Some(Event::Refused { .. })));
        disk.plan(FaultPlan::default());
        woken.recv_timeout(Duration::from_secs(60)).expect("an event in time");
        assert!(matches!(log.event(), Some(Event::RoomAgain)));

        // A plan counts operations from itself on: the write is the first, its sync the second.
        disk.plan(FaultPlan { fail: Some((1, std::io::ErrorKind::Other)), ..FaultPlan::default() });
        log.commit_here(put(5), Instant::now());
        assert!(matches!(log.event(), Some(Event::Failed(_))), "a sync that failed is the end");
    }

    #[test]
    fn a_panic_on_the_thread_is_told_at_once() {
        let writer = writer(&FakeDisk::new(), 8192);
        let (rung, woken) = channel();
        let wake = move || {
            rung.send(()).expect("a test that listens");
            assert!(std::thread::panicking(), "the first event is the end of the thread");
        };
        let mut log = Log::start(writer, SyncPolicy::Always, wake).expect("a thread");
        log.submit(put(1));
        for _ in 0..2 {
            woken.recv_timeout(Duration::from_secs(60)).expect("an event in time");
        }
        assert!(matches!(log.event(), Some(Event::Committed { .. })));
        assert!(matches!(log.event(), Some(Event::Failed(LogError::ThreadGone))));
    }

    #[test]
    fn room_is_looked_for_after_any_refusal() {
        let disk = FakeDisk::new();
        let (mut log, woken) = start(&disk);
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
        assert!(matches!(next(&mut log), Event::Refused { .. }));
        disk.plan(FaultPlan::default());
        assert!(matches!(next(&mut log), Event::RoomAgain));
    }

    #[test]
    fn an_interval_needs_no_more_writes_to_be_over() {
        let writer = writer(&FakeDisk::new(), 1 << 16);
        let counters = {
            let (mut log, worker) = Log::joined(writer, SyncPolicy::Every(Duration::from_millis(1)), || ());
            log.submit(put(1));
            // The first one of a start is durable at once.
            log.submit(put(2));
            let counters = Arc::clone(&log.counters);
            let thread = std::thread::spawn(move || worker.run());
            while counters.syncs.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
            drop(log);
            thread.join().expect("an orderly end");
            counters
        };
        assert_eq!(counters.syncs.load(Ordering::Relaxed), 2);
    }
}
