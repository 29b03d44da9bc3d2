//! `kvd repair`: whatever happens to the files, what is whole comes back, and nothing that may be stale goes unsaid.

use crate::daemon::{Client, Store, eventually, segments};
use crate::random::Random;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each key holds; absent ones are not in it.
type Contents = BTreeMap<String, String>;

fn kvd(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kvd")).args(arguments).output().expect("a kvd");
    let said = if output.status.success() || output.stderr.is_empty() { output.stdout } else { output.stderr };
    (output.status.code(), String::from_utf8(said).expect("text"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// What a repair says as an object, and its exit code.
fn repair(directory: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let (code, said) = kvd(&[&["repair", text(directory), "--json"], more].concat());
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

fn dump(directory: &Path) -> Contents {
    let (code, said) = kvd(&["dump", text(directory)]);
    assert_eq!(code, Some(0), "{said}");
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let word = |word: &Value| word.as_str().expect("text").to_owned();
    lines.map(|line| (word(&line["key"]), word(&line["value"]))).collect()
}

fn suspects(report: &Value) -> BTreeSet<String> {
    let suspects = report["suspects"].as_array().expect("suspects");
    suspects.iter().map(|suspect| suspect["key"].as_str().expect("text").to_owned()).collect()
}

/// A log of several segments, the oldest of them compacted or none, and what a start would find in it.
fn log(is_compacted: bool) -> (Store, Contents) {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").start();
    let client = daemon.client();
    let mut contents = Contents::new();
    let mut random = Random::seeded(5);
    let set = |client: &Client, contents: &mut Contents, key: usize, round: usize| {
        let (key, value) = (format!("key-{key:03}"), format!("{round}:{}", "v".repeat(600 + key % 200)));
        assert!(client.say(&format!("SET {key} {value}")).starts_with("OK"));
        contents.insert(key, value);
    };
    for round in 0..400 {
        // Where each key is written once, there is nothing to compact.
        set(&client, &mut contents, if is_compacted { random.below(120) } else { round }, round);
        if round == 250 && is_compacted {
            client.say("COMPACT");
            eventually("compaction is through", || {
                client.figure("compactions") > 0 && client.figure("compacting") == 0
            });
        }
        if round % 9 == 0 {
            let key = format!("key-{:03}", random.below(120));
            client.say(&format!("DEL {key}"));
            contents.remove(&key);
        }
        if round % 50 == 0 {
            let pair = ["one", "two"].map(|half| (format!("pair-{half}"), format!("{round}")));
            client.say(&format!("MSET {} {} {} {}", pair[0].0, pair[0].1, pair[1].0, pair[1].1));
            contents.extend(pair);
        }
    }
    client.say("FLUSH PREFIX key-11");
    contents.retain(|key, _| !key.starts_with("key-11"));
    for round in 400..420 {
        set(&client, &mut contents, random.below(120), round);
    }
    daemon.kill();
    assert!(written(&store.path()).len() > 3);
    assert!(dump(&store.path()) == contents);
    (store, contents)
}

/// The segments that hold something, oldest first: a spare is all zeros.
fn written(directory: &Path) -> Vec<PathBuf> {
    let mut files = segments(directory);
    files.retain(|file| fs::read(file).expect("a segment").iter().any(|byte| *byte != 0));
    files
}

/// A copy of a directory's segments.
fn copy(from: &Store) -> Store {
    let to = Store::new();
    fs::create_dir_all(to.path()).expect("a directory");
    for segment in from.segments() {
        fs::copy(&segment, to.path().join(segment.file_name().expect("a name"))).expect("a copy");
    }
    to
}

/// Changes a file, and tells what was done.
fn spoil(files: &[PathBuf], random: &mut Random) -> String {
    let file = &files[random.below(files.len())];
    let mut bytes = fs::read(file).expect("a segment");
    let filled = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let at = random.below(filled);
    let length = 1 << random.below(13);
    let range = at..(at + length).min(bytes.len());
    let what = match random.below(8) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            "one bit flipped"
        }
        2 => {
            bytes[range].fill(0);
            "zeros"
        }
        3 => {
            let other = random.bytes(range.len());
            bytes[range].copy_from_slice(&other);
            "noise"
        }
        4 => {
            bytes.truncate(at);
            "cut short"
        }
        5 => {
            let from = random.below(filled - range.len().min(filled - 1));
            let end = (from + range.len()).min(bytes.len());
            bytes.copy_within(from..end, at.min(filled - (end - from)));
            "a copy of another place"
        }
        6 => {
            bytes[random.below(4096)] ^= 1 << random.below(8);
            "a bit of the header"
        }
        _ => {
            fs::remove_file(file).expect("a file less");
            return format!("{} removed", file.display());
        }
    };
    fs::write(file, &bytes).expect("a spoiled segment");
    format!("{}: {what} at {at}, {length}", file.display())
}

/// How often the log is spoiled: `KVD_REPAIRS`, or this often.
fn repairs() -> u64 {
    std::env::var("KVD_REPAIRS").map_or(60, |repairs| repairs.parse().expect("a number"))
}

#[test]
fn whatever_is_spoiled_what_is_not_suspect_is_right() {
    let logs = [log(true), log(false)];
    let (mut repaired, mut sound) = (0, 0);
    for seed in 0..repairs() {
        let (store, expected) = &logs[seed as usize % 2];
        let mut random = Random::seeded(seed);
        let spoiled = copy(store);
        let what: Vec<_> = (0..=random.below(2)).map(|_| spoil(&written(&spoiled.path()), &mut random)).collect();
        let context = format!("seed {seed}: {}", what.join("; "));
        let before = spoiled.contents();
        let (code, told) = repair(&spoiled.path(), &[]);
        assert!(spoiled.contents() == before, "{context}: it only tells");
        assert!(matches!(code, Some(0 | 1)), "{context}: {told}");
        let (code, report) = repair(&spoiled.path(), &["--write"]);
        assert_eq!(code, Some(0), "{context}: {report}");
        assert_eq!(suspects(&report), suspects(&told), "{context}: what was told is what was done");
        if report["replaced"].as_array().is_some_and(Vec::is_empty) && report["journal"].is_null() {
            sound += 1;
        } else {
            repaired += 1;
        }
        // A torn tail may have been made of what was acknowledged: at the very end nothing tells one from the other.
        let tail_is_torn = kvd(&["check", text(&spoiled.path())]).0 == Some(1) || spoiled_the_end(&what, store);
        let found = dump(&spoiled.path());
        let suspects = suspects(&report);
        for (key, value) in &found {
            let is_right = expected.get(key) == Some(value);
            assert!(
                is_right || suspects.contains(key) || tail_is_torn,
                "{context}: {key} is stale, and nobody says so"
            );
        }
        let nothing_lost = report["losses"].as_array().is_some_and(Vec::is_empty);
        if nothing_lost && !tail_is_torn {
            let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
            let differ: Vec<_> = keys.into_iter().filter(|key| found.get(*key) != expected.get(*key)).collect();
            assert!(differ.is_empty(), "{context}: {differ:?} differ, though nothing is said to be lost");
        }
        // A daemon starts on it, and on nothing else.
        let daemon = spoiled.start();
        assert_eq!(daemon.client().say("COUNT"), format!("OK {}", found.len()), "{context}");
        daemon.kill();

        let dropped = copy(store);
        let mut random = Random::seeded(seed);
        (0..=random.below(2)).for_each(|_| _ = spoil(&written(&dropped.path()), &mut random));
        let (code, report) = repair(&dropped.path(), &["--write", "--policy", "drop-suspects"]);
        assert_eq!(code, Some(0), "{context}: {report}");
        for (key, value) in dump(&dropped.path()) {
            assert!(expected.get(&key) == Some(&value) || tail_is_torn, "{context}: {key} is stale, and still there");
        }
    }
    eprintln!("{repaired} logs repaired, {sound} that a start goes on with as they are");
    assert!(repaired > sound);
}

/// Whether the last segment was touched, so that its end may look torn.
fn spoiled_the_end(what: &[String], store: &Store) -> bool {
    let last = written(&store.path()).pop().expect("segments");
    let name = last.file_name().expect("a name").to_str().expect("text").to_owned();
    what.iter().any(|what| what.contains(&name))
}

#[test]
fn one_flipped_bit_costs_one_value_and_is_told() {
    let (store, expected) = log(true);
    let second = store.segments()[1].clone();
    let mut bytes = fs::read(&second).expect("a segment");
    let needle = b"key-0";
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("a key") + 100;
    bytes[at] ^= 4;
    fs::write(&second, &bytes).expect("a damaged segment");
    assert_eq!(kvd(&["check", text(&store.path())]).0, Some(2));
    let (code, said) = kvd(&["repair", text(&store.path())]);
    assert_eq!(code, Some(1));
    assert!(said.contains("would be replaced") && said.contains("nothing was changed: --write does it"), "{said}");
    let (code, said) = kvd(&["repair", text(&store.path()), "--write"]);
    assert_eq!(code, Some(0), "{said}");
    let kept = format!("{}.damaged-1", second.file_name().expect("a name").to_str().expect("text"));
    assert!(said.contains(&format!("the damaged files are kept as {kept}")), "{said}");
    assert!(fs::read(store.path().join(&kept)).expect("the damaged file") == bytes);
    assert_eq!(kvd(&["check", text(&store.path())]).0, Some(0));
    let found = dump(&store.path());
    let differ = expected.iter().filter(|(key, value)| found.get(*key) != Some(value)).count();
    assert!(differ <= 1 && found.len() + 1 >= expected.len(), "{differ} keys differ");
    assert_eq!(kvd(&["repair", text(&store.path())]).0, Some(0), "there is nothing more to repair");
    // What is left over of a repair that was cut short is in nobody's way, nor is what was kept before.
    fs::write(&second, &bytes).expect("damaged again");
    fs::write(second.with_extension("log.tmp"), b"half").expect("a left-over");
    let (code, said) = kvd(&["repair", text(&store.path()), "--write"]);
    assert!(code == Some(0) && said.contains(".damaged-2"), "{said}");
    let daemon = store.start();
    assert_eq!(daemon.client().say("COUNT"), format!("OK {}", found.len()));
}

#[test]
fn what_is_no_damage_is_not_repaired() {
    let (store, _) = log(true);
    let (code, said) = kvd(&["repair", text(&store.path())]);
    assert!(code == Some(0) && said.contains("nothing to repair"), "{said}");
    // A torn tail is for a start.
    let last = written(&store.path()).pop().expect("segments");
    let mut bytes = fs::read(&last).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("some") - 3;
    bytes[end] ^= 1;
    fs::write(&last, &bytes).expect("a torn tail");
    assert_eq!(kvd(&["repair", text(&store.path())]).0, Some(0));
    let daemon = store.start();
    let (code, said) = kvd(&["repair", text(&store.path()), "--write"]);
    assert!(code == Some(3) && said.contains("another kvd is running"), "{said}");
    daemon.kill();
    let foreign = store.path().join("segment-00000000000000000099.log");
    fs::write(&foreign, b"a letter").expect("a file");
    let (code, said) = kvd(&["repair", text(&store.path()), "--write"]);
    assert!(code == Some(3) && said.contains("kvd did not write it"), "{said}");
    assert_eq!(fs::read(&foreign).expect("untouched"), b"a letter");
}

#[test]
fn a_repair_that_was_cut_short_is_begun_again() {
    let (store, expected) = log(true);
    // The last segment is damaged where later batches prove it, so that a journal has to be begun as well.
    let last = written(&store.path()).pop().expect("a segment");
    let mut bytes = fs::read(&last).expect("a segment");
    bytes[4096 + 20] ^= 1;
    fs::write(&last, &bytes).expect("a damaged segment");
    let (_, report) = repair(&store.path(), &[]);
    let journal = report["journal"].as_str().expect("a new journal").to_owned();
    for name in [last.with_extension("log.tmp"), store.path().join(journal).with_extension("log.tmp")] {
        fs::write(name, b"what was written until then").expect("a left-over");
    }
    let (code, report) = repair(&store.path(), &["--write"]);
    assert_eq!(code, Some(0), "{report}");
    let daemon = store.start();
    let found = dump(&store.path());
    assert!(found.len() <= expected.len() && found.len() + 2 >= expected.len(), "{} keys", found.len());
    assert!(daemon.client().say("SET after v").starts_with("OK"));
}
