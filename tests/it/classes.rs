//! What [`Command::class`] says of each verb is what comes of it: on a full disk, without memory, of what is pending, a second
//! time, in every dialect.

use crate::packed_codec::message;
use kvd::command::{
    Absent, Answerer, Class, Command, Condition, End, ErrorCode, Expiry, Limits, NewCounter, NewEntry, Reads, Repeat,
    Reply, SetOptions, Writes,
};
use kvd::engine::{Engine, MemoryLimit, View};
use kvd::mutation::Key;
use kvd::table::Table;
use kvd::wire::{Asked, Dialect, frames, packed};
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { max_value: 64 };
const NOW: u64 = 1_000;

const K: Key<'static> = Key::bytes(b"k");
const L: Key<'static> = Key::bytes(b"l");

/// Each verb as a line of frames and as what it is decoded to, with the options that its class depends on. `k` is there with
/// version 1 and the value 7, `l` with version 2.
fn samples() -> Vec<(&'static str, Command<'static>)> {
    let set = |condition| Command::Set {
        key: K,
        value: b"9".into(),
        options: SetOptions { condition, ..SetOptions::default() },
    };
    let incr = |absent| Command::Increment { key: K, delta: 1, absent };
    let made = NewCounter { initial: 5, expiry: Expiry::At(9_000), flags: 3 };
    let entries = [K, L].map(|key| NewEntry { key, value: b"9", flags: 3 }).to_vec();
    vec![
        ("PING", Command::Ping),
        ("GET k", Command::Get { key: K }),
        ("SET k 9", set(Condition::Always)),
        ("SET k 9 XX", set(Condition::Present)),
        ("SET k 9 IF 1", set(Condition::Version(1))),
        ("SET n 9 NX", {
            let options = SetOptions { condition: Condition::Absent, ..SetOptions::default() };
            Command::Set { key: Key::bytes(b"n"), value: b"9".into(), options }
        }),
        ("DEL k l", Command::Delete { keys: vec![K, L] }),
        ("EXISTS k l", Command::Exists { keys: vec![K, L] }),
        ("MGET k l", Command::GetMany { keys: vec![K, L] }),
        ("MGETS k l", Command::GetEntries { keys: vec![K, L] }),
        ("MSET k 9 l 9", Command::SetMany { pairs: vec![(K, b"9"), (L, b"9")] }),
        ("MSETS TTL 5 KEYS k 9 3 l 9 3", Command::SetEntries { entries, expiry: Expiry::In(5) }),
        ("INCR k", incr(Absent::default())),
        ("INCR k 1 XX", incr(Absent::Miss)),
        ("INCR k 1 INIT 5 FLAGS 3 AT 9000", incr(Absent::Make(made))),
        ("APPEND k 9", Command::Extend { key: K, bytes: b"9", end: End::Back }),
        ("PREPEND k 9", Command::Extend { key: K, bytes: b"9", end: End::Front }),
        ("TOUCH k 5", Command::Touch { key: K, expiry: Expiry::In(5) }),
        ("GETEX k AT 9000", Command::GetTouch { key: K, expiry: Expiry::At(9_000) }),
        ("TTL k", Command::TimeToLive { key: K }),
        ("GETDEL k", Command::GetDelete { key: K }),
        ("DELIF k 1", Command::DeleteIf { key: K, version: 1 }),
        ("SCAN 0", Command::Scan { cursor: 0, prefix: b"", count: 100 }),
        ("COUNT", Command::Count),
        ("FLUSH", Command::Flush { prefix: None }),
        ("SYNC", Command::Sync),
        ("COMPACT", Command::Compact),
        ("STATS", Command::Stats),
        ("VERSION", Command::Version),
    ]
}

/// A number for each verb: a new one belongs into [`samples`].
fn number(command: &Command<'_>) -> usize {
    match command {
        Command::Ping => 0,
        Command::Get { .. } => 1,
        Command::Set { .. } => 2,
        Command::Delete { .. } => 3,
        Command::Exists { .. } => 4,
        Command::GetMany { .. } => 5,
        Command::SetMany { .. } => 6,
        Command::Increment { .. } => 7,
        Command::Extend { .. } => 8,
        Command::Touch { .. } => 9,
        Command::TimeToLive { .. } => 10,
        Command::GetDelete { .. } => 11,
        Command::Scan { .. } => 12,
        Command::Count => 13,
        Command::Flush { .. } => 14,
        Command::Sync => 15,
        Command::Compact => 16,
        Command::Stats => 17,
        Command::Version => 18,
        Command::GetEntries { .. } => 19,
        Command::SetEntries { .. } => 20,
        Command::DeleteIf { .. } => 21,
        Command::GetTouch { .. } => 22,
    }
}

const VERBS: usize = 23;

#[test]
fn every_verb_is_a_sample() {
    let numbers: BTreeSet<usize> = samples().iter().map(|(_, command)| number(command)).collect();
    assert_eq!(numbers, (0..VERBS).collect());
}

/// An engine in which `k` and `l` are durable.
fn engine() -> Engine {
    let mut engine = Engine::new(Table::new(7), 1, LIMITS);
    let pairs = vec![(K, &b"7"[..]), (L, b"8")];
    ask(&mut engine, View::Pending, &Command::SetMany { pairs });
    commit(&mut engine);
    engine
}

fn commit(engine: &mut Engine) {
    let batch = engine.close_batch();
    engine.commit(batch, &mut |_, _| ());
}

/// The reply in full, and whether it waits for what is pending.
fn ask(engine: &mut Engine, view: View, command: &Command<'_>) -> (String, bool) {
    let evaluation = engine.evaluate(command, NOW, view, &mut |_, _| ());
    (format!("{:?}", evaluation.reply), evaluation.after.is_some())
}

fn is_refused(engine: &mut Engine, command: &Command<'_>, wanted: ErrorCode) -> bool {
    let evaluation = engine.evaluate(command, NOW, View::Durable, &mut |_, _| ());
    matches!(evaluation.reply, Reply::Error(code, _) if code == wanted)
}

/// What is stored: values, flags and deadlines, but no versions.
fn state(engine: &Engine) -> BTreeMap<Vec<u8>, (Vec<u8>, u32, u64)> {
    let row = |entry: &kvd::table::Entry| (entry.value().to_vec(), entry.flags(), entry.deadline());
    engine.table().iter().map(|entry| (entry.key().bytes.to_vec(), row(entry))).collect()
}

#[test]
fn the_engine_answers_what_it_is_said_to_answer() {
    for (line, command) in samples() {
        let is_ours = command.class().answerer == Answerer::Engine;
        assert_eq!(is_refused(&mut engine(), &command, ErrorCode::Internal), !is_ours, "{line}");
    }
}

#[test]
fn a_full_disk_refuses_what_stores_values_and_nothing_else() {
    for (line, command) in samples() {
        let mut engine = engine();
        engine.set_full(true);
        let stores = matches!(command.class().writes, Writes::Values(_));
        assert_eq!(is_refused(&mut engine, &command, ErrorCode::NoSpace), stores, "{line}");
    }
}

#[test]
fn a_lack_of_memory_refuses_what_stores_values_and_nothing_else() {
    for (line, command) in samples() {
        for evicts in [false, true] {
            let mut engine = engine().with_memory_limit(MemoryLimit { bytes: 1, evicts }, 1);
            let stores = matches!(command.class().writes, Writes::Values(_));
            assert_eq!(is_refused(&mut engine, &command, ErrorCode::NoMemory), stores, "{line}");
        }
    }
}

#[test]
fn no_verb_stores_more_than_its_class_says() {
    for (line, command) in samples() {
        let mut engine = engine();
        let growth = engine.growth(&command).map_or((0, 0), |growth| (growth.entries, growth.bytes));
        let mut stored = (0, 0);
        engine.evaluate(&command, NOW, View::Durable, &mut |_, mutation| {
            if let kvd::mutation::Mutation::Put { key, value } = mutation {
                stored = (stored.0 + 1, stored.1 + key.bytes.len() + value.bytes.len());
            }
        });
        assert!(stored.0 <= growth.0 && stored.1 <= growth.1, "{line}: {stored:?} of {growth:?}");
        assert_eq!(stored.0, growth.0, "{line}");
    }
}

#[test]
fn what_is_pending_is_seen_by_what_reads_it() {
    for (line, command) in samples() {
        let Class { reads, writes, answerer, .. } = command.class();
        if answerer != Answerer::Engine {
            continue;
        }
        let pending = |view| {
            let mut engine = engine();
            ask(&mut engine, View::Durable, &Command::SetMany { pairs: vec![(K, b"70"), (L, b"80")] });
            ask(&mut engine, view, &command)
        };
        let ((_, waits), (_, waits_pending)) = (pending(View::Durable), pending(View::Pending));
        let writes = writes != Writes::Nothing;
        assert_eq!(waits, writes, "{line}");
        assert_eq!(waits_pending, writes || reads != Reads::Nothing, "{line}");
        let shows = |key: &[u8]| match reads {
            Reads::Key(read) => read.bytes == key,
            Reads::Keys(read) => read.iter().any(|read| read.bytes == key),
            Reads::Nothing | Reads::Entries | Reads::Number => false,
        };
        // What it reads tells the difference, wherever versions or values are told.
        if shows(b"k") && !writes && !matches!(command, Command::Exists { .. } | Command::TimeToLive { .. }) {
            assert_ne!(pending(View::Durable).0, pending(View::Pending).0, "{line}");
        }
    }
}

#[test]
fn a_repeat_does_what_is_said_of_it() {
    for (line, command) in samples() {
        let class = command.class();
        if class.answerer != Answerer::Engine {
            continue;
        }
        let mut engine = engine();
        let status = |reply: &str| reply.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
        let (first, _) = ask(&mut engine, View::Pending, &command);
        commit(&mut engine);
        let once = state(&engine);
        let (second, _) = ask(&mut engine, View::Pending, &command);
        commit(&mut engine);
        let is_left = state(&engine) == once;
        let is_told = status(&first) == status(&second);
        let repeat = match (is_left, is_told) {
            (true, true) => Repeat::Same,
            // What was there is told once.
            (true, false) if first.starts_with("Value") => Repeat::Twice,
            (true, false) => Repeat::Denied,
            (false, _) => Repeat::Twice,
        };
        assert_eq!(class.repeat, repeat, "{line}: {first}, {second}");
    }
}

#[test]
fn a_verb_is_the_same_in_frames_and_packed_and_weighs_as_much() {
    for (line, command) in samples() {
        let body: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(frames::decode(&body, &LIMITS).as_ref(), Ok(&command), "{line}");
        let packed = message(std::slice::from_ref(&command));
        let list = packed::decode(&packed, &LIMITS).expect(line);
        // A command counts for one, and what it lists beside that.
        let listed = if command.class().weight == 1 { 0 } else { command.class().weight };
        assert_eq!(list.weight(), 1 + listed, "{line}");
        let decoded: Vec<_> = list.collect();
        assert_eq!(decoded, [Ok(command)], "{line}");
    }
}

#[test]
fn the_pickle_dialect_has_a_get_and_a_set() {
    for (message, reads, stores) in [(&b"(Vget\nVk\nNt."[..], true, false), (b"(Vset\nVk\nI7\nt.", false, true)] {
        let (body, mut scratch) = ([message], Vec::new());
        let asked = Dialect::of(&body).decode(&body, &LIMITS, &mut scratch).expect("a request");
        let Asked::One(command) = asked else { panic!("{asked:?}") };
        let class = command.class();
        assert_eq!((class.reads == Reads::Key(K), matches!(class.writes, Writes::Values(_))), (reads, stores));
    }
}
