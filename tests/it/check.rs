//! `kvd check`: its exit code tells what a start would do, and it changes nothing.

use crate::daemon::Store;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit code and what it said.
pub fn check(directory: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kvd")).arg("check").arg(directory).output().expect("kvd check");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The JSON object of a check.
fn object(directory: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kvd")).args(["check", "--json"]).arg(directory).output();
    serde_json::from_slice(&output.expect("kvd check").stdout).expect("one JSON object")
}

#[test]
fn what_check_says_is_what_a_start_does() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..50 {
        client.say(&format!("SET needle-{n:03} value"));
    }
    let beside = check(&store.path());
    assert_eq!(beside.0, Some(0), "beside a running daemon: {}", beside.1);
    daemon.kill();
    let (code, said) = check(&store.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 segments, 50 records: clean"), "{said}");

    let segment = store.path().join("segment-00000000000000000001.log");
    let whole = fs::read(&segment).expect("the segment");
    let damage = |needle: &str| {
        let mut bytes = whole.clone();
        let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect("the key");
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).expect("a damaged segment");
        let before = store.contents();
        let found = check(&store.path());
        assert!(before == store.contents(), "check changed something");
        found
    };
    let (code, said) = damage("needle-049");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("torn-tail: a start saves these bytes"), "{said}");
    let (code, said) = damage("needle-020");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("record-checksum: a start refuses"), "{said}");
    assert_eq!(check(Path::new("/nowhere/at/all")).0, Some(3));
}

#[test]
fn every_record_is_accounted_for() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").start();
    let client = daemon.client();
    let pad = "v".repeat(1000);
    for round in 0..3 {
        for n in 0..100 {
            client.say(&format!("SET key-{n:03} {pad}{round}"));
        }
    }
    for n in 0..10 {
        client.say(&format!("DEL key-{n:03}"));
    }
    client.say("SET brief v TTL 1");
    client.say("SET gone:1 v");
    client.say("SET gone:2 v");
    client.say("FLUSH PREFIX gone:");
    // What has expired is not live by the clock, whether or not it was removed.
    while client.say("GET brief") != "MISS" {}
    daemon.stop();
    let object = object(&store.path());
    assert_eq!((&object["finding"], &object["flaws"]), (&"clean".into(), &Value::Array(Vec::new())));
    let segments = object["segments"].as_array().expect("segments");
    assert!(segments.len() > 3);
    let sum = |name: &str| segments.iter().map(|segment| segment[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(sum("live"), 90);
    assert_eq!(sum("records"), sum("live") + sum("superseded") + sum("tombstones"));
    assert_eq!(sum("records"), object["records"].as_u64().expect("a number"));
    assert_eq!(segments.last().expect("the active one")["clean_stop"], true);
    let versions: Vec<_> = segments.iter().filter_map(|segment| segment["versions"].as_array()).flatten().collect();
    assert!(versions.is_sorted_by_key(|version| version.as_u64()), "{versions:?}");
}

#[test]
fn one_fault_keeps_nobody_from_looking_at_the_rest() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").option("--compaction-rate", "64KiB").start();
    let client = daemon.client();
    let pad = "v".repeat(1000);
    for n in 0..400 {
        client.say(&format!("SET key-{n:03} {pad}"));
    }
    daemon.kill();
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let files: Vec<_> = store.segments().iter().map(name).collect();
    let (damaged, missing) = (store.path().join(&files[1]), store.path().join(&files[3]));
    let mut bytes = fs::read(&damaged).expect("a segment");
    bytes[20_000] ^= 1;
    fs::write(&damaged, &bytes).expect("a damaged segment");
    fs::remove_file(&missing).expect("a segment less");
    let before = store.contents();
    let object = object(&store.path());
    assert!(before == store.contents(), "check changed something");
    assert_eq!(object["finding"], "damage");
    let flaws: Vec<_> = object["flaws"].as_array().expect("flaws").iter().collect();
    let kinds: Vec<_> = flaws.iter().map(|flaw| (flaw["kind"].as_str(), flaw["file"].as_str())).collect();
    assert_eq!(kinds[0], (Some("missing-segment"), Some(files[3].as_str())));
    assert_eq!(kinds[1].1, Some(files[1].as_str()));
    assert!(flaws[1]["offset"].as_u64().is_some_and(|offset| offset <= 20_000));
    assert!(object["segments"].as_array().is_some_and(|read| read.len() >= files.len() - 2), "the others were read");
    assert_eq!(check(&store.path()).0, Some(2));
}

#[test]
fn beside_a_compaction_nothing_is_called_damaged() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").option("--fsync", "never").start();
    let client = daemon.client();
    let pad = "v".repeat(1000);
    for round in 0..40 {
        for n in 0..50 {
            client.say(&format!("SET key-{n:03} {pad}{round}"));
        }
        client.say("COMPACT");
        let (code, said) = check(&store.path());
        assert!(matches!(code, Some(0 | 1)), "{said}");
    }
}
