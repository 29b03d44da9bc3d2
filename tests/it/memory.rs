//! The limit of memory: what goes, what stays, what a restart brings back.

use crate::daemon::{Client, KVD, Launch, Store, words};
use std::collections::BTreeSet;

const LIMIT: u64 = 16 << 20;

fn limited(store: &Store) -> Launch {
    store.launch().option("--max-memory", "16MiB")
}

/// Stores this many keys of 100 bytes, pipelined.
fn fill(client: &Client, keys: std::ops::Range<usize>) {
    for start in keys.clone().step_by(500) {
        let part = start..keys.end.min(start + 500);
        for key in part.clone() {
            client.send(&[b"SET", format!("key{key:08}").as_bytes(), &[b'v'; 100]]);
        }
        for _ in part {
            let reply = client.recv();
            assert_eq!(reply[0], b"OK", "{}", words(&reply));
        }
    }
}

/// Every key there is.
fn keys(client: &Client) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    loop {
        let page = client.call(&[b"SCAN", &cursor, b"COUNT", b"1000"]);
        keys.extend(page[2..].iter().cloned());
        cursor.clone_from(&page[1]);
        if cursor == b"0" {
            return keys;
        }
    }
}

#[test]
fn a_history_tells_which_removals_were_evictions() {
    let store = Store::new();
    let daemon = store.launch().option("--max-memory", "1MiB").start();
    let client = daemon.dealer();
    client.say("SET removed v");
    assert_eq!(client.say("DEL removed"), "OK 1");
    fill(&client, 0..10_000);
    assert!(client.figure("evicted_keys") > 0);
    daemon.kill();
    let dumped = std::process::Command::new(KVD).args(["dump", "--history"]).arg(store.path()).output().expect("run");
    let history = String::from_utf8(dumped.stdout).expect("JSON");
    let removals: Vec<&str> = history.lines().filter(|line| line.contains("\"removed\":true")).collect();
    let (evicted, asked): (Vec<&str>, Vec<&str>) = removals.iter().partition(|line| line.contains("\"evicted\":true"));
    assert!(!evicted.is_empty() && evicted.iter().all(|line| line.contains("\"key\":\"key")));
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("\"key\":\"removed\""));
}

#[test]
fn memory_stays_within_its_limit_and_a_restart_brings_back_what_there_was() {
    let store = Store::new();
    let daemon = limited(&store).start();
    let client = daemon.dealer();
    // Read again and again, so that they stay.
    fill(&client, 0..1_000);
    for start in (1_000..200_000).step_by(1_000) {
        fill(&client, start..start + 1_000);
        for key in 0..200 {
            client.send(&[b"GET", format!("key{key:08}").as_bytes()]);
        }
        for _ in 0..200 {
            client.recv();
        }
        assert!(client.figure("memory_bytes") <= LIMIT, "after {start} keys");
    }
    assert!(client.figure("evicted_keys") > 80_000);
    let before = keys(&client);
    assert!(before.len() > 80_000, "{} keys fit", before.len());
    assert!(client.figure("memory_bytes") > LIMIT / 10 * 9, "the limit is used");
    let stayed = (0..200).filter(|key| before.contains(format!("key{key:08}").as_bytes())).count();
    assert!(stayed > 190, "{stayed} of the 200 keys that were read all the time are left");
    daemon.kill();
    let daemon = limited(&store).start();
    let after = keys(&daemon.client());
    assert!(after == before, "{} keys before, {} after", before.len(), after.len());
    fill(&daemon.dealer(), 200_000..210_000);
    assert!(daemon.client().figure("memory_bytes") <= LIMIT);
}

#[test]
fn without_eviction_a_full_memory_refuses_and_a_removal_makes_room() {
    let store = Store::new();
    let daemon = limited(&store).option("--eviction", "none").start();
    let client = daemon.client();
    let mut stored = 0;
    let refused = loop {
        let reply = client.call(&[b"SET", format!("key{stored}").as_bytes(), &[b'v'; 10_000]]);
        if reply[0] != b"OK" {
            break words(&reply);
        }
        stored += 1;
        assert!(stored < 3_000, "never refused");
    };
    assert!(refused.starts_with("ERR NOMEM"), "{refused}");
    assert!(stored > 1_000);
    assert_eq!(client.say("EXISTS key0"), "OK 1", "reads go on");
    assert_eq!(client.say("DEL key0 key1"), "OK 2");
    assert!(client.call(&[b"SET", b"key0", &[b'v'; 10_000]])[0] == b"OK");
    assert_eq!(client.figure("evicted_keys"), 0);
}

#[test]
fn a_value_that_can_never_fit_is_refused_and_evicts_nothing() {
    let store = Store::new();
    let daemon = limited(&store).start();
    let client = daemon.client();
    client.say("SET small v");
    let refused = words(&client.call(&[b"SET", b"large", &vec![b'v'; 17 << 20]]));
    assert!(refused.starts_with("ERR NOMEM"), "{refused}");
    assert_eq!(client.say("EXISTS small large"), "OK 1");
}

#[test]
fn a_start_with_a_lower_limit_evicts_and_says_so() {
    let store = Store::new();
    let daemon = store.start();
    fill(&daemon.dealer(), 0..160_000);
    daemon.kill();
    let daemon = limited(&store).start();
    let client = daemon.client();
    // And somewhat below, where eviction ends, with nothing more on its way.
    crate::daemon::eventually("memory is within the limit", || {
        let settled = client.figure("next_version") == client.figure("durable_version") + 1;
        settled && client.figure("memory_bytes") <= LIMIT / 32 * 31
    });
    assert!(daemon.stderr().contains("--max-memory"), "{}", daemon.stderr());
    let left = keys(&client);
    assert!(left.len() > 80_000, "{} keys are left", left.len());
    daemon.kill();
    let after = keys(&limited(&store).start().client());
    assert!(after == left, "{} keys before, {} after", left.len(), after.len());
}
