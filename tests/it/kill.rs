//! kill -9 at random moments, over and over, while many peers write: nothing that was promised is ever lost,
//! nothing that was shown is ever taken back, nothing comes back that was removed.
//!
//! Each cycle starts the daemon on what the last one left, lets the oracle judge every key, puts the
//! [`crate::workload`] on it (64 KiB segments, so that rotation never stops), and kills it after a random number of
//! replies: under load, or a moment after SIGTERM; sometimes once more in the middle of the start.
//!
//! `KVD_KILLS` sets the number of kills, `KVD_SEED` repeats a run's choices (not the scheduler's).

use crate::daemon::{Daemon, Launch, Store};
use crate::oracle::Verdict;
use crate::random::{Random, seed};
use crate::workload::Oracle;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// One life under load, ended by SIGKILL after a random number of replies. Returns how many there were in the end.
fn live_and_die(daemon: Daemon, oracle: &Oracle, life: usize, random: &mut Random) -> Verdict<usize> {
    let replies_wanted = 1 + random.below(600);
    let grace = Duration::from_micros(random.below(3_000) as u64);
    let stops_first = random.one_in(6);
    oracle.live(daemon, life, random, |daemon, replies| {
        replies.wait_for(replies_wanted);
        // Not right after a reply each time: the moment is to fall into every phase of a commit.
        let moment = Instant::now() + grace;
        if stops_first {
            daemon.signal(Signal::TERM);
        }
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        daemon.kill();
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
