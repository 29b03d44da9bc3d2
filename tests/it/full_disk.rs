//! Disks that are filled up, killed on, started on and emptied, over and over: tmpfs, ext4 and xfs.
//!
//! In each round one peer writes until there is no room, somebody else takes what is left, and the daemon is killed amid
//! refused writes and removals (or stopped). On the full disk it has to start again. Then there is room again: because
//! others have given back a little, and all, half or none of the keys are removed. What each key may hold is known to the byte
//! throughout.
//!
//! `KVD_FULL_DISK_ROUNDS` sets the number of rounds on all three together.

use crate::daemon::{Daemon, Frames, Launch, Store, eventually, words};
use crate::random::{Random, seed};
use crate::small_disk::{FileSystem, SmallDisk};
use crate::zmtp::Peer;
use std::collections::BTreeMap;

/// What the data may take.
const ROOM: u64 = 4 << 20;
/// Rounds on all three file systems, where nobody says how many.
const USUAL: usize = 15;
/// Requests sent before the first reply is read.
const WINDOW: usize = 16;
/// Refused writes after which a disk counts as full.
const REFUSED: usize = 2 * WINDOW;
/// More writes than the room has place for.
const MOST: usize = 10_000;
/// Writes accepted after which an emptied one counts as empty.
const ACCEPTED: usize = 4 * WINDOW;
/// What others give back at least, eight segments: writers and the reserve may take some of it before compaction does.
const A_LITTLE: u64 = 512 << 10;
/// Requests on their way when the daemon is killed.
const ON_THE_WAY: usize = 64;

enum Asked {
    Set { key: String, value: Vec<u8> },
    Remove { key: String },
}

impl Asked {
    fn frames(&self) -> Vec<&[u8]> {
        match self {
            Asked::Set { key, value } => vec![b"SET", key.as_bytes(), value],
            Asked::Remove { key } => vec![b"DEL", key.as_bytes()],
        }
    }
}

/// What each key holds, and what some may hold instead.
#[derive(Default)]
struct Known {
    keys: BTreeMap<String, Option<Vec<u8>>>,
    /// After a request that was never answered.
    unsure: BTreeMap<String, Option<Vec<u8>>>,
}

impl Known {
    /// Takes in a reply. Returns whether the request was refused for want of room.
    fn told(&mut self, asked: Asked, reply: &Frames) -> bool {
        match (asked, reply[0].as_slice()) {
            (Asked::Set { key, value }, b"OK") => {
                self.keys.insert(key, Some(value));
                false
            }
            (Asked::Set { key, .. }, b"ERR") if reply[1] == b"NOSPACE" => {
                self.keys.entry(key).or_default();
                true
            }
            (Asked::Remove { key }, b"OK") => {
                self.keys.insert(key, None);
                false
            }
            (Asked::Remove { .. }, b"ERR") if reply[1] == b"NOSPACE" => true,
            (asked, _) => panic!("{}: {}", asked.frames()[1].escape_ascii(), words(reply)),
        }
    }

    /// No reply will come.
    fn never_told(&mut self, asked: Asked) {
        let (key, value) = match asked {
            Asked::Set { key, value } => (key, Some(value)),
            Asked::Remove { key } => (key, None),
        };
        self.keys.entry(key.clone()).or_default();
        self.unsure.insert(key, value);
    }

    fn present(&self) -> Vec<String> {
        self.keys.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// Asks for every key, after a start, and goes on from there.
    fn judge(&mut self, daemon: &Daemon) {
        let mut peer = daemon.peer();
        for (key, held) in &mut self.keys {
            let reply = peer.call(&["GET", key]).expect("a reply");
            let found = (reply[0] == b"OK").then(|| reply[1].clone());
            let fits = found == *held || self.unsure.get(key) == Some(&found);
            assert!(fits, "{key} is {}, not what {:?} tells", words(&reply), held.as_ref().map(Vec::len));
            *held = found;
        }
        self.unsure.clear();
        self.count(&mut peer);
    }

    /// That many keys are there, so that there are no others.
    fn count(&self, peer: &mut Peer) {
        let reply = peer.call(&["COUNT"]).expect("a reply");
        assert_eq!(words(&reply), format!("OK {}", self.present().len()));
    }
}

/// How room is made again.
#[derive(Clone, Copy, Debug)]
enum Relief {
    /// Everything is flushed, and there is [`A_LITTLE`] for compaction to begin in.
    Flush,
    /// The same, where half of the keys are removed.
    Remove,
    /// The same without any removal.
    Outside,
}

struct Rounds {
    known: Known,
    random: Random,
    named: usize,
}

impl Rounds {
    fn set(&mut self) -> Asked {
        self.named += 1;
        let key = format!("k{}", self.named);
        let length = if self.random.one_in(4) { self.random.below(20_000) } else { self.random.below(4_000) };
        let mut value = format!("{key}:").into_bytes();
        value.resize(value.len() + length, b'.');
        Asked::Set { key, value }
    }

    /// Removes a random key, of those that are sure to be there.
    fn removal(&mut self, present: &mut Vec<String>) -> Option<Asked> {
        let key = (!present.is_empty()).then(|| present.swap_remove(self.random.below(present.len())))?;
        Some(Asked::Remove { key })
    }

    fn fill(&mut self, peer: &mut Peer) {
        let (mut refused, first) = (0, self.named);
        while refused < REFUSED {
            assert!(self.named - first < MOST, "more was accepted than there is room for");
            let asked: Vec<_> = (0..WINDOW).map(|_| self.set()).collect();
            for asked in &asked {
                peer.queue(&asked.frames());
            }
            peer.flush().expect("requests");
            for asked in asked {
                let reply = peer.recv().expect("a reply");
                refused += usize::from(self.known.told(asked, &reply));
            }
        }
    }

    /// Removes a key where nothing else is on its way: there is always room for that. (In one batch with writes that are
    /// refused, it is refused with them.)
    fn remove(&mut self, present: &mut Vec<String>, peer: &mut Peer) {
        let asked = self.removal(present).expect("a key");
        let reply = peer.call(&asked.frames()).expect("a reply");
        assert_eq!(words(&reply), "OK 1");
        self.known.told(asked, &reply);
    }

    /// What a full disk must not keep from being done.
    fn use_while_full(&mut self, peer: &mut Peer) {
        let mut present = self.known.present();
        for _ in 0..20 {
            let key = &present[self.random.below(present.len())];
            let reply = peer.call(&["GET", key]).expect("a reply");
            assert!(self.known.keys[key].as_ref() == Some(&reply[1]), "{key}: {}", words(&reply));
        }
        for _ in 0..5 {
            self.remove(&mut present, peer);
        }
        let gone = present.pop().expect("a key");
        let reply = peer.call(&["FLUSH", "PREFIX", &gone]).expect("a reply");
        assert_eq!(reply[0], b"OK", "{}", words(&reply));
        self.known.keys.iter_mut().filter(|(key, _)| key.starts_with(&gone)).for_each(|(_, value)| *value = None);
        self.known.count(peer);
    }

    /// kill -9 while writes are refused, and removals now and then accepted.
    fn die(&mut self, daemon: Daemon, mut peer: Peer) {
        let mut present = self.known.present();
        let mut asked = Vec::new();
        for _ in 0..ON_THE_WAY {
            let removal = if self.random.one_in(3) { self.removal(&mut present) } else { None };
            asked.push(removal.unwrap_or_else(|| self.set()));
        }
        for asked in &asked {
            peer.queue(&asked.frames());
        }
        peer.flush().expect("requests");
        let mut asked = asked.into_iter();
        for asked in asked.by_ref().take(self.random.below(ON_THE_WAY)) {
            let reply = peer.recv().expect("a reply");
            self.known.told(asked, &reply);
        }
        daemon.kill();
        // Replies that had left are heard; of the rest nothing is known.
        while let Ok(reply) = peer.recv() {
            self.known.told(asked.next().expect("a request for each reply"), &reply);
        }
        asked.for_each(|asked| self.known.never_told(asked));
    }

    /// Makes room, and waits until writes are accepted.
    fn relieve(&mut self, relief: Relief, peer: &mut Peer, give_back: impl FnOnce()) {
        give_back();
        match relief {
            Relief::Flush => {
                let reply = peer.call(&["FLUSH"]).expect("a reply");
                assert_eq!(reply[0], b"OK", "{}", words(&reply));
                self.known.keys.values_mut().for_each(|value| *value = None);
            }
            Relief::Remove => {
                let mut present = self.known.present();
                for _ in 0..present.len() / 2 {
                    self.remove(&mut present, peer);
                }
                peer.call(&["COMPACT"]).expect("a reply");
            }
            Relief::Outside => {}
        }
        let mut wanted = if matches!(relief, Relief::Flush) { ACCEPTED } else { 1 };
        eventually("writes are accepted again", || {
            let asked = self.set();
            let reply = peer.call(&asked.frames()).expect("a reply");
            wanted -= usize::from(!self.known.told(asked, &reply));
            wanted == 0
        });
    }
}

fn round(rounds: &mut Rounds, number: usize, disk: &SmallDisk, launch: &Launch, daemon: Daemon) -> Daemon {
    let relief = [Relief::Flush, Relief::Remove, Relief::Outside][number % 3];
    let mut peer = daemon.peer();
    disk.take("little", A_LITTLE);
    rounds.fill(&mut peer);
    disk.take_the_rest("rest");
    rounds.use_while_full(&mut peer);
    if rounds.random.one_in(4) {
        daemon.stop();
    } else {
        rounds.die(daemon, peer);
    }
    let daemon = launch.start();
    rounds.known.judge(&daemon);
    let mut peer = daemon.peer();
    rounds.relieve(relief, &mut peer, || {
        disk.give_back("little");
        disk.give_back("rest");
    });
    daemon
}

fn survives_full_disks(file_system: FileSystem) {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount(&store, file_system, ROOM) else { return };
    let count = std::env::var("KVD_FULL_DISK_ROUNDS").map_or(USUAL, |text| text.parse().expect("a number of rounds"));
    let count = count.div_ceil(3);
    let launch = Launch::on(&disk.data_dir()).segment_size("64KiB");
    let mut rounds = Rounds { known: Known::default(), random: Random::seeded(seed()), named: 0 };
    let mut daemon = launch.start();
    for number in 0..count {
        daemon = round(&mut rounds, number, &disk, &launch, daemon);
    }
    daemon.stop();
    rounds.known.judge(&launch.start());
    println!("{file_system:?}: {count} rounds, {} keys written, nothing lost", rounds.named);
}

/// Nothing is given back by anybody, and nothing but a FLUSH is asked for. From the second time on there is something to
/// compact before it, so that it may be some of what was lent that others take: the reserve, a segment, is a few loans.
fn is_emptied_by_a_flush_alone(file_system: FileSystem) {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount(&store, file_system, 4 * ROOM) else { return };
    let daemon = Launch::on(&disk.data_dir()).segment_size("1MiB").start();
    let mut rounds = Rounds { known: Known::default(), random: Random::seeded(seed()), named: 0 };
    let mut peer = daemon.peer();
    for _ in 0..3 {
        rounds.fill(&mut peer);
        disk.take_the_rest("rest");
        rounds.relieve(Relief::Flush, &mut peer, || ());
        rounds.known.count(&mut peer);
        disk.give_back("rest");
    }
}

#[test]
fn a_full_tmpfs_is_emptied_by_a_flush_alone() {
    is_emptied_by_a_flush_alone(FileSystem::Tmpfs);
}

#[test]
fn a_full_ext4_is_emptied_by_a_flush_alone() {
    is_emptied_by_a_flush_alone(FileSystem::Ext4);
}

#[test]
fn a_full_xfs_is_emptied_by_a_flush_alone() {
    is_emptied_by_a_flush_alone(FileSystem::Xfs);
}

#[test]
fn a_full_tmpfs_loses_nothing_and_can_be_emptied() {
    survives_full_disks(FileSystem::Tmpfs);
}

#[test]
fn a_full_ext4_loses_nothing_and_can_be_emptied() {
    survives_full_disks(FileSystem::Ext4);
}

#[test]
fn a_full_xfs_loses_nothing_and_can_be_emptied() {
    survives_full_disks(FileSystem::Xfs);
}
