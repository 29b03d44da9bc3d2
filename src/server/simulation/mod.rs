//! Everything at once, from one seed: the server's passes, engine, log, recovery and compaction, peers that pipeline, stop
//! reading and leave, a clock that is told the time, and a disk that fills up, fails and forgets.
//!
//! Whatever happens, each key's history makes sense to [`history::Histories`], a reply that got lost being one that may or may
//! not have taken effect; replies come in order, none is left out, and a peer is never told of something older than what it
//! knows; a read of a peer with nothing in flight is answered in the same pass; what an MSET wrote is seen whole; the log
//! replays to the table; and no start but on a failing disk is refused.
//!
//! `KVD_SEEDS` is how many seeds, from `KVD_SEED` on, which is 0 if it is not said. One seed always does the same.
//!
//! ```text
//! mod      what happens next               daemon   the daemon under test
//! history  peers and what they were told   network  the wires between them
//! clocks   steps of the wall clock, one by one
//! ```

mod clocks;
mod daemon;
#[path = "../../../tests/it/history/mod.rs"]
mod history;
mod network;
#[path = "../../../tests/it/random.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod random;

use crate::log::fs::{Crash, FakeDisk, FaultPlan};
use crate::log::{LogError, Secret, SyncPolicy, Writer};
use crate::server::ServeError;
use daemon::{Daemon, PATIENCE, Settings};
use history::{Ask, Choice, Client, Histories, keys};
use network::Network;
use random::Random;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Later than any clock that this may run on: the headers of segments carry the real time.
const BEGINNING: u64 = 1 << 42;
const HOUR: u64 = 60 * 60 * 1000;
/// Bytes of replies beyond which a peer is cut off, where that is to happen.
const SMALL_BACKLOG: usize = 8 << 10;
/// Turns that are enough for everything that was sent to be answered.
const ENOUGH_TURNS: usize = 400;

/// What happened, to tell that something did.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    commands: usize,
    starts: usize,
    powerless: usize,
    failures: usize,
    compactions: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.commands += other.commands;
        self.starts += other.starts;
        self.powerless += other.powerless;
        self.failures += other.failures;
        self.compactions += other.compactions;
    }
}

/// How a run of the daemon ends.
#[derive(Clone, Copy)]
enum End {
    /// The process is gone, and the machine goes on.
    Killed,
    /// The power is gone, and this is what the disk keeps.
    Powerless(Crash),
}

struct World {
    random: Random,
    settings: Settings,
    disk: FakeDisk,
    network: Network,
    daemon: Option<Daemon>,
    choice: Choice,
    /// Each with its connection.
    clients: Vec<(u32, Client)>,
    histories: Histories,
    began: Instant,
    now: Instant,
    /// By how much the clock on the wall was stepped, in milliseconds.
    stepped: i64,
    /// Whether it is stepped back: then what has expired may return, by less than an hour.
    steps_back: bool,
    connections: u32,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::seeded(seed);
        let sync = match random.below(6) {
            0 => SyncPolicy::Every(Duration::from_millis(300)),
            1 => SyncPolicy::Never,
            _ => SyncPolicy::Always,
        };
        let segment_size = [6000, 8192, 20_000][random.below(3)];
        let settings = Settings {
            sync,
            segment_size,
            max_log_size: if random.one_in(8) { 6 * segment_size } else { u64::MAX },
            memory: if random.one_in(4) { 8_000 } else { usize::MAX / 2 },
            steps: 1 + random.below(8),
            most_backlog: if random.one_in(8) { SMALL_BACKLOG } else { 1 << 20 },
        };
        let disk = FakeDisk::new();
        // The store's secret decides where a key is kept, and so what is scanned and evicted first.
        drop(
            Writer::create(Arc::new(disk.clone()), segment_size, u128::from(seed), Secret::new(u128::from(seed)))
                .expect("a new store"),
        );
        let (now, steps_back) = (Instant::now(), random.one_in(4));
        let mut world = World {
            settings,
            disk,
            network: Network::default(),
            daemon: None,
            choice: Choice { expires: !steps_back, evicts: settings.memory < usize::MAX / 2, count: 0 },
            clients: Vec::new(),
            histories: Histories::default(),
            began: now,
            now,
            stepped: 0,
            steps_back,
            connections: 0,
            tally: Tally::default(),
            random,
        };
        world.start();
        for _ in 0..=world.random.below(4) {
            world.clients.push((0, Client::default()));
            world.connect(world.clients.len() - 1);
        }
        world
    }

    /// A client comes, or comes back, through a new connection.
    fn connect(&mut self, index: usize) {
        self.connections += 1;
        self.network.connect(self.connections);
        let (connection, client) = &mut self.clients[index];
        *connection = self.connections;
        client.reconnects();
    }

    fn wall(&self) -> u64 {
        (BEGINNING + (self.now - self.began).as_millis() as u64).saturating_add_signed(self.stepped)
    }

    /// Somebody sets the clock on the wall.
    fn step_wall(&mut self) {
        let step = (self.random.next() % HOUR).cast_signed();
        self.stepped += if self.steps_back { -step } else { step };
    }

    fn crash(&mut self) -> Crash {
        match self.random.below(4) {
            0 => Crash::LoseAll,
            1 => Crash::KeepAll,
            _ => Crash::Random(self.random.next()),
        }
    }

    /// How a run may end, without anything being lost that was promised.
    fn end(&mut self) -> End {
        if self.settings.sync == SyncPolicy::Always && !self.random.one_in(3) {
            End::Powerless(self.crash())
        } else {
            End::Killed
        }
    }

    /// Starts on what is there, also where the power goes meanwhile, the disk fails or is full.
    fn start(&mut self) {
        self.network = Network::default();
        let trouble = match self.random.below(8) {
            0 if self.settings.sync == SyncPolicy::Always => {
                FaultPlan { power_off_at: Some(self.random.below(12) as u64), ..FaultPlan::default() }
            }
            1 => FaultPlan { fail: Some((self.random.below(8) as u64, ErrorKind::Other)), ..FaultPlan::default() },
            2 => FaultPlan { capacity: Some(self.held() + self.random.below(9000) as u64), ..FaultPlan::default() },
            _ => FaultPlan::default(),
        };
        let power_goes = trouble.power_off_at.is_some();
        self.disk.plan(trouble);
        self.tally.starts += 1;
        let started = Daemon::start(&self.disk, self.settings, &self.network, self.wall(), self.now);
        match started {
            Ok(daemon) => self.daemon = Some(daemon),
            Err(error @ (LogError::Damage { .. } | LogError::TornCopy { .. })) => panic!("{error}"),
            Err(_) => {
                if power_goes {
                    let crash = self.crash();
                    self.disk = self.disk.crash(crash);
                }
                self.start();
            }
        }
    }

    fn held(&self) -> u64 {
        use crate::log::fs::Fs as _;
        let names = self.disk.list().expect("names");
        names.iter().map(|name| self.disk.file_len(name).expect("a length")).sum()
    }

    fn restart(&mut self, end: End) {
        // Nothing that is still going on comes to an end.
        self.disk.plan(FaultPlan { power_off_at: Some(0), ..FaultPlan::default() });
        if let Some(daemon) = self.daemon.take() {
            self.tally.compactions += daemon.compactions();
        }
        self.disk.plan(FaultPlan::default());
        if let End::Powerless(crash) = end {
            self.tally.powerless += 1;
            self.disk = self.disk.crash(crash);
        }
        if self.random.one_in(3) {
            self.step_wall();
        }
        self.start();
        for index in 0..self.clients.len() {
            self.connect(index);
        }
        self.audit();
    }

    /// What came of a daemon's turn.
    fn survived(&mut self, turn: &Result<(), ServeError>) {
        match turn {
            Ok(()) => {}
            Err(ServeError::LogFailed(LogError::Damage { .. })) => panic!("damage in a log that nobody touched"),
            Err(_) => {
                self.tally.failures += 1;
                // The power may be what failed. If it is not, nobody loses what the machine still knows.
                let end = self.end();
                self.restart(end);
            }
        }
    }

    fn pass(&mut self) {
        let network = self.network.clone();
        let reads: Vec<u32> = (self.clients.iter().filter(|(_, client)| client.waits_for_a_read()))
            .map(|(connection, _)| *connection)
            .filter(|connection| !network.is_full(*connection) && network.is_underway(*connection))
            .collect();
        let wall = self.wall();
        let Some(daemon) = &mut self.daemon else { return };
        let turn = daemon.pass(self.now, wall);
        let served = turn.is_ok();
        if served {
            for connection in reads {
                // A pass does so much, and what has expired may be kept alive by a TOUCH.
                let may_wait = network.is_underway(connection) || daemon.is_amid() || daemon.is_touching();
                assert!(may_wait || network.holds_for(connection), "a read waits for nothing");
            }
            daemon.check_replay(&self.disk, self.now);
        }
        self.survived(&turn);
    }

    fn work(&mut self) {
        if let Some(daemon) = &self.daemon {
            daemon.work(self.now);
        }
    }

    fn read(&mut self, index: usize) -> bool {
        let (connection, client) = &mut self.clients[index];
        let Some(reply) = self.network.read(*connection) else { return false };
        client.hears(&reply, &mut self.histories);
        true
    }

    fn send(&mut self, index: usize, asks: Vec<Ask>, packed: bool) {
        self.tally.commands += asks.len();
        let (connection, client) = &mut self.clients[index];
        let message = client.sends(asks, packed, |key| self.choice.is_fleeting(key), &mut self.histories);
        self.network.send(*connection, message);
    }

    fn speak(&mut self) {
        let index = self.random.below(self.clients.len());
        if self.clients[index].1.in_flight() > 8 {
            return;
        }
        let packed = self.random.one_in(4);
        let count = if packed { self.random.below(4) + 1 } else { 1 };
        let World { choice, random, clients, .. } = self;
        let asks = (0..count).map(|_| choice.next(random, |key| clients[index].1.version_of(key))).collect();
        self.send(index, asks, packed);
    }

    fn turn(&mut self) {
        let index = self.random.below(self.clients.len());
        match self.random.below(100) {
            0..40 => self.speak(),
            40..62 => self.pass(),
            62..76 => self.work(),
            76..86 => drop(self.read(index)),
            86..90 => self.now += Duration::from_millis([1, 30, 120, 1_500, 11_000][self.random.below(5)]),
            90 => {
                let loses = self.random.one_in(2);
                self.network.disconnect(self.clients[index].0, loses);
                self.connect(index);
            }
            91 => {
                let connection = self.clients[index].0;
                self.network.set_full(connection, !self.network.is_full(connection));
            }
            92 | 93 => {
                let room = self.random.below(9_000) as u64;
                let capacity = if self.random.one_in(2) { None } else { Some(self.held() + room) };
                self.disk.plan(FaultPlan { capacity, ..FaultPlan::default() });
            }
            94 => {
                let fail = Some((self.random.below(10) as u64, ErrorKind::Other));
                self.disk.plan(FaultPlan { fail, ..FaultPlan::default() });
            }
            95 if self.settings.sync == SyncPolicy::Always => {
                self.disk.plan(FaultPlan { power_off_at: Some(self.random.below(16) as u64), ..FaultPlan::default() });
            }
            96 => {
                let end = self.end();
                self.restart(end);
            }
            97 => {
                let wall = self.wall();
                let stopped = self.daemon.take().map_or(Ok(()), |daemon| daemon.stop(&mut self.now, wall));
                for index in 0..self.clients.len() {
                    while self.read(index) {}
                }
                let end =
                    if stopped.is_ok() && self.random.one_in(2) { End::Powerless(self.crash()) } else { End::Killed };
                self.restart(end);
            }
            98 => self.step_wall(),
            _ => {
                self.work();
                self.pass();
            }
        }
    }

    /// Everything that was sent is answered, if the disk has room and everybody reads.
    fn come_to_rest(&mut self) {
        self.disk.plan(FaultPlan::default());
        for index in 0..self.clients.len() {
            self.network.set_full(self.clients[index].0, false);
            // Who was cut off has to come back.
            if self.settings.most_backlog == SMALL_BACKLOG {
                self.connect(index);
            }
        }
        for _ in 0..ENOUGH_TURNS {
            self.work();
            self.pass();
            for index in 0..self.clients.len() {
                while self.read(index) {}
            }
            if self.clients.iter().all(|(_, client)| client.in_flight() == 0) {
                return;
            }
            self.now += PATIENCE;
        }
        let left: Vec<usize> = self.clients.iter().map(|(_, client)| client.in_flight()).collect();
        panic!("some are never answered: {left:?}, {:?}", self.settings);
    }

    /// Somebody looks at every key.
    fn audit(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        for key in keys() {
            self.send(0, vec![Ask::Get(key)], false);
        }
        let pair = self.choice.pair();
        self.send(0, vec![pair], false);
        self.pass();
    }
}

/// Plays one seed.
fn play(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..20 + world.random.below(120) {
        world.turn();
    }
    world.come_to_rest();
    let end = world.end();
    world.restart(end);
    world.come_to_rest();
    assert_eq!(world.histories.senseless(), None);
    world.tally.compactions += world.daemon.as_ref().map_or(0, Daemon::compactions);
    world.tally
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_every_history_makes_sense() {
    let (first, seeds) = (number_from("KVD_SEED", 0), number_from("KVD_SEEDS", 2_000));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return tally;
            }
            let failed = FailedSeed(seed);
            tally += play(seed);
            std::mem::forget(failed);
        }
    };
    let tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().fold(Tally::default(), |mut sum, thread| {
            sum += thread.join().expect("a seed that failed was told above");
            sum
        })
    });
    println!("{seeds} seeds from {first} on: {tally:?}");
    // A few, as where one is had again, need not have everything.
    let has_everything = tally.compactions > 0 && tally.failures > 0 && tally.powerless > 0;
    assert!(has_everything || seeds < 50, "nothing happened: {tally:?}");
}

/// Tells how to have the seed again, when it fails.
struct FailedSeed(u64);

impl Drop for FailedSeed {
    fn drop(&mut self) {
        eprintln!("to have it again: make simulate SEED={} SEEDS=1", self.0);
    }
}
