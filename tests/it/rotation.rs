//! Segments that fill up: with 64 KiB a segment, every few batches begin a new file, in every `--fsync` mode and
//! with kill -9 in between. SIGKILL takes nothing that was acknowledged in any mode, since the kernel keeps what
//! was written.

use crate::daemon::{Client, Store, words};
use std::time::{Duration, Instant};

/// A value that names its key and round, and fills its part of a segment.
fn value(key: usize, round: usize) -> Vec<u8> {
    let mut value = format!("{key}/{round}:").into_bytes();
    value.resize(5_000 + 37 * key, b'a' + (round % 26) as u8);
    value
}

fn assert_holds(client: &Client, round: usize) {
    for key in 0..40 {
        let reply = client.call(&[b"GET", format!("k{key}").as_bytes()]);
        assert_eq!(reply[0], b"OK", "key {key} after round {round}: {}", words(&reply));
        assert!(reply[1] == value(key, round), "key {key} after round {round}");
    }
}

fn survives_kills_at_every_round(mode: &str) {
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB").option("--fsync", mode);
    let mut most_segments = 0;
    for round in 0..6 {
        let daemon = launch.start();
        let client = daemon.dealer();
        if round > 0 {
            assert_holds(&client, round - 1);
        }
        for key in 0..40 {
            client.send(&[b"SET", format!("k{key}").as_bytes(), &value(key, round)]);
        }
        for _ in 0..40 {
            assert_eq!(client.recv()[0], b"OK");
        }
        assert_holds(&client, round);
        most_segments = most_segments.max(store.segments().len());
        daemon.kill();
    }
    assert!(most_segments >= 3, "{most_segments} segments: nothing was rotated");
    let daemon = launch.start();
    assert_holds(&daemon.client(), 5);
    daemon.stop();
    assert_holds(&launch.start().client(), 5);
}

#[test]
fn under_fsync_always() {
    survives_kills_at_every_round("always");
}

#[test]
fn under_fsync_every_second() {
    survives_kills_at_every_round("1s");
}

#[test]
fn under_fsync_never() {
    survives_kills_at_every_round("never");
}

#[test]
fn what_was_compacted_rests_on_what_was_synced() {
    for mode in ["always", "1h", "never"] {
        let store = Store::new();
        let launch = store.launch().segment_size("64KiB").option("--fsync", mode);
        let daemon = launch.start();
        let client = daemon.dealer();
        for round in 0..3 {
            for key in 0..40 {
                assert_eq!(client.call(&[b"SET", format!("k{key}").as_bytes(), &value(key, round)])[0], b"OK");
            }
        }
        let newest = client.figure("next_version") - 1;
        assert_eq!(client.say("COMPACT"), "OK");
        let until = Instant::now() + Duration::from_secs(60);
        while client.figure("compactions") == 0 || client.figure("compacting") > 0 {
            assert!(Instant::now() < until, "{mode}: a compaction in time");
        }
        assert!(client.figure("durable_version") >= newest, "{mode}: the log was synced for it");
        daemon.kill();
        assert_holds(&launch.start().client(), 2);
    }
}

#[test]
fn batches_larger_than_a_segment() {
    let store = Store::new();
    let launch = store.launch().segment_size("64KiB");
    let daemon = launch.start();
    let client = daemon.client();
    let large = vec![b'L'; 1 << 20];
    let pairs: Vec<(String, Vec<u8>)> = (0..50).map(|key| (format!("m{key}"), value(key, 1))).collect();
    let mut group: Vec<&[u8]> = vec![b"MSET"];
    for (key, value) in &pairs {
        group.extend([key.as_bytes(), value]);
    }
    client.say("SET before v");
    assert_eq!(client.call(&[b"SET", b"large", &large])[0], b"OK");
    client.say("SET between v");
    assert_eq!(client.call(&group)[0], b"OK");
    client.say("SET after v");
    daemon.kill();
    for stopped_well in [false, true] {
        let daemon = launch.start();
        let client = daemon.client();
        assert_eq!(client.say("EXISTS before between after"), "OK 3");
        assert!(client.call(&[b"GET", b"large"])[1] == large);
        for (key, value) in &pairs {
            assert!(client.call(&[b"GET", key.as_bytes()])[1] == *value, "{key}");
        }
        if stopped_well {
            daemon.stop();
        } else {
            daemon.kill();
        }
    }
}

#[test]
fn a_directory_may_be_reopened_with_another_segment_size() {
    let store = Store::new();
    for (round, size) in ["64KiB", "1MiB", "64KiB"].into_iter().enumerate() {
        let daemon = store.launch().segment_size(size).start();
        let client = daemon.client();
        if round > 0 {
            assert_holds(&client, round - 1);
        }
        for key in 0..40 {
            assert_eq!(client.call(&[b"SET", format!("k{key}").as_bytes(), &value(key, round)])[0], b"OK");
        }
        daemon.kill();
    }
    assert_holds(&store.start().client(), 2);
}
