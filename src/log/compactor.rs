//! The compaction thread: one compaction at a time, off the engine's thread, at the pace it is given.
//!
//! Knows threads and pace. Does not know what is kept ([`super::compaction`]) or when it is worth it.

use super::batch::Dependency;
use super::compaction::{CompactionError, Outcome, Questions, Steward, Stopped, Task, compact};
use super::error::LogError;
use super::fs::Fs;
use super::secret::Secret;
use super::victims::Run;
use rustix::process::nice;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the thread waits at most before it looks at its pace again.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How long it leaves the disk alone between two steps of giving room back.
const BREATH: Duration = Duration::from_millis(5);
/// By how much nicer than the others the thread is (nice(2), which on Linux is of one thread), so that the scheduler gives
/// it a tenth of what it gives them where they compete for a processor, and all that they leave. It never runs instead of
/// a thread that answers, and where writers outrun it they are held up, which leaves it the processors.
const NICER: i32 = 10;
/// A pace of so many bytes a second is none: as fast as it goes.
pub const UNPACED: u64 = 0;

/// What the thread reports.
#[derive(Debug)]
pub enum Report {
    /// It asks about these records. [`Compactor::answered`] answers.
    Ask(Questions),
    /// It waits until all that the table holds is durable. [`Compactor::settled`] answers.
    Settle,
    /// The run was compacted: the new segment is in its place.
    Done(Run, Outcome),
    /// Nothing came of it, and nothing changed.
    GaveUp(Run, CompactionError),
    /// Nothing more can be promised: acknowledge nothing and exit non-zero.
    Failed(LogError),
}

enum Request {
    Compact(Task),
    Answered(Questions),
    Settled(u64),
}

/// The handle of the thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Compactor {
    /// What the headers of new segments say.
    secret: Secret,
    requests: Option<Sender<Request>>,
    reports: Receiver<Report>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// How often it was asked for something, each of which it answers with one report.
    requested: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes a second, read and written.
    rate: AtomicU64,
    stop: AtomicBool,
}

impl Compactor {
    /// Starts the thread. `wake` is called on it after each report was queued.
    ///
    /// # Errors
    /// What the system says when it can't make a thread.
    pub fn start(fs: Arc<dyn Fs>, secret: Secret, wake: impl Fn() + Send + 'static) -> io::Result<Compactor> {
        Compactor::start_with(BREATH, fs, secret, wake)
    }

    fn start_with(
        breath: Duration,
        fs: Arc<dyn Fs>,
        secret: Secret,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Compactor> {
        let (requests, received) = channel();
        let (sender, reports) = channel();
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            fs,
            requests: received,
            reports: sender,
            wake,
            shared: Arc::clone(&shared),
            breath,
            free_at: None,
        };
        let thread = thread::Builder::new().name("compaction".into()).spawn(move || worker.run())?;
        Ok(Compactor { secret, requests: Some(requests), reports, shared, thread: Some(thread), requested: 0 })
    }

    /// Begins to compact a run; `present` are the numbers of its segments that have a file, oldest first, and `older` the
    /// segments before them. One at a time.
    pub fn begin(&mut self, run: Run, present: Vec<u64>, older: Vec<Dependency>) {
        let secret = self.secret;
        self.request(Request::Compact(Task { run, present, older, secret }));
    }

    /// Gives questions back, answered.
    pub fn answered(&mut self, questions: Questions) {
        self.request(Request::Answered(questions));
    }

    /// What the table held when it was asked for is durable, as is everything up to this version.
    pub fn settled(&mut self, durable_version: u64) {
        self.request(Request::Settled(durable_version));
    }

    /// How many bytes a second it may read and write from now on; [`UNPACED`] is as many as it can.
    pub fn set_rate(&mut self, rate: u64) {
        if self.shared.rate.swap(rate, Ordering::Relaxed) != rate
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }

    /// The next report, if there is one. Never blocks. A thread that ended by itself is a [`Report::Failed`].
    pub fn report(&mut self) -> Option<Report> {
        match self.reports.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Report::Failed(LogError::ThreadGone)),
        }
    }

    fn request(&mut self, request: Request) {
        self.requested += 1;
        // If the thread is gone, `report` says so.
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
    }
}

impl Drop for Compactor {
    /// Calls off what is going on, whose unfinished file is removed, and waits for the thread to end.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic on it has been told on standard error.
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Worker<W> {
    fs: Arc<dyn Fs>,
    requests: Receiver<Request>,
    reports: Sender<Report>,
    wake: W,
    shared: Arc<Shared>,
    /// How long it leaves the disk alone between two steps of giving room back.
    breath: Duration,
    /// When it may go on, by its pace.
    free_at: Option<Instant>,
}

impl<W: Fn()> Worker<W> {
    fn run(mut self) {
        if let Err(error) = nice(NICER) {
            tracing::debug!("compaction has the priority of everything else: {error}");
        }
        let fs = Arc::clone(&self.fs);
        while let Ok(request) = self.requests.recv() {
            let Request::Compact(task) = request else { continue };
            let run = task.run;
            match compact(fs.as_ref(), &task, &mut self) {
                Ok(outcome) => self.report(Report::Done(run, outcome)),
                Err(CompactionError::Fatal(error)) => return self.report(Report::Failed(error)),
                Err(error) => self.report(Report::GaveUp(run, error)),
            }
        }
    }

    fn report(&self, report: Report) {
        // Nobody listens any more when the process is on its way out.
        let _ = self.reports.send(report);
        (self.wake)();
    }
}

impl<W: Fn()> Steward for Worker<W> {
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped> {
        self.report(Report::Ask(std::mem::take(questions)));
        match self.requests.recv() {
            Ok(Request::Answered(answered)) => {
                *questions = answered;
                Ok(())
            }
            Ok(Request::Compact(_) | Request::Settled(_)) | Err(_) => Err(Stopped),
        }
    }

    fn breathe(&mut self) {
        if !self.shared.stop.load(Ordering::Relaxed) {
            thread::park_timeout(self.breath);
        }
    }

    fn settle(&mut self) -> Result<u64, Stopped> {
        self.report(Report::Settle);
        match self.requests.recv() {
            Ok(Request::Settled(durable_version)) => Ok(durable_version),
            Ok(Request::Compact(_) | Request::Answered(_)) | Err(_) => Err(Stopped),
        }
    }

    fn moved(&mut self, bytes: u64) -> Result<(), Stopped> {
        let mut left = bytes as f64;
        loop {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            let rate = self.shared.rate.load(Ordering::Relaxed);
            let now = Instant::now();
            if rate == UNPACED {
                self.free_at = None;
                return Ok(());
            }
            // What was not used in the past is not saved up.
            let free_at = self.free_at.map_or(now, |at| at.max(now)) + Duration::from_secs_f64(left / rate as f64);
            self.free_at = Some(free_at);
            left = 0.0;
            let wait = free_at.saturating_duration_since(now);
            if wait.is_zero() {
                return Ok(());
            }
            thread::park_timeout(wait.min(LONGEST_WAIT));
            if wait <= LONGEST_WAIT {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
impl Compactor {
    /// One whose thread never pauses, for a simulation.
    ///
    /// # Errors
    /// As [`Compactor::start`].
    pub fn start_breathless(
        fs: Arc<dyn Fs>,
        secret: Secret,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Compactor> {
        Compactor::start_with(Duration::ZERO, fs, secret, wake)
    }

    /// How many reports there will have been when it has done all that was asked so far.
    pub fn requested(&self) -> u64 {
        self.requested
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::compaction::Fate;
    use crate::log::fs::FakeDisk;
    use crate::log::segment::file_name;
    use crate::log::{Batch, Writer};
    use crate::mutation::{Key, Mutation, Value};

    /// A disk with a sealed segment of so many records, and an active one.
    fn disk(records: u64) -> FakeDisk {
        let disk = FakeDisk::new();
        let mut writer = Writer::create(Arc::new(disk.clone()), 64 << 10, 1, SECRET).expect("a new store");
        let mut version = 0;
        while writer.active_number() == 1 || version < records {
            let mut batch = Batch::default();
            version += 1;
            let value = Value { bytes: &[7; 500], flags: 0, deadline: 0 };
            batch.push(version, &Mutation::Put { key: Key::bytes(&version.to_le_bytes()), value });
            batch.stamp(1, version + 1);
            writer.append(&mut batch).expect("room");
        }
        disk
    }

    const SECRET: Secret = Secret::new(2);
    const RUN: Run = Run { first: 1, last: 1, keep_removals: false, is_empty: false };

    fn compactor(disk: &FakeDisk) -> (Compactor, Receiver<()>) {
        let (rung, woken) = channel();
        let compactor = Compactor::start(Arc::new(disk.clone()), SECRET, move || {
            let _ = rung.send(());
        });
        (compactor.expect("a thread"), woken)
    }

    fn next(compactor: &mut Compactor, woken: &Receiver<()>) -> Report {
        woken.recv_timeout(Duration::from_secs(60)).expect("a report in time");
        compactor.report().expect("the report")
    }

    #[test]
    fn it_asks_and_then_installs() {
        let disk = disk(1);
        let before = disk.read(&file_name(1)).expect("a segment").len();
        let (mut compactor, woken) = compactor(&disk);
        compactor.begin(RUN, vec![1], Vec::new());
        let outcome = loop {
            match next(&mut compactor, &woken) {
                Report::Ask(mut questions) => {
                    questions.answer(usize::MAX, |_, version| if version % 2 == 0 { Fate::Live } else { Fate::Absent });
                    compactor.answered(questions);
                }
                Report::Settle => {
                    let now = disk.read(&file_name(1)).expect("a segment").len();
                    assert_eq!(now, before, "nothing takes effect before it is settled");
                    compactor.settled(0);
                }
                Report::Done(run, outcome) => {
                    assert_eq!(run, RUN);
                    break outcome;
                }
                other => panic!("{other:?}"),
            }
        };
        let after = disk.read(&file_name(1)).expect("a segment").len();
        assert_eq!((outcome.length, outcome.replaced), (after as u64, before as u64));
        assert!(after < before * 6 / 10 && outcome.tally.puts > 40);
    }

    #[test]
    fn an_end_in_the_middle_leaves_nothing_behind() {
        let disk = disk(1);
        let (mut compactor, woken) = compactor(&disk);
        compactor.begin(RUN, vec![1], Vec::new());
        assert!(matches!(next(&mut compactor, &woken), Report::Ask(_)));
        drop(compactor);
        let names = crate::log::fs::Fs::list(&disk).expect("names");
        assert!(names.iter().all(|name| !name.contains("tmp")), "{names:?}");
    }

    #[test]
    fn it_keeps_the_pace_that_it_is_given() {
        let (_, requests) = channel();
        let (reports, _) = channel();
        let shared = Arc::new(Shared { rate: AtomicU64::new(1_000_000), ..Shared::default() });
        let fs = Arc::new(FakeDisk::new());
        let mut worker =
            Worker { fs, requests, reports, wake: || (), shared: Arc::clone(&shared), breath: BREATH, free_at: None };
        let start = Instant::now();
        for _ in 0..3 {
            assert!(worker.moved(50_000).is_ok());
        }
        assert!(start.elapsed() >= Duration::from_millis(150), "150 kB at 1 MB/s in {:?}", start.elapsed());
        shared.rate.store(UNPACED, Ordering::Relaxed);
        assert!(worker.moved(u64::MAX).is_ok());
        shared.stop.store(true, Ordering::Relaxed);
        assert!(worker.moved(1).is_err());
    }

    #[test]
    fn a_new_pace_holds_at_once() {
        let disk = disk(1);
        let (mut compactor, woken) = compactor(&disk);
        // One byte a second: the first batch takes minutes.
        compactor.set_rate(1);
        compactor.begin(RUN, vec![1], Vec::new());
        assert!(woken.recv_timeout(Duration::from_millis(100)).is_err());
        compactor.set_rate(UNPACED);
        assert!(matches!(next(&mut compactor, &woken), Report::Ask(_)));
    }
}
