//! The packed dialect against a real daemon: every command, order, what one message may hold, what is refused and at
//! whose cost, and a client written from nothing but `docs/protocol.md`.

use crate::daemon::{Client, Daemon, Launch, Store};
use crate::packed_codec::{Told, message, replies};
use crate::readme::{fenced, printed_by, text_of};
use crate::small_disk::{FileSystem, SmallDisk};
use kvd::command::{Absent, Command, Condition, End, Expiry, MAX_PACKED_COMMANDS, SetOptions};
use kvd::mutation::{Key, PICKLED};
use std::fs;
use std::path::Path;

const OPTIONS: SetOptions = SetOptions { expiry: Expiry::Never, condition: Condition::Always, flags: 0 };

fn key(name: &str) -> Key<'_> {
    Key::bytes(name.as_bytes())
}

fn get(name: &str) -> Command<'_> {
    Command::Get { key: key(name) }
}

fn set<'a>(name: &'a str, value: &'a str) -> Command<'a> {
    Command::Set { key: key(name), value: value.as_bytes().into(), options: OPTIONS }
}

fn flush(prefix: &str) -> Command<'_> {
    Command::Flush { prefix: Some(prefix.as_bytes()) }
}

/// Sends a packed message, whatever it holds.
fn send(client: &Client, message: &[u8]) {
    client.send(&[message]);
}

/// The next reply, which must be packed.
fn hear(client: &Client) -> Vec<Told> {
    let frames = client.recv();
    assert_eq!(frames.len(), 1, "one frame");
    replies(&frames[0]).unwrap_or_else(|| panic!("no list of replies: {}", frames[0].escape_ascii()))
}

fn ask(client: &Client, commands: &[Command<'_>]) -> Vec<Told> {
    send(client, &message(commands));
    hear(client)
}

fn value(bytes: &str, version: u64) -> Told {
    Told::Value { bytes: bytes.into(), version, flags: 0 }
}

/// Shortens errors to their code.
fn code(told: &Told) -> Option<&str> {
    if let Told::Error { code, message } = told {
        assert!(!message.is_empty(), "an error says what is wrong");
        return Some(code);
    }
    None
}

fn codes(told: &[Told]) -> Vec<Option<&str>> {
    told.iter().map(code).collect()
}

#[test]
fn every_command() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let options = SetOptions { condition: Condition::Absent, flags: PICKLED | 5, ..OPTIONS };
    let expires = SetOptions { expiry: Expiry::In(1 << 40), condition: Condition::Version(1), ..OPTIONS };
    let told = ask(
        &client,
        &[
            Command::Ping,
            set("k", "v"),
            Command::Set { key: key("k"), value: b"w".into(), options },
            Command::Set { key: key("pickled"), value: b"p".into(), options },
            get("pickled"),
            Command::Set { key: key("k"), value: b"w".into(), options: expires },
            Command::Set { key: key("k"), value: b"x".into(), options: expires },
            Command::Set {
                key: key("none"),
                value: b"x".into(),
                options: SetOptions { condition: Condition::Present, ..OPTIONS },
            },
            Command::SetMany { pairs: vec![(key("a"), b"1"), (key("b"), b"")] },
            Command::GetMany { keys: vec![key("a"), key("none"), key("b"), key("k")] },
            Command::Exists { keys: vec![key("a"), key("a"), key("none")] },
            Command::Increment { key: key("a"), delta: -43, absent: Absent::default() },
            Command::Extend { key: key("b"), bytes: b"yz", end: End::Back },
            Command::Extend { key: key("b"), bytes: b"x", end: End::Front },
            Command::Extend { key: key("none"), bytes: b"x", end: End::Front },
            Command::Touch { key: key("k"), expiry: Expiry::Never },
            Command::TimeToLive { key: key("k") },
            Command::TimeToLive { key: key("none") },
            Command::GetDelete { key: key("b") },
            Command::Count,
            Command::Delete { keys: vec![key("a"), key("none")] },
            Command::Scan { cursor: 0, prefix: b"k", count: 10 },
            Command::Flush { prefix: None },
            Command::Compact,
            Command::Sync,
            Command::Version,
        ],
    );
    let expected = [
        Told::Pong,
        Told::Stored(1),
        Told::Exists,
        Told::Stored(2),
        Told::Value { bytes: b"p".to_vec(), version: 2, flags: PICKLED | 5 },
        Told::Stored(3),
        Told::Conflict(3),
        Told::Miss,
        Told::Stored(5),
        Told::Values(vec![Some(b"1".to_vec()), None, Some(Vec::new()), Some(b"w".to_vec())]),
        Told::Number(2),
        Told::Number(-42),
        Told::Number(2),
        Told::Number(3),
        Told::Miss,
        Told::Done,
        Told::Number(-1),
        Told::Miss,
        value("xyz", 8),
        Told::Number(3),
        Told::Number(1),
        Told::Page { cursor: 0, keys: vec![b"k".to_vec()] },
        Told::Number(2),
        Told::Done,
        Told::Number(12),
        Told::Version { kvd: env!("CARGO_PKG_VERSION").into(), protocol: 2 },
    ];
    assert_eq!(told, expected);
    assert_eq!(client.say("COUNT"), "OK 0");
}

#[test]
fn stats_stand_in_a_list_and_count_its_commands() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let told = ask(&client, &[get("k"), get("k"), get(""), set("k", "v"), Command::Stats]);
    assert_eq!(codes(&told), [None, None, Some("BADARG"), None, None]);
    let Told::Stats(figures) = &told[4] else { panic!("no figures: {:?}", told[4]) };
    let figure = |name: &str| figures.iter().find(|(figure, _)| figure == name).map(|(_, figure)| figure.as_str());
    assert_eq!(figure("commands_get"), Some("2"));
    assert_eq!(figure("commands_set"), Some("1"));
    assert_eq!(figure("commands_stats"), Some("1"));
    assert_eq!(figure("commands_refused"), Some("1"));
    assert_eq!(figure("peers"), Some("1"));
}

#[test]
fn each_command_sees_those_before_it_in_whatever_dialect() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    for n in 0..100 {
        let text = n.to_string();
        send(
            &client,
            &message(&[
                set("k", &text),
                get("k"),
                Command::Increment { key: key("n"), delta: 1, absent: Absent::default() },
            ]),
        );
        client.send_words("GET k");
        client.send_words("APPEND k !");
        send(&client, &message(&[get("k"), Command::Delete { keys: vec![key("k")] }, get("k")]));
        client.send_words("EXISTS k");
    }
    for n in 0..100_i64 {
        let version = 4 * n.cast_unsigned() + 1;
        assert_eq!(hear(&client), [Told::Stored(version), value(&n.to_string(), version), Told::Number(n + 1)]);
        assert_eq!(client.hear(), format!("OK {n} {version} 0"));
        assert_eq!(client.hear(), format!("OK {}", n.to_string().len() + 1));
        assert_eq!(hear(&client), [value(&format!("{n}!"), version + 2), Told::Number(1), Told::Miss]);
        assert_eq!(client.hear(), "OK 0");
    }
}

#[test]
fn a_list_of_as_many_commands_as_may_be() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    let names: Vec<_> = (0..MAX_PACKED_COMMANDS).map(|n| format!("k{n}")).collect();
    let sets = message(&names.iter().map(|name| set(name, name)).collect::<Vec<_>>());
    let gets = message(&names.iter().map(|name| get(name)).collect::<Vec<_>>());
    for _ in 0..3 {
        send(&client, &sets);
        send(&client, &gets);
    }
    for round in 0..3 {
        let first = round * MAX_PACKED_COMMANDS as u64 + 1;
        let stored: Vec<_> = (first..).take(names.len()).map(Told::Stored).collect();
        assert!(hear(&client) == stored, "round {round}");
        let values: Vec<_> = names.iter().zip(first..).map(|(name, version)| value(name, version)).collect();
        assert!(hear(&client) == values, "round {round}");
    }
    daemon.kill();
    let daemon = store.start();
    assert_eq!(daemon.client().say("COUNT"), format!("OK {MAX_PACKED_COMMANDS}"), "what was answered is on disk");

    let client = daemon.client();
    assert_eq!(ask(&client, &[]), []);
    let more = vec![set("more", "v"); MAX_PACKED_COMMANDS + 1];
    assert_eq!(codes(&ask(&client, &more)), [Some("TOOBIG")]);
    assert_eq!(client.say("EXISTS more"), "OK 0", "nothing of it was executed");
}

#[test]
fn bytes_that_are_no_list_cost_nothing() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let good = message(&[set("k", "v"), set("l", "w")]);
    let cuts = (1..good.len()).map(|end| (good[..end].to_vec(), "BADARG"));
    let longer = [&good[..], b"x"].concat();
    let mut unknown = message(&[set("k", "v"), Command::Version]);
    *unknown.last_mut().expect("a byte") = 200;
    for (bytes, expected) in cuts.chain([(longer, "BADARG"), (unknown, "BADCMD")]) {
        send(&client, &bytes);
        assert_eq!(codes(&hear(&client)), [Some(expected)], "{bytes:?}");
    }
    assert_eq!(client.say("COUNT"), "OK 0", "nothing of them was executed");
    assert_eq!(ask(&client, &[set("k", "v")]).len(), 1, "the connection lives on");
}

#[test]
fn a_bad_command_among_good_ones() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "100").start();
    let client = daemon.client();
    let (long, large) = ("k".repeat(65_537), "v".repeat(101));
    let told = ask(
        &client,
        &[
            set("a", "1"),
            get(""),
            set("word", "v"),
            Command::Increment { key: key("word"), delta: 1, absent: Absent::default() },
            set(&long, "v"),
            set("large", &large),
            Command::GetMany { keys: Vec::new() },
            Command::SetMany { pairs: vec![(key("b"), b"1"), (key(""), b"2")] },
            set("c", "3"),
        ],
    );
    let expected = [
        None,
        Some("BADARG"),
        None,
        Some("NOTINT"),
        Some("TOOBIG"),
        Some("TOOBIG"),
        Some("BADARG"),
        Some("BADARG"),
        None,
    ];
    assert_eq!(codes(&told), expected);
    assert_eq!(client.say("MGET a b c word large"), "OK 1 1 0  1 3 1 v 0 ");
}

#[test]
fn several_flushes_in_a_list_each_tell_their_own_number() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.dealer();
    for (prefix, keys) in [("a:", 700), ("b:", 30), ("ab", 5)] {
        let names: Vec<_> = (0..keys).map(|n| format!("{prefix}{n}")).collect();
        ask(&client, &[Command::SetMany { pairs: names.iter().map(|name| (key(name), &b"v"[..])).collect() }]);
    }
    for _ in 0..2 {
        send(&client, &message(&[flush("b:"), get("b:1"), flush("a:"), set("a:1", "new"), flush("c:"), get("a:1")]));
    }
    client.send_words("GET a:1");
    let at = 700 + 30 + 5 + 1;
    let expected =
        |b, a, at| [Told::Number(b), Told::Miss, Told::Number(a), Told::Stored(at), Told::Number(0), value("new", at)];
    assert_eq!(hear(&client), expected(30, 700, at + 2));
    assert_eq!(hear(&client), expected(0, 1, at + 6));
    assert_eq!(client.hear(), format!("OK new {} 0", at + 6));
    // A list of it that is long enough to have a buffer of its own.
    let padding = "p".repeat(20_000);
    let told = ask(&client, &[set("pad", &padding), flush("ab"), get("pad"), flush("a")]);
    assert_eq!((&told[1], &told[3]), (&Told::Number(5), &Told::Number(1)));
    assert_eq!(told[2], value(&padding, at + 8));
}

#[test]
fn a_list_of_replies_has_an_end_and_so_has_one_reply() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "64KiB").start();
    let client = daemon.client();
    let most = (2 << 16) + (1 << 20);
    let large = "v".repeat(1 << 16);
    ask(&client, &[set("large", &large)]);
    let mut list = vec![get("large"); 40];
    list.push(set("late", "v"));
    list.push(Command::Ping);
    let told = ask(&client, &list);
    assert_eq!(told.len(), list.len());
    let fits = most / (1 << 16);
    assert!(told[..fits].iter().all(|told| *told == value(&large, 1)), "values up to the limit");
    assert!(told[fits..].iter().all(|told| code(told) == Some("TOOBIG")), "and not beyond");
    assert_eq!(client.say("EXISTS late"), "OK 0", "what is not answered is not executed");

    let names = |times| Command::GetMany { keys: vec![key("large"); times] };
    assert_eq!(
        codes(&ask(&client, &[names(fits), names(fits + 1), Command::Ping])),
        [None, Some("TOOBIG"), Some("TOOBIG")]
    );
    assert_eq!(codes(&ask(&client, &[names(fits + 1), Command::Ping])), [Some("TOOBIG"), None]);
    assert!(client.say(&format!("MGET{}", " large".repeat(fits + 1))).starts_with("ERR TOOBIG "), "in frames as well");
}

#[test]
fn what_a_list_writes_has_an_end() {
    let store = Store::new();
    let daemon = store.launch().option("--max-value", "64KiB").start();
    let client = daemon.client();
    let large = "v".repeat(1 << 16);
    let names: Vec<_> = (0..17).map(|n| format!("k{n}")).collect();
    let told = ask(&client, &names.iter().map(|name| set(name, &large)).collect::<Vec<_>>());
    assert!(told.iter().all(|told| matches!(told, Told::Stored(_))), "what a message has may be stored");

    let touch = Command::Touch { key: key("k0"), expiry: Expiry::In(1_000_000) };
    let told = ask(&client, &[vec![touch; 1000], vec![Command::Ping]].concat());
    let done = told.iter().take_while(|told| **told == Told::Done).count();
    assert!((17..200).contains(&done), "{done} values were recorded anew");
    assert!(told[done..].iter().all(|told| code(told) == Some("TOOBIG")));
    assert_eq!(client.say("INCR n"), "OK 1");
    let stored = names.len() + done;
    assert_eq!(client.say("GET n"), format!("OK 1 {} 0", stored + 1), "what was refused was not recorded");
}

#[test]
fn a_list_holds_a_bounded_number_of_commands_that_look_at_much() {
    let store = Store::new();
    let daemon = store.start();
    let client = daemon.client();
    let scan = Command::Scan { cursor: 0, prefix: b"x", count: 10 };
    for (command, most) in [(scan, 512), (Command::Count, 256), (flush("x"), 256)] {
        assert_eq!(ask(&client, &vec![command.clone(); most]).len(), most);
        let told = ask(&client, &vec![command; most + 1]);
        assert_eq!(codes(&told), [Some("TOOBIG")]);
    }
}

#[test]
fn a_sync_and_a_later_write_in_one_list() {
    for policy in ["never", "1h", "always"] {
        let store = Store::new();
        let daemon = store.launch().option("--fsync", policy).start();
        let client = daemon.dealer();
        let list = message(&[set("a", "1"), Command::Sync, set("b", "2"), Command::Sync, set("c", "3")]);
        for _ in 0..20 {
            send(&client, &list);
        }
        for round in 0..20 {
            let at = 3 * round + 1;
            let durable = |version: u64| Told::Number(version.cast_signed());
            let expected = [Told::Stored(at), durable(at), Told::Stored(at + 1), durable(at + 1), Told::Stored(at + 2)];
            assert_eq!(hear(&client), expected, "--fsync {policy}");
        }
    }
}

/// Pipelines lists until the disk is full, and returns what was told. Each list looks at what was there before, writes
/// twice, and looks again.
fn fill(client: &Client) -> Vec<[Told; 5]> {
    let padding = "p".repeat(8 * 1024);
    let mut told: Vec<[Told; 5]> = Vec::new();
    while told.iter().filter(|told| code(&told[1]).is_some()).count() < 20 {
        let start = told.len();
        assert!(start < 20_000, "the disk never fills up");
        for n in start..start + 8 {
            let (name, pad) = (format!("n:{n}"), format!("pad:{n}"));
            send(
                client,
                &message(&[
                    get("keep"),
                    set(&name, "41"),
                    set(&pad, &padding),
                    get("keep"),
                    Command::Increment { key: key(&name), delta: 1, absent: Absent::default() },
                ]),
            );
        }
        told.extend((0..8).map(|_| <[Told; 5]>::try_from(hear(client)).expect("five replies")));
    }
    told
}

#[test]
fn a_full_disk_refuses_the_writes_of_a_list_and_leaves_the_rest() {
    let store = Store::new();
    let Some(disk) = SmallDisk::mount(&store, FileSystem::Tmpfs, 4 << 20) else { return };
    let launch = Launch::on(&disk.data_dir()).segment_size("64KiB");
    let daemon = launch.start();
    let client = daemon.dealer();
    assert_eq!(ask(&client, &[set("keep", "it")]), [Told::Stored(1)]);
    let told = fill(&client);
    assert!(told.iter().any(|told| code(&told[1]).is_none()), "nothing fits on this disk");
    for (n, told) in told.iter().enumerate() {
        let keep = value("it", 1);
        assert_eq!((&told[0], &told[3]), (&keep, &keep), "list {n}: what was durable before is told all the same");
        for write in [&told[1], &told[2], &told[4]] {
            assert!(matches!(code(write), None | Some("NOSPACE")), "list {n}: {write:?}");
        }
    }
    let check = |daemon: &Daemon| {
        let client = daemon.client();
        for (n, told) in told.iter().enumerate() {
            let (name, pad) = (format!("n:{n}"), format!("pad:{n}"));
            let found = ask(&client, &[get(&name), Command::Exists { keys: vec![key(&pad)] }]);
            let expected = match (code(&told[1]), &told[4]) {
                (_, Told::Number(sum)) => Some(sum.to_string()),
                (None, _) => Some("41".to_owned()),
                (Some(_), _) => None,
            };
            match (&found[0], expected) {
                (Told::Value { bytes, .. }, Some(expected)) => assert_eq!(*bytes, expected.into_bytes(), "n:{n}"),
                (found, expected) => assert_eq!((found, expected), (&Told::Miss, None), "n:{n} was told {told:?}"),
            }
            assert_eq!(found[1], Told::Number(code(&told[2]).is_none().into()), "pad:{n} was told {told:?}");
        }
    };
    check(&daemon);
    daemon.kill();
    check(&launch.start());
}

/// The bytes of an example of the page: what stands before the words of each line.
fn hex(example: &str) -> Vec<u8> {
    let bytes = example.lines().map(|line| line.trim_start().split("  ").next().unwrap_or_default());
    let bytes = bytes.flat_map(|line| line.split(' ')).take_while(|byte| *byte != "...");
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|error| panic!("{byte}: {error}"))).collect()
}

#[test]
fn the_example_of_the_page_is_what_goes_over_the_wire() {
    let page = text_of("docs/protocol.md");
    let examples: Vec<_> = fenced(&page, "text")
        .into_iter()
        .filter(|example| example.starts_with("01  "))
        .map(|example| hex(&example))
        .collect();
    let [request, reply] = &examples[..] else { panic!("two examples, not {}", examples.len()) };
    let daemon_store = Store::new();
    let daemon = daemon_store.start();
    let client = daemon.client();
    let answer = client.call(&[request]).concat();
    assert_eq!(answer[..reply.len()], *reply);
    assert_eq!(codes(&replies(&answer).expect("a list")), [None, None, None, Some("NOTINT")]);
}

#[test]
fn a_client_written_from_the_page_alone() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/packed_client.py");
    assert!(fs::exists(&script).expect("a path"));
    let store = Store::new();
    let daemon = store.start();
    let printed = printed_by(&[script.to_str().expect("a path"), daemon.endpoint()]);
    assert_eq!(printed, "sets, gets and errors are as the page says\n");
    assert!(daemon.client().say("GET from-python").starts_with("OK packed "));
}
