//! The log stays small: compaction in a daemon that serves, under overwrites, kills, limits and damage.

use crate::daemon::{Client, Daemon, Store, eventually, words};
use crate::random::Random;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const SEGMENT: u64 = 256 << 10;
const KEYS: usize = 200;
const VALUE: usize = 1024;

/// Bytes that the files of a directory take on the disk, those sized ahead and temporary ones included.
fn allocated(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory");
    // A file may go while it is looked at.
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512)).sum()
}

fn value(key: usize, round: usize) -> Vec<u8> {
    let mut value = format!("{key}/{round}:").into_bytes();
    value.resize(VALUE, b'.');
    value
}

/// Overwrites random keys, and tells `look` now and then. What each key holds is kept in `rounds`.
fn overwrite(client: &Client, random: &mut Random, rounds: &mut [usize], times: usize, mut look: impl FnMut()) {
    for batch in 0..times / 100 {
        for _ in 0..100 {
            let key = random.below(rounds.len());
            rounds[key] += 1;
            client.send(&[b"SET", format!("k{key}").as_bytes(), &value(key, rounds[key])]);
        }
        for _ in 0..100 {
            let reply = client.recv();
            assert_eq!(reply[0], b"OK", "in batch {batch}: {}", words(&reply));
        }
        look();
    }
}

fn assert_holds(daemon: &Daemon, rounds: &[usize]) {
    let client = daemon.client();
    for (key, &round) in rounds.iter().enumerate().filter(|(_, round)| **round > 0) {
        let reply = client.call(&[b"GET", format!("k{key}").as_bytes()]);
        assert!(reply[1] == value(key, round), "key {key} of round {round}: {}", reply[1][..20].escape_ascii());
    }
}

#[test]
fn the_directory_stays_within_its_bound_while_everything_is_overwritten() {
    let store = Store::new();
    let launch = store.launch().segment_size("256KiB");
    let daemon = launch.start();
    let (mut random, mut rounds) = (Random::seeded(1), vec![0; KEYS]);
    // A record has 20 bytes of header, the payload 9 and the key.
    let live = (KEYS * (VALUE + 40)) as u64;
    let mut most = 0;
    overwrite(&daemon.dealer(), &mut random, &mut rounds, 40_000, || most = most.max(allocated(&store.path())));
    assert!(most <= 2 * live + 4 * SEGMENT, "{most} bytes on disk, {live} of them live");
    let client = daemon.client();
    assert!(client.figure("compactions") > 50);
    assert!(client.figure("log_live_bytes") <= live);
    assert_holds(&daemon, &rounds);
    daemon.kill();
    assert_holds(&launch.start(), &rounds);
}

#[test]
fn kills_in_the_middle_of_compactions_lose_nothing() {
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB");
    let (mut random, mut rounds) = (Random::seeded(2), vec![0; KEYS]);
    let kills = std::env::var("KVD_KILLS").map_or(20, |text| text.parse().expect("KVD_KILLS is a number"));
    let (mut compactions, mut in_the_middle, mut overwrites) = (0, 0, 0);
    for _ in 0..kills {
        let daemon = launch.start();
        assert_holds(&daemon, &rounds);
        let times = 500 + random.below(1500);
        overwrite(&daemon.dealer(), &mut random, &mut rounds, times, || ());
        overwrites += times / 100 * 100;
        let client = daemon.client();
        client.say("COMPACT");
        compactions += client.figure("compactions");
        in_the_middle += client.figure("compacting");
        daemon.kill();
    }
    println!("{kills} kills, {in_the_middle} while compacting; {compactions} compactions, {overwrites} overwrites");
    assert!(compactions > kills, "{compactions} compactions");
    // Of few kills none need meet a compaction.
    assert!(kills < 20 || in_the_middle > 0, "no compaction was under way");
    let daemon = launch.start();
    assert_holds(&daemon, &rounds);
    daemon.stop();
    assert_holds(&launch.start(), &rounds);
}

#[test]
fn a_full_run_leaves_little_but_what_counts() {
    let store = Store::new();
    let daemon = store.launch().segment_size("256KiB").start();
    let client = daemon.dealer();
    let mut rounds = vec![0; 2_000];
    overwrite(&client, &mut Random::seeded(3), &mut rounds, 4_000, || ());
    for key in 0..1_900 {
        client.send(&[b"DEL", format!("k{key}").as_bytes()]);
    }
    for _ in 0..1_900 {
        assert_eq!(client.recv()[0], b"OK");
    }
    let asked = daemon.client();
    let sealed = asked.figure("log_active_segment") - 1;
    assert!(sealed > 8, "{sealed} segments");
    assert_eq!(asked.say("COMPACT"), "OK");
    // What counts, the header of each file that is left, and the active segment, which is never compacted.
    let most = asked.figure("log_live_bytes") + 3 * SEGMENT;
    eventually("the log is small", || asked.figure("compacting") == 0 && asked.figure("log_bytes") < most);
    assert!(asked.figure("compaction_bytes_reclaimed") > 0);
    daemon.kill();
    let daemon = store.launch().segment_size("256KiB").start();
    assert_eq!(daemon.client().say("EXISTS k0 k1000 k1899"), "OK 0");
    rounds[..1_900].fill(0);
    assert_holds(&daemon, &rounds);
}

#[test]
fn the_log_has_a_limit_and_removals_make_room_again() {
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB").option("--max-log-size", "640KiB");
    let daemon = launch.start();
    let client = daemon.client();
    let mut stored = 0;
    let refused = loop {
        let reply = client.call(&[b"SET", format!("k{stored}").as_bytes(), &value(stored, 1)]);
        if reply[0] != b"OK" {
            break words(&reply);
        }
        stored += 1;
        assert!(allocated(&store.path()) <= 640 << 10, "after {stored} values");
        assert!(stored < 1_000, "never refused");
    };
    assert!(refused.starts_with("ERR NOSPACE"), "{refused}");
    assert!(stored > 300, "{stored} values of 1 KiB are few for 640 KiB, of which 256 are in reserve");
    assert_eq!(client.call(&[b"GET", b"k0"])[1], value(0, 1));
    for key in 0..stored / 2 {
        assert_eq!(client.say(&format!("DEL k{key}")), "OK 1");
    }
    eventually("there is room again", || client.say("SET more v").starts_with("OK"));
    daemon.kill();
    let daemon = launch.start();
    let client = daemon.client();
    assert_eq!(client.say("EXISTS k0"), "OK 0");
    assert_eq!(client.call(&[b"GET", format!("k{}", stored - 1).as_bytes()])[1], value(stored - 1, 1));
}

#[test]
fn one_value_that_would_break_the_limit_of_the_log_is_refused() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").option("--max-log-size", "384KiB").start();
    let client = daemon.client();
    let large = vec![7; 20_000_000];
    for body in [vec![&b"SET"[..], b"k", &large], vec![b"MSET", b"k", &large], vec![b"SET", b"k", &large[..132_000]]] {
        let refused = words(&client.call(&body));
        assert!(refused.starts_with("ERR NOSPACE") && refused.contains("--max-log-size"), "{refused}");
    }
    assert!(client.call(&[b"SET", b"k", &large[..60_000]])[0] == b"OK");
    let refused = words(&client.call(&[b"APPEND", b"k", &large[..60_000]]));
    assert!(refused.starts_with("ERR NOSPACE"), "what it would record is the whole value: {refused}");
    assert_eq!(client.call(&[b"GET", b"k"])[1].len(), 60_000);
    assert!(client.say("SET small v").starts_with("OK"));
    assert!(allocated(&store.path()) <= 384 << 10);
    daemon.kill();
}

#[test]
fn damage_that_compaction_finds_is_told_and_nothing_is_removed() {
    let store = Store::new();
    let daemon = store.launch().segment_size("256KiB").start();
    let client = daemon.client();
    let keys: Vec<String> = (0..400).map(|key| format!("k{key}")).collect();
    for key in &keys {
        assert_eq!(client.call(&[b"SET", key.as_bytes(), &value(1, 1)])[0], b"OK");
    }
    let victim = store.segments()[0].clone();
    let mut bytes = std::fs::read(&victim).expect("the first segment");
    bytes[100_000] ^= 1;
    std::fs::write(&victim, &bytes).expect("damaged");
    for key in keys.iter().step_by(2) {
        assert_eq!(client.say(&format!("DEL {key}")), "OK 1");
    }
    client.say("COMPACT");
    eventually("the damage is found", || client.figure("compactions_given_up") > 0);
    eventually("it is told", || daemon.stderr().contains("is damaged at offset"));
    assert!(std::fs::read(&victim).expect("still there") == bytes);
    assert_eq!(client.call(&[b"GET", b"k1"])[1], value(1, 1), "memory has it");
    client.say("COMPACT");
    assert_eq!(client.say("PING"), "OK PONG");
}

#[test]
fn a_left_over_of_a_compaction_is_removed_at_a_start() {
    let store = Store::new();
    let daemon = store.start();
    daemon.client().say("SET k v");
    daemon.kill();
    let left_over = store.path().join("segment-00000000000000000001.log.tmp");
    std::fs::write(&left_over, b"half a segment").expect("a file");
    assert_eq!(store.start().client().say("GET k"), "OK v 1 0");
    assert!(!left_over.exists());
}
