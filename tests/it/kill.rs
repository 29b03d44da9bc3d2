//! kill -9 at random moments, over and over, while many peers write: nothing that was promised is ever lost,
//! nothing that was shown is ever taken back, nothing comes back that was removed.
//!
//! Each cycle starts the daemon on what the last one left, lets the [`crate::oracle`] judge every key, puts a
//! load of pipelined commands on it (64 KiB segments, so that rotation never stops), and kills it after a random
//! number of replies: under load, or a moment after SIGTERM; sometimes once more in the middle of the start. The
//! peers are plain TCP: they read until end of file, so that no reply that left the daemon goes unheard.
//!
//! `KVD_KILLS` sets the number of kills, `KVD_SEED` repeats a run's choices (not the scheduler's).

use crate::daemon::{Daemon, Launch, PATIENCE, Store};
use crate::oracle::{
    Condition, Entry, Operation, RemovalId, Shared, Sighting, State, Verdict, Versions, Writer, parse_get,
    parse_version,
};
use crate::random::{Random, seed};
use crate::zmtp::Peer;
use rustix::process::Signal;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Peers that write keys of their own, and the shared ones.
const WRITERS: usize = 4;
/// Peers that only read.
const READERS: usize = 2;
const REGISTERS: [&str; 3] = ["shared:a", "shared:b", "shared:c"];
const COUNTERS: [&str; 2] = ["shared:n", "shared:m"];
/// Keys of each writer.
const KEYS: usize = 8;

fn own_key(writer: usize, key: usize) -> String {
    format!("w{writer}:k{key}")
}

fn own_counter(writer: usize) -> String {
    format!("w{writer}:n")
}

/// Everything known about the store, carried from life to life.
struct Oracle {
    writers: Vec<Mutex<Writer>>,
    shared: Mutex<Shared>,
    versions: Mutex<Versions>,
}

impl Oracle {
    fn new() -> Oracle {
        Oracle {
            writers: (0..WRITERS).map(|_| Mutex::default()).collect(),
            shared: Mutex::default(),
            versions: Mutex::default(),
        }
    }

    /// Reads every key of a fresh daemon and judges it.
    fn judge(&mut self, daemon: &Daemon) -> Verdict {
        let mut peer = daemon.peer();
        let mut get = |key: &str| parse_get(&peer.call(&["GET", key]).map_err(|error| error.to_string())?);
        let versions = self.versions.get_mut().unwrap();
        for (index, writer) in self.writers.iter_mut().enumerate() {
            let mut recovered = State::new();
            for key in (0..KEYS).map(|key| own_key(index, key)).chain([own_counter(index)]) {
                if let Some((value, version)) = get(&key)? {
                    versions.told(&key, &value, version)?;
                    recovered.insert(key, Entry { value, version: Some(version) });
                }
            }
            writer.get_mut().unwrap().recover(recovered).map_err(|wrong| format!("writer {index}: {wrong}"))?;
        }
        let shared = self.shared.get_mut().unwrap();
        for key in REGISTERS {
            let recovered = get(key)?;
            if let Some((value, version)) = &recovered {
                versions.told(key, value, *version)?;
            }
            shared.recover_register(key, recovered)?;
        }
        for key in COUNTERS {
            let recovered = get(key)?.map_or(Ok(0), |(value, _)| String::from_utf8_lossy(&value).parse());
            shared.recover_counter(key, recovered.map_err(|error| format!("{key}: {error}"))?)?;
        }
        versions.next_life();
        Ok(())
    }
}

/// A request whose reply is outstanding.
enum Asked {
    Own,
    Foreign { writer: usize, key: String, floor: usize },
    Put { key: &'static str, value: Vec<u8>, expected: Option<u64> },
    Removal(RemovalId),
    Increment(&'static str),
    Read(&'static str),
    ReadCounter(&'static str),
}

/// One connection of one cycle.
struct Worker<'o> {
    /// Which keys it owns; none for a reader.
    writer: Option<usize>,
    oracle: &'o Oracle,
    peer: Peer,
    random: Random,
    outstanding: VecDeque<Asked>,
    /// Makes its values unlike all others.
    life: usize,
    sequence: usize,
    /// The newest version among the replies to its own writes.
    newest: u64,
    /// Its acknowledged removals since then.
    removals: Vec<RemovalId>,
    /// The versions of the shared keys that it saw last.
    seen: [u64; REGISTERS.len()],
}

impl Worker<'_> {
    /// Sends and receives until the daemon is gone. Sends a token for each reply.
    fn run(mut self, replies: &Sender<()>) -> Verdict {
        loop {
            let window = 1 + self.random.below(32);
            while self.outstanding.len() < window {
                self.ask();
            }
            if self.peer.flush().is_err() {
                break;
            }
            for _ in 0..=self.random.below(self.outstanding.len()) {
                match self.peer.recv() {
                    Ok(reply) => self.hear(&reply)?,
                    Err(_) => return Ok(()),
                }
                let _ = replies.send(());
            }
        }
        while let Ok(reply) = self.peer.recv() {
            self.hear(&reply)?;
        }
        Ok(())
    }

    fn value(&mut self) -> Vec<u8> {
        self.sequence += 1;
        let name = self.writer.unwrap_or(WRITERS);
        let mut value = format!("{name}/{}/{}:", self.life, self.sequence).into_bytes();
        let padding = match self.random.below(200) {
            0 => 100_000,
            1..=10 => 5_000 + self.random.below(15_000),
            _ => self.random.below(400),
        };
        value.resize(value.len() + padding, b'.');
        value
    }

    fn ask(&mut self) {
        let asked = match self.writer {
            Some(writer) if !self.random.one_in(3) => {
                let operation = self.own_operation(writer);
                self.peer.queue(&operation.frames());
                self.oracle.writers[writer].lock().unwrap().send(operation);
                Asked::Own
            }
            Some(_) if !self.random.one_in(3) => self.ask_shared(),
            _ => self.ask_to_see(),
        };
        self.outstanding.push_back(asked);
    }

    fn own_operation(&mut self, writer: usize) -> Operation {
        let key = own_key(writer, self.random.below(KEYS));
        match self.random.below(100) {
            0..30 => Operation::Set(key, self.value(), Condition::Always),
            30..35 => Operation::Set(key, self.value(), Condition::Absent),
            35..40 => Operation::Set(key, self.value(), Condition::Present),
            40..55 => {
                let first = self.random.below(KEYS);
                let keys = (0..=self.random.below(KEYS - 1)).map(|step| own_key(writer, (first + step) % KEYS));
                Operation::SetMany(keys.collect::<Vec<_>>().into_iter().map(|key| (key, self.value())).collect())
            }
            55..63 => Operation::Delete(vec![key]),
            63..66 => Operation::Delete((0..KEYS).step_by(2).map(|key| own_key(writer, key)).collect()),
            66..70 => Operation::GetDelete(key),
            70..80 => Operation::Increment(own_counter(writer), self.random.below(7).cast_signed() as i64 - 3),
            80..85 => Operation::Append(key, self.value()),
            85..88 => Operation::Touch(key),
            88..89 => Operation::Flush(format!("w{writer}:")),
            _ => Operation::Get(key),
        }
    }

    fn ask_shared(&mut self) -> Asked {
        let index = self.random.below(REGISTERS.len());
        let key = REGISTERS[index];
        let choice = self.random.below(10);
        let value = self.value();
        let mut shared = self.oracle.shared.lock().unwrap();
        match choice {
            0..4 => {
                shared.put_sent(key, &value);
                self.peer.queue(&[b"SET", key.as_bytes(), &value]);
                Asked::Put { key, value, expected: None }
            }
            4..6 => {
                let expected = self.seen[index];
                shared.put_sent(key, &value);
                self.peer.queue(&[b"SET", key.as_bytes(), &value, b"IF", expected.to_string().as_bytes()]);
                Asked::Put { key, value, expected: Some(expected) }
            }
            6 => {
                self.peer.queue(&["DEL", key]);
                Asked::Removal(shared.removal_sent(key, self.newest))
            }
            _ => {
                let key = COUNTERS[self.random.below(COUNTERS.len())];
                shared.increment_sent(key);
                self.peer.queue(&["INCR", key]);
                Asked::Increment(key)
            }
        }
    }

    fn ask_to_see(&mut self) -> Asked {
        match self.random.below(4) {
            0 => {
                let key = REGISTERS[self.random.below(REGISTERS.len())];
                self.peer.queue(&["GET", key]);
                Asked::Read(key)
            }
            1 => {
                let key = COUNTERS[self.random.below(COUNTERS.len())];
                self.peer.queue(&["GET", key]);
                Asked::ReadCounter(key)
            }
            _ => {
                let writer = self.random.below(WRITERS);
                let key = own_key(writer, self.random.below(KEYS));
                self.peer.queue(&["GET", &key]);
                let floor = self.oracle.writers[writer].lock().unwrap().acknowledged();
                Asked::Foreign { writer, key, floor }
            }
        }
    }

    /// Judges a reply, as far as one reply can be judged, and remembers it.
    fn hear(&mut self, reply: &[Vec<u8>]) -> Verdict {
        let Some(asked) = self.outstanding.pop_front() else { return Err("a reply that nobody asked for".to_owned()) };
        let oracle = self.oracle;
        match asked {
            Asked::Own => {
                let writer = self.writer.expect("only writers have keys of their own");
                let told = oracle.writers[writer].lock().unwrap().receive(reply)?;
                if let Some((key, value, version)) = told {
                    oracle.versions.lock().unwrap().written(&key, &value, version)?;
                    self.wrote(version)?;
                }
            }
            Asked::Foreign { writer, key, floor } => {
                let seen = parse_get(reply)?;
                if let Some((value, version)) = &seen {
                    oracle.versions.lock().unwrap().told(&key, value, *version)?;
                }
                oracle.writers[writer].lock().unwrap().saw(Sighting { key, seen, floor });
            }
            Asked::Put { key, value, expected } => match reply.first().map(Vec::as_slice) {
                Some(b"MISS" | b"CONFLICT") if expected.is_some() => {}
                _ => {
                    let version = parse_version(reply)?;
                    oracle.versions.lock().unwrap().written(key, &value, version)?;
                    let mut shared = oracle.shared.lock().unwrap();
                    shared.put_known(key, &value, version)?;
                    if let Some(expected) = expected {
                        shared.swapped(key, expected, version);
                    }
                    drop(shared);
                    self.note_seen(key, version);
                    self.wrote(version)?;
                }
            },
            Asked::Removal(id) => {
                let removed = parse_version(reply)? == 1;
                oracle.shared.lock().unwrap().removal_acknowledged(&id, removed, self.newest);
                if removed {
                    self.removals.push(id);
                }
            }
            Asked::Increment(key) => {
                let sum = parse_version(reply)?;
                oracle.shared.lock().unwrap().increment_acknowledged(key, sum)?;
            }
            Asked::Read(key) => {
                if let Some((value, version)) = parse_get(reply)? {
                    oracle.versions.lock().unwrap().told(key, &value, version)?;
                    oracle.shared.lock().unwrap().put_known(key, &value, version)?;
                    self.note_seen(key, version);
                }
            }
            Asked::ReadCounter(key) => {
                if let Some((value, _)) = parse_get(reply)? {
                    let sum = String::from_utf8_lossy(&value).parse().map_err(|error| format!("{key}: {error}"))?;
                    oracle.shared.lock().unwrap().counter_seen(key, sum);
                }
            }
        }
        Ok(())
    }

    /// A write of this peer has this version: it comes after its earlier ones and bounds its removals.
    fn wrote(&mut self, version: u64) -> Verdict {
        if version <= self.newest {
            return Err(format!("a peer's versions rise in the order sent: {} before {version}", self.newest));
        }
        self.newest = version;
        let mut shared = self.oracle.shared.lock().unwrap();
        for id in self.removals.drain(..) {
            shared.removal_before(&id, version);
        }
        Ok(())
    }

    fn note_seen(&mut self, key: &str, version: u64) {
        let index = REGISTERS.iter().position(|register| *register == key).expect("a register");
        self.seen[index] = version;
    }
}

/// One life under load, ended by SIGKILL after `replies_wanted` replies. Returns how many there were in the end.
fn live_and_die(daemon: Daemon, oracle: &Oracle, life: usize, random: &mut Random) -> Verdict<usize> {
    let (replies, heard) = channel();
    let replies_wanted = 1 + random.below(600);
    let grace = Duration::from_micros(random.below(3_000) as u64);
    let stops_first = random.one_in(6);
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for index in 0..WRITERS + READERS {
            let worker = Worker {
                writer: (index < WRITERS).then_some(index),
                oracle,
                peer: daemon.peer(),
                random: random.split(),
                outstanding: VecDeque::new(),
                life: life * (WRITERS + READERS) + index,
                sequence: 0,
                newest: 0,
                removals: Vec::new(),
                seen: [0; REGISTERS.len()],
            };
            let replies = replies.clone();
            workers.push(scope.spawn(move || worker.run(&replies)));
        }
        drop(replies);
        let mut count = 0;
        // The channel ends when every worker has given up: then one of them found something wrong.
        while count < replies_wanted && heard.recv_timeout(PATIENCE).is_ok() {
            count += 1;
        }
        // Not right after a reply each time: the moment is to fall into every phase of a commit.
        let moment = Instant::now() + grace;
        if stops_first {
            daemon.signal(Signal::TERM);
        }
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        let stderr = daemon.stderr_reader();
        daemon.kill();
        for worker in workers {
            let verdict = worker.join().map_err(|_| "a worker panicked".to_owned())?;
            verdict.map_err(|wrong| format!("{wrong}\n--- the daemon's stderr ---\n{}", stderr()))?;
        }
        Ok(count + heard.try_iter().count())
    })
}

/// Kills the daemon while it starts.
fn die_young(launch: &Launch, random: &mut Random) {
    let daemon = launch.spawn();
    std::thread::sleep(Duration::from_micros(random.below(30_000) as u64));
    daemon.kill();
}

fn survives_kills(mode: &str, share: usize) {
    let seed = seed();
    let mut random = Random::seeded(seed);
    let kills = std::env::var("KVD_KILLS").map_or(100, |text| text.parse().expect("KVD_KILLS is a number"));
    let kills = std::cmp::max(1, kills / share);
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB").option("--fsync", mode);
    let mut oracle = Oracle::new();
    let (mut replies, mut young) = (0, 0);
    for life in 0..=kills {
        if random.one_in(5) {
            die_young(&launch, &mut random);
            young += 1;
        }
        let daemon = launch.start();
        if let Err(wrong) = oracle.judge(&daemon) {
            panic!("after {life} kills: {wrong}\nto have this run again: KVD_SEED={seed}");
        }
        if life == kills {
            // A clean stop changes nothing either.
            daemon.stop();
            break;
        }
        match live_and_die(daemon, &oracle, life, &mut random) {
            Ok(count) => replies += count,
            Err(wrong) => panic!("in life {life}: {wrong}\nto have this run again: KVD_SEED={seed}"),
        }
    }
    let daemon = launch.start();
    oracle.judge(&daemon).unwrap_or_else(|wrong| panic!("after a clean stop: {wrong}\nKVD_SEED={seed}"));
    println!("--fsync {mode}: {kills} kills under load, {young} more in a start, {replies} replies, nothing lost");
}

#[test]
fn kills_under_fsync_always_lose_nothing() {
    survives_kills("always", 1);
}

#[test]
fn kills_under_fsync_every_second_lose_nothing() {
    survives_kills("1s", 4);
}

#[test]
fn kills_under_fsync_never_lose_nothing() {
    survives_kills("never", 4);
}
