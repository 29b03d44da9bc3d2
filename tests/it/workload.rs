//! A load of pipelined commands from many peers, who remember what they sent, were told and saw.
//!
//! Each peer has keys that only it writes and shares others with all; the [`crate::oracle`] judges every key once a new
//! daemon serves what an ended one left. The peers are plain TCP: they read until end of file, so that no reply that left
//! the daemon goes unheard.

use crate::daemon::{Daemon, PATIENCE};
use crate::oracle::{
    Condition, Entry, Operation, RemovalId, Shared, Sighting, State, Verdict, Versions, Writer, parse_get,
    parse_version,
};
use crate::random::Random;
use crate::zmtp::Peer;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

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
pub struct Oracle {
    writers: Vec<Mutex<Writer>>,
    shared: Mutex<Shared>,
    versions: Mutex<Versions>,
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle {
            writers: (0..WRITERS).map(|_| Mutex::default()).collect(),
            shared: Mutex::default(),
            versions: Mutex::default(),
        }
    }

    /// Reads every key of a fresh daemon and judges it.
    pub fn judge(&mut self, daemon: &Daemon) -> Verdict {
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

    /// One life of a daemon under load, ended by `end`, which may wait for replies first. Returns how many there were.
    pub fn live(
        &self,
        daemon: Daemon,
        life: usize,
        random: &mut Random,
        end: impl FnOnce(Daemon, &mut Replies),
    ) -> Verdict<usize> {
        let (told, heard) = channel();
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for index in 0..WRITERS + READERS {
                let worker = Worker {
                    writer: (index < WRITERS).then_some(index),
                    oracle: self,
                    peer: daemon.peer(),
                    random: random.split(),
                    outstanding: VecDeque::new(),
                    life: life * (WRITERS + READERS) + index,
                    sequence: 0,
                    newest: 0,
                    removals: Vec::new(),
                    seen: [0; REGISTERS.len()],
                };
                let told = told.clone();
                workers.push(scope.spawn(move || worker.run(&told)));
            }
            drop(told);
            let stderr = daemon.stderr_reader();
            let mut replies = Replies { heard, count: 0 };
            end(daemon, &mut replies);
            for worker in workers {
                let verdict = worker.join().map_err(|_| "a worker panicked".to_owned())?;
                verdict.map_err(|wrong| format!("{wrong}\n--- the daemon's stderr ---\n{}", stderr()))?;
            }
            Ok(replies.count + replies.heard.try_iter().count())
        })
    }
}

/// The replies of one life, as they come.
pub struct Replies {
    heard: Receiver<()>,
    count: usize,
}

impl Replies {
    /// Waits until there are so many, or there will be no more: every worker that found something wrong has given up.
    pub fn wait_for(&mut self, count: usize) {
        while self.count < count && self.heard.recv_timeout(PATIENCE).is_ok() {
            self.count += 1;
        }
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
            85..87 => Operation::Touch(key),
            87..88 => Operation::GetTouch(key),
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
