//! Steps of the wall clock, within a run and between two: they change no time to live, and bring nothing back.

use super::daemon::{Daemon, Settings};
use super::network::Network;
use crate::log::SyncPolicy;
use crate::log::fs::{Crash, FakeDisk};
use std::time::{Duration, Instant};

/// Later than any clock that this may run on.
const BEGINNING: u64 = 1 << 42;
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

const SETTINGS: Settings = Settings {
    sync: SyncPolicy::Always,
    segment_size: 8192,
    max_log_size: u64::MAX,
    memory: usize::MAX / 2,
    steps: 8,
    most_backlog: 1 << 20,
};

/// A store with one client, and a wall clock that can be set.
struct House {
    disk: FakeDisk,
    network: Network,
    daemon: Daemon,
    began: Instant,
    now: Instant,
    stepped: i64,
}

impl House {
    /// Starts a new store, where the wall clock is off by so many milliseconds.
    fn new(stepped: i64) -> House {
        let (disk, began) = (FakeDisk::new(), Instant::now());
        let network = Network::default();
        network.connect(1);
        let wall = BEGINNING.saturating_add_signed(stepped);
        let daemon = Daemon::start(&disk, SETTINGS, &network, wall, began).expect("a new store");
        House { disk, network, daemon, began, now: began, stepped }
    }

    fn wall(&self) -> u64 {
        (BEGINNING + (self.now - self.began).as_millis() as u64).saturating_add_signed(self.stepped)
    }

    /// The power goes, and kvd is started again.
    fn restart(self) -> House {
        let House { disk, network, daemon, .. } = self;
        drop(daemon);
        let disk = disk.crash(Crash::LoseAll);
        let wall = (BEGINNING + (self.now - self.began).as_millis() as u64).saturating_add_signed(self.stepped);
        let daemon = Daemon::start(&disk, SETTINGS, &network, wall, self.now).expect("a log without damage");
        House { disk, network, daemon, ..self }
    }

    fn pass(&mut self) {
        let wall = self.wall();
        self.daemon.pass(self.now, wall).expect("a disk that works");
        self.daemon.work(self.now);
        self.daemon.pass(self.now, wall).expect("a disk that works");
    }

    fn wait(&mut self, milliseconds: i64) {
        self.now += Duration::from_millis(milliseconds.unsigned_abs());
        self.pass();
    }

    fn say(&mut self, request: &str) -> String {
        let frames = std::iter::once(Vec::new()).chain(request.split(' ').map(|word| word.as_bytes().to_vec()));
        self.network.send(1, frames.collect());
        for _ in 0..10 {
            self.pass();
            if let Some(reply) = self.network.read(1) {
                let words = reply.iter().skip(1).map(|frame| String::from_utf8_lossy(frame).into_owned());
                return words.collect::<Vec<_>>().join(" ");
            }
        }
        panic!("no reply to {request}");
    }

    fn has(&mut self, key: &str) -> bool {
        self.say(&format!("GET {key}")).starts_with("OK")
    }

    /// Sets a key that expires at a date so far ahead by the wall clock.
    fn set_at(&mut self, key: &str, ahead: i64) {
        let date = self.wall().saturating_add_signed(ahead);
        assert!(self.say(&format!("SET {key} v AT {date}")).starts_with("OK"));
    }
}

#[test]
fn a_clock_that_is_corrected_in_a_run_changes_no_time_to_live() {
    let mut house = House::new(0);
    house.say(&format!("SET hour v TTL {HOUR}"));
    // It was two days behind.
    house.stepped += 2 * DAY;
    house.set_at("date", SECOND);
    house.wait(SECOND + 1);
    assert!(!house.has("date"), "a date by the wall clock as it is now");
    assert!(house.has("hour"));
    let mut house = house.restart();
    assert!(house.has("hour"), "the step outlives the run");
    house.wait(HOUR);
    assert!(!house.has("hour"));
}

#[test]
fn a_clock_that_was_ahead_in_one_run_leaves_dates_right_in_the_next() {
    let mut house = House::new(50 * 60 * SECOND);
    house.say("SET k v");
    house.stepped = 0;
    let mut house = house.restart();
    house.set_at("date", 1000 * SECOND);
    house.wait(999 * SECOND);
    assert!(house.has("date"));
    let mut house = house.restart();
    assert!(house.has("date"), "and in the one after that");
    house.wait(2 * SECOND);
    assert!(!house.has("date"));
}

#[test]
fn a_start_with_a_wild_clock_spoils_nothing_for_good() {
    let mut house = House::new(80 * 365 * DAY);
    house.say("SET k v");
    house.stepped = 0;
    let mut house = house.restart();
    house.say(&format!("SET short v TTL {SECOND}"));
    house.wait(2 * SECOND);
    assert!(!house.has("short"));
    house.say("SET k w");
    house.stepped = -30 * 60 * SECOND;
    let mut house = house.restart();
    assert!(!house.has("short"), "what was seen expired stays gone across a step back");
}

#[test]
fn a_step_is_recorded_although_nothing_is_written() {
    let mut house = House::new(0);
    house.say(&format!("SET hour v TTL {HOUR}"));
    house.stepped += 2 * HOUR;
    house.wait(10 * SECOND);
    house.pass();
    let mut house = house.restart();
    assert!(house.has("hour"), "by a mark alone");
    assert!(house.say("TTL hour").starts_with("OK 3"), "with what is left of its hour");
}

#[test]
fn what_a_start_made_of_the_clocks_outlives_a_run_in_which_nothing_is_written() {
    let mut house = House::new(0);
    house.say(&format!("SET short v TTL {}", 600 * SECOND));
    // Set back while kvd is down: T goes on from the last one.
    house.stepped -= 30 * 60 * SECOND;
    let mut house = house.restart();
    house.wait(610 * SECOND);
    assert!(!house.has("short"));
    let mut house = house.restart();
    assert!(!house.has("short"), "what was seen expired stays gone");
}
