//! `kvd dump` and `kvd load`: what comes out goes in again, wherever it goes, and what can't is named.

use crate::daemon::{Client, Daemon, Store};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kvd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvd"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a kvd");
    // Who refuses a line need not read the rest.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("an end")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn dump(directory: &Path, more: &[&str]) -> Vec<Value> {
    let output = kvd(&[&["dump", text(directory)], more].concat(), "");
    assert!(output.status.success(), "{}", said(&output));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The lines as they can be compared: sorted, without their versions.
fn comparable(mut lines: Vec<Value>) -> Vec<String> {
    for line in &mut lines {
        assert!(line.as_object_mut().expect("an object").remove("version").is_some());
    }
    let mut lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    lines.sort();
    lines
}

fn input(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |all, line| all + &line.to_string() + "\n")
}

/// Stores something of every kind.
fn store_all_kinds(client: &Client) {
    let stored = |body: &[&[u8]]| assert_eq!(client.call(body)[0], b"OK");
    stored(&[b"SET", b"plain", b"value \"quoted\"\n"]);
    stored(&[b"SET", "ключ".as_bytes(), "значение".as_bytes()]);
    stored(&[b"SET", b"\xff\x00", b"\xfe"]);
    stored(&[b"SET", b"empty", b""]);
    stored(&[b"SET", b"flagged", b"v", b"FLAGS", b"2147483647"]);
    stored(&[b"SET", b"expires", b"v", b"AT", b"9223372036854775807"]);
    stored(&[b"SET", b"pickled", b"\x80\x03K\x07.", b"PICKLED", b"FLAGS", b"5"]);
    stored(&[b"SET", b"large", &vec![b'x'; 300_000]]);
    // By the pickle dialect: a key that is a str, one that is an int by TUPLE3, one that is a float by TUPLE.
    for request in [
        &b"\x80\x04\x8c\x03set\x94\x8c\x01s\x94](K\x01K\x02e\x87\x94."[..],
        b"\x80\x04\x8c\x03set\x94K\x07](K\x01K\x02e\x87\x94.",
        b"(Vset\np0\nF2.5\nVdata\np1\ntp2\n.",
    ] {
        assert_eq!(client.call(&[request]), [b"ok"]);
    }
    // What is not there any more.
    for request in ["SET gone v", "DEL gone", "SET brief v TTL 1", "SET plain2 old", "SET plain2 new", "SET f:1 v"] {
        assert!(client.say(request).starts_with("OK"));
    }
    client.say("FLUSH PREFIX f:");
    while client.say("GET brief") != "MISS" {}
}

/// A store that holds something of every kind, with its daemon.
fn full() -> (Store, Daemon) {
    let store = Store::new();
    let daemon = store.start();
    store_all_kinds(&daemon.client());
    (store, daemon)
}

#[test]
fn a_dump_goes_into_a_directory_and_comes_out_the_same() {
    let (store, daemon) = full();
    daemon.stop();
    let before = dump(&store.path(), &[]);
    assert_eq!(before.len(), 12);
    let copy = Store::new();
    let output = kvd(&["load", "--data-dir", text(&copy.path())], &input(&before));
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("12 keys stored"));
    assert_eq!(comparable(dump(&copy.path(), &[])), comparable(before.clone()));
    assert_eq!(kvd(&["check", text(&copy.path())], "").status.code(), Some(0));
    let daemon = copy.start();
    let client = daemon.client();
    assert_eq!(client.call(&[&b"GET"[..], b"\xff\x00"])[1], b"\xfe");
    assert_eq!(client.call(&[&b"\x80\x04\x8c\x03get\x94K\x07N\x87\x94."[..]])[0].last(), Some(&b'.'));
    assert_eq!(client.say("COUNT"), "OK 12");
    assert!(client.say("SET after v").starts_with("OK 13"), "versions go on");
}

#[test]
fn a_dump_goes_into_a_running_daemon_and_comes_out_the_same() {
    let (store, daemon) = full();
    let before = dump(&store.path(), &[]);
    let copy = Store::new();
    let other = copy.start();
    let file = copy.path().with_extension("jsonl");
    fs::write(&file, input(&before)).expect("a file");
    let output = kvd(&["load", "--server", other.endpoint(), text(&file)], "");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(comparable(dump(&copy.path(), &[])), comparable(before.clone()), "beside the daemon");
    // Once more, over what is there.
    assert!(kvd(&["load", "--server", other.endpoint()], &input(&before)).status.success());
    other.stop();
    daemon.stop();
    assert_eq!(comparable(dump(&copy.path(), &[])), comparable(before));
}

#[test]
fn many_lines_are_loaded_in_the_order_of_the_file() {
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"key\":\"k{}\",\"value\":\"{n}\"}}\n", n % 9_000))
        .chain(["\n".to_owned(), "\r\n".to_owned()])
        .collect();
    let (store, loaded) = (Store::new(), Store::new());
    let daemon = store.start();
    assert!(kvd(&["load", "--server", daemon.endpoint()], &lines).status.success());
    assert!(kvd(&["load", "--data-dir", text(&loaded.path())], &lines).status.success());
    for directory in [store.path(), loaded.path()] {
        let lines = dump(&directory, &[]);
        assert_eq!(lines.len(), 9_000);
        for line in lines {
            let key: usize = line["key"].as_str().expect("a key")[1..].parse().expect("a number");
            let newest = if key < 2_000 { key + 18_000 } else { key + 9_000 };
            assert_eq!(line["value"], newest.to_string());
        }
    }
}

/// A directory that was written by the first version, with everything a log can hold: a compacted segment and a journal, every
/// kind of record, expired and flushed keys, Python's. It is never made again.
#[test]
fn a_directory_of_the_first_version_is_read_for_ever() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    let expected = fs::read_to_string(fixtures.join("directory.jsonl")).expect("what is in it");
    let expected: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let store = Store::new();
    fs::create_dir_all(store.path()).expect("a directory");
    for file in ["segment-00000000000000000001.log", "segment-00000000000000000002.log"] {
        fs::copy(fixtures.join("directory").join(file), store.path().join(file)).expect("a copy");
    }
    assert_eq!(kvd(&["check", text(&store.path())], "").status.code(), Some(0));
    let sorted = |lines: &[Value]| {
        let mut lines: Vec<_> = lines.iter().map(Value::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&dump(&store.path(), &[])), sorted(&expected), "versions included");
    let daemon = store.start();
    assert_eq!(daemon.client().say("COUNT"), format!("OK {}", expected.len()));
    daemon.stop();
    assert_eq!(sorted(&dump(&store.path(), &[])), sorted(&expected), "and a start changes nothing");
}

#[test]
fn a_prefix_and_a_history() {
    let (store, daemon) = full();
    daemon.stop();
    let keys = |lines: &[Value]| lines.iter().map(|line| line["key"].to_string()).collect::<Vec<_>>();
    let mut found = keys(&dump(&store.path(), &["--prefix", "plain"]));
    found.sort();
    assert_eq!(found, ["\"plain\"", "\"plain2\""]);
    let history = dump(&store.path(), &["--history"]);
    let versions: Vec<_> = history.iter().map(|line| line["version"].as_u64().expect("a version")).collect();
    assert!(versions.is_sorted() && versions.len() == 18, "{versions:?}");
    assert!(history.iter().any(|line| line["key"] == "gone" && line["removed"] == true));
    assert!(history.iter().any(|line| line["prefix"] == "f:" && line["flushed"] == true));
    let of_one = dump(&store.path(), &["--history", "--prefix", "plain2"]);
    assert_eq!(of_one.iter().map(|line| line["value"].as_str()).collect::<Vec<_>>(), [Some("old"), Some("new")]);
    let into = Store::new();
    let output = kvd(&["load", "--data-dir", text(&into.path())], &input(&history[history.len() - 3..]));
    assert!(!output.status.success() && said(&output).contains("history"), "{}", said(&output));
}

#[test]
fn what_can_not_be_loaded_is_named_by_its_line() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "64KiB").start();
    let good = "{\"key\":\"good\",\"value\":\"v\"}\n";
    let large = format!("{{\"key\":\"large\",\"value\":\"{}\"}}", "v".repeat(70_000));
    let python = "{\"space\":\"python\",\"key_base64\":\"KwA=\",\"value\":\"v\"}";
    for (line, said_of_it) in [
        ("{\"key\":1}", "line 2 has a field key that is not text in quotes"),
        ("[\"good\",null,null,\"v\"]", "line 2 is no JSON object"),
        ("{\"key\":\"k\"}", "line 2 must have either value or value_base64"),
        (large.as_str(), "line 2 was refused: ERR TOOBIG"),
        ("{\"key\":\"\",\"value\":\"v\"}", "line 2 was refused: ERR BADARG"),
        (python, "line 2 has a key that only a pickled request can store, and has no \"pickled\": true"),
    ] {
        let output = kvd(&["load", "--server", daemon.endpoint()], &format!("{good}{line}\n{good}"));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(said_of_it), "{}", said(&output));
    }
    assert_eq!(daemon.client().say("COUNT"), "OK 1", "what came before is stored");
    let output = kvd(&["load", "--data-dir", text(&store.path())], good);
    assert!(said(&output).contains("another kvd is running"), "{}", said(&output));
    daemon.stop();
    let output = kvd(&["load", "--data-dir", text(&store.path())], good);
    assert!(said(&output).contains("holds a log already"), "{}", said(&output));
    let output = kvd(&["load"], good);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn the_lines_before_one_that_can_not_be_stored_are_stored() {
    let value = "v".repeat(15_000);
    let before: Vec<_> = (0..900).map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}\n")).collect();
    let before = before.concat();
    let after = "{\"key\":\"after\",\"value\":\"v\"}\n";
    for line in ["{\"key\":", "{\"space\":\"python\",\"key_base64\":\"KwA=\",\"value\":\"v\"}"] {
        let lines = format!("{before}{line}\n{after}");
        let (store, directory) = (Store::new(), Store::new());
        let daemon = store.start();
        let loads = [
            kvd(&["load", "--server", daemon.endpoint()], &lines),
            kvd(&["load", "--data-dir", text(&directory.path())], &lines),
        ];
        for output in loads {
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains("line 901 "), "{}", said(&output));
        }
        assert_eq!(daemon.client().say("COUNT"), "OK 900", "{line}");
        assert_eq!(dump(&directory.path(), &[]).len(), 900, "{line}");
    }
}

#[test]
fn who_waits_for_a_daemon_is_told_so() {
    let store = Store::new();
    let endpoint = store.ipc_endpoint();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvd"))
        .args(["load", "--server", &endpoint])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a kvd");
    child.stdin.take().expect("a pipe").write_all(b"{\"key\":\"k\",\"value\":\"v\"}\n").expect("taken");
    let mut told = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    told.read_line(&mut line).expect("a line");
    assert!(line.contains("waits for a kvd") && line.contains(&endpoint), "{line}");
    let daemon = store.launch().bind(&endpoint).start();
    assert!(child.wait().expect("an end").success());
    assert_eq!(daemon.client().say("COUNT"), "OK 1");
}

/// The int 7, stored as `('set', 7, 7)`.
const SEVEN: &str =
    "{\"space\":\"python\",\"key_base64\":\"KwABBw==\",\"value_base64\":\"gASMA3NldEsHSwcuLg==\",\"pickled\":true}";

#[test]
fn a_line_is_stored_as_it_says_or_refused_and_never_otherwise() {
    let with = |more: &str| SEVEN.replace("\"pickled\":true", more);
    let (store, daemon_free) = (Store::new(), Store::new());
    let daemon = store.start();
    let client = daemon.client();
    let other_key = SEVEN.replace("KwABBw==", "KwABCA==");
    let refused = [
        (
            other_key.as_str(),
            "line 2 has a key that only a pickled request can store, and its value is the request of another",
        ),
        (
            &with("\"pickled\":true,\"deadline_ms\":9000000000000"),
            "store, and a deadline_ms, which such a request can't tell",
        ),
        (&with("\"pickled\":true,\"flags\":5"), "store, and flags, which such a request can't tell"),
        (&with("\"pickled\":false"), "store, and has no \"pickled\": true: --data-dir stores it"),
    ];
    for (line, told) in refused {
        let output = kvd(&["load", "--server", daemon.endpoint()], &format!("\n{line}\n"));
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(said(&output).contains("line 2") && said(&output).contains(told), "{line}: {}", said(&output));
        assert_eq!(client.say("COUNT"), "OK 0", "{line}");
    }
    assert!(kvd(&["load", "--server", daemon.endpoint()], SEVEN).status.success());
    assert_eq!(client.call(&[&b"\x80\x04\x8c\x03getK\x07N\x87."[..]]), [b"\x80\x04\x8c\x03setK\x07K\x07.."]);
    daemon.stop();

    // A directory holds whatever a line says, if a client can ask for it.
    let lines = refused.map(|(line, _)| line).join("\n");
    let output = kvd(&["load", "--data-dir", text(&daemon_free.path())], &lines);
    assert!(output.status.success(), "{}", said(&output));
    let told = dump(&daemon_free.path(), &[]);
    let mut keys: Vec<_> = told.iter().map(|line| line["key_base64"].as_str().expect("a key")).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["KwABBw==", "KwABCA=="]);
    let output = kvd(&["load", "--data-dir", text(&Store::new().path())], &SEVEN.replace("KwABBw==", "KwA="));
    assert!(said(&output).contains("line 1 can't be stored: its key is no encoding"), "{}", said(&output));
}

#[test]
fn a_byte_order_mark_is_skipped_and_what_is_no_text_is_named_by_its_line() {
    let store = Store::new();
    let file = store.beside("lines");
    let load = |bytes: &[u8], into: &Store| {
        fs::write(&file, bytes).expect("a file");
        kvd(&["load", "--data-dir", text(&into.path()), text(&file)], "")
    };
    let output = load(
        "\u{feff}{\"key\":\"a\",\"value\":\"v\"}\r\n\u{feff}{\"key\":\"b\",\"value\":\"\u{feff}\"}\n".as_bytes(),
        &store,
    );
    assert!(output.status.success() && said(&output).contains("2 keys stored"), "{}", said(&output));
    assert!(dump(&store.path(), &[]).iter().any(|line| line["key"] == "b" && line["value"] == "\u{feff}"));

    let utf16: Vec<u8> = "\u{feff}{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, told) in [
        (
            &b"{\"key\":\"a\",\"value\":\"v\"}\n\n{\"key\":\"\xff\",\"value\":\"v\"}\n"[..],
            "line 3 is not UTF-8, from byte 9 on",
        ),
        (&utf16, "line 1 is not UTF-8, from byte 1 on"),
        (b"{\"key\":1}", "line 1 has a field key that is not text in quotes\n"),
    ] {
        let output = load(bytes, &Store::new());
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(told), "{}", said(&output));
    }
    let output = kvd(&["load", "--data-dir", text(&Store::new().path()), "/no/such/file"], "");
    assert!(said(&output).contains("can't read /no/such/file: "), "{}", said(&output));
}

#[test]
fn a_damaged_log_is_not_dumped_in_silence_and_a_torn_tail_is_cut() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    for n in 0..50 {
        client.say(&format!("SET needle-{n:03} value"));
    }
    daemon.kill();
    let segment = store.segments()[0].clone();
    let whole = fs::read(&segment).expect("the segment");
    for (needle, code, lines) in [("needle-049", 0, 49), ("needle-020", 1, 0)] {
        let mut bytes = whole.clone();
        let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect("the key");
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).expect("a damaged segment");
        let output = kvd(&["dump", text(&store.path())], "");
        assert_eq!(output.status.code(), Some(code));
        assert!(code == 0 || said(&output).contains("is damaged at offset"), "{}", said(&output));
        assert_eq!(output.stdout.split(|byte| *byte == b'\n').count() - 1, lines);
    }
}

#[test]
fn beside_a_compaction_every_key_that_stays_is_dumped() {
    let store = Store::new();
    let daemon = store.launch().segment_size("64KiB").option("--fsync", "never").start();
    let client = daemon.client();
    let pad = "v".repeat(1000);
    for n in 0..100 {
        client.say(&format!("SET stays-{n:03} {pad}"));
    }
    for round in 0..20 {
        for n in 0..100 {
            client.say(&format!("SET changes-{n:03} {pad}{round}"));
        }
        client.say("COMPACT");
        let lines = dump(&store.path(), &[]);
        let starts = |line: &Value, with: &str| line["key"].as_str().is_some_and(|key| key.starts_with(with));
        let of = |prefix: &str| lines.iter().filter(|line| starts(line, prefix)).count();
        assert_eq!((of("stays-"), of("changes-")), (100, 100), "round {round}");
    }
}
