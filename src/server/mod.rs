//! The daemon: start, serve, stop.
//!
//! One thread owns the socket and the engine and does everything in turn (a pass); it waits in one place,
//! and never for the disk. The log thread and libzmq's threads only wake it. Knows no record bytes.
//!
//! A pass, and why in this order:
//!
//! ```text
//!   wait       for a request, an event of the log, the end of a connection, a signal, or the next retry
//!   hear       what the log committed or refused: from here on it is durable, or void. The batch that has formed
//!              meanwhile is submitted before anything else is done, so that the disk goes on working
//!   release    the replies that have become durable are handed over
//!   fold       what is durable moves into the table, while those replies are on their way
//!   receive    a bounded number of requests: each is evaluated, and answered at once if nothing holds it up
//!   tend       compaction: its questions are answered, a bounded number; the next one is begun if it is time
//!   submit     the forming batch, if none is in flight
//!   upkeep     what was flushed or has expired is removed, for less than a millisecond
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod allowance;
mod backlog;
mod clock;
mod compaction;
mod company;
mod list;
mod loading;
mod machine;
mod monitor;
mod peer;
mod peers;
mod progress;
mod reception;
mod refusal;
mod request;
mod retry;
mod router;
mod signals;
mod socket_file;
mod stats;
mod steps;
mod store;
mod wake;

use crate::cli::{Config, MAY_PASS};
use crate::descriptors::{Watch, raise_limit_and_keep_back};
use crate::engine::Engine;
use crate::fault;
use crate::log::budget::Budget;
use crate::log::{DataDir, Ledger, LogError, LogOptions, Progress, Ready, Recovered, Shortage, Unread};
use crate::table::{Replay, avoid_pauses};
use crate::threads::NoThread;
pub use machine::machine;

use clock::{Clock, Moment};
use compaction::Compaction;
use loading::Loading;
use reception::{Answers as _, Reception, Socket};
use retry::Retry;
use router::{Router, RouterError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signals::Signals;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};
use store::Store;
use wake::Wake;

/// How often a start in progress looks up, to show how far it is.
const WHILE_LOADING: Duration = Duration::from_millis(100);
/// How often connections that have ended are tidied away.
const WHILE_TIDYING: Duration = Duration::from_millis(200);
/// How long a stop waits for peers that do not read.
const LINGER: Duration = Duration::from_secs(1);
/// How often a stop tries again for such peers.
const WHILE_LINGERING: Duration = Duration::from_millis(5);

/// Why the daemon ended other than by being asked to. Displays as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It did not begin to serve: the data directory or the log in it can't be used.
    #[error(transparent)]
    Refused(LogError),
    /// It did not begin to serve: an endpoint can't be bound, or the system lacks something.
    #[error("{why}")]
    NotStarted {
        /// The reason, as a sentence.
        why: String,
        /// Whether the reason may pass without anybody's doing.
        may_pass: bool,
    },
    /// It did not begin to serve: there is no log yet, and none was to be made.
    #[error("--existing makes no new store: {0}")]
    NoStore(String),
    /// It did not begin to serve: a thread could not be made.
    #[error("can't start: {0}")]
    NoThread(#[from] NoThread),
    /// The log failed while running. Nothing that it did not confirm was acknowledged.
    #[error("the log failed, and kvd can promise nothing more: {0}")]
    LogFailed(LogError),
    /// A thread ended in a panic.
    #[error("{0}")]
    Faulty(String),
    /// The socket failed while running.
    #[error("{0}")]
    SocketFailed(String),
}

impl ServeError {
    /// The exit code that tells it.
    pub fn exit_code(&self) -> u8 {
        match self {
            // As after a panic on this thread.
            ServeError::Faulty(_) | ServeError::LogFailed(LogError::ThreadGone) => 101,
            ServeError::Refused(error) => refusal::exit_code(error),
            ServeError::NotStarted { may_pass: true, .. } | ServeError::NoThread(_) => MAY_PASS,
            ServeError::NotStarted { .. } | ServeError::NoStore(_) => 1,
            // EX_SOFTWARE of sysexits.h.
            ServeError::SocketFailed(_) => 70,
            ServeError::LogFailed(_) => refusal::EXIT_IO_ERROR,
        }
    }
}

impl ServeError {
    /// A start that the system did not let come to its end.
    fn not_started(error: &io::Error) -> ServeError {
        ServeError::NotStarted {
            why: format!("can't start: {}", Shortage::explain(error)),
            may_pass: refusal::may_pass(error),
        }
    }
}

impl From<RouterError> for ServeError {
    fn from(error: RouterError) -> Self {
        ServeError::SocketFailed(error.to_string())
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// Prints one line to standard output when it is ready: `kvd ready` and the endpoints, with real ports.
///
/// # Errors
/// A [`ServeError`], whose [`ServeError::exit_code`] is what the process should end with.
pub fn run(config: &Config) -> Result<(), ServeError> {
    let started = Instant::now();
    avoid_pauses();
    let system = |error: io::Error| ServeError::not_started(&error);
    let mut bell = Bell { signals: Signals::listen().map_err(system)?, wake: Wake::new().map_err(system)? };
    raise_limit_and_keep_back();

    // The directory is locked and found usable before a port is bound: a second daemon touches nothing.
    let directory = open_directory(config)?;
    let options = LogOptions { segment_size: config.segment_size, sync: config.fsync, threads: config.replay_threads };
    let unread = Unread::open(directory.disk(), options).map_err(ServeError::Refused)?;
    let is_new = unread.is_new();
    if is_new && config.existing {
        let (directory, why) = (directory.path().to_owned(), "no segment in it holds anything");
        return Err(ServeError::NoStore(LogError::NoLog { directory, why }.to_string()));
    }

    let not_bound = |error: RouterError| {
        let flag = if let RouterError::Bind { .. } = error { format!("{}: ", config.bind_flag) } else { String::new() };
        ServeError::NotStarted { why: format!("{flag}{error}"), may_pass: error.may_pass() }
    };
    let router = Router::bind(&config.bind, config.limits, Some(&config.data_dir)).map_err(not_bound)?;
    fault::at("start-bound").map_err(system)?;
    if is_new {
        tell_of_new_store(&directory);
    }
    let endpoints = router.endpoints().join(" ");
    let mut reception = Reception::open(router, config.limits, config.max_backlog, started);

    let Some(loaded) = load(unread, config, &mut reception, &mut bell)? else {
        tracing::info!("asked to stop while starting");
        return Ok(());
    };
    let clock = loaded.clock;
    let mut store = open_store(loaded, config, &bell.wake).map_err(NoThread)?;
    fault::at("start-ready").map_err(system)?;
    announce(&endpoints);
    serve(&mut reception, &mut store, clock, &mut bell)?;
    stop(reception, store, clock, &mut bell)
}

/// The data directory, locked.
fn open_directory(config: &Config) -> Result<DataDir, ServeError> {
    let opened =
        if config.existing { DataDir::open_existing(&config.data_dir) } else { DataDir::open(&config.data_dir) };
    opened.map_err(|error| match error {
        LogError::NoLog { .. } => ServeError::NoStore(error.to_string()),
        error => ServeError::Refused(error),
    })
}

/// A new store in a directory that was there already may be what nobody wanted: its disk may not be mounted.
fn tell_of_new_store(directory: &DataDir) {
    let path = directory.path().display();
    if directory.is_made() {
        tracing::info!("a new store is made in {path}, which was not there");
    } else {
        tracing::warn!(
            "{path} holds no log: a new store is made in it. If there should be one, stop kvd and see whether its disk is \
             mounted; --existing refuses such a start"
        );
    }
}

/// What ended a wait, other than peers.
struct Rung {
    /// The log thread, or the replay.
    log: bool,
    /// A signal that asks for a stop.
    stop: bool,
}

/// What can end a wait, other than peers.
struct Bell {
    signals: Signals,
    wake: Wake,
}

impl Bell {
    /// Waits until something happens, or for so long, and tells what it was. `listen` is whether requests count.
    ///
    /// Waits for plain descriptors: libzmq's own poll asks each of its sockets anew, at some ten system calls a time.
    fn wait(
        &mut self,
        reception: &mut Reception<Router>,
        listen: bool,
        most: Option<Duration>,
    ) -> Result<Rung, ServeError> {
        let most = if listen && reception.arrived()? { Some(Duration::ZERO) } else { most };
        let [requests, ends] = reception.descriptors()?;
        let flags = |listen: bool| if listen { PollFlags::IN } else { PollFlags::empty() };
        let mut items = [
            PollFd::from_borrowed_fd(requests, flags(listen)),
            PollFd::from_borrowed_fd(ends, PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.descriptor(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.descriptor(), PollFlags::IN),
        ];
        let timeout = most.and_then(|most| Timespec::try_from(most).ok());
        match poll(&mut items, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ServeError::SocketFailed(format!("can't wait: {errno}"))),
        }
        let [_, ends, log, signals] = items.map(|item| !item.revents().is_empty());
        if log {
            self.wake.rung();
        }
        if ends {
            reception.hear_of_ends(Instant::now());
        }
        Ok(Rung { log, stop: signals && self.signals.heed() })
    }
}

/// A log that was read, and what came of it.
struct Loaded {
    ready: Ready,
    recovered: Recovered,
    clock: Clock,
    /// What of the log counts.
    ledger: Ledger,
    engine: Engine,
}

/// Replays the log on threads of its own, and asks peers for patience meanwhile. `None` if asked to stop.
fn load(
    unread: Unread,
    config: &Config,
    reception: &mut Reception<Router>,
    bell: &mut Bell,
) -> Result<Option<Loaded>, ServeError> {
    let progress = Arc::new(Progress::default());
    let mut loading = Loading::new(Arc::clone(&progress), Instant::now());
    let loaded = spawn_replay(unread, config, progress, bell.wake.clone()).map_err(NoThread)?;
    let result = loop {
        if bell.wait(reception, true, Some(WHILE_LOADING))?.stop {
            break Ok(None);
        }
        match loaded.try_recv() {
            Ok(result) => break result.map(Some).map_err(ServeError::Refused),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                break Err(ServeError::Faulty("reading the log ended in a fault of kvd itself".into()));
            }
        }
        let now = Instant::now();
        loading.show(now);
        reception.receive(&mut loading, now)?;
        reception.release(loading.durable(), now)?;
    };
    loading.end();
    result
}

fn spawn_replay(
    unread: Unread,
    config: &Config,
    progress: Arc<Progress>,
    wake: Wake,
) -> io::Result<Receiver<Result<Loaded, LogError>>> {
    let (limits, memory, threads) = (config.limits, config.memory, config.replay_threads);
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("kvd-replay".into()).spawn(move || {
        let replay = Replay::new(unread.secret().expose());
        let result = unread.replay(&progress, &|chunk| replay.apply(chunk));
        let result = result.map(|(ready, recovered)| {
            let clock = Clock::start(recovered.time);
            let table = replay.finish(clock.time().now, threads);
            let mut ledger = ready.ledger();
            compaction::account(&mut ledger, &table, threads);
            let engine = Engine::new(table, recovered.next_version, limits).with_memory_limit(memory, threads);
            Loaded { ready, recovered, clock, ledger, engine }
        });
        // Nobody receives it if the start was called off.
        let _ = sender.send(result);
        wake.ring();
    })?;
    Ok(receiver)
}

fn open_store(loaded: Loaded, config: &Config, wake: &Wake) -> io::Result<Store> {
    let Loaded { ready, recovered, clock, ledger, engine } = loaded;
    let moment = clock.moment();
    let Recovered { segments, records, clean_stop, .. } = recovered;
    tracing::info!(segments, records, clean_stop, keys = engine.table().len(), "log replayed");
    if engine.is_over_memory() {
        tracing::warn!("the log holds more than --max-memory allows: entries are evicted until it fits");
    }
    let ring = |wake: &Wake| {
        let wake = wake.clone();
        move || wake.ring()
    };
    let compactor = ready.compactor(ring(wake))?;
    let budget = Budget { segment_size: config.segment_size, max_log_size: config.max_log_size };
    let compaction = Compaction::new(compactor, ledger, budget, config.compaction_rate, moment.instant);
    let log = ready.start(ring(wake))?;
    Ok(Store::new(engine, log, compaction, moment, recovered.time, config.fsync))
}

/// Tells whoever started the daemon, a person or a program, that it serves, and where.
fn announce(endpoints: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "kvd ready {endpoints}").and_then(|()| out.flush()) {
        tracing::warn!("nobody can read standard output: {error}");
    }
    tracing::info!("serving on {endpoints}");
}

/// Serves until a signal asks for a stop.
fn serve(
    reception: &mut Reception<Router>,
    store: &mut Store,
    clock: Clock,
    bell: &mut Bell,
) -> Result<(), ServeError> {
    let (mut retry, mut watch) = (Retry::new(), Watch::default());
    loop {
        let tidying = reception.any_departed().then_some(WHILE_TIDYING);
        let now = Instant::now();
        let most = retry.wait(now).into_iter().chain(tidying).chain(store.wait(now)).min();
        let rung = bell.wait(reception, !store.congested(), most)?;
        if rung.stop {
            return Ok(());
        }
        watch.look(bell.wake.descriptor(), now);
        pass(reception, store, &mut retry, rung.log, clock.moment())?;
    }
}

/// One pass, without its wait. `log` is whether the log or compaction may have something to say.
fn pass<S: Socket>(
    reception: &mut Reception<S>,
    store: &mut Store,
    retry: &mut Retry,
    log: bool,
    moment: Moment,
) -> Result<(), ServeError>
where
    ServeError: From<S::Error>,
{
    let now = moment.instant;
    store.begin(moment);
    if log && hear(reception, store)? {
        release(reception, store, retry, now)?;
    }
    store.fold();
    if !store.congested() && reception.receive(store, now)? {
        retry.begin(now);
    }
    store.tend().map_err(ServeError::LogFailed)?;
    if store.submit(reception.one_waits_alone(now)) && hear(reception, store)? {
        release(reception, store, retry, now)?;
    }
    store.fold();
    let mut swept = false;
    store.upkeep(|of| {
        reception.fulfil(of);
        swept = true;
    });
    if swept || retry.due(now) {
        release(reception, store, retry, now)?;
    }
    Ok(())
}

/// Hands over the replies that may leave.
fn release<S: Socket>(
    reception: &mut Reception<S>,
    store: &Store,
    retry: &mut Retry,
    now: Instant,
) -> Result<(), ServeError>
where
    ServeError: From<S::Error>,
{
    let released = reception.release(store.durable(), now)?;
    retry.tried(now, released.stuck, released.moved);
    Ok(())
}

/// Takes in what the log reports; whether there may be replies to release.
fn hear<S: Socket>(reception: &mut Reception<S>, store: &mut Store) -> Result<bool, ServeError> {
    // On a failure the caller is left at once: replies that still wait were never true, and are not sent.
    let heard = store.hear().map_err(ServeError::LogFailed)?;
    if let Some(shortage) = heard.newly_full {
        tracing::warn!("{shortage}: writes are refused until there is room again, removals and reads go on");
    }
    if heard.refused {
        reception.refuse(store.durable());
    }
    if let Some(unproven) = heard.unproven {
        reception.refuse_proof(store.durable(), unproven);
    }
    Ok(heard.advanced || heard.refused)
}

/// Decides what was begun, answers it, and closes. Requests that were not yet read are not answered.
fn stop(mut reception: Reception<Router>, mut store: Store, clock: Clock, bell: &mut Bell) -> Result<(), ServeError> {
    tracing::info!("stopping: a second signal ends it at once");
    settle(&mut reception, &mut store, &mut |reception| {
        bell.wait(reception, false, Some(WHILE_LOADING))?;
        Ok(clock.moment())
    })?;
    let until = Instant::now() + LINGER;
    while reception.release(store.durable(), Instant::now())?.stuck && Instant::now() < until {
        thread::sleep(WHILE_LINGERING);
    }
    store.begin(clock.moment());
    store.finish().map_err(ServeError::LogFailed)?;
    fault::at("stop-finished").map_err(|error| ServeError::SocketFailed(format!("can't close the socket: {error}")))?;
    let left = until.saturating_duration_since(Instant::now());
    reception.close(left.as_millis() as i32)?;
    tracing::info!("stopped");
    Ok(())
}

/// Brings everything that was evaluated to its end. `wait` waits for the log, and tells what time it is then.
fn settle<S: Socket>(
    reception: &mut Reception<S>,
    store: &mut Store,
    wait: &mut dyn FnMut(&mut Reception<S>) -> Result<Moment, ServeError>,
) -> Result<(), ServeError> {
    store.submit(false);
    while !store.settled() {
        store.begin(wait(reception)?);
        hear(reception, store)?;
        store.fold();
        store.submit(false);
    }
    while store.sweep_is_awaited() {
        store.upkeep(|swept| reception.fulfil(swept));
    }
    Ok(())
}

#[cfg(test)]
impl From<std::convert::Infallible> for ServeError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod simulation;
