//! The frames dialect, verb by verb: what each answers when it is used rightly, and that every wrong use gets
//! one error with the right code and costs the peer nothing else.
//!
//! Requests and replies are written as a person would say them: `say("INCR n 5")` sends three frames, and `"OK
//! 5"` is a reply of two.

use crate::daemon::{Client, Store, eventually, words};
use std::time::{SystemTime, UNIX_EPOCH};

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}

/// The number in a reply of `OK number`.
fn number(reply: &str) -> i64 {
    let text = reply.strip_prefix("OK ").unwrap_or_else(|| panic!("no number: {reply}"));
    text.parse().unwrap_or_else(|error| panic!("{error}: {reply}"))
}

/// Asserts that a request is refused with this code and a message, and that the connection lives on.
#[track_caller]
fn assert_refused(client: &Client, request: &[&[u8]], code: &str) {
    let reply = client.call(request);
    let shown: Vec<_> = request.iter().map(|frame| String::from_utf8_lossy(&frame[..frame.len().min(40)])).collect();
    assert_eq!(reply.len(), 3, "`ERR` code message, for {shown:?}: {}", words(&reply));
    assert_eq!([&reply[0][..], &reply[1]], [b"ERR", code.as_bytes()], "for {shown:?}: {}", words(&reply));
    assert!(!reply[2].is_empty(), "an error says what is wrong: {shown:?}");
    assert_eq!(client.say("PING"), "OK PONG");
}

#[track_caller]
fn assert_words_refused(client: &Client, request: &str, code: &str) {
    let frames: Vec<_> = request.split(' ').map(str::as_bytes).collect();
    assert_refused(client, &frames, code);
}

#[test]
fn set_get_and_del() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("PING"), "OK PONG");
    assert_eq!(client.say("GET k"), "MISS");
    let first = number(&client.say("SET k one"));
    assert_eq!(client.say("GET k"), format!("OK one {first} 0"));
    let second = number(&client.say("SET k two"));
    assert!(second > first, "versions rise: {first}, {second}");
    assert_eq!(client.say("GET k"), format!("OK two {second} 0"));
    assert_eq!(client.say("DEL k"), "OK 1");
    assert_eq!(client.say("DEL k"), "OK 0");
    assert_eq!(client.say("GET k"), "MISS");
    let third = number(&client.say("SET k three"));
    assert!(third > second, "a removal does not begin anew: {second}, {third}");
}

#[test]
fn an_empty_value_is_a_value() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let version = number(&words(&client.call(&[b"SET", b"k", b""])));
    let reply = client.call(&[b"GET", b"k"]);
    assert_eq!(reply, [b"OK".to_vec(), Vec::new(), version.to_string().into_bytes(), b"0".to_vec()]);
    assert_eq!(client.call(&[b"MGET", b"k", b"absent"]), [&b"OK"[..], b"1", b"", b"0", b""]);
}

#[test]
fn keys_and_values_are_any_bytes() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let every_byte: Vec<u8> = (0..=255).collect();
    // The last two begin like a pickle and like a packed message: only the first frame of a body tells its dialect.
    let keys: [&[u8]; 6] = [&every_byte, b"\0", b"with space", b"\xff\xfe", b"\x80", b"\x01"];
    for key in keys {
        assert_eq!(client.call(&[b"SET", key, &every_byte])[0], b"OK");
    }
    for key in keys {
        let reply = client.call(&[b"GET", key]);
        assert_eq!(reply[..2], [b"OK".to_vec(), every_byte.clone()]);
    }
    assert_eq!(client.say("COUNT"), "OK 6");
}

#[test]
fn verbs_and_options_in_any_case() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("ping"), "OK PONG");
    assert!(client.say("sEt K v nx fLaGs 3").starts_with("OK "));
    assert!(client.say("get K").ends_with(" 3"));
    assert_eq!(client.say("get k"), "MISS", "keys keep their case");
}

#[test]
fn conditions_of_set() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("SET k v XX"), "MISS");
    assert_eq!(client.say("SET k v IF 1"), "MISS");
    let first = number(&client.say("SET k one NX"));
    assert_eq!(client.say("SET k two NX"), "EXISTS");
    let second = number(&client.say("SET k two XX"));
    assert_eq!(client.say(&format!("SET k three IF {first}")), format!("CONFLICT {second}"));
    assert_eq!(client.say("GET k"), format!("OK two {second} 0"));
    let third = number(&client.say(&format!("SET k three IF {second}")));
    assert_eq!(client.say("GET k"), format!("OK three {third} 0"));
}

#[test]
fn flags_are_stored_beside_the_value() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let flags = |reply: String| reply.rsplit(' ').next().unwrap_or_default().to_owned();
    client.say("SET k v FLAGS 2147483647");
    assert_eq!(flags(client.say("GET k")), "2147483647");
    client.say("SET k v FLAGS 5 PICKLED");
    assert_eq!(flags(client.say("GET k")), (5 + (1_u64 << 31)).to_string());
    client.say("SET k 1 FLAGS 7");
    client.say("INCR k");
    client.say("APPEND k 0");
    assert_eq!(flags(client.say("GET k")), "7", "INCR and APPEND keep the flags");
    client.say("SET k v");
    assert_eq!(flags(client.say("GET k")), "0", "SET replaces the flags");
}

#[test]
fn many_keys_at_once() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let version = number(&client.say("MSET a 1 b 2 c 3 a 4"));
    assert_eq!(client.say("MGET a b absent c"), "OK 1 4 1 2 0  1 3");
    let newest = ["a", "b", "c"].map(|key| client.say(&format!("GET {key}")));
    let newest = newest.iter().map(|reply| reply.split(' ').nth(2).and_then(|text| text.parse().ok()));
    assert_eq!(newest.max().flatten(), Some(version), "MSET replies with the last version it gave");
    assert_eq!(client.say("EXISTS a b absent"), "OK 2");
    assert_eq!(client.say("DEL a absent b"), "OK 2");
    assert_eq!(client.say("EXISTS a b c"), "OK 1");
}

#[test]
fn counters() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("INCR n"), "OK 1");
    assert_eq!(client.say("INCR n 41"), "OK 42");
    assert_eq!(client.say("INCR n -50"), "OK -8");
    assert!(client.say("GET n").starts_with("OK -8 "));
    client.say("SET n 9223372036854775806");
    assert_eq!(client.say("INCR n"), format!("OK {}", i64::MAX));
    assert!(client.say("INCR n").starts_with("ERR OVERFLOW "));
    assert!(client.say("GET n").starts_with(&format!("OK {} ", i64::MAX)));
    assert_eq!(client.say(&format!("INCR m {}", i64::MIN)), format!("OK {}", i64::MIN));
    assert!(client.say("INCR m -1").starts_with("ERR OVERFLOW "));
    for no_integer in ["text", "1.5", "9223372036854775808", "0x10", "1e3"] {
        client.say(&format!("SET s {no_integer}"));
        assert!(client.say("INCR s").starts_with("ERR NOTINT "), "{no_integer}");
    }
    client.call(&[b"SET", b"s", b""]);
    assert!(client.say("INCR s").starts_with("ERR NOTINT "), "an empty value");
    client.say("SET p 1 PICKLED");
    for request in ["INCR p", "APPEND p x", "PREPEND p x"] {
        assert!(client.say(request).starts_with("ERR WRONGTYPE "), "{request}");
    }
}

#[test]
fn growing_a_value() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "1KiB").start();
    let client = daemon.client();
    assert_eq!(client.say("APPEND k x"), "MISS");
    assert_eq!(client.say("PREPEND k x"), "MISS");
    client.say("SET k b");
    assert_eq!(client.say("APPEND k cd"), "OK 3");
    assert_eq!(client.say("PREPEND k a"), "OK 4");
    assert!(client.say("GET k").starts_with("OK abcd "));
    let room = vec![b'x'; 1020];
    assert_eq!(words(&client.call(&[b"APPEND", b"k", &room])), "OK 1024");
    assert_refused(&client, &[b"APPEND", b"k", b"x"], "TOOBIG");
    assert_refused(&client, &[b"PREPEND", b"k", b"x"], "TOOBIG");
    assert_eq!(client.call(&[b"GET", b"k"])[1].len(), 1024);
}

#[test]
fn getdel_takes_the_value_away() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("GETDEL k"), "MISS");
    let version = number(&client.say("SET k v FLAGS 9"));
    assert_eq!(client.say("GETDEL k"), format!("OK v {version} 9"));
    assert_eq!(client.say("GET k"), "MISS");
}

#[test]
fn deadlines() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("TTL k"), "MISS");
    assert_eq!(client.say("TOUCH k 1000"), "MISS");
    client.say("SET k v");
    assert_eq!(client.say("TTL k"), "OK -1");
    client.say("SET k v TTL 3600000");
    assert!((3_500_000..=3_600_000).contains(&number(&client.say("TTL k"))));
    client.say("SET n 1 TTL 3600000");
    client.say("INCR n");
    client.say("APPEND n 0");
    client.say("PREPEND n 1");
    assert!(number(&client.say("TTL n")) > 0, "INCR, APPEND and PREPEND keep the deadline");
    client.say("SET n 1");
    assert_eq!(client.say("TTL n"), "OK -1", "SET replaces the deadline");
    let before = client.say("GET k");
    assert_eq!(client.say("TOUCH k 7200000"), "OK");
    assert!(number(&client.say("TTL k")) > 3_600_000);
    assert_ne!(client.say("GET k"), before, "TOUCH gives a new version");
    assert_eq!(client.say("TOUCH k 0"), "OK");
    assert_eq!(client.say("TTL k"), "OK -1");
    client.say("SET k v TTL 0");
    assert_eq!(client.say("TTL k"), "OK -1", "a TTL of 0 is none");
    client.say(&format!("SET k v AT {}", unix_millis() + 3_600_000));
    assert!((3_500_000..=3_601_000).contains(&number(&client.say("TTL k"))));
}

#[test]
fn expired_keys_are_removed_though_nobody_asks() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.say("SET stays v");
    for number in 0..10 {
        client.say(&format!("SET {number} v TTL 50"));
    }
    eventually("expired keys are not counted for long", || client.say("COUNT") == "OK 1");
    client.say("SET late v TTL 1");
    daemon.kill();
    let daemon = store.start();
    assert_eq!(daemon.client().say("COUNT"), "OK 1", "a start drops what has expired");
}

#[test]
fn an_expired_key_is_a_miss_to_every_verb() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.say("SET past v AT 1");
    assert_eq!(client.say("GET past"), "MISS");
    for key in ["a", "b", "c", "d", "e"] {
        client.say(&format!("SET {key} 1 TTL 1"));
    }
    eventually("a TTL of one millisecond ends", || client.say("EXISTS a b c d e") == "OK 0");
    assert_eq!(client.say("GET a"), "MISS");
    assert_eq!(client.say("MGET a"), "OK 0 ");
    assert_eq!(client.say("TTL a"), "MISS");
    assert_eq!(client.say("TOUCH a 1000"), "MISS");
    assert_eq!(client.say("GETDEL a"), "MISS");
    assert_eq!(client.say("APPEND a x"), "MISS");
    assert_eq!(client.say("DEL a"), "OK 0");
    assert_eq!(client.say("SET a v XX"), "MISS");
    assert_eq!(client.say("INCR b"), "OK 1", "an expired counter begins anew");
    assert_eq!(client.say("TTL b"), "OK -1", "and without its old deadline");
    assert!(client.say("SET c v NX").starts_with("OK "));
    assert_eq!(scan(&client, ""), ["b", "c"]);
}

#[test]
fn deadlines_are_absolute_across_a_restart() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let deadline = unix_millis() + 3_600_000;
    client.say(&format!("SET at v AT {deadline}"));
    client.say("SET ttl v TTL 3600000");
    client.say("SET touched v");
    client.say("TOUCH touched 3600000");
    client.say("SET released v TTL 3600000");
    client.say("TOUCH released 0");
    client.say("SET brief v TTL 1");
    eventually("a TTL of one millisecond ends", || client.say("GET brief") == "MISS");
    let earlier = ["at", "ttl", "touched"].map(|key| number(&client.say(&format!("TTL {key}"))));
    daemon.kill();
    let daemon = store.start();
    let client = daemon.client();
    for (key, earlier) in ["at", "ttl", "touched"].iter().zip(earlier) {
        let now = number(&client.say(&format!("TTL {key}")));
        assert!(now <= earlier, "downtime counts: {key} had {earlier} ms left, and now {now}");
        assert!(now > 3_000_000, "{key} has {now} ms left of an hour");
    }
    let left = number(&client.say("TTL at"));
    let recovered = unix_millis().cast_signed() + left;
    assert!((recovered - deadline.cast_signed()).abs() < 5_000, "a deadline of {deadline} came back as {recovered}");
    assert_eq!(client.say("TTL released"), "OK -1");
    assert_eq!(client.say("GET brief"), "MISS", "a key once seen expired stays gone");
}

/// Every key that a whole SCAN returns, sorted.
fn scan(client: &Client, options: &str) -> Vec<String> {
    let mut cursor = "0".to_owned();
    let mut keys = Vec::new();
    loop {
        let reply = client.say(format!("SCAN {cursor} {options}").trim_end());
        let mut frames = reply.split(' ').map(str::to_owned);
        assert_eq!(frames.next().as_deref(), Some("OK"), "{reply}");
        cursor = frames.next().expect("a next cursor");
        keys.extend(frames);
        if cursor == "0" {
            keys.sort();
            keys.dedup();
            return keys;
        }
    }
}

#[test]
fn scans_return_every_key() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("SCAN 0"), "OK 0");
    let mut names: Vec<_> = (0..500).map(|n| format!("{}:{n}", if n % 2 == 0 { "even" } else { "odd" })).collect();
    for name in &names {
        client.say(&format!("SET {name} v"));
    }
    names.sort();
    assert_eq!(scan(&client, ""), names);
    assert_eq!(scan(&client, "COUNT 7"), names);
    names.retain(|name| name.starts_with("even"));
    assert_eq!(scan(&client, "PREFIX even"), names);
    assert_eq!(scan(&client, "PREFIX even COUNT 10000"), names);
    assert_eq!(scan(&client, "PREFIX nothing"), Vec::<String>::new());
}

#[test]
fn a_scan_misses_no_key_that_was_there_throughout() {
    let store = Store::new();
    let daemon = store.start();
    let (client, other) = (daemon.client(), daemon.dealer());
    for n in 0..300 {
        other.send_words(&format!("SET stays:{n:03} v"));
        other.send_words(&format!("SET goes:{n:03} v"));
    }
    (0..600).for_each(|_| assert!(other.hear().starts_with("OK ")));
    let (mut cursor, mut seen, mut round) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = client.say(&format!("SCAN {cursor} COUNT 5"));
        let mut frames = reply.split(' ').skip(1).map(str::to_owned);
        cursor = frames.next().expect("a next cursor");
        seen.extend(frames.filter(|key| key.starts_with("stays")));
        if cursor == "0" {
            break;
        }
        // The table grows (for a while: a scan ends once it does not) and shrinks beneath the cursor.
        if round < 100 {
            let grown: Vec<_> = (0..100).map(|n| format!("grown:{round}:{n} v")).collect();
            other.say(&format!("MSET {}", grown.join(" ")));
        }
        other.say(&format!("DEL goes:{:03}", round % 300));
        round += 1;
        assert!(round < 10_000, "a scan ends");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 300, "every key that was there throughout");
}

#[test]
fn flushes() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.say("MSET a:1 x a:2 x b:1 x b:2 x b:3 x");
    assert_eq!(client.say("COUNT"), "OK 5");
    assert_eq!(client.say("FLUSH PREFIX a:"), "OK 2");
    assert_eq!(client.say("EXISTS a:1 a:2 b:1"), "OK 1");
    assert_eq!(client.say("FLUSH PREFIX nothing"), "OK 0");
    client.say("SET a:1 again");
    assert!(client.say("GET a:1").starts_with("OK again "), "a flush hides only what is older");
    assert_eq!(client.say("FLUSH"), "OK 4");
    assert_eq!(client.say("COUNT"), "OK 0");
    client.say("SET after v");
    daemon.kill();
    let daemon = store.start();
    assert_eq!(scan(&daemon.client(), ""), ["after"], "flushed keys stay flushed");
}

#[test]
fn about_the_daemon() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("VERSION"), format!("OK {} 2", env!("CARGO_PKG_VERSION")));
    let version = number(&client.say("SET k v"));
    assert!(number(&client.say("SYNC")) >= version);
    assert_eq!(client.say("COMPACT"), "OK");
    let stats = client.call(&[b"STATS"]);
    assert_eq!(stats[0], b"OK");
    assert!(stats.len() > 2 && stats.len() % 2 == 1, "names and values: {}", words(&stats));
    assert!(stats[1..].iter().step_by(2).all(|name| !name.is_empty()));
}

#[test]
fn a_sync_answers_in_every_mode() {
    for mode in ["always", "1s", "never"] {
        let store = Store::new();
        let daemon = store.launch().option("--fsync", mode).start();
        let client = daemon.dealer();
        for n in 0..100 {
            client.send_words(&format!("SET k{n} v"));
        }
        client.send_words("SYNC");
        let newest = (0..100).map(|_| number(&client.hear())).max().expect("100 replies");
        assert!(number(&client.hear()) >= newest, "--fsync {mode}: everything before SYNC is synced");
    }
}

#[test]
fn wrong_requests_get_one_error_each() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.say("SET n 1");
    for unknown in ["HELLO", "GETT k", "SE k v", "\u{e9} k"] {
        assert_words_refused(&client, unknown, "BADCMD");
    }
    let too_few = [
        "SET",
        "SET k",
        "GET",
        "DEL",
        "EXISTS",
        "MGET",
        "MSET",
        "MSET k",
        "MSET a 1 b",
        "INCR",
        "APPEND",
        "APPEND k",
        "PREPEND",
        "PREPEND k",
        "TOUCH",
        "TOUCH k",
        "TTL",
        "GETDEL",
        "SCAN",
        "SCAN 0 PREFIX",
        "SCAN 0 COUNT",
        "FLUSH PREFIX",
        "SET k v TTL",
        "SET k v AT",
        "SET k v IF",
        "SET k v FLAGS",
    ];
    let too_many = [
        "PING x",
        "GET k x",
        "INCR n 1 2",
        "APPEND k x y",
        "PREPEND k x y",
        "TOUCH k 1 2",
        "TTL k x",
        "GETDEL k x",
        "COUNT x",
        "SYNC x",
        "COMPACT x",
        "STATS x",
        "VERSION x",
        "SET k v surplus",
        "FLUSH x",
        "FLUSH PREFIX a b",
        "SCAN 0 x",
        "SCAN 0 PREFIX a x",
    ];
    let no_numbers = [
        "INCR n x",
        "INCR n 1.5",
        "INCR n 9223372036854775808",
        "INCR n +",
        "INCR n 0x1",
        "TOUCH k x",
        "TOUCH k -1",
        "TOUCH k 1.5",
        "SET k v TTL x",
        "SET k v TTL -1",
        "SET k v TTL 18446744073709551616",
        "SET k v AT x",
        "SET k v AT -1",
        "SET k v IF x",
        "SET k v IF -1",
        "SET k v FLAGS x",
        "SET k v FLAGS -1",
        "SET k v FLAGS 2147483648",
        "SCAN x",
        "SCAN -1",
        "SCAN 0 COUNT x",
        "SCAN 0 COUNT -1",
        "SCAN 0 COUNT 0",
    ];
    let contradictions =
        ["SET k v NX XX", "SET k v NX IF 1", "SET k v XX IF 1", "SET k v TTL 1 AT 1", "SET k v AT 1 TTL 1"];
    for request in too_few.iter().chain(&too_many).chain(&no_numbers).chain(&contradictions) {
        assert_words_refused(&client, request, "BADARG");
    }
    for request in ["SET k v TTL 18446744073709551615", "TOUCH n 18446744073709551615"] {
        assert_words_refused(&client, request, "BADARG");
    }
    assert_eq!(client.say("GET k"), "MISS", "nothing of a refused request took effect");
    assert_eq!(client.say("TTL n"), "OK -1");
    assert_eq!(client.say("INCR n"), "OK 2");
}

#[test]
fn wrong_keys_and_large_values() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "1KiB").start();
    let client = daemon.client();
    let (longest, too_long) = (vec![b'k'; 64 * 1024], vec![b'k'; 64 * 1024 + 1]);
    let (largest, too_large) = (vec![b'v'; 1024], vec![b'v'; 1025]);
    assert_eq!(client.call(&[b"SET", &longest, &largest])[0], b"OK");
    assert_eq!(client.call(&[b"GET", &longest])[1], largest);
    assert_refused(&client, &[b"SET", b"k", &too_large], "TOOBIG");
    assert_refused(&client, &[b"MSET", b"k", b"v", b"l", &too_large], "TOOBIG");
    let verbs: [(&[u8], &[&[u8]]); 12] = [
        (b"SET", &[b"v"]),
        (b"GET", &[]),
        (b"DEL", &[]),
        (b"EXISTS", &[]),
        (b"MGET", &[]),
        (b"MSET", &[b"v"]),
        (b"INCR", &[]),
        (b"APPEND", &[b"v"]),
        (b"PREPEND", &[b"v"]),
        (b"TOUCH", &[b"1"]),
        (b"TTL", &[]),
        (b"GETDEL", &[]),
    ];
    for (verb, rest) in verbs {
        assert_refused(&client, &[&[verb, b""], rest].concat(), "BADARG");
        assert_refused(&client, &[&[verb, &too_long], rest].concat(), "TOOBIG");
    }
    assert_refused(&client, &[b"MGET", b"good", b""], "BADARG");
    assert_refused(&client, &[b"MSET", b"good", b"v", b"", b"v"], "BADARG");
    assert_eq!(client.say("EXISTS k l good"), "OK 0", "nothing of a refused request took effect");
}

#[test]
fn envelopes_come_back_as_they_were() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    let envelopes: [&[&[u8]]; 4] = [&[b""], &[b"id", b""], &[b"\0\0\0\x01", b"route", b"more", b""], &[&[7; 255], b""]];
    for envelope in envelopes {
        client.send_frames([envelope, &[b"PING"]].concat());
        assert_eq!(client.recv_frames(), [envelope, &[b"OK", b"PONG"]].concat());
        client.send_frames([envelope, &[b"NO-SUCH-VERB"]].concat());
        let reply = client.recv_frames();
        assert_eq!(reply[..envelope.len()], *envelope, "errors carry the envelope too");
        assert_eq!(reply[envelope.len()], b"ERR");
    }
    // Only the first empty frame ends the envelope; the next ones are arguments.
    client.send_frames([&b"id"[..], b"", b"SET", b"k", b""]);
    assert_eq!(client.recv_frames()[..3], [&b"id"[..], b"", b"OK"]);
}

#[test]
fn correlated_requests() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    client.socket.set_req_relaxed(true).expect("ZMQ_REQ_RELAXED");
    client.socket.set_req_correlate(true).expect("ZMQ_REQ_CORRELATE");
    client.say("SET k v");
    // A relaxed REQ may give up on a reply; the correlation id keeps the next one apart from it.
    client.send_words("GET k");
    assert_eq!(client.say("PING"), "OK PONG");
    assert!(client.say("GET k").starts_with("OK v "));
}

#[test]
fn messages_without_a_body_or_an_envelope() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    client.send_frames([&b"PING"[..]]);
    let reply = client.recv_frames();
    assert_eq!(reply[..2], [b"ERR", &b"BADARG"[..]], "without an envelope: {}", words(&reply));
    assert_eq!(reply.len(), 3);
    client.send_frames([&b"SET"[..], b"k", b"v"]);
    assert_eq!(client.recv_frames()[..2], [b"ERR", &b"BADARG"[..]]);
    client.send_frames([&b""[..]]);
    assert_eq!(client.recv_frames()[..3], [&b""[..], b"ERR", b"BADARG"], "an empty body gets its envelope back");
    client.send_frames([&b"id"[..], b""]);
    assert_eq!(client.recv_frames()[..4], [&b"id"[..], b"", b"ERR", b"BADARG"]);
    client.send_frames([&b""[..], b""]);
    assert_eq!(client.recv_frames()[..2], [&b""[..], b"ERR"], "an empty verb");
    assert_eq!(client.say("EXISTS k"), "OK 0");
}

#[test]
fn oversized_envelopes_are_refused() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    let fifteen: Vec<&[u8]> = vec![b"x"; 15];
    client.send_frames([&fifteen[..], &[b"", b"PING"]].concat());
    assert_eq!(client.recv_frames().last().map(Vec::as_slice), Some(&b"PONG"[..]), "16 frames are legal");
    let sixteen: Vec<&[u8]> = vec![b"x"; 16];
    let long = vec![b'x'; 1025];
    for envelope in [&sixteen[..], &[&long[..]]] {
        client.send_frames([envelope, &[b"", b"PING"]].concat());
        let reply = client.recv_frames();
        assert!(reply.contains(&b"ERR".to_vec()), "an oversized envelope is refused: {}", words(&reply));
        assert_eq!(client.say("PING"), "OK PONG");
    }
}

#[test]
fn ten_thousand_frames_in_a_message() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let keys: Vec<_> = (0..10_000).map(|n| format!("k{n}").into_bytes()).collect();
    let command = |verb: &'static str, with_value: bool| {
        let mut frames = vec![verb.as_bytes()];
        for key in &keys {
            frames.push(key);
            if with_value {
                frames.push(key);
            }
        }
        client.call(&frames)
    };
    assert_eq!(command("MSET", true)[0], b"OK");
    let values = command("MGET", false);
    assert_eq!(values.len(), 1 + 2 * keys.len());
    assert!(values[1..].chunks(2).zip(&keys).all(|(pair, key)| pair[0] == b"1" && pair[1] == *key));
    assert_eq!(words(&command("EXISTS", false)), "OK 10000");
    assert_eq!(words(&command("DEL", false)), "OK 10000");
    // A message of more frames than any command may have.
    let endless = vec![&b"GET"[..]; 200_000];
    assert_eq!(client.call(&endless)[0], b"ERR");
    assert_eq!(client.say("PING"), "OK PONG");
}

#[test]
fn hits_and_misses_are_those_of_verbs_that_want_a_value() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let figure = |name: &str| -> u64 {
        let stats = client.call(&[b"STATS"]);
        let at = stats.iter().position(|frame| frame == name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8_lossy(&stats[at + 1]).parse().expect("a number")
    };
    let figures = || (figure("get_hits"), figure("get_misses"));
    client.say("MSET a 1 b 2 n 3");
    assert_eq!(figures(), (0, 0));
    for (line, counted) in [
        ("GET a", (1, 0)),
        ("GET x", (0, 1)),
        ("MGET a x b", (2, 1)),
        ("MGETS a x x", (1, 2)),
        ("GETEX a PERSIST", (1, 0)),
        ("GETEX x TTL 5", (0, 1)),
        ("GETDEL b", (1, 0)),
        ("GETDEL b", (0, 1)),
        ("EXISTS a x", (0, 0)),
        ("TTL a", (0, 0)),
        ("TOUCH x 5", (0, 0)),
        ("SET a 2 XX", (0, 0)),
        ("INCR n", (0, 0)),
        ("APPEND x 2", (0, 0)),
        ("DELIF a 1", (0, 0)),
        ("SCAN 0", (0, 0)),
    ] {
        let before = figures();
        client.say(line);
        let after = figures();
        assert_eq!((after.0 - before.0, after.1 - before.1), counted, "{line}");
    }
    let before = figures();
    let pickled = daemon.client();
    pickled.call(&[b"(Vget\nVa\nNt."]);
    pickled.call(&[b"(Vget\nVx\nNt."]);
    assert_eq!(figures(), (before.0 + 1, before.1 + 1));
}

#[test]
fn msets_is_all_or_nothing_across_a_crash_and_at_the_memory_limit() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    assert_eq!(client.say("MSETS TTL 600000 KEYS a 1 3 KEYS 2 0"), "OK 2");
    daemon.kill();
    let daemon = store.launch().option("--max-memory", "1MiB").option("--eviction", "none").start();
    let client = daemon.client();
    assert_eq!(client.say("MGETS a KEYS"), "OK 1 1 1 3 1 2 2 0");
    assert!(number(&client.say("TTL a")) > 0, "one deadline for all");
    let large = vec![b'v'; 600 * 1024];
    let refused = client.call(&[b"MSETS", b"KEYS", b"a", &large, b"0", b"b", &large, b"0"]);
    assert_eq!(refused[1], b"NOMEM", "{}", words(&refused));
    assert_eq!(client.say("MGETS a b"), "OK 1 1 1 3 0   ");
}
